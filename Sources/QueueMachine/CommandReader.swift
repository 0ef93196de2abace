// Reading commands back: used by `apply` and by `CommandBatch.check`, so that what the check lets
// through is exactly what apply can read. The layout is in Commands.swift.

import Base

/// One command of a batch, not yet taken apart.
struct CommandFrame {
  var kind: CommandKind
  /// The fields.
  var fields: UnsafeRawBufferPointer
  /// Where the fields begin in the payload.
  var offset: Int
}

/// Walks over the commands of a batch.
struct CommandFrames {
  let payload: UnsafeRawBufferPointer
  private(set) var offset = CommandFrames.stampBytes

  static let stampBytes = 8
  static let headerBytes = 5

  // SAFETY: the caller keeps `payload` alive while it walks.
  /// The commands from `offset` to the payload's end, which is that of a bundle.
  init(_ payload: UnsafeRawBufferPointer, from offset: Int) {
    self.payload = payload
    self.offset = offset
  }

  init(_ payload: UnsafeRawBufferPointer) throws(CommandBatchError) {
    guard payload.count >= Self.stampBytes else { throw .truncated(offset: 0) }
    guard payload.count <= FixedLimits.payloadBytesMax else {
      throw .tooLarge(bytes: payload.count)
    }
    self.payload = payload
  }

  mutating func next() throws(CommandBatchError) -> CommandFrame? {
    if offset == payload.count { return nil }
    let start = offset
    guard payload.count - start >= Self.headerBytes else { throw .truncated(offset: start) }
    // SAFETY: the header was just seen to lie within the payload.
    let length = Int(
      UInt32(littleEndian: payload.loadUnaligned(fromByteOffset: start, as: UInt32.self)))
    guard length >= Self.headerBytes else { throw .malformed(offset: start) }
    guard length <= payload.count - start else { throw .truncated(offset: start) }
    guard let kind = CommandKind(rawValue: payload[start + 4]) else {
      throw .unknownCommand(payload[start + 4], offset: start)
    }
    offset = start + length
    let fields = start + Self.headerBytes
    return CommandFrame(
      kind: kind, fields: UnsafeRawBufferPointer(rebasing: payload[fields..<offset]),
      offset: fields)
  }
}

struct OpenSession {
  var origin: SessionOrigin
  var kind: SessionKind
  var producer: ProducerID
  var epoch: ProducerEpoch
  var attempt: OpenAttempt
  var sessionsMax: UInt32
  var timeout: Nanoseconds
  var name: String

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    origin = try SessionOrigin(decoding: &reader)
    kind = try reader.kind()
    producer = try reader.identifier()
    epoch = try reader.identifier()
    attempt = try reader.identifier()
    sessionsMax = try reader.integer()
    timeout = try reader.identifier()
    name = try reader.shortText()
  }
}

struct AttachSession {
  var session: SessionID
  var origin: SessionOrigin
  var consumers: [ConsumerPosition] = []

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    session = try reader.identifier()
    origin = try SessionOrigin(decoding: &reader)
    for _ in 0..<(try reader.integer(UInt16.self)) {
      consumers.append(
        ConsumerPosition(
          consumer: try reader.identifier(), lastDelivery: try reader.identifier()))
    }
  }
}

struct DetachSession {
  var session: SessionID
  var origin: SessionOrigin

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    session = try reader.identifier()
    origin = try SessionOrigin(decoding: &reader)
  }
}

struct DeclareQueue {
  var requester: Requester
  var tag: RequestTag
  var name: String
  var settings: QueueSettings

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    requester = try Requester(decoding: &reader)
    tag = try reader.identifier()
    name = try reader.shortText()
    settings = try QueueSettings(decoding: &reader)
  }
}

/// Delete and purge.
struct NameQueue {
  var requester: Requester
  var tag: RequestTag
  var name: String

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    requester = try Requester(decoding: &reader)
    tag = try reader.identifier()
    name = try reader.shortText()
  }
}

/// Cancel and reschedule; the former without a delay.
struct NameMessage {
  var requester: Requester
  var tag: RequestTag
  var queue: String
  var message: MessageID
  var delay = Nanoseconds.zero

