// One seed: a cluster with its clients, first under faults, then healed and drained. Everything
// happens in the order of simulated time, on one thread, by one generator.

import Base
import Consensus
import LogStore
import Node
import QueueMachine

/// Something that will happen.
enum SimulationEvent {
  // Numbers of nodes are places; lives guard against events of an earlier process.
  case timer(Int, Int)
  case inlineWritten(Int, Int)
  case written(Int, Int)
  case backgroundDone(Int, Int)
  case entriesRead(Int, Int)
  case resume(Int, Int)
  case restart(Int)
  case dial(Int, Int)
  case peerUp(Int)
  case peerArrival(Int)
  case peerReset(Int)
  case peerSilence(Int)
  case clientUp(Int)
  case requestArrival(Int)
  case replyArrival(Int)
  case clientClosed(Int)
  case nodeHearsClose(Int)
  case client(Int, Int, ClientAction)
  case declareQueues
  case fault
  /// A process dies in the middle of something that began.
  case ambush(Int, Int, power: Bool)
  /// Who stands still is about to go on: all others die before.
  case killBeforeLaggards
  /// The dialler of this connection gives it up, or dies; what is on its way comes later.
  case giveUp(Int)
  case peerRelease(Int)
  /// A client has said nothing for long over this connection.
  case clientSilence(Int)
  /// By the trouble of this number.
  case cutLink(Int, Int, Int)
  case mendLink(Int, Int)
  case heal
  case look
}

/// A promise that was broken.
package struct Violation: Sendable, CustomStringConvertible {
  package let rule: String
  package let text: String
  /// Seconds of simulated time.
  package let time: Double
  /// How many events had happened by then.
  package let step: UInt64
  /// Nothing was broken, but nothing goes on either.
  package var isStandstill: Bool { rule == Self.liveness }
  package static let liveness = "liveness"
  package var description: String { "\(rule): \(text)" }
}

final class Simulation {
  let seed: UInt64
  let plan: Plan
  var chance: Chance
  /// Decides what only `Plan.isHarsher` brings, so that other runs are what they were without it.
  var laterChance: Chance
  private(set) var now: UInt64 = 0
  private var queue = EventQueue<SimulationEvent>()
  private(set) var nodes: [SimulatedNode] = []
  private(set) var clients: [SimulatedClient] = []
  private(set) var coverage = Coverage()
  private(set) var violation: Violation?
  private(set) var digestValue: UInt64 = 0xcbf2_9ce4_8422_2325

  // Parts that know this one; made right after it, so never nil while it runs.
  private(set) lazy var network = PeerNetwork(
    self, nodes: plan.nodes + plan.spares)
  private(set) lazy var clientNetwork = ClientNetwork(self)
  private(set) lazy var checks = ClusterChecks(self)
  private(set) lazy var ledger = Ledger(self)

  private(set) var queueIDs: [QueueID?]
  private(set) var isDraining = false
  private(set) var lossPermille: Int
  private var nextLife = 1
  private var lastProcess = 0
  /// Whose disks may be harmed now.
  var victims: [Int]
  private(set) lazy var pauseKill = PauseKill(self)
  /// The next leader that begins to change the members dies before that is done.
  var killsNextChanger = false
  private var lastLeader: Int?
  /// The leader hands over to this one, or was to.
  var handsOverTo: Int?
  private var drainDeadline: UInt64 = 0
  private var leaderDemand = LeaderDemand()
  private var isDone = false
  private var inspection = DiskInspection()
  private var isDigestDone = false
  /// Events since time went on last.
  private var eventsAtOnce = 0
  private(set) var strikes: StrikeList
  /// Is told the story line by line, as it happens; nil if nobody wants to hear it.
  private let tell: ((String) -> Void)?
  /// Is told of every fault before it comes to pass.
  private let struck: ((Strike) -> Void)?
  /// The recorded history, if a story was asked for.
  private(set) var history: [UInt8] = []

