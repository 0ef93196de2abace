// AMQP on whole nodes: three in this process, with a client written from the specification.

import Base
import Foundation
import SkeinClient
import TestSupport
import Testing

@testable import Server

@Suite(.serialized, .ownThreads) struct AMQPNodeTests {
  func leader(_ cluster: InProcessCluster) async throws -> InProcessNode {
    let client = try await SkeinClient.connect(endpoints: cluster.endpoints)
    _ = try await client.listQueues()
    let address = client.leaderAddress
    await client.close()
    return try #require(
      cluster.nodes.first { $0.configuration.clientListen.description == address })
  }

  @Test("A publish through one node is confirmed and delivered through another")
  func everyNodeTakesClients() async throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    let publishers = try cluster.nodes.map { try connect($0) }
    #expect(try publishers[0].declare("q") == 0)
    for (number, client) in publishers.enumerated() {
      // Declared through any node it is there for all.
      #expect(try client.declare("q") == UInt64(number))
      try client.selectConfirms()
      try client.publish("\(number)", key: "q")
      try client.awaitConfirms(through: 1)
    }
    let consumer = try connect(cluster.nodes[1])
    try consumer.consume("q", prefetch: 10)
    let taken = try consumer.takeMessages(3)
    #expect(taken.map(\.body) == ["0", "1", "2"])
    for message in taken { try consumer.ack(message.tag) }
    try consumer.closeConnection()
    #expect(try publishers[2].declare("q") == 0)
  }

  /// Found by chaos: mixed over AMQP, seed 4.
  @Test("What clients of a removed node held goes back (G7)")
  func nodeIsRemoved() async throws {
    let cluster = try InProcessCluster { $0.timeouts.session = .seconds(2) }
    try cluster.startAll()
    let leader = try await leader(cluster)
    let removed = try #require(cluster.nodes.first { $0 !== leader })
    let lost = try connect(removed)
    _ = try lost.declare("q")
    try lost.consume("q", prefetch: 10)
    let publisher = try connect(leader)
    for number in 0..<10 { try publisher.publish("\(number)", key: "q") }
    #expect(try lost.takeMessages(10).count == 10)
    // It cannot say any more that its clients are gone.
    removed.kill()
    let client = try await SkeinClient.connect(endpoints: cluster.endpoints)
    try await client.removeMember(id: Int(removed.configuration.node.rawValue))
    await client.close()
    try publisher.consume("q", prefetch: 10)
    let taken = try publisher.takeMessages(10)
    #expect(taken.map(\.body) == (0..<10).map { "\($0)" })
  }

  @Test("A client of a node that survives sees a pause and nothing else (G4, G7)")
  func leaderDies() async throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    let leader = try await leader(cluster)
    let survivor = try #require(cluster.nodes.first { $0 !== leader })
    let publisher = try connect(survivor)
    _ = try publisher.declare("q")
    try publisher.selectConfirms()
    let consumer = try connect(survivor)
    for number in 0..<100 { try publisher.publish("\(number)", key: "q") }
    try publisher.awaitConfirms(through: 100)
    try consumer.consume("q", prefetch: 20)
    let held = try consumer.takeMessages(20)
    leader.kill()
    for number in 100..<300 { try publisher.publish("\(number)", key: "q") }
    for message in held { try consumer.ack(message.tag) }
    try publisher.awaitConfirms(through: 300)
    var taken = held
    while taken.count < 300 {
      let message = try consumer.takeMessages(1)[0]
      try consumer.ack(message.tag)
      taken.append(message)
    }
    #expect(taken.map(\.body) == (0..<300).map { "\($0)" })
    #expect(!taken.contains { $0.isRedelivered })
    try consumer.closeConnection()
    #expect(try publisher.declare("q") == 0)
  }

  @Test("What a node's clients held goes to others when it starts again as another process")
  func nodeOfTheClientDies() async throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    let leader = try await leader(cluster)
    let other = try #require(cluster.nodes.first { $0 !== leader })
    let publisher = try connect(leader)
    _ = try publisher.declare("q")
    try publisher.selectConfirms()
    for number in 0..<10 { try publisher.publish("\(number)", key: "q") }
    try publisher.awaitConfirms(through: 10)
    let dying = try connect(other)
    try dying.consume("q", prefetch: 10)
    _ = try dying.takeMessages(10)
    other.kill()
    try other.start()
    // The first client of the new process makes it begin its stream of commands.
    let consumer = try connect(other)
    try consumer.consume("q", prefetch: 10)
    let taken = try consumer.takeMessages(10)
    #expect(taken.map(\.body) == (0..<10).map { "\($0)" })
    #expect(taken.allSatisfy { $0.isRedelivered })
  }

  @Test("A lost connection gives back what it held, in place, and takes its exclusive queue along")
  func connectionIsLost() throws {
    let cluster = try InProcessCluster(1)
    try cluster.startAll()
    let node = cluster.nodes[0]
    let publisher = try connect(node)
    _ = try publisher.declare("q")
    try publisher.selectConfirms()
    for number in 0..<5 { try publisher.publish("\(number)", key: "q") }
    try publisher.awaitConfirms(through: 5)
    var dying: AMQPTestClient? = try connect(node)
    try dying?.consume("q", prefetch: 3)
    _ = try dying?.takeMessages(3)
    dying = nil
    let consumer = try connect(node)
    try consumer.consume("q", prefetch: 5)
    #expect(try consumer.takeMessages(5).map(\.body) == ["0", "1", "2", "3", "4"])
  }

  @Test("basic.get of a damaged record waits until the other nodes have mended it (G11)")
  func damagedRecord() throws {
    // Nothing is kept in memory that is in the log.
    let cluster = try InProcessCluster { $0.limits.entryCacheBytes = 1 }
    try cluster.startAll()
    let node = cluster.nodes[1]
    let client = try connect(node)
    _ = try client.declare("q")
    try client.selectConfirms()
    let body = String(repeating: "a damaged record ", count: 100)
    try client.publish(body, key: "q")
    try client.publish("the next one", key: "q")
    try client.awaitConfirms(through: 2)
    for _ in 0..<10 { _ = try client.declare("q", flags: 1) }
    var isSpoiled = false
    // Each question is a few messages between the nodes later.
    for _ in 0..<1_000 where !isSpoiled {
      isSpoiled = try spoil(body, in: node)
      try client.publish("more", key: "another queue")
      _ = try client.declare("q")
    }
    #expect(isSpoiled)
    #expect(try client.get("q")?.body == body)
    #expect(try client.get("q")?.body == "the next one")
    #expect(try client.get("q") == nil)
  }

  /// Changes a byte of the text wherever it stands in the node's log; false if it is not there yet.
  private func spoil(_ text: String, in node: InProcessNode) throws -> Bool {
    let directory = URL(fileURLWithPath: node.configuration.dataDirectory)
    let names = try FileManager.default.contentsOfDirectory(atPath: directory.path)
    for name in names where name.hasPrefix("segment-") {
      let path = directory.appendingPathComponent(name)
      guard let place = try Data(contentsOf: path).firstRange(of: Data(text.utf8)) else { continue }
      let file = try FileHandle(forWritingTo: path)
      try file.seek(toOffset: UInt64(place.lowerBound))
      try file.write(contentsOf: Data([0]))
      try file.close()
      return true
    }
    return false
  }

  @Test(
    "What is unroutable comes back before its confirm; errors close the channel with RabbitMQ's text"
  )
  func returnsAndErrors() throws {
    let cluster = try InProcessCluster(1)
    try cluster.startAll()
    let client = try connect(cluster.nodes[0])
    try client.selectConfirms()
    try client.publish("back", key: "nowhere", mandatory: true)
    try client.awaitConfirms(through: 1)
    let returned = try #require(client.messages.first)
    #expect(returned.body == "back" && returned.method.number(at: 0, bytes: 2) == 312)
    _ = try client.declare("q")
    try client.bind("q", to: "amq.topic", key: "a.#")
    try client.publish("routed", to: "amq.topic", key: "a.b")
    try client.awaitConfirms(through: 2)
    #expect(try client.get("q")?.body == "routed")
    #expect(try client.get("q") == nil)
    try client.publish("lost", to: "missing", key: "")
    #expect(throws: AMQPTestClient.Failure.self) { _ = try client.declare("q") }
    do {
      _ = try client.expect(50, 11)
    } catch let failure as AMQPTestClient.Failure {
      #expect(
        failure.description == "closed: 404 NOT_FOUND - no exchange 'missing' in vhost '/'")
    }
  }
}
