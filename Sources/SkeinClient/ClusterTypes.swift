// What administration asks for and shows: queues, nodes, members, messages at rest.

import Base
import Wire

/// What a queue is declared with. Two declarations are the same if all of these are.
public struct QueueOptions: Hashable, Sendable {
  public enum Overflow: Hashable, Sendable {
    /// The publisher gets `queueFull`.
    case reject
    /// The oldest message makes room; it goes to the dead-letter queue where there is one.
    case dropOldest
  }

  /// How long a consumer may hold a message before it goes back, at least 1 ms.
  public var lease: Duration = .seconds(30)
  /// After this many failed deliveries a message goes to the dead-letter queue, or is dropped
  /// where there is none; 0 is no limit.
  public var maxDeliveries: Int = 0
  /// The queue that takes what failed; empty is none.
  public var deadLetterQueue: String = ""
  /// The wait before the second delivery; it doubles with each. 0 is at once.
  public var retryDelay: Duration = .zero
  /// The longest wait between deliveries; 0 is no cap.
  public var retryDelayMax: Duration = .zero
  /// How far a wait may be shortened or lengthened by chance, 0...1.
  public var retryJitter: Double = 0
  /// Messages older than this go; 0 is never.
  public var timeToLive: Duration = .zero
  /// The most messages that may wait; 0 is no limit.
  public var maxLength: UInt64 = 0
  /// The most bytes of waiting messages; 0 is no limit.
  public var maxBytes: UInt64 = 0
  public var overflow: Overflow = .reject
  /// Levels of priority, 1...32: the highest goes first, but a level that was passed over 64 times
  /// gets its turn.
  public var priorities: Int = 1
  /// How many messages of one key may be out at once, from when they may be delivered until they
  /// leave the queue: 1 keeps strict order. Different keys take turns. 0 is a queue without keys.
  /// Not together with `Overflow.dropOldest`.
  public var keyLimit: Int = 0
  /// The queue goes, with its messages, when it had no consumer for so long and was not declared
  /// again meanwhile; publishes do not count. Not while another queue names it as its dead-letter
  /// queue. 0 is never.
  public var expires: Duration = .zero
  /// Only one consumer gets messages: the first, until it is gone and holds nothing any more; then
  /// the one with the highest priority, of several the one that came first.
  public var singleActiveConsumer = false

  public init() {}
}

extension QueueOptions {
  /// Throws `refused` with `settingInvalid` and the setting's name.
  func settings() throws(SkeinError) -> QueueSettings {
    func number<Number: FixedWidthInteger>(
      _ value: Int, _ name: String, as type: Number.Type
    ) throws(SkeinError) -> Number {
      guard let number = Number(exactly: value) else {
        throw .refused(.settingInvalid, detail: "\(name) of \(value) is out of range")
      }
      return number
    }
    guard retryJitter >= 0, retryJitter <= 1 else {
      throw .refused(.settingInvalid, detail: "retry-jitter must be between 0 and 1")
    }
    for (span, name) in [
      (lease, "lease"), (retryDelay, "retry-delay"), (retryDelayMax, "retry-max"),
      (timeToLive, "ttl"), (expires, "expires"),
    ] where span < .zero {
      throw .refused(.settingInvalid, detail: "\(name) must not be negative")
    }
    var settings = QueueSettings()
    settings.lease = lease.nanoseconds
    settings.deliveriesMax = try number(maxDeliveries, "max-deliveries", as: UInt32.self)
    settings.deadLetterQueue = deadLetterQueue
    settings.retryDelay = retryDelay.nanoseconds
    settings.retryDelayMax = retryDelayMax.nanoseconds
    settings.retryJitterPermille = UInt16((retryJitter * 1000).rounded())
    settings.timeToLive = timeToLive.nanoseconds
    settings.lengthMax = maxLength
    settings.bytesMax = maxBytes
    settings.overflow = overflow == .reject ? .reject : .dropOldest
    settings.priorities = try number(priorities, "priorities", as: UInt8.self)
    settings.keyLimit = try number(keyLimit, "keyed", as: UInt32.self)
    settings.expires = expires.nanoseconds
    settings.hasSingleActiveConsumer = singleActiveConsumer
    if let fault = settings.fault ?? settings.contradiction {
      throw .refused(.settingInvalid, detail: fault)
    }
    return settings
  }

