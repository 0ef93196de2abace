// A snapshot on its way from the leader to a follower: one run of bytes, made up by the leader from
// its snapshot file and the live records, taken apart again by the follower.
//
//   offset size
//        0    4  magic "SKT1"
//        4    4  CRC-32C of bytes 8 to 47
//        8    4  format version
//       12    4  zero
//       16    8  bytes of the snapshot file, which follows the head
//       24    8  bytes of the fragments, which follow the snapshot file
//       32    8  fragments
//       40    8  zero
//
// A fragment is a head of 32 bytes and the bytes:
//        0    4  magic "SKG1"
//        4    4  CRC-32C of bytes 8 to 31
//        8    8  entry
//       16    4  offset
//       20    4  bytes
//       24    4  CRC-32C of the bytes
//       28    4  zero

import Base
import Consensus

enum StreamLayout {
  static let magic: UInt32 = 0x3154_4b53
  static let fragmentMagic: UInt32 = 0x3147_4b53
  static let headBytes = 48
  static let fragmentHeadBytes = 32

  static func head(snapshotBytes: UInt64, fragmentBytes: UInt64, fragments: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.put(magic)
    bytes.put(UInt32(0))
    bytes.put(formatVersion)
    bytes.put(UInt32(0))
    bytes.put(snapshotBytes)
    bytes.put(fragmentBytes)
    bytes.put(UInt64(fragments))
    bytes.put(UInt64(0))
    bytes.sealHeader(at: 0, bytes: headBytes)
    return bytes
  }

  static func fragmentHead(_ fragment: RecordReference, _ checksum: Checksum) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.put(fragmentMagic)
    bytes.put(UInt32(0))
    bytes.put(fragment.entry)
    bytes.put(fragment.offset)
    bytes.put(fragment.size)
    bytes.put(checksum.rawValue)
    bytes.put(UInt32(0))
    bytes.sealHeader(at: 0, bytes: fragmentHeadBytes)
    return bytes
  }
}

/// The sender's side. `prepare` on the low-priority thread, then `read` in any order from one
/// thread at a time; give it back to `LogStore.release`.
package final class SnapshotSource: @unchecked Sendable {
  // Used by one thread at a time, handed over through mailboxes.
  package let info: SnapshotInfo
  private let snapshot: StoreState.SnapshotFile
  private let live: LiveRecords
  private let files: ReadFiles
  private var copier: FragmentCopier
  private var fragments: [RecordReference] = []
  /// Where every `markSpacing`th fragment begins, from the first fragment's beginning.
  private var marks: [UInt64] = []
  private var fragmentBytes: UInt64 = 0
  private var head: [UInt8] = []
  var isReleased = false

  private static let markSpacing = 256

  init(
    snapshot: StoreState.SnapshotFile, log: LogFiles, site: CleaningJob.Site,
    live: @escaping LiveRecords
  ) {
    info = snapshot.info
    self.snapshot = snapshot
    self.live = live
    files = ReadFiles(
      directory: site.directory, fileSystem: site.fileSystem, openMax: site.options.openFilesMax)
    copier = FragmentCopier(log: log, files: files)
  }

  /// Sorts the live records; takes 16 bytes of memory for each until the source is released.
  ///
  /// - Throws: `.damaged` with the snapshot's index if its file is gone or of a wrong size.
  package func prepare() throws(LogReadError) {
    try checkSnapshot()
    var records: [RecordReference] = []
    let last = info.position.index
    live { if $0.entry <= last { records.append($0) } }
    fragments = FragmentCopier.merged(&records)
    for (at, fragment) in fragments.enumerated() {
      if at % Self.markSpacing == 0 { marks.append(fragmentBytes) }
      fragmentBytes += UInt64(StreamLayout.fragmentHeadBytes) + UInt64(fragment.size)
    }
    head = StreamLayout.head(
      snapshotBytes: snapshot.fileBytes, fragmentBytes: fragmentBytes,
      fragments: fragments.count)
  }

  private func checkSnapshot() throws(LogReadError) {
    do throws(StorageFailure) {
      let size = try files.handle(FileNames.snapshot(snapshot.number)).size()
      guard size == snapshot.fileBytes else { throw StorageFailure(.shortRead, "", code: 0) }
    } catch {
      if error.operation == .shortRead || error.isNoSuchFile {
        throw .damaged(info.position.index)
      }
      throw .storage(error)
    }
  }

  /// Size of the whole stream; known once it is prepared.
  package var totalBytes: UInt64 {
    UInt64(StreamLayout.headBytes) + snapshot.fileBytes + fragmentBytes
  }

  /// The stream's bytes from `offset`, at most `maxBytes`; fewer only at its end.
  package func read(at offset: UInt64, maxBytes: Int) throws(LogReadError) -> [UInt8] {
    invariant(!head.isEmpty, "snapshot source read and not prepared")
    var bytes: [UInt8] = []
    let end = min(totalBytes, offset + UInt64(maxBytes))
    guard offset < end else { return [] }
    bytes.reserveCapacity(Int(end - offset))
    let snapshotAt = UInt64(StreamLayout.headBytes)
    let fragmentsAt = snapshotAt + snapshot.fileBytes
    if offset < snapshotAt {
      bytes += head[Int(offset)..<Int(min(end, snapshotAt))]
    }
    if offset < fragmentsAt && end > snapshotAt {
      let from = max(offset, snapshotAt) - snapshotAt
      try readSnapshot(from..<min(end, fragmentsAt) - snapshotAt, &bytes)
    }
    if end > fragmentsAt {
      try readFragments(max(offset, fragmentsAt) - fragmentsAt..<end - fragmentsAt, &bytes)
    }
    return bytes
  }

  private func readSnapshot(
    _ range: Range<UInt64>, _ bytes: inout [UInt8]
  ) throws(LogReadError) {
    do throws(StorageFailure) {
      let file = try files.handle(FileNames.snapshot(snapshot.number))
      bytes += try file.readExactly(Int(range.upperBound - range.lowerBound), at: range.lowerBound)
    } catch {
      if error.operation == .shortRead { throw .damaged(info.position.index) }
      throw .storage(error)
    }
  }

  private func readFragments(
    _ range: Range<UInt64>, _ bytes: inout [UInt8]
  ) throws(LogReadError) {
    var low = 0
    var high = marks.count
    while low < high {
      let middle = (low + high) / 2
      if marks[middle] <= range.lowerBound { low = middle + 1 } else { high = middle }
    }
    guard low > 0 else { return }
    var at = (low - 1) * Self.markSpacing
    var place = marks[low - 1]
    while at < fragments.count, place < range.upperBound {
      let fragment = fragments[at]
      let size = UInt64(StreamLayout.fragmentHeadBytes) + UInt64(fragment.size)
      if place + size > range.lowerBound {
        let payload = try copier.bytes(of: fragment)
        let sum = payload.withUnsafeBytes { Checksum(of: $0) }
        let whole = StreamLayout.fragmentHead(fragment, sum) + payload
        let from = range.lowerBound > place ? Int(range.lowerBound - place) : 0
        let to = Int(min(size, range.upperBound - place))
        bytes += whole[from..<to]
      }
      place += size
      at += 1
    }
  }
}

