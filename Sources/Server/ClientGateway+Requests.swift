// What clients ask for: publishes, settles and requests become commands of the replica's next
// batch, written straight into it from the connection's bytes. What is wrong in itself is refused
// here, before it costs anything.

import Base
import Node
import QueueMachine
import Wire

// Publishes, settles and extends: numbered, without a request id.
extension ClientGateway {
  mutating func takePublish(
    _ publish: PublishView, from client: ClientConnection, now: MonotonicTime,
    replica: inout Replica
  ) -> Intake {
    guard case .attached(let session) = client.session else {
      refuseWithoutSession(publish, client, replica)
      return .taken
    }
    guard replica.hasRoom else { return .noRoom }
    guard maySend(publish, client) else { return .taken }
    do throws(MessageRecordError) {
      let count = try MessageRecord.check(
        publish.run, contentBytesMax: configuration.limits.messageBytes)
      guard count == publish.count else {
        let detail = "\(publish.count) messages announced and \(count) sent"
        refuseForGood(publish, .messageMalformed, detail, client, session, now, &replica)
        return .taken
      }
    } catch {
      refuseForGood(publish, error.refusal, error.sentence, client, session, now, &replica)
      return .taken
    }
    replica.submit(now: now) {
      CommandWriter.publish(
        session, first: publish.first, answeredThrough: publish.answeredThrough,
        queue: publish.queue, count: UInt32(publish.count), run: publish.run, into: &$0)
    }
    client.unansweredPublishes += publish.count
    counters.published += publish.count
    return .taken
  }

  /// Whether so many more can be taken now; refuses them otherwise, to be sent again later.
  mutating func maySend(_ publish: PublishView, _ client: ClientConnection) -> Bool {
    if let noSpace {
      refuse(publish, .overloaded, noSpace, client)
      return false
    }
    let unansweredMax = publishWindow
    guard publish.count <= publishCountMax,
      client.unansweredPublishes + publish.count <= unansweredMax
    else {
      let detail = "\(client.unansweredPublishes) publishes are unanswered, \(unansweredMax) may be"
      refuse(publish, .tooManyUnanswered, detail, client)
      return false
    }
    return true
  }

  /// Refuses what is wrong in itself through the log, where it uses its numbers up: the producer
  /// could never go on behind them otherwise, and is told the same when it asks again.
  mutating func refuseForGood(
    _ publish: PublishView, _ refusal: Refusal, _ detail: String, _ client: ClientConnection,
    _ session: SessionID, _ now: MonotonicTime, _ replica: inout Replica
  ) {
    client.note(detail, of: publish.first)
    replica.submit(now: now) {
      CommandWriter.refusePublish(
        session, first: publish.first, answeredThrough: publish.answeredThrough,
        count: UInt32(publish.count), refusal, into: &$0)
    }
    client.unansweredPublishes += publish.count
  }

  private mutating func refuse(
    _ publish: PublishView, _ refusal: Refusal, _ detail: String, _ client: ClientConnection
  ) {
    send(
      .publishRefused(
        first: publish.first, count: UInt32(publish.count), refusal, detail: detail),
      to: client)
  }

  mutating func refuseWithoutSession(
    _ publish: PublishView, _ client: ClientConnection, _ replica: borrowing Replica
  ) {
    if case .lost = client.session { return }
    let refusal: Refusal = replica.isLeader ? .sessionNotFound : .notLeader
    refuse(publish, refusal, "this connection has no session", client)
  }

  private mutating func takeSettle(
    _ settle: SettleRequest, from client: ClientConnection, now: MonotonicTime,
    replica: inout Replica
  ) throws(FrameError) -> Intake {
    try checkRanges(settle.ranges, of: .settle)
    guard case .attached(let session) = client.session else {
      refuseWithoutSession(settle.sequence, settle.consumer, settle.ranges, client, replica)
      return .taken
    }
    guard replica.hasRoom else { return .noRoom }
    replica.submit(now: now) {
      CommandWriter.settle(
        session, sequence: settle.sequence, answeredThrough: settle.answeredThrough,
        kind: settle.kind, consumer: settle.consumer, ranges: settle.ranges, delay: settle.delay,
        error: settle.error, into: &$0)
    }
    client.lastCommand = max(client.lastCommand, settle.sequence)
    return .taken
  }

