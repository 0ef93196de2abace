// The leader's reading of the queues' clock. Time is in the log: a stamp never goes back, and no
// jump of a wall clock moves it.

import Base

/// Goes on from the newest stamp seen by this process's monotonic clock.
package struct MachineClock: Sendable {
  private var stamp: MachineTime
  private var seenAt: MonotonicTime

  /// - Parameter start: the newest stamp known, zero if there is none.
  package init(start: MachineTime, now: MonotonicTime) {
    self.stamp = start
    self.seenAt = now
  }

  /// The time to stamp an entry with.
  package func reading(at now: MonotonicTime) -> MachineTime {
    stamp + now.since(seenAt)
  }

  /// Takes the stamp of an entry from the leader: the own reading is never behind it.
  package mutating func observe(_ newer: MachineTime, at now: MonotonicTime) {
    if newer > reading(at: now) {
      stamp = newer
      seenAt = now
    }
  }

  /// When the clock will read `time`, by this process's monotonic clock.
  package func monotonicTime(of time: MachineTime, now: MonotonicTime) -> MonotonicTime {
    if time == .never { return .never }
    return now + time.since(reading(at: now))
  }
}
