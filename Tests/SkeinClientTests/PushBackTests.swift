// What the client does when a node pushes back, hears nothing, or takes less than another.

import Base
import Testing
import Wire

@testable import SkeinClient

@Suite(.timeLimit(.minutes(1))) struct PushBackTests {
  @Test func `Settlements that the node pushes back are sent again, in order`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    node.deliver(1, [(1, "a"), (2, "b")])
    let batch = try await consumer.nextBatch(max: 2)
    let first = Task { try await batch[0].acknowledge() }
    let one = try await node.take(.settle).settle()
    let second = Task { try await batch[1].reject(error: "bad") }
    let two = try await node.take(.settle).settle()
    for (settle, refusal) in [(one, Refusal.overloaded), (two, .sequenceGap)] {
      node.send(
        .settleRefused(
          sequence: settle.sequence, consumer: settle.consumer, range: settle.ranges[0], refusal))
    }
    #expect(try await node.take(.settle).settle() == one)
    #expect(try await node.take(.settle).settle() == two)
    node.send(.settled(through: two.sequence))
    try await first.value
    try await second.value
    #expect(try await consumer.flush().isEmpty)
    await client.close()
  }

  @Test func `A settlement refused as a gap behind all that was answered begins a new session`()
    async throws
  {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    node.deliver(1, [(1, "a")])
    let batch = try await consumer.nextBatch(max: 1)
    _ = try await node.take(.openSession)
    let acknowledging = Task { try await batch[0].acknowledge() }
    let settle = try await node.take(.settle).settle()
    node.send(
      .settleRefused(
        sequence: settle.sequence, consumer: settle.consumer, range: settle.ranges[0],
        .sequenceGap))
    await #expect(throws: SkeinError.requestUnknown("the settlement")) {
      try await acknowledging.value
    }
    _ = try await node.take(.openSession)
    await client.close()
  }

  @Test func `A client that only hears says something all the same`() async throws {
    let node = try FakeNode()
    var options = ClientOptions.quick
    // Longer than a busy machine may keep this task waiting.
    options.pingInterval = .milliseconds(300)
    let client = try await SkeinClient.connect(endpoints: [node.address], options: options)
    let consumer = try await client.consume("jobs")
    var number: UInt64 = 0
    while node.count(.ping) == 0, !Task.isCancelled {
      number += 1
      node.deliver(1, [(number, "m")])
      _ = try await consumer.nextBatch()
    }
    #expect(node.count(.ping) > 0)
    await client.close()
  }

  @Test func `Publishes are gathered into runs that the node takes`() throws {
    let book = PublishBook(producer: 1)
    book.configure(contentBytesMax: 64 << 10, runBytesMax: (64 << 10) + 4064, window: 1000)
    let owner = book.addOwner(window: 1000, bytesMax: 64 << 20)
    for _ in 0..<200 {
      let message = Message(body: [UInt8](repeating: 1, count: 1000))
      _ = try book.stage(message, owner: owner, queue: QueueID(1))
    }
    var chunks: [PublishChunk] = []
    book.take(into: &chunks)
    #expect(chunks.count == 3)
    #expect(chunks.allSatisfy { $0.run.count <= (64 << 10) + 4064 })
    #expect(chunks.reduce(0) { $0 + $1.count } == 200)
  }

  @Test func `A message's headers count in the size of its run`() throws {
    let book = PublishBook(producer: 1)
    let owner = book.addOwner(window: 1000, bytesMax: 64 << 20)
    let value = [UInt8](repeating: 1, count: 200 << 10)
    for _ in 0..<2 {
      let message = Message(body: [], headers: [MessageHeader("large", value)])
      _ = try book.stage(message, owner: owner, queue: QueueID(1))
    }
    var chunks: [PublishChunk] = []
    book.take(into: &chunks)
    #expect(chunks.map(\.count) == [1, 1])
  }

  @Test func `A new leader that takes smaller frames gets smaller ones`() async throws {
    let pair = try Pair()
    pair.second.change {
      $0.frameBytesMax = 16 << 10
      $0.messageBytesMax = 12 << 10
    }
    let client = try await pair.connect()
    let messages = (1...100).map { Message("\($0) " + String(repeating: "x", count: 1000)) }
    let publishing = Task { try await client.publish(messages, to: "jobs") }
    _ = try await pair.first.take(.publish)
    pair.first.send(
      .confirmed(first: PublishSequence(1), count: 3, message: MessageID(rawValue: 1)))
    _ = try await client.resolve("other")
    pair.failOver()
    var next: UInt64 = 4
    while next <= 100 {
      let received = try await pair.second.take(.publish)
      #expect(received.payload.count <= 16 << 10)
      let publish = try received.publish()
      #expect(publish.first == next && publish.bodies.first?.hasPrefix("\(next) ") == true)
      let (first, count) = (PublishSequence(next), UInt32(publish.bodies.count))
      pair.second.send(.confirmed(first: first, count: count, message: MessageID(rawValue: next)))
      next += UInt64(publish.bodies.count)
    }
    #expect(try await publishing.value.map(\.id.stored.rawValue) == Array(1...100))
    await client.close()
  }

  @Test func `A chunk that is split keeps its answers, its bytes and its times`() throws {
    var run: [UInt8] = []
    for number in 0..<10 {
      MessageRecord.append(MessageParts(body: [UInt8](repeating: 7, count: number)), to: &run)
    }
    var queue = PublishQueue()
    let chunk = PublishChunk(owner: 0, queue: QueueID(1), first: 1, count: 10, run: run)
    queue.append(chunk, deadline: MonotonicTime(rawValue: 10))
    queue.noteSent()
    var runs: [PublishAnswerRun] = []
    queue.answer(first: 1, count: 5, result: .success(MessageID(rawValue: 9)), into: &runs)
    queue.sendAgain()
    #expect(queue.expire(now: MonotonicTime(rawValue: 10)).through == 10)
    queue.split(runBytesMax: 50, countMax: 3)
    #expect(queue.expire(now: MonotonicTime(rawValue: 11)) == (nil, .never))
    var next: UInt64 = 6
    while let part = queue.nextToSend {
      #expect(part.firstOpen == next && part.chunk.run.count - part.openOffset <= 50)
      next += UInt64(part.remaining)
      queue.noteSent()
    }
    #expect(next == 11)
    queue.answer(first: 6, count: 5, result: .success(MessageID(rawValue: 14)), into: &runs)
    #expect(queue.isEmpty && runs.reduce(0) { $0 + $1.bytesReleased } == run.count)
    #expect(runs.reduce(0) { $0 + $1.count } == 10)
  }
}
