// The leader's reading of the queues' clock. Time is in the log: a stamp never goes back, and no
// jump of a wall clock moves it.

import Base

/// Goes on from the newest stamp seen by this process's monotonic clock.
package struct MachineClock: Sendable {
  private var stamp: MachineTime
  private var seenAt: MonotonicTime
  /// Whose stamps the reading goes by.
  private var term = Term(0)

  /// - Parameter start: the newest stamp known, zero if there is none.
  package init(start: MachineTime, now: MonotonicTime) {
    self.stamp = start
    self.seenAt = now
  }

  /// The time to stamp an entry with.
  package func reading(at now: MonotonicTime) -> MachineTime {
    stamp + now.since(seenAt)
  }

  /// Takes the stamp of an entry that its leader of `term` wrote. A stamp is older by its way here
  /// than the leader's clock, so of one leader's stamps the one that reads furthest is the best, and
  /// never ahead of that leader. With a new leader it begins anew: this one may be behind what was
  /// made out of the former one's stamps here, and a reading ahead of it would let what was published
  /// under it come too early, should this node lead next (G9).
  package mutating func observe(_ newer: MachineTime, of term: Term, at now: MonotonicTime) {
    guard term == self.term else {
      self.term = term
      stamp = newer
      seenAt = now
      return
    }
    observe(newer, at: now)
  }

  /// Takes the time of a state that is in force: the own reading is never behind it.
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
