// What waits to be sent has a bound over all clients, and who is cut short for it comes first in the next turn.

import Base
import Node
import QueueMachine
import TestSupport
import Testing

@testable import Server
@testable import Transport

@Suite(.ownThreads) struct OutputBudgetTests {
  private func body(_ kibibytes: Int) -> [UInt8] { [UInt8](repeating: 7, count: kibibytes << 10) }

  private func clients(of harness: GatewayHarness) -> [ClientConnection] {
    harness.gateway.clients.sortedKeys.compactMap { harness.gateway.clients[$0] }
  }

  @Test("Clients that do not read neither make the node grow nor keep others waiting (G13)")
  func nonReadersAreBoundedAndClosed() throws {
    let harness = try GatewayHarness.leading()
    harness.gateway.output.bytesMax = 4 << 20
    let publisher = try harness.client(producer: 1)
    var deaf: [TestClient] = []
    for number in 0..<3 {
      let client = try harness.client(producer: 10 + UInt64(number))
      let queue = try client.declare("q\(number)")
      try client.subscribe(1, to: queue, credit: 10)
      client.reads = false
      deaf.append(client)
      try publisher.publishAndWait([body(20 << 10)], to: queue)
    }
    harness.settle()
    let pending = clients(of: harness).map(\.connection.pendingBytes).reduce(0, +)
    #expect(harness.gateway.output.bytes == pending)
    // The last message may go beyond.
    #expect(pending >= 4 << 20 && pending < 25 << 20, "\(pending)")
    let reader = try harness.client(producer: 30)
    let queue = try reader.declare("q")
    try reader.subscribe(1, to: queue, credit: 10)
    try publisher.publishAndWait([body(1)], to: queue)
    harness.settle()
    // What fits into its share does not wait for others.
    #expect(reader.deliveries.count == 1)
    try publisher.publishAndWait([body(1 << 10)], to: queue)
    harness.settle()
    #expect(reader.deliveries.count == 1)
    #expect(harness.gateway.nextDeadline <= harness.now + ClientGatewayLimits.outputPatience)
    // Each time one is closed, and others that waited longer than the reader have their turn.
    for _ in 0..<3 { harness.pass(ClientGatewayLimits.outputPatience) }
    #expect(reader.deliveries.count == 2)
    #expect(harness.gateway.output.bytes < 25 << 20)
    #expect(!reader.isClosed && !publisher.isClosed)
    #expect(harness.gateway.counters.faults > 0)
    for client in deaf { client.close() }
    harness.settle()
    #expect(harness.gateway.output.bytes == 0)
    #expect(harness.gateway.nextDeadline > harness.now)
  }

  @Test("Beside others that fill the bound everybody has what fits into its share, and no more")
  func sharesAreBounded() throws {
    let harness = try GatewayHarness.leading()
    harness.gateway.output.bytesMax = 4 << 20
    let publisher = try harness.client(producer: 1)
    let hog = try harness.client(producer: 2)
    let deaf = try (3...4).map { try harness.client(producer: $0) }
    hog.reads = false
    let large = try publisher.declare("large")
    try publisher.publishAndWait([body(20 << 10)], to: large)
    _ = hog.begin(.subscribe(consumer: ConsumerID(1), queue: large, credit: 1))
    harness.settle()
    #expect(harness.gateway.output.bytes > 4 << 20)
    for (number, client) in deaf.enumerated() {
      let queue = try publisher.declare("q\(number)")
      for _ in 1...60 {
        try publisher.publishAndWait([[UInt8]](repeating: body(18), count: 9), to: queue)
      }
      client.reads = false
      _ = client.begin(.subscribe(consumer: ConsumerID(1), queue: queue, credit: 1_000))
    }
    harness.settle()
    let share = (2 << 20) / 5
    for client in clients(of: harness).suffix(2) {
      #expect(!client.outbox.isEmpty)
      let pending = client.connection.pendingBytes
      // As it is counted: the frames' heads come on top.
      #expect(pending > share - 19 << 10 && pending < share + 2 << 10, "\(pending)")
    }
    // Who has that much to read does not wait for others, and nobody is closed for it.
    #expect(harness.gateway.output.deadline == .never)
  }

