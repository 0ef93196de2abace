// Chooses and does harm. What may be harmed at once is bounded only where the promises are: disks
// lose what was synced on a minority alone (`VictimChange` says which).

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
      if place < 0 {
        simulation.willStrike(fault.kind)
        return strike(fault.kind)
      }
    }
  }

  private func strike(_ kind: FaultKind) {
    switch kind {
    case .kill: crash(pickNode(), power: false)
    case .killLeader: killLeader()
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
    case .swizzle: swizzle()
    case .clockJump: clockJump(pickNode())
    case .addMember: Administration(simulation).addMember()
    case .removeMember: Administration(simulation).removeMember()
    case .tearBatch: pickNode().ambush = .batch
    case .dieInJob: dieInJob()
    case .dieInChange: simulation.killsNextChanger = true
    case .pauseKill: simulation.pauseKill.begin()
    case .straggle: straggle()
    case .moveVictim: VictimChange(simulation).begin()
    }
  }

  // MARK: Processes

  private func crash(_ node: SimulatedNode, power: Bool) {
    guard node.life != nil else { return }
    simulation.note(power ? .powerLosses : .kills)
    simulation.trace {
      (node.life?.replica.isLeader == true ? "the leader, \(node)," : "\(node)")
        + (power ? " loses power" : " is killed")
    }
    simulation.crash(node, power: power)
    simulation.restart(node, after: wait(10, 4000))
  }

  private func killLeader() {
    guard let life = simulation.leader else { return }
    crash(life.node, power: plan.isHarsher && simulation.laterChance.flip())
  }

  private func dieInJob() {
    switch simulation.chance.below(5) {
    case 0: pickNode().ambush = .snapshot
    case 1, 2: pickNode().ambush = .rewrite
    // Nobody knows who will be far enough behind.
    default: for node in simulation.nodes { node.ambush = .install }
    }
  }

  /// The moment is there that a process was to die in.
  func spring(_ node: SimulatedNode, power: Bool) { crash(node, power: power) }

  private func stopAll() {
    if simulation.nodes.allSatisfy({ $0.isOut || $0.life != nil }) {
      simulation.note(.wholeClusterStops)
    }
    let power = simulation.chance.flip()
    for node in simulation.nodes { crash(node, power: power) }
  }

  private func pause(_ node: SimulatedNode) {
    guard let life = node.life else { return }
    let until = simulation.now + wait(50, 3000)
    simulation.trace { "\(node) stands still until \(Simulation.seconds(until))" }
    life.standStill(until: until)
    simulation.schedule(.resume(node.place, life.number), at: until)
  }

  // MARK: Network

  private func cutBetween(_ left: [Int], _ right: [Int], by trouble: Int) {
    for one in left {
      for other in right {
        simulation.network.cut(one, other, by: trouble)
        simulation.network.cut(other, one, by: trouble)
      }
    }
  }

  private func partition() {
    var left: [Int] = []
    var right: [Int] = []
    for node in simulation.nodes {
      if simulation.chance.flip() { left.append(node.place) } else { right.append(node.place) }
    }
    simulation.trace { "\(left.map { $0 + 1 }) and \(right.map { $0 + 1 }) are cut apart" }
    cutBetween(left, right, by: simulation.network.beginTrouble(.partitions))
    if simulation.chance.permille(300) { simulation.clientNetwork.cutOff(pickNode().place) }
  }

  private func cutOneWay() {
    let from = pickNode()
    let to = pickNode()
    guard from !== to else { return }
    simulation.trace { "nothing gets from \(from) to \(to)" }
    let trouble = simulation.network.beginTrouble(.oneWayCuts)
    simulation.network.cut(from.place, to.place, by: trouble)
  }

  private func isolateLeader() {
    guard let life = simulation.leader else { return }
    let leader = life.node
    simulation.trace { "\(leader), the leader, is cut off" }
    let others = simulation.nodes.map(\.place).filter { $0 != leader.place }
    let trouble = simulation.network.beginTrouble(.isolatedLeaders)
    cutBetween([leader.place], others, by: trouble)
    // Whoever runs it has not noticed.
    guard plan.isHarsher, plan.spares > 0, life.blockedUntil <= simulation.now else { return }
    let administration = Administration(simulation, cutOff: life)
    if simulation.laterChance.flip() {
      administration.addMember()
    } else {
      administration.removeMember()
    }
  }

  /// Each node sees a majority, none sees all.
  private func ring() {
    let trouble = simulation.network.beginTrouble(.rings)
    let count = simulation.nodes.count
    for place in 0..<count {
      let opposite = (place + count / 2) % count
      cutBetween([place], [opposite], by: trouble)
      if count == 3 { return }
    }
  }

  /// Links stop one by one and come back in another order.
  private func swizzle() {
    let trouble = simulation.network.beginTrouble(.swizzles)
    var links: [(Int, Int)] = []
    for from in simulation.nodes {
      for to in simulation.nodes where from !== to && simulation.chance.permille(700) {
        links.append((from.place, to.place))
      }
    }
    simulation.trace { "\(links.count) links stop one by one" }
    var time = simulation.now
    for (from, to) in shuffled(links) {
      simulation.schedule(.cutLink(from, to, trouble), at: time)
      time += wait(1, 200)
    }
    time += wait(0, 2000)
    for (from, to) in shuffled(links) {
      simulation.schedule(.mendLink(from, to), at: time)
      time += wait(1, 200)
    }
  }

  private func shuffled(_ links: [(Int, Int)]) -> [(Int, Int)] {
    var links = links
    for place in links.indices.dropFirst().reversed() {
      links.swapAt(place, simulation.chance.below(place + 1))
    }
    return links
  }

  private func clog() {
    let trouble = simulation.network.beginTrouble(.clogs)
    let from = pickNode().place
    let factor = simulation.chance.within(UInt64(5)...200)
    for to in simulation.nodes.map(\.place) where to != from && simulation.chance.flip() {
      simulation.network.clog(from, to, factor, by: trouble)
    }
  }

  private func reset() {
    let hasBroken =
      simulation.chance.flip()
      ? simulation.clientNetwork.breakOne()
      : simulation.network.breakConnection(pickNode().place, pickNode().place)
    if hasBroken { simulation.note(.resets) }
  }

  /// What a node says gets stuck on its way, as by a packet that has to be sent again and again. Then
  /// the node gives the connection up, or dies, or its machine gets a new disk: what was stuck arrives
  /// when newer connections between the two are there already, and what is sent again on these too.
  private func straggle() {
    guard
      let number = simulation.network.hold(
        pickNode().place, pickNode().place,
        until: simulation.now + .milliseconds(simulation.laterChance.within(800...3000)))
    else { return }
    simulation.schedule(
      .giveUp(number), at: simulation.now + .milliseconds(simulation.laterChance.within(5...600)))
  }

  func giveUp(_ number: Int) {
    guard !simulation.isDraining, let from = simulation.network.diallerOfHeld(number) else {
      return
    }
    let node = simulation.nodes[from]
    guard simulation.laterChance.flip() else {
      simulation.trace { "\(node) gives up a connection on which something is stuck" }
      return simulation.network.giveUp(number)
    }
    let isWiped = simulation.victims.contains(from) && simulation.laterChance.flip()
    simulation.note(.kills)
    simulation.trace { "\(node) is killed while what it said is stuck" }
    simulation.crash(node, power: false)
    if isWiped { giveNewDisk(node) }
    simulation.restart(node, after: .milliseconds(simulation.laterChance.within(5...300)))
  }

  func giveNewDisk(_ node: SimulatedNode) {
    if !node.disk.names.isEmpty {
      simulation.note(.wipedDisks)
      simulation.noteHarm(of: node)
    }
    simulation.trace { "\(node) gets a new disk" }
    node.disk.wipe()
    node.isIdentityHarmed = false
    node.wasHarmed = true
    node.harmedAt = nil
    node.hasFailedSync = false
  }

  // MARK: Disks

  private func slowDisk(_ node: SimulatedNode) {
    let factor = simulation.chance.within(UInt64(10)...500)
    simulation.trace { "the disk of \(node) is \(factor) times slower" }
    node.slowUntil = (simulation.now + wait(100, 5000), factor)
  }

  private func failSync(_ node: SimulatedNode) {
    guard node.life != nil else { return }
    if simulation.chance.permille(300) {
      simulation.trace { "a sync of the directory of \(node) will fail" }
      node.disk.failingDirectorySyncs = 1
      return
    }
    simulation.trace { "a sync of \(node) will fail" }
    node.disk.failingSyncs = 1
  }

  private func fillDisk(_ node: SimulatedNode) {
    guard node.life != nil else { return }
    simulation.trace { "the disk of \(node) is nearly full" }
    node.disk.capacity = node.disk.used + simulation.chance.below(40_000)
  }

  private func damageSomething() {
    guard let place = simulation.chance.pick(simulation.victims) else { return }
    let node = simulation.nodes[place]
    // What power took with it is not harmed as well: nothing could tell the two apart.
    guard node.isPowered else { return }
    if simulation.chance.permille(500) {
      for _ in 0..<simulation.chance.within(1...3) {
        DiskDamage(simulation, node).strikeWaitingMessage()
      }
      return
    }
    if simulation.chance.permille(600) { crash(node, power: false) }
    for _ in 0..<simulation.chance.within(1...3) { DiskDamage(simulation, node).strike() }
  }

  private func wipe() {
    guard let place = simulation.chance.pick(simulation.victims) else { return }
    let node = simulation.nodes[place]
    crash(node, power: false)
    guard node.life == nil, !node.isOut else { return }
    giveNewDisk(node)
  }

  /// Its wall clock is set, far forward or back; its processes read it when they start.
  private func clockJump(_ node: SimulatedNode) {
    node.hasClockJumped = true
    let span = UInt64.seconds(simulation.chance.skewed(1...100_000))
    let isForward = simulation.chance.flip()
    simulation.trace { "the clock of \(node) jumps \(isForward ? "forward" : "back")" }
    node.wallClock = isForward ? node.wallClock + span : node.wallClock - span
    if simulation.chance.flip() { crash(node, power: false) }
  }

  // MARK: Administration

  private func transfer() {
    guard let life = simulation.leader, life.blockedUntil <= simulation.now else { return }
    let target = pickNode()
    let now = life.localNow
    do {
      try life.replica.transferLeadership(
        to: target.place == life.node.place ? nil : simulation.id(target.place), now: now)
      simulation.handsOverTo = target === life.node ? nil : target.place
      simulation.trace { "\(life.node) hands over to \(target)" }
      life.wake()
    } catch {
      // Not possible now: that too is part of the run.
      simulation.trace { "\(life.node) does not hand over: \(error)" }
    }
  }

  private func takeSnapshot(_ node: SimulatedNode) {
    guard let life = node.life, life.isTakingPart, life.blockedUntil <= simulation.now else {
      return
    }
    if life.replica.takeSnapshot() { life.wake() }
  }
}
