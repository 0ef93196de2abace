// What a seed draws before it begins: the size of everything and which faults come how often. Each
// seed has its own mix (swarm testing): a run without partitions finds what partitions would hide.

import Base
import Consensus
import LogStore

/// A kind of fault that the nemesis may choose.
package enum FaultKind: String, CaseIterable, Sendable {
  case kill, powerLoss, stopAll, pause, partition, cutOneWay, isolateLeader, ring, clog, reset
  case slowDisk, failSync, fillDisk, damage, wipe, transfer, snapshot, killLeader
  case swizzle, clockJump, addMember, removeMember
  /// Set up now, they come when the moment is there.
  case tearBatch, dieInJob, dieInChange
  /// Drawn apart from those before: see `laterKinds`.
  case pauseKill, straggle, moveVictim

  /// What was added when many seeds had found something: drawn from a generator of their own, in half
  /// of the seeds, so that the other half is what it was.
  static let laterKinds: [FaultKind] = [.pauseKill, .straggle, .moveVictim]
}

/// What is left out of a run, to find what a failure needs.
package struct PlanCut: Hashable, Sendable {
  package var faults: Set<FaultKind> = []
  /// By place, from 1 as they are called in stories.
  package var clients: Set<Int> = []
  /// How long faults go on, simulated seconds; nil as the seed says.
  package var seconds: UInt64?
  /// The faults that come to pass, in their order, of those that a run had which was told the same of
  /// everything else; nil if all do.
  package var strikes: [Strike]?

  package init() {}
}

struct Plan {
  /// The founding members.
  let nodes: Int
  /// Machines that may join later, behind the founding ones.
  let spares: Int
  /// Nodes whose disks may be damaged first: a minority, since what is damaged may stay unnoticed for
  /// long. Another takes the place of one that has all again (`VictimChange`).
  let victims: [Int]
  /// Has what was added later: `FaultKind.laterKinds`, and harsher ways of what was there.
  let isHarsher: Bool
  let duration: UInt64
  /// How many times as slowly clients and faults come as in most runs, for as many times as long: a
  /// long life with few troubles, of which each is over when the next one begins.
  let calm: UInt64
  let faults: [(kind: FaultKind, weight: Int)]
  let faultPause: ClosedRange<UInt64>
  let delay: ClosedRange<UInt64>
  let lossPermille: Int
  /// Per mille of what consensus says to other nodes that arrives twice, votes more often.
  let repeatPermille: Int
  let syncTime: ClosedRange<UInt64>
  let driftPPM: Int
  let silence: UInt64
  let storeOptions: StoreOptions
  let snapshotBytes: Int
  let logBytesForAbsent: UInt64
  let logBytesForFed: UInt64
  let feedBytesPerSecond: UInt64
  let cacheBytes: Int
  let batchBytes: Int
  let linkBytes: Int
  let chunkBytes: Int
  let usesCodec: Bool
  let queues: [QueuePlan]
  /// Queues that others name as theirs.
  let deadLetterQueues: [Int]
  let clients: [ClientPlan]
  let sessionTimeout: Nanoseconds
  let electionMin: Nanoseconds
  let heartbeat: Nanoseconds
  let windowBytes: Int
  let windowMessages: Int

  struct QueuePlan {
    let name: String
    let settings: QueueSettings
  }

  struct ClientPlan {
    var queuesPublished: [Int]
    var queuesConsumed: [Int]
    var pause: ClosedRange<UInt64>
    let batch: Int
    let window: Int
    let credit: Int
    let workTime: ClosedRange<UInt64>
    /// Per mille of deliveries that end so; the rest is acknowledged.
    let nack: Int
    let reject: Int
    let release: Int
    let extend: Int
    let overrun: Int
    let crash: Int
    let bodyMax: Int
    /// Per mille of what is published, confirmed or done.
    var delayed = 0
    var expiring = 0
    var cancel = 0
    var reschedule = 0
    var settleTwice = 0
    var ownDelay = 0
    /// Of every turn of the publisher.
    var redrive = 0
    var purge = 0
    var changeCredit = 0
    /// Per mille of deliveries that are settled together with what is published.
    var transact = 0
    /// Per mille of deliveries at which it stands still, and later goes on as if nothing had been.
    var hang = 0
  }

