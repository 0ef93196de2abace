// Sessions outlive their connections, and clients follow the leader (G7).

import Base
import Node
import QueueMachine
import Testing
import Transport
import Wire

@testable import Server

@Suite struct ClientGatewaySessionTests {
  static func text(_ number: Int) -> [UInt8] { Array("message \(number)".utf8) }

  @Test func aClosedConnectionDetachesItsSession() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    #expect(harness.replica.machine.origin(of: client.session)?.node == NodeID(1))
    client.close()
    harness.settle()
    #expect(harness.replica.machine.origin(of: client.session) == nil)
    #expect(harness.gateway.sessions.isEmpty)
    // Its time to come back has begun.
    harness.pass(.seconds(11))
    #expect(harness.replica.machine.held(by: client.session) == nil)
  }

  @Test func aSessionOpenedForAConnectionThatWentIsDetached() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.greetedClient()
    harness.holdsStores = true
    _ = client.begin(.openSession(producer: ProducerID(1), timeout: .seconds(10), name: "x"))
    harness.settle()
    client.close()
    harness.settle()
    harness.releaseStores()
    harness.settle()
    let sessions = harness.replica.machine.sessions()
    #expect(sessions.count == 1)
    #expect(sessions.first?.origin == nil)
  }

  @Test func afterAReconnectExactlyTheMissingDeliveriesComeAgain() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    try client.publishAndWait((1...5).map(Self.text), to: queue)
    try client.subscribe(1, to: queue, credit: 5)
    try harness.run(until: "deliveries") { client.deliveries.count == 5 }
    client.acknowledge(1, 2...2, sequence: 1)
    try harness.run(until: "settled") { client.settled == CommandSequence(1) }
    client.close()
    harness.settle()

    // It says that it has had three of the five.
    let again = try harness.greetedClient()
    guard
      case .sessionAttached(client.session, let last, CommandSequence(1)) =
        try again.attach(client.session, received: [(1, 3)])
    else {
      Issue.record("not attached")
      return
    }
    #expect(last == PublishSequence(5))
    harness.settle()
    #expect(again.deliveries.map(\.delivery) == [4, 5])
    #expect(again.deliveries.map(\.body) == [Self.text(4), Self.text(5)])
    #expect(
      again.deliveries.map(\.header.token)
        == client.deliveries.suffix(2).map(\.header.token))
    guard case .holding(ConsumerID(1), through: DeliveryID(3), let ranges)? = again.news.first
    else {
      Issue.record("nothing held but \(again.news)")
      return
    }
    #expect(
      ranges == [
        DeliveryRange(first: DeliveryID(1), last: DeliveryID(1)),
        DeliveryRange(first: DeliveryID(3), last: DeliveryID(3)),
      ])
    // And goes on settling.
    again.acknowledge(1, 3...5, sequence: 2)
    try harness.run(until: "settled") { again.settled == CommandSequence(2) }
    #expect(harness.replica.machine.held(by: client.session) == 1)
  }

  @Test func deliveriesForASessionWithoutAConnectionAreNotLost() throws {
    let harness = try GatewayHarness.leading()
    let producer = try harness.client(producer: 1)
    let queue = try producer.declare("q")
    let consumer = try harness.client(producer: 2)
    try consumer.subscribe(1, to: queue, credit: 5)
    consumer.reads = false
    try producer.publishAndWait((1...3).map(Self.text), to: queue)
    consumer.close()
    harness.settle()
    let again = try harness.greetedClient()
    _ = try again.attach(consumer.session, received: [(1, 0)])
    harness.settle()
    #expect(again.deliveries.map(\.body) == (1...3).map(Self.text))
    #expect(again.deliveries.map(\.delivery) == [1, 2, 3])
  }

  @Test func theLaterConnectionOfASessionReplacesTheEarlier() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    let second = try harness.greetedClient()
    _ = try second.attach(client.session, received: [])
    try harness.run(until: "closed") { client.isClosed }
    second.session = client.session
    try second.publishAndWait([[1]], to: queue)
    #expect(harness.gateway.sessions.count == 1)
    #expect(harness.replica.machine.origin(of: client.session) != nil)
  }

  @Test func anUnknownSessionOrConsumerIsNamed() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let other = try harness.greetedClient()
    #expect(try other.attach(SessionID(12345), received: []).refusal == .sessionNotFound)
    _ = try other.attach(client.session, received: [(9, 4)])
    harness.settle()
    guard case .consumerCancelled(ConsumerID(9), .consumerNotFound)? = other.news.first else {
      Issue.record("not cancelled but \(other.news)")
      return
    }
  }

  @Test func aReplyToAnEarlierConnectionIsNotGivenToTheNext() throws {
    let harness = try GatewayHarness.leading()
    let client = try harness.client()
    let queue = try client.declare("q")
    harness.holdsStores = true
    let asked = client.begin(.subscribe(consumer: ConsumerID(1), queue: queue, credit: 1))
    harness.settle()
    client.close()
    let again = try harness.greetedClient()
    let request = again.begin(
      .attachSession(AttachRequest(session: client.session, consumers: [])))
    harness.settle()
    harness.releaseStores()
    try harness.run(until: "attached") { again.replies[request] != nil }
    harness.settle()
    #expect(again.replies.keys.filter { $0 != request && $0 == asked }.isEmpty)
    #expect(again.replies.count == 2)  // hello and attach
  }

  @Test func aLaterSessionOfTheProducerFencesTheEarlier() throws {
    let harness = try GatewayHarness.leading()
    let first = try harness.client(producer: 5)
    let queue = try first.declare("q")
    _ = try harness.client(producer: 5)
    try harness.run(until: "fenced") { first.news.contains { $0.kind == .producerFenced } }
    first.publish([[1]], to: queue)
    try harness.run(until: "refused") { first.publishRefusals == [.producerFenced] }
  }

  /// The node's own file decides before the log; what the machine decides is the same everywhere.
  @Test func configuredLimitsAreKeptBeforeAnythingIsProposed() throws {
    let harness = try GatewayHarness.leading {
      $0.limits.queues = 1
      $0.limits.consumersPerSession = 1
      $0.limits.sessions = 2
    }
    #expect(MachineLimits().queues == 100_000)
    let client = try harness.client()
    let queue = try client.declare("q")
    #expect(
      try client.ask(.declareQueue(name: "r", settings: QueueSettings())).refusal == .tooManyQueues)
    #expect(try client.declare("q") == queue)
    try client.subscribe(1, to: queue, credit: 1)
    try client.subscribe(1, to: queue, credit: 2)
    #expect(
      try client.ask(.subscribe(consumer: ConsumerID(2), queue: queue, credit: 1)).refusal
        == .tooManyConsumers)
    let second = try harness.client(producer: 2)
    let third = try harness.greetedClient()
    let open = ClientFrame.openSession(
      producer: ProducerID(3), timeout: .seconds(10), name: "")
    #expect(try third.ask(open).refusal == .tooManySessions)
    // One without a connection that holds nothing makes room.
    second.close()
    harness.settle()
    guard case .sessionOpened = try third.ask(open) else {
      Issue.record("locked out")
      return
    }
    #expect(harness.replica.machine.sessionCount == 2)
  }

  @Test(arguments: [
    (Nanoseconds.seconds(24 * 3600), Nanoseconds.seconds(12)), (.zero, .seconds(2)),
    (.seconds(5), .seconds(5)),
  ])
  func sessionsOutliveTheirConnectionForABoundedTime(
    asked: Nanoseconds, given: Nanoseconds
  ) throws {
    let harness = try GatewayHarness.leading { $0.timeouts.session = .seconds(2) }
    let client = try harness.greetedClient()
    try client.openSession(timeout: asked)
    let machine = harness.replica.machine.clock
    client.close()
    harness.settle()
    #expect(harness.replica.machine.origin(of: client.session) == nil)
    let deadline = harness.replica.machine.nextDeadline
    #expect(deadline >= machine + given)
    #expect(deadline < machine + given + .seconds(1))
  }

  @Test func onlyWhoeverTookAProducerLastGoesOnWithIt() throws {
    let harness = try GatewayHarness.leading()
    let first = try harness.client(producer: 5)
    let second = try harness.client(producer: 5)
    let third = try harness.greetedClient()
    func open(_ epoch: ProducerEpoch) throws -> ServerFrame {
      try third.ask(
        .openSession(
          producer: ProducerID(5), epoch: epoch, timeout: .seconds(10), name: ""))
    }
    #expect(try open(ProducerEpoch(first.session.rawValue)).refusal == .producerFenced)
    let epoch = ProducerEpoch(second.session.rawValue)
    guard case .sessionOpened(_, _, epoch) = try open(epoch) else {
      Issue.record("not gone on with")
      return
    }
  }

  // MARK: Leadership

  @Test func withoutALeaderOnlyTheNodeItselfAnswers() throws {
    let harness = try GatewayHarness(members: 3)
    harness.turn()
    let client = try harness.greetedClient()
    guard case .pong = try client.ask(.ping) else {
      Issue.record("no pong")
      return
    }
    for frame in [
      ClientFrame.openSession(producer: ProducerID(1), timeout: .seconds(1), name: ""),
      .resolveQueue(name: "q"), .declareQueue(name: "q", settings: QueueSettings()), .listQueues,
      .memberRemove(id: NodeID(2)), .transferLeadership(to: nil),
    ] {
      guard case .refused(.notLeader, let detail, leader: "") = try client.ask(frame) else {
        Issue.record("\(frame.kind) was answered")
        return
      }
      #expect(detail.contains("no leader"))
    }
    client.publish([[1]], to: QueueID(1))
    try harness.run(until: "refused") { client.publishRefusals == [.notLeader] }
    // The loop answers these.
    let status = client.begin(.status)
    let members = client.begin(.memberList)
    harness.settle()
    let requests = harness.gateway.takeRequests()
    #expect(requests.map(\.question) == [.status, .memberList])
    #expect(harness.gateway.takeRequests().isEmpty)
    harness.gateway.answer(requests[1].id, with: .memberListReply([]))
    harness.gateway.refuse(requests[0].id, .overloaded, "later")
    harness.settle()
    #expect(client.replies[status]?.refusal == .overloaded)
    #expect(client.replies[members]?.kind == .memberListReply)
  }

  @Test func whoIsNotTheLeaderTellsItsClientsOfTheMembersToo() throws {
    let harness = try GatewayHarness(members: 3)
    let greeted = try harness.greetedClient()
    let stranger = try harness.connect()
    harness.changeMembership()
    harness.settle()
    guard case .membersChanged(let addresses)? = greeted.news.last else {
      Issue.record("not told but \(greeted.news)")
      return
    }
    #expect(addresses == ["node1:2", "node2:2", "node3:2"])
    #expect(stranger.news.isEmpty)
  }

  @Test func whoLosesLeadershipTellsItsClientsWhereToGo() throws {
    let harness = try GatewayHarness(members: 3)
    try harness.becomeLeader(with: NodeID(2))
    let client = try harness.client()
    let queue = try client.declare("q")
    try client.publishAndWait([[1]], to: queue)
    let opening = try harness.greetedClient()
    harness.agreeingPeers = []
    client.publish([[2]], to: queue)
    let declaring = client.begin(.declareQueue(name: "r", settings: QueueSettings()))
    let resolving = client.begin(.resolveQueue(name: "q"))
    let session = opening.begin(
      .openSession(producer: ProducerID(8), timeout: .seconds(10), name: ""))
    harness.settle()

    harness.loseLeadership(to: NodeID(3))
    harness.settle()
    guard case .leaderChanged(NodeID(3), address: "node3:2")? = client.news.last else {
      Issue.record("not told but \(client.news)")
      return
    }
    #expect(client.replies[declaring]?.refusal == .notLeader)
    #expect(client.replies[resolving]?.refusal == .notLeader)
    #expect(opening.replies[session]?.refusal == .notLeader)
    // Whose session may still be opened comes back through another connection.
    #expect(opening.isClosed)
    #expect(harness.gateway.sessions.isEmpty)
    // What is sent in ignorance is neither confirmed nor refused: its outcome is unknown.
    client.publish([[3]], to: queue)
    client.acknowledge(1, 1...1, sequence: 1)
    harness.settle()
    #expect(client.confirmed == 1)
    #expect(client.publishRefusals.isEmpty)
    guard
      case .refused(.notLeader, _, leader: "node3:2") = try client.ask(
        .attachSession(AttachRequest(session: client.session, consumers: [])))
    else {
      Issue.record("attached to a follower")
      return
    }
  }

  @Test func aLeaderThatComesBackDetachesWhatItHadBefore() throws {
    let harness = try GatewayHarness(members: 3)
    try harness.becomeLeader(with: NodeID(2))
    let client = try harness.client()
    let queue = try client.declare("q")
    harness.loseLeadership(to: NodeID(3))
    harness.settle()
    try harness.becomeLeader(with: NodeID(2))
    #expect(harness.replica.machine.origin(of: client.session) == nil)
    guard case .sessionAttached = try client.attach(client.session, received: []) else {
      Issue.record("not attached again")
      return
    }
    client.nextSequence = 1
    try client.publishAndWait([[1]], to: queue)
    #expect(harness.replica.machine.summary(of: queue)?.ready == 1)
  }
}
