// Amounts as people write them: "500ms", "1h30m", "16MiB", "20k". Used by the command line and the
// configuration file; what is printed can be read back.

/// Reads and writes spans of time such as `500ms`, `10s`, `1h30m`.
package enum DurationText {
  private static let units: [(name: String, nanoseconds: UInt64)] = [
    ("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000),
    ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000), ("ns", 1),
  ]

  /// One or more numbers, each with its unit (`d`, `h`, `m`, `s`, `ms`, `us`, `ns`), and decimals
  /// if wanted; a bare `0`. Nil for anything else, and for what does not fit.
  package static func parse(_ text: String) -> Nanoseconds? {
    if text == "0" { return .zero }
    var rest = Substring(text)
    var total: UInt64 = 0
    repeat {
      guard let number = DecimalText.takeNumber(from: &rest) else { return nil }
      let name = rest.prefix { $0.isLetter }
      rest = rest.dropFirst(name.count)
      guard let unit = units.first(where: { $0.name == name }),
        let nanoseconds = number.scaled(by: unit.nanoseconds)
      else { return nil }
      let (sum, overflow) = total.addingReportingOverflow(nanoseconds)
      if overflow { return nil }
      total = sum
    } while !rest.isEmpty
    return Nanoseconds(rawValue: total)
  }

  /// The shortest exact form: `1h30m`, `10s`, `1500ms`, `0s`.
  package static func format(_ span: Nanoseconds) -> String {
    var rest = span.rawValue
    if rest == 0 { return "0s" }
    var text = ""
    for unit in units where rest >= unit.nanoseconds {
      // 1500ms reads better than 1s500ms; from a minute on, whole units follow each other.
      if unit.name == "s", rest % unit.nanoseconds != 0, text.isEmpty { continue }
      text += "\(rest / unit.nanoseconds)\(unit.name)"
      rest %= unit.nanoseconds
    }
    return text
  }
}

/// Reads and writes amounts of bytes such as `64KiB`, `16MiB`.
package enum ByteCountText {
  private static let units: [(name: String, bytes: UInt64)] = [
    ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1),
    ("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000), ("KB", 1000),
  ]

  /// A number with its unit (`B`, `KiB`, `MiB`, `GiB`, `TiB`, or decimal `kB`, `MB`, `GB`, `TB`); a
  /// number alone is bytes. Nil for anything else, and for what does not fit.
  package static func parse(_ text: String) -> UInt64? {
    var rest = Substring(text)
    guard let number = DecimalText.takeNumber(from: &rest) else { return nil }
    if rest.isEmpty { return number.scaled(by: 1) }
    guard let unit = units.first(where: { $0.name == rest }) else { return nil }
    return number.scaled(by: unit.bytes)
  }

  /// Exact, in the largest binary unit that divides it: `16MiB`, `1500B`.
  package static func format(_ bytes: UInt64) -> String {
    for unit in units.prefix(4) where bytes >= unit.bytes && bytes % unit.bytes == 0 {
      return "\(bytes / unit.bytes)\(unit.name)"
    }
    return "\(bytes)B"
  }

  /// For reading at a glance, three digits at most: `1.4 MiB`, `230 KiB`.
  package static func rounded(_ bytes: UInt64) -> String {
    for unit in units.prefix(4) where bytes >= unit.bytes {
      let tenths = (bytes / (unit.bytes / 10 > 0 ? unit.bytes / 10 : 1))
      return tenths < 100
        ? "\(tenths / 10).\(tenths % 10) \(unit.name)" : "\(bytes / unit.bytes) \(unit.name)"
    }
    return "\(bytes) B"
  }
}

/// Plain numbers with an optional `k` or `M`.
package enum CountText {
  /// Digits, and `k` (thousand) or `M` (million) behind them if wanted. Nil for anything else.
  package static func parse(_ text: String) -> UInt64? {
    var rest = Substring(text)
    guard let number = DecimalText.takeNumber(from: &rest) else { return nil }
    switch rest {
    case "": return number.scaled(by: 1)
    case "k": return number.scaled(by: 1000)
    case "M": return number.scaled(by: 1_000_000)
    default: return nil
    }
  }
}

/// A decimal number taken apart, so that no rounding of floating point gets between what was
/// written and what is meant.
struct DecimalText {
  private var digits: UInt64
  /// `digits` is so many times too large by ten.
  private var decimals: Int

  /// Takes `12` or `1.5` off the front of `text`; nil if there is no number or it does not fit.
  static func takeNumber(from text: inout Substring) -> DecimalText? {
    var number = DecimalText(digits: 0, decimals: 0)
    var count = 0
    var afterPoint = false
    while let character = text.first {
      if character == ".", !afterPoint, count > 0 {
        afterPoint = true
      } else if let digit = character.wholeNumberValue, character.isASCII {
        let (product, tooLarge) = number.digits.multipliedReportingOverflow(by: 10)
        let (sum, stillTooLarge) = product.addingReportingOverflow(UInt64(digit))
        if tooLarge || stillTooLarge { return nil }
        number.digits = sum
        count += 1
        if afterPoint { number.decimals += 1 }
      } else {
        break
      }
      text = text.dropFirst()
    }
    return count == 0 || (afterPoint && number.decimals == 0) ? nil : number
  }

  /// The number times `factor`; nil if that is no whole number or does not fit.
  func scaled(by factor: UInt64) -> UInt64? {
    var divisor: UInt64 = 1
    for _ in 0..<decimals {
      let (next, overflow) = divisor.multipliedReportingOverflow(by: 10)
      if overflow { return nil }
      divisor = next
    }
    let product = digits.multipliedFullWidth(by: factor)
    guard product.high < divisor else { return nil }
    let (quotient, remainder) = divisor.dividingFullWidth(product)
    return remainder == 0 ? quotient : nil
  }
}