/// Why a snapshot stream cannot be taken.
package enum SnapshotStreamError: Error, Equatable, Sendable {
  /// The chunk does not begin where the last one ended; `expected` is wanted.
  case outOfOrder(expected: UInt64)
  /// The bytes are no snapshot stream, or damaged: discard the receiver and begin again.
  case damaged(String)
  /// The disk refused.
  case storage(StorageFailure)
}

/// The follower's side. `take` the chunks in order, on the low-priority thread, then `finish`, then
/// `LogStore.stage`. Nothing is in force before that job is done.
package final class SnapshotReceiver: @unchecked Sendable {
  // Used by one thread at a time, handed over through mailboxes.
  package let position: LogPosition
  /// How much of the stream was taken, bytes.
  package private(set) var received: UInt64 = 0
  private let site: CleaningJob.Site
  private let snapshotNumber: UInt64
  private let writer: KeptWriter
  private var snapshot: (any FileHandle)?
  private var snapshotWritten: UInt64 = 0
  private var snapshotBytes: UInt64?
  private var fragmentsLeft: UInt64 = 0
  private var fragmentBytesLeft: UInt64 = 0
  /// Taken and not used yet: less than a head or a fragment.
  private var held: [UInt8] = []
  private var lastFragment: (LogIndex, UInt32)?
  private(set) var snapshotFile: StoreState.SnapshotFile?
  private(set) var kept: [KeptFile] = []
  var isInstalled = false

  init(
    position: LogPosition, site: CleaningJob.Site, snapshotNumber: UInt64, firstNumber: UInt64
  ) {
    self.position = position
    self.site = site
    self.snapshotNumber = snapshotNumber
    writer = KeptWriter(
      directory: site.directory, fileSystem: site.fileSystem, identity: site.identity,
      firstNumber: firstNumber, fileBytesMax: site.options.segmentBytes, isSteady: false)
  }

  /// The files made so far.
  var names: [String] {
    [FileNames.snapshot(snapshotNumber)] + writer.numbers.map(FileNames.kept)
  }

  func close() { snapshot = nil }

  /// Takes the chunk that begins at `offset` of the stream.
  package func take(_ bytes: [UInt8], at offset: UInt64) throws(SnapshotStreamError) {
    guard offset == received else { throw .outOfOrder(expected: received) }
    received += UInt64(bytes.count)
    held += bytes
    do throws(StorageFailure) {
      if snapshotBytes == nil && held.count >= StreamLayout.headBytes {
        guard takeHead() else { throw StorageFailure(.verify, "", code: 0, detail: "its head") }
      }
      guard let snapshotBytes else { return }
      if snapshotWritten < snapshotBytes { try takeSnapshot(snapshotBytes) }
      if snapshotWritten == snapshotBytes { try takeFragments() }
    } catch {
      if error.operation == .verify && error.path.isEmpty {
        throw .damaged("\(error.detail) is damaged, before byte \(received) of the stream")
      }
      throw .storage(error)
    }
  }

  private func takeHead() -> Bool {
    let fields = held.withUnsafeBytes { buffer -> (UInt64, UInt64, UInt64)? in
      guard
        let head = checkedHeader(
          in: buffer, at: 0, bytes: StreamLayout.headBytes, magic: StreamLayout.magic)
      else { return nil }
      func u64(_ at: Int) -> UInt64 {
        UInt64(littleEndian: head.loadUnaligned(fromByteOffset: at, as: UInt64.self))
      }
      return (u64(16), u64(24), u64(32))
    }
    guard let (snapshot, fragments, count) = fields else { return false }
    snapshotBytes = snapshot
    fragmentBytesLeft = fragments
    fragmentsLeft = count
    held.removeFirst(StreamLayout.headBytes)
    return true
  }

  private func takeSnapshot(_ total: UInt64) throws(StorageFailure) {
    let count = Int(min(UInt64(held.count), total - snapshotWritten))
    if count == 0 { return }
    let file: any FileHandle
    if let snapshot {
      file = snapshot
    } else {
      let path = site.directory + "/" + FileNames.snapshot(snapshotNumber)
      file = try site.fileSystem.open(path, .createNew)
      snapshot = file
    }
    try file.write([Array(held[..<count])], at: snapshotWritten)
    snapshotWritten += UInt64(count)
    held.removeFirst(count)
  }

  private func takeFragments() throws(StorageFailure) {
    var at = 0
    while held.count - at >= StreamLayout.fragmentHeadBytes {
      let start = at
      let head = held.withUnsafeBytes { buffer -> (RecordReference, Checksum)? in
        guard
          let head = checkedHeader(
            in: buffer, at: start, bytes: StreamLayout.fragmentHeadBytes,
            magic: StreamLayout.fragmentMagic)
        else { return nil }
        func u32(_ at: Int) -> UInt32 {
          UInt32(littleEndian: head.loadUnaligned(fromByteOffset: at, as: UInt32.self))
        }
        let entry = UInt64(littleEndian: head.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        return (
          RecordReference(entry: LogIndex(entry), offset: u32(16), size: u32(20)),
          Checksum(rawValue: u32(24))
        )
      }
      guard let (fragment, sum) = head, fragmentsLeft > 0,
        fragment.size <= MessageRecord.recordBytesMax,
        lastFragment.map({ $0 < (fragment.entry, fragment.offset) }) ?? true
      else { throw StorageFailure(.verify, "", code: 0, detail: "the head of a fragment") }
      let bodyAt = at + StreamLayout.fragmentHeadBytes
      guard held.count - bodyAt >= Int(fragment.size) else { break }
      let body = held[bodyAt..<bodyAt + Int(fragment.size)]
      guard body.withUnsafeBytes({ Checksum(of: $0) }) == sum else {
        throw StorageFailure(
          .verify, "", code: 0, detail: "a fragment of entry \(fragment.entry)")
      }
      try writer.add(entry: fragment.entry, offset: fragment.offset, bytes: body)
      lastFragment = (fragment.entry, fragment.offset)
      fragmentsLeft -= 1
      at = bodyAt + Int(fragment.size)
    }
    if at > 0 { held.removeFirst(at) }
  }

  /// Everything has come: makes it durable and reads it back.
  package func finish() throws(SnapshotStreamError) -> SnapshotInfo {
    guard let snapshotBytes, snapshotWritten == snapshotBytes, fragmentsLeft == 0, held.isEmpty,
      let snapshot
    else { throw .damaged("the stream ends early, at byte \(received)") }
    do throws(StorageFailure) {
      kept = try writer.finish()
      try snapshot.synchronize()
      try site.fileSystem.synchronizeDirectory(site.directory)
      for file in kept { try verify(file) }
    } catch {
      throw .storage(error)
    }
    do throws(SnapshotFileError) {
      let (info, bytes) = try SnapshotFileReader.verify(snapshot)
      guard info.position == position, bytes == snapshotBytes else {
        throw .damaged("it covers \(info.position), not \(position)")
      }
      snapshotFile = StoreState.SnapshotFile(
        number: snapshotNumber, info: info, fileBytes: bytes)
      self.snapshot = nil
      return info
    } catch {
      switch error {
      case .damaged(let text): throw .damaged(text)
      case .storage(let failure): throw .storage(failure)
      }
    }
  }

  private func verify(_ file: KeptFile) throws(StorageFailure) {
    let path = site.directory + "/" + FileNames.kept(file.number)
    let handle = try site.fileSystem.open(path, .read)
    let read = try KeptFile.scan(
      handle, number: file.number, range: file.range, bytes: file.bytes,
      readBytes: site.options.recoveryReadBytes
    ) { _, _ in }
    guard read.damaged.isEmpty else {
      throw StorageFailure(.verify, path, code: 0, detail: "read back damaged")
    }
  }
}
