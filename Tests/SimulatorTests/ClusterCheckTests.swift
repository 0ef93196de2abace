// The checks of logs, leaders and what leaves a node: each before something that it must not let pass.

import Base
import TestSupport
import Testing

@testable import Consensus
@testable import LogStore
@testable import Node
@testable import Simulator

/// A cluster without faults, and parts of it that lie.
private struct Cluster {
  let simulation: Simulation
  let leader: NodeLife
  let follower: NodeLife

  var rule: String? { simulation.violation?.rule }
  var checks: ClusterChecks { simulation.checks }
  var commit: LogIndex { leader.replica.consensus.commit }
  var term: Term { leader.replica.consensus.term }

  init(_ simulation: Simulation? = nil) throws {
    let simulation = try simulation ?? SessionWatchTests.running()
    let leader = try #require(simulation.leader)
    self.simulation = simulation
    self.leader = leader
    let others = simulation.nodes.compactMap(\.life).filter { $0 !== leader }
    // One that knows of the newest commits.
    follower = try #require(
      others.max { $0.replica.consensus.commit < $1.replica.consensus.commit })
  }

  /// Its first leader was killed, and the second one has committed, as a follower knows.
  static func ofTwoTerms() throws -> Self {
    let simulation = try SessionWatchTests.running()
    simulation.crash(try #require(simulation.leader).node, power: false)
    try go(simulation) {
      guard let term = simulation.leader?.replica.consensus.term else { return false }
      let knowing = simulation.nodes.compactMap(\.life).count {
        $0.replica.consensus.term == term && $0.replica.consensus.hasCommittedInTerm
      }
      return knowing > 1
    }
    return try Self(simulation)
  }

  /// Goes on until something is so.
  static func go(_ simulation: Simulation, until isReached: () -> Bool) throws {
    while !isReached(), simulation.violation == nil, simulation.now < .seconds(60),
      simulation.goOn()
    {}
    #expect(simulation.violation == nil, "\(simulation.violation?.description ?? "")")
    try #require(isReached())
  }

  /// It leads a term by everybody's vote.
  func elect(_ life: NodeLife, _ term: Term) {
    let kept = simulation.nodes.map(\.hardState)
    for node in simulation.nodes {
      node.hardState = HardState(term: term, vote: life.replica.id)
    }
    checks.becameLeader(life, term)
    for (node, state) in zip(simulation.nodes, kept) { node.hardState = state }
  }

  /// Until a promise is broken.
  func goOn() {
    while simulation.violation == nil, simulation.now < .seconds(60), simulation.goOn() {}
  }
}

extension Consensus {
  fileprivate var hasCommittedInTerm: Bool { term(at: commit) == term }
}

/// One leader a term, logs that match, entries that stay.
@Suite(.ownThreads) struct LogAndLeaderTests {
  @Test func twoLeadersOfATermAreSeen() throws {
    let cluster = try Cluster()
    cluster.checks.becameLeader(cluster.follower, cluster.term)
    #expect(cluster.rule == "one leader a term")
  }

  @Test func aLeaderWithoutACommittedEntryIsSeen() throws {
    let cluster = try Cluster()
    cluster.elect(cluster.follower, Term(98))
    #expect(cluster.rule == nil)
    cluster.follower.standStill(until: .seconds(100))
    let last = cluster.follower.replica.consensus.lastIndex
    try Cluster.go(cluster.simulation) { cluster.checks.commit > last }
    cluster.elect(cluster.follower, Term(99))
    #expect(cluster.rule == "leader completeness")
  }

  /// One that was committed in a term of its own has another term at the leader.
  @Test func aLeaderWithAnotherEntryInThePlaceOfACommittedOneIsSeen() throws {
    let cluster = try Cluster.ofTwoTerms()
    cluster.follower.replica.consensus.log = try Self.ofFirstTerm(cluster.follower)
    cluster.elect(cluster.follower, Term(99))
    #expect(cluster.rule == "leader completeness")
  }

  @Test func committedEntriesThatChangeAreSeen() throws {
    let cluster = try Cluster.ofTwoTerms()
    let follower = cluster.follower
    // Its log is checked from the beginning, as that of a new process.
    follower.checkedCommit = .zero
    cluster.checks.afterStep(follower)
    #expect(cluster.rule == nil)
    follower.replica.consensus.log = try Self.ofFirstTerm(follower)
    follower.checkedCommit = .zero
    follower.steps = 0
    cluster.checks.afterStep(follower)
    #expect(cluster.rule == "committed entries never change")
  }

