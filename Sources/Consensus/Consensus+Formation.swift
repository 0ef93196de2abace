// A cluster's first hour: an empty disk that was never anything else.

import Base

extension Consensus {
  /// Node heard every other initial member say that it has no past, so this disk cannot have
  /// forgotten a vote or an entry (`Formation`). To be durable before anybody relies on it.
  package mutating func noteFounding(into output: inout [ConsensusOutput]) {
    hardState.isFounder = true
    orderHardState(&output)
  }

  /// That this node is a founder is on its disk.
  package var isFounderDurably: Bool { hardState.isFounder && isHardStateDurable }

  /// Every initial member is known to be a founder: the node votes like any other from now on.
  package mutating func nothingWasForgotten(now: MonotonicTime) {
    invariant(term == .zero && log.last == .zero, "a past up to \(log.last) in term \(term)")
    invariant(isFounderDurably, "a node that has not noted that it is a founder begins as one")
    recovery = nil
    isVoteKept = true
    // The only voter need not wait to hear of others.
    if membership.voters == [id] { electionDeadline = now }
  }
}
