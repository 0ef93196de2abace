// What consensus is told when it begins: its settings, and what the disk held.

import Base

package struct ConsensusConfiguration: Hashable, Sendable {
  package var id: NodeID
  package var group: GroupID
  package var heartbeatInterval: Nanoseconds
  /// A follower begins an election when it has not heard of the leader for a random span in
  /// `electionTimeoutMin ..< electionTimeoutMax`. A leader steps down when it has not heard from a
  /// majority for `electionTimeoutMax`. heartbeatInterval < electionTimeoutMin.
  package var electionTimeoutMin: Nanoseconds
  package var electionTimeoutMax: Nanoseconds
  /// After the leader's connection closed, each follower waits for a random part of this before it
  /// asks for pre-votes, so that mostly only one does.
  package var disconnectStagger: Nanoseconds
  /// How much may be on its way to one follower unanswered. One message may overshoot the bytes.
  package var windowBytesMax: Int
  package var windowMessagesMax: Int
  /// How many entries a learner may be behind when it is made a voter.
  package var promotionLagMax: UInt64
  /// How many reads may wait for their confirmation.
  package var pendingReadsMax: Int
  /// For the randomized timeouts; differs from node to node.
  package var seed: UInt64

  package init(
    id: NodeID, seed: UInt64, group: GroupID = .main,
    heartbeatInterval: Nanoseconds = .milliseconds(50),
    electionTimeoutMin: Nanoseconds = .milliseconds(300),
    electionTimeoutMax: Nanoseconds = .milliseconds(600),
    disconnectStagger: Nanoseconds = .milliseconds(8),
    windowBytesMax: Int = 16 << 20, windowMessagesMax: Int = 256,
    promotionLagMax: UInt64 = 256, pendingReadsMax: Int = 1024
  ) {
    invariant(
      .zero < heartbeatInterval && heartbeatInterval < electionTimeoutMin
        && electionTimeoutMin < electionTimeoutMax,
      "heartbeat \(heartbeatInterval), timeouts \(electionTimeoutMin) to \(electionTimeoutMax)")
    invariant(windowBytesMax > 0 && windowMessagesMax > 0, "an empty window")
    self.id = id
    self.seed = seed
    self.group = group
    self.heartbeatInterval = heartbeatInterval
    self.electionTimeoutMin = electionTimeoutMin
    self.electionTimeoutMax = electionTimeoutMax
    self.disconnectStagger = disconnectStagger
    self.windowBytesMax = windowBytesMax
    self.windowMessagesMax = windowMessagesMax
    self.promotionLagMax = promotionLagMax
    self.pendingReadsMax = pendingReadsMax
  }
}

/// A membership and the entry that brought it.
package struct MembershipEntry: Hashable, Sendable {
  package var index: LogIndex
  package var membership: Membership

  package init(index: LogIndex, membership: Membership) {
    self.index = index
    self.membership = membership
  }
}

/// What the disk held. Everything in it is durable.
package struct RestoredState: Sendable {
  package var hardState: HardState
  /// The last entry that the snapshot covers, `zero` without one. It is committed.
  package var snapshot: LogPosition
  /// As of `snapshot`. Without a snapshot the membership that the cluster was founded with, or
  /// empty for a node that is yet to be added to a cluster.
  package var snapshotMembership: Membership
  /// The position before the first entry that the log still has; at or before `snapshot`.
  package var logBase: LogPosition
  /// The terms of the entries after `logBase`, ascending.
  package var termRuns: [TermRun]
  /// The last entry, `logBase.index` if there is none; at or after `snapshot`.
  package var last: LogIndex
  /// The membership entries after `snapshot`, ascending.
  package var memberships: [MembershipEntry]
  /// False for a node whose disk was wiped under its old id, until consensus gave `voteRestored`:
  /// see `VoteRecovery`.
  package var canVote: Bool
  /// False while the log has damaged entries that are not repaired: such a node could not serve
  /// them as a leader. `allowLeading` ends it.
  package var canLead: Bool

  package init(
    hardState: HardState = HardState(), snapshot: LogPosition = .zero,
    snapshotMembership: Membership, logBase: LogPosition? = nil, termRuns: [TermRun] = [],
    last: LogIndex? = nil, memberships: [MembershipEntry] = [], canVote: Bool = true,
    canLead: Bool = true
  ) {
    self.hardState = hardState
    self.snapshot = snapshot
    self.snapshotMembership = snapshotMembership
    self.logBase = logBase ?? snapshot
    self.termRuns = termRuns
    self.last = last ?? (logBase ?? snapshot).index
    self.memberships = memberships
    self.canVote = canVote
    self.canLead = canLead
  }
}
