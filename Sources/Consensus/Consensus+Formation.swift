// A cluster's first hour: an empty disk that was never anything else.

import Base

extension Consensus {
  /// Node found out that every other initial member has an empty past too, so this disk cannot have
  /// forgotten a vote or an entry (`Formation`): the node votes like any other from now on.
  package mutating func nothingWasForgotten() {
    invariant(term == .zero && log.last == .zero, "a past up to \(log.last) in term \(term)")
    recovery = nil
  }
}
