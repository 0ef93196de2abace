// What an AMQP client gives back, or ends, beyond what one entry may move: it is decided at once, and
// carried out with the due work of the next.

import Base
import Testing

@testable import QueueMachine

/// A queue "q" whose rejected messages go to "dead", and a consumer that holds five of them, where an
/// entry takes back three.
private struct Holder {
  let limits: MachineLimits
  let rig: Rig
  let session: AMQPSession
  let other: AMQPSession

  init(dueWork: Int = FixedLimits.dueWorkPerEntry) {
    var limits = MachineLimits()
    limits.settledPerEntry = 3
    limits.dueWorkPerEntry = dueWork
    self.limits = limits
    rig = Rig(limits: limits)
    session = AMQPSession(rig)
    other = AMQPSession(rig, connection: 2)
    session.queue("dead")
    session.queue("q") {
      $0.deadLetterExchange = ""
      $0.deadLetterKey = [UInt8]("dead".utf8)
      $0.settings.deliveriesMax = 3
    }
    session.publish("", keys: ["q"], headers: Array(repeating: [], count: 5))
    #expect(session.consume("q").deliveries.count == 5)
  }

  func settle(_ kind: SettleKind, _ range: ClosedRange<UInt64> = 1...5) -> [Seen] {
    rig.apply { Self.settle(session.id, kind, range, into: &$0) }
  }

  static func settle(
    _ session: SessionID, _ kind: SettleKind, _ range: ClosedRange<UInt64>,
    into payload: inout [UInt8]
  ) {
    CommandWriter.settle(
      session, sequence: .unnumbered, answeredThrough: .zero, kind: kind,
      consumer: ConsumerID(1), ranges: [DeliveryRange(range)], into: &payload)
  }

  var ready: [UInt64?] { [session.ready("q"), session.ready("dead")] }

  /// What another consumer gets of "q": the attempts, and whether they are redelivered.
  func taken() -> [UInt32] {
    other.consume("q").deliveries.map { $0.isRedelivery ? $0.attempt : 0 }
  }
}

extension [Seen] {
  fileprivate var haveLapsed: Bool {
    contains { if case .lapsed = $0 { true } else { false } }
  }
}

@Suite struct SettledLaterRules {
  @Test func whatIsRejectedDies() throws {
    let holder = Holder()
    let seen = holder.rig.apply { payload in
      Holder.settle(holder.session.id, .reject, 1...5, into: &payload)
      // It is decided: neither of these does anything to them.
      Holder.settle(holder.session.id, .acknowledge, 1...5, into: &payload)
      Holder.settle(holder.session.id, .negative, 1...2, into: &payload)
    }
    #expect(!seen.haveLapsed && holder.ready == [0, 0])
    try holder.rig.restart(limits: holder.limits)
    #expect(holder.rig.machine.nextDeadline <= holder.rig.machine.clock)
    #expect(!holder.rig.tick(.zero).haveLapsed)
    #expect(holder.ready == [0, 5])
    let dead = holder.other.consume("dead").deliveries
    let story = dead.first.flatMap {
      holder.rig.machine.story(of: $0.id, heldBy: ConsumerID(1), of: holder.other.id)
    }
    #expect(story?.deaths.first?.reason == .rejected)
  }

  /// An entry's due work stops among what one consumer has rejected.
  @Test func whatIsRejectedDiesOverSeveralEntries() throws {
    let holder = Holder(dueWork: 2)
    #expect(!holder.settle(.reject).haveLapsed)
    for dead in [2, 4, 5] as [UInt64] {
      #expect(holder.rig.machine.nextDeadline <= holder.rig.machine.clock)
      #expect(!holder.rig.tick(.zero).haveLapsed)
      #expect(holder.ready == [0, dead])
      try holder.rig.restart(limits: holder.limits)
    }
    #expect(holder.rig.machine.nextDeadline == .never)
  }

  @Test func whatIsRequeuedComesAgain() {
    let holder = Holder()
    #expect(!holder.settle(.negative).haveLapsed)
    let seen = holder.rig.tick(.zero)
    #expect(!seen.haveLapsed && seen.deliveries.map(\.attempt) == [2, 2, 2, 2, 2])
    #expect(holder.rig.machine.held(by: holder.session.id) == 5)
  }

  /// What its client never saw comes to the next one as if it had not been given out.
  @Test func whatWasNeverSentCountsForNothing() {
    let holder = Holder()
    holder.rig.apply { payload in
      Holder.settle(holder.session.id, .release, 1...5, into: &payload)
      CommandWriter.unsubscribe(
        holder.session.id, consumer: ConsumerID(1), tag: holder.rig.tag(), returnHeld: false,
        into: &payload)
    }
    holder.rig.tick(.zero)
    #expect(holder.taken() == [0, 0, 0, 0, 0])
  }

  @Test func aTransactionsRejectsAreAllOrNothing() {
    let holder = Holder()
    let reply = holder.session.ask { _, tag, payload in
      let start = CommandWriter.beginCommit(holder.session.id, tag: tag, into: &payload)
      Holder.settle(holder.session.id, .reject, 1...5, into: &payload)
      CommandWriter.endCommit(start, into: &payload)
    }
    #expect(reply == .done)
    #expect(!holder.rig.tick(.zero).haveLapsed)
    #expect(holder.ready == [0, 5])
  }

