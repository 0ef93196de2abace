// The manifest: which files are in force. A change of snapshot, a cleaning, a repair and an
// installed snapshot each take effect by replacing it, and by nothing else, so that a crash leaves
// either the old or the new. It lies twice (`manifest`, `manifest-copy`), each replaced by rename.

import Base
import Consensus

/// What the manifest says. Log segments from `streamFirst` on are not listed: they name themselves.
///
///   offset size
///        0    4  magic "SKM1"
///        4    4  CRC-32C of all that follows
///        8    4  format version
///       12    4  node
///       16    8  edition: grows with every change, the highest counts
///       24    8  snapshot: number of its file, 0 for none
///       32   16  snapshot: term, index
///       48    8  the first segment of the stream
///       56    8  index that the stream's first record goes on with
///       64    8  term of the entry before
///       72       three lists, each a u32 count and its items:
///                files   u8 form, u64 number, u64 segment, u32 life, u64 first entry, u64 last
///                        entry, u64 bytes
///                lost    u64 first, u64 last: entries that were damaged or lost, of which a
///                        scan of the files may not find that out
///                mended  u64 first, u64 last: entries whose live records repairs have replaced
struct Manifest: Equatable, Sendable {
  static let magic: UInt32 = 0x314d_4b53

  enum Form: UInt8, Sendable {
    /// A log segment before the stream: whole entries.
    case segment = 1
    /// Fragments that a cleaning kept.
    case kept = 2
    /// Fragments that a repair brought.
    case patch = 3
  }

  struct File: Equatable, Sendable {
    var form: Form
    var number: UInt64
    /// For segments.
    var segment: UInt64 = 0
    var life: UInt32 = 0
    var range: EntryRange
    /// How many bytes are in use.
    var bytes: UInt64
  }

  var version = formatVersion
  var node: NodeID
  var edition: UInt64 = 0
  var snapshotNumber: UInt64 = 0
  var snapshot = LogPosition.zero
  var streamFirst: UInt64 = 1
  var streamIndex = LogIndex(1)
  var streamPreviousTerm = Term.zero
  var files: [File] = []
  var lost: [EntryRange] = []
  var mended: [EntryRange] = []

  init(node: NodeID) { self.node = node }

  func encoded() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.put(Self.magic)
    bytes.put(UInt32(0))
    bytes.put(version)
    bytes.put(node)
    bytes.put(edition)
    bytes.put(snapshotNumber)
    bytes.put(snapshot.term)
    bytes.put(snapshot.index)
    bytes.put(streamFirst)
    bytes.put(streamIndex)
    bytes.put(streamPreviousTerm)
    bytes.put(UInt32(files.count))
    for file in files {
      bytes.put(file.form.rawValue)
      bytes.put(file.number)
      bytes.put(file.segment)
      bytes.put(file.life)
      bytes.put(file.range.first)
      bytes.put(file.range.last)
      bytes.put(file.bytes)
    }
    for ranges in [lost, mended] {
      bytes.put(UInt32(ranges.count))
      for range in ranges {
        bytes.put(range.first)
        bytes.put(range.last)
      }
    }
    bytes.sealHeader(at: 0, bytes: bytes.count)
    return bytes
  }

  /// nil if the bytes are damaged. Of a newer version only `version` means anything.
  static func decode(_ bytes: [UInt8]) -> Manifest? {
    bytes.withUnsafeBytes { buffer in
      guard buffer.count >= 16,
        let head = checkedHeader(in: buffer, at: 0, bytes: buffer.count, magic: magic)
      else { return nil }
      var reader = ByteReader(head)
      do {
        try reader.skip(8)
        let version = try reader.integer(UInt32.self)
        var manifest = Manifest(node: try reader.identifier())
        manifest.version = version
        if version <= formatVersion { try manifest.readBody(&reader) }
        return manifest
      } catch {
        return nil
      }
    }
  }

  private mutating func readBody(_ reader: inout ByteReader) throws(ByteReaderError) {
    edition = try reader.integer()
    snapshotNumber = try reader.integer()
    snapshot.term = try reader.identifier()
    snapshot.index = try reader.identifier()
    streamFirst = try reader.integer()
    streamIndex = try reader.identifier()
    streamPreviousTerm = try reader.identifier()
    for _ in 0..<(try reader.integer(UInt32.self)) {
      let form = Form(rawValue: try reader.integer())
      let number = try reader.integer(UInt64.self)
      let segment = try reader.integer(UInt64.self)
      let life = try reader.integer(UInt32.self)
      let range = try Self.range(&reader)
      let bytes = try reader.integer(UInt64.self)
      // A form that is not known cannot come past the checksum and the version.
      guard let form else { continue }
      files.append(
        File(
          form: form, number: number, segment: segment, life: life, range: range, bytes: bytes))
    }
    for _ in 0..<(try reader.integer(UInt32.self)) { lost.append(try Self.range(&reader)) }
    for _ in 0..<(try reader.integer(UInt32.self)) { mended.append(try Self.range(&reader)) }
  }

  private static func range(_ reader: inout ByteReader) throws(ByteReaderError) -> EntryRange {
    let first = try reader.identifier(LogIndex.self)
    let last = try reader.identifier(LogIndex.self)
    return EntryRange(first: min(first, last), last: max(first, last))
  }
}
