// What each method does when nothing is wrong: answers, deliveries, confirms, in their order.

import AMQP
import Base
import Testing

@Suite struct TopologyTests {
  @Test func methodsAreAnswered() {
    let client = TestConnection.open()
    for (method, values, answer) in [
      (
        "queue.declare", ["queue": "q"],
        "1 queue.declare-ok queue=q messageCount=0 consumerCount=0"
      ),
      (
        "queue.declare", ["queue": "q", "passive": true],
        "1 queue.declare-ok queue=q messageCount=0 consumerCount=0"
      ),
      ("exchange.declare", ["exchange": "x", "type": "topic"], "1 exchange.declare-ok"),
      ("exchange.declare", ["exchange": "x", "passive": true], "1 exchange.declare-ok"),
      ("exchange.declare", ["exchange": "y", "type": "headers"], "1 exchange.declare-ok"),
      (
        "queue.bind", ["queue": "q", "exchange": "x", "routingKey": "k"], "1 queue.bind-ok"
      ),
      ("exchange.bind", ["destination": "x", "source": "y"], "1 exchange.bind-ok"),
      ("exchange.unbind", ["destination": "x", "source": "y"], "1 exchange.unbind-ok"),
      (
        "queue.unbind", ["queue": "q", "exchange": "x", "routingKey": "k"],
        "1 queue.unbind-ok"
      ),
      ("queue.purge", ["queue": "q"], "1 queue.purge-ok messageCount=0"),
      ("queue.delete", ["queue": "q"], "1 queue.delete-ok messageCount=0"),
      ("exchange.delete", ["exchange": "x"], "1 exchange.delete-ok"),
      ("channel.flow", ["active": true], "1 channel.flow-ok active=1"),
      ("access.request", ["realm": "/data"], "1 access.request-ok ticket=1"),
      ("basic.recover", ["requeue": true], "1 basic.recover-ok"),
      ("basic.qos", ["prefetchCount": 5], "1 basic.qos-ok"),
      ("basic.qos", ["prefetchCount": 5, "global": true], "1 basic.qos-ok"),
      ("confirm.select", [:], "1 confirm.select-ok"),
      ("channel.close", ["replyCode": 200], "1 channel.close-ok"),
    ] as [(String, [String: TestValue], String)] {
      #expect(client.call(method, values) == [answer])
    }
  }

  @Test func noWaitIsNotAnswered() {
    let client = TestConnection.open()
    for (method, values) in [
      ("exchange.declare", ["exchange": "x", "type": "direct"]), ("queue.declare", ["queue": "q"]),
      ("queue.bind", ["queue": "q", "exchange": "x"]),
      ("exchange.bind", ["destination": "x", "source": "amq.fanout"]),
      ("exchange.unbind", ["destination": "x", "source": "amq.fanout"]),
      ("basic.consume", ["queue": "q", "consumerTag": "t"]),
      ("basic.cancel", ["consumerTag": "t"]), ("basic.cancel", ["consumerTag": "nobody"]),
      ("queue.purge", ["queue": "q"]), ("queue.delete", ["queue": "q"]),
      ("exchange.delete", ["exchange": "x"]), ("confirm.select", [:]),
    ] as [(String, [String: TestValue])] {
      var all = values
      all["noWait"] = true
      #expect(client.call(method, all) == [], "\(method)")
    }
    #expect(client.call("queue.purge", ["queue": "q", "noWait": true])[0].contains("404"))
  }

  @Test func theServerMakesUpNames() throws {
    let client = TestConnection.open()
    let answer = try #require(client.call("queue.declare", ["exclusive": true]).first)
    let name = try #require(client.broker.queues.keys.first)
    #expect(name.hasPrefix("amq.gen-") && name.utf8.count == 30)
    #expect(answer == "1 queue.declare-ok queue=\(name) messageCount=0 consumerCount=0")
    // "" is the last queue, for the routing key too.
    client.call("queue.bind", ["exchange": "amq.direct"])
    #expect(client.broker.queueBindings.map(\.queue) == [name])
    #expect(client.broker.queueBindings.map(\.routingKey) == [[UInt8](name.utf8)])
    let tag = try #require(client.call("basic.consume").first)
    #expect(tag.hasPrefix("1 basic.consume-ok consumerTag=amq.ctag-"))
    #expect(client.call("queue.purge") == ["1 queue.purge-ok messageCount=0"])
    let other = TestConnection.open(client.broker, number: 2)
    other.call("queue.declare")
    #expect(client.broker.queues.count == 2)
  }

