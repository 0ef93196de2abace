// How frames, answers and time meet: channels that wait, content between other channels' frames,
// bytes that come one by one, heartbeats, back-pressure.

import AMQP
import Base
import Testing

@Suite struct WaitingTests {
  @Test func aChannelWaitsForItsAnswer() {
    let broker = FakeBroker()
    let client = TestConnection.open(broker)
    broker.isHolding = true
    // The publish must not reach the broker if the declaration is refused.
    let bytes =
      TestFrames.method("queue.declare", ["queue": "q", "passive": true])
      + TestFrames.publish(key: "q", "body")
    #expect(client.send(bytes) == [])
    #expect(client.state == .waiting)
    broker.release()
    #expect(
      client.takeLines() == [
        """
        1 channel.close replyCode=404 replyText=NOT_FOUND - no queue 'q' in vhost '/' classID=50 \
        methodID=10
        """
      ])
    #expect(client.state == .receiving)
    #expect(client.unreadCount == 0)
    #expect(!broker.seen.contains("publish"))
  }

  @Test func otherChannelsGoOnUpToTheFirstFrameThatWaits() {
    let broker = FakeBroker()
    let client = TestConnection.open(broker)
    client.call("channel.open", channel: 2)
    broker.isHolding = true
    #expect(
      client.send(
        TestFrames.method("queue.declare", ["queue": "q"])
          + TestFrames.method("channel.flow", channel: 2, ["active": true])
          + TestFrames.method("channel.flow", channel: 1, ["active": true])
          + TestFrames.method("channel.flow", channel: 2, ["active": true]))
        == ["2 channel.flow-ok active=1"])
    #expect(client.state == .waiting)
    broker.release()
    #expect(
      client.takeLines() == [
        "1 queue.declare-ok queue=q messageCount=0 consumerCount=0",
        "1 channel.flow-ok active=1", "2 channel.flow-ok active=1",
      ])
  }

  @Test(
    "What needs nothing of the broker is not answered before what was published",
    arguments: [
      ("confirm.select", "confirm.select-ok"), ("tx.select", "tx.select-ok"),
      ("basic.cancel", "basic.cancel-ok consumerTag=t"),
      ("access.request", "access.request-ok ticket=1"),
      ("channel.flow", "channel.flow-ok active=1"), ("basic.recover", "basic.recover-ok"),
    ])
  func answersWaitForPublishes(method: String, answer: String) {
    let fields: [String: TestValue] =
      switch method {
      case "basic.cancel": ["consumerTag": "t"]
      case "channel.flow": ["active": true]
      case "basic.recover": ["requeue": true]
      default: [:]
      }
    let broker = FakeBroker()
    let client = TestConnection.open(broker)
    // With nothing published it is answered at once.
    broker.isHolding = true
    #expect(client.call(method, channel: 1, fields) == ["1 \(answer)"])
    if method.hasSuffix("select") { client.call("channel.open", channel: 2) }
    let channel: UInt16 = method.hasSuffix("select") ? 2 : 1
    broker.release()
    broker.isHolding = true
    #expect(client.send(TestFrames.publish(channel: channel, key: "nowhere", "body")) == [])
    #expect(client.call(method, channel: channel, fields) == [])
    broker.release()
    #expect(client.takeLines() == ["\(channel) \(answer)"])
    #expect(broker.seen.contains("awaitPublishes"))
  }

  /// As the fuzzer found: the channel is closed for its publish before the acknowledgement behind it is
  /// carried out.
  @Test func anAcknowledgementBehindAFaultMeansNothing() {
    let client = TestConnection.open()
    client.call("queue.declare", ["queue": "q"])
    client.call("basic.consume", ["queue": "q", "consumerTag": "t"])
    #expect(client.send(TestFrames.publish(key: "q", "body")).count > 0)
    let lines = client.send(
      TestFrames.publish(exchange: "missing", key: "", "body")
        + TestFrames.method("basic.ack", ["deliveryTag": 1]))
    #expect(lines.count == 1 && lines[0].hasPrefix("1 channel.close replyCode=404"))
    #expect(client.broker.held.isEmpty)
    #expect(client.broker.queues["q"]?.messages.count == 1)
  }

  @Test func withNothingUnreadAWaitingChannelStopsNobody() {
    let broker = FakeBroker()
    let client = TestConnection.open(broker)
    broker.isHolding = true
    client.call("queue.declare", ["queue": "q"])
    #expect(client.state == .receiving)
    #expect(client.call("channel.open", channel: 2) == ["2 channel.open-ok reserved1="])
  }

  @Test func theConnectionsOwnQuestionsStopAll() {
    let broker = FakeBroker()
    broker.isHolding = true
    let client = TestConnection(broker)
    #expect(client.send(Frame.protocolHeader + TestConnection.startOK()).count == 1)
    #expect(client.state == .waiting)
    client.send(
      TestFrames.method("connection.tune-ok", channel: 0, ["channelMax": 1, "frameMax": 4096])
        + TestFrames.method("connection.open", channel: 0, ["virtualHost": "/"])
        + TestFrames.method("channel.open"))
    broker.release()
    #expect(
      client.takeLines() == [
        "0 connection.tune channelMax=2047 frameMax=131072 heartbeat=60",
        "0 connection.open-ok knownHosts=", "1 channel.open-ok reserved1=",
      ])
  }

  @Test func anAnswerToAClosedChannelIsDropped() {
    let broker = FakeBroker()
    let client = TestConnection.open(broker)
    client.call("channel.open", channel: 2)
    broker.isHolding = true
    client.call("queue.declare", ["queue": "q"])
    client.send(TestFrames.body(channel: 2, [1]))
    #expect(client.state == .receiving)
    broker.release()
    #expect(client.takeLines() == [])
    client.call("connection.close-ok", channel: 0)
    #expect(client.state == .finished)
  }

  @Test func closeOKComesWhenTheBrokerHasTakenEverythingBack() {
    let broker = FakeBroker()
    let client = TestConnection.open(broker)
    broker.isHolding = true
    #expect(client.call("channel.close", ["replyCode": 200]) == [])
    #expect(client.call("connection.close", channel: 0, ["replyCode": 200]) == [])
    #expect(client.state == .waiting)
    broker.release()
    #expect(client.takeLines() == ["0 connection.close-ok"])
  }
}

