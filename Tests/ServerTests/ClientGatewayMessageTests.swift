// Publishing, consuming, reading: what a client of a leader asks for and gets.

import Base
import Node
import QueueMachine
import Testing
import Transport
import Wire

@testable import Server

@Suite struct ClientGatewayMessageTests {
  static func text(_ number: Int) -> [UInt8] { Array("message \(number)".utf8) }

  // MARK: Publishing

  @Test func publishesOfATurnAreConfirmedByOneFrame() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    // Several frames in one packet: the gateway reads them in one turn.
    var bytes: [UInt8] = []
    for place in 0..<3 {
      var run: [UInt8] = []
      for number in 0..<10 {
        MessageRecord.append(MessageParts(body: Self.text(number)), to: &run)
      }
      run.withUnsafeBytes {
        PublishView(
          queue: queue, first: PublishSequence(UInt64(place * 10 + 1)), answeredThrough: .zero,
          count: 10, run: $0
        ).encode(into: &bytes)
      }
    }
    client.send(bytes: bytes)
    try harness.run(until: "confirms") { client.confirmed == 30 }
    #expect(client.confirmFrames == 1)
    #expect(harness.replica.machine.summary(of: queue)?.ready == 30)
    #expect(harness.gateway.counters.confirmed == 30)
  }

  @Test func aPublishAskedAgainIsAnsweredAgainAndStoredOnce() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    try client.publishAndWait([Self.text(1), Self.text(2)], to: queue)
    client.nextSequence = 1
    try client.publishAndWait([Self.text(1), Self.text(2)], to: queue)
    #expect(client.confirmed == 4)
    #expect(harness.replica.machine.summary(of: queue)?.ready == 2)
  }

  @Test func aMessageOfExactlyTheLimitIsTaken() throws {
    let harness = try GatewayHarness.leading { $0.limits.messageBytes = 1000 }
    let client = try harness.client()
    let queue = try client.declare("q")
    var run: [UInt8] = []
    let body = [UInt8](repeating: 0, count: 1000)
    MessageRecord.append(MessageParts(body: body), to: &run)
    MessageRecord.append(
      MessageParts(body: body, delay: .zero, timeToLive: .seconds(9)), to: &run)
    client.publish(run: run, count: 2, to: queue)
    try harness.run(until: "answer") { client.confirmed + client.publishRefusals.count > 0 }
    #expect(client.confirmed == 2)
    // The head's room is not the body's.
    client.publish([[UInt8](repeating: 0, count: 1001)], to: queue)
    try harness.run(until: "refusal") { client.publishRefusals == [.messageTooLarge] }
  }

  @Test func wrongPublishesAreRefusedByNameAndTheConnectionGoesOn() throws {
    let harness = try GatewayHarness.leading { $0.limits.messageBytes = 1000 }
    let client = try harness.client()
    let queue = try client.declare("q")
    // One record of too many bytes.
    client.publish([[UInt8](repeating: 0, count: 1001)], to: queue)
    try harness.run(until: "refusal") { client.publishRefusals.count == 1 }
    // Lengths that do not add up.
    var run: [UInt8] = []
    MessageRecord.append(MessageParts(body: [1, 2, 3]), to: &run)
    run.patch(UInt32(2), at: 4)
    client.publish(run: run, count: 1, to: queue)
    try harness.run(until: "refusal") { client.publishRefusals.count == 2 }
    // Another count than announced.
    run = []
    MessageRecord.append(
      MessageParts(body: [UInt8](repeating: 0, count: MessageRecord.fixedBytes)), to: &run)
    client.publish(run: run, count: 2, to: queue)
    try harness.run(until: "refusal") { client.publishRefusals.count == 3 }
    // A queue that is not there. The numbers of the wrong ones are used up: they must not be
    // given again, and the producer goes on behind them.
    #expect(client.nextSequence == 5)
    client.publish([[1]], to: QueueID(4711))
    try harness.run(until: "refusal") { client.publishRefusals.count == 4 }
    #expect(
      client.publishRefusals
        == [.messageTooLarge, .messageMalformed, .messageMalformed, .queueNotFound])
    try client.publishAndWait([[1]], to: queue)
    #expect(client.confirmed == 1)
  }

  @Test func unansweredPublishesAreBounded() throws {
    let harness = try GatewayHarness.leading { $0.limits.publishesInFlight = 5 }
    let client = try harness.client()
    let queue = try client.declare("q")
    harness.holdsStores = true
    client.publish([[1], [2], [3]], to: queue)
    client.publish([[4], [5], [6]], to: queue)
    try harness.run(until: "refusal") { !client.publishRefusals.isEmpty }
    #expect(client.publishRefusals == [.tooManyUnanswered])
    harness.releaseStores()
    try harness.run(until: "confirms") { client.confirmed == 3 }
    client.nextSequence = 4
    try client.publishAndWait([[4], [5], [6]], to: queue)
  }

  @Test func settlesOfRangesThatOverlapEndTheConnection() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    client.send(
      .settle(
        SettleRequest(
          sequence: CommandSequence(1), answeredThrough: .zero, kind: .acknowledge,
          consumer: ConsumerID(1),
          ranges: [
            DeliveryRange(first: DeliveryID(1), last: DeliveryID(9)),
            DeliveryRange(first: DeliveryID(9), last: DeliveryID(9)),
          ])))
    try harness.run(until: "closed") { client.isClosed }
    #expect(harness.gateway.counters.faults == 1)
  }

  @Test func withoutASessionNothingIsPublishedOrSettled() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.greetedClient()
    client.publish([[1]], to: QueueID(1))
    client.acknowledge(1, 1...2, sequence: 1)
    try harness.run(until: "refusals") { client.news.count == 2 }
    #expect(client.publishRefusals == [.sessionNotFound])
    guard case .settleRefused(_, _, _, .sessionNotFound)? = client.news.last else {
      Issue.record("not refused but \(client.news)")
      return
    }
    let reply = try client.ask(
      .subscribe(consumer: ConsumerID(1), queue: QueueID(1), credit: 1))
    #expect(reply.refusal == .sessionNotFound)
  }

  // MARK: Pushing back

  @Test func withoutRoomTheClientIsPushedBackAndNothingIsLost() throws {
    let harness = try GatewayHarness.leading(unappliedBytesMax: 256 << 10) {
      $0.timeouts.silentConnection = .seconds(30)
    }
    let client = try harness.client()
    let queue = try client.declare("q")
    harness.holdsStores = true
    let body = [UInt8](repeating: 7, count: 10_000)
    for _ in 0..<100 { client.publish([body, body], to: queue) }
    harness.settle()
    #expect(harness.replica.unappliedBytes < 300 << 10)
    let connection = try #require(harness.gateway.sessions[client.session.rawValue])
    #expect(connection.pause == .noRoom)
    #expect(connection.connection.unreadBytes <= connection.connection.unreadMax)
    // Silence that the gateway itself imposes is none.
    harness.pass(.seconds(40))
    #expect(!client.isClosed)
    harness.releaseStores()
    try harness.run(until: "all confirmed") { client.confirmed == 200 || client.isClosed }
    #expect(connection.pause == .none)
    #expect(client.publishRefusals.isEmpty)
    #expect(harness.replica.machine.summary(of: queue)?.ready == 200)
    harness.pass(.seconds(20))
    #expect(!client.isClosed)
  }

  @Test func whoDoesNotReadAnswersIsNotReadFrom() throws {
    let harness = try GatewayHarness.leading {
      $0.limits.messageBytes = 64 << 10
      $0.limits.clientWriteBytes = 256 << 10
    }
    let client = try harness.client()
    let queue = try client.declare("q")
    let body = [UInt8](repeating: 7, count: 60_000)
    for _ in 0..<10 { try client.publishAndWait([body], to: queue) }
    client.reads = false
    let peek = ClientFrame.peek(queue: "q", after: MessageID(0), limit: 2)
    for _ in 0..<400 { _ = client.begin(peek) }
    harness.settle()
    let connection = try #require(harness.gateway.sessions[client.session.rawValue])
    #expect(connection.pause == .outputFull)
    #expect(connection.connection.pendingBytes < 512 << 10)
    client.reads = true
    let last = client.begin(peek)
    try harness.run(until: "the last answer") { client.replies[last] != nil || client.isClosed }
    #expect(client.replies.values.filter { $0.kind == .peeked }.count == 401)
  }

  // MARK: Consuming

  @Test func messagesAreDeliveredInOrderAndAcknowledged() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    try client.publishAndWait((1...50).map(Self.text), to: queue)
    try client.subscribe(3, to: queue, credit: 20)
    try harness.run(until: "20 deliveries") { client.deliveries.count == 20 }
    #expect(client.deliveries.map(\.body) == (1...20).map(Self.text))
    #expect(client.deliveries.map(\.delivery) == Array(1...20))
    #expect(client.deliveries.allSatisfy { $0.consumer == ConsumerID(3) })
    let header = try #require(client.deliveries.first?.header)
    #expect(header.attempt == 1)
    #expect(!header.isRedelivery)
    #expect(header.lease > .zero && header.lease <= .seconds(30))
    client.acknowledge(3, 1...20, sequence: 1)
    try harness.run(until: "20 more") { client.deliveries.count == 40 }
    #expect(client.settled == CommandSequence(1))
    client.acknowledge(3, 21...40, sequence: 2)
    try harness.run(until: "the rest") { client.deliveries.count == 50 }
    client.acknowledge(3, 41...50, sequence: 3)
    try harness.run(until: "settled") { client.settled == CommandSequence(3) }
    #expect(client.deliveries.map(\.body) == (1...50).map(Self.text))
    #expect(harness.replica.machine.summary(of: queue)?.acknowledged == 50)
    #expect(harness.gateway.counters.delivered == 50)
  }

  @Test func aStaleAcknowledgementIsRefusedByNameBeforeSettled() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    try client.publishAndWait([[1]], to: queue)
    try client.subscribe(1, to: queue, credit: 1)
    try harness.run(until: "delivery") { client.deliveries.count == 1 }
    client.acknowledge(1, 1...1, sequence: 1)
    client.acknowledge(1, 1...1, sequence: 2)
    try harness.run(until: "settled") { client.settled == CommandSequence(2) }
    let refused = client.news.filter { $0.kind == .settleRefused }
    #expect(refused.count == 1)
    guard case .settleRefused(CommandSequence(2), _, _, .staleDelivery)? = refused.first else {
      Issue.record("not refused but \(refused)")
      return
    }
  }

  @Test func aDamagedRecordWaitsAndKeepsTheOrder() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    for number in 1...3 { try client.publishAndWait([Self.text(number)], to: queue) }
    var damaged: LogIndex?
    let real = harness.lookUp
    harness.lookUp = { reference, cache in
      // The second message's entry.
      if reference.entry == damaged { return .damaged }
      return real(reference, cache)
    }
    let second = try #require(harness.replica.machine.peek(queue, limit: 3).dropFirst().first)
    damaged = second.reference.entry
    try client.subscribe(1, to: queue, credit: 10)
    harness.settle()
    #expect(client.deliveries.map(\.body) == [Self.text(1)])
    #expect(harness.notes.contains { $0.contains("damaged") })
    #expect(harness.gateway.deliverRetry > harness.now)
    damaged = nil
    harness.pass(.milliseconds(20))
    #expect(client.deliveries.map(\.body) == (1...3).map(Self.text))
    #expect(harness.gateway.deliverRetry == .never)
  }

  @Test("Where a turn may not read everything, its share goes round")
  func readingIsShared() throws {
    let harness = try GatewayHarness.leading()
    harness.gateway.readTurns.limit = 2
    let clients = try (1...3).map { try harness.client(producer: $0) }
    var readers: [Int] = []
    var left = 0
    let lookUp = harness.lookUp
    harness.lookUp = { reference, cache in
      if left == 0 { return .later }
      left -= 1
      return lookUp(reference, cache)
    }
    for (number, client) in clients.enumerated() {
      let queue = try client.declare("q\(number)")
      // Each in an entry of its own.
      for body in 1...5 { try client.publishAndWait([Self.text(body)], to: queue) }
      try client.subscribe(1, to: queue, credit: 10)
    }
    for turn in 1...15 {
      left = 1
      let had = clients.map(\.deliveries.count)
      let before = had.reduce(0, +)
      // As the loop does while something is left to be read.
      for _ in 0..<1_000 where left > 0 { harness.turn() }
      // A turn that may read nothing more changes nobody's place.
      harness.turn()
      try harness.run(until: "read") { clients.map(\.deliveries.count).reduce(0, +) > before }
      let counts = clients.map(\.deliveries.count)
      #expect(counts.reduce(0, +) == turn)
      #expect(counts.max()! - counts.min()! <= 2, "\(counts)")
      readers.append(try #require(counts.indices.first { counts[$0] > had[$0] }))
    }
    // Each two turns in a row, then one that is left to each.
    #expect(readers == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2, 0, 1, 2])
    for client in clients { #expect(client.deliveries.map(\.body) == (1...5).map(Self.text)) }
  }

  @Test("What is damaged is not looked for in every turn, and others are served meanwhile")
  func damagedHeadsCostLittle() throws {
    let harness = try GatewayHarness.leading()
    let clients = try (1...2).map { try harness.client(producer: $0) }
    let queues = try clients.enumerated().map { try $0.element.declare("q\($0.offset)") }
    let lookUp = harness.lookUp
    var looks = 0
    var isDamaged = true
    for (client, queue) in zip(clients, queues) {
      try client.publishAndWait([Self.text(1)], to: queue)
    }
    // All that the first client is to get is damaged: it is the only one that has anything to get yet.
    harness.lookUp = { reference, cache in
      if isDamaged { looks += 1 }
      return isDamaged ? .damaged : lookUp(reference, cache)
    }
    try clients[0].subscribe(1, to: queues[0], credit: 10)
    harness.settle()
    let before = looks
    #expect(before > 0)
    for _ in 0..<50 { harness.turn() }
    #expect(looks == before)
    harness.pass(ClientGatewayLimits.deliverRetry)
    harness.settle()
    #expect(looks > before)
    isDamaged = false
    try clients[1].subscribe(1, to: queues[1], credit: 10)
    harness.settle()
    #expect(clients[1].deliveries.count == 1)
    harness.pass(ClientGatewayLimits.deliverRetry)
    try harness.run(until: "repaired") { clients[0].deliveries.count == 1 }
  }

  @Test("Who waited for what is damaged may be gone: then nobody looks for it, and the loop sleeps")
  func nothingIsLookedForWithoutAnybody() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    try client.publishAndWait([Self.text(1)], to: queue)
    harness.lookUp = { _, _ in .damaged }
    try client.subscribe(1, to: queue, credit: 10)
    harness.settle()
    #expect(harness.gateway.deliverRetry > harness.now)
    #expect(harness.gateway.deliverRetry < .never)
    _ = try client.ask(.unsubscribe(consumer: ConsumerID(1), returnHeld: true))
    harness.settle()
    harness.pass(ClientGatewayLimits.deliverRetry)
    #expect(harness.gateway.deliverRetry == .never)
    #expect(harness.gateway.nextDeadline > harness.now)
  }

  @Test func aLapsedDeliveryIsToldAndNotSentAnyMore() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    try client.publishAndWait([Self.text(1)], to: queue)
    harness.lookUp = { _, _ in .unavailable("not now") }
    try client.subscribe(1, to: queue, credit: 1)
    harness.settle()
    #expect(client.deliveries.isEmpty)
    _ = try client.ask(.unsubscribe(consumer: ConsumerID(1), returnHeld: false))
    harness.pass(.seconds(29))
    _ = try client.ask(.ping)
    harness.pass(.seconds(2))
    #expect(client.news.contains { $0.kind == .lapsed })
    let connection = try #require(harness.gateway.sessions[client.session.rawValue])
    #expect(connection.outbox.isEmpty)
  }

  @Test func aDeletedQueueCancelsItsConsumers() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    try client.subscribe(1, to: queue, credit: 1)
    guard case .done(0) = try client.ask(.deleteQueue(name: "q")) else {
      Issue.record("not deleted")
      return
    }
    try harness.run(until: "cancelled") { !client.news.isEmpty }
    guard case .consumerCancelled(ConsumerID(1), .queueNotFound)? = client.news.last else {
      Issue.record("not cancelled but \(client.news)")
      return
    }
  }

  // MARK: Queues and reads

  @Test func queuesAreDeclaredFoundListedPurgedAndDeleted() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.greetedClient()
    #expect(try client.ask(.resolveQueue(name: "q")).refusal == .queueNotFound)
    let queue = try client.declare("q")
    guard case .queueReply(queue, isNew: false) = try client.ask(.resolveQueue(name: "q")),
      case .queueReply(queue, isNew: false) = try client.ask(
        .declareQueue(name: "q", settings: QueueSettings()))
    else {
      Issue.record("not the same queue")
      return
    }
    var settings = QueueSettings()
    settings.deliveriesMax = 3
    #expect(
      try client.ask(.declareQueue(name: "q", settings: settings)).refusal == .queueDiffers)
    settings.priorities = 99
    #expect(
      try client.ask(.declareQueue(name: "p", settings: settings)).refusal == .settingInvalid)
    #expect(
      try client.ask(.declareQueue(name: "\n", settings: QueueSettings())).refusal
        == .queueNameInvalid)
    guard case .queueSummaries(let list) = try client.ask(.listQueues),
      case .queueSummaries(let shown) = try client.ask(.showQueue(name: "q"))
    else {
      Issue.record("no summaries")
      return
    }
    #expect(list == shown)
    #expect(list.map(\.name) == ["q"])
    try client.openSession()
    try client.publishAndWait([[1], [2]], to: queue)
    guard case .done(count: 2) = try client.ask(.purgeQueue(name: "q")),
      case .done(count: 0) = try client.ask(.deleteQueue(name: "q"))
    else {
      Issue.record("not purged and deleted")
      return
    }
    #expect(try client.ask(.showQueue(name: "q")).refusal == .queueNotFound)
  }

  @Test func peekShowsBodiesAndPublishesCanBeAskedFor() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client(producer: 9)
    let queue = try client.declare("q")
    try client.publishAndWait((1...5).map(Self.text), to: queue)
    guard
      case .peeked(let first, _) = try client.ask(
        .peek(queue: "q", after: MessageID(0), limit: 2))
    else {
      Issue.record("nothing to see")
      return
    }
    #expect(first.count == 2)
    let bodies = try first.map { record in
      try record.record.withUnsafeBytes { try MessageRecord.parts(of: $0).body }
    }
    #expect(bodies == [Self.text(1), Self.text(2)])
    let after = try #require(first.last?.message)
    guard
      case .peeked(let rest, _) = try client.ask(.peek(queue: "q", after: after, limit: 100)),
      case .outcomeReply(.stored(let id)) = try client.ask(
        .publishOutcome(producer: ProducerID(9), sequence: PublishSequence(1))),
      case .outcomeReply(.notSeen) = try client.ask(
        .publishOutcome(producer: ProducerID(9), sequence: PublishSequence(6)))
    else {
      Issue.record("wrong answers")
      return
    }
    #expect(rest.count == 3)
    #expect(id == first.first?.message)
    #expect(try client.ask(.peek(queue: "x", after: id, limit: 1)).refusal == .queueNotFound)
  }

  @Test func singleMessagesAreShownRescheduledCancelledAndMovedBack() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client(producer: 9)
    _ = try client.declare("dead")
    var settings = QueueSettings()
    settings.deadLetterQueue = "dead"
    settings.lengthMax = 1
    settings.overflow = .dropOldest
    guard
      case .queueReply(let queue, _) = try client.ask(
        .declareQueue(name: "q", settings: settings))
    else {
      Issue.record("not declared")
      return
    }
    try client.publishAndWait([Self.text(1), Self.text(2)], to: queue)
    guard
      case .peeked(let dead, _) = try client.ask(
        .peek(queue: "dead", after: MessageID(0), limit: 9)),
      let id = dead.first?.message,
      case .messageShown(let shown) = try client.ask(.showMessage(queue: "dead", message: id))
    else {
      Issue.record("nothing overflowed")
      return
    }
    #expect(dead.first?.deadLetter?.reason == .overflowed)
    #expect(shown.peeked.record == dead.first?.record)
    #expect(shown.events.map(\.kind) == [.deadLettered])
    guard
      case .done = try client.ask(
        .rescheduleMessage(queue: "dead", message: id, delay: .seconds(60))),
      case .queueRedriven(0, 0, MessageID(0), _) = try client.ask(
        .redriveQueue(
          queue: "dead", which: .all, after: MessageID(0), through: MessageID(0), limit: 10)),
      case .done = try client.ask(.rescheduleMessage(queue: "dead", message: id, delay: .zero)),
      case .queueRedriven(1, 0, MessageID(0), _) = try client.ask(
        .redriveQueue(
          queue: "dead", which: .reason(.overflowed), after: MessageID(0), through: MessageID(0),
          limit: 10))
    else {
      Issue.record("not moved back when it was ready")
      return
    }
    // By its old id it is found where it went.
    guard
      case .messageShown(let moved) = try client.ask(.showMessage(queue: "dead", message: id))
    else {
      Issue.record("not found by the id that it had before")
      return
    }
    #expect(moved.events.map(\.kind) == [.deadLettered, .redriven])
    #expect(moved.peeked.message != id)
    #expect(try client.ask(.cancelMessage(queue: "q", message: id)).refusal == .messageGone)
    #expect(try client.ask(.showMessage(queue: "x", message: id)).refusal == .queueNotFound)
    // What is nowhere to be found, and why.
    func refusal(_ queue: String, _ id: MessageID) throws -> Refusal? {
      try client.ask(.showMessage(queue: queue, message: id)).refusal
    }
    #expect(try refusal("dead", moved.peeked.message) == .messageElsewhere)
    #expect(try refusal("q", MessageID(77)) == .messageGone)
    #expect(try refusal("q", MessageID(entry: LogIndex(1 << 40), ordinal: 0)) == .messageNotFound)
  }

  @Test func aSessionIsClosedWhenItsClientSaysSo() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    #expect(
      try client.ask(.openSession(producer: ProducerID(1), timeout: .zero, name: "")).refusal
        == .malformedRequest)
    guard case .done = try client.ask(.closeSession) else {
      Issue.record("not closed")
      return
    }
    #expect(harness.gateway.sessions.isEmpty)
    #expect(harness.replica.machine.held(by: client.session) == nil)
    #expect(try client.ask(.closeSession).refusal == .sessionNotFound)
    try client.openSession()
    #expect(harness.gateway.sessions.count == 1)
  }
}
