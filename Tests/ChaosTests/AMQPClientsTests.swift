// AMQP clients against a node that keeps its word about nothing: it greets, says that it is there,
// confirms no publish, and delivers nothing.

import Base
import Foundation
import Glibc
import Synchronization
import Testing
import Transport

@testable import ChaosHarness

@Suite struct AMQPClientsTests {
  @Test("A confirm that never comes does not keep a publisher for ever", .timeLimit(.minutes(1)))
  func aConfirmThatNeverComes() async throws {
    let path = NSTemporaryDirectory() + "skein-recording-\(UUID().uuidString)"
    defer { unlink(path) }
    let recording = try Recording(path: path, clock: RunClock())
    let control = WorkloadControl()
    let node = try SilentNode()
    // What `settle` and the first Ctrl-C do, once a publish is on its way.
    node.serve {
      control.stopPublishing()
      control.drain()
    }
    var plan = WorkloadPlan()
    plan.amqp = 1
    plan.rate = 1000
    let clients = AMQPClients(
      plan: plan, recording: recording, control: control, seed: 1,
      addresses: ["127.0.0.1:\(node.port)"])
    try await clients.publish(0)
    #expect(!node.hadToHangUp, "the publisher waited for as long as the node said it was there")
    #expect(recording.totals.published > 0 && recording.totals.confirmed == 0)
    #expect(recording.totals.unknown == recording.totals.published)
    try recording.finish()
  }

  @Test(
    "A client whose channel or connection the node closes connects again", .timeLimit(.minutes(1)),
    arguments: [SilentNode.Closing.channel, .connection], [true, false])
  func closedByTheNode(_ closing: SilentNode.Closing, isPublisher: Bool) async throws {
    let path = NSTemporaryDirectory() + "skein-recording-\(UUID().uuidString)"
    defer { unlink(path) }
    let recording = try Recording(path: path, clock: RunClock())
    let control = WorkloadControl()
    let node = try SilentNode()
    node.serve(closing) { control.end() }
    var plan = WorkloadPlan()
    plan.amqp = 1
    plan.rate = 1000
    let clients = AMQPClients(
      plan: plan, recording: recording, control: control, seed: 1,
      addresses: ["127.0.0.1:\(node.port)"])
    if isPublisher {
      try await clients.publish(0)
    } else {
      try await clients.consume(0)
    }
    #expect(!node.hadToHangUp, "the client stayed for as long as the node said it was there")
    #expect(recording.totals.unknown == recording.totals.published)
    try recording.finish()
  }
}

/// A node that gives all answers at once, then heartbeats and nothing else.
final class SilentNode: Sendable {
  /// What it closes when it is asked for something: 406, without a text, for no method.
  enum Closing {
    case channel
    case connection

    fileprivate var method: (channel: UInt8, bytes: [UInt8]) {
      let end: [UInt8] = [1, 150, 0, 0, 0, 0, 0]
      return switch self {
      case .channel: (1, [0, 20, 0, 40] + end)
      case .connection: (0, [0, 10, 0, 50] + end)
      }
    }
  }

  let port: UInt16
  private let listener: Int32
  private let gaveUp = Atomic<Bool>(false)

  /// So many heartbeats, at least 20 ms from each other, until it is the one that hangs up.
  private static let beatsMax = 300

  init() throws {
    listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let listener = listener
    let isBound = withUnsafeMutablePointer(to: &address) { own in
      own.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(listener, $0, length) == 0 && listen(listener, 1) == 0
          && getsockname(listener, $0, &length) == 0
      }
    }
    port = UInt16(bigEndian: address.sin_port)
    guard isBound else { throw ChaosError("no port for a node") }
  }

  deinit { close(listener) }

  var hadToHangUp: Bool { gaveUp.load(ordering: .relaxed) }

  /// Serves one connection.
  ///
  /// - Parameter published: called when the first publish has come.
  func serve(_ published: @escaping @Sendable () -> Void) {
    Thread.detachNewThread { self.serveNext { _ in published() } }
  }

  /// Serves one connection, of which it closes something and goes on to say that it is there, and
  /// then another.
  ///
  /// - Parameter again: called when the other one is asked for something.
  func serve(_ closing: Closing, _ again: @escaping @Sendable () -> Void) {
    Thread.detachNewThread {
      self.serveNext { self.send(1, closing.method.channel, closing.method.bytes, to: $0) }
      self.serveNext { _ in again() }
    }
  }

  /// - Parameter asked: called with the connection when it first names the queue, to publish to it or
  ///   to consume from it.
  private func serveNext(_ asked: (Int32) -> Void) {
    let connection = accept(listener, nil, nil)
    defer { close(connection) }
    // Start, tune, open-ok of the connection; open-ok of the channel; select-ok.
    let answers: [(UInt8, [UInt8])] = [
      (0, [0, 10, 0, 10]), (0, [0, 10, 0, 30]), (0, [0, 10, 0, 41]), (1, [0, 20, 0, 11]),
      (1, [0, 85, 0, 11]),
    ]
    for (channel, method) in answers { send(1, channel, method, to: connection) }
    beat(connection, asked)
  }

  private func beat(_ connection: Int32, _ asked: (Int32) -> Void) {
    let word = Array(AMQPClients.queue.utf8)
    var heard: [UInt8] = []
    var isAsked = false
    var beats = 0
    while beats < Self.beatsMax {
      var waiting = pollfd(fd: connection, events: Int16(POLLIN), revents: 0)
      if poll(&waiting, 1, 20) > 0 {
        var piece = [UInt8](repeating: 0, count: 4096)
        let count = recv(connection, &piece, piece.count, 0)
        if count <= 0 { return }
        if !isAsked { heard += piece[..<count] }
      } else {
        send(8, 0, [], to: connection)
        beats += 1
      }
      if !isAsked, heard.firstRange(of: word) != nil {
        isAsked = true
        asked(connection)
      }
    }
    gaveUp.store(true, ordering: .relaxed)
  }

  private func send(_ type: UInt8, _ channel: UInt8, _ payload: [UInt8], to connection: Int32) {
    let frame = [type, 0, channel, 0, 0, 0, UInt8(payload.count)] + payload + [0xce]
    // SAFETY: send(2) only reads the bytes.
    _ = frame.withUnsafeBytes {
      Glibc.send(connection, $0.baseAddress, frame.count, Int32(MSG_NOSIGNAL))
    }
  }
}
