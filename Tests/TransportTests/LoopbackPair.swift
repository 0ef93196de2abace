// Two connections of this process with one another over loopback, and the hand that turns their
// loop.

import Base
import Glibc
import Testing

@testable import Transport

/// A poller with a listener and what was accepted and connected through it.
final class LoopbackPair {
  let poller: Poller
  let pool = BufferPool()
  let listener: Listener
  /// The end that connected, token 1.
  let client: Connection
  /// The end that was accepted, token 2.
  let server: Connection
  private var events: [PollEvent] = []

  init(_ options: ConnectionOptions = ConnectionOptions()) throws {
    poller = try Poller()
    listener = try Listener(.loopback(port: 0))
    let now = MonotonicTime(0)
    client = try Connection.connect(
      to: listener.address, options: options, pool: pool, now: now)
    try client.register(with: poller, token: 1, interest: .write)
    try poller.add(listener.descriptor, token: 3, interest: .read)
    var accepted: [Connection] = []
    while accepted.isEmpty || client.isConnecting {
      poller.wait(timeout: .seconds(10), into: &events)
      guard !events.isEmpty else { throw Stuck() }
      for event in events {
        if event.token == 3 {
          let outcome = listener.accept(
            limit: 1, options: options, pool: pool, now: now, into: &accepted)
          #expect(outcome == .more)
        } else if client.isConnecting {
          #expect(client.finishConnect() == .connected)
          client.setInterest([], poller: poller)
        }
      }
    }
    server = accepted[0]
    try server.register(with: poller, token: 2, interest: [])
    poller.remove(listener.descriptor)
  }

  /// Nothing happened for ten seconds: a hang is a failure, not a wait for ever.
  struct Stuck: Error {}

  /// Waits for an event of `connection`, watching it for `interest` only meanwhile.
  func wait(for connection: Connection, _ interest: Interest) throws -> PollEvent {
    let before = connection.interest
    connection.setInterest(interest, poller: poller)
    defer { connection.setInterest(before, poller: poller) }
    while true {
      poller.wait(timeout: .seconds(10), into: &events)
      guard !events.isEmpty else { throw Stuck() }
      if let event = events.first(where: { $0.token == connection.token }) { return event }
    }
  }

  /// All that is ready now or within ten seconds.
  func waitForAny() throws -> [PollEvent] {
    poller.wait(timeout: .seconds(10), into: &events)
    guard !events.isEmpty else { throw Stuck() }
    return events
  }

  /// Reads on `connection` until `count` bytes are unread.
  func read(_ connection: Connection, until count: Int, now: MonotonicTime = .zeroTime) throws {
    while connection.unreadBytes < count {
      _ = try wait(for: connection, .read)
      guard case .read = connection.read(now: now) else { throw Stuck() }
    }
  }

  /// Reads and consumes until `count` bytes have come, while `sender` flushes what it has.
  func transfer(from sender: Connection, to receiver: Connection, count: Int) throws -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count)
    while bytes.count < count {
      if case .failed = sender.flush(now: .zeroTime) { throw Stuck() }
      _ = try wait(for: receiver, .read)
      guard case .read = receiver.read(now: .zeroTime) else { throw Stuck() }
      bytes.append(contentsOf: receiver.unread)
      receiver.consume(receiver.unreadBytes)
    }
    return bytes
  }
}

extension MonotonicTime {
  static var zeroTime: MonotonicTime { MonotonicTime(0) }
}

/// `count` bytes that differ from place to place.
func pattern(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
  var random = SeededRandom(seed: seed)
  var bytes: [UInt8] = []
  bytes.reserveCapacity(count + 8)
  while bytes.count < count { bytes.put(random.next()) }
  bytes.removeLast(bytes.count - count)
  return bytes
}

/// Whether the bytes are the same, fast also in a debug build.
func isSame(_ left: UnsafeRawBufferPointer, _ right: [UInt8]) -> Bool {
  right.withUnsafeBytes {
    guard left.count == $0.count else { return false }
    guard let one = left.baseAddress, let other = $0.baseAddress else { return true }
    return memcmp(one, other, left.count) == 0
  }
}
