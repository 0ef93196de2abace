// Every fault that a client can meet, each with its code, class, method and exact text, and whether
// it ends the channel or the connection. The rows follow docs/amqp.md.

import AMQP
import Base
import Testing

/// `1 channel.close replyCode=404 …` as a short line.
private func channelClose(
  _ code: Int, _ text: String, _ classID: Int, _ methodID: Int, channel: Int = 1
) -> [String] {
  [
    """
    \(channel) channel.close replyCode=\(code) replyText=\(text) classID=\(classID) \
    methodID=\(methodID)
    """
  ]
}

private func connectionClose(
  _ code: Int, _ text: String, _ classID: Int, _ methodID: Int
) -> [String] {
  [
    """
    0 connection.close replyCode=\(code) replyText=\(text) classID=\(classID) methodID=\(methodID)
    """
  ]
}

private let publishMethod: [String: TestValue] = ["routingKey": "q"]

@Suite struct HandshakeFaultTests {
  @Test(
    arguments: [
      [0x41, 0x4d, 0x51, 0x50, 0, 0, 8, 0], [0x41, 0x4d, 0x51, 0x50, 1, 1, 0, 10],
      [UInt8]("GET / HTTP/1.1\r\n\r\n".utf8), [0x41, 0x4d, 0x51, 0x50, 3, 1, 0, 0],
    ] as [[UInt8]])
  func aWrongProtocolHeaderIsAnsweredWithTheRightOne(header: [UInt8]) {
    let client = TestConnection(FakeBroker())
    var sent: [UInt8] = []
    for byte in header {
      client.sendQuietly([byte])
      sent += client.takeBytes()
    }
    #expect(sent == [0x41, 0x4d, 0x51, 0x50, 0, 0, 9, 1])
    #expect(client.state == .finished)
  }

  @Test func theRightHeaderIsExactlyEightBytes() {
    let client = TestConnection(FakeBroker())
    _ = client.send([UInt8]("HTTP".utf8))
    #expect(client.sent == 8)
    #expect(client.state == .finished)
  }

  @Test(arguments: ["PLAIN", "AMQPLAIN"])
  func aBadPasswordIsToldToWhoCanHearIt(mechanism: String) {
    let client = TestConnection(FakeBroker())
    client.send(Frame.protocolHeader)
    let response: TestValue =
      mechanism == "PLAIN"
      ? "\0guest\0wrong"
      : .table(FieldTable([("LOGIN", .text("guest")), ("PASSWORD", .text("wrong"))]))
    #expect(
      client.send(TestConnection.startOK(mechanism: mechanism, response: response))
        == connectionClose(
          403,
          """
          ACCESS_REFUSED - Login was refused using authentication mechanism \(mechanism). For \
          details see the broker logfile.
          """, 0, 0))
    #expect(client.user == nil)
    #expect(client.call("connection.close-ok", channel: 0) == [])
    #expect(client.state == .finished)
  }

  @Test func aBadPasswordIsTheEndForWhoCannot() {
    let client = TestConnection(FakeBroker())
    client.send(Frame.protocolHeader)
    #expect(
      client.send(TestConnection.startOK(response: "\0guest\0wrong", capabilities: [])) == [])
    #expect(client.state == .finished)
  }

  @Test func amqplainGetsIn() {
    let client = TestConnection(FakeBroker())
    client.send(Frame.protocolHeader)
    let response = TestValue.table(
      FieldTable([("LOGIN", .text("guest")), ("PASSWORD", .text("guest"))]))
    #expect(
      client.send(TestConnection.startOK(mechanism: "AMQPLAIN", response: response)).count == 1)
    #expect(client.broker.seen == ["authenticate AMQPLAIN guest"])
  }

  @Test(arguments: ["\0guest", "", "guest"])
  func aMalformedResponseIsRefused(response: String) {
    let client = TestConnection(FakeBroker())
    client.send(Frame.protocolHeader)
    let lines = client.send(TestConnection.startOK(response: .text(response)))
    #expect(lines.count == 1 && lines[0].contains("replyCode=403"))
  }

  @Test func anUnknownMechanismIsTheEnd() {
    let client = TestConnection(FakeBroker())
    client.send(Frame.protocolHeader)
    #expect(client.send(TestConnection.startOK(mechanism: "EXTERNAL")) == [])
    #expect(client.state == .finished)
  }

  @Test(
    arguments: [
      ["channelMax": 2047, "frameMax": 4095], ["channelMax": 2048, "frameMax": 4096],
      ["channelMax": 1, "frameMax": 131_073],
    ] as [[String: TestValue]])
  func limitsThatNobodyOfferedAreTheEnd(tune: [String: TestValue]) {
    let client = TestConnection(FakeBroker())
    client.send(Frame.protocolHeader)
    client.send(TestConnection.startOK())
    #expect(client.call("connection.tune-ok", channel: 0, tune) == [])
    #expect(client.state == .finished)
  }

  @Test func anUnknownVhostIsNotAllowed() {
    let client = TestConnection(FakeBroker())
    client.send(Frame.protocolHeader)
    client.send(TestConnection.startOK())
    client.call("connection.tune-ok", channel: 0, ["channelMax": 1, "frameMax": 4096])
    #expect(
      client.call("connection.open", channel: 0, ["virtualHost": "other"])
        == connectionClose(530, "NOT_ALLOWED - vhost other not found", 10, 40))
    client.call("connection.close-ok", channel: 0)
    #expect(client.state == .finished)
  }

  @Test(arguments: [
    TestFrames.method("channel.open"), TestFrames.method("queue.declare", channel: 0),
    TestFrames.header(body: 1), TestFrames.body([1]), TestFrames.frame(9, 0, []),
    TestFrames.method("connection.open", channel: 0),
  ])
  func whateverComesBeforeStartOKIsTheEnd(frame: [UInt8]) {
    let client = TestConnection(FakeBroker())
    client.send(Frame.protocolHeader)
    #expect(client.send(frame) == [])
    #expect(client.state == .finished)
  }

  @Test func aLargeFrameBeforeTheClientIsKnownIsTheEnd() {
    let client = TestConnection(FakeBroker())
    client.send(Frame.protocolHeader)
    #expect(client.send([1, 0, 0, 0, 1, 0, 0]) == [])
    #expect(client.state == .finished)
  }

  @Test func aHandshakeMustBeOverInTime() {
    let client = TestConnection(FakeBroker())
    client.send(Frame.protocolHeader)
    #expect(client.nextDeadline == TestConnection.startTime + .seconds(10))
    #expect(client.tick(after: 9.9) == [])
    #expect(client.state == .receiving)
    #expect(client.tick(after: 0.2) == [])
    #expect(client.state == .finished)
  }
}

