// Bundles that gateways pass on: each once, in order, whoever sends it and how often.

import Base
import Testing

@testable import QueueMachine

@Suite struct RelayTests {
  let rig = Rig()
  let node = NodeID(2)

  /// A bundle that publishes one message to "q" for each of `bodies`.
  private func bundle(
    _ sequence: UInt64, process: UInt64 = 7, into payload: inout [UInt8],
    _ body: (inout [UInt8]) -> Void = { _ in }
  ) {
    let start = CommandWriter.beginRelay(
      from: node, process: process, sequence: sequence, into: &payload)
    body(&payload)
    CommandWriter.endRelay(start, into: &payload)
  }

  private func relayed(_ seen: [Seen]) -> [UInt64] {
    seen.compactMap {
      if case .plain(.topology(.relayed(_, let through))) = $0 { through } else { nil }
    }
  }

  private func publish(_ session: SessionID, into payload: inout [UInt8]) {
    run([5]).withUnsafeBytes {
      CommandWriter.route(
        session, tag: rig.tag(),
        RouteOrder(exchange: TopologyName(""), keys: [[UInt8]("q".utf8)]), count: 1, run: $0,
        into: &payload)
    }
  }

  @Test func bundleIsCarriedOutOnceAndInOrder() {
    let session = AMQPSession(rig)
    session.queue("q")
    func send(_ sequences: [UInt64]) -> [UInt64] {
      relayed(
        rig.apply { payload in
          for sequence in sequences {
            bundle(sequence, into: &payload) { publish(session.id, into: &$0) }
          }
        })
    }
    #expect(send([1]) == [1])
    #expect(session.ready("q") == 1)
    // Sent again after a change of leader, with a gap, and what fills it.
    #expect(send([1, 2]) == [1, 2])
    #expect(send([4]) == [2])
    #expect(send([2, 3, 4, 4]) == [2, 3, 4, 4])
    #expect(session.ready("q") == 4)
    #expect(rig.machine.relayed(from: node, process: 7) == 4)
  }

  @Test func recordsOfBundlesLieWhereTheySay() {
    let session = AMQPSession(rig)
    session.queue("q")
    var payload: [UInt8] = []
    CommandWriter.beginBatch(stamp: MachineTime(rig.now), into: &payload)
    bundle(1, into: &payload) { payload in
      publish(session.id, into: &payload)
      publish(session.id, into: &payload)
    }
    _ = rig.apply(payload: payload)
    let delivered = session.consume("q").deliveries
    #expect(delivered.count == 2)
    for delivery in delivered {
      let start = Int(delivery.reference.offset)
      let record = [UInt8](payload[start..<start + Int(delivery.reference.size)])
      #expect(record == run([5]))
    }
  }

  @Test func newProcessEndsTheSessionsOfTheOneBefore() {
    rig.apply { bundle(1, into: &$0) }
    let session = rig.open(
      timeout: .zero, origin: SessionOrigin(node: node, connection: 1), kind: .amqp)
    let other = rig.open(
      timeout: .zero, origin: SessionOrigin(node: NodeID(3), connection: 1), kind: .amqp)
    // Not the first of its process: it comes too late or too early.
    rig.apply { bundle(2, process: 8, into: &$0) }
    #expect(rig.machine.origin(of: session) != nil)
    let seen = rig.apply { bundle(1, process: 8, into: &$0) }
    #expect(seen.contains(.plain(.sessionEnded(session, .expired))))
    #expect(rig.machine.origin(of: other) != nil)
    rig.apply { bundle(2, process: 7, into: &$0) }
    #expect(rig.machine.relayed(from: node, process: 8) == 1)
    #expect(rig.machine.relayed(from: node, process: 7) == 0)
  }

  @Test func nodeThatIsGoneLosesItsSessions() {
    let session = rig.open(
      timeout: .zero, origin: SessionOrigin(node: node, connection: 1), kind: .amqp)
    let native = rig.open(origin: SessionOrigin(node: node, connection: 2))
    rig.apply { CommandWriter.endNodeSessions(node, into: &$0) }
    #expect(rig.machine.origin(of: session) == nil)
    #expect(rig.machine.origin(of: native) != nil)
  }

  @Test func bundlesAreCheckedBeforeTheyAreTaken() throws {
    var bytes: [UInt8] = []
    bundle(5, into: &bytes) { CommandWriter.loseSession(SessionID(1), into: &$0) }
    bundle(6, into: &bytes)
    let heads = try bytes.withUnsafeBytes { try CommandBatch.checkRelays($0, from: node) }
    #expect(heads.map(\.sequence) == [5, 6] && heads[1].range.upperBound == bytes.count)
    for count in 1..<bytes.count where count != heads[0].range.upperBound {
      #expect(throws: CommandBatchError.self) {
        try Array(bytes[..<count]).withUnsafeBytes {
          _ = try CommandBatch.checkRelays($0, from: node)
        }
      }
    }
    #expect(throws: CommandBatchError.self) {
      try bytes.withUnsafeBytes { _ = try CommandBatch.checkRelays($0, from: NodeID(9)) }
    }
    // A bundle within a bundle, and a command outside of one.
    var nested: [UInt8] = []
    bundle(1, into: &nested) { bundle(2, into: &$0) }
    var plain: [UInt8] = []
    CommandWriter.loseSession(SessionID(1), into: &plain)
    for wrong in [nested, plain] {
      #expect(throws: CommandBatchError.self) {
        try wrong.withUnsafeBytes { _ = try CommandBatch.checkRelays($0, from: node) }
      }
    }
  }
}
