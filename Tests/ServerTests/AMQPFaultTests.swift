// What a whole node answers to clients' mistakes: each with its code, class, method and exact text, as
// docs/amqp.md has them. Faults that a connection finds by itself are in AMQPTests.

import Base
import TestSupport
import Testing

@testable import Server

/// A method with its arguments, sent on channel 1.
private struct Call: Sendable {
  var classID: UInt16
  var methodID: UInt16
  var arguments: [UInt8]

  init(_ classID: UInt16, _ methodID: UInt16, _ arguments: [UInt8]) {
    self.classID = classID
    self.methodID = methodID
    self.arguments = arguments
  }

  private static func short(_ text: String) -> [UInt8] { [UInt8(text.utf8.count)] + text.utf8 }
  private static let noTable: [UInt8] = [0, 0, 0, 0]

  /// - Parameter flags: passive 1, durable 2, exclusive 4, auto-delete 8.
  static func declare(_ queue: String, _ flags: UInt8, table: [UInt8] = []) -> Call {
    Call(50, 10, [0, 0] + short(queue) + [flags, 0, 0, 0, UInt8(table.count)] + table)
  }
  static func bind(_ queue: String, _ exchange: String) -> Call {
    Call(50, 20, [0, 0] + short(queue) + short(exchange) + short("key") + [0] + noTable)
  }
  static func unbind(_ queue: String, _ exchange: String) -> Call {
    Call(50, 50, [0, 0] + short(queue) + short(exchange) + short("key") + noTable)
  }
  static func purge(_ queue: String) -> Call { Call(50, 30, [0, 0] + short(queue) + [0]) }
  /// - Parameter flags: if-unused 1, if-empty 2.
  static func delete(_ queue: String, _ flags: UInt8 = 0) -> Call {
    Call(50, 40, [0, 0] + short(queue) + [flags])
  }
  /// - Parameter flags: no-ack 2, exclusive 4.
  static func consume(_ queue: String, tag: String = "", _ flags: UInt8 = 0) -> Call {
    Call(60, 20, [0, 0] + short(queue) + short(tag) + [flags] + noTable)
  }
  static func cancel(_ tag: String) -> Call { Call(60, 30, short(tag) + [0]) }
  static func get(_ queue: String) -> Call { Call(60, 70, [0, 0] + short(queue) + [0]) }
  /// - Parameter flags: passive 1, durable 2, auto-delete 4, internal 8.
  static func exchange(_ name: String, _ type: String, _ flags: UInt8) -> Call {
    Call(40, 10, [0, 0] + short(name) + short(type) + [flags] + noTable)
  }
  static func deleteExchange(_ name: String, ifUnused: Bool = false) -> Call {
    Call(40, 20, [0, 0] + short(name) + [ifUnused ? 1 : 0])
  }
  static func bindExchange(_ target: String, _ source: String) -> Call {
    Call(40, 30, [0, 0] + short(target) + short(source) + short("key") + [0] + noTable)
  }
  static func unbindExchange(_ target: String, _ source: String) -> Call {
    Call(40, 40, [0, 0] + short(target) + short(source) + short("key") + [0] + noTable)
  }
  /// As the answer's table of arguments.
  static func integer(_ name: String, _ value: UInt8) -> [UInt8] {
    short(name) + [UInt8(ascii: "I"), 0, 0, 0, value]
  }
}

/// A call, and how the node closes the channel for it.
private struct Refused: Sendable, CustomTestStringConvertible {
  var call: Call
  var code: UInt64
  var text: String

  init(_ call: Call, _ code: UInt64, _ text: String) {
    self.call = call
    self.code = code
    self.text = text
  }

  var testDescription: String { "\(call.classID).\(call.methodID) \(text)" }
}

private let locked =
  "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '/'. It could be"
  + " originally declared on another connection or the exclusive property value does not match that"
  + " of the original declaration."

