// The node's side of its AMQP clients' connections: bytes go through each connection's own
// `ConnectionMachine`, what it wants becomes commands in the node's relay to the leader
// (`CommandRelay`), and what the machine of queues decided, which every node knows for its own
// sessions, goes back as frames. It decides nothing about queues and nothing about the protocol.
//
// The loop calls, in one turn:
//
//     handle(event)…  tick       events and time; commands go into the relay
//     passOn                     (NodeLoop+Relay) the relay's bundles go to the leader
//     replica.finishTurn
//     carryOutEffects            what was applied here becomes frames and items of the outboxes
//     pumpDeliveries             messages are written where there is room
//     flush                      one system call per connection that has something
//
// `+Connections` is about connections, `+Requests` and `+Publishes` about what clients want,
// `+Effects`, `+Deliveries` and `+Gets` about what they are told, `+Reads` about answers that need no entry,
// `+Consumers` and `+ChannelLimits` about how much they may hold, `+Flow` about publishers that must wait.

import AMQP
import Base
import Consensus
import Node
import QueueMachine
import Transport

/// What was done since the start, for status and tests.
struct AMQPCounters: Hashable, Sendable {
  var accepted = 0
  var refusedConnections = 0
  var refusedLogins = 0
  var published = 0
  var confirmed = 0
  var delivered = 0
  /// Orders to the machine of queues of how much a consumer may hold.
  var creditsTold = 0
}

struct AMQPGateway: ~Copyable {
  private let inPlace = InPlace()
  /// In the top byte of the poller's tokens of AMQP clients.
  static let tokenTag: UInt64 = 3
  static let listenerToken: UInt64 = tokenTag << 56

  let configuration: ServerConfiguration
  let poller: Poller
  let log: NodeLog
  let pool = BufferPool()
  let connectionOptions: ConnectionOptions
  let settings: ConnectionSettings

  /// nil where AMQP is off, and once the node is stopping.
  var listener: Listener?
  var acceptPausedUntil: MonotonicTime?
  /// By token.
  var clients = IntegerMap<AMQPClient>()
  var nextToken: UInt64
  var nextTag: UInt64
  /// By session.
  var sessions = IntegerMap<AMQPClient>()
  var relay: CommandRelay
  var reads = ReadBarrier()
  /// Somebody left while reads waited, perhaps its own.
  var someReadersAreGone = false
  /// When clients' asking for a queue was last told as use of it. Looked up only.
  var prolonged: [QueueID: MonotonicTime] = [:]

  /// To be flushed at the end of the turn.
  var touched: [AMQPClient] = []
  /// Those with something in the outbox, or gets that wait for their messages.
  var delivering: [AMQPClient] = []
  var readTurns = ReadTurns()
  var output = OutputBudget()
  /// Those with channels that may have room left under their limits.
  var sharing: [AMQPClient] = []
  /// Those of which nothing is read.
  var paused: [AMQPClient] = []
  /// Requests that answers led to, to be carried out next.
  var deferred: [(client: AMQPClient, requests: BrokerRequests)] = []
  /// Consumers whose queue is gone, to be told behind the replies of the turn.
  var cancelled: [(client: AMQPClient, consumer: ConsumerID)] = []
  /// Used again and again.
  var requests = BrokerRequests()
  var commandBytes: [UInt8] = []

  var needsTurn = false
  var isStopping = false
  /// When the connections should be looked through for those that are late; see `sweepBy`.
  private(set) var nextSweep = MonotonicTime.never
  private var lastSweep = MonotonicTime(0)
  var deliverRetry = MonotonicTime.never
  /// Why nothing can be published at present; nil if it can. Set by `setBlocked`.
  var blockedBecause: String?
  /// What all connections have begun and not finished, and how much that may be.
  var begunBytes = 0
  var begunBytesMax = Self.begunBytesLimit
  var refusedLogins = RefusedLogins()
  var counters = AMQPCounters()
  var advice = AMQPAdvice()

