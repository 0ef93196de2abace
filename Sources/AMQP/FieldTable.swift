// Field tables (AMQP 0-9-1 §4.2.5.5, with the types as RabbitMQ and its clients really use them):
//
//     table  = entry…            entry = u8 name bytes, name, value
//     value  = type byte, bytes of the type
//
//     t boolean u8     b int8    B uint8    s int16    u uint16    I int32    i uint32    l int64
//     f float          d double  D decimal: u8 scale, u32          T timestamp u64
//     S u32 bytes, bytes         x the same            V nothing
//     F u32 bytes, table         A u32 bytes, values
//
// All numbers are big-endian. Tables of messages and declarations are kept as the bytes that came;
// the values here are for looking into them and for the few that Skein writes itself. Reading and
// writing a table gives the same bytes.

import Base

/// A value in a table. Floating point is kept as its bits, so that equality is that of the bytes.
package indirect enum FieldValue: Hashable, Sendable {
  case boolean(Bool)
  case int8(Int8)
  case uint8(UInt8)
  case int16(Int16)
  case uint16(UInt16)
  case int32(Int32)
  case uint32(UInt32)
  case int64(Int64)
  case float(bits: UInt32)
  case double(bits: UInt64)
  case decimal(scale: UInt8, value: UInt32)
  /// Seconds since 1970.
  case timestamp(UInt64)
  /// Text, mostly, but no encoding is promised.
  case string([UInt8])
  case bytes([UInt8])
  case table(FieldTable)
  case array([FieldValue])
  case void

  package static func text(_ text: String) -> FieldValue { .string([UInt8](text.utf8)) }

  /// The number, of whatever width; nil if it is no integer.
  package var integer: Int64? {
    switch self {
    case .int8(let value): Int64(value)
    case .uint8(let value): Int64(value)
    case .int16(let value): Int64(value)
    case .uint16(let value): Int64(value)
    case .int32(let value): Int64(value)
    case .uint32(let value): Int64(value)
    case .int64(let value): value
    default: nil
    }
  }

  /// The text of a string; bytes that are no UTF-8 are shown as replacement characters.
  package var text: String? {
    guard case .string(let bytes) = self else { return nil }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// Named values in their order. Names may occur more than once; the first counts.
package struct FieldTable: Hashable, Sendable {
  package struct Entry: Hashable, Sendable {
    /// At most 255 bytes.
    package var name: [UInt8]
    package var value: FieldValue
  }

  package var entries: [Entry]

  package init(_ entries: [Entry] = []) { self.entries = entries }

  /// Names are at most 255 bytes long.
  package init(_ entries: [(String, FieldValue)]) {
    self.entries = entries.map { Entry(name: [UInt8]($0.0.utf8), value: $0.1) }
  }

  /// The first value of that name.
  package subscript(_ name: String) -> FieldValue? {
    entries.first { $0.name.elementsEqual(name.utf8) }?.value
  }

  /// Puts `value` in place of the first of that name, or at the end; nil removes all of that name.
  package mutating func set(_ name: String, _ value: FieldValue?) {
    guard let value else {
      entries.removeAll { $0.name.elementsEqual(name.utf8) }
      return
    }
    if let place = entries.firstIndex(where: { $0.name.elementsEqual(name.utf8) }) {
      entries[place].value = value
    } else {
      entries.append(Entry(name: [UInt8](name.utf8), value: value))
    }
  }
}

/// Bytes that are no table.
package enum FieldTableError: Error, Hashable, Sendable {
  /// A value or a name goes beyond its table's end, at this offset.
  case truncated(offset: Int)
  /// A type that nobody may send.
  case unknownType(UInt8, offset: Int)
  /// Tables and arrays within each other, deeper than `FieldTable.depthMax`.
  case tooDeep(offset: Int)
}

extension FieldTable {
  /// How deep tables and arrays may be within each other. Clients use three or four.
  package static let depthMax = 32

  /// Reads the entries in `bytes`, which are a table without its length.
  package init(_ bytes: UnsafeRawBufferPointer) throws(FieldTableError) {
    // What is beyond a length is found without taking memory for it, and nothing is copied before
    // it was seen whole.
    var reader = FieldReader(bytes)
    entries = try reader.entries(depth: 1)
  }

  package init(_ bytes: [UInt8]) throws(FieldTableError) {
    let result: Result<FieldTable, FieldTableError> = bytes.withUnsafeBytes { raw in
      do throws(FieldTableError) {
        return .success(try FieldTable(raw))
      } catch {
        return .failure(error)
      }
    }
    self = try result.get()
  }

  /// The entries as bytes, without a length before them.
  package var encoded: [UInt8] {
    var bytes: [UInt8] = []
    encode(into: &bytes)
    return bytes
  }

  package func encode(into bytes: inout [UInt8]) {
    for entry in entries {
      invariant(entry.name.count <= 255, "a field's name of \(entry.name.count) bytes")
      bytes.append(UInt8(entry.name.count))
      bytes.append(contentsOf: entry.name)
      entry.value.encode(into: &bytes)
    }
  }
}

/// Reads big-endian values. All reads are checked against the end of the bytes.
private struct FieldReader {
  let bytes: UnsafeRawBufferPointer
  var offset = 0
  /// Of `bytes`, where the innermost table or array ends.
  var end: Int

  init(_ bytes: UnsafeRawBufferPointer) {
    self.bytes = bytes
    end = bytes.count
  }

  mutating func integer<Integer: FixedWidthInteger>(
    _ type: Integer.Type = Integer.self
  ) throws(FieldTableError) -> Integer {
    let size = MemoryLayout<Integer>.size
    guard end - offset >= size else { throw .truncated(offset: offset) }
    // SAFETY: the integer lies before `end`, which is within `bytes`.
    let value = bytes.loadUnaligned(fromByteOffset: offset, as: Integer.self)
    offset += size
    return Integer(bigEndian: value)
  }

  mutating func array(_ count: Int) throws(FieldTableError) -> [UInt8] {
    guard count <= end - offset else { throw .truncated(offset: offset) }
    defer { offset += count }
    return [UInt8](UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count]))
  }

  mutating func entries(depth: Int) throws(FieldTableError) -> [FieldTable.Entry] {
    var entries: [FieldTable.Entry] = []
    while offset < end {
      let name = try array(Int(try integer(UInt8.self)))
      entries.append(FieldTable.Entry(name: name, value: try value(depth: depth)))
    }
    return entries
  }

  /// Reads what a 32-bit length says belongs together.
  private mutating func nested<Value>(
    depth: Int, _ body: (inout FieldReader) throws(FieldTableError) -> Value
  ) throws(FieldTableError) -> Value {
    let count = Int(try integer(UInt32.self))
    guard depth < FieldTable.depthMax else { throw .tooDeep(offset: offset) }
    guard count <= end - offset else { throw .truncated(offset: offset) }
    let outer = end
    end = offset + count
    let value = try body(&self)
    end = outer
    return value
  }

  mutating func value(depth: Int) throws(FieldTableError) -> FieldValue {
    let type = try integer(UInt8.self)
    switch type {
    case UInt8(ascii: "t"): return .boolean(try integer(UInt8.self) != 0)
    case UInt8(ascii: "b"): return .int8(try integer())
    case UInt8(ascii: "B"): return .uint8(try integer())
    case UInt8(ascii: "s"): return .int16(try integer())
    case UInt8(ascii: "u"): return .uint16(try integer())
    case UInt8(ascii: "I"): return .int32(try integer())
    case UInt8(ascii: "i"): return .uint32(try integer())
    case UInt8(ascii: "l"): return .int64(try integer())
    case UInt8(ascii: "f"): return .float(bits: try integer())
    case UInt8(ascii: "d"): return .double(bits: try integer())
    case UInt8(ascii: "D"): return .decimal(scale: try integer(), value: try integer())
    case UInt8(ascii: "T"): return .timestamp(try integer())
    case UInt8(ascii: "S"): return .string(try array(Int(try integer(UInt32.self))))
    case UInt8(ascii: "x"): return .bytes(try array(Int(try integer(UInt32.self))))
    case UInt8(ascii: "V"): return .void
    case UInt8(ascii: "F"):
      return .table(
        try nested(depth: depth) { (reader) throws(FieldTableError) in
          FieldTable(try reader.entries(depth: depth + 1))
        })
    case UInt8(ascii: "A"):
      return .array(
        try nested(depth: depth) { (reader) throws(FieldTableError) in
          var values: [FieldValue] = []
          while reader.offset < reader.end { values.append(try reader.value(depth: depth + 1)) }
          return values
        })
    default: throw .unknownType(type, offset: offset - 1)
    }
  }
}