  private mutating func takeExtend(
    _ extend: ExtendRequest, from client: ClientConnection, now: MonotonicTime,
    replica: inout Replica
  ) throws(FrameError) -> Intake {
    try checkRanges(extend.ranges, of: .extend)
    guard case .attached(let session) = client.session else {
      refuseWithoutSession(extend.sequence, extend.consumer, extend.ranges, client, replica)
      return .taken
    }
    guard replica.hasRoom else { return .noRoom }
    replica.submit(now: now) {
      CommandWriter.extend(
        session, sequence: extend.sequence, answeredThrough: extend.answeredThrough,
        consumer: extend.consumer, ranges: extend.ranges, duration: extend.by, into: &$0)
    }
    client.lastCommand = max(client.lastCommand, extend.sequence)
    return .taken
  }

  func checkRanges(
    _ ranges: [DeliveryRange], of kind: FrameKind
  ) throws(FrameError) {
    guard ranges.count <= FixedLimits.rangesPerSettle else {
      throw .invalidValue(kind, field: "number of ranges", value: UInt64(ranges.count))
    }
    var last = DeliveryID(0)
    for range in ranges {
      guard last < range.first, range.first <= range.last else {
        throw .invalidValue(kind, field: "range", value: range.first.rawValue)
      }
      last = range.last
    }
  }

  private mutating func refuseWithoutSession(
    _ sequence: CommandSequence, _ consumer: ConsumerID, _ ranges: [DeliveryRange],
    _ client: ClientConnection, _ replica: borrowing Replica
  ) {
    if case .lost = client.session { return }
    let refusal: Refusal = replica.isLeader ? .sessionNotFound : .notLeader
    for range in ranges {
      send(
        .settleRefused(sequence: sequence, consumer: consumer, range: range, refusal), to: client)
    }
  }
}

// Requests with an id, each of which gets one reply.
extension ClientGateway {
  mutating func takeRequest(
    _ frame: ClientFrame, _ request: RequestID, from client: ClientConnection, now: MonotonicTime,
    replica: inout Replica
  ) throws(FrameError) -> Intake {
    switch frame {
    case .transact(let transact):
      return try takeTransact(transact, from: client, now: now, replica: &replica)
    case .settle(let settle):
      return try takeSettle(settle, from: client, now: now, replica: &replica)
    case .extend(let extend):
      return try takeExtend(extend, from: client, now: now, replica: &replica)
    case .ping:
      send(.pong, request: request, to: client)
      return .taken
    case .hello:
      send(.helloReply(helloReply(replica)), request: request, to: client)
      return .taken
    default:
      break
    }
    // A refusal with id 0 would be about the connection.
    guard request != .none else { throw .invalidValue(frame.kind, field: "request id", value: 0) }
    guard client.waitingRequests < ClientGatewayLimits.waitingRequestsPerConnection else {
      refuse(request, .overloaded, "too many requests of this connection are waiting", to: client)
      return .taken
    }
    if takeNodeRequest(frame, request, from: client, replica: replica) { return .taken }
    guard replica.isLeader else {
      refuse(request, .notLeader, leaderSentence, to: client)
      return .taken
    }
    if client.awaitsLargeAnswer, WaitingRead.isLarge(frame) { return .answerDue }
    if takeRead(frame, request, from: client, now: now, replica: &replica) { return .taken }
    guard replica.hasRoom else { return .noRoom }
    takeCommand(frame, request, from: client, now: now, replica: &replica)
    return .taken
  }

  var leaderSentence: String {
    guard let leader = knownLeader else { return "no leader is known at the moment" }
    return "node \(leader) leads"
  }