  @Test func committedEntriesThatAreRemovedAreSeen() throws {
    let cluster = try Cluster()
    let commit = cluster.follower.checkedCommit
    cluster.checks.willStore(
      [.truncate(from: commit.next)], StoreTicket(number: 1 << 40), at: cluster.follower)
    #expect(cluster.rule == nil)
    cluster.checks.willStore(
      [.truncate(from: commit)], StoreTicket(number: 1 << 40), at: cluster.follower)
    #expect(cluster.rule == "committed entries never change")
  }

  /// By counting, before it has committed one of its own.
  @Test func aLeaderThatCommitsAnOlderTermsEntryIsSeen() throws {
    let cluster = try Cluster.ofTwoTerms()
    let leader = cluster.leader
    leader.checkedCommit = .zero
    cluster.checks.afterStep(leader)
    #expect(cluster.rule == nil)
    let log = leader.replica.consensus.log
    let first = try #require(log.runs.last).first.previous
    leader.replica.consensus.commit = first
    leader.checkedCommit = .zero
    leader.steps = 0
    cluster.checks.afterStep(leader)
    #expect(cluster.rule == "leader completeness")
  }

  @Test func anEntryWithOtherBytesIsSeen() throws {
    let cluster = try Cluster()
    let position = LogPosition(term: cluster.term, index: cluster.commit)
    let entry = Entry(position: position, kind: .commands, payload: [7])
    cluster.checks.wasRead([entry], at: cluster.follower)
    #expect(cluster.rule == "log matching")
  }

  @Test func anEntryWithAnotherBeforeItIsSeen() throws {
    let cluster = try Cluster.ofTwoTerms()
    let log = cluster.follower.replica.consensus.log
    // The second term's second entry and what came before it, which is the first term's here.
    let run = try #require(log.runs.last)
    let cached = cluster.leader.replica.cache.entry(run.first.next)
    let entry = try #require(cached)
    cluster.checks.wasRead([entry], at: cluster.follower)
    #expect(cluster.rule == nil)
    cluster.follower.replica.consensus.log = TermRuns(
      base: log.base, runs: log.runs.dropLast() + [TermRun(first: run.first.next, term: run.term)],
      last: log.last)
    cluster.checks.wasRead([entry], at: cluster.follower)
    #expect(cluster.rule == "log matching")
  }

  /// Its log as if all were of the first leader's term.
  private static func ofFirstTerm(_ life: NodeLife) throws -> TermRuns {
    let log = life.replica.consensus.log
    let first = try #require(log.runs.first)
    try #require(log.runs.count > 1)
    return TermRuns(base: log.base, runs: [first], last: log.last)
  }

  @Test func statesWithOtherHashesAreSeen() throws {
    let cluster = try Cluster()
    let (applied, hash) = (
      cluster.leader.replica.applied, cluster.leader.replica.machine.stateHash
    )
    cluster.checks.compare(hash, after: applied, at: cluster.follower.node)
    #expect(cluster.rule == nil)
    cluster.checks.compare(hash ^ 1, after: applied, at: cluster.follower.node)
    #expect(cluster.rule == "G14")
  }

  @Test func aReadThatMissesWhatWasCommittedIsSeen() throws {
    let cluster = try Cluster()
    let far = LogIndex(cluster.commit.rawValue + 1_000_000)
    cluster.leader.receive(.read(after: far))
    cluster.goOn()
    #expect(cluster.rule == "linearizable reads")
  }

