// What servers send: replies, which return the request id, and news, which have none.

import Base

/// A frame from a server. Views in it are borrowed from the connection's bytes.
package enum ServerFrame {
  // Replies.
  case helloReply(HelloReply)
  case pong
  /// `lastSequence` is the highest that the cluster knows of the producer, 0 for a new one: a
  /// program that comes back with its producer id goes on behind it. With `epoch` the client can
  /// open its next session without taking the producer over from another client.
  case sessionOpened(
    session: SessionID, lastSequence: PublishSequence, epoch: ProducerEpoch = .none)
  /// `lastSequence` and `settledThrough` are the last publish and command that the cluster has of
  /// the session: later ones must be sent again, and those before whose answers were lost may be.
  /// Followed by `holding` for each consumer that the request named (or `consumerCancelled`), then
  /// by the deliveries that the client has not had.
  case sessionAttached(
    session: SessionID, lastSequence: PublishSequence, settledThrough: CommandSequence)
  /// `isNew` is false if the queue was there before.
  case queueReply(queue: QueueID, isNew: Bool)
  case outcomeReply(PublishAnswer)
  /// `count` is what the request's reply says, else 0.
  case done(count: UInt64)
  /// The request's answer in place of its reply. With request id 0 it is about the connection,
  /// which is closed behind it. `leader` is the leader's client address where the sender knows it,
  /// for `notLeader`, else empty.
  case refused(Refusal, detail: String, leader: String)
  case queueSummaries([QueueSummary])
  /// `next` is the id to go on behind; 0 if nothing more is there.
  case peeked([PeekedRecord], next: MessageID = MessageID(rawValue: 0))
  case messageShown(ShownMessage)
  /// `skipped` were meant and stay, since their queue is gone or full. `next` is the id to go on
  /// behind, 0 if all through `through` were looked at.
  case queueRedriven(messages: UInt64, skipped: UInt64, next: MessageID, through: MessageID)
  case statusReply(NodeStatus)
  case memberListReply([MemberInfo])
  /// Users of AMQP, by name, and virtual hosts, "/" first.
  case accessReply(users: [String], hosts: [String])

  // News.
  /// `count` publishes from `first` on are stored; their messages are numbered from `message` on:
  /// each has so many numbers as `copies`, one for each of its queues as they were named.
  case confirmed(
    first: PublishSequence, count: UInt32, message: MessageID, copies: UInt32 = 1)
  case publishRefused(first: PublishSequence, count: UInt32, Refusal, detail: String)
  case deliver(DeliverView)
  /// All settles and extends up to `through` are done, but for what was refused before.
  case settled(through: CommandSequence)
  /// Of the command `sequence`, `range` was refused; the rest is done.
  case settleRefused(
    sequence: CommandSequence, consumer: ConsumerID, range: DeliveryRange, Refusal)
  /// The consumer is gone and what it held with it: its queue was deleted.
  case consumerCancelled(consumer: ConsumerID, Refusal)
  case sessionEnded(session: SessionID, SessionEndReason)
  /// A later session of the same producer took over: this one can publish no more.
  case producerFenced
  /// Of the consumer's deliveries up to `through`, the session holds exactly `ranges`: what else
  /// the client has of them and did not settle has lapsed.
  case holding(consumer: ConsumerID, through: DeliveryID, ranges: [DeliveryRange])
  /// The leases of these deliveries ran out: the messages are no longer held.
  case lapsed(consumer: ConsumerID, ranges: [DeliveryRange])
  /// The leader that this node knows of; node 0 and an empty address while there is none.
  case leaderChanged(leader: NodeID, address: String)
  /// The client addresses of all members, as this node knows them: who stays with one node for long would
  /// else know only those that are gone when it goes too.
  case membersChanged(addresses: [String])
}

/// Why a session is over.
package enum SessionEndReason: UInt8, Sendable, CaseIterable {
  /// Its client closed it.
  case closed = 1
  /// Nobody came back to it within its timeout.
  case expired = 2
}

