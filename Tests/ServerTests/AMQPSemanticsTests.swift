// What AMQP promises of one connection and of several, on whole nodes.

import Base
import SkeinClient
import TestSupport
import Testing

@testable import Server
@testable import Transport

@Suite(.serialized, .ownThreads) struct AMQPSemanticsTests {
  /// What is said of a channel or connection that is closed; empty if it is not.
  func closes(_ body: () throws -> Void) throws -> String {
    do {
      try body()
      return ""
    } catch let failure as AMQPTestClient.Failure {
      return failure.description
    }
  }

  @Test("A declaration counts what its client published before it, confirmed or not")
  func ownPublishesAreSeen() throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    // One of them is the leader; the others have a way to go.
    for (number, node) in cluster.nodes.enumerated() {
      let client = try connect(node)
      let queue = "q\(number)"
      _ = try client.declare(queue)
      for count in 1...30 {
        try client.publish("x", key: queue)
        #expect(try client.declare(queue) == UInt64(count))
      }
    }
  }

  @Test("A limit over the channel is shared by its consumers (basic.qos global=true)")
  func channelLimitIsShared() throws {
    let (cluster, node) = try single()
    defer { withExtendedLifetime(cluster) {} }
    let publisher = try connect(node)
    let consumer = try connect(node)
    for queue in ["a", "b", "c"] { _ = try publisher.declare(queue) }
    try publisher.selectConfirms()
    for number in 0..<6 {
      try publisher.publish("\(number)", key: number % 2 == 0 ? "a" : "b")
    }
    try publisher.awaitConfirms(through: 6)
    try consumer.limitChannel(to: 1)
    for queue in ["a", "b", "c"] { try consumer.consume(queue) }
    var taken: [AMQPTestClient.Message] = []
    while taken.count < 6 {
      taken += try consumer.takeMessages(1)
      // Two answers later everything decided before would have come.
      for _ in 0..<2 { _ = try consumer.declare("c") }
      #expect(consumer.messages.isEmpty, "message \(taken.count)")
      if let last = taken.last { try consumer.ack(last.tag) }
    }
    #expect(taken.map(\.body).sorted() == (0..<6).map { "\($0)" })
    // What went back unseen comes as if for the first time.
    #expect(!taken.contains { $0.isRedelivered })
    // One consumer alone may use all of it, whatever the others have.
    try consumer.limitChannel(to: 3)
    for number in 0..<5 { try publisher.publish("\(number)", key: "c") }
    try publisher.awaitConfirms(through: 11)
    let three = try consumer.takeMessages(3)
    for _ in 0..<2 { _ = try consumer.declare("c") }
    #expect(consumer.messages.isEmpty)
    for message in three { try consumer.ack(message.tag) }
    #expect(try consumer.takeMessages(2).map(\.body) == ["3", "4"])
  }

  @Test("tx.commit does all or nothing (G10)")
  func commitIsAllOrNothing() throws {
    let (cluster, node) = try single()
    defer { withExtendedLifetime(cluster) {} }
    let other = try connect(node)
    _ = try other.declare("from")
    _ = try other.declare("to")
    try other.selectConfirms()
    try other.publish("work", key: "from")
    try other.awaitConfirms(through: 1)
    let client = try connect(node)
    try client.selectTransactions()
    let work = try #require(try client.get("from"))
    try client.ack(work.tag)
    try client.publish("result", key: "to")
    try client.publish("lost", to: "missing", key: "")
    let said = try closes { try client.commit() }
    #expect(said == "closed: 404 NOT_FOUND - no exchange 'missing' in vhost '/'")
    #expect(try other.declare("to") == 0)
    // The acknowledgement was not carried out either: the message went back with the channel.
    #expect(try other.get("from")?.body == "work")
    let third = try connect(node)
    try third.selectTransactions()
    for number in 0..<3 { try third.publish("\(number)", key: "to") }
    #expect(try other.declare("to") == 0)
    try third.commit()
    #expect(try other.declare("to") == 3)
  }

  @Test("Under a channel's limit every queue has its turn, also one that needs no acknowledgement")
  func channelLimitIsFair() throws {
    let (cluster, node) = try single()
    defer { withExtendedLifetime(cluster) {} }
    let publisher = try connect(node)
    let queues = ["a", "b", "c"]
    for queue in queues { _ = try publisher.declare(queue) }
    for _ in 0..<20 { for queue in queues { try publisher.publish(queue, key: queue) } }
    #expect(try publisher.declare("c") == 20)
    let consumer = try connect(node)
    try consumer.limitChannel(to: 1)
    for queue in queues { try consumer.consume(queue) }
    var taken: [String: Int] = [:]
    for _ in 0..<15 {
      let message = try #require(try consumer.takeMessages(1).first)
      taken[message.body, default: 0] += 1
      try consumer.ack(message.tag)
    }
    #expect(queues.allSatisfy { (taken[$0] ?? 0) >= 3 }, "\(taken)")
    // Who acknowledges nothing waits while the channel is full.
    let other = try connect(node)
    _ = try other.declare("none")
    try publisher.publish("held", key: "none")
    try other.limitChannel(to: 1)
    try other.consume("none")
    let held = try #require(try other.takeMessages(1).first)
    _ = try other.declare("free")
    try other.consume("free", noAck: true)
    try publisher.publish("waits", key: "free")
    #expect(try publisher.declare("free") == 1)
    for _ in 0..<2 { _ = try other.declare("none") }
    #expect(other.messages.isEmpty)
    try other.ack(held.tag)
    #expect(try other.takeMessages(1).map(\.body) == ["waits"])
  }

  @Test("Settles of a transaction make room under the channel's limit (qos global=true)")
  func commitMakesRoom() throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    // Through the leader and through nodes that pass commands on to it.
    for (number, node) in cluster.nodes.enumerated() {
      let queue = "q\(number)"
      let client = try connect(node)
      for name in [queue, queue + "b"] { _ = try client.declare(name) }
      for text in 0..<4 { try client.publish("\(text)", key: queue) }
      try client.limitChannel(to: 1)
      try client.selectTransactions()
      for name in [queue, queue + "b"] { try client.consume(name) }
      for text in 0..<4 {
        let message = try #require(try client.takeMessages(1).first)
        #expect(message.body == "\(text)")
        try client.ack(message.tag)
        #expect(try client.declare(queue) == UInt64(3 - text))
        try client.commit()
      }
      #expect(try connect(node).declare(queue) == 0)
    }
  }

  @Test("An exclusive queue is its connection's, and goes with it")
  func exclusiveQueue() throws {
    let (cluster, node) = try single()
    defer { withExtendedLifetime(cluster) {} }
    let owner = try connect(node)
    _ = try owner.declare("mine", flags: 0b100)
    #expect(try owner.declare("mine", flags: 0b100) == 0)
    for action in ["declare", "consume", "delete"] {
      let other = try connect(node)
      let said = try closes {
        switch action {
        case "declare": _ = try other.declare("mine", flags: 0b100)
        case "consume": try other.consume("mine")
        default: try other.delete("mine")
        }
      }
      #expect(said.hasPrefix("closed: 405 RESOURCE_LOCKED - cannot obtain exclusive"), "\(action)")
    }
    try owner.closeConnection()
    let later = try connect(node)
    let said = try closes { _ = try later.declare("mine", flags: 0b1) }
    #expect(said == "closed: 404 NOT_FOUND - no queue 'mine' in vhost '/'")
  }

  @Test("x-single-active-consumer: one consumer at a time, the next when it goes")
  func singleActiveConsumer() throws {
    let (cluster, node) = try single()
    defer { withExtendedLifetime(cluster) {} }
    let publisher = try connect(node)
    let arguments: [(String, UInt32)] = [("x-single-active-consumer", 1)]
    _ = try publisher.declare("q", arguments: arguments)
    try publisher.selectConfirms()
    let first = try connect(node)
    let second = try connect(node)
    let tag = try first.consume("q")
    try second.consume("q")
    for number in 0..<4 { try publisher.publish("\(number)", key: "q") }
    try publisher.awaitConfirms(through: 4)
    let taken = try first.takeMessages(4)
    for _ in 0..<2 { _ = try second.declare("q", arguments: arguments) }
    #expect(second.messages.isEmpty)
    for message in taken { try first.ack(message.tag) }
    try first.cancel(tag)
    try publisher.publish("4", key: "q")
    #expect(try second.takeMessages(1).map(\.body) == ["4"])
  }

  @Test("What a consumer was given before it was cancelled comes before cancel-ok, in order")
  func givenComesBeforeCancelOK() throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    // One of them is the leader; the others have a way to go.
    for (number, node) in cluster.nodes.enumerated() {
      for noAck in [false, true] {
        let client = try connect(node)
        let queue = "q\(number) \(noAck)"
        _ = try client.declare(queue)
        let first = try client.consume(queue, noAck: noAck)
        let second = try client.consume(queue, noAck: noAck)
        let bodies = (0..<10).map { "\($0)" }
        for body in bodies { try client.publish(body, key: queue) }
        try client.cancel(first)
        func got(_ tag: String) -> [String] {
          client.messages.filter { $0.method.shortText(at: 0) == tag }.map(\.body)
        }
        let atCancel = got(first)
        #expect(!atCancel.isEmpty)
        for _ in 0..<1_000 where client.messages.count < 10 { _ = try client.declare(queue) }
        #expect(got(first) == atCancel)
        for tag in [first, second] { #expect(got(tag) == got(tag).sorted()) }
        #expect((got(first) + got(second)).sorted() == bodies)
        #expect(client.messages.allSatisfy { !$0.isRedelivered })
      }
    }
  }

  @Test("Hundreds of consumers without a prefetch share what a connection may hold")
  func manyConsumersWithoutPrefetch() throws {
    let (cluster, node) = try single()
    defer { withExtendedLifetime(cluster) {} }
    let client = try connect(node)
    _ = try client.declare("q")
    var tags: [String] = []
    for number in 0..<200 { tags.append(try client.consume("q", noAck: number % 4 == 0)) }
    for tag in tags.dropLast() { try client.cancel(tag) }
    // The one that is left may hold as much as if it had always been alone.
    let many = CreditShares.budget / 200 * 2
    for number in 0..<many { try client.publish("\(number)", key: "q") }
    #expect(try client.takeMessages(many).last?.body == "\(many - 1)")
  }

  @Test("Who gets a smaller share under a limit that is used up still gets its turn")
  func aSmallerShareUnderALimit() throws {
    let (cluster, node) = try single()
    defer { withExtendedLifetime(cluster) {} }
    let client = try connect(node)
    for queue in ["a", "b", "c"] { _ = try client.declare(queue) }
    try client.limitChannel(to: 1)
    try client.consume("a")
    try client.consume("b", noAck: true)
    try client.publish("held", key: "a")
    let held = try #require(try client.takeMessages(1).first)
    try client.openChannel(2)
    for _ in 0..<120 { try client.consume("c") }
    client.channel = 1
    try client.ack(held.tag)
    for number in 0..<3 { try client.publish("\(number)", key: "b") }
    #expect(try client.takeMessages(3).map(\.body) == ["0", "1", "2"])
  }

  @Test("x-expires: a queue that nobody uses goes; one with a consumer stays")
  func expiringQueue() throws {
    let (cluster, node) = try single()
    defer { withExtendedLifetime(cluster) {} }
    let client = try connect(node)
    let expires: [(String, UInt32)] = [("x-expires", 100)]
    func gone(_ queue: String) -> String {
      "closed: 404 NOT_FOUND - no queue '\(queue)' in vhost '/'"
    }
    var user = try connect(node)
    var said = ""
    for _ in 0..<100 {
      _ = try client.declare("used", arguments: expires)
      said = try closes { try user.consume("used") }
      if said.isEmpty { break }
      // This machine took longer than the queue lives: then nobody finds it.
      try #require(said == gone("used"))
      let looking = try connect(node)
      #expect(try closes { _ = try looking.declare("used", flags: 0b1) } == said)
      user = try connect(node)
    }
    try #require(said.isEmpty)
    _ = try client.declare("unused", arguments: expires)
    // Binding what is bound is no use of it; declaring it again would be.
    while said.isEmpty {
      let looking = try connect(node)
      said = try closes { try looking.bind("unused", to: "amq.direct", key: "") }
    }
    #expect(said == gone("unused"))
    #expect(try client.declare("used", flags: 0b1) == 0)
  }

  @Test("A time to live of nothing and a length of nothing: only who waits gets a message")
  func nothingMayWait() throws {
    let (cluster, node) = try single()
    defer { withExtendedLifetime(cluster) {} }
    let client = try connect(node)
    for argument in ["x-message-ttl", "x-max-length"] {
      _ = try client.declare(argument, arguments: [(argument, 0)])
      for _ in 0..<20 {
        try client.publish("lost", key: argument)
        #expect(try client.get(argument) == nil)
      }
      let tag = try client.consume(argument)
      try client.publish("taken", key: argument)
      let message = try #require(try client.takeMessages(1).first)
      #expect(message.body == "taken")
      // It does not wait for the next one either.
      try client.reject(message.tag)
      try client.cancel(tag)
      #expect(try client.get(argument) == nil)
    }
  }

  @Test("A leader short of disk takes no publishes through any node, and says so (G12, G13)")
  func diskIsShort() throws {
    let cluster = try InProcessCluster { $0.storage.diskBytesMax = 6 << 20 }
    try cluster.startAll()
    // One of them is connected to the leader.
    let publishers = try cluster.nodes.map { try connect($0) }
    _ = try publishers[0].declare("q")
    for publisher in publishers { try publisher.selectConfirms() }
    let body = String(repeating: "x", count: 100_000)
    var sent: UInt64 = 0
    while !publishers.allSatisfy({ $0.isBlocked }), sent < 1_000 {
      sent += 1
      for publisher in publishers where !publisher.isBlocked {
        try publisher.publish(body, key: "q")
        _ = try publisher.awaitConfirmUnlessBlocked(sent)
      }
    }
    #expect(publishers.allSatisfy { $0.isBlocked })
    let confirmed = publishers.map(\.confirmed)
    // A first publish is kept back as well.
    let late = try connect(cluster.nodes[1])
    try late.selectConfirms()
    try late.publish("late", key: "q")
    #expect(try !late.awaitConfirmUnlessBlocked(1))
    // Consuming goes on, and makes room: then publishes are taken again, those that wait first.
    let consumer = try connect(cluster.nodes[2])
    try consumer.consume("q", prefetch: 10)
    for _ in 0..<confirmed.reduce(0, +) {
      let message = try consumer.takeMessages(1)[0]
      #expect(message.body == body)
      try consumer.ack(message.tag)
    }
    for publisher in publishers { try publisher.awaitUnblocked() }
    try late.awaitConfirms(through: 1)
    // What waited may have taken the room: then all wait for the next cleaning.
    try late.awaitUnblocked()
  }

  @Test("What AMQP accepts without a word is there for skein doctor")
  func mistakesAreTold() async throws {
    let (cluster, node) = try single()
    defer { withExtendedLifetime(cluster) {} }
    let client = try connect(node)
    _ = try client.declare("q", arguments: [("x-retries", 3), ("x-max-delivery-attempts", 100)])
    _ = try client.declare("fine", flags: 0)
    try client.publish("transient", key: "q")
    try client.publish("transient, as the queue is", key: "fine")
    for _ in 0...AMQPAdvice.attemptsMax {
      let taken = try client.get("q")
      let message = try #require(taken)
      try client.reject(message.tag)
    }
    try client.consume("q", prefetch: 1)
    try client.consume("fine", prefetch: 0)
    // By another exchange it is seen when it comes out.
    let other = try connect(node)
    try other.declareExchange("fan", "fanout", arguments: other.entry("x-fan", "y"))
    _ = try other.declare("bound")
    try other.bind("bound", to: "fan", key: "")
    try other.publish("transient", to: "fan", key: "")
    let fanned = try other.get("bound")
    try other.ack(try #require(fanned).tag)
    // Consumers' priorities are announced, and there are none.
    let priority = other.short("x-priority") + [UInt8(ascii: "I")] + other.big(10, 4)
    try other.consume("bound", arguments: other.entry("x-consumer", "y") + priority)
    // Who is refused has done nothing.
    try other.openChannel(3)
    try other.call(3, 60, 20, [0, 0] + other.short("nowhere") + [0, 0, 0, 0, 0, 0])
    _ = try other.expect(20, 40)
    let reports = await SkeinClient.clusterStatus(
      endpoints: cluster.endpoints, timeout: .seconds(30))
    let report = try #require(reports.first)
    let overview = try report.result.get()
    #expect(
      overview.advice
        == [
          AMQPAdvice.Finding.unknownArgument("x-retries", queue: "q"), .synonym(queue: "q"),
          .transientMessage(queue: "q"), .requeueLoop(queue: "q"), .noPrefetch(queue: "fine"),
          .unknownExchangeArgument("x-fan", exchange: "fan"), .transientMessage(queue: "bound"),
          .unknownConsumerArgument("x-consumer", queue: "bound"),
          .unknownConsumerArgument("x-priority", queue: "bound"), .noPrefetch(queue: "bound"),
        ].map(\.sentence))
  }

  /// guest with its known password is for the node's own machine only (403).
  @Test(arguments: [
    ("127.0.0.1:1", true), ("127.8.9.1:1", true), ("[::1]:1", true), ("[::ffff:127.0.0.1]:1", true),
    ("10.0.0.1:1", false), ("192.0.2.127:1", false), ("[::2]:1", false),
    ("[::ffff:10.0.0.1]:1", false), ("[127::1]:1", false),
  ])
  func whatIsTheOwnMachine(address: String, isLoopback: Bool) throws {
    #expect(try SocketAddress(parsing: address).isLoopback == isLoopback)
  }

  @Test func adviceIsBounded() {
    var advice = AMQPAdvice()
    for number in 0..<1_000 {
      _ = advice.note(.noPrefetch(queue: "\(number % 100)"))
    }
    #expect(advice.findings.count == AMQPAdvice.countMax)
    #expect(advice.sentences.count == AMQPAdvice.countMax)
    // No kind hides another.
    let notes = [advice.note(.requeueLoop(queue: "q")), advice.note(.requeueLoop(queue: "q"))]
    #expect(notes == [true, false])
    #expect(advice.findings.count == AMQPAdvice.countMax + 1)
  }
}
