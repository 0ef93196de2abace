// What a connection wants from the broker, by value: one half of the seam between the AMQP machine
// and the node (the other half is `BrokerAnswer`). The machine appends requests to a list in the
// order in which they must take effect; the gateway carries them out in that order and answers each
// that has a token exactly once with `ConnectionMachine.answer`.
//
// While a request of a channel is unanswered, the machine takes no further frame of that channel,
// so a refusal never comes too late. Publishes and settles have no token: any number may be under
// way. Everything that a client can get wrong by itself was checked before a request is made.

import Base

/// Names one request of one connection, from 1; never used twice.
@frozen @usableFromInline package struct RequestToken: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// One opening of a channel. The number that the client chose is in the lower 16 bits, how many
/// openings the connection had before is above, so that what belongs to a closed channel is never
/// taken for the next one's under the same number.
@frozen @usableFromInline package struct ChannelID: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable package init(opening: UInt64, number: UInt16) {
    self.rawValue = opening << 16 | UInt64(number)
  }
  /// As in frames, 1...65535.
  @inlinable package var number: UInt16 { UInt16(truncatingIfNeeded: rawValue) }
}

/// The number of a publish among those of its channel, from 1, whether or not the channel is in
/// confirm mode. Without gaps, but for what a transaction rolled back.
@frozen @usableFromInline package struct ChannelSequence: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// One thing that the broker is to do.
package enum BrokerRequest: Sendable {
  /// Answer `.done` or `.loginRefused`.
  case authenticate(RequestToken, Credentials)
  /// Answer `.done` or `.refused(.noVhost(…))`.
  case openVhost(RequestToken, name: String)
  /// A request of an open channel; each case says which answers fit.
  case channel(RequestToken, ChannelID, ChannelRequest)
  /// `BrokerRequests.publishes[range]`, all of them open channels', in order.
  case publish(Range<Int>)
  /// `BrokerRequests.settles[range]`, in order.
  case settle(Range<Int>)
  /// The channel ends, by the client's wish or for a fault: its consumers end, what it holds goes
  /// back to its queues. Answer `.done` when others can have it; nothing more comes from it.
  case closeChannel(RequestToken, ChannelID)
  /// The connection ends: as `closeChannel` for each channel, and its exclusive queues are deleted.
  /// Answer `.done` when that is so; nothing more comes. A connection that is lost without this
  /// must be ended by the gateway just the same.
  case closeConnection(RequestToken)

  /// Whether something is published by it.
  package var publishes: Bool {
    switch self {
    case .publish: true
    case .channel(_, _, .commit(let publishes, _)): !publishes.isEmpty
    default: false
    }
  }
}

/// What a client proves who it is by. Printing it shows no password.
package struct Credentials: Hashable, Sendable, CustomStringConvertible,
  CustomDebugStringConvertible, CustomReflectable
{
  /// `PLAIN` or `AMQPLAIN`.
  package var mechanism: String
  package var user: String
  /// As sent; never to be logged.
  package var password: [UInt8]

  package init(mechanism: String, user: String, password: [UInt8]) {
    self.mechanism = mechanism
    self.user = user
    self.password = password
  }

  package var description: String { "\(user) by \(mechanism)" }
  package var debugDescription: String { description }
  package var customMirror: Mirror { Mirror(self, children: ["user": user]) }
}

