// The arguments of queue.declare: what is wrong with them, and what a redeclaration may change.

import AMQP
import Base
import Testing

@Suite struct ArgumentTests {
  private static func declare(
    _ client: TestConnection, _ arguments: [(String, FieldValue)],
    _ values: [String: TestValue] = [:]
  ) -> String {
    var all = values
    all["queue"] = values["queue"] ?? "q"
    all["arguments"] = .table(FieldTable(arguments))
    return client.call("queue.declare", all).first ?? ""
  }

  private static func refused(_ text: String) -> String {
    """
    1 channel.close replyCode=406 replyText=PRECONDITION_FAILED - \(text) classID=50 methodID=10
    """
  }

  @Test(
    arguments: [
      ("x-message-ttl", .int32(-1), "{value_negative,-1}"),
      ("x-message-ttl", .text("1000"), "{unacceptable_type,longstr}"),
      ("x-message-ttl", .int64(315_360_000_001), "{value_too_big,315360000001}"),
      ("x-expires", .int8(0), "{value_zero,0}"),
      ("x-expires", .int64(-5), "{value_negative,-5}"),
      ("x-expires", .boolean(true), "{unacceptable_type,bool}"),
      ("x-max-priority", .int16(256), "{max_value_exceeded,256}"),
      ("x-max-priority", .int8(-1), "{value_negative,-1}"),
      ("x-max-length", .double(bits: 0), "{unacceptable_type,double}"),
      ("x-max-length-bytes", .int32(-1), "{value_negative,-1}"),
      ("x-overflow", .text("odd"), "invalid_overflow"),
      ("x-overflow", .int8(1), "{unacceptable_type,byte}"),
      ("x-queue-type", .text("odd"), "invalid_queue_type"),
      ("x-queue-type", .text("stream"), "invalid_queue_type"),
      ("x-queue-mode", .text("odd"), "invalid_queue_mode"),
      ("x-dead-letter-exchange", .int64(1), "{unacceptable_type,long}"),
      ("x-dead-letter-routing-key", .text("k"), "routing_key_but_no_dlx_defined"),
      ("x-dead-letter-exchange", .string([255]), "{invalid_value,longstr}"),
      (
        "x-dead-letter-routing-key", .string([UInt8](repeating: 65, count: 256)),
        "{value_too_long,256}"
      ),
      ("x-delivery-limit", .int32(-1), "{value_negative,-1}"),
      ("x-single-active-consumer", .int8(1), "{unacceptable_type,byte}"),
      ("x-retry-delay", .int32(-1), "{value_negative,-1}"),
      ("x-retry-jitter", .double(bits: (1.5).bitPattern), "{value_not_in_0_to_1}"),
      ("x-lease", .int32(0), "{value_zero,0}"),
    ] as [(String, FieldValue, String)])
  func aWrongArgumentIsNamed(name: String, value: FieldValue, reason: String) {
    let client = TestConnection.open()
    #expect(
      Self.declare(client, [(name, value)])
        == Self.refused("invalid arg '\(name)' for queue 'q' in vhost '/': \(reason)"))
    #expect(client.broker.queues.isEmpty)
  }

  @Test func aPasswordIsNotPrinted() {
    let credentials = Credentials(mechanism: "PLAIN", user: "u", password: [115, 101, 99])
    var dumped = ""
    dump(BrokerRequest.authenticate(RequestToken(1), credentials), to: &dumped)
    for text in ["\(credentials)", String(reflecting: credentials), dumped] {
      #expect(!text.contains("115"), "\(text)")
    }
  }

  @Test func argumentsAreUnderstood() throws {
    let table = FieldTable([
      ("x-message-ttl", .int8(1)), ("x-expires", .uint16(2)), ("x-max-length", .int64(3)),
      ("x-max-length-bytes", .uint32(4)), ("x-overflow", .text("reject-publish")),
      ("x-max-priority", .uint8(255)), ("x-dead-letter-exchange", .text("")),
      ("x-dead-letter-routing-key", .string([1, 255])), ("x-max-delivery-attempts", .int16(5)),
      ("x-retry-delay", .int32(1000)), ("x-retry-max-delay", .int32(60_000)),
      ("x-retry-jitter", .double(bits: (0.25).bitPattern)), ("x-lease", .int32(30_000)),
      ("x-odd", .void), ("other", .void), ("x-single-active-consumer", .boolean(true)),
    ])
    let arguments = try QueueArguments(table, of: "q")
    #expect(arguments.table == table.encoded)
    #expect(arguments.messageTTL == 1)
    #expect(arguments.expires == 2)
    #expect(arguments.maxLength == 3)
    #expect(arguments.maxLengthBytes == 4)
    #expect(arguments.overflow == .rejectPublish)
    #expect(arguments.maxPriority == 255)
    #expect(arguments.deadLetterExchange == "")
    #expect(arguments.deadLetterRoutingKey == [1, 255])
    #expect(arguments.deliveryLimit == 5)
    #expect(arguments.usesDeliveryLimitSynonym)
    #expect(arguments.retryDelay == 1000)
    #expect(arguments.retryMaxDelay == 60_000)
    #expect(arguments.retryJitterThousandths == 250)
    #expect(arguments.lease == 30_000)
    #expect(arguments.singleActiveConsumer)
    #expect(arguments.unknown == ["x-odd"])
  }

  @Test(
    arguments: [
      (["durable": false], [], "invalid property 'non-durable' for queue 'q' in vhost '/'"),
      (
        ["durable": true, "exclusive": true], [],
        "invalid property 'exclusive-owner' for queue 'q' in vhost '/'"
      ),
      (
        ["durable": true, "autoDelete": true], [],
        "invalid property 'auto-delete' for queue 'q' in vhost '/'"
      ),
      (
        ["durable": true], [("x-max-priority", .int8(1))],
        """
        invalid arg 'x-max-priority' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue
        """
      ),
    ] as [([String: TestValue], [(String, FieldValue)], String)])
  func aQuorumQueueCannotBeEverything(
    values: [String: TestValue], arguments: [(String, FieldValue)], text: String
  ) {
    let client = TestConnection.open()
    #expect(
      Self.declare(client, [("x-queue-type", .text("quorum"))] + arguments, values)
        == Self.refused(text))
  }

  @Test func aClassicQueueHasNoDeliveryLimit() {
    let limit = ("x-delivery-limit", FieldValue.int8(3))
    let text = """
      invalid arg 'x-delivery-limit' for queue 'q' in vhost '/' of queue type rabbit_classic_queue
      """
    #expect(
      Self.declare(TestConnection.open(), [("x-queue-type", .text("classic")), limit])
        == Self.refused(text))
    // Without a type it is one of ours, which has.
    #expect(
      Self.declare(TestConnection.open(), [limit])
        == "1 queue.declare-ok queue=q messageCount=0 consumerCount=0")
  }

  @Test func aQuorumQueueHasAName() {
    #expect(
      Self.declare(
        TestConnection.open(), [("x-queue-type", .text("quorum"))],
        ["queue": "", "durable": true])
        == Self.refused("Cannot declare a server-named queue for type rabbit_quorum_queue"))
  }

  @Test func aRedeclarationMustSayTheSame() {
    for (values, name, received, current) in [
      (["durable": true], "durable", "'true'", "'false'"),
      (["autoDelete": true], "auto_delete", "'true'", "'false'"),
    ] as [([String: TestValue], String, String, String)] {
      let client = TestConnection.open()
      _ = Self.declare(client, [])
      #expect(
        Self.declare(client, [], values)
          == Self.refused(
            """
            inequivalent arg '\(name)' for queue 'q' in vhost '/': received \(received) but current \
            is \(current)
            """))
    }
  }

  @Test(
    arguments: [
      (
        [], [("x-message-ttl", .int32(1000))],
        "received the value '1000' of type 'signedint' but current is none"
      ),
      (
        [("x-message-ttl", .int64(5))], [],
        "received none but current is the value '5' of type 'long'"
      ),
      (
        [("x-message-ttl", .int64(5))], [("x-message-ttl", .int8(6))],
        "received '6' but current is '5'"
      ),
    ] as [([(String, FieldValue)], [(String, FieldValue)], String)])
  func aRedeclarationMustHaveTheSameArguments(
    first: [(String, FieldValue)], second: [(String, FieldValue)], text: String
  ) {
    let client = TestConnection.open()
    _ = Self.declare(client, first)
    #expect(
      Self.declare(client, second)
        == Self.refused("inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': \(text)"))
  }

  @Test func integersOfAnyWidthAndUnknownArgumentsAreTheSame() throws {
    let client = TestConnection.open()
    _ = Self.declare(client, [("x-message-ttl", .int32(1000)), ("x-odd", .int8(1))])
    #expect(
      Self.declare(client, [("other", .void), ("x-message-ttl", .int64(1000))])
        == "1 queue.declare-ok queue=q messageCount=0 consumerCount=0")
    let one = try QueueArguments(
      FieldTable([("x-message-ttl", .int32(1000)), ("x-max-length", .int8(1)), ("x-odd", .void)]),
      of: "")
    let other = try QueueArguments(
      FieldTable([("x-max-length", .int64(1)), ("x-message-ttl", .uint16(1000))]), of: "")
    let third = try QueueArguments(
      FieldTable([("x-max-length", .int64(2)), ("x-message-ttl", .uint16(1000))]), of: "")
    #expect(one.identity == other.identity)
    #expect(one.identity != third.identity)
  }

  @Test func twoNamesForOneThingAreTheSame() throws {
    let names = ["x-delivery-limit", "x-max-delivery-attempts"]
    let declarations = try names.map { name in
      QueueDeclaration(
        name: "q", isDurable: true, isExclusive: false, isAutoDelete: false,
        arguments: try QueueArguments(FieldTable([(name, .int32(3))]), of: ""))
    }
    #expect(declarations[0].arguments.identity == declarations[1].arguments.identity)
    #expect(declarations[0].fault(against: declarations[1], vhost: "/") == nil)
    #expect(declarations[1].fault(against: declarations[0], vhost: "/") == nil)
    let without = QueueDeclaration(
      name: "q", isDurable: true, isExclusive: false, isAutoDelete: false,
      arguments: try QueueArguments(FieldTable([("x-odd", .void)]), of: ""))
    #expect(
      without.fault(against: declarations[1], vhost: "/")?.text.contains(
        "inequivalent arg 'x-delivery-limit'") == true)
  }

  @Test(
    arguments: [
      (["type": "fanout"], "type", "'fanout'", "'direct'"),
      (["durable": true], "durable", "'true'", "'false'"),
      (["autoDelete": true], "auto_delete", "'true'", "'false'"),
      (["isInternal": true], "internal", "'true'", "'false'"),
      (
        ["arguments": .table(FieldTable([("alternate-exchange", .text("a"))]))],
        "alternate-exchange", "the value 'a' of type 'longstr'", "none"
      ),
    ] as [([String: TestValue], String, String, String)])
  func anExchangeMustBeTheSameToo(
    values: [String: TestValue], name: String, received: String, current: String
  ) {
    let client = TestConnection.open()
    client.call("exchange.declare", ["exchange": "x", "type": "direct"])
    var all: [String: TestValue] = ["exchange": "x", "type": "direct"]
    all.merge(values) { $1 }
    #expect(
      client.call("exchange.declare", all) == [
        """
        1 channel.close replyCode=406 replyText=PRECONDITION_FAILED - inequivalent arg '\(name)' \
        for exchange 'x' in vhost '/': received \(received) but current is \(current) classID=40 \
        methodID=10
        """
      ])
  }
}