  private mutating func takeCommand(
    _ frame: ClientFrame, _ request: RequestID, from client: ClientConnection, now: MonotonicTime,
    replica: inout Replica
  ) {
    switch frame {
    case .openSession, .attachSession, .closeSession:
      takeSessionRequest(frame, request, from: client, now: now, replica: &replica)
    case .subscribe, .setCredit, .unsubscribe:
      takeConsumerRequest(frame, request, from: client, now: now, replica: &replica)
    case .declareQueue, .deleteQueue, .purgeQueue:
      takeQueueRequest(frame, request, from: client, now: now, replica: &replica)
    case .cancelMessage, .rescheduleMessage, .redriveQueue:
      takeMessageRequest(frame, request, from: client, now: now, replica: &replica)
    case .setUser(let name, let salt, let hash):
      let requester = Requester.connection(origin(of: client))
      guard isShort(name, salt, hash, request, client) else { return }
      let tag = expectReply(to: request, from: client)
      replica.submit(now: now) {
        CommandWriter.setUser(
          requester, tag: tag, name: name, salt: salt, hash: hash, into: &$0)
      }
    case .addVirtualHost(let name):
      let requester = Requester.connection(origin(of: client))
      guard isShort(name, [], [], request, client) else { return }
      let tag = expectReply(to: request, from: client)
      replica.submit(now: now) {
        CommandWriter.addVirtualHost(requester, tag: tag, name: name, into: &$0)
      }
    default:
      refuse(request, .unknownRequest, "\(frame.kind) is not served here", to: client)
    }
  }

  /// The machine says what names are right; what it is given has a bound.
  private mutating func isShort(
    _ name: String, _ salt: [UInt8], _ hash: [UInt8], _ request: RequestID,
    _ client: ClientConnection
  ) -> Bool {
    if name.utf8.count <= 255, salt.count <= 64, hash.count <= 64 { return true }
    refuse(request, .settingInvalid, "a name, salt or hash is too long", to: client)
    return false
  }

  private mutating func takeSessionRequest(
    _ frame: ClientFrame, _ request: RequestID, from client: ClientConnection, now: MonotonicTime,
    replica: inout Replica
  ) {
    let origin = origin(of: client)
    switch (frame, client.session) {
    case (.openSession(let producer, let epoch, let attempt, let timeout, let name), .none),
      (.openSession(let producer, let epoch, let attempt, let timeout, let name), .lost):
      client.session = .opening(request)
      let sessionsMax = UInt32(clamping: configuration.limits.sessions)
      let span = sessionTimeout(timeout)
      let shortName = name.clipped(toBytes: FixedLimits.sessionNameBytesMax)
      replica.submit(now: now) {
        CommandWriter.openSession(
          origin: origin, kind: .native, producer: producer, epoch: epoch,
          attempt: attempt, sessionsMax: sessionsMax, timeout: span, name: shortName, into: &$0)
      }
    case (.attachSession(let attach), .none), (.attachSession(let attach), .lost):
      let consumersMax = min(
        configuration.limits.consumersPerSession, FixedLimits.consumersPerAttach)
      guard attach.consumers.count <= consumersMax else {
        refuse(request, .tooManyConsumers, "\(attach.consumers.count) named", to: client)
        return
      }
      client.session = .attaching(request, attach.session)
      let positions = attach.consumers.map {
        ConsumerPosition(consumer: $0.consumer, lastDelivery: $0.received)
      }
      replica.submit(now: now) {
        CommandWriter.attachSession(
          attach.session, origin: origin, consumers: positions, into: &$0)
      }
    case (.closeSession, .attached(let session)):
      client.session = .closing(request, session)
      replica.submit(now: now) { CommandWriter.closeSession(session, into: &$0) }
    case (.closeSession, _):
      refuse(request, .sessionNotFound, "this connection has no session", to: client)
    default:
      refuse(request, .malformedRequest, "this connection has a session", to: client)
    }
  }

