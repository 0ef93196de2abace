// A cluster that does not know what it answered, or refuses a session.

import Base
import Testing
import Wire

@testable import SkeinClient

@Suite(.timeLimit(.minutes(1))) struct ForgottenTests {
  private func isForgotten(_ error: any Error) -> Bool {
    if case .forgotten? = error as? SkeinError { true } else { false }
  }

  private func publishOne(_ client: SkeinClient, _ node: FakeNode) async throws {
    let publishing = Task { try await client.publish(Message("a"), to: "jobs") }
    let first = try await node.take(.publish).publish().first
    node.send(.confirmed(first: PublishSequence(first), count: 1, message: MessageID(rawValue: 1)))
    _ = try await publishing.value
  }

  @Test(arguments: [true, false])
  func `A cluster that knows fewer publishes than it answered ends the producer by name`(
    keepsSessions: Bool
  ) async throws {
    let pair = try Pair()
    let client = try await pair.connect()
    try await publishOne(client, pair.first)
    pair.failOver(keepingSessions: keepsSessions, forgettingPublishes: true)
    _ = try await pair.second.take(keepsSessions ? .attachSession : .openSession)
    _ = try await client.resolve("other")
    await #expect(
      performing: {
        try await client.publish(Message("b"), to: "jobs")
      }, throws: isForgotten)
    #expect(pair.second.count(.publish) == 0)
    await client.close()
  }

  @Test func `A gap behind all that was answered is not sent again for ever`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publishing = Task { try await client.publish(Message("a"), to: "jobs") }
    let first = try await node.take(.publish).publish().first
    node.send(.publishRefused(first: PublishSequence(first), count: 1, .sequenceGap, detail: ""))
    await #expect(
      throws: SkeinError.outcomeUnknown(PublishReference(producer: client.producer, sequence: 1))
    ) { try await publishing.value }
    await #expect(
      performing: {
        try await client.publish(Message("b"), to: "jobs")
      }, throws: isForgotten)
    await client.close()
  }

  @Test func `Another cluster at the same place is not taken for the one before`() async throws {
    let pair = try Pair()
    let client = try await pair.connect()
    let consumer = try await client.consume("jobs")
    pair.second.change { $0.cluster = 2 }
    pair.failOver()
    await #expect(performing: { try await consumer.nextBatch() }, throws: isForgotten)
    await #expect(
      performing: {
        try await client.publish(Message("b"), to: "jobs")
      }, throws: isForgotten)
    await client.close()
  }

  @Test func `A session that nobody opens is waited for no longer than the timeout`() async throws {
    let node = try FakeNode()
    node.change { $0.manual = [.openSession] }
    var options = ClientOptions.hasty
    options.producer = 7
    await #expect {
      try await SkeinClient.connect(endpoints: [node.address], options: options)
    } throws: { error in
      if case .timedOut? = error as? SkeinError { true } else { false }
    }
  }

  @Test(arguments: [Refusal.tooManySessions, .overloaded])
  func `A refused session is named to who publishes, and nothing was sent`(
    refusal: Refusal
  ) async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .hasty)
    node.change { $0.sessionRefusal = refusal }
    let before = client.producer
    let error = SkeinError.refused(RefusalReason(refusal), detail: "1000")
    await #expect(throws: error) {
      try await client.publish(Message("a"), to: "jobs")
    }
    node.change { $0.sessionRefusal = nil }
    #expect(node.count(.publish) == 0 && client.producer != before)
    // The number is used for another message, so it is another producer's.
    let publisher = try await client.publisher(for: "jobs")
    #expect(try publisher.trySend(Message("b")) != nil)
    await client.close(within: .zero)
  }

  @Test func `A refused session is named to who consumes`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .hasty)
    node.change { $0.sessionRefusal = .tooManySessions }
    await #expect(throws: SkeinError.refused(.tooManySessions, detail: "1000")) {
      try await client.consume("jobs")
    }
    await client.close(within: .zero)
  }

  @Test func `A batch that was sent in part is never said to be unsent`() async throws {
    let node = try FakeNode()
    var options = ClientOptions.hasty
    options.publishWindow = 2
    let client = try await SkeinClient.connect(endpoints: [node.address], options: options)
    let reference = PublishReference(producer: client.producer, sequence: 1)
    await #expect(throws: SkeinError.outcomeUnknown(reference)) {
      try await client.publish((1...5).map { Message("\($0)") }, to: "jobs")
    }
    await client.close(within: .zero)
  }

  @Test func `Closing during a failover ends the session with the next leader`() async throws {
    let pair = try Pair()
    pair.first.change { $0.manual = [.closeSession] }
    let client = try await pair.connect()
    _ = try await client.consume("jobs")
    // Not given up while this test waits for its turn.
    let closing = Task { await client.close(within: .seconds(600)) }
    _ = try await pair.first.take(.closeSession)
    pair.failOver()
    _ = try await pair.second.take(.closeSession)
    await closing.value
  }
}
