// Who gets in and who is shown out: preamble, hello, wrong frames, limits, time, shutdown.

import Base
import Glibc
import Node
import QueueMachine
import Testing
import Wire

@testable import Server
@testable import Transport

@Suite struct ClientGatewayConnectionTests {
  @Test func helloTellsOfTheClusterAndItsLimits() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.connect()
    client.send(bytes: Preamble.clientBytes)
    guard case .helloReply(let hello) = try client.ask(.hello(client: "test")) else {
      Issue.record("no hello reply")
      return
    }
    #expect(hello.cluster == 0xabc)
    #expect(hello.node == NodeID(1))
    #expect(hello.leader == NodeID(1))
    #expect(hello.leaderAddress == "node1:2")
    #expect(hello.addresses == ["node1:2"])
    #expect(hello.version == "test")
    #expect(hello.messageBytesMax == 32 << 20)
    #expect(hello.frameBytesMax > hello.messageBytesMax)
    // What is configured is more than the machine keeps answers to.
    #expect(harness.gateway.configuration.limits.publishesInFlight == 100_000)
    #expect(hello.publishWindow == 65_536)
    #expect(harness.gateway.connectionCount == 1)
    guard case .pong = try client.ask(.ping) else {
      Issue.record("no pong")
      return
    }
  }

  @Test(arguments: [
    ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not HTTP"), ("AMQP\0\0\u{9}\u{1}", "not AMQP"),
    ("SKEIN\0\u{9}C", "version 9"), ("SKEIN\0\u{1}P", "not for other nodes"),
    ("hello there, who are you?", "not what you sent"),
  ])
  func strangersGetOneLineAndAreClosed(sent: String, told: String) throws {
    let harness = try GatewayHarness.leading()
    let stranger = try harness.connect()
    stranger.parses = false
    stranger.send(bytes: Array(sent.utf8))
    try harness.run(until: "closed") { stranger.isClosed }
    let line = String(decoding: stranger.bytes, as: UTF8.self)
    #expect(line.contains(told), "told: \(line)")
    #expect(line.hasSuffix("\r\n"))
    harness.settle()
    #expect(harness.gateway.clients.isEmpty)
  }

  @Test func whoHasNotIntroducedItselfHasNoRoomForMore() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.connect()
    client.send(bytes: Preamble.clientBytes)
    client.publish([[UInt8](repeating: 0, count: 9_000)], to: QueueID(1))
    try harness.run(until: "closed") { client.isClosed }
    guard case .refused(.messageTooLarge, let detail, _) = client.news.last else {
      Issue.record("told \(client.news)")
      return
    }
    #expect(detail.contains("8192"), "told: \(detail)")
  }

  @Test func framesBegunOnAllConnectionsHaveABound() throws {
    let harness = try GatewayHarness.leading()
    let free = ClientGatewayLimits.begunBytesFree
    harness.gateway.begunBytesMax = 700_000
    /// A publish of 8 MiB, of which only so much comes.
    func begin(_ bytes: Int) throws -> TestClient {
      let client = try harness.client(producer: UInt64(harness.gateway.connectionCount) + 1)
      var frame: [UInt8] = []
      let run = [UInt8](repeating: 0, count: 8 << 20)
      run.withUnsafeBytes {
        PublishView(
          queue: QueueID(1), first: PublishSequence(1), answeredThrough: .zero, count: 1, run: $0
        ).encode(into: &frame)
      }
      client.send(bytes: Array(frame[..<bytes]))
      return client
    }
    // Below its free part none counts.
    let small = try (1...4).map { _ in try begin(free) }
    let large = try begin(free + 400_000)
    try harness.run(until: "counted") { harness.gateway.begunBytes == 400_000 }
    let late = try begin(free + 350_000)
    try harness.run(until: "closed") { large.isClosed || late.isClosed }
    #expect(large.isClosed && !late.isClosed)
    guard case .refused(.overloaded, let detail, _) = large.news.last else {
      Issue.record("told \(large.news)")
      return
    }
    #expect(detail.contains("larger than 700000 bytes"), "told: \(detail)")
    try harness.run(until: "all read") { harness.gateway.begunBytes == 350_000 }
    #expect(small.allSatisfy { !$0.isClosed })
    late.close()
    try harness.run(until: "gone") { harness.gateway.begunBytes == 0 }

    // Who waits for this node is not closed for it.
    let waiting = try begin(free + 500_000)
    try harness.run(until: "counted") { harness.gateway.begunBytes == 500_000 }
    let token = try #require(
      harness.gateway.clients.sortedKeys.first {
        harness.gateway.clients[$0]?.begunBytes == 500_000
      })
    harness.gateway.clients[token]?.pause = .noRoom
    let next = try begin(free + 300_000)
    try harness.run(until: "closed") { waiting.isClosed || next.isClosed }
    #expect(next.isClosed && !waiting.isClosed)
    // Who does not read its answers makes this node wait, not the other way round.
    harness.gateway.clients[token]?.pause = .outputFull
    let last = try begin(free + 300_000)
    try harness.run(until: "closed") { waiting.isClosed || last.isClosed }
    #expect(waiting.isClosed && !last.isClosed)
  }

  @Test("Where too much waits for this node nobody is closed for it, and no more is read")
  func framesThatWaitForThisNode() throws {
    let harness = try GatewayHarness.leading(unappliedBytesMax: 256 << 10)
    let publisher = try harness.client(producer: 1)
    let queue = try publisher.declare("q")
    let others = try (2...5).map { try harness.client(producer: $0) }
    let quiet = try harness.client(producer: 6)
    harness.holdsStores = true
    let body = [UInt8](repeating: 7, count: 10_000)
    for _ in 0..<60 { publisher.publish([body], to: queue) }
    harness.settle()
    let hasRoom = harness.replica.hasRoom
    #expect(!hasRoom)
    harness.gateway.begunBytesMax = 1 << 20
    func count(_ pause: ClientConnection.Pause) -> Int {
      harness.gateway.clients.sortedKeys.count { harness.gateway.clients[$0]?.pause == pause }
    }
    for (place, bytes) in [1 << 20, 1 << 20, 400_000, 400_000].enumerated() {
      others[place].publish([[UInt8](repeating: 8, count: bytes)], to: queue)
      // What it sends takes its time on the way.
      try harness.run(until: "paused") { count(.noRoom) + count(.crowded) == place + 2 }
    }
    // The first two have sent all; of the others only so much is read that it is seen.
    #expect(count(.noRoom) == 3 && count(.crowded) == 2)
    #expect((2 << 20..<3 << 20).contains(harness.gateway.begunBytes))
    // Who begins no large frame is not concerned.
    guard case .pong = try quiet.ask(.ping) else {
      Issue.record("a ping is not answered")
      return
    }
    #expect(others.allSatisfy { !$0.isClosed })
    harness.releaseStores()
    try harness.run(until: "all confirmed") {
      publisher.confirmed == 60 && others.allSatisfy { $0.confirmed == 1 }
    }
    #expect(harness.gateway.begunBytes == 0)
  }

  @Test func aPreambleInPiecesIsOne() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.connect()
    for byte in Preamble.clientBytes {
      client.send(bytes: [byte])
      harness.settle()
    }
    guard case .helloReply = try client.ask(.hello(client: "slow")) else {
      Issue.record("no hello reply")
      return
    }
  }

  @Test func nothingIsServedBeforeHello() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.connect()
    client.send(bytes: Preamble.clientBytes)
    client.send(.ping, request: RequestID(1))
    try harness.run(until: "closed") { client.isClosed }
    #expect(client.connectionRefusal?.refusal == .malformedRequest)
    #expect(client.connectionRefusal?.detail.contains("hello") == true)
  }

  @Test(arguments: [false, true])
  func whoDoesNotIntroduceItselfIsClosed(saysPreamble: Bool) throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.connect()
    if saysPreamble { client.send(bytes: Preamble.clientBytes) }
    harness.settle()
    harness.pass(.milliseconds(4_999))
    #expect(harness.gateway.clients.count == 1)
    harness.pass(.milliseconds(1))
    try harness.run(until: "closed") { client.isClosed }
    #expect((client.connectionRefusal != nil) == saysPreamble)
  }

  /// A frame's header, with a payload of zeros.
  static func frame(
    kind: UInt8, version: UInt8 = 1, payloadBytes: UInt32, sent: Int
  ) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.put(payloadBytes)
    bytes.put(kind)
    bytes.put(version)
    bytes.put(UInt16(0))
    bytes.put(UInt64(5))
    return bytes + [UInt8](repeating: 0, count: sent)
  }

  @Test(arguments: [
    (frame(kind: FrameKind.publish.rawValue, payloadBytes: .max, sent: 0), Refusal.messageTooLarge),
    (frame(kind: 63, payloadBytes: 0, sent: 0), .unknownRequest),
    (frame(kind: FrameKind.pong.rawValue, payloadBytes: 0, sent: 0), .unknownRequest),
    (frame(kind: FrameKind.ping.rawValue, version: 2, payloadBytes: 0, sent: 0), .notSupported),
    (frame(kind: FrameKind.subscribe.rawValue, payloadBytes: 3, sent: 3), .malformedRequest),
    (frame(kind: FrameKind.publish.rawValue, payloadBytes: 32, sent: 32), .malformedRequest),
    (frame(kind: FrameKind.ping.rawValue, payloadBytes: 2, sent: 2), .malformedRequest),
  ])
  func wrongFramesAreNamedAndCloseOnlyTheirConnection(bytes: [UInt8], refusal: Refusal) throws {
    let harness = try GatewayHarness.leading()
    let other = try harness.greetedClient()
    let client = try harness.client()
    client.send(bytes: bytes)
    try harness.run(until: "closed") { client.isClosed }
    #expect(client.connectionRefusal?.refusal == refusal)
    #expect(client.connectionRefusal?.detail.isEmpty == false)
    guard case .pong = try other.ask(.ping) else {
      Issue.record("the other connection was hurt")
      return
    }
    harness.settle()
    #expect(harness.gateway.clients.count == 1)
  }

  @Test func aReplyWithoutARequestIdCannotBeAskedFor() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.greetedClient()
    client.send(.listQueues)
    try harness.run(until: "closed") { client.isClosed }
    #expect(client.connectionRefusal?.refusal == .malformedRequest)
  }

  @Test func connectionsOverTheLimitHearSo() throws {
    let harness = try GatewayHarness.leading { $0.limits.connections = 2 }
    let clients = [try harness.greetedClient(), try harness.greetedClient()]
    let third = try harness.connect()
    try harness.run(until: "closed") { third.isClosed }
    #expect(third.connectionRefusal?.refusal == .overloaded)
    #expect(third.connectionRefusal?.detail.contains("2 connections") == true)
    #expect(harness.gateway.connectionCount == 2)
    #expect(harness.gateway.counters.refusedConnections == 1)
    clients[0].close()
    harness.settle()
    _ = try harness.greetedClient()
  }

  @Test func aSilentClientIsClosedAndOneThatPingsIsNot() throws {
    let harness = try GatewayHarness.leading()
    let silent = try harness.greetedClient()
    let pinging = try harness.greetedClient()
    harness.pass(.seconds(20))
    _ = try pinging.ask(.ping)
    harness.pass(.seconds(10))
    try harness.run(until: "closed") { silent.isClosed }
    #expect(silent.connectionRefusal != nil)
    #expect(!pinging.isClosed)
    _ = try pinging.ask(.ping)
  }

  @Test func aSlowReaderIsClosedNotWaitedFor() throws {
    let harness = try GatewayHarness.leading()
    let producer = try harness.client(producer: 1)
    var settings = QueueSettings()
    settings.lease = .seconds(300)
    let queue = try producer.declare("q", settings)
    let reader = try harness.client(producer: 2)
    try reader.subscribe(1, to: queue, credit: 8)
    reader.reads = false
    let body = [UInt8](repeating: 1, count: 12 << 20)
    try producer.publishAndWait([body], to: queue)
    try producer.publishAndWait([body], to: queue)
    harness.settle()
    let client = try #require(harness.gateway.sessions[reader.session.rawValue])
    #expect(client.connection.stalledSince != nil)
    // It still talks, but does not read. (The kernel's buffers grow a little at first.)
    for number in 1...20 {
      let stalled = client.connection.stalledSince
      harness.now = harness.now + .seconds(1)
      reader.send(.ping, request: RequestID(UInt64(number + 100)))
      harness.settle()
      if client.connection.stalledSince == stalled { break }
    }
    let stalled = try #require(client.connection.stalledSince)
    harness.now = stalled + .milliseconds(29_999)
    _ = try producer.ask(.ping)
    reader.send(.ping, request: RequestID(99))
    harness.settle()
    #expect(client.phase == .open)
    harness.pass(.milliseconds(1))
    #expect(client.phase == .closed)
    harness.settle()
    #expect(harness.replica.machine.origin(of: reader.session) == nil)
    #expect(harness.replica.machine.held(by: reader.session) == 2)
    _ = try producer.ask(.ping)
  }

  @Test func withoutDescriptorsTheLoopRestsAndAcceptsLater() throws {
    let harness = try GatewayHarness.leading()
    let listener = try #require(harness.listener)
    let accept = listener.acceptCall
    listener.acceptCall = { _ in
      errno = EMFILE
      return (-1, nil)
    }
    let client = try harness.connect()
    harness.settle()  // It would not come back if the listener woke the loop again and again.
    #expect(harness.gateway.clients.isEmpty)
    #expect(harness.gateway.acceptPausedUntil == harness.now + .milliseconds(100))
    listener.acceptCall = accept
    harness.pass(.milliseconds(100))
    client.send(bytes: Preamble.clientBytes)
    guard case .helloReply = try client.ask(.hello(client: "patient")) else {
      Issue.record("no hello reply")
      return
    }
  }

  // MARK: Shutdown

  @Test func shutdownAnswersWhatWasTakenAndSendsAllAway() throws {
    let harness = try GatewayHarness.leading()
    let idle = try harness.greetedClient()
    let busy = try harness.client()
    let queue = try busy.declare("q")
    harness.holdsStores = true
    busy.publish([[1], [2]], to: queue)
    harness.settle()
    harness.gateway.beginShutdown(now: harness.now)
    #expect(harness.localAddress == nil)
    harness.settle()
    #expect(idle.isClosed)
    #expect(idle.connectionRefusal?.refusal == .shuttingDown)
    #expect(!busy.isClosed)
    #expect(!harness.isDrained)
    harness.releaseStores()
    try harness.run(until: "closed") { busy.isClosed }
    #expect(busy.confirmed == 2)
    #expect(busy.connectionRefusal?.refusal == .shuttingDown)
    #expect(harness.isDrained)
  }

  @Test func aConnectionThatStaysIsClosedAfterItsLastWords() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.greetedClient()
    client.reads = false
    harness.gateway.beginShutdown(now: harness.now)
    harness.settle()
    #expect(harness.isDrained)
    #expect(harness.gateway.clients.count == 1)
    harness.pass(.seconds(2))
    #expect(harness.gateway.clients.isEmpty)
  }
}