package struct HelloReply: Hashable, Sendable {
  /// The same on all nodes of a cluster.
  package var cluster: UInt64
  package var node: NodeID
  /// 0 while this node knows none; equal to `node` on the leader itself.
  package var leader: NodeID
  /// The leader's client address, empty while unknown.
  package var leaderAddress: String
  /// The client addresses of all members.
  package var addresses: [String]
  /// The build, for people.
  package var version: String
  /// The largest message record, bytes.
  package var messageBytesMax: UInt32
  /// The largest frame payload that the server takes, bytes.
  package var frameBytesMax: UInt32
  /// How many publishes of a session may be unanswered.
  package var publishWindow: UInt32
  /// The most credit of a consumer.
  package var creditMax: UInt32

  package init(
    cluster: UInt64, node: NodeID, leader: NodeID, leaderAddress: String, addresses: [String],
    version: String, messageBytesMax: UInt32, frameBytesMax: UInt32, publishWindow: UInt32,
    creditMax: UInt32
  ) {
    self.cluster = cluster
    self.node = node
    self.leader = leader
    self.leaderAddress = leaderAddress
    self.addresses = addresses
    self.version = version
    self.messageBytesMax = messageBytesMax
    self.frameBytesMax = frameBytesMax
    self.publishWindow = publishWindow
    self.creditMax = creditMax
  }
}

/// What became of a publish (G4).
package enum PublishAnswer: Hashable, Sendable {
  case stored(MessageID)
  case refused(Refusal)
  /// The cluster has not seen it (yet).
  case notSeen
  /// Answered so long ago that it was forgotten: the client said that it had the answer.
  case forgotten
}

/// A message as `peek` shows it.
package struct PeekedRecord: Hashable, Sendable {
  package enum State: UInt8, Sendable {
    case ready = 1
    case leased = 2
    case delayed = 3
  }

  /// Where a message in a dead-letter queue came from, and why.
  package struct DeadLetter: Hashable, Sendable {
    package enum Reason: UInt8, Sendable, CaseIterable {
      case deliveriesExhausted = 1
      case rejected = 2
      /// Older than its time to live.
      case expired = 3
      /// It made room for a later message.
      case overflowed = 4
    }
    package var reason: Reason
    package var originQueue: String
    package var originMessage: MessageID
    /// Failed deliveries there.
    package var attempts: UInt32
    package var lastError: String
    /// When the first of these deliveries began; `time` if there was none.
    package var firstTime: MachineTime
    /// When it was moved.
    package var time: MachineTime

    package init(
      reason: Reason, originQueue: String, originMessage: MessageID, attempts: UInt32,
      lastError: String, firstTime: MachineTime, time: MachineTime
    ) {
      self.reason = reason
      self.originQueue = originQueue
      self.originMessage = originMessage
      self.attempts = attempts
      self.lastError = lastError
      self.firstTime = firstTime
      self.time = time
    }
  }

  package var message: MessageID
  package var state: State
  /// Failed deliveries so far.
  package var attempts: UInt32
  /// When it becomes ready, if delayed; else `never`.
  package var due: MachineTime
  /// When it is too old; `never` if it has all time.
  package var expires: MachineTime
  /// Of the last failed delivery; may be empty.
  package var lastError: String
  package var deadLetter: DeadLetter?
  /// One `MessageRecord`.
  package var record: [UInt8]

  package init(
    message: MessageID, state: State, attempts: UInt32, due: MachineTime = .never,
    expires: MachineTime = .never, lastError: String, deadLetter: DeadLetter?, record: [UInt8]
  ) {
    self.message = message
    self.state = state
    self.attempts = attempts
    self.due = due
    self.expires = expires
    self.lastError = lastError
    self.deadLetter = deadLetter
    self.record = record
  }
}

