import Base
import Testing

@testable import Consensus

@Suite struct ReplicationTests {
  @Test("§3.5: a follower acknowledges what is on its disk, and says what it has verified")
  func acknowledgement() {
    let node = LoneNode(term: 1)
    #expect(
      node.receive(appendRequest(1, terms: [1, 1, 1]), from: 2).lines
        == ["leader is 2", "append 1...3", "2 accepted term 1 match 0 verified 3"])
    #expect(node.persistLog(through: 2).sent == ["2 accepted term 1 match 2 verified 3"])
    #expect(node.persistLog(through: 3).sent == ["2 accepted term 1 match 3 verified 3"])
    #expect(node.persistLog(through: 3).isEmpty)
  }

  @Test("§3.4: nothing is acknowledged in a term that is not on disk")
  func termFirst() {
    let node = LoneNode()
    #expect(
      node.receive(appendRequest(4, terms: [4]), from: 2).lines
        == ["leader is 2", "persist term 4 vote none", "append 1...1"])
    #expect(node.persistHardState().sent == ["2 accepted term 4 match 0 verified 1"])
  }

  @Test("§3.5: a follower never acknowledges its own suffix that the leader has not verified")
  func unverifiedSuffix() {
    let node = LoneNode(log: [1, 1, 1, 2, 2])
    #expect(
      node.receive(appendRequest(3, after: position(2, 1), commit: 5), from: 2).sent.isEmpty)
    #expect(node.persistHardState().sent == ["2 accepted term 3 match 2 verified 2"])
    #expect(node.consensus.commit == LogIndex(2))
  }

  @Test("§3.5: what conflicts is removed, what agrees is kept")
  func conflict() {
    let node = LoneNode(log: [1, 1, 2, 2], term: 3)
    #expect(
      node.receive(appendRequest(3, after: position(1, 1), terms: [1, 3]), from: 2).lines
        == [
          "leader is 2", "truncate from 3", "append 3...3", "2 accepted term 3 match 2 verified 3",
        ])
    // A message from before, late: nothing is removed again.
    #expect(
      node.receive(appendRequest(3, after: position(1, 1), terms: [1]), from: 2).lines
        == ["2 accepted term 3 match 2 verified 3"])
    #expect(node.consensus.lastPosition == position(3, 3))
  }

  @Test("a second truncation waits until the first one's entry is reported")
  func unsettledTruncation() {
    let node = LoneNode(term: 2)
    node.receive(appendRequest(2, terms: [2, 2]), from: 2)
    node.receive(appendRequest(3, terms: [3]), from: 3)
    node.persistHardState()
    // The leader of term 4 has the entry of term 2: it was removed and would come back while
    // the report of its first writing is still to come.
    let back = appendRequest(4, terms: [2, 4])
    #expect(!node.receive(back, from: 2).lines.contains("truncate from 1"))
    node.input { $0.logPersisted(through: position(2, 2), now: node.now, into: &$1) }
    #expect(node.consensus.persisted == .zero)
    node.persistHardState()
    node.persistLog()
    #expect(node.receive(back, from: 2).lines.contains("truncate from 1"))
    #expect(node.persistLog().sent == ["2 accepted term 4 match 2 verified 2"])
  }

  @Test("§3.5: fast back-up needs one rejection a term, not one an entry")
  func fastBackUp() {
    let cluster = SimulatedCluster(voters: [1, 2, 3])
    cluster.crash(NodeID(3))
    cluster.run(milliseconds: 2000) { cluster.leader != nil }
    for _ in 0..<100 { cluster.propose(cluster.leader!) }
    cluster.settle()
    // Node 3 comes back with a hundred entries of its own that nobody else has.
    cluster[3].disk.entries = (1...100).map {
      TestEntry(position: position($0, 1), kind: .commands, value: 1_000_000 + $0)
    }
    cluster[3].disk.hardState = HardState(term: Term(1))
    for id in [1, 2] as [UInt32] {
      for index in cluster[id].disk.entries.indices { #expect(index < 200) }
    }
    let term = cluster[cluster.leader!].consensus.term
    #expect(term == Term(1))
    // Term 1 is the leader's: make it differ by a new leader.
    let old = cluster.leader!
    cluster.crash(old)
    cluster[3].disk.entries = []
    cluster.restart(old)
    cluster.run(milliseconds: 2000) { cluster.leader != nil }
    cluster.trace = []
    cluster.restart(NodeID(3))
    cluster.run(milliseconds: 300)
    let rejections = cluster.trace!.count { $0.contains("rejected") }
    #expect(rejections <= 2)
    #expect(cluster[3].log == cluster[cluster.leader!].log)
    #expect(cluster.problems.isEmpty)
  }

  @Test("§3.5: the hint skips whole terms on both sides")
  func hint() {
    let node = LoneNode(log: [1, 1, 2, 2, 2], term: 9)
    #expect(
      node.receive(appendRequest(9, after: position(5, 6)), from: 2).sent
        == ["2 rejected term 9 after 5 hint 5@2"])
    #expect(
      node.receive(appendRequest(9, after: position(4, 1)), from: 2).sent
        == ["2 rejected term 9 after 4 hint 2@1"])
    #expect(
      node.receive(appendRequest(9, after: position(8, 7)), from: 2).sent
        == ["2 rejected term 9 after 8 hint 5@2"])
    let leader = LoneNode(log: [1, 1, 1, 4, 4, 5])
    leader.lead()
    leader.pump(2)
    leader.receive(
      .appendReply(
        AppendReply(
          term: Term(6), outcome: .rejected(previous: LogIndex(6), hint: position(5, 2)), round: 1)),
      from: 2)
    #expect(leader.consensus.nextAppend(to: NodeID(2))?.previous == position(3, 1))
  }

  @Test("§3.5: an old leader is told the newer term")
  func staleLeader() {
    let node = LoneNode(term: 5)
    #expect(
      node.receive(appendRequest(4, after: position(3, 3)), from: 2).sent
        == ["2 rejected term 5 after 3 hint 0@0"])
  }

  @Test("§10.2.1: until the logs are known to agree one append at a time, then a pipeline")
  func pipeline() {
    let node = LoneNode { $0.windowMessagesMax = 4 }
    node.lead()
    for _ in 0..<10 { _ = node.consensus.propose() }
    #expect(node.pump(2, perMessage: 1).count == 1)
    node.accept(2, match: 0, verified: 1)
    #expect(node.pump(2, perMessage: 1).map(\.first) == [2, 3, 4, 5].map { LogIndex($0) })
    #expect(node.pump(2).isEmpty)
    node.accept(2, match: 3)
    #expect(node.pump(2, perMessage: 1).map(\.first) == [6, 7].map { LogIndex($0) })
  }

  @Test("§10.2.1: the window bounds the bytes on their way; a larger entry goes alone")
  func windowBytes() {
    let node = LoneNode { $0.windowBytesMax = 100 }
    node.lead()
    node.pump(2)
    node.accept(2, match: 1)
    for _ in 0..<6 { _ = node.consensus.propose() }
    let first = node.consensus.nextAppend(to: NodeID(2))!
    #expect(first.bytesMax == 100)
    node.consensus.didSend(first, through: LogIndex(2), bytes: 60)
    let second = node.consensus.nextAppend(to: NodeID(2))!
    #expect(second.bytesMax == 40)
    node.consensus.didSend(second, through: LogIndex(3), bytes: 500)
    #expect(node.consensus.nextAppend(to: NodeID(2)) == nil)
    // A heartbeat still goes.
    node.tick(after: 50)
    #expect(node.consensus.nextAppend(to: NodeID(2))?.hasEntries == false)
    node.pump(2)
    node.accept(2, match: 3)
    #expect(node.consensus.nextAppend(to: NodeID(2))?.bytesMax == 100)
  }

  @Test("§10.2.1: the leader's own disk is not waited for if a majority of others has the entry")
  func parallelDisk() {
    let node = LoneNode(voters: [1, 2, 3])
    node.lead()
    _ = node.consensus.propose()
    node.pump(2)
    node.pump(3)
    #expect(node.accept(2, match: 2).lines == ["commit 1"])
    #expect(node.accept(3, match: 2).lines == ["commit 2"])
    #expect(node.consensus.persisted == LogIndex(1))
  }

  @Test("§3.6.2: an entry of an earlier term is committed only by one of the own term after it")
  func commitOwnTermOnly() {
    let node = LoneNode(log: [1, 2], term: 3)
    node.lead()
    node.pump(2)
    #expect(node.accept(2, match: 2).lines == [])
    #expect(node.accept(2, match: 3).lines == ["commit 3"])
  }

  @Test("the commit index reaches followers without a new entry")
  func commitIsTold() {
    let node = LoneNode()
    node.lead()
    node.pump(2)
    node.accept(2, match: 1)
    let plans = node.pump(2)
    #expect(plans.map(\.commit) == [LogIndex(1)] && plans[0].hasEntries == false)
  }

  @Test("§3.5: heartbeats go to everybody every interval")
  func heartbeats() {
    let node = LoneNode()
    node.lead()
    for peer in [2, 3] as [UInt32] {
      node.pump(peer)
      node.accept(peer, match: 1)
      node.pump(peer)
    }
    #expect(node.consensus.nextDeadline <= node.now + .milliseconds(50))
    node.tick(after: 50)
    for peer in [2, 3] as [UInt32] { #expect(node.pump(peer).count == 1) }
  }

  @Test("a follower that lost what it acknowledged is fed again")
  func matchFallsBack() {
    let node = LoneNode()
    node.lead()
    for _ in 0..<5 { _ = node.consensus.propose() }
    node.persistLog()
    node.pump(2)
    node.accept(2, match: 6)
    #expect(node.consensus.memberStatuses[0].match == LogIndex(6))
    node.input { $0.peerDisconnected(NodeID(2), now: node.now, into: &$1) }
    #expect(node.consensus.nextAppend(to: NodeID(2)) == nil)
    node.connect([2])
    #expect(node.consensus.memberStatuses[0].match == .zero)
    node.pump(2)
    node.receive(
      .appendReply(
        AppendReply(
          term: Term(1), outcome: .rejected(previous: LogIndex(6), hint: position(2, 1)),
          round: node.consensus.leading.round)),
      from: 2)
    #expect(node.consensus.nextAppend(to: NodeID(2))?.first == LogIndex(3))
  }

  @Test("§3.2: of two leaders in one term the second is not believed")
  func twoLeaders() {
    let node = LoneNode(term: 1)
    node.receive(appendRequest(1, terms: [1]), from: 2)
    #expect(node.receive(appendRequest(1, terms: [1, 1]), from: 3).isEmpty)
    #expect(node.consensus.lastIndex == LogIndex(1))
  }

  @Test("a leader proposes, a follower does not")
  func propose() {
    let node = LoneNode()
    #expect(node.consensus.propose() == nil)
    node.lead()
    #expect(node.consensus.propose() == position(2, 1))
  }
}