  init(
    seed: UInt64, without cut: PlanCut, tell: ((String) -> Void)? = nil,
    struck: ((Strike) -> Void)? = nil
  ) {
    self.seed = seed
    self.tell = tell
    self.struck = struck
    plan = Plan(seed: seed, without: cut)
    chance = Chance(seed: seed ^ 0x5eed_5eed_5eed_5eed)
    laterChance = Chance(seed: seed ^ 0x6c61_7465_7220_6f6e)
    strikes = StrikeList(cut.strikes, chance, laterChance)
    victims = plan.victims
    queueIDs = Array(repeating: nil, count: plan.queues.count)
    lossPermille = plan.lossPermille
  }

  // MARK: Small things that all parts use

  func id(_ place: Int) -> NodeID { NodeID(UInt32(place + 1)) }
  func place(_ id: NodeID) -> Int { Int(id.rawValue) - 1 }
  func note(_ happening: Happening) { coverage.note(happening) }

  func schedule(_ event: SimulationEvent, at time: UInt64) {
    if time != .max { queue.schedule(event, at: max(time, now)) }
  }

  func trace(_ text: () -> String) {
    tell?("\(Self.seconds(now)) \(text())")
  }

  /// Votes are the part of consensus that a reader of a story wants to see.
  func traceVote(_ envelope: PeerEnvelope, from place: Int, to node: SimulatedNode) {
    guard tell != nil, case .consensus(let message, _) = envelope else { return }
    switch message {
    case .vote(let request):
      trace { "\(node) is asked by node \(place + 1) for its vote in term \(request.term)" }
    case .voteReply(let reply):
      trace {
        "\(node) \(reply.isGranted ? "gets" : "does not get") the vote of node \(place + 1) in term"
          + " \(reply.term)"
      }
    default: break
    }
  }

  static func seconds(_ time: UInt64) -> String {
    let thousandths = "\(time / 1_000_000 % 1000)"
    return "\(time / 1_000_000_000)."
      + String(repeating: "0", count: 3 - thousandths.count) + thousandths
  }

  func violated(_ rule: String, _ text: String) {
    guard violation == nil else { return }
    violation = Violation(
      rule: rule, text: text, time: Double(now) / 1e9, step: coverage[.events])
    trace { "VIOLATION of \(rule): \(text)" }
  }

  func digest(_ values: UInt64...) {
    if isDigestDone { return }
    for value in values {
      digestValue = (digestValue ^ value) &* 0x0000_0100_0000_01b3
      digestValue ^= digestValue >> 29
    }
  }

  func digest(_ place: Int, _ applied: UInt64, _ hash: UInt64) {
    digest(now, UInt64(place), applied, hash)
  }

  func nextProcess() -> Int {
    lastProcess += 1
    return lastProcess
  }

  /// One message in eight goes through the bytes of the wire, where the plan wants that.
  func throughCodec(_ envelope: PeerEnvelope) -> PeerEnvelope {
    guard plan.usesCodec, chance.permille(125) else { return envelope }
    let (head, payloads) = PeerCodec.encode(envelope)
    let bytes = head + payloads.joined()
    do {
      let decoded = try bytes.withUnsafeBytes { bytes in try PeerCodec.decode(bytes) }
      if let decoded, decoded.envelope == envelope { return decoded.envelope }
      violated("codec", "a frame changes on the wire: \(envelope)")
    } catch {
      violated("codec", "a frame cannot be read: \(error)")
    }
    return envelope
  }

  /// The newest term of any process.
  var currentTerm: Term {
    nodes.compactMap { $0.life?.replica.consensus.term }.max() ?? .zero
  }

  /// The queues' time, by whoever knows most.
  var newestStamp: MachineTime {
    nodes.compactMap { $0.life?.replica.machine.clock }.max() ?? .zero
  }

  /// The node that leads the newest term.
  var leader: NodeLife? {
    var best: NodeLife?
    for node in nodes {
      guard let life = node.life, life.isTakingPart, life.replica.isLeader else { continue }
      if best.map({ $0.replica.consensus.term < life.replica.consensus.term }) ?? true {
        best = life
      }
    }
    return best
  }

  func keepHistory(_ bytes: [UInt8]) { if tell != nil { history = bytes } }

