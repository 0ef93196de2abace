// The parts of the state: queues, sessions, consumers, and the rare notes on single messages.
// Fields that say "slot" are handles into the machine's `SlotTable`s.

import Base

/// What is kept about a message beyond its 16 bytes: only for those that failed or were moved.
struct MessageNote: Hashable, Sendable {
  /// Failed deliveries in this queue.
  var attempts: UInt32 = 0
  /// The entry in which the record lies, where that is not the entry of the id; else 0.
  var recordEntry = LogIndex.zero
  /// Of the last failed delivery in this queue.
  var lastError = ""
  var deadLetter: DeadLetterNote?
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
  /// By message id, for ready and leased messages.
  var notes = IntegerMap<MessageNote>()
  /// Slots of exactly the consumers that could take a message: subscribed, their session attached,
  /// credit left. The first is next.
  var rotation = Rotation()
  /// Has to be looked at for assignment before the command ends.
  var isDirty = false
  /// The token of the next delivery.
  var nextToken: UInt64 = 1

  var leased: UInt64 = 0
  var consumers: UInt32 = 0
  /// Of the records of what is ready and leased.
  var bytes: UInt64 = 0
  var published: UInt64 = 0
  var delivered: UInt64 = 0
  var acknowledged: UInt64 = 0
  var redelivered: UInt64 = 0
  var deadLettered: UInt64 = 0
  /// Failed for good where there is no dead-letter queue.
  var dropped: UInt64 = 0

  /// Where the record of a message of this queue lies.
  @inline(__always)
  func reference(of message: Waiting) -> RecordReference {
    message.has(Waiting.hasNote) ? movedReference(of: message) : message.ownReference
  }

  private func movedReference(of message: Waiting) -> RecordReference {
    var reference = message.ownReference
    if let entry = notes[message.id.rawValue]?.recordEntry, entry != .zero {
      reference.entry = entry
    }
    return reference
  }

  /// Failed deliveries so far.
  @inline(__always)
  func attempts(of message: Waiting) -> UInt32 {
    message.has(Waiting.hasNote) ? notes[message.id.rawValue]?.attempts ?? 0 : 0
  }
}

struct ConsumerState: Sendable {
  /// Unique for the life of the cluster, grows: the order among consumers where one is needed.
  var serial: UInt64 = 0
  var id = ConsumerID(0)
  var session = SessionID.none
  var sessionSlot = 0
  var queueSlot = 0
  /// The most messages it may hold, 0...65,535; 0 pauses it.
  var credit: UInt32 = 1
  var held = HeldDeliveries()
  var nextDelivery: UInt64 = 1
  /// No lease of it ends before this; the same as in the machine's heap of deadlines.
  var deadline = MachineTime.never
  /// False once it was ended and only what it holds keeps it.
  var isSubscribed = true
  /// Where it stands in its queue's rotation; `Rotation.none` if it does not.
  var rotationPlace = Rotation.none

  var isInRotation: Bool { rotationPlace != Rotation.none }
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
