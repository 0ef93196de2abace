// What the harness and those who call it share: its errors.

/// The run cannot go on, with a sentence for people.
package struct ChaosError: Error, Equatable, CustomStringConvertible {
  package let description: String

  package init(_ description: String) { self.description = description }
}
