// `skein sim` on the command line: what it takes, how it refuses, how it ends. Thousands of seeds run in .ci/run.
// (Not here: a run sets signal handlers.)

import Testing

@testable import Simulator
@testable import skein

@Suite struct SimCommandTests {
  private func call(_ words: [String]) throws -> ExitCode {
    guard case .run(let command, let arguments) = try CommandTable.call(["sim"] + words),
      case .blocking(let body) = command.run
    else { return .fine }
    return try body(arguments)
  }

  @Test(arguments: [
    ["--seeds", "5"], ["--seeds", "5..1"], ["--seeds", "1...5"], ["--seeds", "1..x"],
    ["--seeds", "0..18446744073709551615"], ["--seed", "1", "--seeds", "1..2"],
    ["--seeds", "1..2", "--trace"], ["--seeds", "1..2", "--shrink"],
    ["--seeds", "1..2", "--history", "x"], ["--seeds", "1..2", "--digest", "x"],
    ["--seed", "1", "--trace", "--json"], ["--seed", "1", "--shrink", "--json"],
    ["--seed", "1", "--shrink", "--history", "x"], ["--seed", "1", "--without", "kil"],
    ["--seed", "1", "--verdict", "--json"], ["--seeds", "1..2", "--verdict"],
    ["--seed", "1", "--without", "faults-but-kill@3"],
    ["--seed", "1", "--without", "client-99"], ["--seed", "1", "--without", "after-0s"],
    ["--seeds", "1..2", "--without", "client-9"], ["--without", "client-7"],
    ["--seeds", "1..18446744073709551614", "--without", "client-7"],
    ["--seed", "1", "--digest", "zzz"], ["--seed", "1", "--digest", "00000000000000FF"],
    ["--seed", "1", "--digest", "0000000000000ff"], ["--seed", "1", "--digest", "+000000000000ff"],
    ["--seeds", "1..2", "--stopped", "3:6"], ["--seed", "1", "--stopped", "1:6", "--trace"],
    ["--seed", "1", "--stopped", "1:6", "--digest", "00000000000000ff"],
    ["--sed", "1"],
  ])
  func wrongUsageIsRefused(words: [String]) {
    #expect(throws: UsageError.self) { _ = try call(words) }
  }

  /// What came of the seeds, by the rule that the last of them broke.
  private func exitCode(
    _ rule: String?, mustReach: Bool = false, digest: String? = nil
  ) -> ExitCode {
    var summary = SimSummary()
    summary.add(
      SimulationReport(
        seed: 1, digest: 255,
        violation: rule.map { Violation(rule: $0, text: "why", time: 1, step: 7) },
        coverage: Coverage(), simulatedSeconds: 1, history: [], strikes: [], foreignStrike: nil))
    return Sim.exitCode(summary, mustReach: mustReach, digest: digest)
  }

  @Test func theExitCodeSaysWhatCameOfIt() {
    #expect(exitCode(nil) == .fine)
    #expect(exitCode(nil, mustReach: true) == .failed)
    #expect(exitCode("G1") == .violated)
    #expect(exitCode("G1", mustReach: true) == .violated)
    #expect(exitCode("liveness") == .unknown)
  }

  @Test func aRunThatIsAnotherFailsUnlessItBreaksAPromise() {
    let (same, other) = ("00000000000000ff", "00000000000000fe")
    #expect(exitCode(nil, digest: same) == .fine)
    #expect(exitCode(nil, digest: other) == .failed)
    #expect(exitCode("G1", digest: other) == .violated)
    #expect(exitCode("liveness", digest: other) == .unknown)
  }

  @Test func anUnknownFaultGetsTheNearest() {
    let error = #expect(throws: UsageError.self) {
      _ = try call(["--seed", "1", "--without", "kil"])
    }
    #expect(error?.message.contains("do you mean kill?") == true)
  }
}
