// Exchanges, bindings and queues as AMQP clients use them, rule by rule.

import Base
import Testing

@testable import QueueMachine

/// A session of an AMQP connection.
struct AMQPSession {
  let rig: Rig
  let id: SessionID

  init(_ rig: Rig, connection: UInt64 = 1) {
    self.rig = rig
    id = rig.open(
      timeout: .zero, origin: SessionOrigin(node: NodeID(1), connection: connection), kind: .amqp)
  }

  /// The reply to one request.
  @discardableResult
  func ask(_ build: (Requester, RequestTag, inout [UInt8]) -> Void) -> TopologyReply {
    let tag = rig.tag()
    let seen = rig.apply { build(.session(id), tag, &$0) }
    for case .plain(.reply(.session(id), tag, .topology(let reply))) in seen { return reply }
    stopForBug("no reply: \(seen)")
  }

  @discardableResult
  func exchange(
    _ name: String, _ kind: ExchangeType, passive: Bool = false, autoDelete: Bool = false,
    internal isInternal: Bool = false, alternate: String = ""
  ) -> TopologyReply {
    var order = ExchangeOrder(
      TopologyName(name),
      ExchangeSettings(
        kind: kind, isAutoDelete: autoDelete, isInternal: isInternal, alternate: alternate))
    order.isPassive = passive
    return ask { CommandWriter.declareExchange($0, tag: $1, order, into: &$2) }
  }

  @discardableResult
  func queue(_ name: String, _ change: (inout QueueOrder) -> Void = { _ in }) -> TopologyReply {
    var order = QueueOrder(TopologyName(name))
    change(&order)
    return ask { CommandWriter.declareQueue($0, tag: $1, order, into: &$2) }
  }

  @discardableResult
  func bind(
    _ source: String, to target: BindingTarget, key: String = "", arguments: [UInt8] = []
  ) -> TopologyReply {
    let order = BindingOrder(
      source: TopologyName(source), target: target, key: [UInt8](key.utf8), arguments: arguments)
    return ask { CommandWriter.bind($0, tag: $1, order, into: &$2) }
  }

  @discardableResult
  func unbind(
    _ source: String, from target: BindingTarget, key: String = "", arguments: [UInt8] = []
  ) -> TopologyReply {
    let order = BindingOrder(
      source: TopologyName(source), target: target, key: [UInt8](key.utf8), arguments: arguments)
    return ask { CommandWriter.unbind($0, tag: $1, order, into: &$2) }
  }

  /// Publishes one message for each table of headers.
  @discardableResult
  func publish(
    _ exchange: String, keys: [String], headers: [[UInt8]] = [[]], mandatory: Bool = false
  ) -> [TopologyEffect] {
    var records: [UInt8] = []
    for table in headers {
      MessageRecord.append(
        amqpMessage(exchange: exchange, key: keys[0], headers: table), to: &records)
    }
    let order = RouteOrder(
      exchange: TopologyName(exchange), keys: keys.map { [UInt8]($0.utf8) },
      isMandatory: mandatory)
    let tag = rig.tag()
    let seen = rig.apply { payload in
      records.withUnsafeBytes {
        CommandWriter.route(
          id, tag: tag, order, count: UInt32(headers.count), run: $0, into: &payload)
      }
    }
    return seen.compactMap { if case .plain(.topology(let effect)) = $0 { effect } else { nil } }
  }

  func consume(
    _ queue: String, consumer: UInt32 = 1, credit: UInt32 = 10
  ) -> (reply: TopologyReply, deliveries: [Delivery]) {
    let tag = rig.tag()
    let seen = rig.apply {
      CommandWriter.consume(
        id, tag: tag, consumer: ConsumerID(consumer), queue: TopologyName(queue), credit: credit,
        isExclusive: false, into: &$0)
    }
    for case .plain(.reply(_, tag, .topology(let reply))) in seen {
      return (reply, seen.deliveries)
    }
    stopForBug("no reply: \(seen)")
  }

