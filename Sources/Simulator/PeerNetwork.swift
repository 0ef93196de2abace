// The network between nodes. Every node dials every other and sends on what it dialled, as the
// server's `PeerLinks` does, so a pair has two connections that live and die each for itself. Within
// a connection order holds; across connections nothing does. A cut link delays what TCP would send
// again; who waits too long hangs up.

import Base
import Consensus
import Node

/// One connection, dialled by `from` to speak to `to`.
final class PeerConnection {
  let number: Int
  let from: Int
  let to: Int
  let fromLife: Int
  let toLife: Int
  enum Flying {
    case envelope(PeerEnvelope)
    case end
  }
  var flight = RingBuffer<Flying>()
  /// Arrivals that found the link cut; they come when it heals.
  var stalled = 0
  var stalledSince: UInt64?
  var lastArrival: UInt64 = 0
  /// What is on its way is stuck until then, or until there is a newer connection.
  var heldUntil: UInt64 = 0
  var isUp = false
  var isOpenAtDialler = true
  var isOpenAtListener = true
  /// The listener knows who dialled.
  var isIntroduced = false

  init(_ number: Int, from: Int, to: Int, fromLife: Int, toLife: Int) {
    self.number = number
    self.from = from
    self.to = to
    self.fromLife = fromLife
    self.toLife = toLife
  }
}

final class PeerNetwork {
  unowned(unsafe) let simulation: Simulation
  private let nodes: Int
  private var connections: [Int: PeerConnection] = [:]
  private var nextNumber = 1
  /// By dialler and listener.
  private var dialled: [PeerConnection?]
  private var accepted: [PeerConnection?]
  private var members: [UInt64]
  /// Who dialled a node and is no member that it knows of: dialled back, as `PeerLinks` does.
  private var guests: [UInt64]
  private var pauses: [UInt64]
  /// Messages from one place to another do not get through.
  private var cuts: [Bool]
  /// Messages take this many times as long.
  private var clogs: [UInt64]
  /// What was done to links, by number: each counts once, when it first holds a message up.
  private var troubles: [(kind: Happening, hasHit: Bool)] = []
  /// The trouble that cut or clogged each link last.
  private var cutBy: [Int]
  private var cloggedBy: [Int]

  init(_ simulation: Simulation, nodes: Int) {
    self.simulation = simulation
    self.nodes = nodes
    let pairs = nodes * nodes
    dialled = Array(repeating: nil, count: pairs)
    accepted = Array(repeating: nil, count: pairs)
    members = Array(repeating: 0, count: nodes)
    guests = Array(repeating: 0, count: nodes)
    pauses = Array(repeating: 20, count: pairs)
    cuts = Array(repeating: false, count: pairs)
    clogs = Array(repeating: 1, count: pairs)
    cutBy = Array(repeating: 0, count: pairs)
    cloggedBy = Array(repeating: 0, count: pairs)
  }

  private func pair(_ from: Int, _ to: Int) -> Int { from * nodes + to }

  // MARK: Weather

  func isCut(_ from: Int, _ to: Int) -> Bool { cuts[pair(from, to)] }

  /// Something that is going to cut or clog links.
  func beginTrouble(_ kind: Happening) -> Int {
    troubles.append((kind, false))
    return troubles.count - 1
  }

  private func hit(_ trouble: Int) {
    guard !troubles[trouble].hasHit else { return }
    troubles[trouble].hasHit = true
    simulation.note(troubles[trouble].kind)
  }

  func cut(_ from: Int, _ to: Int, by trouble: Int) {
    cuts[pair(from, to)] = true
    cutBy[pair(from, to)] = trouble
  }

  /// The link is whole again; what waited sets out anew.
  func mend(_ from: Int, _ to: Int) {
    guard isCut(from, to) else { return }
    cuts[pair(from, to)] = false
    for number in connections.keys.sorted() {
      guard let connection = connections[number], connection.from == from, connection.to == to
      else { continue }
      release(connection)
    }
  }

