// The connections between clients and nodes: each keeps its order in both directions and may break
// at any time, with what was on its way.

import Base

final class ClientConnection {
  let number: Int
  let client: Int
  /// Which life of the client.
  let incarnation: Int
  let node: Int
  let life: Int
  var requests = RingBuffer<ClientRequest>()
  var replies = RingBuffer<ServerReply>()
  var lastRequest: UInt64 = 0
  var lastReply: UInt64 = 0
  var isOpenAtClient = true
  var isOpenAtNode = false
  /// Arrivals that found the node cut off; they come when it can be reached again.
  var stalled: [SimulationEvent] = []

  init(_ number: Int, client: Int, incarnation: Int, node: Int, life: Int) {
    self.number = number
    self.client = client
    self.incarnation = incarnation
    self.node = node
    self.life = life
  }
}

final class ClientNetwork {
  unowned(unsafe) let simulation: Simulation
  private var connections: [Int: ClientConnection] = [:]
  private var nextNumber = 1
  /// Nodes that clients cannot reach.
  private(set) var unreachable: Set<Int> = []
  /// What cut clients off last has held something up.
  private var hasHitSomebody = false

  init(_ simulation: Simulation) { self.simulation = simulation }

  private func delay() -> UInt64 {
    var delay = simulation.chance.skewed(simulation.plan.delay)
    if simulation.chance.permille(simulation.lossPermille) {
      simulation.note(.lostPackets)
      delay += .milliseconds(simulation.chance.within(200...800))
    }
    return delay
  }

  private func life(of connection: ClientConnection) -> NodeLife? {
    guard let life = simulation.nodes[connection.node].life, life.number == connection.life
    else { return nil }
    return life
  }

  /// Nil if nobody listens there.
  func connect(_ client: SimulatedClient, to node: Int) -> ClientConnection? {
    guard let life = simulation.nodes[node].life, !unreachable.contains(node) else { return nil }
    let connection = ClientConnection(
      nextNumber, client: client.place, incarnation: client.incarnation, node: node,
      life: life.number)
    nextNumber += 1
    connections[connection.number] = connection
    simulation.schedule(.clientUp(connection.number), at: simulation.now + delay())
    return connection
  }

  func up(_ number: Int) {
    guard let connection = connections[number] else { return }
    guard let life = life(of: connection) else {
      closeAtClient(connection)
      return
    }
    connection.isOpenAtNode = true
    life.receive(.clientConnected(connection))
  }

  func send(_ request: ClientRequest, over connection: ClientConnection) {
    guard connection.isOpenAtClient else { return }
    connection.requests.append(request)
    connection.lastRequest = max(connection.lastRequest, simulation.now + delay())
    simulation.schedule(.requestArrival(connection.number), at: connection.lastRequest)
  }

  func send(_ reply: ServerReply, over connection: ClientConnection) {
    guard connection.isOpenAtNode else { return }
    connection.replies.append(reply)
    connection.lastReply = max(connection.lastReply, simulation.now + delay())
    simulation.schedule(.replyArrival(connection.number), at: connection.lastReply)
  }

  /// Whether what arrives now has to wait: nothing is lost inside a connection that lives on.
  private func hasStalled(_ event: SimulationEvent, _ number: Int) -> Bool {
    guard let connection = connections[number], unreachable.contains(connection.node) else {
      return false
    }
    if !hasHitSomebody {
      hasHitSomebody = true
      simulation.note(.clientsCutOff)
    }
    connection.stalled.append(event)
    return true
  }

  func requestArrived(_ number: Int) {
    if hasStalled(.requestArrival(number), number) { return }
    guard let connection = connections[number], let request = connection.requests.popFirst()
    else { return }
    guard connection.isOpenAtNode, let life = life(of: connection) else {
      if simulation.nodes[connection.node].isPowered { closeAtClient(connection) }
      return
    }
    life.receive(.request(request, connection))
  }

  func replyArrived(_ number: Int) {
    if hasStalled(.replyArrival(number), number) { return }
    guard let connection = connections[number], let reply = connection.replies.popFirst(),
      connection.isOpenAtClient
    else { return }
    simulation.clients[connection.client].receive(reply, over: connection)
  }

  // MARK: Ends

  /// The node hangs up: what it said before still arrives.
  func closeFromNode(_ connection: ClientConnection) {
    guard connection.isOpenAtNode else { return }
    connection.isOpenAtNode = false
    connection.lastReply = max(connection.lastReply, simulation.now + delay())
    simulation.schedule(.clientClosed(connection.number), at: connection.lastReply)
  }

  /// The client hangs up, or its process is gone.
  func closeFromClient(_ connection: ClientConnection) {
    guard connection.isOpenAtClient else { return }
    connection.isOpenAtClient = false
    connection.lastRequest = max(connection.lastRequest, simulation.now + delay())
    simulation.schedule(.nodeHearsClose(connection.number), at: connection.lastRequest)
  }

  func closeArrived(_ number: Int) {
    if hasStalled(.clientClosed(number), number) { return }
    if let connection = connections[number] { closeAtClient(connection) }
  }

  private func closeAtClient(_ connection: ClientConnection) {
    connections[connection.number] = nil
    guard connection.isOpenAtClient else { return }
    connection.isOpenAtClient = false
    simulation.clients[connection.client].closed(connection)
  }

  func closeReachedNode(_ number: Int) {
    if hasStalled(.nodeHearsClose(number), number) { return }
    guard let connection = connections[number] else { return }
    connections[number] = nil
    guard connection.isOpenAtNode, let life = life(of: connection) else { return }
    life.receive(.clientClosed(connection))
    connection.isOpenAtNode = false
  }

  /// A process ended: killed it hangs up at once, without power it says nothing.
  func closeAll(of node: Int, isSilent: Bool) {
    for number in connections.keys.sorted() {
      guard let connection = connections[number], connection.node == node else { continue }
      if isSilent { connection.isOpenAtNode = false } else { closeFromNode(connection) }
    }
  }

  /// Some connection breaks, with what was on its way.
  ///
  /// - Returns: whether there was one.
  func breakOne() -> Bool {
    guard let number = simulation.chance.pick(connections.keys.sorted()),
      let connection = connections[number]
    else { return false }
    if simulation.chance.flip() {
      connection.replies.removeAll()
      connection.requests.removeAll()
      let wasOpen = connection.isOpenAtClient
      closeFromClient(connection)
      simulation.clients[connection.client].closed(connection)
      return wasOpen
    }
    guard let life = life(of: connection), connection.isOpenAtNode else { return false }
    connection.replies.removeAll()
    connection.requests.removeAll()
    life.receive(.clientClosed(connection))
    return true
  }

  /// The node has heard nothing for long from a client that stands still: it hangs up.
  func silence(_ number: Int) {
    guard let connection = connections[number], connection.isOpenAtNode,
      simulation.clients[connection.client].isHanging, let life = life(of: connection)
    else { return }
    life.receive(.clientClosed(connection))
  }

  func cutOff(_ node: Int) {
    unreachable.insert(node)
    hasHitSomebody = false
  }

  /// Nodes can be reached again; what waited sets out anew, in its order.
  func heal() {
    unreachable = []
    for number in connections.keys.sorted() {
      guard let connection = connections[number], !connection.stalled.isEmpty else { continue }
      let stalled = connection.stalled
      connection.stalled = []
      let arrival = simulation.now + delay()
      connection.lastRequest = max(connection.lastRequest, arrival)
      connection.lastReply = max(connection.lastReply, arrival)
      for event in stalled { simulation.schedule(event, at: arrival) }
    }
  }
}
