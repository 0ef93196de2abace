// Who uses a queue: its consumers by priority, one at a time or alone, and nobody, until it goes. And
// what producers are answered that were not heard of for long, or ask for too much.

import Base
import Testing

@testable import QueueMachine

extension Rig {
  /// The reply to a subscription, refused or not, and all that was seen.
  func subscribing(
    _ session: SessionID, _ consumer: UInt32, _ queue: QueueID, credit: UInt32 = 10,
    priority: Int16 = 0, isExclusive: Bool = false
  ) -> (refusal: Refusal?, seen: [Seen]) {
    let seen = apply {
      CommandWriter.subscribe(
        session, consumer: ConsumerID(consumer), tag: tag(), queue: queue, credit: credit,
        priority: priority, isExclusive: isExclusive, into: &$0)
    }
    for case .plain(.reply(_, _, .refused(let refusal, _))) in seen { return (refusal, seen) }
    return (nil, seen)
  }

  @discardableResult
  func unsubscribe(
    _ session: SessionID, _ consumer: UInt32, returnHeld: Bool = false
  ) -> [Seen] {
    apply {
      CommandWriter.unsubscribe(
        session, consumer: ConsumerID(consumer), tag: tag(), returnHeld: returnHeld, into: &$0)
    }
  }
}

@Suite struct ConsumerChoiceRules {
  let rig = Rig()

  @Test func aLowerPriorityGetsWhatTheHigherOnesHaveNoCreditFor() {
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    _ = rig.subscribing(session, 1, queue, credit: 9)
    _ = rig.subscribing(session, 2, queue, credit: 2, priority: 5)
    _ = rig.subscribing(session, 3, queue, credit: 2, priority: 5)
    _ = rig.subscribing(session, 4, queue, credit: 9, priority: -1)
    let seen = rig.publish(session, 1, to: queue, bodies: Array(repeating: 1, count: 8))
    #expect(seen.takers == [2, 2, 3, 3, 1, 1, 1, 1])
    // Nothing for the lowest as long as another has credit.
    let more = rig.publish(session, 9, to: queue, bodies: Array(repeating: 1, count: 6))
    #expect(more.takers == [1, 1, 1, 1, 1, 4])
    // A higher one that has credit again is next.
    rig.apply {
      CommandWriter.settle(
        session, sequence: CommandSequence(1), answeredThrough: .zero, kind: .acknowledge,
        consumer: ConsumerID(3), ranges: [DeliveryRange(1...2)], into: &$0)
    }
    #expect(rig.publish(session, 15, to: queue, bodies: [1, 1, 1]).takers == [3, 3, 4])
  }

  @Test func prioritiesSurviveASnapshot() throws {
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    for (consumer, priority) in [(1, -3), (2, 0), (3, 7), (4, 7)] as [(UInt32, Int16)] {
      _ = rig.subscribing(session, consumer, queue, credit: 1, priority: priority)
    }
    try rig.restart()
    #expect(rig.publish(session, 1, to: queue, bodies: [1, 1, 1, 1]).takers == [3, 4, 2, 1])
  }

  @Test func oneActiveConsumerGetsAllUntilItHoldsNothingAnyMore() throws {
    let queue = rig.declare("q") { $0.hasSingleActiveConsumer = true }
    let session = rig.open(producer: 1)
    for consumer in [1, 2, 3] as [UInt32] {
      _ = rig.subscribing(session, consumer, queue, credit: 2, priority: consumer == 3 ? 1 : 0)
    }
    #expect(rig.publish(session, 1, to: queue, bodies: [1, 1, 1, 1]).takers == [1, 1])
    #expect(rig.unsubscribe(session, 1).takers.isEmpty)
    try rig.restart()
    // What it holds keeps the next one waiting: their order could be mixed up otherwise.
    #expect(rig.settle(session, 1, .acknowledge, [1...1]).takers.isEmpty)
    #expect(rig.settle(session, 2, .acknowledge, [2...2]).takers == [3, 3])
    // Handing back takes the messages along, in their order.
    let seen = rig.unsubscribe(session, 3, returnHeld: true)
    #expect(seen.takers == [2, 2] && seen.deliveries.map(\.id.ordinal) == [2, 3])
  }

