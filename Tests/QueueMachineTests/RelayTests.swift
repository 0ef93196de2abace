// Bundles that gateways pass on: each once, in order, whoever sends it and how often.

import Base
import Testing

@testable import QueueMachine

@Suite struct RelayTests {
  let rig = Rig()
  let node = NodeID(2)

  /// A bundle that publishes one message to "q" for each of `bodies`.
  private func bundle(
    _ sequence: UInt64, process: UInt64 = 7, into payload: inout [UInt8],
    _ body: (inout [UInt8]) -> Void = { _ in }
  ) {
    let start = CommandWriter.beginRelay(
      from: node, process: process, sequence: sequence, into: &payload)
    body(&payload)
    CommandWriter.endRelay(start, into: &payload)
  }

  private func relayed(_ seen: [Seen]) -> [UInt64] {
    seen.compactMap {
      if case .plain(.topology(.relayed(_, let through, _))) = $0 { through } else { nil }
    }
  }

  private func publish(_ session: SessionID, into payload: inout [UInt8]) {
    run([5]).withUnsafeBytes {
      CommandWriter.route(
        session, tag: rig.tag(),
        RouteOrder(exchange: TopologyName(""), keys: [[UInt8]("q".utf8)]), count: 1, run: $0,
        into: &payload)
    }
  }

  @Test func bundleIsCarriedOutOnceAndInOrder() {
    let session = AMQPSession(rig)
    session.queue("q")
    func send(_ sequences: [UInt64]) -> [UInt64] {
      relayed(
        rig.apply { payload in
          for sequence in sequences {
            bundle(sequence, into: &payload) { publish(session.id, into: &$0) }
          }
        })
    }
    #expect(send([1]) == [1])
    #expect(session.ready("q") == 1)
    // Sent again after a change of leader, with a gap, and what fills it.
    #expect(send([1, 2]) == [1, 2])
    #expect(send([4]) == [2])
    #expect(send([2, 3, 4, 4]) == [2, 3, 4, 4])
    #expect(session.ready("q") == 4)
    #expect(rig.machine.relayed(from: node, process: 7) == 4)
  }

  @Test func recordsOfBundlesLieWhereTheySay() {
    let session = AMQPSession(rig)
    session.queue("q")
    var payload: [UInt8] = []
    CommandWriter.beginBatch(stamp: MachineTime(rig.now), into: &payload)
    bundle(1, into: &payload) { payload in
      publish(session.id, into: &payload)
      publish(session.id, into: &payload)
    }
    _ = rig.apply(payload: payload)
    let delivered = session.consume("q").deliveries
    #expect(delivered.count == 2)
    for delivery in delivered {
      let start = Int(delivery.reference.offset)
      let record = [UInt8](payload[start..<start + Int(delivery.reference.size)])
      #expect(record == run([5]))
    }
  }

  @Test func newProcessEndsTheSessionsOfTheOneBefore() {
    rig.apply { bundle(1, into: &$0) }
    let session = rig.open(
      timeout: .zero, origin: SessionOrigin(node: node, connection: 1), kind: .amqp)
    let other = rig.open(
      timeout: .zero, origin: SessionOrigin(node: NodeID(3), connection: 1), kind: .amqp)
    // Not the first of its process: it comes too late or too early.
    rig.apply { bundle(2, process: 8, into: &$0) }
    #expect(rig.machine.origin(of: session) != nil)
    let seen = rig.apply { bundle(1, process: 8, into: &$0) }
    #expect(seen.contains(.plain(.sessionEnded(session, .expired))))
    #expect(rig.machine.origin(of: other) != nil)
    rig.apply { bundle(2, process: 7, into: &$0) }
    #expect(rig.machine.relayed(from: node, process: 8) == 1)
    #expect(rig.machine.relayed(from: node, process: 7) == 0)
  }

  @Test func nodeThatIsGoneLosesItsSessions() {
    let session = rig.open(
      timeout: .zero, origin: SessionOrigin(node: node, connection: 1), kind: .amqp)
    let native = rig.open(origin: SessionOrigin(node: node, connection: 2))
    rig.apply { CommandWriter.endNodeSessions(node, into: &$0) }
    #expect(rig.machine.origin(of: session) == nil)
    #expect(rig.machine.origin(of: native) != nil)
  }

  // MARK: More than an entry may store