  /// Clients that do not read, each with a message of so many MiB; between the first and the others a while.
  private func hogs(
    _ mebibytes: [Int], _ harness: GatewayHarness, firstComesEarlier span: Nanoseconds = .zero
  ) throws -> (theirs: [TestClient], known: [ClientConnection]) {
    var theirs: [TestClient] = []
    for (number, size) in mebibytes.enumerated() {
      let client = try harness.client(producer: 10 + UInt64(number))
      let queue = try client.declare("hog \(number)")
      try client.publishAndWait([body(size << 10)], to: queue)
      client.reads = false
      _ = client.begin(.subscribe(consumer: ConsumerID(1), queue: queue, credit: 1))
      harness.settle()
      theirs.append(client)
      if number == 0 { harness.pass(span) }
    }
    return (theirs, clients(of: harness))
  }

  @Test("Where too much waits, those go first who have stalled longest, then whoever holds most")
  func overrun() throws {
    let harness = try GatewayHarness.leading()
    let (_, known) = try hogs([12, 28, 20], harness, firstComesEarlier: .seconds(2))
    let reader = try harness.client(producer: 30)
    // The first is not enough.
    harness.gateway.output.bytesMax =
      harness.gateway.output.bytes - known[0].countedOutput - 1
    harness.gateway.output.answerBytes = 0
    harness.settle()
    #expect(known.map { $0.phase == .closed } == [true, true, false])
    #expect(!reader.isClosed)
  }

  @Test(
    "For somebody who gets nothing, of those who do not read as many are closed as must be, and one if all do",
    arguments: [false, true])
  func stuck(allReadALittle: Bool) throws {
    let harness = try GatewayHarness.leading()
    let (theirs, known) = try hogs([12, 28, 20], harness)
    // Half of it is full, also when they have read a little.
    harness.gateway.output.bytesMax = harness.gateway.output.bytes * 5 / 4
    let reader = try harness.client(producer: 30)
    let queue = try reader.declare("q")
    try reader.publishAndWait([body(20 << 10)], to: queue)
    try reader.subscribe(1, to: queue, credit: 1)
    harness.settle()
    #expect(reader.deliveries.count == 0)
    harness.pass(.seconds(4))
    if allReadALittle {
      for (client, known) in zip(theirs, known) {
        client.reads = true
        try harness.run(until: "it has read") { known.connection.stalledSince == harness.now }
        client.reads = false
      }
    }
    harness.pass(.seconds(1))
    #expect(known.map { $0.phase == .closed } == [false, true, !allReadALittle])
    #expect(reader.deliveries.count == 1)
  }