  @Test func theActiveConsumerStaysWhileItsSessionMayComeBack() {
    let queue = rig.declare("q") { $0.hasSingleActiveConsumer = true }
    let first = rig.open(producer: 1)
    let second = rig.open()
    _ = rig.subscribing(first, 1, queue)
    _ = rig.subscribing(second, 1, queue)
    rig.detach(first)
    let third = rig.open(producer: 2)
    #expect(rig.publish(third, 1, to: queue).deliveries.isEmpty)
    #expect(rig.attach(first, origin: rig.origin).takers == [1])
    rig.detach(first)
    let seen = rig.tick(.seconds(11))
    #expect(seen.deliveries.count == 1 && rig.machine.held(by: second) == 1)
  }

  @Test func anExclusiveConsumerIsAlone() throws {
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    _ = rig.subscribing(session, 1, queue)
    #expect(rig.subscribing(session, 2, queue, isExclusive: true).refusal == .consumerExclusive)
    rig.publish(session, 1, to: queue)
    rig.unsubscribe(session, 1)
    // It is gone, but for what it holds.
    #expect(rig.subscribing(session, 2, queue, isExclusive: true).refusal == .consumerExclusive)
    rig.settle(session, 1, .acknowledge, [1...1])
    #expect(rig.subscribing(session, 2, queue, isExclusive: true).refusal == nil)
    try rig.restart()
    #expect(rig.subscribing(session, 3, queue).refusal == .consumerExclusive)
    // Asked again it is fine, as another it is not.
    #expect(rig.subscribing(session, 2, queue, isExclusive: true).refusal == nil)
    #expect(rig.subscribing(session, 2, queue).refusal == .consumerDiffers)
    rig.unsubscribe(session, 2)
    #expect(rig.subscribing(session, 3, queue).refusal == nil)
    #expect(rig.subscribing(session, 3, queue, priority: 1).refusal == .consumerDiffers)
  }

  @Test func returningWhatIsHeldIsBoundedPerEntry() {
    var limits = MachineLimits()
    limits.settledPerEntry = 5
    let rig = Rig(limits: limits)
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 1, 1])
    _ = rig.subscribing(session, 1, queue)
    // A loop of taking all and giving it back, in one entry.
    let seen = rig.apply { payload in
      for _ in 0..<4 {
        CommandWriter.unsubscribe(
          session, consumer: ConsumerID(1), tag: rig.tag(), returnHeld: true, into: &payload)
        CommandWriter.subscribe(
          session, consumer: ConsumerID(1), tag: rig.tag(), queue: queue, credit: 10,
          into: &payload)
      }
    }
    let refused = seen.count {
      if case .plain(.reply(_, _, .refused(.overloaded, _))) = $0 { true } else { false }
    }
    #expect(refused == 3 && seen.deliveries.count == 3)
    #expect(rig.unsubscribe(session, 1, returnHeld: true).count == 1)
  }
}

@Suite struct QueueExpiryRules {
  let rig = Rig()

  private func isThere(_ name: String) -> Bool { rig.machine.queue(named: name) != nil }

  @Test func aQueueThatNobodyUsesGoesWithItsMessages() throws {
    let queue = rig.declare("q") { $0.expires = .seconds(10) }
    let session = rig.open(producer: 1, timeout: .seconds(1_000))
    rig.tick(.seconds(9))
    // A publish is no use.
    rig.publish(session, 1, to: queue)
    #expect(rig.machine.nextDeadline <= MachineTime(rig.now + 1_000_000_000))
    try rig.restart()
    rig.tick(.seconds(1))
    #expect(!isThere("q") && rig.machine.queueCount == 0)
  }

  @Test func declaringAgainIsUse() {
    rig.declare("q") { $0.expires = .seconds(10) }
    rig.tick(.seconds(9))
    rig.declare("q") { $0.expires = .seconds(10) }
    rig.tick(.seconds(9))
    #expect(isThere("q"))
    // Otherwise it is not, since it is refused.
    #expect(rig.declareReply("q", QueueSettings()) != .queueDeleted(messages: 0))
    rig.tick(.seconds(1))
    #expect(!isThere("q"))
  }