  init(_ settings: QueueSettings) {
    lease = Duration(settings.lease)
    maxDeliveries = Int(settings.deliveriesMax)
    deadLetterQueue = settings.deadLetterQueue
    retryDelay = Duration(settings.retryDelay)
    retryDelayMax = Duration(settings.retryDelayMax)
    retryJitter = Double(settings.retryJitterPermille) / 1000
    timeToLive = Duration(settings.timeToLive)
    maxLength = settings.lengthMax
    maxBytes = settings.bytesMax
    overflow = settings.overflow == .reject ? .reject : .dropOldest
    priorities = Int(settings.priorities)
    keyLimit = Int(settings.keyLimit)
    expires = Duration(settings.expires)
    singleActiveConsumer = settings.hasSingleActiveConsumer
  }
}

extension QueueSettings {
  /// A setting that would mean nothing without another one, as a sentence that names both. AMQP
  /// clients may have such, so the cluster takes them.
  fileprivate var contradiction: String? {
    if retryDelay == .zero, retryDelayMax != .zero { return "retry-max needs retry-delay" }
    if retryDelay == .zero, retryJitterPermille != 0 { return "retry-jitter needs retry-delay" }
    if overflow == .dropOldest, lengthMax == 0, bytesMax == 0 {
      return "overflow drop-oldest needs max-length or max-bytes"
    }
    return nil
  }
}

/// A queue at a glance.
public struct QueueOverview: Hashable, Sendable {
  public let name: String
  public let options: QueueOptions
  /// Messages waiting to be delivered.
  public let ready: UInt64
  /// Messages held by consumers.
  public let leased: UInt64
  /// Messages waiting for their time.
  public let delayed: UInt64
  public let consumers: Int
  /// Bytes of all of these messages.
  public let bytes: UInt64
  /// Since the queue was declared, as are those below.
  public let published: UInt64
  public let delivered: UInt64
  public let acknowledged: UInt64
  public let redelivered: UInt64
  public let deadLettered: UInt64

  init(_ summary: QueueSummary) {
    name = summary.name
    options = QueueOptions(summary.settings)
    ready = summary.ready
    leased = summary.leased
    delayed = summary.delayed
    consumers = Int(summary.consumers)
    bytes = summary.bytes
    published = summary.published
    delivered = summary.delivered
    acknowledged = summary.acknowledged
    redelivered = summary.redelivered
    deadLettered = summary.deadLettered
  }
}

/// A message as it lies in a queue.
public struct PeekedMessage: Hashable, Sendable {
  public enum State: String, Sendable {
    case ready, leased, delayed
  }

  /// Where a message in a dead-letter queue came from, and why.
  public struct DeadLetter: Hashable, Sendable {
    public enum Reason: String, CaseIterable, Sendable {
      case deliveriesExhausted = "deliveries-exhausted"
      case rejected
      /// Older than its time to live.
      case expired
      /// It made room for a later message.
      case overflowed
    }
    public let reason: Reason
    public let originQueue: String
    public let originID: MessageIdentifier
    /// Failed deliveries there.
    public let attempts: Int
    public let lastError: String
    /// When the first of these deliveries began; `time` if there was none. Since 1970.
    public let firstTime: Duration
    /// When it was moved. Since 1970.
    public let time: Duration
  }

  public let id: MessageIdentifier
  public let state: State
  /// Failed deliveries so far.
  public let attempts: Int
  /// When it becomes ready, if delayed. Since 1970, by the cluster's clock.
  public let due: Duration?
  /// When it is too old; nil if it has all time. Since 1970.
  public let expires: Duration?
  /// Of the last failed delivery; empty for none.
  public let lastError: String
  public let deadLetter: DeadLetter?
  public let message: Message

  init(_ peeked: PeekedRecord) throws(SkeinError) {
    id = MessageIdentifier(peeked.message)
    state =
      switch peeked.state {
      case .ready: .ready
      case .leased: .leased
      case .delayed: .delayed
      }
    attempts = Int(peeked.attempts)
    due = peeked.due == .never ? nil : Duration(peeked.due)
    expires = peeked.expires == .never ? nil : Duration(peeked.expires)
    lastError = peeked.lastError
    deadLetter = peeked.deadLetter.map(DeadLetter.init)
    let parts = peeked.record.withUnsafeBytes { bytes in
      Result { () throws(MessageRecordError) in try MessageRecord.parts(of: bytes) }
    }
    switch parts {
    case .success(let parts):
      message = Message(parts)
    case .failure(let error): throw .protocolViolation("a peeked message is malformed: \(error)")
    }
  }
}

extension PeekedMessage.DeadLetter {
  init(_ dead: PeekedRecord.DeadLetter) {
    self.init(
      reason: Reason(dead.reason), originQueue: dead.originQueue,
      originID: MessageIdentifier(dead.originMessage), attempts: Int(dead.attempts),
      lastError: dead.lastError, firstTime: Duration(dead.firstTime), time: Duration(dead.time))
  }
}

