// Whether a declaration says what is there already (queue.declare and exchange.declare of something
// that exists), with RabbitMQ's exact texts for what differs; and what types of queues can be.

import Base

extension Fault {
  /// A queue as texts name it.
  package static func queue(_ name: String, vhost: String) -> String {
    "queue '\(name)' in vhost '\(vhost)'"
  }

  /// An exchange as texts name it.
  package static func exchange(_ name: String, vhost: String) -> String {
    "exchange '\(name)' in vhost '\(vhost)'"
  }

  fileprivate static func inequivalent(
    _ name: String, of resource: String, received: String, current: String
  ) -> Fault {
    Fault(
      .preconditionFailed,
      "inequivalent arg '\(name)' for \(resource): received \(received) but current is \(current)")
  }
}

extension QueueDeclaration {
  /// What is wrong with the declaration in itself, for the type of queue that it names; nil if
  /// nothing is.
  package func typeFault(vhost: String) -> Fault? {
    let resource = Fault.queue(name, vhost: vhost)
    switch arguments.type {
    case nil: return nil
    case .classic:
      return arguments.deliveryLimit == nil
        ? nil : unfit(arguments.usesDeliveryLimitSynonym ? nil : "x-delivery-limit", resource)
    case .quorum:
      if isAutoDelete { return unfitProperty("auto-delete", resource) }
      if isExclusive { return unfitProperty("exclusive-owner", resource) }
      if !isDurable { return unfitProperty("non-durable", resource) }
      return arguments.maxPriority == nil ? nil : unfit("x-max-priority", resource)
    }
  }

  private func unfit(_ argument: String?, _ resource: String) -> Fault? {
    guard let argument, let type = arguments.type else { return nil }
    return Fault(
      .preconditionFailed,
      "invalid arg '\(argument)' for \(resource) of queue type \(type.moduleName)")
  }

  private func unfitProperty(_ property: String, _ resource: String) -> Fault {
    Fault(.preconditionFailed, "invalid property '\(property)' for \(resource)")
  }

  /// What in this declaration differs from `current`, the queue that is there; nil if nothing does
  /// (`QueueArguments.identity` is then the same too). That the queue is another connection's
  /// exclusive one is `.queueLocked`, and to be looked at first.
  package func fault(against current: QueueDeclaration, vhost: String) -> Fault? {
    let resource = Fault.queue(name, vhost: vhost)
    // RabbitMQ holds an exclusive queue for not durable whatever was said, so that a redeclaration
    // may say either.
    if isExclusive != current.isExclusive { return .queueLocked(name, vhost: vhost) }
    if !isExclusive, isDurable != current.isDurable {
      return .inequivalent(
        "durable", of: resource, received: "'\(isDurable)'", current: "'\(current.isDurable)'")
    }
    if isAutoDelete != current.isAutoDelete {
      return .inequivalent(
        "auto_delete", of: resource, received: "'\(isAutoDelete)'",
        current: "'\(current.isAutoDelete)'")
    }
    return Self.differing(
      in: QueueArguments.compared, arguments.table, current.arguments.table, of: resource)
  }

  fileprivate static func differing(
    in names: [String], _ new: [UInt8], _ current: [UInt8], of resource: String
  ) -> Fault? {
    // Both were checked when they came.
    guard let new = try? FieldTable(new), let current = try? FieldTable(current) else { return nil }
    for name in names {
      let received = QueueArguments.value(of: name, in: new)
      let there = QueueArguments.value(of: name, in: current)
      if received.isEquivalent(to: there) { continue }
      if let received, let there {
        return .inequivalent(
          name, of: resource, received: "'\(received.shown)'", current: "'\(there.shown)'")
      }
      return .inequivalent(
        name, of: resource, received: received.shownWithType, current: there.shownWithType)
    }
    return nil
  }
}

extension ExchangeDeclaration {
  /// What in this declaration differs from `current`, the exchange that is there.
  package func fault(against current: ExchangeDeclaration, vhost: String) -> Fault? {
    let resource = Fault.exchange(name, vhost: vhost)
    if kind != current.kind {
      return .inequivalent(
        "type", of: resource, received: "'\(kind.name)'", current: "'\(current.kind.name)'")
    }
    for (name, received, there) in [
      ("durable", isDurable, current.isDurable),
      ("auto_delete", isAutoDelete, current.isAutoDelete),
      ("internal", isInternal, current.isInternal),
    ] where received != there {
      return .inequivalent(
        name, of: resource, received: "'\(received)'", current: "'\(there)'")
    }
    return QueueDeclaration.differing(
      in: ["alternate-exchange"], table, current.table, of: resource)
  }
}

extension FieldValue? {
  /// The same value; the width of integers does not matter.
  fileprivate func isEquivalent(to other: FieldValue?) -> Bool {
    if let mine = self?.integer, let others = other?.integer { return mine == others }
    return self == other
  }

  fileprivate var shownWithType: String {
    guard let self else { return "none" }
    return "the value '\(self.shown)' of type '\(self.typeName)'"
  }
}

extension FieldValue {
  /// As texts show it.
  fileprivate var shown: String {
    switch self {
    case .boolean(let value): return "\(value)"
    case .float(let bits): return "\(Float(bitPattern: bits))"
    case .double(let bits): return "\(Double(bitPattern: bits))"
    case .timestamp(let seconds): return "\(seconds)"
    case .string(let bytes), .bytes(let bytes): return String(decoding: bytes, as: UTF8.self)
    case .decimal(let scale, let value): return "{\(scale),\(value)}"
    case .void: return "undefined"
    case .array, .table: return "…"
    default: return integer.map { "\($0)" } ?? ""
    }
  }
}
