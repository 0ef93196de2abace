// What one entry may do at most, where one command or one moment asks for far more.

import Base
import Testing

@testable import QueueMachine

/// A queue `q` whose dead letters are copied to `d0`, `d1` ... by a fanout exchange.
private struct FanOut {
  let rig: Rig
  let session: AMQPSession
  let targets: [String]
  let limits: MachineLimits

  init(
    targets count: Int, dueWork: Int, _ change: (inout QueueOrder) -> Void = { _ in }
  ) {
    var limits = MachineLimits()
    limits.dueWorkPerEntry = dueWork
    self.limits = limits
    rig = Rig(limits: limits)
    session = AMQPSession(rig)
    targets = (0..<count).map { "d\($0)" }
    session.exchange("dlx", .fanout)
    for target in targets {
      session.queue(target)
      session.bind("dlx", to: .queue(target))
    }
    session.queue("q") {
      $0.deadLetterExchange = "dlx"
      change(&$0)
    }
  }

  /// How many messages each target has.
  var copies: [UInt64?] { targets.map { session.ready($0) } }

  func all(_ count: UInt64) -> [UInt64?] { targets.map { _ in count } }

  func summary(_ name: String) -> QueueSummary {
    rig.summary(rig.machine.queue(named: name) ?? QueueID(0))
  }

  func deadLetters(_ name: String) -> [DeadLetterNote] {
    rig.machine.peek(rig.machine.queue(named: name) ?? QueueID(0), limit: 100)
      .compactMap(\.deadLetter)
  }

  /// Ticks without time passing until nothing is due, at most `most` times; how many it took.
  func settleDown(_ most: Int = 10) -> Int {
    var count = 0
    while rig.machine.nextDeadline <= rig.machine.clock, count < most {
      rig.tick(.zero)
      count += 1
    }
    return count
  }
}

@Suite struct DeadLetterCopyRules {
  @Test func copiesOfRejectedMessagesAreSpreadOverEntries() throws {
    let fan = FanOut(targets: 5, dueWork: 10)
    fan.session.publish("", keys: ["q"], headers: Array(repeating: [], count: 6))
    #expect(fan.session.consume("q").deliveries.count == 6)
    fan.rig.settle(fan.session.id, 1, .reject, [1...6], error: "bad")
    // Two in this entry; the others stay, nobody gets them again.
    #expect(fan.copies == fan.all(2))
    #expect(fan.summary("q").delayed == 4 && fan.summary("q").leased == 0)
    try fan.rig.restart(limits: fan.limits)
    #expect(fan.rig.tick(.zero).deliveries.isEmpty)
    #expect(fan.copies == fan.all(4))
    #expect(fan.settleDown() == 1)
    #expect(fan.copies == fan.all(6) && fan.summary("q").delayed == 0)
    for target in fan.targets {
      let notes = fan.deadLetters(target)
      #expect(notes.map(\.reason) == Array(repeating: .rejected, count: 6))
      #expect(notes.allSatisfy { $0.attempts == 1 && $0.lastError == "bad" })
      #expect(Set(notes.map(\.originID)).count == 6)
    }
  }

