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
    let seen = try read(try await node.take(.transact))
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
    let seen = try read(try await node.take(.transact))
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
    #expect(try read(try await node.take(.transact)).first == 2)
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
    #expect(try read(try await node.take(.transact)) == expected)
    // The answer is lost with the leader: it goes again as it was.
    node.closeConnections()
    #expect(try read(try await node.take(.transact)) == expected)
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
    #expect(try read(try await node.take(.transact)).holder == 100)
    node.change { $0.sessions = [] }
    node.closeConnections()
    #expect(try read(try await node.take(.transact)).holder == 100)
    node.send(
      .publishRefused(first: PublishSequence(1), count: 1, .staleDelivery, detail: ""))
    await #expect(throws: SkeinError.leaseLost) { try await publishing.value }
    await client.close()
  }

  @Test func `A lease can be prolonged while its transaction is under way`() async throws {
    let node = try FakeNode()
    let (client, consumer, batch) = try await holding(node)
    let publishing = Task {
      try await batch[0].acknowledge(publishing: [OutgoingMessage(Message("x"), to: "out")])
    }
    _ = try read(try await node.take(.transact))
    batch[0].extendSoon(by: .seconds(9))
    try await node.take(.extend).read { frame in
      guard case .extend(let request) = frame else { throw WrongFrame(kind: .extend) }
      #expect(request.by == .seconds(9) && request.ranges == [range(1, 1)])
    }
    // Nothing else settles it meanwhile.
    await #expect(throws: SkeinError.alreadySettled) { try await batch[0].acknowledge() }
    confirm(node, 1, 1)
    #expect(try await publishing.value.count == 1)
    // It came behind the transaction: too late, which is nobody's fault. So is asking once more.
    node.send(
      .settleRefused(
        sequence: CommandSequence(1), consumer: ConsumerID(1), range: range(1, 1), .staleDelivery))
    node.send(.settled(through: CommandSequence(1)))
    batch[0].extendSoon(by: .seconds(9))
    #expect(try await consumer.flush().isEmpty)
    await client.close()
  }

  @Test func `Being too late with more time for what a transaction settled is no failure`()
    async throws
  {
    let node = try FakeNode()
    let (client, consumer, batch) = try await holding(node)
    let first = batch[0]
    let publishing = Task {
      try await first.acknowledge(publishing: [OutgoingMessage(Message("x"), to: "out")])
    }
    _ = try await node.take(.transact)
    consumer.extendAllSoon(by: .seconds(9))
    _ = try await node.take(.extend)
    // A new leader has carried it out: the delivery is not held any more before its answer comes.
    consumer.core.lapse([range(1, 1)])
    node.send(
      .settleRefused(
        sequence: CommandSequence(1), consumer: ConsumerID(1), range: range(1, 1), .staleDelivery))
    node.send(.settled(through: CommandSequence(1)))
    confirm(node, 1, 1)
    #expect(try await publishing.value.count == 1)
    #expect(try await consumer.flush().isEmpty)
    await client.close()
  }

  @Test func `All that is held can be prolonged at once, taken by a task or not`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    node.deliver(1, (1...5).map { ($0, "m") })
    var batch: [Delivery] = []
    while batch.count < 3 { batch += try await consumer.nextBatch(max: 3 - batch.count) }
    // 1 is done, 2 in a transaction, 3 with a task, 4 over, 5 waits to be taken.
    batch[0].acknowledgeSoon()
    _ = try await node.take(.settle)
    let second = batch[1]
    let publishing = Task {
      try await second.acknowledge(publishing: [OutgoingMessage(Message("x"), to: "out")])
    }
    _ = try await node.take(.transact)
    consumer.core.lapse([range(4, 4)])
    #expect(batch.map(\.isHeld) == [false, false, true])
    consumer.extendAllSoon(by: .seconds(9))
    func extended() async throws -> ExtendRequest {
      try await node.take(.extend).read { frame in
        guard case .extend(let request) = frame else { throw WrongFrame(kind: .extend) }
        return request
      }
    }
    let request = try await extended()
    #expect(request.by == .seconds(9) && request.ranges == [range(2, 3), range(5, 5)])
    // Not again before that is answered: nothing piles up where nobody answers.
    consumer.extendAllSoon(by: .seconds(9))
    confirm(node, 1, 1)
    _ = try await publishing.value
    #expect(node.count(.extend) == 0)
    // But for what came since.
    node.deliver(1, [(6, "m")])
    batch = []
    while batch.count < 2 { batch += try await consumer.nextBatch(max: 2 - batch.count) }
    consumer.extendAllSoon(by: .seconds(9))
    consumer.extendAllSoon(by: .seconds(9))
    let later = try await extended()
    #expect(later.ranges == [range(6, 6)])
    node.send(.settled(through: later.sequence))
    let flushed = try await consumer.flush()
    #expect(flushed.isEmpty && node.count(.extend) == 0)
    consumer.extendAllSoon(by: .seconds(9))
    #expect(try await extended().ranges == [range(3, 3), range(5, 6)])
    await client.close()
  }

  @Test func `What was refused can be settled in another way`() async throws {
    let node = try FakeNode()
    let (client, _, batch) = try await holding(node)
    let publishing = Task {
      try await batch[1].acknowledge(publishing: [OutgoingMessage(Message("x"), to: "out")])
    }
    _ = try await node.take(.transact)
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
    _ = try await node.take(.extend)
    _ = try await node.take(.transact)
    confirm(node, 1, 1)
    _ = try await publishing.value
    node.send(
      .settleRefused(
        sequence: CommandSequence(1), consumer: ConsumerID(1), range: range(1, 1), .staleDelivery))
    node.send(.settled(through: CommandSequence(1)))
    #expect(try await consumer.flush().isEmpty)
    await client.close()
  }

  @Test func `More time for what a transaction may have settled is no failure`() async throws {
    let node = try FakeNode()
    let (client, consumer, batch) = try await holding(node)
    let publishing = Task {
      try await batch[0].acknowledge(publishing: [OutgoingMessage(Message("x"), to: "out")])
    }
    _ = try await node.take(.transact)
    // Another leader has carried it out: its answer comes behind what it says of the deliveries.
    node.send(.lapsed(consumer: ConsumerID(1), ranges: [range(1, 1)]))
    try await until(!batch[0].core.isHeldForTransaction(batch[0]))
    batch[0].extendSoon(by: .seconds(30))
    confirm(node, 1, 1)
    _ = try await publishing.value
    #expect(try await consumer.flush().isEmpty)
    #expect(node.count(.extend) == 0)
    await client.close()
  }

  /// The program has its delivery again: what it says of it goes to the cluster.
  private func expectHeld(_ delivery: Delivery, _ node: FakeNode) async throws {
    let settling = Task { try await delivery.release() }
    let settle = try await node.take(.settle).settle()
    #expect(settle.ranges == [DeliveryRange(first: delivery.delivery, last: delivery.delivery)])
    node.send(.settled(through: settle.sequence))
    try await settling.value
  }

  @Test func `When publishing ends, the deliveries of a transaction are the program's again`()
    async throws
  {
    let node = try FakeNode()
    let (client, _, batch) = try await holding(node)
    let publishing = Task {
      try await batch[0].acknowledge(publishing: [OutgoingMessage(Message("x"), to: "out")])
    }
    _ = try await node.take(.transact)
    node.send(.producerFenced)
    let reference = PublishReference(producer: client.producer, sequence: 1)
    await #expect(throws: SkeinError.outcomeUnknown(reference)) { try await publishing.value }
    try await expectHeld(batch[0], node)
    await client.close()
  }

  @Test func `So are those of one that was staged and never sent`() async throws {
    let node = try FakeNode()
    let (client, _, batch) = try await holding(node)
    let book = PublishBook(producer: 9)
    let owner = book.addOwner(window: 10, bytesMax: 1 << 20)
    let order = try TransactionOrder(
      [OutgoingMessage(Message("x"), to: "out")], ids: ["out": QueueID(1)], [batch[0]])
    try order.takeDeliveries()
    let promise = Promise<PublishBook.Receipts>()
    _ = try book.stage(order, owner: owner, promise: promise)
    await #expect(throws: SkeinError.alreadySettled) { try await batch[0].acknowledge() }
    book.fail(.producerFenced)
    #expect(promise.isKept)
    try await expectHeld(batch[0], node)
    await client.close()
  }

  @Test func `So are those of one that the next leader finds too large`() async throws {
    let node = try FakeNode()
    let (client, _, batch) = try await holding(node)
    let publishing = Task {
      try await batch[0].acknowledge(
        publishing: [OutgoingMessage(Message(String(repeating: "x", count: 9000)), to: "out")])
    }
    _ = try await node.take(.transact)
    node.change {
      $0.frameBytesMax = 8 << 10
      $0.messageBytesMax = 4 << 10
    }
    node.closeConnections()
    let reference = PublishReference(producer: client.producer, sequence: 1)
    await #expect(throws: SkeinError.outcomeUnknown(reference)) { try await publishing.value }
    try await expectHeld(batch[0], node)
    await client.close()
  }

  @Test func `When the client is closed, a delivery of a transaction is not said to be settled`()
    async throws
  {
    let node = try FakeNode()
    let (client, consumer, batch) = try await holding(node)
    let publishing = Task {
      try await batch[0].acknowledge(publishing: [OutgoingMessage(Message("x"), to: "out")])
    }
    _ = try await node.take(.transact)
    await client.close(within: .zero)
    let reference = PublishReference(producer: client.producer, sequence: 1)
    await #expect(throws: SkeinError.outcomeUnknown(reference)) { try await publishing.value }
    await #expect(throws: SkeinError.closed) { try await batch[0].acknowledge() }
    consumer.cancel()
  }

  @Test func `A lease that ran out while a transaction was under way stays lost`() async throws {
    let node = try FakeNode()
    let (client, consumer, batch) = try await holding(node)
    let publishing = Task {
      try await client.acknowledge(batch, publishing: [OutgoingMessage(Message("x"), to: "out")])
    }
    _ = try await node.take(.transact)
    node.send(.lapsed(consumer: ConsumerID(1), ranges: [range(1, 1)]))
    node.send(
      .publishRefused(first: PublishSequence(1), count: 1, .staleDelivery, detail: ""))
    await #expect(throws: SkeinError.leaseLost) { try await publishing.value }
    await #expect(throws: SkeinError.leaseLost) { try await batch[0].acknowledge() }
    #expect(!batch[0].isHeld && batch[1].isHeld)
    let settling = Task { try await consumer.acknowledge(upTo: batch[1]) }
    #expect(try await node.take(.settle).settle().ranges == [range(2, 2)])
    node.send(.settled(through: CommandSequence(1)))
    try await settling.value
    await client.close()
  }

  @Test func `One that is answered in part and then pushed back is sent again`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publishing = Task {
      try await client.publishAll([
        OutgoingMessage(Message("1"), to: "a"), OutgoingMessage(Message("2"), to: "b"),
      ])
    }
    let seen = try read(try await node.take(.transact))
    confirm(node, 1, 1)
    // The connection breaks between the two answers; the node is short of room afterwards.
    _ = try await client.resolve("other")
    node.closeConnections()
    #expect(try read(try await node.take(.transact)) == seen)
    node.send(.publishRefused(first: PublishSequence(1), count: 2, .overloaded, detail: ""))
    #expect(try read(try await node.take(.transact)) == seen)
    confirm(node, 1, 1)
    node.send(.confirmed(first: PublishSequence(2), count: 1, message: MessageID(1 << 20 | 1)))
    #expect(try await publishing.value.map(\.id.description) == ["1-0", "1-1"])
    await client.close()
  }

  /// A transaction whose task does not know its outcome.
  private func unknown(
    _ node: FakeNode, _ client: SkeinClient, _ deliveries: [Delivery] = []
  ) async throws -> PublishReference {
    let publishing = Task {
      try await client.acknowledge(
        deliveries,
        publishing: [
          OutgoingMessage(Message("1"), to: ["a", "b", "c"]),
          OutgoingMessage(Message("2"), to: "a"),
        ])
    }
    _ = try await node.take(.transact)
    publishing.cancel()
    let reference = PublishReference(producer: client.producer, sequence: 1)
    await #expect(throws: SkeinError.outcomeUnknown(reference)) { _ = try await publishing.value }
    return reference
  }

  @Test func `A retry of a transaction tells of each message in each of its queues`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let reference = try await unknown(node, client)
    confirm(node, 1, 1, copies: 3)
    node.send(.confirmed(first: PublishSequence(2), count: 1, message: MessageID(1 << 20 | 3)))
    try await until(client.shared.book.isAnswered(2))
    #expect(try await client.retry(reference).ids.map(\.description) == ["1-0", "1-1", "1-2"])
    let second = PublishReference(producer: reference.producer, sequence: 2)
    #expect(try await client.retry(second).ids.map(\.description) == ["1-3"])
    #expect(node.count(.publishOutcome) == 0)
    await client.close()
  }

  @Test func `When publishing has ended, a retry asks and knows the number of queues`()
    async throws
  {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let reference = try await unknown(node, client)
    node.send(.producerFenced)
    try await until(client.shared.book.failure != nil)
    let retrying = Task { try await client.retry(reference) }
    node.send(.outcomeReply(.stored(MessageID(1 << 20))), to: try await node.take(.publishOutcome))
    #expect(try await retrying.value.ids.map(\.description) == ["1-0", "1-1", "1-2"])
    let asking = Task { try await client.retry(reference) }
    node.send(.outcomeReply(.refused(.staleDelivery)), to: try await node.take(.publishOutcome))
    await #expect(throws: SkeinError.leaseLost) { _ = try await asking.value }
    await client.close()
  }

  @Test func `A retry of a transaction with a lost delivery says so`() async throws {
    let node = try FakeNode()
    let (client, _, batch) = try await holding(node)
    let reference = try await unknown(node, client, batch)
    node.send(
      .publishRefused(first: PublishSequence(1), count: 2, .staleDelivery, detail: ""))
    try await until(client.shared.book.isAnswered(2))
    await #expect(throws: SkeinError.leaseLost) { _ = try await client.retry(reference) }
    await client.close()
  }

  @Test func `A forgotten answer is no refusal`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publishing = Task { try await client.publish(Message("m"), toAll: ["a", "b"]) }
    _ = try await node.take(.transact)
    node.send(
      .publishRefused(first: PublishSequence(1), count: 1, .answerForgotten, detail: ""))
    let reference = PublishReference(producer: client.producer, sequence: 1)
    await #expect(throws: SkeinError.outcomeUnknown(reference)) { _ = try await publishing.value }
    await client.close()
  }
}
