// One process life of a simulated node: the shell that carries out what the production `Replica`
// asks for. It mirrors the server's `NodeLoop` step by step, with simulated peers, clients, disk
// and threads in place of the real ones.

import Base
import Consensus
import LogStore
import Node
import QueueMachine

/// Something that reaches the loop of a node.
enum NodeInput {
  case peerConnected(Int)
  case peerDisconnected(Int)
  case envelope(PeerEnvelope, from: Int)
  case clientConnected(ClientConnection)
  case clientClosed(ClientConnection)
  case request(ClientRequest, ClientConnection)
  case stored
  case background
  case entriesRead
  /// A read that has to see all that was committed when it was asked for.
  case read(after: LogIndex)
}

final class NodeLife {
  enum Phase {
    case running
    /// It takes no part any more (G12, G14).
    case halted(String)
    case ended
  }

  unowned(unsafe) let simulation: Simulation
  let node: SimulatedNode
  /// Unique in a run: events of an earlier life are void.
  let number: Int
  let store: LogStore
  let started: UInt64
  private let clockBase: UInt64

  var replica: Replica
  var phase = Phase.running
  var storage = StorageLane()
  /// When the write that is on its way began.
  var storageBegan: UInt64 = 0
  var background = BackgroundLane()
  /// What is read for followers besides, in order.
  var reads = RingBuffer<(read: EntryRead, job: EntryReadJob)>()
  /// When it dies in the job on its way, the job's writes are done and its first sync is not.
  var isDyingAtSync = false
  var isUpkeepRunning = false
  var upkeepPauseEnd = MonotonicTime(0)
  var markerDeadline = MonotonicTime.never

  /// Nothing is taken before: a write by the loop itself, or the process is stopped.
  var blockedUntil: UInt64 = 0
  /// It was stopped, as by SIGSTOP, until then, and nothing has had to wait for it yet.
  private var stillUntil: UInt64?
  var backlog: [NodeInput] = []
  var timerAt = UInt64.max

  // Snapshot streams.
  var sources: [Int: SnapshotSource] = [:]
  var sourceDeadlines: [Int: MonotonicTime] = [:]
  var sourcesInPreparation: Set<Int> = []
  var failedStreams: [(plan: SnapshotPlan, reason: String, retryAt: MonotonicTime)] = []
  var receiver: SnapshotReceiver?
  /// The receiver is being checked on the background thread, or written.
  var isReceiverBusy = false
  /// Publishes are refused: the disk is nearly full.
  var hasNoSpace = false
  var spaceDeadline = MonotonicTime(0)
  var reliefDeadline = MonotonicTime(0)
  var snapshotWantedBytes: UInt64 = 0

  // Deliveries and clients.
  var blocks: [PayloadBlock] = []
  var clients: [GatewayClient] = []
  var sessions: [SessionID: GatewayClient] = [:]
  var detaching: [(session: SessionID, origin: SessionOrigin)] = []
  var knownTerm = Term.zero
  var knownIsLeader = false
  var knownLeader: NodeID?
  var nextToken: UInt64
  var nextTag: UInt64
  var deliverRetry = MonotonicTime.never
  var needsTurn = false
  var waitingReads: [(ticket: ReadTicket, commit: LogIndex)] = []

  // What checks remember.
  /// Ordered and not reported as durable, oldest first.
  var hardStates: [(ticket: StoreTicket, state: HardState)] = []
  var checkedCommit = LogIndex.zero
  var checkedApplied = LogIndex.zero
  /// The last entry by which this process, as a leader, changed the members.
  var lastChange: LogPosition?
  /// The term that it led at the end of its last step.
  var checkedLeadership: Term?
  /// Its queues were read from a snapshot, and not compared with another replica's since.
  var isFromSnapshot = true
  var answeredApplied = LogIndex.zero
  /// What this process was told of its disk: it may write nothing and confirm nothing from then on.
  var diskFailure: StorageFailure?
  var steps = 0
  /// The simulated second it is in, and the steps that it had taken when that began.
  private var second: (number: UInt64, steps: Int) = (0, 0)
  private static let stepsInSecondMax = 100_000

  init(
    simulation: Simulation, node: SimulatedNode, number: Int, store: LogStore,
    replica: consuming Replica, clockBase: UInt64
  ) {
    self.simulation = simulation
    self.node = node
    self.number = number
    self.store = store
    self.replica = replica
    self.clockBase = clockBase
    started = simulation.now
    nextToken = UInt64(number) << 32
    nextTag = UInt64(number) << 32
  }

  var isTakingPart: Bool { if case .running = phase { true } else { false } }

  // MARK: Time

  /// This process's monotonic clock, which may run a little fast or slow.
  var localNow: MonotonicTime {
    MonotonicTime(Self.local(simulation.now - started, drift: node.driftPPM, base: clockBase))
  }

