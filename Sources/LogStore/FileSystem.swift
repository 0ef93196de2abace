// The one door to the disk. The log store, its jobs and its recovery touch files through this and
// nothing else, so that the simulator can put a disk of its own behind the same code.
//
// Calls come per batch, not per message: an existential is cheap enough. Handles are used by
// several threads (writes from the storage thread, reads from the event loop), never with
// overlapping writes.

import Base

/// Something the disk refused. The first one in a write job stops all writing (G12).
package struct StorageFailure: Error, Hashable, Sendable, CustomStringConvertible {
  package enum Operation: String, Sendable {
    case open, read, write, synchronize, allocate, truncate, size, list, rename, remove
    case createDirectory = "create directory"
    case synchronizeDirectory = "synchronize directory"
    case lock
    case freeSpace = "free space"
    /// A read came back shorter than the file's length promises.
    case shortRead = "short read"
    /// What was read back is not what was written or promised.
    case verify
  }
  package var operation: Operation
  package var path: String
  /// errno, 0 where there is none.
  package var code: Int32
  /// What more is known, may be empty.
  package var detail: String

  package init(_ operation: Operation, _ path: String, code: Int32, detail: String = "") {
    self.operation = operation
    self.path = path
    self.code = code
    self.detail = detail
  }

  package static let noSpaceCode: Int32 = 28
  package static let noSuchFileCode: Int32 = 2
  package static let ioCode: Int32 = 5

  package var isNoSpace: Bool { code == Self.noSpaceCode }
  package var isNoSuchFile: Bool { code == Self.noSuchFileCode }

  package var description: String {
    var text = "\(operation.rawValue) of \(path) failed"
    if code != 0 { text += ": \(ErrorText.of(code)) (errno \(code))" }
    if !detail.isEmpty { text += ": \(detail)" }
    return text
  }
}

/// How a file is opened.
package enum OpenMode: Sendable {
  /// It must exist.
  case read
  /// It must exist.
  case readWrite
  /// It is made if it does not exist.
  case createIfMissing
  /// It must not exist.
  case createNew
}

/// An open file. It is closed when the last reference goes.
package protocol FileHandle: AnyObject, Sendable {
  /// For messages.
  var path: String { get }
  /// Writes the pieces one behind the other from `offset`; all of it or a failure.
  func write(_ pieces: [[UInt8]], at offset: UInt64) throws(StorageFailure)
  /// The same of one piece.
  func write(_ bytes: [UInt8], at offset: UInt64) throws(StorageFailure)
  /// Fills the buffer from `offset`; fewer bytes only at the end of the file.
  func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(StorageFailure) -> Int
  /// Calls `body` with exactly `count` bytes from `offset`, which need not be copied for that.
  func withBytes<Result>(
    _ count: Int, at offset: UInt64, _ body: (UnsafeRawBufferPointer) -> Result
  ) throws(StorageFailure) -> Result
  /// These bytes will be read soon: whatever can be done about it now is begun. Returns at once.
  func willRead(_ bytes: UInt64, at offset: UInt64)
  /// These bytes are not read soon: they need not be kept in memory. What a failed sync left in the page
  /// cache only may be gone then, so it is for what is known to be on the disk.
  func willNotRead(_ bytes: UInt64, at offset: UInt64)
  /// Whether what is written from here on is likely to be read again soon. Changes nothing but what
  /// that costs.
  func expectReads(_ areExpected: Bool)
  /// fdatasync: the bytes written so far and the length are on the disk when it returns. After a
  /// failure it is never tried again.
  func synchronize() throws(StorageFailure)
  /// posix_fallocate from the beginning: the file is at least this long, new bytes read as zero.
  func allocate(_ bytes: UInt64) throws(StorageFailure)
  func truncate(to bytes: UInt64) throws(StorageFailure)
  func size() throws(StorageFailure) -> UInt64
}

/// Held while the data directory is in use; given up when the last reference goes.
package protocol DirectoryLock: AnyObject, Sendable {}

