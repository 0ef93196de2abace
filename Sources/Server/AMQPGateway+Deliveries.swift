// From the outboxes to the connections, while there is room. Messages come out as they went in, but
// for what the broker adds: how often it was tried, and where it died before.

import AMQP
import Base
import Node
import QueueMachine

extension AMQPGateway {
  mutating func deliver(
    _ deliveries: ArraySlice<Delivery>, to consumer: ConsumerID, of client: AMQPClient
  ) {
    client.outbox.append(deliveries, to: consumer)
    client.countUnsent(deliveries.count, of: consumer)
    noteDelivering(client)
  }

  /// There is something to be written.
  mutating func noteDelivering(_ client: AMQPClient) {
    guard !client.isDelivering else { return }
    client.isDelivering = true
    delivering.append(client)
  }

  /// Writes deliveries, and the answers to gets, to the connections that have room for them.
  mutating func pumpDeliveries(
    records: inout RecordSource, replica: inout Replica, now: MonotonicTime
  ) {
    // Who waited for it may be gone.
    deliverRetry = .never
    output.beginWriting(to: clients.count)
    pumpConnections(records: &records, replica: &replica, now: now)
    output.endWriting(now: now)
    shareRoomLeft()
  }

  private mutating func pumpConnections(
    records: inout RecordSource, replica: inout Replica, now: MonotonicTime
  ) {
    guard !delivering.isEmpty else { return }
    var cursor = RecordCursor()
    var waiting: [AMQPClient] = []
    swap(&waiting, &delivering)
    var cut: ReadTurns.Cut?
    var stuck = 0
    for client in waiting where client.phase == .open {
      let waited = client.unwrittenCount
      noteRetry(of: client, now: now)
      let end =
        output.isTurnOver ? .output : pump(client, &cursor, &records, &replica, now: now)
      let gotSomething = client.unwrittenCount < waited
      shareRoom(client)
      if gotSomething, client.connection.pendingBytes >= pendingMax {
        // Who reads makes room for the others.
        flush(client, now: now)
      }
      if client.unwrittenCount == 0 {
        client.isDelivering = false
        continue
      }
      delivering.append(client)
      if gotSomething { client.getsAreFirst.toggle() }
      if end == .output { output.noteCut(client.connection, gotSomething: gotSomething) }
      let place = delivering.count - 1
      if cut == nil, end == .output, !gotSomething, !output.isTurnOver, stuck == place {
        stuck += 1
      } else if end != .ownReasons, cut == nil {
        cut = ReadTurns.Cut(place: place, gotSomething: gotSomething, end: end)
      }
    }
    if let cut { readTurns.pass(cut, behind: stuck, in: &delivering) }
  }

  /// Deliveries are written to a connection while fewer bytes than this wait to be sent.
  private var pendingMax: Int {
    min(ClientGatewayLimits.deliverBytesPending, configuration.limits.clientWriteBytes / 2)
  }

  /// What is next for the client cannot be had now. It is not looked for in every turn: others would be
  /// kept from reading by it.
  private mutating func tryAgainLater(_ client: AMQPClient, now: MonotonicTime) {
    client.deliverRetry = now + ClientGatewayLimits.deliverRetry
    deliverRetry = min(deliverRetry, client.deliverRetry)
  }

  /// Has the loop turn when something is looked up again, whether there is room for it now or not.
  private mutating func noteRetry(of client: AMQPClient, now: MonotonicTime) {
    if now < client.deliverRetry, !client.outbox.isEmpty {
      deliverRetry = min(deliverRetry, client.deliverRetry)
    }
    for get in client.waitingGets where now < get.retryAt {
      deliverRetry = min(deliverRetry, get.retryAt)
    }
  }

  private mutating func pump(
    _ client: AMQPClient, _ cursor: inout RecordCursor, _ records: inout RecordSource,
    _ replica: inout Replica, now: MonotonicTime
  ) -> PumpEnd {
    let pending = client.connection.pendingBytes
    guard pending < pendingMax else { return .ownReasons }
    let room = output.room(for: client.connection, pendingMax: pendingMax)
    defer {
      output.wrote(client.connection.pendingBytes - pending)
      output.count(client.connection, &client.countedOutput)
    }
    // Where the first has to wait for reading, the second may have what is in memory.
    let getsAreFirst = client.getsAreFirst
    var end = PumpEnd.ownReasons
    if getsAreFirst { end = pumpGets(client, room, &records, &replica, now: now) }
    let outboxEnd = pumpOutbox(client, room, &cursor, &records, &replica, now: now)
    if !getsAreFirst { end = pumpGets(client, room, &records, &replica, now: now) }
    return end == .ownReasons ? outboxEnd : end
  }

