// The bytes of segment files: the block at the beginning and the records behind it. All integers
// are little-endian. docs/data-on-disk.md draws the layouts and says why they are so.

import Base
import Consensus

/// The version of all file formats together, in the identity and in every file's head.
package let formatVersion: UInt32 = 1

/// A place in the stream of log records: the segment's number in the stream and the offset in its
/// file. Places only grow as the log is written.
package struct LogPlace: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// From 1 without gaps; never used again, while files are.
  package var segment: UInt64
  /// Bytes from the beginning of the file.
  package var offset: UInt32

  package static let zero = LogPlace(segment: 0, offset: 0)

  package static func < (left: LogPlace, right: LogPlace) -> Bool {
    (left.segment, left.offset) < (right.segment, right.offset)
  }
  package var description: String { "segment \(segment), offset \(offset)" }
}

/// How far the log is known to be on the disk: the physical end and the entry that was last there.
struct SyncedEnd: Hashable, Sendable {
  var place = LogPlace.zero
  var position = LogPosition.zero
}

/// What a record of the stream is. 1 to 3 are the entry kinds.
enum RecordKind: UInt8, Sendable {
  case begin = 1
  case commands = 2
  case membership = 3
  /// The entries from `index` on are dropped.
  case truncate = 16
  /// The last record of its segment; the stream goes on in the next.
  case end = 17

  var entryKind: EntryKind? { EntryKind(rawValue: rawValue) }
  init(_ kind: EntryKind) {
    switch kind {
    case .begin: self = .begin
    case .commands: self = .commands
    case .membership: self = .membership
    }
  }
}

/// The head of a record; the payload follows, then zeros to a multiple of 8 bytes.
///
///   offset size
///        0    4  magic "SKR1"
///        4    4  CRC-32C of bytes 8 to 95
///        8    1  kind
///        9    3  zero
///       12    4  group
///       16    8  term
///       24    8  index: the entry's; for `truncate` the first dropped; for `end` the next one
///       32    8  term of the entry before `index`
///       40    4  payload bytes
///       44    4  CRC-32C of the payload
///       48    8  segment, this record's own
///       56    4  offset, this record's own
///       60    4  life of the segment's file
///       64    8  synced when written: segment
///       72    4  synced when written: offset
///       76    4  zero
///       80    8  synced when written: index of the last entry
///       88    8  synced when written: its term
struct RecordHeader: Equatable, Sendable {
  static let bytes = 96
  static let alignment = 8
  static let magic: UInt32 = 0x3152_4b53

  var kind: RecordKind
  var group = GroupID.main
  var term: Term
  var index: LogIndex
  var previousTerm: Term
  var payloadBytes: UInt32 = 0
  var payloadChecksum = Checksum(rawValue: 0)
  var place: LogPlace
  var life: UInt32
  var synced: SyncedEnd

  /// Head, payload and padding.
  var recordBytes: Int { Self.recordBytes(payload: Int(payloadBytes)) }

  static func recordBytes(payload: Int) -> Int {
    bytes + (payload + alignment - 1) / alignment * alignment
  }

  func append(to bytes: inout [UInt8]) {
    let start = bytes.count
    bytes.putFields(Self.bytes) {
      $0.put(Self.magic)
      $0.put(UInt32(0))
      $0.put(UInt32(kind.rawValue))
      $0.put(group)
      $0.put(term)
      $0.put(index)
      $0.put(previousTerm)
      $0.put(payloadBytes)
      $0.put(payloadChecksum.rawValue)
      $0.put(place.segment)
      $0.put(place.offset)
      $0.put(life)
      $0.put(synced.place.segment)
      $0.put(synced.place.offset)
      $0.put(UInt32(0))
      $0.put(synced.position.index)
      $0.put(synced.position.term)
    }
    bytes.sealHeader(at: start, bytes: Self.bytes)
  }

