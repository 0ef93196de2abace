// One example or more of every frame, and how to write and read it as bytes.

import Base

@testable import Wire

enum Samples {
  static let settings: QueueSettings = {
    var settings = QueueSettings()
    settings.deadLetterQueue = "failed"
    settings.deliveriesMax = 7
    settings.overflow = .dropOldest
    settings.expires = .seconds(60)
    settings.hasSingleActiveConsumer = true
    return settings
  }()

  static let filter: MessageFilter = {
    var filter = MessageFilter()
    filter.states = MessageFilter.ready | MessageFilter.dead
    filter.key = Array("customer 7".utf8)
    filter.headerName = Array("trace".utf8)
    filter.headerValue = [1, 2]
    filter.skip = 3
    return filter
  }()

  static let summary = QueueSummary(
    id: QueueID(3), name: "jobs", settings: settings, ready: 1, leased: 2, delayed: 3,
    consumers: 4, bytes: 5, published: 6, delivered: 7, acknowledged: 8, redelivered: 9,
    deadLettered: 10)

  static let status = NodeStatus(
    id: NodeID(2), role: .leader, term: Term(7), leader: NodeID(2), commitIndex: LogIndex(100),
    appliedIndex: LogIndex(99), lastIndex: LogIndex(101), stateHash: 0xfeed,
    stateHashIndex:
      LogIndex(64), diskBytes: 1 << 30, memoryBytes: 1 << 24, pid: 4711, uptime: .seconds(5),
    sessions: 6, connections: 8, synchronizations: 9, bytesWritten: 10,
    amqp: AMQPStatus(
      port: 5672, connections: 3, exchanges: 6, bindings: 2, advice: ["a consumer without prefetch"]
    ),
    version: "0.1",
    peers: [
      PeerStatus(
        id: NodeID(1), isConnected: true, match: LogIndex(98), lag: 3, silence: .milliseconds(2))
    ],
    problems: ["repairing 3 damaged entries"])

  static func run(_ bodies: [String]) -> [UInt8] {
    var run: [UInt8] = []
    for body in bodies {
      MessageRecord.append(
        MessageParts(body: Array(body.utf8), headers: [("kind", [1, 2])], key: "k"), to: &run)
    }
    return run
  }

  /// All client frames but publish, which borrows its bytes.
  static var client: [ClientFrame] {
    [
      .hello(client: "test 1.0 ü"), .ping,
      .openSession(
        producer: ProducerID(77), epoch: ProducerEpoch(8), attempt: OpenAttempt(9),
        timeout: .seconds(10), name: "worker"),
      .attachSession(
        AttachRequest(
          session: SessionID(5),
          consumers: [
            .init(consumer: ConsumerID(1), received: DeliveryID(9)),
            .init(consumer: ConsumerID(2), received: DeliveryID(0)),
          ])),
      .closeSession, .resolveQueue(name: "jobs"),
      .publishOutcome(producer: ProducerID(77), sequence: PublishSequence(12)),
      .subscribe(consumer: ConsumerID(1), queue: QueueID(3), credit: 100),
      .subscribe(
        consumer: ConsumerID(2), queue: QueueID(3), credit: 1, priority: -7, isExclusive: true),
      .setCredit(consumer: ConsumerID(1), credit: 0),
      .unsubscribe(consumer: ConsumerID(1), returnHeld: true),
      .settle(
        SettleRequest(
          sequence: CommandSequence(4), answeredThrough: CommandSequence(2), kind: .negative,
          consumer: ConsumerID(1),
          ranges: [
            DeliveryRange(first: DeliveryID(1), last: DeliveryID(4)),
            DeliveryRange(first: DeliveryID(6), last: DeliveryID(6)),
          ], delay: .seconds(1), error: "division by zero")),
      .settle(
        SettleRequest(
          sequence: CommandSequence(5), answeredThrough: CommandSequence(2), kind: .acknowledge,
          consumer: ConsumerID(1), ranges: [])),
      .extend(
        ExtendRequest(
          sequence: CommandSequence(6), answeredThrough: CommandSequence(5),
          consumer: ConsumerID(1),
          ranges: [DeliveryRange(first: DeliveryID(1), last: DeliveryID(4))], by: .seconds(30))),
      .declareQueue(name: "jobs", settings: settings), .deleteQueue(name: "jobs"),
      .purgeQueue(name: "jobs"), .listQueues, .showQueue(name: "jobs"),
      .peek(queue: "jobs", after: MessageID(8), limit: 10),
      .peek(queue: "jobs", after: MessageID(8), limit: 10, filter: filter), .status, .memberList,
      .setUser(name: "worker", salt: [1, 2], hash: [3, 4, 5]), .addVirtualHost(name: "shop"),
      .listAccess,
      .showMessage(queue: "jobs", message: MessageID(8)),
      .cancelMessage(queue: "jobs", message: MessageID(8)),
      .rescheduleMessage(queue: "jobs", message: MessageID(8), delay: .seconds(3)),
      .redriveQueue(
        queue: "dead", which: .all, after: MessageID(7), through: MessageID(9), limit: 100),
      .redriveQueue(
        queue: "dead", which: .reason(.expired), after: MessageID(0), through: MessageID(0),
        limit: 1),
      .redriveQueue(
        queue: "dead", which: .message(MessageID(9)), after: MessageID(0), through: MessageID(0),
        limit: 1),
      .memberAdd(id: NodeID(4), peerAddress: "10.0.0.4:7500", clientAddress: "10.0.0.4:7400"),
      .memberRemove(id: NodeID(4)), .transferLeadership(to: NodeID(2)),
      .transferLeadership(to: nil),
    ]
  }