/// All that is known of one message.
package struct ShownMessage: Hashable, Sendable {
  /// Something that happened to it.
  package struct Event: Hashable, Sendable {
    package enum Kind: UInt8, Sendable, CaseIterable {
      case failed = 1
      case leaseRanOut = 2
      case consumerGone = 3
      case rejected = 4
      case deadLettered = 5
      case redriven = 6
    }
    package var kind: Kind
    /// When it happened, or the delivery ended.
    package var time: MachineTime
    /// The queue that the message was in.
    package var queue: String
    /// Of `deadLettered`.
    package var reason: PeekedRecord.DeadLetter.Reason?
    // Of a delivery, else empty or 0.
    package var granted: MachineTime
    package var attempt: UInt32
    package var session: String
    package var consumer: ConsumerID
    package var node: NodeID
    package var error: String

    package init(
      kind: Kind, time: MachineTime, queue: String, reason: PeekedRecord.DeadLetter.Reason? = nil,
      granted: MachineTime = .zero, attempt: UInt32 = 0, session: String = "",
      consumer: ConsumerID = ConsumerID(rawValue: 0), node: NodeID = NodeID(rawValue: 0),
      error: String = ""
    ) {
      self.kind = kind
      self.time = time
      self.queue = queue
      self.reason = reason
      self.granted = granted
      self.attempt = attempt
      self.session = session
      self.consumer = consumer
      self.node = node
      self.error = error
    }
  }

  /// Who has it, if leased.
  package struct Holder: Hashable, Sendable {
    package var session: String
    package var consumer: ConsumerID
    /// 0 while the session has no connection.
    package var node: NodeID
    package var granted: MachineTime
    package var leaseEnd: MachineTime

    package init(
      session: String, consumer: ConsumerID, node: NodeID, granted: MachineTime,
      leaseEnd: MachineTime
    ) {
      self.session = session
      self.consumer = consumer
      self.node = node
      self.granted = granted
      self.leaseEnd = leaseEnd
    }
  }

  package var peeked: PeekedRecord
  package var holder: Holder?
  /// The last ones.
  package var events: [Event]
  /// Events before these, no longer known.
  package var eventsForgotten: UInt32
  /// The machine's clock: the times above are readings of it.
  package var now: MachineTime
  /// The queue that it is in, which is another than the one asked for if it was moved.
  package var queue: String

  package init(
    peeked: PeekedRecord, holder: Holder?, events: [Event], eventsForgotten: UInt32,
    now: MachineTime, queue: String
  ) {
    self.queue = queue
    self.peeked = peeked
    self.holder = holder
    self.events = events
    self.eventsForgotten = eventsForgotten
    self.now = now
  }
}

extension ServerFrame {
  package var kind: FrameKind {
    switch self {
    case .helloReply: .helloReply
    case .pong: .pong
    case .sessionOpened: .sessionOpened
    case .sessionAttached: .sessionAttached
    case .queueReply: .queueReply
    case .outcomeReply: .outcomeReply
    case .done: .done
    case .refused: .refused
    case .queueSummaries: .queueSummaries
    case .peeked: .peeked
    case .messageShown: .messageShown
    case .queueRedriven: .queueRedriven
    case .statusReply: .statusReply
    case .memberListReply: .memberListReply
    case .accessReply: .accessReply
    case .confirmed: .confirmed
    case .publishRefused: .publishRefused
    case .deliver: .deliver
    case .settled: .settled
    case .settleRefused: .settleRefused
    case .consumerCancelled: .consumerCancelled
    case .sessionEnded: .sessionEnded
    case .producerFenced: .producerFenced
    case .holding: .holding
    case .lapsed: .lapsed
    case .leaderChanged: .leaderChanged
    case .membersChanged: .membersChanged
    }
  }

  /// Appends the whole frame. A deliver frame is written by `DeliverEncoder` on the hot path.
  package func encode(request: RequestID = .none, into bytes: inout [UInt8]) {
    // What there is most of goes in one piece.
    if case .confirmed(let first, let count, let message, let copies) = self {
      return bytes.putFields(Frame.headerBytes + 24) { fields in
        Frame.putHeader(.confirmed, request: request, payloadBytes: 24, into: &fields)
        fields.put(first)
        fields.put(count)
        fields.put(copies)
        fields.put(message)
      }
    }
    if case .deliver(let view) = self {
      var encoder = DeliverEncoder(view.consumer, into: &bytes)
      view.forEachMessage { encoder.append($0, record: $1, to: &bytes) }
      return encoder.finish(in: &bytes)
    }
    let start = Frame.begin(kind, request: request, in: &bytes)
    encodePayload(into: &bytes)
    Frame.finish(start, in: &bytes)
  }

