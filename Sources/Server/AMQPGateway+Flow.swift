// Publishers that are faster than the cluster, and times when it takes no publishes at all (G12, G13).
//
// Nothing is read from a connection that has its share of the relay waiting, or while the relay is
// full: TCP slows it down. If that lasts, and at once when the leader has no space, the client is told
// (connection.blocked), provided that it wants to know. Then nothing is read from it until it may go
// on, acknowledgements neither, as in RabbitMQ. Connections that only consume go on.

import AMQP
import Base
import Node

extension AMQPGateway {
  /// Bytes of publishes that one connection may have on their way.
  static let shareBytes = CommandRelay.waitingBytesMax / 4
  /// A publisher that is not read from for so long is told.
  static let heldBackPause = Nanoseconds.seconds(1)
  private static let slowReason = "publishes come faster than the cluster can store them"

  /// What all connections together may have begun and not finished: content, transactions, and publishes
  /// that wait until publishes are taken.
  static let begunBytesLimit = 256 << 20

  /// Whether nothing may be taken from the connection now, for what it publishes.
  func isHeldBack(_ client: AMQPClient) -> Bool {
    // One that is being closed has nothing more to publish.
    guard client.machine.isOpen else { return false }
    return !relay.hasRoom || client.waitingBytes >= Self.shareBytes || client.parked != nil
      || blockedBecause != nil && client.isPublisher
  }

  mutating func noteHeldBack(_ client: AMQPClient, now: MonotonicTime) {
    guard client.isPublisher, client.heldBackSince == nil else { return }
    client.heldBackSince = now
    sweepBy(now + Self.heldBackPause)
  }

  /// Whether a connection that was held back may go on. One that was over its share waits until half
  /// of it is free.
  mutating func mayGoOn(_ client: AMQPClient, now: MonotonicTime) -> Bool {
    guard client.machine.isOpen else {
      client.parked = nil
      countBegun(client)
      client.heldBackSince = nil
      return true
    }
    guard let since = client.heldBackSince else { return relay.hasRoom && !isBlocked(client) }
    guard relay.hasRoom, !isBlocked(client), client.waitingBytes <= Self.shareBytes / 2 else {
      if now.since(since) >= Self.heldBackPause { tellBlocked(client) }
      return false
    }
    client.heldBackSince = nil
    say(to: client) { machine, output, _ in machine.setBlocked(nil, output: &output) }
    return true
  }

  private func isBlocked(_ client: AMQPClient) -> Bool {
    blockedBecause != nil && (client.isPublisher || client.parked != nil)
  }

  private mutating func tellBlocked(_ client: AMQPClient) {
    let reason = blockedBecause ?? Self.slowReason
    say(to: client) { machine, output, _ in machine.setBlocked(reason, output: &output) }
  }

  /// The leader takes no publishes any more, and why, or (nil) does again.
  mutating func setBlocked(_ reason: String?, now: MonotonicTime) {
    blockedBecause = reason
    needsTurn = true
    guard reason != nil else { return }
    for token in clients.sortedKeys {
      guard let client = clients[token], client.isPublisher, client.machine.isOpen else { continue }
      noteHeldBack(client, now: now)
      tellBlocked(client)
      pause(client)
    }
  }

  /// Carries out what stands before the first publish, and keeps this one until publishes are taken.
  /// Nothing stands behind it: that was not taken from the client.
  mutating func carryOutToPublish(
    _ list: BrokerRequests, of client: AMQPClient, now: MonotonicTime, replica: inout Replica
  ) {
    guard let place = list.requests.firstIndex(where: { $0.publishes }) else {
      carryOut(list, of: client, now: now, replica: &replica)
      return
    }
    var before = list
    before.requests = Array(list.requests[..<place])
    var rest = list
    rest.requests = Array(list.requests[place...])
    carryOut(before, of: client, now: now, replica: &replica)
    guard client.phase == .open else { return }
    client.parked = rest
    client.isPublisher = true
    noteHeldBack(client, now: now)
    tellBlocked(client)
  }

  mutating func carryOutParked(
    of client: AMQPClient, now: MonotonicTime, replica: inout Replica
  ) {
    guard var list = client.parked else { return }
    client.parked = nil
    countBegun(client)
    // A lease may have run out meanwhile, and closed the channel. What was published before is
    // published, but a transaction is nobody's any more.
    list.requests.removeAll { request in
      guard case .channel(_, let channel, _) = request else { return false }
      return !client.machine.isOpen(channel)
    }
    carryOut(list, of: client, now: now, replica: &replica)
  }

  // MARK: What is begun

  /// Notes how much the connection has begun and not finished.
  mutating func countBegun(_ client: AMQPClient) {
    let bytes =
      client.phase == .open
      ? client.machine.begunBytes + (client.parked?.bytes.count ?? 0) : 0
    begunBytes += bytes - client.begunBytes
    client.begunBytes = bytes
  }

  /// To be called when something was taken from the connection. Where all together have begun too much
  /// whoever has begun most is closed: if it were only not read from, it could never finish.
  mutating func boundBegun(after client: AMQPClient, now: MonotonicTime) {
    countBegun(client)
    while begunBytes > begunBytesMax, let largest = largestBegun() {
      let fault = Fault.resource(
        "content begun and transactions of all connections are larger than \(begunBytesMax) bytes")
      log.warning("AMQP: closed \(largest.connection.peer), which has begun most: \(fault.detail)")
      largest.parked = nil
      say(to: largest) { machine, output, requests in
        machine.close(fault, now: now, output: &output, requests: &requests)
      }
      countBegun(largest)
    }
  }

  private func largestBegun() -> AMQPClient? {
    var largest: AMQPClient?
    for token in clients.sortedKeys {
      guard let client = clients[token], client.begunBytes > largest?.begunBytes ?? 0 else {
        continue
      }
      largest = client
    }
    return largest
  }
}