  /// All server frames but deliver, which borrows its bytes.
  static var server: [ServerFrame] {
    [
      .helloReply(
        HelloReply(
          cluster: 99, node: NodeID(1), leader: NodeID(2), leaderAddress: "127.0.0.1:7402",
          addresses: ["127.0.0.1:7401", "127.0.0.1:7402"], version: "0.1",
          messageBytesMax: 16 << 20, frameBytesMax: 17 << 20, publishWindow: 65536,
          creditMax: 10000)),
      .pong,
      .sessionOpened(
        session: SessionID(5), lastSequence: PublishSequence(3), epoch: ProducerEpoch(6)),
      .sessionAttached(
        session: SessionID(5), lastSequence: PublishSequence(3),
        settledThrough: CommandSequence(2)),
      .holding(
        consumer: ConsumerID(1), through: DeliveryID(8),
        ranges: [DeliveryRange(first: DeliveryID(2), last: DeliveryID(8))]),
      .holding(consumer: ConsumerID(2), through: DeliveryID(0), ranges: []),
      .lapsed(
        consumer: ConsumerID(1), ranges: [DeliveryRange(first: DeliveryID(2), last: DeliveryID(2))]),
      .producerFenced,
      .sessionEnded(session: SessionID(5), .expired),
      .queueReply(queue: QueueID(3), isNew: true),
      .confirmed(first: PublishSequence(1), count: 64, message: MessageID(1 << 20)),
      .confirmed(first: PublishSequence(2), count: 1, message: MessageID(1 << 20), copies: 3),
      .publishRefused(first: PublishSequence(65), count: 2, .queueFull, detail: "jobs is full"),
      .outcomeReply(.stored(MessageID(17))), .outcomeReply(.refused(.queueFull)),
      .outcomeReply(.notSeen), .outcomeReply(.forgotten), .settled(through: CommandSequence(6)),
      .settleRefused(
        sequence: CommandSequence(6), consumer: ConsumerID(1),
        range: DeliveryRange(first: DeliveryID(3), last: DeliveryID(4)), .staleDelivery),
      .consumerCancelled(consumer: ConsumerID(1), .queueNotFound), .done(count: 12),
      .refused(.notLeader, detail: "node 2 leads", leader: "127.0.0.1:7402"),
      .leaderChanged(leader: NodeID(3), address: "127.0.0.1:7403"),
      .membersChanged(addresses: ["127.0.0.1:7401", "127.0.0.1:7402"]), .queueSummaries([summary]),
      .queueSummaries([]),
      .peeked([
        PeekedRecord(
          message: MessageID(17), state: .delayed, attempts: 2, due: MachineTime(rawValue: 8),
          lastError: "no", deadLetter: nil,
          record: run(["a"])),
        PeekedRecord(
          message: MessageID(18), state: .ready, attempts: 0, lastError: "",
          deadLetter: .init(
            reason: .rejected, originQueue: "jobs", originMessage: MessageID(2), attempts: 3,
            lastError: "no", firstTime: MachineTime(rawValue: 4), time: MachineTime(rawValue: 9)),
          record: run(["b"])),
      ]),
      .messageShown(shown),
      .queueRedriven(
        messages: 7, skipped: 1, next: MessageID(9), through: MessageID(11)),
      .statusReply(status),
      .memberListReply([
        MemberInfo(
          id: NodeID(1), peerAddress: "127.0.0.1:7501", clientAddress: "127.0.0.1:7401",
          votes: true, isLeader: false)
      ]),
      .accessReply(users: ["worker"], hosts: ["/", "shop"]),
    ]
  }