  @Test func copiesOfExpiredMessagesAreSpreadOverEntries() {
    let fan = FanOut(targets: 5, dueWork: 8) { $0.settings.timeToLive = .seconds(1) }
    fan.session.publish("", keys: ["q"], headers: Array(repeating: [], count: 6))
    fan.rig.tick(.seconds(1))
    #expect(fan.copies == fan.all(1))
    #expect(fan.settleDown() == 5)
    #expect(fan.copies == fan.all(6))
    #expect(
      fan.deadLetters("d4").map(\.reason) == Array(repeating: .expired, count: 6))
  }

  @Test func leasesThatRunOutMakeBoundedCopies() {
    let fan = FanOut(targets: 5, dueWork: 10) {
      $0.settings.deliveriesMax = 1
      $0.settings.lease = .seconds(1)
    }
    fan.session.publish("", keys: ["q"], headers: Array(repeating: [], count: 6))
    #expect(fan.session.consume("q").deliveries.count == 6)
    fan.rig.tick(.seconds(1))
    #expect(fan.copies == fan.all(2) && fan.summary("q").leased == 4)
    _ = fan.settleDown()
    #expect(fan.copies == fan.all(6))
    #expect(
      fan.deadLetters("d0").map(\.reason) == Array(repeating: .deliveriesExhausted, count: 6))
  }

  /// A limit below the number of queues would hold such a message for ever.
  @Test func oneMessageGoesHoweverManyCopiesItHas() {
    let fan = FanOut(targets: 5, dueWork: 3)
    fan.session.publish("", keys: ["q"], headers: [[], []])
    _ = fan.session.consume("q")
    fan.rig.settle(fan.session.id, 1, .reject, [1...2])
    #expect(fan.copies == fan.all(1))
    #expect(fan.settleDown() == 1)
    #expect(fan.copies == fan.all(2))
  }

  @Test func whatWaitsToBeCopiedGivesItsKeysPlaceUp() {
    let fan = FanOut(targets: 5, dueWork: 8) {
      $0.settings.timeToLive = .seconds(1)
      $0.settings.keyLimit = 1
    }
    let queue = fan.rig.machine.queue(named: "q") ?? QueueID(0)
    let native = fan.rig.open(producer: 1)
    fan.rig.publish(
      native, 1, to: queue,
      messages: Array(repeating: MessageParts(body: [2], key: "k"), count: 4))
    fan.rig.tick(.seconds(1))
    _ = fan.settleDown()
    #expect(fan.copies == fan.all(4))
  }

  @Test func deletingTheQueueTakesWhatWaitsToBeCopied() {
    let fan = FanOut(targets: 5, dueWork: 10)
    fan.session.publish("", keys: ["q"], headers: Array(repeating: [], count: 6))
    _ = fan.session.consume("q")
    fan.rig.settle(fan.session.id, 1, .reject, [1...6])
    // Its own entry moves two more before.
    fan.rig.ask { CommandWriter.deleteQueue($0, tag: $1, name: "q", into: &$2) }
    #expect(fan.settleDown() == 0)
    #expect(fan.copies == fan.all(4))
  }
}

/// However much one consumer holds, and whatever is to become of it.
@Suite struct DueWorkBoundRules {
  private func limits(dueWork: Int, moves: Int = FixedLimits.movesPerEntry) -> MachineLimits {
    var limits = MachineLimits()
    limits.dueWorkPerEntry = dueWork
    limits.movesPerEntry = moves
    return limits
  }

  /// What its client still holds can be settled, and what went back it is told, each once.
  @Test func leasesOfOneConsumerRunOutOverSeveralEntries() throws {
    let limits = limits(dueWork: 3)
    let rig = Rig(limits: limits)
    let queue = rig.declare("q") { $0.lease = .seconds(1) }
    let session = rig.open(producer: 1, timeout: .seconds(100))
    rig.publish(session, 1, to: queue, bodies: Array(repeating: 1, count: 8))
    rig.subscribe(session, 1, queue, credit: 8)
    rig.apply { payload in
      CommandWriter.setCredit(
        session, consumer: ConsumerID(1), tag: rig.tag(), credit: 0, into: &payload)
    }
    func lapsed(_ range: ClosedRange<UInt64>) -> Seen {
      .lapsed(session, ConsumerID(1), [DeliveryRange(range)])
    }
    #expect(rig.tick(.seconds(1)) == [lapsed(1...3)])
    #expect(rig.summary(queue).leased == 5 && rig.summary(queue).ready == 3)
    #expect(rig.machine.nextDeadline <= rig.machine.clock)
    try rig.restart(limits: limits)
    #expect(rig.tick(.zero) == [lapsed(4...6)])
    #expect(rig.tick(.zero) == [lapsed(7...8)])
    #expect(rig.summary(queue).ready == 8 && rig.machine.nextDeadline == .never)
  }

  /// A replica that was restored has no gaps between what is held.
  @Test func whatIsLeftDoesNotDependOnGaps() throws {
    let limits = limits(dueWork: 3)
    let rig = Rig(limits: limits)
    let queue = rig.declare("q") { $0.lease = .seconds(1) }
    let session = rig.open(producer: 1, timeout: .seconds(100))
    rig.publish(session, 1, to: queue, bodies: Array(repeating: 1, count: 4))
    rig.subscribe(session, 1, queue, credit: 4)
    rig.settle(session, 1, .acknowledge, [4...4])
    let other = Rig(limits: limits)
    other.machine = try QueueMachine(snapshot: rig.machine.freeze().encoded(), limits: limits)
    other.index = rig.index
    for rig in [rig, other] {
      rig.now += Nanoseconds.seconds(1).rawValue
      rig.apply { payload in
        CommandWriter.setCredit(
          session, consumer: ConsumerID(1), tag: RequestTag(99), credit: 0, into: &payload)
      }
    }
    #expect(rig.machine.stateHash == other.machine.stateHash)
    #expect(rig.machine.freeze().encoded() == other.machine.freeze().encoded())
  }

