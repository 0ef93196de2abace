// What waits until this node's state is fresh enough, and who is told when a linearizable read is over.

import AMQP
import Base
import Testing
import Transport

@testable import Consensus
@testable import Server

@Suite struct ReadBarrierTests {
  let now = MonotonicTime(1_000)

  private func read(_ client: UInt64, behind: UInt64 = 0) -> ReadBarrier.Read {
    ReadBarrier.Read(
      client: client, token: .init(1), asks: .request(.inspectExchange(name: "x")), behind: behind)
  }

  private func asked(_ barrier: inout ReadBarrier, at time: MonotonicTime) throws -> UInt64 {
    let question = barrier.question(now: time)
    barrier.isAsked(now: time)
    return try #require(question)
  }

  @Test func readsWaitForTheIndexThatTheyWereTold() throws {
    var barrier = ReadBarrier()
    #expect(barrier.question(now: now) == nil)
    barrier.add(read(1, behind: 2))
    let first = try asked(&barrier, at: now)
    barrier.add(read(2, behind: 2))
    // One question at a time.
    #expect(barrier.question(now: now) == nil)
    barrier.wasTold(first, LogIndex(5))
    #expect(barrier.ready(at: LogIndex(4), relayed: 9).isEmpty)
    // Fresh enough, but what its client sent before is not carried out.
    #expect(barrier.ready(at: LogIndex(5), relayed: 1).isEmpty)
    // What came meanwhile goes with the next question, and answers to the first mean nothing to it.
    let second = try asked(&barrier, at: now)
    #expect(second != first)
    #expect(barrier.ready(at: LogIndex(5), relayed: 2).map(\.client) == [1])
    barrier.wasTold(first, LogIndex(5))
    #expect(barrier.ready(at: LogIndex(9), relayed: 2).isEmpty)
    barrier.wasTold(second, LogIndex(6))
    #expect(barrier.ready(at: LogIndex(9), relayed: 2).map(\.client) == [2])
    #expect(barrier.count == 0)
  }

  @Test("A question is put again without an answer; one to any of its askings counts")
  func slowAnswer() throws {
    var barrier = ReadBarrier()
    barrier.add(read(1))
    let first = try asked(&barrier, at: now)
    #expect(barrier.nextDeadline == now + .milliseconds(500))
    barrier.add(read(2))
    // Each answer takes longer than that.
    for seconds in 1...3 {
      let again = try asked(&barrier, at: now + .seconds(UInt64(seconds)))
      #expect(again == first)
    }
    barrier.wasTold(first, LogIndex(3))
    // The other answers are for what is answered already: who came later has another question.
    #expect(barrier.ready(at: LogIndex(3), relayed: 0).map(\.client) == [1])
    barrier.wasTold(first, LogIndex(3))
    let second = try asked(&barrier, at: now + .seconds(4))
    barrier.wasTold(first, LogIndex(3))
    #expect(barrier.ready(at: LogIndex(9), relayed: 0).isEmpty)
    barrier.wasTold(second, LogIndex(4))
    #expect(barrier.ready(at: LogIndex(9), relayed: 0).map(\.client) == [2])
  }

  @Test("Another leader is asked the same; what the one before says late counts too")
  func anotherLeader() throws {
    var barrier = ReadBarrier()
    barrier.add(read(1))
    let first = try asked(&barrier, at: now)
    barrier.askAgain()
    // This node leads now.
    #expect(barrier.question(now: now) == first)
    let ticket = ReadTicket(number: 1)
    barrier.isReading(ticket)
    barrier.wasTold(first, LogIndex(3))
    #expect(barrier.ready(at: LogIndex(3), relayed: 0).map(\.client) == [1])
    let isTaken = barrier.took(ticket, at: LogIndex(4))
    #expect(!isTaken)
    #expect(barrier.question(now: now) == nil)
  }

  @Test("Two processes of a node do not take each other's answers")
  func numbersOfTwoProcesses() throws {
    let questions = try (0..<2).map { _ in
      var barrier = ReadBarrier()
      barrier.add(read(1))
      return try asked(&barrier, at: now)
    }
    #expect(questions[0] != questions[1])
  }

  @Test("Whoever is gone is not waited for, and the next does not wait for its answer")
  func gone() throws {
    var barrier = ReadBarrier()
    for client in [1, 2] as [UInt64] { barrier.add(read(client)) }
    let first = try asked(&barrier, at: now)
    barrier.add(read(3))
    barrier.add(read(4))
    barrier.keep { $0.client == 2 || $0.client == 4 }
    #expect(barrier.count == 2 && barrier.question(now: now) == nil)
    barrier.keep { $0.client == 4 }
    #expect(barrier.nextDeadline == .never)
    let second = try asked(&barrier, at: now)
    barrier.wasTold(first, LogIndex(3))
    #expect(barrier.ready(at: LogIndex(3), relayed: 0).isEmpty)
    barrier.wasTold(second, LogIndex(3))
    #expect(barrier.ready(at: LogIndex(3), relayed: 0).map(\.client) == [4])
  }

