// Consumers and how many messages they may hold. The machine of queues gives each of them its credit;
// what is told here is told to it. Limits over all consumers of a channel are in `+ChannelLimits`.

import AMQP
import Base
import Node
import QueueMachine

extension AMQPGateway {
  mutating func consume(
    _ request: ConsumeRequest, _ token: RequestToken, _ channel: ChannelID,
    _ session: SessionID, _ client: AMQPClient
  ) {
    let state = AMQPClient.ConsumerState(
      channel: channel, queue: request.queue, noAck: request.noAck, prefetch: request.prefetch)
    client.add(state, as: request.consumer)
    if !request.noAck, request.prefetch == 0, client.channelLimits[channel] == nil {
      advise(.noPrefetch(queue: request.queue))
    }
    reshareCredit(session, client, but: request.consumer)
    // Less than one is said behind it.
    let credit = max(1, credit(for: state, client))
    client.setCredit(credit, of: request.consumer)
    let tag = tag(.consume(token, request.consumer), for: client)
    let queue = TopologyName(request.queue, in: client.host)
    relay.append {
      CommandWriter.consume(
        session, tag: tag, consumer: request.consumer, queue: queue, credit: credit,
        isExclusive: request.isExclusive, into: &$0)
    }
    guard let limit = client.channelLimits[channel] else { return }
    if !limit.hasRoom { wait(request.consumer, client) }
    shareRoom(of: channel, session, client)
  }

  /// How many messages the consumer may hold: what it holds already, and its share of what is left.
  ///
  /// - Parameter share: of what is left of its channel's limit; nil for as much as all others get.
  func credit(
    for consumer: AMQPClient.ConsumerState, _ client: AMQPClient, share: Int? = nil
  ) -> UInt32 {
    let given = client.creditGiven - Int(consumer.credit)
    let free = max(1, MachineLimits().creditPerSession - given)
    let limit = client.channelLimits[consumer.channel]
    var wanted = min(consumer.wantedCredit, client.creditShares.share)
    // It takes no room, but waits for it as the others do.
    if consumer.noAck { return limit?.hasRoom == false ? 0 : UInt32(min(free, wanted)) }
    if let limit {
      wanted = limit.hasRoom ? min(wanted, consumer.sent + (share ?? limit.share)) : 0
    }
    return UInt32(max(0, min(wanted, free)))
  }

  mutating func setPrefetch(
    _ count: UInt16, of consumer: ConsumerID, _ session: SessionID, _ client: AMQPClient
  ) {
    guard let state = client.setPrefetch(count, of: consumer), !state.isForReplies else { return }
    // One that waits for room is told in its turn.
    if state.isWaiting { return }
    let credit = credit(for: state, client)
    tell(credit, to: consumer, session, client)
    if credit == 0 { wait(consumer, client) }
    reshareCredit(session, client)
  }

  /// To be called after the connection's consumers have changed, or what they want.
  ///
  /// - Parameter new: it is told by itself.
  mutating func reshareCredit(
    _ session: SessionID, _ client: AMQPClient, but new: ConsumerID? = nil
  ) {
    guard client.reshareCredit() else { return }
    let share = client.creditShares.share
    for consumer in client.consumers.keys.sorted() where consumer != new {
      guard let state = client.consumers[consumer], !state.isForReplies else { continue }
      // Under a channel's limit whoever wants more waits for its turn.
      let isLess = Int(state.credit) > share
      if isLess || client.channelLimits[state.channel] == nil {
        tell(credit(for: state, client), to: consumer, session, client)
      }
    }
  }

  /// - Returns: whether that is news.
  @discardableResult
  mutating func tell(
    _ credit: UInt32, to consumer: ConsumerID, as awaited: AMQPClient.Awaited = .nothing,
    _ session: SessionID, _ client: AMQPClient
  ) -> Bool {
    guard let state = client.consumers[consumer], state.credit != credit else { return false }
    client.setCredit(credit, of: consumer)
    counters.creditsTold += 1
    let tag = tag(awaited, for: client)
    relay.append {
      CommandWriter.setCredit(session, consumer: consumer, tag: tag, credit: credit, into: &$0)
    }
    needsTurn = true
    return true
  }

  mutating func cancel(
    _ consumer: ConsumerID, _ token: RequestToken, _ session: SessionID, _ client: AMQPClient
  ) {
    guard let state = client.remove(consumer), !state.isForReplies else {
      answer(token, .done, to: client)
      return
    }
    client.startCancelling(consumer, state, token)
    let tag = tag(.cancel(token, consumer, state.channel), for: client)
    relay.append {
      CommandWriter.unsubscribe(
        session, consumer: consumer, tag: tag, returnHeld: false, into: &$0)
    }
    shareRoom(of: state.channel, session, client)
    reshareCredit(session, client)
  }
}
