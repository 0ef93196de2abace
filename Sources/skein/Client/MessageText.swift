// A message as text: for people, for programs, for a command's environment.

import SkeinClient

enum MessageText {
  /// The body and a line feed.
  static func plain(_ delivery: Delivery, _ bytes: inout [UInt8]) {
    delivery.withBody { bytes.append(contentsOf: $0) }
    bytes.append(0x0a)
  }

  /// One object and a line feed. Its fields are fixed, docs/cli.md explains them.
  static func json(_ delivery: Delivery, _ bytes: inout [UInt8]) {
    let message = delivery.message
    var members: [JSON.Member] = [
      .init(name: "id", value: .text(delivery.id.description)),
      .init(name: "queue", value: .text(delivery.queue)),
      .init(name: "attempt", value: .integer(exactly: delivery.attempt)),
      .init(name: "token", value: .unsigned(delivery.token)),
    ]
    members += contents(message)
    bytes.append(contentsOf: JSON.object(members).text.utf8)
    bytes.append(0x0a)
  }

  /// What every message has, however it was come by.
  static func contents(_ message: Message) -> [JSON.Member] {
    var members: [JSON.Member] = [.init(name: "headers", value: headers(message))]
    if let text = String(validating: message.body, as: UTF8.self) {
      members.append(.init(name: "body", value: .text(text)))
    } else {
      members.append(.init(name: "bodyBase64", value: .text(base64(message.body))))
    }
    if !message.key.isEmpty { members.append(.init(name: "key", value: .text(message.key))) }
    if message.priority > 0 {
      members.append(.init(name: "priority", value: .integer(exactly: Int(message.priority))))
    }
    if !message.contentType.isEmpty {
      members.append(.init(name: "contentType", value: .text(message.contentType)))
    }
    return members
  }

  /// A name that occurs more than once has its values as an array: of several members of one name
  /// most readers would keep only the last.
  private static func headers(_ message: Message) -> JSON {
    var values: [String: [JSON]] = [:]
    var names: [String] = []
    for header in message.headers {
      if values[header.name] == nil { names.append(header.name) }
      values[header.name, default: []].append(value(header))
    }
    return .object(
      names.map { name in
        let all = values[name] ?? []
        return .init(name: name, value: all.count == 1 ? all[0] : .array(all))
      })
  }

  /// Values that are not UTF-8 are objects of their own, so that nothing is mistaken for text.
  private static func value(_ header: MessageHeader) -> JSON {
    let text = String(validating: header.value, as: UTF8.self)
    return text.map { .text($0) } ?? ["base64": .text(base64(header.value))]
  }

  /// `NAME=value` texts for a command.
  static func environment(_ delivery: Delivery) -> [String] {
    let message = delivery.message
    var variables = [
      "SKEIN_QUEUE=\(delivery.queue)", "SKEIN_ID=\(delivery.id)",
      "SKEIN_ATTEMPT=\(delivery.attempt)", "SKEIN_TOKEN=\(delivery.token)",
      "SKEIN_KEY=\(message.key)",
    ]
    for header in message.headers {
      let value = String(decoding: header.value, as: UTF8.self)
      variables.append("SKEIN_HEADER_\(variableName(header.name))=\(value)")
    }
    // A variable cannot hold a zero byte.
    return variables.map { $0.filter { $0 != "\0" } }
  }

  /// `trace-id` is `TRACE_ID`.
  private static func variableName(_ header: String) -> String {
    String(header.uppercased().map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "_" })
  }
}

/// RFC 4648 §4.
func base64(_ bytes: [UInt8]) -> String {
  let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
  var text: [UInt8] = []
  text.reserveCapacity((bytes.count + 2) / 3 * 4)
  for start in stride(from: 0, to: bytes.count, by: 3) {
    let group = bytes[start..<min(start + 3, bytes.count)]
    let bits = group.reduce(0) { $0 << 8 | Int($1) } << ((3 - group.count) * 8)
    for place in 0..<4 {
      let digit = alphabet[bits >> (18 - place * 6) & 63]
      text.append(place <= group.count ? digit : UInt8(ascii: "="))
    }
  }
  return String(decoding: text, as: UTF8.self)
}
