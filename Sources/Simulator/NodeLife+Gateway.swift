// A simulated node and its clients: sessions, commands into the replica's batch, effects out, as
// the server's `ClientGateway` does it.

import Base
import Consensus
import LogStore
import Node
import QueueMachine

/// A client's connection as the node sees it.
final class GatewayClient {
  enum Session {
    case none
    case opening(RequestNumber)
    case attaching(RequestNumber, SessionID)
    case attached(SessionID)
    /// Leadership was lost: nothing of it is valid here any more.
    case lost
  }

  let connection: ClientConnection
  let token: UInt64
  var session = Session.none
  var tagged: [(tag: RequestTag, request: RequestNumber)] = []
  /// What could not be taken for want of room, in order.
  var waiting: [ClientRequest] = []
  var outbox: [(consumer: ConsumerID, delivery: Delivery)] = []

  init(_ connection: ClientConnection, token: UInt64) {
    self.connection = connection
    self.token = token
  }

  func loseSession() {
    session = .lost
    outbox = []
  }
}

extension NodeLife {
  private var id: NodeID { replica.id }

  func admit(_ connection: ClientConnection) {
    // What is new is told to the others first, or this one would hear it twice.
    noticeLeadership(now: localNow)
    let client = GatewayClient(connection, token: nextToken)
    nextToken += 1
    clients.append(client)
    reply(.leader(knownLeader.map { simulation.place($0) }), to: client)
  }

  func clientClosed(_ connection: ClientConnection) {
    guard let client = clients.first(where: { $0.connection === connection }) else { return }
    drop(client)
  }

  private func drop(_ client: GatewayClient) {
    if case .attached(let session) = client.session {
      sessions[session] = nil
      detaching.append((session, origin(of: client)))
      needsTurn = true
    }
    client.loseSession()
    clients.removeAll { $0 === client }
    simulation.clientNetwork.closeFromNode(client.connection)
  }

  private func origin(of client: GatewayClient) -> SessionOrigin {
    SessionOrigin(node: id, connection: client.token)
  }

  private func reply(_ reply: ServerReply, to client: GatewayClient) {
    simulation.clientNetwork.send(reply, over: client.connection)
  }

  private func submitDetaches(now: MonotonicTime) {
    guard !detaching.isEmpty else { return }
    if replica.isLeader {
      for (session, origin) in detaching {
        replica.submit(now: now) {
          CommandWriter.detachSession(session, origin: origin, into: &$0)
        }
      }
    }
    detaching.removeAll()
  }

  func gatewayTick(now: MonotonicTime) {
    needsTurn = false
    noticeLeadership(now: now)
    submitDetaches(now: now)
    takeWaiting(now: now)
  }

  // MARK: Leadership

  func noticeLeadership(now: MonotonicTime) {
    let term = replica.consensus.term
    let isLeader = replica.isLeader
    let leader = replica.leader
    guard term != knownTerm || isLeader != knownIsLeader || leader != knownLeader else { return }
    let losesSessions = knownIsLeader && (!isLeader || term != knownTerm)
    let begins = isLeader && (!knownIsLeader || term != knownTerm)
    let isNews = leader != knownLeader
    knownTerm = term
    knownIsLeader = isLeader
    knownLeader = leader
    if losesSessions { loseSessions() }
    if begins {
      let node = id
      replica.submit(now: now) { CommandWriter.nodeGone(node, into: &$0) }
      needsTurn = true
    }
    guard isNews || losesSessions else { return }
    for client in clients { reply(.leader(leader.map { simulation.place($0) }), to: client) }
  }

  private func loseSessions() {
    sessions = [:]
    detaching = []
    waitingReads = []
    for client in clients {
      for asked in client.tagged { reply(.refused(asked.request, .notLeader), to: client) }
      client.tagged = []
      switch client.session {
      case .none, .lost: break
      case .attached: client.loseSession()
      case .opening(let request), .attaching(let request, _):
        // Its command may still be carried out, so the client comes back through another
        // connection.
        client.loseSession()
        reply(.refused(request, .notLeader), to: client)
        drop(client)
      }
    }
  }

  // MARK: Requests

  func take(_ request: ClientRequest, from connection: ClientConnection, now: MonotonicTime) {
    guard let client = clients.first(where: { $0.connection === connection }) else { return }
    noticeLeadership(now: now)
    if client.waiting.isEmpty, take(request, from: client, now: now) { return }
    client.waiting.append(request)
  }

  private func takeWaiting(now: MonotonicTime) {
    for client in clients where !client.waiting.isEmpty {
      while let first = client.waiting.first, take(first, from: client, now: now) {
        client.waiting.removeFirst()
      }
    }
  }