  /// Why it is the end where something is left to write, but there is no room for it.
  func endOfRoom(of client: AMQPClient) -> PumpEnd {
    client.connection.pendingBytes < pendingMax ? .output : .ownReasons
  }

  private mutating func pumpOutbox(
    _ client: AMQPClient, _ room: OutputRoom, _ cursor: inout RecordCursor,
    _ records: inout RecordSource, _ replica: inout Replica, now: MonotonicTime
  ) -> PumpEnd {
    guard client.phase == .open, !client.outbox.isEmpty, now >= client.deliverRetry else {
      return .ownReasons
    }
    var settled = SettledAtOnce()
    while let item = client.outbox.first,
      room.takes(Int(item.delivery.reference.size), behind: client.connection.pendingBytes)
    {
      switch cursor.locate(item.delivery.reference, replica, &records) {
      case .found(let range):
        client.outbox.removeFirst()
        client.countUnsent(-1, of: item.consumer)
        cursor.withRecord(range) { record in
          write(record, item.delivery, item.consumer, client, replica, &settled)
        }
        if !client.cancelling.isEmpty, client.isLastBeforeCancel(of: item.consumer) {
          finishCancel(of: item.consumer, client, replica)
        }
      case .damaged:
        replica.entryIsDamaged(item.delivery.reference.entry, now: now)
        tryAgainLater(client, now: now)
        finish(&settled, client)
        finishCancels(client, replica)
        return .ownReasons
      case .later:
        finish(&settled, client)
        return .reading
      case .unavailable:
        tryAgainLater(client, now: now)
        finish(&settled, client)
        finishCancels(client, replica)
        return .ownReasons
      }
      if client.phase != .open { return .ownReasons }
    }
    finish(&settled, client)
    return client.outbox.isEmpty ? .ownReasons : endOfRoom(of: client)
  }

  /// Deliveries of one consumer after the other that are settled as they are written: what needs no
  /// acknowledgement, and what its client no longer wants.
  private struct SettledAtOnce {
    var consumer = ConsumerID(0)
    var kind = SettleKind.acknowledge
    var ranges: [DeliveryRange] = []
  }

  private mutating func note(
    _ delivery: DeliveryID, of consumer: ConsumerID, _ kind: SettleKind,
    _ settled: inout SettledAtOnce, _ client: AMQPClient
  ) {
    if settled.consumer != consumer || settled.kind != kind
      || settled.ranges.count == FixedLimits.rangesPerSettle
    {
      finish(&settled, client)
      settled.consumer = consumer
      settled.kind = kind
    }
    settled.ranges.add(delivery)
  }

  private mutating func finish(_ settled: inout SettledAtOnce, _ client: AMQPClient) {
    guard !settled.ranges.isEmpty, let session = client.openSession else { return }
    settle(settled.ranges, of: settled.consumer, settled.kind, session, client)
    settled.ranges.removeAll()
    needsTurn = true
  }

  private mutating func write(
    _ record: UnsafeRawBufferPointer, _ delivery: Delivery, _ consumer: ConsumerID,
    _ client: AMQPClient, _ replica: borrowing Replica, _ settled: inout SettledAtOnce
  ) {
    var isTaken = false
    guard let state = client.consumers[consumer] ?? client.cancelling[consumer]?.state else {
      // It is gone: what was on its way goes back unseen, and counts for nothing.
      note(delivery.delivery, of: consumer, .release, &settled, client)
      return
    }
    if !hasRoom(for: state, client) {
      handBack(to: consumer, client)
      note(delivery.delivery, of: consumer, .release, &settled, client)
      return
    }
    let queue = state.queue
    withContent(of: record, delivery, consumer, queue, client, replica) { gateway, content in
      gateway.noteMistakes(of: content, from: queue, client, replica)
      gateway.say(to: client) { machine, output, _ in
        isTaken = machine.deliver(
          BrokerDelivery(
            consumer: consumer, delivery: delivery.delivery,
            isRedelivered: delivery.isRedelivery, content: content), output: &output)
      }
    }
    guard client.phase == .open else { return }
    guard isTaken else {
      note(delivery.delivery, of: consumer, .release, &settled, client)
      return
    }
    counters.delivered += 1
    if delivery.attempt > AMQPAdvice.attemptsMax { advise(.requeueLoop(queue: queue)) }
    if state.noAck {
      note(delivery.delivery, of: consumer, .acknowledge, &settled, client)
    } else {
      takeRoom(consumer, state.channel, client)
    }
  }

