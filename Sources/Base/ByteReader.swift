// Reading fields out of borrowed bytes. Every read is bounds-checked and throws; what a client or
// a disk sent can never make it read outside.

/// Why bytes could not be read.
@frozen @usableFromInline package enum ByteReaderError: Error, Equatable, Sendable {
  /// `needed` bytes were asked for at `offset` where `available` are left.
  case truncated(offset: Int, needed: Int, available: Int)
  /// The bytes at `offset` are no UTF-8.
  case notUTF8(offset: Int)
}

/// Reads little-endian fields one after the other from bytes that outlive it.
@frozen @usableFromInline package struct ByteReader {
  /// All the bytes, borrowed for the reader's life.
  @usableFromInline package let bytes: UnsafeRawBufferPointer
  /// Where the next read begins; 0 <= offset <= bytes.count.
  @usableFromInline package private(set) var offset: Int

  // SAFETY: the caller keeps `bytes` alive and unchanged while the reader is used.
  @inlinable package init(_ bytes: UnsafeRawBufferPointer) {
    self.bytes = bytes
    self.offset = 0
  }

  @inlinable package var remaining: Int { bytes.count - offset }
  @inlinable package var isAtEnd: Bool { remaining == 0 }

  @inlinable @inline(__always)
  package mutating func integer<Integer: FixedWidthInteger>(
    _ type: Integer.Type = Integer.self
  ) throws(ByteReaderError) -> Integer {
    let at = try advance(MemoryLayout<Integer>.size)
    // SAFETY: `advance` checked that the integer lies within `bytes`.
    return Integer(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: Integer.self))
  }

  @inlinable @inline(__always)
  package mutating func identifier<ID: Identifier>(
    _ type: ID.Type = ID.self
  ) throws(ByteReaderError) -> ID {
    ID(rawValue: try integer(ID.RawValue.self))
  }

  /// The next `count` bytes, still borrowed.
  @inlinable package mutating func take(
    _ count: Int
  ) throws(ByteReaderError) -> UnsafeRawBufferPointer {
    let at = try advance(count)
    return UnsafeRawBufferPointer(rebasing: bytes[at..<at + count])
  }

  /// A copy of the next `count` bytes.
  package mutating func array(_ count: Int) throws(ByteReaderError) -> [UInt8] {
    [UInt8](try take(count))
  }

  /// Text behind a 16-bit length.
  package mutating func shortText() throws(ByteReaderError) -> String {
    let count = Int(try integer(UInt16.self))
    return try text(count)
  }

  /// `count` bytes of UTF-8.
  package mutating func text(_ count: Int) throws(ByteReaderError) -> String {
    let at = offset
    let taken = try take(count)
    guard let text = String(validating: taken, as: UTF8.self) else {
      throw .notUTF8(offset: at)
    }
    return text
  }

  /// Bytes behind a 32-bit length.
  package mutating func longBytes() throws(ByteReaderError) -> [UInt8] {
    let count = Int(try integer(UInt32.self))
    return try array(count)
  }

  @inlinable @inline(__always)
  package mutating func skip(_ count: Int) throws(ByteReaderError) {
    _ = try advance(count)
  }

  // A few instructions: a call for each field costs more than reading it.
  @inlinable @inline(__always)
  mutating func advance(_ count: Int) throws(ByteReaderError) -> Int {
    guard count >= 0, count <= remaining else {
      throw .truncated(offset: offset, needed: count, available: remaining)
    }
    let at = offset
    offset += count
    return at
  }
}
