// The two clocks of the process. The owner of a loop reads the monotonic one once per turn and
// passes the reading on.

import Base
import Glibc

package enum MonotonicClock {
  /// Nanoseconds since the machine started; never goes back, and stands still in suspend.
  package static func now() -> MonotonicTime {
    MonotonicTime(rawValue: reading(of: CLOCK_MONOTONIC))
  }
}

package enum WallClock {
  /// Time since 1970, which an administrator may set to anything at any moment.
  package static func now() -> Nanoseconds {
    Nanoseconds(rawValue: reading(of: CLOCK_REALTIME))
  }
}

private func reading(of clock: clockid_t) -> UInt64 {
  var time = timespec()
  let result = clock_gettime(clock, &time)
  invariant(result == 0, "clock \(clock) cannot be read: \(ErrorNumber.current)")
  return UInt64(max(0, time.tv_sec)) * 1_000_000_000 + UInt64(time.tv_nsec)
}