  @Test func lineBreaksInNamesAreLeftOut() {
    let client = TestConnection.open()
    client.call("queue.declare", ["queue": "a\r\nb"])
    #expect(client.broker.queues.keys.first == "ab")
  }

  @Test func aNameMayHave255Bytes() {
    let client = TestConnection.open()
    let name = String(repeating: "n", count: 255)
    #expect(
      client.call("queue.declare", ["queue": .text(name)])
        == ["1 queue.declare-ok queue=\(name) messageCount=0 consumerCount=0"])
  }
}

@Suite struct MessageTests {
  static let declare = TestFrames.method("queue.declare", ["queue": "q"])

  @Test func aMessageComesAsItWent() throws {
    let client = TestConnection.open()
    client.send(Self.declare)
    var properties = BasicProperties()
    properties.contentType = [UInt8]("text/plain".utf8)
    properties.contentEncoding = [UInt8]("none".utf8)
    properties.headers = FieldTableTests.all
    properties.deliveryMode = 2
    properties.priority = 3
    properties.correlationID = [1, 2]
    properties.replyTo = [UInt8]("r".utf8)
    properties.expiration = [UInt8]("1000".utf8)
    properties.messageID = [UInt8]("m".utf8)
    properties.timestamp = 1_700_000_000
    properties.type = [UInt8]("t".utf8)
    properties.userID = [UInt8]("guest".utf8)
    properties.appID = [UInt8]("a".utf8)
    properties.clusterID = [UInt8]("c".utf8)
    let bytes = properties.encoded
    #expect(try BasicProperties(bytes) == properties)
    let shown = bytes.map { TestFrames.hexadecimal($0) }.joined()
    #expect(client.send(TestFrames.publish(key: "q", "hello", properties: bytes)) == [])
    #expect(
      client.call("basic.get", ["queue": "q"]) == [
        "1 basic.get-ok deliveryTag=1 redelivered=0 exchange= routingKey=q messageCount=0",
        "1 header 60 body=5 properties=\(shown)", "1 body hello",
      ])
    #expect(client.call("basic.get", ["queue": "q"]) == ["1 basic.get-empty clusterID="])
    #expect(client.call("basic.ack", ["deliveryTag": 1]) == [])
    #expect(client.broker.held.isEmpty)
  }

  @Test func anEmptyBodyHasNoFrame() {
    let client = TestConnection.open()
    client.send(Self.declare)
    client.send(TestFrames.publish(key: "q", ""))
    #expect(
      client.call("basic.get", ["queue": "q", "noAck": true]) == [
        "1 basic.get-ok deliveryTag=1 redelivered=0 exchange= routingKey=q messageCount=0",
        "1 header 60 body=0 properties=0000",
      ])
    #expect(client.unsettledCount == 0)
  }

  @Test func aLargeBodyIsCutToTheFramesAgreed() {
    let client = TestConnection.open(
      tune: ["channelMax": 1, "frameMax": 4096, "heartbeat": 0])
    client.send(Self.declare)
    let body = [UInt8](repeating: 65, count: 10_000)
    client.send(
      TestFrames.method("basic.publish", ["routingKey": "q"])
        + TestFrames.header(body: body.count) + TestFrames.body([UInt8](body.prefix(4088)))
        + TestFrames.body([UInt8](body[4088..<8176])) + TestFrames.body([UInt8](body[8176...])))
    let lines = client.call("basic.get", ["queue": "q"])
    #expect(lines.count == 5)
    #expect(lines.dropFirst(2).map { $0.utf8.count - "1 body ".utf8.count } == [4088, 4088, 1824])
  }

  @Test func deliveriesAreSettledInRanges() {
    let client = TestConnection.open()
    client.send(Self.declare)
    client.call("basic.consume", ["queue": "q", "consumerTag": "t"])
    for number in 1...6 {
      #expect(
        client.send(TestFrames.publish(key: "q", "\(number)")) == [
          "1 basic.deliver consumerTag=t deliveryTag=\(number) redelivered=0 exchange= routingKey=q",
          "1 header 60 body=1 properties=0000", "1 body \(number)",
        ])
    }
    client.broker.seen = []
    client.send(
      TestFrames.method("basic.ack", ["deliveryTag": 1])
        + TestFrames.method("basic.ack", ["deliveryTag": 2])
        + TestFrames.method("basic.reject", ["deliveryTag": 4])
        + TestFrames.method("basic.nack", ["deliveryTag": 5, "multiple": true]))
    #expect(
      client.broker.seen == [
        "settle acknowledged 1 1-2", "settle rejected 1 4-4", "settle rejected 1 3-3",
        "settle rejected 1 5-5",
      ])
    client.broker.seen = []
    client.call("basic.ack", ["deliveryTag": 0, "multiple": true])
    #expect(client.broker.seen == ["settle acknowledged 1 6-6"])
    #expect(client.unsettledCount == 0)
    #expect(client.call("basic.ack", ["deliveryTag": 0, "multiple": true]) == [])
    #expect(client.call("basic.ack", ["deliveryTag": 6])[0].contains("unknown delivery tag 6"))
  }

  @Test func whatIsRequeuedComesAgain() {
    let client = TestConnection.open()
    client.send(Self.declare)
    client.send(TestFrames.publish(key: "q", "m"))
    client.call("basic.get", ["queue": "q"])
    client.call("basic.nack", ["deliveryTag": 1, "requeue": true])
    #expect(
      client.call("basic.get", ["queue": "q"])[0]
        == "1 basic.get-ok deliveryTag=2 redelivered=1 exchange= routingKey=q messageCount=0")
    // recover gives back everything.
    #expect(client.call("basic.recover", ["requeue": true]) == ["1 basic.recover-ok"])
    #expect(
      client.call("basic.get", ["queue": "q"])[0]
        == "1 basic.get-ok deliveryTag=3 redelivered=1 exchange= routingKey=q messageCount=0")
    #expect(client.call("basic.recover-async", ["requeue": true]) == [])
    // A channel's end too.
    client.call("basic.get", ["queue": "q"])
    client.call("channel.close")
    client.call("channel.open")
    #expect(
      client.call("basic.get", ["queue": "q"])[0]
        == "1 basic.get-ok deliveryTag=1 redelivered=1 exchange= routingKey=q messageCount=0")
  }

  @Test func aCancelledConsumerGetsNothingAndKeepsWhatItHas() {
    let client = TestConnection.open()
    client.send(Self.declare)
    client.call("basic.consume", ["queue": "q", "consumerTag": "t"])
    client.send(TestFrames.publish(key: "q", "1"))
    #expect(
      client.call("basic.cancel", ["consumerTag": "t"]) == ["1 basic.cancel-ok consumerTag=t"])
    #expect(client.consumerCount == 0)
    #expect(client.send(TestFrames.publish(key: "q", "2")) == [])
    #expect(client.call("basic.ack", ["deliveryTag": 1]) == [])
    // The tag is free again.
    #expect(client.call("basic.consume", ["queue": "q", "consumerTag": "t"]).count == 4)
  }

  @Test func aDeletedQueueCancelsItsConsumers() {
    let broker = FakeBroker()
    let client = TestConnection.open(broker)
    client.send(Self.declare)
    client.call("basic.consume", ["queue": "q", "consumerTag": "t"])
    broker.delete("q")
    #expect(client.takeLines() == ["1 basic.cancel consumerTag=t noWait=1"])
    let silent = TestConnection.open(broker, number: 2, capabilities: [])
    silent.send(Self.declare)
    silent.call("basic.consume", ["queue": "q", "consumerTag": "t"])
    broker.delete("q")
    #expect(silent.takeLines() == [])
    #expect(silent.consumerCount == 0)
  }

  @Test func noAckHoldsNothing() {
    let client = TestConnection.open()
    client.send(Self.declare)
    client.call("basic.consume", ["queue": "q", "consumerTag": "t", "noAck": true])
    #expect(client.send(TestFrames.publish(key: "q", "1")).count == 3)
    #expect(client.unsettledCount == 0)
    #expect(client.call("basic.ack", ["deliveryTag": 1])[0].contains("unknown delivery tag 1"))
  }

  @Test func theBrokerHearsOfEachNewPrefetch() {
    let client = TestConnection.open()
    client.send(Self.declare)
    client.call("basic.qos", ["prefetchCount": 8])
    client.call("basic.consume", ["queue": "q", "consumerTag": "a"])
    client.broker.seen = []
    // Celery: one more while a task waits for its time, then one less.
    client.call("basic.qos", ["prefetchCount": 9])
    client.call("basic.qos", ["prefetchCount": 8])
    #expect(
      client.broker.seen.filter { $0.hasPrefix("prefetch") } == ["prefetch 1 9", "prefetch 1 8"])
    // A count of its own for the second consumer: the first has its own again.
    client.broker.seen = []
    client.call("basic.qos", ["prefetchCount": 1])
    client.call("basic.consume", ["queue": "q", "consumerTag": "b"])
    #expect(
      client.broker.seen.filter { $0.hasPrefix("prefetch") } == ["prefetch 1 1", "prefetch 1 8"])
    #expect(client.broker.queues["q"]?.consumers.map(\.prefetch) == [8, 1])
    // For all together, until the other kind is said.
    client.call("basic.qos", ["prefetchCount": 3, "global": true])
    #expect(client.broker.channelPrefetch.values.first == 3)
    client.call("basic.qos", ["prefetchCount": 2])
    #expect(client.broker.channelPrefetch.values.first == 0)
  }

  @Test func aDirectReplyFindsItsWay() {
    let broker = FakeBroker()
    let asking = TestConnection.open(broker, number: 1)
    let answering = TestConnection.open(broker, number: 2)
    answering.send(Self.declare)
    #expect(
      asking.call("queue.declare", ["queue": "amq.rabbitmq.reply-to", "passive": true])
        == ["1 queue.declare-ok queue=amq.rabbitmq.reply-to messageCount=0 consumerCount=1"])
    #expect(
      asking.call(
        "basic.consume",
        ["queue": "amq.rabbitmq.reply-to", "consumerTag": "r", "noAck": true])
        == ["1 basic.consume-ok consumerTag=r"])
    var properties = BasicProperties()
    properties.replyTo = [UInt8]("amq.rabbitmq.reply-to".utf8)
    properties.correlationID = [UInt8]("c".utf8)
    asking.send(TestFrames.publish(key: "q", "ask", properties: properties.encoded))
    let message = broker.queues["q"]?.messages.first
    properties.replyTo = [UInt8]("amq.rabbitmq.reply-to.1.1".utf8)
    #expect(message?.properties == properties.encoded)
    answering.send(TestFrames.publish(key: "amq.rabbitmq.reply-to.1.1", "answer"))
    #expect(
      asking.takeLines() == [
        """
        1 basic.deliver consumerTag=r deliveryTag=1 redelivered=0 exchange= \
        routingKey=amq.rabbitmq.reply-to.1.1
        """, "1 header 60 body=6 properties=0000", "1 body answer",
      ])
    #expect(asking.call("basic.cancel", ["consumerTag": "r"]).count == 1)
    #expect(
      asking.send(
        TestFrames.publish(
          key: "q", "ask", properties: [0x02, 0, 21] + Array("amq.rabbitmq.reply-to".utf8)))[0]
        .contains("fast reply consumer does not exist"))
  }

  @Test func copiesGoToFurtherQueues() throws {
    let client = TestConnection.open()
    for name in ["q", "cc", "bcc"] { client.call("queue.declare", ["queue": .text(name)]) }
    var properties = BasicProperties()
    properties.headers = FieldTable([
      ("CC", .array([.text("cc")])), ("BCC", .array([.text("bcc")])), ("h", .void),
    ])
    client.send(TestFrames.publish(key: "q", "body", properties: properties.encoded))
    properties.headers?.set("BCC", nil)
    for name in ["q", "cc", "bcc"] {
      let message = try #require(client.broker.queues[name]?.messages.first)
      #expect(message.properties == properties.encoded)
      #expect(message.body == [UInt8]("body".utf8))
    }
  }
}

