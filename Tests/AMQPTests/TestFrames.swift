// The client's side of the wire, made from the method table and not from the code under test:
// frames are written from names and values, and what comes back is read into lines such as
//
//     1 queue.declare-ok queue=q messageCount=0 consumerCount=0
//     1 header 60 body=5 properties=1000 02
//     1 body hello

import AMQP
import Foundation

enum TestValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral
{
  case text(String)
  case bytes([UInt8])
  case number(UInt64)
  case flag(Bool)
  case table(FieldTable)

  init(stringLiteral value: String) { self = .text(value) }
  init(integerLiteral value: UInt64) { self = .number(value) }
  init(booleanLiteral value: Bool) { self = .flag(value) }

  var bytes: [UInt8] {
    switch self {
    case .text(let text): [UInt8](text.utf8)
    case .bytes(let bytes): bytes
    case .table(let table): table.encoded
    case .number, .flag: []
    }
  }

  var number: UInt64 {
    switch self {
    case .number(let number): number
    case .flag(let flag): flag ? 1 : 0
    default: 0
    }
  }
}

enum TestFrames {
  static let table: MethodTable = {
    let folder = String(#filePath.dropLast("/Tests/AMQPTests/TestFrames.swift".count))
    let path = folder + "/Sources/AMQP/Generator/methods.txt"
    do {
      return MethodTable(try String(contentsOfFile: path, encoding: .utf8))
    } catch {
      fatalError("\(path) cannot be read: \(error)")
    }
  }()

  static func frame(_ type: UInt8, _ channel: UInt16, _ payload: [UInt8]) -> [UInt8] {
    [type] + big(UInt64(channel), 2) + big(UInt64(payload.count), 4) + payload + [0xce]
  }

  static func big(_ value: UInt64, _ bytes: Int) -> [UInt8] {
    (0..<bytes).reversed().map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
  }

  /// A method's frame; fields that are not given are 0, false or empty.
  static func method(
    _ name: String, channel: UInt16 = 1, _ values: [String: TestValue] = [:]
  ) -> [UInt8] {
    guard let method = table.methods.first(where: { "\($0.className).\($0.name)" == name }) else {
      fatalError("no method \(name)")
    }
    var payload = big(UInt64(method.classID), 2) + big(UInt64(method.id), 2)
    var bits: UInt8 = 0
    var bitCount = 0
    for field in method.fields {
      let value = values[field.name] ?? 0
      if field.type == "bit" {
        bits |= UInt8(value.number) << UInt8(bitCount)
        bitCount += 1
        continue
      }
      if bitCount > 0 { payload.append(bits) }
      bits = 0
      bitCount = 0
      switch field.type {
      case "octet": payload += big(value.number, 1)
      case "short": payload += big(value.number, 2)
      case "long": payload += big(value.number, 4)
      case "longlong", "timestamp": payload += big(value.number, 8)
      case "shortstr": payload += [UInt8(value.bytes.count)] + value.bytes
      default: payload += big(UInt64(value.bytes.count), 4) + value.bytes
      }
    }
    if bitCount > 0 { payload.append(bits) }
    for name in values.keys where !method.fields.contains(where: { $0.name == name }) {
      fatalError("no field \(name) in \(method.name)")
    }
    return frame(1, channel, payload)
  }

  static func header(
    channel: UInt16 = 1, body: Int, properties: [UInt8] = [0, 0], classID: UInt64 = 60
  ) -> [UInt8] {
    frame(2, channel, big(classID, 2) + [0, 0] + big(UInt64(body), 8) + properties)
  }

  static func body(channel: UInt16 = 1, _ bytes: [UInt8]) -> [UInt8] { frame(3, channel, bytes) }

  static func publish(
    channel: UInt16 = 1, exchange: String = "", key: String, _ body: String,
    properties: [UInt8] = [0, 0], mandatory: Bool = false
  ) -> [UInt8] {
    method(
      "basic.publish", channel: channel,
      ["exchange": .text(exchange), "routingKey": .text(key), "mandatory": .flag(mandatory)])
      + header(channel: channel, body: body.utf8.count, properties: properties)
      + (body.isEmpty ? [] : self.body(channel: channel, [UInt8](body.utf8)))
  }

  /// Splits bytes into frames and shows each; a wrong one is shown as such.
  static func lines(_ bytes: [UInt8]) -> [String] {
    var lines: [String] = []
    var rest = bytes[...]
    while !rest.isEmpty {
      let start = rest.startIndex
      guard rest.count >= 8 else { return lines + ["rest \([UInt8](rest))"] }
      let channel = Int(rest[start + 1]) << 8 | Int(rest[start + 2])
      let size = rest[start + 3..<start + 7].reduce(0) { $0 << 8 | Int($1) }
      guard rest.count >= size + 8, rest[start + 7 + size] == 0xce else {
        return lines + ["rest \([UInt8](rest))"]
      }
      let payload = [UInt8](rest[start + 7..<start + 7 + size])
      lines.append("\(channel) \(shown(rest[start], payload))")
      rest = rest.dropFirst(size + 8)
    }
    return lines
  }

  private static func shown(_ type: UInt8, _ payload: [UInt8]) -> String {
    switch type {
    case 1: return shownMethod(payload)
    case 2:
      let size = payload[4..<12].reduce(0) { $0 << 8 | Int($1) }
      let properties = payload.dropFirst(12).map { hexadecimal($0) }.joined()
      return "header \(payload[0] + payload[1]) body=\(size) properties=\(properties)"
    case 3: return "body \(String(decoding: payload, as: UTF8.self))"
    default: return "frame \(type) \(payload)"
    }
  }

  static func hexadecimal(_ byte: UInt8) -> String {
    (byte < 16 ? "0" : "") + String(byte, radix: 16)
  }

  private static func shownMethod(_ payload: [UInt8]) -> String {
    let id = payload[0..<4].reduce(0) { $0 << 8 | Int($1) }
    guard let method = table.methods.first(where: { $0.classID << 16 | $0.id == id }) else {
      return "method \(id)"
    }
    var text = "\(method.className).\(method.name)"
    var rest = payload[4...]
    var bit = 0
    func take(_ count: Int) -> ArraySlice<UInt8> {
      defer { rest = rest.dropFirst(count) }
      return rest.prefix(count)
    }
    func number(_ count: Int) -> Int { take(count).reduce(0) { $0 << 8 | Int($1) } }
    for field in method.fields {
      if field.type == "bit" {
        text += " \(field.name)=\((rest[rest.startIndex] >> UInt8(bit)) & 1)"
        bit += 1
        continue
      }
      if bit > 0 { _ = take(1) }
      bit = 0
      switch field.type {
      case "octet": text += " \(field.name)=\(number(1))"
      case "short": text += " \(field.name)=\(number(2))"
      case "long": text += " \(field.name)=\(number(4))"
      case "longlong": text += " \(field.name)=\(number(8))"
      case "shortstr":
        text += " \(field.name)=\(String(decoding: take(number(1)), as: UTF8.self))"
      case "table": text += " \(field.name)=\(take(number(4)).count)B"
      default: text += " \(field.name)=\(String(decoding: take(number(4)), as: UTF8.self))"
      }
    }
    if bit > 0 { _ = take(1) }
    return rest.isEmpty ? text : text + " and \(rest.count) bytes more"
  }
}