  @Test func whatALostClientHeldGoesBackOverSeveralEntries() throws {
    let limits = limits(dueWork: 3)
    let rig = Rig(limits: limits)
    let session = AMQPSession(rig)
    session.queue("dead")
    session.queue("q") {
      $0.deadLetterExchange = ""
      $0.deadLetterKey = [UInt8]("dead".utf8)
      $0.settings.deliveriesMax = 1
    }
    session.publish("", keys: ["q"], headers: Array(repeating: [], count: 7))
    #expect(session.consume("q").deliveries.count == 7)
    session.lose()
    let other = AMQPSession(rig, connection: 2)
    // The opening of a session was an entry too.
    #expect(other.ready("dead") == 6 && rig.machine.isThere(session.id))
    try rig.restart(limits: limits)
    let seen = rig.tick(.zero)
    #expect(other.ready("dead") == 7 && rig.machine.consumerCount == 0)
    #expect(seen.contains(.plain(.sessionEnded(session.id, .expired))))
    #expect(rig.machine.nextDeadline == .never)
  }

  /// No more ids are made for what moves than an entry has beside its publishes', also where a native
  /// queue names a dead-letter queue.
  @Test(arguments: [SettleKind.reject, .negative]) func movesOfAnEntryAreBounded(
    kind: SettleKind
  ) throws {
    let limits = limits(dueWork: 10, moves: 3)
    let rig = Rig(limits: limits)
    rig.declare("dead")
    let queue = rig.declare("q") {
      $0.deadLetterQueue = "dead"
      $0.deliveriesMax = 1
    }
    let dead = rig.machine.queue(named: "dead") ?? QueueID(0)
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: Array(repeating: 1, count: 8))
    rig.subscribe(session, 1, queue, credit: 8)
    rig.settle(session, 1, kind, [1...8], error: "bad")
    #expect(rig.summary(dead).ready == 3)
    // Nobody gets the others again.
    #expect(rig.summary(queue).leased == 0 && rig.summary(queue).delayed == 5)
    try rig.restart(limits: limits)
    let redriven = rig.ask {
      CommandWriter.redriveQueue(
        $0, tag: $1, queue: "dead", which: .all, after: MessageID(rawValue: 0),
        through: MessageID(rawValue: 0), limit: 10, into: &$2)
    }
    guard case .refused(.overloaded, _) = redriven else {
      Issue.record("\(redriven)")
      return
    }
    #expect(rig.summary(dead).ready == 6)
    rig.tick(.zero)
    #expect(rig.summary(dead).ready == 8 && rig.machine.nextDeadline > rig.machine.clock)
    let notes = rig.machine.peek(dead, limit: 10).compactMap(\.deadLetter)
    let reason = kind == .reject ? DeadLetterReason.rejected : .deliveriesExhausted
    #expect(notes.map(\.reason) == Array(repeating: reason, count: 8))
    #expect(notes.allSatisfy { $0.attempts == 1 && $0.lastError == "bad" })
    #expect(Set(notes.map(\.originID)).count == 8)
  }
}

@Suite struct QueueExpiryBoundRules {
  @Test func queuesThatExpireTogetherAreSpreadOverEntries() {
    var limits = MachineLimits()
    limits.dueWorkPerEntry = 3
    let rig = Rig(limits: limits)
    let session = rig.open(producer: 1, timeout: .seconds(1_000))
    let queues = (0..<5).map { rig.declare("q\($0)") { $0.expires = .seconds(10) } }
    rig.publish(session, 1, to: queues[0], bodies: [1, 1])
    rig.tick(.seconds(10))
    // Its two messages count like the queue itself.
    #expect(rig.machine.queueCount == 4)
    #expect(rig.machine.nextDeadline <= rig.machine.clock)
    // One that is used again before its turn stays.
    rig.apply { payload in
      var settings = QueueSettings()
      settings.expires = .seconds(10)
      CommandWriter.declareQueue(
        .connection(rig.origin), tag: rig.tag(), name: "q4", settings: settings, into: &payload)
    }
    #expect(rig.machine.queueCount == 1 && rig.machine.queue(named: "q4") == queues[4])
    rig.tick(.seconds(10))
    #expect(rig.machine.queueCount == 0 && rig.machine.nextDeadline == .never)
  }

