// The simulator's door: run a seed, get what came of it.

/// What came of one seed.
package struct SimulationReport: Sendable {
  package let seed: UInt64
  /// The same for the same seed, on any machine.
  package let digest: UInt64
  package let violation: Violation?
  package let coverage: Coverage
  package let simulatedSeconds: Double
  /// Line by line what happened, if it was asked for.
  package let story: [String]
  /// What clients did and saw, for `skein check`, if the story was asked for.
  package let history: [UInt8]
}

package enum Simulator {
  /// Runs one seed from its beginning to its end.
  ///
  /// - Parameter cut: what of the seed's plan is left out.
  package static func run(
    seed: UInt64, tellsStory: Bool = false, without cut: PlanCut = PlanCut()
  ) -> SimulationReport {
    let simulation = Simulation(seed: seed, tellsStory: tellsStory, without: cut)
    simulation.run()
    return SimulationReport(
      seed: seed, digest: simulation.digestValue, violation: simulation.violation,
      coverage: simulation.coverage, simulatedSeconds: Double(simulation.now) / 1e9,
      story: simulation.story, history: simulation.history)
  }
}
