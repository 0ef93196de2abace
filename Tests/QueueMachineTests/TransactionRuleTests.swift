// Transactions (G10): all of it happens in one entry, or nothing does.

import Base
import Testing

@testable import QueueMachine

extension Rig {
  /// Parts are queues and the bodies of the messages for them.
  @discardableResult
  func transact(
    _ session: SessionID, _ first: UInt64, holder: SessionID? = nil,
    settling: [TransactionSettle] = [], _ parts: [(queues: [QueueID], bodies: [Int])]
  ) -> [Seen] {
    var records: [UInt8] = []
    var written: [TransactionPart] = []
    for part in parts {
      let own = run(part.bodies)
      records += own
      written.append(
        TransactionPart(queues: part.queues, count: part.bodies.count, runBytes: own.count))
    }
    return apply { payload in
      records.withUnsafeBytes {
        CommandWriter.transact(
          session, first: PublishSequence(first), answeredThrough: .zero,
          holder: holder ?? session, settles: settling, parts: written, run: $0, into: &payload)
      }
    }
  }

  func refusal(
    _ session: SessionID, _ first: UInt64, _ count: UInt32, _ refusal: Refusal
  ) -> [Seen] {
    [.plain(.refused(session, first: PublishSequence(first), count: count, refusal))]
  }
}

@Suite struct TransactionRules {
  let rig = Rig()

  private func acknowledging(_ ranges: ClosedRange<UInt64>...) -> [TransactionSettle] {
    [TransactionSettle(consumer: ConsumerID(1), ranges: ranges.map { DeliveryRange($0) })]
  }

