// What the machine answers AMQP gateways, and what goes wrong there.

import Base

/// Records that lie one behind the other in an entry.
package struct RunReference: Hashable, Sendable {
  package var entry: LogIndex
  /// In the entry's payload.
  package var offset: Int
  package var byteCount: Int
  package var count: UInt32
}

/// The answer to a request with a tag.
package enum TopologyReply: Hashable, Sendable {
  /// An exchange was declared or deleted, a binding made or removed, a mark passed.
  case done
  /// `ready` can be delivered at once.
  case queueDeclared(ready: UInt64, consumers: UInt32)
  /// Deleted with, or purged of, so many that were not held.
  case messages(UInt64)
  case consuming(ConsumerID)
  /// One message, and how many more are ready.
  case took(ConsumerID, Delivery, ready: UInt64)
  case nothingToTake
  case failed(TopologyFailure)
}

/// What a session is told besides replies. Publishes are answered in their order, so a tag comes as
/// often as its records differ in their fate.
package enum TopologyEffect: Hashable, Sendable {
  /// The next `count` records of that publish are stored, in all their queues.
  case routed(SessionID, RequestTag, count: UInt32)
  /// They reached no queue and were mandatory.
  case unroutable(SessionID, RequestTag, RunReference)
  /// They are not stored: a queue is full, or too much would be kept in memory.
  case routeRefused(SessionID, RequestTag, count: UInt32, Refusal)
  /// None of that publish is stored.
  case routeFailed(SessionID, RequestTag, count: UInt32, TopologyFailure)
  /// Straight to a consumer of the session, stored nowhere.
  case directReply(SessionID, ConsumerID, RunReference)
  /// This node's bundles are carried out through here. Where the one behind was stopped it is carried
  /// out in part, and it and all behind it have to be sent again.
  case relayed(process: UInt64, through: UInt64, isStopped: Bool)
}

/// Why a request of an AMQP client failed.
package enum TopologyFailure: Error, Hashable, Sendable {
  case noVirtualHost(String)
  case noExchange(String, host: String)
  case noQueue(String, host: String)
  /// Another connection's.
  case queueLocked(String, host: String)
  /// A consumer has the queue for itself, or there are others already.
  case exclusiveUse(String, host: String)
  case queueInUse(String, host: String)
  case queueNotEmpty(String, host: String)
  case exchangeInUse(String, host: String)
  case defaultExchange
  case reservedExchange(String, host: String)
  case internalExchange(String, host: String)
  /// Declared before with other properties or arguments.
  case exchangeDiffers(String, host: String)
  case queueDiffers(String, host: String, detail: String)
  /// A setting that is impossible, with a sentence that names it.
  case settingInvalid(String)
  /// A bound of ours (G13).
  case tooMany(String)
  case noSession
  case other(Refusal, detail: String)
}

extension TopologyFailure {
  /// The reply code of AMQP.
  package var code: UInt16 {
    switch self {
    case .noVirtualHost: 530
    case .noExchange, .noQueue: 404
    case .queueLocked: 405
    case .exclusiveUse, .defaultExchange, .reservedExchange, .internalExchange: 403
    case .queueInUse, .queueNotEmpty, .exchangeInUse, .exchangeDiffers, .queueDiffers,
      .settingInvalid:
      406
    case .tooMany: 506
    case .noSession: 541
    case .other(let refusal, _): refusal == .overloaded ? 506 : 406
    }
  }

  /// What RabbitMQ says behind the code's name, as far as it says anything.
  package var detail: String {
    switch self {
    case .noVirtualHost(let name): return "vhost \(name) not found"
    case .noExchange(let name, let host):
      return "no exchange '\(name)' in vhost '\(host)'"
    case .noQueue(let name, let host): return "no queue '\(name)' in vhost '\(host)'"
    case .queueLocked(let name, let host):
      return "cannot obtain exclusive access to locked queue '\(name)' in vhost"
        + " '\(host)'. It could be originally declared on another connection or the exclusive"
        + " property value does not match that of the original declaration."
    case .exclusiveUse(let name, let host):
      return "queue '\(name)' in vhost '\(host)' in exclusive use"
    case .queueInUse(let name, let host):
      return "queue '\(name)' in vhost '\(host)' in use"
    case .queueNotEmpty(let name, let host):
      return "queue '\(name)' in vhost '\(host)' not empty"
    case .exchangeInUse(let name, let host):
      return "exchange '\(name)' in vhost '\(host)' in use"
    case .defaultExchange:
      return "operation not permitted on the default exchange"
    case .reservedExchange(let name, let host):
      return "exchange name '\(name)' contains reserved prefix 'amq.*'"
        + (host == "/" ? "" : " in vhost '\(host)'")
    case .internalExchange(let name, let host):
      return "cannot publish to internal exchange '\(name)' in vhost '\(host)'"
    case .exchangeDiffers(let name, let host):
      return "inequivalent arg for exchange '\(name)' in vhost '\(host)'"
    case .queueDiffers(let name, let host, let detail):
      return
        "inequivalent arg for queue '\(name)' in vhost '\(host)': \(detail)"
    case .settingInvalid(let detail): return "\(detail)"
    case .tooMany(let what): return "\(what)"
    case .noSession: return "the connection's session is gone"
    case .other(let refusal, let detail):
      return detail.isEmpty ? "\(refusal)" : detail
    }
  }
}
