// Looks through a table without taking it apart: that it is one, and which of the few headers that
// the broker cares about are on its top level. Allocates nothing, for the hot path.

import Base

enum FieldTableCheck {
  /// Throws if `bytes` are no table.
  static func check(_ bytes: UnsafeRawBufferPointer) throws(FieldTableError) {
    var offset = 0
    try entries(bytes, &offset, end: bytes.count, depth: 1)
  }

  /// Where the top level's entry of that name has its value, type byte included; nil if there is
  /// none. `bytes` were checked.
  static func value(
    named name: StaticString, in bytes: UnsafeRawBufferPointer
  ) -> Range<Int>? {
    let wanted = UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
    var offset = 0
    while offset < bytes.count {
      let count = Int(bytes[offset])
      let found = UnsafeRawBufferPointer(rebasing: bytes[offset + 1..<offset + 1 + count])
      offset += 1 + count
      let start = offset
      // What was checked cannot fail here.
      guard (try? Self.value(bytes, &offset, end: bytes.count, depth: 1)) != nil else { return nil }
      if found.elementsEqual(wanted) { return start..<offset }
    }
    return nil
  }

  private static func entries(
    _ bytes: UnsafeRawBufferPointer, _ offset: inout Int, end: Int, depth: Int
  ) throws(FieldTableError) {
    while offset < end {
      try skip(1 + Int(bytes[offset]), &offset, end: end)
      try value(bytes, &offset, end: end, depth: depth)
    }
  }

  private static func skip(
    _ count: Int, _ offset: inout Int, end: Int
  ) throws(FieldTableError) {
    guard count <= end - offset else { throw .truncated(offset: offset) }
    offset += count
  }

  private static func length(
    _ bytes: UnsafeRawBufferPointer, _ offset: inout Int, end: Int
  ) throws(FieldTableError) -> Int {
    let at = offset
    try skip(4, &offset, end: end)
    // SAFETY: `skip` saw that four bytes are there.
    return Int(UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self)))
  }

  private static func value(
    _ bytes: UnsafeRawBufferPointer, _ offset: inout Int, end: Int, depth: Int
  ) throws(FieldTableError) {
    guard offset < end else { throw .truncated(offset: offset) }
    let type = bytes[offset]
    offset += 1
    switch type {
    case UInt8(ascii: "V"): break
    case UInt8(ascii: "t"), UInt8(ascii: "b"), UInt8(ascii: "B"):
      try skip(1, &offset, end: end)
    case UInt8(ascii: "s"), UInt8(ascii: "u"): try skip(2, &offset, end: end)
    case UInt8(ascii: "I"), UInt8(ascii: "i"), UInt8(ascii: "f"): try skip(4, &offset, end: end)
    case UInt8(ascii: "D"): try skip(5, &offset, end: end)
    case UInt8(ascii: "l"), UInt8(ascii: "d"), UInt8(ascii: "T"): try skip(8, &offset, end: end)
    case UInt8(ascii: "S"), UInt8(ascii: "x"):
      try skip(try length(bytes, &offset, end: end), &offset, end: end)
    case UInt8(ascii: "F"), UInt8(ascii: "A"):
      let count = try length(bytes, &offset, end: end)
      guard depth < FieldTable.depthMax else { throw .tooDeep(offset: offset) }
      guard count <= end - offset else { throw .truncated(offset: offset) }
      let innerEnd = offset + count
      if type == UInt8(ascii: "F") {
        try entries(bytes, &offset, end: innerEnd, depth: depth + 1)
      } else {
        while offset < innerEnd { try value(bytes, &offset, end: innerEnd, depth: depth + 1) }
      }
    default: throw .unknownType(type, offset: offset - 1)
    }
  }
}