  func leaderBegan(_ place: Int) {
    if place == handsOverTo { note(.transfers) }
    handsOverTo = nil
    for node in nodes where node.place != place {
      guard let former = node.life, former.replica.isLeader,
        former.replica.consensus.membership != former.replica.appliedMembership
      else { continue }
      note(.ordersToStaleLeaders)
    }
    pauseKill.leaderBegan(place)
    ledger.leaderChanged(to: nodes[place])
    if lastLeader != nil, lastLeader != place { note(.leaderChanges) }
    lastLeader = place
  }

  /// A leader has begun to change the members.
  func changeBegan(_ life: NodeLife) {
    guard killsNextChanger, !isDraining else { return }
    killsNextChanger = false
    let span = plan.delay.upperBound + plan.syncTime.lowerBound
    schedule(
      .ambush(life.node.place, life.number, power: chance.flip()), at: now + chance.within(0...span)
    )
  }

  func afterStep(_ life: NodeLife) { checks.afterStep(life) }

  var areQueuesDeclared: Bool { queueIDs.allSatisfy { $0 != nil } }

  /// A record that the log should have and does not.
  func recordUnavailable(_ delivery: Delivery, _ reason: String, at life: NodeLife) {
    trace { "\(life.node) has no bytes of message \(delivery.id): \(reason)" }
    if !life.node.wasHarmed {
      violated(
        "G11", "\(life.node) has no bytes of message \(delivery.id), which it delivers: \(reason)")
    }
  }

  // MARK: The run

  func run(beforeEach: () -> Void = {}) {
    begin()
    while violation == nil, !isDone {
      beforeEach()
      if !goOn() { break }
    }
    end()
  }

  func begin() {
    for place in 0..<plan.nodes + plan.spares {
      nodes.append(SimulatedNode(self, place: place, chance: &chance))
    }
    for (place, plan) in plan.clients.enumerated() {
      clients.append(SimulatedClient(self, place: place, plan: plan))
    }
    for node in nodes where !node.isOut {
      schedule(.restart(node.place), at: .milliseconds(chance.within(0...300)))
    }
    schedule(.declareQueues, at: .milliseconds(500))
    schedule(.look, at: .milliseconds(100))
    for client in clients { client.begin() }
    if !plan.faults.isEmpty { scheduleStrike() }
    schedule(.heal, at: plan.duration)
  }

  /// The next event happens; false if there is none.
  func goOn() -> Bool {
    guard let (time, event) = queue.next() else { return false }
    eventsAtOnce = time == now ? eventsAtOnce + 1 : 0
    if eventsAtOnce > Self.eventsAtOnceMax {
      violated(Violation.liveness, "no time passes any more. " + whatEverybodyWaitsFor)
    }
    now = time
    coverage.note(.events)
    happen(event)
    return true
  }

  private func end() {
    coverage[.simulatedSeconds] += now / 1_000_000_000
    if let leader {
      for queue in queueIDs.compactMap(\.self) {
        coverage[.droppedMessages] += leader.replica.machine.dropped(from: queue) ?? 0
      }
    }
    for node in nodes {
      coverage[.failedDirectorySyncs] += node.disk.directorySyncsFailed
      coverage[.zeroedBlockEnds] += node.disk.blockEndsZeroed
      coverage[.writesToBeRead] += node.disk.writesToBeRead
      coverage[.failedSyncs] += node.disk.syncsFailed
      coverage[.fullDisks] += node.disk.timesFull
    }
    if violation == nil, strikes.foreign == nil {
      checks.checkAtRest()
      ledger.drained()
      ledger.judge()
    } else {
      ledger.stopped()
    }
    // Parts refer to each other: let go, so that the memory is given back.
    for node in nodes { node.life = nil }
  }

  private static let eventsAtOnceMax = 1_000_000

  private func life(_ place: Int, _ number: Int) -> NodeLife? {
    guard let life = nodes[place].life, life.number == number else { return nil }
    return life
  }

