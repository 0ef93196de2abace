// A large file that is written behind the log: what would all reach the disk with its last sync goes there
// in pieces. The log's own syncs wait for a few of its milliseconds then, not for all of them.

import Base

/// Used by one thread at a time.
final class SteadyFile: FileHandle, @unchecked Sendable {
  /// What is left to one sync: 2 to 4 ms of a usual disk.
  static let bytesMax = 4 << 20

  private let file: any FileHandle
  private var unsynced = 0
  /// What one sync could not write, a later one does not bring back (G12).
  private var failure: StorageFailure?

  init(_ file: any FileHandle) { self.file = file }

  var path: String { file.path }

  func write(_ pieces: [[UInt8]], at offset: UInt64) throws(StorageFailure) {
    if let failure { throw failure }
    try file.write(pieces, at: offset)
    unsynced += pieces.reduce(0) { $0 + $1.count }
    if unsynced >= Self.bytesMax { try synchronize() }
  }

  func synchronize() throws(StorageFailure) {
    if let failure { throw failure }
    do throws(StorageFailure) {
      try file.synchronize()
      unsynced = 0
    } catch {
      failure = error
      throw error
    }
  }

  func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(StorageFailure) -> Int {
    try file.read(into: buffer, at: offset)
  }

  func willRead(_ bytes: UInt64, at offset: UInt64) { file.willRead(bytes, at: offset) }

  func allocate(_ bytes: UInt64) throws(StorageFailure) { try file.allocate(bytes) }

  func truncate(to bytes: UInt64) throws(StorageFailure) { try file.truncate(to: bytes) }

  func size() throws(StorageFailure) -> UInt64 { try file.size() }
}