@Suite struct ConfirmTests {
  @Test func confirmsCountFromTheSelect() {
    let client = TestConnection.open()
    client.send(TestFrames.publish(key: "nowhere", "before"))
    client.call("confirm.select")
    #expect(
      client.send(TestFrames.publish(key: "nowhere", "1"))
        == ["1 basic.ack deliveryTag=1 multiple=0"])
    #expect(
      client.send(
        TestFrames.publish(key: "nowhere", "2") + TestFrames.publish(key: "nowhere", "3"))
        == ["1 basic.ack deliveryTag=3 multiple=1"])
  }

  @Test func aReturnComesBeforeItsConfirm() {
    let client = TestConnection.open()
    client.call("confirm.select")
    #expect(
      client.send(TestFrames.publish(key: "nowhere", "lost", mandatory: true)) == [
        "1 basic.return replyCode=312 replyText=NO_ROUTE exchange= routingKey=nowhere",
        "1 header 60 body=4 properties=0000", "1 body lost",
        "1 basic.ack deliveryTag=1 multiple=0",
      ])
  }

  @Test func confirmsOutOfOrderAreToldSingly() {
    let broker = FakeBroker()
    broker.confirmsAreHeld = true
    let client = TestConnection.open(broker)
    client.call("confirm.select")
    for _ in 1...6 { client.send(TestFrames.publish(key: "nowhere", "")) }
    let channel = ChannelID(opening: 1, number: 1)
    client.confirm(channel, ChannelSequence(3), ChannelSequence(4))
    #expect(
      client.takeLines() == [
        "1 basic.ack deliveryTag=3 multiple=0", "1 basic.ack deliveryTag=4 multiple=0",
      ])
    client.refusePublish(channel, ChannelSequence(2), ChannelSequence(2))
    #expect(client.takeLines() == ["1 basic.nack deliveryTag=2 multiple=0 requeue=0"])
    client.confirm(channel, ChannelSequence(6), ChannelSequence(6))
    client.confirm(channel, ChannelSequence(1), ChannelSequence(1))
    #expect(
      client.takeLines() == [
        "1 basic.ack deliveryTag=4 multiple=1", "1 basic.ack deliveryTag=6 multiple=0",
      ])
    client.refusePublish(channel, ChannelSequence(5), ChannelSequence(5))
    #expect(client.takeLines() == ["1 basic.nack deliveryTag=5 multiple=0 requeue=0"])
    #expect(client.takeLines() == [])
  }

  @Test func confirmsOfAClosedChannelAreDropped() {
    let broker = FakeBroker()
    broker.confirmsAreHeld = true
    let client = TestConnection.open(broker)
    client.call("confirm.select")
    client.send(TestFrames.publish(key: "nowhere", ""))
    client.call("channel.close")
    client.call("channel.open")
    client.call("confirm.select")
    client.send(TestFrames.publish(key: "nowhere", ""))
    client.confirm(ChannelID(opening: 1, number: 1), ChannelSequence(1), ChannelSequence(1))
    #expect(client.takeLines() == [])
    client.confirm(ChannelID(opening: 2, number: 1), ChannelSequence(1), ChannelSequence(1))
    #expect(client.takeLines() == ["1 basic.ack deliveryTag=1 multiple=0"])
  }
}

