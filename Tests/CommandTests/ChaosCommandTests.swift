// `skein chaos` on the command line, without a cluster: what it takes and how it refuses. The real
// thing runs in .ci/run.

import Testing

@testable import skein

@Suite struct ChaosCommandTests {
  /// What becomes of a call that starts no cluster. (Not through `Skein.run`, which blocks its
  /// thread: the tests have few of them.)
  private func call(_ words: [String]) async throws -> ExitCode {
    guard case .run(let command, let arguments) = try CommandTable.call(["chaos"] + words) else {
      return .fine
    }
    switch command.run {
    case .blocking(let body): return try body(arguments)
    case .asynchronous(let body): return try await body(arguments)
    }
  }

  @Test(arguments: [
    ["run"], ["run", "leader-kil"], ["run", "leader-kill", "--sed", "1"],
    ["run", "leader-kill", "--seed", "x"], ["run", "leader-kill", "--duration", "5"],
    ["run", "leader-kill", "--protocol", "mqtt"],
    ["run", "leader-kill", "--rate", "fast"], ["run", "leader-kill", "more"], ["rum"],
  ])
  func wrongUsageIsRefused(words: [String]) async {
    await #expect(throws: UsageError.self) { _ = try await self.call(words) }
  }

  @Test func aFileThatIsNotThereIsAFailure() async {
    await #expect(throws: Failure.self) {
      _ = try await self.call(["run", "/nowhere/at-all.chaos"])
    }
  }

  @Test func anUnknownScenarioGetsTheNearest() async {
    do {
      _ = try await call(["run", "leader-kil"])
    } catch {
      #expect((error as? UsageError)?.message.contains("did you mean leader-kill?") == true)
    }
  }
}
