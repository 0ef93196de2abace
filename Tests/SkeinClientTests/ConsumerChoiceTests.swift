import Base
import Testing
import Transport
import Wire

@testable import SkeinClient

@Suite(.timeLimit(.minutes(1))) struct ConsumerChoiceTests {
  @Test func `Priority and exclusivity are asked for, also of the next leader`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs", prefetch: 7, priority: -2, isExclusive: true)
    func check() async throws {
      try await node.take(.subscribe).read { frame in
        guard case .subscribe(_, _, 7, -2, true) = frame else {
          throw WrongFrame(kind: .subscribe)
        }
      }
    }
    try await check()
    node.change { $0.sessions = [] }
    node.closeConnections()
    try await check()
    consumer.cancel()
    await #expect(throws: SkeinError.self) {
      _ = try await client.consume("jobs", priority: 40_000)
    }
    await client.close()
  }

  @Test func `A consumer that is not alone is told so`() async throws {
    let node = try FakeNode()
    node.change { $0.manual = [.subscribe] }
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consuming = Task { try await client.consume("jobs", isExclusive: true) }
    let received = try await node.take(.subscribe)
    node.send(.refused(.consumerExclusive, detail: "", leader: ""), to: received)
    await #expect(throws: SkeinError.refused(.consumerExclusive, detail: "")) {
      _ = try await consuming.value
    }
    await client.close()
  }

  @Test func `When its queue goes a consumer ends with an error that says so`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let consumer = try await client.consume("jobs")
    let taking = Task { try await consumer.nextBatch() }
    node.send(.consumerCancelled(consumer: ConsumerID(1), .queueNotFound))
    await #expect(
      throws: SkeinError.refused(.queueNotFound, detail: "the consumer's queue jobs is gone")
    ) {
      _ = try await taking.value
    }
    await client.close()
  }

  @Test func `A producer that the cluster has forgotten publishes no more, by name`() async throws {
    let node = try FakeNode()
    let client = try await SkeinClient.connect(endpoints: [node.address], options: .quick)
    let publishing = Task { try await client.publish(Message("1"), to: "jobs") }
    _ = try await node.take(.publish)
    node.send(.confirmed(first: PublishSequence(1), count: 1, message: MessageID(1)))
    _ = try await publishing.value
    let consumer = try await client.consume("jobs")
    node.change {
      $0.sessions = []
      $0.manual = [.openSession]
    }
    _ = try await node.take(.openSession)
    node.closeConnections()
    let received = try await node.take(.openSession)
    node.change { $0.manual = [] }
    node.send(.refused(.producerForgotten, detail: "", leader: ""), to: received)
    // Consuming goes on without a producer.
    _ = try await node.take(.openSession)
    do {
      _ = try await client.publish(Message("2"), to: "jobs")
      Issue.record("a forgotten producer published")
    } catch {
      guard case SkeinError.forgotten = error else { throw error }
    }
    consumer.cancel()
    await client.close()
  }
}
