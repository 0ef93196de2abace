// What nodes say to each other. Consensus gives and takes these without payloads: it deals in
// positions, and Node joins the bytes of the entries and snapshots to them.

import Base

/// One message between two members of a group. Every message carries the sender's term.
package enum PeerMessage: Hashable, Sendable {
  /// Asks whether an election could be won, without disturbing anybody (thesis §9.6).
  case preVote(VoteRequest)
  case preVoteReply(VoteReply)
  case vote(VoteRequest)
  case voteReply(VoteReply)
  /// Replication and, without entries, the heartbeat (thesis §3.5).
  case append(AppendRequest)
  case appendReply(AppendReply)
  case snapshot(SnapshotChunk)
  case snapshotReply(SnapshotReply)
  /// Leadership transfer: begin an election at once (thesis §3.10).
  case timeoutNow(Term)
}

package struct VoteRequest: Hashable, Sendable {
  /// For a pre-vote the term that the election would have.
  package var term: Term
  /// The end of the candidate's log.
  package var last: LogPosition
  /// The leader handed over: the vote ignores the rule against disturbing a live leader
  /// (thesis §4.2.3, end).
  package var isTransfer: Bool

  package init(term: Term, last: LogPosition, isTransfer: Bool = false) {
    self.term = term
    self.last = last
    self.isTransfer = isTransfer
  }
}

package struct VoteReply: Hashable, Sendable {
  /// For a granted pre-vote the term asked for, else the voter's term.
  package var term: Term
  package var isGranted: Bool

  package init(term: Term, isGranted: Bool) {
    self.term = term
    self.isGranted = isGranted
  }
}

package struct AppendRequest: Hashable, Sendable {
  package var term: Term
  /// The entry before the first one sent.
  package var previous: LogPosition
  /// Consecutive from `previous.index + 1`; empty for a heartbeat.
  package var entries: [EntryHeader]
  /// How far the leader knows the log to be committed.
  package var commit: LogIndex
  /// Numbers the leader's rounds of heartbeats; the reply returns it. A read index is confirmed and
  /// check-quorum satisfied by a majority of replies to one round (thesis §6.4).
  package var round: UInt64
  /// To a learner: nothing that it may have promised as a member before counts any more, so that
  /// one without its memory need not wait for all voters (`VoteRecovery`).
  package var clearsPromises: Bool
  /// The receiver is a member by the newest membership in the leader's log, or by the newest that is
  /// committed. One that reads of its removal, and was added again since, is not to go; nor one that an
  /// earlier leader began to add.
  package var isMember: Bool

  package init(
    term: Term, previous: LogPosition, entries: [EntryHeader], commit: LogIndex, round: UInt64,
    clearsPromises: Bool = false, isMember: Bool = true
  ) {
    self.term = term
    self.previous = previous
    self.entries = entries
    self.commit = commit
    self.round = round
    self.clearsPromises = clearsPromises
    self.isMember = isMember
  }

  package var lastIndex: LogIndex { previous.index.advanced(by: entries.count) }
}

package struct AppendReply: Hashable, Sendable {
  package enum Outcome: Hashable, Sendable {
    /// The follower's log agrees with the leader's through `match`, and that much is on its disk.
    /// `verified` (>= match) agrees but may still be on its way to the disk.
    case accepted(match: LogIndex, verified: LogIndex)
    /// `previous` did not fit. `hint` is where the leader should try next: an end of an earlier
    /// term in the follower's log at or before `previous` (thesis §3.5, fast back-up).
    case rejected(previous: LogIndex, hint: LogPosition)
  }
  package var term: Term
  package var outcome: Outcome
  /// Of the request, which was of this term; 0 if it was of an earlier one.
  package var round: UInt64
  /// The follower votes, and will after a restart: nothing that it promised is forgotten (G11). A
  /// leader makes nobody a voter that does not say so.
  package var mayVote: Bool

  package init(term: Term, outcome: Outcome, round: UInt64, mayVote: Bool = false) {
    self.term = term
    self.outcome = outcome
    self.round = round
    self.mayVote = mayVote
  }
}

/// A piece of a snapshot stream (thesis §5.3). The stream holds the machine's snapshot and the
/// bodies it refers to; consensus knows only offsets in it.
package struct SnapshotChunk: Hashable, Sendable {
  package var term: Term
  /// The last entry that the snapshot covers.
  package var last: LogPosition
  /// The membership as of `last`.
  package var membership: Membership
  /// Where in the stream this chunk begins, bytes. Chunks come in order.
  package var offset: UInt64
  /// Size of the chunk's bytes, which Node joins.
  package var byteCount: UInt32
  package var isLast: Bool

  package init(
    term: Term, last: LogPosition, membership: Membership, offset: UInt64, byteCount: UInt32,
    isLast: Bool
  ) {
    self.term = term
    self.last = last
    self.membership = membership
    self.offset = offset
    self.byteCount = byteCount
    self.isLast = isLast
  }
}

package struct SnapshotReply: Hashable, Sendable {
  package var term: Term
  package var last: LogIndex
  /// How much of the stream the follower has taken: the leader goes on from here.
  package var received: UInt64
  /// The snapshot is whole, durable and in force: `match` is `last` from now on.
  package var isInstalled: Bool

  package init(term: Term, last: LogIndex, received: UInt64, isInstalled: Bool) {
    self.term = term
    self.last = last
    self.received = received
    self.isInstalled = isInstalled
  }
}
