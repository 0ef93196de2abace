// What the AMQP gateway knows of one connection besides what the protocol's own machine knows. The
// rules are in `AMQPGateway`.

import AMQP
import Base
import QueueMachine
import Transport

final class AMQPClient {
  enum Phase {
    case open
    /// Everything was said: to be flushed, then the output is shut down.
    case lastWords
    /// The output is shut down; what still comes is dropped until the peer closes.
    case lingering
    case closed
  }

  /// The session that the machine of queues has for the connection.
  enum SessionState {
    case none
    case opening(RequestToken)
    case open(SessionID)
    /// The client closed the connection; nil for one that nobody waits for.
    case closing(SessionID, RequestToken?)
    case ended
  }

  /// Publishes under one tag whose fate is not known yet.
  struct PublishRun {
    var tag: RequestTag
    var channel: ChannelID
    var first: ChannelSequence
    var count: UInt32
    var wantsConfirm: Bool
    /// What it takes in the relay.
    var bytes: Int
  }

  /// A request whose reply the machine of queues gives.
  enum Awaited {
    case done(RequestToken)
    /// Decided already: only its turn is awaited.
    case turn(RequestToken, BrokerAnswer)
    case declare(RequestToken, QueueDeclaration)
    case declareExchange(RequestToken, ExchangeDeclaration)
    case messages(RequestToken)
    case consume(RequestToken, ConsumerID)
    case cancel(RequestToken, ConsumerID, ChannelID)
    case get(RequestToken, ConsumerID, noAck: Bool)
    /// With the tags of its publishes, what was given out since its beginning; and its settles of what
    /// was taken by basic.get.
    case commit(RequestToken, publishes: Range<UInt64>, taken: [SettleRequest])
    /// A consumer may hold so many; before it was as many as said last.
    case told(ConsumerID, UInt32, before: UInt32)
    /// A consumer is to get nothing for now.
    case lowered(ConsumerID)
    /// A consumer was given a share of its channel's limit.
    case raised(ConsumerID, ChannelID)
    case nothing
  }

  struct ConsumerState {
    var channel: ChannelID
    var queue: String
    var noAck: Bool
    /// As asked for: 0 is no limit.
    var prefetch: UInt16
    var isExclusive = false
    /// What the machine of queues was told.
    var credit: UInt32 = 0
    /// It stands in the list of those that have less than their share.
    var isShort = false
    /// Sent and not settled, counted while its channel has a limit.
    var sent = 0
    /// In the outbox, counted while its channel has a limit.
    var unsent = 0
    /// It stands in the list of those that wait for a share of its channel's limit.
    var isWaiting = false
    /// What was sent too much to it goes back: until its next share it gets nothing.
    var isReturning = false
    /// Orders to give it nothing that are on their way.
    var lowerings = 0
    /// A consumer of direct replies: these have no queue, and are numbered here.
    var isForReplies = false
    var nextReply: UInt64 = 1

    /// The most that it should hold. What needs no acknowledgement is acknowledged as it is written:
    /// enough for a turn.
    var wantedCredit: Int {
      if noAck { return 2_048 }
      return prefetch == 0 ? Int(FixedLimits.creditMax) : Int(prefetch)
    }
  }

  /// The limit over all consumers of a channel (basic.qos global=true).
  struct ChannelLimit {
    var limit: UInt16
    /// Sent to the channel's consumers, those that are gone included, and not settled.
    var sent: Int
    /// Given to the channel's consumers and still in the outbox.
    var unsent: Int
    /// Its consumers, those of direct replies left out.
    var sharers: Int
    /// Those that want more than they may have, who waits longest first. Where there are several they have
    /// no credit, so that none of them goes on by itself; so many of them were told.
    fileprivate(set) var waiting: [ConsumerID] = []
    var lowered = 0
    /// Orders to give somebody more that are on their way.
    var raising = 0
    /// So many get a share next, since those before took nothing.
    var sharesNext = 1

    init(limit: UInt16, sent: Int, unsent: Int, sharers: Int) {
      self.limit = limit
      self.sent = sent
      self.unsent = unsent
      self.sharers = sharers
    }

    var room: Int { max(0, Int(limit) - sent) }
    var hasRoom: Bool { room > 0 }
    /// Of what room there is, if all get the same.
    var share: Int { max(1, room / max(1, sharers)) }

    mutating func take() {
      sent += 1
      if !hasRoom { sharesNext = 1 }
    }

    mutating func raiseIsOver() { raising = max(0, raising - 1) }

    fileprivate mutating func stopWaiting(_ consumer: ConsumerID) {
      guard let place = waiting.firstIndex(of: consumer) else { return }
      waiting.remove(at: place)
      if place < lowered { lowered -= 1 }
    }
  }

  struct Cancelling {
    let state: ConsumerState
    let token: RequestToken
    /// Still in the outbox; nil as long as more may come.
    var unsent: Int?
  }

