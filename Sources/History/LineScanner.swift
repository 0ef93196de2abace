// One line of JSON, taken apart in place: which of the known keys it has, and where their values
// stand. Strict about JSON (RFC 8259) and UTF-8, indifferent to keys it does not know.

/// What is wrong with a line, by the offset of the offending byte.
struct LineFault: Error {
  var offset: Int
  var message: String
}

/// The keys of an event and of a queue's settings.
enum Field: Int, CaseIterable {
  case index, time, process, type, f, queue, value, token, attempt, lease, granted, delay, ttl, key
  case priority, error, id, config, timeout

  var name: String { "\(self)" }
}

/// A JSON value inside a line.
struct Slot {
  enum Kind: UInt8 {
    case absent, text, escapedText, number, literal, null, object, array
  }
  var kind = Kind.absent
  /// Of a text, without the quotes.
  var start = 0
  var end = 0

  /// Where a message about it points.
  var column: Int { kind == .text || kind == .escapedText ? start - 1 : start }
}

/// SAFETY: `base` is valid for `count` bytes while the scanner is used: it lives for one line.
struct LineScanner {
  let base: UnsafeRawPointer
  let count: Int
  var position = 0

  /// Deeper nesting than this is refused rather than recursed into.
  private static let depthMax = 64

  init(_ bytes: UnsafeRawBufferPointer, base: UnsafeRawPointer) {
    self.base = base
    count = bytes.count
  }

  @inline(__always) func byte(_ offset: Int) -> UInt8 {
    base.load(fromByteOffset: offset, as: UInt8.self)
  }

  /// The byte here, 0 at the end (which no JSON outside of strings contains).
  @inline(__always) private var current: UInt8 { position < count ? byte(position) : 0 }

  @inline(__always) mutating func skipSpace() {
    while position < count {
      let byte = byte(position)
      guard byte == 0x20 || byte == 0x09 || byte == 0x0d else { return }
      position &+= 1
    }
  }

  func fault(_ message: String) -> LineFault {
    LineFault(
      offset: position, message: position >= count ? "the line ends too early" : message)
  }

  // MARK: Objects

  /// Goes through the object that begins here. `visit` is given each key's bytes as a
  /// number (little-endian, 0 for keys longer than eight bytes or with escapes), the key and its value.
  mutating func object(
    depth: Int = 0, _ visit: (UInt64, Slot, Slot) throws(LineFault) -> Void
  ) throws(LineFault) {
    guard current == UInt8(ascii: "{") else { throw fault("expected a JSON object") }
    position &+= 1
    skipSpace()
    if current == UInt8(ascii: "}") {
      position &+= 1
      return
    }
    while true {
      guard current == UInt8(ascii: "\"") else { throw fault("expected a key in quotes") }
      let key = try string()
      skipSpace()
      guard current == UInt8(ascii: ":") else { throw fault("expected a colon") }
      position &+= 1
      skipSpace()
      let value = try value(depth: depth &+ 1)
      try visit(packed(key), key, value)
      skipSpace()
      if current == UInt8(ascii: ",") {
        position &+= 1
        skipSpace()
      } else if current == UInt8(ascii: "}") {
        position &+= 1
        return
      } else {
        throw fault("expected a comma or the end of the object")
      }
    }
  }

  @inline(__always) func packed(_ key: Slot) -> UInt64 {
    let length = key.end &- key.start
    guard key.kind == .text, length <= 8 else { return 0 }
    var word: UInt64 = 0
    var offset = 0
    while offset < length {
      word |= UInt64(byte(key.start &+ offset)) << UInt64(offset &* 8)
      offset &+= 1
    }
    return word
  }

  // MARK: Values

  mutating func value(depth: Int) throws(LineFault) -> Slot {
    switch current {
    case UInt8(ascii: "\""): return try string()
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
    case UInt8(ascii: "t"): return try literal("true", .literal)
    case UInt8(ascii: "f"): return try literal("false", .literal)
    case UInt8(ascii: "n"): return try literal("null", .null)
    case UInt8(ascii: "{"): return try nested(.object, depth)
    case UInt8(ascii: "["): return try nested(.array, depth)
    default: throw fault("expected a value")
    }
  }

  private mutating func nested(_ kind: Slot.Kind, _ depth: Int) throws(LineFault) -> Slot {
    let start = position
    guard depth < Self.depthMax else { throw fault("nested too deeply") }
    if kind == .object {
      try object(depth: depth) { (_, _, _) throws(LineFault) in }
    } else {
      try array(depth: depth)
    }
    return Slot(kind: kind, start: start, end: position)
  }

  private mutating func array(depth: Int) throws(LineFault) {
    position &+= 1
    skipSpace()
    if current == UInt8(ascii: "]") {
      position &+= 1
      return
    }
    while true {
      _ = try value(depth: depth &+ 1)
      skipSpace()
      if current == UInt8(ascii: "]") {
        position &+= 1
        return
      }
      guard current == UInt8(ascii: ",") else {
        throw fault("expected a comma or the end of the array")
      }
      position &+= 1
      skipSpace()
    }
  }

  private mutating func literal(
    _ word: StaticString, _ kind: Slot.Kind
  ) throws(LineFault) -> Slot {
    let start = position
    for offset in 0..<word.utf8CodeUnitCount {
      guard current == word.utf8Start[offset] else { throw fault("expected a value") }
      position &+= 1
    }
    return Slot(kind: kind, start: start, end: position)
  }