@Suite struct TransactionTests {
  @Test func nothingHappensBeforeTheCommit() {
    let client = TestConnection.open()
    let broker = client.broker
    client.send(MessageTests.declare)
    client.send(TestFrames.publish(key: "q", "first"))
    client.call("tx.select")
    client.call("basic.get", ["queue": "q"])
    client.send(TestFrames.publish(key: "q", "a") + TestFrames.publish(key: "q", "bc"))
    client.call("basic.ack", ["deliveryTag": 1])
    #expect(broker.queues["q"]?.messages.count == 0)
    #expect(broker.held.count == 1)
    #expect(client.call("tx.commit") == ["1 tx.commit-ok"])
    #expect(
      broker.queues["q"]?.messages.map { String(decoding: $0.body, as: UTF8.self) } == ["a", "bc"])
    #expect(broker.held.isEmpty)
    #expect(client.call("tx.commit") == ["1 tx.commit-ok"])
  }

  @Test func aRollbackForgetsPublishesAndHoldsAgain() {
    let client = TestConnection.open()
    client.send(MessageTests.declare)
    for body in ["1", "2", "3"] { client.send(TestFrames.publish(key: "q", body)) }
    client.call("tx.select")
    for _ in 1...3 { client.call("basic.get", ["queue": "q"]) }
    client.send(TestFrames.publish(key: "q", "lost"))
    client.call("basic.ack", ["deliveryTag": 2])
    #expect(client.unsettledCount == 2)
    #expect(client.call("tx.rollback") == ["1 tx.rollback-ok"])
    #expect(client.unsettledCount == 3)
    client.broker.seen = []
    client.call("basic.ack", ["deliveryTag": 3, "multiple": true])
    #expect(client.broker.seen == [])
    client.call("tx.commit")
    #expect(client.broker.seen.contains("settle acknowledged 2147483648 1-3"))
    #expect(client.broker.queues["q"]?.messages.isEmpty == true)
  }

  @Test func whatIsSettledInATransactionIsUnknownAfterwards() {
    let client = TestConnection.open()
    client.send(MessageTests.declare)
    client.send(TestFrames.publish(key: "q", "1"))
    client.call("tx.select")
    client.call("basic.get", ["queue": "q"])
    client.call("basic.ack", ["deliveryTag": 1])
    #expect(client.call("basic.ack", ["deliveryTag": 1])[0].contains("unknown delivery tag 1"))
    // The channel's end gives back what the transaction had settled.
    #expect(client.broker.queues["q"]?.messages.count == 1)
  }

  @Test func aTransactionIsNotLargerThanAllowed() {
    let client = TestConnection.open { $0.transactionBytesMax = 2000 }
    client.call("tx.select")
    let publish = TestFrames.publish(key: "q", String(repeating: "x", count: 900))
    #expect(client.send(publish) == [])
    #expect(
      client.send(publish) == [
        """
        0 connection.close replyCode=506 replyText=RESOURCE_ERROR - transactions are larger than \
        2000 bytes classID=60 methodID=40
        """
      ])
  }

  /// They are in the log twice: one entry must fit into one frame between nodes.
  @Test func namesCountTwiceInATransaction() {
    let text = String(repeating: "k", count: 255)
    var properties = BasicProperties()
    properties.contentType = Array(text.utf8)
    let publish = TestFrames.publish(
      exchange: "amq.direct", key: text, "", properties: properties.encoded)
    let client = TestConnection.open { $0.transactionBytesMax = 10_000 }
    client.call("tx.select")
    var taken = 0
    while taken < 100, client.send(publish) == [] { taken += 1 }
    #expect(taken >= 5 && taken * 1_040 <= 10_000, "\(taken)")
  }

  /// Further keys are in the log twice, as headers and as keys, and count twice.
  @Test func copiesCountInATransaction() {
    var properties = BasicProperties()
    let keys = (0..<4).map { FieldValue.text("\($0)" + String(repeating: "k", count: 200)) }
    properties.headers = FieldTable([("CC", .array(keys))])
    let publish = TestFrames.publish(key: "q", "", properties: properties.encoded)
    let small = TestConnection.open { $0.transactionBytesMax = 1_700 }
    small.call("tx.select")
    #expect(!small.send(publish).isEmpty)
    let large = TestConnection.open { $0.transactionBytesMax = 2_600 }
    large.call("tx.select")
    #expect(large.send(publish).isEmpty)
    large.call("tx.rollback")
    #expect(large.send(publish).isEmpty)
    #expect(!large.send(publish).isEmpty)
  }
}
