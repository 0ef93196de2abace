// One run from its beginning to its end: start a cluster, load it, hurt it, heal it, drain it, judge
// what the clients saw.

import Base
import Glibc
import History
import Synchronization
import Transport

/// What a run is asked to do.
package struct ChaosOptions: Sendable {
  package var scenario: Scenario
  package var seed: UInt64
  package var duration: Nanoseconds
  /// As it was given, if it is not the scenario's own.
  package var rate: String?
  /// The scenario's name or file, as it was given.
  package var word: String
  package var isStrict = true
  /// All load goes through AMQP.
  package private(set) var isAMQP = false
  package var usesNamespaces = false
  /// nil looks for free ports.
  package var basePort: UInt16?
  /// Where the report goes; nil writes none.
  package var report: String?
  /// Where the cluster's own directory is made, and removed at the end.
  package var temporary = "/tmp"

  package init(scenario: Scenario, seed: UInt64) {
    self.scenario = scenario
    self.seed = seed
    word = scenario.name
    duration = scenario.duration
  }

  /// Instead of what the scenario says.
  package mutating func speakAMQP() {
    isAMQP = true
    scenario.workload.speakAMQP()
  }
}

/// Where a run stands.
package enum ChaosPhase: String, Sendable {
  case starting, hurting, healing, settling, draining, judging, done
}

/// For the progress line.
package struct ChaosProgress: Sendable {
  package let phase: ChaosPhase
  package let time: Nanoseconds
  package let active: [String]
  package let faults: Int
  package let totals: Recording.Totals
}