  private func happen(_ event: SimulationEvent) {
    switch event {
    case .timer(let place, let number): life(place, number)?.timer()
    case .inlineWritten(let place, let number):
      guard let life = life(place, number) else { return }
      // The loop itself was waiting for the disk: nothing comes before it.
      life.backlog.insert(.stored, at: 0)
      life.unblock()
    case .written(let place, let number): life(place, number)?.receive(.stored)
    case .backgroundDone(let place, let number): life(place, number)?.receive(.background)
    case .entriesRead(let place, let number): life(place, number)?.receive(.entriesRead)
    case .resume(let place, let number): life(place, number)?.unblock()
    case .restart(let place): start(nodes[place])
    case .dial(let from, let to): network.dial(from, to)
    case .peerUp(let number): network.up(number)
    case .peerArrival(let number): network.arrive(number)
    case .peerReset(let number): network.resetArrived(number)
    case .peerSilence(let number): network.silence(number)
    case .clientUp(let number): clientNetwork.up(number)
    case .requestArrival(let number): clientNetwork.requestArrived(number)
    case .replyArrival(let number): clientNetwork.replyArrived(number)
    case .clientClosed(let number): clientNetwork.closeArrived(number)
    case .nodeHearsClose(let number): clientNetwork.closeReachedNode(number)
    case .client(let place, let incarnation, let action):
      if clients[place].incarnation == incarnation { clients[place].perform(action) }
    case .declareQueues: declareQueues()
    case .fault:
      if !isDraining { strike() }
    case .ambush(let place, let number, let power):
      guard let life = life(place, number), !isDraining else { return }
      Nemesis(self).spring(life.node, power: power)
    case .killBeforeLaggards: pauseKill.kill()
    case .giveUp(let number): Nemesis(self).giveUp(number)
    case .peerRelease(let number): network.releaseHeld(number)
    case .clientSilence(let number): clientNetwork.silence(number)
    case .cutLink(let from, let to, let trouble):
      if !isDraining { network.cut(from, to, by: trouble) }
    case .mendLink(let from, let to): network.mend(from, to)
    case .heal: heal()
    case .look: look()
    }
  }

  // MARK: Faults

  private func scheduleStrike() {
    let time = now + chance.within(plan.faultPause)
    if let time = strikes.nextTime(drawn: time) { schedule(.fault, at: time) }
  }

  /// One that was drawn in a run with more faults draws as it did there; what else happens goes on as if
  /// nothing had been drawn for it, unless this run is still the same.
  private func strike() {
    let (before, laterBefore) = (chance, laterChance)
    strikes.begin(&chance, &laterChance)
    let isSame = chance.draws == before.draws
    let isLaterSame = laterChance.draws == laterBefore.draws
    Nemesis(self).strike()
    scheduleStrike()
    if !isSame { chance = before }
    if !isLaterSame { laterChance = laterBefore }
  }

  /// The nemesis has chosen.
  func willStrike(_ kind: FaultKind) {
    let strike = strikes.willStrike(kind, at: now)
    if strikes.foreign != nil { isDone = true }
    struck?(strike)
    trace { "fault \(strike)" }
  }

  // MARK: Lives of nodes

  var foundingMembership: Membership {
    Membership(members: (0..<plan.nodes).map { member($0) })
  }

  func member(_ place: Int) -> Membership.Member {
    Membership.Member(
      id: id(place), peerAddress: "node-\(place + 1):1", clientAddress: "node-\(place + 1):2")
  }

  /// The members by the newest entry that was ever applied anywhere.
  var newestMembership: Membership { checks.newestMembership ?? foundingMembership }

  private func start(_ node: SimulatedNode) {
    node.isRestarting = false
    guard node.life == nil, !node.isOut else { return }
    node.isPowered = true
    node.disk.beginProcess()
    if node.hasFailedSync {
      note(.restartsAfterFailedSync)
      node.hasFailedSync = false
    }
    // Now and then the process dies again before it is up.
    if !isDraining, chance.permille(50) { node.disk.callsLeft = chance.below(12) }
    defer { node.disk.revive() }
    do throws(LogStoreError) {
      let (store, recovery) = try LogStore.open(
        directory: "/data", identity: StoreIdentity(cluster: "sim", node: id(node.place)),
        options: plan.storeOptions, fileSystem: node.disk)
      begin(node, store, recovery)
    } catch {
      failedToStart(node, error)
    }
  }