/// Another connection has the durable queue "q" (with a message), the queue "used" with a consumer,
/// "alone" with an exclusive one, its own exclusive queue "mine"; and the durable direct exchange "x",
/// the internal one "inside", and "bound", to which "q" is bound.
private let refused: [Refused] = [
  Refused(.declare("none", 1), 404, "NOT_FOUND - no queue 'none' in vhost '/'"),
  Refused(.consume("none"), 404, "NOT_FOUND - no queue 'none' in vhost '/'"),
  Refused(.get("none"), 404, "NOT_FOUND - no queue 'none' in vhost '/'"),
  Refused(.bind("none", "x"), 404, "NOT_FOUND - no queue 'none' in vhost '/'"),
  Refused(.purge("none"), 404, "NOT_FOUND - no queue 'none' in vhost '/'"),
  Refused(.exchange("none", "direct", 1), 404, "NOT_FOUND - no exchange 'none' in vhost '/'"),
  Refused(.bind("q", "none"), 404, "NOT_FOUND - no exchange 'none' in vhost '/'"),
  Refused(.bindExchange("none", "x"), 404, "NOT_FOUND - no exchange 'none' in vhost '/'"),
  Refused(.bindExchange("x", "none"), 404, "NOT_FOUND - no exchange 'none' in vhost '/'"),
  Refused(.consume(""), 404, "NOT_FOUND - no previously declared queue"),
  Refused(.get(""), 404, "NOT_FOUND - no previously declared queue"),
  Refused(.bind("", "x"), 404, "NOT_FOUND - no previously declared queue"),
  Refused(.purge(""), 404, "NOT_FOUND - no previously declared queue"),
  Refused(.delete(""), 404, "NOT_FOUND - no previously declared queue"),
  Refused(.declare("mine", 4), 405, locked),
  Refused(.declare("mine", 1), 405, locked),
  Refused(.consume("mine"), 405, locked),
  Refused(.get("mine"), 405, locked),
  Refused(.bind("mine", "x"), 405, locked),
  Refused(.purge("mine"), 405, locked),
  Refused(.delete("mine"), 405, locked),
  Refused(
    Call(60, 80, [0, 0, 0, 0, 0, 0, 0, 99, 0]), 406,
    "PRECONDITION_FAILED - unknown delivery tag 99"),
  Refused(
    Call(60, 90, [0, 0, 0, 0, 0, 0, 0, 99, 0]), 406,
    "PRECONDITION_FAILED - unknown delivery tag 99"),
  Refused(
    Call(60, 120, [0, 0, 0, 0, 0, 0, 0, 99, 0]), 406,
    "PRECONDITION_FAILED - unknown delivery tag 99"),
  Refused(
    .declare("q", 0), 406,
    "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but"
      + " current is 'true'"),
  Refused(
    .declare("q", 0b1010), 406,
    "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue 'q' in vhost '/': received 'true'"
      + " but current is 'false'"),
  Refused(.declare("q", 0b110), 405, locked.replacing("'mine'", with: "'q'")),
  Refused(
    .declare("q", 0b10, table: Call.integer("x-message-ttl", 100)), 406,
    "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received the"
      + " value '100' of type 'signedint' but current is none"),
  Refused(
    .exchange("x", "direct", 0), 406,
    "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'x' in vhost '/': received 'false'"
      + " but current is 'true'"),
  Refused(
    .exchange("x", "topic", 2), 406,
    "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost '/': received 'topic' but"
      + " current is 'direct'"),
  Refused(.delete("q", 2), 406, "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty"),
  Refused(.delete("used", 1), 406, "PRECONDITION_FAILED - queue 'used' in vhost '/' in use"),
  Refused(
    .deleteExchange("bound", ifUnused: true), 406,
    "PRECONDITION_FAILED - exchange 'bound' in vhost '/' in use"),
  Refused(
    .declare("amq.wire", 0), 403,
    "ACCESS_REFUSED - queue name 'amq.wire' contains reserved prefix 'amq.*'"),
  Refused(
    .exchange("amq.wire", "direct", 0), 403,
    "ACCESS_REFUSED - exchange name 'amq.wire' contains reserved prefix 'amq.*'"),
  Refused(
    .bind("q", ""), 403, "ACCESS_REFUSED - operation not permitted on the default exchange"),
  Refused(
    .unbind("q", ""), 403, "ACCESS_REFUSED - operation not permitted on the default exchange"),
  Refused(
    .deleteExchange(""), 403, "ACCESS_REFUSED - operation not permitted on the default exchange"),
  Refused(
    .exchange("", "direct", 2), 403,
    "ACCESS_REFUSED - operation not permitted on the default exchange"),
  Refused(
    .bindExchange("x", ""), 403,
    "ACCESS_REFUSED - operation not permitted on the default exchange"),
  Refused(
    .deleteExchange("amq.direct"), 403,
    "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed"),
  Refused(.consume("alone"), 403, "ACCESS_REFUSED - queue 'alone' in vhost '/' in exclusive use"),
  Refused(
    .consume("used", 4), 403, "ACCESS_REFUSED - queue 'used' in vhost '/' in exclusive use"),
  Refused(
    .exchange("new", "strange", 0), 406,
    "PRECONDITION_FAILED - unknown exchange type 'strange'"),
]

