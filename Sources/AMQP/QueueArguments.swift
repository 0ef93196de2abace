// The arguments of queue.declare that mean something, checked one by one with the texts that
// RabbitMQ has for what is wrong. Unknown arguments are kept and mean nothing.

import Base

/// What happens to a message for a full queue (`x-overflow`).
package enum QueueOverflow: UInt8, Hashable, Sendable {
  /// The oldest goes, to the dead-letter exchange if there is one.
  case dropHead = 0
  case rejectPublish = 1
  case rejectPublishAndDeadLetter = 2

  init?(name: String) {
    switch name {
    case "drop-head": self = .dropHead
    case "reject-publish": self = .rejectPublish
    case "reject-publish-dlx": self = .rejectPublishAndDeadLetter
    default: return nil
    }
  }
}

/// What `x-queue-type` says. All our queues are replicated; the type decides what else may be said.
package enum QueueType: UInt8, Hashable, Sendable {
  case classic = 1
  case quorum = 2

  init?(name: String) {
    switch name {
    case "classic": self = .classic
    case "quorum": self = .quorum
    default: return nil
    }
  }

  /// As texts name it.
  var moduleName: String {
    switch self {
    case .classic: "rabbit_classic_queue"
    case .quorum: "rabbit_quorum_queue"
    }
  }
}

/// A queue's arguments. Spans of time are milliseconds.
package struct QueueArguments: Hashable, Sendable {
  /// As sent, without its length.
  package private(set) var table: [UInt8] = []
  package var messageTTL: UInt64?
  /// The queue goes when nobody used it for so long.
  package var expires: UInt64?
  package var maxLength: UInt64?
  package var maxLengthBytes: UInt64?
  package var overflow: QueueOverflow?
  /// The highest priority, 1...255; nil and 0 are the same: no priorities.
  package var maxPriority: UInt8?
  /// "" is the default exchange.
  package var deadLetterExchange: String?
  package var deadLetterRoutingKey: [UInt8]?
  /// So many redeliveries, then the message is a dead letter: `x-delivery-limit`, or what some
  /// tutorials call `x-max-delivery-attempts`.
  package var deliveryLimit: UInt64?
  /// The limit came under the name that exists nowhere else: worth a line in the log.
  package var usesDeliveryLimitSynonym = false
  package var type: QueueType?
  package var singleActiveConsumer = false
  /// Our own (G9): `x-retry-delay` before the second try, doubled for each further one up to
  /// `x-retry-max-delay`, moved at random by up to `x-retry-jitter` (parts per thousand of it).
  package var retryDelay: UInt64?
  package var retryMaxDelay: UInt64?
  package var retryJitterThousandths: UInt16?
  /// Our own: `x-lease`, how long a consumer may hold a message.
  package var lease: UInt64?
  /// Arguments beginning with `x-` that mean nothing, in the order sent: `skein doctor` names them.
  package var unknown: [String] = []

  package init() {}

  /// Reads and checks what `table` says.
  ///
  /// - Parameters:
  ///   - resource: the queue as texts name it, from `Fault.queue`.
  package init(_ table: FieldTable, of resource: String) throws(Fault) {
    self.table = table.encoded
    var reader = ArgumentReader(table: table, resource: resource)
    expires = try reader.expiry("x-expires", zeroAllowed: false)
    messageTTL = try reader.expiry("x-message-ttl", zeroAllowed: true)
    deadLetterExchange = try reader.string("x-dead-letter-exchange")
    deadLetterRoutingKey = try reader.shortBytes("x-dead-letter-routing-key")
    if deadLetterRoutingKey != nil, deadLetterExchange == nil {
      throw reader.invalid("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined")
    }
    maxLength = try reader.count("x-max-length")
    maxLengthBytes = try reader.count("x-max-length-bytes")
    if let highest = try reader.count("x-max-priority") {
      guard let small = UInt8(exactly: highest) else {
        throw reader.invalid("x-max-priority", "{max_value_exceeded,\(highest)}")
      }
      maxPriority = small
    }
    overflow = try reader.choice("x-overflow", QueueOverflow.init(name:), "invalid_overflow")
    _ = try reader.choice(
      "x-queue-mode", { ["default", "lazy"].contains($0) ? true : nil }, "invalid_queue_mode")
    singleActiveConsumer = try reader.flag("x-single-active-consumer") ?? false
    type = try reader.choice("x-queue-type", QueueType.init(name:), "invalid_queue_type")
    try readDeliveryLimit(&reader)
    try readOurOwn(&reader)
    unknown = table.unknownNames(but: Self.known)
  }

  private mutating func readDeliveryLimit(_ reader: inout ArgumentReader) throws(Fault) {
    deliveryLimit = try reader.count("x-delivery-limit")
    let synonym = try reader.count("x-max-delivery-attempts")
    if deliveryLimit == nil, synonym != nil {
      deliveryLimit = synonym
      usesDeliveryLimitSynonym = true
    }
  }

  private mutating func readOurOwn(_ reader: inout ArgumentReader) throws(Fault) {
    retryDelay = try reader.expiry("x-retry-delay", zeroAllowed: true)
    retryMaxDelay = try reader.expiry("x-retry-max-delay", zeroAllowed: true)
    retryJitterThousandths = try reader.fraction("x-retry-jitter")
    lease = try reader.expiry("x-lease", zeroAllowed: false)
  }

  /// The names that mean something, in the order in which a redeclaration is compared: RabbitMQ's
  /// order, then our own.
  static let known = [
    "x-expires", "x-message-ttl", "x-dead-letter-exchange", "x-dead-letter-routing-key",
    "x-max-length", "x-max-length-bytes", "x-max-priority", "x-overflow", "x-queue-mode",
    "x-single-active-consumer", "x-queue-type", "x-delivery-limit", "x-max-delivery-attempts",
    "x-retry-delay", "x-retry-max-delay", "x-retry-jitter", "x-lease",
  ]

  /// As `known`, each meaning once.
  static let compared = known.filter { $0 != deliveryLimitSynonym }
  private static let deliveryLimitSynonym = "x-max-delivery-attempts"

  /// What a table says of one of `compared`, under whichever name.
  static func value(of name: String, in table: FieldTable) -> FieldValue? {
    table[name] ?? (name == "x-delivery-limit" ? table[deliveryLimitSynonym] : nil)
  }

  /// What two declarations of a queue must have in common, in one form: the same bytes whatever the
  /// order of the arguments, the width of their integers, which of two names for one thing was used, and
  /// arguments that mean nothing.
  package var identity: [UInt8] {
    // What was declared was checked, so it can be read again.
    guard let table = try? FieldTable(table) else { return [] }
    var bytes: [UInt8] = []
    for name in Self.compared {
      guard let value = Self.value(of: name, in: table) else { continue }
      bytes.append(UInt8(name.utf8.count))
      bytes.append(contentsOf: name.utf8)
      (value.integer.map { .int64($0) } ?? value).encode(into: &bytes)
    }
    return bytes
  }
}