  /// False if there is no room for it now.
  private func take(
    _ request: ClientRequest, from client: GatewayClient, now: MonotonicTime
  ) -> Bool {
    switch request {
    case .ping:
      reply(.pong, to: client)
      return true
    case .publish(let first, let answered, let queue, let count, let run):
      guard let session = sessionToPublish(first, count, client) else { return true }
      guard replica.hasRoom else { return false }
      replica.submit(now: now) { batch in
        run.withUnsafeBytes { run in
          CommandWriter.publish(
            session, first: first, answeredThrough: answered, queue: queue, count: count,
            run: run, into: &batch)
        }
      }
      return true
    case .transact(let first, let answered, let holder, let settles, let parts, let run):
      let count = UInt32(parts.reduce(0) { $0 + $1.count })
      guard let session = sessionToPublish(first, count, client) else { return true }
      guard replica.hasRoom else { return false }
      replica.submit(now: now) { batch in
        run.withUnsafeBytes { run in
          CommandWriter.transact(
            session, first: first, answeredThrough: answered, holder: holder, settles: settles,
            parts: parts, run: run, into: &batch)
        }
      }
      return true
    case .settle(
      let sequence, let answered, let kind, let consumer, let ranges, let delay, let error):
      guard let session = attached(client) else {
        return refuseSettle(sequence, consumer, ranges, client)
      }
      guard replica.hasRoom else { return false }
      replica.submit(now: now) {
        CommandWriter.settle(
          session, sequence: sequence, answeredThrough: answered, kind: kind, consumer: consumer,
          ranges: ranges, delay: delay, error: error, into: &$0)
      }
      return true
    case .extend(let sequence, let answered, let consumer, let ranges, let duration):
      guard let session = attached(client) else {
        return refuseSettle(sequence, consumer, ranges, client)
      }
      guard replica.hasRoom else { return false }
      replica.submit(now: now) {
        CommandWriter.extend(
          session, sequence: sequence, answeredThrough: answered, consumer: consumer,
          ranges: ranges, duration: duration, into: &$0)
      }
      return true
    case .openSession(let number, _, _, _, _), .attachSession(let number, _, _),
      .declareQueue(let number, _, _), .subscribe(let number, _, _, _),
      .setCredit(let number, _, _), .cancel(let number, _, _), .reschedule(let number, _, _, _),
      .redrive(let number, _), .purge(let number, _):
      guard replica.isLeader else {
        reply(.refused(number, .notLeader), to: client)
        return true
      }
      guard replica.hasRoom else { return false }
      takeCommand(request, number, from: client, now: now)
      return true
    }
  }

  /// nil if nothing can be published now, which the client was told where it has to be.
  private func sessionToPublish(
    _ first: PublishSequence, _ count: UInt32, _ client: GatewayClient
  ) -> SessionID? {
    guard let session = attached(client) else {
      if case .lost = client.session { return nil }
      let refusal: Refusal = replica.isLeader ? .sessionNotFound : .notLeader
      reply(.publishRefused(first: first, count: count, refusal), to: client)
      return nil
    }
    if hasNoSpace {
      reply(.publishRefused(first: first, count: count, .overloaded), to: client)
      return nil
    }
    return session
  }

  private func attached(_ client: GatewayClient) -> SessionID? {
    if case .attached(let session) = client.session { session } else { nil }
  }

  private func refuseSettle(
    _ sequence: CommandSequence, _ consumer: ConsumerID, _ ranges: [DeliveryRange],
    _ client: GatewayClient
  ) -> Bool {
    if case .lost = client.session { return true }
    let refusal: Refusal = replica.isLeader ? .sessionNotFound : .notLeader
    for range in ranges { reply(.settleRefused(sequence, consumer, range, refusal), to: client) }
    return true
  }