  static func local(_ elapsed: UInt64, drift: Int, base: UInt64) -> UInt64 {
    UInt64(Int64(base) + Int64(elapsed) + Int64(elapsed) / 1_000_000 * Int64(drift))
  }

  private func globalTime(of deadline: MonotonicTime, local: MonotonicTime) -> UInt64 {
    if deadline == .never { return .max }
    let span = Int64(clamping: deadline.since(local).rawValue)
    if span > 1_000_000_000_000 { return .max }
    return simulation.now + UInt64(span - span / 1_000_000 * Int64(node.driftPPM)) + 1000
  }

  // MARK: Turns

  func receive(_ input: NodeInput) {
    if case .ended = phase { return }
    if blockedUntil > simulation.now {
      backlog.append(input)
      // Reads are asked by the simulation itself.
      if case .read = input {} else { noteStandstill() }
      return
    }
    handle(input)
    turn()
  }

  func standStill(until time: UInt64) {
    blockedUntil = max(blockedUntil, time)
    if isTakingPart { stillUntil = blockedUntil }
  }

  /// A pause counts once something has to wait for it.
  private func noteStandstill() {
    guard let until = stillUntil else { return }
    stillUntil = nil
    if until > simulation.now { simulation.note(.pauses) }
  }

  /// Takes what came while the loop could not.
  func unblock() {
    guard blockedUntil <= simulation.now else { return }
    let inputs = backlog
    backlog = []
    for (place, input) in inputs.enumerated() {
      if case .ended = phase { return }
      if blockedUntil > simulation.now {
        backlog = Array(inputs[place...])
        return
      }
      handle(input)
    }
    turn()
  }

  func timer() {
    // An earlier one came instead, and whatever is to be done next has a timer of its own.
    guard simulation.now == timerAt else { return }
    timerAt = .max
    wake()
  }

  /// A turn now, unless it stands still.
  func wake() {
    if case .ended = phase { return }
    if blockedUntil <= simulation.now { turn() }
  }

  private func handle(_ input: NodeInput) {
    let now = localNow
    switch input {
    case .peerConnected(let peer):
      if isTakingPart { replica.peerConnected(simulation.id(peer), now: now) }
    case .peerDisconnected(let peer):
      guard isTakingPart else { return }
      releaseSource(of: peer)
      replica.peerDisconnected(simulation.id(peer), now: now)
    case .envelope(let envelope, let peer):
      simulation.traceVote(envelope, from: peer, to: node)
      if isTakingPart { replica.receive(envelope, from: simulation.id(peer), now: now) }
    case .clientConnected(let connection): admit(connection)
    case .clientClosed(let connection): clientClosed(connection)
    case .request(let request, let connection): take(request, from: connection, now: now)
    case .read(let commit):
      guard isTakingPart, let ticket = replica.beginRead(now: now) else { return }
      waitingReads.append((ticket, commit))
    case .stored: finishWrite(now: now)
    case .background: finishBackground(now: now)
    case .entriesRead: finishRead()
    }
  }

  /// One turn after the inputs were taken, and more while there is something to do at once.
  func turn() {
    for _ in 0..<64 {
      let now = localNow
      gatewayTick(now: now)
      if isTakingPart {
        replica.tick(now: now)
        promoteLearners(now: now)
        carryOutReplica(now: now)
        writeMarkerIfIdle(now: now)
        releaseIdleSources(now: now)
        if hasNoSpace { checkSpace(now: now) }
      }
      pumpDeliveries(now: now)
      startStorage()
      startBackground()
      simulation.afterStep(self)
      noteStep()
      if case .ended = phase { return }
      if blockedUntil > simulation.now { return }
      guard needsTurn || (isTakingPart && replica.hasMore) else { return scheduleTimer() }
    }
    // Others have their turns in between, as the server's loop looks at its sockets.
    simulation.schedule(.resume(node.place, number), at: simulation.now + 1000)
    scheduleTimer()
  }

  /// A node that is busy with nothing moves time on a little with each turn, and gets nowhere.
  private func noteStep() {
    let now = simulation.now / 1_000_000_000
    if second.number != now { second = (now, steps) }
    if steps - second.steps > Self.stepsInSecondMax {
      simulation.violated(
        Violation.liveness,
        "\(node) takes more than \(Self.stepsInSecondMax) steps in a second. "
          + simulation.whatEverybodyWaitsFor)
    }
  }

  private func scheduleTimer() {
    let now = localNow
    if replica.isFeedPaced { simulation.note(.feedsPaced) }
    var deadline = min(deliverRetry, markerDeadline)
    for failed in failedStreams { deadline = min(deadline, failed.retryAt) }
    if isTakingPart { deadline = min(deadline, replica.nextDeadline(now: now)) }
    let at = globalTime(of: deadline, local: now)
    guard at < timerAt else { return }
    timerAt = at
    simulation.schedule(.timer(node.place, number), at: at)
  }