extension FieldValue {
  package func encode(into bytes: inout [UInt8]) {
    switch self {
    case .boolean(let value): bytes.putField("t", UInt8(value ? 1 : 0))
    case .int8(let value): bytes.putField("b", value)
    case .uint8(let value): bytes.putField("B", value)
    case .int16(let value): bytes.putField("s", value)
    case .uint16(let value): bytes.putField("u", value)
    case .int32(let value): bytes.putField("I", value)
    case .uint32(let value): bytes.putField("i", value)
    case .int64(let value): bytes.putField("l", value)
    case .float(let bits): bytes.putField("f", bits)
    case .double(let bits): bytes.putField("d", bits)
    case .decimal(let scale, let value):
      bytes.putField("D", scale)
      bytes.putBig(value)
    case .timestamp(let value): bytes.putField("T", value)
    case .string(let value):
      bytes.putField("S", UInt32(value.count))
      bytes.append(contentsOf: value)
    case .bytes(let value):
      bytes.putField("x", UInt32(value.count))
      bytes.append(contentsOf: value)
    case .void: bytes.append(UInt8(ascii: "V"))
    case .table(let table): bytes.putNested("F") { table.encode(into: &$0) }
    case .array(let values):
      bytes.putNested("A") { for value in values { value.encode(into: &$0) } }
    }
  }

