// `skein sim` on the command line: what it takes, how it refuses. Thousands of seeds run in .ci/run. (Not
// here: a run sets signal handlers.)

import Testing

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
    ["--sed", "1"],
  ])
  func wrongUsageIsRefused(words: [String]) {
    #expect(throws: UsageError.self) { _ = try call(words) }
  }

  @Test func anUnknownFaultGetsTheNearest() {
    let error = #expect(throws: UsageError.self) {
      _ = try call(["--seed", "1", "--without", "kil"])
    }
    #expect(error?.message.contains("do you mean kill?") == true)
  }
}
