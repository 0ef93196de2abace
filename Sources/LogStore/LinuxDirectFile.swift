// A file that is read once, past the page cache (O_DIRECT): finding and filling a page for every 4 KiB
// costs more than all else that a follower's entries cost to read. What the page cache has already is
// taken from there: that leaves the disk to the log's writes.

import Base
import CLinux

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Used by one thread at a time.
final class LinuxDirectFile: FileHandle, @unchecked Sendable {
  private static let blockBytes = 4096

  /// The same file through the page cache, for where the file system takes no direct read.
  private let file: LinuxFile
  private let descriptor: Int32
  private var buffer = UnsafeMutableRawBufferPointer(start: nil, count: 0)
  private var isDirect = true

  /// - Returns: nil where the file system knows no such thing.
  init?(_ file: LinuxFile) throws(StorageFailure) {
    let descriptor = skein_open_direct(file.path, 0)
    guard descriptor >= 0 else {
      if descriptor == -EINVAL { return nil }
      throw StorageFailure(.open, file.path, code: -descriptor)
    }
    self.file = file
    self.descriptor = descriptor
  }

  deinit {
    buffer.deallocate()
    close(descriptor)
  }

  var path: String { file.path }

  func read(
    into target: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(StorageFailure) -> Int {
    guard let bytes = try bytes(target.count, at: offset) else {
      return try file.read(into: target, at: offset)
    }
    if bytes.count > 0 { target.copyMemory(from: bytes) }
    return bytes.count
  }

  func withBytes<Result>(
    _ count: Int, at offset: UInt64, _ body: (UnsafeRawBufferPointer) -> Result
  ) throws(StorageFailure) -> Result {
    guard let bytes = try bytes(count, at: offset) else {
      return try file.withBytes(count, at: offset, body)
    }
    guard bytes.count == count else {
      throw StorageFailure(
        .shortRead, path, code: 0, detail: "\(bytes.count) of \(count) bytes at \(offset)")
    }
    return body(bytes)
  }

  /// Where they lie in the buffer, valid until the next call: fewer only at the end of the file; nil if
  /// the file system takes no such reads.
  private func bytes(
    _ count: Int, at offset: UInt64
  ) throws(StorageFailure) -> UnsafeRawBufferPointer? {
    guard isDirect else { return nil }
    let block = UInt64(Self.blockBytes)
    let start = offset / block * block
    let head = Int(offset - start)
    let blocks = (head + count + Self.blockBytes - 1) / Self.blockBytes
    reserve(blocks * Self.blockBytes)
    guard let filled = try fill(blocks * Self.blockBytes, at: start) else {
      isDirect = false
      return nil
    }
    let end = head + max(0, min(filled - head, count))
    // SAFETY: `fill` has filled the buffer up to `filled`.
    return UnsafeRawBufferPointer(rebasing: buffer[head..<end])
  }

  private func reserve(_ count: Int) {
    guard buffer.count < count else { return }
    buffer.deallocate()
    buffer = .allocate(byteCount: count, alignment: Self.blockBytes)
  }

  /// - Returns: how much of the buffer's first `count` bytes was read, less only at the file's end; nil
  ///   if the file system takes no such reads.
  private func fill(_ count: Int, at offset: UInt64) throws(StorageFailure) -> Int? {
    if file.isCached(count, at: offset) {
      return try file.read(
        into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]), at: offset)
    }
    var filled = 0
    while filled < count, let base = buffer.baseAddress {
      // SAFETY: reads into the part of the buffer that is not filled yet.
      let got = Int(
        skein_read_at(descriptor, base + filled, count - filled, Int64(offset) + Int64(filled)))
      if got == -Int(EINTR) { continue }
      if got == -Int(EINVAL) { return nil }
      guard got >= 0 else { throw StorageFailure(.read, path, code: Int32(-got)) }
      filled += got
      // Within a block only a file ends.
      if got == 0 || got % Self.blockBytes != 0 { break }
    }
    return filled
  }

  func write(_ pieces: [[UInt8]], at offset: UInt64) throws(StorageFailure) {
    try file.write(pieces, at: offset)
  }

  func synchronize() throws(StorageFailure) { try file.synchronize() }

  func allocate(_ bytes: UInt64) throws(StorageFailure) { try file.allocate(bytes) }

  func truncate(to bytes: UInt64) throws(StorageFailure) { try file.truncate(to: bytes) }

  func size() throws(StorageFailure) -> UInt64 { try file.size() }
}
