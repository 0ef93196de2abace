// The transaction frame: settle deliveries and publish messages in one step, all or nothing. It is
// numbered and answered like a publish of all its messages: by `confirmed` or `publishRefused`.
//
//   offset size
//        0    8  first            sequence of the first message; the others follow without gaps
//        8    8  answeredThrough  the client has the answers of all publishes up to this
//       16    8  holder           the session in which the deliveries were made
//       24       list of settles: u32 consumer, u8 kind, u8 has delay, u64 delay, text error,
//                list of ranges
//                list of parts: list of u32 queues, u32 messages, u32 bytes of their run
//                the runs of `MessageRecord`s, one behind the other

import Base

/// Deliveries of one consumer that a transaction ends.
package struct TransactSettle: Hashable, Sendable {
  package var consumer: ConsumerID
  package var kind: SettleKind
  /// Ascending and apart, from 1; at most `SettleRequest.rangesMax`.
  package var ranges: [DeliveryRange]
  package var delay: Nanoseconds?
  package var error: String

  package init(
    consumer: ConsumerID, kind: SettleKind = .acknowledge, ranges: [DeliveryRange],
    delay: Nanoseconds? = nil, error: String = ""
  ) {
    self.consumer = consumer
    self.kind = kind
    self.ranges = ranges
    self.delay = delay
    self.error = error
  }
}

/// Messages of a transaction that go to the same queues.
package struct TransactPart: Hashable, Sendable {
  /// At least one.
  package var queues: [QueueID]
  /// Messages, at least 1.
  package var count: Int
  package var runBytes: Int

  package init(queues: [QueueID], count: Int, runBytes: Int) {
    self.queues = queues
    self.count = count
    self.runBytes = runBytes
  }
}

/// A transaction, its records still in the connection's bytes.
package struct TransactView {
  package var first: PublishSequence
  package var answeredThrough: PublishSequence
  package var holder: SessionID
  package var settles: [TransactSettle]
  /// At least one.
  package var parts: [TransactPart]
  /// Of all parts in their order; borrowed, and not yet checked.
  package var run: UnsafeRawBufferPointer

  /// Settles and parts that a transaction may have, each.
  package static let partsMax = 1024
  /// Queues of one part.
  package static let queuesMax = 1024
  /// Messages that a transaction may store, each queue's counted.
  package static let copiesMax = 1 << 16

  // SAFETY: the caller keeps `run` alive and unchanged while the view is used.
  package init(
    first: PublishSequence, answeredThrough: PublishSequence, holder: SessionID,
    settles: [TransactSettle], parts: [TransactPart], run: UnsafeRawBufferPointer
  ) {
    self.first = first
    self.answeredThrough = answeredThrough
    self.holder = holder
    self.settles = settles
    self.parts = parts
    self.run = run
  }

  /// Messages, and so sequences.
  package var count: Int { parts.reduce(0) { $0 + $1.count } }
  /// Messages stored, each queue's counted.
  package var copies: Int { parts.reduce(0) { $0 + $1.count * $1.queues.count } }

  /// The records of part number `place`.
  package func run(of place: Int) -> UnsafeRawBufferPointer {
    let start = parts[..<place].reduce(0) { $0 + $1.runBytes }
    return UnsafeRawBufferPointer(rebasing: run[start..<start + parts[place].runBytes])
  }

  /// - Throws: `truncated`, `trailingBytes`, `invalidValue`, `notUTF8`.
  package init(decoding frame: FrameView) throws(FrameError) {
    var reader = FieldReader(frame)
    first = try reader.identifier()
    answeredThrough = try reader.identifier()
    holder = try reader.identifier()
    settles = try reader.list(elementBytesMin: 20) { (reader) throws(FrameError) in
      try TransactSettle(&reader)
    }
    parts = try reader.list(elementBytesMin: 16) { (reader) throws(FrameError) in
      try TransactPart(&reader)
    }
    run = try reader.rest()
    let runBytes = parts.reduce(0) { $0 + $1.runBytes }
    guard run.count >= runBytes else {
      throw .truncated(
        .transact, offset: frame.payload.count - run.count, needed: runBytes,
        available: run.count)
    }
    guard run.count == runBytes else {
      throw .trailingBytes(.transact, bytes: run.count - runBytes)
    }
    guard !parts.isEmpty, parts.count <= Self.partsMax else {
      throw .invalidValue(.transact, field: "number of parts", value: UInt64(parts.count))
    }
    guard settles.count <= Self.partsMax else {
      throw .invalidValue(.transact, field: "number of settles", value: UInt64(settles.count))
    }
    guard copies <= Self.copiesMax else {
      throw .invalidValue(.transact, field: "number of messages", value: UInt64(copies))
    }
    guard first > answeredThrough, first.rawValue < .max - UInt64(count) else {
      throw .invalidValue(.transact, field: "first sequence", value: first.rawValue)
    }
  }

  /// Appends the frame: the fields and one copy of the runs.
  package func encode(into bytes: inout [UInt8]) {
    encodeHead(into: &bytes)
    bytes.append(contentsOf: run)
  }

  /// Appends the frame but for its runs, which must follow.
  package func encodeHead(into bytes: inout [UInt8]) {
    let start = Frame.begin(.transact, in: &bytes)
    bytes.put(first)
    bytes.put(answeredThrough)
    bytes.put(holder)
    bytes.putList(settles) { $0.encode(into: &$1) }
    bytes.putList(parts) { $0.encode(into: &$1) }
    bytes.patch(UInt32(bytes.count - start - Frame.headerBytes + run.count), at: start)
  }

  /// Bytes of the whole frame's payload without the runs.
  package var headBytes: Int {
    var bytes: [UInt8] = []
    encodeHead(into: &bytes)
    return bytes.count - Frame.headerBytes
  }
}

extension TransactSettle {
  fileprivate func encode(into bytes: inout [UInt8]) {
    bytes.put(consumer)
    bytes.put(kind.rawValue)
    bytes.putFlag(delay != nil)
    bytes.put(delay ?? .zero)
    bytes.putClippedText(error, limit: SettleRequest.errorBytesMax)
    bytes.putList(ranges) { $1.put($0) }
  }

  fileprivate init(_ reader: inout FieldReader) throws(FrameError) {
    consumer = try reader.identifier()
    kind = try reader.choice(SettleKind.self, "settle kind")
    let hasDelay = try reader.flag("delay flag")
    let delay = try reader.identifier(Nanoseconds.self)
    self.delay = hasDelay ? delay : nil
    error = try reader.text()
    ranges = try reader.deliveryRanges()
  }
}

extension TransactPart {
  fileprivate func encode(into bytes: inout [UInt8]) {
    bytes.putList(queues) { $1.put($0) }
    bytes.put(UInt32(count))
    bytes.put(UInt32(runBytes))
  }

  fileprivate init(_ reader: inout FieldReader) throws(FrameError) {
    queues = try reader.list(elementBytesMin: 4) { (reader) throws(FrameError) in
      try reader.identifier()
    }
    count = Int(try reader.integer(UInt32.self))
    runBytes = Int(try reader.integer(UInt32.self))
    guard (1...TransactView.queuesMax).contains(queues.count) else {
      throw .invalidValue(reader.kind, field: "number of queues", value: UInt64(queues.count))
    }
    guard count >= 1, count <= runBytes / MessageRecord.fixedBytes else {
      throw .invalidValue(reader.kind, field: "count", value: UInt64(count))
    }
  }
}
