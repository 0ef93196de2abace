// What clients send. Frames that carry a request id get exactly one reply with the same id (a
// typed one, `done` or `refused`); publish, settle and extend carry numbers of their own instead
// and are answered by these.

import Base

/// A frame from a client. Views in it are borrowed from the connection's bytes.
package enum ClientFrame {
  /// First on every connection. Reply: `helloReply`. `client` names the program for people.
  case hello(client: String)
  /// Reply: `pong`.
  case ping
  /// Opens a session that outlives its connection by `timeout`; 0 asks for the node's usual time.
  /// It takes the producer over from any earlier session. With the epoch of an earlier session of
  /// the same client it only goes on with the producer: it is refused with `producerFenced` if
  /// another client has taken it over since, or if `attempt` comes after this or a later one of the
  /// same client. Reply: `sessionOpened`.
  case openSession(
    producer: ProducerID, epoch: ProducerEpoch = .none, attempt: OpenAttempt = .none,
    timeout: Nanoseconds, name: String)
  /// Comes back to a session after a lost connection. Reply: `sessionAttached`, or `refused` with
  /// `sessionNotFound`.
  case attachSession(AttachRequest)
  /// Ends the session at once: what it holds goes back. Reply: `done`.
  case closeSession
  /// Reply: `queueReply`, or `refused` with `queueNotFound`.
  case resolveQueue(name: String)
  /// Answered by `confirmed` or `publishRefused` for each of its sequences.
  case publish(PublishView)
  /// Settles and publishes in one step, all or nothing. Answered as a publish of its messages.
  case transact(TransactView)
  /// What became of a publish. Reply: `outcomeReply`.
  case publishOutcome(producer: ProducerID, sequence: PublishSequence)
  /// Deliver from `queue`, at most `credit` unsettled messages at a time. The same request again is
  /// answered in the same way. Consumers of a lower priority get what this one has no credit for;
  /// an exclusive one bears no other consumer of the queue. Reply: `done`, or `refused`, with
  /// `consumerExclusive` if the queue is another's, or has others.
  case subscribe(
    consumer: ConsumerID, queue: QueueID, credit: UInt32, priority: Int16 = 0,
    isExclusive: Bool = false)
  /// Changes how many unsettled messages the consumer may have; 0 pauses. Reply: `done`.
  case setCredit(consumer: ConsumerID, credit: UInt32)
  /// Ends the consumer. What it holds goes back without counting an attempt, or stays held and can
  /// still be settled. Reply: `done`.
  case unsubscribe(consumer: ConsumerID, returnHeld: Bool)
  /// Answered by `settled`, before it `settleRefused` for what was refused.
  case settle(SettleRequest)
  /// Numbered and answered as a settle.
  case extend(ExtendRequest)
  /// Reply: `queueReply`.
  case declareQueue(name: String, settings: QueueSettings)
  /// Reply: `done` with the number of messages that went with it.
  case deleteQueue(name: String)
  /// Drops what is not held. Reply: `done` with the number of messages dropped.
  case purgeQueue(name: String)
  /// Reply: `queueSummaries`.
  case listQueues
  /// Reply: `queueSummaries` with one, or `refused` with `queueNotFound`.
  case showQueue(name: String)
  /// Looks at messages without consuming: up to `limit` behind `after` (0 from the first), of which
  /// those that fit are shown. Reply: `peeked`, which says where to go on.
  case peek(queue: String, after: MessageID, limit: UInt32, filter: MessageFilter = MessageFilter())
  /// All that is known of one message, also by an id that it had in this queue before it was moved.
  /// Reply: `messageShown`, or `refused` with `queueNotFound`, `messageGone`, `messageElsewhere` or
  /// `messageNotFound`.
  case showMessage(queue: String, message: MessageID)
  /// Removes a message that waits. Reply: `done`, or `refused` with `queueNotFound`,
  /// `messageLeased`, `messageGone`, `messageElsewhere` or `messageNotFound`.
  case cancelMessage(queue: String, message: MessageID)
  /// Makes a message that waits ready after `delay`. Replies as for `cancelMessage`.
  case rescheduleMessage(queue: String, message: MessageID, delay: Nanoseconds)
  /// Moves messages of a dead-letter queue behind `after` (0 from the first) up to `through` (0 for
  /// all that are there now) back to where they came from, at most `limit`. Reply:
  /// `queueRedriven`, which says where to go on.
  case redriveQueue(
    queue: String, which: RedriveScope, after: MessageID, through: MessageID, limit: UInt32)
  /// About the node asked, leader or not. Reply: `statusReply`.
  case status
  /// Sets the password of a user of AMQP, salted and hashed; an empty hash removes the user. Reply:
  /// `done`.
  case setUser(name: String, salt: [UInt8], hash: [UInt8])
  /// Reply: `done`.
  case addVirtualHost(name: String)
  /// Reply: `accessReply`.
  case listAccess
  /// Reply: `memberListReply`.
  case memberList
  /// Reply: `done` once the new member votes.
  case memberAdd(id: NodeID, peerAddress: String, clientAddress: String)
  /// Reply: `done` once the change is committed.
  case memberRemove(id: NodeID)
  /// To a member, or with `nil` to the one that is furthest along. Reply: `done`.
  case transferLeadership(to: NodeID?)
}

