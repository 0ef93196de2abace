// One open channel of a connection: what must be remembered between frames. The rules are in the
// extensions of `ConnectionMachine`.

import Base

struct Channel {
  enum Phase {
    case open
    /// The client closes it; the broker's word is awaited (`pending`), then close-ok is sent.
    case closingByClient
    /// We closed it for a fault: all frames but close-ok and close are dropped.
    case closing
  }

  enum Mode {
    case plain
    case confirm
    case transaction
  }

  let id: ChannelID
  var phase = Phase.open
  var mode = Mode.plain
  /// The request that must be answered before another frame of the channel is taken.
  var pending: PendingRequest?
  /// What "" means in queue methods; empty before the first declaration.
  var lastQueue = ""

  /// Publishes taken so far.
  var published: UInt64 = 0
  /// Publishes before confirm.select, which is where confirm tags begin.
  var publishedBeforeConfirm: UInt64 = 0
  var confirms = ConfirmBook()
  /// It stands in the machine's list of channels with confirms to tell.
  var isConfirming = false

  var lastDeliveryTag: UInt64 = 0
  var unsettled = UnsettledBook()
  /// By ascending id.
  var consumers: [ChannelConsumer] = []
  /// For consumers to come (basic.qos global=false), 0 for no limit.
  var prefetch: UInt16 = 0
  /// For all together (basic.qos global=true), 0 for no limit.
  var channelPrefetch: UInt16 = 0
  /// Where replies to this channel's direct requests go; nil without such a consumer.
  var replyAddress: [UInt8]?

  var assembly = Assembly()
  var transaction = Transaction()

  init(id: ChannelID) {
    self.id = id
  }

  var number: UInt16 { id.number }

  func place(of consumer: ConsumerID) -> Int? {
    var low = 0
    var high = consumers.count
    while low < high {
      let middle = (low + high) / 2
      if consumers[middle].id < consumer { low = middle + 1 } else { high = middle }
    }
    return low < consumers.count && consumers[low].id == consumer ? low : nil
  }
}

struct ChannelConsumer {
  let id: ConsumerID
  let tag: [UInt8]
  let noAck: Bool
  /// Of direct replies.
  let isReplyConsumer: Bool
  /// As it was when the consumer was opened.
  let ownPrefetch: UInt16
  /// As it is, after basic.qos on the fly.
  var prefetch: UInt16
}

/// A request that the broker has not answered, and what the client is to be told then.
struct PendingRequest {
  enum Kind {
    case declareQueue(name: String)
    case ok(MethodID)
    /// The client is sent these bytes.
    case frame([UInt8])
    case messages(MethodID)
    case consume(ChannelConsumer)
    case cancel(ConsumerID)
    case get(noAck: Bool)
    case commit
    case close
  }

  let token: RequestToken
  /// What the client sent: faults name it.
  let method: MethodID
  let kind: Kind
  /// The client wants no answer but a fault.
  let noWait: Bool
}

/// Content that is coming in. All of it so far lies in one piece, exchange and routing key first:
/// at the end of the request list's bytes while frames of one channel follow each other, else in
/// `parked`.
///
///     exchange | routing key | properties | body so far
///
/// Its fields are changed in place: on the hot path no copy of it is made.
struct Assembly {
  enum Stage {
    /// No publish is under way.
    case idle
    /// The content header must come.
    case header
    /// Bodies must come.
    case body
  }

  var stage = Stage.idle
  var isMandatory = false
  var isPersistent = false
  var priority: UInt8 = 0
  var exchangeBytes = 0
  var routingKeyBytes = 0
  var propertiesBytes = 0
  /// Within the properties.
  var headers = 0..<0
  var bodyBytes: UInt64 = 0
  var receivedBytes: UInt64 = 0
  var expiration: UInt64?
  var delay: UInt64?
  var copies: [[UInt8]] = []
  /// What these take, counted as parked while the content is not whole.
  var copiesBytes = 0
  var parked: [UInt8] = []

  /// What an array takes in memory besides its bytes.
  static let bytesPerCopy = 64
}

/// What a channel in transaction mode has gathered since the last commit.
struct Transaction {
  /// Ranges are places in `bytes`.
  var publishes: [PublishRequest] = []
  var bytes: [UInt8] = []
  var settles: [(outcome: SettleOutcome, unsettled: Unsettled)] = []

  var isEmpty: Bool { publishes.isEmpty && settles.isEmpty }
}
