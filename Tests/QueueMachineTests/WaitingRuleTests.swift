// Rules of messages that wait: retries, delays, time to live, limits, dead letters and the way back.

import Base
import Testing

@testable import QueueMachine

@Suite struct RetryRules {
  @Test(arguments: [
    (1, 1_000), (2, 2_000), (3, 4_000), (4, 5_000), (64, 5_000), (4_000_000_000, 5_000),
  ]) func waitDoublesUpToTheCap(attempt: UInt32, milliseconds: UInt64) {
    var settings = QueueSettings()
    settings.retryDelay = .seconds(1)
    settings.retryDelayMax = .seconds(5)
    #expect(
      RetryRule.wait(settings, attempt: attempt, luck: 7) == .milliseconds(milliseconds))
  }

  @Test func waitWithoutACapEndsAtTheLongestTime() {
    var settings = QueueSettings()
    settings.retryDelay = .seconds(1)
    settings.retryJitterPermille = 1000
    #expect(RetryRule.wait(settings, attempt: 80, luck: 2000).rawValue == .max)
    #expect(RetryRule.wait(settings, attempt: 80, luck: 0) == .zero)
  }

  @Test func jitterReachesBothEndsAndNeverPassesTheCap() {
    var settings = QueueSettings()
    settings.retryDelay = .seconds(1)
    settings.retryJitterPermille = 200
    let waits = (UInt64(0)...400).map { RetryRule.wait(settings, attempt: 1, luck: $0) }
    #expect(waits.min() == .milliseconds(800))
    #expect(waits.max() == .milliseconds(1_200))
    settings.retryDelayMax = .milliseconds(1_100)
    #expect(
      (UInt64(0)...400).allSatisfy {
        RetryRule.wait(settings, attempt: 9, luck: $0) <= .milliseconds(1_100)
      })
  }

  @Test func nackLeaseAndCrashWaitByOneRuleAndNothingComesEarly() throws {
    let rig = Rig()
    let queue = rig.declare("q") {
      $0.retryDelay = .seconds(1)
      $0.lease = .seconds(5)
    }
    let publisher = rig.open(producer: 1, timeout: .seconds(3600))
    rig.publish(publisher, 1, to: queue)
    var session = rig.open(timeout: .seconds(2))
    #expect(rig.subscribe(session, 1, queue).deliveries.count == 1)
    // A nack: 1 s.
    #expect(rig.settle(session, 1, .negative, [1...1], error: "no").isEmpty == false)
    #expect(rig.summary(queue).delayed == 1)
    #expect(rig.machine.nextDeadline.rawValue == rig.now + 1_000_000_000)
    try rig.restart()
    #expect(rig.tick(Nanoseconds(999_999_999)).deliveries.isEmpty)
    #expect(rig.tick(Nanoseconds(1)).deliveries.map(\.attempt) == [2])
    // The lease: 2 s.
    rig.tick(.seconds(5))
    #expect(rig.tick(Nanoseconds(1_999_999_999)).deliveries.isEmpty)
    #expect(rig.tick(Nanoseconds(1)).deliveries.map(\.attempt) == [3])
    // A crash: 4 s behind the session's end.
    rig.detach(session)
    rig.tick(.seconds(2))
    session = rig.open()
    rig.subscribe(session, 1, queue)
    #expect(rig.tick(Nanoseconds(3_999_999_999)).deliveries.isEmpty)
    #expect(rig.tick(Nanoseconds(1)).deliveries.map(\.attempt) == [4])
  }

  @Test func theDelayOfANackOverridesTheRuleAndZeroIsAtOnce() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.retryDelay = .seconds(60) }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue)
    rig.subscribe(session, 1, queue)
    #expect(rig.settle(session, 1, .negative, [1...1], delay: .zero).deliveries.count == 1)
    rig.settle(session, 2, .negative, [2...2], delay: .seconds(3))
    #expect(rig.tick(Nanoseconds(2_999_999_999)).deliveries.isEmpty)
    #expect(rig.tick(Nanoseconds(1)).deliveries.count == 1)
  }

  @Test func aRetryReturnsToItsOwnPlace() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.retryDelay = .seconds(1) }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 2, 3])
    rig.subscribe(session, 1, queue, credit: 1)
    // The second is delivered meanwhile; the first goes ahead of the third.
    #expect(rig.settle(session, 1, .negative, [1...1]).deliveries.map(\.id.ordinal) == [1])
    rig.tick(.seconds(1))
    #expect(rig.settle(session, 2, .acknowledge, [2...2]).deliveries.map(\.id.ordinal) == [0])
    #expect(rig.settle(session, 3, .acknowledge, [3...3]).deliveries.map(\.id.ordinal) == [2])
  }
}

