// A segment of the log on the real disk, written past the page cache (O_DIRECT). What is written to
// the log is seldom read again, and the page cache makes the kernel find, fill and write back a page
// for every 4 KiB of it: more than all else that a large batch costs (docs/performance.md). Where
// reads are expected it goes through the page cache all the same: to read it from the disk costs more.
//
// Past the page cache the kernel takes whole blocks from aligned memory only, and through it blocks that
// are not whole make it read them first. So a write goes through a buffer: the bytes
// of its first block that are there already, its own, and zeros to the end of its last block. The
// last block is written again with what follows: the same bytes and more, which a torn write cannot
// hurt, since each sector is either as before or as it shall be.

import Base
import CLinux

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Used by one thread at a time, as the jobs that write it are.
final class LinuxLogFile: FileHandle, @unchecked Sendable {
  private static let blockBytes = 4096
  /// What one call writes at most.
  private static let bufferMax = 1 << 20

  private let file: LinuxFile
  private let descriptor: Int32
  private var fileBytes: UInt64
  private var buffer = UnsafeMutableRawBufferPointer(start: nil, count: 0)
  /// The file has the buffer's first `tail` bytes at `tailStart`, a block's beginning; what the buffer has
  /// behind them in that block is zero. nil: unknown.
  private var tailStart: UInt64?
  private var tail = 0
  /// False where the file system turned out to want the page cache.
  private var isDirect = true
  private var expectsReads = false

  /// - Parameter file: the same file opened to read and write, for all but large writes.
  /// - Returns: nil where the file system knows no such thing.
  init?(_ file: LinuxFile) throws(StorageFailure) {
    let descriptor = skein_open_direct(file.path, 1)
    guard descriptor >= 0 else {
      if descriptor == -EINVAL { return nil }
      throw StorageFailure(.open, file.path, code: -descriptor)
    }
    self.file = file
    self.descriptor = descriptor
    fileBytes = try file.size()
  }

  deinit {
    buffer.deallocate()
    close(descriptor)
  }

  var path: String { file.path }

  func expectReads(_ areExpected: Bool) { expectsReads = areExpected }

  func write(_ pieces: [[UInt8]], at offset: UInt64) throws(StorageFailure) {
    try writeAll(pieces, at: offset)
  }

  func write(_ bytes: [UInt8], at offset: UInt64) throws(StorageFailure) {
    try writeAll(CollectionOfOne(bytes), at: offset)
  }

  private func writeAll(
    _ pieces: some Collection<[UInt8]>, at offset: UInt64
  ) throws(StorageFailure) {
    let block = UInt64(Self.blockBytes)
    let count = pieces.reduce(0) { $0 + $1.count }
    let end = offset + UInt64(count)
    guard isDirect, (end + block - 1) / block * block <= fileBytes else {
      tailStart = nil
      return try file.write(Array(pieces), at: offset)
    }
    let start = offset / block * block
    let head = Int(offset - start)
    reserve(head + count)
    do throws(StorageFailure) {
      if tailStart != start || tail != head { try readHead(head, at: start) }
      try writeBlocks(pieces, from: start, behind: head)
    } catch {
      tailStart = nil
      guard error.operation == .write, error.code == EINVAL, !hasWritten else { throw error }
      // Nothing was written: a file system that opens such files and does not write them.
      isDirect = false
      try file.write(Array(pieces), at: offset)
    }
  }

  /// Whether a direct write was ever taken.
  private var hasWritten = false

  /// Makes the buffer large enough for `count` bytes, or as large as it gets; at least a block.
  private func reserve(_ count: Int) {
    let wanted = min(
      Self.bufferMax, (max(count, 1) + Self.blockBytes - 1) / Self.blockBytes * Self.blockBytes)
    guard buffer.count < wanted else { return }
    // Doubled, so that batches that grow do not need a new one each time.
    let size = min(Self.bufferMax, max(wanted, buffer.count * 2, 16 << 10))
    let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: Self.blockBytes)
    if buffer.count > 0 {
      larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: buffer[..<Self.blockBytes]))
    }
    buffer.deallocate()
    buffer = larger
  }

  private func readHead(_ count: Int, at start: UInt64) throws(StorageFailure) {
    tailStart = nil
    clear(count..<Self.blockBytes)
    guard count > 0 else { return }
    let got = try file.read(
      into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]), at: start)
    guard got == count else {
      throw StorageFailure(
        .shortRead, path, code: 0, detail: "\(got) of \(count) bytes at \(start)")
    }
  }

  /// Writes the pieces behind the first `head` bytes of the buffer, whose first block is zero from there.
  private func writeBlocks(
    _ pieces: some Collection<[UInt8]>, from start: UInt64, behind head: Int
  ) throws(StorageFailure) {
    var place = start
    var filled = head
    for piece in pieces {
      var taken = 0
      while taken < piece.count {
        let part = min(piece.count - taken, buffer.count - filled)
        piece.withUnsafeBytes { bytes in
          let own = UnsafeRawBufferPointer(rebasing: bytes[taken..<taken + part])
          UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]).copyMemory(from: own)
        }
        taken += part
        filled += part
        if filled == buffer.count {
          try writeBuffer(filled, at: place)
          place += UInt64(filled)
          filled = 0
        }
      }
    }
    let rest = filled % Self.blockBytes
    let isWithinFirst = place == start && filled < Self.blockBytes
    let whole = (filled + Self.blockBytes - 1) / Self.blockBytes * Self.blockBytes
    if !isWithinFirst { clear(filled..<whole) }
    if whole > 0 { try writeBuffer(whole, at: place) }
    // What the next write begins with.
    if rest == 0 {
      clear(0..<Self.blockBytes)
    } else if whole > Self.blockBytes {
      buffer.copyMemory(
        from: UnsafeRawBufferPointer(rebasing: buffer[whole - Self.blockBytes..<whole]))
    }
    tailStart = place + UInt64(filled - rest)
    tail = rest
  }

  private func clear(_ range: Range<Int>) {
    UnsafeMutableRawBufferPointer(rebasing: buffer[range])
      .initializeMemory(as: UInt8.self, repeating: 0)
  }

  /// Writes the buffer's first `count` bytes, whole blocks.
  private func writeBuffer(_ count: Int, at offset: UInt64) throws(StorageFailure) {
    if expectsReads {
      return try file.write(
        from: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]), at: offset)
    }
    var done = 0
    while done < count {
      var slice = iovec(iov_base: buffer.baseAddress.map { $0 + done }, iov_len: count - done)
      let written = Int(skein_write_at(descriptor, &slice, 1, Int64(offset) + Int64(done)))
      if written == -Int(EINTR) { continue }
      guard written >= 0 else { throw StorageFailure(.write, path, code: Int32(-written)) }
      // A short write may end within a block, which is then written again.
      let blocks = written / Self.blockBytes * Self.blockBytes
      guard blocks > 0 else {
        throw StorageFailure(.write, path, code: 0, detail: "\(written) of \(count - done) bytes")
      }
      hasWritten = true
      done += blocks
    }
  }

  func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(StorageFailure) -> Int {
    try file.read(into: buffer, at: offset)
  }

  func synchronize() throws(StorageFailure) { try file.synchronize() }

  func allocate(_ bytes: UInt64) throws(StorageFailure) {
    try file.allocate(bytes)
    fileBytes = try file.size()
  }

  func truncate(to bytes: UInt64) throws(StorageFailure) {
    try file.truncate(to: bytes)
    fileBytes = bytes
    tailStart = nil
    tail = 0
  }

  func size() throws(StorageFailure) -> UInt64 { try file.size() }
}
