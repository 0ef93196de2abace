// Connections between nodes, with real sockets on loopback and made-up times.

import Base
import Consensus
import Node
import Testing
import Transport
import Wire

@testable import Server

@Suite struct PeerLinksTests {
  /// The links of one node, with a poller of their own.
  struct Ends: ~Copyable {
    let id: NodeID
    let poller: Poller
    var links: PeerLinks
    var introduction: Introduction
    /// Only a test moves it.
    var now = MonotonicTime(rawValue: 1_000_000_000)
    var received: [PeerEvent] = []
    private var events: [PollEvent] = []

    init(_ id: UInt32, of cluster: ClusterIdentity = ClusterIdentity(rawValue: 0xabc)) throws {
      let endpoint = try Endpoint(parsing: "127.0.0.1:0")
      let configuration = ServerConfiguration(
        cluster: cluster, node: NodeID(id), dataDirectory: "/nowhere",
        peerListen: endpoint, clientListen: endpoint, members: [])
      let poller = try Poller()
      let listener = try Listener(.loopback(port: 0))
      let links = PeerLinks(
        configuration: configuration, listener: listener, poller: poller,
        log: NodeLog(node: NodeID(id), isQuiet: true))
      try links.listen()
      self.id = NodeID(id)
      self.poller = poller
      introduction = Introduction(
        node: NodeID(id), cluster: configuration.cluster.description, term: Term(3), heard: [],
        founders: Checksum(rawValue: 1), peerAddress: links.address?.description ?? "")
      self.links = links
    }

    var address: String { links.address?.description ?? "" }

    mutating func turn() {
      poller.wait(timeout: .milliseconds(1), into: &events)
      for event in events { links.handle(event, now: now, introduction: introduction) }
      links.tick(now: now)
      links.flush(now: now)
      var told = RingBuffer<PeerEvent>()
      links.takeEvents(into: &told)
      while let event = told.popFirst() { received.append(event) }
    }

    mutating func dial(_ other: UInt32, _ address: String) {
      links.setMembers(knows([(other, address)]), now: now)
    }

    mutating func unresolved() -> [String] { links.takeUnresolved(now: now) }

    func hasHeard(from node: UInt32) -> Bool {
      received.contains {
        if case .received(_, from: NodeID(node)) = $0 { true } else { false }
      }
    }

    /// How often a connection from or to somebody ended.
    var losses: Int {
      received.count { if case .disconnected = $0 { true } else { false } }
    }

    func knows(_ others: [(UInt32, String)]) -> Membership {
      Membership(
        members: others.map {
          .init(id: NodeID($0), peerAddress: $1, clientAddress: "nowhere:1")
        })
    }
  }

  private static let nowhere = AddressError.unknownHost("nowhere")

  /// What is to be looked up now.
  private func expectLookups(
    _ ends: inout Ends, _ names: [String], at location: SourceLocation = #_sourceLocation
  ) {
    let asked = ends.unresolved()
    #expect(asked == names, sourceLocation: location)
  }

  /// Somebody who listens nowhere says who it is and where it is reached.
  private func introduce(_ id: UInt32, _ address: String, to node: inout Ends) throws {
    let connection = try Connection.connect(
      to: SocketAddress(parsing: node.address), pool: BufferPool(), now: node.now)
    var introduction = node.introduction
    introduction.node = NodeID(id)
    introduction.peerAddress = address
    _ = connection.append(Preamble.peerBytes)
    _ = connection.append(frame: PeerCodec.encode(.introduction(introduction)).head, shared: [])
    for _ in 0..<5000 where !node.hasHeard(from: id) {
      if connection.finishConnect() == .connected { _ = connection.flush(now: node.now) }
      node.turn()
    }
  }

  /// Ten seconds are a hang.
  private func run(
    _ one: inout Ends, _ other: inout Ends, until isDone: (borrowing Ends, borrowing Ends) -> Bool
  ) -> Bool {
    for _ in 0..<5000 {
      if isDone(one, other) { return true }
      one.turn()
      other.turn()
    }
    return false
  }

  @Test("Who dials and is no member that the node knows of is dialled back")
  func aStrangerIsAnswered() throws {
    var leader = try Ends(1)
    var member = try Ends(2)
    let membership = leader.knows([(1, leader.address), (2, member.address)])
    leader.links.setMembers(membership, now: leader.now)
    let isAnswered = run(&leader, &member) { _, member in member.links.isConnected(NodeID(1)) }
    #expect(isAnswered)
    // Once the entry that added it is here it stays as a member.
    member.links.setMembers(membership, now: member.now)
    let isKept = member.links.isConnected(NodeID(1))
    #expect(isKept)
    let vote = PeerEnvelope.consensus(
      .voteReply(VoteReply(term: Term(4), isGranted: true)), payloads: [])
    member.links.send(vote, to: NodeID(1))
    let isThere = run(&leader, &member) { leader, _ in
      leader.received.contains {
        if case .received(vote, NodeID(2)) = $0 { true } else { false }
      }
    }
    #expect(isThere)
    leader.links.close()
    member.links.close()
  }