extension FieldTable {
  /// Names beginning with `x-` that are not among those that mean something, in the order sent.
  func unknownNames(but known: [String]) -> [String] {
    entries.compactMap { entry in
      let name = String(decoding: entry.name, as: UTF8.self)
      return name.hasPrefix("x-") && !known.contains(name) ? name : nil
    }
  }
}

/// Takes arguments out of a table, each with the faults that RabbitMQ has for it.
struct ArgumentReader {
  let table: FieldTable
  /// `queue 'q' in vhost '/'`.
  let resource: String

  /// Ten years, milliseconds: RabbitMQ's longest.
  private static let expiryMax: Int64 = 315_360_000_000

  func invalid(_ name: String, _ reason: String) -> Fault {
    Fault(.preconditionFailed, "invalid arg '\(name)' for \(resource): \(reason)")
  }

  private func unacceptable(_ name: String, _ value: FieldValue) -> Fault {
    invalid(name, "{unacceptable_type,\(value.typeName)}")
  }

  func count(_ name: String) throws(Fault) -> UInt64? {
    guard let value = table[name] else { return nil }
    guard let number = value.integer else { throw unacceptable(name, value) }
    guard number >= 0 else { throw invalid(name, "{value_negative,\(number)}") }
    return UInt64(number)
  }

  func expiry(_ name: String, zeroAllowed: Bool) throws(Fault) -> UInt64? {
    guard let number = try count(name) else { return nil }
    if number == 0, !zeroAllowed { throw invalid(name, "{value_zero,0}") }
    guard number <= Self.expiryMax else { throw invalid(name, "{value_too_big,\(number)}") }
    return number
  }

  /// What must fit into a short string when it is used: a routing key.
  func shortBytes(_ name: String) throws(Fault) -> [UInt8]? {
    guard let value = table[name] else { return nil }
    guard case .string(let bytes) = value else { throw unacceptable(name, value) }
    guard bytes.count <= 255 else { throw invalid(name, "{value_too_long,\(bytes.count)}") }
    return bytes
  }

  /// A name.
  func string(_ name: String) throws(Fault) -> String? {
    guard let bytes = try shortBytes(name) else { return nil }
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw invalid(name, "{invalid_value,longstr}")
    }
    return text
  }

  func choice<Choice>(
    _ name: String, _ choose: (String) -> Choice?, _ reason: String
  ) throws(Fault) -> Choice? {
    guard let value = table[name] else { return nil }
    guard let text = value.text else { throw unacceptable(name, value) }
    guard let choice = choose(text) else { throw invalid(name, reason) }
    return choice
  }

  func flag(_ name: String) throws(Fault) -> Bool? {
    guard let value = table[name] else { return nil }
    guard case .boolean(let flag) = value else { throw unacceptable(name, value) }
    return flag
  }

  /// A part from 0 to 1, as parts per thousand.
  func fraction(_ name: String) throws(Fault) -> UInt16? {
    guard let value = table[name] else { return nil }
    let number: Double
    switch value {
    case .float(let bits): number = Double(Float(bitPattern: bits))
    case .double(let bits): number = Double(bitPattern: bits)
    case .decimal(let scale, let digits):
      number = (0..<scale).reduce(Double(digits)) { rest, _ in rest / 10 }
    default:
      guard let integer = value.integer else { throw unacceptable(name, value) }
      number = Double(integer)
    }
    guard number >= 0, number <= 1 else { throw invalid(name, "{value_not_in_0_to_1}") }
    return UInt16((number * 1000).rounded())
  }
}