  init(_ reader: inout ByteReader, hasDelay: Bool) throws(ByteReaderError) {
    requester = try Requester(decoding: &reader)
    tag = try reader.identifier()
    queue = try reader.shortText()
    message = try reader.identifier()
    if hasDelay { delay = try reader.identifier() }
  }
}

struct RedriveQueue {
  var requester: Requester
  var tag: RequestTag
  var queue: String
  var which: RedriveChoice
  var after: MessageID
  var through: MessageID
  var limit: UInt32

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    requester = try Requester(decoding: &reader)
    tag = try reader.identifier()
    queue = try reader.shortText()
    let at = reader.offset
    let kind = try reader.integer(UInt8.self)
    let value = try reader.integer(UInt64.self)
    switch (kind, UInt8(exactly: value).flatMap(DeadLetterReason.init)) {
    case (0, _): which = .all
    case (1, let reason?): which = .reason(reason)
    case (2, _): which = .message(MessageID(rawValue: value))
    default: throw .truncated(offset: at, needed: 1, available: 0)
    }
    after = try reader.identifier()
    through = try reader.identifier()
    limit = try reader.integer()
  }
}

struct Publish {
  var session: SessionID
  var first: PublishSequence
  var answeredThrough: PublishSequence
  var queue: QueueID
  var count: UInt32
  var run: UnsafeRawBufferPointer
  /// Where the run begins in the payload.
  var runOffset: Int
  /// The answer to all of it, decided before it was proposed; the run is empty then.
  var refusal: Refusal?

  init(_ reader: inout ByteReader, at offset: Int) throws(ByteReaderError) {
    session = try reader.identifier()
    first = try reader.identifier()
    answeredThrough = try reader.identifier()
    queue = try reader.identifier()
    count = try reader.integer()
    runOffset = offset + reader.offset
    run = try reader.take(reader.remaining)
  }

  /// A publish that was refused before it was proposed.
  init(refused reader: inout ByteReader) throws(ByteReaderError) {
    session = try reader.identifier()
    first = try reader.identifier()
    answeredThrough = try reader.identifier()
    queue = QueueID(0)
    count = try reader.integer()
    let at = reader.offset
    guard let named = Refusal(rawValue: try reader.integer()), named.isFinal, count > 0 else {
      throw .truncated(offset: at, needed: 1, available: 0)
    }
    refusal = named
    run = UnsafeRawBufferPointer(start: nil, count: 0)
    runOffset = 0
  }

  /// Whether the run is exactly `count` records by their lengths, which have room for what
  /// their flags and their keys say.
  var isWhole: Bool { Self.isWhole(run, count: Int(count)) }

  static func isWhole(_ run: UnsafeRawBufferPointer, count: Int) -> Bool {
    var offset = 0
    for _ in 0..<count {
      guard run.count - offset >= MessageRecord.fixedBytes else { return false }
      let size = MessageRecord.size(in: run, at: offset)
      guard size >= MessageRecord.fixedBytes, size <= run.count - offset else { return false }
      let flags = MessageRecord.flags(in: run, at: offset)
      let keyBytes = run.loadUnaligned(fromByteOffset: offset + 8, as: UInt16.self)
      let least = flags.nonzeroBitCount * 8 + Int(UInt16(littleEndian: keyBytes))
      if least > 0, size < MessageRecord.fixedBytes + least { return false }
      offset += size
    }
    return offset == run.count && count > 0
  }
}

/// Subscribe and set credit; the latter without a queue.
struct Subscribe {
  var session: SessionID
  var consumer: ConsumerID
  var tag: RequestTag
  var queue = QueueID(0)
  var credit: UInt32
  var priority: Int16 = 0
  var isExclusive = false

  init(_ reader: inout ByteReader, hasQueue: Bool) throws(ByteReaderError) {
    session = try reader.identifier()
    consumer = try reader.identifier()
    tag = try reader.identifier()
    if hasQueue { queue = try reader.identifier() }
    credit = try reader.integer()
    if hasQueue {
      priority = Int16(bitPattern: try reader.integer())
      isExclusive = try reader.integer(UInt8.self) != 0
    }
  }
}

