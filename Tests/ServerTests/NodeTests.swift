// Whole nodes: three of them in this process, with their sockets, disks and threads, and the client
// library as their user.

import Base
import Foundation
import SkeinClient
import TestSupport
import Testing
import Transport
import Wire

@testable import Server

@Suite(.serialized, .ownThreads) struct NodeTests {
  var options: ClientOptions {
    var options = ClientOptions()
    options.timeout = .seconds(60)
    return options
  }

  func connect(_ cluster: InProcessCluster) async throws -> SkeinClient {
    try await SkeinClient.connect(endpoints: cluster.endpoints, options: options)
  }

  func leader(_ cluster: InProcessCluster, _ client: SkeinClient) async throws -> InProcessNode {
    // A request that only the leader answers, so that the client knows it.
    _ = try await client.listQueues()
    let address = client.leaderAddress
    return try #require(
      cluster.nodes.first { $0.configuration.clientListen.description == address })
  }

  func publish(_ range: Range<Int>, to queue: String, _ client: SkeinClient) async throws {
    let publisher = try await client.publisher(for: queue, window: 100)
    for number in range { _ = try await publisher.send(Message("\(number)")) }
    try await publisher.flush()
  }

  /// Takes and acknowledges `count` messages.
  func take(_ count: Int, from queue: String, _ client: SkeinClient) async throws -> [Int] {
    let consumer = try await client.consume(queue, prefetch: 50)
    var numbers: [Int] = []
    while numbers.count < count {
      for delivery in try await consumer.nextBatch(max: count - numbers.count) {
        numbers.append(Int(delivery.text) ?? -1)
        delivery.acknowledgeSoon()
      }
    }
    let failures = try await consumer.flush()
    #expect(failures.isEmpty)
    consumer.cancel()
    return numbers
  }

  @Test("A queue outlives the death of its leader, in order and each once (G1, G2, G7)")
  func leaderDies() async throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    let client = try await connect(cluster)
    _ = try await client.declareQueue("q")
    try await publish(0..<500, to: "q", client)
    let first = try await leader(cluster, client)
    let consumer = try await client.consume("q", prefetch: 100)
    var held: [Delivery] = []
    while held.count < 100 { held += try await consumer.nextBatch() }
    first.kill()
    for delivery in held { try await delivery.acknowledge() }
    try await publish(500..<600, to: "q", client)
    var numbers = held.compactMap { Int($0.text) }
    while numbers.count < 600 {
      for delivery in try await consumer.nextBatch() {
        #expect(!delivery.isRedelivered)
        numbers.append(Int(delivery.text) ?? -1)
        delivery.acknowledgeSoon()
      }
    }
    let failures = try await consumer.flush()
    #expect(failures.isEmpty)
    #expect(numbers == Array(0..<600))
    let redelivered = try await client.showQueue("q").redelivered
    #expect(redelivered == 0)
    await client.close()
  }

  @Test("All nodes killed at once: what was confirmed is there after the restart (G1)")
  func allDie() async throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    let client = try await connect(cluster)
    _ = try await client.declareQueue("q")
    try await publish(0..<300, to: "q", client)
    for node in cluster.nodes { node.kill() }
    try cluster.startAll()
    let taken = try await take(300, from: "q", client)
    #expect(taken == Array(0..<300))
    await client.close()
  }

  @Test("A damaged log is noticed, mended from the peers, and ends in the same state (G11)")
  func damagedLog() async throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    let client = try await connect(cluster)
    _ = try await client.declareQueue("q")
    try await publish(0..<300, to: "q", client)
    let leader = try await leader(cluster, client)
    let hurt = try #require(cluster.nodes.first { $0 !== leader })
    hurt.stop()
    try flipByte(in: hurt)
    try hurt.start()
    try await publish(300..<400, to: "q", client)
    try await waitForEqualStates(cluster)
    leader.kill()
    let taken = try await take(400, from: "q", client)
    #expect(taken == Array(0..<400))
    await client.close()
  }

  /// Changes a byte in the middle of what the node's first segment holds.
  private func flipByte(in node: InProcessNode) throws {
    let directory = URL(fileURLWithPath: node.configuration.dataDirectory)
    let names = try FileManager.default.contentsOfDirectory(atPath: directory.path)
    let name = try #require(names.filter { $0.hasPrefix("segment-") }.min())
    let file = directory.appendingPathComponent(name)
    var bytes = try Data(contentsOf: file)
    let end = try #require(bytes.lastIndex { $0 != 0 })
    bytes[end / 2] ^= 0x40
    try bytes.write(to: file)
  }

  /// Asks until all nodes report one hash for one index.
  private func waitForEqualStates(_ cluster: InProcessCluster) async throws {
    for _ in 0..<1_000 {
      var states: Set<String> = []
      for endpoint in cluster.endpoints {
        let node = try await SkeinClient.status(of: endpoint, timeout: .seconds(10))
        states.insert("\(node.stateHash)@\(node.stateHashIndex)")
      }
      if states.count == 1 { return }
    }
    Issue.record("the nodes do not come to the same state")
  }

  @Test("Snapshots shorten the log; a node that was away for long gets one and catches up")
  func snapshots() async throws {
    let cluster = try InProcessCluster { $0.storage.snapshotBytes = 256 << 10 }
    try cluster.startAll()
    let client = try await connect(cluster)
    _ = try await client.declareQueue("q")
    try await publish(0..<10, to: "q", client)
    let leader = try await leader(cluster, client)
    let late = try #require(cluster.nodes.first { $0 !== leader })
    late.kill()
    let publisher = try await client.publisher(for: "q", window: 100)
    let body = [UInt8](repeating: 120, count: 10_000)
    for _ in 0..<300 { _ = try await publisher.send(Message(body: body)) }
    try await publisher.flush()
    _ = try await take(10 + 290, from: "q", client)
    try late.start()
    try await waitForEqualStates(cluster)
    let names = try FileManager.default.contentsOfDirectory(
      atPath: late.configuration.dataDirectory)
    #expect(names.contains { $0.hasPrefix("snapshot-") })
    leader.kill()
    let rest = try await take(10, from: "q", client)
    #expect(rest.count == 10)
    await client.close()
  }

  @Test("Garbage, another cluster and a browser on the peers' port change nothing")
  func hostilePeers() async throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    let client = try await connect(cluster)
    _ = try await client.declareQueue("q")
    var random = SeededRandom(seed: 5)
    let garbage = (0..<4_096).map { _ in UInt8.random(in: 0...255, using: &random) }
    let introduction = Preamble.peerBytes + garbage
    for bytes in [garbage, introduction, Array("GET / HTTP/1.1\r\n\r\n".utf8)] {
      for node in cluster.nodes { try send(bytes, to: node.configuration.peerListen) }
    }
    try await publish(0..<50, to: "q", client)
    let taken = try await take(50, from: "q", client)
    #expect(taken == Array(0..<50))
    await client.close()
  }

  /// Sends bytes and waits until the other side hangs up.
  private func send(_ bytes: [UInt8], to endpoint: Endpoint) throws {
    let address = try #require(try SocketAddress.resolve(endpoint).first)
    let poller = try Poller()
    let connection = try Connection.connect(
      to: address, pool: BufferPool(), now: MonotonicClock.now())
    try connection.register(with: poller, token: 1, interest: .write)
    var events: [PollEvent] = []
    while connection.isConnecting {
      poller.wait(timeout: nil, into: &events)
      if case .failed(let error) = connection.finishConnect() { throw error }
    }
    #expect(connection.append(bytes))
    while true {
      _ = connection.flush(now: MonotonicClock.now())
      switch connection.read(now: MonotonicClock.now()) {
      case .closed, .failed: return
      case .read: connection.consume(connection.unreadBytes)
      case .wouldBlock, .full: break
      }
      connection.setInterest(.read, poller: poller)
      poller.wait(timeout: .seconds(30), into: &events)
      try #require(!events.isEmpty, "the node keeps a connection that sent garbage")
    }
  }

  @Test("A node that is told to stop ends, also if it is removed or its disk fails on the way")
  func haltedWhileStopping() throws {
    let cluster = try InProcessCluster(1)
    let configuration = cluster.nodes[0].configuration
    var loop = try NodeLoop.start(
      configuration, log: NodeLog(node: configuration.node, isQuiet: true), signals: nil)
    loop.beginStopping(now: MonotonicClock.now())
    loop.halt("for a test", now: MonotonicClock.now())
    var isOver = false
    if case .ended(exitCode: 0) = loop.phase { isOver = true }
    #expect(isOver)
    // A halted one is stopped by the second of these.
    for _ in 0..<2 { loop.mailbox.post(.stop) }
    #expect(loop.runToEnd() == 0)
  }

  @Test("A member is added under its own number and votes; the leader is removed and goes (§4)")
  func membership() async throws {
    let cluster = try InProcessCluster(4) { configuration in
      let isNew = configuration.node == NodeID(4)
      configuration.join = isNew
      if !isNew { configuration.members.removeLast() }
    }
    for node in cluster.nodes.prefix(3) { try node.start() }
    let client = try await SkeinClient.connect(
      endpoints: Array(cluster.endpoints.prefix(3)), options: options)
    _ = try await client.declareQueue("q")
    try await publish(0..<100, to: "q", client)
    let fourth = cluster.nodes[3]
    try fourth.start()
    try await client.addMember(
      id: 4, peerAddress: fourth.configuration.peerListen.description,
      clientAddress: fourth.configuration.clientListen.description)
    // Told without being asked.
    #expect(client.knownAddresses.contains(fourth.configuration.clientListen.description))
    let leader = try await leader(cluster, client)
    try await client.removeMember(id: Int(leader.configuration.node.rawValue))
    try await publish(100..<200, to: "q", client)
    let members = try await client.members()
    #expect(members.count == 3)
    #expect(members.map(\.votes) == [true, true, true])
    leader.kill()
    let taken = try await take(200, from: "q", client)
    #expect(taken == Array(0..<200))
    await client.close()
  }
}
