// The properties of a message: 14 optional values behind a word of flags (AMQP 0-9-1 §4.2.6.1).
// They stay the bytes that came from the publisher to the consumer; here they are looked through
// once, when a publish comes in, and rewritten where the broker must change something.
//
//     flags u16 (bit 0: another word of flags follows, which nobody uses), values in flag order

import Base

/// Why bytes are no properties.
package enum PropertiesError: Error, Hashable, Sendable {
  case truncated
  case trailing
  /// Flags that mean nothing.
  case unknownFlags
  case table(FieldTableError)
}

/// Where things are in a message's properties. Allocates nothing.
package struct PropertiesView {
  /// `PropertyFlag`s of what is there.
  package private(set) var flags: UInt16 = 0
  /// The header table, without its length; empty if there is none.
  package private(set) var headers = 0..<0
  package private(set) var deliveryMode: UInt8 = 0
  package private(set) var priority: UInt8 = 0
  /// Short strings without their lengths; nil if not there.
  package private(set) var replyTo: Range<Int>?
  package private(set) var expiration: Range<Int>?
  package private(set) var userID: Range<Int>?

  package init(_ bytes: UnsafeRawBufferPointer) throws(PropertiesError) {
    guard bytes.count >= 2 else { throw .truncated }
    flags = UInt16(bytes[0]) << 8 | UInt16(bytes[1])
    guard flags & 0b11 == 0 else { throw .unknownFlags }
    var offset = 2
    var flag: UInt16 = 1 << 15
    while flag >= PropertyFlag.clusterID {
      if flags & flag != 0 { try take(flag, bytes, &offset) }
      flag >>= 1
    }
    guard offset == bytes.count else { throw .trailing }
  }

  private mutating func take(
    _ flag: UInt16, _ bytes: UnsafeRawBufferPointer, _ offset: inout Int
  ) throws(PropertiesError) {
    switch flag {
    case PropertyFlag.headers:
      guard bytes.count - offset >= 4 else { throw .truncated }
      // SAFETY: four bytes are there.
      let count = Int(
        UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
      offset += 4
      guard bytes.count - offset >= count else { throw .truncated }
      headers = offset..<offset + count
      offset += count
      do throws(FieldTableError) {
        try FieldTableCheck.check(UnsafeRawBufferPointer(rebasing: bytes[headers]))
      } catch {
        throw .table(error)
      }
    case PropertyFlag.deliveryMode, PropertyFlag.priority:
      guard offset < bytes.count else { throw .truncated }
      if flag == PropertyFlag.priority {
        priority = bytes[offset]
      } else {
        deliveryMode = bytes[offset]
      }
      offset += 1
    case PropertyFlag.timestamp:
      guard bytes.count - offset >= 8 else { throw .truncated }
      offset += 8
    default:
      guard offset < bytes.count, bytes.count - offset > Int(bytes[offset]) else {
        throw .truncated
      }
      let text = offset + 1..<offset + 1 + Int(bytes[offset])
      offset = text.upperBound
      switch flag {
      case PropertyFlag.replyTo: replyTo = text
      case PropertyFlag.expiration: expiration = text
      case PropertyFlag.userID: userID = text
      default: break
      }
    }
  }
}

/// A message's properties taken apart, for whoever has to change them: dead lettering, redelivery
/// counts. Not for the hot path.
package struct BasicProperties: Hashable, Sendable {
  package var contentType: [UInt8]?
  package var contentEncoding: [UInt8]?
  package var headers: FieldTable?
  package var deliveryMode: UInt8?
  package var priority: UInt8?
  package var correlationID: [UInt8]?
  package var replyTo: [UInt8]?
  package var expiration: [UInt8]?
  package var messageID: [UInt8]?
  package var timestamp: UInt64?
  package var type: [UInt8]?
  package var userID: [UInt8]?
  package var appID: [UInt8]?
  package var clusterID: [UInt8]?

  package init() {}

  /// Reads flags and values, which must be all that `bytes` has.
  package init(_ bytes: UnsafeRawBufferPointer) throws(PropertiesError) {
    // Everything is checked first, so that the reads below cannot fail.
    let view = try PropertiesView(bytes)
    var offset = 2
    func text(_ flag: UInt16) -> [UInt8]? {
      guard view.flags & flag != 0 else { return nil }
      let end = offset + 1 + Int(bytes[offset])
      defer { offset = end }
      return [UInt8](UnsafeRawBufferPointer(rebasing: bytes[offset + 1..<end]))
    }
    func octet(_ flag: UInt16) -> UInt8? {
      guard view.flags & flag != 0 else { return nil }
      defer { offset += 1 }
      return bytes[offset]
    }
    contentType = text(PropertyFlag.contentType)
    contentEncoding = text(PropertyFlag.contentEncoding)
    if view.flags & PropertyFlag.headers != 0 {
      do throws(FieldTableError) {
        headers = try FieldTable(UnsafeRawBufferPointer(rebasing: bytes[view.headers]))
      } catch {
        throw .table(error)
      }
      offset = view.headers.upperBound
    }
    deliveryMode = octet(PropertyFlag.deliveryMode)
    priority = octet(PropertyFlag.priority)
    correlationID = text(PropertyFlag.correlationID)
    replyTo = text(PropertyFlag.replyTo)
    expiration = text(PropertyFlag.expiration)
    messageID = text(PropertyFlag.messageID)
    if view.flags & PropertyFlag.timestamp != 0 {
      // SAFETY: the view saw that eight bytes are there.
      timestamp = UInt64(
        bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
      offset += 8
    }
    type = text(PropertyFlag.type)
    userID = text(PropertyFlag.userID)
    appID = text(PropertyFlag.appID)
    clusterID = text(PropertyFlag.clusterID)
  }

  package init(_ bytes: [UInt8]) throws(PropertiesError) {
    let result: Result<BasicProperties, PropertiesError> = bytes.withUnsafeBytes { raw in
      do throws(PropertiesError) {
        return .success(try BasicProperties(raw))
      } catch {
        return .failure(error)
      }
    }
    self = try result.get()
  }

  /// Flags and values, as in a content header.
  package var encoded: [UInt8] {
    var bytes: [UInt8] = [0, 0]
    var flags: UInt16 = 0
    func put(_ text: [UInt8]?, _ flag: UInt16) {
      guard let text else { return }
      flags |= flag
      text.withUnsafeBytes { bytes.putShortString($0) }
    }
    func put(_ octet: UInt8?, _ flag: UInt16) {
      guard let octet else { return }
      flags |= flag
      bytes.append(octet)
    }
    put(contentType, PropertyFlag.contentType)
    put(contentEncoding, PropertyFlag.contentEncoding)
    if let headers {
      flags |= PropertyFlag.headers
      let start = bytes.count
      bytes.putBig(UInt32(0))
      headers.encode(into: &bytes)
      bytes.patchBig(UInt32(bytes.count - start - 4), at: start)
    }
    put(deliveryMode, PropertyFlag.deliveryMode)
    put(priority, PropertyFlag.priority)
    put(correlationID, PropertyFlag.correlationID)
    put(replyTo, PropertyFlag.replyTo)
    put(expiration, PropertyFlag.expiration)
    put(messageID, PropertyFlag.messageID)
    if let timestamp {
      flags |= PropertyFlag.timestamp
      bytes.putBig(timestamp)
    }
    put(type, PropertyFlag.type)
    put(userID, PropertyFlag.userID)
    put(appID, PropertyFlag.appID)
    put(clusterID, PropertyFlag.clusterID)
    bytes.patchBig(flags, at: 0)
    return bytes
  }
}

/// Properties that the broker makes or changes, as bytes.
package enum Properties {
  /// Appends `properties` with further headers, each in place of one of the same name.
  ///
  /// - Parameters:
  ///   - properties: as in `PublishRequest.properties`: checked when they came in.
  ///   - dropped: the name of a header that goes.
  ///   - droppingExpiration: without the `expiration` property, as dead letters are.
  package static func withHeaders(
    _ properties: UnsafeRawBufferPointer, adding headers: [(String, FieldValue)],
    dropping dropped: String? = nil, droppingExpiration: Bool, into bytes: inout [UInt8]
  ) {
    guard var changed = try? BasicProperties(properties) else {
      invariant(false, "properties of \(properties.count) bytes that were never checked")
      return
    }
    if !headers.isEmpty {
      var table = changed.headers ?? FieldTable()
      for (name, value) in headers { table.set(name, value) }
      changed.headers = table
    }
    if let dropped { changed.headers?.set(dropped, nil) }
    if droppingExpiration { changed.expiration = nil }
    bytes.append(contentsOf: changed.encoded)
  }

  /// Appends the properties of a persistent message that did not come by AMQP. Headers whose bytes
  /// are no UTF-8 become byte arrays; names are cut to 255 bytes, a longer content type is left
  /// out.
  package static func make(
    contentType: String?, priority: UInt8?, headers: [(String, [UInt8])],
    into bytes: inout [UInt8]
  ) {
    var properties = BasicProperties()
    if let contentType, !contentType.isEmpty, contentType.utf8.count <= 255 {
      properties.contentType = [UInt8](contentType.utf8)
    }
    if !headers.isEmpty {
      properties.headers = FieldTable(
        headers.map { name, value in
          FieldTable.Entry(
            name: [UInt8](name.utf8.prefix(255)),
            value: String(validating: value, as: UTF8.self) == nil
              ? .bytes(value) : .string(value))
        })
    }
    properties.deliveryMode = 2
    properties.priority = priority
    bytes.append(contentsOf: properties.encoded)
  }
}
