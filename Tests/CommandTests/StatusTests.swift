// What `status` makes of the nodes' answers: the leader, the margin, the problems, and the JSON
// whose fields are fixed.

import Base
import Testing
import Wire

@testable import SkeinClient
@testable import skein

@Suite struct StatusTests {
  static func status(
    _ id: UInt32, _ role: NodeRole, term: UInt64 = 7, leader: UInt32 = 2, hash: UInt64 = 0xabc,
    peers: [PeerStatus] = [], problems: [String] = []
  ) -> NodeOverview {
    NodeOverview(
      NodeStatus(
        id: NodeID(id), role: role, term: Term(term), leader: NodeID(leader),
        commitIndex: LogIndex(1200), appliedIndex: LogIndex(1199), lastIndex: LogIndex(1201),
        stateHash: hash, stateHashIndex: LogIndex(1000), diskBytes: 64 << 20, memoryBytes: 20 << 20,
        pid: 100 + id, uptime: .seconds(70), sessions: 1, connections: 2, version: "0.1.0",
        peers: peers, problems: problems))
  }

  static func node(_ id: UInt32, _ status: NodeOverview?, votes: Bool = true) -> ClusterReport.Node
  {
    ClusterReport.Node(
      id: Int(id), address: "127.0.0.1:740\(id)", votes: votes, status: status)
  }

  static let healthy = ClusterReport(
    nodes: [
      node(1, status(1, .follower)),
      node(
        2,
        status(
          2, .leader,
          peers: [
            PeerStatus(
              id: NodeID(1), isConnected: true, match: LogIndex(1200), lag: 1, silence: .zero)
          ])), node(3, status(3, .follower)),
    ], queues: [])

  static func queue(_ name: String, published: UInt64 = 0) -> QueueOverview {
    QueueOverview(
      QueueSummary(
        id: QueueID(1), name: name, settings: QueueSettings(), ready: 12_345, leased: 6, delayed: 0,
        consumers: 2, bytes: 4096, published: published, delivered: 5, acknowledged: 4,
        redelivered: 0, deadLettered: 0))
  }

  @Test func aHealthyClusterHasNoProblems() {
    #expect(Self.healthy.leader == 2)
    #expect(Self.healthy.term == 7)
    #expect(Self.healthy.margin == 1)
    #expect(Self.healthy.problems == [])
    #expect(Self.healthy.lag(of: 1) == 1)
    #expect(Self.healthy.lag(of: 2) == 0)
    #expect(Self.healthy.lag(of: 3) == nil)
  }

  @Test(arguments: [
    (3, 0, 1), (3, 1, 0), (3, 2, -1), (3, 3, nil), (5, 0, 2), (5, 2, 0), (5, 3, -1), (1, 0, 0),
    (2, 0, 0), (4, 0, 1), (4, 1, 0),
  ])
  func theMarginIsWhatMayStillFail(voters: Int, down: Int, margin: Int?) {
    let nodes = (1...voters).map { id in
      Self.node(UInt32(id), id <= down ? nil : Self.status(UInt32(id), .follower))
    }
    #expect(ClusterReport(nodes: nodes).margin == margin)
  }

  @Test func learnersDoNotCount() {
    var report = Self.healthy
    report.nodes.append(Self.node(4, Self.status(4, .learner), votes: false))
    #expect(report.margin == 1)
  }

  /// A leader that was cut off still takes itself for one: the later term is right.
  @Test func ofTwoLeadersTheLaterCounts() {
    let report = ClusterReport(nodes: [
      Self.node(1, Self.status(1, .leader, term: 6, leader: 1)),
      Self.node(2, Self.status(2, .leader, term: 7)), Self.node(3, Self.status(3, .follower)),
    ])
    #expect(report.leader == 2)
  }

  @Test func aLeaderThatDoesNotAnswerIsKnownFromTheOthers() {
    let report = ClusterReport(nodes: [Self.node(1, Self.status(1, .follower)), Self.node(2, nil)])
    #expect(report.leader == 2)
  }

  @Test func problemsAreSentences() {
    let broken = Self.status(
      3, .stopped, leader: 0, hash: 0xdef, problems: ["the disk is full"])
    let report = ClusterReport(nodes: [
      Self.node(1, Self.status(1, .candidate, leader: 0)), Self.node(2, nil), Self.node(3, broken),
    ])
    #expect(
      report.problems == [
        "no node leads", "no quorum: 1 more node must be up", "node 2 is down",
        "node 3: the disk is full", "nodes 1 and 3 differ in their state after entry 1000",
      ])
  }

  @Test func theFieldsOfTheJSONAreFixed() {
    var report = Self.healthy
    report.nodes = [report.nodes[1], Self.node(3, nil)]
    report.queues = [Self.queue("orders")]
    #expect(
      report.json.text.hasPrefix(
        #"{"leader":2,"term":7,"nodes":[{"id":2,"up":true,"role":"leader","#
          + #""address":"127.0.0.1:7402","pid":102,"commitIndex":1200,"appliedIndex":1199,"#
          + #""stateHash":"0000000000000abc","stateHashIndex":1000,"diskBytes":67108864,"#
          + #""memoryBytes":20971520,"#))
    #expect(
      report.json.text.contains(
        #"{"id":3,"up":false,"role":null,"address":"127.0.0.1:7403","pid":null,"#))
    #expect(
      report.json.text.contains(
        #""queues":[{"name":"orders","ready":12345,"leased":6,"delayed":0,"consumers":2}]"#))
  }

  @Test func thePageSaysItAtAGlance() {
    var report = Self.healthy
    report.queues = [Self.queue("orders")]
    let text = report.text(colours: false)
    #expect(text.hasPrefix("leader is node 2, term 7; may lose 1 more node\n"))
    #expect(text.contains("2     leader    127.0.0.1:7402"))
    #expect(text.contains("orders  12,345       6"))
    report.nodes[0] = Self.node(1, nil)
    #expect(report.text(colours: false).contains("may lose no more node"))
    #expect(report.text(colours: false).contains("1     down      127.0.0.1:7401"))
    #expect(report.text(colours: false).contains("! node 1 is down"))
  }

  @Test func ratesComeFromTwoLooks() throws {
    let rates = try #require(
      QueueRates(
        from: Self.queue("orders", published: 1000), to: Self.queue("orders", published: 3000),
        seconds: 2))
    #expect(rates.published == 1000)
    var report = Self.healthy
    report.queues = [Self.queue("orders", published: 3000)]
    #expect(report.text(rates: ["orders": rates], colours: false).contains("in/s"))
    #expect(
      QueueRates(
        from: Self.queue("orders", published: 3000), to: Self.queue("orders", published: 1),
        seconds: 2) == nil)
  }

  @Test func numbersAreGrouped() {
    #expect([0, 999, 1000, 1_234_567].map { grouped($0) } == ["0", "999", "1,000", "1,234,567"])
    #expect(
      [59, 60, 7200, 200_000].map { roundedAge(.seconds($0)) } == ["59s", "1m", "2h", "2d"])
  }
}
