// What a node of a run did that nobody had asked it for.

import Base

/// A node ended that nobody had told to, or takes no part any more while its process lives.
package struct NodeExit: Equatable, Sendable {
  package let node: Int
  package let time: Nanoseconds
  /// `signal 6`, `exit code 1`, `stopped taking part: …`, `leads term 7, in which node 1 had led`.
  package let cause: String
  /// Its last words.
  package let log: String
  /// The process lived on.
  package var isAlive = false
  /// The promise that it broke, such as `G12`, where that is known.
  package var promise: String?

  /// It said why it could not start: a port in use, a directory that is none.
  var wasRefused: Bool { cause == Self.refusal }

  static let refusal = "exit code 1"
}