struct Unsubscribe {
  var session: SessionID
  var consumer: ConsumerID
  var tag: RequestTag
  var returnHeld: Bool

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    session = try reader.identifier()
    consumer = try reader.identifier()
    tag = try reader.identifier()
    returnHeld = try reader.integer(UInt8.self) != 0
  }
}

/// Ranges as they lie in a command.
struct EncodedRanges {
  private let bytes: UnsafeRawBufferPointer
  let count: Int

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    count = Int(try reader.integer(UInt16.self))
    bytes = try reader.take(count * 16)
  }

  /// Whether each begins behind the end of the one before, and none at 0. Only then a delivery is
  /// in one range at most, and the command costs no more than what is held.
  var areAscending: Bool {
    var last = DeliveryID(0)
    for place in 0..<count {
      let range = self[place]
      if range.first <= last || range.last < range.first { return false }
      last = range.last
    }
    return true
  }

  subscript(place: Int) -> DeliveryRange {
    invariant(place >= 0 && place < count, "range \(place) of \(count)")
    // SAFETY: `init` took 16 bytes for each of `count` ranges.
    let first = bytes.loadUnaligned(fromByteOffset: place * 16, as: UInt64.self)
    let last = bytes.loadUnaligned(fromByteOffset: place * 16 + 8, as: UInt64.self)
    return DeliveryRange(
      first: DeliveryID(rawValue: UInt64(littleEndian: first)),
      last: DeliveryID(rawValue: UInt64(littleEndian: last)))
  }
}

struct Settle {
  var session: SessionID
  var sequence: CommandSequence
  var answeredThrough: CommandSequence
  var consumer: ConsumerID
  var kind: SettleKind
  /// Wait before the next attempt; nil for the queue's own rule.
  var delay: Nanoseconds?
  private var errorBytes: UnsafeRawBufferPointer
  var ranges: EncodedRanges

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    session = try reader.identifier()
    sequence = try reader.identifier()
    answeredThrough = try reader.identifier()
    consumer = try reader.identifier()
    kind = try reader.kind()
    let hasDelay = try reader.integer(UInt8.self) != 0
    let span = try reader.identifier(Nanoseconds.self)
    delay = hasDelay ? span : nil
    let count = Int(try reader.integer(UInt16.self))
    guard count <= FixedLimits.errorBytesMax else {
      throw .truncated(
        offset: reader.offset, needed: count, available: FixedLimits.errorBytesMax)
    }
    errorBytes = try reader.take(count)
    ranges = try EncodedRanges(&reader)
  }

  /// Made only where it is needed: acknowledgements have none.
  var error: String { String(decoding: errorBytes, as: UTF8.self) }
}

struct Extend {
  var session: SessionID
  var sequence: CommandSequence
  var answeredThrough: CommandSequence
  var consumer: ConsumerID
  var duration: Nanoseconds
  var ranges: EncodedRanges

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    session = try reader.identifier()
    sequence = try reader.identifier()
    answeredThrough = try reader.identifier()
    consumer = try reader.identifier()
    duration = try reader.identifier()
    ranges = try EncodedRanges(&reader)
  }
}

extension ByteReader {
  /// An enum by its raw value. An unknown one counts as the end of what can be read.
  mutating func kind<Kind: RawRepresentable>(
    _ type: Kind.Type = Kind.self
  ) throws(ByteReaderError) -> Kind where Kind.RawValue == UInt8 {
    let at = offset
    guard let kind = Kind(rawValue: try integer(UInt8.self)) else {
      throw .truncated(offset: at, needed: 1, available: 0)
    }
    return kind
  }
}

extension SessionOrigin {
  init(decoding reader: inout ByteReader) throws(ByteReaderError) {
    self.init(node: try reader.identifier(), connection: try reader.integer())
  }
}

extension Requester {
  init(decoding reader: inout ByteReader) throws(ByteReaderError) {
    let session = try reader.identifier(SessionID.self)
    let origin = try SessionOrigin(decoding: &reader)
    self = session == .none ? .connection(origin) : .session(session)
  }
}