/// A request of a channel.
package enum ChannelRequest: Sendable {
  /// queue.declare. Answer `.queueDeclared`. If the queue is there, `QueueDeclaration.fault`
  /// decides. Its name is not a reserved one unless the machine made it up.
  case declareQueue(QueueDeclaration)
  /// queue.declare passive. Answer `.queueDeclared`, or `.refused(.noQueue(…))`.
  case inspectQueue(name: String)
  /// Answer `.done`. An unbind of what is not bound is `.done`.
  case bindQueue(QueueBinding)
  case unbindQueue(QueueBinding)
  /// Answer `.messages`: how many there were that nobody held.
  case purgeQueue(name: String)
  /// Answer `.messages`: as `purgeQueue`; 0 if there is no such queue.
  case deleteQueue(name: String, ifUnused: Bool, ifEmpty: Bool)
  /// Answer `.done`. If the exchange is there, `ExchangeDeclaration.fault` decides. If it is not
  /// and the name is reserved, refuse with `.reservedExchangeName`.
  case declareExchange(ExchangeDeclaration)
  /// exchange.declare passive. Answer `.done` or `.refused(.noExchange(…))`.
  case inspectExchange(name: String)
  /// Answer `.done`, also if there is no such exchange.
  case deleteExchange(name: String, ifUnused: Bool)
  /// Answer `.done`. An unbind of what is not bound is `.done`.
  case bindExchange(ExchangeBinding)
  case unbindExchange(ExchangeBinding)
  /// Answer `.done`; `ConnectionMachine.deliver` may follow at once.
  case consume(ConsumeRequest)
  /// A consumer of direct replies (`amq.rabbitmq.reply-to`): what is published to the default
  /// exchange with the address as routing key is delivered to it, unacknowledged and not stored.
  /// Answer `.replyAddress`, which begins with `amq.rabbitmq.reply-to.`.
  case consumeReplies(ConsumerID)
  /// Answer `.done`: nothing is delivered to it any more; what it holds stays held.
  case cancel(ConsumerID)
  /// basic.get. Answer with `ConnectionMachine.answerGet`, or `.getEmpty`.
  case get(queue: String, noAck: Bool)
  /// basic.qos global=true: the most messages that all consumers of the channel together may hold
  /// unacknowledged, 0 for no limit. Answer `.done`.
  case setChannelPrefetch(UInt16)
  /// basic.qos global=false, for consumers that there are already: the most that each may hold, 0
  /// for no limit. Answer `.done`. New consumers bring theirs along in `ConsumeRequest`.
  case setConsumerPrefetch([ConsumerPrefetch])
  /// Answer `.done` once it is known what became of the channel's publishes.
  case awaitPublishes
  /// tx.commit: the settles and publishes of these ranges, in one log entry (G10). Answer `.done`
  /// after the returns of what was mandatory, or `.refused`, and then none of it happened.
  case commit(publishes: Range<Int>, settles: Range<Int>)
}

/// A consumer's new limit.
package struct ConsumerPrefetch: Hashable, Sendable {
  package var consumer: ConsumerID
  /// 0 for no limit.
  package var count: UInt16
}

/// queue.declare as checked: names are UTF-8 and short, the arguments are right in themselves.
package struct QueueDeclaration: Hashable, Sendable {
  /// Never empty: the machine makes up names (`amq.gen-…`).
  package var name: String
  package var isDurable: Bool
  package var isExclusive: Bool
  package var isAutoDelete: Bool
  package var arguments: QueueArguments

  package init(
    name: String, isDurable: Bool, isExclusive: Bool, isAutoDelete: Bool,
    arguments: QueueArguments
  ) {
    self.name = name
    self.isDurable = isDurable
    self.isExclusive = isExclusive
    self.isAutoDelete = isAutoDelete
    self.arguments = arguments
  }
}

/// exchange.declare as checked.
package struct ExchangeDeclaration: Hashable, Sendable {
  package var name: String
  package var kind: ExchangeKind
  package var isDurable: Bool
  package var isAutoDelete: Bool
  package var isInternal: Bool
  /// Where unroutable messages go (`alternate-exchange`); nil for nowhere.
  package var alternate: String?
  /// The argument table as sent, without its length.
  package var table: [UInt8]

  /// Arguments beginning with `x-` that mean nothing, in the order sent.
  package var unknownArguments: [String] { (try? FieldTable(table))?.unknownNames(but: []) ?? [] }

  package init(
    name: String, kind: ExchangeKind, isDurable: Bool, isAutoDelete: Bool, isInternal: Bool,
    alternate: String?, table: [UInt8]
  ) {
    self.name = name
    self.kind = kind
    self.isDurable = isDurable
    self.isAutoDelete = isAutoDelete
    self.isInternal = isInternal
    self.alternate = alternate
    self.table = table
  }
}

/// How an exchange routes. The numbers are part of the format of the log.
package enum ExchangeKind: UInt8, Hashable, Sendable, CaseIterable {
  case direct = 1
  case fanout = 2
  case topic = 3
  case headers = 4

  package init?(name: String) {
    guard let kind = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = kind
  }

  package var name: String {
    switch self {
    case .direct: "direct"
    case .fanout: "fanout"
    case .topic: "topic"
    case .headers: "headers"
    }
  }
}