  private func takeCommand(
    _ request: ClientRequest, _ number: RequestNumber, from client: GatewayClient,
    now: MonotonicTime
  ) {
    let origin = origin(of: client)
    switch (request, client.session) {
    case (.openSession, .opening), (.openSession, .attaching), (.openSession, .attached),
      (.attachSession, .opening), (.attachSession, .attaching), (.attachSession, .attached):
      return reply(.refused(number, .malformedRequest), to: client)
    default: break
    }
    switch request {
    case .openSession(_, let producer, let attempt, let timeout, let name):
      client.session = .opening(number)
      replica.submit(now: now) {
        CommandWriter.openSession(
          origin: origin, kind: .native, producer: producer, attempt: attempt,
          timeout: timeout, name: name, into: &$0)
      }
    case .attachSession(_, let session, let positions):
      client.session = .attaching(number, session)
      replica.submit(now: now) {
        CommandWriter.attachSession(session, origin: origin, consumers: positions, into: &$0)
      }
    case .declareQueue(_, let name, let settings):
      let tag = expectReply(to: number, from: client)
      replica.submit(now: now) {
        CommandWriter.declareQueue(
          .connection(origin), tag: tag, name: name, settings: settings, into: &$0)
      }
    case .subscribe(_, let consumer, let queue, let credit):
      guard let session = attached(client) else {
        reply(.refused(number, .sessionNotFound), to: client)
        return
      }
      let tag = expectReply(to: number, from: client)
      replica.submit(now: now) {
        CommandWriter.subscribe(
          session, consumer: consumer, tag: tag, queue: queue, credit: credit, into: &$0)
      }
    case .setCredit(_, let consumer, let credit):
      guard let session = attached(client) else {
        reply(.refused(number, .sessionNotFound), to: client)
        return
      }
      let tag = expectReply(to: number, from: client)
      replica.submit(now: now) {
        CommandWriter.setCredit(session, consumer: consumer, tag: tag, credit: credit, into: &$0)
      }
    case .cancel, .reschedule, .redrive, .purge:
      let tag = expectReply(to: number, from: client)
      replica.submit(now: now) {
        Self.encode(request, .connection(origin), tag, into: &$0)
      }
    case .publish, .transact, .settle, .extend, .ping: break
    }
  }

  private static func encode(
    _ request: ClientRequest, _ requester: Requester, _ tag: RequestTag,
    into batch: inout [UInt8]
  ) {
    switch request {
    case .cancel(_, let queue, let message):
      CommandWriter.cancelMessage(requester, tag: tag, queue: queue, message: message, into: &batch)
    case .reschedule(_, let queue, let message, let delay):
      CommandWriter.rescheduleMessage(
        requester, tag: tag, queue: queue, message: message, delay: delay, into: &batch)
    case .redrive(_, let queue):
      CommandWriter.redriveQueue(
        requester, tag: tag, queue: queue, which: .all, after: MessageID(rawValue: 0),
        through: MessageID(rawValue: 0), limit: .max, into: &batch)
    case .purge(_, let queue):
      CommandWriter.purgeQueue(requester, tag: tag, name: queue, into: &batch)
    default: break
    }
  }

  private func expectReply(to request: RequestNumber, from client: GatewayClient) -> RequestTag {
    let tag = RequestTag(nextTag)
    nextTag += 1
    client.tagged.append((tag, request))
    return tag
  }

  // MARK: Effects

  func carryOutEffects(now: MonotonicTime) {
    needsTurn = false
    noticeLeadership(now: now)
    if !replica.effects.isEmpty {
      var list = EffectList(isWanted: replica.effects.isWanted, node: replica.effects.node)
      swap(&list, &replica.effects)
      for effect in list.effects { carryOut(effect, of: list) }
      list.removeAll()
      swap(&list, &replica.effects)
    }
    submitDetaches(now: now)
    takeWaiting(now: now)
  }

  private func carryOut(_ effect: Effect, of list: EffectList) {
    switch effect {
    case .confirmed(let session, let first, let count, let firstID, let copies):
      simulation.checks.willConfirm(firstID.entry, at: self)
      tell(session, .confirmed(first: first, count: count, firstID, copies: copies))
    case .deliver(let session, let consumer, let range):
      guard let client = sessions[session] else { return }
      for delivery in list.deliveries[range] { client.outbox.append((consumer, delivery)) }
    case .settled(let session, let through):
      simulation.checks.willAnswer(self)
      tell(session, .settled(through))
    case .refused(let session, let first, let count, let refusal):
      tell(session, .publishRefused(first: first, count: count, refusal))
    case .settleRefused(let session, let sequence, let consumer, let range, let refusal):
      tell(session, .settleRefused(sequence, consumer, range, refusal))
    case .lapsed(let session, let consumer, let range):
      guard let client = sessions[session] else { return }
      let ranges = Array(list.ranges[range])
      client.outbox.removeAll { item in
        item.consumer == consumer
          && ranges.contains {
            $0.first <= item.delivery.delivery && item.delivery.delivery <= $0.last
          }
      }
      reply(.lapsed(consumer, ranges), to: client)
    case .holding(let session, let consumer, let through, let range):
      tell(session, .holding(consumer, through: through, Array(list.ranges[range])))
    case .consumerCancelled(let session, let consumer):
      sessions[session]?.outbox.removeAll { $0.consumer == consumer }
      tell(session, .consumerCancelled(consumer))
    case .topology: break  // There are no AMQP clients here.
    case .reply(let requester, let tag, let answer):
      simulation.checks.willAnswer(self)
      self.answer(requester, tag, answer)
    case .sessionOpened(let origin, let session, _, _): opened(origin, session)
    case .sessionOpenRefused(let origin, let refusal):
      guard let client = clients.first(where: { $0.token == origin.connection }),
        case .opening(let request) = client.session
      else { return }
      client.session = .none
      reply(.refused(request, refusal), to: client)
    case .sessionAttached(let origin, let session, _, _): attached(origin, session)
    case .sessionAttachRefused(let origin, let session, let refusal):
      guard let client = clients.first(where: { $0.token == origin.connection }),
        case .attaching(let request, session) = client.session
      else { return }
      client.session = .none
      reply(.refused(request, refusal), to: client)
    case .sessionEnded(let session, let how):
      checkEnd(of: session, how)
      guard let client = sessions.removeValue(forKey: session) else { return }
      client.loseSession()
      reply(.sessionEnded(session), to: client)
    case .producerFenced(let session): tell(session, .producerFenced)
    }
  }

