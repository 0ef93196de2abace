// What AMQP clients know besides queues: virtual hosts, users, exchanges, bindings, and what a queue
// was declared with beyond our own settings. Part of the replicated state: changed by commands only,
// in snapshots and in the state's hash. `MachineState+Topology.swift` changes it, routing is in
// `Topology+Routing.swift`.
//
// Dictionaries and sets here are looked up, or walked where the order means nothing: whatever has an
// order goes by numbers that grow with every object made.

import Base

/// How an exchange chooses (AMQP §3.1.3).
package enum ExchangeType: UInt8, Sendable, CaseIterable {
  case direct = 1
  case fanout = 2
  case topic = 3
  case headers = 4

  /// As clients name it.
  package var name: String {
    switch self {
    case .direct: "direct"
    case .fanout: "fanout"
    case .topic: "topic"
    case .headers: "headers"
    }
  }

  package init?(name: String) {
    guard let kind = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = kind
  }
}

/// A virtual host's number; 0 is "/", which is always there.
@frozen @usableFromInline package struct VirtualHostID: Identifier {
  @usableFromInline package let rawValue: UInt32
  @inlinable package init(rawValue: UInt32) { self.rawValue = rawValue }
  @inlinable package static var main: VirtualHostID { VirtualHostID(rawValue: 0) }
}

/// A name within a virtual host.
struct ScopedName: Hashable, Sendable {
  var host: VirtualHostID
  var name: String
}

/// Where a binding leads.
package enum BindingTarget: Hashable, Sendable {
  case queue(String)
  case exchange(String)
}

/// One binding of an exchange. The same source, target, key and arguments are the same binding.
struct Binding: Hashable, Sendable {
  /// Grows with every binding made.
  var number: UInt64
  /// The id of a queue, or the number of an exchange.
  var target: UInt32
  var leadsToExchange: Bool
  var key: [UInt8]
  /// An AMQP field table without its length.
  var arguments: [UInt8]

  /// What makes it this binding.
  struct Identity: Hashable, Sendable {
    var target: UInt32
    var leadsToExchange: Bool
    var key: [UInt8]
    var arguments: [UInt8]
  }

  var identity: Identity {
    Identity(target: target, leadsToExchange: leadsToExchange, key: key, arguments: arguments)
  }
}

/// What an exchange is declared with.
package struct ExchangeSettings: Hashable, Sendable {
  package var kind: ExchangeType
  package var isDurable: Bool
  package var isAutoDelete: Bool
  /// Clients cannot publish to it; other exchanges can.
  package var isInternal: Bool
  /// Takes what this one cannot route; empty for none.
  package var alternate: String

  package init(
    kind: ExchangeType, isDurable: Bool = true, isAutoDelete: Bool = false,
    isInternal: Bool = false, alternate: String = ""
  ) {
    self.kind = kind
    self.isDurable = isDurable
    self.isAutoDelete = isAutoDelete
    self.isInternal = isInternal
    self.alternate = alternate
  }
}

struct Exchange: Sendable {
  /// Grows with every exchange made, from 1.
  var number: UInt32 = 0
  var host = VirtualHostID.main
  var name = ""
  var settings = ExchangeSettings(kind: .direct)
  /// By number.
  var bindings: [UInt64: Binding] = [:]
  var numbers: [Binding.Identity: UInt64] = [:]
  /// How many of the bindings lead to exchanges.
  var exchangesBehind = 0
  /// Bindings that lead here from other exchanges.
  var incoming: Set<IncomingBinding> = []
  var routes = RouteTable()
}

/// What an AMQP client declared a queue with, besides what our own settings say.
struct QueueExtras: Hashable, Sendable {
  var host = VirtualHostID.main
  /// Within its virtual host.
  var name = ""
  var isDurable = true
  var isAutoDelete = false
  /// The connection that alone may use it and with which it goes; `none` for all others.
  var owner = SessionID.none
  /// An AMQP field table without its length, as it was declared.
  var arguments: [UInt8] = []
  /// Where dead letters go: nil for nowhere, empty for the default exchange.
  var deadLetterExchange: String?
  /// nil: the message's own.
  var deadLetterKey: [UInt8]?
  /// A native client declared it: it may have settings that AMQP does not know.
  var isNative = false
  /// Bindings that lead here: of which exchange, and the binding's number.
  var bindings: Set<IncomingBinding> = []
}

struct IncomingBinding: Hashable, Comparable, Sendable {
  var exchange: UInt32
  var number: UInt64

  /// In the order of their making, whatever exchange they are of.
  static func < (left: IncomingBinding, right: IncomingBinding) -> Bool {
    left.number < right.number
  }
}

struct User: Hashable, Sendable {
  var name: String
  var salt: [UInt8]
  /// SHA-256 of salt and password.
  var hash: [UInt8]
}

