// One node's part in the cluster without its I/O: consensus, the queues, and the newest entries
// between the two. The shell feeds inputs, then calls `finishTurn` once per turn of its loop and
// carries out the outputs in order.
//
// Order that must hold: an entry is in the cache until it is both applied and on disk; it is applied
// only when committed; effects are for the shell of the leader alone, everybody else's list is off,
// unless sessions stay with their nodes (`hasStickySessions`).

import Base
import Consensus
import QueueMachine

package struct Replica: ~Copyable {
  package let configuration: ReplicaConfiguration
  package internal(set) var consensus: Consensus
  package internal(set) var machine: QueueMachine
  /// What the applied entries ask of the sessions connected here. The shell empties it.
  package var effects: EffectList
  /// The newest entries, for replication, apply and deliveries.
  package internal(set) var cache: EntryCache
  package internal(set) var clock: MachineClock
  /// Where the clock of a new cluster begins; read once, so that times mean something to people.
  let wallClock: MachineTime
  /// When this turn began.
  var turnTime: MonotonicTime

  /// The last entry applied; applied <= commit.
  package internal(set) var applied: LogIndex
  /// The position and membership as of `applied`.
  var appliedTerm: Term
  package internal(set) var appliedMembership: Membership
  /// Payload bytes in the log behind `applied`.
  package internal(set) var unappliedBytes = 0
  /// Payload bytes that are on their way to this node's disk.
  package internal(set) var unstoredBytes = 0
  /// Commands gathered for the next entry: a stamp's place, then commands.
  var batch: [UInt8] = []
  /// When followers are told what was committed, if no entry tells them before.
  var newsDeadline = MonotonicTime.never
  /// Followers with clients of their own, which wait for the news: an idle leader tells these at
  /// once. The shell says which they are.
  package var newsAtOnceTo: Set<NodeID> = []
  var logGrowth: LogGrowth
  /// Of members that lack more than what is in memory.
  var feedPaces: [NodeID: FeedPace] = [:]
  /// When the next entries may be read for a member that is behind, if they may not now.
  var feedDeadline = MonotonicTime.never
  /// The last index proposed for a tick; no other tick before it is applied.
  var tickIndex = LogIndex.zero

  var outputs = RingBuffer<ReplicaOutput>()
  var consensusOutputs: [ConsensusOutput] = []
  /// The entries of the append at hand, consecutive, and their payloads: as many.
  var incoming: (headers: [EntryHeader], payloads: [[UInt8]]) = ([], [])
  var incomingChunk: [UInt8] = []

  /// The shell stopped taking part: the disk failed, or the state diverged.
  package private(set) var isHalted = false

  // Storage.
  var operations: [LogOperation] = []
  var pendingHardState: HardState?
  var pendingLast: LogPosition?
  /// The next storage batch says to the disk that this node votes again.
  var isVoteRestoring = false
  var pendingBytes = 0
  var stores = RingBuffer<PendingStore>()
  var nextTicket: UInt64 = 1
  /// On disk and reported through here.
  var persisted: LogIndex
  /// This node's promises may be forgotten and it may not vote yet; the log store remembers that.
  package internal(set) var isMemoryLost: Bool

  // Reading back.
  var applyRead: EntryRead?
  var peerReads: [NodeID: EntryRead] = [:]
  var snapshotReads: Set<NodeID> = []
  var waitingReads: [(ticket: ReadTicket, index: LogIndex)] = []

  // Beginning, comparing, repairing.
  /// Present until this node has a past: also after it formed, others may still have to hear whom
  /// it heard.
  var formation: Formation?
  var differingFounder: NodeID?
  /// The members that the configuration gave, while this node has no past.
  let founders: Checksum
  var hashes = StateHashHistory()
  var hashReports: [NodeID: StateHashHistory] = [:]
  var repair: Repair
  /// The repairs ordered and not yet in the log, oldest first: their entries still read as damaged.
  var repairsOnTheirWay: [[ClosedRange<LogIndex>]] = []

  // Snapshots.
  var appliedBytesSinceSnapshot = 0
  var isSnapshotPending = false
  var logReach: LogReach

  struct PendingStore {
    var ticket: StoreTicket
    /// Of the payloads.
    var bytes: Int
    /// As consensus knows it, nil if the batch has none.
    var hardState: HardState?
    /// The last entry appended, nil if the batch has none.
    var last: LogPosition?
    /// With this batch the disk knows that this node votes again.
    var isVoteRestored: Bool
  }

  package init(
    configuration: ReplicaConfiguration, restored: RestoredReplica, machine: consuming QueueMachine,
    now: MonotonicTime
  ) {
    self.configuration = configuration
    var state = restored.consensus
    let hasNoPast = state.hasNoPast
    founders = Checksum(of: state.snapshotMembership.encoded())
    // Where the state file itself lost something its note counts for nothing.
    if !state.canVote { state.hardState.isFounder = false }
    if hasNoPast { state.canVote = false }
    isMemoryLost = !state.canVote
    let id = configuration.consensus.id
    applied = state.snapshot.index
    logReach = LogReach(from: state.snapshot.index)
    appliedTerm = state.snapshot.term
    appliedMembership = state.snapshotMembership
    persisted = state.last
    consensus = Consensus(configuration: configuration.consensus, restored: state, now: now)
    clock = MachineClock(start: machine.clock, now: now)
    wallClock = restored.wallClock
    turnTime = now
    logGrowth = LogGrowth(now: now)
    cache = EntryCache(byteCountMax: configuration.cacheBytesMax)
    effects = EffectList(isWanted: configuration.hasStickySessions, node: id)
    if hasNoPast {
      if state.snapshotMembership.member(id) != nil {
        formation = Formation(
          own: id, members: state.snapshotMembership.members.map(\.id), founders: founders,
          isFounder: state.hardState.isFounder,
          begin: now + configuration.consensus.electionTimeoutMax)
        isForming = true
      } else {
        // It joins a cluster that is there already.
        outputs.append(.memoryLost)
      }
    }
    repair = Repair(damaged: restored.damaged, patience: configuration.repairPatience)
    self.machine = machine
    if !restored.damaged.isEmpty { findNeededRepairs() }
  }

  package var id: NodeID { configuration.consensus.id }
  package var isLeader: Bool { consensus.isLeader && !isHalted }
  package var leader: NodeID? { isHalted ? nil : consensus.leader }
  /// Whether this node still waits to learn if the cluster is new.
  package internal(set) var isForming = false
  package var recordsToRepair: Int { repair.openCount }

  /// Whether a leader may take more commands: else they are pushed back (G13).
  package var hasRoom: Bool {
    // A batch over its size is one that waits while leadership is handed over.
    // A majority of others may be quicker than this node's own disk.
    max(unappliedBytes, unstoredBytes) + batch.count < configuration.unappliedBytesMax
      && batch.count < configuration.batchBytesMax
  }

  /// The node takes no part any more: it leads nobody and follows nobody.
  package mutating func halt() {
    isHalted = true
    effects.isWanted = false
    effects.removeAll()
    dropBatch()
  }

  /// Changes the membership by one member, if that is possible now.
  package mutating func changeMembership(
    _ change: MembershipChange, now: MonotonicTime
  ) throws(MembershipChangeError) {
    let proposed = try consensus.proposeMembership(change, now: now, into: &consensusOutputs)
    keep(
      Entry(
        position: proposed.position, kind: .membership, payload: proposed.membership.encoded()))
    carryOutConsensus(now: now)
  }

  /// Begins to hand leadership to `target`, or to whom has most of the log.
  package mutating func transferLeadership(
    to target: NodeID?, now: MonotonicTime
  ) throws(TransferError) {
    // What was gathered goes first, so that it is not left waiting.
    proposeBatch(now: now)
    try consensus.transferLeadership(to: target, now: now, into: &consensusOutputs)
    carryOutConsensus(now: now)
  }

  /// Whether another turn would find something to do without any input.
  package var hasMore: Bool {
    !outputs.isEmpty || !operations.isEmpty
      || (applied < consensus.commit && applyRead == nil)
      || (!batch.isEmpty && isLeader && !consensus.isHandingOver)
  }

  /// What this node says of itself to its peers.
  package var introduction: Introduction {
    Introduction(
      node: id, cluster: configuration.cluster, term: consensus.term,
      heard: formation?.heard ?? [], founders: founders, peerAddress: ownPeerAddress)
  }

  /// As the membership in force has it, so that no configuration says it twice.
  var ownPeerAddress: String { consensus.membership.member(id)?.peerAddress ?? "" }

  /// When `tick` wants to be called next, at the latest.
  package func nextDeadline(now: MonotonicTime) -> MonotonicTime {
    var deadline = consensus.nextDeadline
    if isForming, let formation, formation.begin > now {
      deadline = min(deadline, formation.begin)
    }
    if isLeader, tickIndex <= applied, !consensus.isHandingOver {
      deadline = min(deadline, clock.monotonicTime(of: machine.nextDeadline, now: now))
    }
    if isLeader { deadline = min(deadline, newsDeadline, feedDeadline) }
    return min(deadline, repair.deadline)
  }

  /// Time passed.
  package mutating func tick(now: MonotonicTime) {
    turnTime = now
    maybeBegin(now: now)
    consensus.tick(now, into: &consensusOutputs)
    carryOutConsensus(now: now)
    maybeAskForRepairs(now: now)
  }

  // MARK: Commands

  /// Puts an entry of this leader or of its own leader into cache and storage batch.
  mutating func keep(_ entry: Entry) {
    cache.append(entry)
    logGrowth.added(entry.payload.count, now: turnTime)
    unappliedBytes += entry.payload.count
    unstoredBytes += entry.payload.count
    pendingBytes += entry.payload.count
    if case .append(var entries)? = operations.last {
      operations.removeLast()
      entries.append(entry)
      operations.append(.append(entries))
    } else {
      operations.append(.append([entry]))
    }
    pendingLast = entry.header.position
  }

  // MARK: The turn's end

  /// Proposes what was gathered, applies what is committed, orders storage and sends.
  ///
  /// - Parameter hasRoom: whether a peer's connection takes more now; it is asked again after each
  ///   message to it.
  /// - Returns: the outputs since the last turn, to be carried out in order.
  package mutating func finishTurn(
    now: MonotonicTime, hasRoom: (NodeID) -> Bool
  ) -> [ReplicaOutput] {
    var ordered = RingBuffer<ReplicaOutput>()
    finishTurn(now: now, into: &ordered, hasRoom: hasRoom)
    var result: [ReplicaOutput] = []
    while let output = ordered.popFirst() { result.append(output) }
    return result
  }

  /// As `finishTurn(now:hasRoom:)`, for a shell that has many turns: `result` is empty, and what memory
  /// it has serves the next turn.
  package mutating func finishTurn(
    now: MonotonicTime, into result: inout RingBuffer<ReplicaOutput>, hasRoom: (NodeID) -> Bool
  ) {
    invariant(result.isEmpty, "\(result.count) outputs were not carried out")
    turnTime = now
    if isLeader {
      maybeTick(now: now)
      proposeBatch(now: now)
    } else {
      dropBatch()
    }
    applyCommitted(now: now)
    orderStorage()
    if isLeader { replicate(now: now, hasRoom: hasRoom) }
    maybeTakeSnapshot()
    cache.trim(needed: min(applied, persisted).next)
    swap(&result, &outputs)
  }

  /// Lets go of entries that are kept only because they might be asked for: nothing has happened for
  /// a while. What is asked for later is read back from the log.
  ///
  /// - Returns: the bytes released.
  package mutating func releaseCache(downTo bytes: Int) -> Int {
    cache.shrink(to: bytes, needed: min(applied, persisted).next)
  }

  /// An entry without commands, when something of the machine's falls due.
  private mutating func maybeTick(now: MonotonicTime) {
    guard batch.isEmpty, !consensus.isHandingOver, tickIndex <= applied,
      machine.nextDeadline <= clock.reading(at: now)
    else { return }
    beginBatch()
    proposeBatch(now: now)
    tickIndex = consensus.lastIndex
  }

  /// Commands gathered by a leader that is none any more: nobody was told anything of them.
  mutating func dropBatch() {
    if batch.isEmpty { return }
    batch.removeAll(keepingCapacity: batch.count <= Self.copiedBatchMax)
  }

  /// Everything for the disk since the last turn as one batch.
  private mutating func orderStorage() {
    guard !operations.isEmpty else { return }
    let ticket = StoreTicket(number: nextTicket)
    nextTicket += 1
    stores.append(
      PendingStore(
        ticket: ticket, bytes: pendingBytes, hardState: pendingHardState, last: pendingLast,
        isVoteRestored: isVoteRestoring))
    isVoteRestoring = false
    pendingBytes = 0
    outputs.append(.store(ticket, operations))
    operations = []
    pendingHardState = nil
    pendingLast = nil
  }

  /// A storage batch is durable.
  package mutating func stored(_ ticket: StoreTicket, now: MonotonicTime) {
    guard let pending = stores.popFirst(), pending.ticket == ticket else {
      invariant(false, "storage batch \(ticket.number) reported out of order")
      return
    }
    unstoredBytes -= pending.bytes
    if let hardState = pending.hardState {
      consensus.hardStatePersisted(hardState, now: now, into: &consensusOutputs)
      maybeFound(now: now)
    }
    if pending.isVoteRestored { consensus.restoredVoteStored() }
    if let last = pending.last {
      consensus.logPersisted(through: last, now: now, into: &consensusOutputs)
      persisted = consensus.persisted
    }
    carryOutConsensus(now: now)
  }
}
