// What time does to connections: a client that does not introduce itself, says nothing, or does not
// read is closed, not waited for (G13).

import Base
import Node
import Wire

extension ClientGateway {
  /// When the loop should turn again at the latest; 0 is at once.
  var nextDeadline: MonotonicTime {
    if needsTurn { return MonotonicTime(0) }
    return min(nextSweep, acceptPausedUntil ?? .never, deliverRetry, output.deadline)
  }

  /// Time passed. To be called in every turn before `finishTurn`.
  mutating func tick(now: MonotonicTime, replica: inout Replica) {
    needsTurn = false
    output.beginTurn()
    noticeLeadership(of: &replica, now: now)
    resumeAccepting(now: now)
    if now >= nextSweep { sweep(now: now) }
    submitDetaches(to: &replica, now: now)
    resumePaused(now: now, replica: &replica)
  }

  /// Looks through all connections. Deadlines mostly move on before they come, so this is rare.
  private mutating func sweep(now: MonotonicTime) {
    nextSweep = .never
    for token in clients.sortedKeys {
      guard let client = clients[token] else { continue }
      if deadline(of: client) <= now { closeLate(client, now: now) }
      if client.phase != .closed { nextSweep = min(nextSweep, deadline(of: client)) }
    }
  }

  private func deadline(of client: ClientConnection) -> MonotonicTime {
    let patience = configuration.timeouts.silentConnection
    switch client.phase {
    case .preamble, .hello:
      return client.acceptedAt + configuration.timeouts.handshake
    case .open, .draining:
      let stalled = client.connection.stalledSince.map { $0 + patience } ?? .never
      // Of one that is paused nothing can be heard.
      guard client.pause == .none else { return stalled }
      return min(stalled, max(client.connection.lastReadTime, client.resumedAt) + patience)
    case .lastWords, .lingering:
      return client.lingerDeadline
    case .closed:
      return .never
    }
  }

  private mutating func closeLate(_ client: ClientConnection, now: MonotonicTime) {
    switch client.phase {
    case .hello:
      counters.faults += 1
      end(client, .malformedRequest, "no hello came in time", now: now)
    case .open, .draining:
      counters.faults += 1
      let patience = configuration.timeouts.silentConnection
      if let stalled = client.connection.stalledSince, stalled + patience <= now {
        // It reads nothing, so it would not read why either.
        drop(client)
      } else {
        let span = DurationText.format(patience)
        end(client, .malformedRequest, "nothing was heard for \(span), not even a ping", now: now)
      }
    case .preamble, .lastWords, .lingering, .closed:
      drop(client)
    }
  }
}