  /// The head at `offset`; nil if there is none or it is damaged.
  init?(in bytes: UnsafeRawBufferPointer, at offset: Int) {
    guard
      let head = checkedHeader(in: bytes, at: offset, bytes: Self.bytes, magic: Self.magic),
      let kind = RecordKind(rawValue: head[8])
    else { return nil }
    func u32(_ at: Int) -> UInt32 {
      UInt32(littleEndian: head.loadUnaligned(fromByteOffset: at, as: UInt32.self))
    }
    func u64(_ at: Int) -> UInt64 {
      UInt64(littleEndian: head.loadUnaligned(fromByteOffset: at, as: UInt64.self))
    }
    self.kind = kind
    group = GroupID(u32(12))
    term = Term(u64(16))
    index = LogIndex(u64(24))
    previousTerm = Term(u64(32))
    payloadBytes = u32(40)
    payloadChecksum = Checksum(rawValue: u32(44))
    place = LogPlace(segment: u64(48), offset: u32(56))
    life = u32(60)
    synced = SyncedEnd(
      place: LogPlace(segment: u64(64), offset: u32(72)),
      position: LogPosition(term: Term(u64(88)), index: LogIndex(u64(80))))
  }

  init(
    kind: RecordKind, term: Term, index: LogIndex, previousTerm: Term, place: LogPlace,
    life: UInt32, synced: SyncedEnd
  ) {
    self.kind = kind
    self.term = term
    self.index = index
    self.previousTerm = previousTerm
    self.place = place
    self.life = life
    self.synced = synced
  }
}

/// The bytes of a head whose magic and checksum are right: u32 magic, u32 CRC-32C of the rest.
func checkedHeader(
  in bytes: UnsafeRawBufferPointer, at offset: Int, bytes count: Int, magic: UInt32
) -> UnsafeRawBufferPointer? {
  guard offset >= 0, bytes.count - offset >= count,
    UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) == magic
  else { return nil }
  let head = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
  let stored = UInt32(littleEndian: head.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
  let rest = UnsafeRawBufferPointer(rebasing: head[8...])
  return Checksum(of: rest).rawValue == stored ? head : nil
}

extension [UInt8] {
  /// Fills in the checksum of the head that begins at `start` and has its checksum at byte 4.
  mutating func sealHeader(at start: Int, bytes headerBytes: Int) {
    invariant(
      count >= start + headerBytes, "head of \(count - start) bytes, not \(headerBytes)")
    let sum = withUnsafeBytes {
      Checksum(of: UnsafeRawBufferPointer(rebasing: $0[start + 8..<start + headerBytes]))
    }
    patch(sum.rawValue, at: start + 4)
  }

  mutating func putZeros(_ zeros: Int) {
    append(addingCapacity: zeros) { $0.append(repeating: 0, count: zeros) }
  }
}

/// What a segment file is used for at the moment.
enum FileUse: UInt8, Sendable {
  /// Waiting to be used; what lies behind the head is dead.
  case spare = 1
  /// Log records.
  case log = 2
  /// Fragments of payloads that were alive when their segment was rewritten.
  case kept = 3
}

/// The block at the beginning of a segment or kept file: two copies of this head, at 0 and 2048, so
/// that neither a torn write nor one flipped bit makes the file's life unknown.
///
///   offset size
///        0    4  magic "SKS1"
///        4    4  CRC-32C of bytes 8 to 351
///        8    4  format version
///       12    1  use
///       13    3  zero
///       16    4  node
///       20    4  life: grows by one each time the file begins to be used for something else
///       24    8  number of the file, as in its name
///       32    8  segment (log) or zero
///       40    8  size of the file, bytes
///       48    8  log: index that the first record goes on with
///       56    8  log: term of the entry before
///       64    2  bytes of the cluster's name, the name behind it, zeros up to 351
struct FileHeader: Equatable, Sendable {
  static let magic: UInt32 = 0x3153_4b53
  static let headBytes = 352
  static let copyOffset = 2048
  /// The whole block; the first record begins here.
  static let blockBytes = 4096

