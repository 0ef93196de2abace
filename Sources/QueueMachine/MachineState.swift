// The whole replicated state and how an entry is applied to it. The parts of `apply` are in the
// extensions named by topic.

import Base

/// What a session had of one entry so far.
struct SessionShare: Sendable {
  /// Looks of orders that are not little ones (`MachineLimits.looksPerSession`).
  var looks = 0
  /// Refusals that it may be told again; nil while none was.
  var refusalsLeft: Int?
}

struct MachineState: Sendable {
  let limits: MachineLimits
  /// The largest stamp so far; never goes back.
  var clock = MachineTime.zero
  var appliedIndex = LogIndex.zero
  var hash = StateHash()
  /// The number of the next queue; numbers are not used again.
  var nextQueue: UInt32 = 1
  /// Above the tokens of all queues that were deleted, so that those of a queue only grow even if
  /// it is deleted and declared anew (G6).
  var tokenFloor: UInt64 = 1

  var queues = SlotTable(vacant: QueueState())
  var sessions = SlotTable(vacant: SessionState())
  var consumers = SlotTable(vacant: ConsumerState())
  var producers = SlotTable(vacant: ProducerState())
  // From ids to slots.
  var queueSlots = IntegerMap<Int>()
  var queueNames: [String: Int] = [:]
  var sessionSlots = IntegerMap<Int>()
  var consumerSlots = IntegerMap<Int>()
  var producerSlots = IntegerMap<Int>()

  /// By consumer serial: no lease of that consumer ends before.
  var leaseDeadlines = DeadlineHeap()
  /// By id: nothing of that queue falls due before.
  var queueDeadlines = DeadlineHeap()
  /// By id, of detached sessions.
  var sessionDeadlines = DeadlineHeap()
  /// By id, of detached sessions that hold nothing, at their deadlines.
  var restingSessions = DeadlineHeap()
  /// Remembered by all sessions together.
  var refusalCount = 0
  /// Runs of answers of all producers without a session.
  var idleRuns = 0
  /// The same of all with one.
  var liveRuns = 0
  /// Bytes of headers and further keys that all queues' messages keep
  /// (`MachineLimits.headerBytesKept`).
  var keptHeaderBytes = 0
  /// By id, of producers without a session: since when.
  var idleProducers = DeadlineHeap()

  /// What AMQP clients know besides queues.
  var topology = Topology()

  // Within one entry only; all zero or empty between entries' bounds.
  /// Messages given an id by this entry.
  var nextOrdinal = 0
  /// Commands of this entry before the present one.
  var commandOrdinal: UInt64 = 0
  /// Messages stored by publishes of this entry.
  var publishedHere = 0
  /// Messages that this entry's nacks, rejects and releases took from consumers.
  var settledHere = 0
  /// Leases that this entry's extends set.
  var extendedHere = 0
  /// What this entry's orders looked at so far (`MachineLimits.looksPerEntry`).
  var lookedHere = 0
  /// What single sessions had of this entry. Looked up only: its order means nothing.
  var sharesHere: [SessionID: SessionShare] = [:]
  /// Of the bundle that is being carried out; nil for commands in none, or in a transaction.
  var bundlePlace: BundlePlace?
  /// Bytes of headers that the transaction being carried out keeps, as it was promised.
  var headerBytesPromised = 0
  /// Messages returned or moved because their time came, and copies of dead letters beyond the
  /// first. Above the limit once something had to wait.
  var dueWork = 0
  /// Slots of the queues whose `isDirty` is set.
  var dirtyQueues: [Int] = []
  /// Ids of the queues that go with what else ended, at the end of the command.
  var doomedQueues: [UInt32] = []

  init(limits: MachineLimits) {
    limits.check()
    self.limits = limits
  }

  var stateHash: UInt64 { hash.value }

  var nextDeadline: MachineTime {
    min(
      leaseDeadlines.first?.time ?? .never, sessionDeadlines.first?.time ?? .never,
      queueDeadlines.first?.time ?? .never)
  }

  mutating func apply(
    index: LogIndex, payload: UnsafeRawBufferPointer, effects: inout EffectList
  ) {
    invariant(index > appliedIndex, "entry \(index) applied after \(appliedIndex)")
    appliedIndex = index
    clock = max(clock, CommandBatch.stamp(of: payload))
    hash.fold(.entry, index.rawValue, clock.rawValue)
    nextOrdinal = 0
    commandOrdinal = 0
    publishedHere = 0
    settledHere = 0
    extendedHere = 0
    lookedHere = 0
    if !sharesHere.isEmpty { sharesHere.removeAll() }
    dueWork = 0
    topology.headerLooks = 0
    carryOutDue(&effects)
    assignDirty(&effects)
    do {
      var frames = try CommandFrames(payload)
      while let frame = try frames.next() {
        var reader = ByteReader(frame.fields)
        try carryOut(frame, &reader, &effects)
        assignDirty(&effects)
        commandOrdinal += 1
      }
    } catch {
      stopForBug("entry \(index) holds no commands that can be read: \(error)")
    }
  }