  private func release(_ connection: PeerConnection) {
    connection.stalledSince = nil
    let waiting = connection.stalled
    connection.stalled = 0
    for _ in 0..<waiting { scheduleArrival(connection) }
  }

  func clog(_ from: Int, _ to: Int, _ factor: UInt64, by trouble: Int) {
    clogs[pair(from, to)] = factor
    cloggedBy[pair(from, to)] = trouble
  }

  var hasTrouble: Bool { cuts.contains(true) || clogs.contains { $0 > 1 } }

  /// All links are whole again; what waited sets out anew.
  func heal() {
    for place in cuts.indices {
      cuts[place] = false
      clogs[place] = 1
    }
    for number in connections.keys.sorted() {
      guard let connection = connections[number] else { continue }
      release(connection)
    }
  }

  // MARK: Dialling

  func setMembers(_ membership: Membership, of place: Int) {
    let before = members[place]
    var mask: UInt64 = 0
    for member in membership.members where member.id != simulation.id(place) {
      mask |= 1 << UInt64(simulation.place(member.id))
    }
    // One that left and still speaks to this node may want an answer, as in `PeerLinks.leave`.
    for other in 0..<nodes where members[place] & ~mask & (1 << UInt64(other)) != 0 {
      if accepted[pair(other, place)] != nil { guests[place] |= 1 << UInt64(other) }
    }
    members[place] = mask
    for other in 0..<nodes where mask & ~before & (1 << UInt64(other)) != 0 {
      simulation.schedule(.dial(place, other), at: simulation.now)
    }
  }

  /// A process began: it dials everybody.
  func begin(_ place: Int, _ membership: Membership) {
    members[place] = 0
    for other in 0..<nodes { pauses[pair(place, other)] = 20 }
    setMembers(membership, of: place)
  }

  func dial(_ from: Int, _ to: Int) {
    let place = pair(from, to)
    guard let life = simulation.nodes[from].life, life.isTakingPart,
      (members[from] | guests[from]) & (1 << UInt64(to)) != 0, dialled[place] == nil
    else { return }
    let pause = UInt64.milliseconds(pauses[place])
    pauses[place] = min(500, pauses[place] * 2)
    guard let other = simulation.nodes[to].life, other.isTakingPart, !isCut(from, to),
      !isCut(to, from)
    else {
      simulation.schedule(.dial(from, to), at: simulation.now + pause)
      return
    }
    let connection = PeerConnection(
      nextNumber, from: from, to: to, fromLife: life.number, toLife: other.number)
    nextNumber += 1
    dialled[place] = connection
    connections[connection.number] = connection
    simulation.schedule(
      .peerUp(connection.number), at: simulation.now + delay(from, to) + delay(to, from))
  }

  func up(_ number: Int) {
    guard let connection = connections[number], connection.isOpenAtDialler,
      let life = simulation.nodes[connection.from].life, life.number == connection.fromLife
    else { return }
    guard let other = simulation.nodes[connection.to].life, other.number == connection.toLife,
      other.isTakingPart
    else {
      hangUp(connection, tellsListener: false)
      return
    }
    connection.isUp = true
    releaseFormer(connection)
    pauses[pair(connection.from, connection.to)] = 20
    put(.envelope(.introduction(life.replica.introduction)), into: connection)
    // One that stands still hears of it later.
    let hears = life.blockedUntil <= simulation.now
    life.receive(.peerConnected(connection.to))
    if hears { simulation.checks.connected(life, to: other) }
  }

  // MARK: Sending

  /// A bit for each node id whose connection takes more.
  func peersWithRoom(from: Int) -> UInt64 {
    var mask: UInt64 = 0
    for to in 0..<nodes {
      guard let connection = dialled[pair(from, to)], connection.isUp,
        connection.isOpenAtDialler, connection.flight.count < 256
      else { continue }
      mask |= 1 << UInt64(simulation.id(to).rawValue)
    }
    return mask
  }