  private func failedToStart(_ node: SimulatedNode, _ error: LogStoreError) {
    trace { "\(node) cannot start: \(error)" }
    if node.disk.hasRefused {
      note(.crashesInsideRecovery)
      if chance.flip(), node.harmedAt == nil { losePower(node) }
    } else if case .storage(let failure) = error, failure.isNoSpace {
      node.disk.capacity = .max
    } else if case .storage(let failure) = error,
      [.synchronize, .synchronizeDirectory].contains(failure.operation)
    {
      if chance.flip(), node.harmedAt == nil { losePower(node) }
    } else if node.isIdentityHarmed, Self.saysToEmpty(error) {
      // Whoever runs it does what the message says.
      note(.emptiedDirectories)
      node.disk.wipe()
      node.isIdentityHarmed = false
    } else {
      let harm = node.wasHarmed ? "its identity was not harmed" : "nobody harmed its disk"
      violated("G11", "\(node) cannot start, and \(harm): \(error)")
    }
    restart(node, after: .milliseconds(chance.within(10...1000)))
  }

  /// Whether members have changed by now, or are about to, where a member's disk is harmed.
  func noteHarm(of node: SimulatedNode) {
    guard !isDraining, !node.isOut else { return }
    if newestMembership != foundingMembership || nodes.contains(where: \.isJoining) {
      note(.harmsAmongChangingMembers)
    }
  }

  /// Whose data directory it is was lost: of all damage this alone may keep a node from starting.
  private static func saysToEmpty(_ error: LogStoreError) -> Bool {
    switch error {
    case .identityDamaged, .notSkein: true
    default: false
    }
  }

  private func begin(_ node: SimulatedNode, _ store: LogStore, _ recovery: Recovery) {
    noteRecovery(recovery, of: node)
    checks.recovered(recovery, at: node)
    if node.driftPPM != 0 { note(.driftingClocks) }
    let clockBase = UInt64.seconds(chance.within(1...1000))
    let number = nextLife
    nextLife += 1
    do {
      let machine = try loadMachine(from: store)
      let replica = Replica(
        configuration: configuration(of: node), restored: restored(recovery, node),
        machine: machine, now: MonotonicTime(clockBase))
      let life = NodeLife(
        simulation: self, node: node, number: number, store: store, replica: replica,
        clockBase: clockBase)
      node.life = life
      var members = life.replica.consensus.membership
      if members.members.isEmpty { members = newestMembership }
      network.answerFormerLife(of: node.place)
      network.begin(node.place, members)
      life.startUpkeep(now: life.localNow)
      if node.hasClockJumped { note(.clockJumps) }
      node.hasClockJumped = false
      life.turn()
    } catch {
      violated("G11", "\(node) cannot read the snapshot that recovery found whole: \(error)")
    }
  }

  private func noteRecovery(_ recovery: Recovery, of node: SimulatedNode) {
    note(.restarts)
    if recovery.tornBytes > 0 { note(.tornTailsCut) }
    if recovery.isMemoryLost, !node.isJoining { note(.memoryLost) }
    trace {
      "\(node) starts: log through \(recovery.last)"
        + (recovery.snapshot.map { ", snapshot through \($0.position)" } ?? "")
        + (recovery.tornBytes > 0 ? ", \(recovery.tornBytes) torn bytes cut" : "")
        + (recovery.isFresh ? ", empty directory" : "")
        + (recovery.isMemoryLost && !recovery.isFresh ? ", memory lost" : "")
        + recovery.damage.map { "; \($0)" }.joined()
    }
    var isHarmed = false
    node.hasTornLog = recovery.tornBytes > 0
    for report in recovery.damage {
      if case .nothingLost = report.consequence { continue }
      if case .logCutFrom = report.consequence {
        note(.logsCut)
        node.hasTornLog = true
      }
      isHarmed = true
    }
    guard isHarmed else { return }
    note(.restartsWithDamage)
    if !node.wasHarmed {
      violated(
        "G11",
        "\(node) takes a crash for damage: \(recovery.damage.map { "\($0)" }.joined(separator: "; "))"
      )
    }
  }

