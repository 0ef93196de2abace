// One node's gateway and replica without a loop, a disk or peers: sockets are real and on loopback,
// time is moved by hand, what is stored is durable at once (or when the test says so), and the
// other members of a larger cluster are played by the harness.

import Base
import Consensus
import Node
import QueueMachine
import Testing
import Transport
import Wire

@testable import Server

final class GatewayHarness {
  let poller: Poller
  let pool = BufferPool()
  var gateway: ClientGateway
  var replica: Replica
  var now = MonotonicTime(1_000_000_000)
  let node = NodeID(1)
  let membership: Membership

  /// While set, nothing becomes durable.
  var holdsStores = false
  /// Who else is there and agrees to everything; the others are silent.
  var agreeingPeers: Set<NodeID> = []
  /// What is to be had of the log.
  var lookUp: RecordSource.Search
  /// Asks `lookUp`.
  var records = RecordSource(store: nil)
  /// Entries that the gateway found damaged, as the replica noted them.
  var notes: [String] = []

  private var heldStores: [StoreTicket] = []
  private var events: [PollEvent] = []
  private var testClients: [UInt64: TestClient] = [:]
  private var nextClientToken: UInt64 = 9 << 56
  private var deadlines = 0

  /// Nothing happened for ten seconds: a hang is a failure, not a wait for ever.
  struct Stuck: Error, CustomStringConvertible {
    let description: String
  }

  init(
    members: UInt32 = 1, unappliedBytesMax: Int = 64 << 20,
    _ configure: (inout ServerConfiguration) -> Void = { _ in }
  ) throws {
    poller = try Poller()
    membership = Membership(
      members: (1...members).map {
        .init(id: NodeID($0), peerAddress: "node\($0):1", clientAddress: "node\($0):2")
      })
    let endpoint = try Endpoint(parsing: "127.0.0.1:0")
    var configuration = ServerConfiguration(
      cluster: ClusterIdentity(rawValue: 0xabc), node: node, dataDirectory: "/nowhere",
      peerListen: endpoint, clientListen: endpoint, members: [])
    configure(&configuration)
    gateway = try ClientGateway(
      configuration: configuration, poller: poller, version: "test",
      log: NodeLog(node: node, isQuiet: true))
    var replicaConfiguration = ReplicaConfiguration(
      consensus: ConsensusConfiguration(id: node, seed: 1), cluster: "test")
    replicaConfiguration.unappliedBytesMax = unappliedBytesMax
    replica = Replica(
      configuration: replicaConfiguration,
      restored: RestoredReplica(
        consensus: RestoredState(snapshotMembership: membership), damaged: [],
        wallClock: MachineTime(1_700_000_000_000_000_000)),
      machine: QueueMachine(), now: now)
    // The others have no past either: the cluster is new.
    for member in membership.members where member.id != node {
      let introduction = Introduction(
        node: member.id, cluster: "test", term: .zero, heard: [node],
        founders: Checksum(of: membership.encoded()))
      replica.receive(.introduction(introduction), from: member.id, now: now)
    }
    var cached = RecordSource(store: nil)
    lookUp = { cached.record($0, cache: $1) }
    records = RecordSource { [unowned self] in lookUp($0, $1) }
  }

  /// A single node that leads.
  static func leading(
    unappliedBytesMax: Int = 64 << 20, _ configure: (inout ServerConfiguration) -> Void = { _ in }
  ) throws -> GatewayHarness {
    let harness = try GatewayHarness(unappliedBytesMax: unappliedBytesMax, configure)
    // A node that is to be alone first listens for others.
    harness.now = harness.now + .seconds(1)
    for _ in 0..<6 { harness.turn() }
    try #require(harness.isLeader)
    return harness
  }

  // What tests look at: the macros cannot reach through values that cannot be copied.
  var isDrained: Bool { gateway.isDrained }
  var isLeader: Bool { replica.isLeader }
  var localAddress: SocketAddress? { gateway.localAddress }
  var listener: Listener? { gateway.listener }

  // MARK: Turning

