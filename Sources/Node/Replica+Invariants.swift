// What always holds of a replica between two turns, cheap enough for a simulation to check now and then.

import Base
import Consensus

extension Replica {
  /// Stops the process if the replica contradicts itself or its consensus.
  package borrowing func checkInvariants() {
    invariant(applied <= consensus.commit, "applied \(applied), commit \(consensus.commit)")
    invariant(
      applied >= consensus.snapshot.index, "applied \(applied), snapshot \(consensus.snapshot)")
    invariant(persisted <= consensus.lastIndex, "persisted \(persisted) of \(consensus.lastIndex)")
    invariant(unappliedBytes >= 0, "\(unappliedBytes) bytes not applied")
    invariant(
      unstoredBytes >= pendingBytes && pendingBytes >= 0,
      "\(unstoredBytes) bytes not on the disk, \(pendingBytes) of them not ordered")
    checkCache()
    for (left, right) in zip(waitingReads, waitingReads.dropFirst()) {
      invariant(left.index <= right.index, "reads at \(left.index) and \(right.index)")
    }
    invariant(
      !isForming || formation != nil, "forming, and nobody to hear of")
  }

  /// What is not applied or not on the disk is in memory, or on its way from the log.
  private borrowing func checkCache() {
    guard let first = cache.firstIndex, let last = cache.lastIndex else { return }
    invariant(
      last == consensus.lastIndex, "cache through \(last), log through \(consensus.lastIndex)")
    invariant(first <= last, "cache from \(first) to \(last)")
    for index in [first, last] {
      guard let term = consensus.term(at: index), let entry = cache.entry(index) else { continue }
      invariant(
        entry.header.term == term, "entry \(index) of term \(entry.header.term), not \(term)")
    }
  }
}
