// What is wrong with a configuration file, all of it at once, in words that name the keys.

/// A configuration that a node does not start with.
package struct ConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The file as it was given.
  package let file: String
  /// One sentence each, beginning with the path of the key: `limits.messageBytes: …`. Never empty.
  package let faults: [String]

  package init(file: String, faults: [String]) {
    self.file = file
    self.faults = faults
  }

  /// One line per fault, each with the file's name.
  package var description: String {
    faults.map { "\(file): \($0)" }.joined(separator: "\n")
  }
}