@Suite struct DelayRules {
  private func message(
    _ bytes: Int = 1, delay: Nanoseconds? = nil, timeToLive: Nanoseconds? = nil
  ) -> MessageParts {
    MessageParts(
      body: [UInt8](repeating: 1, count: bytes), delay: delay, timeToLive: timeToLive)
  }

  @Test func aDelayedPublishIsDeliveredAtItsTimeAndNotBefore() throws {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.subscribe(session, 1, queue)
    let seen = rig.publish(
      session, 1, to: queue, messages: [message(delay: .seconds(2)), message()])
    #expect(seen.deliveries.map(\.id.ordinal) == [1])
    try rig.restart()
    #expect(rig.tick(Nanoseconds(1_999_999_999)).deliveries.isEmpty)
    #expect(rig.tick(Nanoseconds(1)).deliveries.map(\.attempt) == [1])
  }

  @Test func cancelTakesWhatWaitsAndNamesWhatItCannot() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(
      session, 1, to: queue,
      messages: [message(), message(delay: .seconds(1)), message(), message()])
    rig.subscribe(session, 1, queue, credit: 1)
    let entry = LogIndex(3)
    func cancel(_ ordinal: Int, in queue: String = "q") -> Reply {
      rig.ask {
        CommandWriter.cancelMessage(
          $0, tag: $1, queue: queue, message: MessageID(entry: entry, ordinal: ordinal), into: &$2)
      }
    }
    #expect(cancel(0) == .refused(.messageLeased, detail: "3-0"))
    #expect(cancel(1) == .messageCancelled)
    #expect(cancel(1) == .refused(.messageGone, detail: "3-1"))
    #expect(cancel(3) == .messageCancelled)
    #expect(cancel(2, in: "p") == .refused(.queueNotFound, detail: "p"))
    #expect(rig.tick(.seconds(2)).deliveries.isEmpty)
    #expect(rig.summary(queue).ready == 1)
    #expect(rig.summary(queue).bytes == 2 * UInt64(1 + MessageRecord.fixedBytes))
  }

  /// What is asked of a message that does not wait where it is said to be.
  @Test(arguments: ["cancel", "reschedule", "redrive"])
  func whereAMessageIsNotIsSaidByName(how: String) throws {
    let rig = Rig()
    let (queue, other) = (rig.declare("q"), rig.declare("other") { $0.keyLimit = 1 })
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 1])
    rig.subscribe(session, 1, queue)
    rig.settle(session, 1, .acknowledge, [1...1])
    let keyed = MessageParts(body: [1], key: "k")
    rig.publish(session, 3, to: other, messages: [keyed, keyed, message(delay: .seconds(9))])
    rig.subscribe(session, 2, other, credit: 1)
    rig.publish(session, 6, to: other)
    func ask(_ id: MessageID, in name: String = "q") -> Reply {
      rig.ask {
        switch how {
        case "cancel":
          CommandWriter.cancelMessage($0, tag: $1, queue: name, message: id, into: &$2)
        case "reschedule":
          CommandWriter.rescheduleMessage(
            $0, tag: $1, queue: name, message: id, delay: .seconds(1), into: &$2)
        default:
          CommandWriter.redriveQueue(
            $0, tag: $1, queue: name, which: .message(id), after: MessageID(rawValue: 0),
            through: MessageID(rawValue: 0), limit: 1, into: &$2)
        }
      }
    }
    let (first, second) = (MessageID(entry: LogIndex(4), ordinal: 0), LogIndex(7))
    for _ in 0..<2 {
      let never = MessageID(entry: LogIndex(1_000), ordinal: 0)
      #expect(ask(never) == .refused(.messageNotFound, detail: "1000-0"))
      let none = MessageID(rawValue: 0)
      #expect(ask(none) == .refused(.messageNotFound, detail: "0-0"))
      #expect(ask(first) == .refused(.messageGone, detail: "4-0"))
      let held = MessageID(entry: LogIndex(4), ordinal: 1)
      #expect(ask(held) == .refused(.messageLeased, detail: "4-1"))
      #expect(ask(held, in: "other") == .refused(.messageElsewhere, detail: "4-1 is in queue q"))
      // With a consumer, behind another of its key, and waiting for its time.
      for ordinal in 0..<3 {
        let id = MessageID(entry: second, ordinal: ordinal)
        #expect(
          ask(id) == .refused(.messageElsewhere, detail: "\(id) is in queue other"))
      }
      #expect(ask(first, in: "x") == .refused(.queueNotFound, detail: "x"))
      try rig.restart()
    }
  }

  @Test func rescheduleMovesTheTimeBothWays() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, messages: [message(delay: .seconds(5)), message()])
    func reschedule(_ ordinal: Int, _ delay: Nanoseconds) -> Reply {
      rig.ask {
        CommandWriter.rescheduleMessage(
          $0, tag: $1, queue: "q", message: MessageID(entry: LogIndex(3), ordinal: ordinal),
          delay: delay, into: &$2)
      }
    }
    #expect(reschedule(0, .seconds(1)) == .messageRescheduled)
    #expect(reschedule(1, .seconds(9)) == .messageRescheduled)
    rig.subscribe(session, 1, queue)
    #expect(rig.tick(.seconds(1)).deliveries.map(\.id.ordinal) == [0])
    #expect(reschedule(1, .zero) == .messageRescheduled)
    #expect(rig.machine.held(by: session) == 2)
  }

  @Test func takingMessagesOutOfALongLineLeavesTheRestInOrder() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: Array(repeating: 1, count: 13_000))
    // A whole block in the middle, and pieces of the others.
    let gone = Array(4_000..<8_300) + [0, 1, 12_999, 9_000]
    rig.apply { payload in
      for ordinal in gone {
        CommandWriter.cancelMessage(
          .connection(rig.origin), tag: RequestTag(1), queue: "q",
          message: MessageID(entry: LogIndex(3), ordinal: ordinal), into: &payload)
      }
    }
    let left = Array(Set(0..<13_000).subtracting(gone)).sorted()
    #expect(rig.machine.peek(queue, limit: .max).map(\.id.ordinal) == left)
    let got = rig.subscribe(session, 1, queue, credit: 60_000).deliveries
    #expect(got.map(\.id.ordinal) == left)
  }

  @Test func whatIsTooOldGoesToTheDeadLetterQueueOrAway() throws {
    let rig = Rig()
    let dead = rig.declare("dead")
    let queue = rig.declare("q") {
      $0.timeToLive = .seconds(5)
      $0.deadLetterQueue = "dead"
    }
    let plain = rig.declare("plain")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, messages: [message(), message(timeToLive: .seconds(1))])
    rig.publish(session, 3, to: plain, messages: [message(timeToLive: .seconds(1)), message()])
    #expect(rig.machine.nextDeadline.rawValue == rig.now + 1_000_000_000)
    try rig.restart()
    rig.tick(.seconds(1))
    #expect(rig.summary(queue).ready == 1)
    #expect(rig.machine.dropped(from: plain) == 1)
    #expect(rig.summary(plain).ready == 1)
    rig.tick(.seconds(4))
    let found = rig.machine.peek(dead, limit: 9).map(\.deadLetter)
    #expect(found.map { $0?.reason } == [.expired, .expired])
    #expect(found.map { $0?.originID.ordinal } == [1, 0])
    #expect(rig.summary(queue).deadLettered == 2)
  }

  @Test func aHeldMessageIsNotTooOldUntilItComesBack() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.timeToLive = .seconds(5) }
    let session = rig.open(producer: 1)
    rig.subscribe(session, 1, queue)
    rig.publish(session, 1, to: queue, bodies: [1, 1])
    rig.tick(.seconds(6))
    #expect(rig.settle(session, 1, .acknowledge, [1...1]).count == 1)
    rig.settle(session, 2, .release, [2...2])
    #expect(rig.machine.nextDeadline <= rig.machine.clock)
    #expect(rig.tick(.zero).deliveries.isEmpty)
    #expect(rig.machine.dropped(from: queue) == 1)
    #expect(rig.summary(queue).bytes == 0)
  }
}

