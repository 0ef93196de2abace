// What the AMQP gateway remembers of its clients and for how long, and what comes of requests that had to
// wait: seen from inside, with time moved by hand.

@testable import AMQP
import Base
import QueueMachine
import TestSupport
import Testing

@testable import Server

@Suite(.serialized, .ownThreads) struct AMQPGatewayTests {
  // MARK: Gets

  @Test("Who takes by basic.get is remembered while something is held, and no longer")
  func takersAreForgotten() throws {
    let harness = try AMQPHarness()
    let client = try harness.client()
    let known = try harness.known()
    for number in 0..<20 {
      let queue = "q\(number)"
      _ = try client.declare(queue)
      #expect(try client.get(queue) == nil)
      #expect(known.takers.count == 0)
      for _ in 0..<3 { try client.publish("x", key: queue) }
      _ = try client.get(queue, noAck: true)
      #expect(known.takers.count == 0)
      let first = try #require(try client.get(queue))
      let second = try #require(try client.get(queue))
      try client.ack(first.tag)
      harness.settle()
      #expect(known.takers.count == 1)
      if number % 2 == 0 {
        try client.ack(second.tag)
        harness.settle()
        #expect(known.takers.count == 0)
      }
      // What is held of a queue that goes is gone with it.
      try client.delete(queue)
      #expect(known.takers.count == 0)
      if number % 2 == 1 { try client.ack(second.tag) }
    }
    // A transaction's settles count when they are committed.
    _ = try client.declare("q")
    for _ in 0..<2 { try client.publish("x", key: "q") }
    try client.openChannel(2)
    try client.selectTransactions()
    let taken = try #require(try client.get("q"))
    try client.ack(taken.tag)
    try client.rollBack()
    #expect(known.takers.count == 1)
    try client.ack(taken.tag)
    try client.commit()
    #expect(known.takers.count == 0)
    // One that fails leaves what it has settled to go back with its channel.
    try client.publish("x", key: "q")
    try client.commit()
    let held = try #require(try client.get("q"))
    try client.ack(held.tag)
    try client.publish("lost", to: "missing", key: "")
    try client.call(2, 90, 20, [])
    _ = try client.expect(20, 40)
    try client.call(2, 20, 41, [])
    harness.settle()
    #expect(known.takers.count == 0)
    #expect(try harness.queue("q").ready == 2)
    try client.openChannel(2)
    #expect(try client.get("q", noAck: true) != nil)
    // Closing the channel gives back what is held.
    _ = try client.get("q")
    try client.call(2, 20, 40, [0, 200, 0, 0, 0, 0, 0])
    _ = try client.expect(20, 41)
    #expect(known.takers.count == 0)
    #expect(try harness.queue("q").ready == 1)
    #expect(known.awaited.isEmpty)
  }

  @Test("A get that is under way outlives its queue: there may be another of that name by then")
  func takersOutliveTheirQueue() {
    var takers = AMQPTakers()
    let channel = ChannelID(opening: 1, number: 1)
    let taker = takers.ask("q", of: channel)
    takers.answered(taker, holds: true)
    #expect(takers.ask("q", of: channel) == taker)
    takers.queueIsGone(taker)
    #expect(takers[taker]?.held == 0 && takers[taker]?.isAsking == true)
    takers.answered(taker, holds: true)
    #expect(takers[taker]?.held == 1)
    takers.queueIsGone(taker)
    #expect(takers.count == 0)
  }

  @Test("The numbers of takers begin anew, and leave out those that are in use")
  func takersNumbersBeginAnew() {
    var takers = AMQPTakers(behind: .max - 2)
    let channel = ChannelID(opening: 1, number: 1)
    var numbers: [UInt32] = []
    for queue in ["a", "b", "c"] {
      let taker = takers.ask(queue, of: channel)
      takers.answered(taker, holds: queue != "b")
      numbers.append(taker.rawValue)
    }
    #expect(numbers == [.max - 1, .max, AMQPTakers.first])
    #expect(takers.count == 2)
    #expect(takers.ask("c", of: channel).rawValue == AMQPTakers.first)
    var others = AMQPTakers(behind: .max)
    for queue in ["a", "b"] { others.answered(others.ask(queue, of: channel), holds: true) }
    others.settled([
      SettleRequest(
        channel: channel, outcome: .acknowledged, consumer: ConsumerID(AMQPTakers.first),
        first: DeliveryID(1), last: DeliveryID(1))
    ])
    #expect(others.count == 1 && others[ConsumerID(AMQPTakers.first + 1)]?.queue == "b")
    #expect(others.removeAll(of: channel) == [ConsumerID(AMQPTakers.first + 1)])
    #expect(others.count == 0)
  }