@Suite struct ChannelFaultTests {
  struct Row: Sendable, CustomTestStringConvertible {
    var method: String
    var values: [String: TestValue]
    var code: Int
    var text: String
    var ids: (Int, Int)
    var testDescription: String { "\(method) \(code)" }
  }

  static let noQueue = "NOT_FOUND - no queue 'q' in vhost '/'"
  static let noExchange = "NOT_FOUND - no exchange 'x' in vhost '/'"
  static let onDefault = "ACCESS_REFUSED - operation not permitted on the default exchange"

  static func arguments(_ entries: [(String, FieldValue)]) -> TestValue {
    .table(FieldTable(entries))
  }

  static let rows: [Row] = [
    Row(
      method: "queue.declare", values: ["queue": "q", "passive": true], code: 404, text: noQueue,
      ids: (50, 10)),
    Row(method: "basic.consume", values: ["queue": "q"], code: 404, text: noQueue, ids: (60, 20)),
    Row(method: "basic.get", values: ["queue": "q"], code: 404, text: noQueue, ids: (60, 70)),
    Row(
      method: "queue.bind", values: ["queue": "q", "exchange": "amq.direct"], code: 404,
      text: noQueue, ids: (50, 20)),
    Row(method: "queue.purge", values: ["queue": "q"], code: 404, text: noQueue, ids: (50, 30)),
    Row(
      method: "exchange.declare", values: ["exchange": "x", "passive": true], code: 404,
      text: noExchange, ids: (40, 10)),
    Row(
      method: "queue.bind", values: ["queue": ""], code: 404,
      text: "NOT_FOUND - no previously declared queue", ids: (50, 20)),
    Row(
      method: "basic.consume", values: [:], code: 404,
      text: "NOT_FOUND - no previously declared queue", ids: (60, 20)),
    Row(
      method: "basic.get", values: [:], code: 404,
      text: "NOT_FOUND - no previously declared queue", ids: (60, 70)),
    Row(
      method: "queue.delete", values: [:], code: 404,
      text: "NOT_FOUND - no previously declared queue", ids: (50, 40)),
    Row(
      method: "basic.ack", values: ["deliveryTag": 99], code: 406,
      text: "PRECONDITION_FAILED - unknown delivery tag 99", ids: (60, 80)),
    Row(
      method: "basic.ack", values: ["deliveryTag": 99, "multiple": true], code: 406,
      text: "PRECONDITION_FAILED - unknown delivery tag 99", ids: (60, 80)),
    Row(
      method: "basic.ack", values: ["deliveryTag": 0], code: 406,
      text: "PRECONDITION_FAILED - unknown delivery tag 0", ids: (60, 80)),
    Row(
      method: "basic.nack", values: ["deliveryTag": 99], code: 406,
      text: "PRECONDITION_FAILED - unknown delivery tag 99", ids: (60, 120)),
    Row(
      method: "basic.reject", values: ["deliveryTag": 99], code: 406,
      text: "PRECONDITION_FAILED - unknown delivery tag 99", ids: (60, 90)),
    Row(
      method: "tx.commit", values: [:], code: 406,
      text: "PRECONDITION_FAILED - channel is not transactional", ids: (90, 20)),
    Row(
      method: "tx.rollback", values: [:], code: 406,
      text: "PRECONDITION_FAILED - channel is not transactional", ids: (90, 30)),
    Row(
      method: "queue.declare", values: ["queue": "amq.wire"], code: 403,
      text: "ACCESS_REFUSED - queue name 'amq.wire' contains reserved prefix 'amq.*'",
      ids: (50, 10)),
    Row(
      method: "exchange.declare", values: ["exchange": "amq.wire", "type": "direct"], code: 403,
      text: "ACCESS_REFUSED - exchange name 'amq.wire' contains reserved prefix 'amq.*'",
      ids: (40, 10)),
    Row(
      method: "exchange.declare", values: ["exchange": "", "type": "direct"], code: 403,
      text: onDefault, ids: (40, 10)),
    Row(
      method: "exchange.delete", values: ["exchange": ""], code: 403, text: onDefault,
      ids: (40, 20)),
    Row(
      method: "exchange.bind", values: ["destination": "amq.direct"], code: 403, text: onDefault,
      ids: (40, 30)),
    Row(
      method: "exchange.bind", values: ["source": "amq.direct"], code: 403, text: onDefault,
      ids: (40, 30)),
    Row(
      method: "exchange.unbind", values: ["source": "amq.direct"], code: 403, text: onDefault,
      ids: (40, 40)),
    Row(
      method: "queue.bind", values: ["queue": "q"], code: 403, text: onDefault, ids: (50, 20)),
    Row(
      method: "queue.unbind", values: ["queue": "q"], code: 403, text: onDefault, ids: (50, 50)),
    Row(
      method: "exchange.delete", values: ["exchange": "amq.direct"], code: 403,
      text: """
        ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed
        """, ids: (40, 20)),
    Row(
      method: "exchange.declare", values: ["exchange": "x", "type": "odd"], code: 406,
      text: "PRECONDITION_FAILED - unknown exchange type 'odd'", ids: (40, 10)),
    Row(
      method: "exchange.declare",
      values: [
        "exchange": "x", "type": "direct",
        "arguments": arguments([("alternate-exchange", .int32(1))]),
      ], code: 406,
      text: """
        PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange \
        'x' in vhost '/'
        """, ids: (40, 10)),
    Row(
      method: "basic.consume", values: ["queue": "amq.rabbitmq.reply-to"], code: 406,
      text: "PRECONDITION_FAILED - reply consumer cannot acknowledge", ids: (60, 20)),
    Row(
      method: "queue.declare", values: ["queue": "amq.rabbitmq.reply-to.nobody"], code: 404,
      text: "NOT_FOUND - no queue 'amq.rabbitmq.reply-to.nobody' in vhost '/'", ids: (50, 10)),
  ]