  private func configuration(of node: SimulatedNode) -> ReplicaConfiguration {
    let consensus = ConsensusConfiguration(
      id: id(node.place), seed: chance.next(), heartbeatInterval: plan.heartbeat,
      electionTimeoutMin: plan.electionMin,
      electionTimeoutMax: Nanoseconds(plan.electionMin.rawValue * 2),
      windowBytesMax: plan.windowBytes, windowMessagesMax: plan.windowMessages)
    var configuration = ReplicaConfiguration(consensus: consensus, cluster: "sim")
    configuration.cacheBytesMax = plan.cacheBytes
    configuration.unappliedBytesMax = 1 << 16
    configuration.batchBytesMax = plan.batchBytes
    configuration.snapshotBytes = plan.snapshotBytes
    configuration.logBytesForAbsent = plan.logBytesForAbsent
    configuration.logBytesForFed = plan.logBytesForFed
    configuration.feedBytesPerSecond = plan.feedBytesPerSecond
    configuration.readBytesMax = 1 << 12
    return configuration
  }

  /// What the disk held, as the server's `ServerConfiguration.restored` says it.
  private func restored(_ recovery: Recovery, _ node: SimulatedNode) -> RestoredReplica {
    let snapshot = recovery.snapshot?.position ?? .zero
    var base = snapshot
    let first = recovery.firstIndex
    if first <= LogIndex(1) {
      base = .zero
    } else if first <= snapshot.index,
      let run = recovery.termRuns.last(where: { $0.first <= first })
    {
      base = LogPosition(term: run.term, index: first)
    }
    var runs: [TermRun] = []
    for run in recovery.termRuns {
      let first = max(run.first, base.index.next)
      guard first <= recovery.last.index else { continue }
      if runs.last?.first == first { runs.removeLast() }
      runs.append(TermRun(first: first, term: run.term))
    }
    let state = RestoredState(
      hardState: recovery.hardState, snapshot: snapshot,
      snapshotMembership: recovery.snapshot?.membership
        ?? (node.joins ? Membership(members: []) : foundingMembership), logBase: base,
      termRuns: runs, last: max(recovery.last.index, snapshot.index),
      memberships: recovery.memberships.filter { $0.index > snapshot.index }.map {
        MembershipEntry(index: $0.index, membership: $0.membership)
      }, canVote: !recovery.isMemoryLost)
    return RestoredReplica(
      consensus: state, damaged: recovery.damagedEntries.map { $0.first...$0.last },
      wallClock: MachineTime(node.wallClock + now))
  }

  func restart(_ node: SimulatedNode, after span: UInt64) {
    guard !node.isRestarting else { return }
    node.isRestarting = true
    schedule(.restart(node.place), at: now + span)
  }

  /// Whoever runs it looks after it in a while.
  func nodeHalted(_ node: SimulatedNode) { haltedNodes.insert(node.place) }

  private var haltedNodes: Set<Int> = []

  func nodeEnded(_ node: SimulatedNode) {
    network.closeAll(of: node.place, isSilent: false)
    clientNetwork.closeAll(of: node.place, isSilent: false)
    node.life?.dieInsideJobs()
    node.life = nil
    restart(node, after: .milliseconds(chance.within(10...2000)))
  }

  /// The process is gone; with `power` what it did not sync may be too.
  func crash(_ node: SimulatedNode, power: Bool) {
    guard let life = node.life else { return }
    // Harm and loss of power at once may take what nothing knew to be synced: more than a promise.
    let power = power && node.harmedAt == nil
    haltedNodes.remove(node.place)
    life.phase = .ended
    network.closeAll(of: node.place, isSilent: power)
    clientNetwork.closeAll(of: node.place, isSilent: power)
    life.dieInsideJobs()
    node.life = nil
    if power {
      node.isPowered = false
      node.hasFailedSync = false
      losePower(node)
    }
  }

