// The proxies over real loopback sockets: what passes, what does not, and what each end is told. No
// sleeps: every wait is for something that must come.

import Base
import Consensus
import Glibc
import Node
import Testing
import Transport
import Wire

@testable import ChaosHarness

/// A blocking socket that gives up after ten seconds.
private final class TestSocket {
  let descriptor: Int32

  struct Stuck: Error {}

  init(_ descriptor: Int32) { self.descriptor = descriptor }

  deinit { close(descriptor) }

  static func connect(_ address: String) throws -> TestSocket {
    let port = try #require(UInt16(address.split(separator: ":")[1]))
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    let socket = TestSocket(descriptor)
    var system = sockaddr_in()
    system.sin_family = sa_family_t(AF_INET)
    system.sin_port = port.bigEndian
    inet_pton(AF_INET, String(address.split(separator: ":")[0]), &system.sin_addr)
    let result = withUnsafePointer(to: &system) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard result == 0 else { throw ErrorNumber(errno) }
    return socket
  }

  func send(_ text: String) { send(Array(text.utf8)) }

  func send(_ bytes: [UInt8]) {
    #expect(Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count)
  }

  private func waitUntilReadable() throws {
    var asked = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard poll(&asked, 1, 10_000) > 0 else { throw Stuck() }
  }

  /// Waits for exactly this text.
  func expect(_ text: String) throws { try expect(Array(text.utf8)) }

  func expect(_ bytes: [UInt8]) throws {
    var got: [UInt8] = []
    while got.count < bytes.count {
      try waitUntilReadable()
      var piece = [UInt8](repeating: 0, count: bytes.count - got.count)
      let count = recv(descriptor, &piece, piece.count, 0)
      guard count > 0 else { break }
      got += piece[..<count]
    }
    #expect(got == bytes)
  }

  /// Waits until the other end is gone.
  func expectEnd() throws {
    while true {
      try waitUntilReadable()
      var piece = [UInt8](repeating: 0, count: 100)
      if recv(descriptor, &piece, piece.count, 0) <= 0 { return }
    }
  }

  /// Nothing has come so far.
  func expectNothing() {
    var byte: UInt8 = 0
    #expect(recv(descriptor, &byte, 1, Int32(MSG_DONTWAIT)) == -1 && errno == EAGAIN)
  }
}

/// A node of sorts behind a proxy: listens, and takes what the proxy dials.
private final class TestNode {
  let descriptor: Int32
  let address: String

  init() throws {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var system = sockaddr_in()
    system.sin_family = sa_family_t(AF_INET)
    inet_pton(AF_INET, "127.0.0.1", &system.sin_addr)
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let descriptor = descriptor
    withUnsafeMutablePointer(to: &system) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        _ = bind(descriptor, $0, size)
        _ = listen(descriptor, 16)
        _ = getsockname(descriptor, $0, &size)
      }
    }
    address = "127.0.0.1:\(UInt16(bigEndian: system.sin_port))"
  }

  deinit { close(descriptor) }

  func accept() throws -> TestSocket {
    var asked = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard poll(&asked, 1, 10_000) > 0 else { throw TestSocket.Stuck() }
    return TestSocket(Glibc.accept(descriptor, nil, nil))
  }

  func expectNobody() {
    var asked = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    #expect(poll(&asked, 1, 0) == 0)
  }
}

@Suite struct ProxyTests {
  private let toNode = Link(from: .clients, to: .node(2))
  private let fromNode = Link(from: .node(2), to: .clients)

  /// A client and a node with a proxy between them.
  private func pair(
    _ proxies: Proxies, listen: String = "127.0.0.1:0"
  ) async throws -> (client: TestSocket, server: TestSocket, node: TestNode, address: String) {
    let node = try TestNode()
    let address = try await proxies.listen(
      ProxyRoute(node: 2, kind: .clients, listen: listen, target: node.address))
    let client = try TestSocket.connect(address)
    return (client, try node.accept(), node, address)
  }

  @Test func bytesPassBothWays() async throws {
    let proxies = try Proxies(seed: 1)
    defer { proxies.stop() }
    let (client, server, _, _) = try await pair(proxies)
    client.send("hello")
    try server.expect("hello")
    server.send("and back")
    try client.expect("and back")
  }

  @Test func aClosedEndClosesTheOther() async throws {
    let proxies = try Proxies(seed: 1)
    defer { proxies.stop() }
    let first = try await pair(proxies)
    first.client.send("last words")
    shutdown(first.client.descriptor, Int32(SHUT_RDWR))
    try first.server.expect("last words")
    try first.server.expectEnd()
  }

  @Test func aCutIsOneWayAndSilent() async throws {
    let proxies = try Proxies(seed: 1)
    defer { proxies.stop() }
    let (client, server, _, _) = try await pair(proxies)
    await proxies.set([toNode: .cut])
    client.send("lost for now")
    server.send("heard")
    try client.expect("heard")
    server.expectNothing()
    await proxies.set([:])
    try server.expect("lost for now")
  }