/// queue.bind and queue.unbind. Neither end is the default exchange.
package struct QueueBinding: Hashable, Sendable {
  package var exchange: String
  package var queue: String
  package var routingKey: [UInt8]
  /// The argument table as sent, without its length; part of a binding's identity.
  package var table: [UInt8]
}

/// exchange.bind and exchange.unbind: what `source` routes goes to `destination` too.
package struct ExchangeBinding: Hashable, Sendable {
  package var source: String
  package var destination: String
  package var routingKey: [UInt8]
  package var table: [UInt8]
}

/// basic.consume of a queue.
package struct ConsumeRequest: Hashable, Sendable {
  /// Chosen by the machine, from 1 to 2^31, never used again on the connection.
  package var consumer: ConsumerID
  package var queue: String
  /// What is delivered counts as acknowledged at once.
  package var noAck: Bool
  /// Refuse with `.exclusivelyConsumed` if the queue has another consumer, and others from now on.
  package var isExclusive: Bool
  /// The most unacknowledged messages, 0 for no limit. Without meaning if `noAck`.
  package var prefetch: UInt16
  /// Arguments beginning with `x-` that mean nothing, in the order sent.
  package var unknownArguments: [String] = []

  /// Those whose sender misses nothing here: no failover cancels a consumer, and no queue is a stream.
  static let knownArguments = ["x-cancel-on-ha-failover", "x-stream-offset"]
}

/// basic.publish with its content. Ranges are places in `BrokerRequests.bytes`.
package struct PublishRequest: Sendable {
  package var channel: ChannelID
  package var sequence: ChannelSequence
  /// Unroutable messages come back with `ConnectionMachine.returnMessage` before their confirm.
  package var isMandatory: Bool
  /// The channel is in confirm mode: `ConnectionMachine.confirm` is awaited. Without it only a
  /// fault is to be told. Ignored in a commit.
  package var wantsConfirm: Bool
  /// delivery_mode is 2.
  package var isPersistent: Bool
  /// As sent, 0 if not.
  package var priority: UInt8
  /// The `expiration` property, milliseconds.
  package var expiration: UInt64?
  /// The `x-delay` header, milliseconds; nil if there is none or it is 0.
  package var delay: UInt64?
  package var exchange: Range<Int>
  package var routingKey: Range<Int>
  /// Further routing keys, from the `CC` and `BCC` headers; `BCC` is gone from `properties`.
  package var copies: [[UInt8]]
  /// Flags and values of the 14 properties, as they come back in `BrokerContent`.
  package var properties: Range<Int>
  /// The header table within `properties`, without its length; empty if there is none.
  package var headers: Range<Int>
  package var body: Range<Int>
}

/// How deliveries are settled.
package enum SettleOutcome: UInt8, Hashable, Sendable {
  /// basic.ack.
  case acknowledged = 1
  /// basic.nack or reject with requeue, basic.recover.
  case requeued = 2
  /// basic.nack or reject without requeue: to the dead-letter exchange, or gone.
  case rejected = 3
}

/// Deliveries of one consumer, as the broker numbered them in `BrokerDelivery`.
package struct SettleRequest: Hashable, Sendable {
  package var channel: ChannelID
  package var outcome: SettleOutcome
  package var consumer: ConsumerID
  /// first <= last; all between were delivered through the channel and not settled before.
  package var first: DeliveryID
  package var last: DeliveryID

  package var count: Int { Int(last.rawValue - first.rawValue) + 1 }
}

/// The requests made since the list was last emptied. Used again and again, by one connection
/// after the other: the gateway carries them out and empties the list after each call of a machine.
package struct BrokerRequests: Sendable {
  package var requests: [BrokerRequest] = []
  package var publishes: [PublishRequest] = []
  package var settles: [SettleRequest] = []
  /// What the ranges of `publishes` point into: content in one piece, however it was cut in frames.
  package var bytes: [UInt8] = []

  package init() {}

  package var isEmpty: Bool { requests.isEmpty }

  /// Empties the list and keeps its memory, unless that is more than usual.
  package mutating func removeAll() {
    requests.removeAll(keepingCapacity: true)
    publishes.removeAll(keepingCapacity: true)
    settles.removeAll(keepingCapacity: true)
    bytes.removeAll(keepingCapacity: bytes.capacity <= Self.keptBytes)
  }

  private static let keptBytes = 1 << 20
}
