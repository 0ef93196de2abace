import Base
import Testing

@testable import Consensus

@Suite struct MembershipTests {
  static let four = MembershipChange.addLearner(
    id: NodeID(4), peerAddress: "peer4", clientAddress: "client4")

  /// What a change is refused with, nil if it was begun.
  static func refusal(_ change: MembershipChange, at node: LoneNode) -> MembershipChangeError? {
    var refusal: MembershipChangeError?
    node.input { consensus, output in
      do throws(MembershipChangeError) {
        _ = try consensus.proposeMembership(change, now: node.now, into: &output)
      } catch { refusal = error }
    }
    return refusal
  }

  /// A leader of three whose first entry is committed.
  static func leader() -> LoneNode {
    let node = LoneNode()
    node.lead()
    node.pump(2)
    node.accept(2, match: 1)
    return node
  }

  @Test("§4.1: only a leader changes the membership, and only after an entry of its own term")
  func ownTermFirst() {
    let node = LoneNode()
    #expect(Self.refusal(Self.four, at: node) == .notLeader)
    node.lead()
    #expect(Self.refusal(Self.four, at: node) == .noCommitInTerm)
    node.pump(2)
    node.accept(2, match: 1)
    #expect(Self.refusal(Self.four, at: node) == nil)
  }

  @Test("§4.1: one change at a time")
  func oneAtATime() {
    let node = Self.leader()
    #expect(Self.refusal(Self.four, at: node) == nil)
    #expect(Self.refusal(.remove(NodeID(3)), at: node) == .changePending)
    node.persistLog()
    node.pump(2)
    node.accept(2, match: 2)
    #expect(Self.refusal(.remove(NodeID(3)), at: node) == nil)
  }

  @Test("§4.1: changes that make no sense are named")
  func refusals() {
    let node = Self.leader()
    let two = MembershipChange.addLearner(id: NodeID(2), peerAddress: "", clientAddress: "")
    #expect(Self.refusal(two, at: node) == .alreadyMember(NodeID(2)))
    #expect(Self.refusal(.remove(NodeID(9)), at: node) == .notMember(NodeID(9)))
    #expect(Self.refusal(.promote(NodeID(9)), at: node) == .notMember(NodeID(9)))
    #expect(Self.refusal(.promote(NodeID(2)), at: node) == .notLearner(NodeID(2)))
    let single = LoneNode(voters: [1])
    single.tick(after: 0)
    single.persistAll()
    #expect(Self.refusal(.remove(NodeID(1)), at: single) == .lastVoter(NodeID(1)))
  }

  @Test("§4.2.1: a learner gets the log but neither counts nor votes")
  func learnersDoNotCount() {
    let node = Self.leader()
    _ = Self.refusal(Self.four, at: node)
    node.connect([4])
    #expect(node.pump(4).count == 1)
    #expect(node.accept(4, match: 2).isEmpty)
    #expect(node.consensus.commit == LogIndex(1))
    node.pump(3)
    node.persistLog()
    #expect(node.accept(3, match: 2).lines == ["commit 2"])
  }

  @Test("§4.2.1: a learner is promoted only when it is connected and has caught up")
  func promotion() {
    let node = LoneNode { $0.promotionLagMax = 2 }
    node.lead()
    node.pump(2)
    node.accept(2, match: 1)
    _ = Self.refusal(Self.four, at: node)
    node.persistLog()
    node.pump(2)
    node.accept(2, match: 2)
    let four = NodeID(4)
    #expect(Self.refusal(.promote(four), at: node) == .learnerBehind(four, entries: 2))
    node.connect([4])
    for _ in 0..<4 { _ = node.consensus.propose() }
    node.pump(4)
    node.accept(4, match: 3)
    #expect(Self.refusal(.promote(four), at: node) == .learnerBehind(four, entries: 3))
    node.accept(4, match: 4, mayVote: false)
    #expect(Self.refusal(.promote(four), at: node) == .learnerMayNotVote(four))
    node.accept(4, match: 4)
    // What it said counts no longer than its connection: it may come back with an empty disk.
    node.input { $0.peerDisconnected(four, now: node.now, into: &$1) }
    node.connect([4])
    node.pump(4)
    node.accept(4, match: 4, mayVote: false)
    #expect(Self.refusal(.promote(four), at: node) == .learnerMayNotVote(four))
    node.accept(4, match: 4)
    #expect(Self.refusal(.promote(four), at: node) == nil)
    #expect(node.consensus.membership.quorum == 3)
  }

