import Base
import Testing
import Wire

@testable import SkeinClient

@Suite(.timeLimit(.minutes(1))) struct AdministrationTests {
  private func connected(_ manual: FrameKind) async throws -> (FakeNode, SkeinClient) {
    let node = try FakeNode()
    node.change { $0.manual = [manual] }
    return (node, try await SkeinClient.connect(endpoints: [node.address], options: .quick))
  }

  @Test func `A declaration carries every option, and its overview gives them back`() async throws {
    let (node, client) = try await connected(.declareQueue)
    var options = QueueOptions()
    options.lease = .seconds(7)
    options.maxDeliveries = 3
    options.deadLetterQueue = "failed"
    options.retryDelay = .milliseconds(250)
    options.retryDelayMax = .seconds(60)
    options.retryJitter = 0.2
    options.timeToLive = .seconds(3600)
    options.maxLength = 10
    options.maxBytes = 1000
    options.overflow = .dropOldest
    options.priorities = 4
    options.keyLimit = 2
    let declaring = Task { [options] in try await client.declareQueue("jobs", options: options) }
    let request = try await node.take(.declareQueue)
    let settings = try request.read { frame -> QueueSettings in
      guard case .declareQueue("jobs", let settings) = frame else {
        throw WrongFrame(kind: request.kind)
      }
      return settings
    }
    #expect(settings.retryJitterPermille == 200 && settings.deliveriesMax == 3)
    #expect(QueueOptions(settings) == options)
    node.send(.queueReply(queue: QueueID(1), isNew: false), to: request)
    #expect(try await declaring.value == false)
    await client.close()
  }

  private static let faults: [(String, @Sendable (inout QueueOptions) -> Void)] = [
    ("lease must be at least 1ms", { $0.lease = .zero }),
    ("lease must not be negative", { $0.lease = .seconds(-1) }),
    ("max-deliveries of -1 is out of range", { $0.maxDeliveries = -1 }),
    ("retry-delay must not be negative", { $0.retryDelay = .seconds(-1) }),
    (
      "retry-max must not be below retry-delay",
      {
        $0.retryDelay = .seconds(2)
        $0.retryDelayMax = .seconds(1)
      }
    ),
    ("retry-max needs retry-delay", { $0.retryDelayMax = .seconds(1) }),
    ("retry-jitter needs retry-delay", { $0.retryJitter = 0.1 }),
    ("retry-jitter must be between 0 and 1", { $0.retryJitter = 1.1 }),
    ("retry-jitter must be between 0 and 1", { $0.retryJitter = .nan }),
    ("ttl must not be negative", { $0.timeToLive = .seconds(-1) }),
    ("expires must not be negative", { $0.expires = .seconds(-1) }),
    ("overflow drop-oldest needs max-length or max-bytes", { $0.overflow = .dropOldest }),
    ("priorities must be between 1 and 32", { $0.priorities = 0 }),
    ("priorities must be between 1 and 32", { $0.priorities = 33 }),
    ("priorities of 256 is out of range", { $0.priorities = 256 }),
    ("keyed of -1 is out of range", { $0.keyLimit = -1 }),
  ]

  @Test(arguments: faults)
  func `A bad option is refused with its name before anything is sent`(
    fault: String, change: @Sendable (inout QueueOptions) -> Void
  ) async throws {
    let (node, client) = try await connected(.declareQueue)
    var wrong = QueueOptions()
    change(&wrong)
    let options = wrong
    await #expect(throws: SkeinError.refused(.settingInvalid, detail: fault)) {
      _ = try await client.declareQueue("jobs", options: options)
    }
    await #expect(throws: SkeinError.refused(.queueNameInvalid, detail: "\"\"")) {
      try await client.declareQueue("")
    }
    #expect(node.count(.declareQueue) == 0)
    await client.close()
  }

  @Test func `A queue is shown as the cluster counts it`() async throws {
    let (node, client) = try await connected(.showQueue)
    let showing = Task { try await client.showQueue("jobs") }
    let summary = QueueSummary(
      id: QueueID(3), name: "jobs", settings: QueueSettings(), ready: 1, leased: 2, delayed: 3,
      consumers: 4, bytes: 5, published: 6, delivered: 7, acknowledged: 8, redelivered: 9,
      deadLettered: 10)
    node.send(.queueSummaries([summary]), to: try await node.take(.showQueue))
    let queue = try await showing.value
    #expect(queue == QueueOverview(summary) && queue.ready == 1 && queue.deadLettered == 10)
    await client.close()
  }

  @Test func `A deletion whose answer was lost is done when the next leader knows no such queue`()
    async throws
  {
    let pair = try Pair()
    let client = try await pair.connect()
    let deleting = Task { try await client.deleteQueue("jobs") }
    _ = try await pair.first.take(.deleteQueue)
    pair.failOver()
    pair.second.send(
      .refused(.queueNotFound, detail: "", leader: ""), to: try await pair.second.take(.deleteQueue)
    )
    #expect(try await deleting.value == 0)
    // One that was never answered at all is refused in earnest.
    let again = Task { try await client.deleteQueue("jobs") }
    pair.second.send(
      .refused(.queueNotFound, detail: "", leader: ""), to: try await pair.second.take(.deleteQueue)
    )
    await #expect(throws: SkeinError.refused(.queueNotFound, detail: "")) {
      _ = try await again.value
    }
    await client.close()
  }

  /// comings-and-goings, seed 5: it had expired before the next leader was asked, and came back by a redrive.
  @Test func `Whether a cancellation whose answer was lost took the message nobody knows`()
    async throws
  {
    let pair = try Pair()
    let client = try await pair.connect()
    let id = try #require(MessageIdentifier("3-1"))
    let cancelling = Task { try await client.cancelMessage(id, in: "jobs") }
    _ = try await pair.first.take(.cancelMessage)
    pair.failOver()
    pair.second.send(
      .refused(.messageGone, detail: "", leader: ""), to: try await pair.second.take(.cancelMessage)
    )
    await #expect(throws: SkeinError.requestUnknown("cancelMessage")) {
      try await cancelling.value
    }
    // One that was never answered at all is refused in earnest.
    let again = Task { try await client.cancelMessage(id, in: "jobs") }
    pair.second.send(
      .refused(.messageGone, detail: "", leader: ""), to: try await pair.second.take(.cancelMessage)
    )
    await #expect(throws: SkeinError.refused(.messageGone, detail: "")) {
      try await again.value
    }
    await client.close()
  }

  @Test func `Handing the leadership to anybody is not asked of the next leader again`()
    async throws
  {
    let pair = try Pair()
    let client = try await pair.connect()
    let transferring = Task { try await client.transferLeadership() }
    _ = try await pair.first.take(.transferLeadership)
    pair.failOver()
    try await transferring.value
    _ = try await client.resolve("jobs")
    #expect(pair.second.count(.transferLeadership) == 0)
    await client.close()
  }

  @Test func `Peeked messages have their parts, and dead letters their reason`() async throws {
    let (node, client) = try await connected(.peek)
    let peeking = Task {
      try await client.peek("jobs", after: MessageIdentifier("3-1"), limit: 2)
    }
    let request = try await node.take(.peek)
    try request.read { frame in
      guard
        case .peek("jobs", MessageID(entry: LogIndex(3), ordinal: 1), 2, MessageFilter()) = frame
      else {
        throw WrongFrame(kind: request.kind)
      }
    }
    var record: [UInt8] = []
    MessageRecord.append(MessageParts(body: [1], key: "k"), to: &record)
    node.send(
      .peeked([
        PeekedRecord(
          message: MessageID(entry: LogIndex(4), ordinal: 0), state: .leased, attempts: 2,
          lastError: "no",
          deadLetter: .init(
            reason: .rejected, originQueue: "origin", originMessage: MessageID(rawValue: 1),
            attempts: 3, lastError: "bad", firstTime: MachineTime(rawValue: 1),
            time: MachineTime(rawValue: 2)), record: record)
      ]), to: request)
    let message = try #require(try await peeking.value.first)
    #expect(message.id.description == "4-0" && message.state == .leased && message.attempts == 2)
    #expect(message.message == Message(body: [1], key: "k"))
    #expect(message.deadLetter?.reason == .rejected && message.deadLetter?.lastError == "bad")
    await client.close()
  }

  @Test func `A redrive goes on in steps up to what was there at its beginning`() async throws {
    let (node, client) = try await connected(.redriveQueue)
    let moving = Task { try await client.redrive("dead", .reason(.expired), limit: 5, step: 3) }
    let id = MessageID(entry: LogIndex(4), ordinal: 0)
    let last = MessageID(entry: LogIndex(9), ordinal: 0)
    let first = try await node.take(.redriveQueue)
    try first.read { frame in
      guard
        case .redriveQueue(
          "dead", .reason(.expired), MessageID(rawValue: 0), MessageID(rawValue: 0), 3) = frame
      else { throw WrongFrame(kind: first.kind) }
    }
    node.send(.queueRedriven(messages: 3, skipped: 1, next: id, through: last), to: first)
    let second = try await node.take(.redriveQueue)
    try second.read { frame in
      guard case .redriveQueue("dead", .reason(.expired), id, last, 2) = frame else {
        throw WrongFrame(kind: second.kind)
      }
    }
    node.send(
      .queueRedriven(messages: 1, skipped: 0, next: MessageID(rawValue: 0), through: last),
      to: second)
    #expect(try await moving.value == RedriveResult(moved: 4, skipped: 1))
    await client.close()
  }

  @Test func `A message's biography names its attempts and its moves`() async throws {
    let (node, client) = try await connected(.showMessage)
    let id = try #require(MessageIdentifier("4-0"))
    let showing = Task { try await client.message(id, in: "jobs") }
    var record: [UInt8] = []
    MessageRecord.append(MessageParts(body: [1], priority: 2, delay: .seconds(3)), to: &record)
    node.send(
      .messageShown(
        ShownMessage(
          peeked: PeekedRecord(
            message: id.stored, state: .delayed, attempts: 1, due: MachineTime(rawValue: 9),
            lastError: "no", deadLetter: nil, record: record), holder: nil,
          events: [
            .init(
              kind: .leaseRanOut, time: MachineTime(rawValue: 5), queue: "jobs",
              granted: MachineTime(rawValue: 3), attempt: 1, session: "worker", node: NodeID(2),
              error: "lease ran out"),
            .init(
              kind: .deadLettered, time: MachineTime(rawValue: 5), queue: "jobs",
              reason: .overflowed),
          ], eventsForgotten: 0, now: MachineTime(rawValue: 7), queue: "dead")),
      to: try await node.take(.showMessage))
    let biography = try await showing.value
    #expect(biography.message.due == .nanoseconds(9) && biography.queue == "dead")
    #expect(biography.message.message.priority == 2)
    #expect(biography.message.message.delay == .seconds(3))
    #expect(biography.events.map(\.attempt?.consumer) == ["worker", nil])
    #expect(biography.events.map(\.reason) == [nil, .overflowed])
    await client.close()
  }

  @Test func `Every node is asked for its status, also those only learned of`() async throws {
    let pair = try Pair()
    pair.first.change { $0.manual = [.status] }
    pair.second.change { $0.manual = [.status] }
    let dead = try FakeNode()
    dead.stop()
    let asking = Task {
      await SkeinClient.clusterStatus(
        endpoints: [pair.first.address, dead.address], timeout: .seconds(20))
    }
    for (node, id) in [(pair.first, NodeID(1)), (pair.second, NodeID(2))] {
      let status = NodeStatus(
        id: id, role: id.rawValue == 1 ? .leader : .follower, term: Term(3), leader: NodeID(1),
        commitIndex: LogIndex(9), appliedIndex: LogIndex(9), lastIndex: LogIndex(9),
        stateHash: 7, stateHashIndex: LogIndex(8), diskBytes: 1, memoryBytes: 2, pid: 3,
        uptime: .seconds(4), sessions: 5, connections: 6, version: "v")
      node.send(.statusReply(status), to: try await node.take(.status))
    }
    let reports = await asking.value
    #expect(reports.count == 3)
    let nodes = reports.compactMap { try? $0.result.get() }
    #expect(nodes.map(\.id) == [1, 2] && nodes.map(\.role) == [.leader, .follower])
    guard case .failure(.unreachable) = reports[1].result else {
      Issue.record("the dead endpoint answered")
      return
    }
  }

  @Test func `Without an answer a read times out and a change has an unknown outcome`()
    async throws
  {
    let node = try FakeNode()
    node.change { $0.manual = [.listQueues, .purgeQueue] }
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .hasty)
    await #expect {
      _ = try await client.listQueues()
    } throws: { error in
      if case .timedOut? = error as? SkeinError { true } else { false }
    }
    await #expect(throws: SkeinError.requestUnknown("purgeQueue")) {
      _ = try await client.purgeQueue("jobs")
    }
    await client.close()
  }

  @Test func `Every refusal of the protocol has its public name`() {
    for refusal in Refusal.allCases {
      #expect("\(RefusalReason(refusal))" == "\(refusal)")
    }
    #expect(RefusalReason.allCases.count == Refusal.allCases.count)
  }

  @Test func `References and ids are read as they are written`() throws {
    let reference = PublishReference(producer: 0xfeed, sequence: 12)
    #expect(reference.description == "feed/12")
    #expect(PublishReference("feed/12") == reference)
    for wrong in ["", "feed", "feed/", "/1", "x/1", "feed/1/2"] {
      #expect(PublishReference(wrong) == nil)
    }
    #expect(MessageIdentifier("5-2")?.description == "5-2")
    #expect(MessageIdentifier("5") == nil)
    #expect(try #require(MessageIdentifier("5-2")) < #require(MessageIdentifier("6-0")))
  }
}