  init(
    configuration: ServerConfiguration, poller: Poller, version: String, log: NodeLog
  ) throws(ClientGatewayError) {
    self.configuration = configuration
    self.poller = poller
    self.log = log
    var settings = ConnectionSettings(
      server: ServerProperties(version: version, clusterName: configuration.cluster.description))
    settings.messageBytesMax = configuration.limits.messageBytes
    // The key that a message is published with is one of them.
    settings.copiesPerMessageMax = TopologyLimits.keysPerMessage - 1
    self.settings = settings
    connectionOptions = ConnectionOptions(
      outboundLimit: configuration.limits.clientWriteBytes, unreadMax: 256 << 10)
    // Numbers of an earlier process of this node, still in the log, must mean nothing here.
    nextToken = Self.listenerToken | UInt64.random(in: 1..<1 << 55)
    nextTag = UInt64.random(in: 1..<1 << 62)
    relay = CommandRelay(node: configuration.node, process: .random(in: 1 ... .max))
    if let endpoint = configuration.amqpListen {
      // An empty bundle: it ends what an earlier process of this node left behind.
      relay.append { _ in }
      listener = try ClientGateway.listen(endpoint, poller: poller, token: Self.listenerToken)
    }
  }

  /// Where clients connect to, with the real port; nil if AMQP is off.
  var localAddress: SocketAddress? { listener?.address }
  var connectionCount: Int { clients.count }

  static func owns(_ token: UInt64) -> Bool { token >> 56 == tokenTag }

  /// Carries out what the poller found ready.
  mutating func handle(_ event: PollEvent, now: MonotonicTime, replica: inout Replica) {
    if event.token == Self.listenerToken {
      accept(now: now)
      return
    }
    guard let client = clients[event.token] else { return }
    if event.isReadable, !client.isPaused || client.phase != .open {
      read(from: client, now: now, replica: &replica)
    } else if event.isBroken, !event.isWritable {
      drop(client)
    }
    if event.isWritable { touch(client) }
  }

  private mutating func read(
    from client: AMQPClient, now: MonotonicTime, replica: inout Replica
  ) {
    switch client.connection.read(limit: ClientGatewayLimits.readBytesPerTurn, now: now) {
    case .read, .full:
      if client.phase == .open {
        takeBytes(of: client, now: now, replica: &replica)
      } else {
        client.connection.consume(client.connection.unreadBytes)
      }
    case .wouldBlock: break
    case .closed, .failed: drop(client)
    }
  }

  /// Gives what was read to the connection's machine, and carries out what that wants.
  mutating func takeBytes(
    of client: AMQPClient, now: MonotonicTime, replica: inout Replica
  ) {
    while client.phase == .open, client.connection.unreadBytes > 0 {
      guard client.connection.pendingBytes <= outputPauseBytes,
        client.machine.state == .receiving, !isHeldBack(client)
      else { break }
      var list = BrokerRequests()
      swap(&list, &requests)
      let bytes = client.connection.unread
      var taken = 0
      let isWritten = client.connection.write { output in
        taken = client.machine.receive(
          bytes, now: now, stopsBehindPublish: blockedBecause != nil, output: &output,
          requests: &list)
      }
      guard isWritten else {
        swap(&list, &requests)
        drop(client)
        return
      }
      touch(client)
      client.connection.consume(taken)
      if blockedBecause == nil {
        carryOut(list, of: client, now: now, replica: &replica)
      } else {
        carryOutToPublish(list, of: client, now: now, replica: &replica)
      }
      boundBegun(after: client, now: now)
      list.removeAll()
      swap(&list, &requests)
      carryOutDeferred(now: now, replica: &replica)
      if taken == 0, client.machine.state == .receiving { break }
    }
    afterTaking(client, now: now)
  }

  private mutating func afterTaking(_ client: AMQPClient, now: MonotonicTime) {
    guard client.phase == .open else { return }
    switch client.machine.state {
    case .finished:
      beginEnd(of: client, now: now)
      return
    case .waiting: pause(client)
    case .receiving:
      if isHeldBack(client) {
        noteHeldBack(client, now: now)
        pause(client)
      } else if client.connection.pendingBytes > outputPauseBytes {
        pause(client)
      }
    }
    let needed = client.machine.bytesNeeded(for: client.connection.unread)
    if needed > client.connection.unreadBytes {
      client.connection.unreadMax = max(client.connection.unreadMax, needed)
      client.connection.expect(needed)
    }
    sweepBy(client.machine.nextDeadline)
  }

  mutating func pause(_ client: AMQPClient) {
    guard !client.isPaused else { return }
    client.isPaused = true
    paused.append(client)
    updateInterest(of: client)
  }

