// Which messages of a queue are looked for: part of the protocol.

/// What a message must be to be shown; everything that is not set fits all.
package struct MessageFilter: Hashable, Sendable {
  /// States as bits, 0 for all.
  package var states: UInt8 = 0
  package var key: [UInt8]?
  /// A header with this name and this value.
  package var headerName: [UInt8]?
  package var headerValue: [UInt8] = []
  /// The first so many that fit by their state are passed over.
  package var skip: UInt32 = 0

  package static let ready: UInt8 = 1
  package static let leased: UInt8 = 2
  package static let delayed: UInt8 = 4
  /// In a dead-letter queue, moved there, whatever else it is.
  package static let dead: UInt8 = 8
  /// The most that may be passed over.
  package static let skipMax: UInt32 = 1_000_000

  package init() {}

  /// Whether records have to be looked at.
  package var asksForRecords: Bool { key != nil || headerName != nil }

  /// The first thing that is impossible in it, as a sentence; nil if all is fine.
  package var fault: String? {
    if states & ~15 != 0 { return "there is no such state" }
    if skip > Self.skipMax { return "at most \(Self.skipMax) messages can be passed over" }
    return nil
  }

  /// Whether a record fits.
  package func fits(_ record: UnsafeRawBufferPointer) -> Bool {
    guard asksForRecords else { return true }
    do throws(MessageRecordError) {
      let parts = try MessageRecord.parts(of: record)
      if let key, Array(parts.key.utf8) != key { return false }
      guard let headerName else { return true }
      return parts.headers.contains {
        Array($0.name.utf8) == headerName && $0.value == headerValue
      }
    } catch {
      return false
    }
  }

  package func encode(into bytes: inout [UInt8]) {
    bytes.put(states)
    bytes.put(skip)
    bytes.put(UInt8((key == nil ? 0 : 1) | (headerName == nil ? 0 : 2)))
    for text in [key ?? [], headerName ?? [], headerValue] {
      bytes.put(UInt32(text.count))
      bytes.append(contentsOf: text)
    }
  }

  /// - Throws: `ByteReaderError` where the bytes end early.
  package init(decoding reader: inout ByteReader) throws(ByteReaderError) {
    states = try reader.integer()
    skip = try reader.integer()
    let flags = try reader.integer(UInt8.self)
    let key = try reader.longBytes()
    let name = try reader.longBytes()
    headerValue = try reader.longBytes()
    if flags & 1 != 0 { self.key = key }
    if flags & 2 != 0 { headerName = name }
  }
}