  @Test("Frames of all sizes arrive whole and in order, small ones between large ones")
  func framesOfAllSizes() throws {
    var leader = try Ends(1)
    var member = try Ends(2)
    let membership = leader.knows([(1, leader.address), (2, member.address)])
    leader.links.setMembers(membership, now: leader.now)
    member.links.setMembers(membership, now: member.now)
    let isConnected = run(&leader, &member) { leader, _ in leader.links.isConnected(NodeID(2)) }
    #expect(isConnected)
    let sizes = [10, 1_100_000, 300_000, 20, 3_000_000, 262_144, 262_000, 5, 900_000, 1_000_000, 0]
    for (number, size) in sizes.enumerated() {
      let bytes = [UInt8](repeating: UInt8(number), count: size)
      let chunk = SnapshotChunk(
        term: Term(3), last: LogPosition(term: Term(2), index: LogIndex(9)),
        membership: membership, offset: UInt64(number), byteCount: UInt32(size), isLast: false)
      let envelope = PeerEnvelope.consensus(.snapshot(chunk), payloads: [bytes])
      // One at a time and behind each other, as the connection has room.
      var isTaken = false
      for _ in 0..<5000 where !isTaken {
        isTaken = leader.links.hasRoom(NodeID(2))
        if isTaken { leader.links.send(envelope, to: NodeID(2)) }
        leader.turn()
        if number % 3 == 0 { member.turn() }
      }
      #expect(isTaken)
    }
    let isThere = run(&leader, &member) { _, member in
      member.received.count { event in
        if case .received(.consensus(.snapshot, _), _) = event { true } else { false }
      } == sizes.count
    }
    #expect(isThere)
    let payloads = member.received.compactMap { event -> [UInt8]? in
      if case .received(.consensus(.snapshot, let payloads), _) = event { payloads[0] } else { nil }
    }
    #expect(payloads.map(\.count) == sizes)
    for (number, payload) in payloads.enumerated() {
      #expect(payload.allSatisfy { $0 == UInt8(number) }, "frame \(number)")
    }
    #expect(member.losses == 0)
    leader.links.close()
    member.links.close()
  }

  @Test("What a full socket did not take goes when it takes more, though nothing else is sent")
  func aFullSocketGoesOn() throws {
    var leader = try Ends(1)
    var member = try Ends(2)
    leader.links.setMembers(leader.knows([(2, member.address)]), now: leader.now)
    let isConnected = run(&leader, &member) { leader, _ in leader.links.isConnected(NodeID(2)) }
    #expect(isConnected)
    // More than a socket takes while nobody reads.
    var sent = 0
    while leader.links.hasRoom(NodeID(2)) {
      let isTaken = leader.links.offer(.relay([UInt8](repeating: 1, count: 1 << 20)), to: NodeID(2))
      sent += isTaken ? 1 : 0
      leader.turn()
      try #require(sent < 256, "the socket takes whatever it is given")
    }
    #expect(sent > 1)
    // A node sleeps until its poller wakes it; ten seconds are a hang.
    for _ in 0..<20 { member.turn() }
    var events: [PollEvent] = []
    leader.poller.wait(timeout: .seconds(10), into: &events)
    #expect(events.contains { PeerLinks.owns($0.token) && $0.isWritable })
    let isThere = run(&leader, &member) { _, member in
      member.received.count { event in
        if case .received(.relay, _) = event { true } else { false }
      } == sent
    }
    #expect(isThere)
    #expect(leader.losses == 0)
    let hasRoom = leader.links.hasRoom(NodeID(2))
    #expect(hasRoom)
    leader.links.close()
    member.links.close()
  }

  @Test("Who does not say where it is reached is not dialled back; told later, it is")
  func aStrangerWithoutAnAddress() throws {
    var leader = try Ends(1)
    var member = try Ends(2)
    let address = leader.introduction.peerAddress
    leader.introduction.peerAddress = ""
    leader.dial(2, member.address)
    let isHeard = run(&leader, &member) { _, member in
      member.received.contains { if case .received = $0 { true } else { false } }
    }
    #expect(isHeard)
    let deadline = member.links.nextDeadline
    #expect(deadline == .never)
    leader.introduction.peerAddress = address
    leader.links.send(.introduction(leader.introduction), to: NodeID(2))
    let isAnswered = run(&leader, &member) { _, member in member.links.isConnected(NodeID(1)) }
    #expect(isAnswered)
    leader.links.close()
    member.links.close()
  }

