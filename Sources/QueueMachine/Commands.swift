// What the machine can be told: the payload of a log entry of kind `commands`. Written by the
// proposing leader, read by `QueueMachine.apply` on every replica. Little-endian, unaligned.
//
//   entry:    u64 stamp (MachineTime), command…
//   command:  u32 length (of the whole command, this field included), u8 kind, fields
//
// An entry without commands is a tick: it only moves the clock. A publish carries its run of
// message records as its last field, copied once, so that the records lie in the log as the client
// sent them.

import Base

/// The connection that a session speaks through: a node and that node's own number for it. The
/// machine only compares these.
@frozen @usableFromInline package struct SessionOrigin: Hashable, Sendable {
  @usableFromInline package var node: NodeID
  @usableFromInline package var connection: UInt64

  @inlinable package init(node: NodeID, connection: UInt64) {
    self.node = node
    self.connection = connection
  }
}

/// How a session's client is connected, which decides what a change of leader means to it.
package enum SessionKind: UInt8, Sendable {
  /// Goes to the new leader itself: a change of leader detaches it.
  case native = 1
  /// Stays with the node that it is connected to, leader or not.
  case amqp = 2
}

/// A number that a requester chooses and finds again in the reply.
@frozen @usableFromInline package struct RequestTag: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// Who asked and gets the reply.
package enum Requester: Hashable, Sendable {
  case session(SessionID)
  /// A connection without a session, such as the command line's.
  case connection(SessionOrigin)
}

/// A consumer of an attaching session, with what its client has received.
package struct ConsumerPosition: Hashable, Sendable {
  package var consumer: ConsumerID
  /// The last delivery received, 0 for none.
  package var lastDelivery: DeliveryID

  package init(consumer: ConsumerID, lastDelivery: DeliveryID) {
    self.consumer = consumer
    self.lastDelivery = lastDelivery
  }
}

/// Which messages of a dead-letter queue go back.
package enum RedriveChoice: Hashable, Sendable {
  case all
  case reason(DeadLetterReason)
  case message(MessageID)
}

enum CommandKind: UInt8 {
  case openSession = 1
  case attachSession = 2
  case detachSession = 3
  case closeSession = 4
  case leaderChanged = 5
  case nodeGone = 6
  case declareQueue = 16
  case deleteQueue = 17
  case purgeQueue = 18
  case cancelMessage = 19
  case rescheduleMessage = 20
  case redriveQueue = 21
  case publish = 32
  case refusePublish = 33
  case transact = 34
  case subscribe = 48
  case setCredit = 49
  case unsubscribe = 50
  case settle = 51
  case extend = 52
  // Of AMQP gateways: TopologyCommands.swift.
  case relay = 64
  case endNodeSessions = 65
  case loseSession = 66
  case declareExchange = 67
  case deleteExchange = 68
  case bind = 69
  case unbind = 70
  case orderQueue = 71
  case dropQueue = 72
  case clearQueue = 73
  case route = 74
  case consume = 75
  case take = 76
  case mark = 77
  case addVirtualHost = 78
  case setUser = 79
  case commit = 80
}