  @Test(arguments: [false, true]) func aChannelThatClosesEndsItsConsumersAtOnce(
    isRestarted: Bool
  ) throws {
    let holder = Holder()
    let seen = holder.rig.unsubscribe(holder.session.id, 1, returnHeld: true)
    guard case .plain(.reply(_, _, .unsubscribed(ConsumerID(1))))? = seen.last, seen.count == 1
    else {
      Issue.record("\(seen)")
      return
    }
    if isRestarted { try holder.rig.restart(limits: holder.limits) }
    // It gets nothing more, and what it held is anybody's in the next entry.
    let more = holder.rig.apply { payload in
      run([1]).withUnsafeBytes {
        CommandWriter.route(
          holder.session.id, tag: holder.rig.tag(),
          RouteOrder(exchange: TopologyName(""), keys: [[UInt8]("q".utf8)]), count: 1, run: $0,
          into: &payload)
      }
    }
    #expect(more.deliveries.isEmpty && !more.haveLapsed)
    #expect(holder.rig.machine.consumerCount == 0 && holder.ready == [6, 0])
    #expect(holder.taken() == [1, 1, 1, 1, 1, 0])
  }

  /// Its rejects go their way all the same, whatever becomes of their consumer and session.
  @Test(arguments: ["channel", "close", "lose"]) func aRejectOutlivesItsConsumer(end: String) throws
  {
    let holder = Holder()
    let seen = holder.rig.apply { payload in
      Holder.settle(holder.session.id, .reject, 1...4, into: &payload)
      switch end {
      case "channel":
        CommandWriter.unsubscribe(
          holder.session.id, consumer: ConsumerID(1), tag: holder.rig.tag(), returnHeld: true,
          into: &payload)
      case "close": CommandWriter.closeSession(holder.session.id, into: &payload)
      default: CommandWriter.loseSession(holder.session.id, into: &payload)
      }
    }
    #expect(!seen.haveLapsed)
    try holder.rig.restart(limits: holder.limits)
    holder.rig.tick(.zero)
    #expect(holder.rig.machine.isThere(holder.session.id) == (end == "channel"))
    #expect(holder.rig.machine.consumerCount == 0)
    #expect([holder.other.ready("q"), holder.other.ready("dead")] == [1, 4])
    // Only the end of a lost connection is a failed try.
    #expect(holder.taken() == [end == "lose" ? 2 : 1])
  }

  /// A native client hears that it is too much, and asks again.
  @Test func nativeClientsAskAgain() {
    let holder = Holder()
    let native = holder.rig.open(producer: 1)
    let queue = holder.rig.declare("n")
    holder.rig.publish(native, 1, to: queue, bodies: [1, 1, 1, 1])
    holder.rig.subscribe(native, 1, queue)
    let seen = holder.rig.unsubscribe(native, 1, returnHeld: true)
    guard case .plain(.reply(_, _, .refused(.overloaded, _)))? = seen.last else {
      Issue.record("\(seen)")
      return
    }
    #expect(holder.rig.machine.held(by: native) == 4)
  }
}

@Suite struct ExclusiveConsumerRules {
  let rig = Rig()

  private func consume(
    _ session: AMQPSession, _ consumer: UInt32, isExclusive: Bool = false
  ) -> TopologyReply {
    session.ask { _, tag, payload in
      CommandWriter.consume(
        session.id, tag: tag, consumer: ConsumerID(consumer), queue: TopologyName("q"),
        credit: 10, isExclusive: isExclusive, into: &payload)
    }
  }

  @Test func aCancelledOneGivesTheQueueUp() throws {
    let session = AMQPSession(rig)
    let other = AMQPSession(rig, connection: 2)
    let inUse = TopologyReply.failed(.exclusiveUse("q", host: "/"))
    session.queue("q")
    session.publish("", keys: ["q"])
    #expect(consume(session, 1, isExclusive: true) == .consuming(ConsumerID(1)))
    #expect(consume(other, 1) == inUse)
    // It holds a message still, which is no consumer.
    rig.unsubscribe(session.id, 1)
    try rig.restart()
    #expect(consume(session, 2, isExclusive: true) == .consuming(ConsumerID(2)))
    #expect(consume(other, 1) == inUse)
    #expect(consume(session, 1) == inUse)
    rig.unsubscribe(session.id, 2)
    #expect(consume(other, 1) == .consuming(ConsumerID(1)))
    #expect(consume(session, 3, isExclusive: true) == inUse)
    rig.settle(session.id, 1, .acknowledge, [1...1])
    #expect(rig.machine.consumers(of: session.id).isEmpty)
  }

  @Test func whatWasTakenByGetIsNoConsumer() {
    let session = AMQPSession(rig)
    session.queue("q")
    session.publish("", keys: ["q"])
    let reply = session.ask { _, tag, payload in
      CommandWriter.take(
        session.id, tag: tag, consumer: ConsumerID(9), queue: TopologyName("q"), into: &payload)
    }
    guard case .took = reply else {
      Issue.record("\(reply)")
      return
    }
    #expect(consume(session, 1, isExclusive: true) == .consuming(ConsumerID(1)))
  }
}
