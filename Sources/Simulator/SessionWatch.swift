// When sessions may end (G7). What the queues themselves show of each, entry by entry on whichever replica
// is there first, says when it was attached last: it may end only its timeout after that, by the queues'
// own time, since no client of a simulation closes one.

import Base
import QueueMachine

struct SessionWatch {
  /// What the queues show of a session.
  enum Sight { case attached, detached, gone }

  private struct Watched {
    let session: SessionID
    let timeout: Nanoseconds
    /// The newest time at which it was seen attached.
    var attachedAt = MachineTime.zero
  }

  private var watched: [Watched] = []
  /// Only looked up, so its order decides nothing.
  private var over: Set<SessionID> = []

  mutating func opened(_ session: SessionID, timeout: Nanoseconds) {
    guard !over.contains(session), !watched.contains(where: { $0.session == session }) else {
      return
    }
    watched.append(Watched(session: session, timeout: timeout))
  }

  func isOver(_ session: SessionID) -> Bool { over.contains(session) }

  /// Takes what the queues show as of `clock`, which never goes back.
  ///
  /// - Returns: what is wrong, nil if nothing is.
  mutating func look(at clock: MachineTime, _ sight: (SessionID) -> Sight) -> String? {
    var fault: String?
    for place in watched.indices.reversed() {
      switch sight(watched[place].session) {
      case .attached: watched[place].attachedAt = clock
      case .detached: break
      case .gone:
        let gone = watched.remove(at: place)
        over.insert(gone.session)
        let earliest = gone.attachedAt + gone.timeout
        if clock < earliest {
          fault =
            "session \(gone.session) is over at \(clock): it was attached at \(gone.attachedAt), and"
            + " may stay away until \(earliest)"
        }
      }
    }
    return fault
  }
}