  @Test func aQueueFindsItsConsumersAfterOthersLeft() throws {
    let rig = Rig()
    let session = rig.open(producer: 1)
    let queue = rig.declare("q")
    let other = rig.declare("other")
    for consumer in UInt32(1)...6 {
      rig.subscribe(session, consumer, consumer == 3 ? other : queue)
    }
    // The first, the last and one between.
    for consumer in [6, 1, 4] as [UInt32] { rig.unsubscribe(session, consumer) }
    try rig.restart()
    let cancelled = rig.apply {
      CommandWriter.deleteQueue(.connection(rig.origin), tag: rig.tag(), name: "q", into: &$0)
    }.compactMap { seen -> UInt32? in
      if case .plain(.consumerCancelled(session, let consumer)) = seen {
        return consumer.rawValue
      }
      return nil
    }
    #expect(cancelled == [2, 5] && rig.machine.consumerCount == 1)
  }
}

@Suite struct ConsumerPriorityBoundRules {
  /// In the order of their priorities and then of their subscribing, whoever left in between.
  @Test func manyPrioritiesTakeTheirTurns() throws {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    var expected: [(priority: Int16, consumer: UInt32)] = []
    for consumer in UInt32(1)...120 {
      let priority = Int16(consumer * 37 % 91) - 45
      _ = rig.subscribing(session, consumer, queue, credit: 1, priority: priority)
      expected.append((priority, consumer))
    }
    for consumer in stride(from: UInt32(2), through: 120, by: 3) {
      rig.unsubscribe(session, consumer)
      expected.removeAll { $0.consumer == consumer }
    }
    try rig.restart()
    expected.sort { ($1.priority, $0.consumer) < ($0.priority, $1.consumer) }
    var takers: [UInt32] = []
    for number in 1...40 {
      takers += rig.publish(session, UInt64(number), to: queue, bodies: [1]).takers
    }
    takers +=
      rig.publish(session, 41, to: queue, bodies: Array(repeating: 1, count: 50)).takers
    #expect(takers == expected.map(\.consumer))
    #expect(rig.summary(queue).ready == 10)
  }
}

@Suite struct AnswerBoundRules {
  private func confirmed(_ seen: [Seen]) -> Int {
    seen.reduce(0) { sum, effect in
      if case .plain(.confirmed(_, _, let count, _, _)) = effect { sum + Int(count) } else { sum }
    }
  }

  /// Messages that fit and that never will by turns: no two answers are alike.
  @Test func onePublishMakesNoMoreRunsOfAnswersThanAreKept() throws {
    var limits = MachineLimits()
    limits.unansweredRuns = 4
    let rig = Rig(limits: limits)
    let queue = rig.declare("q") {
      $0.bytesMax = 64
      $0.overflow = .dropOldest
    }
    let session = rig.open(producer: 1)
    let bodies = [1, 100, 1, 100, 1, 100, 1]
    let seen = rig.publish(session, 1, to: queue, bodies: bodies)
    #expect(confirmed(seen) == 2)
    #expect(seen.last == rig.refusal(session, 5, 3, .tooManyUnanswered)[0])
    // Sent again the known ones are answered alike, and the others as far as they go.
    #expect(rig.publish(session, 1, to: queue, bodies: bodies) == seen)
    let rest = rig.publish(
      session, 5, to: queue, bodies: Array(bodies[4...]), answeredThrough: 4)
    #expect(confirmed(rest) == 2 && rest.count == 3)
    #expect(rig.summary(queue).published == 4)
  }

  @Test func onePublishMakesFewRunsWhereAllTogetherHaveTooMany() {
    var limits = MachineLimits()
    limits.liveRuns = 3
    limits.runsWhenFull = 2
    let rig = Rig(limits: limits)
    let queue = rig.declare("q") { $0.bytesMax = 100 }
    let bodies = [1, 100, 1, 100, 1]
    for (producer, taken) in [(1, 3), (2, 2), (3, 2)] as [(UInt64, UInt64)] {
      let session = rig.open(producer: producer)
      let seen = rig.publish(session, 1, to: queue, bodies: bodies)
      #expect(
        seen.last
          == rig.refusal(session, taken + 1, UInt32(5 - taken), .tooManyUnanswered)[0])
    }
    // What goes on as the last answer did needs no room.
    let session = rig.open(producer: 4)
    let seen = rig.publish(session, 1, to: queue, bodies: [1, 100, 100, 100])
    #expect(seen.count == 2)
  }

  @Test func aTransactionMakesNoMoreRunsOfAnswersThanAreKept() {
    var limits = MachineLimits()
    limits.unansweredRuns = 3
    let rig = Rig(limits: limits)
    let queues = ["a", "b"].map { rig.declare($0) }
    let session = rig.open(producer: 1)
    let parts: [(queues: [QueueID], bodies: [Int])] = [
      (queues, [1]), ([queues[0]], [1]), (queues, [1]),
    ]
    rig.publish(session, 1, to: queues[0])
    #expect(
      rig.transact(session, 2, parts) == rig.refusal(session, 2, 3, .tooManyUnanswered))
    rig.publish(session, 2, to: queues[0], answeredThrough: 1)
    #expect(rig.summary(queues[1]).ready == 0)
    // Parts whose messages have as many ids make one run.
    let alike = rig.transact(session, 3, [([queues[0]], [1]), ([queues[1]], [1])])
    #expect(confirmed(alike) == 2)
  }

  @Test func aTransactionIsLookedAtByWhatCostsLittleFirst() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    let one = DeliveryRange(1...1)
    let twice = (0..<2).map { _ in TransactionSettle(consumer: ConsumerID(1), ranges: [one]) }
    #expect(
      rig.transact(
        session, 1, holder: SessionID(rawValue: 77), settling: twice, [([queue], [1])])
        == rig.refusal(session, 1, 1, .staleDelivery))
    let many = (UInt64(0)..<2).map { half in
      TransactionSettle(
        consumer: ConsumerID(1),
        ranges: (1...UInt64(2_049)).map { DeliveryRange((2 * $0 + half)...(2 * $0 + half)) })
    }
    #expect(
      rig.transact(session, 2, settling: many, [([queue], [1])])
        == rig.refusal(session, 2, 1, .transactionTooLarge))
  }
}

