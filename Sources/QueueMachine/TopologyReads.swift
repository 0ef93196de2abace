// What can be asked of the topology between entries.

import Base

/// A queue as AMQP knows it.
package struct QueueInfo: Hashable, Sendable {
  package var id: QueueID
  package var settings: QueueSettings
  /// A native client declared it: then the rest is what AMQP makes of that.
  package var isNative: Bool
  package var isDurable: Bool
  package var isAutoDelete: Bool
  /// The session that alone may use it; `none` for all.
  package var owner: SessionID
  package var arguments: [UInt8]
  package var deadLetterExchange: String?
  package var deadLetterKey: [UInt8]?
  /// Can be delivered at once.
  package var ready: UInt64
  package var consumers: UInt32
}

package struct ExchangeInfo: Hashable, Sendable {
  package var host: String
  package var name: String
  package var settings: ExchangeSettings
  package var bindings: Int
}

package struct BindingInfo: Hashable, Sendable {
  package var host: String
  package var source: String
  package var target: BindingTarget
  package var key: [UInt8]
  package var arguments: [UInt8]
}

/// How far the bundles of a node are carried out.
package struct RelayProgress: Hashable, Sendable {
  package var process: UInt64
  /// The last bundle that is done; 0 if none is.
  package var through: UInt64
  /// The one behind it is carried out in part and has to come again.
  package var isStopped: Bool

  package init(process: UInt64, through: UInt64, isStopped: Bool) {
    self.process = process
    self.through = through
    self.isStopped = isStopped
  }
}

/// One death of a message: from which queue, why, and how it had come there.
package struct MessageDeath: Hashable, Sendable {
  package var queue: String
  package var reason: DeadLetterReason
  package var exchange: String
  package var keys: [[UInt8]]
  /// How often it died there so.
  package var count: UInt32
  /// When it did first.
  package var time: MachineTime
}

/// What a delivery's headers tell besides what the publisher sent.
package struct DeliveryStory: Hashable, Sendable {
  /// The latest first.
  package var deaths: [MessageDeath]
  /// How it came to its queue, where that is not as it was published: a dead letter's.
  package var exchange: String?
  package var routingKey: [UInt8]?
}

extension QueueMachine {
  package func virtualHost(named name: String) -> VirtualHostID? {
    state.topology.host(named: name)
  }

  /// By number; "/" first.
  package func virtualHosts() -> [String] { state.topology.hosts.map(\.name) }

  package func name(of host: VirtualHostID) -> String { state.topology.name(of: host) }

  /// The name by which the machine, and a native client, knows a queue.
  package func machineName(of queue: TopologyName) -> String {
    state.topology.queueName(queue.name, in: queue.host)
  }

  package func queueInfo(_ name: TopologyName) -> QueueInfo? { state.queueInfo(name) }

  package func exchange(_ name: TopologyName) -> ExchangeSettings? {
    state.topology.exchange(name.name, in: name.host)
      .flatMap { state.topology.exchanges[UInt64($0)]?.settings }
  }

  /// All but the default ones, in the order of their making.
  package func exchanges() -> [ExchangeInfo] {
    state.topology.exchanges.sortedKeys.compactMap { state.topology.exchanges[$0] }.map {
      ExchangeInfo(
        host: state.topology.name(of: $0.host), name: $0.name, settings: $0.settings,
        bindings: $0.bindings.count)
    }
  }

  /// Whether the binding is there.
  package func isBound(_ order: BindingOrder) -> Bool { state.isBound(order) }

  package var exchangeCount: Int { state.topology.exchanges.count }
  package var bindingCount: Int { state.topology.bindingCount }

  /// At most `limit`, by exchange and in the order of their making.
  package func bindings(limit: Int) -> [BindingInfo] { state.bindingInfos(limit: limit) }

  /// Salt and hash of a user's password; nil for a user not known.
  package func user(named name: String) -> (salt: [UInt8], hash: [UInt8])? {
    state.topology.users.first { $0.name == name }.map { ($0.salt, $0.hash) }
  }

  /// By name.
  package func userNames() -> [String] { state.topology.users.map(\.name) }

  package var userCount: Int { state.topology.users.count }

  /// How far bundles of the node's process are carried out; 0 if none was.
  package func relayed(from node: NodeID, process: UInt64) -> UInt64 {
    guard let stream = state.topology.streams[UInt64(node.rawValue)], stream.process == process
    else { return 0 }
    return stream.sequence
  }