  /// Goes on where an answer was given or there is room again.
  mutating func resumePaused(now: MonotonicTime, replica: inout Replica) {
    guard !paused.isEmpty else { return }
    var waiting: [AMQPClient] = []
    swap(&waiting, &paused)
    for client in waiting where client.phase == .open {
      guard client.machine.state != .waiting, mayGoOn(client, now: now),
        client.connection.pendingBytes <= outputPauseBytes
      else {
        paused.append(client)
        continue
      }
      client.isPaused = false
      carryOutParked(of: client, now: now, replica: &replica)
      takeBytes(of: client, now: now, replica: &replica)
      if client.phase != .closed { updateInterest(of: client) }
      needsTurn = true
    }
  }

  /// Above this nothing more is taken from a client that does not read what it is sent.
  var outputPauseBytes: Int { configuration.limits.clientWriteBytes / 2 }

  /// With many connections somebody's deadline is always near: they are looked through together, a
  /// few times in a second at most.
  mutating func sweepBy(_ time: MonotonicTime) {
    nextSweep = min(nextSweep, max(time, lastSweep + .milliseconds(200)))
  }

  mutating func beginSweep(now: MonotonicTime) {
    lastSweep = now
    nextSweep = .never
  }

  // MARK: Saying something

  /// Has the connection's machine say something.
  mutating func say(
    to client: AMQPClient,
    _ body: (inout ConnectionMachine, inout [UInt8], inout BrokerRequests) -> Void
  ) {
    guard client.phase == .open else { return }
    var more = BrokerRequests()
    let isWritten = client.connection.write { body(&client.machine, &$0, &more) }
    guard isWritten else {
      if client.phase == .open {
        log.warning(
          "AMQP: closed \(client.connection.peer): \(client.connection.pendingBytes) bytes wait for it"
            + " to read")
      }
      drop(client)
      return
    }
    if !more.isEmpty { deferred.append((client, more)) }
    countBegun(client)
    touch(client)
  }

  mutating func answer(
    _ token: RequestToken, _ answer: BrokerAnswer, to client: AMQPClient
  ) {
    say(to: client) { machine, output, requests in
      machine.answer(token, answer, output: &output, requests: &requests)
    }
  }

  /// Carries out what answers led to: a refusal, for example, closes the channel.
  mutating func carryOutDeferred(now: MonotonicTime, replica: inout Replica) {
    // In the order in which they came; what they lead to in turn joins at the end.
    var position = 0
    while position < deferred.count {
      let (client, list) = deferred[position]
      carryOut(list, of: client, now: now, replica: &replica)
      position += 1
    }
    if position > 0 { deferred.removeAll(keepingCapacity: true) }
  }

  /// Has the connection flushed at the end of the turn.
  mutating func touch(_ client: AMQPClient) {
    guard !client.isTouched else { return }
    client.isTouched = true
    touched.append(client)
  }

  /// Sends what this turn has queued.
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
        "AMQP: closed \(client.connection.peer): \(client.countedOutput) bytes wait for it to read, and"
          + " \(output.bytes) for all")
      drop(client)
    }
  }

  mutating func flush(_ client: AMQPClient, now: MonotonicTime) {
    guard client.phase != .closed else { return }
    if client.phase == .open {
      // Confirms are gathered over the turn. Without room they wait for the next.
      _ = client.connection.write { client.machine.flush(output: &$0) }
      if client.machine.state == .finished { beginEnd(of: client, now: now) }
    }
    let outcome = client.connection.flush(now: now)
    output.count(client.connection, &client.countedOutput)
    switch outcome {
    case .flushed:
      // There is room for more, and no event will say so.
      if client.mayBeWritten(now: now) { needsTurn = true }
      if client.phase == .lastWords {
        client.phase = .lingering
        client.connection.shutdownOutput()
      }
    case .blocked:
      sweepBy(now + configuration.timeouts.silentConnection)
    case .failed:
      drop(client)
      return
    }
    sweepBy(client.machine.nextDeadline)
    updateInterest(of: client)
    if client.isPaused, client.connection.pendingBytes <= outputPauseBytes / 2 { needsTurn = true }
  }

  func updateInterest(of client: AMQPClient) {
    var interest: Interest = client.isPaused && client.phase == .open ? [] : .read
    if client.connection.pendingBytes > 0 { interest.insert(.write) }
    client.connection.setInterest(interest, poller: poller)
  }
}
