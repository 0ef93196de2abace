// How a client gets to whoever leads, and what it takes for the end of a connection: everything
// unanswered is sent again over the next.

import Base

extension SimulatedClient {
  func connect() {
    guard connection == nil else { return }
    let node = nodeWanted ?? simulation.chance.below(simulation.nodes.count)
    nodeWanted = nil
    guard let made = simulation.clientNetwork.connect(self, to: node) else {
      act(.connect, after: .milliseconds(simulation.chance.within(10...200)))
      return
    }
    connection = made
    lastHeard = simulation.now
    act(.patience(connection: made.number), after: .seconds(1))
  }

  /// The connection is gone: everything unanswered will be sent again.
  func closed(_ closed: ClientConnection) {
    guard closed === connection, closed.incarnation == incarnation else { return }
    if isHanging {
      missedEnd = closed
      return
    }
    connection = nil
    isAttached = false
    sessionRequest = nil
    for place in subscriptions.indices { subscriptions[place].request = nil }
    for order in orders { finish(order.order, .unknown) }
    orders = []
    act(.connect, after: .milliseconds(simulation.chance.within(1...100)))
  }

  func leave(for node: Int?) {
    guard let connection else { return }
    nodeWanted = node
    simulation.clientNetwork.closeFromClient(connection)
    closed(connection)
  }

  func heard(_ leader: Int?) {
    guard let connection else { return }
    // Told of a change, also to the same node again, a session has to be taken up anew.
    isAttached = false
    sessionRequest = nil
    if leader == connection.node {
      beginSession()
    } else if let leader {
      leave(for: leader)
    } else if simulation.chance.permille(300) {
      leave(for: nil)
    }
  }
}