  /// How far the bundles of the node's last process are carried out; nil if it has passed on none.
  package func relayProgress(of node: NodeID) -> RelayProgress? {
    state.topology.streams[UInt64(node.rawValue)].map {
      RelayProgress(process: $0.process, through: $0.sequence, isStopped: $0.stop != nil)
    }
  }

  /// The AMQP sessions attached through a node, by id.
  package func amqpSessions(of node: NodeID) -> [SessionID] {
    state.sessionSlots.sortedKeys.compactMap { id in
      guard let slot = state.sessionSlots[id], state.sessions[slot].kind == .amqp,
        state.sessions[slot].origin?.node == node
      else { return nil }
      return SessionID(rawValue: id)
    }
  }

  package func isThere(_ session: SessionID) -> Bool { state.slot(of: session) != nil }

  package func hasAMQPSessions(of node: NodeID) -> Bool {
    state.sessions.slots.contains {
      state.sessions[$0].kind == .amqp && state.sessions[$0].origin?.node == node
    }
  }

  /// The nodes with AMQP clients, whether they are members or not, by id.
  package var nodesWithAMQPSessions: [NodeID] {
    var nodes: Set<NodeID> = []
    for slot in state.sessions.slots where state.sessions[slot].kind == .amqp {
      if let node = state.sessions[slot].origin?.node { nodes.insert(node) }
    }
    return nodes.sorted()
  }

  /// What happened to a message that one of the session's consumers holds; nil if nothing worth
  /// telling did, or it is no longer held.
  package func story(
    of message: MessageID, heldBy consumer: ConsumerID, of session: SessionID
  ) -> DeliveryStory? {
    state.story(of: message, heldBy: consumer, of: session)
  }
}

extension MachineState {
  fileprivate func isBound(_ order: BindingOrder) -> Bool {
    let host = order.source.host
    guard let source = topology.exchange(order.source.name, in: host) else { return false }
    var identity = Binding.Identity(
      target: 0, leadsToExchange: false, key: order.key, arguments: order.arguments)
    switch order.target {
    case .queue(let name):
      guard let slot = queueNames[topology.queueName(name, in: host)] else { return false }
      identity.target = queues[slot].id.rawValue
    case .exchange(let name):
      guard let number = topology.exchange(name, in: host) else { return false }
      identity.target = number
      identity.leadsToExchange = true
    }
    return topology.exchanges[UInt64(source)]?.numbers[identity] != nil
  }

  fileprivate func queueInfo(_ name: TopologyName) -> QueueInfo? {
    guard let slot = queueNames[topology.queueName(name.name, in: name.host)] else { return nil }
    let queue = queues[slot]
    let known = topology.queues[UInt64(queue.id.rawValue)]
    let extras = known ?? QueueExtras()
    return QueueInfo(
      id: queue.id, settings: queue.settings, isNative: known?.isNative ?? true,
      isDurable: extras.isDurable, isAutoDelete: extras.isAutoDelete, owner: extras.owner,
      arguments: extras.arguments, deadLetterExchange: extras.deadLetterExchange,
      deadLetterKey: extras.deadLetterKey, ready: queue.readyCount, consumers: queue.consumers)
  }

  fileprivate func bindingInfos(limit: Int) -> [BindingInfo] {
    var found: [BindingInfo] = []
    for number in topology.exchanges.sortedKeys {
      guard let exchange = topology.exchanges[number] else { continue }
      for place in exchange.bindings.keys.sorted() {
        if found.count >= limit { return found }
        guard let binding = exchange.bindings[place] else { continue }
        found.append(
          BindingInfo(
            host: topology.name(of: exchange.host), source: exchange.name,
            target: target(of: binding), key: binding.key, arguments: binding.arguments))
      }
    }
    return found
  }

  private func target(of binding: Binding) -> BindingTarget {
    if binding.leadsToExchange {
      return .exchange(topology.exchanges[UInt64(binding.target)]?.name ?? "")
    }
    return .queue(topology.queues[UInt64(binding.target)]?.name ?? "")
  }

  fileprivate func story(
    of message: MessageID, heldBy consumer: ConsumerID, of session: SessionID
  ) -> DeliveryStory? {
    guard let session = slot(of: session), let slot = sessions[session].slot(of: consumer),
      let story = queues[consumers[slot].queueSlot].notes[message.rawValue]?.story,
      !story.deaths.isEmpty
    else { return nil }
    return DeliveryStory(
      deaths: story.deaths, exchange: story.address?.exchange,
      routingKey: story.address?.keys.first)
  }
}
