// From the protocol's words to the machine's, and back.

import AMQP
import Base
import QueueMachine
import Transport

extension Fault {
  init(_ failure: TopologyFailure) {
    self.init(ReplyCode(rawValue: failure.code) ?? .preconditionFailed, failure.detail)
  }
}

extension BindingOrder {
  init(_ binding: QueueBinding, in host: VirtualHostID) {
    self.init(
      source: TopologyName(binding.exchange, in: host), target: .queue(binding.queue),
      key: binding.routingKey, arguments: binding.table)
  }

  init(_ binding: ExchangeBinding, in host: VirtualHostID) {
    self.init(
      source: TopologyName(binding.source, in: host), target: .exchange(binding.destination),
      key: binding.routingKey, arguments: binding.table)
  }
}

extension ExchangeOrder {
  init(_ declaration: ExchangeDeclaration, in host: VirtualHostID) {
    self.init(
      TopologyName(declaration.name, in: host),
      ExchangeSettings(
        kind: ExchangeType(rawValue: declaration.kind.rawValue) ?? .direct,
        isDurable: declaration.isDurable, isAutoDelete: declaration.isAutoDelete,
        isInternal: declaration.isInternal, alternate: declaration.alternate ?? ""))
  }
}

extension QueueOrder {
  init(_ declaration: QueueDeclaration, in host: VirtualHostID) {
    self.init(TopologyName(declaration.name, in: host))
    isDurable = declaration.isDurable
    isExclusive = declaration.isExclusive
    isAutoDelete = declaration.isAutoDelete
    settings = QueueSettings(declaration.arguments)
    deadLetterExchange = declaration.arguments.deadLetterExchange
    deadLetterKey = declaration.arguments.deadLetterRoutingKey
    arguments = declaration.arguments.table
  }
}

extension QueueSettings {
  /// As long as a consumer of RabbitMQ may take for a message, unless the queue says otherwise.
  static let leaseOfAMQP = Nanoseconds.seconds(30 * 60)

  /// What a queue's arguments are in our terms. Zeros that mean "none at all" to AMQP and "no limit"
  /// to us become the smallest value there is.
  init(_ arguments: QueueArguments) {
    self.init()
    lease = max(
      .milliseconds(1), arguments.lease.map { .milliseconds(clamping: $0) } ?? Self.leaseOfAMQP)
    // A limit of three redeliveries is four deliveries.
    if let limit = arguments.deliveryLimit {
      deliveriesMax = UInt32(clamping: limit.addingReportingOverflow(1).partialValue)
    }
    retryDelay = .milliseconds(clamping: arguments.retryDelay ?? 0)
    retryDelayMax = .milliseconds(clamping: arguments.retryMaxDelay ?? 0)
    if retryDelayMax != .zero { retryDelayMax = max(retryDelayMax, retryDelay) }
    retryJitterPermille = min(1_000, arguments.retryJitterThousandths ?? 0)
    if let span = arguments.messageTTL {
      timeToLive = max(Nanoseconds(1), .milliseconds(clamping: span))
    }
    if let length = arguments.maxLength {
      lengthMax = max(1, length)
      if length == 0, (arguments.overflow ?? .dropHead) == .dropHead { keepNothing() }
    }
    if let bytes = arguments.maxLengthBytes { bytesMax = max(1, bytes) }
    if lengthMax > 0 || bytesMax > 0 {
      overflow = (arguments.overflow ?? .dropHead) == .dropHead ? .dropOldest : .reject
    }
    if let span = arguments.expires {
      expires = max(.milliseconds(1), .milliseconds(clamping: span))
    }
    hasSingleActiveConsumer = arguments.singleActiveConsumer
    priorities = UInt8(min(32, Int(arguments.maxPriority ?? 0) + 1))
  }
}

extension QueueDeclaration {
  /// The queue there is, in the protocol's terms. Of one that a native client declared the arguments
  /// are whatever is asked for.
  init(_ info: QueueInfo, as asked: QueueDeclaration) {
    self.init(
      name: asked.name, isDurable: info.isDurable, isExclusive: info.owner != .none,
      isAutoDelete: info.isAutoDelete,
      arguments: info.isNative ? asked.arguments : QueueArguments(kept: info.arguments))
  }
}

extension QueueArguments {
  /// Arguments that were checked when they came.
  fileprivate init(kept bytes: [UInt8]) {
    do {
      try self.init(FieldTable(bytes), of: "")
    } catch {
      stopForBug("arguments of a queue that were never checked: \(error)")
    }
  }
}

extension SocketAddress {
  /// Whether it is this machine's.
  var isLoopback: Bool {
    let text = description
    return text.hasPrefix("127.") || text.hasPrefix("[::1]") || text.hasPrefix("[::ffff:127.")
  }
}
