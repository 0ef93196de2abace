// The network of a run as root: a network namespace for each node, and one between them that routes.
// What is cut there is a real blackhole: packets vanish, in one direction, and nobody is told.
//
//     root namespace ── hub ── node 1        10.231.254.2 ── 10.231.N.1 ── 10.231.N.2 (all traffic)
//                        ├──── node 2                                      10.231.N.3 (the harness)
//
// All of it carries the process id in its name and is gone when the run is.

import Base
import Glibc
import Synchronization

final class NamespaceNetwork: NetworkControl {
  private let places: ClusterPlaces
  private let prefix: String
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
  private static let clients = "10.231.254.2"

  /// Makes the hub. Needs root.
  init(places: ClusterPlaces) throws(ChaosError) {
    self.places = places
    prefix = "skc\(getpid())"
    guard geteuid() == 0 else { throw ChaosError("--netns needs root") }
    Self.removeRemains()
    try ip("netns", "add", hub)
    do throws(ChaosError) {
      try inside(hub, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
      try ip("link", "add", prefix, "type", "veth", "peer", "name", "root", "netns", hub)
      try ip("addr", "add", "\(Self.clients)/24", "dev", prefix)
      try ip("link", "set", prefix, "up")
      try ip("-n", hub, "addr", "add", "10.231.254.1/24", "dev", "root")
      try ip("-n", hub, "link", "set", "root", "up")
      try ip("route", "add", "10.231.0.0/16", "via", "10.231.254.1")
    } catch {
      removeAll()
      throw error
    }
  }

  private func namespace(_ node: Int) -> String { "\(prefix)n\(node)" }
  private func host(_ node: Int) -> String { "10.231.\(node).2" }

  // MARK: Addresses

  func peerAddress(_ node: Int) -> String { "\(host(node)):7450" }
  func clientAddress(_ node: Int) -> String { "\(host(node)):7400" }
  func peerListenAddress(_ node: Int) -> String { "0.0.0.0:7450" }
  func clientListenAddress(_ node: Int) -> String { "0.0.0.0:7400" }
  func directAddress(_ node: Int) -> String { "10.231.\(node).3:7400" }

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
    try ip("netns", "add", name)
    try ip(
      "link", "add", "n\(node)", "netns", hub, "type", "veth", "peer", "name", "eth0", "netns", name
    )
    try ip("-n", hub, "addr", "add", "10.231.\(node).1/24", "dev", "n\(node)")
    try ip("-n", hub, "link", "set", "n\(node)", "up")
    for host in 2...3 {
      try ip("-n", name, "addr", "add", "10.231.\(node).\(host)/24", "dev", "eth0")
    }
    try ip("-n", name, "link", "set", "lo", "up")
    try ip("-n", name, "link", "set", "eth0", "up")
    try ip("-n", name, "route", "add", "default", "via", "10.231.\(node).1")
  }

  // A process that is not there refuses by itself.
  func open(_ node: Int) {}
  func close(_ node: Int) {}

  // MARK: Harm

  func refusal(of kind: FaultKind) -> String? {
    switch kind {
    case .throttle, .drop, .halfOpen: "only by the proxies: without --netns"
    // A namespace brings copies of all mounts: a file system would live on in the others'.
    case .powerLoss: "only without --netns"
    default: nil
    }
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
    try ip(
      "-n", hub, "rule", verb, "from", address(link.from), "to", address(link.to), "priority",
      "100",
      "blackhole")
  }

  private func address(_ party: Party) -> String {
    switch party {
    case .node(let node): host(node)
    case .clients: Self.clients
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
          throw ChaosError(
            "the kernel has no netem or prio, it seems: \(words.joined(separator: " ")): \(failure)"
          )
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
      // Each may be missing already; the links go with the namespaces they lead to.
      for node in state.nodes.sorted() {
        _ = SystemCommand.run(["ip", "netns", "del", namespace(node)])
      }
      _ = SystemCommand.run(["ip", "link", "del", prefix])
      _ = SystemCommand.run(["ip", "netns", "del", hub])
    }
  }

  /// What runs left behind that were killed before they could take it down.
  private static func removeRemains() {
    // The directory is there once a namespace has a name.
    let names = (try? ClusterFiles.names(in: "/run/netns")) ?? []
    for name in remains(of: names, isAlive: { kill($0, 0) == 0 || errno != ESRCH }) {
      // The link of that name is the hub's.
      if !name.dropFirst(3).contains("n") { _ = SystemCommand.run(["ip", "link", "del", name]) }
      _ = SystemCommand.run(["ip", "netns", "del", name])
    }
  }

  /// Of these namespaces those of runs whose processes are gone.
  static func remains(of names: [String], isAlive: (pid_t) -> Bool) -> [String] {
    names.filter { name in
      guard name.hasPrefix("skc") else { return false }
      let parts = name.dropFirst(3).split(separator: "n", omittingEmptySubsequences: false)
      guard parts.count <= 2, let process = pid_t(parts[0]), process > 0,
        parts.count == 1 || Int(parts[1]) != nil
      else { return false }
      return !isAlive(process)
    }
  }

  private func inside(_ namespace: String, _ words: String...) throws(ChaosError) {
    try check(["ip", "netns", "exec", namespace] + words)
  }

  private func ip(_ words: String...) throws(ChaosError) { try check(["ip"] + words) }

  private func check(_ words: [String]) throws(ChaosError) {
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