extension PeekedMessage.DeadLetter.Reason {
  init(_ reason: PeekedRecord.DeadLetter.Reason) {
    self =
      switch reason {
      case .deliveriesExhausted: .deliveriesExhausted
      case .rejected: .rejected
      case .expired: .expired
      case .overflowed: .overflowed
      }
  }

  var wire: PeekedRecord.DeadLetter.Reason {
    switch self {
    case .deliveriesExhausted: .deliveriesExhausted
    case .rejected: .rejected
    case .expired: .expired
    case .overflowed: .overflowed
    }
  }
}

extension Duration {
  /// Since 1970.
  init(_ time: MachineTime) { self.init(Nanoseconds(rawValue: time.rawValue)) }
}

/// All that is known of one message. Times are since 1970, by the cluster's clock.
public struct MessageBiography: Hashable, Sendable {
  /// Something that happened to the message. Deliveries that were handed back untried and the one
  /// that is under way are not among them.
  public struct Event: Hashable, Sendable {
    public enum Kind: String, Sendable {
      /// A delivery that its consumer gave back as failed.
      case failed
      case leaseRanOut = "lease-ran-out"
      case consumerGone = "consumer-gone"
      case rejected
      /// Moved to the dead-letter queue.
      case deadLettered = "dead-lettered"
      /// Moved back from it.
      case redriven
    }

    /// A delivery and its end.
    public struct Attempt: Hashable, Sendable {
      /// From 1.
      public let number: Int
      public let granted: Duration
      /// The session's name.
      public let consumer: String
      /// The node that it was last connected to.
      public let node: Int
      /// At most 256 bytes of what it said.
      public let error: String
    }

    public let kind: Kind
    public let time: Duration
    /// The queue that the message was in.
    public let queue: String
    /// Of `deadLettered`.
    public let reason: PeekedMessage.DeadLetter.Reason?
    /// nil for `deadLettered` and `redriven`.
    public let attempt: Attempt?
  }

  /// Who has it.
  public struct Holder: Hashable, Sendable {
    /// The session's name.
    public let consumer: String
    /// nil while the session has no connection.
    public let node: Int?
    public let granted: Duration
    public let leaseEnd: Duration
  }

  public let message: PeekedMessage
  /// The queue that it is in: another than the one asked for if it was moved.
  public let queue: String
  /// If leased.
  public let holder: Holder?
  /// The last 16 at most, in order.
  public let events: [Event]
  /// How many there were before these.
  public let eventsForgotten: Int
  /// The cluster's clock when it was asked.
  public let now: Duration

  init(_ shown: ShownMessage) throws(SkeinError) {
    message = try PeekedMessage(shown.peeked)
    holder = shown.holder.map {
      Holder(
        consumer: $0.session, node: $0.node.rawValue == 0 ? nil : Int($0.node.rawValue),
        granted: Duration($0.granted), leaseEnd: Duration($0.leaseEnd))
    }
    events = shown.events.map(Event.init)
    eventsForgotten = Int(shown.eventsForgotten)
    now = Duration(shown.now)
    queue = shown.queue
  }
}

extension MessageBiography.Event {
  init(_ event: ShownMessage.Event) {
    let kind: Kind =
      switch event.kind {
      case .failed: .failed
      case .leaseRanOut: .leaseRanOut
      case .consumerGone: .consumerGone
      case .rejected: .rejected
      case .deadLettered: .deadLettered
      case .redriven: .redriven
      }
    let isDelivery = kind != .deadLettered && kind != .redriven
    let attempt = Attempt(
      number: Int(event.attempt), granted: Duration(event.granted), consumer: event.session,
      node: Int(event.node.rawValue), error: event.error)
    self.init(
      kind: kind, time: Duration(event.time), queue: event.queue,
      reason: event.reason.map(PeekedMessage.DeadLetter.Reason.init),
      attempt: isDelivery ? attempt : nil)
  }
}

/// Which messages are looked for; what is not set fits all.
public struct MessageQuery: Hashable, Sendable {
  /// Empty for all.
  public var states: Set<PeekedMessage.State> = []
  /// Only those that were moved to the queue as dead letters.
  public var onlyDeadLetters = false
  public var key: String?
  public var header: MessageHeader?
  /// The first so many that fit by their state are passed over, at most 1,000,000.
  public var skip = 0

  public init() {}

