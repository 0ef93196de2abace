// Kept files: pieces of payloads that were alive when the segments they lay in were rewritten,
// that came with a snapshot from the leader, or that a repair brought.
//
// Behind the block of `FileHeader` lie fragments, ascending by entry and offset, each:
//
//   offset size
//        0    4  magic "SKF1"
//        4    4  CRC-32C of bytes 8 to 47
//        8    8  number of the file
//       16    4  place in the file, bytes
//       20    4  CRC-32C of the bytes
//       24    8  entry
//       32    4  offset in the entry's payload
//       36    4  bytes
//       40    8  zero
//       48       the bytes, then zeros to a multiple of 8

import Base
import Consensus

struct FragmentHeader: Equatable, Sendable {
  static let magic: UInt32 = 0x3146_4b53
  static let bytes = 48

  var number: UInt64
  var place: UInt32
  var checksum: Checksum
  var entry: LogIndex
  var offset: UInt32
  var size: UInt32

  static func recordBytes(_ size: Int) -> Int { bytes + (size + 7) / 8 * 8 }
  var recordBytes: Int { Self.recordBytes(Int(size)) }

  func append(to out: inout [UInt8]) {
    let start = out.count
    out.put(Self.magic)
    out.put(UInt32(0))
    out.put(number)
    out.put(place)
    out.put(checksum.rawValue)
    out.put(entry)
    out.put(offset)
    out.put(size)
    out.put(UInt64(0))
    out.sealHeader(at: start, bytes: Self.bytes)
  }

  init(
    number: UInt64, place: UInt32, checksum: Checksum, entry: LogIndex, offset: UInt32,
    size: UInt32
  ) {
    self.number = number
    self.place = place
    self.checksum = checksum
    self.entry = entry
    self.offset = offset
    self.size = size
  }

  init?(in bytes: UnsafeRawBufferPointer, at start: Int) {
    guard
      let head = checkedHeader(in: bytes, at: start, bytes: Self.bytes, magic: Self.magic)
    else { return nil }
    func u32(_ at: Int) -> UInt32 {
      UInt32(littleEndian: head.loadUnaligned(fromByteOffset: at, as: UInt32.self))
    }
    func u64(_ at: Int) -> UInt64 {
      UInt64(littleEndian: head.loadUnaligned(fromByteOffset: at, as: UInt64.self))
    }
    number = u64(8)
    place = u32(16)
    checksum = Checksum(rawValue: u32(20))
    entry = LogIndex(u64(24))
    offset = u32(32)
    size = u32(36)
  }
}

/// What memory knows of a kept file: where every so many bytes which fragment begins.
struct KeptFile: Equatable, Sendable {
  struct Mark: Equatable, Sendable {
    var entry: LogIndex
    var offset: UInt32
    var place: UInt32
  }
  /// A mark is set for the first fragment that begins this far behind the last mark.
  static let markSpacing = 16 << 10

  var number: UInt64
  /// Entries that it may have fragments of.
  var range: EntryRange
  /// Bytes in use.
  var bytes: UInt64
  var marks: [Mark] = []
  /// Entries around fragments that are damaged.
  var damaged = EntryRanges()

  /// Notes a fragment; they come in ascending order. Whoever looks for one goes from mark to mark, so
  /// damage must have one behind it.
  mutating func note(_ fragment: FragmentHeader, behindDamage: Bool = false) {
    if let last = marks.last, Int(fragment.place - last.place) < Self.markSpacing, !behindDamage {
      return
    }
    marks.append(Mark(entry: fragment.entry, offset: fragment.offset, place: fragment.place))
  }

  /// Where to begin looking for a fragment that holds this byte, and where to stop.
  func stretch(entry: LogIndex, offset: UInt32) -> Range<UInt64>? {
    var low = 0
    var high = marks.count
    while low < high {
      let middle = (low + high) / 2
      let mark = marks[middle]
      if (mark.entry, mark.offset) <= (entry, offset) { low = middle + 1 } else { high = middle }
    }
    guard low > 0 else { return nil }
    let end = low < marks.count ? UInt64(marks[low].place) : bytes
    return UInt64(marks[low - 1].place)..<end
  }