  @discardableResult
  func settle(_ sequence: UInt64, _ kind: SettleKind, _ last: UInt64) -> [Seen] {
    rig.settle(id, sequence, kind, [last...last])
  }

  func ready(_ queue: String) -> UInt64? {
    rig.machine.queueInfo(TopologyName(queue))?.ready
  }

  func close() { rig.apply { CommandWriter.closeSession(id, into: &$0) } }
  func lose() { rig.apply { CommandWriter.loseSession(id, into: &$0) } }
}

func amqpMessage(exchange: String, key: String, headers: [UInt8] = []) -> MessageParts {
  var properties: [UInt8] = headers.isEmpty ? [0, 0] : [0x20, 0]
  if !headers.isEmpty { properties += bigEndian(UInt32(headers.count)) + headers }
  var value: [UInt8] = []
  [UInt8](exchange.utf8).withUnsafeBytes { exchange in
    [UInt8](key.utf8).withUnsafeBytes { key in
      properties.withUnsafeBytes {
        AMQPProperties.append(exchange: exchange, routingKey: key, properties: $0, to: &value)
      }
    }
  }
  return MessageParts(body: [1, 2, 3], headers: [(AMQPProperties.headerName, value)])
}

func bigEndian(_ number: UInt32) -> [UInt8] {
  [UInt8(number >> 24), UInt8(number >> 16 & 255), UInt8(number >> 8 & 255), UInt8(number & 255)]
}

/// A table of text and 32-bit numbers.
func table(_ entries: KeyValuePairs<String, Any>) -> [UInt8] {
  var bytes: [UInt8] = []
  for (name, value) in entries {
    bytes.append(UInt8(name.utf8.count))
    bytes += name.utf8
    if let text = value as? String {
      bytes += [UInt8(ascii: "S")] + bigEndian(UInt32(text.utf8.count)) + text.utf8
    } else if let number = value as? Int {
      bytes += [UInt8(ascii: "I")] + bigEndian(UInt32(number))
    } else if let number = value as? Int64 {
      bytes += [UInt8(ascii: "l"), 0, 0, 0, 0] + bigEndian(UInt32(number))
    } else {
      bytes.append(UInt8(ascii: "V"))
    }
  }
  return bytes
}

@Suite struct TopologyTests {
  let rig = Rig()

  @Test func defaultExchangeLeadsToTheQueueOfThatName() {
    let session = AMQPSession(rig)
    #expect(session.queue("q") == .queueDeclared(ready: 0, consumers: 0))
    #expect(session.publish("", keys: ["q"]).count == 1)
    #expect(session.ready("q") == 1)
    // A native client knows the same queue by the same name.
    #expect(rig.machine.queue(named: "q") != nil)
    #expect(session.queue("q") == .queueDeclared(ready: 1, consumers: 0))
  }

  @Test func directExchangeRoutesByExactKey() {
    let session = AMQPSession(rig)
    for queue in ["a", "b", "c"] { session.queue(queue) }
    session.exchange("x", .direct)
    session.bind("x", to: .queue("a"), key: "red")
    session.bind("x", to: .queue("b"), key: "red")
    session.bind("x", to: .queue("c"), key: "blue")
    session.publish("x", keys: ["red"])
    #expect([session.ready("a"), session.ready("b"), session.ready("c")] == [1, 1, 0])
    // A key in CC goes there too, and nobody gets it twice.
    session.publish("x", keys: ["red", "blue", "red"])
    #expect([session.ready("a"), session.ready("b"), session.ready("c")] == [2, 2, 1])
  }

  @Test func fanoutIgnoresKeys() {
    let session = AMQPSession(rig)
    session.queue("a")
    session.queue("b")
    session.bind("amq.fanout", to: .queue("a"), key: "x")
    session.bind("amq.fanout", to: .queue("a"), key: "y")
    session.bind("amq.fanout", to: .queue("b"))
    session.publish("amq.fanout", keys: ["z"])
    #expect([session.ready("a"), session.ready("b")] == [1, 1])
  }

