// The simulator's door: run a seed, get what came of it.

/// What came of one seed.
package struct SimulationReport: Sendable {
  package let seed: UInt64
  /// The same for the same seed, on any machine.
  package let digest: UInt64
  package let violation: Violation?
  package let coverage: Coverage
  package let simulatedSeconds: Double
  /// What clients did and saw, for `skein check`, if the story was asked for; up to where a promise
  /// was broken.
  package let history: [UInt8]
  /// The faults that came to pass.
  package let strikes: [Strike]
  /// A single fault of the cut that is none of this seed's: another version's. The run ended there, and
  /// the rest of the report says nothing.
  package let foreignStrike: Strike?
}

/// Between two events of a run.
package struct RunMoment {
  fileprivate let simulation: Simulation

  /// The event that is about to happen, counted from 1.
  package var step: UInt64 { simulation.coverage[.events] + 1 }
  package var whatEverybodyWaitsFor: String { simulation.whatEverybodyWaitsFor }
}

package enum Simulator {
  /// Runs one seed from its beginning to its end.
  ///
  /// - Parameters:
  ///   - cut: what of the seed's plan is left out.
  ///   - tell: is told the story, line by line as it happens.
  ///   - struck: is told of every fault before it comes to pass.
  ///   - beforeEach: is called before every event.
  package static func run(
    seed: UInt64, without cut: PlanCut = PlanCut(), tell: ((String) -> Void)? = nil,
    struck: ((Strike) -> Void)? = nil, beforeEach: (RunMoment) -> Void = { _ in }
  ) -> SimulationReport {
    let simulation = Simulation(seed: seed, without: cut, tell: tell, struck: struck)
    simulation.run { beforeEach(RunMoment(simulation: simulation)) }
    return SimulationReport(
      seed: seed, digest: simulation.digestValue, violation: simulation.violation,
      coverage: simulation.coverage, simulatedSeconds: Double(simulation.now) / 1e9,
      history: simulation.history, strikes: simulation.strikes.happened,
      foreignStrike: simulation.strikes.foreign)
  }

  /// The last lines of the seed's story.
  package static func lastEvents(
    seed: UInt64, without cut: PlanCut = PlanCut(), count: Int
  ) -> [String] {
    var lines: [String] = []
    _ = run(seed: seed, without: cut) { line in
      // Twice as many at the most, so that not every line moves all of them.
      if lines.count == 2 * count { lines.removeFirst(count) }
      lines.append(line)
    }
    return lines.suffix(count)
  }

  /// How many clients the seed has.
  package static func clientCount(seed: UInt64) -> Int { Plan(seed: seed).clients.count }
}