/// Which messages of a dead-letter queue go back.
package enum RedriveScope: Hashable, Sendable {
  case all
  case reason(PeekedRecord.DeadLetter.Reason)
  case message(MessageID)
}

/// Takes a session up again.
package struct AttachRequest: Hashable, Sendable {
  package struct Consumer: Hashable, Sendable {
    package var consumer: ConsumerID
    /// The last delivery that the client has had, 0 for none: later ones are sent again.
    package var received: DeliveryID

    package init(consumer: ConsumerID, received: DeliveryID) {
      self.consumer = consumer
      self.received = received
    }
  }
  package var session: SessionID
  package var consumers: [Consumer]

  package init(session: SessionID, consumers: [Consumer]) {
    self.session = session
    self.consumers = consumers
  }
}

/// Ends deliveries of one consumer, all in the same way.
package struct SettleRequest: Hashable, Sendable {
  package var sequence: CommandSequence
  /// The client has had the answers to all commands up to this one: they may be forgotten.
  package var answeredThrough: CommandSequence
  package var kind: SettleKind
  package var consumer: ConsumerID
  /// Ascending and apart, from 1; at most `rangesMax`.
  package var ranges: [DeliveryRange]
  /// For `negative`: in place of the queue's own wait before the next delivery.
  package var delay: Nanoseconds?
  /// For `negative` and `reject`: why, for people; may be empty.
  package var error: String

  package init(
    sequence: CommandSequence, answeredThrough: CommandSequence, kind: SettleKind,
    consumer: ConsumerID, ranges: [DeliveryRange], delay: Nanoseconds? = nil, error: String = ""
  ) {
    self.sequence = sequence
    self.answeredThrough = answeredThrough
    self.kind = kind
    self.consumer = consumer
    self.ranges = ranges
    self.delay = delay
    self.error = error
  }

  /// The longest error text sent, bytes; longer is cut.
  package static let errorBytesMax = 1024
  /// Ranges in one settle or extend.
  package static let rangesMax = 4096
}

/// Prolongs leases: they run out `by` after the command is committed.
package struct ExtendRequest: Hashable, Sendable {
  package var sequence: CommandSequence
  package var answeredThrough: CommandSequence
  package var consumer: ConsumerID
  package var ranges: [DeliveryRange]
  package var by: Nanoseconds

  package init(
    sequence: CommandSequence, answeredThrough: CommandSequence, consumer: ConsumerID,
    ranges: [DeliveryRange], by: Nanoseconds
  ) {
    self.sequence = sequence
    self.answeredThrough = answeredThrough
    self.consumer = consumer
    self.ranges = ranges
    self.by = by
  }
}

extension ClientFrame {
  package var kind: FrameKind {
    switch self {
    case .hello: .hello
    case .ping: .ping
    case .openSession: .openSession
    case .attachSession: .attachSession
    case .closeSession: .closeSession
    case .resolveQueue: .resolveQueue
    case .publish: .publish
    case .transact: .transact
    case .publishOutcome: .publishOutcome
    case .subscribe: .subscribe
    case .setCredit: .setCredit
    case .unsubscribe: .unsubscribe
    case .settle: .settle
    case .extend: .extend
    case .declareQueue: .declareQueue
    case .deleteQueue: .deleteQueue
    case .purgeQueue: .purgeQueue
    case .listQueues: .listQueues
    case .showQueue: .showQueue
    case .peek: .peek
    case .showMessage: .showMessage
    case .cancelMessage: .cancelMessage
    case .rescheduleMessage: .rescheduleMessage
    case .redriveQueue: .redriveQueue
    case .status: .status
    case .setUser: .setUser
    case .addVirtualHost: .addVirtualHost
    case .listAccess: .listAccess
    case .memberList: .memberList
    case .memberAdd: .memberAdd
    case .memberRemove: .memberRemove
    case .transferLeadership: .transferLeadership
    }
  }

  /// Appends the whole frame.
  package func encode(request: RequestID = .none, into bytes: inout [UInt8]) {
    if case .publish(let publish) = self { return publish.encode(into: &bytes) }
    if case .transact(let transact) = self { return transact.encode(into: &bytes) }
    let start = Frame.begin(kind, request: request, in: &bytes)
    encodePayload(into: &bytes)
    Frame.finish(start, in: &bytes)
  }