@Suite(.serialized, .ownThreads) struct AMQPFaultTests {
  /// Sends a call and takes its answer.
  private func carryOut(_ call: Call, _ client: AMQPTestClient) throws -> AMQPTestClient.Method {
    try client.call(1, call.classID, call.methodID, call.arguments)
    let answer: UInt16 = (call.classID, call.methodID) == (40, 40) ? 51 : call.methodID + 1
    return try client.expect(call.classID, answer)
  }

  private func prepare(_ client: AMQPTestClient) throws {
    for queue in ["q", "used", "alone"] { _ = try carryOut(.declare(queue, 2), client) }
    _ = try carryOut(.declare("mine", 4), client)
    _ = try carryOut(.exchange("x", "direct", 2), client)
    _ = try carryOut(.exchange("inside", "fanout", 8), client)
    _ = try carryOut(.exchange("bound", "direct", 2), client)
    _ = try carryOut(.bind("q", "bound"), client)
    _ = try carryOut(.consume("used"), client)
    _ = try carryOut(.consume("alone", 4), client)
    try client.publish("x", key: "q")
  }

  @Test("Every mistake that the node finds closes its channel with the right words")
  func mistakesCloseTheirChannel() throws {
    let cluster = try InProcessCluster(1)
    try cluster.startAll()
    let owner = try connect(cluster.nodes[0])
    try prepare(owner)
    for row in refused {
      let client = try connect(cluster.nodes[0])
      try client.call(1, row.call.classID, row.call.methodID, row.call.arguments)
      let close = try client.expect(20, 40)
      try check(close, row.code, row.text, row.call.classID, row.call.methodID)
      // The number can be used again once the client has agreed.
      try client.call(1, 20, 41, [])
      try client.call(1, 20, 10, [0])
      _ = try client.expect(20, 11)
      #expect(try client.declare("q") == 1, "\(row.testDescription)")
    }
    for (exchange, code, text) in [
      ("none", 404 as UInt64, "NOT_FOUND - no exchange 'none' in vhost '/'"),
      (
        "inside", 403,
        "ACCESS_REFUSED - cannot publish to internal exchange 'inside' in vhost '/'"
      ),
    ] {
      let client = try connect(cluster.nodes[0])
      try client.publish("x", to: exchange, key: "")
      // Clients ask for something to hear of their publishes' faults before its answer.
      try client.call(1, 60, 10, [0, 0, 0, 0, 0, 0, 0])
      try check(try client.expect(20, 40), code, text, 60, 40)
      #expect(!client.has(60, 11))
    }
  }

  private func check(
    _ close: AMQPTestClient.Method, _ code: UInt64, _ text: String, _ classID: UInt16,
    _ methodID: UInt16
  ) throws {
    #expect(close.number(at: 0, bytes: 2) == code, "\(text)")
    #expect(close.shortText(at: 2) == text)
    let place = 3 + Int(close.arguments[2])
    #expect(close.number(at: place, bytes: 2) == UInt64(classID), "\(text)")
    #expect(close.number(at: place + 2, bytes: 2) == UInt64(methodID), "\(text)")
  }