@Suite struct LengthRules {
  @Test func aFullQueueRefusesExactlyWhatDoesNotFit() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.lengthMax = 3 }
    let session = rig.open(producer: 1)
    #expect(
      rig.publish(session, 1, to: queue, bodies: [1, 1, 1, 1, 1]) == [
        .plain(
          .confirmed(
            session, first: PublishSequence(1), count: 3,
            firstID: MessageID(entry: LogIndex(3), ordinal: 0))),
        .plain(.refused(session, first: PublishSequence(4), count: 2, .queueFull)),
      ])
    // What is held does not count, and the refused number stays refused.
    rig.subscribe(session, 1, queue, credit: 1)
    #expect(
      rig.publish(session, 4, to: queue, bodies: [1]) == [
        .plain(.refused(session, first: PublishSequence(4), count: 1, .queueFull))
      ])
    #expect(rig.publish(session, 6, to: queue, bodies: [1]).count == 1)
    #expect(rig.summary(queue).ready == 3)
  }

  @Test func bytesAreCountedAsRecords() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.bytesMax = 100 }
    let session = rig.open(producer: 1)
    let seen = rig.publish(session, 1, to: queue, bodies: [34, 35, 34])
    #expect(seen.count == 3)
    #expect(rig.summary(queue).ready == 2)
    #expect(rig.summary(queue).bytes == 100)
  }

  @Test func theOldestMakeRoomAndAreKeptAsDeadLetters() {
    let rig = Rig()
    let dead = rig.declare("dead") {
      $0.lengthMax = 2
      $0.overflow = .dropOldest
    }
    let queue = rig.declare("q") {
      $0.lengthMax = 2
      $0.overflow = .dropOldest
      $0.deadLetterQueue = "dead"
    }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 1, 1, 1, 1])
    #expect(rig.machine.peek(queue, limit: 9).map(\.id.ordinal) == [3, 4])
    // The dead-letter queue has a limit of its own, which the next entry keeps.
    #expect(rig.summary(dead).ready == 3)
    rig.tick(.zero)
    #expect(
      rig.machine.peek(dead, limit: 9).map { $0.deadLetter?.originID.ordinal } == [1, 2])
    #expect(rig.machine.peek(dead, limit: 1)[0].deadLetter?.reason == .overflowed)
    #expect(rig.machine.dropped(from: dead) == 1)
  }

  @Test(
    "What comes back to a full queue makes room like what is published",
    arguments: [
      SettleKind.release, .negative, nil,
    ])
  func whatComesBackMakesRoom(kind: SettleKind?) {
    let rig = Rig()
    rig.declare("dead")
    let queue = rig.declare("q") {
      $0.lengthMax = 2
      $0.overflow = .dropOldest
      $0.deadLetterQueue = "dead"
      $0.retryDelay = .zero
    }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 1])
    rig.subscribe(session, 1, queue, credit: 2)
    rig.publish(session, 3, to: queue, bodies: [1, 1])
    #expect(rig.summary(queue).ready == 2)
    let kept = rig.machine.peek(queue, limit: 9).filter { $0.state == .ready }.map(\.id)
    if let kind {
      rig.settle(session, 1, kind, [1...2])
    } else {
      rig.apply {
        CommandWriter.unsubscribe(
          session, consumer: ConsumerID(1), tag: rig.tag(), returnHeld: true, into: &$0)
      }
    }
    #expect(rig.machine.peek(queue, limit: 9).map(\.id) == kept)
    let dead = rig.machine.peek(rig.machine.queue(named: "dead")!, limit: 9)
    #expect(dead.compactMap { $0.deadLetter?.reason } == [.overflowed, .overflowed])
    #expect(dead.map { $0.deadLetter?.attempts } == (kind == .negative ? [1, 1] : [0, 0]))
  }

  @Test func aRecordThatCanNeverFitIsRefused() {
    let rig = Rig()
    let queue = rig.declare("q") {
      $0.bytesMax = 50
      $0.overflow = .dropOldest
    }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [10, 40])
    #expect(
      rig.machine.outcome(of: PublishSequence(2), by: ProducerID(1)) == .refused(.queueFull))
    #expect(rig.summary(queue).ready == 1)
  }
}

