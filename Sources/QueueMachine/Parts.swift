// The parts of the state: queues, sessions, consumers, and the rare notes on single messages.
// Fields that say "slot" are handles into the machine's `SlotTable`s.

import Base

/// What is kept about a message beyond its 16 bytes: only for those that failed, were moved, or
/// have a time to live.
struct MessageNote: Sendable {
  /// Failed deliveries in this queue.
  var attempts: UInt32 = 0
  /// The entry in which the record lies, where that is not the entry of the id; else 0.
  var recordEntry = LogIndex.zero
  /// When it is too old, if it ever is.
  var expires = MachineTime.never
  /// The hash of its key, where it came from a queue with keys; else 0.
  var key: UInt64 = 0
  /// Behind a reference, since most notes are without one.
  private var box: StoryBox?

  private final class StoryBox: Sendable {
    let story: MessageStory
    init(_ story: MessageStory) { self.story = story }
  }

  /// What is counted of the headers and keys that are kept of the message.
  var keptBytes: Int { box?.story.keptBytes ?? 0 }

  var story: MessageStory? {
    get { box?.story }
    set { box = newValue.map(StoryBox.init) }
  }
}

/// What happened to a message that did not simply go through.
struct MessageStory: Hashable, Sendable {
  /// Of the last failed delivery in this queue; empty for none.
  var lastError = ""
  /// When the first delivery that failed in this queue began; `never` for none.
  var firstTry = MachineTime.never
  /// The last `FixedLimits.eventsPerMessage`, in order.
  var events: [MessageEvent] = []
  /// Events before these.
  var eventsForgotten: UInt32 = 0
  var deadLetter: DeadLetterNote?
  /// How it came to its queue, if not by its name.
  var address: MessageAddress?
  /// By dead-letter exchanges, at most `deathsMax`, the latest first.
  var deaths: [MessageDeath] = []
  /// Under which it was known before its moves, the last `FixedLimits.formerIDsPerMessage`.
  var formerIDs: [MessageID] = []

  mutating func addFormerID(_ id: MessageID) {
    if formerIDs.count == FixedLimits.formerIDsPerMessage { formerIDs.removeFirst() }
    formerIDs.append(id)
  }

  mutating func add(_ event: MessageEvent) {
    if events.count == FixedLimits.eventsPerMessage {
      events.removeFirst()
      eventsForgotten += 1
    }
    events.append(event)
  }
}

struct QueueState: Sendable {
  var id = QueueID(0)
  var name = ""
  var settings = QueueSettings()
  /// -1 without a dead-letter queue.
  var deadLetterSlot = -1
  /// How many queues have this one as their dead-letter queue.
  var deadLetterUsers = 0

  var ready = ReadyQueue()
  /// Only of a queue with keys.
  var keys = KeyTable()
  /// What waits for its time.
  var delayed = IndexedHeap<DelayedMessage>()
  /// By message id, for ready, delayed and leased messages.
  var notes = IntegerMap<MessageNote>()
  /// By message id: when those with a time to live are too old. Of a message that is held when its
  /// time comes the entry goes; it expires when it comes back.
  var expiries = DeadlineHeap()
  /// A message was moved here above the limits: the oldest are to go.
  var needsTrim = false
  /// Slots of exactly the consumers that could take a message: subscribed, their session attached,
  /// credit left; where only one may be active, no more than that one. The first is next.
  var rotation = Rotations()
  /// Where only one consumer may be active, the serial of that one; 0 while there is none. It stays
  /// active until it is gone, ended ones until they hold nothing any more.
  var activeConsumer: UInt64 = 0
  /// The others that are subscribed.
  var candidates = IndexedHeap<ActiveCandidate>()
  /// The serial of the consumer that has the queue for itself; 0 for none.
  var exclusiveConsumer: UInt64 = 0
  /// When it was declared, or lost its last consumer, or its last queue that names it.
  var lastUse = MachineTime.zero
  /// Has to be looked at for assignment before the command ends.
  var isDirty = false
  /// The token of the next delivery.
  var nextToken: UInt64 = 1