  @Test(arguments: [
    ("a.b.c", "a.b.c", true), ("a.b.c", "a.b", false), ("a.*.c", "a.b.c", true),
    ("a.*.c", "a.c", false), ("a.#", "a", true), ("a.#", "a.b.c", true), ("#", "", true),
    ("#", "a.b", true), ("#.c", "a.b.c", true), ("#.c", "c", true), ("a.#.c", "a.c", true),
    ("a.#.c", "a.b.b.c", true), ("*.#.*", "a", false), ("*.#.*", "a.b", true), ("*", "", true),
    ("", "", true), ("", "a", false), ("a..b", "a..b", true), ("a.*.b", "a..b", true),
    ("#.#.a", "a", true), ("*.*", "a.b.c", false),
  ])
  func topicKeys(pattern: String, key: String, matches: Bool) {
    let session = AMQPSession(rig)
    session.queue("q")
    session.bind("amq.topic", to: .queue("q"), key: pattern)
    session.publish("amq.topic", keys: [key])
    #expect(session.ready("q") == (matches ? 1 : 0))
  }

  @Test func headersExchangeLooksAtEachMessage() {
    let session = AMQPSession(rig)
    for queue in ["all", "any", "there"] { session.queue(queue) }
    session.bind("amq.headers", to: .queue("all"), arguments: table(["a": 1, "b": "x"]))
    session.bind(
      "amq.headers", to: .queue("any"), arguments: table(["x-match": "any", "a": 1, "b": "x"]))
    session.bind("amq.match", to: .queue("there"), arguments: table(["c": ()]))
    session.publish(
      "amq.headers", keys: [""],
      headers: [table(["a": Int64(1), "b": "x"]), table(["b": "x"]), table(["a": 2])])
    #expect([session.ready("all"), session.ready("any")] == [1, 2])
    session.publish("amq.match", keys: [""], headers: [table(["c": "whatever"]), []])
    #expect(session.ready("there") == 1)
  }

  @Test func exchangesLeadToExchangesOnce() {
    let session = AMQPSession(rig)
    session.queue("q")
    session.exchange("x", .fanout)
    session.exchange("y", .topic)
    #expect(session.bind("x", to: .exchange("y")) == .done)
    #expect(session.bind("y", to: .exchange("x"), key: "#") == .done)
    session.bind("y", to: .queue("q"), key: "a.*")
    session.publish("x", keys: ["a.b"])
    #expect(session.ready("q") == 1)
    session.unbind("x", from: .exchange("y"))
    session.publish("x", keys: ["a.b"])
    #expect(session.ready("q") == 1)
  }

  @Test func alternateExchangeTakesWhatIsUnroutable() {
    let session = AMQPSession(rig)
    session.queue("q")
    session.queue("rest")
    session.exchange("others", .fanout)
    session.exchange("x", .direct, alternate: "others")
    session.bind("others", to: .queue("rest"))
    session.bind("x", to: .queue("q"), key: "k")
    session.publish("x", keys: ["k"])
    session.publish("x", keys: ["unknown"], mandatory: true)
    #expect([session.ready("q"), session.ready("rest")] == [1, 1])
  }

