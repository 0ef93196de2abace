// One AMQP connection, from the protocol header to the last close: bytes in, requests and bytes
// out. Holds no socket and reads no clock. The gateway that owns it calls, per turn of its loop:
//
//     receive     with what was read; carry out the requests, empty the list
//     answer, deliver, confirm, …    with what the broker decided
//     flush       once, for what was gathered (confirms)
//     tick        when `nextDeadline` is reached
//
// and writes what was appended to `output`. After each call it looks at `state`: whether to go on
// (what was read and not taken is given again once it is `.receiving`), and whether the connection
// is over. A broker that has no room calls `receive` later, or with fewer bytes: no more is asked of
// it than what they hold.
//
// Here is the state and what the gateway sees; `+Frames` takes frames, `+Handshake`, `+Channels`,
// `+Topology`, `+Publish`, `+Consume`, `+Settle` and `+Transactions` carry out methods, `+Broker`
// says what the broker decided, `+Close` ends things, `+Time` is about heartbeats and deadlines.

import Base

/// What the gateway is to do with the connection.
package enum ConnectionState: Hashable, Sendable {
  /// Read on.
  case receiving
  /// An answer is due before more is taken: read nothing, call `receive` again after `answer`.
  case waiting
  /// All was said. Send what is to be sent, shut the output down, drop what still comes until the
  /// peer closes.
  case finished
}

