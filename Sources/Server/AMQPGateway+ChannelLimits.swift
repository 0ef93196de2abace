// A limit over all consumers of a channel (basic.qos global=true). The machine of queues knows consumers
// one by one, so the limit is kept here: of what is left of it the consumers get a share each as credit,
// and whoever has used up its own waits in a list for another share.
//
// Which of the queues will have the next messages nobody knows, so the shares together are more than what
// is left. What is sent too much goes back unseen, to its place, and its consumer gets nothing more until
// it is its turn. So a message costs a few orders, however many consumers the channel has:
//
//     used up, or sent too much ──▶ waits, with no credit if others wait as well
//     settled, or not used ──▶ the first that wait get a share: one, and if it takes nothing two, four …

import AMQP
import Base
import Node
import QueueMachine

extension AMQPGateway {
  /// So many that wait get a share at once.
  private static let sharesAtOnce = 64

  /// - Parameter count: 0 for no limit.
  mutating func setLimit(
    _ count: UInt16, of channel: ChannelID, _ session: SessionID, _ client: AMQPClient
  ) {
    let sharers = client.sharers(of: channel)
    client.stopWaiting(channel)
    if count == 0 {
      client.channelLimits[channel] = nil
    } else if client.channelLimits[channel] != nil {
      client.channelLimits[channel]?.limit = count
    } else {
      // Nothing was counted so far. Those of other channels count for theirs.
      let unsettled = client.machine.unsettledOfConsumers(channel)
      let unsent = client.outbox.countsByConsumer
      for consumer in sharers {
        client.setCounts(
          sent: unsettled[consumer] ?? 0, unsent: unsent[consumer] ?? 0, of: consumer)
      }
      client.channelLimits[channel] = AMQPClient.ChannelLimit(
        limit: count, sent: unsettled.values.reduce(0, +),
        unsent: sharers.reduce(0) { $0 + (unsent[$1] ?? 0) }, sharers: sharers.count)
    }
    for consumer in sharers {
      guard let state = client.consumers[consumer] else { continue }
      let credit = credit(for: state, client)
      tell(credit, to: consumer, session, client)
      if credit == 0 { wait(consumer, client) }
    }
    shareRoom(of: channel, session, client)
  }

  /// Whether the consumer's channel may be sent one more through it.
  func hasRoom(for state: AMQPClient.ConsumerState, _ client: AMQPClient) -> Bool {
    guard !client.channelLimits.isEmpty, let limit = client.channelLimits[state.channel] else {
      return true
    }
    // Behind what went back nothing may come before it.
    return limit.hasRoom && !state.isReturning
  }

  /// A message was sent to the consumer.
  mutating func takeRoom(_ consumer: ConsumerID, _ channel: ChannelID, _ client: AMQPClient) {
    guard !client.channelLimits.isEmpty, client.channelLimits[channel] != nil else { return }
    client.channelLimits[channel]?.take()
    client.countSent(1, of: consumer)
    guard let state = client.consumers[consumer], state.sent >= Int(state.credit),
      let limit = client.channelLimits[channel]
    else { return }
    // Where its own prefetch is what stops it, it goes on as it settles.
    if !limit.hasRoom || credit(for: state, client, share: limit.room) > state.credit {
      wait(consumer, client)
    }
  }

  /// A message goes back for which the channel has no room: its consumer is to get no more, which must
  /// be ordered first, or it would come again at once.
  mutating func handBack(to consumer: ConsumerID, _ client: AMQPClient) {
    guard let session = client.openSession, let state = client.consumers[consumer] else { return }
    lower(consumer, session, client)
    if !state.isReturning { client.noteReturning(of: consumer) }
    wait(consumer, client)
  }

  mutating func lower(
    _ consumer: ConsumerID, _ session: SessionID, _ client: AMQPClient
  ) {
    guard tell(0, to: consumer, as: .lowered(consumer), session, client) else { return }
    client.countLowering(1, of: consumer)
  }