  init(seed: UInt64, without cut: PlanCut = PlanCut()) {
    var chance = Chance(seed: seed)
    let nodes = chance.permille(150) ? 5 : 3
    let changesMembers = chance.permille(350)
    self.nodes = nodes
    spares = changesMembers ? chance.within(1...2) : 0
    let order = Self.shuffled(Array(0..<nodes), &chance)
    let canDamage = chance.permille(600)
    // Where members change as few as three voters may be left, of which one is a minority. Drawn apart,
    // so that the other runs are what they were before disks were harmed in such ones.
    var harmed = Chance(seed: seed ^ 0x6861_726d_6564_2121)
    let harmsChanging = changesMembers && harmed.permille(400)
    victims =
      changesMembers
      ? Array(order.prefix(harmsChanging ? 1 : 0)) : canDamage ? Array(order.prefix(nodes / 2)) : []
    let seconds = chance.within(UInt64(15)...50)
    var apartFromAll = Chance(seed: seed ^ 0x6361_6c6d_6361_6c6d)
    let calm = apartFromAll.permille(100) ? apartFromAll.within(UInt64(8)...24) : 1
    self.calm = calm
    duration = .seconds(min(seconds * calm, cut.seconds ?? seconds * calm))
    var faults: [(kind: FaultKind, weight: Int)] = []
    for kind in FaultKind.allCases
    where !FaultKind.laterKinds.contains(kind) && chance.permille(kind.isOfMembers ? 900 : 550) {
      if (victims.isEmpty || changesMembers) && (kind == .damage || kind == .wipe) { continue }
      if !changesMembers && kind.isOfMembers { continue }
      let weight = chance.within(1...6)
      if !cut.faults.contains(kind) { faults.append((kind, weight)) }
    }
    var later = Chance(seed: seed ^ 0x6861_7273_6865_7220)
    isHarsher = later.flip()
    for kind in FaultKind.laterKinds where isHarsher && later.permille(600) {
      let weight = later.within(1...6) * 2
      if (victims.isEmpty || changesMembers) && kind == .moveVictim { continue }
      if !cut.faults.contains(kind) { faults.append((kind, weight)) }
    }
    for kind in [FaultKind.damage, .wipe, .moveVictim] where harmsChanging && harmed.permille(700) {
      let weight = harmed.within(1...6)
      if kind == .moveVictim && !isHarsher { continue }
      if !cut.faults.contains(kind) { faults.append((kind, weight)) }
    }
    let hang = isHarsher && later.flip() ? later.within(1...20) : 0
    repeatPermille = isHarsher && later.flip() ? later.within(1...30) : 0
    self.faults = faults
    let pauseMin = chance.within(UInt64(50)...1500)
    faultPause = .milliseconds(pauseMin * calm) ... .milliseconds(pauseMin * calm * 4)
    let delayMin = chance.within(UInt64(20)...1000) * 1000
    delay = delayMin...(delayMin * chance.within(UInt64(2)...40))
    lossPermille = chance.permille(400) ? chance.within(1...30) : 0
    let sync = chance.within(UInt64(50)...3000) * 1000
    syncTime = sync...(sync * chance.within(UInt64(2)...20))
    driftPPM = chance.permille(500) ? chance.within(1...20_000) : 0
    silence = .seconds(chance.within(2...10))
    var options = StoreOptions()
    options.segmentBytes = UInt64(chance.within(4...16)) * 4096
    options.recoveryReadBytes = chance.flip() ? 8 << 10 : 64 << 10
    options.rewriteBelowPercent = UInt64(chance.within(10...90))
    options.sparesMax = chance.within(0...4)
    options.sparesReady = chance.within(0...2)
    storeOptions = options
    snapshotBytes = chance.permille(700) ? 1 << chance.within(10...16) : 1 << 30
    // Drawn apart: what is drawn behind it stays what it was.
    var reach = Chance(seed: seed ^ 0x6c6f_6720_7265_6163)
    logBytesForAbsent = UInt64(snapshotBytes * (reach.flip() ? reach.within(0...8) : 0))
    logBytesForFed = UInt64(snapshotBytes * (reach.flip() ? reach.within(0...64) : 0))
    feedBytesPerSecond = reach.flip() ? 1 << reach.within(8...16) : 1 << 27
    cacheBytes = 1 << chance.within(9...18)
    batchBytes = 1 << chance.within(9...20)
    linkBytes = 1 << chance.within(10...20)
    chunkBytes = 1 << chance.within(11...16)
    usesCodec = chance.permille(200)
    sessionTimeout = .seconds(chance.within(1...10))
    let election = chance.within(UInt64(100)...600)
    electionMin = .milliseconds(election)
    heartbeat = .milliseconds(max(1, election / chance.within(UInt64(3)...8)))
    windowBytes = 1 << chance.within(9...20)
    windowMessages = chance.within(2...64)
    // A third of the runs keeps to plain queues: order and redelivery are judged most strictly there.
    let usesFeatures = chance.permille(670)
    queues = Self.queues(usesFeatures, &chance)
    let queueCount = queues.count
    let all = queues
    let clients = (0..<chance.within(2...6)).map { _ in
      Self.client(queueCount, usesFeatures, &chance)
    }
    // Drawn apart, so that a run without transactions is what it was before there were any.
    var apart = Chance(seed: seed ^ 0x7472_616e_7361_6374)
    let transacts = usesFeatures && apart.flip()
    self.clients = clients.enumerated().map { place, drawn in
      var client = drawn
      if transacts { client.transact = apart.within(0...80) }
      client.hang = hang
      client.pause = client.pause.lowerBound * calm...client.pause.upperBound * calm
      guard cut.clients.contains(place + 1) else { return client }
      var silent = client
      silent.queuesPublished = []
      silent.queuesConsumed = []
      return silent
    }
    deadLetterQueues = all.indices.filter { queue in
      all.contains { $0.settings.deadLetterQueue == all[queue].name }
    }
  }

