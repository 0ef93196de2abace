// Whose disks may be harmed changes in the course of a run, and is a minority at any time.
//
// Why no majority of the copies of any one range of the log is ever harmed: what was synced is harmed on
// victims alone, at most half of the founding members rounded down (`Plan.victims`). One of them stops
// being a victim only when it has a new disk and on this, durable and unharmed since, all that was
// committed by then anywhere, its vote too (a process whose memory is lost does not vote before it has
// heard the others): it is as whole as one that nobody ever harmed. Only then another founding member
// becomes a victim. So of what was committed before that moment the former victim has a good copy, and
// what was committed after it is on a majority of which at most the present victims may lose theirs: at
// any time the run is one whose victims were the present ones from the beginning. Until that moment the
// place stays taken, also when the machine dies again on the way.
//
// With members that change there is one victim, of at least three voters. One of them that is removed and
// joins again has a new disk and is a victim still; a mending one that is switched off keeps its place.

import Base
import Consensus
import LogStore
import Node

struct VictimChange {
  private let simulation: Simulation

  init(_ simulation: Simulation) { self.simulation = simulation }

  /// A victim is harmed for the last time: it loses everything.
  func begin() {
    guard let place = simulation.laterChance.pick(simulation.victims) else { return }
    let node = simulation.nodes[place]
    simulation.victims.removeAll { $0 == place }
    node.isMending = true
    if node.life != nil { simulation.note(.kills) }
    simulation.crash(node, power: false)
    Nemesis(simulation).giveNewDisk(node)
    simulation.restart(node, after: .milliseconds(simulation.laterChance.within(10...2000)))
  }

  /// Now and then: whether one has all again.
  func look() {
    for node in simulation.nodes where node.isMending && isWhole(node) { moveOn(from: node) }
  }

  /// All that is committed is on its disk, and what it was to write is written.
  private func isWhole(_ node: SimulatedNode) -> Bool {
    guard let life = node.life, life.isTakingPart, node.harmedAt == nil,
      life.storage.isIdle, !life.replica.isMemoryLost, !life.replica.isForming,
      life.replica.recordsToRepair == 0, life.replica.consensus.hardState.floor == .zero,
      node.hardState.term == simulation.currentTerm
    else { return false }
    let commit = simulation.checks.commit
    guard let term = simulation.checks.committedTerm(commit) else { return false }
    return node.log.holds(LogPosition(term: term, index: commit))
  }

  private func moveOn(from node: SimulatedNode) {
    node.isMending = false
    node.isVictim = false
    node.wasHarmed = false
    node.log.forgetHarm()
    let founders = simulation.nodes.prefix(simulation.plan.nodes)
    guard let next = simulation.laterChance.pick(founders.filter { !$0.isVictim && $0 !== node })
    else { return }
    next.isVictim = true
    simulation.victims.append(next.place)
    simulation.note(.victimsMoved)
    simulation.trace { "\(node) has all again: from now on the disk of \(next) is harmed" }
    invariant(
      founders.count { $0.isVictim } <= simulation.plan.nodes / 2, "a majority may be harmed")
  }
}
