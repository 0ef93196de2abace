// What a topology may cost: time that grows with what is done, and memory that is counted.

import Base
import Testing

@testable import QueueMachine

@Suite struct TopologyBoundRules {
  private func isTooMany(_ reply: TopologyReply) -> Bool {
    if case .failed(.tooMany) = reply { true } else { false }
  }

  // MARK: Bindings that go

  /// What a replica was restored from says nothing of the order in which the bindings were made: the
  /// digests of the two would differ.
  @Test(arguments: [true, false]) func bindingsGoInOneOrderOnEveryReplica(isQueue: Bool) throws {
    let rig = Rig()
    let session = AMQPSession(rig)
    session.queue("q")
    for name in ["x", "y", "target"] { session.exchange(name, .topic) }
    let target: BindingTarget = isQueue ? .queue("q") : .exchange("target")
    for number in 0..<6 {
      session.bind(number % 2 == 0 ? "y" : "x", to: target, key: "key.\(number)")
    }
    let other = Rig()
    other.machine = try QueueMachine(snapshot: rig.machine.freeze().encoded())
    other.index = rig.index
    for rig in [rig, other] {
      rig.ask { requester, tag, payload in
        if isQueue {
          CommandWriter.deleteQueue(requester, tag: tag, name: "q", into: &payload)
        } else {
          CommandWriter.deleteExchange(
            requester, tag: tag, TopologyName("target"), ifUnused: false, into: &payload)
        }
      }
    }
    #expect(rig.machine.bindingCount == 0)
    #expect(rig.machine.stateHash == other.machine.stateHash)
    #expect(rig.machine.freeze().encoded() == other.machine.freeze().encoded())
  }

  @Test func anExchangeBoundToItselfGoesWithAllItsBindings() {
    let rig = Rig()
    let session = AMQPSession(rig)
    session.queue("q")
    for (name, kind) in [("x", ExchangeType.topic), ("y", .headers), ("z", .direct)] {
      session.exchange(name, kind)
      for number in 0..<4 {
        session.bind(
          name, to: .exchange(name), key: "a.\(number)", arguments: table(["n": number]))
        session.bind(name, to: .queue("q"), key: "b.\(number)", arguments: table(["n": number]))
      }
      session.ask {
        CommandWriter.deleteExchange($0, tag: $1, TopologyName(name), ifUnused: false, into: &$2)
      }
      #expect(rig.machine.bindingCount == 0)
    }
    #expect(rig.machine.state.topology.routeSize == RouteSize())
  }

  // MARK: Topic bindings

  @Test func wordsOfTopicBindingsAreCounted() throws {
    var limits = MachineLimits()
    limits.topicNodes = 7
    let rig = Rig(limits: limits)
    let session = AMQPSession(rig)
    session.queue("q")
    session.exchange("x", .topic)
    session.exchange("y", .topic)
    #expect(session.bind("x", to: .queue("q"), key: "a.b.c") == .done)
    // What keys have in common counts once, and in each exchange.
    #expect(session.bind("x", to: .queue("q"), key: "a.b.d") == .done)
    #expect(session.bind("y", to: .queue("q"), key: "a.b") == .done)
    #expect(isTooMany(session.bind("y", to: .queue("q"), key: "a.x.y")))
    try rig.restart(limits: limits)
    #expect(isTooMany(session.bind("x", to: .queue("q"), key: "..")))
    #expect(session.bind("x", to: .queue("q"), key: "a.b") == .done)
    #expect(session.bind("x", to: .queue("q"), key: "*") == .done)
    #expect(isTooMany(session.bind("x", to: .queue("q"), key: "#")))
    // No other kind of exchange has a tree.
    session.exchange("direct", .direct)
    #expect(session.bind("direct", to: .queue("q"), key: "a.b.c.d.e.f.g.h.i") == .done)
    session.unbind("x", from: .queue("q"), key: "a.b.d")
    #expect(session.bind("x", to: .queue("q"), key: "#") == .done)
    session.ask {
      CommandWriter.deleteExchange($0, tag: $1, TopologyName("x"), ifUnused: false, into: &$2)
    }
    #expect(rig.machine.state.topology.routeSize.topicNodes == 2)
    session.publish("y", keys: ["a.b"])
    #expect(session.ready("q") == 1)
  }

  // MARK: Headers exchanges

  /// As RabbitMQ sorts both tables and keeps the first of a name.
  @Test func theFirstOfANameCounts() {
    let rig = Rig()
    let session = AMQPSession(rig)
    for queue in ["all", "any"] { session.queue(queue) }
    session.bind("amq.headers", to: .queue("all"), arguments: table(["a": 1, "a": 2, "b": 3]))
    session.bind(
      "amq.headers", to: .queue("any"), arguments: table(["x-match": "any", "a": 1, "a": 2]))
    func counts() -> [UInt64?] { [session.ready("all"), session.ready("any")] }
    session.publish("amq.headers", keys: [""], headers: [table(["b": 3, "a": 1, "a": 7])])
    #expect(counts() == [1, 1])
    session.publish("amq.headers", keys: [""], headers: [table(["a": 2, "a": 1, "b": 3])])
    #expect(counts() == [1, 1])
  }

