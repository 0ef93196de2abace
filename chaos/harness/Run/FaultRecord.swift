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

  /// The nodes that it was done to; empty if it was done to all, or to clients.
  var nodes: [Int] { victims.split(separator: ", ").compactMap { Int($0) } }

  var isOfClients: Bool {
    [.killConsumer, .killProducer, .slowConsumer].contains(fault.line.kind)
  }
}
