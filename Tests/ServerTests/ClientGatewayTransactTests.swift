// Transactions of clients, from the frame to the queues.

import Base
import Node
import QueueMachine
import Testing
import Transport
import Wire

@testable import Server

@Suite struct ClientGatewayTransactTests {
  private static func frame(
    first: UInt64, holder: SessionID = .none, settles: [TransactSettle] = [],
    _ parts: [(queues: [QueueID], bodies: [String])]
  ) -> [UInt8] {
    var run: [UInt8] = []
    var written: [TransactPart] = []
    for part in parts {
      let start = run.count
      for body in part.bodies {
        MessageRecord.append(MessageParts(body: Array(body.utf8)), to: &run)
      }
      written.append(
        TransactPart(
          queues: part.queues, count: part.bodies.count, runBytes: run.count - start))
    }
    var bytes: [UInt8] = []
    run.withUnsafeBytes {
      TransactView(
        first: PublishSequence(first), answeredThrough: .zero, holder: holder, settles: settles,
        parts: written, run: $0
      ).encode(into: &bytes)
    }
    return bytes
  }

  @Test func aMessageGoesToSeveralQueuesAndIsReadFromEach() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queues = try ["a", "b"].map { try client.declare($0) }
    client.send(bytes: Self.frame(first: 1, [(queues, ["x", "y"])]))
    try harness.run(until: "confirm") { client.confirmed == 2 }
    guard case .confirmed(_, 2, _, copies: 2)? = client.news.last else {
      Issue.record("\(client.news)")
      return
    }
    for (place, queue) in queues.enumerated() {
      try client.subscribe(UInt32(place + 1), to: queue, credit: 10)
    }
    try harness.run(until: "deliveries") { client.deliveries.count == 4 }
    for consumer in [1, 2] as [UInt32] {
      let bodies = client.deliveries.filter { $0.consumer == ConsumerID(consumer) }.map(\.body)
      #expect(bodies == [Array("x".utf8), Array("y".utf8)])
    }
  }

  @Test func whatIsConsumedAndWhatIsMadeOfItChangePlacesInOneStep() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let (source, target) = (try client.declare("in"), try client.declare("out"))
    try client.publishAndWait([Array("1".utf8)], to: source)
    try client.subscribe(1, to: source, credit: 1)
    try harness.run(until: "delivery") { client.deliveries.count == 1 }
    let session = try #require(harness.replica.machine.sessions().first?.session)
    let settles = [
      TransactSettle(
        consumer: ConsumerID(1),
        ranges: [DeliveryRange(first: DeliveryID(1), last: DeliveryID(1))])
    ]
    let frame = Self.frame(first: 2, holder: session, settles: settles, [([target], ["2"])])
    client.send(bytes: frame)
    try harness.run(until: "confirm") { client.confirmed == 2 }
    // Sent again it is answered again.
    client.send(bytes: frame)
    try harness.run(until: "confirm") { client.confirmed == 3 }
    #expect(harness.replica.machine.summary(of: source)?.acknowledged == 1)
    #expect(harness.replica.machine.summary(of: target)?.ready == 1)
    // Now it is stale: refused by name, and nothing is published.
    client.send(
      bytes: Self.frame(first: 3, holder: session, settles: settles, [([target], ["3"])]))
    try harness.run(until: "refusal") { client.publishRefusals == [.staleDelivery] }
    #expect(harness.replica.machine.summary(of: target)?.ready == 1)
  }

  @Test func aWrongMessageRefusesTheWholeAndUsesItsNumbersUp() throws {
    let harness = try GatewayHarness.leading { $0.limits.messageBytes = 1000 }
    let client = try harness.client()
    let queue = try client.declare("q")
    let long = String(repeating: "x", count: 1001)
    client.send(bytes: Self.frame(first: 1, [([queue], ["1"]), ([queue], [long])]))
    try harness.run(until: "refusal") { client.publishRefusals == [.messageTooLarge] }
    #expect(harness.replica.machine.summary(of: queue)?.ready == 0)
    client.send(bytes: Self.frame(first: 3, [([queue], ["1"])]))
    try harness.run(until: "confirm") { client.confirmed == 1 }
  }
}

@Suite struct ClientGatewayConsumerTests {
  @Test func whenTheQueueGoesItsConsumersAreToldByName() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    try client.subscribe(1, to: queue, credit: 1)
    _ = try client.ask(.deleteQueue(name: "q"))
    try harness.run(until: "notice") {
      client.news.contains {
        if case .consumerCancelled(ConsumerID(1), .queueNotFound) = $0 { true } else { false }
      }
    }
  }

  @Test func anExclusiveConsumerKeepsOthersOut() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    let first = ClientFrame.subscribe(
      consumer: ConsumerID(1), queue: queue, credit: 1, priority: 3, isExclusive: true)
    #expect(try client.ask(first).refusal == nil)
    #expect(
      try client.ask(.subscribe(consumer: ConsumerID(2), queue: queue, credit: 1)).refusal
        == .consumerExclusive)
  }
}
