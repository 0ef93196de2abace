// AMQP connections come, go, and are late.

import AMQP
import Base
import Node
import QueueMachine
import Transport

extension AMQPGateway {
  mutating func accept(now: MonotonicTime) {
    guard let listener else { return }
    var accepted: [Connection] = []
    let outcome = listener.accept(
      limit: ClientGatewayLimits.acceptsPerTurn, options: connectionOptions, pool: pool, now: now,
      into: &accepted)
    for connection in accepted { admit(connection, now: now) }
    if case .outOfDescriptors(refused: 0) = outcome {
      poller.modify(listener.descriptor, token: Self.listenerToken, interest: [])
      acceptPausedUntil = now + ClientGatewayLimits.acceptPause
    }
  }

  private mutating func admit(_ connection: Connection, now: MonotonicTime) {
    counters.accepted += 1
    let token = nextToken
    nextToken += 1
    guard clients.count < configuration.limits.connections else {
      counters.refusedConnections += 1
      connection.close()
      return
    }
    do {
      try connection.register(with: poller, token: token, interest: .read)
    } catch {
      counters.refusedConnections += 1
      connection.close()
      return
    }
    let machine = ConnectionMachine(settings: settings, seed: .random(in: 1 ... .max), now: now)
    let client = AMQPClient(connection, token: token, machine: machine, now: now)
    clients.insert(client, for: token)
    sweepBy(client.machine.nextDeadline)
  }

  /// The machine has said its last word.
  mutating func beginEnd(of client: AMQPClient, now: MonotonicTime) {
    guard client.phase == .open else { return }
    leaveSession(client)
    client.phase = .lastWords
    countBegun(client)
    client.lingerDeadline = now + ClientGatewayLimits.lingerTime
    sweepBy(client.lingerDeadline)
    client.connection.consume(client.connection.unreadBytes)
    touch(client)
  }

  /// Closes a connection at once; what it holds goes back.
  mutating func drop(_ client: AMQPClient) {
    guard client.phase != .closed else { return }
    leaveSession(client)
    client.phase = .closed
    countBegun(client)
    clients.remove(client.token)
    client.outbox.removeAll()
    client.waitingGets.removeAll()
    client.connection.close()
    output.count(client.connection, &client.countedOutput)
  }

  /// The session ends with its connection: lost, unless the client closed it and that is on its way.
  private mutating func leaveSession(_ client: AMQPClient) {
    switch client.session {
    case .open(let session):
      relay.append { CommandWriter.loseSession(session, into: &$0) }
      sessions.remove(session.rawValue)
      needsTurn = true
    case .closing(let session, _):
      sessions.remove(session.rawValue)
    case .none, .opening, .ended:
      // One that is being opened is ended when the machine of queues says that it is open.
      break
    }
    client.session = .ended
    if reads.count > 0 { someReadersAreGone = true }
  }

  func origin(of client: AMQPClient) -> SessionOrigin {
    SessionOrigin(node: configuration.node, connection: client.token)
  }

  // MARK: Time

  var nextDeadline: MonotonicTime {
    if wantsTurn { return MonotonicTime(0) }
    return min(
      nextSweep, acceptPausedUntil ?? .never, deliverRetry,
      min(relay.nextDeadline, reads.nextDeadline, output.deadline))
  }

  /// What was gathered behind the last `passOn` has to go.
  var wantsTurn: Bool { needsTurn || relay.isOpen }

  /// Time passed. To be called in every turn before `passOn`.
  mutating func tick(now: MonotonicTime, replica: inout Replica) {
    needsTurn = false
    output.beginTurn()
    if let until = acceptPausedUntil, now >= until {
      acceptPausedUntil = nil
      if let listener {
        poller.modify(listener.descriptor, token: Self.listenerToken, interest: .read)
      }
    }
    relay.tick(now: now)
    if now >= nextSweep { sweep(now: now) }
    forgetReadsOfGone()
    resumePaused(now: now, replica: &replica)
    carryOutDeferred(now: now, replica: &replica)
  }

  private mutating func sweep(now: MonotonicTime) {
    beginSweep(now: now)
    for token in clients.sortedKeys {
      guard let client = clients[token] else { continue }
      sweep(client, now: now)
      guard client.phase != .closed else { continue }
      let deadline =
        client.phase == .open ? client.machine.nextDeadline : client.lingerDeadline
      sweepBy(deadline)
    }
  }

  /// Without a leader nothing else would remove what those have asked who come and go, or are late.
  private mutating func forgetReadsOfGone() {
    guard someReadersAreGone else { return }
    someReadersAreGone = false
    let clients = clients
    reads.keep { clients[$0.client]?.phase == .open }
  }

  private mutating func sweep(_ client: AMQPClient, now: MonotonicTime) {
    if let stalled = client.connection.stalledSince,
      now.since(stalled) >= configuration.timeouts.silentConnection
    {
      drop(client)
      return
    }
    guard client.phase == .open else {
      if client.lingerDeadline <= now { drop(client) }
      return
    }
    guard client.machine.nextDeadline <= now else { return }
    let isReading = !client.isPaused
    say(to: client) { machine, output, requests in
      machine.tick(now: now, isReading: isReading, output: &output, requests: &requests)
    }
    if client.phase == .open, client.machine.state == .finished { beginEnd(of: client, now: now) }
  }

  // MARK: Stopping

  /// Tells everybody to go elsewhere: what clients retry on.
  mutating func beginShutdown(now: MonotonicTime, replica: inout Replica) {
    guard !isStopping else { return }
    isStopping = true
    listener = nil
    acceptPausedUntil = nil
    // Nobody may be there any more to answer them, and their deadlines would keep the loop awake.
    reads.forget()
    closeAll(.forced("the node is stopping"), now: now, replica: &replica)
  }

  mutating func closeAll(_ fault: Fault, now: MonotonicTime, replica: inout Replica) {
    for token in clients.sortedKeys {
      guard let client = clients[token], client.phase == .open else { continue }
      say(to: client) { machine, output, requests in
        machine.close(fault, now: now, output: &output, requests: &requests)
      }
    }
    carryOutDeferred(now: now, replica: &replica)
    needsTurn = true
  }

  /// Whether nobody waits for anything any more.
  var isDrained: Bool { clients.isEmpty }

  /// What this node applied was replaced as a whole (a snapshot), so that what its sessions should
  /// have been told is not known: all of them end, and a new stream of commands begins.
  mutating func startAnew(now: MonotonicTime, replica: inout Replica) {
    guard !sessions.isEmpty || relay.isInUse else { return }
    for token in clients.sortedKeys {
      guard let client = clients[token] else { continue }
      client.session = .ended
      client.removeRuns()
      client.waitingBytes = 0
      client.awaited.removeAll()
      client.outbox.removeAll()
      client.forgetCancelling()
      client.waitingGets.removeAll()
    }
    sessions.removeAll()
    reads.forget()
    relay.restart(process: .random(in: 1 ... .max))
    relay.append { _ in }
    closeAll(.forced("the node was replaced from a snapshot"), now: now, replica: &replica)
  }
}