/// What became of asking for the directory's lock.
package enum LockOutcome: Sendable {
  case taken(any DirectoryLock)
  /// Another process holds it; its id where known.
  case heldByAnother(process: Int32?)
}

/// A file system. Paths are absolute or relative to the process.
package protocol FileSystem: AnyObject, Sendable {
  func open(_ path: String, _ mode: OpenMode) throws(StorageFailure) -> any FileHandle
  /// Opens a segment to write the log on, batch by batch. What lies behind the end of a write in the
  /// same 4096 bytes may read as zero afterwards.
  func openLog(_ path: String, _ mode: OpenMode) throws(StorageFailure) -> any FileHandle
  /// Opens a file to read much of it, once: it need not be kept in memory for others.
  func openToReadOnce(_ path: String) throws(StorageFailure) -> any FileHandle
  /// Makes a directory and those above it; none of them need be missing.
  func createDirectory(_ path: String) throws(StorageFailure)
  /// The names in a directory, sorted, without `.` and `..`.
  func list(_ directory: String) throws(StorageFailure) -> [String]
  /// Atomic; replaces what bears the new name.
  func rename(_ old: String, to new: String) throws(StorageFailure)
  func remove(_ path: String) throws(StorageFailure)
  /// As `remove`; what a large file took is given back piece by piece, so that others' writes are not
  /// held up by it. Takes its time.
  func removeLarge(_ path: String) throws(StorageFailure)
  /// The names made, renamed and removed so far are on the disk when it returns.
  func synchronizeDirectory(_ path: String) throws(StorageFailure)
  /// Takes the exclusive lock of a directory through the file `path` in it.
  func lock(_ path: String) throws(StorageFailure) -> LockOutcome
  /// Bytes that may still be written to the file system of `directory`.
  func freeBytes(_ directory: String) throws(StorageFailure) -> UInt64
}

extension FileSystem {
  package func removeLarge(_ path: String) throws(StorageFailure) { try remove(path) }

  package func openLog(
    _ path: String, _ mode: OpenMode
  ) throws(StorageFailure) -> any FileHandle {
    try open(path, mode)
  }

  package func openToReadOnce(_ path: String) throws(StorageFailure) -> any FileHandle {
    try open(path, .read)
  }
}

extension FileHandle {
  package func write(_ bytes: [UInt8], at offset: UInt64) throws(StorageFailure) {
    try write([bytes], at: offset)
  }

  package func willRead(_ bytes: UInt64, at offset: UInt64) {}

  package func willNotRead(_ bytes: UInt64, at offset: UInt64) {}

  package func expectReads(_ areExpected: Bool) {}

  package func withBytes<Result>(
    _ count: Int, at offset: UInt64, _ body: (UnsafeRawBufferPointer) -> Result
  ) throws(StorageFailure) -> Result {
    try readExactly(count, at: offset).withUnsafeBytes { body($0) }
  }

  /// Exactly `count` bytes from `offset`.
  func readExactly(_ count: Int, at offset: UInt64) throws(StorageFailure) -> [UInt8] {
    var failure: StorageFailure?
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      do throws(StorageFailure) {
        filled = try read(into: UnsafeMutableRawBufferPointer(buffer), at: offset)
      } catch {
        failure = error
        filled = 0
      }
    }
    if let failure { throw failure }
    guard bytes.count == count else {
      throw StorageFailure(
        .shortRead, path, code: 0, detail: "\(bytes.count) of \(count) bytes at \(offset)")
    }
    return bytes
  }

  /// At most `count` bytes from `offset`; fewer only at the end of the file.
  func readUpTo(_ count: Int, at offset: UInt64) throws(StorageFailure) -> [UInt8] {
    var failure: StorageFailure?
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      do throws(StorageFailure) {
        filled = try read(into: UnsafeMutableRawBufferPointer(buffer), at: offset)
      } catch {
        failure = error
        filled = 0
      }
    }
    if let failure { throw failure }
    return bytes
  }
}