  // MARK: Who shares a ticket

  @Test(
    "All reads of a ticket are over with it: a native client's, an AMQP client's, other nodes'",
    arguments: [true, false])
  func sharedTicket(isReady: Bool) throws {
    let cluster = try InProcessCluster(1)
    let configuration = cluster.nodes[0].configuration
    var loop = try NodeLoop.start(
      configuration, log: NodeLog(node: configuration.node, isQuiet: true), signals: nil)
    var second = try PeerLinksTests.Ends(2, of: configuration.cluster)
    loop.peers.setMembers(second.knows([(2, second.address)]), now: now)
    try loop.turnPeers(with: &second, now: now) { $0.contains { $0.isConnection } }
    let ticket = ReadTicket(number: 7)
    let other = ReadTicket(number: 8)
    let reads = [WaitingRead(token: 1, request: .init(1), question: .list)]
    loop.gateway.waitingReads = [(ticket, reads)]
    loop.gateway.waitingReadCount = 1
    loop.amqp.reads.add(read(1))
    _ = loop.amqp.reads.question(now: now)
    loop.amqp.reads.isReading(ticket)
    loop.desk.add(1, of: NodeID(2), waitingFor: ticket)
    loop.desk.add(1, of: NodeID(3), waitingFor: ticket)
    loop.desk.add(1, of: NodeID(4), waitingFor: other)
    if isReady { loop.readIsReady(ticket, now: now) } else { loop.readFailed(ticket) }
    #expect(loop.gateway.waitingReadCount == 0 && loop.gateway.waitingReads.isEmpty)
    #expect(loop.desk.questions.map(\.node) == [NodeID(4)])
    // What failed is asked again.
    let question = loop.amqp.reads.question(now: now)
    #expect((question == nil) == isReady)
    let ready = loop.amqp.reads.ready(at: loop.replica.applied, relayed: 0)
    #expect(ready.map(\.client) == (isReady ? [1] : []))
    // What is sent behind it tells that there was nothing, where it failed.
    loop.peers.send(.toldIndex(request: 99, index: .zero), to: NodeID(2))
    try loop.turnPeers(with: &second, now: now) { $0.contains { $0.toldRequest == 99 } }
    #expect(second.received.compactMap(\.toldRequest) == (isReady ? [1, 99] : [99]))
    loop.halt("for a test", now: now)
    loop.mailbox.post(.stop)
    _ = loop.runToEnd()
  }

  @Test("A node has one question at the leader, and its first asking is answered")
  func questionsOfNodes() {
    var desk = RelayDesk()
    let tickets = (1...3).map { ReadTicket(number: UInt64($0)) }
    desk.add(5, of: NodeID(2), waitingFor: tickets[0])
    desk.add(9, of: NodeID(3), waitingFor: tickets[0])
    #expect(desk.isWaiting(NodeID(2), for: 5) && !desk.isWaiting(NodeID(3), for: 5))
    // Another question: the process before is not there any more.
    desk.add(70, of: NodeID(2), waitingFor: tickets[1])
    #expect(desk.takeQuestions(of: tickets[0]).map(\.request) == [9])
    #expect(desk.takeQuestions(of: tickets[1]).map(\.request) == [70])
    #expect(desk.takeQuestions(of: tickets[2]).isEmpty && desk.questions.isEmpty)
  }
}

extension NodeLoop {
  /// Has only the links between nodes turn, here and at another node.
  fileprivate mutating func turnPeers(
    with other: inout PeerLinksTests.Ends, now: MonotonicTime,
    until isDone: ([PeerEvent]) -> Bool
  ) throws {
    var events: [PollEvent] = []
    for _ in 0..<1_000 where !isDone(other.received) {
      poller.wait(timeout: .milliseconds(1), into: &events)
      for event in events where PeerLinks.owns(event.token) {
        peers.handle(event, now: now, introduction: replica.introduction)
      }
      peers.tick(now: now)
      peers.flush(now: now)
      other.turn()
    }
    let isThere = isDone(other.received)
    try #require(isThere)
  }
}

extension PeerEvent {
  fileprivate var isConnection: Bool { if case .received = self { true } else { false } }

  /// The question that a node was told about.
  fileprivate var toldRequest: UInt64? {
    if case .received(.toldIndex(let request, _), _) = self { request } else { nil }
  }
}
