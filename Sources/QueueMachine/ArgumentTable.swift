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
    Self.forEach(in: bytes) { entries.append((String(decoding: $0, as: UTF8.self), $1)) }
  }

  /// Calls `body` with each name and value, in their order.
  static func forEach(
    in bytes: UnsafeRawBufferPointer,
    _ body: (_ name: Slice<UnsafeRawBufferPointer>, _ value: ArgumentValue) -> Void
  ) {
    var rest = bytes[...]
    while let count = rest.first, rest.count >= 1 + Int(count) + 1 {
      let name = rest.dropFirst().prefix(Int(count))
      rest = rest.dropFirst(1 + Int(count))
      guard let value = takeValue(from: &rest) else { return }
      body(name, value)
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

/// A message's headers, to be looked up by name: read once, so that a message costs what it has, and
/// each binding what that asks for. Of several of one name the first counts, as in RabbitMQ, which
/// sorts both tables and keeps the first.
struct HeaderIndex: Sendable {
  /// By name, each once.
  private var entries: [(name: [UInt8], value: ArgumentValue)] = []
  /// How many there were before, which is what it cost to read and sort them.
  private(set) var looks = 0

  init() {}

  /// - Parameter bytes: an AMQP field table without its length.
  init(_ bytes: UnsafeRawBufferPointer) {
    ArgumentTable.forEach(in: bytes) { entries.append(([UInt8]($0), $1)) }
    looks = entries.count
    Self.sort(&entries)
  }

  init(_ bytes: [UInt8]) {
    self = bytes.withUnsafeBytes { HeaderIndex($0) }
  }

  subscript(name: [UInt8]) -> ArgumentValue? {
    var low = 0
    var high = entries.count
    while low < high {
      let middle = (low + high) / 2
      if Self.precedes(entries[middle].name, name) { low = middle + 1 } else { high = middle }
    }
    return low < entries.count && entries[low].name == name ? entries[low].value : nil
  }

  /// Sorts by name and drops all but the first of each.
  static func sort(_ entries: inout [(name: [UInt8], value: ArgumentValue)]) {
    if entries.count < 2 { return }
    let places = entries.indices.sorted {
      precedes(entries[$0].name, entries[$1].name)
        || $0 < $1 && entries[$0].name == entries[$1].name
    }
    var sorted: [(name: [UInt8], value: ArgumentValue)] = []
    sorted.reserveCapacity(entries.count)
    for place in places where sorted.last?.name != entries[place].name {
      sorted.append(entries[place])
    }
    entries = sorted
  }

  /// Any order will do that is one: short names first, then eight bytes at a time.
  private static func precedes(_ left: [UInt8], _ right: [UInt8]) -> Bool {
    if left.count != right.count { return left.count < right.count }
    return left.withUnsafeBytes { left in
      right.withUnsafeBytes { right in
        var place = 0
        // SAFETY: both have as many bytes, and those read lie within.
        while place + 8 <= left.count {
          let first = left.loadUnaligned(fromByteOffset: place, as: UInt64.self)
          let second = right.loadUnaligned(fromByteOffset: place, as: UInt64.self)
          if first != second { return first < second }
          place += 8
        }
        while place < left.count {
          if left[place] != right[place] { return left[place] < right[place] }
          place += 1
        }
        return false
      }
    }
  }
}

/// What a binding of a headers exchange asks for.
struct HeaderMatch: Sendable {
  private var isAll = true
  /// Each name once: as in RabbitMQ the first of it counts.
  private var wanted: [(name: [UInt8], value: ArgumentValue)] = []

  /// How many headers it asks for.
  var count: Int { wanted.count }

  init(arguments: [UInt8]) {
    let rule = ArgumentTable(arguments)["x-match"]?.text ?? "all"
    isAll = !rule.hasPrefix("any")
    let countsOwn = rule.hasSuffix("-with-x")
    arguments.withUnsafeBytes { bytes in
      ArgumentTable.forEach(in: bytes) { name, value in
        let isOwn = name.starts(with: "x-".utf8)
        if !name.elementsEqual("x-match".utf8), countsOwn || !isOwn {
          wanted.append(([UInt8](name), value))
        }
      }
    }
    HeaderIndex.sort(&wanted)
  }

  /// A value of no type asks for the header, whatever it says.
  func matches(_ headers: HeaderIndex) -> Bool {
    func isThere(_ entry: (name: [UInt8], value: ArgumentValue)) -> Bool {
      guard let value = headers[entry.name] else { return false }
      return entry.value.type == UInt8(ascii: "V") || value.isEqual(to: entry.value)
    }
    return isAll ? wanted.allSatisfy(isThere) : wanted.contains(where: isThere)
  }
}
