// One test per rule that no promise names.

import Base
import Testing

@testable import QueueMachine

@Suite struct QueueRules {
  @Test func declaringAgainIsFineAndADifferenceIsNamed() {
    let rig = Rig()
    let queue = rig.declare("q")
    #expect(rig.declareReply("q", QueueSettings()) == .queueDeclared(queue, isNew: false))
    var other = QueueSettings()
    other.deliveriesMax = 3
    #expect(
      rig.declareReply("q", other)
        == .refused(.queueDiffers, detail: "max-deliveries is none, not 3"))
    other = QueueSettings()
    other.lease = .milliseconds(1_500)
    #expect(
      rig.declareReply("q", other) == .refused(.queueDiffers, detail: "lease is 30s, not 1500ms"))
  }

  /// As the command line writes them.
  private static let changes: [(String, @Sendable (inout QueueSettings) -> Void)] = [
    ("lease is 30s, not 31s", { $0.lease = .seconds(31) }),
    ("max-deliveries is none, not 2", { $0.deliveriesMax = 2 }),
    ("dead-letter is none, not \"d\"", { $0.deadLetterQueue = "d" }),
    ("retry-delay is none, not 1s", { $0.retryDelay = .seconds(1) }),
    ("retry-max is none, not 5s", { $0.retryDelayMax = .seconds(5) }),
    ("retry-jitter is 0.0, not 0.2", { $0.retryJitterPermille = 200 }),
    ("ttl is none, not 1h", { $0.timeToLive = .seconds(3_600) }),
    ("max-length is none, not 9", { $0.lengthMax = 9 }),
    ("max-bytes is none, not 4096", { $0.bytesMax = 4_096 }),
    ("overflow is reject, not drop-oldest", { $0.overflow = .dropOldest }),
    ("priorities is 1, not 3", { $0.priorities = 3 }),
    ("keyed is none, not 1", { $0.keyLimit = 1 }),
    ("expires is none, not 1m", { $0.expires = .seconds(60) }),
    ("single-active is false, not true", { $0.hasSingleActiveConsumer = true }),
  ]

  @Test(arguments: changes)
  func everyChangeOfALiveQueueIsRefusedByName(
    difference: String, change: @Sendable (inout QueueSettings) -> Void
  ) {
    let rig = Rig()
    rig.declare("d")
    rig.declare("q")
    var settings = QueueSettings()
    change(&settings)
    #expect(rig.declareReply("q", settings) == .refused(.queueDiffers, detail: difference))
  }

  @Test(arguments: [
    ("", Refusal.queueNameInvalid), ("a\u{7}", .queueNameInvalid),
    (String(repeating: "x", count: 256), .queueNameInvalid),
  ]) func impossibleNameIsRefused(name: String, refusal: Refusal) {
    let rig = Rig()
    guard case .refused(refusal, _) = rig.declareReply(name, QueueSettings()) else {
      Issue.record("not refused")
      return
    }
  }

  private static let faults: [(String, @Sendable (inout QueueSettings) -> Void)] = [
    ("lease must be at least 1ms", { $0.lease = Nanoseconds(999_999) }),
    ("retry-jitter must be between 0 and 1", { $0.retryJitterPermille = 1_001 }),
    (
      "retry-max must not be below retry-delay",
      {
        $0.retryDelay = .seconds(2)
        $0.retryDelayMax = .seconds(1)
      }
    ),
    ("priorities must be between 1 and 32", { $0.priorities = 0 }),
    ("priorities must be between 1 and 32", { $0.priorities = 33 }),
    ("expires must be at least 1ms", { $0.expires = Nanoseconds(1) }),
    ("dead-letter must be a queue name of 1 to 255 bytes", { $0.deadLetterQueue = "a\n" }),
  ]

  @Test(arguments: faults)
  func everyImpossibleSettingIsNamed(
    fault: String, change: @Sendable (inout QueueSettings) -> Void
  ) {
    let rig = Rig()
    var settings = QueueSettings()
    change(&settings)
    #expect(rig.declareReply("q", settings) == .refused(.settingInvalid, detail: fault))
    #expect(rig.machine.queueCount == 0)
  }

  @Test func impossibleOrUnsupportedSettingIsNamed() {
    let rig = Rig()
    var settings = QueueSettings()
    settings.lease = .zero
    #expect(
      rig.declareReply("q", settings)
        == .refused(.settingInvalid, detail: "lease must be at least 1ms"))
    settings = QueueSettings()
    settings.keyLimit = 1
    settings.lengthMax = 5
    settings.overflow = .dropOldest
    #expect(
      rig.declareReply("q", settings)
        == .refused(
          .notSupported, detail: "keyed with overflow drop-oldest is not supported"))
  }

  @Test func deadLetterQueueMustExistBeBeforeAndStay() {
    let rig = Rig()
    var settings = QueueSettings()
    settings.deadLetterQueue = "q"
    guard case .refused(.deadLetterCycle, _) = rig.declareReply("q", settings) else {
      Issue.record("a queue may be its own dead-letter queue")
      return
    }
    guard case .refused(.deadLetterQueueNotFound, _) = rig.declareReply("p", settings) else {
      Issue.record("a missing dead-letter queue is accepted")
      return
    }
    rig.declare("q")
    rig.declare("p") { $0.deadLetterQueue = "q" }
    let seen = rig.apply {
      CommandWriter.deleteQueue(
        .connection(rig.origin), tag: RequestTag(9), name: "q", into: &$0)
    }
    guard case .plain(.reply(_, _, .refused(.queueInUse, _)))? = seen.first else {
      Issue.record("deleted under its user: \(seen)")
      return
    }
  }

  @Test func deletingAQueueCancelsItsConsumersAndLeavesTheRest() {
    let rig = Rig()
    let gone = rig.declare("gone")
    let stays = rig.declare("stays")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: gone, bodies: [1, 2, 3])
    rig.publish(session, 4, to: stays)
    rig.subscribe(session, 1, gone, credit: 2)
    rig.subscribe(session, 2, stays)
    let seen = rig.apply {
      CommandWriter.deleteQueue(
        .session(session), tag: RequestTag(9), name: "gone", into: &$0)
    }
    #expect(
      seen == [
        .plain(.consumerCancelled(session, ConsumerID(1))),
        .plain(.reply(.session(session), RequestTag(9), .queueDeleted(messages: 3))),
      ])
    #expect(rig.machine.held(by: session) == 1)
    let stale = rig.settle(session, 1, .acknowledge, [1...2])
    #expect(
      stale.first
        == .plain(
          .settleRefused(
            session, CommandSequence(1), ConsumerID(1), DeliveryRange(1...2), .consumerNotFound)))
    // The number is not used again.
    #expect(rig.declare("gone") == QueueID(3))
  }

  @Test func purgeRemovesWhatIsReadyAndLeavesWhatIsHeld() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 2, 3])
    rig.subscribe(session, 1, queue, credit: 1)
    let seen = rig.apply {
      CommandWriter.purgeQueue(.session(session), tag: RequestTag(9), name: "q", into: &$0)
    }
    #expect(
      seen == [.plain(.reply(.session(session), RequestTag(9), .queuePurged(messages: 2)))])
    #expect(rig.summary(queue).leased == 1)
    #expect(rig.summary(queue).bytes == UInt64(1 + MessageRecord.fixedBytes))
  }
}

