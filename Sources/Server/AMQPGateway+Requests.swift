// What clients want, request by request: a command for the relay, or a read.

import AMQP
import Base
import Node
import QueueMachine

extension AMQPGateway {
  mutating func carryOut(
    _ list: BrokerRequests, of client: AMQPClient, now: MonotonicTime, replica: inout Replica
  ) {
    for request in list.requests {
      switch request {
      case .authenticate(let token, let credentials):
        // This node may not know yet who was added, whose password is another, and who was removed.
        judgeLater(.login(credentials), token, client)
      case .openVhost(let token, let name):
        // One that is known is there: they are never removed.
        if let host = replica.machine.virtualHost(named: name) {
          open(host, token, client)
        } else {
          judgeLater(.vhost(name), token, client)
        }
      case .channel(let token, let channel, .commit(let publishes, let settles)):
        commit(list, publishes, settles, token, channel, client)
      case .channel(let token, let channel, let request):
        guard let session = client.openSession else {
          refuse(token, .internalFault("the connection has no session"), client)
          continue
        }
        carryOut(request, token, channel, session, client, now: now, replica)
      case .publish(let range):
        noteMistakes(of: list.publishes[range.lowerBound], list, client, replica)
        publish(range, of: list, for: client)
      case .settle(let range):
        settle(list.settles[range], for: client)
        client.takers.settled(list.settles[range])
        makeRoom(list.settles[range], client)
        fillUp(client)
      case .closeChannel(let token, let channel):
        closeChannel(channel, token, client)
      case .closeConnection(let token):
        closeConnection(token, client)
      }
    }
  }

  func refusal(_ failure: TopologyFailure) -> BrokerAnswer { .refused(Fault(failure)) }

  mutating func refuse(_ token: RequestToken, _ fault: Fault, _ client: AMQPClient) {
    answer(token, .refused(fault), to: client)
  }

  /// A number for a request, by which its reply is found.
  mutating func tag(_ awaited: AMQPClient.Awaited, for client: AMQPClient) -> RequestTag {
    let tag = RequestTag(nextTag)
    nextTag += 1
    client.awaited[tag] = awaited
    return tag
  }

  // MARK: The connection

  /// Whether these are the credentials of a user in this node's state.
  func mayLogIn(
    _ credentials: Credentials, from client: AMQPClient, _ replica: borrowing Replica
  ) -> Bool {
    if let user = replica.machine.user(named: credentials.user) {
      return SHA256.digest(user.salt + credentials.password) == user.hash
    }
    // As RabbitMQ has it: the user that everybody knows comes from this machine only.
    return credentials.user == "guest" && credentials.password == [UInt8]("guest".utf8)
      && client.connection.peer.isLoopback
  }

  mutating func noteRefusedLogin(
    _ user: String, _ client: AMQPClient, now: MonotonicTime
  ) {
    counters.refusedLogins += 1
    let address = client.connection.peer.description
    if let line = refusedLogins.line(user: user, address: address, now: now) { log.warning(line) }
  }

  /// Has a client that is not in yet wait until this node's state is fresh enough, at the longest until
  /// its handshake must be over. It waits for one thing at a time, so that no more of these wait than there
  /// are connections; all that wait are one question.
  private mutating func judgeLater(
    _ question: ReadBarrier.Question, _ token: RequestToken, _ client: AMQPClient
  ) {
    reads.add(ReadBarrier.Read(client: client.token, token: token, asks: question))
  }

  mutating func open(_ host: VirtualHostID, _ token: RequestToken, _ client: AMQPClient) {
    client.host = host
    client.session = .opening(token)
    let origin = origin(of: client)
    let peer = "amqp \(client.connection.peer)"
    let sessionsMax = UInt32(clamping: configuration.limits.sessions)
    relay.append {
      CommandWriter.openSession(
        origin: origin, kind: .amqp, producer: ProducerID(0), sessionsMax: sessionsMax,
        timeout: .zero, name: peer, into: &$0)
    }
  }

  private mutating func closeConnection(_ token: RequestToken, _ client: AMQPClient) {
    switch client.session {
    case .open(let session):
      client.session = .closing(session, token)
      relay.append { CommandWriter.closeSession(session, into: &$0) }
    case .closing, .none, .ended:
      answer(token, .done, to: client)
    case .opening:
      // Ended when it is open, since its client is gone by then.
      client.session = .ended
      answer(token, .done, to: client)
    }
  }