  var version = formatVersion
  var use: FileUse
  var identity: StoreIdentity
  var life: UInt32
  var number: UInt64
  var segment: UInt64 = 0
  var fileBytes: UInt64
  var nextIndex = LogIndex.zero
  var previousTerm = Term.zero

  func block() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.blockBytes)
    appendHead(to: &bytes)
    bytes.putZeros(Self.copyOffset - bytes.count)
    appendHead(to: &bytes)
    bytes.putZeros(Self.blockBytes - bytes.count)
    return bytes
  }

  private func appendHead(to bytes: inout [UInt8]) {
    let start = bytes.count
    bytes.put(Self.magic)
    bytes.put(UInt32(0))
    bytes.put(version)
    bytes.put(UInt32(use.rawValue))
    bytes.put(identity.node)
    bytes.put(life)
    bytes.put(number)
    bytes.put(segment)
    bytes.put(fileBytes)
    bytes.put(nextIndex)
    bytes.put(previousTerm)
    bytes.putShortText(identity.cluster)
    bytes.putZeros(start + Self.headBytes - bytes.count)
    bytes.sealHeader(at: start, bytes: Self.headBytes)
  }

  /// The later of the two copies in a file's first block, of those that name the file with this `number`
  /// if one does; nil if neither is whole.
  static func read(_ block: [UInt8], number: UInt64) -> FileHeader? {
    block.withUnsafeBytes { bytes in
      let copies = [0, copyOffset].compactMap { FileHeader(in: bytes, at: $0) }
      let own = copies.filter { $0.number == number }
      return (own.isEmpty ? copies : own)
        .max { ($0.life, $0.use.rawValue) < ($1.life, $1.use.rawValue) }
    }
  }

  private init?(in bytes: UnsafeRawBufferPointer, at offset: Int) {
    guard
      let head = checkedHeader(in: bytes, at: offset, bytes: Self.headBytes, magic: Self.magic)
    else { return nil }
    var reader = ByteReader(head)
    do {
      try reader.skip(8)
      version = try reader.integer()
      let use = FileUse(rawValue: UInt8(truncatingIfNeeded: try reader.integer(UInt32.self)))
      let node = try reader.identifier(NodeID.self)
      life = try reader.integer()
      number = try reader.integer()
      segment = try reader.integer()
      fileBytes = try reader.integer()
      nextIndex = try reader.identifier()
      previousTerm = try reader.identifier()
      identity = StoreIdentity(cluster: try reader.shortText(), node: node)
      guard let use else { return nil }
      self.use = use
    } catch {
      return nil
    }
  }

  init(
    use: FileUse, identity: StoreIdentity, life: UInt32, number: UInt64, fileBytes: UInt64
  ) {
    self.use = use
    self.identity = identity
    self.life = life
    self.number = number
    self.fileBytes = fileBytes
  }
}

/// The names in a data directory.
enum FileNames {
  static let lock = "LOCK"
  static let identity = "identity"
  static let state = "state"
  static let manifests = ["manifest", "manifest-copy"]
  static let temporarySuffix = ".tmp"
  static let segmentPrefix = "segment-"
  static let keptPrefix = "kept-"
  static let snapshotPrefix = "snapshot-"

  static func segment(_ number: UInt64) -> String { segmentPrefix + padded(number) }
  static func kept(_ number: UInt64) -> String { keptPrefix + padded(number) }
  static func snapshot(_ number: UInt64) -> String { snapshotPrefix + padded(number) }

  private static func padded(_ number: UInt64) -> String {
    let digits = String(number)
    return String(repeating: "0", count: max(0, 10 - digits.count)) + digits
  }

  static func number(of name: String, _ prefix: String) -> UInt64? {
    guard name.hasPrefix(prefix) else { return nil }
    let digits = name.dropFirst(prefix.count)
    guard digits.count >= 10, digits.allSatisfy({ $0.isASCII && $0.isNumber }) else { return nil }
    return UInt64(digits)
  }
}
