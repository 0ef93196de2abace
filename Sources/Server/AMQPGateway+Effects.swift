// What the machine of queues decided becomes frames, and items of the outboxes. Only what concerns
// sessions of this node is here; whatever comes of native clients' is another gateway's.

import AMQP
import Base
import Node
import QueueMachine

extension AMQPGateway {
  /// To be called in every turn behind `finishTurn` and before the other gateway empties the list.
  mutating func carryOutEffects(
    of replica: inout Replica, records: inout RecordSource, now: MonotonicTime
  ) {
    needsTurn = false
    if !replica.effects.isEmpty {
      let list = replica.effects
      for effect in list.effects { carryOut(effect, of: list, replica, &records, now: now) }
      tellCancelled()
    }
    answerReads(replica: replica, now: now)
    carryOutDeferred(now: now, replica: &replica)
    resumePaused(now: now, replica: &replica)
  }

  private mutating func carryOut(
    _ effect: Effect, of list: EffectList, _ replica: borrowing Replica,
    _ records: inout RecordSource, now: MonotonicTime
  ) {
    switch effect {
    case .topology(let effect):
      carryOut(effect, replica, &records, now: now)
    case .deliver(let session, let consumer, let range):
      guard let client = sessions[session.rawValue] else { return }
      deliver(list.deliveries[range], to: consumer, of: client)
    case .reply(.session(let session), let tag, let reply):
      guard let client = sessions[session.rawValue],
        let awaited = client.awaited.removeValue(forKey: tag)
      else { return }
      answer(awaited, with: reply, to: client, replica)
    case .sessionOpened(let origin, let session, _, _):
      opened(origin, session)
    case .sessionOpenRefused(let origin, let refusal):
      guard Self.owns(origin.connection), let client = clients[origin.connection],
        case .opening(let token) = client.session
      else { return }
      client.session = .none
      let fault =
        refusal == .tooManySessions
        ? Fault.tooManySessions(
          configuration.limits.sessions, replica.machine.name(of: client.host),
          user: client.machine.user ?? "")
        : .resource("no session for the connection: \(refusal)")
      refuse(token, fault, client)
    case .sessionEnded(let session, _):
      ended(session, now: now)
    case .lapsed(let session, let consumer, let range):
      guard let client = sessions[session.rawValue] else { return }
      lapsed(consumer, list.ranges[range], of: client, replica)
    case .consumerCancelled(let session, let consumer):
      guard let client = sessions[session.rawValue] else { return }
      queueIsGone(of: consumer, client)
    default:
      // Settles are answered by nothing in AMQP, and what is left is of native clients.
      return
    }
  }

  private mutating func queueIsGone(of consumer: ConsumerID, _ client: AMQPClient) {
    client.outbox.remove(of: consumer)
    client.cancelled[consumer] = nil
    if AMQPTakers.owns(consumer) {
      // What it took and could not be read is gone as well.
      for get in client.waitingGets where get.taker == consumer {
        answer(get.token, .getEmpty, to: client)
        client.takers.answered(consumer, holds: false)
      }
      client.waitingGets.removeAll { $0.taker == consumer }
      client.takers.queueIsGone(consumer)
    } else if let cancelling = client.stopCancelling(consumer) {
      answer(cancelling.token, .done, to: client)
    } else if client.remove(consumer) != nil {
      if let session = client.openSession { reshareCredit(session, client) }
      cancelled.append((client, consumer))
    }
  }

  /// Whoever deletes a queue that it consumes from itself hears first that it is deleted: clients
  /// take a basic.cancel before that for the failure of their delete.
  private mutating func tellCancelled() {
    for (client, consumer) in cancelled {
      say(to: client) { machine, output, _ in
        machine.cancelConsumer(consumer, output: &output)
      }
    }
    cancelled.removeAll(keepingCapacity: true)
  }

  // MARK: Sessions

  private mutating func opened(_ origin: SessionOrigin, _ session: SessionID) {
    guard Self.owns(origin.connection), origin.node == configuration.node else { return }
    guard let client = clients[origin.connection], case .opening(let token) = client.session
    else {
      // Its connection is gone already.
      relay.append { CommandWriter.loseSession(session, into: &$0) }
      needsTurn = true
      return
    }
    client.session = .open(session)
    sessions.insert(client, for: session.rawValue)
    answer(token, .done, to: client)
  }