  func isConnected(_ from: Int, to: Int) -> Bool {
    guard let connection = dialled[pair(from, to)] else { return false }
    return connection.isUp && connection.isOpenAtDialler
  }

  /// For whoever has to find out why nothing goes on.
  func describe(from: Int, to: Int) -> String {
    guard let connection = dialled[pair(from, to)] else { return "not connected" }
    return "connection \(connection.number) with \(connection.flight.count) on their way"
      + (connection.isUp ? "" : ", not up") + (connection.isOpenAtListener ? "" : ", one-sided")
      + (isCut(from, to) ? ", cut" : "")
      + (connection.stalled > 0 ? ", \(connection.stalled) stalled" : "")
  }

  func send(_ envelope: PeerEnvelope, from: Int, to: Int) {
    guard let connection = dialled[pair(from, to)], connection.isUp, connection.isOpenAtDialler,
      connection.flight.count < 1024
    else { return }
    let frame = PeerConnection.Flying.envelope(simulation.throughCodec(envelope))
    put(frame, into: connection)
    if arrivesTwice(envelope) {
      simulation.note(.framesRepeated)
      put(frame, into: connection)
    }
  }

  /// TCP repeats nothing, but a node does: who is asked again after a reconnection has the question
  /// twice and answers twice. Thesis §3.8 wants every message to be harmless when it is repeated. Pieces
  /// of a snapshot are left out: each is asked for by the answer to the one before, so one that came twice
  /// would make two of all that follow.
  private func arrivesTwice(_ envelope: PeerEnvelope) -> Bool {
    let share = simulation.plan.repeatPermille
    guard share > 0, case .consensus(let message, _) = envelope else { return false }
    return switch message {
    case .preVote, .preVoteReply, .vote, .voteReply, .timeoutNow:
      simulation.laterChance.permille(share * 20)
    case .append, .appendReply: simulation.laterChance.permille(share)
    case .snapshot, .snapshotReply: false
    }
  }

  private func put(_ flying: PeerConnection.Flying, into connection: PeerConnection) {
    connection.flight.append(flying)
    scheduleArrival(connection)
  }

  private func scheduleArrival(_ connection: PeerConnection) {
    let place = pair(connection.from, connection.to)
    if clogs[place] > 1 { hit(cloggedBy[place]) }
    let arrival = simulation.now + delay(connection.from, connection.to)
    connection.lastArrival = max(connection.lastArrival, arrival)
    simulation.schedule(.peerArrival(connection.number), at: connection.lastArrival)
  }

  private func delay(_ from: Int, _ to: Int) -> UInt64 {
    var delay = simulation.chance.skewed(simulation.plan.delay) * clogs[pair(from, to)]
    if simulation.chance.permille(simulation.lossPermille) {
      // TCP sends again what was lost.
      simulation.note(.lostPackets)
      delay += .milliseconds(simulation.chance.within(200...800))
    }
    return delay
  }

  func arrive(_ number: Int) {
    guard let connection = connections[number] else { return }
    if isCut(connection.from, connection.to) {
      hit(cutBy[pair(connection.from, connection.to)])
      connection.stalled += 1
      if connection.stalledSince == nil {
        connection.stalledSince = simulation.now
        simulation.schedule(
          .peerSilence(number), at: simulation.now + simulation.plan.silence)
      }
      return
    }
    if connection.heldUntil > simulation.now {
      connection.stalled += 1
      return
    }
    guard let flying = connection.flight.popFirst() else { return }
    guard simulation.nodes[connection.to].isPowered else {
      // Nobody answers: only patience ends this.
      if connection.isOpenAtDialler, connection.stalledSince == nil {
        connection.stalledSince = simulation.now
        simulation.schedule(.peerSilence(number), at: simulation.now + simulation.plan.silence)
      }
      return
    }
    guard connection.isOpenAtListener, let life = simulation.nodes[connection.to].life,
      life.number == connection.toLife
    else {
      // Nobody there: the dialler hears of it.
      if connection.isOpenAtDialler { reset(connection) }
      return
    }
    switch flying {
    case .end: closeAtListener(connection, life)
    case .envelope(let envelope): deliver(envelope, over: connection, to: life)
    }
  }