  private func encodePayload(into bytes: inout [UInt8]) {
    switch self {
    case .pong, .deliver, .producerFenced: break
    case .helloReply(let reply): reply.encode(into: &bytes)
    case .sessionOpened(let session, let lastSequence, let epoch):
      bytes.put(session)
      bytes.put(lastSequence)
      bytes.put(epoch)
    case .sessionAttached(let session, let lastSequence, let settledThrough):
      bytes.put(session)
      bytes.put(lastSequence)
      bytes.put(settledThrough)
    case .queueReply(let queue, let isNew):
      bytes.put(queue)
      bytes.putFlag(isNew)
    case .outcomeReply(let outcome): outcome.encode(into: &bytes)
    case .done(let count): bytes.put(count)
    case .refused(let refusal, let detail, let leader):
      bytes.put(refusal.rawValue)
      bytes.putClippedText(detail)
      bytes.putClippedText(leader)
    case .queueSummaries(let summaries): bytes.putList(summaries) { $0.encode(into: &$1) }
    case .peeked(let messages, let next):
      bytes.putList(messages) { $0.encode(into: &$1) }
      bytes.put(next)
    case .messageShown(let message): message.encode(into: &bytes)
    case .queueRedriven(let messages, let skipped, let next, let through):
      bytes.put(messages)
      bytes.put(skipped)
      bytes.put(next)
      bytes.put(through)
    case .statusReply(let status): status.encode(into: &bytes)
    case .memberListReply(let members): bytes.putList(members) { $0.encode(into: &$1) }
    case .accessReply(let users, let hosts):
      bytes.putList(users) { $1.putClippedText($0) }
      bytes.putList(hosts) { $1.putClippedText($0) }
    default: encodeNews(into: &bytes)
    }
  }

  private func encodeNews(into bytes: inout [UInt8]) {
    switch self {
    case .publishRefused(let first, let count, let refusal, let detail):
      bytes.put(first)
      bytes.put(count)
      bytes.put(refusal.rawValue)
      bytes.putClippedText(detail)
    case .settled(let through): bytes.put(through)
    case .settleRefused(let sequence, let consumer, let range, let refusal):
      bytes.put(sequence)
      bytes.put(consumer)
      bytes.put(range)
      bytes.put(refusal.rawValue)
    case .consumerCancelled(let consumer, let refusal):
      bytes.put(consumer)
      bytes.put(refusal.rawValue)
    case .sessionEnded(let session, let reason):
      bytes.put(session)
      bytes.put(reason.rawValue)
    case .holding(let consumer, let through, let ranges):
      bytes.put(consumer)
      bytes.put(through)
      bytes.putList(ranges) { $1.put($0) }
    case .lapsed(let consumer, let ranges):
      bytes.put(consumer)
      bytes.putList(ranges) { $1.put($0) }
    case .leaderChanged(let leader, let address):
      bytes.put(leader)
      bytes.putClippedText(address)
    case .membersChanged(let addresses):
      bytes.putList(addresses) { $1.putClippedText($0) }
    default: invariant(false, "frame \(kind) has no encoding")
    }
  }

  /// Reads a frame from a server.
  ///
  /// - Throws: `FrameError`; `unexpectedKind` for what only a client sends.
  package init(decoding frame: FrameView) throws(FrameError) {
    if frame.kind == .deliver {
      self = .deliver(try DeliverView(decoding: frame))
      return
    }
    var reader = FieldReader(frame)
    self = try Self.decode(&reader)
    try reader.checkEnd()
  }

