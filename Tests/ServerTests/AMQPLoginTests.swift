// Who is let in: by a state that has all that was confirmed before they asked, whatever this node has
// heard until then.

import AMQP
import Base
import QueueMachine
import SkeinClient
import TestSupport
import Testing

@testable import Server

@Suite(.serialized, .ownThreads) struct AMQPLoginTests {
  private let refused =
    "closed: 403 ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details"
    + " see the broker logfile."

  private let elsewhere = Requester.connection(SessionOrigin(node: NodeID(2), connection: 1))

  /// As it comes from another node; no password removes the user.
  private func set(_ user: String, _ password: String?, in harness: AMQPHarness) {
    let salt: [UInt8] = [1, 2, 3]
    let hash = password.map { SHA256.digest(salt + [UInt8]($0.utf8)) } ?? []
    harness.replica.submit(now: harness.now) {
      CommandWriter.setUser(
        elsewhere, tag: RequestTag(0), name: user, salt: salt, hash: hash, into: &$0)
    }
    harness.settle()
  }

  private func outcome(of body: () throws -> Void) -> String {
    do {
      try body()
      return "in"
    } catch let failure as AMQPTestClient.Failure {
      return failure.description
    } catch {
      return "\(error)"
    }
  }

  /// A client whose login waits, since the node cannot know how far the log is.
  private func waiting(
    _ harness: AMQPHarness, _ user: String, _ password: String
  ) throws -> AMQPTestClient {
    harness.holdsCommands = true
    let client = try harness.connect()
    try client.sendLogin(user, password)
    harness.settle()
    try #require(harness.gateway.reads.count > 0)
    return client
  }

  @Test("Who was added after this node had last heard something is let in")
  func added() throws {
    let harness = try AMQPHarness()
    let client = try waiting(harness, "anna", "secret")
    let wrong = try waiting(harness, "anna", "wrong")
    set("anna", "secret", in: harness)
    harness.holdsCommands = false
    #expect(outcome { try client.awaitLogin() } == "in")
    #expect(outcome { try wrong.awaitLogin() } == refused)
    #expect(harness.gateway.reads.count == 0 && harness.gateway.counters.refusedLogins == 1)
  }

  @Test("A password that was changed, and a user that was removed, let nobody in")
  func changed() throws {
    let harness = try AMQPHarness()
    set("anna", "old", in: harness)
    set("berta", "hers", in: harness)
    let clients = try [("anna", "old"), ("anna", "new"), ("berta", "hers"), ("guest", "guest")]
      .map { try waiting(harness, $0.0, $0.1) }
    #expect(harness.gateway.reads.count == clients.count)
    set("anna", "new", in: harness)
    set("berta", nil, in: harness)
    set("guest", "not guest", in: harness)
    let before = harness.questions
    harness.holdsCommands = false
    let outcomes = clients.map { client in outcome { try client.awaitLogin() } }
    #expect(outcomes == [refused, "in", refused, refused])
    // All that wait are one question.
    #expect(harness.questions == before + 1)
  }

  @Test("A virtual host that was just added can be opened; one that is not there is 530")
  func virtualHost() throws {
    let harness = try AMQPHarness()
    let clients = try (0..<2).map { _ in try harness.connect() }
    for client in clients {
      try client.sendLogin("guest", "guest")
      try client.awaitLogin()
    }
    harness.holdsCommands = true
    try clients[0].sendOpen("shop")
    try clients[1].sendOpen("none")
    harness.settle()
    #expect(harness.gateway.reads.count == 2)
    harness.replica.submit(now: harness.now) {
      CommandWriter.addVirtualHost(elsewhere, tag: RequestTag(0), name: "shop", into: &$0)
    }
    harness.settle()
    harness.holdsCommands = false
    #expect(outcome { _ = try clients[0].expect(10, 41) } == "in")
    let answer = outcome { _ = try clients[1].expect(10, 41) }
    #expect(answer == "closed: 530 NOT_ALLOWED - vhost none not found")
    // One that is known costs no question.
    let before = harness.questions
    let client = try harness.connect()
    try client.open(vhost: "shop")
    #expect(harness.questions == before + 1)
  }

  @Test("Without a leader logins wait until their handshake must be over, and end without a word")
  func noLeader() throws {
    let harness = try AMQPHarness(isAlone: false)
    let clients = try ["guest", "wrong"].map { password in
      let client = try harness.connect()
      try client.sendLogin("guest", password)
      return client
    }
    harness.pass(.seconds(9))
    #expect(harness.gateway.reads.count == 2 && harness.gateway.connectionCount == 2)
    harness.pass(.seconds(2))
    for client in clients {
      // The end of the stream, no reset.
      #expect(outcome { try client.awaitLogin() }.hasPrefix("connection ended: 0 "))
    }
    #expect(harness.gateway.reads.count == 0 && harness.gateway.counters.refusedLogins == 0)
    harness.pass(.seconds(3))
    #expect(harness.gateway.connectionCount == 0)
    #expect(harness.gateway.nextDeadline > harness.now)
  }

