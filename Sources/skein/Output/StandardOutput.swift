// Standard output and standard error by write(2): unbuffered here, so callers hand over whole
// tables or batches. What is written has left the process when the call returns, which `consume`
// needs before it acknowledges.

import Glibc

enum StandardOutput {
  /// Nobody reads any more, as after `| head`.
  struct Closed: Error {}

  static func write(_ text: String) throws {
    var text = text
    try text.withUTF8 { try write(UnsafeRawBufferPointer($0)) }
  }

  static func write(_ bytes: [UInt8]) throws {
    try bytes.withUnsafeBytes { try write($0) }
  }

  /// - Throws: `Closed` if the reader left, `Failure` for a full disk and the like.
  static func write(_ bytes: UnsafeRawBufferPointer) throws {
    var rest = bytes[...]
    while !rest.isEmpty {
      // SAFETY: write(2) reads the slice, which is not empty, while the buffer is borrowed.
      let count = Glibc.write(
        STDOUT_FILENO, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
      if count >= 0 {
        rest = rest.dropFirst(count)
      } else if errno == EPIPE {
        throw Closed()
      } else if errno == EAGAIN {
        waitUntilWritable()
      } else if errno != EINTR {
        throw Failure("standard output: \(String(cString: strerror(errno)))")
      }
    }
  }

  /// Whether a pipe's reader is gone.
  static var isClosed: Bool {
    var asked = pollfd(fd: STDOUT_FILENO, events: 0, revents: 0)
    return poll(&asked, 1, 0) > 0 && asked.revents & Int16(POLLERR) != 0
  }

  /// Somebody else may have made the terminal or pipe non-blocking.
  private static func waitUntilWritable() {
    var wanted = pollfd(fd: STDOUT_FILENO, events: Int16(POLLOUT), revents: 0)
    _ = poll(&wanted, 1, -1)
  }
}

enum StandardError {
  static func write(_ text: String) { write(Array(text.utf8)) }

  /// What cannot be written here cannot be reported anywhere.
  static func write(_ bytes: [UInt8]) {
    // SAFETY: write(2) only reads the bytes.
    bytes.withUnsafeBytes { _ = Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }
}
