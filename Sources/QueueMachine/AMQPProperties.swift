// What an AMQP message has besides its body, as one header of its message record, so that it comes
// out byte for byte as it went in and native clients see an ordinary message.
//
//   header "amqp":  u8 version (1), u8 exchange bytes, exchange, u8 routing key bytes, routing key,
//                   then the properties as in a content header from their flags on
//   properties:     u16 flags, big-endian, then the values of those present (AMQP §4.2.6.1)
//
// The record's content type, priority and time to live are set besides, for native consumers and the
// machine; its delay from the header `x-delay`.

import Base

package struct AMQPProperties: Hashable, Sendable {
  package static let headerName = "amqp"
  static let version: UInt8 = 1

  private static let contentTypeFlag: UInt16 = 1 << 15
  private static let contentEncodingFlag: UInt16 = 1 << 14
  private static let headersFlag: UInt16 = 1 << 13

  /// At most 255 bytes each.
  package var exchange: [UInt8]
  package var routingKey: [UInt8]
  /// Flags and values.
  package var properties: [UInt8]

  package init(exchange: [UInt8], routingKey: [UInt8], properties: [UInt8]) {
    self.exchange = exchange
    self.routingKey = routingKey
    self.properties = properties
  }

  /// Appends the header's value.
  package static func append(
    exchange: UnsafeRawBufferPointer, routingKey: UnsafeRawBufferPointer,
    properties: UnsafeRawBufferPointer, to bytes: inout [UInt8]
  ) {
    invariant(exchange.count <= 255 && routingKey.count <= 255, "names of AMQP are short")
    bytes.append(version)
    bytes.append(UInt8(exchange.count))
    bytes.append(contentsOf: exchange)
    bytes.append(UInt8(routingKey.count))
    bytes.append(contentsOf: routingKey)
    bytes.append(contentsOf: properties)
  }

  /// Where the parts of an AMQP message lie in its record.
  package struct Places: Hashable, Sendable {
    package var exchange: Range<Int>
    package var routingKey: Range<Int>
    package var properties: Range<Int>
    package var body: Range<Int>
  }

  /// Finds the parts; nil for a message that a native client published.
  ///
  /// - Parameter record: a checked record, possibly with more behind it.
  package static func places(in record: UnsafeRawBufferPointer) -> Places? {
    var reader = ByteReader(record)
    do {
      let size = Int(try reader.integer(UInt32.self))
      let bodyBytes = Int(try reader.integer(UInt32.self))
      let keyBytes = Int(try reader.integer(UInt16.self))
      let contentTypeBytes = Int(try reader.integer(UInt16.self))
      let headerCount = Int(try reader.integer(UInt16.self))
      try reader.skip(1)
      let flags = try reader.integer(UInt8.self)
      try reader.skip(flags.nonzeroBitCount * 8 + keyBytes + contentTypeBytes)
      for _ in 0..<headerCount {
        let nameBytes = Int(try reader.integer(UInt16.self))
        let valueBytes = Int(try reader.integer(UInt32.self))
        let name = try reader.take(nameBytes)
        let start = reader.offset
        let value = try reader.take(valueBytes)
        if name.elementsEqual(headerName.utf8) {
          return places(in: value, at: start, body: size - bodyBytes..<size)
        }
      }
    } catch {
      // A record that was checked before reads to its end.
      return nil
    }
    return nil
  }

  private static func places(
    in value: UnsafeRawBufferPointer, at start: Int, body: Range<Int>
  ) -> Places? {
    guard value.count >= 2, value[0] == version else { return nil }
    let exchangeEnd = 2 + Int(value[1])
    guard value.count > exchangeEnd else { return nil }
    let keyEnd = exchangeEnd + 1 + Int(value[exchangeEnd])
    guard value.count >= keyEnd + 2 else { return nil }
    return Places(
      exchange: start + 2..<start + exchangeEnd,
      routingKey: start + exchangeEnd + 1..<start + keyEnd,
      properties: start + keyEnd..<start + value.count, body: body)
  }

  /// The headers of the first record of `run`; none if it has no table.
  static func headers(ofRecord run: UnsafeRawBufferPointer) -> HeaderIndex {
    HeaderIndex(headerBytes(ofRecord: run))
  }

  /// The same as sent, without its length.
  static func headerBytes(ofRecord run: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    let none = UnsafeRawBufferPointer(rebasing: run[0..<0])
    guard let places = places(in: run) else { return none }
    let properties = UnsafeRawBufferPointer(rebasing: run[places.properties])
    let flags = UInt16(properties[0]) << 8 | UInt16(properties[1])
    guard flags & headersFlag != 0 else { return none }
    var offset = 2
    for flag in [contentTypeFlag, contentEncodingFlag] where flags & flag != 0 {
      guard offset < properties.count else { return none }
      offset += 1 + Int(properties[offset])
    }
    guard properties.count >= offset + 4 else { return none }
    let count = properties[offset..<offset + 4].reduce(0) { $0 << 8 | Int($1) }
    guard properties.count >= offset + 4 + count else { return none }
    return UnsafeRawBufferPointer(rebasing: properties[offset + 4..<offset + 4 + count])
  }
}