  static let shown = ShownMessage(
    peeked: PeekedRecord(
      message: MessageID(17), state: .leased, attempts: 1, lastError: "no", deadLetter: nil,
      record: run(["a"])),
    holder: .init(
      session: "worker", consumer: ConsumerID(1), node: NodeID(2),
      granted: MachineTime(rawValue: 5), leaseEnd: MachineTime(rawValue: 9)),
    events: [
      .init(
        kind: .failed, time: MachineTime(rawValue: 4), queue: "jobs",
        granted: MachineTime(rawValue: 3), attempt: 1, session: "worker", consumer: ConsumerID(1),
        node: NodeID(2), error: "no"),
      .init(
        kind: .deadLettered, time: MachineTime(rawValue: 4), queue: "jobs", reason: .rejected),
    ], eventsForgotten: 3, now: MachineTime(rawValue: 6), queue: "dead")

  static func publishFrame(_ bodies: [String] = ["a", "", "ccc"]) -> [UInt8] {
    let run = run(bodies)
    var bytes: [UInt8] = []
    run.withUnsafeBytes {
      PublishView(
        queue: QueueID(3), first: PublishSequence(10), answeredThrough: PublishSequence(9),
        count: bodies.count, run: $0
      ).encode(into: &bytes)
    }
    return bytes
  }

  static func transactFrame(
    _ bodies: [String] = ["a", "", "ccc"], copies: Int = 2, runBytesMore: Int = 0
  ) -> [UInt8] {
    let first = run([bodies[0]])
    let rest = run(Array(bodies.dropFirst()))
    var bytes: [UInt8] = []
    (first + rest).withUnsafeBytes {
      TransactView(
        first: PublishSequence(10), answeredThrough: PublishSequence(9), holder: SessionID(5),
        settles: [
          TransactSettle(
            consumer: ConsumerID(1),
            ranges: [
              DeliveryRange(first: DeliveryID(1), last: DeliveryID(4)),
              DeliveryRange(first: DeliveryID(6), last: DeliveryID(6)),
            ]),
          TransactSettle(
            consumer: ConsumerID(2), kind: .negative,
            ranges: [DeliveryRange(first: DeliveryID(2), last: DeliveryID(2))],
            delay: .seconds(1), error: "no"),
        ],
        parts: [
          TransactPart(
            queues: (0..<copies).map { QueueID(UInt32($0 + 3)) }, count: 1,
            runBytes: first.count + runBytesMore),
          TransactPart(queues: [QueueID(3)], count: bodies.count - 1, runBytes: rest.count),
        ], run: $0
      ).encode(into: &bytes)
    }
    return bytes
  }

  static func deliverFrame(_ bodies: [String] = ["a", "", "ccc"]) -> [UInt8] {
    var bytes: [UInt8] = []
    var encoder = DeliverEncoder(ConsumerID(6), into: &bytes)
    for (place, body) in bodies.enumerated() {
      run([body]).withUnsafeBytes {
        encoder.append(header(place), record: $0, to: &bytes)
      }
    }
    encoder.finish(in: &bytes)
    return bytes
  }

  static func header(_ place: Int) -> DeliveryHeader {
    DeliveryHeader(
      delivery: DeliveryID(UInt64(place) + 1), token: FencingToken(UInt64(place) + 100),
      message: MessageID(UInt64(place) + 200), lease: .seconds(30),
      granted: MachineTime(rawValue: 5), attempt: UInt32(place) + 1,
      isRedelivery: place % 2 == 1)
  }

  static func bytes(_ frame: ClientFrame, request: RequestID = RequestID(5)) -> [UInt8] {
    var bytes: [UInt8] = []
    frame.encode(request: request, into: &bytes)
    return bytes
  }

  static func bytes(_ frame: ServerFrame, request: RequestID = RequestID(5)) -> [UInt8] {
    var bytes: [UInt8] = []
    frame.encode(request: request, into: &bytes)
    return bytes
  }

  static var allClientBytes: [[UInt8]] {
    client.map { bytes($0) } + [publishFrame(), transactFrame()]
  }
  static var allServerBytes: [[UInt8]] { server.map { bytes($0) } + [deliverFrame()] }
}

enum Side: CaseIterable {
  case client, server

  var samples: [[UInt8]] {
    self == .client ? Samples.allClientBytes : Samples.allServerBytes
  }

  /// Reads the one frame that `bytes` are and writes it again; nil while it is not complete.
  func reencode(_ bytes: [UInt8], limit: Int = 1 << 20) throws(FrameError) -> [UInt8]? {
    let result = bytes.withUnsafeBytes { bytes in
      Result { () throws(FrameError) -> [UInt8]? in
        guard let view = try FrameDecoder.next(in: bytes, limit: limit) else { return nil }
        switch self {
        case .client: return Samples.bytes(try ClientFrame(decoding: view), request: view.request)
        case .server: return Samples.bytes(try ServerFrame(decoding: view), request: view.request)
        }
      }
    }
    return try result.get()
  }
}
