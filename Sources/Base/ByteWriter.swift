// Writing fields behind one another into an array: the counterpart of `ByteReader`.
// Extensions of `[UInt8]`, so that bytes are gathered in place wherever they end up.

/// Writes little-endian fields one behind the other into room that was made for all of them. Each
/// is a store, where a `put` of its own goes through the array; always inlined, since a call costs
/// more than the store.
@frozen @usableFromInline package struct FieldWriter {
  @usableFromInline let room: UnsafeMutableRawBufferPointer
  /// How much of the room is written; 0 <= count <= room.count.
  @usableFromInline package private(set) var count: Int

  // SAFETY: the caller keeps `room` alive while the writer is used.
  @inlinable init(_ room: UnsafeMutableRawBufferPointer) {
    self.room = room
    count = 0
  }

  @inlinable @inline(__always)
  package mutating func put<Integer: FixedWidthInteger>(_ value: Integer) {
    let end = count + MemoryLayout<Integer>.size
    if end > room.count { Self.stop(end, room.count) }
    // SAFETY: the integer lies within `room`, as was just checked.
    room.storeBytes(of: value.littleEndian, toByteOffset: count, as: Integer.self)
    count = end
  }

  @inlinable @inline(__always)
  package mutating func put<ID: Identifier>(_ id: ID) {
    put(id.rawValue)
  }

  /// Apart, so that a field is a comparison and a store where it is written.
  @usableFromInline @inline(never)
  static func stop(_ end: Int, _ room: Int) -> Never {
    stopForBug("fields of \(end) bytes in room for \(room)")
  }
}

extension Array where Element == UInt8 {
  /// Appends `value`, little-endian.
  @inlinable package mutating func put<Integer: FixedWidthInteger>(_ value: Integer) {
    var little = value.littleEndian
    // SAFETY: reads exactly the integer's own bytes.
    Swift.withUnsafeBytes(of: &little) { append(contentsOf: $0) }
  }

  @inlinable package mutating func put<ID: Identifier>(_ id: ID) {
    put(id.rawValue)
  }

  /// Appends fields of `size` bytes together, which `write` puts one behind the other.
  @inlinable package mutating func putFields(_ size: Int, _ write: (inout FieldWriter) -> Void) {
    append(addingCapacity: size) { room in
      room.withUnsafeMutableBufferPointer { bytes, count in
        var fields = FieldWriter(UnsafeMutableRawBufferPointer(bytes))
        write(&fields)
        invariant(fields.count == size, "fields of \(fields.count) bytes, not \(size)")
        count = size
      }
    }
  }

  /// Overwrites the `size` bytes from `offset` on by fields, which `write` puts one behind the
  /// other.
  @inlinable package mutating func patchFields(
    _ size: Int, at offset: Int, _ write: (inout FieldWriter) -> Void
  ) {
    invariant(offset >= 0 && offset + size <= count, "patch at \(offset) in \(count) bytes")
    withUnsafeMutableBytes { bytes in
      var fields = FieldWriter(
        UnsafeMutableRawBufferPointer(rebasing: bytes[offset..<offset + size]))
      write(&fields)
      invariant(fields.count == size, "fields of \(fields.count) bytes, not \(size)")
    }
  }

  /// Appends text behind a 16-bit length; longer text is a bug of the caller, who checks sizes.
  package mutating func putShortText(_ text: String) {
    let count = text.utf8.count
    invariant(count <= UInt16.max, "text of \(count) bytes behind a 16-bit length")
    put(UInt16(count))
    append(contentsOf: text.utf8)
  }

  /// Appends bytes behind a 32-bit length.
  package mutating func putLongBytes(_ bytes: some Collection<UInt8>) {
    put(UInt32(bytes.count))
    append(contentsOf: bytes)
  }

  /// Overwrites the integer at `offset`, for a length that is known only afterwards.
  @inlinable package mutating func patch<Integer: FixedWidthInteger>(
    _ value: Integer, at offset: Int
  ) {
    invariant(
      offset >= 0 && offset + MemoryLayout<Integer>.size <= count,
      "patch at \(offset) in \(count) bytes")
    withUnsafeMutableBytes {
      $0.storeBytes(of: value.littleEndian, toByteOffset: offset, as: Integer.self)
    }
  }
}
