// What the machine decided becomes frames, and items of the outboxes. Confirms and settled
// watermarks are gathered and written once per turn.

import Base
import Node
import QueueMachine
import Wire

extension ClientGateway {
  /// Turns the effects of what was applied into what clients are told, and empties them. To be
  /// called in every turn behind `finishTurn` and its outputs.
  mutating func carryOutEffects(of replica: inout Replica, now: MonotonicTime) {
    needsTurn = false
    noticeLeadership(of: &replica, now: now)
    if !replica.effects.isEmpty {
      // The list is taken out, so that what is done here may use the replica, and given back with
      // its memory.
      var list = EffectList(isWanted: replica.effects.isWanted, node: replica.effects.node)
      swap(&list, &replica.effects)
      for effect in list.effects { carryOut(effect, of: list) }
      replayedSession = .none
      list.removeAll()
      swap(&list, &replica.effects)
      for client in touched { writeGathered(to: client) }
    }
    if isStopping { endAnswered(now: now) }
    submitDetaches(to: &replica, now: now)
    resumePaused(now: now, replica: &replica)
  }

  private mutating func carryOut(_ effect: Effect, of list: borrowing EffectList) {
    switch effect {
    case .confirmed(let session, let first, let count, let firstID, let copies):
      confirm(session, first, count, firstID, copies)
    case .deliver(let session, let consumer, let range):
      deliver(list.deliveries[range], to: consumer, of: session)
    case .settled(let session, let through):
      guard let client = sessions[session.rawValue] else { return }
      client.settledThrough = max(client.settledThrough, through)
      client.answeredCommand = max(client.answeredCommand, through)
      touch(client)
    case .refused(let session, let first, let count, let refusal):
      guard let client = sessions[session.rawValue] else { return }
      writeGathered(to: client)
      client.unansweredPublishes = max(0, client.unansweredPublishes - Int(count))
      let detail = client.takeDetail(of: first)
      send(.publishRefused(first: first, count: count, refusal, detail: detail), to: client)
    case .settleRefused(let session, let sequence, let consumer, let range, let refusal):
      guard let client = sessions[session.rawValue] else { return }
      send(
        .settleRefused(sequence: sequence, consumer: consumer, range: range, refusal), to: client)
    case .lapsed(let session, let consumer, let range):
      guard let client = sessions[session.rawValue] else { return }
      let ranges = list.ranges[range]
      client.outbox.remove(of: consumer, in: ranges)
      send(.lapsed(consumer: consumer, ranges: Array(ranges)), to: client)
    case .holding(let session, let consumer, let through, let range):
      guard let client = sessions[session.rawValue] else { return }
      let ranges = Array(list.ranges[range])
      send(.holding(consumer: consumer, through: through, ranges: ranges), to: client)
    case .consumerCancelled(let session, let consumer):
      cancel(consumer, of: session)
    case .reply(let requester, let tag, let reply):
      answer(requester, tag, reply)
    case .sessionOpened(let origin, let session, let lastSequence, let epoch):
      opened(origin, session, lastSequence, epoch)
    case .sessionOpenRefused(let origin, let refusal):
      openRefused(origin, refusal)
    case .sessionAttached(let origin, let session, let lastSequence, let settledThrough):
      attached(origin, session, lastSequence, settledThrough)
    case .sessionAttachRefused(let origin, let session, let refusal):
      attachRefused(origin, session, refusal)
    case .sessionEnded(let session, let end):
      ended(session, end)
    case .topology:
      // For the gateway of AMQP clients.
      break
    case .producerFenced(let session):
      guard let client = sessions[session.rawValue] else { return }
      writeGathered(to: client)
      send(.producerFenced, to: client)
    }
  }
}

// Answers of the hot path.
extension ClientGateway {
  private mutating func confirm(
    _ session: SessionID, _ first: PublishSequence, _ count: UInt32, _ message: MessageID,
    _ copies: UInt32
  ) {
    guard let client = sessions[session.rawValue] else { return }
    let gathered = client.confirmedCount
    let goesOn =
      gathered > 0 && copies == client.confirmedCopies
      && first.rawValue == client.confirmedFirst.rawValue + UInt64(gathered)
      && message.rawValue == client.confirmedMessage.rawValue + UInt64(gathered) * UInt64(copies)
    if goesOn {
      client.confirmedCount = gathered + count
    } else {
      writeConfirmed(to: client)
      client.confirmedFirst = first
      client.confirmedMessage = message
      client.confirmedCount = count
      client.confirmedCopies = copies
    }
    client.unansweredPublishes = max(0, client.unansweredPublishes - Int(count))
    counters.confirmed += Int(count)
    touch(client)
  }

  private mutating func writeConfirmed(to client: ClientConnection) {
    guard client.confirmedCount > 0 else { return }
    let frame = ServerFrame.confirmed(
      first: client.confirmedFirst, count: client.confirmedCount, message: client.confirmedMessage,
      copies: client.confirmedCopies)
    client.confirmedCount = 0
    send(frame, to: client)
  }

  /// Writes what was gathered for a connection, before anything that must come behind it.
  private mutating func writeGathered(to client: ClientConnection) {
    writeConfirmed(to: client)
    guard client.settledThrough > .zero else { return }
    let frame = ServerFrame.settled(through: client.settledThrough)
    client.settledThrough = .zero
    send(frame, to: client)
  }