  var leased: UInt64 = 0
  /// Those that are subscribed.
  var consumers: UInt32 = 0
  /// The slot of one of all that there are, ended ones included; the others follow it by
  /// `ConsumerState.nextOfQueue`, in no order that means anything.
  var firstConsumer = ConsumerState.noSlot
  /// Of the records of what is ready, delayed and leased.
  var bytes: UInt64 = 0
  /// Of the headers and further keys that are kept of its messages.
  var headerBytes = 0
  /// The part of `bytes` that is leased.
  var leasedBytes: UInt64 = 0
  var published: UInt64 = 0
  var delivered: UInt64 = 0
  var acknowledged: UInt64 = 0
  var redelivered: UInt64 = 0
  var deadLettered: UInt64 = 0
  /// Failed for good, expired or overflowed where there is no dead-letter queue.
  var dropped: UInt64 = 0

  /// Where the record of a message of this queue lies.
  @inline(__always)
  func reference(of message: Waiting) -> RecordReference {
    Self.reference(of: message, notes)
  }

  /// As the other one; `notes` are the queue's.
  @inline(__always)
  static func reference(
    of message: Waiting, _ notes: IntegerMap<MessageNote>
  ) -> RecordReference {
    message.has(Waiting.hasNote) ? movedReference(of: message, notes) : message.ownReference
  }

  // Static, so that the hot path around them does not copy the whole queue for the call.

  @inline(never)
  private static func movedReference(
    of message: Waiting, _ notes: IntegerMap<MessageNote>
  ) -> RecordReference {
    var reference = message.ownReference
    if let entry = notes[message.id.rawValue]?.recordEntry, entry != .zero {
      reference.entry = entry
    }
    return reference
  }

  /// Failed deliveries so far.
  @inline(__always)
  func attempts(of message: Waiting) -> UInt32 {
    message.has(Waiting.hasNote) ? Self.attempts(of: message, notes) : 0
  }

  @inline(never)
  private static func attempts(
    of message: Waiting, _ notes: IntegerMap<MessageNote>
  ) -> UInt32 {
    notes[message.id.rawValue]?.attempts ?? 0
  }
}

// What waits, and what is kept about single messages.
extension QueueState {
  /// Messages that wait, ready or delayed: what the length limit counts.
  var waitingCount: UInt64 { UInt64(ready.count + delayed.count + keys.blockedCount) }

  /// Whether messages can be taken as they come, as long as their records ask for nothing.
  var isPlain: Bool {
    settings.timeToLive == .zero && settings.priorities == 1 && settings.keyLimit == 0
  }

  var hasLimit: Bool { settings.lengthMax > 0 || settings.bytesMax > 0 }

  /// Whether one more message of `size` bytes would be too much.
  func isFull(for size: UInt64) -> Bool { isFull(for: size, count: 1) }

  /// The same of `count` messages of `size` bytes together.
  func isFull(for size: UInt64, count: UInt64) -> Bool {
    isOver(waitingCount + count, bytes - leasedBytes + size)
  }

  var isOverfull: Bool { isOver(waitingCount, bytes - leasedBytes) }

  private func isOver(_ count: UInt64, _ bytes: UInt64) -> Bool {
    settings.lengthMax > 0 && count > settings.lengthMax
      || settings.bytesMax > 0 && bytes > settings.bytesMax
  }

  /// Whether somebody consumes from it, or another queue names it.
  @inline(__always)
  var isUsed: Bool { consumers > 0 || leased > 0 || deadLetterUsers > 0 }

  /// When it goes if nobody uses it until then.
  @inline(__always)
  var expiry: MachineTime {
    settings.expires == .zero || isUsed ? .never : lastUse + settings.expires
  }

  /// When something of this queue falls due. Inlined, so that the queue is not copied for a call.
  @inline(__always)
  func deadline(at clock: MachineTime) -> MachineTime {
    let expiry = expiry
    if delayed.isEmpty, expiries.isEmpty, !needsTrim { return expiry }
    let first = min(expiry, delayed.first?.due ?? .never, expiries.first?.time ?? .never)
    return needsTrim ? min(first, clock) : first
  }