  /// How long a session outlives its connection whose client asks for so long: 0 is for the usual
  /// time, and a client that is gone must not keep others out for days.
  private func sessionTimeout(_ asked: Nanoseconds) -> Nanoseconds {
    let usual = configuration.timeouts.session
    let most = Nanoseconds(rawValue: usual.rawValue * ClientGatewayLimits.sessionTimeoutFactor)
    return asked == .zero ? usual : min(asked, most)
  }

  private mutating func takeConsumerRequest(
    _ frame: ClientFrame, _ request: RequestID, from client: ClientConnection, now: MonotonicTime,
    replica: inout Replica
  ) {
    guard case .attached(let session) = client.session else {
      refuse(request, .sessionNotFound, "this connection has no session", to: client)
      return
    }
    switch frame {
    case .subscribe(let consumer, let queue, let credit, let priority, let isExclusive):
      guard isValid(credit: credit, atLeast: 1, request, client) else { return }
      let known = replica.machine.consumers(of: session)
      guard known.count < configuration.limits.consumersPerSession || known.contains(consumer)
      else {
        refuse(request, .tooManyConsumers, "the session has \(known.count)", to: client)
        return
      }
      let tag = expectReply(to: request, from: client)
      replica.submit(now: now) {
        CommandWriter.subscribe(
          session, consumer: consumer, tag: tag, queue: queue, credit: credit,
          priority: priority, isExclusive: isExclusive, into: &$0)
      }
    case .setCredit(let consumer, let credit):
      guard isValid(credit: credit, atLeast: 0, request, client) else { return }
      let tag = expectReply(to: request, from: client)
      replica.submit(now: now) {
        CommandWriter.setCredit(
          session, consumer: consumer, tag: tag, credit: credit, into: &$0)
      }
    case .unsubscribe(let consumer, let returnHeld):
      let tag = expectReply(
        to: request, from: client, returningConsumer: returnHeld ? consumer : nil)
      replica.submit(now: now) {
        CommandWriter.unsubscribe(
          session, consumer: consumer, tag: tag, returnHeld: returnHeld, into: &$0)
      }
    default:
      invariant(false, "\(frame.kind) is no consumer's request")
    }
  }

  private mutating func isValid(
    credit: UInt32, atLeast least: UInt32, _ request: RequestID, _ client: ClientConnection
  ) -> Bool {
    if (least...FixedLimits.creditMax).contains(credit) { return true }
    let detail = "credit must be between \(least) and \(FixedLimits.creditMax)"
    refuse(request, .settingInvalid, detail, to: client)
    return false
  }

  private mutating func takeQueueRequest(
    _ frame: ClientFrame, _ request: RequestID, from client: ClientConnection, now: MonotonicTime,
    replica: inout Replica
  ) {
    let requester = Requester.connection(origin(of: client))
    switch frame {
    case .declareQueue(let name, let settings):
      guard isValid(name, request, client) else { return }
      if let fault = settings.fault {
        refuse(request, .settingInvalid, fault, to: client)
        return
      }
      let queueCount = replica.machine.queueCount
      if queueCount >= configuration.limits.queues, replica.machine.queue(named: name) == nil {
        refuse(request, .tooManyQueues, "there are \(queueCount) queues", to: client)
        return
      }
      let tag = expectReply(to: request, from: client)
      replica.submit(now: now) {
        CommandWriter.declareQueue(
          requester, tag: tag, name: name, settings: settings, into: &$0)
      }
    case .deleteQueue(let name):
      guard isValid(name, request, client) else { return }
      let tag = expectReply(to: request, from: client)
      replica.submit(now: now) {
        CommandWriter.deleteQueue(requester, tag: tag, name: name, into: &$0)
      }
    case .purgeQueue(let name):
      guard isValid(name, request, client) else { return }
      let tag = expectReply(to: request, from: client)
      replica.submit(now: now) {
        CommandWriter.purgeQueue(requester, tag: tag, name: name, into: &$0)
      }
    default:
      invariant(false, "\(frame.kind) is no request about a queue")
    }
  }

