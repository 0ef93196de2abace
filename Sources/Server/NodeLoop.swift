// One node: the event loop that owns everything and carries out what the replica asks for. It
// decides nothing about consensus or queues; it moves bytes between sockets, disk and `Replica`.
//
// A turn: wait, take events (peers, clients, finished jobs), let the replica finish its turn, carry
// out its outputs, send what is queued. Threads share only mailboxes (DESIGN section 6).

import Base
import Consensus
import LogStore
import Node
import QueueMachine
import Transport
import Wire

/// What other threads tell the loop.
enum LoopMessage: Sendable {
  case written(WriteJob, StorageFailure?)
  /// A background job is done; the closure continues it on the loop.
  case background(BackgroundResult)
  /// As SIGTERM.
  case stop
  /// As SIGKILL, for a node that shares its process with others.
  case kill
}

/// What a job on another thread than the loop's and the storage thread came to.
enum BackgroundResult: Sendable {
  case upkeep(UpkeepJob)
  case snapshotWritten(SnapshotWriter, SnapshotRequest, StorageFailure?)
  case cleaned(CleaningJob, StorageFailure?)
  case repaired(RepairJob, StorageFailure?)
  case sourceReady(SnapshotPlan, SnapshotSource, LogReadError?)
  case received(SnapshotReceiver, SnapshotChunk, SnapshotStreamError?)
  case entriesRead(EntryRead, EntryReadJob)
  /// The address behind a peer's host name.
  case resolved(String, Result<SocketAddress, AddressError>)
}

struct NodeLoop: ~Copyable {
  /// Where the node stands. Only a running one takes part.
  enum Phase {
    case running
    /// Leadership is being handed over and clients are answered, until the deadline.
    case stopping(deadline: MonotonicTime)
    /// It takes no part any more but tells why (G12, G14).
    case halted(String)
    case ended(exitCode: Int32)
  }

  static let mailboxToken: UInt64 = 1
  static let signalToken: UInt64 = 2

  let configuration: ServerConfiguration
  let log: NodeLog
  let poller: Poller
  let mailbox: Mailbox<LoopMessage>
  /// nil for a node that shares its process with others.
  let signals: SignalSource?
  let store: LogStore
  let storageThread: JobThread
  let backgroundThread: JobThread
  /// Reads what followers lack.
  let readerThread: JobThread
  let resolverThread: JobThread
  let started: MonotonicTime

  var replica: Replica
  var gateway: ClientGateway
  var amqp: AMQPGateway
  var desk = RelayDesk()
  var peers: PeerLinks
  /// Room for what is asked for in every turn.
  var peerEvents = RingBuffer<PeerEvent>()
  var peersWithRoom: [NodeID] = []
  var records: RecordSource
  var isAMQPFirst = false
  var storage = StorageQueue()
  /// What the replica orders in this turn; empty between two.
  var outputs = RingBuffer<ReplicaOutput>()
  var phase = Phase.running
  var problems = NodeProblems()
  var pendingChanges: [PendingChange] = []

  // Snapshot streams.
  var sources: [NodeID: SnapshotSource] = [:]
  /// When a source that nobody asks of is released: it keeps segments from being removed.
  var sourceDeadlines: [NodeID: MonotonicTime] = [:]
  var sourcesInPreparation: Set<NodeID> = []
  /// Streams that could not be read, with the time when consensus may ask again.
  var failedStreams: [(plan: SnapshotPlan, reason: String, retryAt: MonotonicTime)] = []
  var receiver: SnapshotReceiver?
  /// The receiver is being checked on the background thread, or written.
  var isReceiverBusy = false
  var isUpkeepRunning = false
  var upkeepPauseEnd = MonotonicTime(0)
  /// When the disk was last told what is synced although nothing new was written.
  var markerDeadline = MonotonicTime.never
  /// When the disk's free space is looked at again, if anything is written then.
  var spaceDeadline = MonotonicTime(0)
  var reliefDeadline = MonotonicTime(0)
  /// Size of the last snapshot if it was given up for want of room: until it fits nothing is published.
  var snapshotWantedBytes: UInt64 = 0