  @Test func mandatoryMessagesComeBack() {
    let session = AMQPSession(rig)
    let effects = session.publish("", keys: ["nowhere"], headers: [[], []], mandatory: true)
    guard case .unroutable(session.id, _, let run)? = effects.first, effects.count == 1 else {
      Issue.record("\(effects)")
      return
    }
    #expect(run.count == 2 && run.entry == rig.index)
    #expect(
      session.publish("", keys: ["nowhere"]) == [
        .routed(session.id, RequestTag(rig.nextTag), count: 1)
      ])
  }

  @Test func publishToWhatIsNotThereFails() {
    let session = AMQPSession(rig)
    session.exchange("inside", .fanout, internal: true)
    for (exchange, failure) in [
      ("x", TopologyFailure.noExchange("x", host: "/")),
      ("inside", .internalExchange("inside", host: "/")),
    ] {
      let effects = session.publish(exchange, keys: ["k"])
      #expect(
        effects == [.routeFailed(session.id, RequestTag(rig.nextTag), count: 1, failure)])
    }
  }

  @Test func messageIsInAllItsQueuesOrInNone() {
    let session = AMQPSession(rig)
    session.queue("free")
    session.queue("full") {
      $0.settings.lengthMax = 2
      $0.settings.overflow = .reject
    }
    for queue in ["free", "full"] { session.bind("amq.fanout", to: .queue(queue)) }
    let effects = session.publish("amq.fanout", keys: [""], headers: [[], [], []])
    #expect(effects.count == 3)
    guard case .routeRefused(session.id, _, count: 1, .queueFull)? = effects.last else {
      Issue.record("\(effects)")
      return
    }
    #expect([session.ready("free"), session.ready("full")] == [2, 2])
  }

  // MARK: Declaring

  @Test func declaringAgainChangesNothingOrFails() {
    let session = AMQPSession(rig)
    session.queue("q") { $0.settings.lengthMax = 5 }
    #expect(
      session.queue("q") { $0.settings.lengthMax = 5 } == .queueDeclared(ready: 0, consumers: 0))
    guard case .failed(.queueDiffers("q", host: "/", _)) = session.queue("q") else {
      Issue.record("declared with other settings")
      return
    }
    #expect(
      session.queue("q") { $0.isPassive = true } == .queueDeclared(ready: 0, consumers: 0))
    #expect(
      session.queue("p") { $0.isPassive = true } == .failed(.noQueue("p", host: "/")))
    #expect(session.exchange("x", .direct) == .done)
    #expect(session.exchange("x", .direct) == .done)
    #expect(session.exchange("x", .topic) == .failed(.exchangeDiffers("x", host: "/")))
    #expect(session.exchange("y", .topic, passive: true) == .failed(.noExchange("y", host: "/")))
    #expect(
      session.exchange("amq.mine", .topic) == .failed(.reservedExchange("amq.mine", host: "/")))
  }

  @Test func nativeQueueMeetsAMQP() {
    rig.declare("native") { $0.lease = .seconds(5) }
    let session = AMQPSession(rig)
    #expect(session.queue("native") == .queueDeclared(ready: 0, consumers: 0))
    session.bind("amq.direct", to: .queue("native"), key: "k")
    session.publish("amq.direct", keys: ["k"])
    #expect(session.ready("native") == 1)
    rig.ask { CommandWriter.deleteQueue($0, tag: $1, name: "native", into: &$2) }
    #expect(rig.machine.bindingCount == 0)
  }

  @Test func exclusiveQueueIsItsConnectionsAlone() {
    let mine = AMQPSession(rig)
    let other = AMQPSession(rig, connection: 2)
    mine.queue("q") { $0.isExclusive = true }
    let locked = TopologyReply.failed(.queueLocked("q", host: "/"))
    #expect(other.queue("q") { $0.isExclusive = true } == locked)
    #expect(other.queue("q") { $0.isPassive = true } == locked)
    #expect(other.consume("q").reply == locked)
    #expect(other.bind("amq.fanout", to: .queue("q")) == locked)
    #expect(mine.queue("q") == locked)
    // Publishing is for all.
    other.publish("", keys: ["q"])
    #expect(mine.ready("q") == 1)
    mine.close()
    #expect(rig.machine.queue(named: "q") == nil)
  }

  @Test func autoDeleteQueueGoesWithItsLastConsumer() {
    let session = AMQPSession(rig)
    session.queue("q") { $0.isAutoDelete = true }
    session.publish("", keys: ["q"])
    #expect(session.consume("q", consumer: 1).deliveries.count == 1)
    _ = session.consume("q", consumer: 2)
    rig.apply {
      CommandWriter.unsubscribe(
        session.id, consumer: ConsumerID(1), tag: rig.tag(), returnHeld: true, into: &$0)
    }
    #expect(rig.machine.queue(named: "q") != nil)
    session.lose()
    #expect(rig.machine.queue(named: "q") == nil)
  }

  @Test func autoDeleteExchangeGoesWithItsLastBinding() {
    let session = AMQPSession(rig)
    session.queue("q")
    session.exchange("x", .fanout, autoDelete: true)
    session.exchange("y", .fanout, autoDelete: true)
    session.bind("x", to: .exchange("y"))
    session.bind("y", to: .queue("q"))
    let before = rig.machine.exchangeCount
    rig.ask { CommandWriter.deleteQueue($0, tag: $1, name: "q", into: &$2) }
    #expect(rig.machine.exchangeCount == before - 2)
    #expect(rig.machine.bindingCount == 0)
  }

  @Test func deletingLooksAtUse() {
    let session = AMQPSession(rig)
    func drop(_ name: String, ifUnused: Bool = false, ifEmpty: Bool = false) -> TopologyReply {
      session.ask {
        CommandWriter.deleteQueue(
          $0, tag: $1, TopologyName(name), ifUnused: ifUnused, ifEmpty: ifEmpty, into: &$2)
      }
    }
    session.queue("q")
    session.publish("", keys: ["q"])
    #expect(drop("q", ifEmpty: true) == .failed(.queueNotEmpty("q", host: "/")))
    _ = session.consume("q", credit: 1)
    session.publish("", keys: ["q"])
    #expect(drop("q", ifUnused: true) == .failed(.queueInUse("q", host: "/")))
    #expect(drop("q") == .messages(1))
    #expect(drop("q") == .messages(0))
    session.exchange("x", .direct)
    session.queue("p")
    session.bind("x", to: .queue("p"))
    func dropExchange(_ name: String, ifUnused: Bool) -> TopologyReply {
      session.ask {
        CommandWriter.deleteExchange($0, tag: $1, TopologyName(name), ifUnused: ifUnused, into: &$2)
      }
    }
    #expect(dropExchange("x", ifUnused: true) == .failed(.exchangeInUse("x", host: "/")))
    #expect(dropExchange("x", ifUnused: false) == .done)
    #expect(dropExchange("x", ifUnused: false) == .done)
    #expect(dropExchange("amq.topic", ifUnused: false) != .done)
    #expect(rig.machine.bindingCount == 0)
  }

  @Test func hostsAreApart() {
    let session = AMQPSession(rig)
    session.ask { CommandWriter.addVirtualHost($0, tag: $1, name: "other", into: &$2) }
    guard let host = rig.machine.virtualHost(named: "other") else {
      Issue.record("no host")
      return
    }
    session.queue("q")
    let order = QueueOrder(TopologyName("q", in: host))
    session.ask { CommandWriter.declareQueue($0, tag: $1, order, into: &$2) }
    #expect(rig.machine.queue(named: "//other:q") != nil)
    #expect(rig.machine.exchange(TopologyName("amq.topic", in: host)) != nil)
    session.publish("", keys: ["//other:q"])
    session.publish("", keys: ["q"])
    #expect(session.ready("q") == 1)
    #expect(rig.machine.queueInfo(TopologyName("q", in: host))?.ready == 0)
    #expect(session.queue("//other:p") != .queueDeclared(ready: 0, consumers: 0))
  }

  @Test("A queue's name has up to 255 bytes in every virtual host")
  func longNamesInOtherHosts() throws {
    let session = AMQPSession(rig)
    let name = String(repeating: "h", count: 100)
    session.ask { CommandWriter.addVirtualHost($0, tag: $1, name: name, into: &$2) }
    guard let host = rig.machine.virtualHost(named: name) else {
      Issue.record("no host")
      return
    }
    func declare(_ count: Int) -> TopologyReply {
      let order = QueueOrder(TopologyName(String(repeating: "q", count: count), in: host))
      return session.ask { CommandWriter.declareQueue($0, tag: $1, order, into: &$2) }
    }
    #expect(declare(255) == .queueDeclared(ready: 0, consumers: 0))
    #expect(declare(256) != .queueDeclared(ready: 0, consumers: 0))
    try rig.restart()
    #expect(rig.machine.queue(named: "//\(name):" + String(repeating: "q", count: 255)) != nil)
  }

  // MARK: Taking, losing, dead letters

  @Test func takingHandsOutOneByOne() {
    let session = AMQPSession(rig)
    session.queue("q")
    session.publish("", keys: ["q"], headers: [[], []])
    func take() -> TopologyReply {
      let tag = rig.tag()
      let seen = rig.apply {
        CommandWriter.take(
          session.id, tag: tag, consumer: ConsumerID(9), queue: TopologyName("q"), into: &$0)
      }
      for case .plain(.reply(_, tag, .topology(let reply))) in seen {
        #expect(seen.deliveries.isEmpty)
        return reply
      }
      stopForBug("\(seen)")
    }
    guard case .took(ConsumerID(9), let first, ready: 1) = take(),
      case .took(_, let second, ready: 0) = take()
    else {
      Issue.record("not taken")
      return
    }
    #expect(take() == .nothingToTake)
    #expect(first.delivery == DeliveryID(1) && second.delivery == DeliveryID(2))
    // Two settles: the taker ends with the last that it holds.
    for (sequence, delivery) in [(1, first.delivery), (2, second.delivery)] {
      rig.apply {
        CommandWriter.settle(
          session.id, sequence: CommandSequence(UInt64(sequence)), answeredThrough: .zero,
          kind: .acknowledge, consumer: ConsumerID(9),
          ranges: [DeliveryRange(first: delivery, last: delivery)], into: &$0)
      }
    }
    #expect(rig.machine.consumerCount == 0)
    #expect(session.ready("q") == 0)
  }

  @Test func lostConnectionGivesBackAtOnceAndCounts() {
    let session = AMQPSession(rig)
    session.queue("q")
    session.publish("", keys: ["q"])
    #expect(session.consume("q").deliveries.first?.attempt == 1)
    session.lose()
    let next = AMQPSession(rig, connection: 2)
    let again = next.consume("q").deliveries
    #expect(again.map(\.attempt) == [2] && again.map(\.isRedelivery) == [true])
    next.close()
    let last = AMQPSession(rig, connection: 3)
    #expect(last.consume("q").deliveries.map(\.attempt) == [2])
  }

  @Test func deadLettersGoThroughTheirExchangeOnce() {
    let session = AMQPSession(rig)
    session.exchange("dlx", .topic)
    session.queue("dead")
    session.queue("copy")
    session.bind("dlx", to: .queue("dead"), key: "orders.#")
    session.bind("dlx", to: .queue("copy"), key: "#")
    session.queue("q") {
      $0.settings.deliveriesMax = 2
      $0.deadLetterExchange = "dlx"
    }
    session.bind("amq.direct", to: .queue("q"), key: "orders.new")
    session.publish("amq.direct", keys: ["orders.new"])
    #expect(session.consume("q").deliveries.count == 1)
    session.settle(1, .negative, 1)
    #expect([session.ready("dead"), session.ready("copy")] == [0, 0])
    session.settle(2, .negative, 2)
    #expect([session.ready("dead"), session.ready("copy")] == [1, 1])
    let dead = session.consume("dead", consumer: 2).deliveries
    guard let delivery = dead.first,
      let story = rig.machine.story(
        of: delivery.id, heldBy: ConsumerID(2), of: session.id)
    else {
      Issue.record("no dead letter")
      return
    }
    #expect(story.exchange == "dlx" && story.routingKey == [UInt8]("orders.new".utf8))
    #expect(
      story.deaths == [
        MessageDeath(
          queue: "q", reason: .deliveriesExhausted, exchange: "amq.direct",
          keys: [[UInt8]("orders.new".utf8)], count: 1, time: MachineTime(rig.now))
      ])
  }

  @Test func deadLettersGoByTheKeyOfTheirQueue() {
    let session = AMQPSession(rig)
    session.queue("dead")
    session.queue("q") {
      $0.deadLetterExchange = ""
      $0.deadLetterKey = [UInt8]("dead".utf8)
    }
    session.publish("", keys: ["q"])
    _ = session.consume("q")
    session.settle(1, .reject, 1)
    #expect(session.ready("dead") == 1)
    // One that leads nowhere is dropped, and counted.
    rig.ask { CommandWriter.deleteQueue($0, tag: $1, name: "dead", into: &$2) }
    session.publish("", keys: ["q"])
    session.settle(2, .reject, 2)
    let queue = rig.machine.queue(named: "q") ?? QueueID(0)
    #expect(rig.machine.dropped(from: queue) == 1)
  }

  /// The messages' headers are kept where the dead-letter exchange is to look at them, also behind
  /// exchanges and over a snapshot.
  @Test func deadLettersGoByTheirHeaders() throws {
    let session = AMQPSession(rig)
    session.exchange("first", .fanout)
    session.exchange("second", .headers)
    session.bind("first", to: .exchange("second"))
    for colour in ["red", "blue"] {
      session.queue(colour)
      session.bind("second", to: .queue(colour), arguments: table(["colour": colour]))
    }
    session.queue("q") {
      $0.settings.deliveriesMax = 1
      $0.deadLetterExchange = "first"
    }
    let large = String(repeating: "x", count: MessageAddress.headerBytesMax)
    session.publish(
      "", keys: ["q"],
      headers: [
        table(["colour": "red"]), table(["colour": "green"]), [],
        table(["colour": "blue", "n": "1"]),
        // Too large to be kept for that.
        table(["colour": "blue", "text": large]),
      ])
    try rig.restart()
    #expect(session.consume("q").deliveries.count == 5)
    rig.settle(session.id, 1, .reject, [1...5])
    #expect([session.ready("red"), session.ready("blue")] == [1, 1])
  }

  @Test func whoAsksForAQueueUsesIt() {
    let session = AMQPSession(rig)
    session.queue("q") { $0.settings.expires = .seconds(10) }
    for passive in [true, false] {
      rig.tick(.seconds(8))
      session.queue("q") {
        $0.settings.expires = .seconds(10)
        $0.isPassive = passive
      }
    }
    rig.tick(.seconds(8))
    #expect(session.ready("q") == 0)
    rig.tick(.seconds(3))
    #expect(session.ready("q") == nil)
  }

  /// Two queues that are each other's dead-letter queues by time would pass a message on for ever.
  @Test func messageDoesNotGoRoundByItself() {
    let session = AMQPSession(rig)
    for (queue, other) in [("a", "b"), ("b", "a")] {
      session.queue(queue) {
        $0.settings.timeToLive = .seconds(1)
        $0.deadLetterExchange = ""
        $0.deadLetterKey = [UInt8](other.utf8)
      }
    }
    session.publish("", keys: ["a"])
    rig.tick(.seconds(1))
    #expect([session.ready("a"), session.ready("b")] == [0, 1])
    rig.tick(.seconds(1))
    #expect([session.ready("a"), session.ready("b")] == [0, 0])
  }

  @Test func directReplyGoesStraightToItsConsumer() {
    let asker = AMQPSession(rig)
    let answerer = AMQPSession(rig, connection: 2)
    let address = ReplyAddress(session: asker.id, consumer: ConsumerID(3))
    #expect(ReplyAddress(text: address.text) == address)
    let effects = answerer.publish("", keys: [address.text])
    #expect(effects.count == 2)
    guard case .directReply(asker.id, ConsumerID(3), let run)? = effects.first else {
      Issue.record("\(effects)")
      return
    }
    #expect(run.entry == rig.index)
    asker.close()
    #expect(answerer.publish("", keys: [address.text]).count == 1)
  }
}