  /// One turn of the loop with what is ready now.
  func turn(waiting timeout: Nanoseconds = .zero) {
    let hasMore = replica.hasMore || gateway.nextDeadline == MonotonicTime(0)
    poller.wait(timeout: hasMore ? .zero : timeout, into: &events)
    for event in events {
      if ClientGateway.owns(event.token) {
        gateway.handle(event, now: now, replica: &replica)
      } else {
        testClients[event.token]?.handle(event, now: now)
      }
    }
    gateway.tick(now: now, replica: &replica)
    replica.tick(now: now)
    finishTurn()
    gateway.carryOutEffects(of: &replica, now: now)
    gateway.pumpDeliveries(records: &records, replica: &replica, now: now)
    gateway.flush(now: now)
  }

  /// Turns until `condition` holds.
  func run(
    until text: String, sourceLocation: SourceLocation = #_sourceLocation,
    _ condition: () -> Bool
  ) throws {
    for _ in 0..<100_000 {
      if condition() { return }
      let mayHang = !replica.hasMore && gateway.nextDeadline > MonotonicTime(0)
      turn(waiting: .seconds(10))
      if mayHang, events.isEmpty, !condition() {
        let error = Stuck(description: "not reached: \(text)")
        Issue.record(error, sourceLocation: sourceLocation)
        throw error
      }
    }
    throw Stuck(description: "turning without end: \(text)")
  }

  /// Turns until nothing is ready and nothing wants to be done.
  func settle() {
    // What a turn sends is seen in the next one.
    var quietTurns = 0
    while quietTurns < 3 {
      turn()
      let isQuiet = events.isEmpty && gateway.nextDeadline > MonotonicTime(0)
      quietTurns = isQuiet ? quietTurns + 1 : 0
    }
  }

  func pass(_ span: Nanoseconds) {
    now = now + span
    settle()
  }

  private func finishTurn() {
    for _ in 0..<20 {
      let outputs = replica.finishTurn(now: now) { _ in true }
      if outputs.isEmpty { return }
      for output in outputs { carryOut(output) }
    }
  }

  private func carryOut(_ output: ReplicaOutput) {
    switch output {
    case .store(let ticket, _):
      if holdsStores { heldStores.append(ticket) } else { replica.stored(ticket, now: now) }
    case .readReady(let ticket):
      gateway.readReady(ticket, replica: &replica, now: now, lookUp: lookUp)
    case .readFailed(let ticket):
      gateway.readFailed(ticket)
    case .send(let peer, .consensus(let message, _)):
      if agreeingPeers.contains(peer) { agree(to: message, as: peer) }
    case .note(let note):
      notes.append(note)
    default:
      break
    }
  }

  /// What was stored meanwhile is durable now.
  func releaseStores() {
    holdsStores = false
    for ticket in heldStores { replica.stored(ticket, now: now) }
    heldStores = []
  }

  // MARK: Playing peers

  private func agree(to message: PeerMessage, as peer: NodeID) {
    let reply: PeerMessage
    switch message {
    case .preVote(let request):
      reply = .preVoteReply(VoteReply(term: request.term, isGranted: true))
    case .vote(let request):
      reply = .voteReply(VoteReply(term: request.term, isGranted: true))
    case .append(let request):
      let last = request.lastIndex
      reply = .appendReply(
        AppendReply(
          term: request.term, outcome: .accepted(match: last, verified: last),
          round: request.round, mayVote: true))
    default:
      return
    }
    replica.receive(.consensus(reply, payloads: []), from: peer, now: now)
  }

  /// Has this node elected, with the help of `peer`.
  func becomeLeader(with peer: NodeID) throws {
    agreeingPeers.insert(peer)
    replica.peerConnected(peer, now: now)
    for _ in 0..<20 where !replica.isLeader {
      now = now + .milliseconds(200)
      turn()
    }
    try #require(isLeader)
    settle()
  }

  /// Another node leads from now on.
  func loseLeadership(to peer: NodeID) {
    agreeingPeers = []
    let request = AppendRequest(
      term: replica.consensus.term.next, previous: replica.consensus.lastPosition, entries: [],
      commit: replica.consensus.commit, round: 1)
    replica.receive(.consensus(.append(request), payloads: []), from: peer, now: now)
    turn()
  }

  /// As if an entry of a membership had come.
  func changeMembership() { gateway.membershipChanged(in: replica) }

  // MARK: Clients

