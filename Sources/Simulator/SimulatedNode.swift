// A machine of the cluster: its disk and its clock outlive the processes that run on it.

import Base
import Consensus

/// What a process is to die in the middle of.
enum Ambush: CaseIterable {
  /// A batch that is written and not synced when power goes.
  case batch
  case snapshot, rewrite, install

  /// What of it counts when it comes to pass.
  init?(_ crash: Happening?) {
    switch crash {
    case .crashesInsideSnapshot: self = .snapshot
    case .crashesInsideRewrite: self = .rewrite
    case .crashesInsideInstall: self = .install
    default: return nil
    }
  }
}

final class SimulatedNode {
  let place: Int
  let disk: SimulatedDisk
  /// How much faster its clocks run, parts per million.
  let driftPPM: Int
  /// What its wall clock is ahead.
  var wallClock: UInt64
  /// It was set, and no process has read it since.
  var hasClockJumped = false
  /// Its disk may be harmed, or was and does not have all again.
  var isVictim: Bool
  /// Its disk was harmed or replaced, and it was not seen to have all again since.
  var wasHarmed = false
  /// The file was harmed that says whose data directory it is.
  var isIdentityHarmed = false
  /// It has a new disk and is harmed no more: another takes its place when it has all again.
  var isMending = false
  /// The next job of this kind is the last of its process.
  var ambush: Ambush?
  private let syncTimes: ClosedRange<UInt64>

  var life: NodeLife?
  var isPowered = true
  var slowUntil: (time: UInt64, factor: UInt64) = (0, 1) { didSet { hasSlowed = false } }
  /// Something has taken longer since the disk became slow.
  private var hasSlowed = false
  unowned(unsafe) let simulation: Simulation
  /// What its disk holds of term and vote.
  var hardState = HardState()
  var log = OrderedLog()
  /// When its disk was harmed last, until something written after that is on it: damage to the very
  /// last batch cannot be told from a torn write if power goes before.
  var harmedAt: UInt64?
  /// Its process stopped because a sync failed, and the machine has run on since.
  var hasFailedSync = false
  /// It was removed from the cluster, or is not in it yet.
  var isOut: Bool
  /// It was told no founding members: it joins a cluster that is there.
  var joins: Bool
  /// It has been in the cluster, perhaps with another disk.
  var wasMember: Bool
  /// Its membership is asked for and not there yet.
  var isJoining = false
  /// A torn or damaged end of its log was cut when its process started, and nothing has come there since.
  var hasTornLog = false
  /// Set while a restart is scheduled.
  var isRestarting = false

  init(_ simulation: Simulation, place: Int, chance: inout Chance) {
    self.simulation = simulation
    self.place = place
    let plan = simulation.plan
    disk = SimulatedDisk(seed: simulation.seed &* 64 &+ UInt64(place))
    driftPPM = plan.driftPPM == 0 ? 0 : chance.within(-plan.driftPPM...plan.driftPPM)
    wallClock = .seconds(1_700_000_000 + chance.within(0...10_000))
    isOut = place >= plan.nodes
    joins = isOut
    wasMember = !isOut
    isVictim = plan.victims.contains(place)
    syncTimes = plan.syncTime
  }

  /// How long a write with its sync takes now.
  func syncTime(_ chance: inout Chance) -> UInt64 {
    slowed(chance.skewed(syncTimes))
  }

  /// How long so much work on the disk takes from now on: what is left when the slow time is over
  /// goes on at full speed.
  func slowed(_ work: UInt64) -> UInt64 {
    guard simulation.now < slowUntil.time else { return work }
    if !hasSlowed {
      hasSlowed = true
      simulation.note(.slowDisks)
    }
    let left = slowUntil.time - simulation.now
    let done = left / slowUntil.factor
    return done >= work ? work * slowUntil.factor : left + (work - done)
  }

  /// How long `count` syncs would take now.
  func syncTime(_ chance: inout Chance, times count: UInt64) -> UInt64 {
    slowed(count * chance.skewed(syncTimes))
  }
}

extension SimulatedNode: CustomStringConvertible {
  var description: String { "node \(place + 1)" }
}
