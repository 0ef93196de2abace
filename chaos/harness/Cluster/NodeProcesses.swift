// The processes of a run that nobody has waited for yet. Whatever happens to the run, they can be
// ended: by the actor that owns them, in order, or from a signal's handler, at once.

import Glibc
import Synchronization

final class NodeProcesses: Sendable {
  private struct State {
    var running: Set<Int32> = []
    /// All were killed for good: none begins any more.
    var isOver = false
  }

  private let state = Mutex(State())

  /// Starts one, unless all is over.
  func start(_ launch: () throws -> Int32) throws -> Int32 {
    try state.withLock { state in
      if state.isOver { throw ChaosError("the run was ended") }
      let pid = try launch()
      state.running.insert(pid)
      return pid
    }
  }

  /// The status of waitpid(2) that it ended with; nil while it runs.
  func endStatus(_ pid: Int32) -> Int32? {
    // Under the lock: a process id that nobody waits for any more may be another's.
    state.withLock { state in
      var status: Int32 = 0
      if waitpid(pid, &status, WNOHANG) == 0 { return nil }
      state.running.remove(pid)
      return status
    }
  }

  /// SIGKILL for all of them, for ever.
  func killAll() {
    state.withLock { state in
      state.isOver = true
      for pid in state.running { kill(pid, SIGKILL) }
    }
  }
}