@Suite struct ContentTests {
  @Test func contentOfChannelsMayBeMixed() {
    let broker = FakeBroker()
    let client = TestConnection.open(broker)
    client.call("channel.open", channel: 2)
    client.send(MessageTests.declare)
    func method(_ channel: UInt16) -> [UInt8] {
      TestFrames.method("basic.publish", channel: channel, ["routingKey": "q"])
    }
    func body(_ channel: UInt16, _ text: String) -> [UInt8] {
      TestFrames.body(channel: channel, [UInt8](text.utf8))
    }
    client.send(
      method(1) + method(2) + TestFrames.header(channel: 2, body: 4)
        + TestFrames.header(channel: 1, body: 6) + body(1, "one") + body(2, "tw")
        + TestFrames.frame(8, 0, []) + body(1, "") + body(2, "o!") + body(1, "one"))
    #expect(
      broker.queues["q"]?.messages.map { String(decoding: $0.body, as: UTF8.self) }
        == ["two!", "oneone"])
  }

  /// However the bytes are cut, the same happens.
  @Test func everyCutIsTheSame() {
    var bytes = Frame.protocolHeader + TestConnection.startOK()
    bytes += TestFrames.method(
      "connection.tune-ok", channel: 0, ["channelMax": 9, "frameMax": 4096])
    bytes += TestFrames.method("connection.open", channel: 0, ["virtualHost": "/"])
    bytes += TestFrames.method("channel.open") + TestFrames.method("channel.open", channel: 2)
    bytes += MessageTests.declare + TestFrames.method("confirm.select")
    bytes += TestFrames.publish(key: "q", "first")
    bytes += TestFrames.method("basic.publish", channel: 2, ["routingKey": "q"])
    bytes += TestFrames.publish(key: "nowhere", "second", mandatory: true)
    bytes += TestFrames.header(channel: 2, body: 5)
    bytes += TestFrames.method(
      "basic.consume", ["queue": "q", "consumerTag": "t", "noAck": true])
    bytes += TestFrames.body(channel: 2, [UInt8]("third".utf8))
    let whole = TestConnection(FakeBroker())
    let wanted = whole.send(bytes)
    #expect(wanted.contains("1 body third"))
    for cut in 1..<bytes.count {
      let client = TestConnection(FakeBroker())
      var lines = client.send([UInt8](bytes[..<cut]))
      lines += client.send([UInt8](bytes[cut...]))
      #expect(Self.comparable(lines) == Self.comparable(wanted), "cut at \(cut)")
    }
    let byByte = TestConnection(FakeBroker())
    for byte in bytes { byByte.send([byte]) }
    #expect(byByte.broker.seen == whole.broker.seen)
  }

  /// Confirms gather within what is read at once, and deliveries come when they come; all else is
  /// the same.
  private static func comparable(_ lines: [String]) -> [String] {
    lines.filter { !$0.contains("basic.ack") }.sorted()
  }

  @Test func contentBegunEverywhereIsBounded() {
    let client = TestConnection.open(channel: false) {
      $0.assemblyBytesMax = 100_000
      $0.messageBytesMax = 1 << 40
    }
    var lines: [String] = []
    for channel in 1...20 as ClosedRange<UInt16> where lines.isEmpty {
      client.call("channel.open", channel: channel)
      lines = client.send(
        TestFrames.method("basic.publish", channel: channel)
          + TestFrames.header(channel: channel, body: 1 << 39)
          + TestFrames.body(channel: channel, [UInt8](repeating: 0, count: 10_000)))
      // What is announced takes no memory; what has come does.
      lines += client.send(TestFrames.body(channel: channel, [0]))
    }
    #expect(
      lines == [
        """
        0 connection.close replyCode=506 replyText=RESOURCE_ERROR - content begun on all channels \
        is larger than 100000 bytes classID=60 methodID=40
        """
      ])
  }

  /// A commit on one channel does not get into another's content.
  @Test func aCommitMayComeBetweenContent() {
    let broker = FakeBroker()
    let client = TestConnection.open(broker)
    client.call("channel.open", channel: 2)
    client.send(MessageTests.declare)
    client.call("tx.select", channel: 2)
    client.send(
      TestFrames.publish(channel: 2, key: "q", "committed")
        + TestFrames.method("basic.publish", ["routingKey": "q"])
        + TestFrames.method("tx.commit", channel: 2) + TestFrames.header(body: 5)
        + TestFrames.body([UInt8]("plain".utf8)))
    #expect(
      broker.queues["q"]?.messages.map { String(decoding: $0.body, as: UTF8.self) }
        == ["committed", "plain"])
    #expect(
      broker.queues["q"]?.messages.map { String(decoding: $0.routingKey, as: UTF8.self) }
        == ["q", "q"])
  }

  @Test func contentOfAClosedChannelIsForgotten() {
    let broker = FakeBroker()
    let client = TestConnection.open(broker) { $0.assemblyBytesMax = 1000 }
    client.send(MessageTests.declare)
    for _ in 1...10 {
      client.send(
        TestFrames.method("basic.publish", ["routingKey": "q"]) + TestFrames.header(body: 901)
          + TestFrames.body([UInt8](repeating: 1, count: 900)))
      // Another channel's fault closes that channel only.
      client.call("channel.open", channel: 2)
      client.call("basic.ack", channel: 2, ["deliveryTag": 1])
      client.call("channel.close-ok", channel: 2)
      client.send(TestFrames.body([1]))
    }
    #expect(broker.queues["q"]?.messages.count == 10)
  }
}

