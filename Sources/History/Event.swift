// One event of a history, as the reader keeps it: fixed size, strings by number, so that ten million
// of them fit in memory and are walked without touching the allocator.

/// What an event is about: the `f` of a client's operation, or the nemesis.
package enum HistoryAction: UInt8, CaseIterable, Sendable {
  case declare, publish, deliver, ack, nack, reject, release, extend, cancel, reschedule, purge,
    redrive, drain
  /// Any event of the process `nemesis`; `f` is then the fault's name.
  case nemesis

  /// As files have it; eight bytes at most, by which readers tell them apart.
  package var name: String {
    switch self {
    case .declare: "declare"
    case .publish: "publish"
    case .deliver: "deliver"
    case .ack: "ack"
    case .nack: "nack"
    case .reject: "reject"
    case .release: "release"
    case .extend: "extend"
    case .cancel: "cancel"
    case .reschedule: "retime"
    case .purge: "purge"
    case .redrive: "redrive"
    case .drain: "drain"
    case .nemesis: "nemesis"
    }
  }

  /// Whether it is asked for by who holds a message, about what it holds.
  var isSettlement: Bool {
    switch self {
    case .ack, .nack, .reject, .release, .extend: true
    default: false
    }
  }

  /// Whether an operation of this kind is about one message, so that `value` must be there.
  var needsValue: Bool {
    switch self {
    case .publish, .deliver, .ack, .nack, .reject, .release, .extend, .cancel, .reschedule: true
    case .declare, .purge, .redrive, .drain, .nemesis: false
    }
  }
}

/// How an operation stands: begun, or completed with a known or an unknown outcome.
package enum HistoryEventType: UInt8, CaseIterable, Sendable {
  case invoke, ok, fail, info

  package var name: String {
    switch self {
    case .invoke: "invoke"
    case .ok: "ok"
    case .fail: "fail"
    case .info: "info"
    }
  }
}

/// The place of an event in its history, from 0: events are compared by it, since equal times are
/// allowed.
typealias EventPosition = UInt32

/// Marks what an event does not have.
enum Absent {
  static let number = UInt64.max
  static let reference = UInt32.max
}

struct Event {
  /// The event's own number in the file.
  var index: UInt64
  /// Nanoseconds on the recorder's clock.
  var time: UInt64
  /// Fencing token of a delivery or of what settles it, else `Absent.number`.
  var token: UInt64
  /// Nanoseconds: the delay of a publish, nack or reschedule, the lease of a delivery or extension; of
  /// the nemesis, the timeout of a session.
  var span: UInt64
  /// Nanoseconds: time to live of a publish; on the machine's clock, when a lease began.
  var moment: UInt64
  /// What it is about: a message, or the queue itself where no value is named.
  var message: UInt32
  var process: UInt32
  /// The server's id of the stored copy; of the nemesis, the fault's name.
  var id: UInt32
  /// The completion of an invoke and the invoke of a completion. While an operation is open, the
  /// next open one of the same message.
  var partner: EventPosition
  /// The next event of the same message.
  var next: EventPosition
  /// Ordering key of a publish.
  var key: UInt32
  /// Attempt of a delivery, priority of a publish.
  var level: UInt32
  var action: HistoryAction
  var type: HistoryEventType
  var marks: Marks

  struct Marks: OptionSet {
    var rawValue: UInt8
    /// An invoke whose completion has not come (yet).
    static let open = Marks(rawValue: 1)
    /// The first time that a message came out, in its turn: must be in order.
    static let orderedDelivery = Marks(rawValue: 2)
    /// A delivery that stands for a dequeue in the EDN export.
    static let dequeue = Marks(rawValue: 4)
    /// The invoke of a publish that is the enqueue in the EDN export, and its confirm.
    static let enqueue = Marks(rawValue: 8)
    /// A settlement that failed since the cluster no longer took its process for the holder.
    static let stale = Marks(rawValue: 16)
  }
}

/// A message of a queue, judged on its own; or, without a value, the queue itself.
struct MessageRecord {
  var queue: UInt32
  /// `Absent.reference` for the queue itself.
  var value: UInt32
  /// Its events, chained by `Event.next`.
  var firstEvent: EventPosition
  var lastEvent: EventPosition
  /// Its operations that have no completion yet, chained by `Event.partner`, oldest first.
  var firstOpen: EventPosition = Absent.reference
  var lastOpen: EventPosition = Absent.reference
  /// The publish that orders its first delivery, if it takes part in that.
  var orderingPublish: EventPosition = Absent.reference
}

/// What a queue was declared with, as far as the checker needs it. Durations in nanoseconds.
package struct HistoryQueueSettings: Equatable, Sendable {
  package var deadLetter: String?
  package var retryDelay: UInt64?
  package var retryMax: UInt64?
  /// The part of a retry delay that chance may take away, in billionths.
  package var retryJitterBillionths: UInt64?
  package var maxDeliveries: UInt64?
  package var lease: UInt64?
  package var priorities: UInt64?
  package var keyed: UInt64?
  /// Time to live of all its messages.
  package var timeToLive: UInt64?

  package init(
    deadLetter: String? = nil, retryDelay: UInt64? = nil, retryMax: UInt64? = nil,
    retryJitterBillionths: UInt64? = nil, maxDeliveries: UInt64? = nil, lease: UInt64? = nil,
    priorities: UInt64? = nil, keyed: UInt64? = nil, timeToLive: UInt64? = nil
  ) {
    self.deadLetter = deadLetter
    self.retryDelay = retryDelay
    self.retryMax = retryMax
    self.retryJitterBillionths = retryJitterBillionths
    self.maxDeliveries = maxDeliveries
    self.lease = lease
    self.priorities = priorities
    self.keyed = keyed
    self.timeToLive = timeToLive
  }
}
