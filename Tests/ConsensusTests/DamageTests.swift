import Base
import Testing

@testable import Consensus

/// G11: nodes whose disk lost what they had acknowledged.
@Suite struct DamageTests {
  @Test("G11: a damaged node votes only for those who have what it once acknowledged")
  func floorBarsVotes() {
    let node = LoneNode(log: [1, 1], floor: position(5, 1))
    #expect(node.receive(preVote(2, position(4, 1)), from: 2).sent == ["2 pre-vote no term 1"])
    #expect(node.receive(preVote(2, position(5, 1)), from: 2).sent == ["2 pre-vote yes term 2"])
    node.receive(voteRequest(2, position(4, 1)), from: 2)
    #expect(node.persistHardState().sent == ["2 vote no term 2"])
    node.receive(voteRequest(3, position(2, 2)), from: 3)
    #expect(node.persistHardState().sent == ["3 vote yes term 3"])
  }

  @Test("G11: a damaged node does not campaign before it has again what it acknowledged")
  func floorBarsCampaign() {
    let node = LoneNode(log: [1, 1], floor: position(5, 1))
    for _ in 0..<5 { #expect(node.tick(after: 700).sent.isEmpty) }
    node.receive(appendRequest(1, after: position(2, 1), terms: [1, 1]), from: 2)
    #expect(!node.persistLog().lines.contains("has all it acknowledged"))
    node.receive(appendRequest(1, after: position(4, 1), terms: [1]), from: 2)
    #expect(node.consensus.hardState.floor == position(5, 1))
    #expect(
      node.persistLog().lines.prefix(2) == ["has all it acknowledged", "persist term 1 vote none"])
    node.persistHardState()
    #expect(!node.tick(after: 700).sent.isEmpty)
  }

