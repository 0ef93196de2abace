import Base
import Testing

@testable import Consensus

@Suite struct SnapshotTests {
  /// Three nodes, twenty entries, one follower stopped, the log before 20 gone at the others.
  static func lagging() -> (SimulatedCluster, leader: NodeID, lagging: NodeID) {
    let cluster = SimulatedCluster(voters: [1, 2, 3])
    cluster.run(milliseconds: 2000) { cluster.leader != nil }
    let leader = cluster.leader!
    let lagging = cluster.ids.first { $0 != leader }!
    cluster.crash(lagging)
    for _ in 0..<20 { cluster.propose(leader) }
    cluster.run(milliseconds: 200)
    for id in cluster.running { cluster.snapshot(id) }
    return (cluster, leader, lagging)
  }

  @Test("§5.3: a follower that needs what is gone gets the snapshot in chunks, then the log")
  func install() {
    let (cluster, leader, lagging) = Self.lagging()
    #expect(cluster[leader].consensus.logBase.index > LogIndex(15))
    cluster.restart(lagging)
    cluster.run(milliseconds: 300)
    for _ in 0..<3 { cluster.propose(leader) }
    cluster.run(milliseconds: 300)
    #expect(cluster[lagging].applied == cluster[leader].applied)
    #expect(cluster[lagging].disk.snapshot.index > LogIndex(15))
    #expect(cluster.chunksStored == 3)
    #expect(cluster.problems.isEmpty)
  }

  @Test("§5.3: after a lost connection the same leader goes on where the follower stands")
  func resume() {
    let (cluster, leader, lagging) = Self.lagging()
    cluster.restart(lagging)
    let isFirstChunkStored = {
      (cluster[lagging].consensus.receipt?.stored ?? 0) == 10
    }
    while !isFirstChunkStored() {
      if cluster.messages.isEmpty, cluster[lagging].pending.isEmpty {
        cluster.advance(milliseconds: 5)
      }
      for id in cluster.running { cluster.completeStorage(id) }
      if !cluster.messages.isEmpty { cluster.deliver(at: 0) }
    }
    cluster.messages = []
    for (one, other) in [(leader, lagging), (lagging, leader)] {
      cluster.input(one) { $0.peerDisconnected(other, now: cluster.now, into: &$1) }
      cluster.input(one) { $0.peerConnected(other, now: cluster.now, into: &$1) }
    }
    cluster.run(milliseconds: 1500)
    #expect(cluster[lagging].applied == cluster[leader].applied)
    // Three chunks, none stored twice.
    #expect(cluster.chunksStored == 3)
    #expect(cluster.problems.isEmpty)
  }

  static func chunk(
    term: UInt64, offset: UInt64, bytes: UInt32 = 10, isLast: Bool = false,
    last: LogPosition = position(9, 2)
  ) -> PeerMessage {
    .snapshot(
      SnapshotChunk(
        term: Term(term), last: last,
        membership: Membership(members: [1, 2, 3, 4].map { member(NodeID($0)) }), offset: offset,
        byteCount: bytes, isLast: isLast))
  }

  @Test("§5.3: chunks are taken in order; another leader's stream begins anew")
  func order() {
    let node = LoneNode(term: 2)
    #expect(
      node.receive(Self.chunk(term: 2, offset: 10), from: 2).sent == [
        "2 snapshot-reply term 2 through 9 has 0"
      ])
    #expect(node.receive(Self.chunk(term: 2, offset: 0), from: 2).count == 1)
    node.input {
      $0.snapshotChunkStored(last: position(9, 2), received: 10, now: node.now, into: &$1)
    }
    #expect(
      node.receive(Self.chunk(term: 2, offset: 0), from: 2).sent
        == ["2 snapshot-reply term 2 through 9 has 10"])
    node.receive(Self.chunk(term: 3, offset: 10), from: 3)
    #expect(node.persistHardState().sent == ["3 snapshot-reply term 3 through 9 has 0"])
  }

  @Test("§5.3: the snapshot replaces the whole log and brings its membership")
  func replaces() {
    let node = LoneNode(log: [1, 1], term: 2)
    node.receive(Self.chunk(term: 2, offset: 0, isLast: true), from: 2)
    // While it is put in force the log is left alone, and nobody is voted out of office for it.
    let append = node.receive(appendRequest(2, after: position(2, 1), terms: [2]), from: 2)
    #expect(append.sent == ["2 accepted term 2 match 0 verified 0"])
    #expect(node.consensus.lastIndex == LogIndex(2))
    let done = node.input {
      $0.snapshotInstalled(last: position(9, 2), now: node.now, into: &$1)
    }
    #expect(
      done.lines == ["members (1 2 3 4) at 9", "2 snapshot-reply term 2 through 9 installed"])
    #expect(node.consensus.lastPosition == position(9, 2))
    #expect(node.consensus.commit == LogIndex(9))
  }

  @Test("§5.3: a follower that has the entries needs no snapshot")
  func notNeeded() {
    let node = LoneNode(log: [1, 1, 1], term: 2)
    #expect(
      node.receive(Self.chunk(term: 2, offset: 0, last: position(3, 1)), from: 2).sent
        == ["2 accepted term 2 match 3 verified 3"])
  }

  @Test("§5.3: a snapshot that fails to be stored is begun anew")
  func failed() {
    let node = LoneNode(term: 2)
    node.receive(Self.chunk(term: 2, offset: 0, isLast: true), from: 2)
    node.consensus.snapshotFailed(last: position(9, 2))
    #expect(node.receive(Self.chunk(term: 2, offset: 0), from: 2).count == 1)
  }

  @Test("§5.1: dropping the log keeps the term of the last dropped entry")
  func compaction() {
    let node = LoneNode(log: [1, 1, 2, 2, 3], term: 3)
    node.receive(appendRequest(3, after: position(5, 3), commit: 5), from: 2)
    node.consensus.snapshotTaken(through: LogIndex(4))
    node.consensus.logDropped(through: LogIndex(3))
    #expect(node.consensus.logBase == position(3, 2))
    #expect(node.consensus.term(at: LogIndex(4)) == Term(2))
    #expect(node.consensus.term(at: LogIndex(2)) == nil)
    #expect(
      node.receive(appendRequest(3, after: position(1, 1), terms: [1, 2, 2, 3]), from: 2).sent
        == ["2 accepted term 3 match 5 verified 5"])
  }
}