  private mutating func ended(_ session: SessionID, now: MonotonicTime) {
    guard let client = sessions[session.rawValue] else { return }
    sessions.remove(session.rawValue)
    client.outbox.removeAll()
    let awaited = client.session
    client.session = .ended
    if case .closing(_, let token?) = awaited {
      answer(token, .done, to: client)
      return
    }
    // The cluster took this node for gone, and gave what its clients held to others.
    let fault = Fault.forced("the node was cut off from the cluster for too long")
    say(to: client) { machine, output, requests in
      machine.close(fault, now: now, output: &output, requests: &requests)
    }
  }

  // MARK: Replies

  private mutating func answer(
    _ awaited: AMQPClient.Awaited, with reply: Reply, to client: AMQPClient,
    _ replica: borrowing Replica
  ) {
    switch (awaited, reply) {
    case (.nothing, _): return
    case (.told(let consumer, let credit, let before), .refused):
      if client.consumers[consumer]?.credit == credit {
        client.setCredit(before, of: consumer)
        client.noteShort(consumer)
      }
    case (.told, _): return
    case (.lowered(let consumer), _): isLowered(consumer, client)
    case (.raised(let consumer, let channel), .refused):
      isRaised(consumer, of: channel, isRefused: true, client)
    case (.raised(let consumer, let channel), _):
      isRaised(consumer, of: channel, isRefused: false, client)
    case (.done(let token), .topology(.done)), (.declareExchange(let token, _), .topology(.done)):
      answer(token, .done, to: client)
    case (.turn(let token, let decided), .topology(.done)): answer(token, decided, to: client)
    case (.declare(let token, _), .topology(.queueDeclared(let ready, let consumers))),
      (.messages(let token), .topology(.queueDeclared(let ready, let consumers))):
      answer(
        token, .queueDeclared(messages: UInt32(clamping: ready), consumers: consumers), to: client)
    case (.messages(let token), .topology(.messages(let count))):
      answer(token, .messages(UInt32(clamping: count)), to: client)
    case (.consume(let token, let consumer), .topology(.consuming)):
      noteMistakes(of: consumer, client)
      answer(token, .done, to: client)
    case (.cancel(_, let consumer, _), .unsubscribed):
      if client.isGivenAll(consumer) { finishCancel(of: consumer, client, replica) }
    case (.get(let token, _, let noAck), .topology(.took(let taker, let delivery, let ready))):
      // It is answered where deliveries are written, and takes turns with them.
      client.waitingGets.append(
        AMQPClient.WaitingGet(
          token: token, taker: taker, delivery: delivery, ready: ready, noAck: noAck))
      noteDelivering(client)
    case (.get(let token, let taker, _), .topology(.nothingToTake)):
      client.takers.answered(taker, holds: false)
      answer(token, .getEmpty, to: client)
    case (.get(let token, let taker, _), .topology(.failed(let failure))):
      client.takers.answered(taker, holds: false)
      answer(token, refusal(failure), to: client)
    case (.declare(let token, let declaration), .topology(.failed(let failure))):
      let request = ChannelRequest.declareQueue(declaration)
      answer(token, answer(to: request, client, replica) ?? refusal(failure), to: client)
    case (.declareExchange(let token, let declaration), .topology(.failed(let failure))):
      let request = ChannelRequest.declareExchange(declaration)
      answer(token, answer(to: request, client, replica) ?? refusal(failure), to: client)
    case (.consume(let token, let consumer), .topology(.failed(let failure))):
      if case .other(.tooMuchCredit, _) = failure {
        if openWithLess(consumer, token, client) { return }
        client.remove(consumer)
        let text = "the connection's consumers hold as many messages as a connection may"
        return answer(token, .refused(Fault(.preconditionFailed, text)), to: client)
      }
      client.remove(consumer)
      answer(token, refusal(failure), to: client)
    case (.commit(let token, _, let taken), .topology(.done)):
      client.takers.settled(taken[...])
      answer(token, .done, to: client)
    case (.commit(let token, let publishes, _), .topology(.failed(let failure))):
      // None of its publishes was carried out, so none of them is answered.
      while let run = client.publishes.first, publishes.contains(run.tag.rawValue) {
        client.waitingBytes -= run.bytes
        client.removeFirstRun()
      }
      answer(token, refusal(failure), to: client)
    case (_, .topology(.failed(let failure))):
      guard let token = awaited.token else { return }
      answer(token, refusal(failure), to: client)
    default:
      guard let token = awaited.token else { return }
      answer(token, .refused(.internalFault("\(reply) is no answer to this")), to: client)
    }
  }