@Suite struct DeadLetterRules {
  private func redrive(
    _ rig: Rig, _ which: RedriveChoice = .all, after: MessageID = MessageID(rawValue: 0),
    through: MessageID = MessageID(rawValue: 0), limit: UInt32 = 100
  ) -> Reply {
    rig.ask {
      CommandWriter.redriveQueue(
        $0, tag: $1, queue: "dead", which: which, after: after, through: through, limit: limit,
        into: &$2)
    }
  }

  private func isDone(_ reply: Reply, _ messages: UInt64, skipped: UInt64 = 0) -> Bool {
    if case .queueRedriven(messages, skipped, next: nil, _) = reply { return true }
    return false
  }

  @Test func whatFailsAgainDuringARedriveIsNotMovedForever() {
    let rig = Rig()
    let dead = rig.declare("dead")
    let queue = rig.declare("q") {
      $0.deliveriesMax = 1
      $0.deadLetterQueue = "dead"
    }
    let session = rig.open(producer: 1)
    rig.subscribe(session, 1, queue)
    rig.publish(session, 1, to: queue, bodies: [1, 1, 1])
    rig.settle(session, 1, .negative, [1...3])
    guard case .queueRedriven(1, 0, let next?, let through) = redrive(rig, limit: 1) else {
      Issue.record("not in steps")
      return
    }
    // The one that went back fails at once.
    rig.settle(session, 2, .negative, [4...4])
    #expect(isDone(redrive(rig, after: next, through: through), 2))
    #expect(rig.summary(dead).ready == 1)
  }

