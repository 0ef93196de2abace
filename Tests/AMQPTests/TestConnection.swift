// A machine with a client's hands on one side and the fake broker on the other.

import AMQP
import Base

final class TestConnection {
  static let startTime = MonotonicTime(1_000_000_000_000)

  let broker: FakeBroker
  let number: Int
  private var machine: ConnectionMachine
  private var output: [UInt8] = []
  private var unread: [UInt8] = []
  private var isPumping = false
  var now = TestConnection.startTime
  /// Bytes that were sent so far.
  private(set) var sent = 0

  init(_ broker: FakeBroker, number: Int = 1, change: (inout ConnectionSettings) -> Void = { _ in })
  {
    self.broker = broker
    self.number = number
    var settings = ConnectionSettings(
      server: ServerProperties(version: "1.2.3", clusterName: "test"))
    change(&settings)
    machine = ConnectionMachine(settings: settings, seed: UInt64(number), now: now)
  }

  /// A connection that is open, with channel 1 open if `channel`.
  static func open(
    _ broker: FakeBroker = FakeBroker(), number: Int = 1, channel: Bool = true,
    tune: [String: TestValue] = ["channelMax": 2047, "frameMax": 131_072, "heartbeat": 0],
    capabilities: [String] = [
      "authentication_failure_close", "consumer_cancel_notify", "connection.blocked",
    ], change: (inout ConnectionSettings) -> Void = { _ in }
  ) -> TestConnection {
    let client = TestConnection(broker, number: number, change: change)
    client.send([0x41, 0x4d, 0x51, 0x50, 0, 0, 9, 1])
    client.send(startOK(capabilities: capabilities))
    client.send(TestFrames.method("connection.tune-ok", channel: 0, tune))
    client.call("connection.open", channel: 0, ["virtualHost": "/"])
    if channel { client.call("channel.open") }
    return client
  }

  static func startOK(
    mechanism: String = "PLAIN", response: TestValue = "\0guest\0guest",
    capabilities: [String] = ["authentication_failure_close"]
  ) -> [UInt8] {
    TestFrames.method(
      "connection.start-ok", channel: 0,
      [
        "mechanism": .text(mechanism), "response": response, "locale": "en_US",
        "clientProperties": .table(
          FieldTable([
            ("product", .text("test")), ("version", .text("1")),
            ("capabilities", .table(FieldTable(capabilities.map { ($0, .boolean(true)) }))),
          ])),
      ])
  }

  var state: ConnectionState { machine.state }
  var unsettledCount: Int { machine.unsettledCount }
  var channelCount: Int { machine.channelCount }
  var begunBytes: Int { machine.begunBytes }
  var consumerCount: Int { machine.consumerCount }
  var user: String? { machine.user }
  var vhost: String? { machine.vhost }
  var clientName: String { machine.clientName }
  var nextDeadline: MonotonicTime { machine.nextDeadline }
  var unreadCount: Int { unread.count }

  // MARK: The client

  /// Sends bytes and returns the frames that came back, as lines.
  @discardableResult
  func send(_ bytes: [UInt8]) -> [String] {
    sendQuietly(bytes)
    return takeLines()
  }

  func sendQuietly(_ bytes: [UInt8]) {
    unread += bytes
    pump()
  }

  /// Sends a method and returns what came back.
  @discardableResult
  func call(
    _ name: String, channel: UInt16 = 1, _ values: [String: TestValue] = [:]
  ) -> [String] {
    send(TestFrames.method(name, channel: channel, values))
  }

  /// What was sent to the client since the last look.
  func takeLines() -> [String] { TestFrames.lines(takeBytes()) }

  func takeBytes() -> [UInt8] {
    machine.flush(output: &output)
    sent += output.count
    defer { output = [] }
    return output
  }

  /// Lets the machine take what it takes. Answers that come meanwhile let it take more.
  private func pump() {
    if isPumping { return }
    isPumping = true
    defer { isPumping = false }
    var requests = BrokerRequests()
    while machine.state == .receiving, !unread.isEmpty {
      let taken = unread.withUnsafeBytes {
        machine.receive($0, now: now, output: &output, requests: &requests)
      }
      unread.removeFirst(taken)
      let list = requests
      requests.removeAll()
      broker.carryOut(list, of: self)
      if taken == 0, list.isEmpty { break }
    }
  }

  func tick(after seconds: Double, isReading: Bool = true) -> [String] {
    tick(now + Nanoseconds(UInt64(seconds * 1e9)), isReading: isReading)
    return takeLines()
  }

  func tick(_ now: MonotonicTime, isReading: Bool) {
    self.now = now
    var requests = BrokerRequests()
    machine.tick(now: now, isReading: isReading, output: &output, requests: &requests)
    broker.carryOut(requests, of: self)
  }

  // MARK: The broker

  func answer(_ token: RequestToken, _ answer: BrokerAnswer) {
    var requests = BrokerRequests()
    machine.answer(token, answer, output: &output, requests: &requests)
    broker.carryOut(requests, of: self)
    pump()
  }

  private func withContent<Value>(
    _ message: FakeBroker.Message, _ body: (BrokerContent) -> Value
  ) -> Value {
    message.exchange.withUnsafeBytes { exchange in
      message.routingKey.withUnsafeBytes { routingKey in
        message.properties.withUnsafeBytes { properties in
          message.body.withUnsafeBytes { bytes in
            body(
              BrokerContent(
                exchange: exchange, routingKey: routingKey, properties: properties, body: bytes))
          }
        }
      }
    }
  }

  func answerGet(
    _ token: RequestToken, _ consumer: ConsumerID, _ delivery: DeliveryID,
    _ message: FakeBroker.Message, remaining: UInt32
  ) {
    _ = withContent(message) {
      machine.answerGet(
        token,
        BrokerDelivery(
          consumer: consumer, delivery: delivery, isRedelivered: message.wasDelivered,
          content: $0), remaining: remaining, output: &output)
    }
    pump()
  }

  @discardableResult
  func deliver(
    _ consumer: ConsumerID, _ delivery: DeliveryID, _ message: FakeBroker.Message
  ) -> Bool {
    withContent(message) {
      machine.deliver(
        BrokerDelivery(
          consumer: consumer, delivery: delivery, isRedelivered: message.wasDelivered,
          content: $0), output: &output)
    }
  }

  func cancel(_ consumer: ConsumerID) { machine.cancelConsumer(consumer, output: &output) }

  func giveBack(_ channel: ChannelID, _ message: FakeBroker.Message) {
    withContent(message) {
      machine.returnMessage(channel, code: .noRoute, content: $0, output: &output)
    }
  }

  func confirm(_ channel: ChannelID, _ first: ChannelSequence, _ last: ChannelSequence) {
    machine.confirm(channel, first: first, last: last)
  }

  func refusePublish(_ channel: ChannelID, _ first: ChannelSequence, _ last: ChannelSequence) {
    machine.refusePublish(channel, first: first, last: last, output: &output)
  }

  func failPublish(_ channel: ChannelID, _ fault: Fault) {
    var requests = BrokerRequests()
    machine.failPublish(channel, fault, output: &output, requests: &requests)
    broker.carryOut(requests, of: self)
  }

  func setBlocked(_ reason: String?) -> [String] {
    machine.setBlocked(reason, output: &output)
    return takeLines()
  }

  func close(_ fault: Fault) -> [String] {
    var requests = BrokerRequests()
    machine.close(fault, now: now, output: &output, requests: &requests)
    broker.carryOut(requests, of: self)
    return takeLines()
  }
}
