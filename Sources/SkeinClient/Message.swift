// What is published and how it is named afterwards.

import Base

/// A message to publish. It keeps its bytes exactly as given.
public struct Message: Hashable, Sendable {
  /// At most as large as the cluster allows (32 MiB unless configured otherwise).
  public var body: [UInt8]
  /// In this order; names need not be unique. At most 65,535, each name at most 65,535 bytes.
  public var headers: [MessageHeader]
  /// For queues that are declared with keys; empty is none.
  public var key: String
  /// As in MIME; empty is none.
  public var contentType: String
  /// For queues that are declared with priorities: 0 is the lowest and the usual. What is above a
  /// queue's highest counts as that.
  public var priority: UInt8
  /// Delivered this long after it is stored, not before; nil is at once.
  public var delay: Duration?
  /// Too old this long after it is stored, if nobody has it then: it goes to the dead-letter queue
  /// where there is one. Counts from the publish, so it should be longer than `delay`.
  public var timeToLive: Duration?

  public init(
    body: [UInt8], headers: [MessageHeader] = [], key: String = "", contentType: String = "",
    priority: UInt8 = 0, delay: Duration? = nil, timeToLive: Duration? = nil
  ) {
    self.body = body
    self.headers = headers
    self.key = key
    self.contentType = contentType
    self.priority = priority
    self.delay = delay
    self.timeToLive = timeToLive
  }

  /// A message whose body is `text` as UTF-8.
  public init(_ text: String, headers: [MessageHeader] = [], key: String = "") {
    self.init(body: Array(text.utf8), headers: headers, key: key)
  }
}

/// A name and a value that travel with a message.
public struct MessageHeader: Hashable, Sendable {
  public var name: String
  public var value: [UInt8]

  public init(_ name: String, _ value: [UInt8]) {
    self.name = name
    self.value = value
  }

  /// A header whose value is `text` as UTF-8.
  public init(_ name: String, _ text: String) {
    self.init(name, Array(text.utf8))
  }
}

/// The id of a stored message. Ids of one queue grow in its order. As text: `index-ordinal`.
public struct MessageIdentifier: Hashable, Comparable, Sendable, LosslessStringConvertible {
  let stored: Base.MessageID

  init(_ stored: Base.MessageID) { self.stored = stored }

  /// Reads `index-ordinal`, as `description` writes it; nil for anything else.
  public init?(_ description: String) {
    guard let stored = Base.MessageID(text: description) else { return nil }
    self.stored = stored
  }

  public var description: String { stored.description }

  public static func < (left: MessageIdentifier, right: MessageIdentifier) -> Bool {
    left.stored < right.stored
  }
}

/// What a confirmed publish gets: the message is on the disks of a majority.
public struct MessageReceipt: Hashable, Sendable {
  /// In the first queue that it was published to.
  public let id: MessageIdentifier
  /// By which the publish itself is known.
  public let reference: PublishReference
  /// In how many queues it is stored.
  public let copies: Int

  init(id: MessageIdentifier, reference: PublishReference, copies: Int = 1) {
    self.id = id
    self.reference = reference
    self.copies = copies
  }

  /// The id in each queue, in the order in which they were named.
  public var ids: [MessageIdentifier] {
    (0..<UInt64(copies)).map {
      MessageIdentifier(Base.MessageID(rawValue: id.stored.rawValue + $0))
    }
  }
}

/// The name of a publish: its producer and its number among that producer's. With it one can ask
/// what became of a publish whose answer never came, also from another process.
public struct PublishReference: Hashable, Sendable, LosslessStringConvertible {
  /// The producer that the client drew at random or was given in its options.
  public let producer: UInt64
  /// From 1, without gaps.
  public let sequence: UInt64

  public init(producer: UInt64, sequence: UInt64) {
    self.producer = producer
    self.sequence = sequence
  }

  /// Reads `producer/sequence`, as `description` writes it; nil for anything else.
  public init?(_ description: String) {
    let parts = description.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, let producer = UInt64(parts[0], radix: 16),
      let sequence = UInt64(parts[1])
    else { return nil }
    self.init(producer: producer, sequence: sequence)
  }

  public var description: String { "\(String(producer, radix: 16))/\(sequence)" }
}

/// What became of a publish.
public enum PublishOutcome: Hashable, Sendable {
  /// With its id, in the first queue if it was published to several.
  case stored(MessageIdentifier)
  case refused(RefusalReason)
  /// The cluster has not seen it so far.
  case notSeen
  /// It was answered and the client had the answer, so long ago that it was forgotten.
  case forgotten
}

extension Message {
  var parts: MessageParts {
    MessageParts(
      body: body, headers: headers.map { ($0.name, $0.value) }, key: key,
      contentType: contentType, priority: priority, delay: delay?.nanoseconds,
      timeToLive: timeToLive?.nanoseconds)
  }

  init(_ parts: MessageParts) {
    self.init(
      body: parts.body, headers: parts.headers.map { MessageHeader($0.name, $0.value) },
      key: parts.key, contentType: parts.contentType, priority: parts.priority,
      delay: parts.delay.map { Duration($0) }, timeToLive: parts.timeToLive.map { Duration($0) })
  }

  /// The bytes of the message's record. Throws what makes it impossible to store.
  @discardableResult
  func check(contentBytesMax: Int) throws(SkeinError) -> Int {
    for span in [delay, timeToLive] {
      if let span, span < .zero {
        throw .invalidMessage("its delay or time to live is negative")
      }
    }
    let headBytes =
      MessageRecord.fixedBytes + (delay == nil ? 0 : 8) + (timeToLive == nil ? 0 : 8)
    var bytes = headBytes + body.count
    if !headers.isEmpty || !key.isEmpty || !contentType.isEmpty {
      let short = MessageRecord.shortFieldMax
      guard headers.count <= short else {
        throw .invalidMessage("it has \(headers.count) headers, over \(short)")
      }
      guard key.utf8.count <= short, contentType.utf8.count <= short,
        headers.allSatisfy({ $0.name.utf8.count <= short })
      else {
        throw .invalidMessage("its key, content type or a header's name is over \(short) bytes")
      }
      bytes += key.utf8.count + contentType.utf8.count
      for header in headers { bytes += 6 + header.name.utf8.count + header.value.count }
    }
    // The node's limit is about the message, not about the head of its record.
    let contentBytes = bytes - headBytes
    guard contentBytes <= contentBytesMax else {
      throw .messageTooLarge(bytes: contentBytes, limit: contentBytesMax)
    }
    return bytes
  }
}
