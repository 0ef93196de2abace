// What Node asks the log store to do, by value, in order. Both sides know this type and not each
// other.

import Base

/// One step of a storage batch. A batch is durable as a whole when it is reported done; batches are
/// carried out and reported in the order in which they were asked for.
package enum LogOperation: Sendable {
  /// Replace the hard state.
  case saveHardState(HardState)
  /// Drop the entries from here to the end: they conflict with the leader's (thesis §3.5).
  case truncate(from: LogIndex)
  /// Consecutive entries behind the present end.
  case append([Entry])
}
