// A snapshot file: a head, the machine's bytes in chunks, an end. Written and sent as it is.
//
//   head    offset size
//                0    4  magic "SKN1"
//                4    4  CRC-32C of the rest of the head
//                8    4  format version
//               12    4  bytes of the head
//               16   16  position: term, index
//               32    8  state hash
//               40    8  index of the state hash
//               48    4  bytes of the membership, the membership behind it
//   chunk        0    4  magic "SKC1"
//                4    4  CRC-32C of bytes 8 to 31
//                8    8  index of the snapshot
//               16    4  ordinal from 0
//               20    4  bytes, 0 for the end
//               24    4  CRC-32C of the bytes; at the end of all chunks' checksums
//               28    4  zero
//               32       the bytes

import Base
import Consensus

enum SnapshotLayout {
  static let magic: UInt32 = 0x314e_4b53
  static let chunkMagic: UInt32 = 0x3143_4b53
  static let fixedHeadBytes = 52
  static let chunkHeadBytes = 32
  static let chunkBytesMax = 1 << 20
  static let headBytesMax = 1 << 20

  static func head(_ info: SnapshotInfo) -> [UInt8] {
    let membership = info.membership.encoded()
    var bytes: [UInt8] = []
    bytes.put(magic)
    bytes.put(UInt32(0))
    bytes.put(formatVersion)
    bytes.put(UInt32(fixedHeadBytes + membership.count))
    bytes.put(info.position.term)
    bytes.put(info.position.index)
    bytes.put(info.stateHash)
    bytes.put(info.stateHashIndex)
    bytes.put(UInt32(membership.count))
    bytes += membership
    bytes.sealHeader(at: 0, bytes: bytes.count)
    return bytes
  }

  static func chunkHead(
    snapshot: LogIndex, ordinal: UInt32, byteCount: Int, checksum: Checksum
  ) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.put(chunkMagic)
    bytes.put(UInt32(0))
    bytes.put(snapshot)
    bytes.put(ordinal)
    bytes.put(UInt32(byteCount))
    bytes.put(checksum.rawValue)
    bytes.put(UInt32(0))
    bytes.sealHeader(at: 0, bytes: chunkHeadBytes)
    return bytes
  }

  /// The checksum over the chunks' checksums.
  static func extend(_ total: Checksum, with chunk: Checksum) -> Checksum {
    var little = chunk.rawValue.littleEndian
    return withUnsafeBytes(of: &little) { Checksum(of: $0, after: total) }
  }
}

/// Why a snapshot file cannot be used.
enum SnapshotFileError: Error {
  case damaged(String)
  case storage(StorageFailure)
}

/// Reads a snapshot file from front to end, verifying all of it.
struct SnapshotFileReader {
  let file: any FileHandle
  /// `byteCount` counts what was read so far.
  private(set) var info: SnapshotInfo
  private var offset: UInt64
  private var ordinal: UInt32 = 0
  private var total = Checksum(rawValue: 0)
  private(set) var isAtEnd = false

  /// How far the file was read, bytes.
  var readBytes: UInt64 { offset }