  /// The message as its consumer is to see it.
  mutating func withContent(
    of record: UnsafeRawBufferPointer, _ delivery: Delivery, _ consumer: ConsumerID,
    _ queue: String, _ client: AMQPClient, _ replica: borrowing Replica,
    _ body: (inout AMQPGateway, BrokerContent) -> Void
  ) {
    let story = client.openSession.flatMap {
      replica.machine.story(of: delivery.id, heldBy: consumer, of: $0)
    }
    guard let places = AMQPProperties.places(in: record) else {
      withNativeContent(of: record, queue, delivery, story, body)
      return
    }
    if story == nil, delivery.attempt <= 1 {
      body(&self, BrokerContent(record, places))
      return
    }
    let asPublished = UnsafeRawBufferPointer(rebasing: record[places.properties])
    // A dead letter under its queue's own key is nobody's copy any more.
    let isRekeyed = story?.routingKey.map { !record[places.routingKey].elementsEqual($0) } ?? false
    let way = DeliveryHeaders.Way(
      exchange: String(decoding: record[places.exchange], as: UTF8.self),
      key: [UInt8](record[places.routingKey]))
    var properties: [UInt8] = []
    Properties.withHeaders(
      asPublished, adding: DeliveryHeaders.added(to: asPublished, way, delivery, story),
      dropping: isRekeyed ? "CC" : nil, droppingExpiration: story != nil, into: &properties)
    let exchange = story?.exchange.map { [UInt8]($0.utf8) } ?? [UInt8](record[places.exchange])
    let key = story?.routingKey ?? [UInt8](record[places.routingKey])
    withContent(exchange, key, properties, record, places.body, body)
  }

  /// A message that a native client published: its headers become texts where they are.
  private mutating func withNativeContent(
    of record: UnsafeRawBufferPointer, _ queue: String, _ delivery: Delivery,
    _ story: DeliveryStory?, _ body: (inout AMQPGateway, BrokerContent) -> Void
  ) {
    let parts: MessageParts
    do throws(MessageRecordError) {
      parts = try MessageRecord.parts(of: record)
    } catch {
      stopForBug("a record that was checked before: \(error)")
    }
    var made: [UInt8] = []
    Properties.make(
      contentType: parts.contentType.isEmpty ? nil : parts.contentType,
      priority: parts.priority == 0 ? nil : parts.priority,
      headers: parts.headers.filter { $0.name.utf8.count <= 255 }, into: &made)
    if story != nil || delivery.attempt > 1 {
      let asMade = made
      made = []
      asMade.withUnsafeBytes { bytes in
        Properties.withHeaders(
          bytes, adding: DeliveryHeaders.added(to: bytes, nil, delivery, story),
          droppingExpiration: false, into: &made)
      }
    }
    let exchange = story?.exchange.map { [UInt8]($0.utf8) } ?? []
    let key = story?.routingKey ?? [UInt8](queue.utf8)
    withContent(
      exchange, key, made, record, record.count - parts.body.count..<record.count, body)
  }

  private mutating func withContent(
    _ exchange: [UInt8], _ key: [UInt8], _ properties: [UInt8],
    _ record: UnsafeRawBufferPointer, _ bodyRange: Range<Int>,
    _ body: (inout AMQPGateway, BrokerContent) -> Void
  ) {
    Array(exchange.prefix(255)).withUnsafeBytes { exchange in
      Array(key.prefix(255)).withUnsafeBytes { key in
        properties.withUnsafeBytes { properties in
          body(
            &self,
            BrokerContent(
              exchange: exchange, routingKey: key, properties: properties,
              body: UnsafeRawBufferPointer(rebasing: record[bodyRange])))
        }
      }
    }
  }
}

