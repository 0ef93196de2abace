// Which messages' headers are kept for when they are dead, and how much of them there may be.

import Base
import Testing

@testable import QueueMachine

/// Queues "q0", "q1" ... behind amq.fanout whose dead letters go to the headers exchange "dlx", and
/// from there, where their colour is red, to "d0", "d1" ...
private struct HeaderQueues {
  let rig: Rig
  let session: AMQPSession
  let limits: MachineLimits
  /// The headers of each message.
  let headers = table(["colour": "red"])

  init(queues: Int = 1, targets: Int = 1, room: Int) {
    var limits = MachineLimits()
    limits.headerBytesKept = room * headers.count
    self.limits = limits
    rig = Rig(limits: limits)
    session = AMQPSession(rig)
    session.exchange("dlx", .headers)
    for target in 0..<targets {
      session.queue("d\(target)")
      session.bind("dlx", to: .queue("d\(target)"), arguments: headers)
    }
    for queue in 0..<queues {
      session.queue("q\(queue)") { $0.deadLetterExchange = "dlx" }
      session.bind("amq.fanout", to: .queue("q\(queue)"))
    }
  }

  /// How many copies keep their headers.
  var kept: Int { rig.machine.state.keptHeaderBytes / headers.count }

  /// Publishes so many messages; what each was refused for.
  func publish(_ count: Int, to exchange: String = "amq.fanout", key: String = "") -> [Refusal?] {
    session.publish(exchange, keys: [key], headers: Array(repeating: headers, count: count))
      .flatMap { effect -> [Refusal?] in
        switch effect {
        case .routed(_, _, let count): Array(repeating: nil, count: Int(count))
        case .routeRefused(_, _, let count, let refusal):
          Array(repeating: refusal, count: Int(count))
        default: stopForBug("\(effect)")
        }
      }
  }
}

@Suite struct KeptHeaderRules {
  /// Asked for each message and queue, so it is told by the exchange alone: whatever it leads to.
  @Test func whatIsKeptFollowsTheExchangesAsTheyAre() throws {
    let all = HeaderQueues(room: 100)
    let session = all.session
    session.exchange("first", .fanout)
    session.exchange("second", .direct)
    session.exchange("other", .fanout, alternate: "second")
    session.queue("q") { $0.deadLetterExchange = "first" }
    session.queue("alternate") { $0.deadLetterExchange = "other" }
    func keeps(_ queue: String) throws -> [Bool] {
      try [false, true].map { isRestored in
        if isRestored { try all.rig.restart(limits: all.limits) }
        let before = all.kept
        #expect(all.publish(1, to: "", key: queue) == [nil])
        return all.kept > before
      }
    }
    #expect(try keeps("q0") == [true, true])
    #expect(try keeps("q") == [false, false])
    session.bind("first", to: .queue("d0"))
    #expect(try keeps("q") == [false, false])
    session.bind("first", to: .exchange("second"))
    #expect(try keeps("q") == [true, true])
    session.unbind("first", from: .exchange("second"))
    #expect(try keeps("q") == [false, false])
    #expect(try keeps("alternate") == [true, true])
    #expect(try keeps("d0") == [false, false])
  }