  var filter: MessageFilter {
    var filter = MessageFilter()
    if states.contains(.ready) { filter.states |= MessageFilter.ready }
    if states.contains(.leased) { filter.states |= MessageFilter.leased }
    if states.contains(.delayed) { filter.states |= MessageFilter.delayed }
    if onlyDeadLetters { filter.states |= MessageFilter.dead }
    filter.key = key.map { Array($0.utf8) }
    filter.headerName = header.map { Array($0.name.utf8) }
    filter.headerValue = header?.value ?? []
    filter.skip = UInt32(clamping: skip)
    return filter
  }
}

/// What one look at a queue brought.
public struct MessagePage: Hashable, Sendable {
  public let messages: [PeekedMessage]
  /// Behind which to go on; nil at the end.
  public let next: MessageIdentifier?
}

/// Which messages of a dead-letter queue go back.
public enum RedriveSelection: Hashable, Sendable {
  case all
  case reason(PeekedMessage.DeadLetter.Reason)
  case message(MessageIdentifier)
}

/// What a redrive did.
public struct RedriveResult: Hashable, Sendable {
  /// Messages that went back.
  public var moved: UInt64 = 0
  /// Messages that were meant and stay, since their queue is gone or full.
  public var skipped: UInt64 = 0
}

/// One node about itself.
public struct NodeOverview: Hashable, Sendable {
  public enum Role: String, Sendable {
    case follower, candidate, leader, learner, stopped
  }

  /// Another member, as the leader sees it.
  public struct Peer: Hashable, Sendable {
    public let id: Int
    public let isConnected: Bool
    /// The last entry known to be on its disk.
    public let matchIndex: UInt64
    /// Entries that it does not have yet.
    public let lag: UInt64
    /// Since it last answered.
    public let silence: Duration
  }

  public let id: Int
  public let role: Role
  public let term: UInt64
  /// nil while it knows none.
  public let leader: Int?
  public let commitIndex: UInt64
  public let appliedIndex: UInt64
  public let lastIndex: UInt64
  /// Hash of the queues' state after the entry `stateHashIndex`: equal on all nodes.
  public let stateHash: UInt64
  public let stateHashIndex: UInt64
  public let diskBytes: UInt64
  public let memoryBytes: UInt64
  public let pid: Int
  public let uptime: Duration
  public let sessions: Int
  public let connections: Int
  /// Where it listens for AMQP 0-9-1; nil if it does not.
  public let amqpPort: Int?
  public let amqpConnections: Int
  /// Exchanges and bindings of AMQP in the cluster.
  public let exchanges: Int
  public let bindings: Int
  /// What the node's AMQP clients did that AMQP accepts without a word although they hardly meant it,
  /// as sentences.
  public let advice: [String]
  public let version: String
  /// On the leader; else empty.
  public let peers: [Peer]
  /// What is wrong with the node, as sentences.
  public let problems: [String]

  init(_ status: NodeStatus) {
    id = Int(status.id.rawValue)
    role =
      switch status.role {
      case .follower: .follower
      case .candidate: .candidate
      case .leader: .leader
      case .learner: .learner
      case .stopped: .stopped
      }
    term = status.term.rawValue
    leader = status.leader.rawValue == 0 ? nil : Int(status.leader.rawValue)
    commitIndex = status.commitIndex.rawValue
    appliedIndex = status.appliedIndex.rawValue
    lastIndex = status.lastIndex.rawValue
    stateHash = status.stateHash
    stateHashIndex = status.stateHashIndex.rawValue
    diskBytes = status.diskBytes
    memoryBytes = status.memoryBytes
    pid = Int(status.pid)
    uptime = Duration(status.uptime)
    sessions = Int(status.sessions)
    connections = Int(status.connections)
    amqpPort = status.amqp.port == 0 ? nil : Int(status.amqp.port)
    amqpConnections = Int(status.amqp.connections)
    exchanges = Int(status.amqp.exchanges)
    bindings = Int(status.amqp.bindings)
    advice = status.amqp.advice
    version = status.version
    peers = status.peers.map {
      Peer(
        id: Int($0.id.rawValue), isConnected: $0.isConnected, matchIndex: $0.match.rawValue,
        lag: $0.lag, silence: Duration($0.silence))
    }
    problems = status.problems
  }
}

/// A member of the cluster.
public struct ClusterMember: Hashable, Sendable {
  public let id: Int
  public let peerAddress: String
  public let clientAddress: String
  /// A learner does not.
  public let votes: Bool
  public let isLeader: Bool

  init(_ info: MemberInfo) {
    id = Int(info.id.rawValue)
    peerAddress = info.peerAddress
    clientAddress = info.clientAddress
    votes = info.votes
    isLeader = info.isLeader
  }
}

/// What an endpoint answered when it was asked for its status.
public struct NodeReport: Sendable {
  /// `host:port`.
  public let endpoint: String
  public let result: Result<NodeOverview, SkeinError>
}
