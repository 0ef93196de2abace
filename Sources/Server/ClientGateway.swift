// The node's side of its clients' connections: accepts them, reads their frames, makes commands and
// reads of these, and writes what the replica decided. It decides nothing about queues and keeps
// nothing that a client could miss: whatever is lost here with a connection comes again when the
// session is attached.
//
// The loop calls, in one turn:
//
//     handle(event)…  tick           events and time; commands go into the replica's batch
//     replica.finishTurn             … and its outputs: readReady, readFailed
//     carryOutEffects                what was applied becomes frames and items of the outboxes
//     pumpDeliveries                 records are written where there is room
//     flush                          one system call per connection that has something
//
// and sleeps until `nextDeadline` at the latest. `ClientGateway+Accept` is about connections,
// `+Frames` and `+Requests` about what clients say, `+Effects`, `+Reads`, `+Deliveries` and
// `+NodeRequests` about what they are told, `+Leadership`, `+Time` and `+Shutdown` about the rest.

import Base
import Consensus
import Node
import QueueMachine
import Transport
import Wire

/// Why clients cannot be served.
enum ClientGatewayError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The address to listen on has no number.
  case address(AddressError)
  case listen(ListenError)
  /// The poller has no room for the listener.
  case poller(ErrorNumber)

  var description: String {
    switch self {
    case .address(let error): "\(error)"
    case .listen(let error): "\(error)"
    case .poller(let error): "the clients' listener cannot be watched: \(error)"
    }
  }
}

/// What was done since the start, for status and tests.
struct ClientCounters: Hashable, Sendable {
  var accepted = 0
  /// Connections over the limit.
  var refusedConnections = 0
  /// Connections closed for what the client sent or did not read.
  var faults = 0
  /// Messages handed to the replica.
  var published = 0
  /// Messages confirmed.
  var confirmed = 0
  /// Messages written to consumers.
  var delivered = 0
}

struct ClientGateway: ~Copyable {
  private let inPlace = InPlace()
  /// In the top byte of the poller's tokens of clients.
  static let tokenTag: UInt64 = 2
  static let listenerToken: UInt64 = tokenTag << 56

  let configuration: ServerConfiguration
  /// The build, as clients are told.
  let version: String
  let poller: Poller
  let log: NodeLog
  let pool = BufferPool()
  let connectionOptions: ConnectionOptions
  /// The largest payload of a client's frame.
  let frameBytesMax: Int
  /// Publishes of one session that may be unanswered: what is configured, if the machine keeps the
  /// answers to so many.
  let publishWindow: Int
  /// Messages in one publish: the machine numbers those of an entry in 20 bits.
  let publishCountMax: Int

  /// nil once the node is stopping.
  var listener: Listener?
  /// Nobody is accepted before; nil while anybody is.
  var acceptPausedUntil: MonotonicTime?
  /// By token.
  var clients = IntegerMap<ClientConnection>()
  /// Of `clients`, those that are being closed.
  var endingCount = 0
  var nextToken: UInt64
  /// The attached sessions and their connections.
  var sessions = IntegerMap<ClientConnection>()
  var nextTag: UInt64
  var isStopping = false

  /// The sum over `clients`; see `countBegun`.
  var begunBytes = 0
  var begunBytesMax = ClientGatewayLimits.begunBytes

  /// To be flushed at the end of the turn.
  var touched: [ClientConnection] = []
  /// Those with something in the outbox.
  var delivering: [ClientConnection] = []
  var readTurns = ReadTurns()
  var output = OutputBudget()
  /// Those of which nothing is read.
  var paused: [ClientConnection] = []
  /// Sessions whose connection closed, to be told to the machine.
  var detaching: [(session: SessionID, origin: SessionOrigin)] = []
  /// By ascending ticket.
  var waitingReads: [(ticket: ReadTicket, reads: [WaitingRead])] = []
  var waitingReadCount = 0
  var nodeRequests: [NodeRequest] = []

  /// The leadership that the clients know of.
  var knownTerm = Term.zero
  var knownIsLeader = false
  var knownLeader: NodeID?
  var knownLeaderAddress = ""

  /// Something was submitted behind `finishTurn`, or could be: the loop should turn again.
  var needsTurn = false
  /// When the connections should be looked through for those that are late; never later than the
  /// first of them is.
  var nextSweep = MonotonicTime.never
  /// When a record that was not to be had is looked for again.
  var deliverRetry = MonotonicTime.never
  /// The session whose attachment is being told; see `cancel`.
  var replayedSession = SessionID.none

  /// Why nothing more can be stored; publishes are refused with it, consuming goes on.
  var noSpace: String?

  var counters = ClientCounters()

  /// Binds the clients' listener and has `poller` watch it.
  ///
  /// - Parameter version: of the build, for people.
  init(
    configuration: ServerConfiguration, poller: Poller, version: String, log: NodeLog
  ) throws(ClientGatewayError) {
    self.configuration = configuration
    self.version = version
    self.poller = poller
    self.log = log
    frameBytesMax = configuration.limits.messageBytes + Frame.overheadBytes
    publishWindow = min(
      configuration.limits.publishesInFlight, Int(MachineLimits().unansweredMessages))
    publishCountMax = min(publishWindow, FixedLimits.publishesPerEntry / 2)
    connectionOptions = ConnectionOptions(
      outboundLimit: configuration.limits.clientWriteBytes,
      unreadMax: Frame.headerBytes + frameBytesMax)
    // Replies to an earlier process of this node, still in the log, must not find a connection of
    // this one: both numbers begin anywhere.
    nextToken = Self.listenerToken | UInt64.random(in: 1..<1 << 55)
    nextTag = UInt64.random(in: 1..<1 << 62)
    listener = try Self.listen(
      configuration.clientListen, poller: poller, token: Self.listenerToken)
  }