  /// Runs until the node ends; the exit code of the process.
  mutating func run() -> Int32 {
    var events: [PollEvent] = []
    var messages: [LoopMessage] = []
    var hasMore = false
    while true {
      let timeout = hasMore ? .zero : sleepTime(MonotonicClock.now())
      poller.wait(timeout: timeout, into: &events)
      // Read anew for each event, and once more for the turn: an entry must not be stamped with a
      // time before its messages were read, or what is delayed would come early (G9).
      for event in events { handle(event, now: MonotonicClock.now()) }
      mailbox.takeAwake(into: &messages)
      let now = MonotonicClock.now()
      for message in messages { handle(message, now: now) }
      hasMore = turn(now: now)
      if case .ended(let exitCode) = phase { return exitCode }
    }
  }

  /// How long nothing will need the loop unless something happens.
  private func sleepTime(_ now: MonotonicTime) -> Nanoseconds {
    guard mailbox.maySleep() else { return .zero }
    var deadline = min(
      gateway.nextDeadline, peers.nextDeadline, markerDeadline,
      min(amqp.nextDeadline, relayDeadline))
    for failed in failedStreams { deadline = min(deadline, failed.retryAt) }
    switch phase {
    case .running: deadline = min(deadline, replica.nextDeadline(now: now))
    case .stopping(let end): deadline = min(deadline, end, replica.nextDeadline(now: now))
    case .halted, .ended: break
    }
    return deadline.since(now)
  }

  private mutating func handle(_ event: PollEvent, now: MonotonicTime) {
    if event.token == Self.mailboxToken { return }  // Its messages are taken every turn.
    if event.token == Self.signalToken {
      while let signal = signals?.next() {
        log.info("signal \(signal): stopping")
        beginStopping(now: now)
      }
    } else if PeerLinks.owns(event.token) {
      if peers.isDialling(event.token) {
        peers.handle(event, now: now, introduction: replica.introduction)
      } else {
        peers.handle(event, now: now, introduction: nil)
      }
    } else if AMQPGateway.owns(event.token) {
      amqp.handle(event, now: now, replica: &replica)
    } else {
      gateway.handle(event, now: now, replica: &replica)
    }
  }

  /// One turn after the events were taken. True if there is more to do at once.
  private mutating func turn(now: MonotonicTime) -> Bool {
    records.beginTurn()
    isAMQPFirst.toggle()
    takePeerEvents(now: now)
    peers.tick(now: now)
    for text in peers.takeUnresolved(now: now) { resolve(text) }
    gateway.tick(now: now, replica: &replica)
    amqp.tick(now: now, replica: &replica)
    if isTakingPart {
      replica.tick(now: now)
      answerRequests(now: now)
      carryOutReplica(now: now)
      writeMarkerIfIdle(now: now)
      releaseIdleSources(now: now)
      if gateway.noSpace != nil { checkSpace(now: now) }
    } else {
      answerRequests(now: now)
    }
    flush(now: now)
    let hasWritten = startStorage(now: now)
    if hasWritten, isTakingPart, replica.hasMore || isRoomAwaited {
      // What was written here is acknowledged before anything else is looked for.
      carryOutReplica(now: now)
      flush(now: now)
    }
    continueStopping(now: now)
    if peers.hasEvents { return true }
    guard isTakingPart else { return false }
    // What was written may have committed a change.
    return replica.hasMore || records.isSpent || storage.mayGoOn || gateway.hasRequests
      || (hasWritten && !pendingChanges.isEmpty)
  }

  /// Whether somebody waits for room in the replica, which what was written may have made.
  private var isRoomAwaited: Bool {
    hasToPassOn || !gateway.paused.isEmpty || !amqp.paused.isEmpty
  }

  /// Sends what is queued for clients and peers.
  private mutating func flush(now: MonotonicTime) {
    // Both read from one share: who comes first changes from turn to turn.
    if isAMQPFirst { amqp.pumpDeliveries(records: &records, replica: &replica, now: now) }
    gateway.pumpDeliveries(records: &records, replica: &replica, now: now)
    if !isAMQPFirst { amqp.pumpDeliveries(records: &records, replica: &replica, now: now) }
    gateway.flush(now: now)
    amqp.flush(now: now)
    peers.flush(now: now)
  }

  var isTakingPart: Bool {
    switch phase {
    case .running, .stopping: true
    case .halted, .ended: false
    }
  }

