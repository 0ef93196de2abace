// Reading JSON (RFC 8259) for the configuration: small, strict, and unlike a general decoder it
// says in which line something is wrong and refuses a key that is given twice.

/// A JSON value, as far as a configuration needs it.
enum JSONValue: Hashable {
  case null
  case bool(Bool)
  case integer(Int)
  case number(Double)
  case text(String)
  case array([JSONValue])
  case object([String: JSONValue])

  /// - Throws: `JSONFault` where `bytes` are not one value in UTF-8.
  init(parsing bytes: [UInt8]) throws(JSONFault) {
    guard String(validating: bytes, as: UTF8.self) != nil else {
      throw JSONFault(line: 1, words: "the text is not UTF-8")
    }
    var parser = JSONParser(bytes)
    self = try parser.document()
  }

  /// For messages: what kind of value was found.
  var kind: String {
    switch self {
    case .null: "null"
    case .bool(let value): "\(value)"
    case .integer(let value): "the number \(value)"
    case .number(let value): "the number \(value)"
    case .text(let value): "\"\(value)\""
    case .array: "a list"
    case .object: "an object"
    }
  }
}

/// Why a text is not JSON.
struct JSONFault: Error, Hashable, CustomStringConvertible {
  /// From 1.
  let line: Int
  let words: String

  var description: String { "line \(line): \(words)" }
}

private struct JSONParser {
  private let bytes: [UInt8]
  private var position = 0
  private var line = 1
  /// Values within values; far more than a configuration has, far fewer than the stack holds.
  private var depth = 0
  private let depthMax = 32

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  mutating func document() throws(JSONFault) -> JSONValue {
    let value = try value()
    skipSpace()
    guard position == bytes.count else { throw fault("there is something behind the end") }
    return value
  }

  private func fault(_ words: String) -> JSONFault { JSONFault(line: line, words: words) }

  private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

  private mutating func skipSpace() {
    while let byte = next, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 {
      if byte == 0x0a { line += 1 }
      position += 1
    }
  }

  /// Takes `character`, after any space.
  private mutating func take(_ character: Unicode.Scalar) -> Bool {
    skipSpace()
    guard next == UInt8(ascii: character) else { return false }
    position += 1
    return true
  }

  private mutating func value() throws(JSONFault) -> JSONValue {
    skipSpace()
    guard let byte = next else { throw fault("the text ends where a value is expected") }
    guard depth < depthMax else { throw fault("more than \(depthMax) values within each other") }
    depth += 1
    defer { depth -= 1 }
    switch byte {
    case UInt8(ascii: "{"): return try object()
    case UInt8(ascii: "["): return try array()
    case UInt8(ascii: "\""): return .text(try text())
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
    default: return try word()
    }
  }

  private mutating func object() throws(JSONFault) -> JSONValue {
    position += 1
    var members: [String: JSONValue] = [:]
    if take("}") { return .object(members) }
    repeat {
      skipSpace()
      guard next == UInt8(ascii: "\"") else { throw fault("expected a key in quotes") }
      let key = try text()
      guard take(":") else { throw fault("expected a colon behind \"\(key)\"") }
      guard members.updateValue(try value(), forKey: key) == nil else {
        throw fault("the key \"\(key)\" is there twice")
      }
    } while take(",")
    guard take("}") else { throw fault("expected a comma or }") }
    return .object(members)
  }

  private mutating func array() throws(JSONFault) -> JSONValue {
    position += 1
    var elements: [JSONValue] = []
    if take("]") { return .array(elements) }
    repeat { elements.append(try value()) } while take(",")
    guard take("]") else { throw fault("expected a comma or ]") }
    return .array(elements)
  }

  private mutating func text() throws(JSONFault) -> String {
    position += 1
    var text: [UInt8] = []
    while let byte = next {
      position += 1
      switch byte {
      case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
      case UInt8(ascii: "\\"): text.append(contentsOf: String(try escape()).utf8)
      case 0..<0x20: throw fault("a line break or control character within quotes")
      default: text.append(byte)
      }
    }
    throw fault("a quote is not closed")
  }

  private mutating func escape() throws(JSONFault) -> Character {
    guard let byte = next else { throw fault("a quote is not closed") }
    position += 1
    switch Unicode.Scalar(byte) {
    case "\"": return "\""
    case "\\": return "\\"
    case "/": return "/"
    case "b": return "\u{8}"
    case "f": return "\u{c}"
    case "n": return "\n"
    case "r": return "\r"
    case "t": return "\t"
    case "u": return Character(try escapedScalar())
    default: throw fault("unknown escape \\\(Unicode.Scalar(byte))")
    }
  }

  private mutating func escapedScalar() throws(JSONFault) -> Unicode.Scalar {
    let first = try hexadecimal()
    if let scalar = Unicode.Scalar(first) { return scalar }
    // The upper half of a pair (RFC 8259 §7); the lower must follow.
    guard first < 0xdc00, next == UInt8(ascii: "\\") else { throw fault("half a surrogate pair") }
    position += 1
    guard next == UInt8(ascii: "u") else { throw fault("half a surrogate pair") }
    position += 1
    let second = try hexadecimal()
    guard (0xdc00...0xdfff).contains(second),
      let scalar = Unicode.Scalar(0x10000 + (first - 0xd800) << 10 + (second - 0xdc00))
    else { throw fault("half a surrogate pair") }
    return scalar
  }

  private mutating func hexadecimal() throws(JSONFault) -> UInt32 {
    let digits = bytes[position...].prefix(4)
    guard digits.count == 4, digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
      let value = UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
    else { throw fault("expected four hexadecimal digits behind \\u") }
    position += 4
    return value
  }

  private mutating func number() throws(JSONFault) -> JSONValue {
    let start = position
    while let byte = next, (0x30...0x39).contains(byte) || "+-.eE".utf8.contains(byte) {
      position += 1
    }
    let text = String(decoding: bytes[start..<position], as: UTF8.self)
    let digits = text.drop { $0 == "-" }
    guard digits.first?.isNumber == true, digits.last?.isNumber == true,
      digits.count == 1 || !digits.hasPrefix("0") || digits.dropFirst().first == ".",
      let value = Double(text), value.isFinite
    else { throw fault("\(text) is no number") }
    if let integer = Int(text) { return .integer(integer) }
    return .number(value)
  }

  private mutating func word() throws(JSONFault) -> JSONValue {
    let letters = bytes[position...].prefix { Character(Unicode.Scalar($0)).isLetter && $0 < 0x80 }
    let word = String(decoding: letters, as: UTF8.self)
    position += letters.count
    switch word {
    case "true": return .bool(true)
    case "false": return .bool(false)
    case "null": return .null
    case "":
      let rest = String(decoding: bytes[position...].prefix(4), as: UTF8.self)
      throw fault("\"\(rest.first.map { "\($0)" } ?? "")\" where a value is expected")
    default: throw fault("\(word) is no value (a text needs quotes)")
    }
  }
}
