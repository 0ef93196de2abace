// Everything that happens in a run passes here: the history goes to its file as it grows, and what
// the report and the progress line show is counted on the way. Memory grows with the length of the
// run, not with the number of messages.

import Base
import Glibc
import History
import Synchronization

package final class Recording: Sendable {
  package let clock: RunClock
  private let descriptor: Int32
  private let state: Mutex<State>

  private struct State {
    var recorder = HistoryRecorder()
    var series = TimeSeries()
    var totals = Totals()
    /// Since when producers wait for consumers; nil if they do not.
    var waitsSince: Nanoseconds?
    /// From then on nobody waits, though one may still look.
    var isPublishingOver = false
    /// Clients that were killed: what they still hear is recorded no more.
    var dead: Set<String> = []
    var failure: String?

    mutating func endWaiting(at now: Nanoseconds) {
      guard let since = waitsSince else { return }
      totals.waited = totals.waited + Nanoseconds(rawValue: now.rawValue - since.rawValue)
      waitsSince = nil
    }
  }

  /// So far.
  package struct Totals: Sendable {
    package var published: UInt64 = 0
    package var confirmed: UInt64 = 0
    package var unknown: UInt64 = 0
    package var delivered: UInt64 = 0
    package var acked: UInt64 = 0
    package var settledOtherwise: UInt64 = 0
    /// Settled by clients that hear no answer to it, as those of AMQP.
    package var settledUnanswered: UInt64 = 0
    /// How long producers published nothing, since consumers were too far behind.
    package var waited = Nanoseconds.zero
  }

  /// Bytes that are gathered before they are written.
  private static let chunkBytes = 256 << 10
  /// Confirmed messages that nobody has settled; draining more would take longer than the run.
  package static let backlogMax: UInt64 = 20_000
  private let backlogMax: UInt64

  /// - Parameters:
  ///   - path: of the history.
  ///   - backlogMax: confirmed and not settled messages from which on producers should wait.
  package init(
    path: String, clock: RunClock, backlogMax: UInt64 = Recording.backlogMax
  ) throws(ChaosError) {
    self.clock = clock
    self.backlogMax = backlogMax
    descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw .system(path) }
    state = Mutex(State())
  }

  deinit { close(descriptor) }

  /// Consumers are so far behind that producers should wait. They do as they are told: how long is
  /// counted, since a run that waits is not the run that was asked for.
  package var isBacklogged: Bool {
    state.withLock { state in
      let taken =
        state.totals.acked + state.totals.settledOtherwise + state.totals.settledUnanswered
      let isBehind = state.totals.confirmed > taken + backlogMax
      if isBehind, !state.isPublishingOver {
        state.waitsSince = state.waitsSince ?? clock.now
      } else {
        state.endWaiting(at: clock.now)
      }
      return isBehind
    }
  }

  /// Nobody publishes any more, or waits to do so.
  package func publishingEnded() {
    state.withLock { state in
      state.endWaiting(at: clock.now)
      state.isPublishingOver = true
    }
  }

  package var totals: Totals { state.withLock { $0.totals } }
  package var series: TimeSeries { state.withLock { $0.series } }

  // MARK: Operations

  /// - Returns: false if the process was killed: then the operation must not be done, since nobody
  ///   would know of it.
  package func invoke(_ operation: HistoryOperation, by process: String) -> Bool {
    record(process) { state, now in
      state.recorder.invoke(operation, by: process, at: now.rawValue)
      if operation.action == .publish { state.totals.published += 1 }
    }
  }

  /// - Parameter latency: of a publish, since its first invoke; nil where nobody measured it.
  package func ok(
    _ operation: HistoryOperation, by process: String, id: String? = nil,
    latency: Nanoseconds? = nil, lease: UInt64? = nil, settings: HistoryQueueSettings? = nil
  ) {
    record(process) { state, now in
      state.recorder.ok(
        operation, by: process, at: now.rawValue, id: id, lease: lease, settings: settings)
      switch operation.action {
      case .publish:
        state.totals.confirmed += 1
        state.series.confirmed(at: now, latency: latency)
      case .ack:
        state.totals.acked += 1
        state.series.acked(at: now)
      // What was handed back is taken off once more.
      case .reject: state.totals.settledOtherwise += 1
      default: break
      }
    }
  }

  package func fail(_ operation: HistoryOperation, by process: String, error: String) {
    record(process) { state, now in
      state.recorder.fail(operation, by: process, at: now.rawValue, error: error)
    }
  }

  /// - Parameter isTaken: it settles a message, and there is no answer that could say so.
  package func info(
    _ operation: HistoryOperation, by process: String, error: String, isTaken: Bool = false
  ) {
    record(process) { state, now in
      state.recorder.info(operation, by: process, at: now.rawValue, error: error)
      if operation.action == .publish { state.totals.unknown += 1 }
      if isTaken { state.totals.settledUnanswered += 1 }
    }
  }

  /// - Returns: as `invoke`.
  package func deliver(_ delivery: HistoryDelivery, to process: String) -> Bool {
    record(process) { state, now in
      state.recorder.deliver(delivery, to: process, at: now.rawValue)
      state.totals.delivered += 1
      state.series.delivered(at: now)
    }
  }

  // MARK: The nemesis

  package func nemesis(_ fault: String, value: String?, type: HistoryEventType) {
    record("nemesis") { state, now in
      state.recorder.nemesis(fault, value: value, type: type, at: now.rawValue)
    }
  }

  package func leaderChange(to leader: Int) {
    record("nemesis") { state, now in
      state.recorder.leaderChange(to: "node-\(leader)", at: now.rawValue)
    }
  }

  /// Of `process` nothing is recorded from now on. Call it before it is killed.
  package func clientKill(_ process: String) {
    record("nemesis") { state, now in
      state.recorder.clientKill(process, at: now.rawValue)
      state.dead.insert(process)
    }
  }

  /// - Parameter timeout: without a word for so long the cluster ends the session, and not before.
  package func sessionEnd(_ process: String, timeout: Nanoseconds? = nil) {
    record(process) { state, now in
      state.recorder.sessionEnd(process, timeout: timeout?.rawValue, at: now.rawValue)
      state.dead.insert(process)
    }
  }

  package func isDead(_ process: String) -> Bool { state.withLock { $0.dead.contains(process) } }

  // MARK: The file

  /// Writes what is still in memory.
  /// - Throws: also what went wrong while the run was on.
  package func finish() throws(ChaosError) {
    let failure = state.withLock { state in
      write(&state)
      return state.failure
    }
    if let failure { throw ChaosError(failure) }
  }

  /// - Returns: false if the process is dead and nothing was recorded.
  @discardableResult
  private func record(
    _ process: String, _ body: (inout State, Nanoseconds) -> Void
  ) -> Bool {
    state.withLock { state in
      guard !state.dead.contains(process) else { return false }
      // Read under the lock, so that times never fall.
      body(&state, clock.now)
      if state.recorder.bytes.count >= Self.chunkBytes { write(&state) }
      return true
    }
  }

  private func write(_ state: inout State) {
    let bytes = state.recorder.takeBytes()
    var offset = 0
    while offset < bytes.count {
      // SAFETY: write(2) only reads the bytes from the offset on.
      let count = bytes.withUnsafeBytes {
        Glibc.write(descriptor, $0.baseAddress.map { $0 + offset }, bytes.count - offset)
      }
      if count >= 0 {
        offset += count
      } else if errno != EINTR {
        state.failure = state.failure ?? "the history: \(String(cString: strerror(errno)))"
        return
      }
    }
  }
}

extension ChaosError {
  /// `what` failed for the reason in `errno`.
  static func system(_ what: String) -> ChaosError {
    ChaosError("\(what): \(String(cString: strerror(errno)))")
  }
}