package final class ChaosRun: Sendable {
  let options: ChaosOptions
  package let plan: FaultPlan
  private let launch: Launch
  private let phase = Mutex(ChaosPhase.starting)
  private let processes = NodeProcesses()

  package init(_ options: ChaosOptions, launch: @escaping Launch) {
    self.options = options
    self.launch = launch
    plan = FaultPlan(options.scenario, seed: options.seed, duration: options.duration)
  }

  /// Health after the last fault is healed.
  private static let healthMax = Duration.seconds(60)
  private static let settleMax = Duration.seconds(60)
  private static let drainMax = Duration.seconds(180)

  /// The file systems of the nodes' own, while there are some.
  private let disks = Mutex<[NodeDisk]>([])

  /// What is between the nodes, while there is something.
  private let network = Mutex<(any NetworkControl)?>(nil)

  /// The directory of the run, while there is one.
  private let directory = Mutex<String?>(nil)
  /// Keeps the ports from other runs.
  private let claim = Mutex<Listener?>(nil)

  /// Ends all nodes at once and for ever, and leaves their directory: for a process that is about to end itself.
  package func killAll() {
    // First, so that nothing that hangs is before it. If it cannot be kept, the next run removes it.
    if let path = directory.withLock({ $0 }) { try? RunDirectory.keep(path) }
    processes.killAll()
    for disk in disks.withLock({ $0 }) { disk.detach() }
    network.withLock({ $0 })?.abandon()
  }

  /// Why not one fault of the plan can be done, whatever machine this is; nil if one can.
  package var misuse: String? { uselessness { networkRefusal(of: $0) } }

  /// The kinds of the plan's faults that will not be done, and why, as far as it is known before the start.
  package var refusals: [(kind: FaultKind, reason: String)] {
    FaultKind.allCases.compactMap { kind in
      guard plan.faults.contains(where: { $0.line.kind == kind }) else { return nil }
      return networkRefusal(of: kind).map { (kind, $0) }
    }
  }

  private func networkRefusal(of kind: FaultKind) -> String? {
    options.usesNamespaces
      ? NamespaceNetwork.refusal(of: kind) : ProxyNetwork.refusal(of: kind)
  }

  private func uselessness(_ refusal: (FaultKind) -> String?) -> String? {
    guard let first = plan.faults.first, let reason = refusal(first.line.kind),
      plan.faults.allSatisfy({ refusal($0.line.kind) != nil })
    else { return nil }
    return
      "no fault of \(options.scenario.name) can be done: \(first.line.kind.rawValue): \(reason)"
  }

  private func claimPorts() throws -> UInt16 {
    let nodes = options.scenario.nodes
    return try claim.withLock { claim in
      let (base, listener) = try ClusterPlaces.claimPorts(nodes: nodes)
      claim = listener
      return base
    }
  }

  /// Runs it. However it ends, nothing of it keeps running.
  /// - Parameters:
  ///   - warn: told what went wrong and is no reason to end.
  ///   - progress: called a few times a second.
  /// - Throws: why it could not be started.
  package func run(
    warn: (String) -> Void, progress: @escaping @Sendable (ChaosProgress) -> Void
  ) async throws -> ChaosResult {
    if plan.faults.isEmpty {
      throw ChaosError(
        "\(DurationText.format(plan.duration)) are too short for any fault of"
          + " \(options.scenario.name)")
    }
    if let misuse { throw ChaosError(misuse) }
    for failure in RunDirectory.removeRemains(in: options.temporary) {
      warn("what an earlier run left is not removed: \(failure)")
    }
    let base = try options.basePort ?? claimPorts()
    let reportDirectory = options.report
    if let reportDirectory { try ClusterFiles.makeDirectory(reportDirectory) }
    let directory = try RunDirectory(in: options.temporary)
    self.directory.withLock { $0 = directory.path }
    let places = ClusterPlaces(directory: directory.path, basePort: base)
    if options.scenario.diskBytes != nil {
      disks.withLock { $0 = (1...ClusterPlaces.nodesMax).map { places.disk($0) } }
    }
    let history = (reportDirectory ?? directory.path) + "/history.jsonl"
    let recording: Recording
    let parts: Parts
    do {
      recording = try Recording(path: history, clock: RunClock())
      parts = try assemble(places, recording)
    } catch {
      await network.withLock({ $0 })?.stop()
      try cleanUp(directory, keeps: false)
      throw error
    }
    let showing = Task { await self.show(parts, progress) }
    var trouble: String?
    var isUp = false
    do {
      try await parts.cluster.create()
      try await comeUp(parts)
      isUp = true
      try await carryOut(parts)
    } catch is CancellationError {
      trouble = "it was interrupted"
    } catch {
      trouble = "\(error)"
    }
    let isInterrupted = Task.isCancelled
    if isInterrupted { trouble = "it was interrupted" }
    if trouble == nil {
      trouble = Self.doubt(await parts.faults.unknowns, await parts.faults.records)
    }
    let exits = await finish(parts)
    setPhase(.judging)
    do {
      try recording.finish()
      // A node that ended by itself, also before there was any load, is the run's result.
      if !isUp, !isInterrupted, exits.allSatisfy(\.wasRefused) {
        throw ChaosError(exits.first?.log ?? trouble ?? "it did not start")
      }
      var result = try await judge(parts, history: history, trouble: trouble, exits: exits)
      showing.cancel()
      await showing.value
      if let reportDirectory { try Report.write(result, places: places, to: reportDirectory) }
      // What was only interrupted is no puzzle.
      let keeps = result.outcome == .violated || (result.outcome == .incomplete && !isInterrupted)
      if keeps { result.keptDirectory = directory.path }
      try cleanUp(directory, keeps: keeps)
      setPhase(.done)
      return result
    } catch {
      showing.cancel()
      await showing.value
      try cleanUp(directory, keeps: true)
      throw ChaosError("\(error); the nodes' directory is \(directory.path)")
    }
  }

  /// Why a run that came to its end does not show that all is well.
  static func doubt(_ unknowns: [String], _ records: [FaultRecord]) -> String? {
    unknowns.isEmpty
      ? harmlessness(records) : "not known: \(unknowns.joined(separator: "; "))"
  }

  /// A run that harmed nobody shows nothing.
  /// - Returns: nil if one of the faults was done.
  static func harmlessness(_ records: [FaultRecord]) -> String? {
    guard records.allSatisfy({ $0.skipped != nil }) else { return nil }
    return "no fault was done: \(records.first?.skipped ?? "there was none")"
  }

  /// What a run is made of.
  struct Parts: Sendable {
    let cluster: ChaosCluster
    let workload: Workload
    let faults: FaultActor
    let network: any NetworkControl
    let leaders: LeaderWatch
    let recording: Recording
    let watches: [Task<Void, Never>]
  }

  private func assemble(_ places: ClusterPlaces, _ recording: Recording) throws -> Parts {
    let nodes = options.scenario.nodes
    let network: any NetworkControl =
      options.usesNamespaces
      ? try NamespaceNetwork(places: places, shapes: plan.faults.contains { $0.line.kind.isShaped })
      : ProxyNetwork(places: places, proxies: try Proxies(seed: options.seed))
    self.network.withLock { $0 = network }
    if let reason = uselessness(network.refusal) { throw ChaosError(reason) }
    let leaders = LeaderWatch(places: places, recording: recording)
    let cluster = ChaosCluster(
      places: places, leaders: leaders, network: network, launch: launch, processes: processes,
      clock: recording.clock, nodes: nodes, diskBytes: options.scenario.diskBytes)
    let workload = Workload(
      plan: options.scenario.workload, recording: recording, seed: options.seed,
      endpoints: { await cluster.clientAddresses },
      amqpAddresses: (1...nodes).map { network.amqpAddress($0) })
    let faults = FaultActor(
      cluster: cluster, workload: workload, network: network, recording: recording)
    return Parts(
      cluster: cluster, workload: workload, faults: faults, network: network, leaders: leaders,
      recording: recording,
      watches: [Task { await leaders.run() }, Task { await cluster.watch() }])
  }

  // MARK: Phases

  private func comeUp(_ parts: Parts) async throws {
    if let trouble = await parts.cluster.waitUntilHealthy(atMost: .seconds(30)) {
      throw ChaosError("the cluster does not come up: \(trouble)")
    }
    try await parts.workload.declare()
    try await parts.workload.start()
  }

  private func carryOut(_ parts: Parts) async throws {
    setPhase(.hurting)
    // The plan's times count from here.
    let begin = parts.recording.clock.now
    try await parts.faults.carryOut(plan, from: begin)
    try await parts.recording.clock.sleep(until: begin + plan.duration)
    setPhase(.healing)
    try await parts.faults.healNetwork()
    if let trouble = await parts.cluster.waitUntilHealthy(atMost: Self.healthMax) {
      throw ChaosError("the cluster is not well after healing: \(trouble)")
    }
    setPhase(.settling)
    guard try await parts.workload.settle(atMost: Self.settleMax) else {
      throw ChaosError("publishes got no answer from a healed cluster")
    }
    setPhase(.draining)
    try await parts.workload.drain(atMost: Self.drainMax)
  }

  /// Ends all processes, whatever happened.
  private func finish(_ parts: Parts) async -> [NodeExit] {
    // In a task of its own: a cancelled one could not wait for anything any more.
    await Task.detached {
      // A network that cannot be healed is taken down below.
      try? await parts.faults.healNetwork()
      await parts.workload.end()
      for watch in parts.watches { watch.cancel() }
      await parts.cluster.stopAll()
      // Also how they ended when they were told to.
      let exits = await parts.cluster.exits
      for watch in parts.watches { await watch.value }
      await parts.network.stop()
      return exits
    }.value
  }

  private func cleanUp(_ directory: borrowing RunDirectory, keeps: Bool) throws(ChaosError) {
    for disk in disks.withLock({ $0 }) { disk.detach() }
    if keeps { try directory.keep() } else { try directory.remove() }
  }

  private func setPhase(_ next: ChaosPhase) { phase.withLock { $0 = next } }

  private func show(
    _ parts: Parts, _ progress: @escaping @Sendable (ChaosProgress) -> Void
  ) async {
    while !Task.isCancelled {
      let faults = await parts.faults.records.count
      progress(
        ChaosProgress(
          phase: phase.withLock { $0 }, time: parts.recording.clock.now,
          active: await parts.faults.active, faults: faults, totals: parts.recording.totals))
      do { try await Task.sleep(for: .milliseconds(200)) } catch { return }
    }
  }

  // MARK: Judging

  private func judge(
    _ parts: Parts, history: String, trouble: String?, exits: [NodeExit]
  ) async throws -> ChaosResult {
    var checker = Checker(try Self.read(history), isStrict: options.isStrict)
    let verdict = checker.judge()
    return ChaosResult(
      options: options, plan: plan, verdict: verdict, trouble: trouble, exits: exits,
      faults: await parts.faults.records, leaderships: parts.leaders.changes,
      series: parts.recording.series, totals: parts.recording.totals,
      length: parts.recording.clock.now)
  }

  private static func read(_ path: String) throws -> History {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { throw ChaosError.system(path) }
    defer { close(file) }
    var reader = HistoryReader()
    var piece = [UInt8](repeating: 0, count: 1 << 20)
    do {
      while true {
        let count = Glibc.read(file, &piece, piece.count)
        if count == 0 { return try reader.finish() }
        if count < 0, errno != EINTR { throw ChaosError.system(path) }
        if count > 0 {
          try piece.withUnsafeBytes {
            try reader.read(UnsafeRawBufferPointer(rebasing: $0[..<count]))
          }
        }
      }
    } catch let error as HistoryError {
      throw ChaosError("\(path):\(error.line):\(error.column): \(error.message)")
    }
  }
}