  /// A get whose message is not written yet.
  struct WaitingGet {
    var token: RequestToken
    var taker: ConsumerID
    var delivery: Delivery
    /// How many more the queue has.
    var ready: UInt64
    var noAck: Bool
    /// Before then its message is not looked up again.
    var retryAt = MonotonicTime(0)
  }

  let connection: Connection
  /// The poller's token, and the connection's number in `SessionOrigin`.
  let token: UInt64
  let acceptedAt: MonotonicTime
  var machine: ConnectionMachine
  var phase = Phase.open
  var session = SessionState.none
  var host = VirtualHostID.main
  /// Nothing is read until an answer is given or there is room again.
  var isPaused = false
  /// So many of its publishes are still looked at for `skein doctor`.
  var transientLooks = 8
  /// So many messages that it is given are still looked at for being transient.
  var deliveryLooks = 64
  /// It has published something.
  var isPublisher = false
  /// Bytes of its publishes whose fate is not known.
  var waitingBytes = 0
  /// What it has begun and not finished, as the gateway has counted it; see `countBegun`.
  var begunBytes = 0
  /// What it has waiting to be sent, as the gateway has counted it.
  var countedOutput = 0
  /// Before then nothing is looked up for it: what is next was not to be had.
  var deliverRetry = MonotonicTime(0)
  /// Since when nothing is read for want of room; nil if it is not for that.
  var heldBackSince: MonotonicTime?
  /// Taken from the machine while no publishes could be carried out: from the first of these on.
  var parked: BrokerRequests?
  /// When the last words have to be over.
  var lingerDeadline = MonotonicTime.never

  /// In the order of their tags.
  private(set) var publishes = RingBuffer<PublishRun>()
  /// How many of them each channel has.
  private var unansweredRuns: [ChannelID: Int] = [:]
  var nextPublishTag: UInt64 = 1
  /// So many of the first run are answered.
  var firstAnswered: UInt32 = 0
  /// Looked up only.
  var awaited: [RequestTag: Awaited] = [:]
  private(set) var consumers: [ConsumerID: ConsumerState] = [:]
  /// Credit that these have together.
  private(set) var creditGiven = 0
  /// What they want, and so how much each may have.
  private(set) var creditShares = CreditShares()
  /// Consumers that have less than their share, since others hold more than theirs from before.
  private var short: [ConsumerID] = []
  /// Where there is one.
  var channelLimits: [ChannelID: ChannelLimit] = [:]
  /// Those with consumers that wait; others may be among them.
  private(set) var waitingChannels: Set<ChannelID> = []
  var takers = AMQPTakers()
  /// In the order in which they were taken.
  var waitingGets: [WaitingGet] = []
  /// Whether they come before the consumers' messages, where there is not room for both.
  var getsAreFirst = true
  /// Consumers that are being cancelled: what they were given before is sent before cancel-ok.
  private(set) var cancelling: [ConsumerID: Cancelling] = [:]
  /// Consumers that were cancelled and held messages then: these go back with their channel.
  var cancelled: [ConsumerID: ChannelID] = [:]
  var outbox = Outbox()
  var isDelivering = false
  var isSharing = false
  var isTouched = false

  init(
    _ connection: Connection, token: UInt64, machine: consuming ConnectionMachine,
    now: MonotonicTime
  ) {
    self.connection = connection
    self.token = token
    self.machine = machine
    acceptedAt = now
  }

  /// The session that commands go to; nil if there is none.
  var openSession: SessionID? {
    if case .open(let session) = session { session } else { nil }
  }

  /// Deliveries and gets that are not written yet.
  var unwrittenCount: Int { outbox.count + waitingGets.count }

  /// Whether there is something to write that may be looked up.
  func mayBeWritten(now: MonotonicTime) -> Bool {
    guard phase == .open else { return false }
    return !outbox.isEmpty && now >= deliverRetry || waitingGets.contains { now >= $0.retryAt }
  }

  // MARK: Publishes

  func append(_ run: PublishRun) {
    publishes.append(run)
    unansweredRuns[run.channel, default: 0] += 1
  }

  /// The first run is answered, or nobody will.
  func removeFirstRun() {
    guard let run = publishes.popFirst(), let count = unansweredRuns[run.channel] else { return }
    unansweredRuns[run.channel] = count > 1 ? count - 1 : nil
  }

  func removeRuns() {
    publishes.removeAll()
    unansweredRuns.removeAll()
  }

  func hasUnanswered(of channel: ChannelID) -> Bool { unansweredRuns[channel] != nil }

  // MARK: Consumers

  func add(_ state: ConsumerState, as consumer: ConsumerID) {
    consumers[consumer] = state
    if state.isForReplies { return }
    channelLimits[state.channel]?.sharers += 1
    creditShares.add(state.wantedCredit)
  }

