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

  /// Whether the runtime tells where it was or not, two that abort alike fail alike.
  @Test func oneThatAbortsWithABacktrace() throws {
    let trial = try SimTrial.trial(
      Self.struck + "skein: invariant broken at A.swift:12: entry 7\n\n*** Signal 6: Backtracing\n"
        + "Backtrace took 0.01s\n", signal: SIGABRT)
    #expect(trial.failure?.rule == "invariant at A.swift:12")
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

/// A seed that stopped the process that ran it is run once more, to tell its story.
@Suite struct SimStopTests {
  private static func failure(_ script: String, _ signal: Int32 = SIGABRT) throws -> SimFailure {
    let mark = try #require(SimStop.Mark("17:\(signal)", in: 1...20))
    return SimStop.failure(mark) {
      try SimTrial.story(of: ["sh", "-c", script], executable: "/bin/sh")
    }
  }

  @Test func aBrokenInvariantIsReportedWhole() throws {
    let failure = try Self.failure(
      """
      for line in $(seq 1 40); do echo "told 0.$line it goes on"; done
      echo 'struck kill@3.000000456-48213-0'
      echo 'skein: invariant broken at Node/Replica.swift:12: entry 7 beyond last 6' >&2
      echo 'stopped 4711'
      echo 'waits Before step 4673: node 1 is down'
      kill -ABRT $$
      """)
    #expect(failure.lastEvents.count == Sim.lastEventsCount)
    #expect(failure.exitCode == .violated)
    let cut = try PlanCut("kill,client-2")
    let text = failure.text(cut)
    #expect(text.hasPrefix("what seed 17 did last:\n  0.16 it goes on\n"))
    #expect(
      text.hasSuffix(
        """
          0.40 it goes on
        seed 17 stops the process at step 4711
          invariant at Node/Replica.swift:12: entry 7 beyond last 6
          again: skein sim --trace --seed 17 --without kill,client-2

        """))
    let json = failure.json(cut).text
    #expect(json.hasPrefix(#"{"seed":17,"rule":"invariant at Node/Replica.swift:12","text":"ent"#))
    #expect(json.contains(#""step":4711,"lastEvents":["0.16 it"#))
    #expect(json.hasSuffix(#""repeat":"skein sim --trace --seed 17 --without kill,client-2"}"#))
  }

  @Test func oneThatDoesNotEndSaysWhatEveryNodeWaitsFor() throws {
    let failure = try Self.failure(
      """
      echo 'told 0.1 it goes on'
      echo 'stopped 4711'
      echo 'waits Before step 4673: node 1 is down'
      kill -PROF $$
      """, SIGPROF)
    #expect(failure.exitCode == .unknown)
    #expect(failure.rule == "liveness")
    #expect(failure.text.hasSuffix(" is used up. Before step 4673: node 1 is down"))
    #expect(failure.step == 4711)
  }

  /// The first time it was something else: a lack of memory, a signal from elsewhere.
  @Test(arguments: [(SIGABRT, ExitCode.violated), (SIGPROF, .unknown)])
  func oneThatHoldsTheSecondTime(signal: Int32, code: ExitCode) throws {
    let failure = try Self.failure("echo told 0.1; echo held", signal)
    #expect(failure.exitCode == code)
    #expect(failure.text.hasSuffix("every promise held when it ran once more"))
    #expect(failure.text(PlanCut()).contains("again: skein sim --trace --seed 17\n"))
  }

  @Test func oneThatCannotRunAgainIsNamedAllTheSame() throws {
    let failure = try Self.failure("kill -KILL $$")
    #expect(failure.exitCode == .violated)
    #expect(failure.seed == 17)
    #expect(failure.text.contains("signal 9"))
  }

  @Test(arguments: ["", "17", "21:6", "0:6", "17:9", "17:x", "x:6", "17:6:6"])
  func whatNoProcessWroteIsRefused(mark: String) {
    #expect(SimStop.Mark(mark, in: 1...20) == nil)
  }
}