package struct ConnectionMachine: ~Copyable {
  enum Phase: Equatable {
    /// Nothing of the protocol header, or not all of it, has come.
    case header
    /// connection.start was sent.
    case starting
    /// The broker looks at the credentials.
    case authenticating
    /// connection.tune was sent.
    case tuning
    /// connection.tune-ok has come, connection.open has not.
    case opening
    /// The broker looks for the vhost.
    case openingVhost
    case open
    /// We closed it: close-ok is awaited, all else is dropped.
    case closing
    /// The client closed it; the broker's word is awaited before close-ok.
    case closingByClient
    /// close-ok was sent: the client hangs up.
    case closed
    case finished
  }

  package let settings: ConnectionSettings
  var phase = Phase.header
  var names: NameMaker
  var capabilities = ClientCapabilities()
  /// Who logged in; nil before.
  package internal(set) var user: String?
  /// What was opened, or asked for; nil before.
  package internal(set) var vhost: String?
  /// For people: what the client calls its connection, or its product and version.
  package internal(set) var clientName = ""
  /// Who wants to log in, and how.
  var authenticating = (user: "", mechanism: "")

  /// The largest payload that is taken and sent.
  var payloadBytesMax: Int
  var channelMax: Int

  /// In no particular order; `slots` has their places by number.
  var channels: [Channel] = []
  var slots = IntegerMap<Int>()
  var channelsOpened: UInt64 = 0
  /// Numbers of channels by consumer.
  var consumers = IntegerMap<UInt16>()
  var lastConsumer: UInt32 = 0
  var lastToken: UInt64 = 0
  /// Channels by the token of the request that they wait for.
  var waitingChannels = IntegerMap<ChannelID>()
  /// The request that the connection itself waits for.
  var connectionToken: RequestToken?
  /// `receive` stopped at a frame of a channel that waits.
  var isStalled = false
  /// Channels with confirms to tell.
  var confirming: [ChannelID] = []
  /// The channel whose incoming content lies at the end of the requests' bytes, and from where on.
  var openContent: (channel: UInt16, start: Int)?
  /// Bytes parked on all channels together, and what the further keys of content that is not whole take.
  var parkedBytes = 0
  /// Content and settles of all open transactions.
  var transactionBytes = 0
  var isBlocked = false

  var now: MonotonicTime
  var lastReceived: MonotonicTime
  /// Something was sent since the last look.
  var hasSent = false
  var heartbeat = Nanoseconds.zero
  var nextHeartbeat = MonotonicTime.never
  /// When the handshake or a close must be over.
  var phaseDeadline: MonotonicTime

  /// The caller's, for the time of one call.
  var output: [UInt8] = []
  var requests = BrokerRequests()

  /// - Parameters:
  ///   - seed: from which names of queues and consumers are made up; different for every connection
  ///     that there ever was.
  package init(settings: ConnectionSettings, seed: UInt64, now: MonotonicTime) {
    self.settings = settings
    self.now = now
    names = NameMaker(seed: seed)
    payloadBytesMax = Self.handshakeBytesMax
    channelMax = Int(settings.channelMax)
    lastReceived = now
    phaseDeadline = now + settings.handshakeTimeout
  }

  /// The largest frame before the client has shown who it is, as in RabbitMQ.
  static let handshakeBytesMax = 4 << 10

  // MARK: What the gateway asks

  package var state: ConnectionState {
    switch phase {
    case .finished: .finished
    case .authenticating, .openingVhost, .closingByClient: .waiting
    case .header, .starting, .tuning, .opening, .open, .closing, .closed:
      isStalled ? .waiting : .receiving
    }
  }

  /// connection.open was answered, and no close has begun.
  package var isOpen: Bool { phase == .open }
  /// Whether the channel is open, and was not closed by either side.
  package func isOpen(_ channel: ChannelID) -> Bool {
    guard phase == .open, let place = place(of: channel) else { return false }
    return channels[place].phase == .open
  }
  package var channelCount: Int { channels.count }
  package var consumerCount: Int { consumers.count }
  /// Deliveries not yet settled.
  package var unsettledCount: Int { channels.reduce(0) { $0 + $1.unsettled.count } }

  /// What the client has begun and not finished: content, and transactions.
  package var begunBytes: Int { parkedBytes + transactionBytes }

  /// Deliveries of a channel that the broker was not asked to settle, by consumer; without what was
  /// taken by basic.get. What an open transaction has settled is one of them: its commit asks.
  package func unsettledOfConsumers(_ channel: ChannelID) -> [ConsumerID: Int] {
    guard let place = place(of: channel) else { return [:] }
    var counts: [ConsumerID: Int] = [:]
    func count(_ unsettled: Unsettled) {
      if unsettled.consumer.rawValue <= lastConsumer { counts[unsettled.consumer, default: 0] += 1 }
    }
    channels[place].unsettled.forEach(count)
    for settle in channels[place].transaction.settles { count(settle.unsettled) }
    return counts
  }

  /// How many bytes the frame that begins with `bytes` has, to make room for it; 0 if it is not
  /// known yet. Never more than the largest frame that is taken.
  package func bytesNeeded(for bytes: UnsafeRawBufferPointer) -> Int {
    guard phase != .header, bytes.count >= Frame.headerBytes else { return 0 }
    let payload = FrameHeader(bytes, at: 0).payloadBytes
    return payload > payloadBytesMax ? 0 : payload + Frame.overheadBytes
  }

  // MARK: Lending the caller's lists

  /// Runs `body` with the caller's output and requests in place of our own, which are empty.
  mutating func lend<Value>(
    _ output: inout [UInt8], _ requests: inout BrokerRequests,
    _ body: (inout ConnectionMachine) -> Value
  ) -> Value {
    swap(&self.output, &output)
    swap(&self.requests, &requests)
    let before = self.output.count
    let value = body(&self)
    if self.output.count > before { hasSent = true }
    swap(&self.output, &output)
    swap(&self.requests, &requests)
    return value
  }

  mutating func lend<Value>(
    _ output: inout [UInt8], _ body: (inout ConnectionMachine) -> Value
  ) -> Value {
    swap(&self.output, &output)
    let before = self.output.count
    let value = body(&self)
    if self.output.count > before { hasSent = true }
    swap(&self.output, &output)
    return value
  }

  mutating func makeToken() -> RequestToken {
    lastToken += 1
    return RequestToken(lastToken)
  }

  func place(of channel: ChannelID) -> Int? {
    guard let place = slots[UInt64(channel.number)], channels[place].id == channel else {
      return nil
    }
    return place
  }
}