  private mutating func takeMessageRequest(
    _ frame: ClientFrame, _ request: RequestID, from client: ClientConnection, now: MonotonicTime,
    replica: inout Replica
  ) {
    let requester = Requester.connection(origin(of: client))
    switch frame {
    case .cancelMessage(let queue, let message):
      guard isValid(queue, request, client) else { return }
      let tag = expectReply(to: request, from: client)
      replica.submit(now: now) {
        CommandWriter.cancelMessage(
          requester, tag: tag, queue: queue, message: message, into: &$0)
      }
    case .rescheduleMessage(let queue, let message, let delay):
      guard isValid(queue, request, client) else { return }
      let tag = expectReply(to: request, from: client)
      replica.submit(now: now) {
        CommandWriter.rescheduleMessage(
          requester, tag: tag, queue: queue, message: message, delay: delay, into: &$0)
      }
    case .redriveQueue(let queue, let which, let after, let through, let limit):
      guard isValid(queue, request, client) else { return }
      guard limit > 0 else {
        refuse(request, .settingInvalid, "the limit of a redrive must be at least 1", to: client)
        return
      }
      let tag = expectReply(to: request, from: client)
      replica.submit(now: now) {
        CommandWriter.redriveQueue(
          requester, tag: tag, queue: queue, which: RedriveChoice(which),
          after: after, through: through, limit: limit, into: &$0)
      }
    default:
      invariant(false, "\(frame.kind) is no request about messages")
    }
  }

  private mutating func isValid(
    _ name: String, _ request: RequestID, _ client: ClientConnection
  ) -> Bool {
    if QueueSettings.isValid(name: name) { return true }
    refuse(
      request, .queueNameInvalid, "a queue's name has 1 to 255 bytes and no control characters",
      to: client)
    return false
  }

  /// Notes that the machine will reply to `request`, and the tag by which it does.
  private mutating func expectReply(
    to request: RequestID, from client: ClientConnection, returningConsumer: ConsumerID? = nil
  ) -> RequestTag {
    let tag = RequestTag(nextTag)
    nextTag += 1
    client.tagged.append(
      ClientConnection.TaggedRequest(
        tag: tag, request: request, returningConsumer: returningConsumer))
    client.waitingRequests += 1
    return tag
  }
}

extension RedriveChoice {
  init(_ scope: RedriveScope) {
    switch scope {
    case .all: self = .all
    case .message(let message): self = .message(message)
    case .reason(.deliveriesExhausted): self = .reason(.deliveriesExhausted)
    case .reason(.rejected): self = .reason(.rejected)
    case .reason(.expired): self = .reason(.expired)
    case .reason(.overflowed): self = .reason(.overflowed)
    }
  }
}

extension MessageRecordError {
  var refusal: Refusal {
    if case .tooLarge = self { .messageTooLarge } else { .messageMalformed }
  }

  var sentence: String {
    switch self {
    case .truncated(let offset): "the record at \(offset) ends early"
    case .lengthsDisagree(let offset): "the lengths in the record at \(offset) do not add up"
    case .unknownFlags(let flags, let offset): "the record at \(offset) has unknown flags \(flags)"
    case .tooLarge(let bytes, let limit, let offset):
      "the message at \(offset) has \(bytes) bytes, \(limit) are allowed"
    case .notUTF8(let offset): "the record at \(offset) has text that is no UTF-8"
    }
  }
}

extension String {
  /// The longest beginning within `limit` bytes that ends between characters.
  func clipped(toBytes limit: Int) -> String {
    guard utf8.count > limit else { return self }
    var end = utf8.index(utf8.startIndex, offsetBy: limit)
    while end.samePosition(in: unicodeScalars) == nil { end = utf8.index(before: end) }
    return String(self[..<end])
  }
}