  /// A connection that has said nothing yet.
  func connect() throws -> TestClient {
    let address = try #require(localAddress)
    let connection = try Connection.connect(
      to: address, options: ConnectionOptions(outboundLimit: 256 << 20, unreadMax: 64 << 20),
      pool: pool, now: now)
    nextClientToken += 1
    try connection.register(with: poller, token: nextClientToken, interest: .write)
    let client = TestClient(connection, harness: self)
    testClients[nextClientToken] = client
    try run(until: "connected") { !connection.isConnecting }
    return client
  }

  /// A connection that was greeted.
  func greetedClient() throws -> TestClient {
    let client = try connect()
    client.send(bytes: Preamble.clientBytes)
    _ = try client.ask(.hello(client: "test"))
    return client
  }

  /// A connection with a session.
  func client(producer: UInt64 = 7) throws -> TestClient {
    let client = try greetedClient()
    try client.openSession(producer: ProducerID(producer))
    return client
  }
}

/// The other end: what it sends, and what it was told.
final class TestClient {
  struct Received {
    var consumer: ConsumerID
    var header: DeliveryHeader
    var body: [UInt8]
    var delivery: UInt64 { header.delivery.rawValue }
  }

  let connection: Connection
  unowned let harness: GatewayHarness
  /// Cleared: it leaves in the kernel what comes.
  var reads = true { didSet { updateInterest() } }
  /// Cleared: bytes are kept as they are.
  var parses = true
  var bytes: [UInt8] = []
  private(set) var isClosed = false

  var replies: [RequestID: ServerFrame] = [:]
  var news: [ServerFrame] = []
  var deliveries: [Received] = []
  var confirmed = 0
  var confirmFrames = 0
  var settled = CommandSequence.zero
  var session = SessionID.none
  var nextSequence: UInt64 = 1
  private var nextRequest: UInt64 = 1

  init(_ connection: Connection, harness: GatewayHarness) {
    self.connection = connection
    self.harness = harness
  }

  // MARK: Events

  func handle(_ event: PollEvent, now: MonotonicTime) {
    if connection.isConnecting {
      #expect(connection.finishConnect() == .connected)
    } else if event.isReadable {
      receive(now: now)
    } else if event.isBroken {
      finish()
      return
    }
    if !isClosed, case .failed = connection.flush(now: now) { finish() }
    updateInterest()
  }

  private func updateInterest() {
    var interest: Interest = reads ? .read : []
    if connection.pendingBytes > 0 { interest.insert(.write) }
    connection.setInterest(interest, poller: harness.poller)
  }

  private func receive(now: MonotonicTime) {
    switch connection.read(now: now) {
    case .read:
      parses ? takeFrames() : keepBytes()
    case .wouldBlock, .full:
      break
    case .closed, .failed:
      finish()
    }
  }

  private func keepBytes() {
    bytes += [UInt8](connection.unread)
    connection.consume(connection.unreadBytes)
  }

  private func finish() {
    isClosed = true
    connection.close()
  }

  func close() { finish() }

  private func takeFrames() {
    let unread = connection.unread
    var offset = 0
    while true {
      let rest = UnsafeRawBufferPointer(rebasing: unread[offset...])
      do {
        guard let view = try FrameDecoder.next(in: rest, limit: 64 << 20) else { break }
        take(try ServerFrame(decoding: view), view.request)
        offset += view.byteCount
      } catch {
        Issue.record("the gateway sent a bad frame: \(error)")
        break
      }
    }
    connection.consume(offset)
  }

  private func take(_ frame: ServerFrame, _ request: RequestID) {
    switch frame {
    case .deliver(let view):
      view.forEachMessage { header, record in
        let parts = try? MessageRecord.parts(of: record)
        deliveries.append(
          Received(consumer: view.consumer, header: header, body: parts?.body ?? []))
      }
    case .confirmed(_, let count, _, _):
      confirmed += Int(count)
      confirmFrames += 1
      news.append(frame)
    case .settled(let through):
      #expect(through > settled)
      settled = through
    default:
      if request == .none { news.append(frame) } else { replies[request] = frame }
    }
  }

  // MARK: Saying something

  func send(bytes: [UInt8]) {
    #expect(connection.append(bytes))
    if case .failed = connection.flush(now: harness.now) { finish() }
    updateInterest()
  }