  /// A rig whose entries store twenty messages, a bundle's ten, with "q" and three more queues behind
  /// amq.fanout.
  private func smallRig() -> (rig: Rig, session: AMQPSession, limits: MachineLimits) {
    var limits = MachineLimits()
    limits.publishesPerEntry = 20
    let rig = Rig(limits: limits)
    let session = AMQPSession(rig)
    for queue in ["q", "r", "s", "t"] {
      session.queue(queue)
      session.bind("amq.fanout", to: .queue(queue))
    }
    return (rig, session, limits)
  }

  private func route(
    _ session: SessionID, to exchange: String, key: String = "", _ bodies: [Int], tag: UInt64,
    into payload: inout [UInt8]
  ) {
    run(bodies).withUnsafeBytes {
      CommandWriter.route(
        session, tag: RequestTag(tag),
        RouteOrder(exchange: TopologyName(exchange), keys: [[UInt8](key.utf8)]),
        count: UInt32(bodies.count), run: $0, into: &payload)
    }
  }

  /// How many records of each tag are answered as stored.
  private func routed(_ seen: [Seen]) -> [UInt64: UInt32] {
    var counts: [UInt64: UInt32] = [:]
    for case .plain(.topology(.routed(_, let tag, let count))) in seen {
      counts[tag.rawValue, default: 0] += count
    }
    return counts
  }

  private func stops(_ seen: [Seen]) -> [Bool] {
    seen.compactMap {
      if case .plain(.topology(.relayed(_, _, let isStopped))) = $0 { isStopped } else { nil }
    }
  }

