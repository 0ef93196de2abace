// The error numbers of system calls, and the one way to give a descriptor back.

import Glibc

/// What a system call said when it failed: an `errno` value.
package struct ErrorNumber: Error, Hashable, Sendable, CustomStringConvertible {
  package let rawValue: Int32

  package init(_ rawValue: Int32) { self.rawValue = rawValue }

  /// Of the call that this thread made last; read it before any other call.
  static var current: ErrorNumber { ErrorNumber(errno) }

  /// The system's own words, such as "Connection refused".
  package var description: String {
    // glibc's strerror answers from a buffer of the thread.
    guard let text = strerror(rawValue) else { return "error \(rawValue)" }
    return String(cString: text)
  }
}

/// Closes `descriptor`. What close(2) may answer cannot be acted upon: the descriptor is gone in
/// any case, and data that had to be durable was synced before.
func closeDescriptor(_ descriptor: Int32) {
  _ = close(descriptor)
}
