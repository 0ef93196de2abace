// The nodes of a run: real processes, children of this one, started, stopped and harmed here and
// nowhere else.

import Base
import Glibc
import SkeinClient

/// Starts a program that is given by its words, its output appended to a file, and returns its
/// process id. (The command line of `skein` knows how to start processes; the harness need not.)
package typealias Launch =
  @Sendable (_ words: [String], _ logFile: String) throws -> Int32

package actor ChaosCluster {
  nonisolated let places: ClusterPlaces
  nonisolated let leaders: LeaderWatch
  private let launch: Launch
  private let processes: NodeProcesses
  let network: any NetworkControl
  private let clock: RunClock
  /// Each node has a file system of its own, so large.
  private let diskBytes: UInt64?
  var nodes: [Int: Node] = [:]
  private var noted: [NodeExit] = []
  private var nextNode: Int
  /// The node whose disk is being harmed.
  private var diskInHand: Int?
  /// The run is at its end: nothing is started any more.
  private var isEnding = false

  struct Node {
    var pid: Int32?
    var isPaused = false
    /// A fault has it in hand: others leave it alone.
    var isTaken = false
  }

  private static let stopMax = Duration.seconds(12)
  /// Asking a node how it is.
  static let statusTimeout = Duration.milliseconds(500)

  init(
    places: ClusterPlaces, leaders: LeaderWatch, network: any NetworkControl,
    launch: @escaping Launch, processes: NodeProcesses, clock: RunClock, nodes count: Int,
    diskBytes: UInt64?
  ) {
    self.places = places
    self.leaders = leaders
    self.network = network
    self.launch = launch
    self.processes = processes
    self.clock = clock
    self.diskBytes = diskBytes
    nextNode = count + 1
    for node in 1...count { nodes[node] = Node() }
  }

  /// What nobody had asked the nodes for, in order.
  var exits: [NodeExit] { (noted + leaders.halts).sorted { $0.time < $1.time } }

  /// The members, ascending.
  var members: [Int] { nodes.keys.sorted() }
  var clientAddresses: [String] { members.map { network.clientAddress($0) } }
  var running: [Int] { members.filter { nodes[$0]?.pid != nil } }

  /// Writes the configurations and starts all nodes.
  func create() async throws {
    try ClusterFiles.makeDirectory("\(places.directory)/logs")
    for node in members {
      try await prepare(node, others: members)
      try writeConfiguration(node, members: members, joins: false)
    }
    for node in members { try await start(node) }
  }

  private func prepare(_ node: Int, others: [Int]) async throws {
    try await network.add(node, others: others)
    if let diskBytes { try places.disk(node).make(bytes: diskBytes) }
  }

  private func writeConfiguration(_ node: Int, members: [Int], joins: Bool) throws(ChaosError) {
    try ClusterFiles.write(
      places.configuration(node, members: members, joins: joins, network: network),
      to: places.configurationFile(node))
  }

  /// A limit of the node's directory, from its next start on.
  func limitDisk(_ node: Int, _ isLimited: Bool) throws(ChaosError) {
    let file = places.configurationFile(node)
    let text = String(decoding: try ClusterFiles.read(file), as: UTF8.self)
    try ClusterFiles.write(ClusterPlaces.limit(isLimited, in: text), to: file)
  }

  // MARK: Processes

  /// Starts a node that does not run.
  func start(_ node: Int) async throws {
    guard let known = nodes[node], known.pid == nil else { return }
    leaders.add(node)
    try await network.open(node)
    if isEnding { return }
    let words =
      network.commandPrefix(node) + ["skein", "node", "--config", places.configurationFile(node)]
    let pid = try processes.start { try launch(words, places.logFile(node)) }
    nodes[node]?.pid = pid
    nodes[node]?.isPaused = false
  }

  private static let refusalMax = Duration.seconds(10)

  /// What a node does that must not start.
  enum DamagedStart {
    case refused
    /// It has answered.
    case serves
    case unknown(String)
  }

  /// Starts a node that cannot start, and has it stopped if it does. What else it ends with is noted.
  func startDamaged(_ node: Int) async throws -> DamagedStart {
    try await start(node)
    guard let pid = nodes[node]?.pid else { return .unknown("the run ends") }
    let begin = ContinuousClock.now
    while true {
      if let status = processes.endStatus(pid) {
        let cause = Self.cause(status)
        if cause != NodeExit.refusal { note(node, cause) }
        _ = takeProcess(node)
        await ended(node)
        return cause == NodeExit.refusal ? .refused : .unknown("it ended with \(cause)")
      }
      var result: DamagedStart?
      if (try? await overview(of: node)) != nil {
        result = .serves
      } else if Task.isCancelled {
        result = .unknown("it was interrupted")
      } else if ContinuousClock.now - begin > Self.refusalMax {
        result = .unknown("it neither ends nor answers within \(Self.refusalMax)")
      }
      if let result {
        await stop(node)
        return result
      }
      usleep(1000)
      await Task.yield()
    }
  }

  /// A node that is in a fault's hands has ended by itself.
  func noteIfEnded(_ node: Int) async {
    guard let pid = nodes[node]?.pid, let status = processes.endStatus(pid) else { return }
    note(node, Self.cause(status))
    _ = takeProcess(node)
    await ended(node)
  }

  /// SIGKILL, and waits for the end.
  func kill(_ node: Int) async {
    guard let pid = takeProcess(node) else { return }
    _ = Glibc.kill(pid, SIGKILL)
    let status = await waitForEnd(pid, atMost: .seconds(10))
    // It may have been dead already, of something else.
    if status != SIGKILL { note(node, status.map(Self.cause) ?? "does not end after SIGKILL") }
    await ended(node)
  }

  /// Its machine loses power: the process dies, and with it all that its disk has not synced.
  func losePower(_ node: Int) async throws(ChaosError) {
    await kill(node)
    try places.disk(node).losePower()
  }

  /// Its machine has power again; the node is not started yet.
  func restorePower(_ node: Int) throws(ChaosError) { try places.disk(node).mount() }

  /// SIGTERM, and SIGKILL if that is not enough.
  func stop(_ node: Int) async {
    let isPaused = nodes[node]?.isPaused == true
    guard let pid = takeProcess(node) else { return }
    if isPaused { _ = Glibc.kill(pid, SIGCONT) }
    _ = Glibc.kill(pid, SIGTERM)
    if let status = await waitForEnd(pid, atMost: Self.stopMax) {
      // By the signal, where it had not come so far as to listen for it.
      if status != 0, status != SIGTERM { note(node, Self.cause(status)) }
    } else {
      note(node, "does not end within \(Self.stopMax) after SIGTERM")
      _ = Glibc.kill(pid, SIGKILL)
      _ = await waitForEnd(pid, atMost: .seconds(10))
    }
    await ended(node)
  }

  /// The process, which from now on only the caller knows of: `watch` shall not find it dead.
  private func takeProcess(_ node: Int) -> Int32? {
    defer {
      nodes[node]?.pid = nil
      nodes[node]?.isPaused = false
    }
    return nodes[node]?.pid
  }

  private func ended(_ node: Int) async {
    leaders.died(node)
    await network.close(node)
  }

  func pause(_ node: Int) {
    guard let pid = nodes[node]?.pid else { return }
    _ = Glibc.kill(pid, SIGSTOP)
    nodes[node]?.isPaused = true
  }

  func resume(_ node: Int) {
    guard let pid = nodes[node]?.pid, nodes[node]?.isPaused == true else { return }
    _ = Glibc.kill(pid, SIGCONT)
    nodes[node]?.isPaused = false
  }

  /// The status that the process ended with; nil if it runs on. So often is it looked for as fits into
  /// `limit`: when the whole machine stood still, nobody knows of whom that is the fault.
  private func waitForEnd(_ pid: Int32, atMost limit: Duration) async -> Int32? {
    for _ in 0..<Int(limit / .milliseconds(1)) {
      if let status = processes.endStatus(pid) { return status }
      // Also when this task is cancelled: a process that is not waited for would stay behind.
      usleep(1000)
      await Task.yield()
    }
    return processes.endStatus(pid)
  }

  /// Notices nodes that ended by themselves, and starts them again.
  func watch() async {
    while !Task.isCancelled {
      for node in members {
        guard let state = nodes[node], let pid = state.pid, !state.isTaken,
          let status = processes.endStatus(pid)
        else { continue }
        await noteExit(node, status)
      }
      do { try await Task.sleep(for: .milliseconds(50)) } catch { return }
    }
  }

  private func noteExit(_ node: Int, _ status: Int32) async {
    note(node, Self.cause(status))
    _ = takeProcess(node)
    await ended(node)
    if isEnding { return }
    do { try await start(node) } catch {
      noted.append(
        NodeExit(node: node, time: clock.now, cause: "does not start again", log: "\(error)"))
    }
  }

  /// One that ends at each start has said why by then.
  private static let exitsMax = 20

  private func note(_ node: Int, _ cause: String) {
    guard noted.count(where: { $0.node == node }) < Self.exitsMax else { return }
    noted.append(NodeExit(node: node, time: clock.now, cause: cause, log: logEnd(node)))
  }

  /// What the node did is against a promise.
  func noteBreach(_ text: String, by node: Int, of promise: String) {
    noted.append(
      NodeExit(
        node: node, time: clock.now, cause: text, log: logEnd(node), isAlive: true,
        promise: promise))
  }

  /// Of a status of waitpid(2).
  private static func cause(_ status: Int32) -> String {
    status & 0x7f == 0 ? "exit code \((status >> 8) & 0xff)" : "signal \(status & 0x7f)"
  }

  private func logEnd(_ node: Int) -> String {
    let bytes = (try? ClusterFiles.read(places.logFile(node))) ?? []
    return String(decoding: bytes.suffix(4000), as: UTF8.self).split(separator: "\n").suffix(12)
      .joined(separator: "\n")
  }

  /// Stops whatever runs, all at once. For the end of a run, however it ended.
  func stopAll() async {
    isEnding = true
    await withTaskGroup { group in
      for node in members { group.addTask { await self.stop(node) } }
    }
  }

  // MARK: Faults' targets

  /// Nodes for a fault, taken until they are let go; empty if there are none now.
  ///
  /// - Parameter isDisk: the fault harms a disk. One at a time: what one node loses the others must
  ///   have.
  func take(_ target: FaultTarget, draw: UInt64, isDisk: Bool) -> [Int] {
    if isDisk, diskInHand != nil { return [] }
    let free = running.filter { nodes[$0]?.isTaken == false && nodes[$0]?.isPaused == false }
    var random = SeededRandom(seed: draw)
    let leader = leaders.leader?.node
    let followers = free.filter { $0 != leader }.shuffled(using: &random)
    var chosen: [Int]
    switch target {
    case .leader: chosen = leader.map { free.contains($0) ? [$0] : [] } ?? []
    case .former:
      let former = leaders.changes.last { $0.node != leader }?.node
      chosen = former.map { free.contains($0) ? [$0] : [] } ?? []
    case .follower: chosen = Array(followers.prefix(1))
    case .node: chosen = Array(free.shuffled(using: &random).prefix(1))
    case .minority:
      chosen = Array(free.shuffled(using: &random).prefix(target.count(of: members.count)))
    case .majority:
      let ledFirst = (leader.map { free.contains($0) ? [$0] : [] } ?? []) + followers
      chosen = Array(ledFirst.prefix(target.count(of: members.count)))
    case .all: chosen = free
    }
    chosen.sort()
    for node in chosen { nodes[node]?.isTaken = true }
    if isDisk, let node = chosen.first {
      diskInHand = node
      leaders.excuse(node)
      leaders.diskIsHarmed(node)
    }
    return chosen
  }

  func takeAll() -> [Int] {
    let free = running.filter { nodes[$0]?.isTaken == false }
    for node in free { nodes[node]?.isTaken = true }
    return free
  }

  func letGo(_ taken: [Int]) {
    for node in taken { nodes[node]?.isTaken = false }
    if let node = diskInHand, taken.contains(node) {
      diskInHand = nil
      leaders.excuseNoMore(node)
    }
  }

  // MARK: Members

  /// Each new node has ports of its own, of which there are only so many.
  var mayJoin: Bool { nextNode <= ClusterPlaces.nodesMax }

  /// Starts one more node, which waits to be added.
  func startJoining() async throws -> (node: Int, peers: String, clients: String) {
    guard mayJoin else { throw ChaosError("no more nodes") }
    let node = nextNode
    nextNode += 1
    try await prepare(node, others: members)
    try writeConfiguration(node, members: members + [node], joins: true)
    nodes[node] = Node(isTaken: true)
    try await start(node)
    return (node, network.peerAddress(node), network.clientAddress(node))
  }

  /// The node is no member any more, or never was: it ends, and its data goes.
  func forget(_ node: Int) async throws {
    await stop(node)
    nodes[node] = nil
    if diskBytes != nil { places.disk(node).detach() }
    try ClusterFiles.remove(places.dataDirectory(node))
  }
}