  @Test func anEndBehindACutIsNotTold() async throws {
    let proxies = try Proxies(seed: 1)
    defer { proxies.stop() }
    let (client, server, _, _) = try await pair(proxies)
    await proxies.set([fromNode: .cut])
    shutdown(server.descriptor, Int32(SHUT_RDWR))
    client.send("still there?")
    // The rules pass the proxies' thread after everything before them.
    await proxies.set([fromNode: .cut])
    client.expectNothing()
    await proxies.set([:])
    try client.expectEnd()
  }

  @Test func nobodyIsDialledBehindACut() async throws {
    let proxies = try Proxies(seed: 1)
    defer { proxies.stop() }
    let node = try TestNode()
    let address = try await proxies.listen(
      ProxyRoute(node: 2, kind: .clients, listen: "127.0.0.1:0", target: node.address))
    await proxies.set([toNode: .cut])
    let client = try TestSocket.connect(address)
    client.send("who is there?")
    await proxies.set([toNode: .cut])
    node.expectNobody()
    await proxies.set([:])
    try node.accept().expect("who is there?")
  }

  @Test func aResetEndsBothEnds() async throws {
    let proxies = try Proxies(seed: 1)
    defer { proxies.stop() }
    let (client, server, node, address) = try await pair(proxies)
    await proxies.reset(nodes: [3])
    client.send("untouched")
    try server.expect("untouched")
    await proxies.reset(nodes: [2])
    try client.expectEnd()
    try server.expectEnd()
    let again = try TestSocket.connect(address)
    again.send("again")
    try node.accept().expect("again")
  }

  @Test func aHalfOpenConnectionTellsOneEndOnly() async throws {
    let proxies = try Proxies(seed: 1)
    defer { proxies.stop() }
    let (client, server, _, _) = try await pair(proxies)
    await proxies.halfOpen(nodes: [2])
    try server.expectEnd()
    client.send("into the void")
    // Another fault begins and ends meanwhile.
    await proxies.set([toNode: LinkRule()])
    client.expectNothing()
    await proxies.reset(nodes: [2])
    try client.expectEnd()
  }

  @Test func whoDialsANodeThatIsDownIsRefused() async throws {
    let proxies = try Proxies(seed: 1)
    defer { proxies.stop() }
    // An address of its own: on 127.0.0.1 another test may be given the port that is let go here.
    let (_, _, _, address) = try await pair(proxies, listen: "127.0.71.2:0")
    await proxies.stopListening(node: 2)
    #expect(throws: ErrorNumber(ECONNREFUSED)) { try TestSocket.connect(address) }
  }

  /// Between nodes the proxy learns from the real introduction who dials, and applies that link's
  /// rule.
  @Test func aNodeIsKnownByItsIntroduction() async throws {
    let introduction = Introduction(
      node: NodeID(3), cluster: "0123456789abcdef", term: Term(rawValue: 9), heard: [NodeID(1)],
      founders: Checksum(rawValue: 77))
    let frame = Preamble.peerBytes + PeerCodec.encode(.introduction(introduction)).head
    #expect(frame.withUnsafeBytes { PeerHello.node(in: $0) } == 3)
    #expect(frame.prefix(31).withUnsafeBytes { PeerHello.node(in: $0) } == nil)

    let proxies = try Proxies(seed: 1)
    defer { proxies.stop() }
    let node = try TestNode()
    let address = try await proxies.listen(
      ProxyRoute(node: 2, kind: .peers, listen: "127.0.0.1:0", target: node.address))
    await proxies.set([Link(from: .node(3), to: .node(2)): .cut])
    let cut = try TestSocket.connect(address)
    cut.send(frame)
    let other = try TestSocket.connect(address)
    var rest = frame
    rest[28] = 1
    other.send(rest)
    try node.accept().expect(rest)
    node.expectNobody()
  }
}

/// One direction by itself, with time moved by hand.
@Suite struct PipeFlowTests {
  private func bytes(_ text: String, _ body: (UnsafeRawBufferPointer) -> Void) {
    Array(text.utf8).withUnsafeBytes(body)
  }

  @Test func piecesWaitForTheirTimeAndKeepTheirOrder() {
    var random = SeededRandom(seed: 3)
    var flow = PipeFlow()
    var rule = LinkRule()
    rule.delay = .milliseconds(20)
    rule.jitter = .milliseconds(30)
    for step in 0..<100 {
      let now = MonotonicTime(rawValue: UInt64(step) * 1_000_000)
      bytes("x") { flow.take($0, rule, now: now, random: &random) }
    }
    #expect(flow.waitingBytes == 100)
    #expect(flow.nextDue(rule).rawValue >= 20_000_000)
    #expect(flow.nextDue(rule).rawValue <= 50_000_000)
    // What a calmer link takes later does not overtake.
    bytes("y") { flow.take($0, LinkRule(), now: MonotonicTime(rawValue: 0), random: &random) }
    #expect(flow.nextDue(LinkRule()) > MonotonicTime(rawValue: 0))
    #expect(flow.nextDue(.cut) == .never)
  }

  @Test func aFullFlowTakesNoMore() {
    var random = SeededRandom(seed: 3)
    var flow = PipeFlow()
    let piece = [UInt8](repeating: 1, count: PipeFlow.bytesMax)
    #expect(flow.hasRoom)
    piece.withUnsafeBytes {
      flow.take($0, LinkRule(), now: MonotonicTime(rawValue: 0), random: &random)
    }
    #expect(!flow.hasRoom)
  }
}
