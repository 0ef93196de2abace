// Chooses and does harm. What may be harmed at once is bounded only where the promises are: disks
// lose what was synced on a minority alone, which the plan names.

import Base
import Consensus
import Node

struct Nemesis {
  private let simulation: Simulation

  init(_ simulation: Simulation) { self.simulation = simulation }

  private var plan: Plan { simulation.plan }

  private func pickNode() -> SimulatedNode {
    simulation.nodes[simulation.chance.below(simulation.nodes.count)]
  }

  private func wait(_ low: UInt64, _ high: UInt64) -> UInt64 {
    .milliseconds(simulation.chance.within(low...high))
  }

  func strike() {
    let total = plan.faults.reduce(0) { $0 + $1.weight }
    var place = simulation.chance.below(total)
    // Trouble in the network does not last for ever.
    if simulation.network.hasTrouble, simulation.chance.permille(400) {
      simulation.trace { "the network heals" }
      simulation.network.heal()
      simulation.clientNetwork.heal()
    }
    for fault in plan.faults {
      place -= fault.weight
      if place < 0 { return strike(fault.kind) }
    }
  }

  private func strike(_ kind: FaultKind) {
    switch kind {
    case .kill: crash(pickNode(), power: false)
    case .killLeader: if let life = simulation.leader { crash(life.node, power: false) }
    case .powerLoss: crash(pickNode(), power: true)
    case .stopAll: stopAll()
    case .pause: pause(pickNode())
    case .partition: partition()
    case .cutOneWay: cutOneWay()
    case .isolateLeader: isolateLeader()
    case .ring: ring()
    case .clog: clog()
    case .reset: reset()
    case .slowDisk: slowDisk(pickNode())
    case .failSync: failSync(pickNode())
    case .fillDisk: fillDisk(pickNode())
    case .damage: damageSomething()
    case .wipe: wipe()
    case .transfer: transfer()
    case .snapshot: takeSnapshot(pickNode())
    }
  }

  // MARK: Processes

  private func crash(_ node: SimulatedNode, power: Bool) {
    guard node.life != nil else { return }
    simulation.note(power ? .powerLosses : .kills)
    simulation.trace { power ? "\(node) loses power" : "\(node) is killed" }
    simulation.crash(node, power: power)
    simulation.restart(node, after: wait(10, 4000))
  }

  private func stopAll() {
    simulation.note(.wholeClusterStops)
    let power = simulation.chance.flip()
    for node in simulation.nodes { crash(node, power: power) }
  }

  private func pause(_ node: SimulatedNode) {
    guard let life = node.life else { return }
    simulation.note(.pauses)
    let until = simulation.now + wait(50, 3000)
    simulation.trace { "\(node) stands still until \(Simulation.seconds(until))" }
    life.blockedUntil = max(life.blockedUntil, until)
    simulation.schedule(.resume(node.place, life.number), at: until)
  }

  // MARK: Network

  private func cutBetween(_ left: [Int], _ right: [Int]) {
    for one in left {
      for other in right {
        simulation.network.cut(one, other)
        simulation.network.cut(other, one)
      }
    }
  }

  private func partition() {
    simulation.note(.partitions)
    var left: [Int] = []
    var right: [Int] = []
    for node in simulation.nodes {
      if simulation.chance.flip() { left.append(node.place) } else { right.append(node.place) }
    }
    simulation.trace { "\(left.map { $0 + 1 }) and \(right.map { $0 + 1 }) are cut apart" }
    cutBetween(left, right)
    if simulation.chance.permille(300) { simulation.clientNetwork.cutOff(pickNode().place) }
  }

  private func cutOneWay() {
    let from = pickNode()
    let to = pickNode()
    guard from !== to else { return }
    simulation.note(.oneWayCuts)
    simulation.trace { "nothing gets from \(from) to \(to)" }
    simulation.network.cut(from.place, to.place)
  }

  private func isolateLeader() {
    guard let leader = simulation.leader?.node else { return }
    simulation.note(.isolatedLeaders)
    simulation.trace { "\(leader), the leader, is cut off" }
    let others = simulation.nodes.map(\.place).filter { $0 != leader.place }
    cutBetween([leader.place], others)
  }

  /// Each node sees a majority, none sees all.
  private func ring() {
    simulation.note(.rings)
    let count = simulation.nodes.count
    for place in 0..<count {
      let opposite = (place + count / 2) % count
      cutBetween([place], [opposite])
      if count == 3 { return }
    }
  }

  private func clog() {
    simulation.note(.clogs)
    let from = pickNode().place
    let factor = simulation.chance.within(UInt64(5)...200)
    for to in simulation.nodes.map(\.place) where to != from && simulation.chance.flip() {
      simulation.network.clog(from, to, factor)
    }
  }

