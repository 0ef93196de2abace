// The node stops: nobody is accepted, nothing new is taken, what was taken is answered, and everyone
// is told to go elsewhere.

import Base
import Node
import Wire

extension ClientGateway {
  /// Begins to close all connections, each as soon as it has its answers.
  mutating func beginShutdown(now: MonotonicTime) {
    guard !isStopping else { return }
    isStopping = true
    listener = nil
    acceptPausedUntil = nil
    for token in clients.sortedKeys {
      guard let client = clients[token] else { continue }
      switch client.phase {
      case .preamble: drop(client)
      case .hello, .open: beginDraining(client, now: now)
      case .draining, .lastWords, .lingering, .closed: break
      }
    }
    needsTurn = true
  }

  mutating func beginDraining(_ client: ClientConnection, now: MonotonicTime) {
    client.phase = .draining
    client.connection.consume(client.connection.unreadBytes)
    client.pause = .none
    if client.isAnswered { endForShutdown(client, now: now) }
  }

  /// Ends the connections that have had all their answers.
  mutating func endAnswered(now: MonotonicTime) {
    for token in clients.sortedKeys {
      guard let client = clients[token], client.phase == .draining, client.isAnswered
      else { continue }
      endForShutdown(client, now: now)
    }
  }

  private mutating func endForShutdown(_ client: ClientConnection, now: MonotonicTime) {
    end(client, .shuttingDown, "this node is stopping", now: now)
  }

  /// Whether nobody waits for anything any more: all were answered and told. What the kernel has
  /// not sent yet it sends also when the process is gone.
  var isDrained: Bool {
    guard isStopping else { return false }
    return clients.sortedKeys.allSatisfy { token in
      clients[token].map { $0.isEnding && $0.connection.pendingBytes == 0 } ?? true
    }
  }
}
