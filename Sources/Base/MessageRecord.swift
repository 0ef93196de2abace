// One message as it lies in a publish, in the log, and in a delivery: the same bytes all the way,
// so that nobody takes it apart on the hot path.
//
//   offset size
//        0    4  recordBytes   the whole record, this field included
//        4    4  bodyBytes
//        8    2  keyBytes
//       10    2  contentTypeBytes
//       12    2  headerCount
//       14    1  priority      0 is the lowest and the usual
//       15    1  flags         bit 0: `delay` follows, bit 1: `timeToLive` follows
//       16    8  delay         nanoseconds, only with bit 0
//        …    8  timeToLive    nanoseconds, only with bit 1
//        …       key, content type
//        …       headers, each: u16 name bytes, u32 value bytes, name, value
//        …       body
//
// A run is records one behind the other. The first receiver of a run (the server's session) checks
// it with `check`; behind that point a malformed record is a bug.

/// Why bytes are no message record.
package enum MessageRecordError: Error, Equatable, Sendable {
  case truncated(offset: Int)
  /// The lengths inside the record do not add up to `recordBytes`.
  case lengthsDisagree(offset: Int)
  case unknownFlags(UInt8, offset: Int)
  case tooLarge(bytes: Int, limit: Int, offset: Int)
  /// A header's name or the key or content type is no UTF-8.
  case notUTF8(offset: Int)
}

/// A message as its parts, for code that is not on the hot path.
package struct MessageParts: Equatable, Sendable {
  package var body: [UInt8]
  /// In the order given; names need not be unique.
  package var headers: [(name: String, value: [UInt8])]
  package var key: String
  package var contentType: String
  /// 0 is the lowest and the usual.
  package var priority: UInt8
  package var delay: Nanoseconds?
  package var timeToLive: Nanoseconds?

  package init(
    body: [UInt8], headers: [(name: String, value: [UInt8])] = [], key: String = "",
    contentType: String = "", priority: UInt8 = 0, delay: Nanoseconds? = nil,
    timeToLive: Nanoseconds? = nil
  ) {
    self.body = body
    self.headers = headers
    self.key = key
    self.contentType = contentType
    self.priority = priority
    self.delay = delay
    self.timeToLive = timeToLive
  }

  package static func == (left: MessageParts, right: MessageParts) -> Bool {
    left.body == right.body && left.key == right.key && left.contentType == right.contentType
      && left.priority == right.priority && left.delay == right.delay
      && left.timeToLive == right.timeToLive && left.headers.count == right.headers.count
      && zip(left.headers, right.headers).allSatisfy { $0.name == $1.name && $0.value == $1.value }
  }
}