  private static func decode(_ reader: inout FieldReader) throws(FrameError) -> ServerFrame {
    switch reader.kind {
    case .helloReply: return .helloReply(try HelloReply(&reader))
    case .pong: return .pong
    case .sessionOpened:
      return .sessionOpened(
        session: try reader.identifier(), lastSequence: try reader.identifier(),
        epoch: try reader.identifier())
    case .sessionAttached:
      return .sessionAttached(
        session: try reader.identifier(), lastSequence: try reader.identifier(),
        settledThrough: try reader.identifier())
    case .queueReply:
      return .queueReply(queue: try reader.identifier(), isNew: try reader.flag("new flag"))
    case .outcomeReply: return .outcomeReply(try PublishAnswer(&reader))
    case .done: return .done(count: try reader.integer())
    case .refused:
      return .refused(
        try reader.refusal(), detail: try reader.text(),
        leader: try reader.text())
    case .queueSummaries:
      return .queueSummaries(
        try reader.list(elementBytesMin: 64) { (reader) throws(FrameError) in
          try QueueSummary(&reader)
        })
    case .peeked:
      return .peeked(
        try reader.list(elementBytesMin: 20) { (reader) throws(FrameError) in
          try PeekedRecord(&reader)
        }, next: try reader.identifier())
    case .messageShown: return .messageShown(try ShownMessage(&reader))
    case .queueRedriven:
      return .queueRedriven(
        messages: try reader.integer(), skipped: try reader.integer(),
        next: try reader.identifier(), through: try reader.identifier())
    case .statusReply: return .statusReply(try NodeStatus(&reader))
    case .memberListReply:
      return .memberListReply(
        try reader.list(elementBytesMin: 10) { (reader) throws(FrameError) in
          try MemberInfo(&reader)
        })
    case .accessReply:
      func names() throws(FrameError) -> [String] {
        try reader.list(elementBytesMin: 2) { (reader) throws(FrameError) in try reader.text() }
      }
      return .accessReply(users: try names(), hosts: try names())
    default: return try decodeNews(&reader)
    }
  }

  private static func decodeNews(_ reader: inout FieldReader) throws(FrameError) -> ServerFrame {
    switch reader.kind {
    case .confirmed:
      let first = try reader.identifier(PublishSequence.self)
      let count = try reader.integer(UInt32.self)
      let copies = try reader.integer(UInt32.self)
      return .confirmed(
        first: first, count: count, message: try reader.identifier(), copies: copies)
    case .publishRefused:
      return .publishRefused(
        first: try reader.identifier(), count: try reader.integer(),
        try reader.refusal(), detail: try reader.text())
    case .settled: return .settled(through: try reader.identifier())
    case .settleRefused:
      return .settleRefused(
        sequence: try reader.identifier(), consumer: try reader.identifier(),
        range: try reader.deliveryRange(), try reader.refusal())
    case .consumerCancelled:
      return .consumerCancelled(
        consumer: try reader.identifier(), try reader.refusal())
    case .sessionEnded:
      return .sessionEnded(
        session: try reader.identifier(), try reader.choice(SessionEndReason.self, "reason"))
    case .producerFenced: return .producerFenced
    case .holding:
      return .holding(
        consumer: try reader.identifier(), through: try reader.identifier(),
        ranges: try reader.deliveryRanges())
    case .lapsed:
      return .lapsed(consumer: try reader.identifier(), ranges: try reader.deliveryRanges())
    case .leaderChanged:
      return .leaderChanged(leader: try reader.identifier(), address: try reader.text())
    case .membersChanged: return .membersChanged(addresses: try reader.addresses())
    default:
      throw .unexpectedKind(reader.kind)
    }
  }
}

extension FieldReader {
  fileprivate mutating func addresses() throws(FrameError) -> [String] {
    try list(elementBytesMin: 2) { (reader) throws(FrameError) in try reader.text() }
  }
}

extension HelloReply {
  func encode(into bytes: inout [UInt8]) {
    bytes.put(cluster)
    bytes.put(node)
    bytes.put(leader)
    bytes.putClippedText(leaderAddress)
    bytes.putList(addresses) { $1.putClippedText($0) }
    bytes.putClippedText(version)
    bytes.put(messageBytesMax)
    bytes.put(frameBytesMax)
    bytes.put(publishWindow)
    bytes.put(creditMax)
  }

  init(_ reader: inout FieldReader) throws(FrameError) {
    cluster = try reader.integer()
    node = try reader.identifier()
    leader = try reader.identifier()
    leaderAddress = try reader.text()
    addresses = try reader.addresses()
    version = try reader.text()
    messageBytesMax = try reader.integer()
    frameBytesMax = try reader.integer()
    publishWindow = try reader.integer()
    creditMax = try reader.integer()
  }
}

extension PublishAnswer {
  func encode(into bytes: inout [UInt8]) {
    switch self {
    case .stored(let message):
      bytes.put(UInt8(1))
      bytes.put(message)
    case .refused(let refusal):
      bytes.put(UInt8(2))
      bytes.put(refusal.rawValue)
    case .notSeen: bytes.put(UInt8(3))
    case .forgotten: bytes.put(UInt8(4))
    }
  }

