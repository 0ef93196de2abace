// A client's session: opened once, taken up again after each connection, lost when the cluster gives it
// up.

import Base
import QueueMachine

extension SimulatedClient {
  func beginSession() {
    let number = request()
    sessionRequest = number
    if let session {
      send(
        .attachSession(
          number, session,
          subscriptions.filter(\.isSubscribed).map {
            ConsumerPosition(consumer: $0.consumer, lastDelivery: $0.received)
          }))
    } else {
      send(
        .openSession(
          number, ProducerID(UInt64(process)),
          OpenAttempt(client: UInt32(process), count: UInt32(number)),
          timeout: simulation.plan.sessionTimeout, name: "p\(process)"))
    }
  }

  func attached(isNew: Bool) {
    simulation.note(isNew ? .sessionsOpened : .sessionsAttached)
    isAttached = true
    sessionRequest = nil
    for place in chunks.indices { chunks[place].isSent = false }
    sentSettlements = 0
    if let first = chunks.first?.first { askOutcomes(of: first..<nextSequence) }
    subscribe()
    sendChunks()
    sendSettlements()
  }

  private func subscribe() {
    for place in subscriptions.indices
    where !subscriptions[place].isSubscribed && subscriptions[place].request == nil {
      guard let queue = simulation.queueIDs[subscriptions[place].queue] else { continue }
      let number = request()
      subscriptions[place].request = number
      send(
        .subscribe(
          number, subscriptions[place].consumer, queue, credit: UInt32(plan.credit)))
    }
  }

  func refused(_ request: RequestNumber, _ refusal: Refusal) {
    if let place = orders.firstIndex(where: { $0.request == request }) {
      let order = orders.remove(at: place).order
      judge(refusal, of: order)
      // Leadership may have been lost after it was proposed.
      finish(order, refusal == .notLeader ? .unknown : .refused)
    }
    var isSubscribing = false
    if let place = subscriptions.firstIndex(where: { $0.request == request }) {
      subscriptions[place].request = nil
      isSubscribing = true
      judge(refusal, of: "a subscription", isTrue: false)
    }
    guard request == sessionRequest else {
      // A new connection subscribes anew.
      if refusal == .notLeader || isSubscribing { leave(for: nil) }
      return
    }
    sessionRequest = nil
    if refusal == .sessionNotFound { loseSession() } else { leave(for: nil) }
  }

  /// The cluster gave the session up: what was held has lapsed, what was published is published
  /// again under its numbers in a new session.
  func loseSession() {
    if let session, !simulation.checks.sessions.isOver(session) {
      simulation.violated("G7", "\(self) is told that its session is over, and it is not")
    }
    simulation.note(.sessionsLost)
    simulation.trace { "\(self) lost its session" }
    for place in subscriptions.indices {
      subscriptions[place].held = [:]
      subscriptions[place].received = DeliveryID(0)
      subscriptions[place].isSubscribed = false
      subscriptions[place].request = nil
    }
    for settlement in settlements {
      if settlement.kind == .acknowledge { simulation.note(.unknownAcks) }
      simulation.ledger.settled(
        settlement.held.value, settlement.held.delivered, settlement.kind, .unknown)
    }
    for place in chunks.indices { sessionEnded(for: place) }
    simulation.ledger.over(holder)
    sessionsLost += 1
    settlements = []
    sentSettlements = 0
    nextSettle = 1
    session = nil
    isAttached = false
    leave(for: connection?.node)
  }
}