  @Test("What is not there can be deleted, unbound and cancelled")
  func deletingNothingIsFine() throws {
    let cluster = try InProcessCluster(1)
    try cluster.startAll()
    let client = try connect(cluster.nodes[0])
    _ = try client.declare("q")
    #expect(try carryOut(.delete("none"), client).arguments == [0, 0, 0, 0])
    _ = try carryOut(.deleteExchange("none"), client)
    _ = try carryOut(.unbind("q", "amq.direct"), client)
    _ = try carryOut(.unbind("none", "amq.direct"), client)
    _ = try carryOut(.unbind("q", "none"), client)
    _ = try carryOut(.unbindExchange("none", "amq.direct"), client)
    #expect(try carryOut(.cancel("none"), client).shortText(at: 0) == "none")
    try client.closeConnection()
  }

  @Test("Where nothing takes a mandatory message, it comes back before its confirm")
  func returnsComeBeforeTheirConfirms() throws {
    let cluster = try InProcessCluster(1)
    try cluster.startAll()
    let client = try connect(cluster.nodes[0])
    try client.selectConfirms()
    try client.publish("lost", to: "amq.direct", key: "nowhere", mandatory: true)
    let back = try #require(try client.takeMessages(1).first)
    #expect(client.confirmed == 0)
    #expect(back.body == "lost" && back.method.methodID == 50)
    #expect(back.method.number(at: 0, bytes: 2) == 312)
    #expect(back.method.shortText(at: 2) == "NO_ROUTE")
    try client.awaitConfirms(through: 1)
  }