  @Test("G11: a wiped node takes the log but votes for nobody and does not campaign")
  func wipedDoesNotVote() {
    let node = LoneNode(canVote: false)
    #expect(
      node.tick(after: 1).sent == ["2 pre-vote? term 0 last 0@0", "3 pre-vote? term 0 last 0@0"])
    #expect(node.receive(preVote(5, position(9, 4)), from: 2).sent == ["2 pre-vote no term 0"])
    node.receive(voteRequest(5, position(9, 4)), from: 2)
    #expect(node.persistHardState().sent == ["2 vote no term 5"])
    node.receive(appendRequest(6, terms: [6]), from: 2)
    node.persistHardState()
    #expect(node.persistLog().sent == ["2 accepted term 6 match 1 verified 1"])
    for _ in 0..<5 {
      let sent = node.tick(after: 700).sent
      #expect(sent.allSatisfy { $0.hasSuffix("pre-vote? term 0 last 0@0") })
    }
  }

  @Test("G11: a wiped node votes again after it heard everybody and reached a commit index")
  func wipedVotesAgain() {
    let node = LoneNode(canVote: false)
    node.receive(appendRequest(6, terms: [6, 6], commit: 2), from: 2)
    node.persistAll()
    #expect(node.consensus.canVote == false)
    node.receive(.preVoteReply(VoteReply(term: Term(4), isGranted: false)), from: 3)
    #expect(node.history.lines.last == "persist term 6 vote 1")
    #expect(node.persistHardState().lines == ["may vote again"])
    // Not in a term that it may have voted in.
    node.tick(after: 700)
    #expect(node.receive(voteRequest(6, position(2, 6)), from: 3).sent == ["3 vote no term 6"])
    node.receive(voteRequest(7, position(2, 6)), from: 3)
    #expect(node.persistHardState().sent == ["3 vote yes term 7"])
  }

  @Test("G11: the commit index of an earlier term is not enough, nor that of an old leader")
  func wipedNeedsOwnTermCommit() {
    let node = LoneNode(canVote: false)
    node.receive(.preVoteReply(VoteReply(term: Term(4), isGranted: false)), from: 3)
    node.receive(appendRequest(6, terms: [5, 6], commit: 1), from: 2)
    node.persistAll()
    #expect(node.consensus.recovery?.isDone == false)
    node.receive(appendRequest(6, after: position(2, 6), commit: 2), from: 2)
    #expect(node.consensus.recovery?.isDone == true)
  }

  @Test("G11: a commit index that a snapshot swallowed gives way to the next one")
  func wipedTakesSnapshot() {
    let node = LoneNode(canVote: false)
    node.receive(.preVoteReply(VoteReply(term: Term(4), isGranted: false)), from: 3)
    // Told before the log has anything, and gone when the snapshot is in force.
    node.receive(appendRequest(6, after: position(40, 6), commit: 30), from: 2)
    node.persistHardState()
    let chunk = SnapshotChunk(
      term: Term(6), last: position(60, 6), membership: node.consensus.membership, offset: 0,
      byteCount: 10, isLast: true)
    node.receive(.snapshot(chunk), from: 2)
    node.input { $0.snapshotInstalled(last: chunk.last, now: node.now, into: &$1) }
    #expect(node.consensus.recovery?.isDone == false)
    node.receive(appendRequest(6, after: position(60, 6), terms: [6], commit: 61), from: 2)
    node.persistLog()
    #expect(node.consensus.recovery?.isDone == true)
  }

  @Test("G11: a learner votes again without hearing everybody if its leader clears its promises")
  func learnerIsCleared() {
    let node = LoneNode(voters: [2, 3, 4], canVote: false)
    func append(commit: UInt64, clears: Bool) -> PeerMessage {
      .append(
        AppendRequest(
          term: Term(6), previous: position(2, 6), entries: [], commit: LogIndex(commit), round: 2,
          clearsPromises: clears))
    }
    node.receive(appendRequest(6, terms: [5, 6], commit: 1), from: 2)
    node.persistAll()
    // What the leader has committed of its own term must be here.
    node.receive(append(commit: 1, clears: true), from: 2)
    #expect(node.consensus.recovery?.isDone == false)
    node.receive(append(commit: 2, clears: false), from: 2)
    #expect(node.consensus.recovery?.isDone == true)
    // Nobody is told before the disk says so too.
    #expect(node.persistHardState().lines.contains("may vote again"))
    #expect(node.consensus.isVoteKept == false)
    node.input { consensus, _ in consensus.restoredVoteStored() }
    #expect(node.consensus.isVoteKept == true)
  }

  @Test("G11: what one leader cleared does not count under the next")
  func clearedUnderAnother() {
    let node = LoneNode(voters: [2, 3, 4], canVote: false)
    let request = AppendRequest(
      term: Term(6), previous: .zero, entries: [], commit: .zero, round: 2, clearsPromises: true)
    node.receive(.append(request), from: 2)
    node.receive(appendRequest(7, terms: [7], commit: 1), from: 3)
    node.persistAll()
    #expect(node.consensus.recovery?.isDone == false)
  }

  @Test("G11: a leader clears promises when a majority confirmed it after the learner connected")
  func leaderClears() {
    let node = MembershipTests.leader()
    _ = MembershipTests.refusal(MembershipTests.four, at: node)
    node.persistLog()
    node.pump(2)
    node.accept(2, match: 2)
    node.connect([4])
    #expect(node.pump(4).map(\.clearsPromises) == [false])
    node.accept(4, match: 2, mayVote: false)
    node.tick(after: 60)
    node.pump(2)
    #expect(node.pump(4).map(\.clearsPromises) == [false])
    node.accept(2, match: 2)
    node.tick(after: 60)
    #expect(node.pump(4).map(\.clearsPromises) == [true])
    #expect(node.pump(3).allSatisfy { !$0.clearsPromises })
    // Another process: it is asked anew.
    node.connect([4])
    node.tick(after: 60)
    #expect(node.pump(4).allSatisfy { !$0.clearsPromises })
  }

  @Test("G11: what a peer acknowledged before its connection came up is not counted")
  func answerOfAnEarlierProcess() {
    let node = LoneNode()
    node.lead()
    node.pump(2)
    let late = AppendReply(
      term: node.consensus.term, outcome: .accepted(match: LogIndex(1), verified: LogIndex(1)),
      round: node.consensus.leading.round, mayVote: true)
    // Its next process, whose disk may be another, is there before the answer is.
    node.connect([2])
    node.receive(.appendReply(late), from: 2)
    #expect(node.consensus.commit == .zero)
    node.pump(2)
    node.receive(.appendReply(late), from: 2)
    #expect(node.consensus.commit == .zero)
    node.accept(2, match: 1)
    #expect(node.consensus.commit == LogIndex(1))
  }

  @Test("a refused pre-vote for term 0 carries the term and changes nothing")
  func inquiry() {
    let node = LoneNode(log: [3])
    #expect(node.receive(preVote(0, .zero), from: 2).sent == ["2 pre-vote no term 3"])
  }
}