  func send(_ frame: ClientFrame, request: RequestID = .none) {
    var bytes: [UInt8] = []
    frame.encode(request: request, into: &bytes)
    send(bytes: bytes)
  }

  /// Sends a request without waiting.
  func begin(_ frame: ClientFrame) -> RequestID {
    let request = RequestID(nextRequest)
    nextRequest += 1
    send(frame, request: request)
    return request
  }

  /// Sends a request and waits for its reply.
  func ask(
    _ frame: ClientFrame, sourceLocation: SourceLocation = #_sourceLocation
  ) throws -> ServerFrame {
    let request = begin(frame)
    try harness.run(until: "reply to \(frame.kind)", sourceLocation: sourceLocation) {
      replies[request] != nil || isClosed
    }
    return try #require(replies[request], sourceLocation: sourceLocation)
  }

  func openSession(
    producer: ProducerID = ProducerID(7), timeout: Nanoseconds = .seconds(10)
  ) throws {
    let reply = try ask(.openSession(producer: producer, timeout: timeout, name: "test"))
    guard case .sessionOpened(let opened, _, _) = reply else {
      Issue.record("no session but \(reply)")
      return
    }
    session = opened
  }

  func attach(_ session: SessionID, received: [(UInt32, UInt64)]) throws -> ServerFrame {
    let consumers = received.map {
      AttachRequest.Consumer(consumer: ConsumerID($0.0), received: DeliveryID($0.1))
    }
    return try ask(.attachSession(AttachRequest(session: session, consumers: consumers)))
  }

  func declare(_ name: String, _ settings: QueueSettings = QueueSettings()) throws -> QueueID {
    let reply = try ask(.declareQueue(name: name, settings: settings))
    guard case .queueReply(let queue, _) = reply else {
      Issue.record("queue not declared but \(reply)")
      return QueueID(0)
    }
    return queue
  }

  func subscribe(_ consumer: UInt32, to queue: QueueID, credit: UInt32) throws {
    let reply = try ask(.subscribe(consumer: ConsumerID(consumer), queue: queue, credit: credit))
    guard case .done = reply else {
      Issue.record("not subscribed but \(reply)")
      return
    }
  }

  /// Sends a publish of these bodies under the next numbers.
  func publish(_ bodies: [[UInt8]], to queue: QueueID) {
    var run: [UInt8] = []
    for body in bodies { MessageRecord.append(MessageParts(body: body), to: &run) }
    publish(run: run, count: bodies.count, to: queue)
  }

  func publish(run: [UInt8], count: Int, to queue: QueueID) {
    var frame: [UInt8] = []
    run.withUnsafeBytes {
      PublishView(
        queue: queue, first: PublishSequence(nextSequence), answeredThrough: .zero, count: count,
        run: $0
      ).encode(into: &frame)
    }
    nextSequence += UInt64(count)
    send(bytes: frame)
  }

  func publishAndWait(_ bodies: [[UInt8]], to queue: QueueID) throws {
    let wanted = confirmed + bodies.count
    publish(bodies, to: queue)
    try harness.run(until: "confirms") { confirmed >= wanted || isClosed }
  }

  func acknowledge(_ consumer: UInt32, _ range: ClosedRange<UInt64>, sequence: UInt64) {
    send(
      .settle(
        SettleRequest(
          sequence: CommandSequence(sequence), answeredThrough: .zero, kind: .acknowledge,
          consumer: ConsumerID(consumer),
          ranges: [
            DeliveryRange(first: DeliveryID(range.lowerBound), last: DeliveryID(range.upperBound))
          ])))
  }

  // MARK: Looking

  /// The refusal about the connection, if there was one.
  var connectionRefusal: (refusal: Refusal, detail: String, leader: String)? {
    for frame in news {
      if case .refused(let refusal, let detail, let leader) = frame {
        return (refusal, detail, leader)
      }
    }
    return nil
  }

  var publishRefusals: [Refusal] {
    news.compactMap { if case .publishRefused(_, _, let refusal, _) = $0 { refusal } else { nil } }
  }
}

extension ServerFrame {
  var refusal: Refusal? {
    if case .refused(let refusal, _, _) = self { refusal } else { nil }
  }
}