  static func listen(
    _ endpoint: Endpoint, poller: Poller, token: UInt64
  ) throws(ClientGatewayError) -> Listener {
    let addresses: [SocketAddress]
    do {
      addresses = try SocketAddress.resolve(endpoint)
    } catch {
      throw .address(error)
    }
    let listener: Listener
    do {
      listener = try Listener(addresses[0])
    } catch {
      throw .listen(error)
    }
    do {
      try poller.add(listener.descriptor, token: token, interest: .read)
    } catch {
      throw .poller(error)
    }
    return listener
  }

  /// Where clients connect to, with the real port; nil once the node is stopping.
  var localAddress: SocketAddress? { listener?.address }
  /// Connections that are served; those that only hear why they are closed are not counted.
  var connectionCount: Int { clients.count - endingCount }
  /// Sessions attached through this node.
  var sessionCount: Int { sessions.count }

  /// Whether an event is for `handle`.
  static func owns(_ token: UInt64) -> Bool { token >> 56 == tokenTag }

  /// Carries out what the poller found ready.
  mutating func handle(_ event: PollEvent, now: MonotonicTime, replica: inout Replica) {
    noticeLeadership(of: &replica, now: now)
    if event.token == Self.listenerToken {
      accept(now: now)
      return
    }
    // An event may be left of a connection that was closed in this turn.
    guard let client = clients[event.token] else { return }
    if event.isReadable, client.pause == .none {
      read(from: client, now: now, replica: &replica)
    } else if event.isBroken, !event.isWritable {
      drop(client)
    }
    if event.isWritable { touch(client) }
    submitDetaches(to: &replica, now: now)
  }

  private mutating func read(
    from client: ClientConnection, now: MonotonicTime, replica: inout Replica
  ) {
    // What is read while there is no room for commands stays in memory until there is.
    let limit =
      replica.isLeader && !replica.hasRoom
      ? ClientGatewayLimits.begunBytesFree : ClientGatewayLimits.readBytesPerTurn
    switch client.connection.read(limit: limit, now: now) {
    case .read, .full:
      switch client.phase {
      case .preamble, .hello, .open:
        takeBytes(of: client, now: now, replica: &replica)
        boundBegun(after: client, now: now)
      case .draining, .lastWords, .lingering, .closed:
        client.connection.consume(client.connection.unreadBytes)
      }
    case .wouldBlock:
      break
    case .closed, .failed:
      drop(client)
    }
  }
}

// Saying something.
extension ClientGateway {
  /// Queues a frame. A client that lets too much pile up is closed: nothing here grows for it.
  mutating func send(
    _ frame: ServerFrame, request: RequestID = .none, to client: ClientConnection
  ) {
    guard client.takesAnswers else { return }
    guard client.connection.write({ frame.encode(request: request, into: &$0) }) else {
      counters.faults += 1
      drop(client)
      return
    }
    touch(client)
  }

  mutating func refuse(
    _ request: RequestID, _ refusal: Refusal, _ detail: String, to client: ClientConnection
  ) {
    let leader = refusal == .notLeader ? knownLeaderAddress : ""
    send(.refused(refusal, detail: detail, leader: leader), request: request, to: client)
  }

  /// Has the connection flushed at the end of the turn.
  mutating func touch(_ client: ClientConnection) {
    guard !client.isTouched else { return }
    client.isTouched = true
    touched.append(client)
  }

  /// Sends what this turn has queued: one system call per connection that has something.
  mutating func flush(now: MonotonicTime) {
    var position = 0
    while position < touched.count {
      let client = touched[position]
      client.isTouched = false
      flush(client, now: now)
      position += 1
    }
    if position > 0 { touched.removeAll(keepingCapacity: true) }
    boundOutput(now: now)
  }

  /// Closes those who make others wait by not reading.
  private mutating func boundOutput(now: MonotonicTime) {
    if output.closesSomebody(now: now) { closeNonReaders(now: now) }
    if output.goesOn { needsTurn = true }
  }

  private mutating func closeNonReaders(now: MonotonicTime) {
    for client in output.takeNonReaders(among: clients, now: now) {
      log.warning(
        "closed \(client.connection.peer): \(client.countedOutput) bytes wait for it to read, and"
          + " \(output.bytes) for all")
      counters.faults += 1
      drop(client)
    }
  }

  mutating func flush(_ client: ClientConnection, now: MonotonicTime) {
    guard client.phase != .closed else { return }
    let outcome = client.connection.flush(now: now)
    output.count(client.connection, &client.countedOutput)
    switch outcome {
    case .flushed:
      // There is room for more, and no event will say so.
      if !client.outbox.isEmpty, now >= client.deliverRetry { needsTurn = true }
      if client.phase == .lastWords {
        client.phase = .lingering
        client.connection.shutdownOutput()
      }
    case .blocked:
      nextSweep = min(nextSweep, now + configuration.timeouts.silentConnection)
    case .failed:
      drop(client)
      return
    }
    updateInterest(of: client)
    if client.pause == .outputFull, hasLittleOutput(client) { needsTurn = true }
  }

  /// Listens for what can be used only, so that neither a paused reader nor an empty queue wakes
  /// the loop.
  func updateInterest(of client: ClientConnection) {
    var interest: Interest = client.pause == .none || client.isEnding ? .read : []
    if client.connection.pendingBytes > 0 { interest.insert(.write) }
    client.connection.setInterest(interest, poller: poller)
  }
}