  /// The fragment that holds `record`, verified; nil if the file has none.
  func fragment(
    holding record: RecordReference, in file: any FileHandle
  ) throws(LogReadError) -> PayloadBlock? {
    guard let stretch = stretch(entry: record.entry, offset: record.offset) else { return nil }
    var place = stretch.lowerBound
    do throws(StorageFailure) {
      while place < stretch.upperBound {
        let window = try file.readUpTo(
          Int(min(UInt64(2 * Self.markSpacing), bytes - place)), at: place)
        var at = 0
        var found: FragmentHeader?
        while place + UInt64(at) < stretch.upperBound, window.count - at >= FragmentHeader.bytes {
          let head = window.withUnsafeBytes { FragmentHeader(in: $0, at: at) }
          guard let head, head.number == number, UInt64(head.place) == place + UInt64(at) else {
            throw StorageFailure(.verify, file.path, code: 0)
          }
          if head.entry > record.entry { return nil }
          if head.entry == record.entry, head.offset <= record.offset,
            UInt64(record.offset) + UInt64(record.size) <= UInt64(head.offset) + UInt64(head.size)
          {
            found = head
            break
          }
          at += head.recordBytes
        }
        if let found { return try payload(of: found, in: file) }
        if at == 0 { throw StorageFailure(.verify, file.path, code: 0) }
        place += UInt64(at)
      }
      return nil
    } catch {
      if error.operation == .verify || error.operation == .shortRead {
        throw .damaged(record.entry)
      }
      throw .storage(error)
    }
  }

  private func payload(
    of head: FragmentHeader, in file: any FileHandle
  ) throws(StorageFailure) -> PayloadBlock {
    let bytes = try file.readExactly(
      Int(head.size), at: UInt64(head.place) + UInt64(FragmentHeader.bytes))
    guard Checksum(of: bytes) == head.checksum else {
      throw StorageFailure(.verify, file.path, code: 0)
    }
    return PayloadBlock(entry: head.entry, offset: head.offset, bytes: bytes)
  }
}

/// Writes fragments into kept files, a new one where one is full or `breakFile` asks for it.
/// Fragments must come in ascending order.
final class KeptWriter {
  private let directory: String
  private let fileSystem: any FileSystem
  private let identity: StoreIdentity
  private let fileBytesMax: UInt64
  private let isSteady: Bool
  private var nextNumber: UInt64
  private var file: (any FileHandle)?
  private var kept: KeptFile?
  private var gathered: [UInt8] = []
  private var gatheredAt: UInt64 = 0
  private var finishedFiles: [KeptFile] = []
  private var lastWritten: (LogIndex, UInt32)?
  /// Every file made, for taking all back.
  private(set) var numbers: [UInt64] = []

  static let writeBytes = 1 << 20

  /// - Parameter isSteady: `add` may sync, which nobody must wait for.
  init(
    directory: String, fileSystem: any FileSystem, identity: StoreIdentity, firstNumber: UInt64,
    fileBytesMax: UInt64, isSteady: Bool
  ) {
    self.directory = directory
    self.fileSystem = fileSystem
    self.identity = identity
    self.fileBytesMax = fileBytesMax
    self.isSteady = isSteady
    nextNumber = firstNumber
  }

  func add(
    entry: LogIndex, offset: UInt32, bytes: ArraySlice<UInt8>
  ) throws(StorageFailure) {
    if let lastWritten {
      invariant(
        lastWritten < (entry, offset), "fragment \(entry)+\(offset) behind \(lastWritten)")
    }
    lastWritten = (entry, offset)
    let recordBytes = FragmentHeader.recordBytes(bytes.count)
    // An entry lies in one file, which is found by its entries, even if that file grows over it.
    if let kept, kept.range.last != entry, kept.bytes + UInt64(recordBytes) > fileBytesMax {
      try breakFile()
    }
    if kept == nil { try begin(at: entry) }
    guard var current = kept else { return }
    let head = FragmentHeader(
      number: current.number, place: UInt32(current.bytes),
      checksum: bytes.withUnsafeBytes { Checksum(of: $0) }, entry: entry, offset: offset,
      size: UInt32(bytes.count))
    head.append(to: &gathered)
    gathered.append(contentsOf: bytes)
    gathered.putZeros(recordBytes - FragmentHeader.bytes - bytes.count)
    kept = nil
    current.note(head)
    current.bytes += UInt64(recordBytes)
    current.range.last = entry
    kept = current
    if gathered.count >= Self.writeBytes { try flush() }
  }

  /// The next fragment goes into a new file. This one is made durable.
  func breakFile() throws(StorageFailure) {
    guard let kept else { return }
    try flush()
    try file?.synchronize()
    finishedFiles.append(kept)
    self.kept = nil
    file = nil
  }