  /// cancel-ok, behind all that the consumer was given before, as in RabbitMQ.
  mutating func finishCancel(
    of consumer: ConsumerID, _ client: AMQPClient, _ replica: borrowing Replica
  ) {
    guard let cancelling = client.stopCancelling(consumer) else { return }
    keepIfHolding(consumer, of: cancelling.state.channel, client, replica)
    answer(cancelling.token, .done, to: client)
  }

  /// What consumers that are being cancelled were given and cannot be read now goes back unseen: their
  /// channels must not wait for it.
  mutating func finishCancels(_ client: AMQPClient, _ replica: borrowing Replica) {
    for (consumer, cancelling) in client.cancelling.sorted(by: { $0.key < $1.key })
    where cancelling.unsent != nil {
      let unsent = client.outbox.take(of: consumer)
      if let session = client.openSession {
        var ranges: [DeliveryRange] = []
        for delivery in unsent { ranges.add(delivery.delivery) }
        for start in stride(from: 0, to: ranges.count, by: FixedLimits.rangesPerSettle) {
          let part = ranges[start..<min(ranges.count, start + FixedLimits.rangesPerSettle)]
          settle(Array(part), of: consumer, .release, session, client)
        }
      }
      finishCancel(of: consumer, client, replica)
      needsTurn = true
    }
  }

  /// A consumer that is cancelled lasts while it holds something.
  private func keepIfHolding(
    _ consumer: ConsumerID, of channel: ChannelID, _ client: AMQPClient,
    _ replica: borrowing Replica
  ) {
    guard let session = client.openSession else { return }
    let there = Set(replica.machine.consumers(of: session))
    if there.contains(consumer) { client.cancelled[consumer] = channel }
    client.cancelled = client.cancelled.filter { there.contains($0.key) }
  }

  private mutating func lapsed(
    _ consumer: ConsumerID, _ ranges: ArraySlice<DeliveryRange>, of client: AMQPClient,
    _ replica: borrowing Replica
  ) {
    client.outbox.remove(of: consumer, in: ranges)
    let channel =
      client.consumers[consumer]?.channel ?? client.cancelling[consumer]?.state.channel
      ?? client.cancelled[consumer] ?? client.takers[consumer]?.channel
    guard let channel else { return }
    // As RabbitMQ does for a consumer that takes too long.
    let fault = Fault(
      .preconditionFailed,
      "delivery acknowledgement on channel \(channel.number) timed out: the lease of the queue's"
        + " messages ran out")
    say(to: client) { machine, output, requests in
      machine.closeChannel(channel, fault, output: &output, requests: &requests)
    }
  }

  // MARK: Publishes

  private mutating func carryOut(
    _ effect: TopologyEffect, _ replica: borrowing Replica, _ records: inout RecordSource,
    now: MonotonicTime
  ) {
    switch effect {
    case .relayed(let process, let through, let isStopped):
      relay.applied(process: process, through: through, now: now)
      if isStopped {
        relay.stopped(process: process, now: now)
        needsTurn = true
      }
    case .routed(let session, let tag, let count):
      answerPublish(session, tag, count) { gateway, client, run, first, last in
        gateway.confirm(run, first, last, client)
      }
    case .unroutable(let session, let tag, let reference):
      sendBack(reference, to: session, tag, replica, &records)
      answerPublish(session, tag, reference.count) { gateway, client, run, first, last in
        gateway.confirm(run, first, last, client)
      }
    case .routeRefused(let session, let tag, let count, _):
      answerPublish(session, tag, count) { gateway, client, run, first, last in
        guard run.wantsConfirm else { return }
        gateway.say(to: client) { machine, output, _ in
          machine.refusePublish(run.channel, first: first, last: last, output: &output)
        }
      }
    case .routeFailed(let session, let tag, let count, let failure):
      answerPublish(session, tag, count) { gateway, client, run, _, _ in
        gateway.say(to: client) { machine, output, requests in
          machine.failPublish(run.channel, Fault(failure), output: &output, requests: &requests)
        }
      }
    case .directReply(let session, let consumer, let reference):
      guard let client = sessions[session.rawValue] else { return }
      handOver(reference, to: consumer, of: client, replica, &records)
    }
  }

