// AMQP field tables as far as the queues' machine must understand them: the arguments of queues and
// bindings and the headers of messages. Read where they lie, never written: what a client sent stays
// byte for byte what it was. Big-endian (AMQP §4.2.5.5 with RabbitMQ's types).
//
//   table: entries one behind the other, each: u8 name bytes, name, u8 type, value
//
//   t bool  b B 8 bit  s u 16  I i 32  l L 64  f d floats  D u8 scale + i32  T u64 time
//   S x u32 bytes  A u32 bytes of values  F u32 bytes of entries  V nothing

import Base

/// One value of a table, as it was sent.
package struct ArgumentValue: Hashable, Sendable {
  /// The type's letter.
  package var type: UInt8
  /// Behind the letter; without the length in front of text, bytes, arrays and tables.
  package var bytes: [UInt8]

  package init(type: UInt8, bytes: [UInt8]) {
    self.type = type
    self.bytes = bytes
  }

  /// The value of any whole number that fits.
  package var integer: Int64? {
    let isSigned: Bool
    switch type {
    case UInt8(ascii: "b"), UInt8(ascii: "s"), UInt8(ascii: "I"), UInt8(ascii: "l"),
      UInt8(ascii: "L"):
      isSigned = true
    case UInt8(ascii: "B"), UInt8(ascii: "u"), UInt8(ascii: "i"): isSigned = false
    default: return nil
    }
    var value: UInt64 = isSigned && (bytes.first ?? 0) >= 128 ? .max : 0
    for byte in bytes { value = value << 8 | UInt64(byte) }
    return Int64(bitPattern: value)
  }

  package var text: String? {
    type == UInt8(ascii: "S") ? String(decoding: bytes, as: UTF8.self) : nil
  }

  package var bool: Bool? { type == UInt8(ascii: "t") ? bytes.first != 0 : nil }

  /// Whether both say the same: whole numbers do whatever their width.
  package func isEqual(to other: ArgumentValue) -> Bool {
    if let integer, let number = other.integer { return integer == number }
    if let first = number, let second = other.number { return first == second }
    return type == other.type && bytes == other.bytes
  }

  /// The value of any number.
  private var number: Double? {
    if let integer { return Double(integer) }
    var bits: UInt64 = 0
    for byte in bytes { bits = bits << 8 | UInt64(byte) }
    switch type {
    case UInt8(ascii: "f"): return Double(Float(bitPattern: UInt32(truncatingIfNeeded: bits)))
    case UInt8(ascii: "d"): return Double(bitPattern: bits)
    default: return nil
    }
  }

  /// The texts of an array of texts; what is none is left out.
  package var texts: [String] {
    guard type == UInt8(ascii: "A") else { return [] }
    var found: [String] = []
    bytes.withUnsafeBytes { raw in
      var rest = raw[...]
      while let value = ArgumentTable.takeValue(from: &rest) {
        if let text = value.text { found.append(text) }
      }
    }
    return found
  }
}

/// A table's entries in their order.
package struct ArgumentTable: Hashable, Sendable {
  package var entries: [(name: String, value: ArgumentValue)] = []

  package init() {}

  /// - Parameter bytes: the entries, without the table's length. What cannot be read ends the
  ///   table: whoever took it from a client has checked it.
  package init(_ bytes: UnsafeRawBufferPointer) {
    var rest = bytes[...]
    while let count = rest.first, rest.count >= 1 + Int(count) + 1 {
      let name = rest.dropFirst().prefix(Int(count))
      rest = rest.dropFirst(1 + Int(count))
      guard let value = Self.takeValue(from: &rest) else { return }
      entries.append((String(decoding: name, as: UTF8.self), value))
    }
  }

  package init(_ bytes: [UInt8]) {
    self = bytes.withUnsafeBytes { ArgumentTable($0) }
  }

  /// The first entry of that name.
  package subscript(name: String) -> ArgumentValue? {
    entries.first { $0.name == name }?.value
  }

  /// Takes a type and its value; nil where they are not whole.
  static func takeValue(from rest: inout Slice<UnsafeRawBufferPointer>) -> ArgumentValue? {
    guard let type = rest.first else { return nil }
    var count: Int
    var head = 1
    switch type {
    case UInt8(ascii: "V"): count = 0
    case UInt8(ascii: "t"), UInt8(ascii: "b"), UInt8(ascii: "B"): count = 1
    case UInt8(ascii: "s"), UInt8(ascii: "u"): count = 2
    case UInt8(ascii: "I"), UInt8(ascii: "i"), UInt8(ascii: "f"): count = 4
    case UInt8(ascii: "D"): count = 5
    case UInt8(ascii: "l"), UInt8(ascii: "L"), UInt8(ascii: "d"), UInt8(ascii: "T"): count = 8
    case UInt8(ascii: "S"), UInt8(ascii: "x"), UInt8(ascii: "A"), UInt8(ascii: "F"):
      guard rest.count >= 5 else { return nil }
      count = rest.dropFirst().prefix(4).reduce(0) { $0 << 8 | Int($1) }
      head = 5
    default: return nil
    }
    guard rest.count >= head + count else { return nil }
    let bytes = [UInt8](rest.dropFirst(head).prefix(count))
    rest = rest.dropFirst(head + count)
    return ArgumentValue(type: type, bytes: bytes)
  }

  package static func == (left: ArgumentTable, right: ArgumentTable) -> Bool {
    left.entries.count == right.entries.count
      && zip(left.entries, right.entries).allSatisfy { $0.name == $1.name && $0.value == $1.value }
  }

  package func hash(into hasher: inout Hasher) {
    for entry in entries {
      hasher.combine(entry.name)
      hasher.combine(entry.value)
    }
  }
}

/// What a binding of a headers exchange asks for.
struct HeaderMatch: Sendable {
  private var isAll = true
  private var wanted: [(name: String, value: ArgumentValue)] = []

  init(arguments: [UInt8]) {
    let table = ArgumentTable(arguments)
    let rule = table["x-match"]?.text ?? "all"
    isAll = !rule.hasPrefix("any")
    let countsOwn = rule.hasSuffix("-with-x")
    wanted = table.entries.filter {
      $0.name != "x-match" && (countsOwn || !$0.name.hasPrefix("x-"))
    }
  }

  /// A value of no type asks for the header, whatever it says.
  func matches(_ headers: ArgumentTable) -> Bool {
    func isThere(_ entry: (name: String, value: ArgumentValue)) -> Bool {
      guard let value = headers[entry.name] else { return false }
      return entry.value.type == UInt8(ascii: "V") || value.isEqual(to: entry.value)
    }
    return isAll ? wanted.allSatisfy(isThere) : wanted.contains(where: isThere)
  }
}