  private mutating func deliver(
    _ deliveries: ArraySlice<Delivery>, to consumer: ConsumerID, of session: SessionID
  ) {
    // Without a connection they stay leased and come again when the session is attached.
    guard let client = sessions[session.rawValue] else { return }
    guard client.outbox.count + deliveries.count <= ClientGatewayLimits.outboxItems else {
      counters.faults += 1
      drop(client)
      return
    }
    client.outbox.append(deliveries, to: consumer)
    if !client.isDelivering {
      client.isDelivering = true
      delivering.append(client)
    }
  }
}

// Sessions.
extension ClientGateway {
  private mutating func opened(
    _ origin: SessionOrigin, _ session: SessionID, _ lastSequence: PublishSequence,
    _ epoch: ProducerEpoch
  ) {
    // One of an AMQP client is another gateway's.
    guard Self.owns(origin.connection) else { return }
    guard let client = clients[origin.connection], case .opening(let request) = client.session
    else {
      // Its connection closed meanwhile: the session's time without one begins.
      detaching.append((session, origin))
      needsTurn = true
      return
    }
    client.session = .attached(session)
    sessions.insert(client, for: session.rawValue)
    send(
      .sessionOpened(session: session, lastSequence: lastSequence, epoch: epoch),
      request: request, to: client)
  }

  private mutating func openRefused(_ origin: SessionOrigin, _ refusal: Refusal) {
    guard let client = clients[origin.connection], case .opening(let request) = client.session
    else { return }
    client.session = .none
    refuse(request, refusal, "", to: client)
  }

  private mutating func attached(
    _ origin: SessionOrigin, _ session: SessionID, _ lastSequence: PublishSequence,
    _ settledThrough: CommandSequence
  ) {
    replayedSession = session
    if let earlier = sessions[session.rawValue], earlier.token != origin.connection {
      // The client came back before the loss of its connection was noticed here.
      sessions.remove(session.rawValue)
      earlier.loseSession()
      drop(earlier)
    }
    guard let client = clients[origin.connection],
      case .attaching(let request, session) = client.session
    else {
      if sessions[session.rawValue] == nil {
        detaching.append((session, origin))
        needsTurn = true
      }
      return
    }
    client.session = .attached(session)
    sessions.insert(client, for: session.rawValue)
    send(
      .sessionAttached(
        session: session, lastSequence: lastSequence, settledThrough: settledThrough),
      request: request, to: client)
  }

  private mutating func attachRefused(
    _ origin: SessionOrigin, _ session: SessionID, _ refusal: Refusal
  ) {
    guard let client = clients[origin.connection],
      case .attaching(let request, session) = client.session
    else { return }
    client.session = .none
    refuse(request, refusal, "session \(session)", to: client)
  }

  private mutating func ended(_ session: SessionID, _ end: SessionEnd) {
    guard let client = sessions[session.rawValue] else { return }
    sessions.remove(session.rawValue)
    writeGathered(to: client)
    if case .closing(let request, _) = client.session {
      client.loseSession()
      client.session = .none
      send(.done(count: 0), request: request, to: client)
    } else {
      client.loseSession()
      let reason: SessionEndReason = end == .closed ? .closed : .expired
      send(.sessionEnded(session: session, reason), to: client)
    }
  }

  private mutating func cancel(_ consumer: ConsumerID, of session: SessionID) {
    guard let client = sessions[session.rawValue] else { return }
    client.outbox.remove(of: consumer)
    // Directly behind an attachment it is the answer to naming a consumer that is no more.
    let refusal: Refusal = session == replayedSession ? .consumerNotFound : .queueNotFound
    send(.consumerCancelled(consumer: consumer, refusal), to: client)
  }
}

// Replies to requests.
extension ClientGateway {
  private mutating func answer(_ requester: Requester, _ tag: RequestTag, _ reply: Reply) {
    let found =
      switch requester {
      case .session(let session): sessions[session.rawValue]
      case .connection(let origin): clients[origin.connection]
      }
    // A request of an earlier connection or process: whoever asked has asked again.
    guard let client = found, let asked = client.takeTagged(tag) else { return }
    client.waitingRequests -= 1
    switch reply {
    case .queueDeclared(let queue, let isNew):
      send(.queueReply(queue: queue, isNew: isNew), request: asked.request, to: client)
    case .queueDeleted(let messages), .queuePurged(let messages):
      send(.done(count: messages), request: asked.request, to: client)
    case .subscribed, .creditSet, .messageCancelled, .messageRescheduled:
      send(.done(count: 0), request: asked.request, to: client)
    case .queueRedriven(let messages, let skipped, let next, let through):
      let frame = ServerFrame.queueRedriven(
        messages: messages, skipped: skipped, next: next ?? MessageID(rawValue: 0),
        through: through)
      send(frame, request: asked.request, to: client)
    case .unsubscribed:
      if let consumer = asked.returningConsumer { client.outbox.remove(of: consumer) }
      send(.done(count: 0), request: asked.request, to: client)
    case .refused(let refusal, let detail):
      refuse(asked.request, refusal, detail, to: client)
    case .topology(.done):
      send(.done(count: 0), request: asked.request, to: client)
    case .topology(.failed(let failure)):
      refuse(asked.request, .settingInvalid, failure.detail, to: client)
    case .topology:
      // Nothing that a native client can ask for.
      refuse(asked.request, .unknownRequest, "", to: client)
    }
  }
}