  @Test("Logins that wait are as many as connections, and others' questions keep nobody out")
  func bound() throws {
    let harness = try AMQPHarness()
    var client: AMQPTestClient? = try harness.client()
    let token = try harness.known().token
    harness.holdsCommands = true
    // Of somebody who is in.
    for _ in 1...10_000 {
      harness.gateway.reads.add(
        ReadBarrier.Read(
          client: token, token: .init(1), asks: .request(.inspectExchange(name: "none"))))
    }
    let late = try waiting(harness, "guest", "guest")
    #expect(harness.gateway.reads.count == 10_001 && client != nil)
    // Whoever leaves does not wait any more.
    client = nil
    for _ in 0..<3 { harness.turn(waiting: .milliseconds(10)) }
    #expect(harness.gateway.connectionCount == 1 && harness.gateway.reads.count == 1)
    harness.holdsCommands = false
    #expect(outcome { try late.awaitLogin() } == "in")
    #expect(harness.gateway.counters.refusedConnections == 0)
  }

  @Test("A node that stops waits for no answers, and has no deadline for them")
  func stopping() throws {
    let harness = try AMQPHarness()
    let client = try waiting(harness, "guest", "guest")
    _ = harness.gateway.reads.question(now: harness.now)
    harness.gateway.reads.isAsked(now: harness.now)
    harness.gateway.beginShutdown(now: harness.now, replica: &harness.replica)
    #expect(harness.gateway.reads.nextDeadline == .never)
    #expect(outcome { try client.awaitLogin() }.hasPrefix("connection ended: 0 "))
  }

  private func port(of node: InProcessNode) throws -> UInt16 {
    try #require(node.configuration.amqpListen?.port)
  }

  private func set(_ user: String, _ password: String, _ client: SkeinClient) async throws {
    let hash = SHA256.digest([7] + [UInt8](password.utf8))
    try await client.setUser(user, salt: [7], hash: hash)
  }

  @Test("What was just confirmed to `skein` holds at once on every node, also while leaders change")
  func wholeNodes() async throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    let client = try await SkeinClient.connect(endpoints: cluster.endpoints)
    for round in 0..<10 {
      let (user, host) = ("user \(round % 2)", "host \(round)")
      try await client.addVirtualHost(host)
      try await set(user, "password \(round)", client)
      for node in cluster.nodes {
        let port = try port(of: node)
        try AMQPTestClient(port: port).open(user: user, password: "password \(round)", vhost: host)
        let old = try AMQPTestClient(port: port)
        #expect(outcome { try old.open(user: user, password: "password \(round - 2)") } == refused)
      }
    }
    let address = client.leaderAddress
    await client.close()
    let leader = try #require(
      cluster.nodes.first { $0.configuration.clientListen.description == address })
    leader.kill()
    for node in cluster.nodes where node !== leader {
      try AMQPTestClient(port: port(of: node))
        .open(user: "user 1", password: "password 9", vhost: "host 9")
    }
  }

  @Test("A node that was away lets nobody in by what it knew before")
  func restartedNode() async throws {
    let cluster = try InProcessCluster()
    try cluster.startAll()
    let client = try await SkeinClient.connect(endpoints: cluster.endpoints)
    try await set("anna", "old", client)
    let away = try #require(
      cluster.nodes.first { $0.configuration.clientListen.description != client.leaderAddress })
    try AMQPTestClient(port: port(of: away)).open(user: "anna", password: "old")
    away.kill()
    try await set("anna", "new", client)
    try await set("guest", "not guest", client)
    try await client.addVirtualHost("shop")
    await client.close()
    let others = cluster.nodes.filter { $0 !== away }
    for node in others { node.kill() }
    // It has nobody to ask until one of them is there.
    try away.start()
    let clients = try [("anna", "old"), ("guest", "guest"), ("anna", "new")].map {
      let client = try AMQPTestClient(port: port(of: away))
      try client.sendLogin($0.0, $0.1)
      return client
    }
    for node in others { try node.start() }
    let outcomes = clients.map { client in outcome { try client.awaitLogin() } }
    #expect(outcomes == [refused, refused, "in"])
    try clients[2].sendOpen("shop")
    _ = try clients[2].expect(10, 41)
  }

  @Test("Refused logins are in the log, harmless and not too many")
  func refusedLogins() throws {
    let harness = try AMQPHarness()
    for _ in 0..<3 {
      let client = try harness.connect()
      #expect(throws: AMQPTestClient.Failure.self) { try client.open(password: "wrong") }
    }
    #expect(harness.gateway.counters.refusedLogins == 3)
    var logins = RefusedLogins()
    let now = MonotonicTime(20_000_000_000)
    #expect(
      logins.line(user: "anna", address: "10.0.0.1:77", now: now)
        == "AMQP: login of user 'anna' from 10.0.0.1:77 was refused")
    for _ in 1..<RefusedLogins.linesMax {
      #expect(logins.line(user: "anna", address: "a", now: now) != nil)
    }
    for _ in 0..<7 { #expect(logins.line(user: "anna", address: "a", now: now) == nil) }
    #expect(
      logins.line(user: "anna", address: "a", now: now + RefusedLogins.pause)
        == "AMQP: login of user 'anna' from a was refused; 7 others were refused before")
    #expect(RefusedLogins.shown("a\u{1b}[2J\r\n\u{202e}b'\\") == "a?[2J???b\\'\\\\")
    #expect(RefusedLogins.shown("Jürgen 🦢") == "Jürgen 🦢")
    let long = RefusedLogins.shown(String(repeating: "x", count: 1_000))
    #expect(long == String(repeating: "x", count: 64) + "…")
  }
}