  @Test("A guest that is gone is dialled for five seconds more; one that comes again stays")
  func guestsAreForgotten() throws {
    var leader = try Ends(1)
    var member = try Ends(2)
    leader.dial(2, member.address)
    let isAnswered = run(&leader, &member) { _, member in member.links.isConnected(NodeID(1)) }
    #expect(isAnswered)
    leader.links.close()
    let isLost = run(&leader, &member) { _, member in member.losses == 2 }
    #expect(isLost)

    // It comes again elsewhere, and is dialled there though its time would be over by then.
    member.now = member.now + .seconds(4)
    member.received = []
    var again = try Ends(1)
    again.dial(2, member.address)
    let isBack = run(&again, &member) { _, member in member.hasHeard(from: 1) }
    #expect(isBack)
    member.now = member.now + .seconds(2)
    let isKept = run(&again, &member) { _, member in member.links.isConnected(NodeID(1)) }
    #expect(isKept)

    member.received = []
    again.links.close()
    let isLostAgain = run(&again, &member) { _, member in member.losses == 2 }
    #expect(isLostAgain)
    member.now = member.now + .milliseconds(4999)
    member.turn()
    let deadline = member.links.nextDeadline
    #expect(deadline != .never)
    member.now = member.now + .milliseconds(1)
    member.turn()
    let deadlineOfNobody = member.links.nextDeadline
    #expect(deadlineOfNobody == .never)
    member.links.close()
  }

  @Test("Of too many guests the eldest that is not connected goes")
  func guestsAreFew() throws {
    var node = try Ends(100)
    for id in UInt32(1)...16 {
      try introduce(id, "guest\(id).invalid:1", to: &node)
      let isHeard = node.hasHeard(from: id)
      #expect(isHeard)
    }
    var leader = try Ends(17)
    leader.dial(100, node.address)
    let isAnswered = run(&leader, &node) { _, node in node.links.isConnected(NodeID(17)) }
    #expect(isAnswered)
    // One lookup at a time, each in its turn; whoever was looked up waits.
    var names: [String] = []
    while let name = node.unresolved().first, names.count < 100 {
      expectLookups(&node, [])
      names.append(name)
      node.links.resolved(name, .failure(Self.nowhere), now: node.now)
    }
    #expect(names == (2...16).map { "guest\($0).invalid:1" })
    node.links.close()
  }

  @Test("A guest that names one address after another is dialled at the last, after a pause")
  func guestsMove() throws {
    var leader = try Ends(1)
    var member = try Ends(2)
    let address = leader.introduction.peerAddress
    leader.introduction.peerAddress = "first.invalid:1"
    leader.dial(2, member.address)
    let isHeard = run(&leader, &member) { _, member in member.hasHeard(from: 1) }
    #expect(isHeard)
    expectLookups(&member, ["first.invalid:1"])
    for name in ["second.invalid:1", "third.invalid:1"] {
      member.received = []
      leader.introduction.peerAddress = name
      leader.links.send(.introduction(leader.introduction), to: NodeID(2))
      let isTold = run(&leader, &member) { _, member in member.hasHeard(from: 1) }
      #expect(isTold)
      expectLookups(&member, [])
    }
    // The answer for where it was before is of no use to anybody.
    let reached = try SocketAddress(parsing: address)
    member.links.resolved("first.invalid:1", .success(reached), now: member.now)
    let deadline = member.links.nextDeadline
    #expect(deadline == member.now + .milliseconds(500))
    expectLookups(&member, [])
    member.now = member.now + .milliseconds(500)
    expectLookups(&member, ["third.invalid:1"])
    member.links.resolved("third.invalid:1", .success(reached), now: member.now)
    let isAnswered = run(&leader, &member) { _, member in member.links.isConnected(NodeID(1)) }
    #expect(isAnswered)
    leader.links.close()
    member.links.close()
  }

  @Test("A name without an address is looked up again after longer and longer pauses")
  func unknownNamesArePaced() throws {
    var node = try Ends(1)
    node.dial(2, "nowhere.invalid:1")
    for pause in [20, 40, 80, 160, 320, 500, 500] as [UInt64] {
      expectLookups(&node, ["nowhere.invalid:1"])
      // Under way: nothing to do until the answer is there, however long that takes.
      expectLookups(&node, [])
      var deadline = node.links.nextDeadline
      #expect(deadline == .never)
      node.now = node.now + .seconds(1)
      node.links.resolved("nowhere.invalid:1", .failure(Self.nowhere), now: node.now)
      expectLookups(&node, [])
      deadline = node.links.nextDeadline
      #expect(deadline == node.now + .milliseconds(pause))
      node.now = deadline
    }
    node.links.close()
  }

  @Test("A name whose address nobody listens at is looked up again only before the next attempt")
  func refusalsAreFollowedByAPause() throws {
    var node = try Ends(1)
    var other = try Ends(3)
    let free = try SocketAddress(parsing: other.address)
    other.links.close()
    node.dial(2, "somewhere.invalid:1")
    for pause in [40, 80, 160] as [UInt64] {
      expectLookups(&node, ["somewhere.invalid:1"])
      node.links.resolved("somewhere.invalid:1", .success(free), now: node.now)
      let isRefused = run(&node, &other) { node, _ in
        node.links.nextDeadline == node.now + .milliseconds(pause)
      }
      #expect(isRefused)
      expectLookups(&node, [])
      node.now = node.links.nextDeadline
    }
    node.links.close()
  }
}
