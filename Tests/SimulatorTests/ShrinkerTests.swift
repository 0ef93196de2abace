// Single faults can be left out while the others stay, and a seed that fails is shrunk to what it needs.

import TestSupport
import Testing

@testable import Simulator

@Suite(.ownThreads) struct StrikeTests {
  @Test func allFaultsOfARunAreTheRun() {
    let whole = Simulator.run(seed: 17)
    var cut = PlanCut()
    cut.strikes = whole.strikes
    let again = Simulator.run(seed: 17, without: cut)
    #expect(whole.strikes.count > 3)
    #expect(again.digest == whole.digest)
    #expect(again.strikes == whole.strikes)
  }

  @Test func whatIsLeftOutLeavesTheOthersWhereTheyWere() {
    // It has draws of both generators.
    let seed: UInt64 = 7
    let whole = Simulator.run(seed: seed)
    for place in [0, whole.strikes.count / 2] {
      var cut = PlanCut()
      cut.strikes = whole.strikes
      cut.strikes?.remove(at: place)
      let less = Simulator.run(seed: seed, without: cut)
      #expect(less.violation == nil)
      #expect(less.strikes == cut.strikes, "without \(whole.strikes[place])")
      #expect(less.digest != whole.digest)
      #expect(less.digest == Simulator.run(seed: seed, without: cut).digest)
    }
  }

  /// Such a list is another version's. Run as another fault it would say nothing of what it was to repeat.
  @Test func aStrikeOfAnotherKindIsNamed() throws {
    let whole = Simulator.run(seed: 17)
    #expect(whole.foreignStrike == nil)
    var cut = PlanCut()
    cut.strikes = whole.strikes
    let place = whole.strikes.count / 2
    let strike = whole.strikes[place]
    let other = Strike(
      kind: strike.kind == .kill ? .reset : .kill, time: strike.time, draws: strike.draws,
      laterDraws: strike.laterDraws)
    cut.strikes?[place] = other
    let report = Simulator.run(seed: 17, without: cut)
    #expect(report.foreignStrike == other)
    #expect(report.violation == nil)
    // Nothing goes on after it.
    #expect(report.strikes.count == place + 1)
  }

  @Test func aListIsReadAsItWasWritten() throws {
    var cut = PlanCut()
    cut.seconds = 9
    cut.strikes = [
      Strike(kind: .kill, time: 3_000_000_456, draws: 48213, laterDraws: 0),
      Strike(kind: .powerLoss, time: 12_345_678_901, draws: 48219, laterDraws: 7),
    ]
    #expect(
      cut.text == "after-9s,faults-but-kill@3.000000456-48213-0+powerLoss@12.345678901-48219-7")
    #expect(try PlanCut(cut.text) == cut)
    cut.strikes = []
    #expect(cut.text == "after-9s,faults-but-none")
    #expect(try PlanCut(cut.text) == cut)
  }

  @Test(arguments: [
    "", "kill", "kill@3.000000456-1", "kil@3.000000456-1-0", "kill@3.0-1-0",
    "kill@3.000000456-1-0+",
    "kill@3.000000456-9999999999-0", "kill@4.000000000-2-0+kill@3.000000456-3-0",
    "kill@3.000000456-2-0+kill@4.000000000-1-0", "kill@3.000000456-1-0-0",
  ])
  func whatNobodyWroteIsRefused(text: String) {
    #expect(throws: PlanCut.UnknownPart.self) { try PlanCut("faults-but-\(text)") }
  }
}

@Suite(.ownThreads) struct ShrinkerTests {
  /// A fault of the simulation that a loss of power finds after the leader was cut off.
  private static func planted(_ seed: UInt64, _ cut: PlanCut) -> Trial {
    let simulation = Simulation(seed: seed, without: cut)
    simulation.begin()
    while simulation.violation == nil, !simulation.isDraining, simulation.goOn() {
      if simulation.coverage[.isolatedLeaders] > 0, simulation.coverage[.powerLosses] > 0 {
        simulation.violated("planted", "a loss of power")
      }
    }
    let failure = simulation.violation.map {
      Trial.Failure(
        rule: $0.rule, text: $0.text, time: $0.time, digest: simulation.digestValue)
    }
    return Trial(failure: failure, strikes: simulation.strikes.happened)
  }

  @Test func aSeedThatFailsIsShrunkToWhatItNeeds() throws {
    var runs = 0
    var steps: [PlanCut] = []
    let shrunk = Shrinker.shrink(seed: 12) { cut in
      runs += 1
      return Self.planted(12, cut)
    } progress: {
      steps.append($0)
    }
    let cut = try #require(shrunk).cut
    #expect(cut.strikes?.count == 2)
    #expect(cut.strikes?.contains { $0.kind == .isolateLeader } == true)
    #expect(cut.clients == Set(1...Simulator.clientCount(seed: 12)))
    #expect(shrunk?.runs == runs && runs < 100)
    #expect(steps.last == cut)
    // What it found can be repeated.
    let again = Self.planted(12, try PlanCut(cut.text))
    #expect(again.failure?.rule == "planted")
    #expect(again.failure?.digest == shrunk?.failure.digest)
  }

  /// Made up: two faults are needed, and with any three others something else breaks.
  private static func trial(_ cut: PlanCut, whole: [Strike]) -> Trial {
    let strikes = cut.strikes ?? whole
    let isBug = strikes.contains(whole[4]) && strikes.contains(whole[11])
    if isBug {
      return Trial(
        failure: Trial.Failure(rule: "invariant at A.swift:7", text: "it aborts"), strikes: strikes)
    }
    let other = Trial.Failure(rule: "invariant at B.swift:9", text: "another one")
    return Trial(failure: strikes.count > 2 ? other : nil, strikes: strikes)
  }

  private static let whole = (UInt64(1)...16).map {
    Strike(kind: .kill, time: $0, draws: $0, laterDraws: 0)
  }

  @Test func anotherFailureIsNotTheSame() throws {
    let shrunk = Shrinker.shrink(seed: 1) { Self.trial($0, whole: Self.whole) }
    #expect(try #require(shrunk).cut.strikes == [Self.whole[4], Self.whole[11]])
    #expect(shrunk?.failure.rule == "invariant at A.swift:7")
  }

  @Test func itEndsAfterSoManyRuns() throws {
    var runs = 0
    let shrunk = Shrinker.shrink(seed: 1, runsMax: 5) { cut in
      runs += 1
      return Self.trial(cut, whole: Self.whole)
    }
    #expect(runs == 5)
    #expect(try #require(shrunk).runs == 5)
  }

  @Test func aSeedThatHoldsIsNotShrunk() {
    var cut = PlanCut()
    cut.faults = Set(FaultKind.allCases)
    cut.seconds = 2
    let shrunk = Shrinker.shrink(seed: 3, without: cut) {
      Trial(Simulator.run(seed: 3, without: $0))
    }
    #expect(shrunk == nil)
  }
}
