// What `skein sim --shrink` makes of the processes that run its candidates.

import Glibc
import Testing

@testable import Simulator
@testable import skein

@Suite struct SimTrialTests {
  private static let struck = "struck kill@3.000000456-48213-0\nstruck ring@4.100000000-50000-2\n"

  private static func outcome(_ script: String) throws -> Trial {
    try SimTrial.outcome(of: ["sh", "-c", script], executable: "/bin/sh")
  }

  @Test func oneThatHolds() throws {
    let trial = try SimTrial.trial(Self.struck + "held\n", signal: 0)
    #expect(trial.failure == nil)
    #expect(trial.strikes.map(\.kind) == [.kill, .ring])
  }

  @Test func oneThatBreaksAPromise() throws {
    let text = "violated 00000000000000ff 12.5 one leader a term\nnode 1 and\nnode 2 lead\n"
    let failure = try #require(try SimTrial.trial(Self.struck + text, signal: 0).failure)
    #expect(failure.rule == "one leader a term")
    #expect(failure.text == "node 1 and\nnode 2 lead")
    #expect(failure.time == 12.5)
    #expect(failure.digest == 255)
  }

  /// The list of single faults is another version's.
  @Test func oneThatHasNoSuchFault() {
    let error = #expect(throws: UsageError.self) {
      _ = try SimTrial.trial(Self.struck + "foreign 3 kill@3.000000000-1-1\n", signal: 0)
    }
    #expect(error?.message.contains("seed 3 has no kill@3.000000000-1-1") == true)
  }

  /// A process that really ends so: the line of the invariant is what it failed by.
  @Test func oneThatAborts() throws {
    let trial = try Self.outcome(
      """
      echo 'struck kill@3.000000456-48213-0'
      echo 'skein: invariant broken at Node/Replica.swift:12: entry 7 beyond last 6' >&2
      kill -ABRT $$
      """)
    #expect(trial.failure?.rule == "invariant at Node/Replica.swift:12")
    #expect(trial.failure?.text == "entry 7 beyond last 6")
    #expect(trial.strikes.count == 1)
  }

  @Test func oneThatTraps() throws {
    let trial = try SimTrial.trial(
      Self.struck + "Fatal error: Index out of range\n", signal: SIGILL)
    #expect(trial.failure?.rule == "signal \(SIGILL)")
    #expect(trial.failure?.text == "Fatal error: Index out of range")
  }

  @Test(arguments: ["exit 1", "kill -KILL $$", "echo skein: --seed: no; exit 64"])
  func oneThatDoesNotRunIsNoCandidate(command: String) {
    #expect(throws: Failure.self) { try Self.outcome(command) }
  }
}
