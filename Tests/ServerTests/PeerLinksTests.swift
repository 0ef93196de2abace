// Connections between nodes, with real sockets on loopback.

import Base
import Consensus
import Node
import Testing
import Transport

@testable import Server

@Suite struct PeerLinksTests {
  /// The links of one node, with a poller of their own.
  private struct Ends: ~Copyable {
    let id: NodeID
    let poller: Poller
    var links: PeerLinks
    var introduction: Introduction
    var received: [PeerEvent] = []
    private var events: [PollEvent] = []

    init(_ id: UInt32) throws {
      let endpoint = try Endpoint(parsing: "127.0.0.1:0")
      let configuration = ServerConfiguration(
        cluster: ClusterIdentity(rawValue: 0xabc), node: NodeID(id), dataDirectory: "/nowhere",
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
      let now = MonotonicClock.now()
      poller.wait(timeout: .milliseconds(1), into: &events)
      for event in events { links.handle(event, now: now, introduction: introduction) }
      links.tick(now: now, introduction: introduction)
      links.flush(now: now)
      received += links.takeEvents()
    }

    func knows(_ others: [(UInt32, String)]) -> Membership {
      Membership(
        members: others.map {
          .init(id: NodeID($0), peerAddress: $1, clientAddress: "nowhere:1")
        })
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
    leader.links.setMembers(membership, now: MonotonicClock.now())
    let isAnswered = run(&leader, &member) { _, member in member.links.isConnected(NodeID(1)) }
    #expect(isAnswered)
    // Once the entry that added it is here it stays as a member.
    member.links.setMembers(membership, now: MonotonicClock.now())
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

  @Test("Who does not say where it is reached is not dialled back; told later, it is")
  func aStrangerWithoutAnAddress() throws {
    var leader = try Ends(1)
    var member = try Ends(2)
    let address = leader.introduction.peerAddress
    leader.introduction.peerAddress = ""
    leader.links.setMembers(
      leader.knows([(2, member.address)]), now: MonotonicClock.now())
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
}