  /// Takes the next `count` publishes off the run with this tag, which is the first.
  private mutating func answerPublish(
    _ session: SessionID, _ tag: RequestTag, _ count: UInt32,
    _ body: (
      inout AMQPGateway, AMQPClient, AMQPClient.PublishRun, ChannelSequence, ChannelSequence
    ) -> Void
  ) {
    guard let client = sessions[session.rawValue], let run = client.publishes.first,
      run.tag == tag, count > 0
    else { return }
    let first = ChannelSequence(run.first.rawValue + UInt64(client.firstAnswered))
    let last = ChannelSequence(first.rawValue + UInt64(count) - 1)
    client.firstAnswered += count
    if client.firstAnswered >= run.count {
      client.waitingBytes -= run.bytes
      client.removeFirstRun()
      client.firstAnswered = 0
    }
    body(&self, client, run, first, last)
  }

  private mutating func confirm(
    _ run: AMQPClient.PublishRun, _ first: ChannelSequence, _ last: ChannelSequence,
    _ client: AMQPClient
  ) {
    guard run.wantsConfirm, client.phase == .open else { return }
    counters.confirmed += Int(last.rawValue - first.rawValue) + 1
    // Written with everything else at the end of the turn.
    client.machine.confirm(run.channel, first: first, last: last)
    touch(client)
  }

  private mutating func sendBack(
    _ reference: RunReference, to session: SessionID, _ tag: RequestTag,
    _ replica: borrowing Replica, _ records: inout RecordSource
  ) {
    guard let client = sessions[session.rawValue], let run = client.publishes.first,
      run.tag == tag
    else { return }
    forEachRecord(of: reference, replica, &records) { gateway, record, _ in
      guard let places = AMQPProperties.places(in: record) else { return }
      gateway.say(to: client) { machine, output, _ in
        machine.returnMessage(
          run.channel, code: .noRoute, content: BrokerContent(record, places), output: &output)
      }
    }
  }

  private mutating func handOver(
    _ reference: RunReference, to consumer: ConsumerID, of client: AMQPClient,
    _ replica: borrowing Replica, _ records: inout RecordSource
  ) {
    forEachRecord(of: reference, replica, &records) { gateway, record, _ in
      guard let places = AMQPProperties.places(in: record),
        let number = client.takeReplyNumber(of: consumer)
      else { return }
      gateway.say(to: client) { machine, output, _ in
        let delivery = BrokerDelivery(
          consumer: consumer, delivery: DeliveryID(number), isRedelivered: false,
          content: BrokerContent(record, places))
        // Without the consumer nobody waits for the reply.
        _ = machine.deliver(delivery, output: &output)
      }
    }
  }

  /// Calls `body` with each record of a run, which lies in an entry that was just applied.
  private mutating func forEachRecord(
    of reference: RunReference, _ replica: borrowing Replica, _ records: inout RecordSource,
    _ body: (inout AMQPGateway, UnsafeRawBufferPointer, Int) -> Void
  ) {
    let whole = RecordReference(
      entry: reference.entry, offset: UInt32(reference.offset), size: UInt32(reference.byteCount))
    guard case .found(let payload, let range) = records.record(whole, cache: replica.cache) else {
      log.warning("messages that came back from entry \(reference.entry) cannot be read")
      return
    }
    payload.withUnsafeBytes { bytes in
      var offset = range.lowerBound
      for place in 0..<Int(reference.count) {
        let size = MessageRecord.size(in: bytes, at: offset)
        body(&self, UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + size]), place)
        offset += size
      }
    }
  }
}

extension AMQPClient.Awaited {
  /// The request that it answers; nil if nobody waits.
  fileprivate var token: RequestToken? {
    switch self {
    case .done(let token), .turn(let token, _), .declare(let token, _),
      .declareExchange(let token, _), .messages(let token), .consume(let token, _),
      .cancel(let token, _, _), .get(let token, _, _), .commit(let token, _, _):
      token
    case .told, .lowered, .raised, .nothing: nil
    }
  }
}

extension BrokerContent {
  init(_ record: UnsafeRawBufferPointer, _ places: AMQPProperties.Places) {
    self.init(
      exchange: UnsafeRawBufferPointer(rebasing: record[places.exchange]),
      routingKey: UnsafeRawBufferPointer(rebasing: record[places.routingKey]),
      properties: UnsafeRawBufferPointer(rebasing: record[places.properties]),
      body: UnsafeRawBufferPointer(rebasing: record[places.body]))
  }
}

extension [DeliveryRange] {
  /// Adds a delivery behind those there are.
  mutating func add(_ delivery: DeliveryID) {
    if let last, last.last.next == delivery {
      self[count - 1].last = delivery
    } else {
      append(DeliveryRange(first: delivery, last: delivery))
    }
  }
}