  /// Changes the message's note, which it gets if it has none.
  mutating func note(_ message: inout Waiting, _ change: (inout MessageNote) -> Void) {
    let key = message.id.rawValue
    if message.has(Waiting.hasNote), notes.update(key, change) != nil { return }
    var note = MessageNote()
    change(&note)
    notes.insert(note, for: key)
    message.set(Waiting.hasNote)
  }

  /// Removes what is kept about a message that leaves the queue for good; where it was out, the
  /// next of its key is ready then. Called by `MachineState.leave`, which counts its headers.
  @discardableResult
  @inline(never)
  mutating func leave(_ message: Waiting, isOut: Bool) -> MessageNote? {
    let note = removeNote(of: message)
    if message.has(Waiting.hasKey) {
      if isOut { giveUpPlace(of: message) }
      keys.forget(message.id)
    }
    return note
  }

  /// Removes what is kept about a message that leaves the queue.
  private mutating func removeNote(of message: Waiting) -> MessageNote? {
    guard message.has(Waiting.hasNote) else { return nil }
    expiries.remove(message.id.rawValue)
    return notes.remove(message.id.rawValue)
  }

  func story(of message: Waiting) -> MessageStory? {
    message.has(Waiting.hasNote) ? notes[message.id.rawValue]?.story : nil
  }

  func expires(_ message: Waiting) -> MachineTime {
    message.has(Waiting.hasNote) ? notes[message.id.rawValue]?.expires ?? .never : .never
  }

  /// Takes out a message that waits; nil if none with this id does. `isOut` is what `leave` has to
  /// know of it.
  mutating func removeWaiting(_ id: MessageID) -> (message: Waiting, isOut: Bool)? {
    if id.rawValue == 0 { return nil }
    if let message = delayed.remove(id.rawValue)?.message {
      return (message, message.has(Waiting.wasDelivered))
    }
    if let message = ready.remove(id) { return (message, true) }
    return keys.removeBlocked(id).map { ($0, false) }
  }

  /// Whether a message with this id, not 0, waits.
  func isWaiting(_ id: MessageID) -> Bool {
    delayed[id.rawValue] != nil || ready.message(id) != nil || keys.blocked(id) != nil
  }

  /// Takes out the oldest message; where none is ready, the delayed one that is due first.
  mutating func popOldest() -> Waiting? { ready.popOldest() ?? delayed.popFirst()?.message }

  /// Takes a new message in whose record or queue asks for more than a place in the line.
  ///
  /// - Parameter record: begins with the message's record.
  @inline(never)
  mutating func admit(_ message: Waiting, record: UnsafeRawBufferPointer, at clock: MachineTime) {
    var message = message
    if settings.priorities > 1 {
      message.set(priority: Int(MessageRecord.priority(in: record, at: 0)))
    }
    let wishes = RecordWishes(record, size: Int(message.size))
    let span = min(
      settings.timeToLive == .zero ? .longest : settings.timeToLive,
      wishes.timeToLive ?? .longest)
    if span != .longest {
      let expires = clock + span
      note(&message) { $0.expires = expires }
      expiries.set(message.id.rawValue, to: expires)
    }
    if settings.keyLimit > 0, wishes.key != 0 {
      message.set(Waiting.hasKey)
      keys.add(message.id, key: wishes.key)
    }
    if let delay = wishes.delay, delay > .zero {
      delayed.set(DelayedMessage(due: clock + delay, message: message))
    } else {
      join(message)
    }
  }
}

extension Nanoseconds {
  /// No time to live.
  fileprivate static var longest: Nanoseconds { Nanoseconds(rawValue: .max) }
}

/// What a record asks for besides being stored.
private struct RecordWishes {
  var delay: Nanoseconds?
  var timeToLive: Nanoseconds?
  /// The hash of its key; 0 if it has none.
  var key: UInt64 = 0

