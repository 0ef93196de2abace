// From an exchange and a key to queues. The answer is in the order of the queues' ids, so that it is
// the same on every node; it is remembered until the topology changes.

import Base

/// The bindings of one exchange, arranged for its kind. All parts are stored side by side, not in
/// an enum, so that they change in place.
struct RouteTable: Sendable {
  var direct: [[UInt8]: Set<UInt64>] = [:]
  var topics = TopicTrie()
  var headers: [UInt64: HeaderMatch] = [:]
  /// Of all in `headers`.
  private var wantedHeaders = 0

  /// The same however the bindings came, and on every node.
  var size: RouteSize {
    RouteSize(
      topicNodes: topics.nodeCount, headerBindings: headers.count, wantedHeaders: wantedHeaders)
  }

  /// What a message costs that is matched against the headers of all bindings.
  var headerLooks: Int { size.headerLooks }

  mutating func insert(_ binding: Binding, _ kind: ExchangeType) {
    switch kind {
    case .direct: direct[binding.key, default: []].insert(binding.number)
    case .topic: topics.insert(binding.number, key: binding.key)
    case .headers:
      let match = HeaderMatch(arguments: binding.arguments)
      wantedHeaders += match.count
      headers[binding.number] = match
    case .fanout: break
    }
  }

  mutating func remove(_ binding: Binding, _ kind: ExchangeType) {
    switch kind {
    case .direct:
      direct[binding.key]?.remove(binding.number)
      if direct[binding.key]?.isEmpty == true { direct[binding.key] = nil }
    case .topic: topics.remove(binding.number, key: binding.key)
    case .headers: wantedHeaders -= headers.removeValue(forKey: binding.number)?.count ?? 0
    case .fanout: break
    }
  }
}

/// What of routes grows by more than the number of the bindings.
struct RouteSize: Hashable, Sendable {
  /// Of the trees of topic exchanges.
  var topicNodes = 0
  /// Of headers exchanges.
  var headerBindings = 0
  /// Headers that these ask for.
  var wantedHeaders = 0

  /// What a message costs that is matched against all of them.
  var headerLooks: Int { headerBindings + wantedHeaders }

  static func += (left: inout RouteSize, right: RouteSize) {
    left.topicNodes += right.topicNodes
    left.headerBindings += right.headerBindings
    left.wantedHeaders += right.wantedHeaders
  }

  static func -= (left: inout RouteSize, right: RouteSize) {
    left.topicNodes -= right.topicNodes
    left.headerBindings -= right.headerBindings
    left.wantedHeaders -= right.wantedHeaders
  }
}

/// Routes of late.
struct RouteCache: Sendable {
  struct Key: Hashable, Sendable {
    var exchange: UInt32
    var key: [UInt8]
  }
  private var routes: [Key: [UInt32]] = [:]

  subscript(key: Key) -> [UInt32]? { routes[key] }

  mutating func remember(_ route: [UInt32], for key: Key) {
    if routes.count >= TopologyLimits.routesRemembered { routes.removeAll() }
    routes[key] = route
  }

  mutating func forget() { if !routes.isEmpty { routes.removeAll() } }
}

extension Topology {
  /// The ids of the queues behind an exchange, ascending, each once.
  ///
  /// - Parameter headers: the message's headers, asked for only where an exchange looks at them.
  mutating func route(
    from exchange: UInt32, keys: [[UInt8]], headers: () -> HeaderIndex
  ) -> [UInt32] {
    if keys.count == 1 {
      let known = RouteCache.Key(exchange: exchange, key: keys[0])
      if let route = routes[known] { return route }
      var looksAtHeaders = false
      let route = findRoute(from: exchange, keys: keys) {
        looksAtHeaders = true
        return headers()
      }
      if !looksAtHeaders { routes.remember(route, for: known) }
      return route
    }
    return findRoute(from: exchange, keys: keys, headers: headers)
  }

  /// Whether what is published to the exchange may come to one that looks at its headers: it is such
  /// a one, or leads on to any other. Which ones these are is not looked at: this is asked for every
  /// message and queue, and there may be a million bindings behind the exchange.
  func maySeeHeaders(_ number: UInt32) -> Bool {
    guard let exchange = exchanges[UInt64(number)] else { return false }
    let settings = exchange.settings
    return settings.kind == .headers || exchange.exchangesBehind > 0 || !settings.alternate.isEmpty
  }

  private mutating func findRoute(
    from first: UInt32, keys: [[UInt8]], headers: () -> HeaderIndex
  ) -> [UInt32] {
    var queues = Set<UInt32>()
    var seen: Set<UInt32> = [first]
    var open = [first]
    var index: HeaderIndex?
    while let number = open.popLast() {
      guard let exchange = exchanges[UInt64(number)] else { continue }
      var isRouted = false
      func lead(_ binding: UInt64) {
        guard let binding = exchange.bindings[binding] else { return }
        isRouted = true
        if binding.leadsToExchange {
          if seen.insert(binding.target).inserted { open.append(binding.target) }
        } else {
          queues.insert(binding.target)
        }
      }
      switch exchange.settings.kind {
      case .direct: for key in keys { exchange.routes.direct[key]?.forEach(lead) }
      case .fanout: exchange.bindings.keys.forEach(lead)
      case .topic: for key in keys { exchange.routes.topics.match(key, lead) }
      case .headers:
        let read = index ?? headers()
        if index == nil { headerLooks += read.looks }
        index = read
        headerLooks += exchange.routes.headerLooks
        for (binding, match) in exchange.routes.headers where match.matches(read) { lead(binding) }
      }
      if !isRouted, !exchange.settings.alternate.isEmpty,
        let other = self.exchange(exchange.settings.alternate, in: exchange.host),
        seen.insert(other).inserted
      {
        open.append(other)
      }
    }
    return queues.sorted()
  }
}