  /// - Returns: what it was; nil if there is none.
  @discardableResult func remove(_ consumer: ConsumerID) -> ConsumerState? {
    guard let state = consumers.removeValue(forKey: consumer) else { return nil }
    creditGiven -= Int(state.credit)
    if !state.isForReplies {
      channelLimits[state.channel]?.sharers -= 1
      creditShares.remove(state.wantedCredit)
    }
    channelLimits[state.channel]?.unsent -= state.unsent
    if state.isWaiting { channelLimits[state.channel]?.stopWaiting(consumer) }
    if state.isShort { short.removeAll { $0 == consumer } }
    return state
  }

  func setCredit(_ credit: UInt32, of consumer: ConsumerID) {
    guard let before = consumers[consumer]?.credit else { return }
    creditGiven += Int(credit) - Int(before)
    consumers[consumer]?.credit = credit
  }

  /// - Returns: the consumer with it.
  func setPrefetch(_ count: UInt16, of consumer: ConsumerID) -> ConsumerState? {
    guard let before = consumers[consumer] else { return nil }
    consumers[consumer]?.prefetch = count
    if !before.isForReplies {
      creditShares.remove(before.wantedCredit)
      creditShares.add(consumers[consumer]?.wantedCredit ?? 0)
    }
    return consumers[consumer]
  }

  func noteShort(_ consumer: ConsumerID) {
    guard consumers[consumer]?.isShort == false else { return }
    consumers[consumer]?.isShort = true
    short.append(consumer)
  }

  /// Whoever has had less than its share for the longest time.
  func takeShort() -> ConsumerID? {
    guard let consumer = short.first else { return nil }
    short.removeFirst()
    consumers[consumer]?.isShort = false
    return consumer
  }

  /// - Returns: whether each consumer may have another share than before.
  func reshareCredit() -> Bool { creditShares.settle() }

  func startCancelling(_ consumer: ConsumerID, _ state: ConsumerState, _ token: RequestToken) {
    cancelling[consumer] = Cancelling(state: state, token: token)
  }

  /// The consumer is given nothing any more.
  ///
  /// - Returns: whether all that it was given is sent.
  func isGivenAll(_ consumer: ConsumerID) -> Bool {
    let unsent = outbox.count(of: consumer)
    cancelling[consumer]?.unsent = unsent
    return unsent == 0
  }

  /// One message for the consumer left the outbox.
  ///
  /// - Returns: whether it was the last one before its cancel-ok.
  func isLastBeforeCancel(of consumer: ConsumerID) -> Bool {
    guard let unsent = cancelling[consumer]?.unsent else { return false }
    cancelling[consumer]?.unsent = unsent - 1
    return unsent == 1
  }

  func stopCancelling(_ consumer: ConsumerID) -> Cancelling? {
    cancelling.removeValue(forKey: consumer)
  }

  func forgetCancelling() { cancelling.removeAll() }

  /// The number for the next direct reply to the consumer; nil without it.
  func takeReplyNumber(of consumer: ConsumerID) -> UInt64? {
    guard let number = consumers[consumer]?.nextReply else { return nil }
    consumers[consumer]?.nextReply += 1
    return number
  }

  /// The consumers that share the channel's limit, by their numbers.
  func sharers(of channel: ChannelID) -> [ConsumerID] {
    consumers.filter { $0.value.channel == channel && !$0.value.isForReplies }.keys.sorted()
  }

  func setCounts(sent: Int, unsent: Int, of consumer: ConsumerID) {
    consumers[consumer]?.sent = sent
    consumers[consumer]?.unsent = unsent
  }

  func countUnsent(_ count: Int, of consumer: ConsumerID) {
    guard !channelLimits.isEmpty, let channel = consumers[consumer]?.channel,
      channelLimits[channel] != nil
    else { return }
    consumers[consumer]?.unsent += count
    channelLimits[channel]?.unsent += count
  }

  func countSent(_ count: Int, of consumer: ConsumerID) { consumers[consumer]?.sent += count }
  func countLowering(_ count: Int, of consumer: ConsumerID) {
    consumers[consumer]?.lowerings += count
  }
  func noteReturning(of consumer: ConsumerID) { consumers[consumer]?.isReturning = true }

  func startWaiting(_ consumer: ConsumerID, _ channel: ChannelID) {
    guard channelLimits[channel] != nil else { return }
    consumers[consumer]?.isWaiting = true
    channelLimits[channel]?.waiting.append(consumer)
    waitingChannels.insert(channel)
  }

  /// Whoever waits longest waits no more.
  func popWaiting(_ channel: ChannelID) {
    guard let consumer = channelLimits[channel]?.waiting.first else { return }
    channelLimits[channel]?.stopWaiting(consumer)
    consumers[consumer]?.isWaiting = false
    consumers[consumer]?.isReturning = false
  }

  /// Nobody waits any more.
  func stopWaiting(_ channel: ChannelID) {
    while channelLimits[channel]?.waiting.isEmpty == false { popWaiting(channel) }
    waitingChannels.remove(channel)
  }
}
