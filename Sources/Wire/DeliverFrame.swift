// The deliver frame: messages for one consumer, each a fixed header and its record as it lies in
// the log.
//
//   offset size                          per message, offset size
//        0    4  consumer                      0    8  delivery
//        4    4  count                         8    8  token
//        8       messages                     16    8  message
//                                             24    8  lease      nanoseconds
//                                             32    8  granted    machine time of the lease's start
//                                             40    4  attempt    from 1
//                                             44    4  flags      bit 0: delivered before
//                                             48       record (its first field is its size)

import Base

/// What a delivery says about its message.
@frozen @usableFromInline package struct DeliveryHeader: Hashable, Sendable {
  @usableFromInline package var delivery: DeliveryID
  @usableFromInline package var token: FencingToken
  @usableFromInline package var message: MessageID
  /// How long the consumer may hold the message.
  @usableFromInline package var lease: Nanoseconds
  /// When the lease began, by the queues' clock.
  @usableFromInline package var granted: MachineTime
  /// From 1.
  @usableFromInline package var attempt: UInt32
  /// It was in a consumer's hands before, whether or not that counted as an attempt.
  @usableFromInline package var isRedelivery: Bool

  @inlinable package init(
    delivery: DeliveryID, token: FencingToken, message: MessageID, lease: Nanoseconds,
    granted: MachineTime, attempt: UInt32, isRedelivery: Bool
  ) {
    self.delivery = delivery
    self.token = token
    self.message = message
    self.lease = lease
    self.granted = granted
    self.attempt = attempt
    self.isRedelivery = isRedelivery
  }

  @inlinable package static var byteCount: Int { 48 }
}

/// Writes one deliver frame, message by message, without an allocation of its own.
///
///     var encoder = DeliverEncoder(consumer, into: &bytes)
///     encoder.append(header, record: record, to: &bytes)
///     encoder.finish(in: &bytes)
@frozen @usableFromInline package struct DeliverEncoder {
  @usableFromInline let start: Int
  @usableFromInline package private(set) var count: UInt32

  @inlinable package init(_ consumer: ConsumerID, into bytes: inout [UInt8]) {
    start = Frame.begin(.deliver, in: &bytes)
    count = 0
    bytes.put(consumer)
    bytes.put(UInt32(0))
  }

  /// Payload bytes so far: a caller begins another frame before this passes the client's limit.
  @inlinable package func payloadBytes(in bytes: [UInt8]) -> Int {
    bytes.count - start - Frame.headerBytes
  }

  /// Appends one message.
  ///
  /// - Parameter record: one whole `MessageRecord`; copied.
  @inlinable package mutating func append(
    _ header: DeliveryHeader, record: UnsafeRawBufferPointer, to bytes: inout [UInt8]
  ) {
    let fields = (
      header.delivery.rawValue.littleEndian, header.token.rawValue.littleEndian,
      header.message.rawValue.littleEndian, header.lease.rawValue.littleEndian,
      header.granted.rawValue.littleEndian,
      (UInt64(header.attempt) | (header.isRedelivery ? 1 << 32 : 0)).littleEndian
    )
    // SAFETY: reads the tuple's own 48 bytes.
    withUnsafeBytes(of: fields) { bytes.append(contentsOf: $0) }
    bytes.append(contentsOf: record)
    increment()
  }

  @usableFromInline mutating func increment() { count &+= 1 }

  /// Ends the frame. One without messages is a bug.
  @inlinable package func finish(in bytes: inout [UInt8]) {
    invariant(count > 0, "deliver frame without messages")
    bytes.patch(count, at: start + Frame.headerBytes + 4)
    Frame.finish(start, in: &bytes)
  }
}

/// A deliver frame whose sizes were checked, its messages still in the connection's bytes.
@frozen @usableFromInline package struct DeliverView {
  @usableFromInline package let consumer: ConsumerID
  /// Messages, at least 1.
  @usableFromInline package let count: Int
  /// Borrowed: `count` headers, each with its record.
  @usableFromInline let messages: UnsafeRawBufferPointer

  /// - Throws: `truncated`, `trailingBytes`, `invalidValue`. The records' insides are not looked
  ///   at: `MessageRecord.parts` checks them when it takes them apart.
  package init(decoding frame: FrameView) throws(FrameError) {
    var reader = FieldReader(frame)
    consumer = try reader.identifier()
    count = Int(try reader.integer(UInt32.self))
    messages = try reader.rest()
    guard count > 0 else { throw .invalidValue(.deliver, field: "count", value: 0) }
    var offset = 0
    for _ in 0..<count {
      let fixed = DeliveryHeader.byteCount + MessageRecord.fixedBytes
      let available = messages.count - offset
      guard available >= fixed else {
        throw .truncated(.deliver, offset: offset, needed: fixed, available: available)
      }
      let record = MessageRecord.size(in: messages, at: offset + DeliveryHeader.byteCount)
      guard record >= MessageRecord.fixedBytes else {
        throw .invalidValue(.deliver, field: "record size", value: UInt64(record))
      }
      guard available - DeliveryHeader.byteCount >= record else {
        throw .truncated(.deliver, offset: offset, needed: record, available: available)
      }
      offset += DeliveryHeader.byteCount + record
    }
    guard offset == messages.count else {
      throw .trailingBytes(.deliver, bytes: messages.count - offset)
    }
  }

  /// Hands each message's header and record, borrowed, to `body` in order.
  @inlinable package func forEachMessage<Failure: Error>(
    _ body: (DeliveryHeader, UnsafeRawBufferPointer) throws(Failure) -> Void
  ) throws(Failure) {
    var offset = 0
    while offset < messages.count {
      let recordStart = offset &+ DeliveryHeader.byteCount
      // SAFETY: `init` walked over the same sizes within the same bytes.
      let size = UInt32(
        littleEndian: messages.loadUnaligned(fromByteOffset: recordStart, as: UInt32.self))
      let end = recordStart &+ Int(size)
      try body(
        header(at: offset), UnsafeRawBufferPointer(rebasing: messages[recordStart..<end]))
      offset = end
    }
  }

  @inlinable func header(at offset: Int) -> DeliveryHeader {
    // SAFETY: `init` checked that a whole header lies at `offset`.
    func word(_ field: Int) -> UInt64 {
      UInt64(
        littleEndian: messages.loadUnaligned(
          fromByteOffset: offset &+ field &* 8, as: UInt64.self))
    }
    return DeliveryHeader(
      delivery: DeliveryID(rawValue: word(0)), token: FencingToken(rawValue: word(1)),
      message: MessageID(rawValue: word(2)), lease: Nanoseconds(rawValue: word(3)),
      granted: MachineTime(rawValue: word(4)), attempt: UInt32(truncatingIfNeeded: word(5)),
      isRedelivery: word(5) & 1 << 32 != 0)
  }
}