  private func deliver(
    _ envelope: PeerEnvelope, over connection: PeerConnection, to life: NodeLife
  ) {
    if !connection.isIntroduced {
      connection.isIntroduced = true
      let place = pair(connection.from, connection.to)
      // The newer connection counts; the older one may not have noticed yet that it is dead.
      if let older = accepted[place], older !== connection {
        older.isOpenAtListener = false
        if older.isOpenAtDialler { reset(older) }
      }
      accepted[place] = connection
    }
    if !connection.isOpenAtDialler { noteLateFrame(over: connection) }
    if case .introduction(let introduction) = envelope {
      answer(introduction, connection.to, from: connection.from)
    }
    life.receive(.envelope(envelope, from: connection.from))
  }

  private func answer(_ introduction: Introduction, _ place: Int, from other: Int) {
    let bit = UInt64(1) << UInt64(other)
    guard !introduction.peerAddress.isEmpty, (members[place] | guests[place]) & bit == 0 else {
      return
    }
    if introduction.peerAddress != simulation.member(other).peerAddress {
      simulation.violated("introduction", "node \(other + 1) says \(introduction.peerAddress)")
    }
    guests[place] |= bit
    simulation.schedule(.dial(place, other), at: simulation.now)
  }

  // MARK: Stragglers

  // Order holds within a connection, and the listener closes the older of two connections of one
  // dialler when the newer is introduced (`PeerLinks.take`): what was sent is seen once on each
  // connection, in order, and never after the newer one's introduction. Before it, what a connection
  // still carries that was given up may arrive late, when the listener has dialled the other's next
  // process already: consensus has to tell by itself that this is of a former time
  // (`Progress.roundAtConnection`), and that it gets again what was sent again.

  /// What is on its way and what is sent from now on is stuck. Nil without a connection.
  func hold(_ from: Int, _ to: Int, until time: UInt64) -> Int? {
    guard let connection = dialled[pair(from, to)], connection.isUp else { return nil }
    connection.heldUntil = time
    simulation.schedule(.peerRelease(connection.number), at: time)
    return connection.number
  }

  /// Who dialled the connection, if it is still there and something is stuck on it.
  func diallerOfHeld(_ number: Int) -> Int? {
    guard let connection = connections[number], connection.isUp, connection.stalled > 0,
      connection.heldUntil > simulation.now
    else { return nil }
    return connection.from
  }

  func giveUp(_ number: Int) {
    if let connection = connections[number] { hangUp(connection, tellsListener: true) }
  }

  /// There is a newer connection between two nodes: what is stuck on its way from either to the other
  /// may come at any time now, before the newer one's introduction or after it.
  private func releaseFormer(_ newer: PeerConnection) {
    guard simulation.plan.isHarsher else { return }
    for number in connections.keys.sorted() {
      guard let former = connections[number], former !== newer,
        former.heldUntil > simulation.now, !former.isOpenAtDialler,
        former.from == newer.from && former.to == newer.to
          || former.from == newer.to && former.to == newer.from
      else { continue }
      simulation.schedule(
        .peerRelease(number),
        at: simulation.now + simulation.laterChance.skewed(0...simulation.plan.delay.upperBound))
    }
  }

  func releaseHeld(_ number: Int) {
    guard let connection = connections[number], connection.heldUntil > 0 else { return }
    connection.heldUntil = 0
    if !isCut(connection.from, connection.to) { release(connection) }
  }

  /// A frame of a connection that its dialler has given up.
  private func noteLateFrame(over connection: PeerConnection) {
    let (from, to) = (connection.from, connection.to)
    guard let sender = simulation.nodes[from].life else { return }
    if sender.number != connection.fromLife {
      guard isConnected(to, to: from), dialled[pair(to, from)]?.toLife == sender.number else {
        return
      }
      simulation.note(.framesOfFormerLives)
    } else if isConnected(from, to: to) {
      simulation.note(.framesAfterNewConnection)
    }
  }

