import Base
import Testing
import Transport
import Wire

@testable import SkeinClient

@Suite(.timeLimit(.minutes(1))) struct ConsumeTests {
  private func range(_ first: UInt64, _ last: UInt64) -> DeliveryRange {
    DeliveryRange(first: DeliveryID(first), last: DeliveryID(last))
  }

  @Test func `A delivery has all that was published`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs", prefetch: 7)
    try await node.take(.subscribe).read { frame in
      guard case .subscribe(ConsumerID(1), QueueID(1), 7, 0, false) = frame else {
        throw WrongFrame(kind: .subscribe)
      }
    }
    node.deliver(1, [(1, "hello")], attempt: 2)
    var iterator = consumer.makeAsyncIterator()
    let delivery = try #require(try await iterator.next())
    #expect(delivery.text == "hello" && delivery.body == Array("hello".utf8))
    #expect(delivery.id.description == "1-0" && delivery.attempt == 2 && delivery.isRedelivered)
    #expect(delivery.token == 1001 && delivery.queue == "jobs" && delivery.lease == .seconds(30))
    #expect(delivery.key == "k" && delivery.headers == [MessageHeader("h", [7])])
    await client.close()
  }

  @Test func `An acknowledgement returns when the cluster has confirmed it`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    node.deliver(1, [(1, "a")])
    let delivery = try #require(try await consumer.nextBatch().first)
    let acknowledging = Task { try await delivery.acknowledge() }
    let settle = try await node.take(.settle).settle()
    #expect(
      settle
        == SettleRequest(
          sequence: CommandSequence(1), answeredThrough: CommandSequence(0), kind: .acknowledge,
          consumer: ConsumerID(1), ranges: [range(1, 1)]))
    node.send(.settled(through: CommandSequence(1)))
    try await acknowledging.value
    await #expect(throws: SkeinError.alreadySettled) { try await delivery.acknowledge() }
    await client.close()
  }

  @Test func `Acknowledging up to a delivery is one range`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    node.deliver(1, (1...10).map { ($0, "m") })
    let batch = try await consumer.nextBatch()
    #expect(batch.map(\.number) == Array(1...10))
    let acknowledging = Task { try await consumer.acknowledge(upTo: batch[7]) }
    #expect(try await node.take(.settle).settle().ranges == [range(1, 8)])
    node.send(.settled(through: CommandSequence(1)))
    try await acknowledging.value
    await client.close()
  }

  @Test func `Settlements in any order become few ranges`() {
    let ranges = SettleQueue.joined([
      range(9, 9), range(1, 2), range(4, 4), range(3, 3), range(7, 8), range(12, 20),
    ])
    #expect(ranges == [range(1, 4), range(7, 9), range(12, 20)])
  }

  @Test func `A refusal of one part of a settlement reaches who waits for the whole`() async throws
  {
    var queue = SettleQueue()
    let promise = Promise<StagedSettle.Outcome>()
    let count = UInt64(SettleRequest.rangesMax) + 1
    queue.append(
      StagedSettle(
        action: .acknowledge, ranges: (1...count).map { range(2 * $0, 2 * $0) },
        waiters: [(range(2, 2 * count), promise)]),
      consumer: ConsumerID(1), core: nil, deadline: .never)
    // The second part was not sent yet.
    let (_, sequence) = try #require(queue.nextToSend { _ in true })
    queue.noteSent()
    queue.refused(sequence, ConsumerID(1), range(2, 2), .leaseLost)
    queue.answered(through: sequence.rawValue)
    await #expect(throws: SkeinError.leaseLost) {
      try await promise.value(whenCancelled: .failure(.cancelled)).get()
    }
  }

  @Test func `Settlements without waiting are joined and flushed`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    node.deliver(1, (1...100).map { ($0, "m") })
    for delivery in try await consumer.nextBatch() { delivery.acknowledgeSoon() }
    let flushing = Task { try await consumer.flush() }
    var covered: [DeliveryRange] = []
    while SettleQueue.joined(covered) != [range(1, 100)] {
      let settle = try await node.take(.settle).settle()
      // However many turns of the loop it takes, what comes in one is one range.
      #expect(settle.ranges.count == 1)
      covered += settle.ranges
      node.send(.settled(through: settle.sequence))
    }
    #expect(try await flushing.value.isEmpty)
    await client.close()
  }

  @Test func `Each way to settle has its frame`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    node.deliver(1, (1...4).map { ($0, "m") })
    let batch = try await consumer.nextBatch()
    batch[0].rejectSoon(error: "bad")
    let reject = try await node.take(.settle).settle()
    #expect(reject.kind == .reject && reject.error == "bad")
    batch[1].retrySoon(error: "later", delay: .seconds(2))
    let retry = try await node.take(.settle).settle()
    #expect(retry.kind == .negative && retry.error == "later" && retry.delay == .seconds(2))
    batch[2].releaseSoon()
    #expect(try await node.take(.settle).settle().kind == .release)
    let extending = Task { try await batch[3].extend(by: .seconds(9)) }
    try await node.take(.extend).read { frame in
      guard case .extend(let request) = frame else { throw WrongFrame(kind: .extend) }
      #expect(request.by == .seconds(9) && request.sequence == CommandSequence(4))
    }
    node.send(.settled(through: CommandSequence(4)))
    try await extending.value
    // An extended delivery can still be settled.
    batch[3].acknowledgeSoon()
    #expect(try await node.take(.settle).settle().ranges == [range(4, 4)])
    node.send(.settled(through: CommandSequence(5)))
    await client.close()
  }

  @Test func `A stale settlement is told to who waits, else to the failure handler and the flush`()
    async throws
  {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let (failures, told) = AsyncStream.makeStream(of: SettleFailure.self)
    let consumer = try await client.consume("jobs") { told.yield($0) }
    node.deliver(1, [(1, "a"), (2, "b")])
    let batch = try await consumer.nextBatch()
    let acknowledging = Task { try await batch[0].acknowledge() }
    _ = try await node.take(.settle)
    node.send(
      .settleRefused(
        sequence: CommandSequence(1), consumer: ConsumerID(1), range: range(1, 1), .staleDelivery))
    node.send(.settled(through: CommandSequence(1)))
    await #expect(throws: SkeinError.leaseLost) { try await acknowledging.value }
    batch[1].acknowledgeSoon()
    _ = try await node.take(.settle)
    node.send(
      .settleRefused(
        sequence: CommandSequence(2), consumer: ConsumerID(1), range: range(2, 2), .staleDelivery))
    node.send(.settled(through: CommandSequence(2)))
    let failure = SettleFailure(deliveries: 2...2, error: .leaseLost)
    for await told in failures {
      #expect(told == failure)
      break
    }
    #expect(try await consumer.flush() == [failure])
    await client.close()
  }

  @Test func `A lapsed delivery cannot be settled, and one not yet taken is not handed out`()
    async throws
  {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    node.deliver(1, (1...3).map { ($0, "m") })
    let batch = try await consumer.nextBatch(max: 1)
    node.send(.lapsed(consumer: ConsumerID(1), ranges: [range(1, 2)]))
    _ = try await client.resolve("other")
    await #expect(throws: SkeinError.leaseLost) { try await batch[0].acknowledge() }
    #expect(try await consumer.nextBatch().map(\.number) == [3])
    await client.close()
  }

  @Test func `A new leader is told what was received, and what it holds can be settled`()
    async throws
  {
    let pair = try Pair()
    let client = try await pair.connect()
    let consumer = try await client.consume("jobs")
    pair.first.deliver(1, (1...3).map { ($0, "m") })
    let batch = try await consumer.nextBatch()
    let unanswered = Task { try await batch[0].acknowledge() }
    _ = try await pair.first.take(.settle)
    pair.second.change { $0.manual = [.attachSession] }
    pair.failOver()
    let attach = try await pair.second.take(.attachSession)
    try attach.read { frame in
      guard case .attachSession(let request) = frame else { throw WrongFrame(kind: attach.kind) }
      #expect(
        request
          == AttachRequest(
            session: SessionID(100),
            consumers: [.init(consumer: ConsumerID(1), received: DeliveryID(3))]))
    }
    pair.second.send(
      .sessionAttached(
        session: SessionID(100), lastSequence: PublishSequence(0),
        settledThrough: CommandSequence(0)), to: attach)
    pair.second.send(
      .holding(consumer: ConsumerID(1), through: DeliveryID(3), ranges: [range(1, 2)]))
    // The unanswered settlement comes again under its number.
    let again = try await pair.second.take(.settle).settle()
    #expect(again.sequence == CommandSequence(1) && again.ranges == [range(1, 1)])
    pair.second.send(.settled(through: CommandSequence(1)))
    try await unanswered.value
    // A repeated delivery is not handed out twice; the next one is.
    pair.second.deliver(1, [(2, "m"), (4, "n")])
    #expect(try await consumer.nextBatch().map(\.number) == [4])
    await #expect(throws: SkeinError.leaseLost) { try await batch[2].acknowledge() }
    let acknowledging = Task { try await batch[1].acknowledge() }
    #expect(try await pair.second.take(.settle).settle().sequence == CommandSequence(2))
    pair.second.send(.settled(through: CommandSequence(2)))
    try await acknowledging.value
    await client.close()
  }

  @Test func `A lost session is opened anew: publishes go on, consumers too, old deliveries lapse`()
    async throws
  {
    let pair = try Pair()
    let client = try await pair.connect()
    let consumer = try await client.consume("jobs", prefetch: 5)
    let attempt = try await pair.first.take(.openSession).read { frame in
      guard case .openSession(_, .none, let attempt, _, _) = frame else {
        throw WrongFrame(kind: .openSession)
      }
      return attempt
    }
    #expect(attempt.rawValue >> 32 != 0)
    pair.first.deliver(1, [(1, "a"), (2, "b")])
    let batch = try await consumer.nextBatch(max: 1)
    let publishing = Task { try await client.publish(Message("p"), to: "jobs") }
    _ = try await pair.first.take(.publish)
    let settling = Task { try await batch[0].acknowledge() }
    _ = try await pair.first.take(.settle)
    pair.failOver(keepingSessions: false)
    _ = try await pair.second.take(.attachSession)
    try await pair.second.take(.openSession).read { frame in
      guard case .openSession(let producer, let epoch, let next, _, _) = frame else {
        throw WrongFrame(kind: .openSession)
      }
      #expect(attempt.isSuperseded(by: next) && !next.isSuperseded(by: attempt))
      #expect(producer == ProducerID(client.producer))
      #expect(epoch == ProducerEpoch(1_100))
    }
    let publish = try await pair.second.take(.publish).publish()
    #expect(publish.first == 1 && publish.bodies == ["p"])
    pair.second.send(
      .confirmed(first: PublishSequence(1), count: 1, message: MessageID(rawValue: 4)))
    #expect(try await publishing.value.id.stored.rawValue == 4)
    await #expect(throws: SkeinError.requestUnknown("the settlement")) {
      try await settling.value
    }
    try await pair.second.take(.subscribe).read { frame in
      guard case .subscribe(ConsumerID(1), QueueID(1), 5, 0, false) = frame else {
        throw WrongFrame(kind: .subscribe)
      }
    }
    // Numbers begin again with the session; what was not taken of the old one is gone.
    pair.second.deliver(1, [(1, "a")], attempt: 2)
    let redelivered = try await consumer.nextBatch()
    #expect(redelivered.map(\.text) == ["a"])
    await #expect(throws: SkeinError.leaseLost) { try await batch[0].acknowledge() }
    let acknowledging = Task { try await redelivered[0].acknowledge() }
    #expect(try await pair.second.take(.settle).settle().sequence == CommandSequence(1))
    pair.second.send(.settled(through: CommandSequence(1)))
    try await acknowledging.value
    await client.close()
  }

  @Test func `A released consumer unsubscribes and gives back what was not taken`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    var consumer: Consumer? = try await client.consume("jobs")
    node.deliver(1, [(1, "a"), (2, "b"), (3, "c")])
    let held = try await consumer?.nextBatch(max: 1)
    consumer = nil
    try await node.take(.unsubscribe).read { frame in
      guard case .unsubscribe(ConsumerID(1), returnHeld: false) = frame else {
        throw WrongFrame(kind: .unsubscribe)
      }
    }
    let settle = try await node.take(.settle).settle()
    #expect(settle.kind == .release && settle.ranges == [range(2, 3)])
    // What was under way to it goes back too.
    node.deliver(1, [(4, "d")])
    #expect(try await node.take(.settle).settle().ranges == [range(4, 4)])
    // What the task holds can still be settled.
    held?.first?.acknowledgeSoon()
    let acknowledgement = try await node.take(.settle).settle()
    #expect(acknowledgement.kind == .acknowledge && acknowledgement.ranges == [range(1, 1)])
    node.send(.settled(through: acknowledgement.sequence))
    await client.close()
  }

  @Test func `What a task holds of a released consumer survives a new leader`() async throws {
    let pair = try Pair()
    let client = try await pair.connect()
    var consumer: Consumer? = try await client.consume("jobs")
    pair.first.deliver(1, [(1, "a"), (2, "b")])
    let held = try #require(try await consumer?.nextBatch(max: 2))
    consumer = nil
    _ = try await pair.first.take(.unsubscribe)
    pair.second.change { $0.manual = [.attachSession] }
    pair.failOver()
    let attach = try await pair.second.take(.attachSession)
    try attach.read { frame in
      guard case .attachSession(let request) = frame else { throw WrongFrame(kind: attach.kind) }
      #expect(request.consumers == [.init(consumer: ConsumerID(1), received: DeliveryID(2))])
    }
    pair.second.send(
      .sessionAttached(
        session: SessionID(100), lastSequence: PublishSequence(0),
        settledThrough: CommandSequence(0)), to: attach)
    pair.second.send(
      .holding(consumer: ConsumerID(1), through: DeliveryID(2), ranges: [range(1, 2)]))
    // Repeated deliveries are not given back behind the task's back.
    pair.second.deliver(1, [(1, "a"), (2, "b"), (3, "c")])
    let release = try await pair.second.take(.settle).settle()
    #expect(release.kind == .release && release.ranges == [range(3, 3)])
    let acknowledging = Task { try await held[1].acknowledge() }
    let settle = try await pair.second.take(.settle).settle()
    #expect(settle.kind == .acknowledge && settle.ranges == [range(2, 2)])
    pair.second.send(.settled(through: settle.sequence))
    try await acknowledging.value
    await client.close()
  }

  @Test func `An ended consumer is unsubscribed until that is done, whoever leads`() async throws {
    let pair = try Pair()
    pair.first.change { $0.manual = [.unsubscribe] }
    let client = try await pair.connect()
    let consumer = try await client.consume("jobs")
    consumer.cancel()
    let refused = try await pair.first.take(.unsubscribe)
    pair.first.send(.refused(.overloaded, detail: "", leader: ""), to: refused)
    _ = try await pair.first.take(.unsubscribe)
    // The leader dies with the answer.
    pair.failOver()
    _ = try await pair.second.take(.unsubscribe)
    _ = try await client.resolve("other")
    // One that it delivers to all the same is unsubscribed again.
    pair.second.deliver(1, [(1, "a")])
    _ = try await pair.second.take(.unsubscribe)
    let release = try await pair.second.take(.settle).settle()
    #expect(release.kind == .release)
    pair.second.send(.settled(through: release.sequence))
    await client.close()
  }

  @Test func `What an iterator took and did not hand out can be taken again`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    node.deliver(1, (1...5).map { ($0, "m") })
    for try await delivery in consumer {
      #expect(delivery.number == 1)
      break
    }
    let rest = try await consumer.nextBatch()
    #expect(rest.map(\.number) == [2, 3, 4, 5])
    await client.close()
  }

  @Test func `What an iterator leaves behind goes back with its consumer`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    var consumer: Consumer? = try await client.consume("jobs")
    node.deliver(1, (1...5).map { ($0, "m") })
    var iterator = consumer?.makeAsyncIterator()
    _ = try await iterator?.next()
    consumer?.cancel()
    _ = try await node.take(.unsubscribe)
    iterator = nil
    let settle = try await node.take(.settle).settle()
    #expect(settle.kind == .release && settle.ranges == [range(2, 5)])
    node.send(.settled(through: settle.sequence))
    consumer = nil
    await client.close()
  }

  @Test func `Acknowledging up to a delivery leaves out what was put back`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    node.deliver(1, (1...4).map { ($0, "m") })
    let batch = try await consumer.nextBatch(max: 4)
    consumer.core.putBack(batch[1...2])
    let acknowledging = Task { try await consumer.acknowledge(upTo: batch[3]) }
    let settle = try await node.take(.settle).settle()
    #expect(settle.ranges == [range(1, 1), range(4, 4)])
    node.send(.settled(through: settle.sequence))
    try await acknowledging.value
    await client.close()
  }

  @Test func `An extension stays in front of the end of its delivery`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let mailbox = try Mailbox<LoopCommand>()
    let core = ConsumerCore(
      id: ConsumerID(1), queue: "jobs", queueID: QueueID(1), credit: 10, client: nil,
      mailbox: mailbox, onFailure: nil)
    let consumer = try await client.consume("jobs")
    node.deliver(1, (1...3).map { ($0, "m") })
    let batch = try await consumer.nextBatch(max: 3)
    core.adopt(batch)
    core.settleSoon(batch[0], .acknowledge)
    core.settleSoon(batch[1], .extend(.seconds(1)))
    core.settleSoon(batch[1], .acknowledge)
    core.settleSoon(batch[2], .acknowledge)
    // Late, and no failure.
    core.settleSoon(batch[1], .extend(.seconds(1)))
    let staged = core.takeStaged()
    #expect(staged.map(\.action) == [.acknowledge, .extend(.seconds(1)), .acknowledge])
    #expect(staged.map(\.ranges) == [[range(1, 1)], [range(2, 2)], [range(2, 3)]])
    #expect(core.takeFailures().isEmpty)
    await client.close()
  }

  @Test func `Waits that were cancelled leave nothing behind`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    for _ in 0..<20 {
      let waiting = Task { try await consumer.nextBatch() }
      try await until(consumer.core.waiterCount > 0)
      waiting.cancel()
      #expect(try await waiting.value.isEmpty)
    }
    #expect(consumer.core.waiterCount == 0)
    await client.close()
  }

  @Test func `Cancelling the task that waits ends the consumer`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let task = Task {
      var count = 0
      for try await delivery in try await client.consume("jobs") {
        delivery.acknowledgeSoon()
        count += 1
      }
      return count
    }
    _ = try await node.take(.subscribe)
    node.deliver(1, [(1, "a")])
    let settle = try await node.take(.settle).settle()
    node.send(.settled(through: settle.sequence))
    task.cancel()
    #expect(try await task.value == 1)
    _ = try await node.take(.unsubscribe)
    await client.close()
  }

  @Test func `A consumer ends with its queue and with its client, by name`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let first = try await client.consume("jobs")
    let second = try await client.consume("jobs")
    node.send(.consumerCancelled(consumer: ConsumerID(1), .queueNotFound))
    await #expect {
      _ = try await first.nextBatch()
    } throws: { error in
      if case .refused(.queueNotFound, _)? = error as? SkeinError { true } else { false }
    }
    let waiting = Task { try await second.nextBatch() }
    await client.close()
    await #expect(throws: SkeinError.closed) { _ = try await waiting.value }
  }

  @Test func `A refused subscription says why`() async throws {
    let node = try FakeNode()
    node.change { $0.manual = [.subscribe] }
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consuming = Task { try await client.consume("jobs") }
    let request = try await node.take(.subscribe)
    node.send(.refused(.tooManyConsumers, detail: "2048", leader: ""), to: request)
    await #expect(throws: SkeinError.refused(.tooManyConsumers, detail: "2048")) {
      _ = try await consuming.value
    }
    await client.close()
  }

  @Test func `An acknowledgement does not overtake the publish before it, an extension may`()
    async throws
  {
    let node = try FakeNode()
    node.change { $0.window = 1 }
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    node.deliver(1, [(1, "a"), (2, "b")])
    var batch: [Delivery] = []
    while batch.count < 2 { batch += try await consumer.nextBatch(max: 2) }
    let first = try await client.publisher(for: "out")
    let second = try await client.publisher(for: "out")
    try await first.send(Message("1"))
    // The node's window holds it back.
    try await second.send(Message("2"))
    batch[0].acknowledgeSoon()
    batch[1].extendSoon(by: .seconds(9))
    _ = try await node.take(.extend)
    _ = try await client.resolve("other")
    #expect(try await node.take(.publish).publish().bodies == ["1"])
    #expect(node.count(.publish) == 0 && node.count(.settle) == 0)
    node.send(.confirmed(first: PublishSequence(1), count: 1, message: MessageID(rawValue: 1)))
    let settle = try await node.take(.settle).settle()
    #expect(settle.ranges == [range(1, 1)] && settle.sequence == CommandSequence(2))
    #expect(node.count(.publish) == 1)
    node.send(.confirmed(first: PublishSequence(2), count: 1, message: MessageID(rawValue: 2)))
    node.send(.settled(through: CommandSequence(2)))
    #expect(try await consumer.flush().isEmpty)
    await client.close()
  }

  @Test func `Whether a range has unsettled deliveries is asked of the range's numbers`()
    async throws
  {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    node.deliver(1, (1...8).map { ($0, "m") })
    var batch: [Delivery] = []
    while batch.count < 8 { batch += try await consumer.nextBatch(max: 8) }
    let core = consumer.core
    try core.take(batch[2])
    core.lapse([range(4, 4)])
    core.settleSoon(batch[4], .acknowledge)
    #expect(core.hasUnsettled(range(1, 1)) && core.hasUnsettled(range(0, .max)))
    #expect(!core.hasUnsettled(range(3, 3)), "a transaction has it")
    #expect(core.hasUnsettled(range(3, 4)), "its lease ran out and its task must hear of it")
    #expect(!core.hasUnsettled(range(5, 5)) && !core.hasUnsettled(range(9, .max)))
    core.giveBack(batch[2])
    #expect(core.hasUnsettled(range(3, 3)))
    core.finish(batch[3])
    #expect(!core.hasUnsettled(range(4, 4)))
    await client.close(within: .zero)
  }
}
