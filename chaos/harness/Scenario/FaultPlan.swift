// What a run does when: drawn from the scenario, the seed and the duration alone, so that the same
// seed is the same plan. Who a target is (the leader, say) is decided when it is done, by `draw`.

import Base

/// One fault of a plan. Times are from the beginning of the run.
package struct PlannedFault: Equatable, Sendable {
  /// From 1, in order of `start`.
  package var number = 0
  package var line: FaultLine
  package var start: Nanoseconds
  package var end: Nanoseconds
  /// Decides what is left open: which follower, which file, which bit.
  package var draw: UInt64
}

package struct FaultPlan: Equatable, Sendable {
  package let faults: [PlannedFault]
  package let duration: Nanoseconds

  /// Faults end before the duration does; the rest of the run is calm.
  package init(_ scenario: Scenario, seed: UInt64, duration: Nanoseconds) {
    var random = SeededRandom(seed: seed)
    var faults: [PlannedFault] = []
    if let mix = scenario.mix {
      faults = Self.mixed(scenario, mix, duration, &random)
    } else {
      for line in scenario.faults {
        faults += Self.series(line, calm: scenario.calm, duration, &random)
      }
    }
    // Stable, so that equal times keep the order of the lines.
    faults.sort { $0.start < $1.start }
    for place in faults.indices { faults[place].number = place + 1 }
    self.faults = faults
    self.duration = duration
  }

  private static func series(
    _ line: FaultLine, calm: Nanoseconds, _ duration: Nanoseconds, _ random: inout SeededRandom
  ) -> [PlannedFault] {
    var faults: [PlannedFault] = []
    var next = line.first ?? calm
    repeat {
      let end = next + draw(from: line.length, &random)
      guard end < duration else { break }
      faults.append(PlannedFault(line: line, start: next, end: end, draw: random.next()))
      guard let every = line.every else { break }
      next = end + draw(from: every, &random)
    } while true
    return faults
  }

  private static func mixed(
    _ scenario: Scenario, _ mix: ClosedRange<Nanoseconds>, _ duration: Nanoseconds,
    _ random: inout SeededRandom
  ) -> [PlannedFault] {
    var faults: [PlannedFault] = []
    var next = scenario.calm
    let weights = scenario.faults.reduce(0) { $0 + $1.weight }
    while true {
      var place = UInt64.random(in: 0..<weights, using: &random)
      let line = scenario.faults.first { line in
        if place < line.weight { return true }
        place -= line.weight
        return false
      }
      guard let line else { break }
      let end = next + draw(from: line.length, &random)
      guard end < duration else { break }
      faults.append(PlannedFault(line: line, start: next, end: end, draw: random.next()))
      next = end + draw(from: mix, &random)
    }
    return faults
  }

  private static func draw(
    from range: ClosedRange<Nanoseconds>, _ random: inout SeededRandom
  ) -> Nanoseconds {
    Nanoseconds(
      rawValue: UInt64.random(
        in: range.lowerBound.rawValue...range.upperBound.rawValue, using: &random))
  }
}

extension Nanoseconds {
  static func + (left: Nanoseconds, right: Nanoseconds) -> Nanoseconds {
    Nanoseconds(rawValue: left.rawValue + right.rawValue)
  }

  var seconds: Double { Double(rawValue) / 1e9 }
}
