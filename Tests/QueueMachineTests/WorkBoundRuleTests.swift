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
    #expect(fan.summary("q").leased == 0)
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
