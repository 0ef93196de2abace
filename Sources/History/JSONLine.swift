// JSON objects as bytes, member by member: events of a recorder, witnesses and verdicts.

/// Appends to `bytes`. Absent values are left out.
struct JSONLine {
  var bytes: [UInt8] = []
  private var isFirst = true

  mutating func begin() {
    bytes.append(UInt8(ascii: "{"))
    isFirst = true
  }

  mutating func end() {
    bytes.append(UInt8(ascii: "}"))
    isFirst = false
  }

  mutating func name(_ name: String) {
    if !isFirst { bytes.append(UInt8(ascii: ",")) }
    isFirst = false
    text(name)
    bytes.append(UInt8(ascii: ":"))
  }

  mutating func put(_ name: String, _ value: UInt64?) {
    guard let value else { return }
    self.name(name)
    number(value)
  }

  mutating func put(_ name: String, _ value: String?) {
    guard let value else { return }
    self.name(name)
    text(value)
  }

  mutating func object(_ name: String, _ members: (inout JSONLine) -> Void) {
    self.name(name)
    begin()
    members(&self)
    end()
  }

  /// Values one after the other, each appended by `element`.
  mutating func array<Element>(
    _ name: String, _ elements: [Element], _ element: (inout JSONLine, Element) -> Void
  ) {
    self.name(name)
    bytes.append(UInt8(ascii: "["))
    for (place, value) in elements.enumerated() {
      if place > 0 { bytes.append(UInt8(ascii: ",")) }
      element(&self, value)
    }
    bytes.append(UInt8(ascii: "]"))
    isFirst = false
  }

  mutating func raw(_ text: String) { bytes.append(contentsOf: text.utf8) }

  mutating func number(_ value: UInt64) {
    var digits: (UInt64, UInt64, UInt64) = (0, 0, 0)
    withUnsafeMutableBytes(of: &digits) { digits in
      var rest = value
      var place = digits.count
      repeat {
        place -= 1
        digits[place] = UInt8(0x30 + rest % 10)
        rest /= 10
      } while rest > 0
      bytes.append(contentsOf: digits[place...])
    }
  }

  /// RFC 8259 §7: quotes, backslashes and control characters are escaped, all else stays.
  mutating func text(_ value: String) {
    bytes.append(UInt8(ascii: "\""))
    var value = value
    value.withUTF8 { characters in
      if characters.allSatisfy({ $0 >= 0x20 && $0 != 0x22 && $0 != 0x5c }) {
        bytes.append(contentsOf: characters)
      } else {
        for character in characters { escape(character) }
      }
    }
    bytes.append(UInt8(ascii: "\""))
  }

  private mutating func escape(_ character: UInt8) {
    switch character {
    case 0x22, 0x5c: bytes += [0x5c, character]
    case 0x0a: bytes += Array("\\n".utf8)
    case 0x0d: bytes += Array("\\r".utf8)
    case 0x09: bytes += Array("\\t".utf8)
    case ..<0x20:
      let digits = Array("0123456789abcdef".utf8)
      bytes += Array("\\u00".utf8)
      bytes += [digits[Int(character >> 4)], digits[Int(character & 15)]]
    default: bytes.append(character)
    }
  }
}

extension JSONLine {
  mutating func put(_ name: String, _ settings: HistoryQueueSettings) {
    object(name) { line in
      line.put("deadLetter", settings.deadLetter)
      line.put("retryDelay", settings.retryDelay)
      line.put("retryMax", settings.retryMax)
      if let part = settings.retryJitterBillionths {
        line.name("retryJitter")
        line.raw(decimal(part))
      }
      line.put("maxDeliveries", settings.maxDeliveries)
      line.put("lease", settings.lease)
      line.put("priorities", settings.priorities)
      line.put("keyed", settings.keyed)
      line.put("ttl", settings.timeToLive)
    }
  }
}

/// Billionths as a decimal number.
func decimal(_ billionths: UInt64) -> String {
  let whole = billionths / 1_000_000_000
  let rest = billionths % 1_000_000_000
  if rest == 0 { return "\(whole)" }
  let digits = "\(rest + 1_000_000_000)".dropFirst()
  return "\(whole).\(digits.prefix(digits.count - digits.reversed().prefix { $0 == "0" }.count))"
}