  /// All that was written, durable.
  func finish() throws(StorageFailure) -> [KeptFile] {
    try breakFile()
    if !finishedFiles.isEmpty { try fileSystem.synchronizeDirectory(directory) }
    return finishedFiles
  }

  /// Removes what was written; what cannot be removed is removed at the next start.
  func takeBack() {
    file = nil
    kept = nil
    for number in numbers {
      do throws(StorageFailure) {
        try fileSystem.remove(directory + "/" + FileNames.kept(number))
      } catch {
        continue
      }
    }
    numbers = []
  }

  private func begin(at entry: LogIndex) throws(StorageFailure) {
    let number = nextNumber
    nextNumber += 1
    numbers.append(number)
    let header = FileHeader(
      use: .kept, identity: identity, life: 1, number: number, fileBytes: 0)
    let made = try fileSystem.open(directory + "/" + FileNames.kept(number), .createNew)
    file = isSteady ? SteadyFile(made) : made
    gathered = header.block()
    gatheredAt = 0
    kept = KeptFile(
      number: number, range: EntryRange(first: entry, last: entry),
      bytes: UInt64(FileHeader.blockBytes))
  }

  private func flush() throws(StorageFailure) {
    if gathered.isEmpty { return }
    try file?.write([gathered], at: gatheredAt)
    gatheredAt += UInt64(gathered.count)
    gathered = []
  }
}

extension KeptFile {
  /// Reads a whole kept file and verifies every fragment. What is damaged is noted as entries
  /// around it, and described to `report`.
  static func scan(
    _ file: any FileHandle, number: UInt64, range: EntryRange, bytes: UInt64, readBytes: Int,
    report: (String, EntryRange) -> Void
  ) throws(StorageFailure) -> KeptFile {
    var kept = KeptFile(number: number, range: range, bytes: bytes)
    let data = try WholeFile.read(file, readBytes: readBytes, limit: bytes)
    var at = FileHeader.blockBytes
    var last = range.first
    var damageStart: Int?
    while at < Int(bytes) {
      let head = data.withUnsafeBytes { FragmentHeader(in: $0, at: at) }
      guard let head, head.number == number, Int(head.place) == at, head.entry >= last,
        at + head.recordBytes <= Int(bytes)
      else {
        if damageStart == nil { damageStart = at }
        at += 8
        continue
      }
      let isBehindDamage = damageStart != nil
      if let start = damageStart {
        let lost = EntryRange(first: last, last: head.entry)
        kept.damaged.insert(lost)
        report("kept file \(number): bytes \(start) to \(at) are damaged", lost)
        damageStart = nil
      }
      kept.note(head, behindDamage: isBehindDamage)
      let bodyAt = at + FragmentHeader.bytes
      let sum: Checksum? = data.withUnsafeBytes {
        bodyAt + Int(head.size) <= $0.count
          ? Checksum(
            of: UnsafeRawBufferPointer(rebasing: $0[bodyAt..<bodyAt + Int(head.size)])) : nil
      }
      if sum != head.checksum {
        let lost = EntryRange(first: head.entry, last: head.entry)
        kept.damaged.insert(lost)
        report(
          "kept file \(number), offset \(at): the checksum of a piece of entry \(head.entry) "
            + "is wrong", lost)
      }
      last = head.entry
      at += head.recordBytes
    }
    if let start = damageStart {
      let lost = EntryRange(first: last, last: max(last, range.last))
      kept.damaged.insert(lost)
      report("kept file \(number): bytes \(start) to \(bytes) are damaged or missing", lost)
    }
    return kept
  }
}

/// Reading a file at disk speed.
enum WholeFile {
  /// The file's bytes, at most `limit`.
  static func read(
    _ file: any FileHandle, readBytes: Int, limit: UInt64 = .max
  ) throws(StorageFailure) -> [UInt8] {
    let size = Int(min(try file.size(), limit))
    var failure: StorageFailure?
    let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, filled in
      let raw = UnsafeMutableRawBufferPointer(buffer)
      filled = 0
      do throws(StorageFailure) {
        while filled < size {
          let end = min(size, filled + readBytes)
          let got = try file.read(
            into: UnsafeMutableRawBufferPointer(rebasing: raw[filled..<end]), at: UInt64(filled))
          filled += got
          if got == 0 { return }
        }
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
    return bytes
  }
}
