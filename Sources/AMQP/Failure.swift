// How taking a frame can fail, within the machine.

/// Why a frame was not carried out.
enum Failure: Error {
  /// Closes the channel or the connection, by the code. The method that is named is the one that
  /// came, unless another is given.
  case fault(Fault, naming: Naming = .current)
  /// The frames' limits are lost: the connection is closed and nothing more is taken.
  case lostSync(Fault)
  /// The connection is closed without a word.
  case silent

  enum Naming {
    case current
    case none
    case method(MethodID)
  }
}