  /// - Parameter record: begins with a record that passed `Publish.isWhole`.
  init(_ record: UnsafeRawBufferPointer, size: Int) {
    let flags = MessageRecord.flags(in: record, at: 0)
    var offset = MessageRecord.fixedBytes
    func span(_ flag: UInt8) -> Nanoseconds? {
      guard flags & flag != 0 else { return nil }
      invariant(offset + 8 <= size && size <= record.count, "record of \(size) bytes")
      // SAFETY: the line above.
      let span = record.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      offset += 8
      return Nanoseconds(rawValue: UInt64(littleEndian: span))
    }
    delay = span(MessageRecord.delayFlag)
    timeToLive = span(MessageRecord.timeToLiveFlag)
    // SAFETY: `Publish.isWhole` has seen that the key lies within the record.
    let count = Int(UInt16(littleEndian: record.loadUnaligned(fromByteOffset: 8, as: UInt16.self)))
    invariant(offset + count <= size && size <= record.count, "key of \(count) bytes")
    if count > 0 { key = KeyTable.hash(record[offset..<offset + count]) }
  }
}

struct ConsumerState: Sendable {
  /// Unique for the life of the cluster, grows: the order among consumers where one is needed.
  var serial: UInt64 = 0
  var id = ConsumerID(0)
  var session = SessionID.none
  var sessionSlot = 0
  var queueSlot = 0
  /// Its neighbours among the consumers of its queue.
  var nextOfQueue = ConsumerState.noSlot
  var previousOfQueue = ConsumerState.noSlot
  /// The most messages it may hold, 0...65,535; 0 pauses it.
  var credit: UInt32 = 1
  /// Those of a lower priority get what this one has no credit for.
  var priority: Int16 = 0
  var held = HeldDeliveries()
  var nextDelivery: UInt64 = 1
  /// No lease of it ends before this; the same as in the machine's heap of deadlines.
  var deadline = MachineTime.never
  /// False once it was ended and only what it holds keeps it.
  var isSubscribed = true
  /// Its part of its session's `holdsAtMost`.
  var counted = 0
  /// Where it stands in its queue's rotation; `Rotation.none` if it does not.
  var rotationPlace = Rotation.none

  static let noSlot = -1

  var isInRotation: Bool { rotationPlace != Rotation.none }
  /// What it may hold at once from now on.
  var holdsAtMost: Int { max(isSubscribed ? Int(credit) : 0, held.count) }
  var creditLeft: Int { max(0, Int(credit) - held.count) }
}

/// A part of a settle or extend that had no effect.
struct SettleRefusal: Hashable, Sendable {
  var sequence: CommandSequence
  var consumer: ConsumerID
  var range: DeliveryRange
  var refusal: Refusal
}

struct SessionState: Sendable {
  struct Member: Hashable, Sendable {
    var id: ConsumerID
    var slot: Int
  }

  var id = SessionID.none
  var name = ""
  var kind = SessionKind.native
  /// nil while detached.
  var origin: SessionOrigin?
  /// The node that it was last attached through.
  var node = NodeID(0)
  var producer = ProducerID(0)
  var timeout = Nanoseconds.zero
  /// When it ends if it stays detached; `never` while attached.
  var deadline = MachineTime.never
  /// The last settle or extend carried out.
  var settled = CommandSequence.zero
  /// Refusals that the client has not said to have seen, by sequence.
  var refusals = RingBuffer<SettleRefusal>()
  /// By consumer id.
  var consumers: [Member] = []
  /// What they may hold together from now on.
  var holdsAtMost = 0

  /// Where the consumer is or would be in `consumers`.
  func place(of consumer: ConsumerID) -> (place: Int, found: Bool) {
    var low = 0
    var high = consumers.count
    while low < high {
      let middle = (low + high) / 2
      if consumers[middle].id < consumer { low = middle + 1 } else { high = middle }
    }
    return (low, low < consumers.count && consumers[low].id == consumer)
  }

  func slot(of consumer: ConsumerID) -> Int? {
    let (place, found) = place(of: consumer)
    return found ? consumers[place].slot : nil
  }
}