@Suite struct RefusalBoundRules {
  /// A consumer that holds every second of its deliveries.
  private func everySecond(
    _ count: UInt64, _ limits: MachineLimits
  ) -> (rig: Rig, queue: QueueID, session: SessionID) {
    let rig = Rig(limits: limits)
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: Array(repeating: 1, count: Int(count)))
    rig.subscribe(session, 1, queue, credit: UInt32(count))
    rig.settle(session, 1, .acknowledge, stride(from: 2, through: count, by: 2).map { $0...$0 })
    return (rig, queue, session)
  }

  private func refused(
    _ session: SessionID, _ sequence: UInt64, _ range: ClosedRange<UInt64>, _ refusal: Refusal
  ) -> Seen {
    .plain(
      .settleRefused(
        session, CommandSequence(sequence), ConsumerID(1), DeliveryRange(range), refusal))
  }

  private func settled(_ session: SessionID, _ through: UInt64) -> Seen {
    .plain(.settled(session, through: CommandSequence(through)))
  }

  @Test func aSettleWithMoreGapsThanAreRememberedIsRefusedAsAWhole() throws {
    var limits = MachineLimits()
    limits.unansweredRefusals = 4
    let (rig, queue, session) = everySecond(12, limits)
    // Of 1...12 the six even ones are gone.
    let whole = [refused(session, 2, 1...12, .malformedRequest), settled(session, 2)]
    #expect(rig.settle(session, 2, .acknowledge, [1...12]) == whole)
    #expect(rig.summary(queue).leased == 6)
    try rig.restart(limits: limits)
    #expect(rig.settle(session, 2, .acknowledge, [1...12]) == whole)
    // In two steps it can be done: no more than are remembered each.
    #expect(
      rig.settle(session, 3, .acknowledge, [1...8], answeredThrough: 2)
        == [2, 4, 6, 8].map { refused(session, 3, $0...$0, .staleDelivery) }
        + [settled(session, 3)])
    #expect(rig.summary(queue).leased == 2)
  }

  @Test func gapsAreRememberedOnlyWhereThereIsRoom() {
    var limits = MachineLimits()
    limits.unansweredRefusals = 4
    let (rig, queue, session) = everySecond(12, limits)
    rig.settle(session, 2, .acknowledge, [1...4])
    // Two are remembered; two more would do, three are too many, also for more time.
    #expect(
      rig.settle(session, 3, .acknowledge, [5...10])
        == [refused(session, 3, 5...10, .tooManyUnanswered)])
    let extended = rig.apply {
      CommandWriter.extend(
        session, sequence: CommandSequence(3), answeredThrough: CommandSequence(1),
        consumer: ConsumerID(1), ranges: [DeliveryRange(5...10)], duration: .seconds(1), into: &$0)
    }
    #expect(extended == [refused(session, 3, 5...10, .tooManyUnanswered)])
    #expect(rig.summary(queue).leased == 4)
    #expect(rig.settle(session, 3, .acknowledge, [5...8]).count == 3)
    #expect(rig.settle(session, 4, .acknowledge, [9...12], answeredThrough: 3).count == 3)
    #expect(rig.summary(queue).leased == 0)
  }

  @Test func whatIsAllHeldGoesHoweverMuchOthersLeaveUnanswered() {
    var limits = MachineLimits()
    limits.refusals = 3
    limits.refusalsWhenFull = 2
    let rig = Rig(limits: limits)
    let queue = rig.declare("q")
    let hoarder = rig.open()
    rig.settle(hoarder, 1, .acknowledge, [1...1, 2...2, 3...3])
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 1, 1, 1, 1])
    rig.subscribe(session, 1, queue)
    #expect(rig.settle(session, 1, .acknowledge, [1...1, 3...3, 5...5]) == [settled(session, 1)])
    // Gaps before, between and behind: three.
    #expect(
      rig.settle(session, 2, .acknowledge, [1...5]) == [
        refused(session, 2, 1...5, .tooManyUnanswered)
      ]
    )
    #expect(rig.settle(session, 2, .acknowledge, [2...4]).count == 2)
    #expect(rig.summary(queue).leased == 0)
  }
}

