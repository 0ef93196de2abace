import Base
import Testing
import Transport
import Wire

@testable import SkeinClient

@Suite(.timeLimit(.minutes(1))) struct TransactionTests {
  /// What a transaction frame says.
  struct Seen: Equatable {
    var first: UInt64
    var holder: UInt64
    var acknowledged: [DeliveryRange] = []
    var queues: [Int] = []
    var bodies: [[String]] = []
  }

  private func read(_ received: Received) throws -> Seen {
    try received.read { frame in
      guard case .transact(let view) = frame else { throw WrongFrame(kind: .transact) }
      var seen = Seen(first: view.first.rawValue, holder: view.holder.rawValue)
      seen.acknowledged = view.settles.flatMap(\.ranges)
      for (place, part) in view.parts.enumerated() {
        seen.queues.append(part.queues.count)
        var bodies: [String] = []
        let run = view.run(of: place)
        var offset = 0
        while offset < run.count {
          let size = MessageRecord.size(in: run, at: offset)
          let record = UnsafeRawBufferPointer(rebasing: run[offset..<offset + size])
          bodies.append(String(decoding: try MessageRecord.parts(of: record).body, as: UTF8.self))
          offset += size
        }
        seen.bodies.append(bodies)
      }
      return seen
    }
  }

  private func range(_ first: UInt64, _ last: UInt64) -> DeliveryRange {
    DeliveryRange(first: DeliveryID(first), last: DeliveryID(last))
  }

  private func confirm(_ node: FakeNode, _ first: UInt64, _ count: UInt32, copies: UInt32 = 1) {
    node.send(
      .confirmed(
        first: PublishSequence(first), count: count, message: MessageID(1 << 20), copies: copies))
  }

  @Test func `A message for several queues has an id in each`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publishing = Task { try await client.publish(Message("m"), toAll: ["a", "b", "c"]) }
    let seen = try read(await node.take(.transact))
    #expect(seen == Seen(first: 1, holder: 0, queues: [3], bodies: [["m"]]))
    confirm(node, 1, 1, copies: 3)
    let receipt = try await publishing.value
    #expect(receipt.copies == 3 && receipt.ids.map(\.description) == ["1-0", "1-1", "1-2"])
    #expect(receipt.reference.sequence == 1)
    await client.close()
  }

  @Test func `Messages for the same queues are one part and keep their order`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publishing = Task {
      try await client.publishAll([
        OutgoingMessage(Message("1"), to: ["a", "b"]),
        OutgoingMessage(Message("2"), to: ["a", "b"]), OutgoingMessage(Message("3"), to: "a"),
      ])
    }
    let seen = try read(await node.take(.transact))
    #expect(seen == Seen(first: 1, holder: 0, queues: [2, 1], bodies: [["1", "2"], ["3"]]))
    confirm(node, 1, 2, copies: 2)
    node.send(
      .confirmed(first: PublishSequence(3), count: 1, message: MessageID(1 << 20 | 4)))
    let receipts = try await publishing.value
    #expect(
      receipts.map { $0.ids.map(\.description) } == [["1-0", "1-1"], ["1-2", "1-3"], ["1-4"]])
    await client.close()
  }

  @Test func `Plain publishes before and behind it keep their frames and numbers`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publisher = try await client.publisher(for: "a")
    try await publisher.send(Message("1"))
    let publishing = Task { try await client.publish(Message("2"), toAll: ["a", "b"]) }
    #expect(try await node.take(.publish).publish().first == 1)
    #expect(try read(await node.take(.transact)).first == 2)
    try await publisher.send(Message("3"))
    #expect(try await node.take(.publish).publish().first == 3)
    confirm(node, 1, 1)
    confirm(node, 2, 1, copies: 2)
    node.send(.confirmed(first: PublishSequence(3), count: 1, message: MessageID(2 << 20)))
    try await publisher.flush()
    #expect(try await publishing.value.copies == 2)
    await client.close()
  }

  private func holding(
    _ node: FakeNode
  ) async throws -> (SkeinClient, Consumer, [Delivery]) {
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    node.deliver(1, [(1, "a"), (2, "b")])
    var batch: [Delivery] = []
    while batch.count < 2 { batch += try await consumer.nextBatch(max: 2) }
    return (client, consumer, batch)
  }

  @Test func `An acknowledgement with a publish names its session and goes again`() async throws {
    let node = try FakeNode()
    let (client, _, batch) = try await holding(node)
    let publishing = Task {
      try await client.acknowledge(batch, publishing: [OutgoingMessage(Message("x"), to: "out")])
    }
    let expected = Seen(
      first: 1, holder: 100, acknowledged: [range(1, 2)], queues: [1], bodies: [["x"]])
    #expect(try read(await node.take(.transact)) == expected)
    // The answer is lost with the leader: it goes again as it was.
    node.closeConnections()
    #expect(try read(await node.take(.transact)) == expected)
    confirm(node, 1, 1)
    #expect(try await publishing.value.count == 1)
    await #expect(throws: SkeinError.alreadySettled) { try await batch[0].acknowledge() }
    await client.close()
  }

  @Test func `In a later session it still names the one that had the delivery`() async throws {
    let node = try FakeNode()
    let (client, _, batch) = try await holding(node)
    let publishing = Task {
      try await batch[0].acknowledge(publishing: [OutgoingMessage(Message("x"), to: "out")])
    }
    #expect(try read(await node.take(.transact)).holder == 100)
    node.change { $0.sessions = [] }
    node.closeConnections()
    #expect(try read(await node.take(.transact)).holder == 100)
    node.send(
      .publishRefused(first: PublishSequence(1), count: 1, .staleDelivery, detail: ""))
    await #expect(throws: SkeinError.leaseLost) { try await publishing.value }
    await client.close()
  }

  @Test func `What was refused can be settled in another way`() async throws {
    let node = try FakeNode()
    let (client, _, batch) = try await holding(node)
    let publishing = Task {
      try await batch[1].acknowledge(publishing: [OutgoingMessage(Message("x"), to: "out")])
    }
    _ = await node.take(.transact)
    await #expect(throws: SkeinError.alreadySettled) { try await batch[1].acknowledge() }
    node.send(.publishRefused(first: PublishSequence(1), count: 1, .queueFull, detail: "out"))
    await #expect(throws: SkeinError.refused(.queueFull, detail: "out")) {
      try await publishing.value
    }
    let settling = Task { try await batch[1].retry(error: "full") }
    #expect(try await node.take(.settle).settle().ranges == [range(2, 2)])
    node.send(.settled(through: CommandSequence(1)))
    try await settling.value
    await client.close()
  }

  @Test func `What cannot be sent leaves the deliveries as they were`() async throws {
    let node = try FakeNode()
    let (client, _, batch) = try await holding(node)
    await #expect(throws: SkeinError.self) {
      try await batch[0].acknowledge(
        publishing: [OutgoingMessage(Message(body: [UInt8](repeating: 0, count: 2 << 20)), to: "o")]
      )
    }
    // Together they are over the frame, each by itself is not.
    let large = OutgoingMessage(Message(body: [UInt8](repeating: 0, count: 1 << 20)), to: "o")
    await #expect(throws: SkeinError.self) {
      try await client.acknowledge(batch, publishing: Array(repeating: large, count: 5))
    }
    await #expect(throws: SkeinError.self) { try await client.publishAll([]) }
    await #expect(throws: SkeinError.self) { try await client.publish(Message("m"), toAll: []) }
    let settling = Task { try await batch[0].acknowledge() }
    #expect(try await node.take(.settle).settle().ranges == [range(1, 1)])
    node.send(.settled(through: CommandSequence(1)))
    try await settling.value
    #expect(node.count(.transact) == 0)
    await client.close()
  }

  @Test func `An extension that comes too late for the transaction is no failure`() async throws {
    let node = try FakeNode()
    let (client, consumer, batch) = try await holding(node)
    batch[0].extendSoon(by: .seconds(30))
    let publishing = Task {
      try await batch[0].acknowledge(publishing: [OutgoingMessage(Message("x"), to: "out")])
    }
    _ = await node.take(.extend)
    _ = await node.take(.transact)
    confirm(node, 1, 1)
    _ = try await publishing.value
    node.send(
      .settleRefused(
        sequence: CommandSequence(1), consumer: ConsumerID(1), range: range(1, 1), .staleDelivery))
    node.send(.settled(through: CommandSequence(1)))
    #expect(try await consumer.flush().isEmpty)
    await client.close()
  }
}
