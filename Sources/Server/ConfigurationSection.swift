// One object of the configuration file while it is read: takes values by key, collects what is
// wrong with them, and in the end knows which keys nobody asked for.

import Base
import Transport

/// The faults found so far and the keys that exist, shared by all sections of one file.
struct ConfigurationFindings {
  var faults: [String] = []
  /// Paths of all keys that were asked for, in order.
  var keys: [String] = []
}

/// One object of the file.
struct ConfigurationSection {
  /// Path of the object with a dot behind it; empty for the whole file.
  let prefix: String
  private let values: [String: JSONValue]
  private var known: [String] = []

  init(prefix: String, values: [String: JSONValue]) {
    self.prefix = prefix
    self.values = values
  }

  /// The value of `key`, nil if it is missing or null.
  mutating func take(_ key: String, _ findings: inout ConfigurationFindings) -> JSONValue? {
    known.append(key)
    findings.keys.append(prefix + key)
    let value = values[key]
    return value == .null ? nil : value
  }

  /// Reports every key that nobody took, with the nearest one that exists.
  func finish(_ findings: inout ConfigurationFindings) {
    for key in values.keys.sorted() where !known.contains(key) {
      let nearest = nearestName(to: key, in: known).map { ", did you mean \"\($0)\"?" } ?? ""
      findings.faults.append("\(prefix)\(key): there is no such key\(nearest)")
    }
  }

  /// An inner object; an empty one if it is missing.
  mutating func section(
    _ key: String, _ findings: inout ConfigurationFindings
  ) -> ConfigurationSection {
    known.append(key)
    let inner = "\(prefix)\(key)."
    switch values[key] {
    case nil, .null?: return ConfigurationSection(prefix: inner, values: [:])
    case .object(let values)?: return ConfigurationSection(prefix: inner, values: values)
    case let other?:
      findings.faults.append("\(prefix)\(key): expected an object, found \(other.kind)")
      return ConfigurationSection(prefix: inner, values: [:])
    }
  }

  mutating func text(_ key: String, _ findings: inout ConfigurationFindings) -> String? {
    switch take(key, &findings) {
    case .text(let value)?: return value
    case let other?: return fault(key, "expected a text, found \(other.kind)", &findings)
    case nil: return fault(key, "is missing", &findings)
    }
  }

  mutating func bool(
    _ key: String, default standard: Bool, _ findings: inout ConfigurationFindings
  ) -> Bool {
    switch take(key, &findings) {
    case .bool(let value)?: return value
    case nil: return standard
    case let other?:
      return fault(key, "expected true or false, found \(other.kind)", &findings) ?? standard
    }
  }

  mutating func endpoint(_ key: String, _ findings: inout ConfigurationFindings) -> Endpoint? {
    guard let text = text(key, &findings) else { return nil }
    do throws(AddressError) {
      let endpoint = try Endpoint(parsing: text)
      if endpoint.port == 0 { return fault(key, "port 0 is no port to be found at", &findings) }
      return endpoint
    } catch {
      return fault(key, error.description, &findings)
    }
  }

  /// Whether anything is said under the key, be it null.
  func has(_ key: String) -> Bool { values[key] != nil }

  /// The same where there need not be one.
  mutating func maybeEndpoint(
    _ key: String, _ findings: inout ConfigurationFindings
  ) -> Endpoint? {
    if let value = values[key], value != .null { return endpoint(key, &findings) }
    _ = take(key, &findings)
    return nil
  }

  /// A whole number in `range`.
  mutating func count(
    _ key: String, in range: ClosedRange<Int>, default standard: Int,
    _ findings: inout ConfigurationFindings
  ) -> Int {
    switch take(key, &findings) {
    case .integer(let value)? where range.contains(value): return value
    case nil: return standard
    case .integer(let value)?:
      return fault(
        key, "must be from \(range.lowerBound) to \(range.upperBound), not \(value)", &findings)
        ?? standard
    case let other?:
      return fault(key, "expected a whole number, found \(other.kind)", &findings) ?? standard
    }
  }

  /// An amount of bytes, as a number or as `"16MiB"`; nil if it is missing.
  mutating func bytes(
    _ key: String, in range: ClosedRange<Int>, _ findings: inout ConfigurationFindings
  ) -> Int? {
    let value: Int?
    switch take(key, &findings) {
    case nil: return nil
    case .integer(let number)?: value = number
    case .text(let text)?: value = ByteCountText.parse(text).flatMap { Int(exactly: $0) }
    case let other?:
      return fault(key, "expected an amount such as \"16MiB\", found \(other.kind)", &findings)
    }
    guard let value else {
      return fault(key, "is no amount of bytes such as \"64KiB\" or \"16MiB\"", &findings)
    }
    guard range.contains(value) else {
      let low = ByteCountText.format(UInt64(range.lowerBound))
      let high = ByteCountText.format(UInt64(range.upperBound))
      let found = value < 0 ? "\(value)" : ByteCountText.format(UInt64(value))
      return fault(key, "must be from \(low) to \(high), not \(found)", &findings)
    }
    return value
  }

  mutating func bytes(
    _ key: String, in range: ClosedRange<Int>, default standard: Int,
    _ findings: inout ConfigurationFindings
  ) -> Int {
    bytes(key, in: range, &findings) ?? standard
  }

  /// A span of time, as `"500ms"`.
  mutating func duration(
    _ key: String, in range: ClosedRange<Nanoseconds>, default standard: Nanoseconds,
    _ findings: inout ConfigurationFindings
  ) -> Nanoseconds {
    switch take(key, &findings) {
    case nil: return standard
    case .text(let text)?:
      guard let value = DurationText.parse(text) else {
        return fault(key, "\"\(text)\" is no time such as \"500ms\" or \"10s\"", &findings)
          ?? standard
      }
      guard range.contains(value) else {
        let low = DurationText.format(range.lowerBound)
        let high = DurationText.format(range.upperBound)
        return fault(key, "must be from \(low) to \(high), not \(text)", &findings) ?? standard
      }
      return value
    case let other?:
      return fault(key, "expected a time such as \"500ms\", found \(other.kind)", &findings)
        ?? standard
    }
  }

  /// Notes a fault of `key`; always nil, so that it can stand where a value was expected.
  func fault<Value>(
    _ key: String, _ words: String, _ findings: inout ConfigurationFindings
  ) -> Value? {
    findings.faults.append("\(prefix)\(key): \(words)")
    return nil
  }
}
