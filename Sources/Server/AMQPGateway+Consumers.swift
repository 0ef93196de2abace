// Consumers and how many messages they may hold. The machine of queues gives each of them its credit.
// A limit over all consumers of a channel is kept here: each may have what it holds and what is left
// of the limit, and is told whenever that changes. Between a message and the news of it another
// consumer's may have been decided: that one goes back unseen, to its place.

import AMQP
import Base
import Node
import QueueMachine

extension AMQPGateway {
  mutating func consume(
    _ request: ConsumeRequest, _ token: RequestToken, _ channel: ChannelID,
    _ session: SessionID, _ client: AMQPClient
  ) {
    var state = AMQPClient.ConsumerState(
      channel: channel, queue: request.queue, noAck: request.noAck, prefetch: request.prefetch)
    client.consumers[request.consumer] = state
    if !request.noAck, request.prefetch == 0, client.channelLimits[channel] == nil {
      advise(.noPrefetch(queue: request.queue))
    }
    // Less than one is said behind it.
    state.credit = max(1, credit(for: state, besides: 0, client))
    client.consumers[request.consumer] = state
    let tag = tag(.consume(token, request.consumer), for: client)
    let queue = TopologyName(request.queue, in: client.host)
    relay.append {
      CommandWriter.consume(
        session, tag: tag, consumer: request.consumer, queue: queue, credit: state.credit,
        isExclusive: request.isExclusive, into: &$0)
    }
    // The others share the channel's limit with it.
    if client.channelLimits[channel] != nil { updateCredit(of: channel, session, client) }
  }

  /// How many messages the consumer may hold.
  ///
  /// - Parameter own: what it has of the session's credit already.
  private func credit(
    for consumer: AMQPClient.ConsumerState, besides own: UInt32, _ client: AMQPClient
  ) -> UInt32 {
    let free = max(1, MachineLimits().creditPerSession - client.creditGiven + Int(own))
    // What needs no acknowledgement is acknowledged as it is written: enough for a turn.
    if consumer.noAck {
      // It takes no room, but waits for it as the others do.
      if let limit = client.channelLimits[consumer.channel], !limit.hasRoom { return 0 }
      return UInt32(min(free, 2_048))
    }
    var wanted =
      consumer.prefetch == 0
      ? max(64, min(Int(FixedLimits.creditMax), free / 2)) : Int(consumer.prefetch)
    if let limit = client.channelLimits[consumer.channel] {
      wanted = min(wanted, Int(limit.limit))
      let sharers = client.consumers.values.count {
        $0.channel == consumer.channel && !$0.noAck
      }
      // One alone is held by its credit: nothing need be said as it takes and settles.
      if sharers > 1 || limit.sent > consumer.sent {
        // Where nothing is left, not even for who settles next: then it is another one's turn.
        let room = max(0, Int(limit.limit) - limit.sent)
        wanted = room == 0 ? 0 : min(wanted, consumer.sent + room)
      }
    }
    return UInt32(max(0, min(wanted, free)))
  }

  /// - Parameter count: 0 for no limit.
  mutating func setLimit(
    _ count: UInt16, of channel: ChannelID, _ session: SessionID, _ client: AMQPClient
  ) {
    if count == 0 {
      client.channelLimits[channel] = nil
    } else if client.channelLimits[channel] != nil {
      client.channelLimits[channel]?.limit = count
    } else {
      // Nothing was counted so far. Those of other channels count for theirs.
      let unsettled = client.machine.unsettledOfConsumers(channel)
      for (consumer, state) in client.consumers where state.channel == channel {
        client.consumers[consumer]?.sent = unsettled[consumer] ?? 0
      }
      let sent = unsettled.values.reduce(0, +)
      client.channelLimits[channel] = AMQPClient.ChannelLimit(limit: count, sent: sent)
    }
    updateCredit(of: channel, session, client)
  }

  /// Whether the consumer's channel may be sent one more.
  func hasRoom(for state: AMQPClient.ConsumerState, _ client: AMQPClient) -> Bool {
    guard !client.channelLimits.isEmpty else { return true }
    return client.channelLimits[state.channel]?.hasRoom ?? true
  }

  /// A message was sent to the consumer.
  mutating func takeRoom(_ consumer: ConsumerID, _ channel: ChannelID, _ client: AMQPClient) {
    guard !client.channelLimits.isEmpty, client.channelLimits[channel] != nil else { return }
    client.channelLimits[channel]?.sent += 1
    client.channelLimits[channel]?.last = consumer
    client.consumers[consumer]?.sent += 1
  }

  /// Messages were settled: others may come in their place.
  mutating func makeRoom(_ settles: ArraySlice<SettleRequest>, _ client: AMQPClient) {
    guard !client.channelLimits.isEmpty, let session = client.openSession else { return }
    var changed: [ChannelID] = []
    for settle in settles where !AMQPTakers.owns(settle.consumer) {
      guard client.channelLimits[settle.channel] != nil else { continue }
      let count = settle.count
      client.channelLimits[settle.channel]?.sent -= count
      client.consumers[settle.consumer]?.sent -= count
      if !changed.contains(settle.channel) { changed.append(settle.channel) }
    }
    for channel in changed { updateCredit(of: channel, session, client) }
  }

  /// Tells how much the consumers of the channels with a limit may take now.
  mutating func updateLimited(_ client: AMQPClient) {
    guard !client.channelLimits.isEmpty, let session = client.openSession else { return }
    for channel in client.channelLimits.keys.sorted(by: { $0.number < $1.number }) {
      updateCredit(of: channel, session, client)
    }
  }

  private mutating func updateCredit(
    of channel: ChannelID, _ session: SessionID, _ client: AMQPClient
  ) {
    let sharers = client.consumers.filter { $0.value.channel == channel && !$0.value.isForReplies }
    // Whoever is told first is first given what there is room for.
    let last = client.channelLimits[channel]?.last ?? ConsumerID(0)
    let inTurn = sharers.keys.sorted { ($0 <= last ? 1 : 0, $0) < ($1 <= last ? 1 : 0, $1) }
    for consumer in inTurn { updateCredit(of: consumer, session, client) }
  }

  mutating func updateCredit(
    of consumer: ConsumerID, _ session: SessionID, _ client: AMQPClient
  ) {
    guard let state = client.consumers[consumer] else { return }
    let credit = credit(for: state, besides: state.credit, client)
    guard credit != state.credit else { return }
    client.consumers[consumer]?.credit = credit
    let tag = tag(.nothing, for: client)
    relay.append {
      CommandWriter.setCredit(session, consumer: consumer, tag: tag, credit: credit, into: &$0)
    }
  }

  mutating func cancel(
    _ consumer: ConsumerID, _ token: RequestToken, _ session: SessionID, _ client: AMQPClient
  ) {
    guard let state = client.consumers.removeValue(forKey: consumer), !state.isForReplies else {
      answer(token, .done, to: client)
      return
    }
    let tag = tag(.cancel(token, consumer, state.channel), for: client)
    relay.append {
      CommandWriter.unsubscribe(
        session, consumer: consumer, tag: tag, returnHeld: false, into: &$0)
    }
    if client.channelLimits[state.channel] != nil {
      updateCredit(of: state.channel, session, client)
    }
  }
}