  @Test func theStoryOfAMessageGoesWithItThereAndBack() throws {
    let rig = Rig()
    let dead = rig.declare("dead")
    let queue = rig.declare("q") {
      $0.deliveriesMax = 3
      $0.deadLetterQueue = "dead"
      $0.lease = .seconds(5)
    }
    let session = rig.open(producer: 1, timeout: .seconds(60))
    rig.publish(session, 1, to: queue)
    let granted = MachineTime(rig.now)
    rig.subscribe(session, 1, queue)
    rig.now += 10
    rig.settle(session, 1, .negative, [1...1], error: "first")
    rig.tick(.seconds(5))
    rig.settle(session, 2, .negative, [3...3], error: "third")
    let found = rig.machine.peek(dead, limit: 1)
    let moved = try #require(found.first)
    #expect(moved.deadLetter?.attempts == 3)
    #expect(moved.deadLetter?.firstTime == granted)
    #expect(moved.deadLetter?.lastError == "third")
    try rig.restart()
    #expect(isDone(redrive(rig), 1))
    #expect(rig.summary(dead).ready == 0)
    #expect(rig.summary(dead).bytes == 0)
    let returned = rig.machine.peek(queue, limit: 1)
    let back = try #require(returned.first)
    #expect(back.attempts == 0)
    #expect(back.deadLetter == nil)
    let known = rig.machine.biography(of: back.id, in: queue)
    let story = try #require(known)
    #expect(story.holder == "test")
    #expect(
      story.events.map(\.kind) == [.failed, .leaseRanOut, .failed, .deadLettered, .redriven])
    #expect(story.events.map(\.attempt) == [1, 2, 3, 0, 0])
    #expect(story.events[0].session == "test")
    #expect(story.events[0].node == NodeID(1))
    #expect(story.events[3].reason == .deliveriesExhausted)
  }

  @Test func aStoryKeepsItsLastSixteenEvents() throws {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue)
    rig.subscribe(session, 1, queue)
    let long = String(repeating: "x", count: 900)
    for number in UInt64(1)...20 {
      rig.settle(session, number, .negative, [number...number], error: long)
    }
    let id = MessageID(entry: LogIndex(3), ordinal: 0)
    let known = rig.machine.biography(of: id, in: queue)
    let story = try #require(known)
    #expect(story.events.map(\.attempt) == Array(5...20))
    #expect(story.eventsForgotten == 4)
    #expect(story.events[0].error.utf8.count == FixedLimits.eventErrorBytesMax)
    #expect(story.message.lastError == long)
  }

  @Test func redriveGoesByReasonAndIdAndInSteps() {
    let rig = Rig()
    rig.declare("dead")
    let queue = rig.declare("q") {
      $0.deliveriesMax = 1
      $0.deadLetterQueue = "dead"
    }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 1, 1, 1, 1, 1])
    rig.subscribe(session, 1, queue, credit: 6)
    rig.settle(session, 1, .reject, [1...3])
    rig.settle(session, 2, .negative, [4...6])
    rig.apply {
      CommandWriter.unsubscribe(
        session, consumer: ConsumerID(1), tag: RequestTag(1), returnHeld: true, into: &$0)
    }
    let last = rig.index
    let rejected = MessageID(entry: LogIndex(last.rawValue - 2), ordinal: 1)
    #expect(isDone(redrive(rig, .message(rejected)), 1))
    #expect(
      redrive(rig, .message(rejected))
        == .refused(.messageGone, detail: "\(rejected)"))
    #expect(isDone(redrive(rig, .reason(.rejected)), 2))
    guard case .queueRedriven(2, 0, let next?, _) = redrive(rig, limit: 2) else {
      Issue.record("two of three should go")
      return
    }
    #expect(isDone(redrive(rig, after: next), 1))
    #expect(rig.summary(queue).ready == 6)
  }

  @Test func whatHasNoWayBackStays() {
    let rig = Rig()
    let dead = rig.declare("dead")
    let queue = rig.declare("q") {
      $0.deadLetterQueue = "dead"
      $0.lengthMax = 1
    }
    let session = rig.open(producer: 1)
    rig.subscribe(session, 1, queue)
    rig.publish(session, 1, to: queue)
    rig.settle(session, 1, .reject, [1...1])
    // Published there itself: it has no origin.
    rig.publish(session, 2, to: dead)
    rig.apply {
      CommandWriter.unsubscribe(
        session, consumer: ConsumerID(1), tag: RequestTag(1), returnHeld: true, into: &$0)
    }
    rig.publish(session, 3, to: queue)
    #expect(isDone(redrive(rig), 0, skipped: 1))
    rig.ask { CommandWriter.purgeQueue($0, tag: $1, name: "q", into: &$2) }
    #expect(isDone(redrive(rig), 1))
    #expect(rig.summary(dead).ready == 1)
  }
}