@Suite struct MemberReachTests {
  private func reach(_ cluster: SimulatedCluster, _ leader: NodeID, of id: NodeID) -> MemberReach? {
    let members = cluster[leader].consensus.memberStatuses
    let reaches = cluster[leader].consensus.reaches
    return members.firstIndex { $0.id == id }.map { reaches[$0] }
  }

  @Test("A member that goes away is remembered where it was; one that is fed counts where it is")
  func goesAway() throws {
    let cluster = SimulatedCluster(voters: [1, 2, 3])
    cluster.run(milliseconds: 2000) { cluster.leader != nil }
    let leader = try #require(cluster.leader)
    let other = try #require(cluster.ids.first { $0 != leader })
    for _ in 0..<5 { cluster.propose(leader) }
    cluster.run(milliseconds: 200)
    let there = cluster[leader].consensus.lastIndex
    #expect(reach(cluster, leader, of: other) == MemberReach(index: there, isFed: true))
    cluster.crash(other)
    for _ in 0..<5 { cluster.propose(leader) }
    cluster.run(milliseconds: 200)
    #expect(cluster.leader == leader)
    #expect(reach(cluster, leader, of: other) == MemberReach(index: there, isFed: false))
    cluster.restart(other)
    cluster.run(milliseconds: 300)
    let end = cluster[leader].consensus.lastIndex
    #expect(reach(cluster, leader, of: other) == MemberReach(index: end, isFed: true))
    let ofFollower = cluster[other].consensus.reaches
    #expect(ofFollower.isEmpty)
  }

  @Test("One that is sent a snapshot needs what is behind the snapshot")
  func snapshot() throws {
    let (cluster, leader, lagging) = SnapshotTests.lagging()
    let sent = cluster[leader].consensus.snapshot.index
    cluster.restart(lagging)
    while cluster[lagging].consensus.receipt == nil {
      if cluster.messages.isEmpty, cluster[lagging].pending.isEmpty {
        cluster.advance(milliseconds: 5)
      }
      for id in cluster.running { cluster.completeStorage(id) }
      if !cluster.messages.isEmpty { cluster.deliver(at: 0) }
    }
    #expect(reach(cluster, leader, of: lagging) == MemberReach(index: sent, isFed: true))
  }

  @Test("Who led before is guessed to lack nothing of what its successor began with")
  func successor() throws {
    let cluster = SimulatedCluster(voters: [1, 2, 3])
    cluster.run(milliseconds: 2000) { cluster.leader != nil }
    let first = try #require(cluster.leader)
    for _ in 0..<5 { cluster.propose(first) }
    cluster.run(milliseconds: 200)
    let end = cluster[first].consensus.lastIndex
    cluster.crash(first)
    cluster.run(milliseconds: 3000) { cluster.leader != nil && cluster.leader != first }
    let second = try #require(cluster.leader)
    for _ in 0..<5 { cluster.propose(second) }
    cluster.run(milliseconds: 200)
    let guess = try #require(reach(cluster, second, of: first))
    #expect(guess.index >= end && guess.index < cluster[second].consensus.lastIndex)
    #expect(!guess.isFed)
  }
}