  /// As RabbitMQ calls the type in its texts.
  package var typeName: String {
    switch self {
    case .boolean: "bool"
    case .int8: "byte"
    case .uint8: "unsignedbyte"
    case .int16: "short"
    case .uint16: "unsignedshort"
    case .int32: "signedint"
    case .uint32: "unsignedint"
    case .int64: "long"
    case .float: "float"
    case .double: "double"
    case .decimal: "decimal"
    case .timestamp: "timestamp"
    case .string: "longstr"
    case .bytes: "binary"
    case .table: "table"
    case .array: "array"
    case .void: "void"
    }
  }
}

extension Array where Element == UInt8 {
  /// Appends `value`, big-endian, as everything in AMQP is.
  @inlinable package mutating func putBig<Integer: FixedWidthInteger>(_ value: Integer) {
    var big = value.bigEndian
    // SAFETY: reads exactly the integer's own bytes.
    Swift.withUnsafeBytes(of: &big) { append(contentsOf: $0) }
  }

  fileprivate mutating func putField(_ type: Unicode.Scalar, _ value: some FixedWidthInteger) {
    append(UInt8(ascii: type))
    putBig(value)
  }

  fileprivate mutating func putNested(_ type: Unicode.Scalar, _ body: (inout [UInt8]) -> Void) {
    putField(type, UInt32(0))
    let start = count
    body(&self)
    patchBig(UInt32(count - start), at: start - 4)
  }

  /// Overwrites the big-endian integer at `offset`, for a length that is known only afterwards.
  @inlinable package mutating func patchBig<Integer: FixedWidthInteger>(
    _ value: Integer, at offset: Int
  ) {
    invariant(
      offset >= 0 && offset + MemoryLayout<Integer>.size <= count,
      "patch at \(offset) in \(count) bytes")
    withUnsafeMutableBytes {
      $0.storeBytes(of: value.bigEndian, toByteOffset: offset, as: Integer.self)
    }
  }
}
