// The network of a run as root: a network namespace for each node, and one between them that routes.
// What is cut there is a real blackhole: packets vanish, in one direction, and nobody is told.
//
//     root namespace ── hub ── node 1        10.X.254.2 ── 10.X.N.1 ── 10.X.N.2 (all traffic)
//                        ├──── node 2                                  10.X.N.3 (the harness)
//
// All of it carries the process id in its name and is gone when the run is; X is a number that no other run
// has. `skein chaos` keeps the names in a mount namespace of its own, so that they go with it even if it is
// killed.

import Base
import Glibc
import Synchronization

final class NamespaceNetwork: NetworkControl {
  private let places: ClusterPlaces
  private let prefix: String
  /// `10.X`.
  private let network: String
  /// Why packets cannot be delayed or lost; nil if they can, or nobody wants it.
  private let shapingTrouble: String?
  private let state = Mutex(State())

  private struct State {
    var nodes: Set<Int> = []
    var cuts: Set<Link> = []
    /// Devices that have queues of ours.
    var shaped: Set<TrafficShape.Device> = []
    /// All is taken down, for good.
    var isOver = false
  }

  private var hub: String { prefix }
  private var clients: String { "\(network).254.2" }

  /// Makes the hub. Needs root.
  /// - Parameter shapes: packets are to be delayed or lost.
  init(places: ClusterPlaces, shapes: Bool) throws(ChaosError) {
    guard geteuid() == 0 else { throw ChaosError("--netns needs root") }
    let prefix = "skc\(getpid())"
    try Self.ip("netns", "add", prefix)
    do throws(ChaosError) {
      try Self.check(
        ["ip", "netns", "exec", prefix, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
      try Self.ip("link", "add", prefix, "type", "veth", "peer", "name", "root", "netns", prefix)
      try Self.ip("link", "set", prefix, "up")
      network = try Self.connect(hub: prefix)
      shapingTrouble = shapes ? try Self.shapingTrouble(in: prefix) : nil
    } catch {
      Self.remove(hub: prefix, nodes: [])
      throw error
    }
    self.prefix = prefix
    self.places = places
  }

  /// Gives the hub and the harness addresses in a network that nobody here has a way to.
  /// - Returns: `10.X`.
  private static func connect(hub: String) throws(ChaosError) -> String {
    var failure = ChaosError("the machine has a way to all networks from 10.200 to 10.249")
    let routes = (try? ClusterFiles.read("/proc/net/route")) ?? []
    for number in freeNetworks(routes: String(decoding: routes, as: UTF8.self), from: getpid()) {
      let network = "10.\(number)"
      do throws(ChaosError) {
        try ip("addr", "add", "\(network).254.2/24", "dev", hub)
        try ip("-n", hub, "addr", "add", "\(network).254.1/24", "dev", "root")
        try ip("-n", hub, "link", "set", "root", "up")
        // Refused if another run was first.
        try ip("route", "add", "\(network).0.0/16", "via", "\(network).254.1")
        return network
      } catch {
        failure = error
        _ = SystemCommand.run(["ip", "addr", "flush", "dev", hub])
        _ = SystemCommand.run(["ip", "-n", hub, "addr", "flush", "dev", "root"])
      }
    }
    throw failure
  }

  private static let networkCount = 50

  /// The X for which there is no route into 10.X.
  /// - Parameter routes: as in /proc/net/route: a head, then lines whose second word is the destination and whose
  ///   eighth is its mask, in hexadecimal digits, the first byte last.
  static func freeNetworks(routes: String, from process: pid_t) -> [Int] {
    let taken = routes.split(separator: "\n").dropFirst().compactMap {
      line -> (address: UInt32, mask: UInt32)? in
      let words = line.split(whereSeparator: \.isWhitespace)
      guard words.count > 7, let address = UInt32(words[1], radix: 16),
        let mask = UInt32(words[7], radix: 16)
      else { return nil }
      // Shorter than 10.0.0.0/8 is the way to everywhere, also in two halves.
      return mask & 0xff == 0xff ? (address, mask) : nil
    }
    // The first one that is tried differs from process to process.
    return (0..<networkCount).map { 200 + (Int(process) + $0) % networkCount }.filter { number in
      let network = UInt32(number) << 8 | 10
      // A wider route covers it, a narrower one lies in it.
      return !taken.contains { ($0.address ^ network) & $0.mask & 0xffff == 0 }
    }
  }

  private func namespace(_ node: Int) -> String { Self.namespace(prefix, node) }
  private static func namespace(_ hub: String, _ node: Int) -> String { "\(hub)n\(node)" }
  private func host(_ node: Int) -> String { "\(network).\(node).2" }

  // MARK: Addresses

  func peerAddress(_ node: Int) -> String { "\(host(node)):7450" }
  func clientAddress(_ node: Int) -> String { "\(host(node)):7400" }
  func peerListenAddress(_ node: Int) -> String { "0.0.0.0:7450" }
  func clientListenAddress(_ node: Int) -> String { "0.0.0.0:7400" }
  func directAddress(_ node: Int) -> String { "\(network).\(node).3:7400" }

  func commandPrefix(_ node: Int) -> [String] {
    ["/usr/bin/env", "ip", "netns", "exec", namespace(node)]
  }

  // MARK: Nodes

  func add(_ node: Int, others: [Int]) throws(ChaosError) {
    try state.withLock { (state) throws(ChaosError) in
      if state.isOver { throw ChaosError("the run was ended") }
      // Under the lock, so that whoever takes all down finds it.
      if state.nodes.insert(node).inserted { try make(node) }
    }
  }

  private func make(_ node: Int) throws(ChaosError) {
    let name = namespace(node)
    try Self.ip("netns", "add", name)
    try Self.ip(
      "link", "add", "n\(node)", "netns", hub, "type", "veth", "peer", "name", "eth0", "netns", name
    )
    try Self.ip("-n", hub, "addr", "add", "\(network).\(node).1/24", "dev", "n\(node)")
    try Self.ip("-n", hub, "link", "set", "n\(node)", "up")
    for host in 2...3 {
      try Self.ip("-n", name, "addr", "add", "\(network).\(node).\(host)/24", "dev", "eth0")
    }
    try Self.ip("-n", name, "link", "set", "lo", "up")
    try Self.ip("-n", name, "link", "set", "eth0", "up")
    try Self.ip("-n", name, "route", "add", "default", "via", "\(network).\(node).1")
  }

  // A process that is not there refuses by itself.
  func open(_ node: Int) {}
  func close(_ node: Int) {}

  // MARK: Harm

  func refusal(of kind: FaultKind) -> String? {
    Self.refusal(of: kind) ?? (kind.isShaped ? shapingTrouble : nil)
  }

  /// Known without one.
  static func refusal(of kind: FaultKind) -> String? {
    switch kind {
    case .throttle, .drop, .halfOpen: "only the proxies can do it: without --netns"
    // A namespace brings copies of all mounts: a file system would live on in the others'.
    case .powerLoss: "a node in a namespace keeps the others' file systems: without --netns"
    default: nil
    }
  }

  /// Why packets cannot be delayed or lost here; nil if they can. Tried out where nobody sends anything.
  private static func shapingTrouble(in hub: String) throws(ChaosError) -> String? {
    let device = TrafficShape.Device(namespace: hub, name: "lo")
    for words in try TrafficShape.trial(on: device) {
      if let failure = SystemCommand.run(words) {
        return "tc (iproute2) or the kernel's netem, prio or u32 is missing:"
          + " \(words.joined(separator: " ")): \(failure)"
      }
    }
    _ = SystemCommand.run(TrafficShape.removal(from: device))
    return nil
  }

  func set(_ rules: [Link: LinkRule]) async throws(ChaosError) {
    try state.withLock { (state) throws(ChaosError) in
      if state.isOver { return }
      let cuts = Set(rules.filter { $0.value.isCut }.keys)
      for link in state.cuts.subtracting(cuts) { try rule("del", link) }
      for link in cuts.subtracting(state.cuts) { try rule("add", link) }
      state.cuts = cuts
      try shape(rules, &state)
    }
  }

  private func rule(_ verb: String, _ link: Link) throws(ChaosError) {
    try Self.ip(
      "-n", hub, "rule", verb, "from", address(link.from), "to", address(link.to), "priority",
      "100",
      "blackhole")
  }

  private func address(_ party: Party) -> String {
    switch party {
    case .node(let node): host(node)
    case .clients: clients
    }
  }

  /// Packets of the links that the rules name are delayed or lost by the kernel's netem, and no others.
  private func shape(_ rules: [Link: LinkRule], _ state: inout State) throws(ChaosError) {
    for device in state.shaped {
      // Whatever is left of it would be in the way below, and is named there.
      _ = SystemCommand.run(TrafficShape.removal(from: device))
    }
    state.shaped = []
    for party in state.nodes.sorted().map(Party.node) + [.clients] {
      let links = rules.filter { $0.key.from == party }.map { link, rule in
        TrafficShape.Way(from: address(link.from), to: address(link.to), rule: rule)
      }
      let device = device(of: party)
      let commands = try TrafficShape.commands(links, on: device)
      if !commands.isEmpty { state.shaped.insert(device) }
      for words in commands {
        if let failure = SystemCommand.run(words) {
          throw ChaosError("\(words.joined(separator: " ")): \(failure)")
        }
      }
    }
  }

  /// What the party sends leaves through it.
  private func device(of party: Party) -> TrafficShape.Device {
    switch party {
    case .node(let node): TrafficShape.Device(namespace: namespace(node), name: "eth0")
    case .clients: TrafficShape.Device(namespace: nil, name: prefix)
    }
  }

  // Refused before.
  func reset(nodes: Set<Int>) {}
  func halfOpen(nodes: Set<Int>) {}

  // MARK: The end

  func stop() { removeAll() }
  func abandon() { removeAll() }

  private func removeAll() {
    state.withLock { state in
      state.isOver = true
      Self.remove(hub: hub, nodes: state.nodes.sorted())
    }
  }

  /// Each may be missing already; the links go with the namespaces they lead to.
  private static func remove(hub: String, nodes: [Int]) {
    for node in nodes { _ = SystemCommand.run(["ip", "netns", "del", namespace(hub, node)]) }
    _ = SystemCommand.run(["ip", "link", "del", hub])
    _ = SystemCommand.run(["ip", "netns", "del", hub])
  }

  private static func ip(_ words: String...) throws(ChaosError) { try check(["ip"] + words) }

  private static func check(_ words: [String]) throws(ChaosError) {
    if let failure = SystemCommand.run(words) {
      throw ChaosError("\(words.joined(separator: " ")): \(failure)")
    }
  }
}

/// A program of the system, run to its end.
enum SystemCommand {
  /// - Returns: nil if all went well, else what did not.
  static func run(_ words: [String]) -> String? {
    // SAFETY: each copy is freed once, below; posix_spawn keeps none.
    let arguments = words.map { strdup($0) } + [nil]
    defer { for argument in arguments { free(argument) } }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for descriptor in [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO] {
      posix_spawn_file_actions_addopen(&actions, descriptor, "/dev/null", O_RDWR, 0)
    }
    var pid: pid_t = 0
    let result = posix_spawnp(&pid, words[0], &actions, nil, arguments, environ)
    guard result == 0 else { return String(cString: strerror(result)) }
    var status: Int32 = 0
    while waitpid(pid, &status, 0) < 0 {
      guard errno == EINTR else { return String(cString: strerror(errno)) }
    }
    return status == 0 ? nil : "exit code \((status >> 8) & 0xff)"
  }
}
