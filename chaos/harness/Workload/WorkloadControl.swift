// What the phase of the run asks of the clients.

import Base
import Synchronization

final class WorkloadControl: Sendable {
  private enum Phase {
    static let working: UInt8 = 0
    /// Nothing new is published; what is under way is brought to its end.
    static let settling: UInt8 = 1
    /// Everything is acknowledged.
    static let draining: UInt8 = 2
    static let over: UInt8 = 3
  }

  private let phase = Atomic<UInt8>(Phase.working)
  /// Acknowledgements with a publish whose outcome is awaited.
  private let moves = Atomic<Int>(0)

  var isPublishing: Bool { phase.load(ordering: .relaxed) == Phase.working }
  var mayRetry: Bool { phase.load(ordering: .relaxed) < Phase.draining }
  var isDraining: Bool { phase.load(ordering: .relaxed) >= Phase.draining }
  var isConsuming: Bool { phase.load(ordering: .relaxed) < Phase.over }

  func stopPublishing() { phase.store(Phase.settling, ordering: .relaxed) }
  func drain() { phase.store(Phase.draining, ordering: .relaxed) }
  func end() { phase.store(Phase.over, ordering: .relaxed) }

  /// Sleeps for `span`, or until nothing new is published: the end of a run does not wait for it.
  /// - Throws: `CancellationError`.
  func pauseWhilePublishing(_ span: Nanoseconds, clock: RunClock) async throws {
    let end = clock.now + span
    while isPublishing, clock.now < end {
      try await clock.sleep(until: min(end, clock.now + Self.glance))
    }
  }

  /// How often one that sleeps looks whether it still may.
  private static let glance = Nanoseconds.milliseconds(5)

  /// Whether nobody waits any more for what became of a message that was to move on.
  var areMovesOver: Bool { moves.load(ordering: .acquiring) == 0 }
  func beginMove() { moves.add(1, ordering: .relaxed) }
  func endMove() { moves.subtract(1, ordering: .releasing) }
}