  @Test(arguments: [false, true]) func whatAnEntryHasNoRoomForGoesIntoTheNext(
    hasLimit: Bool
  ) throws {
    let (rig, session, limits) = smallRig()
    if hasLimit {
      session.queue("full") { $0.settings.lengthMax = 100 }
      rig.ask { CommandWriter.deleteQueue($0, tag: $1, name: "t", into: &$2) }
      session.bind("amq.fanout", to: .queue("full"))
    }
    func send() -> [Seen] {
      rig.apply { payload in
        bundle(1, into: &payload) {
          route(session.id, to: "", key: "q", [1], tag: 1, into: &$0)
          route(session.id, to: "amq.fanout", [2, 3, 4, 5, 6], tag: 2, into: &$0)
          route(session.id, to: "", key: "q", [7], tag: 3, into: &$0)
        }
        // Behind it in every way: nothing of it comes first.
        bundle(2, into: &payload) { route(session.id, to: "", key: "q", [8], tag: 4, into: &$0) }
      }
    }
    var answered: [UInt64: UInt32] = [:]
    var rounds: [[Bool]] = []
    for _ in 0..<4 {
      let seen = send()
      rounds.append(stops(seen))
      answered.merge(routed(seen)) { $0 + $1 }
      // Nobody hears of a refusal.
      #expect(
        !seen.contains { if case .plain(.topology(.routeRefused)) = $0 { true } else { false } })
      #expect(rig.machine.relayed(from: node, process: 7) == (rounds.count < 3 ? 0 : 2))
      let isDone = rounds.count >= 3
      let progress = RelayProgress(process: 7, through: isDone ? 2 : 0, isStopped: !isDone)
      #expect(rig.machine.relayProgress(of: node) == progress)
      try rig.restart(limits: limits)
    }
    #expect(rounds == [[true, false], [true, false], [false, false], [false, false]])
    #expect(answered == [1: 1, 2: 5, 3: 1, 4: 1])
    #expect(session.ready("r") == 5)
    let sizes = session.consume("q").deliveries.map { Int($0.reference.size) }
    #expect(sizes == [1, 2, 3, 4, 5, 6, 7, 8].map { run([$0]).count })
  }

  @Test func aTransactionWaitsForAnEntryWithRoom() throws {
    let (rig, session, limits) = smallRig()
    func send(_ sequence: UInt64, _ bodies: [Int], behind others: [Int]) -> [Seen] {
      rig.apply { payload in
        bundle(sequence, into: &payload) { payload in
          route(session.id, to: "", key: "q", others, tag: 1, into: &payload)
          let start = CommandWriter.beginCommit(session.id, tag: RequestTag(2), into: &payload)
          route(session.id, to: "amq.fanout", bodies, tag: 3, into: &payload)
          CommandWriter.endCommit(start, into: &payload)
        }
      }
    }
    func reply(_ seen: [Seen]) -> TopologyReply? {
      for case .plain(.reply(_, RequestTag(2), .topology(let reply))) in seen { return reply }
      return nil
    }
    let first = send(1, [1, 2], behind: [1, 1, 1])
    #expect(reply(first) == nil && stops(first) == [true])
    #expect(session.ready("q") == 3 && session.ready("r") == 0)
    try rig.restart(limits: limits)
    let second = send(1, [1, 2], behind: [1, 1, 1])
    #expect(reply(second) == .done && stops(second) == [false])
    #expect(session.ready("q") == 5 && session.ready("r") == 2)
    // One that no entry has room for is refused.
    let third = send(2, [1, 2, 3, 4, 5, 6], behind: [1])
    #expect(
      reply(third) == .failed(.other(.overloaded, detail: "the transaction is too large")))
    #expect(stops(third) == [false] && session.ready("r") == 2)
  }

  @Test func aMessageWithTooManyCopiesForAnyEntryIsRefused() {
    let (rig, session, _) = smallRig()
    for number in 0..<17 {
      session.queue("more\(number)")
      session.bind("amq.fanout", to: .queue("more\(number)"))
    }
    let seen = rig.apply { payload in
      bundle(1, into: &payload) { route(session.id, to: "amq.fanout", [1, 2], tag: 1, into: &$0) }
    }
    #expect(
      seen.first
        == .plain(
          .topology(.routeRefused(session.id, RequestTag(1), count: 2, .overloaded))))
    #expect(relayed(seen) == [1] && rig.machine.relayProgress(of: node)?.isStopped == false)
  }

  /// Whoever comes first in every entry.
  @Test func everyNodesBundlesGoOn() {
    let (rig, session, _) = smallRig()
    let other = AMQPSession(rig, connection: 2)
    for _ in 1...3 {
      let seen = rig.apply { payload in
        bundle(1, into: &payload) {
          route(session.id, to: "amq.fanout", [1, 2, 3, 4, 5, 6, 7, 8, 9], tag: 1, into: &$0)
        }
        let start = CommandWriter.beginRelay(
          from: NodeID(3), process: 7, sequence: 1, into: &payload)
        route(other.id, to: "amq.fanout", [1, 2, 3], tag: 2, into: &payload)
        CommandWriter.endRelay(start, into: &payload)
      }
      #expect(routed(seen) == [1: 2, 2: 1])
    }
    #expect(rig.machine.relayed(from: NodeID(3), process: 7) == 1)
  }

  /// Whatever two nodes publish, in however small entries, restarts and copies of bundles in between:
  /// each node's messages are in each queue as if there were no such bound.
  @Test(arguments: [UInt64](1...12)) func stoppingLosesAndOvertakesNothing(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let nodes = [NodeID(2), NodeID(3)]
    /// Bodies of one node are longer than all of the other's.
    var bodies = [1, 2_001]
    var bundles: [[[(exchange: String, isTransaction: Bool, bodies: [Int])]]] = [[], []]
    for place in 0..<nodes.count {
      for _ in 0..<6 {
        var commands: [(exchange: String, isTransaction: Bool, bodies: [Int])] = []
        for _ in 0..<Int.random(in: 1...4, using: &random) {
          let isTransaction = Int.random(in: 0..<4, using: &random) == 0
          let count = Int.random(in: 1...(isTransaction ? 4 : 12), using: &random)
          let exchange = ["", "amq.fanout", "amq.topic"].randomElement(using: &random) ?? ""
          commands.append((exchange, isTransaction, Array(bodies[place]..<bodies[place] + count)))
          bodies[place] += count
        }
        bundles[place].append(commands)
      }
    }
    func append(_ number: Int, of place: Int, _ session: SessionID, to payload: inout [UInt8]) {
      let start = CommandWriter.beginRelay(
        from: nodes[place], process: 7, sequence: UInt64(number + 1), into: &payload)
      for command in bundles[place][number] {
        let tag = RequestTag(1)
        let inner =
          command.isTransaction
          ? CommandWriter.beginCommit(session, tag: tag, into: &payload) : nil
        route(session, to: command.exchange, key: "q", command.bodies, tag: 1, into: &payload)
        if let inner { CommandWriter.endCommit(inner, into: &payload) }
      }
      CommandWriter.endRelay(start, into: &payload)
    }
    func contents(_ rig: Rig) -> [[UInt32]] {
      ["q", "r", "s", "t"].flatMap { name -> [[UInt32]] in
        let queue = rig.machine.queue(named: name) ?? QueueID(0)
        let sizes = rig.machine.peek(queue, limit: 1_000).map(\.reference.size)
        return [sizes.filter { $0 < 2_000 }, sizes.filter { $0 >= 2_000 }]
      }
    }
    func filled(_ limits: MachineLimits, isBound: Bool) throws -> [[UInt32]] {
      let rig = Rig(limits: limits)
      let sessions = [AMQPSession(rig), AMQPSession(rig, connection: 2)]
      for queue in ["q", "r", "s", "t"] {
        sessions[0].queue(queue)
        sessions[0].bind("amq.fanout", to: .queue(queue))
      }
      for key in ["q", "#"] { sessions[0].bind("amq.topic", to: .queue("r"), key: key) }
      var entries = 0
      while true {
        let done = nodes.map { Int(rig.machine.relayed(from: $0, process: 7)) }
        if done.allSatisfy({ $0 == 6 }) { break }
        entries += 1
        try #require(entries < 1_000, "seed \(seed): it does not end")
        rig.apply { payload in
          for place in [0, 1].shuffled(using: &random) {
            // From where it is, or from before, or with a gap.
            let first = max(0, done[place] + Int.random(in: -1...1, using: &random))
            let end = min(6, first + Int.random(in: 0...3, using: &random))
            for number in first..<max(first, end) {
              append(number, of: place, sessions[place].id, to: &payload)
            }
          }
        }
        if isBound, entries % 3 == 0 { try rig.restart(limits: limits) }
      }
      return contents(rig)
    }
    var limits = MachineLimits()
    let expected = try filled(limits, isBound: false)
    limits.publishesPerEntry = 17
    #expect(try filled(limits, isBound: true) == expected, "seed \(seed)")
    #expect(expected.allSatisfy { !$0.isEmpty })
  }

  /// What is left of a run whose exchange is gone by then fails, and only that.
  @Test func theRestOfARunMayFail() {
    let (rig, session, _) = smallRig()
    session.exchange("x", .fanout)
    for queue in ["q", "r", "s", "t"] { session.bind("x", to: .queue(queue)) }
    func send() -> [Seen] {
      rig.apply { payload in
        bundle(1, into: &payload) { route(session.id, to: "x", [1, 2, 3], tag: 1, into: &$0) }
      }
    }
    #expect(routed(send()) == [1: 2])
    session.ask {
      CommandWriter.deleteExchange($0, tag: $1, TopologyName("x"), ifUnused: false, into: &$2)
    }
    #expect(
      send().first
        == .plain(
          .topology(
            .routeFailed(session.id, RequestTag(1), count: 1, .noExchange("x", host: "/")))))
    #expect(rig.machine.relayed(from: node, process: 7) == 1)
  }

  // MARK: More than an entry may look at

  /// A rig where each message to amq.headers looks at three bindings, and an entry at so many.
  private func lookingRig(
    _ looks: Int
  ) -> (rig: Rig, session: AMQPSession, limits: MachineLimits) {
    var limits = MachineLimits()
    limits.headerLooksPerEntry = looks
    let rig = Rig(limits: limits)
    let session = AMQPSession(rig)
    session.queue("q")
    session.bind("amq.headers", to: .queue("q"))
    session.bind("amq.match", to: .queue("q"))
    session.bind("amq.headers", to: .exchange("amq.match"))
    return (rig, session, limits)
  }

  /// Of headers an entry looks at so many only, and a bundle at half of what is left.
  @Test func matchingOfHeadersIsBoundedPerEntry() throws {
    let (rig, session, limits) = lookingRig(10)
    func send() -> [Seen] {
      rig.apply { payload in
        bundle(1, into: &payload) {
          route(session.id, to: "amq.headers", [1, 2, 3], tag: 1, into: &$0)
          // This one is not looked at.
          route(session.id, to: "", key: "q", [4], tag: 2, into: &$0)
        }
      }
    }
    #expect(routed(send()) == [1: 2] && rig.machine.state.topology.headerLooks == 6)
    try rig.restart(limits: limits)
    #expect(routed(send()) == [1: 1, 2: 1] && session.ready("q") == 4)
    #expect(rig.machine.relayed(from: node, process: 7) == 1)
  }

  /// However many bundles there are in it: the first of a bundle is no exception but where the entry
  /// has looked at nothing.
  @Test(arguments: [1, 10]) func manyBundlesLookAtNoMoreThanOne(looks: Int) throws {
    let (rig, session, limits) = lookingRig(looks)
    var done: [UInt64] = []
    var looked: [Int] = []
    while done.last ?? 0 < 8, done.count < 10 {
      rig.apply { payload in
        for number in (done.last ?? 0) + 1...8 {
          bundle(number, into: &payload) {
            route(session.id, to: "amq.headers", [1], tag: number, into: &$0)
          }
        }
      }
      done.append(rig.machine.relayed(from: node, process: 7))
      looked.append(rig.machine.state.topology.headerLooks)
      try rig.restart(limits: limits)
    }
    #expect(done == (looks == 1 ? Array(1...8) : [4, 8]))
    #expect(looked == (looks == 1 ? Array(repeating: 3, count: 8) : [12, 12]))
    #expect(session.ready("q") == 8)
  }

  /// A transaction is looked at twice, and not at all where the entry has looked at enough.
  @Test func transactionsLookAtNoMoreThanAnEntryMay() throws {
    let (rig, session, limits) = lookingRig(8)
    func send(_ numbers: ClosedRange<UInt64>, _ bodies: [Int] = [1]) -> [Seen] {
      rig.apply { payload in
        for number in numbers {
          bundle(number, into: &payload) { payload in
            let tag = RequestTag(number)
            let start = CommandWriter.beginCommit(session.id, tag: tag, into: &payload)
            route(session.id, to: "amq.headers", bodies, tag: 9, into: &payload)
            CommandWriter.endCommit(start, into: &payload)
          }
        }
      }
    }
    #expect(stops(send(1...4)) == [false, false, true, false])
    #expect(rig.machine.relayed(from: node, process: 7) == 2)
    #expect(rig.machine.state.topology.headerLooks == 12 && session.ready("q") == 2)
    try rig.restart(limits: limits)
    #expect(stops(send(3...4)) == [false, false])
    #expect(rig.machine.relayed(from: node, process: 7) == 4 && session.ready("q") == 4)
    // One that looks at more than half of that is refused, whatever else there is.
    let large = send(5...5, [1, 2])
    let tooLarge = TopologyReply.failed(
      .other(.overloaded, detail: "the transaction is too large"))
    #expect(
      large.contains(.plain(.reply(.session(session.id), RequestTag(5), .topology(tooLarge)))))
    #expect(rig.machine.relayed(from: node, process: 7) == 5 && session.ready("q") == 4)
  }

  /// Dead letters take a part of it only, so that publishes go on whatever dies.
  @Test func deadLettersLeaveLooksToPublishes() {
    let (rig, session, _) = lookingRig(12)
    session.queue("old") {
      $0.settings.timeToLive = .seconds(1)
      $0.deadLetterExchange = "amq.headers"
    }
    session.publish("", keys: ["old"], headers: [[], [], []])
    rig.now += Nanoseconds.seconds(1).rawValue
    for number in UInt64(1)...3 {
      let seen = rig.apply {
        bundle(number, into: &$0) {
          route(session.id, to: "amq.headers", [1], tag: number, into: &$0)
        }
      }
      #expect(routed(seen) == [number: 1] && session.ready("q") == 2 * number)
    }
  }

  @Test func bundlesAreCheckedBeforeTheyAreTaken() throws {
    var bytes: [UInt8] = []
    bundle(5, into: &bytes) { CommandWriter.loseSession(SessionID(1), into: &$0) }
    bundle(6, into: &bytes)
    let heads = try bytes.withUnsafeBytes { try CommandBatch.checkRelays($0, from: node) }
    #expect(heads.map(\.sequence) == [5, 6] && heads[1].range.upperBound == bytes.count)
    for count in 1..<bytes.count where count != heads[0].range.upperBound {
      #expect(throws: CommandBatchError.self) {
        try Array(bytes[..<count]).withUnsafeBytes {
          _ = try CommandBatch.checkRelays($0, from: node)
        }
      }
    }
    #expect(throws: CommandBatchError.self) {
      try bytes.withUnsafeBytes { _ = try CommandBatch.checkRelays($0, from: NodeID(9)) }
    }
    // A bundle within a bundle, and a command outside of one.
    var nested: [UInt8] = []
    bundle(1, into: &nested) { bundle(2, into: &$0) }
    var plain: [UInt8] = []
    CommandWriter.loseSession(SessionID(1), into: &plain)
    for wrong in [nested, plain] {
      #expect(throws: CommandBatchError.self) {
        try wrong.withUnsafeBytes { _ = try CommandBatch.checkRelays($0, from: node) }
      }
    }
  }
}
