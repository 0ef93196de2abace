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
    case declare(RequestToken, QueueDeclaration)
    case declareExchange(RequestToken, ExchangeDeclaration)
    case messages(RequestToken)
    case consume(RequestToken, ConsumerID)
    case cancel(RequestToken, ConsumerID, ChannelID)
    case get(RequestToken, ConsumerID, noAck: Bool)
    /// With the tags of its publishes, what was given out since its beginning; and its settles of what
    /// was taken by basic.get.
    case commit(RequestToken, publishes: Range<UInt64>, taken: [SettleRequest])
    case nothing
  }

  struct ConsumerState {
    var channel: ChannelID
    var queue: String
    var noAck: Bool
    /// As asked for: 0 is no limit.
    var prefetch: UInt16
    /// What the machine of queues was told.
    var credit: UInt32 = 0
    /// Sent and not settled, counted while its channel has a limit.
    var sent = 0
    /// A consumer of direct replies: these have no queue, and are numbered here.
    var isForReplies = false
    var nextReply: UInt64 = 1
  }

  /// The limit over all consumers of a channel (basic.qos global=true).
  struct ChannelLimit {
    var limit: UInt16
    /// Sent to the channel's consumers, those that are gone included, and not settled.
    var sent: Int
    /// Who was sent the last one: the others come first.
    var last = ConsumerID(0)
    var hasRoom: Bool { sent < Int(limit) }
  }

  /// A get whose message cannot be read yet.
  struct WaitingGet {
    var token: RequestToken
    var taker: ConsumerID
    var delivery: Delivery
    /// How many more the queue has.
    var ready: UInt64
    var noAck: Bool
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
  /// It has published something.
  var isPublisher = false
  /// Bytes of its publishes whose fate is not known.
  var waitingBytes = 0
  /// What it has begun and not finished, as the gateway has counted it; see `countBegun`.
  var begunBytes = 0
  /// Since when nothing is read for want of room; nil if it is not for that.
  var heldBackSince: MonotonicTime?
  /// Taken from the machine while no publishes could be carried out: from the first of these on.
  var parked: BrokerRequests?
  /// When the last words have to be over.
  var lingerDeadline = MonotonicTime.never

  /// In the order of their tags.
  var publishes = RingBuffer<PublishRun>()
  var nextPublishTag: UInt64 = 1
  /// So many of the first run are answered.
  var firstAnswered: UInt32 = 0
  /// Looked up only.
  var awaited: [RequestTag: Awaited] = [:]
  var consumers: [ConsumerID: ConsumerState] = [:]
  /// Where there is one.
  var channelLimits: [ChannelID: ChannelLimit] = [:]
  var takers = AMQPTakers()
  /// In the order in which they were taken.
  var waitingGets: [WaitingGet] = []
  /// Consumers that were cancelled and held messages then: these go back with their channel.
  var cancelled: [ConsumerID: ChannelID] = [:]
  var outbox = Outbox()
  var isDelivering = false
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

  /// Credit that the session's consumers have together.
  var creditGiven: Int { consumers.values.reduce(0) { $0 + Int($1.credit) } }
}