@Suite struct ConsumerRules {
  @Test func idleConsumersTakeTurns() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    for consumer in UInt32(1)...3 { rig.subscribe(session, consumer, queue) }
    var takers: [UInt32] = []
    for sequence in UInt64(1)...6 { takers += rig.publish(session, sequence, to: queue).takers }
    #expect(takers == [1, 2, 3, 1, 2, 3])
  }

  @Test func aBacklogIsSharedInEqualRuns() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    for consumer in UInt32(1)...3 { rig.subscribe(session, consumer, queue, credit: 100) }
    let seen = rig.publish(session, 1, to: queue, bodies: Array(repeating: 1, count: 31))
    #expect(seen.takers.count { $0 == 1 } == 11)
    #expect(seen.takers.count { $0 == 2 } == 10)
    #expect(seen.takers.count { $0 == 3 } == 10)
    #expect(seen.count == 5)
  }

  @Test func noConsumerHoldsMoreThanItsCredit() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.subscribe(session, 1, queue, credit: 2)
    #expect(rig.publish(session, 1, to: queue, bodies: [1, 2, 3, 4, 5]).deliveries.count == 2)
    let raised = rig.apply {
      CommandWriter.setCredit(
        session, consumer: ConsumerID(1), tag: RequestTag(4), credit: 3, into: &$0)
    }
    #expect(raised.deliveries.count == 1)
    rig.apply {
      CommandWriter.setCredit(
        session, consumer: ConsumerID(1), tag: RequestTag(4), credit: 1, into: &$0)
    }
    #expect(rig.settle(session, 1, .acknowledge, [1...2]).deliveries.isEmpty)
    #expect(rig.settle(session, 2, .acknowledge, [3...3]).deliveries.count == 1)
  }

  @Test func creditOfZeroPausesAConsumer() throws {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.subscribe(session, 1, queue, credit: 2)
    func set(credit: UInt32) -> [Seen] {
      rig.apply {
        CommandWriter.setCredit(
          session, consumer: ConsumerID(1), tag: RequestTag(4), credit: credit, into: &$0)
      }
    }
    #expect(
      set(credit: 0) == [
        .plain(.reply(.session(session), RequestTag(4), .creditSet(ConsumerID(1))))
      ])
    try rig.restart()
    #expect(rig.publish(session, 1, to: queue).deliveries.isEmpty)
    #expect(set(credit: 1).deliveries.count == 1)
  }

  @Test func endedConsumerCanStillSettleAndIsThenGone() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 2, 3])
    rig.subscribe(session, 1, queue, credit: 2)
    rig.apply {
      CommandWriter.unsubscribe(
        session, consumer: ConsumerID(1), tag: RequestTag(1), returnHeld: false, into: &$0)
    }
    #expect(rig.summary(queue).consumers == 0)
    #expect(rig.settle(session, 1, .acknowledge, [1...1]).deliveries.isEmpty)
    #expect(rig.machine.consumerCount == 1)
    rig.settle(session, 2, .acknowledge, [2...2])
    #expect(rig.machine.consumerCount == 0)
    #expect(rig.summary(queue).ready == 1)
  }

  @Test func getIsASubscribeAndUnsubscribeInOneEntry() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 2])
    let seen = rig.apply {
      CommandWriter.subscribe(
        session, consumer: ConsumerID(1), tag: RequestTag(1), queue: queue, credit: 1, into: &$0)
      CommandWriter.unsubscribe(
        session, consumer: ConsumerID(1), tag: RequestTag(2), returnHeld: false, into: &$0)
    }
    #expect(seen.deliveries.count == 1)
    #expect(rig.machine.held(by: session) == 1)
  }

  @Test func extendMovesTheLeaseBothWays() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.lease = .seconds(5) }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 2])
    rig.subscribe(session, 1, queue)
    rig.apply {
      CommandWriter.extend(
        session, sequence: CommandSequence(1), answeredThrough: .zero, consumer: ConsumerID(1),
        ranges: [DeliveryRange(1...1)], duration: .seconds(20), into: &$0)
      CommandWriter.extend(
        session, sequence: CommandSequence(2), answeredThrough: .zero, consumer: ConsumerID(1),
        ranges: [DeliveryRange(2...2)], duration: .seconds(1), into: &$0)
    }
    #expect(rig.tick(.seconds(1)).first == .lapsed(session, ConsumerID(1), [DeliveryRange(2...2)]))
    rig.settle(session, 3, .acknowledge, [3...3])
    #expect(rig.tick(.seconds(18)).isEmpty)
    #expect(rig.tick(.seconds(1)).first == .lapsed(session, ConsumerID(1), [DeliveryRange(1...1)]))
  }
}