@Suite struct PriorityRules {
  private func messages(_ priorities: [UInt8]) -> [MessageParts] {
    priorities.map { MessageParts(body: [1], priority: $0) }
  }

  @Test func theHighestLevelGoesFirstAndEachIsFirstInFirstOut() throws {
    let rig = Rig()
    let queue = rig.declare("q") { $0.priorities = 3 }
    let session = rig.open(producer: 1)
    // What is above the highest level counts as that.
    rig.publish(session, 1, to: queue, messages: messages([0, 2, 1, 200, 0, 2]))
    try rig.restart()
    let got = rig.subscribe(session, 1, queue).deliveries
    #expect(got.map(\.id.ordinal) == [1, 3, 5, 2, 0, 4])
  }

  @Test func aReturnedMessageKeepsItsLevelAndItsPlace() throws {
    let rig = Rig()
    let queue = rig.declare("q") {
      $0.priorities = 2
      $0.retryDelay = .seconds(1)
    }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, messages: messages([1, 1, 0]))
    rig.subscribe(session, 1, queue, credit: 1)
    #expect(rig.settle(session, 1, .negative, [1...1]).deliveries.map(\.id.ordinal) == [1])
    try rig.restart()
    rig.tick(.seconds(1))
    #expect(rig.settle(session, 2, .acknowledge, [2...2]).deliveries.map(\.id.ordinal) == [0])
  }

  @Test func aLevelPassedOverOftenEnoughIsNext() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.priorities = 32 }
    let session = rig.open(producer: 1)
    let high = [UInt8](repeating: 31, count: 200)
    rig.publish(session, 1, to: queue, messages: messages([0, 7] + high))
    let got = rig.subscribe(session, 1, queue, credit: 300).deliveries.map(\.id.ordinal)
    // 64 of the highest, then the two that waited, the lower first.
    #expect(got.firstIndex(of: 0) == 64)
    #expect(got.firstIndex(of: 1) == 65)
    #expect(got.count == 202)
  }

  @Test func aPurgeForgetsWhoWasPassedOver() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.priorities = 2 }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, messages: messages([0] + [UInt8](repeating: 1, count: 60)))
    rig.subscribe(session, 1, queue, credit: 60)
    rig.ask { CommandWriter.purgeQueue($0, tag: $1, name: "q", into: &$2) }
    rig.publish(session, 62, to: queue, messages: messages([0] + [UInt8](repeating: 1, count: 10)))
    let got = rig.settle(session, 1, .acknowledge, [1...60]).deliveries
    #expect(got.map(\.id.ordinal) == Array(1...10) + [0])
  }

  @Test func theLowestLevelMakesRoom() {
    let rig = Rig()
    let queue = rig.declare("q") {
      $0.priorities = 2
      $0.lengthMax = 2
      $0.overflow = .dropOldest
    }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, messages: messages([1, 0, 0, 1]))
    #expect(rig.machine.peek(queue, limit: 9).map(\.id.ordinal) == [0, 3])
  }

  @Test func aQueueWithoutLevelsIgnoresPriorities() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, messages: messages([0, 9]))
    #expect(rig.subscribe(session, 1, queue).deliveries.map(\.id.ordinal) == [0, 1])
  }
}

