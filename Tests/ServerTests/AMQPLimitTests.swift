// basic.qos global=true on whole nodes: what is counted, and against which channel's limit.

import Base
import TestSupport
import Testing

@testable import Server

@Suite(.serialized, .ownThreads) struct AMQPLimitTests {
  /// Two answers later everything that was decided before has come.
  func comesNothing(to client: AMQPTestClient, _ queue: String) throws -> Bool {
    for _ in 0..<2 { _ = try client.declare(queue) }
    return client.messages.isEmpty
  }

  @Test("Each channel's limit counts what that channel holds", arguments: [false, true])
  func limitsOfTwoChannels(withTwoConsumers: Bool) throws {
    let (cluster, node) = try single()
    defer { withExtendedLifetime(cluster) {} }
    let client = try connect(node)
    for queue in ["a", "b"] { _ = try client.declare(queue) }
    for number in 0..<6 { try client.publish("\(number)", key: "a") }
    try client.limitChannel(to: 6)
    try client.consume("a")
    if withTwoConsumers { try client.consume("b") }
    let held = try client.takeMessages(6)
    try client.openChannel(2)
    try client.limitChannel(to: 6)
    client.channel = 1
    try client.ackAll(through: try #require(held.last).tag)
    if withTwoConsumers {
      try client.publish("b", key: "b")
      #expect(try client.takeMessages(1).map(\.body) == ["b"])
    }
    for number in 6..<13 { try client.publish("\(number)", key: "a") }
    let room = withTwoConsumers ? 5 : 6
    #expect(try client.takeMessages(room).map(\.body) == (6..<6 + room).map { "\($0)" })
    #expect(try comesNothing(to: client, "a"))
    // The other channel has its own.
    client.channel = 2
    for number in 0..<7 { try client.publish("b\(number)", key: "b") }
    if withTwoConsumers { return }
    try client.consume("b")
    let others = try client.takeMessages(6)
    #expect(others.map(\.body) == (0..<6).map { "b\($0)" })
    #expect(others.allSatisfy { $0.method.channel == 2 })
    #expect(try comesNothing(to: client, "b"))
  }

  @Test(
    "A limit that is set in a transaction counts what it has settled", arguments: [true, false])
  func limitInTransaction(isCommitted: Bool) throws {
    let (cluster, node) = try single()
    defer { withExtendedLifetime(cluster) {} }
    let publisher = try connect(node)
    try publisher.selectConfirms()
    for queue in ["a", "b"] { _ = try publisher.declare(queue) }
    for _ in 0..<5 { try publisher.publish("a", key: "a") }
    for _ in 0..<10 { try publisher.publish("b", key: "b") }
    let client = try connect(node)
    try client.selectTransactions()
    for queue in ["a", "b"] { try client.consume(queue) }
    let held = try client.takeMessages(15)
    for message in held where message.body == "a" { try client.ack(message.tag) }
    try client.limitChannel(to: 6)
    if isCommitted { try client.commit() } else { try client.rollBack() }
    // It holds ten or fifteen, above its limit.
    for number in 0..<9 { try publisher.publish("\(number)", key: "a") }
    try publisher.awaitConfirms(through: 24)
    #expect(try comesNothing(to: client, "a"))
    try client.ackAll(through: held[13].tag)
    try client.commit()
    // One of the old ones is left: five more make six.
    #expect(try client.takeMessages(5).map(\.body) == (0..<5).map { "\($0)" })
    #expect(try comesNothing(to: client, "a"))
    try client.ack(held[14].tag)
    try client.commit()
    #expect(try client.takeMessages(1).map(\.body) == ["5"])
    #expect(try comesNothing(to: client, "a"))
  }
}