  // MARK: Ends

  private func closeAtListener(_ connection: PeerConnection, _ life: NodeLife) {
    connection.isOpenAtListener = false
    forget(connection)
    let place = pair(connection.from, connection.to)
    guard accepted[place] === connection else { return }
    accepted[place] = nil
    guests[connection.to] &= ~(1 << UInt64(connection.from))
    life.receive(.peerDisconnected(connection.from))
    // The other direction may live on: then the peer is still there.
    if let back = dialled[pair(connection.to, connection.from)], back.isUp, back.isOpenAtDialler {
      life.receive(.peerConnected(connection.from))
    }
  }

  /// The dialler learns, a little later, that nobody is there.
  private func reset(_ connection: PeerConnection) {
    simulation.schedule(
      .peerReset(connection.number), at: simulation.now + delay(connection.to, connection.from))
  }

  /// The connection ends for the dialler, unless nothing can reach it.
  func resetArrived(_ number: Int) {
    guard let connection = connections[number], connection.isOpenAtDialler else { return }
    if isCut(connection.to, connection.from) {
      simulation.schedule(.peerReset(number), at: simulation.now + .milliseconds(200))
      return
    }
    hangUp(connection, tellsListener: false)
  }

  /// Nothing got through for long: the dialler gives up.
  func silence(_ number: Int) {
    guard let connection = connections[number], connection.isOpenAtDialler,
      let since = connection.stalledSince, simulation.now >= since + simulation.plan.silence
    else { return }
    hangUp(connection, tellsListener: true)
  }

  private func hangUp(_ connection: PeerConnection, tellsListener: Bool) {
    let wasUp = connection.isUp
    connection.isOpenAtDialler = false
    connection.isUp = false
    let place = pair(connection.from, connection.to)
    if dialled[place] === connection { dialled[place] = nil }
    if tellsListener {
      put(.end, into: connection)
    } else {
      connection.isOpenAtListener = false
      forget(connection)
    }
    guard let life = simulation.nodes[connection.from].life, life.number == connection.fromLife
    else { return }
    simulation.schedule(
      .dial(connection.from, connection.to),
      at: simulation.now + .milliseconds(pauses[place]))
    if wasUp { life.receive(.peerDisconnected(connection.to)) }
  }

  private func forget(_ connection: PeerConnection) {
    if !connection.isOpenAtDialler && !connection.isOpenAtListener {
      connections[connection.number] = nil
    }
  }

  /// A connection breaks in the middle: each side hears of it in its own time.
  ///
  /// - Returns: whether there was one.
  func breakConnection(_ from: Int, _ to: Int) -> Bool {
    guard let connection = dialled[pair(from, to)], connection.isUp else { return false }
    connection.flight.removeAll()
    hangUp(connection, tellsListener: true)
    return true
  }

  /// The process ended. A killed one closes its connections at once; one without power says
  /// nothing, and the others find out when they speak to it.
  func closeAll(of place: Int, isSilent: Bool) {
    for other in 0..<nodes {
      if let out = dialled[pair(place, other)] {
        dialled[pair(place, other)] = nil
        out.isOpenAtDialler = false
        out.isUp = false
        if isSilent { out.flight.removeAll() } else { put(.end, into: out) }
      }
      accepted[pair(other, place)] = nil
      if let back = dialled[pair(other, place)] {
        back.isOpenAtListener = false
        if !isSilent { reset(back) } else { back.stalledSince = nil }
      }
    }
    members[place] = 0
    guests[place] = 0
  }

  /// The machine runs again: what still speaks to its former life is told off.
  func answerFormerLife(of place: Int) {
    for other in 0..<nodes {
      if let back = dialled[pair(other, place)], !back.isOpenAtListener { reset(back) }
    }
  }
}
