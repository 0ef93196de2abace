import Base
import Testing
import Wire

@testable import SkeinClient

@Suite(.timeLimit(.minutes(1))) struct PublishTests {
  /// Confirms a publish frame under ids from `id` on.
  private func confirm(_ node: FakeNode, _ received: Received, id: UInt64) throws {
    let publish = try received.publish()
    node.send(
      .confirmed(
        first: PublishSequence(publish.first), count: UInt32(publish.bodies.count),
        message: MessageID(rawValue: id)))
  }

  @Test func `A confirmed publish has its id and its name`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publishing = Task { try await client.publish(Message("hello"), to: "jobs") }
    let received = try await node.take(.publish)
    #expect(try received.publish() == (1, 0, ["hello"]))
    try confirm(node, received, id: 5 << 20)
    let receipt = try await publishing.value
    #expect(receipt.id.description == "5-0")
    #expect(receipt.reference == PublishReference(producer: client.producer, sequence: 1))
    await client.close()
    _ = try await node.take(.closeSession)
  }

  @Test func `A batch keeps its order and gets an id each`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publishing = Task {
      try await client.publish((1...50).map { Message("\($0)") }, to: "jobs")
    }
    let received = try await node.take(.publish)
    #expect(try received.publish() == (1, 0, (1...50).map(String.init)))
    try confirm(node, received, id: 7 << 20)
    #expect(try await publishing.value.map(\.id.description) == (0..<50).map { "7-\($0)" })
    await client.close()
  }

  @Test func `The window holds sends back until confirms make room`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publisher = try await client.publisher(for: "jobs", window: 2)
    #expect(try publisher.trySend(Message("a")) != nil)
    #expect(try publisher.trySend(Message("b")) != nil)
    #expect(try publisher.trySend(Message("c")) == nil)
    let third = Task { try await publisher.send(Message("c")) }
    var seen = 0
    while seen < 2 {
      let received = try await node.take(.publish)
      seen += try received.publish().bodies.count
      try confirm(node, received, id: 1 << 20)
    }
    #expect(try await third.value.sequence == 3)
    try confirm(node, try await node.take(.publish), id: 2 << 20)
    try await publisher.flush()
    await client.close()
  }

  @Test func `A send that finds no room in time was not sent`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .hasty)
    let publisher = try await client.publisher(for: "jobs", window: 1)
    try await publisher.send(Message("a"))
    await #expect {
      _ = try await publisher.send(Message("b"))
    } throws: { error in
      if case .timedOut? = error as? SkeinError { true } else { false }
    }
    await client.close()
  }

  @Test func `Confirmations come in the order of the sends, whatever the answers' order`()
    async throws
  {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publisher = try await client.publisher(for: "jobs")
    var confirmations = publisher.confirmations.makeAsyncIterator()
    for number in 1...4 { try await publisher.send(Message("\(number)")) }
    var sent = 0
    while sent < 4 { sent += try await node.take(.publish).publish().bodies.count }
    node.send(.confirmed(first: PublishSequence(3), count: 2, message: MessageID(rawValue: 30)))
    node.send(.confirmed(first: PublishSequence(1), count: 2, message: MessageID(rawValue: 10)))
    var sequences: [UInt64] = []
    while sequences.count < 4 {
      for confirmation in try #require(await confirmations.next()) {
        let first = confirmation.first.sequence
        sequences += first..<first + UInt64(confirmation.count)
        let id = try confirmation.result.get().stored.rawValue
        #expect(id == (first < 3 ? 10 + first - 1 : 30 + first - 3))
      }
    }
    #expect(sequences == [1, 2, 3, 4])
    await client.close()
    #expect(await confirmations.next() == nil)
  }

  @Test func `A refused publish is named, the others are stored`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publisher = try await client.publisher(for: "jobs")
    for number in 1...3 { try await publisher.send(Message("\(number)")) }
    var sent = 0
    while sent < 3 { sent += try await node.take(.publish).publish().bodies.count }
    node.send(.confirmed(first: PublishSequence(1), count: 1, message: MessageID(rawValue: 10)))
    node.send(
      .publishRefused(first: PublishSequence(2), count: 1, .queueFull, detail: "jobs"))
    node.send(.confirmed(first: PublishSequence(3), count: 1, message: MessageID(rawValue: 11)))
    let failure = PublishFailure(
      reference: PublishReference(producer: client.producer, sequence: 2),
      error: .refused(.queueFull, detail: "jobs"))
    await #expect(throws: SkeinError.publishesFailed([failure])) { try await publisher.flush() }
    try await publisher.flush()
    await client.close()
  }

  @Test func `A ticket tells of its own message`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publisher = try await client.publisher(for: "jobs")
    let first = try await publisher.enqueue(Message("a"))
    let second = try await publisher.enqueue(Message("b"))
    var sent = 0
    while sent < 2 { sent += try await node.take(.publish).publish().bodies.count }
    node.send(.publishRefused(first: PublishSequence(1), count: 1, .queueFull, detail: ""))
    node.send(.confirmed(first: PublishSequence(2), count: 1, message: MessageID(rawValue: 11)))
    #expect(try await second.receipt().id.stored.rawValue == 11)
    await #expect(throws: SkeinError.refused(.queueFull, detail: "")) {
      _ = try await first.receipt()
    }
    await client.close()
  }

  @Test func `A lost leader's unanswered publishes go to the next, in order, under their numbers`()
    async throws
  {
    let pair = try Pair()
    let client = try await pair.connect()
    let publisher = try await client.publisher(for: "jobs")
    for number in 1...5 { try await publisher.send(Message("\(number)")) }
    var sent = 0
    while sent < 5 { sent += try await pair.first.take(.publish).publish().bodies.count }
    pair.first.send(
      .confirmed(first: PublishSequence(1), count: 2, message: MessageID(rawValue: 10)))
    // The answer has arrived once a later request is answered.
    _ = try await client.resolve("other")
    pair.failOver()
    let attach = try await pair.second.take(.attachSession)
    try attach.read { frame in
      guard case .attachSession(let request) = frame else { throw WrongFrame(kind: attach.kind) }
      #expect(request == AttachRequest(session: SessionID(100), consumers: []))
    }
    var again: [String] = []
    var next: UInt64 = 3
    while again.count < 3 {
      let received = try await pair.second.take(.publish)
      let publish = try received.publish()
      #expect(publish.first == next && publish.answeredThrough == 2)
      next += UInt64(publish.bodies.count)
      again += publish.bodies
    }
    #expect(again == ["3", "4", "5"])
    pair.second.send(
      .confirmed(first: PublishSequence(3), count: 3, message: MessageID(rawValue: 20)))
    try await publisher.flush()
    await client.close()
  }

  @Test func `What the node pushes back is sent again`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publishing = Task { try await client.publish(Message("a"), to: "jobs") }
    _ = try await node.take(.publish)
    node.send(.publishRefused(first: PublishSequence(1), count: 1, .overloaded, detail: ""))
    let again = try await node.take(.publish)
    #expect(try again.publish() == (1, 0, ["a"]))
    try confirm(node, again, id: 3 << 20)
    #expect(try await publishing.value.id.description == "3-0")
    await client.close()
  }

  @Test func `Without an answer in time the outcome is unknown`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let id = try await client.resolve("jobs")
    await client.close()
    let hasty = try await SkeinClient.connect(endpoints: [node.address], options: .hasty)
    let publisher = Publisher(client: hasty, queue: "jobs", id: id, window: 10)
    try await publisher.send(Message("a"))
    let reference = PublishReference(producer: hasty.producer, sequence: 1)
    await #expect(throws: SkeinError.outcomeUnknown(reference)) { try await publisher.flush() }
    // A second wait has its own time, though that of the publish is up.
    await #expect(throws: SkeinError.outcomeUnknown(reference)) { try await publisher.flush() }
    // What comes later is there for who asks.
    try confirm(node, try await node.take(.publish), id: 9)
    try await until(hasty.shared.book.isAnswered(1))
    #expect(try await hasty.retry(reference).id.stored.rawValue == 9)
    #expect(node.count(.publishOutcome) == 0)
    await hasty.close()
  }

  /// A publish whose outcome its task does not know.
  private func publishUnknown(
    _ client: SkeinClient, _ node: FakeNode
  ) async throws -> PublishReference {
    let publishing = Task { try await client.publish(Message("a"), to: "jobs") }
    _ = try await node.take(.publish)
    publishing.cancel()
    let reference = PublishReference(producer: client.producer, sequence: 1)
    await #expect(throws: SkeinError.outcomeUnknown(reference)) { _ = try await publishing.value }
    return reference
  }

  @Test func `What became of a publish can be asked, and a retry sends no second message`()
    async throws
  {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let reference = try await publishUnknown(client, node)
    let asking = Task { try await client.outcome(of: reference) }
    node.send(.outcomeReply(.notSeen), to: try await node.take(.publishOutcome))
    #expect(try await asking.value == .notSeen)
    node.send(.confirmed(first: PublishSequence(1), count: 1, message: MessageID(rawValue: 9)))
    _ = try await client.resolve("other")
    // Answered meanwhile: the cluster forgets an answer that was taken, so it is kept here.
    for _ in 0..<2 { #expect(try await client.retry(reference).id.stored.rawValue == 9) }
    #expect(node.count(.publish) == 0 && node.count(.publishOutcome) == 0)
    await client.close()
  }

  @Test func `A retry waits on for a publish that is still under way`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let reference = try await publishUnknown(client, node)
    let retrying = Task { try await client.retry(reference) }
    try await until(client.shared.book.hasWaiting(for: reference.sequence))
    node.send(.confirmed(first: PublishSequence(1), count: 1, message: MessageID(rawValue: 9)))
    #expect(try await retrying.value.id.stored.rawValue == 9)
    #expect(node.count(.publish) == 0 && node.count(.publishOutcome) == 0)
    await client.close()
  }

  @Test func `Who asks again and again for one answer leaves one ticket`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let reference = try await publishUnknown(client, node)
    for _ in 0..<20 {
      let retrying = Task { try await client.retry(reference) }
      try await until(client.shared.book.hasWaiting(for: reference.sequence))
      retrying.cancel()
      await #expect(throws: SkeinError.outcomeUnknown(reference)) { _ = try await retrying.value }
    }
    #expect(client.shared.book.ticketCount(of: reference.sequence) == 1)
    node.send(.confirmed(first: PublishSequence(1), count: 1, message: MessageID(rawValue: 9)))
    _ = try await client.resolve("other")
    #expect(try await client.retry(reference).id.stored.rawValue == 9)
    await client.close()
  }

  @Test func `A cancelled publish has an unknown outcome`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let task = Task { try await client.publish(Message("a"), to: "jobs") }
    let received = try await node.take(.publish)
    task.cancel()
    let reference = PublishReference(producer: client.producer, sequence: 1)
    await #expect(throws: SkeinError.outcomeUnknown(reference)) { _ = try await task.value }
    try confirm(node, received, id: 1)
    await client.close()
  }

  @Test func `A message over the limit is not sent`() async throws {
    let node = try FakeNode()
    node.change { $0.messageBytesMax = 100 }
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    await #expect(throws: SkeinError.messageTooLarge(bytes: 101, limit: 100)) {
      try await client.publish(Message(body: [UInt8](repeating: 0, count: 101)), to: "jobs")
    }
    #expect(node.count(.publish) == 0)
    await client.close()
  }

  @Test func `A producer that comes back goes on behind its last publish`() async throws {
    let node = try FakeNode()
    node.change { $0.lastSequence = 41 }
    var options = ClientOptions.quick
    options.producer = 77
    let client = try await SkeinClient.connect(endpoints: [node.address], options: options)
    let publishing = Task { try await client.publish(Message("a"), to: "jobs") }
    let received = try await node.take(.publish)
    #expect(try received.publish() == (42, 41, ["a"]))
    try confirm(node, received, id: 1)
    #expect(try await publishing.value.reference == PublishReference(producer: 77, sequence: 42))
    await client.close()
  }

  @Test func `A fenced producer publishes no more`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publishing = Task { try await client.publish(Message("a"), to: "jobs") }
    _ = try await node.take(.publish)
    node.send(.producerFenced)
    await #expect(
      throws: SkeinError.outcomeUnknown(PublishReference(producer: client.producer, sequence: 1))
    ) { _ = try await publishing.value }
    await #expect(throws: SkeinError.producerFenced) {
      _ = try await client.publish(Message("b"), to: "jobs")
    }
    await client.close()
  }

  @Test func `Publishes of a lost session are not sent under another client's numbers`()
    async throws
  {
    let pair = try Pair()
    let client = try await pair.connect()
    let publishing = Task { try await client.publish(Message("a"), to: "jobs") }
    _ = try await pair.first.take(.publish)
    pair.second.change { $0.refusesEpochs = true }
    pair.failOver(keepingSessions: false)
    await #expect(
      throws: SkeinError.outcomeUnknown(PublishReference(producer: client.producer, sequence: 1))
    ) { _ = try await publishing.value }
    await #expect(throws: SkeinError.producerFenced) {
      _ = try await client.publish(Message("b"), to: "jobs")
    }
    #expect(pair.second.count(.publish) == 0)
    // Consuming goes on, in a session without a producer.
    let consumer = try await client.consume("jobs")
    pair.second.deliver(1, [(1, "c")])
    #expect(try await consumer.nextBatch().map(\.text) == ["c"])
    await client.close()
  }

  @Test func `A queue that is gone is asked for again by the next publish`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publishing = Task { try await client.publish(Message("a"), to: "jobs") }
    _ = try await node.take(.publish)
    node.send(.publishRefused(first: PublishSequence(1), count: 1, .queueNotFound, detail: ""))
    await #expect(throws: SkeinError.refused(.queueNotFound, detail: "")) {
      _ = try await publishing.value
    }
    _ = try await node.take(.resolveQueue)
    let second = Task { try await client.publish(Message("b"), to: "jobs") }
    _ = try await node.take(.resolveQueue)
    try confirm(node, try await node.take(.publish), id: 1)
    _ = try await second.value
    await client.close()
  }

  @Test func `Closing waits for what is under way and refuses what comes later`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publishing = Task { try await client.publish(Message("a"), to: "jobs") }
    let received = try await node.take(.publish)
    let closing = Task { await client.close() }
    try confirm(node, received, id: 1)
    _ = try await publishing.value
    await closing.value
    _ = try await node.take(.closeSession)
    await #expect(throws: SkeinError.closed) {
      _ = try await client.publish(Message("b"), to: "jobs")
    }
    await #expect(throws: SkeinError.closed) { _ = try await client.listQueues() }
    await client.close()
  }

  @Test func `A published record is what Base writes, whatever its parts`() throws {
    let message = Message(
      body: [1, 2, 3], headers: [MessageHeader("a", [9]), MessageHeader("a", "text")], key: "k",
      contentType: "text/plain")
    var expected: [UInt8] = []
    MessageRecord.append(message.parts, to: &expected)
    let book = PublishBook(producer: 1)
    let owner = book.addOwner(window: 10, bytesMax: 1000)
    _ = try book.stage(message, owner: owner, queue: QueueID(1))
    var chunks: [PublishChunk] = []
    book.take(into: &chunks)
    #expect(chunks.count == 1 && chunks[0].run == expected && chunks[0].count == 1)
  }
}
