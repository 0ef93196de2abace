// Connections come and go.

import Base
import Node
import QueueMachine
import Transport
import Wire

extension ClientGateway {
  mutating func accept(now: MonotonicTime) {
    guard let listener else { return }
    var accepted: [Connection] = []
    let outcome = listener.accept(
      limit: ClientGatewayLimits.acceptsPerTurn, options: connectionOptions, pool: pool, now: now,
      into: &accepted)
    for connection in accepted { admit(connection, now: now) }
    if case .outOfDescriptors(refused: 0) = outcome {
      // They wait in the kernel's queue meanwhile, and the loop has other things to do.
      poller.modify(listener.descriptor, token: Self.listenerToken, interest: [])
      acceptPausedUntil = now + ClientGatewayLimits.acceptPause
    }
  }

  mutating func resumeAccepting(now: MonotonicTime) {
    guard let until = acceptPausedUntil, now >= until else { return }
    acceptPausedUntil = nil
    if let listener {
      poller.modify(listener.descriptor, token: Self.listenerToken, interest: .read)
    }
  }

  private mutating func admit(_ connection: Connection, now: MonotonicTime) {
    counters.accepted += 1
    let isOver = connectionCount >= configuration.limits.connections
    if isOver {
      counters.refusedConnections += 1
      guard endingCount < ClientGatewayLimits.lingeringConnections else {
        connection.close()
        return
      }
    }
    let token = nextToken
    nextToken += 1
    do {
      try connection.register(with: poller, token: token, interest: .read)
    } catch {
      // The kernel watches no more descriptors: as good as a limit of ours.
      counters.refusedConnections += 1
      connection.close()
      return
    }
    let client = ClientConnection(connection, token: token, now: now)
    clients.insert(client, for: token)
    nextSweep = min(nextSweep, now + configuration.timeouts.handshake)
    if isOver {
      let limit = configuration.limits.connections
      end(client, .overloaded, "this node takes \(limit) connections, and has them", now: now)
    }
  }

  /// Closes a connection behind a refusal that says why.
  mutating func end(
    _ client: ClientConnection, _ refusal: Refusal, _ detail: String, now: MonotonicTime
  ) {
    // A leader that is stopping sends nobody to itself.
    let namesLeader = refusal == .notLeader || (refusal == .shuttingDown && !knownIsLeader)
    let leader = namesLeader ? knownLeaderAddress : ""
    send(.refused(refusal, detail: detail, leader: leader), to: client)
    beginEnd(of: client, now: now)
  }

  /// Closes a connection behind a line of text, for one who does not speak frames.
  mutating func end(_ client: ClientConnection, line: String, now: MonotonicTime) {
    guard client.takesAnswers else { return }
    if client.connection.append([UInt8](line.utf8)) { touch(client) }
    beginEnd(of: client, now: now)
  }

  /// The last words are written: nothing else is taken or said.
  private mutating func beginEnd(of client: ClientConnection, now: MonotonicTime) {
    guard client.takesAnswers else { return }
    leaveSession(client)
    client.phase = .lastWords
    client.pause = .none
    countBegun(client)
    client.lingerDeadline = now + ClientGatewayLimits.lingerTime
    nextSweep = min(nextSweep, client.lingerDeadline)
    endingCount += 1
    touch(client)
  }

  /// Closes a connection at once. Nothing is lost with it: its session goes on elsewhere.
  mutating func drop(_ client: ClientConnection) {
    guard client.phase != .closed else { return }
    leaveSession(client)
    if client.isEnding { endingCount -= 1 }
    client.phase = .closed
    client.pause = .none
    countBegun(client)
    clients.remove(client.token)
    client.connection.close()
    output.count(client.connection, &client.countedOutput)
  }

  /// The session has no connection any more; its timeout begins (G7).
  private mutating func leaveSession(_ client: ClientConnection) {
    switch client.session {
    case .attached(let session), .closing(_, let session):
      sessions.remove(session.rawValue)
      detaching.append((session, origin(of: client)))
      needsTurn = true
    case .none, .opening, .attaching, .lost:
      // One that is being opened or attached is detached when the machine says that it is.
      break
    }
    client.loseSession()
  }

  func origin(of client: ClientConnection) -> SessionOrigin {
    SessionOrigin(node: configuration.node, connection: client.token)
  }

  /// Tells the machine of sessions that lost their connections. Without regard to room: these are
  /// few bytes, and what a session holds would wait for ever if it was not told.
  mutating func submitDetaches(to replica: inout Replica, now: MonotonicTime) {
    guard !detaching.isEmpty else { return }
    if replica.isLeader {
      for (session, origin) in detaching {
        replica.submit(now: now) {
          CommandWriter.detachSession(session, origin: origin, into: &$0)
        }
      }
    }
    // Else the next leader's first command detaches all sessions of native clients.
    detaching.removeAll(keepingCapacity: true)
  }
}
