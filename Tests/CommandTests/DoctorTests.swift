// What `skein doctor` makes of the nodes' answers.

import Base
import Testing
import Wire

@testable import SkeinClient
@testable import skein

@Suite struct DoctorTests {
  private func node(_ id: UInt32, advice: [String], problems: [String] = []) -> ClusterReport.Node {
    StatusTests.node(
      id,
      NodeOverview(
        NodeStatus(
          id: NodeID(id), role: id == 2 ? .leader : .follower, term: Term(7), leader: NodeID(2),
          commitIndex: LogIndex(1), appliedIndex: LogIndex(1), lastIndex: LogIndex(1),
          stateHash: 0, stateHashIndex: .zero, diskBytes: 0, memoryBytes: 0, pid: id,
          uptime: .seconds(1), sessions: 0, connections: 0, amqp: AMQPStatus(advice: advice),
          version: "0.1.0", problems: problems)))
  }

  @Test func adviceIsSaidOnceHoweverManyNodesGiveIt() {
    let report = ClusterReport(
      nodes: [node(1, advice: ["a", "b"]), node(2, advice: ["b"]), node(3, advice: [])],
      queues: nil)
    #expect(report.diagnosisText(colours: false) == "- a\n- b\n")
    #expect(report.diagnosis.text == #"{"problems":[],"advice":["a","b"]}"#)
  }

  @Test func problemsComeFirst() {
    let report = ClusterReport(
      nodes: [node(1, advice: ["a"]), node(2, advice: [], problems: ["it smokes"])], queues: nil)
    #expect(report.diagnosisText(colours: false) == "! node 2: it smokes\n- a\n")
  }

  @Test func aHealthyClusterIsToldSo() {
    #expect(StatusTests.healthy.diagnosisText(colours: false) == "nothing is wrong\n")
  }
}