  /// Lets the replica finish its turn and does what it asks, until nothing comes of that at once:
  /// reading the log back, for example, gives it more to apply.
  private mutating func carryOutReplica(now: MonotonicTime) {
    for _ in 0..<8 {
      passOn(now: now)
      // Only a leader asks.
      if replica.isLeader { peers.listWithRoom(into: &peersWithRoom) }
      let ready = peersWithRoom
      replica.finishTurn(now: now, into: &outputs, hasRoom: { ready.contains($0) })
      amqp.carryOutEffects(of: &replica, records: &records, now: now)
      gateway.carryOutEffects(of: &replica, now: now)
      var goesOn = hasToPassOn || gateway.needsTurn
      if outputs.isEmpty { return }
      // Each is taken out, so that none is copied.
      while isTakingPart, let output = outputs.popFirst() {
        goesOn = goesOn || output.isAnsweredAtOnce
        carryOut(output, now: now)
      }
      if !outputs.isEmpty { outputs.removeAll() }
      if !goesOn || !isTakingPart { return }
    }
  }

  /// Asks the resolver, which may take long, on a thread of its own.
  private func resolve(_ text: String) {
    let mailbox = mailbox
    resolverThread.post {
      let found: Result<SocketAddress, AddressError>
      do throws(AddressError) {
        // There is at least one.
        found = .success(try SocketAddress.resolve(text)[0])
      } catch {
        found = .failure(error)
      }
      mailbox.post(.background(.resolved(text, found)))
    }
  }

  private mutating func takePeerEvents(now: MonotonicTime) {
    guard peers.hasEvents else { return }
    peers.takeEvents(into: &peerEvents)
    // Each is taken out, so that none is copied, and none stays until the next ones come.
    while isTakingPart, let event = peerEvents.popFirst() { take(event, now: now) }
    if !peerEvents.isEmpty { peerEvents.removeAll() }
  }

  private mutating func take(_ event: consuming PeerEvent, now: MonotonicTime) {
    switch consume event {
    case .connected(let node):
      replica.peerConnected(node, now: now)
      noteConnection(node, isThere: true, now: now)
    case .disconnected(let node):
      releaseSource(of: node)
      replica.peerDisconnected(node, now: now)
    case .received(let envelope, let node):
      if takeRelayed(envelope, from: node, now: now) { return }
      replica.receive(envelope, from: node, now: now)
    }
  }

  // MARK: The replica's orders

  private mutating func carryOut(_ output: consuming ReplicaOutput, now: MonotonicTime) {
    switch consume output {
    case .store(let ticket, let operations):
      storage.add(operations, for: ticket)
    case .send(let peer, let envelope):
      peers.send(envelope, to: peer)
    case .read(let read):
      carryOut(read)
    case .leaderChanged(let leader, let term):
      discardReceiver()
      if let leader, leader != configuration.node {
        log.info("follows node \(leader) in term \(term)")
      }
    case .roleChanged(let isLeader, let term):
      log.info(isLeader ? "leads term \(term)" : "does not lead in term \(term)")
    case .membershipChanged(let membership):
      log.info("members: \(membership.members.map { "\($0.id)" }.joined(separator: ", "))")
      peers.setMembers(membership, now: now)
      gateway.membershipChanged(in: replica)
    case .takeSnapshot(let request):
      writeSnapshot(request)
    case .readSnapshot(let plan):
      readSnapshot(plan, now: now)
    case .storeSnapshotChunk(let chunk, let bytes):
      storeSnapshotChunk(chunk, bytes, now: now)
    case .readReady(let ticket):
      readIsReady(ticket, now: now)
    case .readFailed(let ticket):
      readFailed(ticket)
    case .lookUpRecords(let peer, let references):
      lookUpRecords(references, for: peer, now: now)
    case .repair(let ranges, let references, let bodies):
      repair(ranges, references, bodies)
    case .memoryLost:
      store.memoryWasLost()
      storage.add([])
    case .memoryRestored:
      store.memoryIsRestored()
      problems.memoryIsRestored(isLogWhole: replica.consensus.hardState.floor == .zero)
      storage.add([])
    case .logMended:
      log.info("the log again holds all that this node ever acknowledged")
      problems.logIsMended()
    case .note(let text):
      log.info(text)
    case .stop(let reason):
      halt("\(reason)", now: now)
    }
  }
}

extension ReplicaOutput {
  /// Whether carrying it out may give the replica something to do before anything else happens.
  fileprivate var isAnsweredAtOnce: Bool {
    switch self {
    case .store, .send: false
    default: true
    }
  }
}
