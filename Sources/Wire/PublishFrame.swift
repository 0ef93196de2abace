// The publish frame: one run of records, untouched from the client's task to the log.
//
//   offset size
//        0    4  queue
//        4    4  count            records in the run
//        8    8  first            sequence of the first; the others follow without gaps
//       16    8  answeredThrough  the client has the answers of all publishes up to this
//       24    4  runBytes
//       28    4  0
//       32       run of `MessageRecord`s

import Base

/// A publish, its records still in the connection's bytes.
@frozen @usableFromInline package struct PublishView {
  @usableFromInline package var queue: QueueID
  /// Sequence of the first record; the others follow without gaps.
  @usableFromInline package var first: PublishSequence
  /// The client has had the answers to all publishes up to this one: they may be forgotten.
  @usableFromInline package var answeredThrough: PublishSequence
  /// Records in `run`, at least 1, as the client says; `MessageRecord.check` counts them.
  @usableFromInline package var count: Int
  /// Borrowed, and not yet checked.
  @usableFromInline package var run: UnsafeRawBufferPointer

  // SAFETY: the caller keeps `run` alive and unchanged while the view is used.
  @inlinable package init(
    queue: QueueID, first: PublishSequence, answeredThrough: PublishSequence, count: Int,
    run: UnsafeRawBufferPointer
  ) {
    self.queue = queue
    self.first = first
    self.answeredThrough = answeredThrough
    self.count = count
    self.run = run
  }

  /// Sequence of the last record.
  @inlinable package var last: PublishSequence {
    PublishSequence(first.rawValue &+ UInt64(count) &- 1)
  }

  package static var fixedBytes: Int { 32 }

  /// - Throws: `truncated`, `trailingBytes`, `invalidValue`.
  package init(decoding frame: FrameView) throws(FrameError) {
    var reader = FieldReader(frame)
    queue = try reader.identifier()
    count = Int(try reader.integer(UInt32.self))
    first = try reader.identifier()
    answeredThrough = try reader.identifier()
    let runBytes = Int(try reader.integer(UInt32.self))
    let reserved = try reader.integer(UInt32.self)
    run = try reader.rest()
    guard reserved == 0 else {
      throw .invalidValue(.publish, field: "reserved field", value: UInt64(reserved))
    }
    guard run.count >= runBytes else {
      throw .truncated(
        .publish, offset: Self.fixedBytes, needed: runBytes, available: run.count)
    }
    guard run.count == runBytes else {
      throw .trailingBytes(.publish, bytes: run.count - runBytes)
    }
    guard count >= 1, count <= runBytes / MessageRecord.fixedBytes else {
      throw .invalidValue(.publish, field: "count", value: UInt64(count))
    }
    guard first > answeredThrough, first.rawValue < .max - UInt64(count) else {
      throw .invalidValue(.publish, field: "first sequence", value: first.rawValue)
    }
  }

  /// Appends the frame: the fields and one copy of the run.
  package func encode(into bytes: inout [UInt8]) {
    encodeHead(into: &bytes)
    bytes.append(contentsOf: run)
  }

  /// Appends the frame but for its run, which must follow: for a sender that need not copy it.
  package func encodeHead(into bytes: inout [UInt8]) {
    let start = Frame.begin(.publish, in: &bytes)
    bytes.put(queue)
    bytes.put(UInt32(count))
    bytes.put(first)
    bytes.put(answeredThrough)
    bytes.put(UInt32(run.count))
    bytes.put(UInt32(0))
    bytes.patch(UInt32(Self.fixedBytes + run.count), at: start)
  }
}
