// How a cluster begins (G11, last sentence): a wiped node must never take itself for a new one.

import Base
import Consensus
import Testing

@testable import Node

@Suite struct FormationTests {
  let members = [NodeID(1), NodeID(2), NodeID(3)]

  let founders = Checksum(rawValue: 7)

  func introduction(
    _ node: UInt32, term: UInt64 = 0, heard: [UInt32] = [], founders: UInt32 = 7
  ) -> Introduction {
    Introduction(
      node: NodeID(node), cluster: "c", term: Term(term), heard: heard.map { NodeID($0) },
      founders: Checksum(rawValue: founders))
  }

  @Test("A new cluster begins when everybody is known to have noted that it is a founder")
  func newCluster() {
    var formation = Formation(
      own: NodeID(1), members: members, founders: founders, isFounder: false,
      begin: MonotonicTime(0))
    #expect(formation.verdict(now: MonotonicTime(0)) == .waiting(for: [NodeID(2), NodeID(3)]))
    formation.receive(introduction(2))
    #expect(formation.verdict(now: MonotonicTime(0)) == .waiting(for: [NodeID(3)]))
    formation.receive(introduction(3, heard: [1]))
    #expect(formation.verdict(now: MonotonicTime(0)) == .isFounder)
    #expect(formation.heard == [], "nothing is said before it is noted")
    formation.noteFounding()
    #expect(formation.heard == [NodeID(2), NodeID(3)])
    #expect(formation.verdict(now: MonotonicTime(0)) == .waiting(for: [NodeID(2)]))
    formation.receive(introduction(2, heard: [1, 3]))
    #expect(formation.verdict(now: MonotonicTime(0)) == .isNew)
  }

  @Test("A founder that dies before it has a past begins like the others that began meanwhile")
  func founderThatDied() {
    var formation = Formation(
      own: NodeID(1), members: members, founders: founders, isFounder: true,
      begin: MonotonicTime(0))
    #expect(formation.verdict(now: MonotonicTime(0)) == .waiting(for: [NodeID(2), NodeID(3)]))
    formation.receive(introduction(2, term: 4))
    #expect(formation.verdict(now: MonotonicTime(0)) == .isNew)
  }

  @Test("One member with a history is enough to know that this disk may have been wiped")
  func wiped() {
    var formation = Formation(
      own: NodeID(1), members: members, founders: founders, isFounder: false,
      begin: MonotonicTime(0))
    formation.receive(introduction(2, term: 4))
    #expect(formation.verdict(now: MonotonicTime(0)) == .hasHistory(by: NodeID(2)))
    formation.receive(introduction(3, heard: [1]))
    #expect(formation.verdict(now: MonotonicTime(0)) == .hasHistory(by: NodeID(2)))
  }

  @Test("A founder that was cut off while the others began begins too (seeds 926, 975)")
  func begunMeanwhile() {
    var formation = Formation(
      own: NodeID(1), members: members, founders: founders, isFounder: false,
      begin: MonotonicTime(0))
    formation.receive(introduction(2))
    formation.receive(introduction(3))
    formation.noteFounding()
    #expect(formation.verdict(now: MonotonicTime(0)) == .waiting(for: [NodeID(2), NodeID(3)]))
    // That they heard this node got lost on the way.
    var late = formation
    formation.receive(introduction(2, term: 1))
    #expect(formation.verdict(now: MonotonicTime(0)) == .isNew)
    // Or it introduced itself long ago, and goes on over the same connection.
    late.receive(.preVote(VoteRequest(term: Term(1), last: .zero)), from: NodeID(2))
    #expect(late.verdict(now: MonotonicTime(0)) == .waiting(for: [NodeID(2), NodeID(3)]))
    late.receive(.vote(VoteRequest(term: Term(1), last: .zero)), from: NodeID(2))
    #expect(late.verdict(now: MonotonicTime(0)) == .isNew)
  }

  @Test("Who sees a member begin and is no founder had a disk that was one")
  func begunWithoutThisDisk() {
    var formation = Formation(
      own: NodeID(1), members: members, founders: founders, isFounder: false,
      begin: MonotonicTime(0))
    formation.receive(introduction(2, heard: [1]))
    #expect(formation.verdict(now: MonotonicTime(0)) == .waiting(for: [NodeID(3)]))
    formation.receive(introduction(2, term: 1))
    #expect(formation.verdict(now: MonotonicTime(0)) == .hasHistory(by: NodeID(2)))
  }

  @Test("Strangers without a past do not count; one with a past is a witness")
  func strangers() {
    var formation = Formation(
      own: NodeID(1), members: members, founders: founders, isFounder: false,
      begin: MonotonicTime(0))
    formation.receive(introduction(9))
    #expect(formation.verdict(now: MonotonicTime(0)) == .waiting(for: [NodeID(2), NodeID(3)]))
    formation.receive(introduction(9, term: 4))
    #expect(formation.verdict(now: MonotonicTime(0)) == .hasHistory(by: NodeID(9)))
  }

  @Test("A node that is to be alone first listens whether the cluster has grown without it")
  func alone() {
    var formation = Formation(
      own: NodeID(1), members: [NodeID(1)], founders: founders, isFounder: false,
      begin: MonotonicTime(100))
    #expect(formation.verdict(now: MonotonicTime(99)) == .waiting(for: []))
    #expect(formation.verdict(now: MonotonicTime(100)) == .isFounder)
    formation.receive(introduction(2, term: 3))
    #expect(formation.verdict(now: MonotonicTime(100)) == .hasHistory(by: NodeID(2)))
  }

  @Test("Nodes that were given different members do not found a cluster together")
  func different() {
    var formation = Formation(
      own: NodeID(1), members: members, founders: founders, isFounder: false,
      begin: MonotonicTime(0))
    formation.receive(introduction(2, heard: [1], founders: 8))
    formation.receive(introduction(3, heard: [1]))
    #expect(formation.verdict(now: MonotonicTime(0)) == .differs(NodeID(2)))
    formation.receive(introduction(2, heard: [1]))
    #expect(formation.verdict(now: MonotonicTime(0)) == .isFounder)
  }
}