  private func carryOutReplica(now: MonotonicTime) {
    for _ in 0..<8 {
      let room = simulation.network.peersWithRoom(from: node.place)
      let outputs = replica.finishTurn(
        now: now, hasRoom: { room & (1 << UInt64($0.rawValue)) != 0 })
      carryOutEffects(now: now)
      for output in outputs { carryOut(output, now: now) }
      if outputs.isEmpty || !isTakingPart { return }
    }
  }

  private func promoteLearners(now: MonotonicTime) {
    guard replica.isLeader else { return }
    for member in replica.consensus.membership.members where member.isLearner {
      // Too far behind, or another change is on its way: asked again next turn.
      do { try replica.changeMembership(.promote(member.id), now: now) } catch { continue }
      simulation.changeBegan(self)
    }
  }

  // MARK: The replica's orders

  private func carryOut(_ output: ReplicaOutput, now: MonotonicTime) {
    guard isTakingPart else { return }
    switch output {
    case .store(let ticket, let operations):
      simulation.checks.willStore(operations, ticket, at: self)
      for operation in operations {
        if case .saveHardState(let state) = operation { hardStates.append((ticket, state)) }
      }
      storage.add(.operations([ticket], operations))
    case .send(let peer, let envelope):
      simulation.checks.willSend(envelope, to: peer, from: self)
      simulation.network.send(envelope, from: node.place, to: simulation.place(peer))
    case .read(let read): carryOut(read)
    case .leaderChanged: discardReceiver()
    case .roleChanged(let isLeader, let term):
      if isLeader { simulation.checks.becameLeader(self, term) }
    case .membershipChanged(let membership):
      simulation.network.setMembers(membership, of: node.place)
    case .takeSnapshot(let request): writeSnapshot(request)
    case .readSnapshot(let plan): readSnapshot(plan, now: now)
    case .storeSnapshotChunk(let chunk, let bytes): storeSnapshotChunk(chunk, bytes, now: now)
    case .readReady(let ticket): readReady(ticket)
    case .readFailed(let ticket): waitingReads.removeAll { $0.ticket == ticket }
    case .lookUpRecords(let peer, let references): lookUpRecords(references, for: peer)
    case .repair(let ranges, let references, let bodies): repair(ranges, references, bodies)
    case .memoryLost:
      if !node.isJoining { simulation.note(.memoryLost) }
      simulation.trace { "\(self.node) has an empty disk in a cluster with a past" }
      store.memoryWasLost()
      storage.add(.operations([], []))
    case .memoryRestored:
      if !node.isJoining { simulation.note(.memoryRestored) }
      simulation.trace { "\(self.node) has its memory back" }
      store.memoryIsRestored()
      storage.add(.operations([], []))
    case .logMended:
      simulation.note(.logsMended)
      simulation.trace { "\(self.node)'s log is mended" }
    case .note(let text): simulation.trace { "\(self.node): \(text)" }
    case .stop(let reason):
      switch reason {
      case .diverged, .contradicted: simulation.violated("G14", "\(node): \(reason)")
      case .removed: node.isOut = true
      }
      halt("\(reason)")
    }
  }

  private func readReady(_ ticket: ReadTicket) {
    // Reads that were asked for together have one ticket.
    for read in waitingReads where read.ticket == ticket {
      simulation.note(.linearizableReads)
      if replica.applied < read.commit {
        simulation.violated(
          "linearizable reads",
          "\(node) answers a read as of entry \(replica.applied), and entry \(read.commit) was"
            + " committed before it was asked")
      }
    }
    waitingReads.removeAll { $0.ticket == ticket }
  }

  /// The node takes no part any more, but says why to whoever asks (G12, G14).
  func halt(_ reason: String) {
    guard isTakingPart else { return }
    if !node.isOut { simulation.note(.halts) }
    simulation.trace { "\(self.node) halts: \(reason)" }
    phase = .halted(reason)
    markerDeadline = .never
    failedStreams.removeAll()
    simulation.network.closeAll(of: node.place, isSilent: false)
    replica.halt()
    simulation.nodeHalted(node)
  }

  /// It must not go on with what its disk has done; a disk that did all it was asked is no reason.
  func haltForDisk(_ reason: String) {
    if isTakingPart, !node.disk.hasFailedProcess, !node.wasHarmed {
      simulation.violated("G12", "\(node) halts although its disk did all it was asked: \(reason)")
    }
    halt(reason)
  }

  /// The process ends by itself; whoever watches over it starts it again.
  func end(_ reason: String) {
    simulation.trace { "\(self.node) ends: \(reason)" }
    phase = .ended
    simulation.nodeEnded(node)
  }
}