@Suite struct SharedRecordBoundRules {
  /// However few are looked at in one pass over the messages.
  @Test(arguments: [1, 2, 3, 7, 8, 100])
  func sharedRecordsAreToldOnceInSeveralPasses(atOnce: Int) throws {
    let rig = Rig()
    let queues = ["a", "b", "c"].map { rig.declare($0) }
    let session = rig.open(producer: 1)
    rig.transact(session, 1, [(queues, [10, 20, 30])])
    rig.publish(session, 4, to: queues[1], bodies: [40, 50])
    rig.transact(session, 6, [([queues[2], queues[0]], [60, 70, 80, 90])])
    rig.subscribe(session, 1, queues[2], credit: 3)
    for _ in 0..<2 {
      var told: [RecordReference] = []
      rig.machine.state.forEachLiveRecord(sharedAtOnce: atOnce) { told.append($0) }
      #expect(told.count == 9 && Set(told).count == 9)
      let all = queues.flatMap { rig.machine.peek($0, limit: 100).map(\.reference) }
      #expect(Set(all) == Set(told))
      try rig.restart()
    }
  }
}

@Suite struct TransactionDemandRules {
  /// Parts that each would fit ask for too much together, by number or by bytes.
  @Test(arguments: [(lengthMax: UInt64(3), bytesMax: UInt64(0)), (0, 100)])
  func whatSeveralPartsAskOfAQueueIsAddedUp(lengthMax: UInt64, bytesMax: UInt64) {
    let rig = Rig()
    let full = rig.declare("full") {
      $0.lengthMax = lengthMax
      $0.bytesMax = bytesMax
    }
    let other = rig.declare("other")
    let session = rig.open(producer: 1)
    #expect(
      rig.transact(session, 1, [([full], [10, 10]), ([other, full], [10]), ([full], [10])])
        == rig.refusal(session, 1, 4, .queueFull))
    #expect(rig.summary(full).ready == 0 && rig.summary(other).ready == 0)
    rig.transact(session, 5, [([full], [10]), ([other, full], [10]), ([full], [10])])
    #expect(rig.summary(full).ready == 3 && rig.summary(other).ready == 1)
  }
}