@Suite struct SessionRules {
  let elsewhere = SessionOrigin(node: NodeID(2), connection: 9)

  @Test func laterSessionOfAProducerFencesTheEarlier() {
    let rig = Rig()
    let queue = rig.declare("q")
    let first = rig.open(producer: 5)
    rig.publish(first, 1, to: queue)
    let seen = rig.apply {
      CommandWriter.openSession(
        origin: elsewhere, kind: .native, producer: ProducerID(5), timeout: .seconds(1), name: "",
        into: &$0)
    }
    let second = SessionID(rawValue: rig.index.rawValue << 20)
    #expect(
      seen == [
        .plain(.producerFenced(first)),
        .plain(
          .sessionOpened(
            elsewhere, second, lastSequence: PublishSequence(1),
            epoch: ProducerEpoch(second.rawValue))),
      ])
    #expect(
      rig.publish(first, 2, to: queue) == [
        .plain(.refused(first, first: PublishSequence(2), count: 1, .producerFenced))
      ])
    // The end of the earlier does not make the producer idle.
    rig.apply { CommandWriter.closeSession(first, into: &$0) }
    #expect(rig.publish(second, 2, to: queue).count == 1)
  }

  @Test func detachOfAnOldConnectionMeansNothing() {
    let rig = Rig()
    let session = rig.open()
    rig.attach(session, origin: elsewhere)
    rig.detach(session)
    #expect(rig.machine.origin(of: session) == elsewhere)
  }

  @Test func detachedSessionGetsNothingNewAndKeepsWhatItHolds() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(timeout: .seconds(10))
    rig.subscribe(session, 1, queue)
    let publisher = rig.open(producer: 1)
    rig.publish(publisher, 1, to: queue)
    rig.detach(session)
    #expect(rig.publish(publisher, 2, to: queue).deliveries.isEmpty)
    #expect(rig.machine.held(by: session) == 1)
    #expect(rig.tick(Nanoseconds(9_999_999_999)).isEmpty)
    #expect(rig.machine.sessionCount == 2)
    rig.tick(Nanoseconds(1))
    #expect(rig.machine.sessionCount == 1)
    #expect(rig.summary(queue).ready == 2)
  }

  @Test func sessionWithoutTimeoutEndsWithItsConnection() {
    let rig = Rig()
    let session = rig.open(timeout: .zero)
    let seen = rig.apply { CommandWriter.nodeGone(NodeID(1), into: &$0) }
    #expect(seen == [.plain(.sessionEnded(session, .expired))])
  }

  @Test func leaderChangeDetachesNativeSessionsOfOtherNodesOnly() {
    let rig = Rig()
    let stays = rig.open(origin: elsewhere)
    let goes = rig.open()
    let amqp = rig.open(kind: .amqp)
    rig.apply { CommandWriter.leaderChanged(to: NodeID(2), into: &$0) }
    #expect(rig.machine.origin(of: stays) == elsewhere)
    #expect(rig.machine.origin(of: goes) == nil)
    #expect(rig.machine.origin(of: amqp) == rig.origin)
    rig.apply { CommandWriter.nodeGone(NodeID(1), into: &$0) }
    #expect(rig.machine.origin(of: amqp) == rig.origin)
  }

  @Test func attachSaysWhichConsumersAreGone() {
    let rig = Rig()
    let session = rig.open()
    let seen = rig.attach(session, origin: elsewhere, received: [4: 1])
    #expect(seen.last == .plain(.consumerCancelled(session, ConsumerID(4))))
    #expect(
      rig.attach(SessionID(7), origin: elsewhere) == [
        .plain(.sessionAttachRefused(elsewhere, SessionID(7), .sessionNotFound))
      ])
  }

  @Test func clockNeverGoesBack() {
    let rig = Rig()
    rig.tick(.seconds(5))
    let clock = rig.machine.clock
    rig.now = 1
    rig.tick(Nanoseconds(0))
    #expect(rig.machine.clock == clock)
  }

  @Test func effectsOfOtherNodesSessionsAreNotGathered() {
    let rig = Rig()
    let queue = rig.declare("q")
    let here = rig.open(producer: 1)
    let there = rig.open(origin: elsewhere)
    var payload: [UInt8] = []
    CommandWriter.beginBatch(into: &payload)
    CommandWriter.subscribe(
      there, consumer: ConsumerID(1), tag: RequestTag(1), queue: queue, credit: 1, into: &payload)
    Rig.publish(here, 1, to: queue, bodies: [1], into: &payload)
    var effects = EffectList(node: NodeID(1))
    payload.withUnsafeBytes {
      rig.machine.apply(index: rig.index.next, payload: $0, effects: &effects)
    }
    #expect(effects.effects.count == 1)
    #expect(effects.deliveries.isEmpty)
    #expect(rig.machine.held(by: there) == 1)
  }
}