  /// Messages were settled: others may come in their place.
  mutating func makeRoom(_ settles: ArraySlice<SettleRequest>, _ client: AMQPClient) {
    guard !client.channelLimits.isEmpty, let session = client.openSession else { return }
    var changed: Set<ChannelID> = []
    for settle in settles where !AMQPTakers.owns(settle.consumer) {
      guard client.channelLimits[settle.channel] != nil else { continue }
      client.channelLimits[settle.channel]?.sent -= settle.count
      client.countSent(-settle.count, of: settle.consumer)
      changed.insert(settle.channel)
    }
    for channel in changed { shareRoom(of: channel, session, client) }
    // What was settled elsewhere on the connection counts too: it bounds what a session may hold.
    shareRoom(client)
  }

  /// The same for all channels that have a limit: something was sent, or an order was carried out.
  mutating func shareRoom(_ client: AMQPClient) {
    guard !client.waitingChannels.isEmpty, let session = client.openSession else { return }
    for channel in client.waitingChannels { shareRoom(of: channel, session, client) }
  }

  /// The consumer wants more than it may have.
  func wait(_ consumer: ConsumerID, _ client: AMQPClient) {
    guard let state = client.consumers[consumer], !state.isWaiting else { return }
    client.startWaiting(consumer, state.channel)
  }

  /// Gives what room there is to those that wait longest; the others have no credit while they wait.
  mutating func shareRoom(of channel: ChannelID, _ session: SessionID, _ client: AMQPClient) {
    guard let limit = client.channelLimits[channel], !limit.waiting.isEmpty else { return }
    // What is on its way to the client may take the room. It is looked at again behind that.
    if limit.hasRoom, limit.raising == 0, limit.unsent == 0 {
      raise(channel, session, client)
    }
    guard let limit = client.channelLimits[channel], limit.waiting.count > 1 else { return }
    for consumer in limit.waiting[limit.lowered...] { lower(consumer, session, client) }
    client.channelLimits[channel]?.lowered = limit.waiting.count
  }

  private mutating func raise(
    _ channel: ChannelID, _ session: SessionID, _ client: AMQPClient
  ) {
    guard let limit = client.channelLimits[channel] else { return }
    let count = min(limit.waiting.count, limit.sharesNext)
    let share = max(1, limit.room / count)
    for consumer in limit.waiting.prefix(count) {
      guard let state = client.consumers[consumer] else { continue }
      // What was given to it before it was told to stop must have come first.
      if state.isReturning, state.lowerings > 0 { break }
      client.popWaiting(channel)
      let credit = credit(for: state, client, share: share)
      if tell(credit, to: consumer, as: .raised(consumer, channel), session, client) {
        client.channelLimits[channel]?.raising += 1
      }
    }
    client.channelLimits[channel]?.sharesNext = min(2 * limit.sharesNext, Self.sharesAtOnce)
  }

  // MARK: What became of the orders

  /// An order to give a consumer nothing was carried out.
  mutating func isLowered(_ consumer: ConsumerID, _ client: AMQPClient) {
    client.countLowering(-1, of: consumer)
    shareLater(client)
  }

  /// An order to give a consumer more was carried out, or refused: the connection's consumers have all the
  /// credit there is.
  mutating func isRaised(
    _ consumer: ConsumerID, of channel: ChannelID, isRefused: Bool, _ client: AMQPClient
  ) {
    client.channelLimits[channel]?.raiseIsOver()
    if isRefused, client.consumers[consumer] != nil {
      // It would be refused again before something is settled.
      client.setCredit(0, of: consumer)
      wait(consumer, client)
    } else {
      shareLater(client)
    }
  }

  /// Behind the deliveries of the turn, which may have taken the room.
  private mutating func shareLater(_ client: AMQPClient) {
    guard !client.isSharing else { return }
    client.isSharing = true
    sharing.append(client)
  }

  mutating func shareRoomLeft() {
    guard !sharing.isEmpty else { return }
    var waiting: [AMQPClient] = []
    swap(&waiting, &sharing)
    for client in waiting {
      client.isSharing = false
      if client.phase == .open { shareRoom(client) }
    }
  }
}