  private mutating func closeChannel(
    _ channel: ChannelID, _ token: RequestToken, _ client: AMQPClient
  ) {
    client.stopWaiting(channel)
    client.channelLimits[channel] = nil
    guard let session = client.openSession else {
      answer(token, .done, to: client)
      return
    }
    var gone = client.takers.removeAll(of: channel)
    for (consumer, state) in client.consumers where state.channel == channel {
      client.remove(consumer)
      if !state.isForReplies { gone.append(consumer) }
    }
    for (consumer, cancelling) in client.cancelling where cancelling.state.channel == channel {
      _ = client.stopCancelling(consumer)
      gone.append(consumer)
    }
    gone += client.cancelled.filter { $0.value == channel }.map(\.key)
    client.cancelled = client.cancelled.filter { $0.value != channel }
    for consumer in gone {
      client.outbox.remove(of: consumer)
      let tag = tag(.nothing, for: client)
      relay.append {
        CommandWriter.unsubscribe(
          session, consumer: consumer, tag: tag, returnHeld: true, into: &$0)
      }
    }
    reshareCredit(session, client)
    let tag = tag(.done(token), for: client)
    relay.append { CommandWriter.mark(session, tag: tag, into: &$0) }
  }

  private mutating func commit(
    _ list: BrokerRequests, _ publishes: Range<Int>, _ settles: Range<Int>,
    _ token: RequestToken, _ channel: ChannelID, _ client: AMQPClient
  ) {
    guard let session = client.openSession else {
      refuse(token, .internalFault("the connection has no session"), client)
      return
    }
    let first = client.nextPublishTag
    // Its publishes' tags are known when they are gathered.
    let tag = tag(.nothing, for: client)
    var start = 0
    relay.hold()
    relay.append { start = CommandWriter.beginCommit(session, tag: tag, into: &$0) }
    settle(list.settles[settles], for: client)
    publish(publishes, of: list, for: client, isCommit: true)
    relay.append { CommandWriter.endCommit(start, into: &$0) }
    makeRoom(list.settles[settles], client)
    relay.release()
    // Where nothing comes of it, what was taken by basic.get is still held and goes back.
    let taken = list.settles[settles].filter { AMQPTakers.owns($0.consumer) }
    client.awaited[tag] = .commit(token, publishes: first..<client.nextPublishTag, taken: taken)
  }

  // MARK: Channels

  private mutating func carryOut(
    _ request: ChannelRequest, _ token: RequestToken, _ channel: ChannelID, _ session: SessionID,
    _ client: AMQPClient, now: MonotonicTime, _ replica: borrowing Replica
  ) {
    let requester = Requester.session(session)
    let host = client.host
    switch request {
    case .declareQueue, .inspectQueue, .declareExchange, .inspectExchange, .bindQueue,
      .bindExchange:
      noteMistakes(of: request, client)
      if answerNeedsRead(request, client, now: now, replica) {
        reads.add(
          ReadBarrier.Read(
            client: client.token, token: token, asks: .request(request),
            behind: relay.lastSequence))
      } else {
        order(request, token, session, client, replica)
      }
    case .unbindQueue(let binding):
      let tag = tag(.done(token), for: client)
      let order = BindingOrder(binding, in: host)
      relay.append { CommandWriter.unbind(requester, tag: tag, order, into: &$0) }
    case .unbindExchange(let binding):
      let tag = tag(.done(token), for: client)
      let order = BindingOrder(binding, in: host)
      relay.append { CommandWriter.unbind(requester, tag: tag, order, into: &$0) }
    case .purgeQueue(let name):
      let tag = tag(.messages(token), for: client)
      let queue = TopologyName(name, in: host)
      relay.append { CommandWriter.purgeQueue(requester, tag: tag, queue, into: &$0) }
    case .deleteQueue(let name, let ifUnused, let ifEmpty):
      let tag = tag(.messages(token), for: client)
      let queue = TopologyName(name, in: host)
      relay.append {
        CommandWriter.deleteQueue(
          requester, tag: tag, queue, ifUnused: ifUnused, ifEmpty: ifEmpty, into: &$0)
      }
    case .deleteExchange(let name, let ifUnused):
      let tag = tag(.done(token), for: client)
      let exchange = TopologyName(name, in: host)
      relay.append {
        CommandWriter.deleteExchange(
          requester, tag: tag, exchange, ifUnused: ifUnused, into: &$0)
      }
    case .consume(let consume):
      noteMistakes(of: request, client)
      self.consume(consume, token, channel, session, client)
    case .consumeReplies(let consumer):
      let state = AMQPClient.ConsumerState(
        channel: channel, queue: "", noAck: true, prefetch: 0, isForReplies: true)
      client.add(state, as: consumer)
      let address = ReplyAddress(session: session, consumer: consumer).text
      answerBehindPublishes(token, .replyAddress(address), channel, session, client)
    case .cancel(let consumer):
      cancel(consumer, token, session, client)
    case .get(let queue, let noAck):
      get(queue, noAck, token, channel, session, client)
    case .setChannelPrefetch(let count):
      setLimit(count, of: channel, session, client)
      answerBehindPublishes(token, .done, channel, session, client)
    case .setConsumerPrefetch(let limits):
      for limit in limits {
        setPrefetch(limit.count, of: limit.consumer, session, client)
      }
      reshareCredit(session, client)
      answerBehindPublishes(token, .done, channel, session, client)
    case .awaitPublishes:
      answerBehindPublishes(token, .done, channel, session, client)
    case .commit:
      stopForBug("a commit is carried out with its list")
    }
  }

