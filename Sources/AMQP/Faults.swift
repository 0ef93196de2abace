// Every fault that the broker's side can tell, each with the exact text that RabbitMQ's clients and
// their tests look for. The machine's own faults stand with the code that finds them.

extension Fault {
  // MARK: Missing

  package static func noQueue(_ name: String, vhost: String) -> Fault {
    Fault(.notFound, "no queue '\(name)' in vhost '\(vhost)'")
  }

  package static func noExchange(_ name: String, vhost: String) -> Fault {
    Fault(.notFound, "no exchange '\(name)' in vhost '\(vhost)'")
  }

  /// connection.open of a vhost that is not there.
  package static func noVhost(_ name: String) -> Fault {
    Fault(.notAllowed, "vhost \(name) not found")
  }

  /// connection.open of a vhost that the user has no access to.
  package static func vhostRefused(_ name: String, user: String) -> Fault {
    Fault(.notAllowed, "access to vhost '\(name)' refused for user '\(user)'")
  }

  /// connection.open where the cluster has as many sessions as it may. RabbitMQ says so of a vhost's
  /// connections.
  package static func tooManySessions(_ limit: Int, _ vhost: String, user: String) -> Fault {
    Fault(
      .notAllowed,
      "access to vhost '\(vhost)' refused for user '\(user)': session limit (\(limit)) is reached")
  }

  /// A new queue where the cluster has as many as it may.
  package static func tooManyQueues(_ limit: Int, _ name: String, vhost: String) -> Fault {
    Fault(
      .preconditionFailed,
      "cannot declare queue '\(name)' in vhost '\(vhost)': queue limit in cluster (\(limit)) is reached"
    )
  }

  // MARK: Refused by what is there

  /// Another connection's exclusive queue.
  package static func queueLocked(_ name: String, vhost: String) -> Fault {
    Fault(
      .resourceLocked,
      """
      cannot obtain exclusive access to locked queue '\(name)' in vhost '\(vhost)'. It could be \
      originally declared on another connection or the exclusive property value does not match \
      that of the original declaration.
      """)
  }

  /// A consumer of a queue that has an exclusive one, or an exclusive one of a queue that has any.
  package static func exclusivelyConsumed(_ name: String, vhost: String) -> Fault {
    Fault(.accessRefused, "queue '\(name)' in vhost '\(vhost)' in exclusive use")
  }

  package static func reservedQueueName(_ name: String) -> Fault {
    Fault(.accessRefused, "queue name '\(name)' contains reserved prefix 'amq.*'")
  }

  package static func reservedExchangeName(_ name: String) -> Fault {
    Fault(.accessRefused, "exchange name '\(name)' contains reserved prefix 'amq.*'")
  }

  package static func internalExchange(_ name: String, vhost: String) -> Fault {
    Fault(
      .accessRefused, "cannot publish to internal exchange '\(name)' in vhost '\(vhost)'")
  }

  package static func queueNotEmpty(_ name: String, vhost: String) -> Fault {
    Fault(.preconditionFailed, "queue '\(name)' in vhost '\(vhost)' not empty")
  }

  package static func queueInUse(_ name: String, vhost: String) -> Fault {
    Fault(.preconditionFailed, "queue '\(name)' in vhost '\(vhost)' in use")
  }

  package static func exchangeInUse(_ name: String, vhost: String) -> Fault {
    Fault(.preconditionFailed, "exchange '\(name)' in vhost '\(vhost)' in use")
  }

  // MARK: The node

  /// The node is stopping, or can do no more for this connection: what clients retry on.
  package static func forced(_ reason: String) -> Fault {
    Fault(.connectionForced, "broker forced connection closure with reason '\(reason)'")
  }

  /// The broker could not do what it should, by no fault of the client.
  package static func internalFault(_ detail: String) -> Fault {
    Fault(.internalError, detail)
  }

  /// A limit of the node.
  package static func resource(_ detail: String) -> Fault {
    Fault(.resourceError, detail)
  }
}