  private func encodePayload(into bytes: inout [UInt8]) {
    switch self {
    case .ping, .closeSession, .listQueues, .status, .memberList, .listAccess, .publish, .transact:
      break
    case .setUser(let name, let salt, let hash):
      bytes.putShortText(name)
      bytes.putLongBytes(salt)
      bytes.putLongBytes(hash)
    case .hello(let client):
      bytes.putClippedText(client)
    case .openSession(let producer, let epoch, let attempt, let timeout, let name):
      bytes.put(producer)
      bytes.put(epoch)
      bytes.put(attempt)
      bytes.put(timeout)
      bytes.putClippedText(name)
    case .attachSession(let request):
      bytes.put(request.session)
      bytes.putList(request.consumers) {
        $1.put($0.consumer)
        $1.put($0.received)
      }
    case .resolveQueue(let name), .deleteQueue(let name), .purgeQueue(let name),
      .showQueue(let name), .addVirtualHost(let name):
      bytes.putShortText(name)
    case .publishOutcome(let producer, let sequence):
      bytes.put(producer)
      bytes.put(sequence)
    case .subscribe(let consumer, let queue, let credit, let priority, let isExclusive):
      bytes.put(consumer)
      bytes.put(queue)
      bytes.put(credit)
      bytes.put(UInt16(bitPattern: priority))
      bytes.putFlag(isExclusive)
    case .setCredit(let consumer, let credit):
      bytes.put(consumer)
      bytes.put(credit)
    case .unsubscribe(let consumer, let returnHeld):
      bytes.put(consumer)
      bytes.putFlag(returnHeld)
    case .settle(let settle):
      settle.encode(into: &bytes)
    case .extend(let extend):
      extend.encode(into: &bytes)
    case .declareQueue(let name, let settings):
      bytes.putShortText(name)
      settings.encode(into: &bytes)
    case .peek(let queue, let after, let limit, let filter):
      bytes.putShortText(queue)
      bytes.put(after)
      bytes.put(limit)
      filter.encode(into: &bytes)
    case .showMessage(let queue, let message), .cancelMessage(let queue, let message):
      bytes.putShortText(queue)
      bytes.put(message)
    case .rescheduleMessage(let queue, let message, let delay):
      bytes.putShortText(queue)
      bytes.put(message)
      bytes.put(delay)
    case .redriveQueue(let queue, let which, let after, let through, let limit):
      bytes.putShortText(queue)
      which.encode(into: &bytes)
      bytes.put(after)
      bytes.put(through)
      bytes.put(limit)
    case .memberAdd(let id, let peerAddress, let clientAddress):
      bytes.put(id)
      bytes.putShortText(peerAddress)
      bytes.putShortText(clientAddress)
    case .memberRemove(let id):
      bytes.put(id)
    case .transferLeadership(let node):
      bytes.put(node?.rawValue ?? 0)
    }
  }

  /// Reads a frame from a client.
  ///
  /// - Throws: `FrameError`; `unexpectedKind` for what only a server sends.
  package init(decoding frame: FrameView) throws(FrameError) {
    if frame.kind == .publish {
      self = .publish(try PublishView(decoding: frame))
      return
    }
    if frame.kind == .transact {
      self = .transact(try TransactView(decoding: frame))
      return
    }
    var reader = FieldReader(frame)
    self = try Self.decode(&reader)
    try reader.checkEnd()
  }

  private static func decode(_ reader: inout FieldReader) throws(FrameError) -> ClientFrame {
    switch reader.kind {
    case .hello: return .hello(client: try reader.text())
    case .ping: return .ping
    case .openSession:
      return .openSession(
        producer: try reader.identifier(), epoch: try reader.identifier(),
        attempt: try reader.identifier(), timeout: try reader.identifier(), name: try reader.text())
    case .attachSession: return .attachSession(try AttachRequest(&reader))
    case .closeSession: return .closeSession
    case .resolveQueue: return .resolveQueue(name: try reader.text())
    case .publishOutcome:
      return .publishOutcome(producer: try reader.identifier(), sequence: try reader.identifier())
    case .subscribe:
      return .subscribe(
        consumer: try reader.identifier(), queue: try reader.identifier(),
        credit: try reader.integer(),
        priority: Int16(bitPattern: try reader.integer(UInt16.self)),
        isExclusive: try reader.flag("exclusive flag"))
    case .setCredit:
      return .setCredit(consumer: try reader.identifier(), credit: try reader.integer())
    case .unsubscribe:
      return .unsubscribe(
        consumer: try reader.identifier(), returnHeld: try reader.flag("return flag"))
    case .settle: return .settle(try SettleRequest(&reader))
    case .extend: return .extend(try ExtendRequest(&reader))
    default: return try decodeAdministration(&reader)
    }
  }

