// Reading standard input or a file in pieces, without holding up the threads that the client's
// tasks run on, and cutting it into lines.

import Dispatch
import Glibc

/// A file or standard input, read piece by piece.
final class InputReader: Sendable {
  /// Read and write by system calls only.
  private let descriptor: Int32
  private let name: String
  private let queue = DispatchQueue(label: "skein.input")

  private static let pieceBytes = 256 << 10

  /// - Parameter file: nil or `-` is standard input.
  init(file: String?) throws {
    guard let file, file != "-" else {
      descriptor = STDIN_FILENO
      name = "standard input"
      return
    }
    descriptor = open(file, O_RDONLY | O_CLOEXEC)
    name = file
    guard descriptor >= 0 else { throw Failure.system(file) }
  }

  deinit {
    if descriptor != STDIN_FILENO { close(descriptor) }
  }

  /// The next piece; empty at the end.
  func next() async throws -> [UInt8] {
    let descriptor = descriptor
    let result: Result<[UInt8], Failure> = await withCheckedContinuation { continuation in
      queue.async { [name] in
        continuation.resume(returning: InputReader.read(descriptor, name))
      }
    }
    return try result.get()
  }

  private static func read(_ descriptor: Int32, _ name: String) -> Result<[UInt8], Failure> {
    var failure: Failure?
    let piece = [UInt8](unsafeUninitializedCapacity: pieceBytes) { buffer, count in
      var result: Int
      // SAFETY: read(2) writes at most so many bytes as the buffer has.
      repeat {
        result = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
      } while result < 0
        && errno == EINTR
      if result < 0 { failure = Failure.system(name) }
      count = max(0, result)
    }
    return failure.map { .failure($0) } ?? .success(piece)
  }

  /// All of it, at most `limit` bytes.
  func all(limit: Int) async throws -> [UInt8] {
    var bytes: [UInt8] = []
    while true {
      let piece = try await next()
      if piece.isEmpty { return bytes }
      bytes += piece
      if bytes.count > limit { throw Failure("\(name) is over the limit of \(limit) bytes") }
    }
  }
}

/// Cuts pieces into lines. A line ends with a line feed, which is not part of it; what is behind
/// the last one is a line too.
struct LineSplitter {
  /// The beginning of a line whose end has not come.
  private var rest: [UInt8] = []

  /// Calls `body` with each line that `piece` completes.
  mutating func split(_ piece: [UInt8], _ body: (ArraySlice<UInt8>) throws -> Void) rethrows {
    var start = 0
    while let end = LineSplitter.lineFeed(in: piece, from: start) {
      if rest.isEmpty {
        try body(piece[start..<end])
      } else {
        rest += piece[start..<end]
        try body(rest[...])
        rest.removeAll()
      }
      start = end + 1
    }
    rest += piece[start...]
  }

  /// How many bytes wait for the end of their line.
  var pendingBytes: Int { rest.count }

  /// The line that no line feed ended; nil if there is none.
  mutating func finish() -> [UInt8]? {
    defer { rest = [] }
    return rest.isEmpty ? nil : rest
  }

  private static func lineFeed(in bytes: [UInt8], from start: Int) -> Int? {
    bytes.withUnsafeBytes { buffer in
      guard start < buffer.count, let base = buffer.baseAddress else { return nil }
      // SAFETY: memchr reads from `start` to the end of the buffer, which is borrowed here.
      guard let found = memchr(base + start, 0x0a, buffer.count - start) else { return nil }
      return UnsafeRawPointer(found) - base
    }
  }
}