/// Appends commands to an entry's payload. Sizes over the limits are the caller's bug: it checks
/// what clients send before it proposes.
package enum CommandWriter {
  /// Begins a batch; `setStamp` gives the real stamp when the entry is proposed.
  package static func beginBatch(stamp: MachineTime = .zero, into payload: inout [UInt8]) {
    payload.put(stamp)
  }

  /// Puts the stamp into a batch that begins at `offset` of `payload`.
  package static func setStamp(
    _ stamp: MachineTime, of payload: inout [UInt8], at offset: Int = 0
  ) {
    payload.patch(stamp.rawValue, at: offset)
  }

  /// Opens a session. A session of the same producer that is older can publish no more.
  ///
  /// - Parameters:
  ///   - producer: whom its publishes belong to; 0 for a session that does not publish.
  ///   - epoch: `none` takes the producer over; the epoch of an earlier session goes on with it,
  ///     or is refused with `producerFenced` if it was taken over since, or is forgotten.
  ///   - attempt: refused with `producerFenced` if this or a later one of the same client has had
  ///     the producer last.
  ///   - sessionsMax: the most sessions that there may be then, as the proposer is configured.
  ///     Above it a detached session that holds nothing makes room.
  ///   - timeout: how long the session outlives its connection; 0 ends it with the connection.
  ///   - name: for people, at most `FixedLimits.sessionNameBytesMax` bytes.
  package static func openSession(
    origin: SessionOrigin, kind: SessionKind, producer: ProducerID,
    epoch: ProducerEpoch = .none, attempt: OpenAttempt = .none, sessionsMax: UInt32 = .max,
    timeout: Nanoseconds, name: String, into payload: inout [UInt8]
  ) {
    let start = begin(.openSession, &payload)
    put(origin, &payload)
    payload.put(kind.rawValue)
    payload.put(producer)
    payload.put(epoch)
    payload.put(attempt)
    payload.put(sessionsMax)
    payload.put(timeout)
    payload.putShortText(name)
    end(start, &payload)
  }

  /// Takes up a session through another connection. Consumers that are not listed count as having
  /// received nothing.
  package static func attachSession(
    _ session: SessionID, origin: SessionOrigin, consumers: [ConsumerPosition],
    into payload: inout [UInt8]
  ) {
    let start = begin(.attachSession, &payload)
    payload.put(session)
    put(origin, &payload)
    payload.put(UInt16(consumers.count))
    for position in consumers {
      payload.put(position.consumer)
      payload.put(position.lastDelivery)
    }
    end(start, &payload)
  }

  /// The connection closed. Means nothing if the session is attached elsewhere by then.
  package static func detachSession(
    _ session: SessionID, origin: SessionOrigin, into payload: inout [UInt8]
  ) {
    let start = begin(.detachSession, &payload)
    payload.put(session)
    put(origin, &payload)
    end(start, &payload)
  }

  /// The client is done: what it holds goes back at once and the attempts do not count.
  package static func closeSession(_ session: SessionID, into payload: inout [UInt8]) {
    let start = begin(.closeSession, &payload)
    payload.put(session)
    end(start, &payload)
  }

  /// The first command of every new leader, which is `node`.
  package static func leaderChanged(to node: NodeID, into payload: inout [UInt8]) {
    let start = begin(.leaderChanged, &payload)
    payload.put(node)
    end(start, &payload)
  }

  /// All connections of native clients through `node` are lost.
  package static func nodeGone(_ node: NodeID, into payload: inout [UInt8]) {
    let start = begin(.nodeGone, &payload)
    payload.put(node)
    end(start, &payload)
  }

  package static func declareQueue(
    _ requester: Requester, tag: RequestTag, name: String, settings: QueueSettings,
    into payload: inout [UInt8]
  ) {
    let start = begin(.declareQueue, &payload)
    put(requester, &payload)
    payload.put(tag)
    payload.putShortText(name)
    settings.encode(into: &payload)
    end(start, &payload)
  }

  package static func deleteQueue(
    _ requester: Requester, tag: RequestTag, name: String, into payload: inout [UInt8]
  ) {
    let start = begin(.deleteQueue, &payload)
    put(requester, &payload)
    payload.put(tag)
    payload.putShortText(name)
    end(start, &payload)
  }

  /// Removes what waits, ready or delayed; what consumers hold stays.
  package static func purgeQueue(
    _ requester: Requester, tag: RequestTag, name: String, into payload: inout [UInt8]
  ) {
    let start = begin(.purgeQueue, &payload)
    put(requester, &payload)
    payload.put(tag)
    payload.putShortText(name)
    end(start, &payload)
  }

  /// Removes one message that waits, ready or delayed.
  package static func cancelMessage(
    _ requester: Requester, tag: RequestTag, queue: String, message: MessageID,
    into payload: inout [UInt8]
  ) {
    let start = begin(.cancelMessage, &payload)
    put(requester, &payload)
    payload.put(tag)
    payload.putShortText(queue)
    payload.put(message)
    end(start, &payload)
  }

  /// Makes a message that waits ready `delay` from now, sooner or later than before.
  package static func rescheduleMessage(
    _ requester: Requester, tag: RequestTag, queue: String, message: MessageID,
    delay: Nanoseconds, into payload: inout [UInt8]
  ) {
    let start = begin(.rescheduleMessage, &payload)
    put(requester, &payload)
    payload.put(tag)
    payload.putShortText(queue)
    payload.put(message)
    payload.put(delay)
    end(start, &payload)
  }

  /// Moves ready messages of a dead-letter queue back to the queues they came from.
  ///
  /// - Parameters:
  ///   - after: looks at messages behind this id; 0 begins with the first.
  ///   - through: and up to this one; 0 is all that are there now. A redrive in steps gives what
  ///     the first one's reply says, so that what fails again meanwhile is not moved forever.
  ///   - limit: moves at most so many. No more than `FixedLimits.redrivePerCommand` messages are
  ///     looked at; the reply says where to go on.
  package static func redriveQueue(
    _ requester: Requester, tag: RequestTag, queue: String, which: RedriveChoice,
    after: MessageID, through: MessageID, limit: UInt32, into payload: inout [UInt8]
  ) {
    let start = begin(.redriveQueue, &payload)
    put(requester, &payload)
    payload.put(tag)
    payload.putShortText(queue)
    switch which {
    case .all:
      payload.put(UInt8(0))
      payload.put(UInt64(0))
    case .reason(let reason):
      payload.put(UInt8(1))
      payload.put(UInt64(reason.rawValue))
    case .message(let id):
      payload.put(UInt8(2))
      payload.put(id)
    }
    payload.put(after)
    payload.put(through)
    payload.put(limit)
    end(start, &payload)
  }

  /// Publishes the `count` records of `run` as the producer's numbers from `first`.
  ///
  /// - Parameters:
  ///   - answeredThrough: the producer has seen the answers to all publishes through here and
  ///     will not ask for them again.
  ///   - run: records checked by `MessageRecord.check`, which gave `count`, at least 1.
  package static func publish(
    _ session: SessionID, first: PublishSequence, answeredThrough: PublishSequence,
    queue: QueueID, count: UInt32, run: UnsafeRawBufferPointer, into payload: inout [UInt8]
  ) {
    let head = CommandFrames.headerBytes + 32
    let length = head + run.count
    invariant(length <= FixedLimits.payloadBytesMax, "command of \(length) bytes")
    payload.putFields(head) { fields in
      fields.put(UInt32(length))
      fields.put(CommandKind.publish.rawValue)
      fields.put(session)
      fields.put(first)
      fields.put(answeredThrough)
      fields.put(queue)
      fields.put(count)
    }
    payload.append(contentsOf: run)
  }

  /// Answers `count` of the producer's numbers from `first` with a refusal, as `publish` answers
  /// with confirms: for publishes that are wrong in themselves, so that their numbers are used up
  /// and the producer can go on behind them.
  ///
  /// - Parameter refusal: one that is final (`Refusal.isFinal`).
  package static func refusePublish(
    _ session: SessionID, first: PublishSequence, answeredThrough: PublishSequence,
    count: UInt32, _ refusal: Refusal, into payload: inout [UInt8]
  ) {
    let start = begin(.refusePublish, &payload)
    payload.put(session)
    payload.put(first)
    payload.put(answeredThrough)
    payload.put(count)
    payload.put(refusal.rawValue)
    end(start, &payload)
  }

  /// - Parameters:
  ///   - credit: the most messages held at once, 1...`FixedLimits.creditMax`.
  ///   - priority: consumers of a lower one get what this one has no credit for.
  ///   - isExclusive: there may be no other consumer of the queue.
  package static func subscribe(
    _ session: SessionID, consumer: ConsumerID, tag: RequestTag, queue: QueueID, credit: UInt32,
    priority: Int16 = 0, isExclusive: Bool = false, into payload: inout [UInt8]
  ) {
    let start = begin(.subscribe, &payload)
    payload.put(session)
    payload.put(consumer)
    payload.put(tag)
    payload.put(queue)
    payload.put(credit)
    payload.put(UInt16(bitPattern: priority))
    payload.put(UInt8(isExclusive ? 1 : 0))
    end(start, &payload)
  }

  /// - Parameter credit: as in `subscribe`, or 0 to pause.
  package static func setCredit(
    _ session: SessionID, consumer: ConsumerID, tag: RequestTag, credit: UInt32,
    into payload: inout [UInt8]
  ) {
    let start = begin(.setCredit, &payload)
    payload.put(session)
    payload.put(consumer)
    payload.put(tag)
    payload.put(credit)
    end(start, &payload)
  }

  /// Ends a consumer. What it holds stays leased and can still be settled, or goes back at once
  /// without counting the attempts.
  package static func unsubscribe(
    _ session: SessionID, consumer: ConsumerID, tag: RequestTag, returnHeld: Bool,
    into payload: inout [UInt8]
  ) {
    let start = begin(.unsubscribe, &payload)
    payload.put(session)
    payload.put(consumer)
    payload.put(tag)
    payload.put(UInt8(returnHeld ? 1 : 0))
    end(start, &payload)
  }

  /// Settles deliveries of one consumer.
  ///
  /// - Parameters:
  ///   - sequence: the session's next number for settles and extends.
  ///   - answeredThrough: the client has seen the answers through here.
  ///   - ranges: ascending, from 1, without overlap; refused as `malformedRequest` otherwise.
  ///   - delay: wait before the next attempt in place of the queue's rule, for `.negative` only.
  ///   - error: why it failed, for `.negative` and `.reject`; cut to
  ///     `FixedLimits.errorBytesMax`.
  package static func settle(
    _ session: SessionID, sequence: CommandSequence, answeredThrough: CommandSequence,
    kind: SettleKind, consumer: ConsumerID, ranges: some Collection<DeliveryRange>,
    delay: Nanoseconds? = nil, error: String = "", into payload: inout [UInt8]
  ) {
    let start = begin(.settle, &payload)
    payload.put(session)
    payload.put(sequence)
    payload.put(answeredThrough)
    payload.put(consumer)
    payload.put(kind.rawValue)
    payload.put(UInt8(delay == nil ? 0 : 1))
    payload.put(delay ?? .zero)
    payload.putShortText(error.cut(toBytes: FixedLimits.errorBytesMax))
    put(ranges, &payload)
    end(start, &payload)
  }

  /// Sets the ends of the leases of deliveries to `duration` from now. The ranges are as in
  /// `settle`.
  package static func extend(
    _ session: SessionID, sequence: CommandSequence, answeredThrough: CommandSequence,
    consumer: ConsumerID, ranges: some Collection<DeliveryRange>, duration: Nanoseconds,
    into payload: inout [UInt8]
  ) {
    let start = begin(.extend, &payload)
    payload.put(session)
    payload.put(sequence)
    payload.put(answeredThrough)
    payload.put(consumer)
    payload.put(duration)
    put(ranges, &payload)
    end(start, &payload)
  }

  static func begin(_ kind: CommandKind, _ payload: inout [UInt8]) -> Int {
    let start = payload.count
    payload.put(UInt32(0))
    payload.append(kind.rawValue)
    return start
  }

  static func end(_ start: Int, _ payload: inout [UInt8]) {
    let length = payload.count - start
    invariant(length <= FixedLimits.payloadBytesMax, "command of \(length) bytes")
    payload.patch(UInt32(length), at: start)
  }

  private static func put(_ origin: SessionOrigin, _ payload: inout [UInt8]) {
    payload.put(origin.node)
    payload.put(origin.connection)
  }

  /// u64 session, 0 for none; u32 node, u64 connection.
  static func put(_ requester: Requester, _ payload: inout [UInt8]) {
    switch requester {
    case .session(let session):
      payload.put(session)
      put(SessionOrigin(node: NodeID(0), connection: 0), &payload)
    case .connection(let origin):
      payload.put(SessionID.none)
      put(origin, &payload)
    }
  }

  static func put(_ ranges: some Collection<DeliveryRange>, _ payload: inout [UInt8]) {
    invariant(ranges.count <= FixedLimits.rangesPerSettle, "\(ranges.count) ranges in a settle")
    payload.put(UInt16(ranges.count))
    for range in ranges {
      payload.put(range.first)
      payload.put(range.last)
    }
  }
}

extension String {
  /// The longest beginning of at most `limit` bytes that ends between characters.
  func cut(toBytes limit: Int) -> String {
    if utf8.count <= limit { return self }
    var bytes = 0
    var result = String.UnicodeScalarView()
    for scalar in unicodeScalars {
      bytes += UTF8.width(scalar)
      if bytes > limit { break }
      result.append(scalar)
    }
    return String(result)
  }
}
