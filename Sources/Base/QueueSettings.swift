// What a queue is declared with: part of the protocol, of the log and of the machine's state.

/// What happens to a publish to a full queue.
package enum OverflowRule: UInt8, Sendable {
  /// The publisher gets `queueFull`.
  case reject = 0
  /// The oldest message makes room; it goes to the dead-letter queue where there is one.
  case dropOldest = 1

  /// As the command line says it.
  package var name: String {
    switch self {
    case .reject: "reject"
    case .dropOldest: "drop-oldest"
    }
  }
}

/// A queue's settings. Two declarations are the same if all of these are.
package struct QueueSettings: Hashable, Sendable {
  /// How long a consumer may hold a message before it goes back, at least 1 ms.
  package var lease: Nanoseconds = .seconds(30)
  /// After this many failed deliveries a message is dead-lettered (dropped where there is no
  /// dead-letter queue); 0 is no limit.
  package var deliveriesMax: UInt32 = 0
  /// Name of the queue that takes what failed; empty is none.
  package var deadLetterQueue: String = ""
  /// Wait before the second delivery; doubles with each. 0 is at once.
  package var retryDelay: Nanoseconds = .zero
  /// The longest wait between deliveries; 0 is no cap.
  package var retryDelayMax: Nanoseconds = .zero
  /// How far a wait may be shortened or lengthened by chance, in thousandths, 0...1000.
  package var retryJitterPermille: UInt16 = 0
  /// Messages older than this go; 0 is never.
  package var timeToLive: Nanoseconds = .zero
  /// The most messages that may wait; 0 is no limit.
  package var lengthMax: UInt64 = 0
  /// The most bytes of waiting records; 0 is no limit.
  package var bytesMax: UInt64 = 0
  package var overflow: OverflowRule = .reject
  /// Levels of priority, 1...32.
  package var priorities: UInt8 = 1
  /// How many messages of one key may be held at once; 0 is a queue without keys.
  package var keyLimit: UInt32 = 0
  /// The queue goes, with its messages, when it had no consumer and was not declared again for so
  /// long; 0 is never.
  package var expires: Nanoseconds = .zero
  /// Only one consumer gets messages, until it is gone; then the next.
  package var hasSingleActiveConsumer = false

  package init() {}

  /// A queue name: 1 to 255 bytes of UTF-8 without control characters. Behind the `//host:` of a queue in
  /// another virtual host than "/", whose name has at most 100, it may have as many.
  package static func isValid(name: String) -> Bool {
    guard name.unicodeScalars.allSatisfy({ $0.value >= 32 }) else { return false }
    let bytes = name.utf8
    if (1...255).contains(bytes.count) { return true }
    guard bytes.starts(with: "//".utf8), let colon = bytes.firstIndex(of: UInt8(ascii: ":"))
    else { return false }
    return bytes[..<colon].count <= 102 && bytes[colon...].count <= 256
  }

  /// The first setting that is impossible or contradicts another, as a sentence that names it as
  /// the command line does; nil if all are fine.
  package var fault: String? {
    if lease < .milliseconds(1) { return "lease must be at least 1ms" }
    if retryJitterPermille > 1000 { return "retry-jitter must be between 0 and 1" }
    if retryDelayMax != .zero, retryDelayMax < retryDelay {
      return "retry-max must not be below retry-delay"
    }
    if priorities < 1 || priorities > 32 { return "priorities must be between 1 and 32" }
    if expires != .zero, expires < .milliseconds(1) { return "expires must be at least 1ms" }
    if !deadLetterQueue.isEmpty, !Self.isValid(name: deadLetterQueue) {
      return "dead-letter must be a queue name of 1 to 255 bytes"
    }
    return nil
  }

  package func encode(into bytes: inout [UInt8]) {
    bytes.put(lease)
    bytes.put(deliveriesMax)
    bytes.putShortText(deadLetterQueue)
    bytes.put(retryDelay)
    bytes.put(retryDelayMax)
    bytes.put(retryJitterPermille)
    bytes.put(timeToLive)
    bytes.put(lengthMax)
    bytes.put(bytesMax)
    bytes.put(overflow.rawValue)
    bytes.put(priorities)
    bytes.put(keyLimit)
    bytes.put(expires)
    bytes.put(UInt8(hasSingleActiveConsumer ? 1 : 0))
  }

  /// - Throws: `ByteReaderError` where the bytes end early. An unknown overflow rule reads as
  ///   `reject`, which a newer peer avoids by its protocol version.
  package init(decoding reader: inout ByteReader) throws(ByteReaderError) {
    lease = try reader.identifier()
    deliveriesMax = try reader.integer()
    deadLetterQueue = try reader.shortText()
    retryDelay = try reader.identifier()
    retryDelayMax = try reader.identifier()
    retryJitterPermille = try reader.integer()
    timeToLive = try reader.identifier()
    lengthMax = try reader.integer()
    bytesMax = try reader.integer()
    overflow = OverflowRule(rawValue: try reader.integer()) ?? .reject
    priorities = try reader.integer()
    keyLimit = try reader.integer()
    expires = try reader.identifier()
    hasSingleActiveConsumer = try reader.integer(UInt8.self) != 0
  }
}

/// How a delivery ends. The raw value is on the wire and in the log.
@frozen @usableFromInline package enum SettleKind: UInt8, Sendable, CaseIterable {
  /// Done: the message is gone for good (G3).
  case acknowledge = 1
  /// Failed: it goes back to its place, or to the dead-letter queue after too many attempts.
  case negative = 2
  /// Never to be tried again: straight to the dead-letter queue.
  case reject = 3
  /// Handed back untried: goes back to its place and the attempt does not count.
  case release = 4
}

/// Consecutive deliveries of one consumer.
@frozen @usableFromInline package struct DeliveryRange: Hashable, Sendable {
  @usableFromInline package var first: DeliveryID
  /// Included; not before `first`.
  @usableFromInline package var last: DeliveryID

  @usableFromInline package init(first: DeliveryID, last: DeliveryID) {
    self.first = first
    self.last = last
  }
}

/// A queue at a glance.
package struct QueueSummary: Hashable, Sendable {
  package var id: QueueID
  package var name: String
  package var settings: QueueSettings
  /// Waiting to be delivered.
  package var ready: UInt64
  /// Held by consumers.
  package var leased: UInt64
  /// Waiting for their time.
  package var delayed: UInt64
  package var consumers: UInt32
  /// Bytes of the records of all of these.
  package var bytes: UInt64
  /// Since the queue was declared.
  package var published: UInt64
  package var delivered: UInt64
  package var acknowledged: UInt64
  package var redelivered: UInt64
  package var deadLettered: UInt64

  package init(
    id: QueueID, name: String, settings: QueueSettings, ready: UInt64, leased: UInt64,
    delayed: UInt64, consumers: UInt32, bytes: UInt64, published: UInt64, delivered: UInt64,
    acknowledged: UInt64, redelivered: UInt64, deadLettered: UInt64
  ) {
    self.id = id
    self.name = name
    self.settings = settings
    self.ready = ready
    self.leased = leased
    self.delayed = delayed
    self.consumers = consumers
    self.bytes = bytes
    self.published = published
    self.delivered = delivered
    self.acknowledged = acknowledged
    self.redelivered = redelivered
    self.deadLettered = deadLettered
  }
}