  @Test(arguments: rows) func aMethodClosesItsChannel(row: Row) {
    let client = TestConnection.open()
    #expect(
      client.call(row.method, row.values)
        == channelClose(row.code, row.text, row.ids.0, row.ids.1))
    // What is still on its way is dropped; the number can be opened again.
    #expect(client.call("queue.declare", ["queue": "late"]) == [])
    #expect(client.send(TestFrames.publish(key: "late", "body")) == [])
    #expect(client.call("channel.close-ok") == [])
    #expect(client.call("channel.open") == ["1 channel.open-ok reserved1="])
    #expect(client.broker.queues.isEmpty)
  }

  @Test func aChannelThatBothCloseIsClosedOnce() {
    let client = TestConnection.open()
    client.call("basic.ack", ["deliveryTag": 1])
    #expect(
      client.call("channel.close", ["replyCode": 200]) == ["1 channel.close-ok"])
    #expect(client.call("channel.close-ok") == [])
    #expect(client.channelCount == 0)
  }

  @Test(
    arguments: [
      ("queue.delete", ["queue": "q"], "1 queue.delete-ok messageCount=0"),
      ("exchange.delete", ["exchange": "x"], "1 exchange.delete-ok"),
      ("queue.unbind", ["queue": "q", "exchange": "x"], "1 queue.unbind-ok"),
      ("basic.cancel", ["consumerTag": "t"], "1 basic.cancel-ok consumerTag=t"),
    ] as [(String, [String: TestValue], String)])
  func removingWhatIsNotThereIsFine(method: String, values: [String: TestValue], answer: String) {
    #expect(TestConnection.open().call(method, values) == [answer])
  }

  @Test func anotherConnectionsExclusiveQueueIsLocked() {
    let broker = FakeBroker()
    let owner = TestConnection.open(broker, number: 1)
    owner.call("queue.declare", ["queue": "q", "exclusive": true])
    let text = """
      RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could \
      be originally declared on another connection or the exclusive property value does not match \
      that of the original declaration.
      """
    for (method, ids) in [
      ("queue.declare", (50, 10)), ("basic.consume", (60, 20)), ("queue.delete", (50, 40)),
    ] {
      let other = TestConnection.open(broker, number: 2)
      #expect(
        other.call(method, ["queue": "q"]) == channelClose(405, text, ids.0, ids.1))
    }
    // The owner itself may say durable or not, but must say exclusive.
    #expect(
      owner.call("queue.declare", ["queue": "q", "exclusive": true, "durable": true])
        == ["1 queue.declare-ok queue=q messageCount=0 consumerCount=0"])
    #expect(owner.call("queue.declare", ["queue": "q"]) == channelClose(405, text, 50, 10))
  }

  @Test func publishingWhereNothingIsClosesTheChannel() {
    let client = TestConnection.open()
    #expect(
      client.send(TestFrames.publish(exchange: "x", key: "", "body"))
        == channelClose(404, "NOT_FOUND - no exchange 'x' in vhost '/'", 60, 40))
  }

  @Test func publishingToAnInternalExchangeIsRefused() {
    let client = TestConnection.open()
    client.call(
      "exchange.declare", ["exchange": "inner", "type": "fanout", "isInternal": true])
    #expect(
      client.send(TestFrames.publish(exchange: "inner", key: "", "body"))
        == channelClose(
          403,
          "ACCESS_REFUSED - cannot publish to internal exchange 'inner' in vhost '/'", 60, 40))
  }

  @Test func anExclusiveConsumerIsAlone() {
    let client = TestConnection.open()
    client.call("queue.declare", ["queue": "q"])
    client.call("basic.consume", ["queue": "q", "exclusive": true])
    #expect(
      client.call("basic.consume", ["queue": "q"])
        == channelClose(
          403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use", 60, 20))
  }

  @Test func deletesCanBeConditional() {
    let broker = FakeBroker()
    let client = TestConnection.open(broker)
    client.call("queue.declare", ["queue": "q"])
    client.send(TestFrames.publish(key: "q", "body"))
    #expect(
      client.call("queue.delete", ["queue": "q", "ifEmpty": true])
        == channelClose(
          406, "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty", 50, 40))
    let other = TestConnection.open(broker, number: 2)
    other.call("basic.consume", ["queue": "q"])
    #expect(
      other.call("queue.delete", ["queue": "q", "ifUnused": true])
        == channelClose(406, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use", 50, 40))
    let third = TestConnection.open(broker, number: 3)
    third.call("exchange.declare", ["exchange": "x", "type": "direct"])
    third.call("queue.bind", ["queue": "q", "exchange": "x"])
    #expect(
      third.call("exchange.delete", ["exchange": "x", "ifUnused": true])
        == channelClose(
          406, "PRECONDITION_FAILED - exchange 'x' in vhost '/' in use", 40, 20))
  }

  @Test func transactionsAndConfirmsDoNotMix() {
    let client = TestConnection.open()
    client.call("tx.select")
    #expect(
      client.call("confirm.select")
        == channelClose(
          406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode", 85, 10))
    let other = TestConnection.open()
    other.call("confirm.select")
    #expect(
      other.call("tx.select")
        == channelClose(
          406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode", 90, 10))
  }

  @Test(arguments: [
    ("abc", "no_integer"), ("", "no_integer"), ("10s", "{leftover_string,\"s\"}"),
    ("-1", "{value_negative,-1}"), ("315360000001", "{value_too_big,315360000001}"),
    ("99999999999999999999", "{value_too_big,99999999999999999999}"),
  ])
  func anExpirationMustBeMilliseconds(expiration: String, reason: String) {
    let client = TestConnection.open()
    var properties = BasicProperties()
    properties.expiration = [UInt8](expiration.utf8)
    #expect(
      client.send(TestFrames.publish(key: "q", "body", properties: properties.encoded))
        == channelClose(
          406, "PRECONDITION_FAILED - invalid expiration '\(expiration)': \(reason)", 60, 40))
  }

  @Test func aUserIDMustBeOnesOwn() {
    let client = TestConnection.open()
    var properties = BasicProperties()
    properties.userID = [UInt8]("guest".utf8)
    #expect(
      client.send(TestFrames.publish(key: "q", "body", properties: properties.encoded)) == [])
    properties.userID = [UInt8]("x".utf8)
    #expect(
      client.send(TestFrames.publish(key: "q", "body", properties: properties.encoded))
        == channelClose(
          406,
          """
          PRECONDITION_FAILED - user_id property set to 'x' but authenticated user was 'guest'
          """, 60, 40))
  }

  @Test func tooLargeAMessageIsRefusedBeforeItsBodyComes() {
    let client = TestConnection.open { $0.messageBytesMax = 16 }
    #expect(
      client.send(TestFrames.method("basic.publish") + TestFrames.header(body: 17))
        == channelClose(
          311,
          "CONTENT_TOO_LARGE - message size 17 is larger than configured max size 16", 60, 40))
    // The body that is on its way is dropped.
    #expect(client.send(TestFrames.body([UInt8](repeating: 0, count: 17))) == [])
    client.call("channel.close-ok")
    client.call("channel.open")
    #expect(client.send(TestFrames.publish(key: "q", "exactly 16 bytes")) == [])
  }

  @Test func theReplyQueueNeedsAConsumer() {
    let client = TestConnection.open()
    var properties = BasicProperties()
    properties.replyTo = [UInt8]("amq.rabbitmq.reply-to".utf8)
    #expect(
      client.send(TestFrames.publish(key: "q", "body", properties: properties.encoded))
        == channelClose(
          406, "PRECONDITION_FAILED - fast reply consumer does not exist", 60, 40))
  }

  @Test func thereIsOneReplyConsumer() {
    let client = TestConnection.open()
    client.call("basic.consume", ["queue": "amq.rabbitmq.reply-to", "noAck": true])
    #expect(
      client.call("basic.consume", ["queue": "amq.rabbitmq.reply-to", "noAck": true])
        == channelClose(406, "PRECONDITION_FAILED - reply consumer already set", 60, 20))
  }

  @Test func copiesMustBeAList() {
    let client = TestConnection.open()
    var properties = BasicProperties()
    properties.headers = FieldTable([("CC", .text("q"))])
    #expect(
      client.send(TestFrames.publish(key: "q", "body", properties: properties.encoded))
        == channelClose(
          406,
          """
          PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"CC",longstr}
          """, 60, 40))
  }

  @Test("More routing keys than a message may have are refused before it is stored")
  func tooManyCopiesAreRefused() {
    func publish(_ count: Int) -> [UInt8] {
      let keys = (0..<count).map { FieldValue.text("\($0)") }
      var properties = BasicProperties()
      properties.headers = FieldTable([
        ("CC", .array(Array(keys.prefix(600)))), ("BCC", .array(Array(keys.dropFirst(600)))),
      ])
      return TestFrames.publish(key: "q", "body", properties: properties.encoded)
    }
    let client = TestConnection.open()
    client.call("queue.declare", ["queue": "q"])
    client.call("confirm.select")
    #expect(client.send(publish(1_023)) == ["1 basic.ack deliveryTag=1 multiple=0"])
    #expect(client.begunBytes == 0)
    #expect(
      client.send(publish(1_024))
        == channelClose(
          406,
          """
          PRECONDITION_FAILED - invalid message: more than 1023 routing keys in CC and BCC
          """, 60, 40))
    #expect(client.broker.queues["q"]?.messages.count == 1)
    #expect(client.begunBytes == 0)
  }

  @Test("What is begun is counted, further routing keys too, and nothing of it when it is over")
  func whatIsBegunIsCounted() {
    var properties = BasicProperties()
    properties.headers = FieldTable([("CC", .array([.text("cc"), .text("further")]))])
    let client = TestConnection.open()
    client.call("channel.open", channel: 2)
    let start = TestFrames.method("basic.publish", publishMethod)
    let header = TestFrames.header(body: 3, properties: properties.encoded)
    client.send(start + header)
    // The key, the properties, and two arrays.
    let begun = 1 + properties.encoded.count + 2 + 7 + 2 * 64
    #expect(client.begunBytes == begun)
    client.send(TestFrames.body([1, 2]))
    #expect(client.begunBytes == begun + 2)
    client.send(TestFrames.body([3]))
    #expect(client.begunBytes == 0)
    client.send(start + header)
    client.call("tx.select", channel: 2)
    client.send(TestFrames.publish(channel: 2, key: "q", "body"))
    #expect(client.begunBytes > begun + 5)
    client.call("tx.rollback", channel: 2)
    #expect(client.begunBytes == begun)
    client.call("queue.declare", ["queue": "out of turn"])
    #expect(client.begunBytes == 0)
  }
}