  private static func queues(_ usesFeatures: Bool, _ chance: inout Chance) -> [QueuePlan] {
    var queues: [QueuePlan] = []
    for number in 0..<chance.within(1...3) {
      var settings = QueueSettings()
      settings.lease = .milliseconds(chance.within(300...8000))
      if chance.permille(600) {
        var dead = QueueSettings()
        dead.lease = settings.lease
        queues.append(QueuePlan(name: "dead-\(number)", settings: dead))
        settings.deadLetterQueue = "dead-\(number)"
        settings.deliveriesMax = UInt32(chance.within(1...5))
      }
      if usesFeatures { addFeatures(to: &settings, &chance) }
      queues.append(QueuePlan(name: "queue-\(number)", settings: settings))
    }
    return queues
  }

  private static func addFeatures(to settings: inout QueueSettings, _ chance: inout Chance) {
    if chance.permille(500) {
      settings.retryDelay = .milliseconds(chance.within(1...1500))
      if chance.flip() {
        settings.retryDelayMax = .milliseconds(
          settings.retryDelay.rawValue / 1_000_000 + chance.within(0...6000))
      } else {
        settings.retryDelayMax = .seconds(8)
      }
      if chance.flip() { settings.retryJitterPermille = UInt16(chance.within(1...1000)) }
    }
    if chance.permille(200) { settings.timeToLive = .milliseconds(chance.within(200...30_000)) }
    if chance.permille(300) { settings.priorities = UInt8(chance.within(2...5)) }
    if chance.permille(300) { settings.keyLimit = UInt32(chance.within(1...3)) }
    if chance.permille(250) {
      settings.lengthMax = UInt64(chance.within(5...60))
      // What makes room must have a place to go, or it would count as lost. Keyed queues know only
      // the other rule.
      if !settings.deadLetterQueue.isEmpty, settings.keyLimit == 0, chance.flip() {
        settings.overflow = .dropOldest
      }
    }
  }

  private static func client(
    _ queues: Int, _ usesFeatures: Bool, _ chance: inout Chance
  ) -> ClientPlan {
    let all = shuffled(Array(0..<queues), &chance)
    let isCalm = chance.permille(300)
    let pause = chance.within(UInt64(5)...400)
    let work = chance.within(UInt64(1)...300)
    var plan = ClientPlan(
      queuesPublished: Array(all.prefix(chance.within(0...2))),
      queuesConsumed: Array(all.suffix(chance.within(0...2))),
      pause: .milliseconds(pause) ... .milliseconds(pause * 3), batch: chance.within(1...6),
      window: chance.within(1...40), credit: chance.within(1...20),
      workTime: .milliseconds(work) ... .milliseconds(work * 4),
      nack: isCalm ? 0 : chance.within(0...150), reject: isCalm ? 0 : chance.within(0...40),
      release: isCalm ? 0 : chance.within(0...60), extend: isCalm ? 0 : chance.within(0...80),
      overrun: isCalm ? 0 : chance.within(0...60), crash: isCalm ? 0 : chance.within(0...3),
      bodyMax: 1 << chance.within(4...12))
    guard usesFeatures else { return plan }
    plan.delayed = chance.flip() ? chance.within(0...300) : 0
    plan.expiring = chance.flip() ? chance.within(0...150) : 0
    plan.cancel = chance.flip() ? chance.within(0...150) : 0
    plan.reschedule = chance.flip() ? chance.within(0...300) : 0
    plan.settleTwice = chance.flip() ? chance.within(0...100) : 0
    plan.ownDelay = chance.flip() ? chance.within(0...500) : 0
    plan.redrive = chance.flip() ? chance.within(0...30) : 0
    plan.purge = chance.permille(200) ? chance.within(0...4) : 0
    plan.changeCredit = chance.flip() ? chance.within(0...20) : 0
    return plan
  }

  private static func shuffled(_ items: [Int], _ chance: inout Chance) -> [Int] {
    var items = items
    for place in stride(from: items.count - 1, to: 0, by: -1) {
      items.swapAt(place, chance.below(place + 1))
    }
    return items
  }
}

extension FaultKind {
  var isOfMembers: Bool { self == .addMember || self == .removeMember || self == .dieInChange }
}

extension Plan.ClientPlan {
  /// Takes everything out of one queue, once the faults are over.
  init(drains queue: Int) {
    self.init(
      queuesPublished: [], queuesConsumed: [queue], pause: .seconds(1) ... .seconds(2), batch: 1,
      window: 1, credit: 50, workTime: 1...2, nack: 0, reject: 0, release: 0, extend: 0,
      overrun: 0, crash: 0, bodyMax: 1)
  }
}