  @Test func publishAboveTheLimitIsOverloaded() throws {
    let all = HeaderQueues(queues: 2, room: 5)
    all.session.queue("plain")
    // Two copies each: in all their queues or in none.
    #expect(all.publish(3) == [nil, nil, .overloaded])
    #expect(all.kept == 4 && all.session.ready("q0") == 2 && all.session.ready("q1") == 2)
    #expect(all.publish(2, to: "", key: "q0") == [nil, .overloaded])
    try all.rig.restart(limits: all.limits)
    #expect(all.kept == 5)
    #expect(all.publish(1, to: "", key: "q0") == [.overloaded])
    // Where nothing is kept there is room.
    #expect(all.publish(1, to: "", key: "plain") == [nil])
    #expect(
      all.session.publish("", keys: ["q0"]).map { if case .routed = $0 { true } else { false } }
        == [true])
  }

  /// A thousand short keys take fifty times their bytes.
  @Test func furtherKeysCountAsHeadersDo() throws {
    var limits = MachineLimits()
    limits.headerBytesKept = 5 * (MessageAddress.keyOverhead + 1)
    let rig = Rig(limits: limits)
    let session = AMQPSession(rig)
    session.exchange("dlx", .direct)
    session.queue("dead")
    for key in ["q", "b", "c"] { session.bind("dlx", to: .queue("dead"), key: key) }
    session.queue("q") { $0.deadLetterExchange = "dlx" }
    session.queue("own") {
      $0.deadLetterExchange = "dlx"
      $0.deadLetterKey = [UInt8]("b".utf8)
    }
    func isStored(_ keys: [String]) -> Bool {
      if case .routed? = session.publish("", keys: keys).first { true } else { false }
    }
    #expect(isStored(["q", "b", "c"]) && isStored(["q", "b", "c"]))
    #expect(!isStored(["q", "b", "c"]))
    try rig.restart(limits: limits)
    #expect(!isStored(["q", "b", "c"]) && session.ready("q") == 2)
    // One key more has its place; what needs none is never refused.
    #expect(isStored(["q", "b"]) && !isStored(["q", "b"]))
    #expect(isStored(["q"]) && isStored(["own", "b", "c"]))
    #expect(rig.machine.state.keptHeaderBytes == limits.headerBytesKept)
    let commit = session.ask { _, tag, payload in
      let start = CommandWriter.beginCommit(session.id, tag: tag, into: &payload)
      run([1]).withUnsafeBytes {
        CommandWriter.route(
          session.id, tag: tag,
          RouteOrder(exchange: TopologyName(""), keys: [[UInt8]("q".utf8), [UInt8]("b".utf8)]),
          count: 1, run: $0, into: &payload)
      }
      CommandWriter.endCommit(start, into: &payload)
    }
    guard case .failed(.other(.overloaded, _)) = commit else {
      Issue.record("\(commit)")
      return
    }
    // A dead letter goes where its keys lead, and keeps what there is room for.
    _ = session.consume("q")
    rig.settle(session.id, 1, .reject, [1...4])
    #expect(session.ready("dead") == 4)
    #expect(rig.machine.state.keptHeaderBytes <= limits.headerBytesKept / 2)
    rig.ask { CommandWriter.purgeQueue($0, tag: $1, name: "dead", into: &$2) }
    #expect(rig.machine.state.keptHeaderBytes == 0)
  }

  @Test func copiesShareTheHeadersOfTheirMessage() {
    let all = HeaderQueues(queues: 3, room: 3)
    #expect(all.publish(1) == [nil])
    var places = Set<UnsafeRawPointer>()
    for slot in all.rig.machine.state.queues.slots {
      all.rig.machine.state.queues[slot].notes.forEach { _, note in
        note.story?.address?.headers.withUnsafeBytes { bytes in
          if let place = bytes.baseAddress { places.insert(place) }
        }
      }
    }
    #expect(all.kept == 3 && places.count == 1)
  }

  @Test func roomComesBackHoweverMessagesLeave() {
    let all = HeaderQueues(room: 6)
    let publish = { all.publish(6) }
    func isEmpty() -> Bool { all.kept == 0 && all.session.ready("q0") ?? 0 == 0 }
    #expect(publish() == Array(repeating: nil, count: 6))
    _ = all.session.consume("q0", credit: 6)
    all.rig.settle(all.session.id, 1, .acknowledge, [1...6])
    #expect(isEmpty() && publish().last == .some(nil))
    all.rig.settle(all.session.id, 2, .release, [7...12])
    all.rig.apply { CommandWriter.loseSession(all.session.id, into: &$0) }
    let other = AMQPSession(all.rig, connection: 2)
    all.rig.ask { CommandWriter.purgeQueue($0, tag: $1, name: "q0", into: &$2) }
    #expect(isEmpty())
    other.publish("amq.fanout", keys: [""], headers: [all.headers])
    _ = other.consume("q0")
    other.publish("amq.fanout", keys: [""], headers: [all.headers])
    #expect(all.kept == 2)
    all.rig.ask { CommandWriter.deleteQueue($0, tag: $1, name: "q0", into: &$2) }
    #expect(all.kept == 0)
  }

  /// It moves anyhow, and publishes have the other half of the room.
  @Test func deadLettersKeepThemInHalfOfTheRoom() throws {
    let all = HeaderQueues(targets: 3, room: 4)
    #expect(all.publish(4) == [nil, nil, nil, nil])
    _ = all.session.consume("q0")
    all.rig.settle(all.session.id, 1, .reject, [1...4])
    #expect(["d0", "d1", "d2"].map { all.session.ready($0) } == [4, 4, 4])
    #expect(all.kept == 2)
    try all.rig.restart(limits: all.limits)
    #expect(all.publish(3) == [nil, nil, .overloaded])
  }

  /// What its dead letters take does not come in the way of what it was promised.
  @Test func transactionHasRoomForAllOrFails() {
    let all = HeaderQueues(targets: 3, room: 6)
    #expect(all.publish(2) == [nil, nil])
    _ = all.session.consume("q0")
    func commit(_ count: Int, rejecting sequence: UInt64) -> TopologyReply {
      var records: [UInt8] = []
      for _ in 0..<count {
        MessageRecord.append(
          amqpMessage(exchange: "amq.fanout", key: "", headers: all.headers), to: &records)
      }
      let order = RouteOrder(
        exchange: TopologyName("amq.fanout"), keys: [[]], isMandatory: false)
      return all.session.ask { _, tag, payload in
        let start = CommandWriter.beginCommit(all.session.id, tag: tag, into: &payload)
        CommandWriter.settle(
          all.session.id, sequence: CommandSequence(sequence),
          answeredThrough: CommandSequence(0), kind: .reject, consumer: ConsumerID(1),
          ranges: [DeliveryRange(1...2)], delay: nil, error: "", into: &payload)
        records.withUnsafeBytes {
          CommandWriter.route(
            all.session.id, tag: tag, order, count: UInt32(count), run: $0, into: &payload)
        }
        CommandWriter.endCommit(start, into: &payload)
      }
    }
    let refused = commit(5, rejecting: 1)
    guard case .failed(.other(.overloaded, _)) = refused else {
      Issue.record("\(refused)")
      return
    }
    #expect(all.kept == 2 && all.session.ready("d0") == 0)
    #expect(commit(4, rejecting: 1) == .done)
    #expect(all.session.ready("d0") == 2 && all.session.ready("d2") == 2)
    let queue = all.rig.machine.queue(named: "q0") ?? QueueID(0)
    #expect(all.rig.summary(queue).ready + all.rig.summary(queue).leased == 4)
    #expect(all.kept >= 4 && all.kept <= 6)
  }
}