  /// Answers what is decided here, but not before the channel's publishes are: their returns and faults
  /// come first, as in RabbitMQ.
  mutating func answerBehindPublishes(
    _ token: RequestToken, _ answer: BrokerAnswer, _ channel: ChannelID, _ session: SessionID,
    _ client: AMQPClient
  ) {
    guard client.hasUnanswered(of: channel) else {
      self.answer(token, answer, to: client)
      return
    }
    let tag = tag(.turn(token, answer), for: client)
    relay.append { CommandWriter.mark(session, tag: tag, into: &$0) }
  }

  /// Proposes what a read could not answer.
  mutating func order(
    _ request: ChannelRequest, _ token: RequestToken, _ session: SessionID, _ client: AMQPClient,
    _ replica: borrowing Replica
  ) {
    let requester = Requester.session(session)
    let host = client.host
    switch request {
    case .declareQueue(let declaration):
      if declaration.name.hasPrefix("amq."), !declaration.name.hasPrefix("amq.gen-") {
        refuse(token, .reservedQueueName(declaration.name), client)
        return
      }
      let queuesMax = configuration.limits.queues
      if replica.machine.queueCount >= queuesMax,
        replica.machine.queueInfo(TopologyName(declaration.name, in: host)) == nil
      {
        let vhost = replica.machine.name(of: host)
        refuse(token, .tooManyQueues(queuesMax, declaration.name, vhost: vhost), client)
        return
      }
      let tag = tag(.declare(token, declaration), for: client)
      let order = QueueOrder(declaration, in: host)
      relay.append { CommandWriter.declareQueue(requester, tag: tag, order, into: &$0) }
    case .inspectQueue(let name):
      let tag = tag(.messages(token), for: client)
      var order = QueueOrder(TopologyName(name, in: host))
      order.isPassive = true
      relay.append { CommandWriter.declareQueue(requester, tag: tag, order, into: &$0) }
    case .declareExchange(let declaration):
      let tag = tag(.declareExchange(token, declaration), for: client)
      let order = ExchangeOrder(declaration, in: host)
      relay.append { CommandWriter.declareExchange(requester, tag: tag, order, into: &$0) }
    case .inspectExchange(let name):
      let tag = tag(.done(token), for: client)
      var order = ExchangeOrder(TopologyName(name, in: host), ExchangeSettings(kind: .direct))
      order.isPassive = true
      relay.append { CommandWriter.declareExchange(requester, tag: tag, order, into: &$0) }
    case .bindQueue(let binding):
      let tag = tag(.done(token), for: client)
      let order = BindingOrder(binding, in: host)
      relay.append { CommandWriter.bind(requester, tag: tag, order, into: &$0) }
    case .bindExchange(let binding):
      let tag = tag(.done(token), for: client)
      let order = BindingOrder(binding, in: host)
      relay.append { CommandWriter.bind(requester, tag: tag, order, into: &$0) }
    default:
      stopForBug("\(request) is no declaration")
    }
  }

  // MARK: Getting

  private mutating func get(
    _ queue: String, _ noAck: Bool, _ token: RequestToken, _ channel: ChannelID,
    _ session: SessionID, _ client: AMQPClient
  ) {
    let taker = client.takers.ask(queue, of: channel)
    let tag = tag(.get(token, taker, noAck: noAck), for: client)
    let name = TopologyName(queue, in: client.host)
    relay.append {
      CommandWriter.take(session, tag: tag, consumer: taker, queue: name, into: &$0)
    }
  }
}
