// A bug stops the process, also in release, and says what was wrong with the numbers at hand.

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Stops the process with `message` on standard error if `condition` does not hold.
///
/// For what only a bug in Skein can cause; a client's or a disk's mistake is an error instead.
/// `precondition` would print nothing in a release build.
@inlinable package func invariant(
  _ condition: Bool, _ message: @autoclosure () -> String,
  file: StaticString = #fileID, line: UInt = #line
) {
  if !condition { stopForBug(message(), file: file, line: line) }
}

/// Prints what went wrong and where, and stops the process at once.
@usableFromInline package func stopForBug(
  _ message: String, file: StaticString = #fileID, line: UInt = #line
) -> Never {
  var text = "skein: invariant broken at \(file):\(line): \(message)\n"
  text.withUTF8 { bytes in
    // SAFETY: write(2) only reads the bytes. Nothing can be done if it fails: we stop anyway.
    _ = write(2, bytes.baseAddress, bytes.count)
  }
  abort()
}