  @Test("However often a turn of the loop writes, it writes no more than one turn may")
  func turnIsOne() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    harness.gateway.output.bytesPerTurn = 0
    let queue = try client.declare("q")
    for _ in 1...3 { try client.publishAndWait([body(61)], to: queue) }
    try client.subscribe(1, to: queue, credit: 10)
    harness.gateway.output.bytesPerTurn = 1
    harness.turn()
    let known = try #require(clients(of: harness).first)
    #expect(known.outbox.count == 2)
    harness.gateway.pumpDeliveries(
      records: &harness.records, replica: &harness.replica, now: harness.now)
    #expect(known.outbox.count == 2)
    harness.turn()
    #expect(known.outbox.count == 1)
  }

  @Test("Who reads at once makes room for the next in the same turn")
  func readersMakeRoom() throws {
    let harness = try GatewayHarness.leading { $0.limits.clientWriteBytes = 64 << 10 }
    harness.gateway.output.bytesMax = 64 << 10
    harness.gateway.output.bytesPerTurn = 0
    for number in 1...2 as ClosedRange<UInt64> {
      let client = try harness.client(producer: number)
      let queue = try client.declare("q\(number)")
      try client.publishAndWait([body(40)], to: queue)
      try client.subscribe(1, to: queue, credit: 10)
    }
    harness.gateway.output.bytesPerTurn = 1 << 20
    let waiting = clients(of: harness).map(\.outbox.count)
    #expect(waiting == [1, 1])
    harness.turn()
    let left = clients(of: harness).map(\.outbox.count)
    #expect(left == [0, 0])
  }

  @Test("What is to be looked up again is, also if its client has much to read meanwhile")
  func retryOfFullClient() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    try client.publishAndWait([body(1)], to: queue)
    harness.lookUp = { _, _ in .damaged }
    try client.subscribe(1, to: queue, credit: 1)
    let retry = harness.now + ClientGatewayLimits.deliverRetry
    #expect(harness.gateway.deliverRetry == retry)
    client.reads = false
    let known = try #require(clients(of: harness).first)
    let isTaken = known.connection.append([UInt8](repeating: 0, count: 20 << 20))
    #expect(isTaken)
    harness.turn()
    #expect(harness.gateway.deliverRetry == retry)
    // Nor is it forgotten where nothing is written at all.
    harness.gateway.output.bytesPerTurn = 0
    harness.turn()
    #expect(harness.gateway.deliverRetry == retry)
  }

  @Test("What one turn may write goes round, and nobody is left out")
  func writingIsShared() throws {
    let harness = try GatewayHarness.leading()
    let clients = try (1...3).map { try harness.client(producer: $0) }
    harness.gateway.output.bytesPerTurn = 0
    for (number, client) in clients.enumerated() {
      let queue = try client.declare("q\(number)")
      // Each fills a frame.
      for _ in 1...4 { try client.publishAndWait([body(61)], to: queue) }
      try client.subscribe(1, to: queue, credit: 10)
    }
    harness.gateway.output.bytesPerTurn = 1
    var left = self.clients(of: harness).map(\.outbox.count)
    #expect(left == [4, 4, 4])
    var served: [Int] = []
    for _ in 1...12 {
      #expect(harness.gateway.nextDeadline == MonotonicTime(0))
      harness.turn()
      let now = self.clients(of: harness).map(\.outbox.count)
      served += now.indices.filter { now[$0] < left[$0] }
      left = now
    }
    #expect(served == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2])
    try harness.run(until: "read") { clients.allSatisfy { $0.deliveries.count == 4 } }
  }

  @Test("Who has read all that it was written is written more at once, not at the next event")
  func roomIsUsedAtOnce() throws {
    let harness = try GatewayHarness.leading { $0.limits.clientWriteBytes = 64 << 10 }
    let client = try harness.client()
    let queue = try client.declare("q")
    for _ in 1...3 { try client.publishAndWait([body(40)], to: queue) }
    harness.gateway.output.bytesPerTurn = 0
    try client.subscribe(1, to: queue, credit: 10)
    harness.gateway.output.bytesPerTurn = 1 << 20
    harness.turn()
    let known = try #require(clients(of: harness).first)
    #expect(known.outbox.count == 2 && known.connection.pendingBytes == 0)
    #expect(harness.gateway.nextDeadline == MonotonicTime(0))
  }

  // MARK: AMQP

  /// A message of so many bytes, in frames.
  private func publishLarge(
    _ size: Int, to exchange: String = "", key: String, _ client: AMQPTestClient
  ) throws {
    var bytes =
      client.method(1, 60, 40, [0, 0] + client.short(exchange) + client.short(key) + [0])
      + client.frame(2, 1, [0, 60, 0, 0] + client.big(UInt64(size), 8) + [0, 0])
    for start in stride(from: 0, to: size, by: 100_000) {
      let count = min(100_000, size - start)
      bytes += client.frame(3, 1, [UInt8](repeating: 0x78, count: count))
    }
    #expect(try client.writeSome(bytes) == bytes.count)
  }

  @Test("A large message to many AMQP consumers that do not read is kept for few of them (G13)")
  func fanOutIsBounded() throws {
    let harness = try AMQPHarness()
    harness.gateway.output.bytesMax = 2 << 20
    let publisher = try harness.client()
    try publisher.declareExchange("all", "fanout")
    var deaf: [AMQPTestClient] = []
    for number in 0..<6 {
      let client = try harness.client()
      _ = try client.declare("q\(number)")
      try client.bind("q\(number)", to: "all", key: "")
      try client.consume("q\(number)", prefetch: 10)
      deaf.append(client)
    }
    try publisher.selectConfirms()
    try publishLarge(20 << 20, to: "all", key: "", publisher)
    try publisher.awaitConfirms(through: 1)
    harness.settle()
    #expect(harness.gateway.output.bytes >= 2 << 20 && harness.gateway.output.bytes < 23 << 20)
    let reader = try harness.client()
    _ = try reader.declare("q")
    try publisher.publish("hello", key: "q")
    try publisher.awaitConfirms(through: 2)
    try reader.consume("q", prefetch: 10)
    #expect(try reader.takeMessages(1).map(\.body) == ["hello"])
    // What does not fit into its share, a get's too, waits.
    try publishLarge(1 << 20, key: "q", publisher)
    try publisher.awaitConfirms(through: 3)
    let getter = try harness.client()
    _ = try getter.declare("g")
    try publishLarge(1 << 20, key: "g", publisher)
    try publisher.awaitConfirms(through: 4)
    try getter.call(1, 60, 70, [0, 0] + getter.short("g") + [1])
    harness.settle()
    let waiting = harness.gateway.clients.sortedKeys.suffix(2)
      .compactMap { harness.gateway.clients[$0]?.unwrittenCount }
    #expect(waiting == [1, 1])
    // Each time a few are closed, and what they had goes to others that do not read, at most.
    for _ in 0..<8 { harness.pass(ClientGatewayLimits.outputPatience) }
    #expect(try reader.takeMessages(1).map(\.body.utf8.count) == [1 << 20])
    #expect(try getter.takeMessages(1).map(\.body.utf8.count) == [1 << 20])
    #expect(harness.gateway.output.bytes < 23 << 20)
    #expect(harness.gateway.connectionCount < 9)
    withExtendedLifetime(deaf) {}
  }

  @Test("An AMQP client that reads at once makes room for the next in the same turn")
  func amqpReadersMakeRoom() throws {
    let harness = try AMQPHarness { $0.limits.clientWriteBytes = 64 << 10 }
    harness.gateway.output.bytesMax = 64 << 10
    harness.gateway.output.bytesPerTurn = 0
    let clients = try (1...2).map { number in
      let client = try harness.client()
      _ = try client.declare("q\(number)")
      try client.selectConfirms()
      try publishLarge(40 << 10, key: "q\(number)", client)
      try client.awaitConfirms(through: 1)
      try client.consume("q\(number)", prefetch: 1)
      return client
    }
    harness.settle()
    harness.gateway.output.bytesPerTurn = 1 << 20
    #expect(harness.gateway.delivering.map(\.outbox.count) == [1, 1])
    harness.turn()
    #expect(harness.gateway.delivering.isEmpty)
    withExtendedLifetime(clients) {}
  }

  @Test("What an AMQP client is to have looked up again is, also if it has much to read meanwhile")
  func amqpRetryOfFullClient() throws {
    for isGet in [false, true] {
      let harness = try AMQPHarness()
      let client = try publish(["q"], 1, harness)
      harness.records = RecordSource { _, _ in .damaged }
      if isGet {
        try client.call(1, 60, 70, [0, 0] + client.short("q") + [1])
      } else {
        try client.consume("q", prefetch: 1)
      }
      harness.settle()
      let retry = harness.now + ClientGatewayLimits.deliverRetry
      #expect(harness.gateway.deliverRetry == retry)
      let isTaken = try harness.known().connection.append([UInt8](repeating: 0, count: 20 << 20))
      #expect(isTaken)
      harness.turn()
      #expect(harness.gateway.deliverRetry == retry)
      harness.gateway.output.bytesPerTurn = 0
      harness.turn()
      #expect(harness.gateway.deliverRetry == retry)
    }
  }

  /// Where the records are that deliveries ask for, as the test says.
  private func publish(
    _ queues: [String], _ count: Int, _ harness: AMQPHarness
  ) throws -> AMQPTestClient {
    let publisher = try harness.client()
    try publisher.selectConfirms()
    var tag: UInt64 = 0
    for queue in queues {
      _ = try publisher.declare(queue)
      for number in 0..<count {
        // Each in an entry of its own.
        try publisher.publish("\(number)", key: queue)
        tag += 1
        try publisher.awaitConfirms(through: tag)
      }
    }
    return publisher
  }

  @Test("What an AMQP consumer cannot be given now is not looked for in every turn (G11)")
  func damagedDeliveriesCostLittle() throws {
    let harness = try AMQPHarness()
    let publisher = try publish(["q"], 1, harness)
    var cached = RecordSource(store: nil)
    var looks = 0
    var isDamaged = true
    harness.records = RecordSource { reference, cache in
      looks += 1
      return isDamaged ? .damaged : cached.record(reference, cache: cache)
    }
    let client = try harness.client()
    try client.consume("q", prefetch: 1)
    harness.settle()
    #expect(looks == 1)
    for _ in 0..<50 { harness.turn() }
    #expect(looks == 1)
    #expect(harness.gateway.nextDeadline > harness.now)
    #expect(harness.gateway.deliverRetry == harness.now + ClientGatewayLimits.deliverRetry)
    harness.pass(ClientGatewayLimits.deliverRetry)
    #expect(looks == 2)
    isDamaged = false
    harness.pass(ClientGatewayLimits.deliverRetry)
    #expect(try client.takeMessages(1).map(\.body) == ["0"])
    #expect(harness.gateway.deliverRetry == .never)
    withExtendedLifetime(publisher) {}
  }

  @Test("A get of what is damaged is not looked up in every turn, and keeps no other waiting")
  func damagedGetsCostLittle() throws {
    let harness = try AMQPHarness()
    let publisher = try publish(["a", "b"], 1, harness)
    let damaged = try #require(
      harness.replica.machine.peek(try harness.queue("a").id, limit: 1).first)
    var cached = RecordSource(store: nil)
    var looks = 0
    var isDamaged = true
    harness.records = RecordSource { reference, cache in
      guard isDamaged, reference.entry == damaged.reference.entry else {
        return cached.record(reference, cache: cache)
      }
      looks += 1
      return .damaged
    }
    let client = try harness.client()
    try client.call(1, 60, 70, [0, 0] + client.short("a") + [1])
    harness.settle()
    #expect(looks == 1)
    for _ in 0..<50 { harness.turn() }
    #expect(looks == 1)
    #expect(harness.gateway.deliverRetry == harness.now + ClientGatewayLimits.deliverRetry)
    // On another channel of the same connection.
    try client.openChannel(2)
    #expect(try client.get("b", noAck: true)?.body == "0")
    #expect(looks == 1)
    harness.pass(ClientGatewayLimits.deliverRetry)
    #expect(looks == 2)
    isDamaged = false
    harness.pass(ClientGatewayLimits.deliverRetry)
    #expect(try client.takeMessages(1).map(\.body) == ["0"])
    #expect(harness.gateway.deliverRetry == .never)
    withExtendedLifetime(publisher) {}
  }

  @Test("Gets of one client that must be read from the disk keep nobody else waiting")
  func getsTakeTurns() throws {
    let harness = try AMQPHarness()
    let publisher = try publish(["a", "b", "c"], 20, harness)
    harness.gateway.readTurns.limit = 1
    var cached = RecordSource(store: nil)
    var left = 0
    harness.records = RecordSource { reference, cache in
      if left == 0 { return .later }
      left -= 1
      return cached.record(reference, cache: cache)
    }
    let greedy = try harness.client()
    for channel in 2...16 as ClosedRange<UInt16> { try greedy.openChannel(channel) }
    for channel in 1...16 as ClosedRange<UInt16> {
      try greedy.call(channel, 60, 70, [0, 0] + greedy.short("a") + [1])
    }
    let modest = try harness.client()
    let consumer = try harness.client()
    try modest.call(1, 60, 70, [0, 0] + modest.short("b") + [1])
    try consumer.consume("c", prefetch: 20)
    harness.settle()
    let known = harness.gateway.clients.sortedKeys.suffix(3)
      .compactMap { harness.gateway.clients[$0] }
    let waiting = known.map(\.unwrittenCount)
    #expect(waiting == [16, 1, 20])
    for _ in 0..<9 {
      left = 1
      harness.turn()
    }
    // Each read as much as the others, as long as it had something to read.
    #expect(known.map(\.unwrittenCount) == [12, 0, 16])
    withExtendedLifetime(publisher) {}
  }

  @Test("A client that has much to read gets the answers to its gets as it reads")
  func getsWaitForRoom() throws {
    let harness = try AMQPHarness { $0.limits.clientWriteBytes = 1 << 20 }
    let publisher = try harness.client()
    _ = try publisher.declare("q")
    try publisher.selectConfirms()
    for number in 1...3 as ClosedRange<UInt64> {
      try publishLarge(12 << 17, key: "q", publisher)
      try publisher.awaitConfirms(through: number)
    }
    let client = try harness.client()
    for channel in 2...3 as ClosedRange<UInt16> { try client.openChannel(channel) }
    for channel in 1...3 as ClosedRange<UInt16> {
      try client.call(channel, 60, 70, [0, 0] + client.short("q") + [1])
    }
    harness.settle()
    #expect(harness.gateway.connectionCount == 2)
    #expect(try client.takeMessages(3).allSatisfy { $0.body.utf8.count == 12 << 17 })
  }
}