@Suite struct KeyRules {
  private func messages(_ keys: String) -> [MessageParts] {
    keys.map { MessageParts(body: [1], key: $0 == "-" ? "" : String($0)) }
  }

  @Test func oneKeyGoesInOrderAndOthersInParallel() throws {
    let rig = Rig()
    let queue = rig.declare("q") { $0.keyLimit = 1 }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, messages: messages("aaabab-"))
    #expect(rig.subscribe(session, 1, queue).deliveries.map(\.id.ordinal) == [0, 3, 6])
    #expect(rig.summary(queue).ready == 4)
    try rig.restart()
    #expect(rig.settle(session, 1, .acknowledge, [1...1]).deliveries.map(\.id.ordinal) == [1])
    #expect(rig.settle(session, 2, .acknowledge, [2...2]).deliveries.map(\.id.ordinal) == [5])
  }

  @Test func aRetryKeepsItsKeyWaiting() throws {
    let rig = Rig()
    let queue = rig.declare("q") {
      $0.keyLimit = 1
      $0.retryDelay = .seconds(1)
    }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, messages: messages("aa"))
    rig.subscribe(session, 1, queue)
    #expect(rig.settle(session, 1, .negative, [1...1]).deliveries.isEmpty)
    try rig.restart()
    #expect(rig.tick(.seconds(1)).deliveries.map(\.id.ordinal) == [0])
    #expect(rig.settle(session, 2, .acknowledge, [2...2]).deliveries.map(\.id.ordinal) == [1])
  }

  @Test func keysTakeTurnsHoweverLongOneIs() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.keyLimit = 1 }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, messages: messages("aaaaaaaabbc"))
    var got = rig.subscribe(session, 1, queue, credit: 1).deliveries.map(\.id.ordinal)
    for number in UInt64(1)...5 {
      got += rig.settle(session, number, .acknowledge, [number...number]).deliveries
        .map(\.id.ordinal)
    }
    #expect(got == [0, 8, 10, 1, 9, 2])
  }

  @Test func whatIsRescheduledGivesUpItsPlaceAmongItsKey() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.keyLimit = 1 }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, messages: messages("aab"))
    rig.ask {
      CommandWriter.rescheduleMessage(
        $0, tag: $1, queue: "q", message: MessageID(entry: LogIndex(3), ordinal: 0), delay: .zero,
        into: &$2)
    }
    #expect(rig.subscribe(session, 1, queue).deliveries.map(\.id.ordinal) == [2, 1])
    #expect(rig.settle(session, 1, .acknowledge, [2...2]).deliveries.map(\.id.ordinal) == [0])
  }

  @Test func aKeyThatLeftCostsNothing() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.keyLimit = 2 }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, messages: messages("abcabcabc"))
    rig.subscribe(session, 1, queue)
    rig.settle(session, 1, .acknowledge, [1...9])
    rig.settle(session, 2, .acknowledge, [7...9])
    let state = rig.machine.state.queues[rig.machine.state.queues.slots[0]]
    #expect(state.keys.rooms.isEmpty && state.keys.keys.isEmpty)
    #expect(rig.summary(queue).acknowledged == 9)
  }
}