  // MARK: Leases

  enum Taking: CaseIterable {
    case consumer, cancelledConsumer, get
  }

  @Test("A lease that ends closes its channel with 406, whoever took", arguments: Taking.allCases)
  func leaseEnds(_ taking: Taking) throws {
    let harness = try AMQPHarness()
    let client = try harness.client()
    _ = try client.declare("q", arguments: [("x-lease", 100)])
    try client.publish("x", key: "q")
    switch taking {
    case .consumer:
      try client.consume("q")
      _ = try client.takeMessages(1)
    case .cancelledConsumer:
      let tag = try client.consume("q")
      _ = try client.takeMessages(1)
      try client.cancel(tag)
    case .get: _ = try #require(try client.get("q"))
    }
    harness.pass(.milliseconds(90))
    #expect(try client.declare("q", flags: 1) == 0)
    harness.pass(.milliseconds(20))
    let close = try client.expect(20, 40)
    #expect(close.number(at: 0, bytes: 2) == 406)
    #expect(
      close.shortText(at: 2)
        == "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out: the lease of the"
        + " queue's messages ran out")
    try client.call(1, 20, 41, [])
    try client.openChannel(1)
    let again = try #require(try client.get("q"))
    #expect(again.isRedelivered)
    try client.ack(again.tag)
    #expect(try client.get("q") == nil)
    let known = try harness.known()
    #expect(known.cancelled.isEmpty && known.consumers.isEmpty && known.takers.count == 0)
  }

  // MARK: While nothing can be published

  @Test("What stands behind a publish that must wait is done when it is, also a close")
  func publisherCloses() throws {
    let harness = try AMQPHarness()
    let client = try harness.client()
    _ = try client.declare("q")
    harness.setBlocked("no space")
    try client.publish("x", key: "q")
    try client.call(0, 10, 50, [0, 200, 0, 0, 0, 0, 0])
    harness.settle()
    #expect(client.methods(10, 51) == 0)
    // Longer than a close may take.
    harness.pass(.seconds(60))
    #expect(try harness.queue("q").ready == 0)
    harness.setBlocked(nil)
    _ = try client.expect(10, 51)
    #expect(try harness.queue("q").ready == 1)
  }

  @Test("A channel goes on behind a publish that had to wait")
  func channelGoesOn() throws {
    let harness = try AMQPHarness()
    let client = try harness.client()
    _ = try client.declare("q")
    try client.selectConfirms()
    harness.setBlocked("no space")
    try client.publish("1", key: "q")
    try client.call(1, 50, 10, [0, 0] + client.short("q") + [2, 0, 0, 0, 0])
    try client.publish("2", key: "q")
    harness.settle()
    harness.setBlocked(nil)
    #expect(try client.expect(50, 11).number(at: 2, bytes: 4) == 1)
    try client.awaitConfirms(through: 2)
    #expect(try harness.queue("q").ready == 2)
  }

  @Test("What waits behind a publish is not done for a channel that is closed meanwhile")
  func channelIsClosedMeanwhile() throws {
    let harness = try AMQPHarness()
    let client = try harness.client()
    for queue in ["q", "other"] { _ = try client.declare(queue) }
    _ = try client.declare("leased", arguments: [("x-lease", 100)])
    // Who has published before is not read from at all.
    let other = try harness.client()
    for _ in 0..<2 { try other.publish("x", key: "leased") }
    #expect(try other.declare("leased", flags: 1) == 2)
    _ = try #require(try client.get("leased"))
    try client.openChannel(2)
    try client.selectTransactions()
    _ = try #require(try client.get("leased"))
    harness.setBlocked("no space")
    try client.publish("in a transaction", key: "q")
    try client.call(2, 90, 20, [])
    try client.call(
      1, 60, 20, [0, 0] + client.short("q") + client.short("") + [0, 0, 0, 0, 0])
    harness.settle()
    harness.pass(.milliseconds(200))
    for _ in 0..<2 { _ = try client.expect(20, 40) }
    harness.setBlocked(nil)
    harness.settle()
    #expect(try harness.queue("q").ready == 0)
    #expect(try harness.queue("q").consumers == 0)
    for number: UInt16 in [1, 2] {
      try client.call(number, 20, 41, [])
      try client.openChannel(number)
    }
    #expect(try client.declare("q") == 0)
  }

  // MARK: What is begun

  private let tooMuch =
    "closed: 506 RESOURCE_ERROR - content begun and transactions of all connections are larger than"
    + " 65536 bytes"

  /// What a client that is closed for what it has begun is told; empty if it is not.
  private func closes(_ client: AMQPTestClient, declaring queue: String = "q") throws -> String {
    do {
      _ = try client.declare(queue)
      return ""
    } catch let failure as AMQPTestClient.Failure {
      return failure.description
    }
  }

  @Test("Whoever has begun most is closed when all have begun too much; the others go on")
  func begunContentIsBounded() throws {
    let harness = try AMQPHarness()
    harness.gateway.begunBytesMax = 64 << 10
    let honest = try harness.client()
    _ = try honest.declare("q")
    try honest.selectConfirms()
    let small = try harness.client()
    try small.beginPublish(of: 40_000, sending: 20_000, key: "q")
    let large = try harness.client()
    for number: UInt16 in 2...5 {
      try large.openChannel(number)
      try large.beginPublish(of: 1 << 20, sending: 10_000, key: "q")
    }
    large.channel = 1
    #expect(try closes(large) == "")
    #expect((60_000..<61_000).contains(harness.gateway.begunBytes))
    // The one that goes above it is not the one that has most.
    try small.goOnPublishing(10_000)
    harness.settle()
    #expect(try closes(large) == tooMuch)
    #expect((30_000..<30_100).contains(harness.gateway.begunBytes))
    for number in 1...50 {
      try honest.publish(String(repeating: "x", count: 5_000), key: "q")
      try honest.awaitConfirms(through: UInt64(number))
    }
    try small.goOnPublishing(10_000)
    #expect(try small.declare("q") == 51)
    #expect(harness.gateway.begunBytes == 0)
  }

  @Test("Transactions, and publishes that wait until publishes are taken, are begun as well")
  func begunTransactionsAreBounded() throws {
    let harness = try AMQPHarness()
    harness.gateway.begunBytesMax = 64 << 10
    let client = try harness.client()
    _ = try client.declare("q")
    try client.selectTransactions()
    let body = String(repeating: "x", count: 30_000)
    for _ in 0..<2 { try client.publish(body, key: "q") }
    try client.commit()
    #expect(harness.gateway.begunBytes == 0)
    for _ in 0..<2 { try client.publish(body, key: "q") }
    #expect(try client.declare("q") == 2)
    #expect(harness.gateway.begunBytes > 60_000)
    try client.publish(body, key: "q")
    #expect(try closes(client) == tooMuch)
    #expect(harness.gateway.begunBytes == 0)
    harness.setBlocked("no space")
    let waiting = try (0..<3).map { _ in try harness.client() }
    for client in waiting {
      try client.publish(body, key: "q")
      harness.settle()
    }
    // Of equals it is the one that came first.
    #expect(try closes(waiting[0]) == tooMuch)
    #expect(harness.gateway.begunBytes > 60_000)
    harness.setBlocked(nil)
    #expect(try waiting[2].declare("q") == 4)
    #expect(harness.gateway.begunBytes == 0)
    // What a lost connection had begun is gone.
    var lost: AMQPTestClient? = try harness.client()
    try lost?.beginPublish(of: 40_000, sending: 20_000, key: "q")
    harness.settle()
    #expect(harness.gateway.begunBytes > 20_000)
    lost = nil
    harness.settle()
    #expect(harness.gateway.begunBytes == 0)
  }

  // MARK: Limits over channels

  /// Takes messages one by one, as they come, and acknowledges each.
  private func work(off count: Int, _ client: AMQPTestClient) throws -> [String] {
    try (0..<count).map { _ in
      let message = try #require(try client.takeMessages(1).first)
      #expect(!message.isRedelivered)
      try client.ack(message.tag)
      return message.body
    }
  }

  @Test("Under a channel's limit a message costs a few orders, however many consumers there are")
  func limitIsCheap() throws {
    let harness = try AMQPHarness()
    let publisher = try harness.client()
    let client = try harness.client()
    let queues = (0..<100).map { "q\($0)" }
    for queue in queues { _ = try publisher.declare(queue) }
    try client.limitChannel(to: 4)
    for queue in queues { try client.consume(queue) }
    harness.settle()
    // Some are busy: the others are asked for nothing.
    var before = harness.gateway.counters.creditsTold
    for number in 0..<90 { try publisher.publish("\(number)", key: queues[number % 3]) }
    let first = try work(off: 90, client)
    for queue in 0..<3 {
      let numbers = first.compactMap { Int($0) }.filter { $0 % 3 == queue }
      #expect(numbers == numbers.sorted() && numbers.count == 30)
    }
    #expect(harness.gateway.counters.creditsTold - before <= 4 * 90)
    // All are.
    before = harness.gateway.counters.creditsTold
    for number in 0..<2 { for queue in queues { try publisher.publish("\(number)", key: queue) } }
    #expect(Set(try work(off: 200, client)) == ["0", "1"])
    #expect(harness.gateway.counters.creditsTold - before <= 4 * 200 + 2 * 100)
    // The limit held all the time, and holds.
    for queue in queues { try publisher.publish("last", key: queue) }
    let held = try client.takeMessages(4)
    harness.settle()
    _ = try publisher.declare(queues[0])
    #expect(try client.declare(queues[0]) <= 1 && client.messages.isEmpty)
    for message in held { try client.ack(message.tag) }
    #expect(try work(off: 96, client).count == 96)
    for queue in queues { #expect(try harness.queue(queue).ready == 0) }
  }

  @Test(
    "Consumers come, go and change under a channel's limit, and all messages come",
    arguments: 1...4 as ClosedRange<UInt64>)
  func limitWithChanges(seed: UInt64) throws {
    let harness = try AMQPHarness()
    var random = SeededRandom(seed: seed)
    let publisher = try harness.client()
    let client = try harness.client()
    let queues = (0..<5).map { "q\($0)" }
    for queue in queues { _ = try publisher.declare(queue) }
    var tags: [String] = []
    var held: [AMQPTestClient.Message] = []
    var limit = 3
    var isOver = 0
    var published = 0
    var settled = 0
    try client.limitChannel(to: 3)
    for step in 0..<400 {
      switch random.next() % 10 {
      case 0, 1, 2:
        try publisher.publish("\(step)", key: queues[Int(random.next() % 5)])
        published += 1
      case 3:
        if tags.count < 8 { tags.append(try client.consume(queues[Int(random.next() % 5)])) }
      case 4:
        if !tags.isEmpty {
          try client.cancel(tags.remove(at: Int(random.next() % UInt64(tags.count))))
        }
      case 5:
        limit = 1 + Int(random.next() % 4)
        try client.limitChannel(to: UInt16(limit))
      default:
        if held.isEmpty { break }
        try client.ack(held.remove(at: Int(random.next() % UInt64(held.count))).tag)
        settled += 1
      }
      harness.settle()
      if !client.messages.isEmpty { held += try client.takeMessages(client.messages.count) }
      _ = try client.declare(queues[0])
      if !client.messages.isEmpty { held += try client.takeMessages(client.messages.count) }
      if held.count > limit { isOver += 1 }
    }
    // More than the limit is held only where it was lowered below what was held.
    #expect(isOver < 100)
    for queue in queues { try client.consume(queue) }
    for message in held { try client.ack(message.tag) }
    settled += held.count
    for _ in 0..<1_000 where settled < published {
      _ = try client.declare(queues[0])
      let taken = try client.takeMessages(client.messages.count)
      for message in taken { try client.ack(message.tag) }
      settled += taken.count
    }
    #expect(settled == published)
    harness.settle()
    for queue in queues { #expect(try harness.queue(queue).ready == 0) }
    let known = try #require(
      harness.gateway.clients.sortedKeys.compactMap { harness.gateway.clients[$0] }.last)
    #expect(known.creditGiven == known.consumers.values.reduce(0) { $0 + Int($1.credit) })
    #expect(known.consumers.values.allSatisfy { $0.sent == 0 && $0.lowerings == 0 })
    #expect(
      known.channelLimits.values.allSatisfy { $0.sent == 0 && $0.unsent == 0 && $0.raising == 0 })
  }

  // MARK: What costs nothing

  @Test("What is declared again unchanged is answered without an entry of the log")
  func redeclarationIsNoEntry() throws {
    let harness = try AMQPHarness()
    let client = try harness.client()
    func declare() throws {
      _ = try client.declare("q", arguments: [("x-message-ttl", 60_000)])
      _ = try client.declare("q", flags: 1)
      try client.call(
        1, 40, 10,
        [0, 0] + client.short("x") + client.short("topic") + [2, 0, 0, 0, 0])
      _ = try client.expect(40, 11)
      try client.bind("q", to: "x", key: "a.#")
    }
    try declare()
    let applied = harness.applied
    for _ in 0..<20 { try declare() }
    #expect(harness.applied == applied)
    _ = try client.declare("another")
    #expect(harness.applied > applied)
  }

  // MARK: Clients that are silent, too fast, or mad

  @Test(
    "A client that is silent for two and a half intervals is gone; one that is not read from is not"
  )
  func silentClient() throws {
    let harness = try AMQPHarness()
    let client = try harness.connect()
    try client.open(heartbeat: 4)
    _ = try client.declare("q")
    _ = try client.declare("mine", flags: 4)
    try client.publish("x", key: "q")
    _ = try #require(try client.get("q"))
    for _ in 0..<4 { harness.pass(.seconds(2)) }
    _ = try client.declare("q")
    // Not for the half of an interval in which something else was sent.
    #expect(client.heartbeats == 3)
    for _ in 0..<9 { harness.pass(.seconds(1)) }
    #expect(harness.sessionCount == 1)
    for _ in 0..<2 { harness.pass(.seconds(1)) }
    #expect(harness.sessionCount == 0)
    let other = try harness.connect()
    try other.open(heartbeat: 4)
    #expect(try other.get("q")?.isRedelivered == true)
    // Silence of one that publishes, while nothing can be published, is not its own.
    try other.publish("y", key: "q")
    #expect(try other.declare("q") == 1)
    harness.setBlocked("no space")
    for _ in 0..<30 { harness.pass(.seconds(2)) }
    harness.setBlocked(nil)
    #expect(try other.declare("q") == 1)
    #expect(try closes { _ = try other.declare("mine", flags: 1) }.contains("404 NOT_FOUND"))
  }

  private func closes(_ body: () throws -> Void) throws -> String {
    do {
      try body()
      return ""
    } catch let failure as AMQPTestClient.Failure {
      return failure.description
    }
  }

  @Test("A publisher that is faster than the cluster is told after a second, and when it may go on")
  func tooFastPublisher() throws {
    let harness = try AMQPHarness()
    let client = try harness.client()
    let other = try harness.client()
    _ = try client.declare("q")
    try client.selectConfirms()
    let known = harness.gateway.clients.sortedKeys.compactMap { harness.gateway.clients[$0] }
    harness.holdsCommands = true
    // A little more than its share.
    let count = AMQPGateway.shareBytes / 100_000 + 2
    for _ in 0..<count {
      try client.publish(String(repeating: "x", count: 100_000), key: "q")
      harness.turn()
    }
    harness.settle()
    #expect(known[0].isPaused && !known[1].isPaused)
    #expect(known[0].waitingBytes < AMQPGateway.shareBytes + (1 << 20))
    harness.pass(.milliseconds(900))
    harness.pass(.milliseconds(200))
    #expect(try !client.awaitConfirmUnlessBlocked(1))
    harness.holdsCommands = false
    try client.awaitUnblocked()
    try client.awaitConfirms(through: UInt64(count))
    #expect(try other.declare("q") == UInt64(count))
    #expect(!other.isBlocked && known[0].waitingBytes == 0)
  }

  @Test("Whatever a client sends and wherever it breaks off, nothing of it stays", arguments: 1...4)
  func madClients(seed: Int) throws {
    let harness = try AMQPHarness()
    var random = SeededRandom(seed: UInt64(seed))
    for _ in 0..<40 {
      let client = try harness.connect()
      try client.open()
      var bytes = work(of: client)
      for _ in 0..<random.next() % 4 {
        bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(truncatingIfNeeded: random.next())
      }
      let end = random.next() % 3 == 0 ? bytes.count : Int(random.next() % UInt64(bytes.count))
      try client.writeSome(Array(bytes[..<end]))
      for _ in 0..<random.next() % 4 { harness.turn() }
    }
    harness.settle()
    harness.pass(.seconds(20))
    harness.pass(.seconds(3))
    #expect(harness.isEmpty, "seed \(seed): swift test --filter madClients")
    let client = try harness.client()
    #expect(try client.declare("afterwards") == 0)
  }

  /// Something of everything, on two channels, without waiting for an answer.
  private func work(of client: AMQPTestClient) -> [UInt8] {
    let queue = client.short("shared")
    let none: [UInt8] = [0, 0, 0, 0]
    func publish(_ channel: UInt16, _ body: [UInt8], sending count: Int) -> [UInt8] {
      client.method(channel, 60, 40, [0, 0] + client.short("") + queue + [0])
        + client.frame(2, channel, [0, 60, 0, 0] + client.big(UInt64(body.count), 8) + [0, 0])
        + client.frame(3, channel, Array(body.prefix(count)))
    }
    let open = client.method(2, 20, 10, [0]) + client.method(2, 90, 10, [])
    let declare =
      client.method(1, 50, 10, [0, 0] + queue + [2] + none)
      + client.method(1, 50, 10, [0, 0] + client.short("") + [4] + none)
    let consume =
      client.method(1, 60, 10, none + [0, 3, 1])
      + client.method(1, 60, 20, [0, 0] + queue + client.short("tag") + [0] + none)
    let get = client.method(1, 60, 70, [0, 0] + queue + [0])
    let settle =
      client.method(1, 60, 120, client.big(0, 8) + [3])
      + client.method(1, 60, 30, [3] + "tag".utf8 + [0])
    let body = [UInt8](repeating: 0x78, count: 300)
    let commit = publish(2, body, sending: 300) + client.method(2, 90, 20, [])
    return open + declare + publish(1, body, sending: 300) + consume + commit + get + settle
      + publish(2, body, sending: 300) + publish(1, body, sending: 100)
  }

  // MARK: How many there are

  @Test("A cluster has so many queues and sessions as its configuration says, also by AMQP")
  func configuredLimits() throws {
    let harness = try AMQPHarness {
      $0.limits.queues = 2
      $0.limits.sessions = 2
    }
    let client = try harness.client()
    for queue in ["a", "b", "a"] { _ = try client.declare(queue) }
    let other = try harness.client()
    #expect(try other.declare("b") == 0)
    let refused = try closes(other, declaring: "c")
    #expect(
      refused
        == "closed: 406 PRECONDITION_FAILED - cannot declare queue 'c' in vhost '/': queue limit"
        + " in cluster (2) is reached")
    let late = try harness.connect()
    #expect(
      throws: AMQPTestClient.Failure(
        description:
          "closed: 530 NOT_ALLOWED - access to vhost '/' refused for user 'guest': session"
          + " limit (2) is reached")
    ) { try late.open() }
    // There is room again.
    try client.delete("a")
    _ = try client.declare("c")
    other.vanish(byReset: false)
    harness.settle()
    _ = try harness.client()
  }

  @Test("Ten thousand connections that come and are dropped, however far they got, leave nothing")
  func droppedConnections() throws {
    let harness = try AMQPHarness()
    let staying = try harness.client()
    _ = try staying.declare("q")
    let header = [UInt8]("AMQP".utf8) + [0, 0, 9, 1]
    let starts: [[UInt8]] = [
      [], Array(header.prefix(3)), header, [UInt8]("GET / HTTP/1.1\r\n\r\n".utf8),
      header + staying.method(0, 10, 11, [0, 0]),
    ]
    for group in 0..<100 {
      var clients: [AMQPTestClient] = []
      for number in 0..<100 {
        let client = try harness.connect()
        // Some work, and hold a message and a queue of their own.
        if number % 50 == 0 {
          try client.open()
          _ = try client.declare("own-\(group)-\(number)", flags: 0b100)
          try client.publish("x", key: "q")
          _ = try client.get("q")
        } else {
          try client.writeSome(starts[number % starts.count])
        }
        if number % 3 == 0 { harness.turn() }
        client.vanish(byReset: number % 2 == 0)
        clients.append(client)
      }
      clients.removeAll()
      harness.settle()
    }
    harness.pass(.seconds(60))
    let known = harness.gateway.connectionCount
    #expect(known == 1 && harness.sessionCount == 1)
    #expect(harness.gateway.counters.accepted == 10_001)
    #expect(try harness.openSockets() == 1)
    #expect(harness.replica.machine.queueCount == 1)
    // What they held is there again.
    #expect(try staying.declare("q") == 200)
    staying.vanish(byReset: false)
    harness.settle()
    #expect(harness.isEmpty)
  }
}