  private func losePower(_ node: SimulatedNode) {
    switch node.disk.losePower(&chance) {
    case .nothing: break
    case .some, .all:
      note(.unsyncedLost)
      trace { "\(node) has lost writes that were not synced" }
    case .torn:
      note(.unsyncedLost)
      note(.tornWrites)
      trace { "\(node) has lost writes that were not synced, and one of them is torn" }
    }
  }

  // MARK: Queues

  /// Whoever sets the cluster up: declares the queues through whichever node leads, again and
  /// again until they are there.
  private func declareQueues() {
    if let life = leader, life.replica.hasRoom {
      for (place, queue) in plan.queues.enumerated() {
        if let id = life.replica.machine.queue(named: queue.name),
          life.replica.applied <= checks.commit
        {
          queueIDs[place] = id
          ledger.declared(place)
          continue
        }
        let now = life.localNow
        life.replica.submit(now: now) {
          CommandWriter.declareQueue(
            .connection(SessionOrigin(node: NodeID(1), connection: 0)), tag: RequestTag(1),
            name: queue.name, settings: queue.settings, into: &$0)
        }
      }
      life.wake()
    }
    if !areQueuesDeclared { schedule(.declareQueues, at: now + .milliseconds(200)) }
  }

  // MARK: The end

  private func heal() {
    trace { "the faults are over" }
    isDraining = true
    lossPermille = 0
    network.heal()
    clientNetwork.heal()
    for node in nodes {
      node.disk.capacity = .max
      node.disk.failingSyncs = 0
      node.disk.failingDirectorySyncs = 0
      node.ambush = nil
      node.slowUntil = (0, 1)
      if let life = node.life, !life.isTakingPart {
        stopHalted(node)
      }
      if node.life == nil, !node.isOut {
        schedule(.restart(node.place), at: now + .milliseconds(100))
      }
    }
    drainDeadline = now + .seconds(120)
    leaderDemand.begin(until: now + plan.leaderPatience)
  }

  /// A halted process is ended; its machine is started anew or goes on, with what its caches show.
  private func stopHalted(_ node: SimulatedNode) { crash(node, power: chance.flip()) }

  /// Now and then: what waits for an operator, and whether all is done.
  private func look() {
    for node in nodes where haltedNodes.contains(node.place) && chance.permille(100) {
      node.disk.capacity = .max
      stopHalted(node)
      restart(node, after: .milliseconds(chance.within(100...2000)))
    }
    if plan.spares > 0 { Administration(self).look() }
    VictimChange(self).look()
    if isDraining {
      demandLeader()
      addDrainers()
      if isDrained {
        inspectDisks()
        if isDone { return }
      }
      if now > drainDeadline {
        violated(
          Violation.liveness, "not drained 120 s after the faults ended. " + whatEverybodyWaitsFor)
        return
      }
    } else {
      askForReads()
    }
    schedule(.look, at: now + .milliseconds(100))
  }

  /// Now and then the leader is asked, and everybody at once who still takes itself for it, standing still
  /// or cut off as it may be: who answers must know all that was committed.
  private func askForReads() {
    let newest = leader
    for node in nodes {
      guard let life = node.life, life !== newest, life.isTakingPart, life.replica.isLeader else {
        continue
      }
      note(.readsAskedOfFormerLeaders)
      life.receive(.read(after: checks.commit))
    }
    if let newest, chance.permille(100) { newest.receive(.read(after: checks.commit)) }
  }

  /// Somebody has to lead soon, and to have committed something in its term.
  private func demandLeader() {
    guard leaderDemand.deadline != nil else { return }
    let hasLeader = leader.map { life in
      let commit = life.replica.consensus.commit
      return life.replica.consensus.term(at: commit) == life.replica.consensus.term
    }
    if !leaderDemand.look(hasLeader: hasLeader ?? false, at: now) {
      violated(
        Violation.liveness,
        "nobody leads \(Self.seconds(plan.leaderPatience)) s after the faults ended. "
          + whatEverybodyWaitsFor)
    }
  }