  @Test("§4.1: a membership counts from the moment it is in the log, and falls back with its entry")
  func fallsBack() {
    let node = LoneNode(term: 1)
    let larger = Membership(members: [1, 2, 3, 4].map { member(NodeID($0)) })
    var request = appendRequest(1, terms: [1])
    if case .append(var append) = request {
      append.entries[0].kind = .membership
      request = .append(append)
    }
    // Without the decoded membership the message cannot be taken.
    #expect(node.receive(request, from: 2).isEmpty)
    let entry = MembershipEntry(index: LogIndex(1), membership: larger)
    let lines = node.receive(request, from: 2, memberships: [entry]).lines
    #expect(lines.contains("members (1 2 3 4) at 1"))
    #expect(node.consensus.membership == larger)
    let replaced = node.receive(appendRequest(2, terms: [2]), from: 3).lines
    #expect(replaced.contains("members (1 2 3) at 0"))
  }

  @Test("§4.2.2: a leader that removes itself leads until that is committed, without its own count")
  func leaderRemovesItself() {
    let node = Self.leader()
    node.pump(3)
    node.accept(3, match: 1)
    #expect(Self.refusal(.remove(NodeID(1)), at: node) == nil)
    node.persistLog()
    node.pump(2)
    node.pump(3)
    #expect(node.accept(2, match: 2).isEmpty)
    #expect(
      node.accept(3, match: 2).lines == [
        "commit 2", "is removed", "2 timeout-now term 1", "leads no more, term 1",
        "leader is unknown",
      ])
    #expect(node.tick(after: 2000).sent.isEmpty)
  }

  @Test("no voter goes that votes if too few stay that vote (seeds 335, 2416)")
  func votersStay() {
    let node = Self.leader()
    let (two, three) = (NodeID(2), NodeID(3))
    // Nobody heard of 3 yet.
    #expect(Self.refusal(.remove(two), at: node) == .tooFewVoters(voting: 1, needed: 2))
    node.pump(3)
    node.accept(3, match: 1, mayVote: false)
    #expect(Self.refusal(.remove(two), at: node) == .tooFewVoters(voting: 1, needed: 2))
    #expect(
      Self.refusal(.remove(node.consensus.id), at: node) == .tooFewVoters(voting: 1, needed: 2))
    // The one that does not vote is no loss, whoever else is there.
    node.input { $0.peerDisconnected(two, now: node.now, into: &$1) }
    #expect(Self.refusal(.remove(three), at: node) == nil)
  }

  @Test("§4.2.2: who has its own removal in the log and not committed can still be elected")
  func removedMayCampaign() {
    let node = LoneNode(voters: [1, 2], log: [1], term: 1)
    let smaller = MembershipEntry(
      index: LogIndex(2), membership: Membership(members: [member(NodeID(2))]))
    var request = appendRequest(1, after: position(1, 1), terms: [1])
    if case .append(var append) = request {
      append.entries[0].kind = .membership
      request = .append(append)
    }
    node.receive(request, from: 2, memberships: [smaller])
    node.persistAll()
    #expect(node.consensus.membership == smaller.membership)
    #expect(node.tick(after: 2000).sent.contains("2 pre-vote? term 2 last 2@1"))
    node.receive(.preVoteReply(VoteReply(term: Term(2), isGranted: true)), from: 2)
    node.persistHardState()
    node.receive(.voteReply(VoteReply(term: Term(2), isGranted: true)), from: 2)
    #expect(node.isLeader)
    node.connect([2])
    node.persistLog()
    #expect(node.consensus.commit == .zero, "its own disk does not count")
    node.pump(2)
    #expect(node.accept(2, match: 3).lines.contains("is removed"))
    #expect(node.tick(after: 2000).sent.isEmpty)
  }

  @Test("a removed node learns of it, then is fed no more")
  func removedNodeLearns() {
    let cluster = SimulatedCluster(voters: [1, 2, 3])
    cluster.run(milliseconds: 2000) { cluster.leader != nil }
    let leader = cluster.leader!
    let other = cluster.ids.first { $0 != leader }!
    #expect(throws: Never.self) { try cluster.change(leader, .remove(other)) }
    cluster.run(milliseconds: 500)
    #expect(cluster[other].isRemoved)
    #expect(cluster[leader].consensus.memberStatuses.count == 1)
    cluster.run(milliseconds: 3000)
    #expect(cluster.leader == leader && cluster.problems.isEmpty)
  }

  @Test(
    "one that an earlier leader began to add is not removed by a snapshot without it (seed 51368)",
    arguments: [true, false])
  func snapshotWithoutWhoIsAdded(isMember: Bool) {
    // Its log has entry 1 of an earlier leader, which made it a member and was never committed.
    let node = LoneNode(voters: [1, 2, 3], log: [1], term: 1)
    node.receive(appendRequest(2, after: position(9, 2), isMember: isMember), from: 2)
    node.persistHardState()
    let others = Membership(members: [2, 3].map { member(NodeID($0)) })
    node.receive(
      .snapshot(
        SnapshotChunk(
          term: Term(2), last: position(9, 2), membership: others, offset: 0, byteCount: 10,
          isLast: true)),
      from: 2)
    node.input {
      $0.snapshotChunkStored(last: position(9, 2), received: 10, now: node.now, into: &$1)
    }
    let done = node.input {
      $0.snapshotInstalled(last: position(9, 2), now: node.now, into: &$1)
    }
    #expect(done.lines.contains("is removed") == !isMember)
  }

  @Test("a node reading old memberships without it is not taken for removed")
  func newNodeIsNotRemoved() {
    let cluster = SimulatedCluster(voters: [1, 2, 3])
    cluster.run(milliseconds: 2000) { cluster.leader != nil }
    let leader = cluster.leader!
    for id in [4, 5] as [UInt32] {
      cluster.addNode(NodeID(id))
      cluster.connectAll()
      let change = MembershipChange.addLearner(
        id: NodeID(id), peerAddress: "peer\(id)", clientAddress: "client\(id)")
      #expect(throws: Never.self) { try cluster.change(leader, change) }
      cluster.run(milliseconds: 200)
    }
    #expect(!cluster[4].isRemoved && !cluster[5].isRemoved)
    #expect(cluster[5].consensus.membership.members.count == 5)
  }

  @Test(
    "a node that was added again with an empty disk reads of its removal and stays (seed 90)",
    arguments: [true, false], [true, false])
  func addedAgain(canVote: Bool, isMember: Bool) {
    let node = LoneNode(term: 1, canVote: canVote)
    let smaller = Membership(members: [2, 3].map { member(NodeID($0)) })
    var request = appendRequest(1, terms: [1], isMember: isMember)
    if case .append(var append) = request {
      append.entries[0].kind = .membership
      append.commit = LogIndex(1)
      request = .append(append)
    }
    let entry = MembershipEntry(index: LogIndex(1), membership: smaller)
    let lines = node.receive(request, from: 2, memberships: [entry]).lines
    // Whoever has its memory knows that this is news, unless its leader says that it is a member.
    #expect(lines.contains("is removed") == (canVote && !isMember))
  }

  @Test("a membership with a node twice is refused when read")
  func duplicate() throws {
    var bytes = Membership(members: [member(NodeID(1)), member(NodeID(2))]).encoded()
    #expect(try decode(bytes).members.count == 2)
    for end in 0..<bytes.count {
      #expect(throws: MembershipDecodingError.self) { try decode(Array(bytes[..<end])) }
    }
    let second = (bytes.count - 2) / 2 + 2
    bytes[second] = 1
    #expect(throws: MembershipDecodingError.duplicate(NodeID(1))) { try decode(bytes) }
  }

  private func decode(_ bytes: [UInt8]) throws -> Membership {
    try bytes.withUnsafeBytes { raw in
      var reader = ByteReader(raw)
      return try Membership(decoding: &reader)
    }
  }
}