@Suite struct TimeTests {
  private static func open(heartbeat: UInt64) -> TestConnection {
    TestConnection.open(
      tune: ["channelMax": 1, "frameMax": 4096, "heartbeat": .number(heartbeat)])
  }

  @Test func heartbeatsAreSentWhenNothingElseIs() {
    let client = Self.open(heartbeat: 10)
    // open-ok was sent in this half.
    #expect(client.tick(after: 5) == [])
    #expect(client.tick(after: 5) == ["0 frame 8 []"])
    client.call("channel.flow", ["active": true])
    #expect(client.tick(after: 5) == [])
    #expect(client.tick(after: 5) == ["0 frame 8 []"])
  }

  @Test func aSilentClientIsGoneWithoutAWord() {
    let client = Self.open(heartbeat: 1)
    var lines: [String] = []
    for _ in 1...4 { lines += client.tick(after: 0.5) }
    #expect(client.state == .receiving)
    lines += client.tick(after: 0.5)
    #expect(client.state == .finished)
    #expect(lines == ["0 frame 8 []", "0 frame 8 []", "0 frame 8 []"])
    #expect(client.broker.seen.contains("closeConnection"))
  }

  @Test func whoSendsHeartbeatsStays() {
    let client = Self.open(heartbeat: 1)
    for _ in 1...20 {
      _ = client.tick(after: 1)
      client.send(TestFrames.frame(8, 0, []))
    }
    #expect(client.state == .receiving)
  }

  @Test func silenceIsNotCountedWhileNobodyReads() {
    let client = Self.open(heartbeat: 1)
    for _ in 1...20 { _ = client.tick(after: 1, isReading: false) }
    #expect(client.state == .receiving)
    _ = client.tick(after: 3)
    #expect(client.state == .finished)
  }

  @Test func withoutAHeartbeatNothingEnds() {
    let client = Self.open(heartbeat: 0)
    #expect(client.nextDeadline == .never)
    #expect(client.tick(after: 100_000) == [])
    #expect(client.state == .receiving)
  }

  @Test func whoWantsToKnowHearsOfBlocking() {
    let client = TestConnection.open()
    #expect(client.setBlocked(nil) == [])
    #expect(client.setBlocked("low on memory") == ["0 connection.blocked reason=low on memory"])
    #expect(client.setBlocked("low on memory") == [])
    #expect(client.setBlocked(nil) == ["0 connection.unblocked"])
    let other = TestConnection.open(capabilities: [])
    #expect(other.setBlocked("low on memory") == [])
  }
}