  @Test func g10_oneMessageForSeveralQueuesLiesInTheLogOnce() throws {
    let queues = ["a", "b", "c"].map { rig.declare($0) }
    let session = rig.open(producer: 1)
    let entry = rig.index.next
    let seen = rig.transact(session, 1, [(queues, [10, 20])])
    #expect(
      seen == [
        .plain(
          .confirmed(
            session, first: PublishSequence(1), count: 2,
            firstID: MessageID(entry: entry, ordinal: 0), copies: 3))
      ])
    for (place, queue) in queues.enumerated() {
      let found = rig.machine.peek(queue, limit: 10)
      #expect(found.map(\.id.ordinal) == [place, place + 3])
      #expect(found.map { Int($0.reference.size) } == [26, 36])
      #expect(Set(found.map(\.reference.entry)) == [entry])
    }
    // The records of all three queues are the same.
    let references = queues.map { rig.machine.peek($0, limit: 10).map(\.reference) }
    #expect(Set(references).count == 1)
  }

  @Test func g10_aSharedRecordIsAliveOnceAndUntilItsLastMessageIsGone() throws {
    let queues = ["a", "b", "c"].map { rig.declare($0) }
    let session = rig.open(producer: 1)
    rig.transact(session, 1, [(queues, [10])])
    func live() -> [RecordReference] {
      var live: [RecordReference] = []
      rig.machine.forEachLiveRecord { live.append($0) }
      return live
    }
    #expect(live().count == 1)
    try rig.restart()
    #expect(live().count == 1)
    for (place, queue) in queues.enumerated() {
      rig.subscribe(session, UInt32(place + 1), queue)
      #expect(live().count == 1)
      rig.apply {
        CommandWriter.settle(
          session, sequence: CommandSequence(UInt64(place + 1)), answeredThrough: .zero,
          kind: .acknowledge, consumer: ConsumerID(UInt32(place + 1)),
          ranges: [DeliveryRange(1...1)], into: &$0)
      }
      #expect(live().count == (place == 2 ? 0 : 1))
    }
  }

  @Test func g10_aDeadLetterOfASharedRecordSharesIt() throws {
    let dead = rig.declare("dead")
    let queues = ["a", "b"].map { rig.declare($0) { $0.deadLetterQueue = "dead" } }
    let session = rig.open(producer: 1)
    rig.transact(session, 1, [(queues, [10])])
    rig.subscribe(session, 1, queues[0])
    rig.settle(session, 1, .reject, [1...1])
    try rig.restart()
    #expect(rig.summary(dead).ready == 1 && rig.summary(queues[1]).ready == 1)
    var live = 0
    rig.machine.forEachLiveRecord { _ in live += 1 }
    #expect(live == 1)
  }

  @Test func g10_sentAgainItIsAnsweredAlikeAndStoredOnce() throws {
    let queues = ["a", "b"].map { rig.declare($0) }
    let session = rig.open(producer: 7)
    let first = rig.transact(session, 1, [(queues, [1, 2]), ([queues[0]], [3])])
    try rig.restart()
    #expect(rig.transact(session, 1, [(queues, [1, 2]), ([queues[0]], [3])]) == first)
    #expect(queues.map { rig.summary($0).ready } == [3, 2])
    // Also in a later session of the producer.
    rig.apply { CommandWriter.closeSession(session, into: &$0) }
    let second = rig.open(producer: 7)
    let again = rig.transact(second, 1, [(queues, [1, 2]), ([queues[0]], [3])])
    #expect(again.count == 2 && queues.map { rig.summary($0).ready } == [3, 2])
    // One that begins with known numbers and goes on is no transaction that anybody sent.
    let mixed = rig.transact(second, 3, [([queues[0]], [3, 4])])
    #expect(mixed.last == rig.refusal(second, 4, 1, .malformedRequest)[0])
    #expect(rig.summary(queues[0]).ready == 3)
  }

  @Test func g10_acknowledgeAndPublishIsOneStep() throws {
    let (source, target) = (rig.declare("in"), rig.declare("out"))
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: source, bodies: [1, 2, 3])
    rig.subscribe(session, 1, source, credit: 2)
    let seen = rig.transact(session, 4, settling: acknowledging(1...2), [([target], [9])])
    // The next message is delivered in the same step.
    #expect(seen.deliveries.map(\.id.ordinal) == [2])
    #expect(rig.summary(source).acknowledged == 2 && rig.summary(target).ready == 1)
    try rig.restart()
    // Again, as after a change of leader whose answer was lost: nothing more happens.
    let again = rig.transact(session, 4, settling: acknowledging(1...2), [([target], [9])])
    #expect(again == [seen[0]])
    #expect(rig.summary(source).acknowledged == 2 && rig.summary(target).ready == 1)
  }

  @Test func g10_aStaleDeliveryIsRefusedByNameAndNothingIsPublished() throws {
    let source = rig.declare("in") { $0.lease = .seconds(5) }
    let target = rig.declare("out")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: source, bodies: [1, 2])
    rig.subscribe(session, 1, source, credit: 1)
    rig.tick(.seconds(6))
    // The lease of delivery 1 is over; the message is out again as delivery 2.
    let stale = rig.refusal(session, 3, 1, .staleDelivery)
    #expect(rig.transact(session, 3, settling: acknowledging(1...1), [([target], [9])]) == stale)
    #expect(rig.transact(session, 3, settling: acknowledging(1...1), [([target], [9])]) == stale)
    #expect(
      rig.transact(session, 4, settling: acknowledging(9...9), [([target], [9])])
        == rig.refusal(session, 4, 1, .deliveryNotFound))
    #expect(rig.summary(target).ready == 0 && rig.summary(source).leased == 1)
    // One that is held does not go with one that is not.
    #expect(
      rig.transact(session, 5, settling: acknowledging(1...2), [([target], [9])])
        == rig.refusal(session, 5, 1, .staleDelivery))
    #expect(rig.summary(source).leased == 1)
    #expect(
      rig.machine.outcome(of: PublishSequence(5), by: ProducerID(1)) == .refused(.staleDelivery))
  }

  @Test func g10_deliveriesOfAnEarlierSessionAreNotTakenForThisOnes() throws {
    let (source, target) = (rig.declare("in"), rig.declare("out"))
    let first = rig.open(producer: 1)
    rig.publish(first, 1, to: source, bodies: [1])
    rig.subscribe(first, 1, source)
    rig.detach(first)
    rig.tick(.seconds(11))
    let second = rig.open(producer: 1)
    // Consumer 1 and delivery 1 again, of another session.
    #expect(rig.subscribe(second, 1, source).deliveries.map(\.delivery) == [DeliveryID(1)])
    let seen = rig.transact(
      second, 2, holder: first, settling: acknowledging(1...1), [([target], [9])])
    #expect(seen == rig.refusal(second, 2, 1, .staleDelivery))
    #expect(rig.summary(source).leased == 1 && rig.summary(target).ready == 0)
  }

  @Test func g10_oneFullQueueRefusesTheWhole() {
    let wide = rig.declare("wide")
    let narrow = rig.declare("narrow") { $0.lengthMax = 2 }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: narrow, bodies: [1])
    // Two more are one too many, wherever they stand in it.
    #expect(
      rig.transact(session, 2, [([wide, narrow], [1]), ([narrow], [2])])
        == rig.refusal(session, 2, 2, .queueFull))
    #expect(rig.summary(wide).ready == 0 && rig.summary(narrow).ready == 1)
    rig.transact(session, 4, [([wide, narrow], [1]), ([wide], [2])])
    #expect(rig.summary(wide).ready == 2 && rig.summary(narrow).ready == 2)
    // Neither is anything acknowledged.
    rig.subscribe(session, 1, wide)
    let seen = rig.transact(session, 6, settling: acknowledging(1...2), [([narrow], [1])])
    #expect(seen == rig.refusal(session, 6, 1, .queueFull))
    #expect(rig.summary(wide).leased == 2)
  }

  @Test func g10_aMissingQueueRefusesTheWhole() {
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    #expect(
      rig.transact(session, 1, [([queue, QueueID(99)], [1, 2])])
        == rig.refusal(session, 1, 2, .queueNotFound))
    #expect(rig.summary(queue).ready == 0)
  }

  @Test func queuesOfATransactionKeepTheirOwnRules() {
    let plain = rig.declare("plain")
    let late = rig.declare("late") { $0.timeToLive = .seconds(3) }
    let small = rig.declare("small") {
      $0.lengthMax = 1
      $0.overflow = .dropOldest
    }
    let session = rig.open(producer: 1)
    rig.transact(session, 1, [([plain, late, small, small], [1, 2])])
    #expect([plain, late, small].map { rig.summary($0).ready } == [2, 2, 1])
    // Of a queue that is named twice the last copy is left.
    #expect(rig.machine.peek(small, limit: 1).map(\.id.ordinal) == [7])
    rig.tick(.seconds(4))
    #expect([plain, late].map { rig.summary($0).ready } == [2, 0])
  }

  @Test func otherSettlesGoWithMessagesToo() {
    let dead = rig.declare("dead")
    let source = rig.declare("in") {
      $0.deadLetterQueue = "dead"
      $0.retryDelay = .seconds(1)
    }
    let target = rig.declare("out")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: source, bodies: [1, 2, 3, 4])
    rig.subscribe(session, 1, source, credit: 4)
    let settles = [
      TransactionSettle(consumer: ConsumerID(1), ranges: [DeliveryRange(1...1)]),
      TransactionSettle(
        consumer: ConsumerID(1), kind: .negative, ranges: [DeliveryRange(2...2)], error: "later"),
      TransactionSettle(consumer: ConsumerID(1), kind: .reject, ranges: [DeliveryRange(3...3)]),
    ]
    rig.transact(session, 5, settling: settles, [([target], [9])])
    let summary = rig.summary(source)
    #expect(summary.acknowledged == 1 && summary.delayed == 1 && summary.leased == 1)
    #expect(rig.summary(dead).ready == 1 && rig.summary(target).ready == 1)
    // A delivery named twice.
    let twice = acknowledging(4...4) + acknowledging(4...4)
    #expect(
      rig.transact(session, 6, settling: twice, [([target], [9])])
        == rig.refusal(session, 6, 1, .malformedRequest))
  }

  @Test func aTransactionThatNeverFitsIsRefusedForGoodAndOneThatFitsLaterIsNot() {
    var limits = MachineLimits()
    limits.publishesPerEntry = 4
    let rig = Rig(limits: limits)
    let queues = ["a", "b"].map { rig.declare($0) }
    let session = rig.open(producer: 1)
    #expect(
      rig.transact(session, 1, [(queues, [1, 2, 3])])
        == rig.refusal(session, 1, 3, .transactionTooLarge))
    let seen = rig.apply { payload in
      Rig.publish(session, 4, to: queues[0], bodies: [1], into: &payload)
      run([1, 2]).withUnsafeBytes {
        CommandWriter.transact(
          session, first: PublishSequence(5), answeredThrough: .zero, holder: session,
          settles: [],
          parts: [TransactionPart(queues: queues, count: 2, runBytes: $0.count)], run: $0,
          into: &payload)
      }
    }
    #expect(seen.last == rig.refusal(session, 5, 2, .overloaded)[0])
    #expect(rig.transact(session, 5, [(queues, [1, 2])]).count == 1)
    #expect(rig.summary(queues[1]).ready == 2)
  }
}