@Suite struct ConnectionFaultTests {
  /// The fault ends the connection: nothing but close-ok counts afterwards.
  private func expectEnd(
    _ client: TestConnection, _ lines: [String], _ wanted: [String],
    _ location: SourceLocation = #_sourceLocation
  ) {
    #expect(lines == wanted, sourceLocation: location)
    #expect(client.state == .receiving, sourceLocation: location)
    #expect(client.call("queue.declare", ["queue": "late"]) == [], sourceLocation: location)
    #expect(client.broker.seen.contains("closeConnection"), sourceLocation: location)
    #expect(client.call("connection.close-ok", channel: 0) == [], sourceLocation: location)
    #expect(client.state == .finished, sourceLocation: location)
  }

  @Test(
    arguments: [
      (
        "basic.qos", ["prefetchSize": 1], 540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)", 60, 10
      ),
      ("channel.flow", ["active": false], 540, "NOT_IMPLEMENTED - active=false", 20, 20),
      ("basic.recover", ["requeue": false], 540, "NOT_IMPLEMENTED - requeue=false", 60, 110),
      ("basic.recover-async", ["requeue": false], 540, "NOT_IMPLEMENTED - requeue=false", 60, 100),
      (
        "basic.publish", ["immediate": true, "routingKey": "q"], 540,
        "NOT_IMPLEMENTED - immediate=true", 60, 40
      ),
      ("channel.open", [:], 504, "CHANNEL_ERROR - second 'channel.open' seen", 20, 10),
      (
        "connection.open", ["virtualHost": "/"], 503, "COMMAND_INVALID - unimplemented method", 10,
        40
      ),
      ("queue.declare-ok", ["queue": "q"], 503, "COMMAND_INVALID - unimplemented method", 50, 11),
    ] as [(String, [String: TestValue], Int, String, Int, Int)])
  func aMethodEndsTheConnection(
    method: String, values: [String: TestValue], code: Int, text: String, classID: Int,
    methodID: Int
  ) {
    let client = TestConnection.open()
    expectEnd(
      client, client.call(method, values), connectionClose(code, text, classID, methodID))
  }

  @Test func aMethodNeedsAnOpenChannel() {
    let client = TestConnection.open()
    expectEnd(
      client, client.call("queue.declare", channel: 2, ["queue": "q"]),
      connectionClose(504, "CHANNEL_ERROR - expected 'channel.open'", 50, 10))
  }

  @Test func aMethodOfAChannelOnChannelZeroIsUnexpected() {
    let client = TestConnection.open()
    expectEnd(
      client, client.call("basic.publish", channel: 0),
      connectionClose(
        504, "CHANNEL_ERROR - unexpected method in connection state running", 60, 40))
  }

  @Test func theNumberOfChannelsIsLimitedNotTheirNumbers() {
    let client = TestConnection.open(
      channel: false, tune: ["channelMax": 10, "frameMax": 4096, "heartbeat": 0])
    #expect(client.call("channel.open", channel: 11) == ["11 channel.open-ok reserved1="])
    for channel in 1...9 { client.call("channel.open", channel: UInt16(channel)) }
    expectEnd(
      client, client.call("channel.open", channel: 10),
      connectionClose(
        530,
        """
        NOT_ALLOWED - number of channels opened (10) has reached the negotiated channel_max (10)
        """, 0, 0))
  }

  @Test func allChannelsCanBeOpen() {
    let client = TestConnection.open(channel: false)
    for channel in 1...2047 {
      #expect(client.call("channel.open", channel: UInt16(channel)).count == 1)
    }
    #expect(client.channelCount == 2047)
    #expect(client.call("channel.open", channel: 2048)[0].contains("replyCode=530"))
    #expect(client.channelCount == 0)
  }

  @Test func aConsumerTagIsUsedOnce() {
    let client = TestConnection.open()
    client.call("queue.declare", ["queue": "q"])
    client.call("basic.consume", ["queue": "q", "consumerTag": "t"])
    expectEnd(
      client, client.call("basic.consume", ["queue": "q", "consumerTag": "t"]),
      connectionClose(530, "NOT_ALLOWED - attempt to reuse consumer tag 't'", 60, 20))
  }

  @Test func undecodableArgumentsNameTheMethod() {
    let client = TestConnection.open()
    let frame = TestFrames.frame(1, 1, [0, 50, 0, 10, 0, 0, 5, 113])
    expectEnd(
      client, client.send(frame),
      connectionClose(501, "FRAME_ERROR - cannot decode <<0,0,5,113>>", 50, 10))
  }

  @Test func bytesBehindTheArgumentsAreAFault() {
    let client = TestConnection.open()
    let frame = TestFrames.frame(1, 1, [0, 60, 0, 110, 1, 2])
    expectEnd(
      client, client.send(frame),
      connectionClose(501, "FRAME_ERROR - cannot decode <<1,2>>", 60, 110))
  }

  @Test func anUnknownFrameTypeIsAFault() {
    let client = TestConnection.open()
    expectEnd(
      client, client.send(TestFrames.frame(9, 1, [])),
      connectionClose(501, "FRAME_ERROR - type 9, all octets = <<>>: unknown_frame", 0, 0))
  }

  @Test func aHeartbeatIsEmptyAndOnChannelZero() {
    let client = TestConnection.open()
    #expect(client.send(TestFrames.frame(8, 0, [])) == [])
    expectEnd(
      client, client.send(TestFrames.frame(8, 0, [1])),
      connectionClose(501, "FRAME_ERROR - type 8, all octets = <<1>>: unknown_frame", 0, 0))
    let other = TestConnection.open()
    expectEnd(
      other, other.send(TestFrames.frame(8, 1, [])),
      connectionClose(505, "UNEXPECTED_FRAME - type 8, all octets = <<>>", 0, 0))
  }

  /// Where frames end is not known any more: nothing that follows is looked at.
  @Test func aWrongFrameEndIsTheLastThingTaken() {
    let client = TestConnection.open()
    var frame = TestFrames.method("queue.declare", ["queue": "q"])
    frame[frame.count - 1] = 0
    #expect(
      client.send(frame + TestFrames.method("queue.declare", ["queue": "q"]))
        == connectionClose(
          501,
          """
          FRAME_ERROR - type 1, first 16 octets = <<0,50,0,10,0,0,1,113,0,0,0,0,0>>: \
          {invalid_frame_end_marker,0}
          """.replacing("first 16", with: "all"), 0, 0))
    #expect(client.state == .finished)
    #expect(client.broker.queues.isEmpty)
  }

  @Test func aFrameLargerThanAgreedIsNotWaitedFor() {
    let client = TestConnection.open(
      tune: ["channelMax": 1, "frameMax": 4096, "heartbeat": 0])
    #expect(
      client.send([3, 0, 1, 0, 0, 0x10, 1])
        == connectionClose(
          501,
          "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4097,4088}", 0, 0))
    #expect(client.state == .finished)
  }

  @Test func contentOutOfTurnIsUnexpected() {
    for frame in [TestFrames.header(body: 1), TestFrames.body([1])] {
      let client = TestConnection.open()
      expectEnd(
        client, client.send(frame),
        connectionClose(
          505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead", 0, 0))
    }
  }

  @Test func contentOnChannelZeroIsUnexpected() {
    let client = TestConnection.open()
    expectEnd(
      client, client.send(TestFrames.frame(3, 0, [1, 2])),
      connectionClose(505, "UNEXPECTED_FRAME - type 3, all octets = <<1,2>>", 0, 0))
  }

  @Test(arguments: [
    TestFrames.body([1]), TestFrames.method("queue.declare", ["queue": "q"]),
    TestFrames.publish(key: "q", "body"),
  ])
  func aPublishNeedsItsHeader(frame: [UInt8]) {
    let client = TestConnection.open()
    expectEnd(
      client, client.send(TestFrames.method("basic.publish") + frame),
      connectionClose(
        505,
        """
        UNEXPECTED_FRAME - expected content header for class 60, got non content header frame \
        instead
        """, 60, 40))
  }

  @Test func theHeaderIsThatOfItsClass() {
    let client = TestConnection.open()
    expectEnd(
      client,
      client.send(
        TestFrames.method("basic.publish") + TestFrames.header(body: 1, classID: 50)),
      connectionClose(
        505,
        """
        UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead
        """, 60, 40))
  }

  @Test(arguments: [
    TestFrames.header(body: 1), TestFrames.method("queue.declare", ["queue": "q"]),
  ])
  func aPublishNeedsItsBody(frame: [UInt8]) {
    let client = TestConnection.open()
    expectEnd(
      client,
      client.send(TestFrames.method("basic.publish") + TestFrames.header(body: 1) + frame),
      connectionClose(
        505,
        """
        UNEXPECTED_FRAME - expected content body, got non content body frame instead
        """, 60, 40))
  }

  @Test func moreBodyThanAnnouncedIsAFault() {
    let client = TestConnection.open()
    expectEnd(
      client,
      client.send(
        TestFrames.method("basic.publish") + TestFrames.header(body: 3)
          + TestFrames.body([1, 2]) + TestFrames.body([3, 4])),
      connectionClose(501, "FRAME_ERROR - 4 body octets received, 3 announced", 60, 40))
  }

  @Test(
    arguments: [
      [0x80, 0], [0x80, 0, 3, 97], [0, 0, 1], [0, 1, 0, 0], [0x20, 0, 0, 0, 0, 9, 1],
      [0x20, 0, 0, 0, 0, 3, 1, 97, 63],
    ] as [[UInt8]])
  func propertiesMustBeWhole(properties: [UInt8]) {
    let client = TestConnection.open()
    let shown = properties.map { "\($0)" }.joined(separator: ",")
    expectEnd(
      client, client.send(TestFrames.publish(key: "q", "body", properties: properties)),
      connectionClose(501, "FRAME_ERROR - cannot decode <<\(shown)>>", 60, 40))
  }

  @Test func anUnknownMethodIsTheEndWithoutAWord() {
    for id in [[0, 61, 0, 10], [0, 50, 0, 99]] as [[UInt8]] {
      let client = TestConnection.open()
      #expect(client.send(TestFrames.frame(1, 1, id)) == [])
      #expect(client.state == .finished)
      #expect(client.broker.seen.contains("closeConnection"))
    }
  }

  @Test func aLongTextIsCut() {
    let client = TestConnection.open()
    let name = String(repeating: "q", count: 255)
    let lines = client.call("queue.purge", ["queue": .text(name)])
    let text = "NOT_FOUND - no queue '\(name)' in vhost '/'".prefix(252) + "..."
    #expect(lines == channelClose(404, String(text), 50, 30))
  }

  @Test func theNodeCanEndIt() {
    let client = TestConnection.open()
    expectEnd(
      client, client.close(.forced("shutdown")),
      connectionClose(
        320,
        "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'", 0, 0))
  }

  @Test func theBrokersOwnFaultsEndTheConnection() {
    let client = TestConnection.open()
    client.broker.fault = .internalFault("no leader")
    expectEnd(
      client, client.call("queue.declare", ["queue": "q"]),
      connectionClose(541, "INTERNAL_ERROR - no leader", 50, 10))
    let other = TestConnection.open()
    other.broker.fault = .resource("too many queues")
    expectEnd(
      other, other.call("queue.declare", ["queue": "q"]),
      connectionClose(506, "RESOURCE_ERROR - too many queues", 50, 10))
  }

  @Test func aClientThatClosesIsNotHeldByAClusterThatCannotDecide() {
    let client = TestConnection.open()
    client.broker.isHolding = true
    #expect(client.call("connection.close", channel: 0, ["replyCode": 200]) == [])
    #expect(client.tick(after: 9.9) == [])
    #expect(client.state == .waiting)
    #expect(client.tick(after: 0.2) == [])
    #expect(client.state == .finished)
  }

  @Test func whoDoesNotAnswerACloseIsNotWaitedForLong() {
    let client = TestConnection.open()
    _ = client.close(.forced("shutdown"))
    #expect(client.tick(after: 9.9) == [])
    #expect(client.state == .receiving)
    #expect(client.tick(after: 0.2) == [])
    #expect(client.state == .finished)
  }

  @Test func afterTheClientsCloseTheBrokerWaitsForItToHangUp() {
    let broker = FakeBroker()
    let client = TestConnection.open(broker)
    client.call("queue.declare", ["queue": "q", "exclusive": true])
    #expect(
      client.call("connection.close", channel: 0, ["replyCode": 200])
        == ["0 connection.close-ok"])
    #expect(broker.queues.isEmpty)
    #expect(client.state == .receiving)
    #expect(client.send(TestFrames.frame(9, 9, [1])) == [])
    #expect(client.tick(after: 9.9) == [])
    #expect(client.state == .receiving)
    #expect(client.tick(after: 0.2) == [])
    #expect(client.state == .finished)
  }
}
