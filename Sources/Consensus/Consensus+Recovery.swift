// A node whose disk was wiped and that comes back under its old id: it does not know what it voted
// and acknowledged, and must not vote as if it remembered (G11).

import Base

/// What a wiped node waits for. It may vote again when
/// 1. it has heard from every other voter since its start: whoever it may have voted for had that
///    term on disk before asking, and whoever it may have acknowledged entries to had so too, so no
///    term that it took part in is later than the latest heard;
/// 2. a leader of a term not before the latest heard has told it a commit index whose entry is of
///    that leader's own term, and its log agrees and is on disk through there: that covers every
///    entry that was ever committed with its acknowledgement (§3.6.3);
/// and then only in terms after the latest heard: it takes its vote in that term as given.
///
/// A voter that cannot be heard therefore keeps it from voting, but not from holding the log.
///
/// A learner need not hear from every voter (1) if its leader, confirmed by a majority since the
/// learner's process began, says that it is one (`AppendRequest.clearsPromises`). Was it a voter in
/// an earlier life, then its removal is in this leader's log and committed. No later term than the
/// leader's had begun when that life ended, or only with candidates that lack what the leader
/// committed and cannot win, or whose membership has it as a learner too and does not count it. And
/// nobody made it a voter again meanwhile: that takes its word that it votes.
/// The connections of a process end with it: nothing sent to its earlier life reaches this one. What
/// its earlier life sent may still arrive, and is not counted (`Progress.roundAtConnection`): else an
/// entry could be committed by what this life has forgotten, after it was told how far to catch up.
struct VoteRecovery {
  private(set) var voices: [NodeID] = []
  /// The latest term heard.
  private(set) var latest: Term = .zero
  /// A leader's term and the commit index that it told; replaced while that is not of its own term.
  var target = LogPosition.zero
  /// The leader of this term said that what this node promised as a voter counts no more.
  var clearedIn: Term?
  /// When to ask for the others' terms again.
  var inquiryDeadline = MonotonicTime(0)
  /// The conditions are met; the hard state that says so is on its way to the disk.
  var isDone = false

  mutating func heard(_ peer: NodeID, in term: Term) {
    latest = max(latest, term)
    // Peers that are no voters only lengthen the list up to a bound.
    if voices.count < 256, !voices.contains(peer) { voices.append(peer) }
  }
}

extension Consensus {
  /// Asks the peers not heard yet for their terms: a pre-vote for term 0 is always refused, with
  /// the term.
  mutating func maybeInquireTerms(_ now: MonotonicTime, _ output: inout [ConsensusOutput]) {
    guard let recovery, now >= recovery.inquiryDeadline else { return }
    self.recovery?.inquiryDeadline = now + configuration.electionTimeoutMax
    let request = VoteRequest(term: .zero, last: .zero)
    for voter in membership.voters where voter != id && !recovery.voices.contains(voter) {
      output.append(.send(to: voter, .preVote(request)))
    }
  }

  /// The leader of this term told its commit index.
  mutating func recoveryTold(commit: LogIndex, clearsPromises: Bool) {
    guard let target = recovery?.target else { return }
    if clearsPromises, recovery?.clearedIn != term {
      // What it acknowledged when it was a voter under this same leader is before this commit.
      recovery?.clearedIn = hardState.term
      recovery?.target = LogPosition(term: hardState.term, index: commit)
      return
    }
    // Of an earlier term, or swallowed by a snapshot that was installed since.
    let isUseless =
      log.term(at: target.index).map { [term] in $0 != term } ?? (target.index < log.base.index)
    if target.term != term || isUseless {
      recovery?.target = LogPosition(term: hardState.term, index: commit)
    }
  }

  /// Called at the end of every input.
  mutating func maybeRestoreVote() {
    guard let recovery, !recovery.isDone, role == .follower, leader != nil,
      recovery.target.term == term, term >= recovery.latest, log.contains(recovery.target),
      durableMatch >= recovery.target.index,
      recovery.clearedIn == term
        || membership.voters.allSatisfy({ $0 == id || recovery.voices.contains($0) })
    else { return }
    self.recovery?.isDone = true
    // No vote is left in this term, also after a restart.
    hardState.vote = hardState.vote ?? id
  }

  mutating func maybeReportVoteRestored(_ output: inout [ConsensusOutput]) {
    guard recovery?.isDone == true else { return }
    recovery = nil
    output.append(.voteRestored)
  }

  /// What `voteRestored` asked for is on disk. Only now others may rely on this node's vote.
  package mutating func restoredVoteStored() {
    invariant(recovery == nil, "a vote stored that is not restored")
    isVoteKept = true
  }
}
