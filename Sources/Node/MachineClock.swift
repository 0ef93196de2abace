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

  /// Takes the stamp of an entry that its leader of `term` wrote. From here the own clock counts anew,
  /// also when it had run ahead: a clock a little fast would gain on the leader's for as long as this
  /// node follows, and what was published before would come too early, should it lead next (G9). A
  /// stamp is older by its way here than the leader's clock, so the reading is never ahead of that.
  /// With a new leader, which may be behind what this node made out of the former one's stamps, an
  /// earlier one counts too.
  package mutating func observe(_ newer: MachineTime, of term: Term, at now: MonotonicTime) {
    guard term != self.term || newer > stamp else { return }
    self.term = term
    stamp = newer
    seenAt = now
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
