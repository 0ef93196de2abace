// What has to go on once the faults are over, and by when.

import Base

extension Plan {
  /// By when somebody leads after the last fault: what stands still goes on, what is down starts, what a clogged
  /// link holds arrives and dead connections are given up; then some elections may fail.
  var leaderPatience: UInt64 {
    .seconds(5) + silence + 200 * delay.upperBound + 20 * 2 * electionMin.rawValue
  }
}

/// Somebody has to lead by some time, be it only once.
struct LeaderDemand {
  /// Nil before anything is demanded, and once somebody led.
  private(set) var deadline: UInt64?

  mutating func begin(until deadline: UInt64) { self.deadline = deadline }

  /// False if nobody led in time.
  mutating func look(hasLeader: Bool, at now: UInt64) -> Bool {
    guard let deadline else { return true }
    if hasLeader { self.deadline = nil }
    return hasLeader || now <= deadline
  }
}