/// Reads and writes message records in place.
package enum MessageRecord {
  package static let fixedBytes = 16
  package static let delayFlag: UInt8 = 1
  package static let timeToLiveFlag: UInt8 = 2
  /// No record may be larger, whatever is configured: a reference keeps its size in 28 bits.
  package static let recordBytesMax = (1 << 28) - 1
  /// The most that a record has besides its key, content type, headers and body.
  package static let headBytesMax = fixedBytes + 16
  /// The largest key, content type, headers and body together, whatever is configured.
  package static let contentBytesMax = recordBytesMax - headBytesMax
  /// Limits of the fields with a 16-bit length, checked by the client before it encodes.
  package static let shortFieldMax = Int(UInt16.max)

  /// Appends `message` as a record. Lengths over the layout's fields are the caller's bug: the
  /// client library checks them and throws.
  package static func append(_ message: MessageParts, to bytes: inout [UInt8]) {
    let start = bytes.count
    bytes.put(UInt32(0))
    bytes.put(UInt32(message.body.count))
    bytes.put(UInt16(message.key.utf8.count))
    bytes.put(UInt16(message.contentType.utf8.count))
    bytes.put(UInt16(message.headers.count))
    bytes.put(message.priority)
    let flags =
      (message.delay == nil ? 0 : delayFlag) | (message.timeToLive == nil ? 0 : timeToLiveFlag)
    bytes.put(flags)
    if let delay = message.delay { bytes.put(delay) }
    if let timeToLive = message.timeToLive { bytes.put(timeToLive) }
    bytes.append(contentsOf: message.key.utf8)
    bytes.append(contentsOf: message.contentType.utf8)
    for header in message.headers {
      bytes.put(UInt16(header.name.utf8.count))
      bytes.put(UInt32(header.value.count))
      bytes.append(contentsOf: header.name.utf8)
      bytes.append(contentsOf: header.value)
    }
    bytes.append(contentsOf: message.body)
    let size = bytes.count - start
    invariant(size <= recordBytesMax, "message record of \(size) bytes")
    bytes.patch(UInt32(size), at: start)
  }

  /// The size of the record at `offset` of a run that was checked before.
  @inlinable package static func size(in run: UnsafeRawBufferPointer, at offset: Int) -> Int {
    Int(UInt32(littleEndian: run.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
  }

  @inlinable package static func priority(in run: UnsafeRawBufferPointer, at offset: Int) -> UInt8 {
    run[offset + 14]
  }

  @inlinable package static func flags(in run: UnsafeRawBufferPointer, at offset: Int) -> UInt8 {
    run[offset + 15]
  }

  /// Checks a run from a client and counts its records.
  ///
  /// - Parameter contentBytesMax: the most that a record may have besides its head, bytes.
  /// - Throws: `MessageRecordError` with the offset of the first record that is wrong.
  package static func check(
    _ run: UnsafeRawBufferPointer, contentBytesMax: Int
  ) throws(MessageRecordError) -> Int {
    var offset = 0
    var count = 0
    while offset < run.count {
      guard run.count - offset >= fixedBytes else { throw .truncated(offset: offset) }
      let recordBytes = size(in: run, at: offset)
      guard recordBytes >= fixedBytes else { throw .lengthsDisagree(offset: offset) }
      let headBytes = fixedBytes + flags(in: run, at: offset).nonzeroBitCount * 8
      guard recordBytes - headBytes <= contentBytesMax else {
        throw .tooLarge(bytes: recordBytes - headBytes, limit: contentBytesMax, offset: offset)
      }
      guard recordBytes <= run.count - offset else { throw .truncated(offset: offset) }
      let record = UnsafeRawBufferPointer(rebasing: run[offset..<offset + recordBytes])
      try checkFields(of: record, at: offset)
      offset += recordBytes
      count += 1
    }
    return count
  }

  /// Takes one record apart.
  ///
  /// - Throws: `MessageRecordError` if the bytes are not exactly one record.
  package static func parts(
    of record: UnsafeRawBufferPointer
  ) throws(MessageRecordError) -> MessageParts {
    guard record.count >= fixedBytes, size(in: record, at: 0) == record.count else {
      throw .truncated(offset: 0)
    }
    try checkFields(of: record, at: 0)
    var reader = ByteReader(record)
    do {
      try reader.skip(4)
      let bodyBytes = Int(try reader.integer(UInt32.self))
      let keyBytes = Int(try reader.integer(UInt16.self))
      let contentTypeBytes = Int(try reader.integer(UInt16.self))
      let headerCount = Int(try reader.integer(UInt16.self))
      var message = MessageParts(body: [])
      message.priority = try reader.integer()
      let flags = try reader.integer(UInt8.self)
      if flags & delayFlag != 0 { message.delay = try reader.identifier() }
      if flags & timeToLiveFlag != 0 { message.timeToLive = try reader.identifier() }
      message.key = try reader.text(keyBytes)
      message.contentType = try reader.text(contentTypeBytes)
      for _ in 0..<headerCount {
        let nameBytes = Int(try reader.integer(UInt16.self))
        let valueBytes = Int(try reader.integer(UInt32.self))
        message.headers.append((try reader.text(nameBytes), try reader.array(valueBytes)))
      }
      message.body = try reader.array(bodyBytes)
      return message
    } catch {
      throw described(error)
    }
  }

  private static func checkFields(
    of record: UnsafeRawBufferPointer, at offset: Int
  ) throws(MessageRecordError) {
    var reader = ByteReader(record)
    do {
      try reader.skip(4)
      let bodyBytes = Int(try reader.integer(UInt32.self))
      let keyBytes = Int(try reader.integer(UInt16.self))
      let contentTypeBytes = Int(try reader.integer(UInt16.self))
      let headerCount = Int(try reader.integer(UInt16.self))
      try reader.skip(1)
      let flags = try reader.integer(UInt8.self)
      guard flags & ~(delayFlag | timeToLiveFlag) == 0 else {
        throw MessageRecordError.unknownFlags(flags, offset: offset)
      }
      try reader.skip(flags.nonzeroBitCount * 8)
      if keyBytes + contentTypeBytes > 0 {
        _ = try reader.text(keyBytes)
        _ = try reader.text(contentTypeBytes)
      }
      for _ in 0..<headerCount {
        let nameBytes = Int(try reader.integer(UInt16.self))
        let valueBytes = Int(try reader.integer(UInt32.self))
        _ = try reader.text(nameBytes)
        try reader.skip(valueBytes)
      }
      try reader.skip(bodyBytes)
    } catch let error as ByteReaderError {
      switch described(error) {
      case .notUTF8: throw .notUTF8(offset: offset)
      default: throw .lengthsDisagree(offset: offset)
      }
    } catch let error as MessageRecordError {
      throw error
    } catch {
      throw .lengthsDisagree(offset: offset)
    }
    guard reader.isAtEnd else { throw .lengthsDisagree(offset: offset) }
  }

  private static func described(_ error: ByteReaderError) -> MessageRecordError {
    switch error {
    case .truncated(let offset, _, _): .lengthsDisagree(offset: offset)
    case .notUTF8(let offset): .notUTF8(offset: offset)
    }
  }
}