  private func reset() {
    simulation.note(.resets)
    if simulation.chance.flip() {
      simulation.clientNetwork.breakOne()
    } else {
      simulation.network.breakConnection(pickNode().place, pickNode().place)
    }
  }

  // MARK: Disks

  private func slowDisk(_ node: SimulatedNode) {
    simulation.note(.slowDisks)
    let factor = simulation.chance.within(UInt64(10)...500)
    simulation.trace { "the disk of \(node) is \(factor) times slower" }
    node.slowUntil = (simulation.now + wait(100, 5000), factor)
  }

  private func failSync(_ node: SimulatedNode) {
    guard node.life != nil else { return }
    simulation.note(.failedSyncs)
    simulation.trace { "a sync of \(node) will fail" }
    node.disk.failingSyncs = 1
  }

  private func fillDisk(_ node: SimulatedNode) {
    guard node.life != nil else { return }
    simulation.note(.fullDisks)
    simulation.trace { "the disk of \(node) is nearly full" }
    node.disk.capacity = node.disk.used + simulation.chance.below(40_000)
  }

  private func damageSomething() {
    guard let place = simulation.chance.pick(plan.victims) else { return }
    let node = simulation.nodes[place]
    if simulation.chance.permille(600) { crash(node, power: simulation.chance.flip()) }
    for _ in 0..<simulation.chance.within(1...3) { DiskDamage(simulation, node).strike() }
  }

  private func wipe() {
    guard let place = simulation.chance.pick(plan.victims) else { return }
    let node = simulation.nodes[place]
    crash(node, power: false)
    guard node.life == nil else { return }
    simulation.note(.wipedDisks)
    simulation.trace { "\(node) gets a new disk" }
    node.disk.wipe()
  }

  // MARK: Administration

  private func transfer() {
    guard let life = simulation.leader, life.blockedUntil <= simulation.now else { return }
    let target = pickNode()
    let now = life.localNow
    do {
      try life.replica.transferLeadership(
        to: target.place == life.node.place ? nil : simulation.id(target.place), now: now)
      simulation.note(.transfers)
      simulation.trace { "\(life.node) hands over to \(target)" }
      life.timer()
    } catch {
      // Not possible now: that too is part of the run.
      simulation.trace { "\(life.node) does not hand over: \(error)" }
    }
  }

  private func takeSnapshot(_ node: SimulatedNode) {
    guard let life = node.life, life.isTakingPart, life.blockedUntil <= simulation.now else {
      return
    }
    if life.replica.takeSnapshot() { life.timer() }
  }
}

/// Harm to what is durable on one disk.
struct DiskDamage {
  private let simulation: Simulation
  private let node: SimulatedNode
  private static let sector = SimulatedFile.sectorBytes

  init(_ simulation: Simulation, _ node: SimulatedNode) {
    self.simulation = simulation
    self.node = node
  }

  func strike() {
    // Mostly the log, sometimes anything.
    var names = node.disk.names.filter { !$0.hasSuffix("LOCK") }
    if simulation.chance.permille(800) { names = names.filter { $0.contains("segment-") } }
    guard let name = simulation.chance.pick(names), let file = node.disk.files[name],
      !file.bytes.isEmpty
    else { return }
    // Files are made longer than what is in them: harm where something is.
    let used = (file.bytes.lastIndex { $0 != 0 } ?? 0) + 1
    let at = simulation.chance.below(used)
    let start = at / Self.sector * Self.sector
    let end = min(file.bytes.count, start + Self.sector)
    switch simulation.chance.below(20) {
    case 0..<8:
      tell(.bitFlips, "a bit of \(name) at \(at) flips")
      let bit = UInt8(1) << UInt8(simulation.chance.below(8))
      file.damage { $0[at] ^= bit }
    case 8..<12:
      tell(.zeroedSectors, "\(name) is zero at \(start)")
      file.damage { for place in start..<end { $0[place] = 0 } }
    case 12..<15:
      let from = simulation.chance.below(used) / Self.sector * Self.sector
      tell(.misdirectedWrites, "\(name) at \(start) has what belongs at \(from)")
      file.damage { bytes in
        let data = Array(bytes[from..<min(bytes.count, from + Self.sector)])
        for (place, byte) in data.enumerated() where start + place < bytes.count {
          bytes[start + place] = byte
        }
      }
    case 15..<18:
      tell(.truncatedFiles, "\(name) ends at \(at)")
      file.damage { $0.removeLast($0.count - at) }
    default:
      guard node.life == nil else { return }
      tell(.deletedFiles, "\(name) is gone")
      node.disk.lose(name)
    }
    node.disk.measure()
  }

  private func tell(_ happening: Happening, _ text: String) {
    simulation.note(happening)
    simulation.trace { "disk of \(node): \(text)" }
  }
}