  @Test func aConsumerIsUseUntilItsLastMessageIsSettled() {
    let queue = rig.declare("q") {
      $0.expires = .seconds(10)
      $0.lease = .seconds(1_000)
    }
    let session = rig.open(producer: 1, timeout: .seconds(1_000))
    rig.publish(session, 1, to: queue)
    rig.subscribe(session, 1, queue)
    rig.tick(.seconds(20))
    rig.unsubscribe(session, 1)
    rig.tick(.seconds(20))
    #expect(isThere("q"))
    rig.settle(session, 1, .acknowledge, [1...1])
    rig.tick(.seconds(9))
    #expect(isThere("q"))
    rig.tick(.seconds(1))
    #expect(!isThere("q"))
  }

  @Test func aQueueThatOthersNameStaysAndGoesAfterThem() {
    rig.declare("dead") { $0.expires = .seconds(2) }
    rig.declare("q") {
      $0.expires = .seconds(10)
      $0.deadLetterQueue = "dead"
    }
    rig.tick(.seconds(9))
    #expect(isThere("dead"))
    rig.tick(.seconds(1))
    #expect(!isThere("q") && isThere("dead"))
    rig.tick(.seconds(2))
    #expect(!isThere("dead"))
  }

  @Test func impossibleExpiriesAreRefusedByName() {
    var settings = QueueSettings()
    settings.expires = Nanoseconds(999_999)
    #expect(
      rig.declareReply("q", settings)
        == .refused(.settingInvalid, detail: "expires must be at least 1ms"))
    rig.declare("q")
    settings.expires = .seconds(3)
    #expect(
      rig.declareReply("q", settings) == .refused(.queueDiffers, detail: "expires is none, not 3s"))
    settings.expires = .zero
    settings.hasSingleActiveConsumer = true
    #expect(
      rig.declareReply("q", settings)
        == .refused(.queueDiffers, detail: "single-active is false, not true"))
  }
}

@Suite struct ProducerBoundRules {
  @Test func aForgottenProducerIsToldSo() {
    let rig = Rig()
    let queue = rig.declare("q")
    let first = rig.open(producer: 7)
    rig.publish(first, 1, to: queue)
    rig.apply { CommandWriter.closeSession(first, into: &$0) }
    rig.tick(.seconds(24 * 3_600))
    #expect(
      rig.tryOpen(producer: 7, epoch: ProducerEpoch(first.rawValue)) == [
        .plain(.sessionOpenRefused(rig.origin, .producerForgotten))
      ])
    // Whoever takes it over begins anew; the forgotten one is then fenced.
    let second = rig.open(producer: 7)
    #expect(rig.publish(second, 1, to: queue).count == 1)
    #expect(
      rig.tryOpen(producer: 7, epoch: ProducerEpoch(first.rawValue)) == [
        .plain(.sessionOpenRefused(rig.origin, .producerFenced))
      ])
  }

  @Test func answersOfAllLiveProducersAreBoundedButFewAreAlwaysTaken() throws {
    var limits = MachineLimits()
    limits.liveRuns = 6
    limits.runsWhenFull = 2
    let rig = Rig(limits: limits)
    let queue = rig.declare("q")
    // Refused and stored by turns: each is a run of its own.
    func publish(_ session: SessionID, _ number: UInt64, answered: UInt64 = 0) -> [Seen] {
      rig.publish(
        session, number, to: number % 2 == 0 ? queue : QueueID(99), answeredThrough: answered)
    }
    let greedy = rig.open(producer: 1)
    for number in 1...6 { #expect(!publish(greedy, UInt64(number)).isRefusedForNow) }
    #expect(publish(greedy, 7).isRefusedForNow)
    try rig.restart(limits: limits)
    let modest = rig.open(producer: 2)
    #expect(!publish(modest, 1).isRefusedForNow && !publish(modest, 2).isRefusedForNow)
    #expect(publish(modest, 3).isRefusedForNow)
    // What was seen makes room at once.
    #expect(!publish(greedy, 7, answered: 6).isRefusedForNow)
    #expect(!publish(modest, 3).isRefusedForNow)
  }
}

extension [Seen] {
  fileprivate var isRefusedForNow: Bool {
    contains { if case .plain(.refused(_, _, _, .tooManyUnanswered)) = $0 { true } else { false } }
  }
}
