// Where the messages of `skein publish` come from: its arguments, or a file or standard input, as one
// message or line by line.

struct PublishSource: Sendable {
  let bodies: [String]
  /// nil if the messages are `bodies`.
  let input: InputReader?
  let byLines: Bool
  /// Lines that an earlier run has published.
  let known: UInt64

  /// No message may be so long.
  private static let messageBytesMax = 33 << 20

  /// Calls `body` with each message.
  func forEach(_ body: (ArraySlice<UInt8>) async throws -> Void) async throws {
    try await forEachGroup { group in
      for message in group { try await body(message) }
    }
  }

  /// Calls `body` with the messages that are there, several at a time: it does not wait for more of
  /// them, since whoever writes the lines may be slow.
  func forEachGroup(_ body: ([ArraySlice<UInt8>]) async throws -> Void) async throws {
    if let input, byLines {
      try await forEachGroup(linesOf: input, body)
    } else if let input {
      try await body([try await input.all(limit: Self.messageBytesMax)[...]])
    } else {
      try await body(bodies.map { Array($0.utf8)[...] })
    }
  }

  private func forEachGroup(
    linesOf input: InputReader, _ body: ([ArraySlice<UInt8>]) async throws -> Void
  ) async throws {
    var splitter = LineSplitter()
    var passedOver: UInt64 = 0
    while true {
      let piece = try await input.next()
      var lines: [ArraySlice<UInt8>] = []
      if piece.isEmpty {
        if let last = splitter.finish() { lines.append(last[...]) }
      } else {
        splitter.split(piece) { lines.append($0) }
      }
      let old = Int(min(known - passedOver, UInt64(lines.count)))
      passedOver += UInt64(old)
      if old < lines.count { try await body(Array(lines[old...])) }
      if piece.isEmpty { break }
      // One line is read at a time: a longer one is no message.
      guard splitter.pendingBytes <= Self.messageBytesMax else {
        throw Failure("a line is longer than \(Self.messageBytesMax) bytes")
      }
    }
    guard passedOver == known else {
      throw Failure(
        "the run to go on with has published \(known) lines, the input has \(passedOver)")
    }
  }
}