  /// No client closes its session, and none ends under a client that is attached through this node.
  private func checkEnd(of session: SessionID, _ how: SessionEnd) {
    if how == .closed {
      simulation.violated("G7", "session \(session) is closed, and nobody asked")
    }
    if sessions[session] != nil {
      simulation.violated("G7", "session \(session) ends, which is attached through \(node)")
    }
  }

  private func tell(_ session: SessionID, _ answer: ServerReply) {
    guard let client = sessions[session] else { return }
    reply(answer, to: client)
  }

  private func opened(_ origin: SessionOrigin, _ session: SessionID) {
    simulation.checks.sessionOpened(session)
    guard let client = clients.first(where: { $0.token == origin.connection }),
      case .opening(let request) = client.session
    else {
      detaching.append((session, origin))
      needsTurn = true
      return
    }
    client.session = .attached(session)
    sessions[session] = client
    reply(.sessionOpened(request, session), to: client)
  }

  private func attached(_ origin: SessionOrigin, _ session: SessionID) {
    if let earlier = sessions[session], earlier.token != origin.connection {
      sessions[session] = nil
      earlier.loseSession()
      drop(earlier)
    }
    guard let client = clients.first(where: { $0.token == origin.connection }),
      case .attaching(let request, session) = client.session
    else {
      if let client = sessions[session] {
        // Asked twice: what it has not got is said once more.
        client.outbox = []
      } else {
        detaching.append((session, origin))
        needsTurn = true
      }
      return
    }
    client.outbox = []
    client.session = .attached(session)
    sessions[session] = client
    reply(.sessionAttached(request, session), to: client)
  }

  private func answer(_ requester: Requester, _ tag: RequestTag, _ answer: Reply) {
    let found =
      switch requester {
      case .session(let session): sessions[session]
      case .connection(let origin): clients.first { $0.token == origin.connection }
      }
    guard let client = found, let place = client.tagged.firstIndex(where: { $0.tag == tag })
    else { return }
    let asked = client.tagged.remove(at: place)
    switch answer {
    case .queueDeclared(let queue, _): reply(.queueDeclared(asked.request, queue), to: client)
    case .refused(let refusal, _): reply(.refused(asked.request, refusal), to: client)
    default: reply(.done(asked.request), to: client)
    }
  }

  // MARK: Deliveries

  func pumpDeliveries(now: MonotonicTime) {
    deliverRetry = .never
    for client in clients where !client.outbox.isEmpty { pump(client, now: now) }
  }

  private func pump(_ client: GatewayClient, now: MonotonicTime) {
    while let first = client.outbox.first {
      var messages: [DeliveredMessage] = []
      while messages.count < 8, let item = client.outbox.first, item.consumer == first.consumer {
        switch record(item.delivery.reference) {
        case .found(let bytes):
          messages.append(DeliveredMessage(delivery: item.delivery, record: bytes))
          client.outbox.removeFirst()
          continue
        case .damaged:
          simulation.note(.damageFoundRunning)
          if isTakingPart { replica.entryIsDamaged(item.delivery.reference.entry, now: now) }
        case .unavailable(let reason):
          simulation.recordUnavailable(item.delivery, reason, at: self)
        }
        deliverRetry = now + .milliseconds(100)
        break
      }
      if messages.isEmpty { return }
      reply(.deliver(first.consumer, messages), to: client)
      if deliverRetry != .never { return }
    }
  }
}