@Suite struct BoundRules {
  @Test func hugeRangeCostsWhatIsHeldAndIsAnsweredCompactly() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 2, 3])
    rig.subscribe(session, 1, queue, credit: 2)
    let seen = rig.settle(session, 1, .acknowledge, [1...UInt64.max])
    #expect(seen.dropLast(2) == [refused(session, 3...UInt64.max, .deliveryNotFound)])
    #expect(rig.summary(queue).acknowledged == 2)
    #expect(seen.deliveries.count == 1)
    // Asked again: answered alike, nothing settled twice, and forgotten once seen.
    let again = rig.settle(session, 1, .acknowledge, [1...UInt64.max])
    #expect(again == Array(seen.dropLast()))
    let later = rig.settle(session, 1, .acknowledge, [1...3], answeredThrough: 1)
    #expect(later == [.plain(.settled(session, through: CommandSequence(1)))])
    #expect(rig.summary(queue).acknowledged == 2)
  }

  @Test(arguments: [[1...2, 2...3], [1...1, 1...1], [3...3, 1...1], [0...3]])
  func rangesThatAreNotAscendingAndApartAreRefusedAndUseTheNumberUp(
    ranges: [ClosedRange<UInt64>]
  ) {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 2, 3])
    rig.subscribe(session, 1, queue)
    let seen = rig.settle(session, 1, .acknowledge, ranges)
    #expect(
      seen == ranges.map { refused(session, $0, .malformedRequest) } + [
        .plain(.settled(session, through: CommandSequence(1)))
      ])
    #expect(rig.settle(session, 1, .acknowledge, ranges) == seen)
    let extended = rig.apply {
      CommandWriter.extend(
        session, sequence: CommandSequence(2), answeredThrough: CommandSequence(1),
        consumer: ConsumerID(1), ranges: ranges.map { DeliveryRange($0) }, duration: .seconds(90),
        into: &$0)
    }
    #expect(extended.count == ranges.count + 1)
    #expect(
      rig.machine.deliveries(of: session).allSatisfy { $0.1.leaseEnd < MachineTime(90 << 30) })
    #expect(rig.machine.held(by: session) == 3)
    #expect(rig.settle(session, 3, .acknowledge, [1...3]).count == 1)
  }

  /// Quadratic work would take hours here: at a change of leader every replica has to do it.
  @Test(.timeLimit(.minutes(1))) func aThousandConsumersLeaveTheRotationAtOnce() {
    let rig = Rig()
    let queue = rig.declare("q")
    let sessions = (0..<10).map { _ in rig.open() }
    rig.apply {
      for session in sessions {
        for consumer in UInt32(1)...2_000 {
          CommandWriter.subscribe(
            session, consumer: ConsumerID(consumer), tag: RequestTag(1), queue: queue, credit: 1,
            into: &$0)
        }
      }
    }
    rig.apply { CommandWriter.leaderChanged(to: NodeID(2), into: &$0) }
    #expect(rig.machine.consumerCount == 20_000)
    #expect(rig.machine.state.queues[rig.machine.state.queues.slots[0]].rotation.isEmpty)
  }

  @Test func rotationKeepsItsOrderWhoeverLeaves() {
    var rotation = Rotation()
    var places = (0..<6).map { rotation.append($0) }
    for leaving in [0, 3, 5] { rotation.remove(at: places[leaving]) }
    #expect(rotation.consumers == [1, 2, 4])
    places[3] = rotation.append(3)
    #expect(rotation.popFirst() == 1)
    rotation.remove(at: places[4])
    #expect(rotation.consumers == [2, 3])
    rotation.remove(at: places[3])
    #expect([rotation.popFirst(), rotation.popFirst()] == [2, nil])
    #expect(rotation.count == 0)
  }

  @Test func nacksCountForWhatTheyReturnAndNotForWhatTheConsumerHolds() {
    var limits = MachineLimits()
    limits.settledPerEntry = 10
    limits.extendedPerEntry = 10
    let rig = Rig(limits: limits)
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: Array(repeating: 1, count: 20))
    rig.subscribe(session, 1, queue, credit: 20)
    let seen = rig.apply { payload in
      for number in UInt64(1)...10 {
        CommandWriter.settle(
          session, sequence: CommandSequence(number), answeredThrough: .zero, kind: .negative,
          consumer: ConsumerID(1), ranges: [DeliveryRange(number...number)], into: &payload)
      }
      CommandWriter.settle(
        session, sequence: CommandSequence(11), answeredThrough: .zero, kind: .release,
        consumer: ConsumerID(1), ranges: [DeliveryRange(11...11)], into: &payload)
    }
    #expect(rig.machine.deliveries(of: session).count { $0.1.attempt == 2 } == 10)
    #expect(
      seen.last
        == .plain(
          .settleRefused(
            session, CommandSequence(11), ConsumerID(1), DeliveryRange(11...11), .overloaded)))
    let extended = rig.apply { payload in
      for (number, last) in [(UInt64(11), UInt64(20)), (12, 21)] {
        CommandWriter.extend(
          session, sequence: CommandSequence(number), answeredThrough: .zero,
          consumer: ConsumerID(1), ranges: [DeliveryRange(11...last)], duration: .seconds(1),
          into: &payload)
      }
    }
    #expect(
      extended == [
        .plain(.settled(session, through: CommandSequence(11))),
        .plain(
          .settleRefused(
            session, CommandSequence(12), ConsumerID(1), DeliveryRange(11...21), .overloaded)),
      ])
  }

  private func refused(
    _ session: SessionID, _ range: ClosedRange<UInt64>, _ refusal: Refusal
  ) -> Seen {
    .plain(
      .settleRefused(session, CommandSequence(1), ConsumerID(1), DeliveryRange(range), refusal))
  }

  @Test func unansweredPublishesAreBoundedAndTheNumberIsNotUsedUp() {
    var limits = MachineLimits()
    limits.unansweredMessages = 3
    let rig = Rig(limits: limits)
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 2])
    #expect(
      rig.publish(session, 3, to: queue, bodies: [3, 4]) == [
        .plain(.refused(session, first: PublishSequence(3), count: 2, .tooManyUnanswered))
      ])
    #expect(rig.publish(session, 3, to: queue, bodies: [3, 4], answeredThrough: 1).count == 1)
    #expect(rig.summary(queue).ready == 4)
  }

  @Test func aDetachedSessionThatHoldsNothingMakesRoom() throws {
    var limits = MachineLimits()
    limits.sessions = 4
    let rig = Rig(limits: limits)
    let queue = rig.declare("q")
    let holds = rig.open(timeout: .seconds(60))
    rig.subscribe(holds, 1, queue, credit: 1)
    let attached = rig.open(producer: 1)
    rig.publish(attached, 1, to: queue)
    let late = rig.open(timeout: .seconds(3_600))
    let early = rig.open(timeout: .seconds(1_800))
    for session in [holds, late, early] { rig.detach(session) }
    try rig.restart(limits: limits)
    #expect(rig.tryOpen().first == .plain(.sessionEnded(early, .expired)))
    #expect(rig.tryOpen().first == .plain(.sessionEnded(late, .expired)))
    #expect(rig.tryOpen() == [.plain(.sessionOpenRefused(rig.origin, .tooManySessions))])
    // What it holds lapses, and it is one that holds nothing.
    rig.tick(.seconds(30))
    #expect(rig.tryOpen().first == .plain(.sessionEnded(holds, .expired)))
    #expect(rig.machine.sessionCount == 4)
    #expect(rig.machine.consumerCount == 0)
  }

  @Test func theProposersLimitOfSessionsIsKept() {
    let rig = Rig()
    _ = rig.open()
    let seen = rig.apply {
      CommandWriter.openSession(
        origin: rig.origin, kind: .native, producer: ProducerID(0), sessionsMax: 1,
        timeout: .seconds(1), name: "", into: &$0)
    }
    #expect(seen == [.plain(.sessionOpenRefused(rig.origin, .tooManySessions))])
  }

  @Test func creditOfASessionIsBoundedSoThatItCanAlwaysBeAttached() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open()
    for consumer in UInt32(1)...4 { rig.subscribe(session, consumer, queue, credit: 65_535) }
    func refused(_ seen: [Seen]) -> Bool {
      guard case .plain(.reply(_, _, .refused(.tooMuchCredit, _)))? = seen.first else {
        return false
      }
      return true
    }
    #expect(!refused(rig.subscribe(session, 5, queue, credit: 4)))
    #expect(refused(rig.subscribe(session, 6, queue, credit: 1)))
    func set(_ credit: UInt32) -> [Seen] {
      rig.apply {
        CommandWriter.setCredit(
          session, consumer: ConsumerID(5), tag: RequestTag(1), credit: credit, into: &$0)
      }
    }
    #expect(refused(set(5)))
    #expect(!refused(set(1)))
    #expect(!refused(rig.subscribe(session, 6, queue, credit: 3)))
  }

  @Test func consumersOfAllSessionsAreBounded() {
    var limits = MachineLimits()
    limits.consumers = 2
    let rig = Rig(limits: limits)
    let queue = rig.declare("q")
    let sessions = (0..<3).map { _ in rig.open() }
    for session in sessions { rig.subscribe(session, 1, queue) }
    #expect(rig.machine.consumerCount == 2)
    // One that is there is not a further one.
    #expect(rig.subscribe(sessions[0], 1, queue, credit: 3).count == 1)
    #expect(rig.machine.consumers(of: sessions[2]).isEmpty)
  }

  @Test func refusalsOfAllSessionsAreBoundedButFewAreAlwaysTaken() {
    var limits = MachineLimits()
    limits.refusals = 3
    limits.refusalsWhenFull = 2
    let rig = Rig(limits: limits)
    let hoarder = rig.open()
    rig.settle(hoarder, 1, .acknowledge, [1...1, 2...2, 3...3])
    func isPushedBack(_ seen: [Seen]) -> Bool {
      guard case .plain(.settleRefused(_, _, _, _, .tooManyUnanswered))? = seen.first else {
        return false
      }
      return true
    }
    #expect(isPushedBack(rig.settle(hoarder, 2, .acknowledge, [4...4])))
    let other = rig.open()
    #expect(isPushedBack(rig.settle(other, 1, .acknowledge, [1...1, 2...2, 3...3])))
    #expect(!isPushedBack(rig.settle(other, 1, .acknowledge, [1...1, 2...2])))
    rig.apply { CommandWriter.closeSession(hoarder, into: &$0) }
    #expect(!isPushedBack(rig.settle(other, 2, .acknowledge, [1...1, 2...2, 3...3])))
  }

  @Test func answersOfIdleProducersAreBounded() throws {
    var limits = MachineLimits()
    limits.idleRuns = 3
    let rig = Rig(limits: limits)
    let queue = rig.declare("q")
    for producer in UInt64(1)...2 {
      let session = rig.open(producer: producer)
      for sequence in UInt64(1)...2 { rig.publish(session, sequence, to: queue) }
      rig.apply { CommandWriter.closeSession(session, into: &$0) }
    }
    try rig.restart(limits: limits)
    func outcome(_ producer: UInt64, _ sequence: UInt64) -> PublishOutcome {
      rig.machine.outcome(of: PublishSequence(sequence), by: ProducerID(producer))
    }
    #expect(outcome(1, 1) != .answerForgotten)
    #expect(outcome(2, 1) == .answerForgotten)
    #expect(outcome(2, 2) != .answerForgotten)
    // Not stored again for that.
    let session = rig.open(producer: 2)
    rig.publish(session, 1, to: queue)
    #expect(rig.summary(queue).ready == 4)
  }

  @Test func idleProducersAreBoundedAndTheOldestGoes() {
    var limits = MachineLimits()
    limits.idleProducers = 2
    let rig = Rig(limits: limits)
    let queue = rig.declare("q")
    for producer in UInt64(1)...3 {
      let session = rig.open(producer: producer)
      rig.publish(session, 1, to: queue)
      rig.apply { CommandWriter.closeSession(session, into: &$0) }
      rig.tick(.seconds(1))
    }
    let known = (UInt64(1)...3).map {
      rig.machine.outcome(of: PublishSequence(1), by: ProducerID($0)) != .unseen
    }
    #expect(known == [false, true, true])
  }

  @Test func whatFallsDueTogetherIsSpreadOverEntries() {
    var limits = MachineLimits()
    limits.dueWorkPerEntry = 10
    let rig = Rig(limits: limits)
    let queue = rig.declare("q") { $0.lease = .seconds(1) }
    let session = rig.open(producer: 1, timeout: .seconds(1))
    for consumer in UInt32(1)...3 { rig.subscribe(session, consumer, queue, credit: 8) }
    rig.publish(session, 1, to: queue, bodies: Array(repeating: 1, count: 24))
    rig.detach(session)
    rig.tick(.seconds(1))
    #expect(rig.summary(queue).leased == 14)
    #expect(rig.machine.nextDeadline <= rig.machine.clock)
    rig.tick(.zero)
    #expect(rig.summary(queue).leased == 4)
    rig.tick(.zero)
    #expect(rig.summary(queue).ready == 24)
    #expect(rig.machine.sessionCount == 0)
    #expect(rig.machine.nextDeadline == .never)
  }

  @Test func messagesOfOneEntryAreBounded() {
    var limits = MachineLimits()
    limits.publishesPerEntry = 3
    limits.settledPerEntry = 3
    let rig = Rig(limits: limits)
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    let seen = rig.apply {
      Rig.publish(session, 1, to: queue, bodies: [1, 2], into: &$0)
      Rig.publish(session, 3, to: queue, bodies: [1, 2], into: &$0)
    }
    #expect(
      seen.last
        == .plain(.refused(session, first: PublishSequence(3), count: 2, .overloaded)))
    rig.publish(session, 3, to: queue, bodies: [1, 2])
    rig.subscribe(session, 1, queue)
    #expect(
      rig.settle(session, 1, .negative, [1...4]) == [
        .plain(
          .settleRefused(
            session, CommandSequence(1), ConsumerID(1), DeliveryRange(1...4), .overloaded))
      ])
    #expect(rig.settle(session, 1, .acknowledge, [1...2]).count == 1)
    #expect(rig.settle(session, 2, .negative, [3...3]).deliveries.count == 1)
  }

  @Test func longErrorTextIsCutBetweenCharacters() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue)
    rig.subscribe(session, 1, queue, credit: 1)
    let text = String(repeating: "é", count: 1000)
    rig.settle(session, 1, .negative, [1...1], error: "x" + text)
    #expect(rig.machine.peek(queue, limit: 1)[0].lastError.utf8.count == 1_023)
  }

  @Test func scatteredSettlesKeepTheHeldListSmall() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.subscribe(session, 1, queue, credit: 3)
    // One delivery is kept while hundreds come and go behind it.
    rig.publish(session, 1, to: queue)
    for number in UInt64(2)...300 {
      rig.publish(session, number, to: queue, answeredThrough: number - 1)
      rig.settle(session, number - 1, .acknowledge, [number...number])
    }
    #expect(rig.machine.held(by: session) == 1)
    #expect(rig.machine.state.consumers[rig.machine.state.consumers.slots[0]].held.end < 10)
  }
}
