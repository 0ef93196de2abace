// What is between the nodes and their clients, and can be harmed: the proxies, or network namespaces.

import Base

/// Carries the traffic of a run's cluster.
package protocol NetworkControl: Sendable {
  /// Where everybody looks for the node.
  func peerAddress(_ node: Int) -> String
  func clientAddress(_ node: Int) -> String
  /// Where it listens.
  func peerListenAddress(_ node: Int) -> String
  func clientListenAddress(_ node: Int) -> String
  /// Where the harness reaches it for its own questions, whatever is cut.
  func directAddress(_ node: Int) -> String
  /// What has to stand before the words that start the node.
  func commandPrefix(_ node: Int) -> [String]

  /// Why this network cannot do such a fault; nil if it can.
  func refusal(of kind: FaultKind) -> String?

  /// A node that will be there.
  func add(_ node: Int, others: [Int]) async throws(ChaosError)
  /// The node starts.
  func open(_ node: Int) async throws(ChaosError)
  /// The node has ended: who dials it is refused.
  func close(_ node: Int) async
  /// These rules hold, and no others.
  func set(_ rules: [Link: LinkRule]) async throws(ChaosError)
  func reset(nodes: Set<Int>) async throws(ChaosError)
  func halfOpen(nodes: Set<Int>) async throws(ChaosError)
  /// Leaves nothing behind.
  func stop() async
  /// The process is about to end, and what would outlive it goes. Whatever else is under way.
  func abandon()
}

extension NetworkControl {
  /// Where the node's AMQP clients look for it, and where it listens for them.
  func amqpAddress(_ node: Int) -> String { Self.amqpPort(beside: clientAddress(node)) }
  func amqpListenAddress(_ node: Int) -> String { Self.amqpPort(beside: clientListenAddress(node)) }

  private static func amqpPort(beside address: String) -> String {
    let parts = address.split(separator: ":")
    guard parts.count == 2, let port = Int(parts[1]) else { stopForBug("\(address) has no port") }
    return "\(parts[0]):\(port + ClusterPlaces.amqpPortDistance)"
  }
}

/// The network of a run without root: everything goes through the proxies.
struct ProxyNetwork: NetworkControl {
  let places: ClusterPlaces
  let proxies: Proxies

  func peerAddress(_ node: Int) -> String { places.peerAddress(node) }
  func clientAddress(_ node: Int) -> String { places.clientAddress(node) }
  func peerListenAddress(_ node: Int) -> String { places.directPeerAddress(node) }
  func clientListenAddress(_ node: Int) -> String { places.directClientAddress(node) }
  func directAddress(_ node: Int) -> String { places.directClientAddress(node) }
  func commandPrefix(_ node: Int) -> [String] { [] }
  func add(_ node: Int, others: [Int]) {}

  func open(_ node: Int) async throws(ChaosError) {
    for route in places.routes(node) { try await proxies.listen(route) }
  }

  func close(_ node: Int) async { await proxies.stopListening(node: node) }

  func refusal(of kind: FaultKind) -> String? { Self.refusal(of: kind) }

  /// Known without one.
  static func refusal(of kind: FaultKind) -> String? {
    kind.needsNamespaces
      ? "proxies see no packets: it needs --netns, as root, and netem in the kernel" : nil
  }

  func set(_ rules: [Link: LinkRule]) async { await proxies.set(rules) }
  func reset(nodes: Set<Int>) async { await proxies.reset(nodes: nodes) }
  func halfOpen(nodes: Set<Int>) async { await proxies.halfOpen(nodes: nodes) }
  func stop() { proxies.stop() }
  func abandon() {}
}