  @Test func membersMayChangeOnlyAfterACommitInTheTerm() throws {
    let simulation = try SessionWatchTests.running()
    simulation.crash(try #require(simulation.leader).node, power: false)
    try Cluster.go(simulation) { simulation.leader != nil }
    let life = try #require(simulation.leader)
    let hasCommitted = life.replica.consensus.hasCommittedInTerm
    try #require(!hasCommitted)
    let position = LogPosition(
      term: life.replica.consensus.term, index: life.replica.consensus.lastIndex.next)
    let entry = Entry(position: position, kind: .membership, payload: [])
    simulation.checks.willChangeMembers(entry, at: life)
    #expect(simulation.violation?.rule == "G2")
    #expect(simulation.violation?.text.contains("before it has committed") == true)
  }

  @Test func membersMayChangeAfterIt() throws {
    let cluster = try Cluster.ofTwoTerms()
    let position = LogPosition(
      term: cluster.term, index: cluster.leader.replica.consensus.lastIndex.next)
    let entry = Entry(position: position, kind: .membership, payload: [])
    cluster.checks.willChangeMembers(entry, at: cluster.leader)
    #expect(cluster.rule == nil)
  }
}

/// Nobody says what its disk does not have, and nobody finds there what it did not say.
@Suite(.ownThreads) struct PromiseTests {
  /// What a disk of a term, with a vote for somebody else, must not let out, and in its own term may.
  @Test(arguments: [
    PeerMessage.voteReply(VoteReply(term: Term(99), isGranted: true)),
    .vote(VoteRequest(term: Term(99), last: .zero)),
    .append(
      AppendRequest(term: Term(99), previous: .zero, entries: [], commit: .zero, round: 1)),
    .appendReply(
      AppendReply(term: Term(99), outcome: .accepted(match: .zero, verified: .zero), round: 1)),
    .snapshot(
      SnapshotChunk(
        term: Term(99), last: .zero, membership: Membership(members: []), offset: 0, byteCount: 0,
        isLast: true)),
    .snapshotReply(
      SnapshotReply(term: Term(99), last: .zero, received: 0, isInstalled: true)),
  ])
  func whatIsSaidOfATermIsOnTheDisk(message: PeerMessage) throws {
    let cluster = try Cluster()
    let (life, peer) = (cluster.follower, cluster.leader.replica.id)
    let envelope = PeerEnvelope.consensus(message, payloads: [])
    for vote in [peer, life.replica.id] {
      life.node.hardState = HardState(term: Term(99), vote: vote)
      let isOwnVote = if case .vote = message { true } else { false }
      let isVote = if case .voteReply = message { true } else { isOwnVote }
      // Whose vote the disk has matters to votes alone.
      guard !isVote || (vote == peer) != isOwnVote else { continue }
      cluster.checks.willSend(envelope, to: peer, from: life)
      #expect(cluster.rule == nil)
    }
    life.node.hardState = HardState(term: Term(98), vote: nil)
    cluster.checks.willSend(envelope, to: peer, from: life)
    #expect(cluster.rule == "G2")
  }

  @Test func aVoteForSomebodyElseIsSeen() throws {
    let cluster = try Cluster()
    let (life, peer) = (cluster.follower, cluster.leader.replica.id)
    life.node.hardState = HardState(term: Term(99), vote: life.replica.id)
    cluster.checks.willSend(
      .consensus(.voteReply(VoteReply(term: Term(99), isGranted: true)), payloads: []), to: peer,
      from: life)
    #expect(cluster.rule == "G2")
  }

  /// An entry, or a snapshot in the place of all through it.
  @Test(arguments: [true, false])
  func whatIsAcknowledgedIsOnTheDisk(isSnapshot: Bool) throws {
    let cluster = try Cluster()
    let (life, peer) = (cluster.follower, cluster.leader.replica.id)
    let term = life.node.hardState.term
    func acknowledge(_ match: LogIndex) {
      let message =
        isSnapshot
        ? PeerMessage.snapshotReply(
          SnapshotReply(term: term, last: match, received: 0, isInstalled: true))
        : .appendReply(
          AppendReply(term: term, outcome: .accepted(match: match, verified: match), round: 1))
      cluster.checks.willSend(.consensus(message, payloads: []), to: peer, from: life)
    }
    let end = life.node.log.durableEnd
    acknowledge(end)
    #expect(cluster.rule == nil)
    acknowledge(end.next)
    #expect(cluster.rule == "G1")
  }

  @Test func aLeaderWithoutVotesIsSeen() throws {
    let cluster = try Cluster()
    cluster.checks.becameLeader(cluster.follower, Term(98))
    #expect(cluster.rule == "G2")
  }