  init(_ file: any FileHandle) throws(SnapshotFileError) {
    self.file = file
    let fixed = try Self.read(file, SnapshotLayout.fixedHeadBytes, at: 0)
    let headBytes = fixed.withUnsafeBytes {
      $0.count < SnapshotLayout.fixedHeadBytes
        ? 0 : Int(UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: 12, as: UInt32.self)))
    }
    guard headBytes >= SnapshotLayout.fixedHeadBytes, headBytes <= SnapshotLayout.headBytesMax
    else { throw .damaged("its head is damaged") }
    let head = try Self.read(file, headBytes, at: 0)
    guard let info = Self.decode(head) else { throw .damaged("its head is damaged") }
    self.info = info
    offset = UInt64(headBytes)
  }

  private static func decode(_ bytes: [UInt8]) -> SnapshotInfo? {
    bytes.withUnsafeBytes { buffer in
      guard
        let head = checkedHeader(
          in: buffer, at: 0, bytes: buffer.count, magic: SnapshotLayout.magic)
      else { return nil }
      var reader = ByteReader(head)
      do {
        try reader.skip(8)
        guard try reader.integer(UInt32.self) <= formatVersion else { return nil }
        try reader.skip(4)
        let term = try reader.identifier(Term.self)
        let index = try reader.identifier(LogIndex.self)
        let hash = try reader.integer(UInt64.self)
        let hashIndex = try reader.identifier(LogIndex.self)
        try reader.skip(4)
        let membership = try Membership(decoding: &reader)
        return SnapshotInfo(
          position: LogPosition(term: term, index: index), membership: membership,
          stateHash: hash, stateHashIndex: hashIndex, byteCount: 0)
      } catch {
        return nil
      }
    }
  }

  /// The next chunk's bytes; empty at the end.
  mutating func next() throws(SnapshotFileError) -> [UInt8] {
    if isAtEnd { return [] }
    let headBytes = SnapshotLayout.chunkHeadBytes
    let head = try Self.read(file, headBytes, at: offset)
    let fields = head.withUnsafeBytes { buffer -> (LogIndex, UInt32, Int, Checksum)? in
      guard
        let head = checkedHeader(
          in: buffer, at: 0, bytes: headBytes, magic: SnapshotLayout.chunkMagic)
      else { return nil }
      func u32(_ at: Int) -> UInt32 {
        UInt32(littleEndian: head.loadUnaligned(fromByteOffset: at, as: UInt32.self))
      }
      let index = UInt64(littleEndian: head.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
      return (LogIndex(index), u32(16), Int(u32(20)), Checksum(rawValue: u32(24)))
    }
    guard let (index, found, count, checksum) = fields, index == info.position.index,
      found == ordinal, count <= SnapshotLayout.chunkBytesMax
    else { throw .damaged("the head of its chunk \(ordinal) at offset \(offset) is damaged") }
    if count == 0 {
      guard checksum == total else { throw .damaged("its end does not fit its chunks") }
      offset += UInt64(headBytes)
      isAtEnd = true
      return []
    }
    let bytes = try Self.read(file, count, at: offset + UInt64(headBytes))
    let sum = Checksum(of: bytes)
    guard bytes.count == count, sum == checksum else {
      throw .damaged("the checksum of its chunk \(ordinal) at offset \(offset) is wrong")
    }
    offset += UInt64(headBytes + count)
    ordinal += 1
    total = SnapshotLayout.extend(total, with: sum)
    info.byteCount += UInt64(count)
    return bytes
  }

  /// Reads the rest and gives what the whole is about.
  static func verify(_ file: any FileHandle) throws(SnapshotFileError) -> (SnapshotInfo, UInt64) {
    var reader = try SnapshotFileReader(file)
    while !reader.isAtEnd { _ = try reader.next() }
    return (reader.info, reader.readBytes)
  }

  private static func read(
    _ file: any FileHandle, _ count: Int, at offset: UInt64
  ) throws(SnapshotFileError) -> [UInt8] {
    do throws(StorageFailure) {
      return try file.readUpTo(count, at: offset)
    } catch {
      throw .storage(error)
    }
  }
}

extension SnapshotFileError {
  var text: String {
    switch self {
    case .damaged(let text): text
    case .storage(let failure): "\(failure)"
    }
  }
}