/// What is looked at before it is known whether an order can be carried out is looked at again each
/// time that the order comes, since its number is not used up.
@Suite struct LookBoundRules {
  /// A consumer that holds 8 deliveries.
  private func holding(
    _ limits: MachineLimits
  ) -> (rig: Rig, queue: QueueID, session: SessionID) {
    var limits = limits
    limits.looksOfLittle = 0
    let rig = Rig(limits: limits)
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: Array(repeating: 1, count: 8))
    rig.subscribe(session, 1, queue)
    return (rig, queue, session)
  }

  private func extend(_ session: SessionID, _ sequence: UInt64, _ payload: inout [UInt8]) {
    CommandWriter.extend(
      session, sequence: CommandSequence(sequence), answeredThrough: .zero,
      consumer: ConsumerID(1), ranges: [DeliveryRange(1...8)], duration: .seconds(9),
      into: &payload)
  }

  private func refused(_ session: SessionID, _ sequence: UInt64) -> Seen {
    .plain(
      .settleRefused(
        session, CommandSequence(sequence), ConsumerID(1), DeliveryRange(1...8), .overloaded))
  }

  @Test func anExtensionThatIsPushedBackIsNotCountedAgainAndAgain() {
    var limits = MachineLimits()
    limits.extendedPerEntry = 8
    limits.looksPerEntry = 20
    let (rig, _, session) = holding(limits)
    let seen = rig.apply { payload in
      extend(session, 1, &payload)
      for _ in 0..<100 { extend(session, 2, &payload) }
    }
    let settled = Seen.plain(.settled(session, through: CommandSequence(1)))
    #expect(seen == [settled] + Array(repeating: refused(session, 2), count: 100))
    #expect(rig.machine.state.lookedHere == 24)
    #expect(rig.apply { extend(session, 2, &$0) }.count == 1)
  }

  @Test func soAreNacksAndOrdersWithManyGaps() {
    var limits = MachineLimits()
    limits.unansweredRefusals = 2
    limits.settledPerEntry = 4
    limits.looksPerEntry = 20
    let (rig, queue, session) = holding(limits)
    func again(
      _ sequence: UInt64, _ kind: SettleKind, _ range: ClosedRange<UInt64>
    ) -> [Refusal] {
      let seen = rig.apply { payload in
        for _ in 0..<100 {
          CommandWriter.settle(
            session, sequence: CommandSequence(sequence), answeredThrough: .zero, kind: kind,
            consumer: ConsumerID(1), ranges: [DeliveryRange(range)], delay: nil, error: "",
            into: &payload)
        }
      }
      return seen.compactMap { one in
        guard case .plain(.settleRefused(_, _, _, _, let refusal)) = one else { return nil }
        return refusal
      }
    }
    #expect(again(1, .negative, 1...8) == Array(repeating: .overloaded, count: 100))
    #expect(rig.machine.state.lookedHere == 24)
    rig.settle(session, 1, .acknowledge, [1...1, 3...3, 5...5, 7...7])
    // One gap is remembered, so that two more have to wait.
    rig.settle(session, 2, .acknowledge, [1...2])
    let refusals = again(3, .acknowledge, 3...6)
    #expect(refusals.count == 100)
    #expect(refusals.first == .tooManyUnanswered && refusals.last == .overloaded)
    #expect((20...24).contains(rig.machine.state.lookedHere))
    #expect(rig.summary(queue).leased == 3)
  }

  /// A few bytes ask for all the refusals of an order again.
  @Test func refusalsAreNotToldAgainWithoutEnd() {
    let (rig, _, session) = holding(MachineLimits())
    let unknown = (UInt64(1)...4).map { DeliveryRange(100 + $0 * 2...100 + $0 * 2) }
    rig.settle(session, 1, .acknowledge, [1...1, 90...90])
    rig.settle(session, 2, .acknowledge, unknown.map { $0.first.rawValue...$0.last.rawValue })
    let seen = rig.apply { payload in
      for _ in 0..<50 {
        CommandWriter.settle(
          session, sequence: CommandSequence(2), answeredThrough: .zero, kind: .acknowledge,
          consumer: ConsumerID(1), ranges: [DeliveryRange(1...8)], delay: nil, error: "",
          into: &payload)
      }
    }
    let once: [Seen] =
      unknown.map {
        .plain(
          .settleRefused(session, CommandSequence(2), ConsumerID(1), $0, .deliveryNotFound))
      } + [.plain(.settled(session, through: CommandSequence(2)))]
    // Five are remembered: ten may be told again.
    #expect(seen == once + once + Array(repeating: refused(session, 2), count: 48))
  }

  /// Whoever was pushed back here would hear that a later order was carried out before it hears of
  /// these refusals (G6).
  @Test func whatAnotherAsksForInTheEntryDoesNotKeepRefusalsFromBeingToldAgain() {
    var limits = MachineLimits()
    limits.looksPerEntry = 8
    let (rig, queue, session) = holding(limits)
    let other = rig.open(producer: 2)
    rig.subscribe(other, 1, queue)
    rig.settle(other, 1, .acknowledge, [7...7])
    let seen = rig.apply { payload in
      for sequence in UInt64(1)...2 { extend(session, sequence, &payload) }
      CommandWriter.settle(
        other, sequence: CommandSequence(1), answeredThrough: .zero, kind: .acknowledge,
        consumer: ConsumerID(1), ranges: [DeliveryRange(7...7)], delay: nil, error: "",
        into: &payload)
    }
    #expect(seen.contains(refused(session, 2)))
    #expect(
      seen.suffix(2) == [
        .plain(
          .settleRefused(
            other, CommandSequence(1), ConsumerID(1), DeliveryRange(7...7), .deliveryNotFound)),
        .plain(.settled(other, through: CommandSequence(1))),
      ])
  }

  @Test func oneSessionsLooksDoNotKeepAnotherWaiting() {
    var limits = MachineLimits()
    limits.looksPerEntry = 1000
    limits.looksPerSession = 16
    let (rig, queue, session) = holding(limits)
    let other = rig.open(producer: 2)
    rig.subscribe(other, 1, queue)
    rig.publish(other, 1, to: queue, bodies: [1, 1])
    let before = rig.summary(queue).acknowledged
    let seen = rig.apply { payload in
      for sequence in UInt64(1)...5 { extend(session, sequence, &payload) }
      CommandWriter.settle(
        other, sequence: CommandSequence(1), answeredThrough: .zero, kind: .acknowledge,
        consumer: ConsumerID(1), ranges: [DeliveryRange(1...1)], delay: nil, error: "",
        into: &payload)
    }
    #expect(seen.filter { $0 == refused(session, 3) }.count == 1)
    #expect(seen.last == .plain(.settled(other, through: CommandSequence(1))))
    #expect(rig.summary(queue).acknowledged == before + 1)
  }

  /// Little orders are bounded by their bytes.
  @Test func aLittleOrderIsNeverPushedBackForItsLooks() {
    var limits = MachineLimits()
    limits.looksPerEntry = 0
    limits.looksPerSession = 0
    let rig = Rig(limits: limits)
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: Array(repeating: 1, count: 300))
    rig.subscribe(session, 1, queue, credit: 300)
    #expect(
      rig.settle(session, 1, .acknowledge, [1...255]).last
        == .plain(.settled(session, through: CommandSequence(1))))
    #expect(rig.summary(queue).acknowledged == 255)
  }

  /// Gaps in what is held are another matter on each replica: they must not decide anything.
  @Test func replicasCountTheSameLooksHoweverTheyCameAbout() throws {
    var limits = MachineLimits()
    limits.unansweredRefusals = 6
    limits.looksPerEntry = 30
    limits.looksOfLittle = 0
    let (rig, _, session) = holding(limits)
    rig.settle(session, 1, .acknowledge, [2...2, 4...4, 8...8])
    let copy = Rig(limits: limits)
    copy.machine = try QueueMachine(snapshot: rig.machine.freeze().encoded(), limits: limits)
    (copy.index, copy.now) = (rig.index, rig.now)
    func work(_ rig: Rig) -> [Seen] {
      rig.apply { payload in
        for sequence in UInt64(2)...8 { extend(session, sequence, &payload) }
        CommandWriter.settle(
          session, sequence: CommandSequence(9), answeredThrough: .zero, kind: .acknowledge,
          consumer: ConsumerID(1), ranges: [DeliveryRange(1...3), DeliveryRange(5...5)],
          delay: nil, error: "", into: &payload)
      }
    }
    #expect(work(rig) == work(copy))
    #expect(rig.machine.state.lookedHere == copy.machine.state.lookedHere)
    #expect(rig.machine.stateHash == copy.machine.stateHash)
  }

  @Test func aTransactionWaitsForAnEntryThatMayLook() {
    var limits = MachineLimits()
    limits.looksPerEntry = 8
    let (rig, queue, session) = holding(limits)
    func transact(_ payload: inout [UInt8]) {
      run([5]).withUnsafeBytes { run in
        CommandWriter.transact(
          session, first: PublishSequence(9), answeredThrough: .zero, holder: session,
          settles: [
            TransactionSettle(consumer: ConsumerID(1), ranges: [DeliveryRange(1...2)])
          ],
          parts: [TransactionPart(queues: [queue], count: 1, runBytes: run.count)], run: run,
          into: &payload)
      }
    }
    let seen = rig.apply { payload in
      extend(session, 1, &payload)
      transact(&payload)
    }
    #expect(
      seen.last == .plain(.refused(session, first: PublishSequence(9), count: 1, .overloaded)))
    #expect(rig.summary(queue).acknowledged == 0)
    rig.apply { transact(&$0) }
    #expect(rig.summary(queue).acknowledged == 2 && rig.summary(queue).published == 9)
  }

  @Test func lookingForWhatIsNotThereIsPushedBack() {
    var limits = MachineLimits()
    limits.looksPerEntry = 20
    let (rig, _, _) = holding(limits)
    func cancels(_ count: Int) -> [Refusal] {
      let seen = rig.apply { payload in
        for number in 0..<count {
          CommandWriter.cancelMessage(
            .connection(rig.origin), tag: RequestTag(UInt64(number)), queue: "q",
            message: MessageID(rawValue: 77), into: &payload)
        }
      }
      return seen.compactMap { one in
        guard case .plain(.reply(_, _, .refused(let refusal, _))) = one else { return nil }
        return refusal
      }
    }
    // Each looks at a consumer and, for it and by it, at 8 deliveries.
    #expect(
      cancels(5) == [.messageGone, .messageGone, .overloaded, .overloaded, .overloaded])
    #expect(cancels(1) == [.messageGone])
  }
}