  mutating func carryOut(
    _ frame: CommandFrame, _ reader: inout ByteReader, _ effects: inout EffectList
  ) throws(ByteReaderError) {
    switch frame.kind {
    case .publish: publish(try Publish(&reader, at: frame.offset), &effects)
    case .refusePublish: publish(try Publish(refused: &reader), &effects)
    case .transact: transact(try Transact(&reader, at: frame.offset), &effects)
    case .settle: settle(try Settle(&reader), &effects)
    case .extend: extend(try Extend(&reader), &effects)
    case .openSession: openSession(try OpenSession(&reader), &effects)
    case .attachSession: attachSession(try AttachSession(&reader), &effects)
    case .detachSession: detachSession(try DetachSession(&reader), &effects)
    case .closeSession: closeSession(try reader.identifier(), &effects)
    case .leaderChanged: leaderChanged(to: try reader.identifier(), &effects)
    case .nodeGone: nodeGone(try reader.identifier(), &effects)
    case .declareQueue: declareQueue(try DeclareQueue(&reader), &effects)
    case .deleteQueue: deleteQueue(try NameQueue(&reader), &effects)
    case .purgeQueue: purgeQueue(try NameQueue(&reader), &effects)
    case .cancelMessage: cancelMessage(try NameMessage(&reader, hasDelay: false), &effects)
    case .rescheduleMessage: rescheduleMessage(try NameMessage(&reader, hasDelay: true), &effects)
    case .redriveQueue: redriveQueue(try RedriveQueue(&reader), &effects)
    case .subscribe: subscribe(try Subscribe(&reader, hasQueue: true), &effects)
    case .setCredit: setCredit(try Subscribe(&reader, hasQueue: false), &effects)
    case .unsubscribe: unsubscribe(try Unsubscribe(&reader), &effects)
    case .relay: try relay(try Relay(frame), &effects)
    case .commit: try commit(try Commit(frame), &effects)
    case .endNodeSessions: endNodeSessions(try reader.identifier(), &effects)
    case .loseSession: loseSession(try reader.identifier(), &effects)
    case .declareExchange, .deleteExchange, .bind, .unbind, .orderQueue, .dropQueue, .clearQueue,
      .route, .consume, .take, .mark, .addVirtualHost, .setUser:
      try carryOutTopology(frame, &reader, &effects)
    }
  }

  // Looking things up. Ids come from clients, so 0 is possible and finds nothing. Always inlined:
  // for a call the compiler copies the state around the tables, whole.

  @inline(__always)
  func slot(of session: SessionID) -> Int? {
    session.rawValue == 0 ? nil : sessionSlots[session.rawValue]
  }

  @inline(__always)
  func slot(of queue: QueueID) -> Int? {
    queue.rawValue == 0 ? nil : queueSlots[UInt64(queue.rawValue)]
  }

  @inline(__always)
  func slot(of producer: ProducerID) -> Int? {
    producer.rawValue == 0 ? nil : producerSlots[producer.rawValue]
  }

  /// The id of the next message that this entry puts into a queue.
  mutating func nextMessageID() -> MessageID {
    invariant(nextOrdinal < MessageID.perEntryMax, "too many messages in entry \(appliedIndex)")
    defer { nextOrdinal += 1 }
    return MessageID(entry: appliedIndex, ordinal: nextOrdinal)
  }

  /// A number for what the present command creates, as in `MessageID`.
  var commandNumber: UInt64 { appliedIndex.rawValue << 20 | commandOrdinal }
}

extension EffectList {
  /// Whether what concerns a session with this connection is gathered.
  @inline(__always)
  func wants(_ origin: SessionOrigin?) -> Bool {
    guard isWanted, let origin else { return false }
    return node == nil || node == origin.node
  }

  /// For what concerns a session that does not exist: whoever knows its connection.
  mutating func addForAll(_ effect: Effect) {
    if isWanted { effects.append(effect) }
  }

  mutating func add(_ effect: Effect, for origin: SessionOrigin?) {
    if wants(origin) { effects.append(effect) }
  }
}
