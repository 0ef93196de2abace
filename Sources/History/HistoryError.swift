// Why a history cannot be read.

/// A file that is no history: broken, truncated, or of something else.
package struct HistoryError: Error, Equatable, Sendable {
  /// From 1.
  package let line: Int
  /// Bytes from 1.
  package let column: Int
  package let message: String

  package init(line: Int, column: Int, message: String) {
    self.line = line
    self.column = column
    self.message = message
  }
}

extension HistoryError: CustomStringConvertible {
  package var description: String { "line \(line), column \(column): \(message)" }
}
