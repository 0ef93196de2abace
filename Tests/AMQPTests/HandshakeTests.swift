// From the protocol header to connection.open-ok, and the ends of a connection.

import AMQP
import Base
import Testing

@Suite struct HandshakeTests {
  @Test func aClientGetsIn() {
    let client = TestConnection(FakeBroker())
    let start = client.send(Frame.protocolHeader)
    #expect(start.count == 1)
    #expect(start[0].hasPrefix("0 connection.start versionMajor=0 versionMinor=9"))
    #expect(start[0].hasSuffix("mechanisms=PLAIN AMQPLAIN locales=en_US"))
    #expect(
      client.send(TestConnection.startOK())
        == ["0 connection.tune channelMax=2047 frameMax=131072 heartbeat=60"])
    client.call(
      "connection.tune-ok", channel: 0, ["channelMax": 10, "frameMax": 4096, "heartbeat": 60])
    #expect(
      client.call("connection.open", channel: 0, ["virtualHost": "/", "insist": true])
        == ["0 connection.open-ok knownHosts="])
    #expect(client.user == "guest")
    #expect(client.vhost == "/")
    #expect(client.clientName == "test 1")
    #expect(client.call("channel.open") == ["1 channel.open-ok reserved1="])
  }

  @Test("The broker says who it is and what it can, which clients rely on")
  func whoTheBrokerIs() throws {
    let client = TestConnection(FakeBroker())
    client.sendQuietly(Frame.protocolHeader)
    let bytes = client.takeBytes()
    // Frame header, class, method, version 0-9, the table's length.
    #expect(Array(bytes[7..<13]) == [0, 10, 0, 10, 0, 9])
    let count = bytes[13..<17].reduce(0) { $0 << 8 | Int($1) }
    let properties = try FieldTable(Array(bytes[17..<17 + count]))
    let capabilities = [
      "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
      "connection.blocked", "consumer_priorities", "authentication_failure_close",
      "per_consumer_qos", "direct_reply_to",
    ]
    guard case .table(let announced)? = properties["capabilities"] else {
      Issue.record("no capabilities in \(properties)")
      return
    }
    func names(_ table: FieldTable) -> Set<String> {
      Set(table.entries.map { String(decoding: $0.name, as: UTF8.self) })
    }
    #expect(names(announced) == Set(capabilities))
    #expect(announced.entries.allSatisfy { $0.value == .boolean(true) })
    let texts = [
      "product": "Skein", "version": "1.2.3", "platform": "Swift", "cluster_name": "test",
      "copyright": "", "information": "https://www.rabbitmq.com/amqp-0-9-1-reference.html",
    ]
    for (name, text) in texts { #expect(properties[name] == .text(text), "\(name)") }
    #expect(names(properties) == Set(texts.keys).union(["capabilities"]))
  }

  @Test func aNewSecretIsTaken() {
    #expect(
      TestConnection.open().call(
        "connection.update-secret", channel: 0, ["newSecret": "s", "reason": "r"])
        == ["0 connection.update-secret-ok"])
  }

  /// As old clients say it, and as the standard's authors once did.
  @Test func theHeaderOf09IsTaken() {
    let client = TestConnection(FakeBroker())
    #expect(client.send([0x41, 0x4d, 0x51, 0x50, 1, 1, 0, 9]).count == 1)
    #expect(client.state == .receiving)
  }

  @Test("A frame of the handshake has 4 KiB at most, as in RabbitMQ")
  func theLargestHandshake() {
    func startOK(padding: Int) -> [UInt8] {
      TestFrames.method(
        "connection.start-ok", channel: 0,
        [
          "mechanism": "PLAIN", "response": "\0guest\0guest", "locale": "en_US",
          "clientProperties": .table(
            FieldTable([("p", .text(String(repeating: "x", count: padding)))])),
        ])
    }
    let padding = 4096 + Frame.overheadBytes - startOK(padding: 0).count
    for (more, isTaken) in [(0, true), (1, false)] {
      let client = TestConnection(FakeBroker())
      client.send(Frame.protocolHeader)
      let lines = client.send(startOK(padding: padding + more))
      #expect(lines.map { $0.prefix(17) } == (isTaken ? ["0 connection.tune"] : []))
      #expect((client.state == .finished) == !isTaken)
    }
  }

  @Test func aClientsNameIsFitForATerminal() {
    let client = TestConnection(FakeBroker())
    client.send(Frame.protocolHeader)
    let name = "a\u{1b}[31m\n" + String(repeating: "x", count: 1000)
    client.send(
      TestFrames.method(
        "connection.start-ok", channel: 0,
        [
          "mechanism": "PLAIN", "response": "\0guest\0guest", "locale": "en_US",
          "clientProperties": .table(FieldTable([("connection_name", .text(name))])),
        ]))
    #expect(client.clientName.hasPrefix("a?[31m?xxx"))
    #expect(client.clientName.count == 255)
  }
}
