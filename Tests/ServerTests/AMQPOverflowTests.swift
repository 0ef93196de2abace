// Publishes that are more work than one entry may do, on whole nodes.

import Base
import TestSupport
import Testing

@testable import Server

@Suite(.serialized, .ownThreads) struct AMQPOverflowTests {
  /// What a node's clients publish beyond what an entry may match goes into the next ones, through
  /// whichever node it comes: all of it, once, and in its order.
  @Test func whatIsTooMuchForAnEntryIsStoredByTheNext() throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    for (number, node) in cluster.nodes.enumerated() {
      let port = try #require(node.configuration.amqpListen?.port)
      let client = try AMQPTestClient(port: port)
      try client.open()
      let queue = "q\(number)"
      _ = try client.declare(queue)
      if number == 0 {
        for place in 0..<10 { try bindWidely(client, queue, key: "\(place)") }
      }
      try bind(client, queue, key: "", [])
      try client.selectConfirms()
      // Each looks at 30,000 headers, and an entry at four million.
      let count = 1_200
      for place in 1...count { try client.publish("\(place)", to: "amq.headers", key: "") }
      try client.awaitConfirms(through: UInt64(count))
      #expect(try client.declare(queue) == UInt64(count))
      try client.consume(queue, noAck: true)
      #expect(try client.takeMessages(count).map(\.body) == (1...count).map { "\($0)" })
    }
  }

  /// A binding that asks for 3,000 headers that no message has.
  private func bindWidely(_ client: AMQPTestClient, _ queue: String, key: String) throws {
    var wanted: [UInt8] = []
    for first in UInt8(ascii: "A")..<UInt8(ascii: "A") + 50 {
      for second in UInt8(ascii: "A")..<UInt8(ascii: "A") + 60 {
        wanted += [2, first, second, UInt8(ascii: "V")]
      }
    }
    try bind(client, queue, key: key, wanted)
  }

  private func bind(
    _ client: AMQPTestClient, _ queue: String, key: String, _ arguments: [UInt8]
  ) throws {
    try client.call(
      1, 50, 20,
      [0, 0] + client.short(queue) + client.short("amq.headers") + client.short(key) + [0]
        + client.big(UInt64(arguments.count), 4) + arguments)
    _ = try client.expect(50, 21)
  }
}
