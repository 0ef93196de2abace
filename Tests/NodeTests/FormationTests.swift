// How a cluster begins (G11, last sentence): a wiped node must never take itself for a new one.

import Base
import Consensus
import Testing

@testable import Node

@Suite struct FormationTests {
  let members = [NodeID(1), NodeID(2), NodeID(3)]

  func introduction(_ node: UInt32, term: UInt64 = 0, heard: [UInt32] = []) -> Introduction {
    Introduction(
      node: NodeID(node), cluster: "c", term: Term(term), heard: heard.map { NodeID($0) })
  }

  @Test("A new cluster begins when everybody has heard everybody's empty past")
  func newCluster() {
    var formation = Formation(own: NodeID(1), members: members)
    #expect(formation.verdict == .waiting(for: [NodeID(2), NodeID(3)]))
    formation.receive(introduction(2))
    formation.receive(introduction(3, heard: [1]))
    #expect(formation.verdict == .waiting(for: [NodeID(2)]))
    formation.receive(introduction(2, heard: [1, 3]))
    #expect(formation.verdict == .isNew)
    #expect(formation.heard == [NodeID(2), NodeID(3)])
  }

  @Test("One member with a history is enough to know that this disk may have been wiped")
  func wiped() {
    var formation = Formation(own: NodeID(1), members: members)
    formation.receive(introduction(2, term: 4))
    #expect(formation.verdict == .hasHistory(by: NodeID(2)))
    formation.receive(introduction(3, heard: [1]))
    #expect(formation.verdict == .hasHistory(by: NodeID(2)))
  }

  @Test("A member that began after hearing this node is no sign of a wiped disk")
  func begunMeanwhile() {
    var formation = Formation(own: NodeID(1), members: members)
    formation.receive(introduction(2, heard: [1]))
    formation.receive(introduction(2, term: 1))
    #expect(formation.verdict == .waiting(for: [NodeID(3)]))
    formation.receive(introduction(3, heard: [1]))
    #expect(formation.verdict == .isNew)
  }

  @Test("Strangers do not count, and a single node begins alone")
  func strangers() {
    var formation = Formation(own: NodeID(1), members: members)
    formation.receive(introduction(9, term: 4))
    #expect(formation.verdict == .waiting(for: [NodeID(2), NodeID(3)]))
    #expect(Formation(own: NodeID(1), members: [NodeID(1)]).verdict == .isNew)
  }
}
