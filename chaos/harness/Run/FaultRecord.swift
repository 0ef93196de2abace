// What became of a planned fault.

import Base

package struct FaultRecord: Equatable, Sendable {
  package let fault: PlannedFault
  package var start: Nanoseconds
  /// When it was healed; nil while it is on.
  package var end: Nanoseconds?
  /// Which nodes, or which client.
  package var victims: String
  /// What exactly was done, for people.
  package var detail = ""
  /// Why it was not done.
  package var skipped: String?

  package var name: String { fault.line.name }
}