/// The headers that the broker adds, as RabbitMQ calls them.
enum DeliveryHeaders {
  /// How a message was published.
  struct Way {
    var exchange: String
    var key: [UInt8]
  }

  /// - Parameter way: nil for a message of a native client.
  static func added(
    to properties: UnsafeRawBufferPointer, _ way: Way?, _ delivery: Delivery,
    _ story: DeliveryStory?
  ) -> [(String, FieldValue)] {
    var headers: [(String, FieldValue)] = []
    if delivery.attempt > 1 {
      headers.append(("x-delivery-count", .int64(Int64(delivery.attempt) - 1)))
    }
    guard let story, var first = story.deaths.last else { return headers }
    if let way, first.exchange.isEmpty, first.keys.count == 1 {
      // The machine keeps no more of it where that decides nothing; the record has it all.
      first.exchange = way.exchange
      first.keys = [way.key] + copies(properties)
    }
    let expiration = expiration(in: properties)
    let known = Array(story.deaths.dropLast()) + [first]
    let deaths = known.enumerated().map { place, death in
      // Only the death that took it away knows of it.
      table(of: death, expiration: place == known.count - 1 ? expiration : nil)
    }
    headers.append(("x-death", .array(merge(deaths, known, earlier: earlier(properties)))))
    headers.append(("x-first-death-queue", .text(first.queue)))
    headers.append(("x-first-death-reason", .text(first.reason.nameInAMQP)))
    headers.append(("x-first-death-exchange", .text(first.exchange)))
    return headers
  }

  /// The keys in `CC`.
  private static func copies(_ properties: UnsafeRawBufferPointer) -> [[UInt8]] {
    guard let headers = (try? BasicProperties(properties))?.headers,
      case .array(let values)? = headers["CC"]
    else { return [] }
    return values.compactMap { if case .string(let key) = $0 { key } else { nil } }
  }

  /// The deaths that a message was published with: a consumer published it again as it had come.
  private static func earlier(_ properties: UnsafeRawBufferPointer) -> [FieldTable] {
    guard let headers = (try? BasicProperties(properties))?.headers,
      case .array(let values)? = headers["x-death"]
    else { return [] }
    return values.compactMap { if case .table(let table) = $0 { table } else { nil } }
  }

  /// One entry for each queue and reason, the counts of both added.
  private static func merge(
    _ deaths: [FieldValue], _ known: [MessageDeath], earlier: [FieldTable]
  ) -> [FieldValue] {
    var deaths = deaths
    for table in earlier {
      let place = known.firstIndex {
        table["queue"] == .text($0.queue) && table["reason"] == .text($0.reason.nameInAMQP)
      }
      guard let place else {
        deaths.append(.table(table))
        continue
      }
      guard case .table(var entry) = deaths[place], let count = table["count"]?.integer else {
        continue
      }
      entry.set("count", .int64(Int64(known[place].count) &+ Int64(count)))
      deaths[place] = .table(entry)
    }
    return deaths
  }

  private static func expiration(in properties: UnsafeRawBufferPointer) -> [UInt8]? {
    guard let view = try? PropertiesView(properties), let range = view.expiration else {
      return nil
    }
    return [UInt8](properties[range])
  }

  private static func table(of death: MessageDeath, expiration: [UInt8]?) -> FieldValue {
    var entries: [(String, FieldValue)] = [
      ("count", .int64(Int64(death.count))),
      ("reason", .text(death.reason.nameInAMQP)),
      ("queue", .text(death.queue)),
      ("time", .timestamp(death.time.rawValue / 1_000_000_000)),
      ("exchange", .text(death.exchange)),
      ("routing-keys", .array(death.keys.map { .string($0) })),
    ]
    if let expiration { entries.append(("original-expiration", .string(expiration))) }
    return .table(FieldTable(entries))
  }
}

extension DeadLetterReason {
  fileprivate var nameInAMQP: String {
    switch self {
    case .rejected: "rejected"
    case .expired: "expired"
    case .overflowed: "maxlen"
    case .deliveriesExhausted: "delivery_limit"
    }
  }
}
