// A transaction (G10): settle deliveries and publish messages, to one or several queues each, in one
// step of the machine. All of it happens or nothing does.
//
//   u64 session, u64 first number, u64 answered through, u64 holder
//   u16 settles: u32 consumer, u8 kind, u8 has delay, u64 delay, u16 + error, u16 ranges
//   u16 parts:   u16 queues: u32 each; u32 messages, u32 bytes of their run
//   the runs, one behind the other
//
// A message has one number of its producer however many queues it goes to, and its record lies in
// the log once.

import Base

/// Deliveries of one consumer that a transaction ends.
package struct TransactionSettle: Hashable, Sendable {
  package var consumer: ConsumerID
  package var kind: SettleKind
  /// Ascending, from 1, without overlap.
  package var ranges: [DeliveryRange]
  /// As in `CommandWriter.settle`.
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
package struct TransactionPart: Hashable, Sendable {
  /// At least one. One that is named twice gets the messages twice.
  package var queues: [QueueID]
  /// Messages, at least 1.
  package var count: Int
  /// Bytes of their records.
  package var runBytes: Int

  package init(queues: [QueueID], count: Int, runBytes: Int) {
    self.queues = queues
    self.count = count
    self.runBytes = runBytes
  }
}

extension CommandWriter {
  /// Publishes the records of `run` as the producer's numbers from `first`, and settles deliveries:
  /// both or neither. What makes any of it impossible is the answer to all the numbers.
  ///
  /// - Parameters:
  ///   - holder: the session that has the deliveries. If it is not `session` any more, nothing is
  ///     done: its consumers and deliveries have the same numbers as those of other sessions.
  ///   - settles: at most `FixedLimits.partsPerTransaction`, together no more than
  ///     `FixedLimits.rangesPerTransaction` ranges; no delivery twice.
  ///   - parts: at least one, together no more than `FixedLimits.copiesPerTransaction` messages,
  ///     each queue's counted.
  ///   - run: the records of all parts in their order, checked by `MessageRecord.check`.
  package static func transact(
    _ session: SessionID, first: PublishSequence, answeredThrough: PublishSequence,
    holder: SessionID, settles: [TransactionSettle], parts: [TransactionPart],
    run: UnsafeRawBufferPointer, into payload: inout [UInt8]
  ) {
    let start = begin(.transact, &payload)
    payload.put(session)
    payload.put(first)
    payload.put(answeredThrough)
    payload.put(holder)
    payload.put(UInt16(settles.count))
    for settle in settles {
      payload.put(settle.consumer)
      payload.put(settle.kind.rawValue)
      payload.put(UInt8(settle.delay == nil ? 0 : 1))
      payload.put(settle.delay ?? .zero)
      payload.putShortText(settle.error.cut(toBytes: FixedLimits.errorBytesMax))
      put(settle.ranges, &payload)
    }
    payload.put(UInt16(parts.count))
    for part in parts {
      payload.put(UInt16(part.queues.count))
      for queue in part.queues { payload.put(queue) }
      payload.put(UInt32(part.count))
      payload.put(UInt32(part.runBytes))
    }
    payload.append(contentsOf: run)
    end(start, &payload)
  }
}

/// A transaction as it is read back.
struct Transact {
  struct SettlePart {
    var consumer: ConsumerID
    var kind: SettleKind
    var delay: Nanoseconds?
    var error: String
    var ranges: EncodedRanges
  }

  struct Part {
    var queues: [QueueID]
    var count: Int
    var run: UnsafeRawBufferPointer
    /// Where the run begins in the payload.
    var runOffset: Int

    var copies: Int { queues.count * count }
  }

  var session: SessionID
  var first: PublishSequence
  var answeredThrough: PublishSequence
  var holder: SessionID
  var settles: [SettlePart] = []
  var parts: [Part] = []
  /// Bytes behind the last part's run.
  private let surplus: Int

  init(_ reader: inout ByteReader, at offset: Int) throws(ByteReaderError) {
    session = try reader.identifier()
    first = try reader.identifier()
    answeredThrough = try reader.identifier()
    holder = try reader.identifier()
    for _ in 0..<(try reader.integer(UInt16.self)) {
      let consumer = try reader.identifier(ConsumerID.self)
      let kind = try reader.kind(SettleKind.self)
      let hasDelay = try reader.integer(UInt8.self) != 0
      let delay = try reader.identifier(Nanoseconds.self)
      settles.append(
        SettlePart(
          consumer: consumer, kind: kind, delay: hasDelay ? delay : nil,
          error: try reader.shortText(), ranges: try EncodedRanges(&reader)))
    }
    var runBytes: [Int] = []
    for _ in 0..<(try reader.integer(UInt16.self)) {
      var queues: [QueueID] = []
      for _ in 0..<(try reader.integer(UInt16.self)) { queues.append(try reader.identifier()) }
      let count = Int(try reader.integer(UInt32.self))
      runBytes.append(Int(try reader.integer(UInt32.self)))
      parts.append(
        Part(
          queues: queues, count: count, run: UnsafeRawBufferPointer(start: nil, count: 0),
          runOffset: 0))
    }
    for place in parts.indices {
      parts[place].runOffset = offset + reader.offset
      parts[place].run = try reader.take(runBytes[place])
    }
    surplus = reader.remaining
  }

  /// The numbers that it uses.
  var count: Int { parts.reduce(0) { $0 + $1.count } }
  /// The messages that it stores, each queue's counted.
  var copies: Int { parts.reduce(0) { $0 + $1.copies } }
  /// The ranges of deliveries that it names.
  var rangeCount: Int { settles.reduce(0) { $0 + $1.ranges.count } }
  /// The runs of answers that it makes if it is carried out: one goes on in the next part where
  /// each message has as many ids.
  var answerRuns: Int {
    zip(parts, parts.dropFirst()).count { $0.queues.count != $1.queues.count } + 1
  }

  /// Whether it keeps the limits and every run is exactly its part's records.
  var isWhole: Bool {
    guard surplus == 0, !parts.isEmpty, parts.count <= FixedLimits.partsPerTransaction,
      settles.count <= FixedLimits.partsPerTransaction
    else { return false }
    for settle in settles {
      guard settle.ranges.count <= FixedLimits.rangesPerSettle,
        settle.error.utf8.count <= FixedLimits.errorBytesMax
      else { return false }
    }
    for part in parts {
      guard (1...FixedLimits.queuesPerPart).contains(part.queues.count),
        (1...FixedLimits.copiesPerTransaction).contains(part.count),
        Publish.isWhole(part.run, count: part.count)
      else { return false }
    }
    return copies <= FixedLimits.copiesPerTransaction
  }

  /// Whether no delivery is named twice.
  var settlesAreApart: Bool {
    var all: [(consumer: ConsumerID, range: DeliveryRange)] = []
    for settle in settles {
      guard settle.ranges.areAscending else { return false }
      if settles.count == 1 { return true }
      for place in 0..<settle.ranges.count { all.append((settle.consumer, settle.ranges[place])) }
    }
    all.sort { ($0.consumer, $0.range.first) < ($1.consumer, $1.range.first) }
    return zip(all, all.dropFirst()).allSatisfy { left, right in
      left.consumer != right.consumer || left.range.last < right.range.first
    }
  }
}
