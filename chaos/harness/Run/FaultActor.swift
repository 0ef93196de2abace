// Carries out the faults of a plan and undoes them: what is done to whom, how it is healed, and what
// of it stands in the history.

import Base
import History
import SkeinClient
import Synchronization

package actor FaultActor {
  let cluster: ChaosCluster
  private let workload: Workload
  private let network: any NetworkControl
  private let recording: Recording
  /// The rules of the faults that are on, by number.
  private var rules: [Int: [Link: LinkRule]] = [:]
  var records: [FaultRecord] = []
  /// What nobody knows of what the nodes did, for people: the run does not show that all is well.
  private(set) var unknowns: [String] = []
  var begin = Nanoseconds.zero
  private var isChangingMembers = false

  /// A disk is harmed only when all others have everything: so long is that waited for.
  static let healthWait = Duration.seconds(10)
  /// A client of a fault's own has a leader by then, or the fault is skipped.
  private static let connectMax = Duration.seconds(10)

  init(
    cluster: ChaosCluster, workload: Workload, network: any NetworkControl, recording: Recording
  ) {
    self.cluster = cluster
    self.workload = workload
    self.network = network
    self.recording = recording
  }

  var clock: RunClock { recording.clock }

  /// The faults that are on, for the progress line.
  var active: [String] {
    records.filter { $0.end == nil && $0.skipped == nil }
      .map { $0.victims.isEmpty ? $0.name : "\($0.name) (\($0.victims))" }
  }

  /// Carries out the plan; returns when all is healed, or the task is cancelled.
  /// - Parameter begin: from when on the plan's times count.
  func carryOut(_ plan: FaultPlan, from begin: Nanoseconds) async throws {
    self.begin = begin
    try await withThrowingTaskGroup { group in
      for fault in plan.faults {
        group.addTask {
          do {
            try await self.clock.sleep(until: begin + fault.start)
          } catch { return }
          try await self.carryOut(fault)
        }
      }
      try await group.waitForAll()
    }
  }

  /// Undoes what concerns the network, whatever faults are on.
  func healNetwork() async throws {
    rules = [:]
    try await network.set([:])
  }

  // MARK: One fault

  private func carryOut(_ fault: PlannedFault) async throws {
    if let reason = network.refusal(of: fault.line.kind) { return skip(fault, reason) }
    switch fault.line.kind {
    case .kill, .stop, .restart, .rollingRestart, .powerLoss: try await harmProcesses(fault)
    case .diskFlip, .diskTruncate, .diskStale, .diskWipe, .diskFull, .diskLimit:
      try await harmDisk(fault)
    case .members: try await changeMembers(fault)
    case .transfer: try await transfer(fault)
    case .killConsumer, .killProducer, .slowConsumer: try await harmClients(fault)
    default: try await harmNetwork(fault)
    }
  }

  func begin(_ fault: PlannedFault, _ victims: String, detail: String = "") -> Int {
    recording.nemesis(fault.line.name, value: victims.isEmpty ? nil : victims, type: .invoke)
    records.append(
      FaultRecord(fault: fault, start: clock.now, victims: victims, detail: detail))
    return records.count - 1
  }

  func end(_ place: Int) {
    let victims = records[place].victims
    recording.nemesis(
      records[place].name, value: victims.isEmpty ? nil : victims, type: .ok)
    records[place].end = clock.now
  }

  func isNotKnown(_ text: String) { unknowns.append(text) }

  func skip(_ fault: PlannedFault, _ reason: String) {
    var record = FaultRecord(fault: fault, start: clock.now, victims: "")
    record.end = record.start
    record.skipped = reason
    records.append(record)
  }

  /// Waits until the fault's time is over. A cancelled run goes on to healing at once.
  func last(_ fault: PlannedFault) async {
    do { try await clock.sleep(until: begin + fault.end) } catch { return }
  }

  func text(_ nodes: [Int]) -> String {
    nodes.map { "\($0)" }.joined(separator: ", ")
  }

  /// The nodes for a fault; where the leader is wanted and nobody leads, a while is waited.
  func take(_ fault: PlannedFault) async -> [Int] {
    let target = fault.line.target ?? .node
    for _ in 0..<150 {
      let taken = await cluster.take(target, draw: fault.draw, isDisk: fault.line.kind.isDisk)
      if !taken.isEmpty || Task.isCancelled { return taken }
      do { try await Task.sleep(for: .milliseconds(20)) } catch { return [] }
    }
    return []
  }

  // MARK: Processes

  private func harmProcesses(_ fault: PlannedFault) async throws {
    let nodes = fault.line.kind == .rollingRestart ? await cluster.takeAll() : await take(fault)
    guard !nodes.isEmpty else { return skip(fault, "no node to do it to") }
    let place = begin(fault, text(nodes))
    switch fault.line.kind {
    case .kill:
      await withTaskGroup { group in
        for node in nodes { group.addTask { await self.cluster.kill(node) } }
      }
      await last(fault)
      for node in nodes { try await cluster.start(node) }
    case .powerLoss:
      try await withThrowingTaskGroup { group in
        for node in nodes { group.addTask { try await self.cluster.losePower(node) } }
        try await group.waitForAll()
      }
      await last(fault)
      for node in nodes {
        try await cluster.restorePower(node)
        try await cluster.start(node)
      }
    case .stop:
      for node in nodes { await cluster.pause(node) }
      await last(fault)
      for node in nodes { await cluster.resume(node) }
    case .restart:
      await withTaskGroup { group in
        for node in nodes { group.addTask { await self.cluster.stop(node) } }
      }
      await last(fault)
      for node in nodes { try await cluster.start(node) }
    default:
      // One after the other, as docs/operations.md has it.
      for node in nodes {
        await cluster.stop(node)
        try await cluster.start(node)
        _ = await cluster.waitUntilHealthy(atMost: Self.healthWait)
      }
    }
    end(place)
    await cluster.letGo(nodes)
  }

  // MARK: The network

  private func harmNetwork(_ fault: PlannedFault) async throws {
    let members = await cluster.members
    // The nodes are not taken: others may be killed meanwhile.
    var nodes: [Int] = []
    if fault.line.target != nil {
      nodes = await take(fault)
      await cluster.letGo(nodes)
      guard !nodes.isEmpty else { return skip(fault, "no node to do it to") }
    }
    let (rules, detail) = NetworkFaults.rules(
      fault, nodes: nodes, members: members, leader: cluster.leaders.leader?.node)
    let place = begin(fault, text(nodes), detail: detail)
    if fault.line.kind == .drop {
      try await network.reset(nodes: Set(nodes))
    } else if fault.line.kind == .halfOpen {
      try await network.halfOpen(nodes: Set(nodes))
      await last(fault)
      try await network.reset(nodes: Set(nodes))
    } else {
      self.rules[fault.number] = rules
      try await network.set(merged)
      await last(fault)
      self.rules[fault.number] = nil
      try await network.set(merged)
    }
    end(place)
  }

  private var merged: [Link: LinkRule] {
    var all: [Link: LinkRule] = [:]
    for one in rules.values {
      for (link, rule) in one { all[link, default: LinkRule()].add(rule) }
    }
    return all
  }

  // MARK: Members and leaders

  /// A new node comes and an old one goes.
  private func changeMembers(_ fault: PlannedFault) async throws {
    guard !isChangingMembers else { return skip(fault, "another change is under way") }
    guard await cluster.mayJoin else { return skip(fault, "no numbers are left for new nodes") }
    isChangingMembers = true
    defer { isChangingMembers = false }
    guard let admin = await administrator(for: fault) else { return }
    let place = begin(fault, "")
    let (node, peers, clients) = try await cluster.startJoining()
    var leaving: Int?
    do throws(SkeinError) {
      try await until(clock.now + .seconds(60)) { () async throws(SkeinError) in
        try await admin.addMember(id: node, peerAddress: peers, clientAddress: clients)
      }
      // The new one is taken and is not drawn.
      if let chosen = await take(fault).first {
        leaving = chosen
        // Once it is no member it stops taking part.
        cluster.leaders.excuse(chosen)
        try await until(clock.now + .seconds(60)) { () async throws(SkeinError) in
          try await admin.removeMember(id: chosen)
        }
      }
    } catch {
      throw ChaosError("the members could not be changed: \(error)")
    }
    await admin.close(within: .seconds(1))
    await cluster.letGo([node])
    if let leaving {
      records[place].detail = "node \(node) came, node \(leaving) went"
      records[place].victims = "\(node), \(leaving)"
      try await cluster.forget(leaving)
    }
    end(place)
  }

  private func transfer(_ fault: PlannedFault) async throws {
    guard let admin = await administrator(for: fault) else { return }
    let place = begin(fault, "")
    do throws(SkeinError) {
      try await admin.transferLeadership()
    } catch {
      // It may be refused while others are down; then nothing has changed.
      if case .refused = error {
        records[place].skipped = "\(error)"
      } else {
        records[place].detail = "\(error)"
      }
    }
    await admin.close(within: .seconds(1))
    end(place)
  }

  /// nil if the fault is skipped, since there is none.
  private func administrator(for fault: PlannedFault) async -> SkeinClient? {
    do throws(SkeinError) {
      return try await administrator()
    } catch {
      skip(fault, "\(error)")
      return nil
    }
  }

  /// - Throws: why the cluster cannot be reached, after a while.
  func administrator() async throws(SkeinError) -> SkeinClient {
    let endpoints = await cluster.clientAddresses
    let late = SkeinError.unreachable("not within \(Self.connectMax)")
    let connected: Result<SkeinClient, SkeinError> = await within(
      Self.connectMax, orElse: .failure(late)
    ) {
      while true {
        do throws(SkeinError) {
          return .success(try await SkeinClient.connect(endpoints: endpoints))
        } catch {
          guard case .unreachable = error, !Task.isCancelled else { return .failure(error) }
        }
      }
    }
    return try connected.get()
  }

  /// Repeats what a cluster in trouble refuses or does not answer.
  func until(
    _ deadline: Nanoseconds, _ body: () async throws(SkeinError) -> Void
  ) async throws(SkeinError) {
    while true {
      do throws(SkeinError) {
        return try await body()
      } catch {
        let isFinal = clock.now > deadline || Task.isCancelled
        switch error {
        case .timedOut, .requestUnknown, .unreachable: if isFinal { throw error }
        case .refused(let reason, _):
          // An attempt whose answer was lost had removed it.
          if reason == .memberNotFound { return }
          if isFinal || reason == .memberDiffers { throw error }
          do { try await Task.sleep(for: .milliseconds(100)) } catch { throw .cancelled }
        default: throw error
        }
      }
    }
  }

  // MARK: Clients

  private func harmClients(_ fault: PlannedFault) async throws {
    let victim: String?
    switch fault.line.kind {
    case .killConsumer: victim = await workload.killConsumer(draw: fault.draw)
    case .killProducer: victim = await workload.killProducer(draw: fault.draw)
    default: victim = await workload.slowConsumer(draw: fault.draw, until: begin + fault.end)
    }
    guard let victim else { return skip(fault, "no client to do it to") }
    let place = begin(fault, victim)
    await last(fault)
    end(place)
  }
}
