// What of a node's log can be harmed: the records that a segment file holds now. Files are used again
// without being emptied, so behind the last record there may be as many bytes of an earlier life, and
// whatever is done to those harms nothing. docs/data-on-disk.md draws the layout; a test holds this
// against the real log.

struct SegmentFile {
  let path: String
  /// Of the segment, which grows along the log.
  let number: UInt64
  /// The records, without what fills them up to a multiple of 8 bytes; ascending, one behind the other.
  let records: [Range<Int>]
  /// Before this all of the segment was on the disk for certain, as one of the records says.
  let syncedEnd: Int

  /// The block at the beginning.
  static let headBytes = 4096
  private static let headCopy = 2048
  private static let headMagic: UInt32 = 0x3153_4b53
  private static let usedForLog: UInt8 = 2
  private static let recordMagic: UInt32 = 0x3152_4b53
  private static let recordHeadBytes = 96

  /// Behind the last record.
  var end: Int { records.last.map { ($0.upperBound + 7) & ~7 } ?? Self.headBytes }

  /// - Returns: nil if the file holds no records now: it is spare, or the log has only just reached it.
  init?(_ path: String, _ bytes: [UInt8]) {
    guard let head = Self.head(bytes) else { return nil }
    var records: [Range<Int>] = []
    var offset = Self.headBytes
    while let count = Self.recordBytes(bytes, at: offset, head) {
      records.append(offset..<offset + count)
      offset += (count + 7) & ~7
    }
    if records.isEmpty { return nil }
    syncedEnd =
      records.map(\.lowerBound).filter { Self.number(bytes, at: $0 + 64, bytes: 8) == head.segment }
      .map { Int(Self.number(bytes, at: $0 + 72, bytes: 4)) }.max() ?? 0
    self.path = path
    number = head.segment
    self.records = records
  }

  /// The newest of the head's two copies, if the file is one of the log's.
  private static func head(_ bytes: [UInt8]) -> (segment: UInt64, life: UInt64)? {
    let copies = [0, headCopy].filter {
      bytes.count >= headBytes && number(bytes, at: $0, bytes: 4) == UInt64(headMagic)
    }
    let newest = copies.max {
      number(bytes, at: $0 + 20, bytes: 4) < number(bytes, at: $1 + 20, bytes: 4)
    }
    guard let newest, bytes[newest + 12] == usedForLog else { return nil }
    return (number(bytes, at: newest + 32, bytes: 8), number(bytes, at: newest + 20, bytes: 4))
  }

  /// The length of the record at `offset`; nil if there is none that belongs there.
  private static func recordBytes(
    _ bytes: [UInt8], at offset: Int, _ head: (segment: UInt64, life: UInt64)
  ) -> Int? {
    guard bytes.count - offset >= recordHeadBytes,
      number(bytes, at: offset, bytes: 4) == UInt64(recordMagic),
      number(bytes, at: offset + 48, bytes: 8) == head.segment,
      number(bytes, at: offset + 56, bytes: 4) == UInt64(offset),
      number(bytes, at: offset + 60, bytes: 4) == head.life
    else { return nil }
    let count = recordHeadBytes + Int(number(bytes, at: offset + 40, bytes: 4))
    return offset + count <= bytes.count ? count : nil
  }

  private static func number(_ bytes: [UInt8], at offset: Int, bytes count: Int) -> UInt64 {
    bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }
}