  private mutating func number() throws(LineFault) -> Slot {
    let start = position
    if current == UInt8(ascii: "-") { position &+= 1 }
    if current == UInt8(ascii: "0") {
      position &+= 1
    } else {
      try digits()
    }
    if current == UInt8(ascii: ".") {
      position &+= 1
      try digits()
    }
    if current | 0x20 == UInt8(ascii: "e") {
      position &+= 1
      if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position &+= 1 }
      try digits()
    }
    return Slot(kind: .number, start: start, end: position)
  }

  private mutating func digits() throws(LineFault) {
    guard isDigit(current) else { throw fault("expected a digit") }
    while isDigit(current) { position &+= 1 }
  }

  @inline(__always) private func isDigit(_ byte: UInt8) -> Bool { byte &- 0x30 < 10 }

  // MARK: Strings

  mutating func string() throws(LineFault) -> Slot {
    position &+= 1
    let start = position
    var kind = Slot.Kind.text
    while position < count {
      let byte = byte(position)
      if byte == UInt8(ascii: "\"") {
        position &+= 1
        return Slot(kind: kind, start: start, end: position &- 1)
      }
      if byte == UInt8(ascii: "\\") {
        kind = .escapedText
        try escape()
      } else if byte < 0x20 {
        throw fault("a control character in a string")
      } else if byte < 0x80 {
        position &+= 1
      } else {
        try multibyte(byte)
      }
    }
    throw fault("")
  }

  private mutating func escape() throws(LineFault) {
    position &+= 1
    switch current {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"),
      UInt8(ascii: "f"), UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
      position &+= 1
    case UInt8(ascii: "u"):
      position &+= 1
      for _ in 0..<4 {
        guard hexDigit(current) != nil else { throw fault("expected four hexadecimal digits") }
        position &+= 1
      }
    default: throw fault("an unknown escape")
    }
  }

  private func hexDigit(_ byte: UInt8) -> UInt32? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(byte &- 0x30)
    case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt32(byte &- 0x57)
    case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt32(byte &- 0x37)
    default: nil
    }
  }

  /// A character of two to four bytes, as RFC 3629 allows them.
  private mutating func multibyte(_ first: UInt8) throws(LineFault) {
    let length: Int
    var second: ClosedRange<UInt8> = 0x80...0xbf
    switch first {
    case 0xc2...0xdf: length = 2
    case 0xe0: (length, second) = (3, 0xa0...0xbf)
    case 0xed: (length, second) = (3, 0x80...0x9f)
    case 0xe1...0xef: length = 3
    case 0xf0: (length, second) = (4, 0x90...0xbf)
    case 0xf4: (length, second) = (4, 0x80...0x8f)
    case 0xf1...0xf3: length = 4
    default: throw fault("not UTF-8")
    }
    position &+= 1
    for place in 1..<length {
      let allowed = place == 1 ? second : 0x80...0xbf
      guard allowed.contains(current) else { throw fault("not UTF-8") }
      position &+= 1
    }
  }

  /// The characters of a string with escapes.
  func unescaped(_ slot: Slot) throws(LineFault) -> [UInt8] {
    var bytes: [UInt8] = []
    var offset = slot.start
    while offset < slot.end {
      let byte = byte(offset)
      guard byte == UInt8(ascii: "\\") else {
        bytes.append(byte)
        offset += 1
        continue
      }
      let escaped = self.byte(offset + 1)
      offset += 2
      switch escaped {
      case UInt8(ascii: "b"): bytes.append(0x08)
      case UInt8(ascii: "f"): bytes.append(0x0c)
      case UInt8(ascii: "n"): bytes.append(0x0a)
      case UInt8(ascii: "r"): bytes.append(0x0d)
      case UInt8(ascii: "t"): bytes.append(0x09)
      case UInt8(ascii: "u"):
        let scalar = try codePoint(&offset, slot)
        bytes.append(contentsOf: Array(String(Character(scalar)).utf8))
      default: bytes.append(escaped)
      }
    }
    return bytes
  }

  private func codePoint(
    _ offset: inout Int, _ slot: Slot
  ) throws(LineFault) -> Unicode.Scalar {
    let begin = offset
    var unit = codeUnit(offset)
    offset += 4
    if 0xd800...0xdbff ~= unit, offset + 6 <= slot.end, byte(offset) == UInt8(ascii: "\\"),
      byte(offset + 1) == UInt8(ascii: "u")
    {
      let low = codeUnit(offset + 2)
      if 0xdc00...0xdfff ~= low {
        unit = 0x10000 + (unit - 0xd800) << 10 + (low - 0xdc00)
        offset += 6
      }
    }
    guard let scalar = Unicode.Scalar(unit) else {
      throw LineFault(offset: begin, message: "half a surrogate pair")
    }
    return scalar
  }

  private func codeUnit(_ offset: Int) -> UInt32 {
    (0..<4).reduce(0) { $0 << 4 | (hexDigit(byte(offset + $1)) ?? 0) }
  }

  // MARK: Numbers

  /// A whole number from 0 on, nil if the value is anything else or too large.
  func whole(_ slot: Slot) -> UInt64? {
    guard slot.kind == .number, slot.end &- slot.start <= 19 else { return nil }
    var number: UInt64 = 0
    var offset = slot.start
    while offset < slot.end {
      let digit = byte(offset) &- 0x30
      guard digit < 10 else { return nil }
      number = number &* 10 &+ UInt64(digit)
      offset &+= 1
    }
    return number <= UInt64(Int64.max) ? number : nil
  }

  /// A part from 0 to 1, in billionths.
  func billionths(_ slot: Slot) -> UInt64? {
    guard slot.kind == .number else { return nil }
    let digits = UnsafeRawBufferPointer(start: base + slot.start, count: slot.end - slot.start)
    guard let part = Double(String(decoding: digits, as: UTF8.self)), 0...1 ~= part else {
      return nil
    }
    return UInt64((part * 1e9).rounded())
  }
}
