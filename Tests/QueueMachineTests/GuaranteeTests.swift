// The promises of docs/guarantees.md as far as the machine keeps them, by their numbers.

import Base
import Testing

@testable import QueueMachine

@Suite struct GuaranteeTests {
  let elsewhere = SessionOrigin(node: NodeID(2), connection: 9)

  @Test func g3_acknowledgedMessageIsNeverDeliveredAgain() throws {
    let rig = Rig()
    let queue = rig.declare("q") { $0.lease = .seconds(5) }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 2])
    rig.subscribe(session, 1, queue)
    let seen = rig.settle(session, 1, .acknowledge, [1...1])
    #expect(seen == [.plain(.settled(session, through: CommandSequence(1)))])
    try rig.restart()
    // The lease of the other one runs out, the session is taken up elsewhere, then expires.
    #expect(rig.tick(.seconds(6)).deliveries.map(\.id.ordinal) == [1])
    let again = rig.attach(session, origin: elsewhere)
    #expect(again.deliveries.map(\.id.ordinal) == [1])
    rig.detach(session, origin: elsewhere)
    rig.tick(.seconds(11))
    let other = rig.open()
    #expect(rig.subscribe(other, 1, queue).deliveries.map(\.id.ordinal) == [1])
    // The same acknowledgement sent again means what it meant, and touches nothing new.
    #expect(rig.summary(queue).acknowledged == 1)
  }

  @Test func g4_retriedPublishIsStoredOnceAndAnsweredAlike() throws {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 7)
    let first = rig.publish(session, 1, to: queue, bodies: [1, 2, 3])
    try rig.restart()
    #expect(rig.publish(session, 1, to: queue, bodies: [1, 2, 3]) == first)
    // A part of it.
    let id = MessageID(entry: LogIndex(3), ordinal: 1)
    #expect(
      rig.publish(session, 2, to: queue, bodies: [2]) == [
        .plain(.confirmed(session, first: PublishSequence(2), count: 1, firstID: id))
      ])
    #expect(rig.summary(queue).ready == 3)
  }

  @Test func g4_onlyTheNewTailOfAPartlyKnownBatchIsStored() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 7)
    rig.publish(session, 1, to: queue, bodies: [10, 20])
    let seen = rig.publish(session, 2, to: queue, bodies: [20, 30, 40])
    #expect(
      seen == [
        .plain(
          .confirmed(
            session, first: PublishSequence(2), count: 1,
            firstID: MessageID(entry: LogIndex(3), ordinal: 1))),
        .plain(
          .confirmed(
            session, first: PublishSequence(3), count: 2,
            firstID: MessageID(entry: LogIndex(4), ordinal: 0))),
      ])
    let sizes = rig.machine.peek(queue, limit: 10).map { Int($0.reference.size) }
    #expect(sizes == [10, 20, 30, 40].map { $0 + MessageRecord.fixedBytes })
  }

  @Test func g4_refusedPublishIsRefusedAgainEvenIfTheQueueCameMeanwhile() {
    let rig = Rig()
    let session = rig.open(producer: 7)
    let refused = rig.publish(session, 1, to: QueueID(1))
    #expect(
      refused == [
        .plain(.refused(session, first: PublishSequence(1), count: 1, .queueNotFound))
      ])
    let queue = rig.declare("q")
    #expect(queue == QueueID(1))
    #expect(rig.publish(session, 1, to: queue) == refused)
    #expect(
      rig.machine.outcome(of: PublishSequence(1), by: ProducerID(7)) == .refused(.queueNotFound))
  }

  /// Two clients under one producer id: the first must not take the second's message for its own.
  @Test func g4_producerThatWasTakenOverCannotBeGoneOnWith() throws {
    let rig = Rig()
    let queue = rig.declare("q")
    let first = rig.open(producer: 7)
    let epoch = ProducerEpoch(first.rawValue)
    rig.publish(first, 1, to: queue)
    // The first client's publish 2 is on its way when its session ends.
    rig.apply { CommandWriter.closeSession(first, into: &$0) }
    let other = rig.open(producer: 7)
    rig.publish(other, 2, to: queue)
    rig.apply { CommandWriter.closeSession(other, into: &$0) }
    try rig.restart()
    #expect(
      rig.tryOpen(producer: 7, epoch: epoch) == [
        .plain(.sessionOpenRefused(rig.origin, .producerFenced))
      ])
    #expect(rig.machine.sessionCount == 0)
    // Whoever took it last goes on.
    let second = SessionID(rawValue: rig.index.next.rawValue << 20)
    #expect(
      rig.tryOpen(producer: 7, epoch: ProducerEpoch(other.rawValue)) == [
        .plain(
          .sessionOpened(
            rig.origin, second, lastSequence: PublishSequence(2),
            epoch: ProducerEpoch(other.rawValue)))
      ])
    #expect(rig.publish(second, 3, to: queue).count == 1)
    // Who was forgotten may have had a successor that was forgotten too.
    #expect(
      rig.tryOpen(producer: 8, epoch: ProducerEpoch(1)) == [
        .plain(.sessionOpenRefused(rig.origin, .producerForgotten))
      ])
  }

  /// A client gave a connection up with its open in it, and opened over another. The first open
  /// arrives after all, at a time when nothing else would stop it: it is nobody's any more.
  @Test func g4_openThatItsClientGaveUpDoesNotFenceTheClient() throws {
    let rig = Rig()
    let queue = rig.declare("q")
    func open(_ client: UInt32, _ count: UInt32) -> [Seen] {
      rig.tryOpen(producer: 7, attempt: OpenAttempt(client: client, count: count))
    }
    let refused = [Seen.plain(.sessionOpenRefused(rig.origin, .producerFenced))]
    let session = SessionID(rawValue: rig.index.next.rawValue << 20)
    #expect(open(1, 2).count == 1)
    #expect(open(1, 1) == refused)
    #expect(open(1, 2) == refused)
    #expect(rig.publish(session, 1, to: queue).count == 1)
    rig.apply { CommandWriter.closeSession(session, into: &$0) }
    try rig.restart()
    #expect(open(1, 1) == refused)
    #expect(rig.machine.sessionCount == 0)
    // The same client goes on, and another one takes over whatever its count.
    for (client, count) in [(1, 3), (2, 1)] as [(UInt32, UInt32)] {
      let next = SessionID(rawValue: rig.index.next.rawValue << 20)
      guard
        case .plain(.sessionOpened(_, next, lastSequence: _, epoch: _))? = open(client, count).last
      else {
        Issue.record("client \(client) is refused")
        continue
      }
      let last = PublishSequence(rawValue: client == 1 ? 2 : 3)
      rig.publish(next, last.rawValue, to: queue)
      guard case .stored = rig.machine.outcome(of: last, by: ProducerID(7)) else {
        Issue.record("client \(client) cannot publish")
        continue
      }
    }
  }

  @Test func g4_publishRefusedBeforeTheLogUsesItsNumbersUp() throws {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 7)
    rig.publish(session, 1, to: queue)
    func refuse() -> [Seen] {
      rig.apply {
        CommandWriter.refusePublish(
          session, first: PublishSequence(2), answeredThrough: .zero, count: 2, .messageTooLarge,
          into: &$0)
      }
    }
    let refused = refuse()
    #expect(
      refused == [
        .plain(.refused(session, first: PublishSequence(2), count: 2, .messageTooLarge))
      ])
    try rig.restart()
    #expect(refuse() == refused)
    // Also if it is asked for again with what would be stored.
    #expect(rig.publish(session, 2, to: queue, bodies: [1, 2]) == refused)
    rig.publish(session, 4, to: queue)
    #expect(rig.summary(queue).ready == 2)
    #expect(
      rig.machine.outcome(of: PublishSequence(3), by: ProducerID(7)) == .refused(.messageTooLarge))
  }

  @Test func g4_answersSurviveTheSessionAndAreForgottenOnlyWhenSeen() {
    let rig = Rig()
    let queue = rig.declare("q")
    let first = rig.open(producer: 7)
    rig.publish(first, 1, to: queue, bodies: [1, 2])
    rig.detach(first)
    rig.tick(.seconds(11))
    #expect(rig.machine.sessionCount == 0)
    let producer = ProducerID(7)
    let id = MessageID(entry: LogIndex(3), ordinal: 0)
    #expect(rig.machine.outcome(of: PublishSequence(1), by: producer) == .stored(id))
    // 23 hours later.
    rig.tick(.seconds(23 * 3600))
    let second = rig.open(producer: 7)
    #expect(
      rig.publish(second, 1, to: queue, bodies: [1, 2]) == [
        .plain(.confirmed(second, first: PublishSequence(1), count: 2, firstID: id))
      ])
    rig.publish(second, 3, to: queue, answeredThrough: 1)
    #expect(rig.machine.outcome(of: PublishSequence(1), by: producer) == .answerForgotten)
    #expect(rig.machine.outcome(of: PublishSequence(4), by: producer) == .unseen)
  }

  @Test func g4_producerIsForgottenADayAfterItsLastSessionAndNotBefore() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 7)
    rig.publish(session, 1, to: queue)
    // A live session is never forgotten.
    rig.tick(.seconds(100 * 3600))
    #expect(rig.publish(session, 2, to: queue).count == 1)
    rig.apply { CommandWriter.closeSession(session, into: &$0) }
    rig.tick(.seconds(24 * 3600 - 1))
    #expect(rig.machine.outcome(of: PublishSequence(2), by: ProducerID(7)) != .unseen)
    rig.tick(.seconds(1))
    #expect(rig.machine.outcome(of: PublishSequence(2), by: ProducerID(7)) == .unseen)
  }

  @Test func g5_returnedMessageGoesBackToItsOwnPlace() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 2, 3, 4, 5])
    rig.subscribe(session, 1, queue, credit: 3)
    rig.apply {
      CommandWriter.unsubscribe(
        session, consumer: ConsumerID(1), tag: RequestTag(1), returnHeld: false, into: &$0)
    }
    // Back in the wrong order: 3, then 1, then 2.
    rig.settle(session, 1, .negative, [3...3])
    rig.settle(session, 2, .release, [1...1])
    rig.settle(session, 3, .negative, [2...2])
    let other = rig.open()
    let got = rig.subscribe(other, 1, queue).deliveries
    #expect(got.map(\.id.ordinal) == [0, 1, 2, 3, 4])
    #expect(got.map(\.attempt) == [1, 2, 2, 1, 1])
    #expect(got.map(\.isRedelivery) == [true, true, true, false, false])
  }

  @Test func g6_tokensGrowAndAStaleAcknowledgementIsRefusedByName() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.lease = .seconds(5) }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue)
    let first = rig.subscribe(session, 1, queue).deliveries
    #expect(first.map(\.leaseEnd.rawValue) == [rig.now + 5_000_000_000])
    // One nanosecond before the end it is still held.
    #expect(rig.tick(Nanoseconds(4_999_999_999)).isEmpty)
    let lapse = rig.tick(Nanoseconds(1))
    #expect(lapse.first == .lapsed(session, ConsumerID(1), [DeliveryRange(1...1)]))
    let second = lapse.deliveries
    #expect(second.map(\.id) == first.map(\.id))
    #expect(second.map(\.attempt) == [2])
    #expect(second[0].token > first[0].token)
    #expect(
      rig.settle(session, 1, .acknowledge, [1...1]) == [
        .plain(
          .settleRefused(
            session, CommandSequence(1), ConsumerID(1), DeliveryRange(1...1), .staleDelivery)),
        .plain(.settled(session, through: CommandSequence(1))),
      ])
    #expect(rig.summary(queue).leased == 1)
  }

  @Test func g6_settlesSentAgainAreNotAnsweredBeyondThemselves() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.lease = .seconds(5) }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue)
    rig.publish(session, 2, to: queue)
    _ = rig.subscribe(session, 1, queue)
    _ = rig.settle(session, 1, .acknowledge, [1...1])
    _ = rig.tick(.seconds(5))
    let stale = rig.settle(session, 2, .acknowledge, [2...2])
    #expect(stale.count == 2)
    // The answers were lost with the leader. The first one says nothing of the second, whose
    // acknowledgement was refused.
    #expect(
      rig.settle(session, 1, .acknowledge, [1...1]) == [
        .plain(.settled(session, through: CommandSequence(1)))
      ])
    #expect(rig.settle(session, 2, .acknowledge, [2...2]) == stale)
  }

  @Test func g6_tokensGrowAlsoIfTheQueueIsDeletedAndDeclaredAnew() throws {
    let rig = Rig()
    var last = FencingToken(0)
    for number in UInt64(1)...3 {
      let queue = rig.declare("q")
      let session = rig.open(producer: number)
      rig.publish(session, 1, to: queue, bodies: [1, 2])
      let tokens = rig.subscribe(session, 1, queue).deliveries.map(\.token)
      #expect(tokens.count == 2)
      for token in tokens {
        #expect(token > last)
        last = token
      }
      rig.apply {
        CommandWriter.deleteQueue(
          .connection(rig.origin), tag: RequestTag(1), name: "q", into: &$0)
      }
      try rig.restart()
    }
  }

  @Test func g7_leaderChangeRedeliversNothing() throws {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 2, 3, 4])
    let held = rig.subscribe(session, 1, queue, credit: 3).deliveries
    rig.settle(session, 1, .acknowledge, [2...2])
    try rig.restart()
    rig.apply { CommandWriter.leaderChanged(to: NodeID(2), into: &$0) }
    #expect(rig.machine.origin(of: session) == nil)
    // Received 1 and 2 before the change; 3 and 4 come again, the same.
    let seen = rig.attach(session, origin: elsewhere, received: [1: 2])
    #expect(
      seen.dropLast() == [
        .plain(
          .sessionAttached(
            elsewhere, session, lastSequence: PublishSequence(4),
            settledThrough: CommandSequence(1))),
        .holding(session, ConsumerID(1), through: DeliveryID(2), [DeliveryRange(1...1)]),
      ])
    #expect(seen.deliveries.map(\.delivery.rawValue) == [3, 4])
    #expect(seen.deliveries.first == held[2])
    #expect(seen.deliveries.map(\.attempt) == [1, 1])
    let all = rig.settle(session, 2, .acknowledge, [1...1, 3...4])
    #expect(all == [.plain(.settled(session, through: CommandSequence(2)))])
    #expect(rig.summary(queue).redelivered == 0)
    #expect(rig.summary(queue).acknowledged == 4)
  }

  @Test func g8_overMaxDeliveriesAMessageMovesOnceWithItsStory() throws {
    let rig = Rig()
    let dead = rig.declare("dead")
    let queue = rig.declare("q") {
      $0.deliveriesMax = 2
      $0.deadLetterQueue = "dead"
      $0.lease = .seconds(5)
    }
    let session = rig.open(producer: 1, timeout: .seconds(60))
    rig.publish(session, 1, to: queue, bodies: [33])
    let reference = rig.subscribe(session, 1, queue).deliveries[0].reference
    rig.settle(session, 1, .negative, [1...1], error: "no such file")
    try rig.restart()
    rig.tick(.seconds(5))
    #expect(rig.summary(queue).deadLettered == 1)
    #expect(rig.summary(queue).ready + rig.summary(queue).leased == 0)
    let found = rig.machine.peek(dead, limit: 10)
    #expect(found.count == 1)
    #expect(found[0].id == MessageID(entry: rig.index, ordinal: 0))
    #expect(found[0].reference == reference)
    #expect(found[0].attempts == 0)
    #expect(
      found[0].deadLetter
        == DeadLetterNote(
          reason: .deliveriesExhausted, originQueue: "q",
          originID: MessageID(entry: reference.entry, ordinal: 0), attempts: 2,
          lastError: "lease ran out", firstTime: MachineTime(1_000),
          time: MachineTime(rig.now)))
    var live: [RecordReference] = []
    rig.machine.forEachLiveRecord { live.append($0) }
    #expect(live == [reference])
  }

  @Test func g8_attemptsCountForNackLeaseAndCrashButNotForReleaseAndClose() throws {
    let rig = Rig()
    let queue = rig.declare("q") { $0.lease = .seconds(5) }
    let publisher = rig.open(producer: 1, timeout: .seconds(3600))
    rig.publish(publisher, 1, to: queue)
    var session = rig.open(timeout: .seconds(1))
    #expect(rig.subscribe(session, 1, queue).deliveries.map(\.attempt) == [1])
    #expect(rig.settle(session, 1, .release, [1...1]).deliveries.map(\.attempt) == [1])
    #expect(rig.settle(session, 2, .negative, [2...2]).deliveries.map(\.attempt) == [2])
    #expect(rig.tick(.seconds(5)).deliveries.map(\.attempt) == [3])
    rig.detach(session)
    rig.tick(.seconds(1))
    session = rig.open()
    #expect(rig.subscribe(session, 1, queue).deliveries.map(\.attempt) == [4])
    rig.apply { CommandWriter.closeSession(session, into: &$0) }
    try rig.restart()
    session = rig.open()
    #expect(rig.subscribe(session, 1, queue).deliveries.map(\.attempt) == [4])
  }

  @Test func g8_withoutADeadLetterQueueAMessageIsDroppedAndCounted() {
    let rig = Rig()
    let queue = rig.declare("q") { $0.deliveriesMax = 1 }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1, 2])
    rig.subscribe(session, 1, queue)
    rig.settle(session, 1, .negative, [1...1])
    rig.settle(session, 2, .reject, [2...2])
    #expect(rig.summary(queue).leased == 0)
    #expect(rig.summary(queue).bytes == 0)
    #expect(rig.machine.dropped(from: queue) == 2)
  }

  @Test func g14_everyReplicaHasTheSameHashWhateverEffectsItGathers() {
    var machines: [[UInt64]] = []
    for (wanted, node) in [(true, nil), (false, nil), (true, NodeID(3))] {
      var effects = EffectList(isWanted: wanted, node: node)
      var machine = QueueMachine(limits: Script.limits)
      var hashes: [UInt64] = []
      for (index, payload) in Transcript.payloads(seed: 3, steps: 60).enumerated() {
        payload.withUnsafeBytes {
          machine.apply(index: LogIndex(UInt64(index + 1)), payload: $0, effects: &effects)
        }
        hashes.append(machine.stateHash)
      }
      machines.append(hashes)
    }
    #expect(machines[0] == machines[1])
    #expect(machines[0] == machines[2])
    #expect(Set(machines[0]).count == machines[0].count)
  }
}