/// Writes the machine's snapshot, on the low-priority thread: `append` as often as wanted, then
/// `finish`, then back to the event loop and `LogStore.stage`.
package final class SnapshotWriter: @unchecked Sendable {
  // Used by one thread at a time, handed over through mailboxes.
  package let position: LogPosition
  let number: UInt64
  let path: String
  private let directory: String
  private let fileSystem: any FileSystem
  private(set) var info: SnapshotInfo
  private var file: (any FileHandle)?
  private var gathered: [UInt8] = []
  private var offset: UInt64 = 0
  private var ordinal: UInt32 = 0
  private var total = Checksum(rawValue: 0)
  private(set) var isFinished = false
  /// The disk has too little room for it, or would have for the log: its file is gone.
  package private(set) var hasNoRoom = false
  /// All that `encode` gave, bytes: known when `write` ends, also where there was no room.
  package private(set) var wantedBytes: UInt64 = 0
  private let room: StoreRoom
  /// What is to be left of the disk for the log.
  private var leftFree: UInt64 = 0

  /// Size of the file, once finished.
  var fileBytes: UInt64 { offset }

  init(
    info: SnapshotInfo, number: UInt64, directory: String, fileSystem: any FileSystem,
    room: StoreRoom
  ) {
    position = info.position
    self.info = info
    self.number = number
    self.directory = directory
    self.room = room
    path = directory + "/" + FileNames.snapshot(number)
    self.fileSystem = fileSystem
  }

  /// Writes what `encode` gives, which it may be asked for twice, and makes it durable, unless `hasNoRoom`.
  ///
  /// - Parameter encode: gives the machine's bytes in pieces, each time the same.
  package func write(_ encode: (([UInt8]) -> Void) -> Void) throws(StorageFailure) {
    let free = try fileSystem.freeBytes(directory)
    // Counting takes time, writing half of it takes the disk.
    if room.isShort(free) {
      encode { wantedBytes += UInt64($0.count) }
      if !room.fits(wantedBytes, free: free, leaving: room.left(of: free)) { return giveUp() }
      wantedBytes = 0
    }
    var failure: StorageFailure?
    encode { piece in
      if failure != nil { return }
      do throws(StorageFailure) { try append(piece) } catch { failure = error }
    }
    if let failure { throw failure }
    try finish()
  }

  /// Appends to the machine's bytes.
  package func append(_ bytes: [UInt8]) throws(StorageFailure) {
    wantedBytes += UInt64(bytes.count)
    if hasNoRoom { return }
    gathered += bytes
    var taken = 0
    while gathered.count - taken >= SnapshotLayout.chunkBytesMax {
      try write(Array(gathered[taken..<taken + SnapshotLayout.chunkBytesMax]))
      taken += SnapshotLayout.chunkBytesMax
    }
    if taken > 0 { gathered.removeFirst(taken) }
  }

  /// Everything was appended: makes it durable, unless `hasNoRoom`. It is in force when `LogStore.stage`
  /// and its job are done.
  package func finish() throws(StorageFailure) {
    if !gathered.isEmpty { try write(gathered) }
    gathered = []
    try unlessFull { () throws(StorageFailure) in
      let file = try opened()
      let end = SnapshotLayout.chunkHead(
        snapshot: position.index, ordinal: ordinal, byteCount: 0, checksum: total)
      try file.write([end], at: offset)
      offset += UInt64(end.count)
      try file.synchronize()
    }
    if hasNoRoom { return }
    // Other files' names depend on this one.
    try fileSystem.synchronizeDirectory(directory)
    isFinished = true
  }

  private func write(_ chunk: [UInt8]) throws(StorageFailure) {
    try unlessFull { () throws(StorageFailure) in
      let file = try opened()
      let free = try fileSystem.freeBytes(directory)
      guard room.fits(UInt64(chunk.count), free: free, leaving: leftFree) else { return giveUp() }
      let sum = Checksum(of: chunk)
      let head = SnapshotLayout.chunkHead(
        snapshot: position.index, ordinal: ordinal, byteCount: chunk.count, checksum: sum)
      try file.write([head, chunk], at: offset)
      offset += UInt64(head.count + chunk.count)
      ordinal += 1
      total = SnapshotLayout.extend(total, with: sum)
      info.byteCount += UInt64(chunk.count)
    }
  }

  /// Nothing depends on the file yet: a full disk is no reason to stop.
  private func unlessFull(
    _ body: () throws(StorageFailure) -> Void
  ) throws(StorageFailure) {
    if hasNoRoom { return }
    do throws(StorageFailure) {
      try body()
    } catch {
      guard error.isNoSpace else { throw error }
      giveUp()
    }
  }

  /// Nothing reads the file, so it goes at once, whatever other files wait for.
  private func giveUp() {
    hasNoRoom = true
    guard file != nil else { return }
    file = nil
    // What cannot be removed now is removed with the dead files (`LogStore.discard`).
    do throws(StorageFailure) { try fileSystem.removeLarge(path) } catch { return }
  }

  private func opened() throws(StorageFailure) -> any FileHandle {
    if let file { return file }
    leftFree = room.left(of: try fileSystem.freeBytes(directory))
    let made = SteadyFile(try fileSystem.open(path, .createNew))
    let head = SnapshotLayout.head(info)
    try made.write([head], at: 0)
    offset = UInt64(head.count)
    file = made
    return made
  }
}

/// Reads the machine's bytes of a snapshot. May be handed to another thread.
package final class SnapshotReader: @unchecked Sendable {
  package let info: SnapshotInfo
  private let path: String
  private let fileSystem: any FileSystem
  private var reader: SnapshotFileReader?

  init(info: SnapshotInfo, path: String, fileSystem: any FileSystem) {
    self.info = info
    self.path = path
    self.fileSystem = fileSystem
  }

  /// The next piece of the machine's bytes, verified; empty at the end. `.damaged` names the
  /// snapshot's index.
  package func next() throws(LogReadError) -> [UInt8] {
    do throws(SnapshotFileError) {
      if reader == nil { reader = try SnapshotFileReader(try opened()) }
      return try reader?.next() ?? []
    } catch {
      switch error {
      case .damaged: throw .damaged(info.position.index)
      case .storage(let failure): throw .storage(failure)
      }
    }
  }

  private func opened() throws(SnapshotFileError) -> any FileHandle {
    do throws(StorageFailure) {
      return try fileSystem.open(path, .read)
    } catch {
      throw .storage(error)
    }
  }
}