  /// The same node, in another life that forgot what it voted.
  @Test func aTermThatIsLedTwiceByOneNodeIsSeen() throws {
    let cluster = try Cluster()
    let (former, node, term) = (cluster.leader, cluster.leader.node, cluster.term)
    cluster.simulation.crash(node, power: false)
    try Cluster.go(cluster.simulation) { node.life.map { $0 !== former } ?? false }
    cluster.elect(try #require(node.life), term)
    #expect(cluster.rule == "one leader a term")
  }

  @Test func aVoteThatIsForgottenIsSeen() throws {
    for (found, isSeen) in [
      (HardState(term: Term(5), vote: NodeID(2)), false), (HardState(term: Term(6)), false),
      (HardState(term: Term(5)), true), (HardState(term: Term(5), vote: NodeID(3)), true),
      (HardState(term: Term(4), vote: NodeID(2)), true),
    ] {
      let (simulation, node) = try Self.withThreeEntries()
      node.hardState = HardState(term: Term(5), vote: NodeID(2))
      var recovery = Self.found(through: 3, term: 1)
      recovery.hardState = found
      simulation.checks.recovered(recovery, at: node)
      #expect(simulation.violation?.rule == (isSeen ? "G2" : nil), "\(found)")
    }
  }

  /// Who stops for a disk that did all it was asked has no reason (G12).
  @Test func aHaltWithoutAReasonIsSeen() throws {
    let cluster = try Cluster()
    cluster.leader.node.wasHarmed = true
    cluster.leader.haltForDisk("damage")
    #expect(cluster.rule == nil)
    cluster.follower.haltForDisk("nothing")
    #expect(cluster.rule == "G12")
  }

  @Test func whatALeaderCountsIsThere() throws {
    let cluster = try Cluster()
    cluster.checks.connected(cluster.leader, to: cluster.follower)
    #expect(cluster.rule == nil)
    // As on another disk.
    cluster.follower.replica.consensus.persisted = .zero
    cluster.checks.connected(cluster.leader, to: cluster.follower)
    #expect(cluster.rule == "G1")
  }

  @Test func anEntryThatWasNotThereIsSeen() throws {
    let (simulation, node) = try Self.withThreeEntries()
    simulation.checks.recovered(Self.found(through: 3, term: 1), at: node)
    #expect(simulation.violation == nil)
    simulation.checks.recovered(Self.found(through: 4, term: 1), at: node)
    #expect(simulation.violation?.rule == "G11")
  }

  @Test func anEntryThatIsNotThereAnyMoreIsSeen() throws {
    let (simulation, node) = try Self.withThreeEntries()
    simulation.checks.recovered(Self.found(through: 2, term: 1), at: node)
    #expect(simulation.violation?.rule == "G1")
  }

  /// A node that nobody harms.
  private static func withThreeEntries() throws -> (Simulation, SimulatedNode) {
    let simulation = try SessionWatchTests.running()
    let node = try #require(simulation.nodes.first { !$0.wasHarmed })
    node.log = OrderedLog()
    node.hardState = HardState()
    let entries = (UInt64(1)...3).map {
      Entry(
        position: LogPosition(term: Term(1), index: LogIndex($0)), kind: .commands, payload: [])
    }
    node.log.order([.append(entries)], StoreTicket(number: 1))
    node.log.stored([StoreTicket(number: 1)])
    return (simulation, node)
  }

  private static func found(through last: UInt64, term: UInt64) -> Recovery {
    var recovery = Recovery()
    recovery.last = LogPosition(term: Term(term), index: LogIndex(last))
    recovery.termRuns = [TermRun(first: LogIndex(1), term: Term(term))]
    return recovery
  }

  /// Frames go through the bytes of the wire in one plan of five, one in eight of them.
  @Test func aFrameThatTheWireDoesNotCarryIsSeen() throws {
    let seed = try #require((UInt64(1)...100).first { Plan(seed: $0).usesCodec })
    let simulation = Simulation(seed: seed, without: PlanCut())
    for _ in 0..<200 {
      _ = simulation.throughCodec(.stateHash(index: LogIndex(1), hash: 2))
    }
    #expect(simulation.violation == nil)
    let request = AppendRequest(
      term: Term(1), previous: .zero, entries: [], commit: .zero, round: 1)
    for _ in 0..<200 {
      _ = simulation.throughCodec(.consensus(.append(request), payloads: [[1, 2, 3]]))
    }
    #expect(simulation.violation?.rule == "codec")
  }
}