  /// All is drained: what is left is harm that nobody has read. The digest is of what came before.
  private func inspectDisks() {
    isDigestDone = true
    let before = inspection.restarted
    isDone = inspection.look(self)
    // What comes again has to be there as soon as everything had to be after the faults.
    if inspection.restarted != before { drainDeadline = now + .seconds(120) }
  }

  /// Queues that nobody consumes are drained by one client more for each.
  private func addDrainers() {
    guard clients.count == plan.clients.count, areQueuesDeclared else { return }
    for queue in plan.queues.indices {
      let plan = Plan.ClientPlan(drains: queue)
      let client = SimulatedClient(self, place: clients.count, plan: plan)
      clients.append(client)
      client.begin()
    }
  }

  private var isDrained: Bool {
    guard areQueuesDeclared || plan.queues.isEmpty, let leader, clients.allSatisfy(\.isQuiet)
    else { return false }
    let commit = leader.replica.consensus.commit
    var others: [NodeLife] = []
    for member in leader.replica.consensus.membership.members {
      guard let life = nodes[place(member.id)].life, life.isTakingPart,
        life.replica.applied == commit,
        life.replica.consensus.lastIndex == commit, life.replica.consensus.persisted == commit,
        !life.replica.isMemoryLost,
        life.replica.recordsToRepair == 0, life.replica.consensus.hardState.floor == .zero
      else { return false }
      others.append(life)
    }
    guard
      leader.replica.machine.summaries().allSatisfy({ $0.ready + $0.leased + $0.delayed == 0 })
    else { return false }
    for life in others where life !== leader { checks.compareWhole(leader, life) }
    return true
  }

  /// For whoever has to find out why nothing goes on.
  var whatEverybodyWaitsFor: String {
    var texts: [String] = []
    for node in nodes {
      guard let life = node.life else {
        texts.append("\(node) is \(node.isOut ? "no member" : "down")")
        continue
      }
      texts.append(Self.describe(life))
      for member in life.replica.consensus.memberStatuses {
        texts.append(
          "\(node) feeds node \(member.id): \(member.mode), match \(member.match), next"
            + " \(member.next), \(member.inFlight) in flight, "
            + network.describe(from: node.place, to: place(member.id)))
      }
    }
    if let leader {
      for summary in leader.replica.machine.summaries() {
        texts.append(
          "\(summary.name): \(summary.ready) ready, \(summary.leased) leased,"
            + " \(summary.delayed) delayed")
      }
    }
    texts += clients.filter { !$0.isQuiet }.map(\.summary)
    return texts.joined(separator: "; ")
  }

  private static func describe(_ life: NodeLife) -> String {
    let consensus = life.replica.consensus.role
    var text =
      "\(life.node) \(consensus) term \(life.replica.consensus.term)"
      + " last \(life.replica.consensus.lastIndex) persisted \(life.replica.consensus.persisted)"
      + " commit \(life.replica.consensus.commit) applied \(life.replica.applied)"
    if !life.replica.isLeader {
      text += life.replica.leader.map { " behind node \($0)" } ?? " without a leader"
      if let leader = life.replica.leader {
        let simulation = life.simulation
        text +=
          " ("
          + simulation.network.describe(
            from: life.node.place, to: simulation.place(leader)) + ")"
      }
    }
    if case .halted(let reason) = life.phase { text += " halted (\(reason))" }
    if life.replica.isForming { text += " forming" }
    if life.replica.isMemoryLost { text += " memory lost" }
    if life.replica.recordsToRepair > 0 { text += " repairing \(life.replica.recordsToRepair)" }
    let floor = life.replica.consensus.hardState.floor
    if floor != .zero { text += " floor \(floor)" }
    if life.storage.current != nil { text += " writing" }
    if !life.replica.hasRoom {
      text += " no room (\(life.replica.unappliedBytes) bytes not applied)"
    }
    if life.hasNoSpace { text += " no space" }
    let waiting = life.clients.reduce(0) { $0 + $1.waiting.count }
    if waiting > 0 { text += " \(waiting) requests waiting" }
    let items = life.clients.reduce(0) { $0 + $1.outbox.count }
    if items > 0 { text += " \(items) deliveries not sent" }
    return text
  }
}