  init(_ reader: inout FieldReader) throws(FrameError) {
    switch try reader.integer(UInt8.self) {
    case 1: self = .stored(try reader.identifier())
    case 2: self = .refused(try reader.refusal())
    case 3: self = .notSeen
    case 4: self = .forgotten
    case let other:
      throw .invalidValue(reader.kind, field: "outcome", value: UInt64(other))
    }
  }
}

extension PeekedRecord {
  func encode(into bytes: inout [UInt8]) {
    bytes.put(message)
    bytes.put(state.rawValue)
    bytes.put(attempts)
    bytes.put(due)
    bytes.put(expires)
    bytes.putClippedText(lastError, limit: SettleRequest.errorBytesMax)
    bytes.putFlag(deadLetter != nil)
    if let deadLetter { deadLetter.encode(into: &bytes) }
    bytes.putLongBytes(record)
  }

  init(_ reader: inout FieldReader) throws(FrameError) {
    message = try reader.identifier()
    state = try reader.choice(State.self, "message state")
    attempts = try reader.integer()
    due = try reader.identifier()
    expires = try reader.identifier()
    lastError = try reader.text()
    deadLetter = try reader.flag("dead letter flag") ? try DeadLetter(&reader) : nil
    record = try reader.longBytes()
  }
}

extension PeekedRecord.DeadLetter {
  func encode(into bytes: inout [UInt8]) {
    bytes.put(reason.rawValue)
    bytes.putShortText(originQueue)
    bytes.put(originMessage)
    bytes.put(attempts)
    bytes.putClippedText(lastError, limit: SettleRequest.errorBytesMax)
    bytes.put(firstTime)
    bytes.put(time)
  }

  init(_ reader: inout FieldReader) throws(FrameError) {
    reason = try reader.choice(Reason.self, "dead letter reason")
    originQueue = try reader.text()
    originMessage = try reader.identifier()
    attempts = try reader.integer()
    lastError = try reader.text()
    firstTime = try reader.identifier()
    time = try reader.identifier()
  }
}

extension ShownMessage {
  func encode(into bytes: inout [UInt8]) {
    peeked.encode(into: &bytes)
    bytes.putFlag(holder != nil)
    if let holder {
      bytes.putClippedText(holder.session)
      bytes.put(holder.consumer)
      bytes.put(holder.node)
      bytes.put(holder.granted)
      bytes.put(holder.leaseEnd)
    }
    bytes.putList(events) { $0.encode(into: &$1) }
    bytes.put(eventsForgotten)
    bytes.put(now)
    bytes.putShortText(queue)
  }

  init(_ reader: inout FieldReader) throws(FrameError) {
    peeked = try PeekedRecord(&reader)
    holder =
      try reader.flag("holder flag")
      ? Holder(
        session: try reader.text(), consumer: try reader.identifier(),
        node: try reader.identifier(), granted: try reader.identifier(),
        leaseEnd: try reader.identifier()) : nil
    events = try reader.list(elementBytesMin: 42) { (reader) throws(FrameError) in
      try Event(&reader)
    }
    eventsForgotten = try reader.integer()
    now = try reader.identifier()
    queue = try reader.text()
  }
}

extension ShownMessage.Event {
  func encode(into bytes: inout [UInt8]) {
    bytes.put(kind.rawValue)
    bytes.put(time)
    bytes.putShortText(queue)
    bytes.put(reason?.rawValue ?? 0)
    bytes.put(granted)
    bytes.put(attempt)
    bytes.putClippedText(session)
    bytes.put(consumer)
    bytes.put(node)
    bytes.putClippedText(error, limit: SettleRequest.errorBytesMax)
  }

  init(_ reader: inout FieldReader) throws(FrameError) {
    kind = try reader.choice(Kind.self, "event kind")
    time = try reader.identifier()
    queue = try reader.text()
    let number = try reader.integer(UInt8.self)
    reason = PeekedRecord.DeadLetter.Reason(rawValue: number)
    guard reason != nil || number == 0 else {
      throw .invalidValue(reader.kind, field: "dead letter reason", value: UInt64(number))
    }
    granted = try reader.identifier()
    attempt = try reader.integer()
    session = try reader.text()
    consumer = try reader.identifier()
    node = try reader.identifier()
    error = try reader.text()
  }
}