  private static func decodeAdministration(
    _ reader: inout FieldReader
  ) throws(FrameError) -> ClientFrame {
    switch reader.kind {
    case .declareQueue:
      return .declareQueue(name: try reader.text(), settings: try reader.settings())
    case .deleteQueue: return .deleteQueue(name: try reader.text())
    case .purgeQueue: return .purgeQueue(name: try reader.text())
    case .listQueues: return .listQueues
    case .showQueue: return .showQueue(name: try reader.text())
    case .peek:
      return .peek(
        queue: try reader.text(), after: try reader.identifier(), limit: try reader.integer(),
        filter: try reader.filter())
    case .showMessage:
      return .showMessage(queue: try reader.text(), message: try reader.identifier())
    case .cancelMessage:
      return .cancelMessage(queue: try reader.text(), message: try reader.identifier())
    case .rescheduleMessage:
      return .rescheduleMessage(
        queue: try reader.text(), message: try reader.identifier(),
        delay: try reader.identifier())
    case .redriveQueue:
      return .redriveQueue(
        queue: try reader.text(), which: try RedriveScope(&reader),
        after: try reader.identifier(), through: try reader.identifier(),
        limit: try reader.integer())
    case .status: return .status
    case .memberList: return .memberList
    case .setUser:
      return .setUser(
        name: try reader.text(), salt: try reader.longBytes(), hash: try reader.longBytes())
    case .addVirtualHost: return .addVirtualHost(name: try reader.text())
    case .listAccess: return .listAccess
    case .memberAdd:
      return .memberAdd(
        id: try reader.identifier(), peerAddress: try reader.text(),
        clientAddress: try reader.text())
    case .memberRemove: return .memberRemove(id: try reader.identifier())
    case .transferLeadership:
      let node = try reader.identifier(NodeID.self)
      return .transferLeadership(to: node.rawValue == 0 ? nil : node)
    default:
      throw .unexpectedKind(reader.kind)
    }
  }
}

extension RedriveScope {
  func encode(into bytes: inout [UInt8]) {
    switch self {
    case .all: bytes.put(UInt8(0))
    case .reason(let reason):
      bytes.put(UInt8(1))
      bytes.put(reason.rawValue)
    case .message(let message):
      bytes.put(UInt8(2))
      bytes.put(message)
    }
  }

  init(_ reader: inout FieldReader) throws(FrameError) {
    switch try reader.integer(UInt8.self) {
    case 0: self = .all
    case 1:
      self = .reason(
        try reader.choice(PeekedRecord.DeadLetter.Reason.self, "dead letter reason"))
    case 2: self = .message(try reader.identifier())
    case let other:
      throw .invalidValue(reader.kind, field: "redrive scope", value: UInt64(other))
    }
  }
}

extension AttachRequest {
  init(_ reader: inout FieldReader) throws(FrameError) {
    session = try reader.identifier()
    consumers = try reader.list(elementBytesMin: 12) { (reader) throws(FrameError) in
      Consumer(consumer: try reader.identifier(), received: try reader.identifier())
    }
  }
}

extension SettleRequest {
  func encode(into bytes: inout [UInt8]) {
    bytes.put(sequence)
    bytes.put(answeredThrough)
    bytes.put(consumer)
    bytes.put(kind.rawValue)
    bytes.putFlag(delay != nil)
    bytes.put(delay ?? .zero)
    bytes.putClippedText(error, limit: Self.errorBytesMax)
    bytes.putList(ranges) { $1.put($0) }
  }

  init(_ reader: inout FieldReader) throws(FrameError) {
    sequence = try reader.identifier()
    answeredThrough = try reader.identifier()
    consumer = try reader.identifier()
    kind = try reader.choice(SettleKind.self, "settle kind")
    let hasDelay = try reader.flag("delay flag")
    let delay = try reader.identifier(Nanoseconds.self)
    self.delay = hasDelay ? delay : nil
    error = try reader.text()
    ranges = try reader.deliveryRanges()
  }
}

extension ExtendRequest {
  func encode(into bytes: inout [UInt8]) {
    bytes.put(sequence)
    bytes.put(answeredThrough)
    bytes.put(consumer)
    bytes.put(by)
    bytes.putList(ranges) { $1.put($0) }
  }

  init(_ reader: inout FieldReader) throws(FrameError) {
    sequence = try reader.identifier()
    answeredThrough = try reader.identifier()
    consumer = try reader.identifier()
    by = try reader.identifier()
    ranges = try reader.deliveryRanges()
  }
}