/// Bounds of the topology (G13), all part of the format.
package enum TopologyLimits {
  package static let virtualHosts = 256
  package static let users = 4_096
  package static let exchanges = 100_000
  package static let bindings = 1_000_000
  /// Bytes of one object's arguments.
  package static let argumentBytes = 16 << 10
  /// Bytes of all arguments together.
  package static let argumentBytesInAll = 256 << 20
  /// Bytes of the name of an exchange or queue, and of a routing key.
  package static let nameBytes = 255
  package static let virtualHostBytes = 100
  /// Routing keys of one message: its own, CC and BCC.
  package static let keysPerMessage = 1_024
  /// Routes remembered, which is no part of the state.
  static let routesRemembered = 4_096
}

struct Topology: Sendable {
  /// The number of the next exchange, binding and virtual host.
  var nextExchange: UInt32 = 1
  var nextBinding: UInt64 = 1
  var nextHost: UInt32 = 1

  /// By ascending number.
  var hosts: [(id: VirtualHostID, name: String)] = [(.main, "/")]
  /// By name.
  var users: [User] = []
  var exchanges = IntegerMap<Exchange>()
  var exchangeNumbers: [ScopedName: UInt32] = [:]
  /// By queue id: of the queues that AMQP clients declared or bound.
  var queues = IntegerMap<QueueExtras>()
  /// By session: the ids of the queues that it alone may use.
  var exclusive = IntegerMap<[UInt32]>()
  var bindingCount = 0
  var argumentBytes = 0
  /// What the routes of all exchanges take (`MachineLimits.topicNodes`, `wantedHeaders`).
  var routeSize = RouteSize()
  /// What was looked at for headers exchanges in the present entry
  /// (`MachineLimits.headerLooksPerEntry`).
  var headerLooks = 0
  /// By node: what came of the commands that its clients' gateway passed on.
  var streams = IntegerMap<CommandStream>()

  /// Routes of late, no part of the state: forgotten whenever the topology changes.
  var routes = RouteCache()

  init() {
    for exchange in Self.predeclared { insert(exchange, in: .main) }
  }

  /// What every virtual host has from its beginning.
  static let predeclared: [(name: String, kind: ExchangeType)] = [
    ("amq.direct", .direct), ("amq.fanout", .fanout), ("amq.topic", .topic),
    ("amq.headers", .headers), ("amq.match", .headers),
  ]

  private mutating func insert(
    _ exchange: (name: String, kind: ExchangeType), in host: VirtualHostID
  ) {
    insert(
      exchange.name, ExchangeSettings(kind: exchange.kind), in: host)
  }

  @discardableResult
  mutating func insert(
    _ name: String, _ settings: ExchangeSettings, in host: VirtualHostID
  ) -> UInt32 {
    var exchange = Exchange()
    exchange.number = nextExchange
    exchange.host = host
    exchange.name = name
    exchange.settings = settings
    nextExchange += 1
    exchanges.insert(exchange, for: UInt64(exchange.number))
    exchangeNumbers[ScopedName(host: host, name: name)] = exchange.number
    routes.forget()
    return exchange.number
  }

  mutating func insertHost(_ name: String) -> VirtualHostID {
    let id = VirtualHostID(rawValue: nextHost)
    nextHost += 1
    hosts.append((id, name))
    for exchange in Self.predeclared { insert(exchange, in: id) }
    return id
  }

  func host(named name: String) -> VirtualHostID? { hosts.first { $0.name == name }?.id }

  func name(of host: VirtualHostID) -> String { hosts.first { $0.id == host }?.name ?? "" }

  func exchange(_ name: String, in host: VirtualHostID) -> UInt32? {
    exchangeNumbers[ScopedName(host: host, name: name)]
  }

  /// The name under which the machine has a queue of a virtual host. Those of "/" have their own:
  /// native and AMQP clients meet there. Of others it is `//host:queue`; no host's name has a colon.
  func queueName(_ name: String, in host: VirtualHostID) -> String {
    host == .main ? name : "//\(self.name(of: host)):\(name)"
  }

  /// Begins with what only names of other virtual hosts' queues begin with.
  static func isForeign(_ name: String) -> Bool { name.hasPrefix("//") }
}

/// How far the commands are carried out that a node's gateway passed on: each once, in order.
struct CommandStream: Hashable, Sendable {
  /// Drawn by the node's process when it started.
  var process: UInt64
  /// The last bundle carried out.
  var sequence: UInt64
  /// Where the one behind it stopped; nil if it has not come yet.
  var stop: Stop?

  struct Stop: Hashable, Sendable {
    /// Commands of the bundle that are carried out.
    var commands: UInt32 = 0
    /// Records that are carried out of the one behind them.
    var records: UInt32 = 0
  }
}

extension QueueSettings {
  /// AMQP's `x-max-length` 0, since no length is no limit here: a message goes to a consumer that
  /// waits for it, or is too much at once.
  package mutating func keepNothing() {
    lengthMax = 1
    timeToLive = Nanoseconds(1)
  }

  var keepsNothing: Bool {
    lengthMax == 1 && timeToLive == Nanoseconds(1) && overflow == .dropOldest
  }
}