  /// A message is matched at the cost of what the bindings ask for, however much it has itself, and
  /// repeated names are asked for once.
  @Test func matchingCostsWhatTheBindingsAskFor() {
    let rig = Rig()
    let session = AMQPSession(rig)
    session.queue("q")
    var wanted: [UInt8] = table(["x-match": "any"])
    for _ in 0..<2_000 { wanted += [1, UInt8(ascii: "a"), UInt8(ascii: "V")] }
    for number in 0..<3 {
      session.bind("amq.headers", to: .queue("q"), key: "\(number)", arguments: wanted)
    }
    var headers: [UInt8] = []
    for _ in 0..<20_000 { headers += [0, UInt8(ascii: "V")] }
    session.publish("amq.headers", keys: [""], headers: [headers])
    #expect(session.ready("q") == 0)
    // Its own are read and sorted once, however many of them have one name.
    #expect(rig.machine.state.topology.headerLooks == 20_000 + 6)
    session.publish("amq.headers", keys: [""], headers: [headers + table(["a": 1])])
    #expect(session.ready("q") == 1)
    #expect(rig.machine.state.topology.headerLooks == 20_001 + 6)
    // Also where they pass several exchanges.
    session.bind("amq.headers", to: .exchange("amq.match"))
    session.publish("amq.headers", keys: [""], headers: [table(["b": 1])])
    #expect(rig.machine.state.topology.headerLooks == 1 + 7)
  }

  @Test func headersThatBindingsAskForAreCounted() throws {
    var limits = MachineLimits()
    limits.wantedHeaders = 3
    let rig = Rig(limits: limits)
    let session = AMQPSession(rig)
    session.queue("q")
    #expect(
      session.bind("amq.headers", to: .queue("q"), arguments: table(["a": 1, "b": 1])) == .done)
    try rig.restart(limits: limits)
    let more = table(["a": 1, "c": 1])
    #expect(isTooMany(session.bind("amq.match", to: .queue("q"), arguments: more)))
    // A binding that asks for nothing is looked at too.
    #expect(isTooMany(session.bind("amq.match", to: .queue("q"))))
    #expect(session.bind("amq.direct", to: .queue("q"), arguments: more) == .done)
    session.unbind("amq.headers", from: .queue("q"), arguments: table(["a": 1, "b": 1]))
    #expect(session.bind("amq.match", to: .queue("q"), arguments: more) == .done)
  }

  /// Each message that comes to the exchange is matched against all of them.
  @Test func headersThatOneExchangeAsksForAreBounded() throws {
    var limits = MachineLimits()
    limits.wantedHeadersPerExchange = 3
    let rig = Rig(limits: limits)
    let session = AMQPSession(rig)
    session.queue("q")
    let two = table(["a": 1, "b": 1])
    func bind(_ exchange: String, key: String = "", _ arguments: [UInt8]) -> TopologyReply {
      session.bind(exchange, to: .queue("q"), key: key, arguments: arguments)
    }
    #expect(bind("amq.headers", two) == .done)
    try rig.restart(limits: limits)
    guard case .failed(.tooMany(let text)) = bind("amq.headers", key: "more", two) else {
      Issue.record("a fourth header")
      return
    }
    #expect(
      text == "the bindings of one headers exchange may ask for 3 headers together; those of"
        + " 'amq.headers' ask for 2, and this one would add 2")
    // Others are not asked for more by it, nor what asks for nothing, nor what is there.
    #expect(bind("amq.match", two) == .done)
    #expect(bind("amq.headers", key: "none", []) == .done)
    #expect(bind("amq.headers", two) == .done)
    #expect(bind("amq.headers", key: "one", table(["a": 1])) == .done)
    #expect(isTooMany(bind("amq.headers", key: "another", table(["a": 1]))))
    session.unbind("amq.headers", from: .queue("q"), arguments: two)
    #expect(bind("amq.headers", key: "more", two) == .done)
  }

  @Test(arguments: [UInt64](1...8)) func headersAreFoundByName(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    func name() -> [UInt8] {
      let length = Int(random.next() % 20)
      return (0..<length).map { _ in UInt8(97 + random.next() % 2) }
    }
    var bytes: [UInt8] = []
    var first: [[UInt8]: UInt8] = [:]
    for _ in 0..<300 {
      let name = name()
      let value = UInt8(random.next() & 255)
      bytes += [UInt8(name.count)] + name + [UInt8(ascii: "b"), value]
      if first[name] == nil { first[name] = value }
    }
    let index = HeaderIndex(bytes)
    for name in (0..<300).map({ _ in name() }) + first.keys {
      #expect(index[name]?.bytes.first == first[name], "seed \(seed): \(name)")
    }
  }

  // MARK: Numbers

  @Test func numbersThatRunOutAreRefusedByName() throws {
    let rig = Rig()
    let session = AMQPSession(rig)
    rig.machine.state.nextQueue = .max - 1
    rig.machine.state.topology.nextExchange = .max - 1
    rig.declare("last")
    #expect(session.exchange("last", .fanout) == .done)
    try rig.restart()
    guard case .refused(.tooManyQueues, let detail) = rig.declareReply("q", QueueSettings()),
      case .failed(.other(.tooManyQueues, _)) = session.queue("q")
    else {
      Issue.record("a queue without a number")
      return
    }
    #expect(detail.contains("used up"))
    #expect(isTooMany(session.exchange("x", .direct)))
    let host = session.ask { CommandWriter.addVirtualHost($0, tag: $1, name: "h", into: &$2) }
    #expect(isTooMany(host))
    // What is there can be declared again.
    #expect(session.queue("last") == .queueDeclared(ready: 0, consumers: 0))
    #expect(session.exchange("last", .fanout) == .done)
  }
}
