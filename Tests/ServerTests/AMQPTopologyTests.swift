// Exchanges and bindings over AMQP, as one node has them: what a client declares is what its messages go by.

import Base
import TestSupport
import Testing

@testable import Server

@Suite(.serialized, .ownThreads) struct AMQPTopologyTests {
  /// What of `queues` each of the messages is in, by their bodies.
  private func bodies(_ client: AMQPTestClient, in queue: String) throws -> [String] {
    var bodies: [String] = []
    while let message = try client.get(queue, noAck: true) { bodies.append(message.body) }
    return bodies
  }

  @Test("What an exchange has no queue for goes to its alternate exchange, and does not come back")
  func alternateExchange() throws {
    let harness = try AMQPHarness()
    let client = try harness.client()
    for queue in ["bound", "rest"] { _ = try client.declare(queue) }
    try client.declareExchange("others", "fanout")
    try client.bind("rest", to: "others", key: "")
    try client.declareExchange(
      "x", "direct", arguments: client.entry("alternate-exchange", "others"))
    try client.bind("bound", to: "x", key: "here")
    try client.selectConfirms()
    try client.publish("1", to: "x", key: "here", mandatory: true)
    try client.publish("2", to: "x", key: "nowhere", mandatory: true)
    try client.awaitConfirms(through: 2)
    #expect(client.messages.isEmpty)
    #expect(try bodies(client, in: "bound") == ["1"])
    #expect(try bodies(client, in: "rest") == ["2"])
    // Where that has none either, a mandatory message comes back.
    try client.unbind("rest", from: "others", key: "")
    try client.publish("3", to: "x", key: "nowhere", mandatory: true)
    #expect(try client.takeMessages(1).map(\.body) == ["3"])
  }

  @Test("A message goes through exchanges that are bound to each other, once to each queue")
  func exchangeToExchange() throws {
    let harness = try AMQPHarness()
    let client = try harness.client()
    for queue in ["near", "far"] { _ = try client.declare(queue) }
    try client.declareExchange("in", "topic")
    // Nobody publishes to it but exchanges.
    try client.declareExchange("inside", "topic", flags: 0b1010)
    try client.bindExchange("inside", to: "in", key: "a.#")
    // In a circle.
    try client.bindExchange("in", to: "inside", key: "#")
    try client.bind("near", to: "in", key: "*.b")
    try client.bind("far", to: "inside", key: "#.b")
    for key in ["a.b", "a.c", "c.b", "a.x.b"] { try client.publish(key, to: "in", key: key) }
    #expect(try bodies(client, in: "near") == ["a.b", "c.b"])
    #expect(try bodies(client, in: "far") == ["a.b", "a.x.b"])
    try client.unbindExchange("inside", from: "in", key: "a.#")
    try client.publish("again", to: "in", key: "a.b")
    #expect(try bodies(client, in: "near") == ["again"])
    #expect(try bodies(client, in: "far") == [])
  }

  @Test("A headers exchange takes what has all, or any, of a binding's headers")
  func headersExchange() throws {
    let harness = try AMQPHarness()
    let client = try harness.client()
    for queue in ["all", "any"] { _ = try client.declare(queue) }
    try client.declareExchange("h", "headers")
    let red = client.entry("colour", "red")
    let large = client.entry("size", "large")
    for queue in ["all", "any"] {
      try client.bind(
        queue, to: "h", key: "", arguments: red + large + client.entry("x-match", queue))
    }
    try client.publish("1", to: "h", key: "", headers: red)
    try client.publish("2", to: "h", key: "", headers: large + red)
    try client.publish("3", to: "h", key: "", headers: client.entry("colour", "blue"))
    #expect(try bodies(client, in: "all") == ["2"])
    #expect(try bodies(client, in: "any") == ["1", "2"])
    // A binding is known by its arguments.
    try client.unbind("any", from: "h", key: "", arguments: red + client.entry("x-match", "any"))
    try client.publish("4", to: "h", key: "", headers: red)
    #expect(try bodies(client, in: "any") == ["4"])
    try client.unbind(
      "any", from: "h", key: "", arguments: red + large + client.entry("x-match", "any"))
    try client.publish("5", to: "h", key: "", headers: red)
    #expect(try bodies(client, in: "any") == [])
  }

  @Test(
    "An auto-delete exchange goes with its last binding, not before its first",
    arguments: [true, false])
  func autoDeleteExchange(byUnbinding: Bool) throws {
    let harness = try AMQPHarness()
    let client = try harness.client()
    for queue in ["a", "b"] { _ = try client.declare(queue) }
    try client.declareExchange("x", "fanout", flags: 0b110)
    for queue in ["a", "b"] { try client.bind(queue, to: "x", key: "") }
    try client.publish("1", to: "x", key: "")
    try client.unbind("a", from: "x", key: "")
    try client.publish("2", to: "x", key: "")
    #expect(try bodies(client, in: "a") == ["1"])
    #expect(try bodies(client, in: "b") == ["1", "2"])
    if byUnbinding { try client.unbind("b", from: "x", key: "") } else { try client.delete("b") }
    #expect(
      throws: AMQPTestClient.Failure(
        description: "closed: 404 NOT_FOUND - no exchange 'x' in vhost '/'")
    ) {
      try client.declareExchange("x", "fanout", flags: 1)
    }
  }
}
