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
      channel: channel, queue: request.queue, noAck: request.noAck, prefetch: request.prefetch,
      isExclusive: request.isExclusive)
    client.add(state, as: request.consumer)
    reshareCredit(session, client, but: request.consumer)
    // Less than one is said behind it.
    let credit = max(1, credit(for: state, client))
    open(request.consumer, state, credit: credit, token, session, client)
    guard let limit = client.channelLimits[channel] else { return }
    if !limit.hasRoom { wait(request.consumer, client) }
    shareRoom(of: channel, session, client)
  }

  private mutating func open(
    _ consumer: ConsumerID, _ state: AMQPClient.ConsumerState, credit: UInt32,
    _ token: RequestToken, _ session: SessionID, _ client: AMQPClient
  ) {
    client.setCredit(credit, of: consumer)
    let tag = tag(.consume(token, consumer), for: client)
    let queue = TopologyName(state.queue, in: client.host)
    relay.append {
      CommandWriter.consume(
        session, tag: tag, consumer: consumer, queue: queue, credit: credit,
        isExclusive: state.isExclusive, into: &$0)
    }
    needsTurn = true
  }

  /// Others hold more than their share from before, so that it was refused its own: it gets less until
  /// something is settled. False if there is nothing left at all.
  mutating func openWithLess(
    _ consumer: ConsumerID, _ token: RequestToken, _ client: AMQPClient
  ) -> Bool {
    guard let session = client.openSession, let state = client.consumers[consumer],
      state.credit > 1
    else { return false }
    client.noteShort(consumer)
    open(consumer, state, credit: max(1, state.credit / 4), token, session, client)
    return true
  }

  /// Something was settled, so there may be more for one of those that have less than their share.
  mutating func fillUp(_ client: AMQPClient) {
    guard let session = client.openSession, let consumer = client.takeShort(),
      let state = client.consumers[consumer], !state.isWaiting
    else { return }
    tell(max(state.credit, credit(for: state, client)), to: consumer, session, client)
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
      let limit = client.channelLimits[state.channel]
      let credit = credit(for: state, client)
      if Int(state.credit) > share {
        // Under a channel's limit whoever has nothing waits for its turn.
        if credit == 0 {
          lower(consumer, session, client)
          wait(consumer, client)
        } else {
          tell(credit, to: consumer, session, client)
        }
      } else if limit == nil || state.noAck && limit?.hasRoom == true && !state.isWaiting {
        tell(credit, to: consumer, session, client)
      }
    }
  }

  /// - Returns: whether that is news.
  @discardableResult
  mutating func tell(
    _ credit: UInt32, to consumer: ConsumerID, as awaited: AMQPClient.Awaited? = nil,
    _ session: SessionID, _ client: AMQPClient
  ) -> Bool {
    guard let state = client.consumers[consumer], state.credit != credit else { return false }
    client.setCredit(credit, of: consumer)
    counters.creditsTold += 1
    let tag = tag(awaited ?? .told(consumer, credit, before: state.credit), for: client)
    relay.append {
      CommandWriter.setCredit(session, consumer: consumer, tag: tag, credit: credit, into: &$0)
    }
    needsTurn = true
    return true
  }

  mutating func cancel(
    _ consumer: ConsumerID, _ token: RequestToken, _ session: SessionID, _ client: AMQPClient
  ) {
    guard let state = client.remove(consumer) else {
      answer(token, .done, to: client)
      return
    }
    if state.isForReplies {
      return answerBehindPublishes(token, .done, state.channel, session, client)
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