  @Test("Returns and faults of publishes come before the answers to what was sent behind them")
  func answersComeBehindReturns() throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    let methods: [(classID: UInt16, id: UInt16, answer: UInt16, arguments: [UInt8])] = [
      (85, 10, 11, [0]), (90, 10, 11, []), (20, 20, 21, [1]), (60, 110, 111, [1]),
      (60, 30, 31, [1, 0x74, 0]), (60, 10, 11, [0, 0, 0, 0, 0, 1, 0]),
      (20, 40, 41, [0, 200, 0, 0, 0, 0, 0]),
    ]
    // One of them is the leader; the others have a way to go.
    for node in cluster.nodes {
      for (classID, id, answer, arguments) in methods {
        let client = try connect(node)
        try client.publish("lost", key: "nowhere", mandatory: true)
        try client.call(1, classID, id, arguments)
        _ = try client.expect(classID, answer)
        #expect(client.messages.map(\.body) == ["lost"], "\(classID).\(id)")
      }
      for (classID, id, answer, arguments) in methods.dropLast() {
        let client = try connect(node)
        try client.publish("lost", to: "missing", key: "")
        try client.call(1, classID, id, arguments)
        let fault = #expect(throws: AMQPTestClient.Failure.self) {
          _ = try client.expect(classID, answer)
        }
        #expect(fault?.description.hasPrefix("closed: 404 ") == true, "\(classID).\(id)")
      }
    }
  }

  @Test("Whoever is refused at the door hears why")
  func refusedAtTheDoor() throws {
    let cluster = try InProcessCluster(1)
    try cluster.startAll()
    let port = try #require(cluster.nodes[0].configuration.amqpListen?.port)
    do {
      try AMQPTestClient(port: port).open(vhost: "none")
      Issue.record("let in")
    } catch let failure as AMQPTestClient.Failure {
      #expect(failure.description == "closed: 530 NOT_ALLOWED - vhost none not found")
    }
    // It did not say that it can hear why.
    #expect(throws: AMQPTestClient.Failure.self) {
      try AMQPTestClient(port: port).open(password: "wrong")
    }
  }

  @Test("Arguments above what is kept close the connection: a limit of ours (506)")
  func tooLargeArguments() throws {
    let cluster = try InProcessCluster(1)
    try cluster.startAll()
    let client = try connect(cluster.nodes[0])
    let text = [UInt8](repeating: 0x78, count: 17_000)
    let table = client.short("note") + [UInt8(ascii: "S")] + client.big(17_000, 4) + text
    let arguments = client.big(UInt64(table.count), 4) + table
    try client.call(1, 50, 10, [0, 0] + client.short("q") + [2] + arguments)
    let close = try client.expect(10, 50)
    let words = "RESOURCE_ERROR - the arguments of the queue have \(table.count) bytes"
    try check(close, 506, words, 50, 10)
    let other = try connect(cluster.nodes[0])
    #expect(try other.declare("q") == 0)
  }

  @Test("A node that stops says so to its clients (320), which then go elsewhere")
  func nodeStops() throws {
    let cluster = try InProcessCluster { $0.timeouts.stop = .milliseconds(300) }
    try cluster.startAll()
    let client = try connect(cluster.nodes[0])
    _ = try client.declare("q")
    try client.publish("x", key: "q")
    #expect(try client.get("q")?.body == "x")
    cluster.nodes[0].stop()
    let close = try client.expect(10, 50)
    try check(
      close, 320,
      "CONNECTION_FORCED - broker forced connection closure with reason 'the node is stopping'", 0,
      0)
    let other = try connect(cluster.nodes[1])
    // It held the message until its connection was closed.
    var again = try other.get("q")
    while again == nil { again = try other.get("q") }
    #expect(again?.body == "x")
  }

  @Test("Who deletes a queue that it consumes from hears first that it is deleted")
  func deleteIsAnsweredBeforeItsConsumersAreCancelled() throws {
    let cluster = try InProcessCluster(1)
    try cluster.startAll()
    let client = try connect(cluster.nodes[0])
    let other = try connect(cluster.nodes[0])
    _ = try client.declare("q")
    let tag = try client.consume("q")
    let othersTag = try other.consume("q")
    try client.call(1, 50, 40, [0, 0] + client.short("q") + [0])
    _ = try client.expect(50, 41)
    #expect(!client.has(60, 30))
    #expect(try client.expect(60, 30).shortText(at: 0) == tag)
    #expect(try other.expect(60, 30).shortText(at: 0) == othersTag)
    // It is gone for good: cancelling it is like cancelling nothing, and the queue may come again.
    try client.cancel(tag)
    #expect(try client.declare("q") == 0)
  }

  @Test("A headers exchange sees the headers of dead letters, whichever node they died at")
  func deadLettersByTheirHeaders() throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    let client = try connect(cluster.nodes[0])
    _ = try carryOut(.exchange("dead", "headers", 2), client)
    let table =
      client.short("x-dead-letter-exchange") + [UInt8(ascii: "S"), 0, 0, 0, 4] + "dead".utf8
    _ = try carryOut(.declare("q", 2, table: table), client)
    for (queue, value) in [("red", "r"), ("blue", "b")] {
      _ = try client.declare(queue)
      let match = client.short("colour") + [UInt8(ascii: "S"), 0, 0, 0, 1] + value.utf8
      try client.call(
        1, 50, 20,
        [0, 0] + client.short(queue) + client.short("dead") + client.short("") + [0]
          + client.big(UInt64(match.count), 4) + match)
      _ = try client.expect(50, 21)
    }
    try client.selectConfirms()
    for (number, value) in ["r", "b", "g", "r"].enumerated() {
      let headers = client.short("colour") + [UInt8(ascii: "S"), 0, 0, 0, 1] + value.utf8
      try client.publish("\(number)", key: "q", headers: headers)
    }
    try client.awaitConfirms(through: 4)
    let consumer = try connect(cluster.nodes[1])
    try consumer.consume("q")
    for message in try consumer.takeMessages(4) {
      // Without requeue.
      try consumer.call(1, 60, 90, consumer.big(message.tag, 8) + [0])
    }
    #expect(try consumer.declare("q", flags: 1) == 0)
    #expect(try client.declare("red") == 2)
    #expect(try client.declare("blue") == 1)
    #expect(try client.get("blue")?.body == "1")
  }
}
