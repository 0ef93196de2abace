// The run's clock: nanoseconds since it began, by the machine's monotonic clock.

import Base
import Transport

package struct RunClock: Sendable {
  private let start: MonotonicTime
  /// The wall clock at the same moment, for what others stamped with it.
  private let wallStart: Nanoseconds

  package init() {
    start = MonotonicClock.now()
    wallStart = WallClock.now()
  }

  package var now: Nanoseconds { MonotonicClock.now().since(start) }

  /// The run's time when the wall clock showed `time`.
  func time(ofWall time: Nanoseconds) -> Nanoseconds {
    Nanoseconds(
      rawValue: time.rawValue > wallStart.rawValue ? time.rawValue - wallStart.rawValue : 0)
  }

  /// Sleeps until then.
  /// - Throws: `CancellationError`.
  package func sleep(until time: Nanoseconds) async throws {
    let now = now
    guard time > now else { return }
    try await Task.sleep(for: .nanoseconds(Int64(time.rawValue - now.rawValue)))
  }
}
