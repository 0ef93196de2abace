// What `skein sim` says of a seed that fails: by a violation, or by ending the process that ran it. Then
// that process has become this one, `skein sim --stopped SEED:SIGNAL` (`SeedAtWork`), which has the seed
// run once more by a process that tells its story, and reports how that one ended.

import Glibc
import Simulator

/// How a seed failed.
struct SimFailure {
  let seed: UInt64
  let rule: String
  let text: String
  /// Simulated seconds; nil where the process ended.
  var time: Double?
  /// Events so far; nil if nothing could tell.
  var step: UInt64?
  /// nil where the process ended.
  var digest: String?
  /// The end of the seed's story.
  var lastEvents: [String] = []

  init(seed: UInt64, rule: String, text: String) {
    self.seed = seed
    self.rule = rule
    self.text = text
  }

  init(_ violation: Violation, of report: SimulationReport) {
    self.init(seed: report.seed, rule: violation.rule, text: violation.text)
    time = violation.time
    step = violation.step
    digest = SimSummary.text(of: report.digest)
  }

  var isStandstill: Bool { rule == Violation.liveness }

  var exitCode: ExitCode { isStandstill ? .unknown : .violated }

  func json(_ cut: PlanCut) -> JSON {
    var members: [JSON.Member] = [
      .init(name: "seed", value: .unsigned(seed)), .init(name: "rule", value: .text(rule)),
      .init(name: "text", value: .text(text)),
    ]
    if let time { members.append(.init(name: "time", value: .number(time))) }
    if let step { members.append(.init(name: "step", value: .unsigned(step))) }
    members.append(.init(name: "lastEvents", value: .array(lastEvents.map { .text($0) })))
    let again = SimSummary.repeatCommand(seed, cut, digest: digest)
    members.append(.init(name: "repeat", value: .text(again)))
    return .object(members)
  }

  func text(_ cut: PlanCut) -> String {
    var text = ""
    if !lastEvents.isEmpty {
      text += "what seed \(seed) did last:\n" + lastEvents.map { "  \($0)\n" }.joined()
    }
    let what =
      isStandstill ? "gets nowhere" : time == nil ? "stops the process" : "breaks a promise"
    text += "seed \(seed) \(what)"
    if let time { text += " after \(rounded(time)) simulated s" }
    if let step { text += "\(time == nil ? "" : ",") at step \(step)" }
    return text + "\n  \(rule): \(self.text)\n"
      + "  again: \(SimSummary.repeatCommand(seed, cut, digest: digest))\n"
  }
}

enum SimStop {
  /// As `--stopped` has it.
  struct Mark {
    let seed: UInt64
    let signal: Int32

    init?(_ text: String, in seeds: ClosedRange<UInt64>) {
      let parts = text.split(separator: ":", omittingEmptySubsequences: false)
      guard parts.count == 2, let seed = UInt64(parts[0]), seeds.contains(seed),
        let signal = Int32(parts[1]), SeedAtWork.signals.contains(signal)
      else { return nil }
      self.seed = seed
      self.signal = signal
    }
  }

  /// Runs the seed once more, and says how it stopped a process.
  ///
  /// - Parameter runs: how many seeds were run, this one too.
  static func report(
    _ mark: Mark, _ cut: PlanCut, runs: UInt64, json: Bool
  ) throws -> ExitCode {
    StandardError.write(
      "skein: that was signal \(mark.signal); the seed runs once more, to tell its story\n")
    let failure = failure(mark) { try SimTrial.story(mark.seed, cut) }
    let members: [JSON.Member] = [
      .init(name: "seeds", value: .unsigned(runs)),
      .init(name: "violation", value: failure.json(cut)),
    ]
    try StandardOutput.write(json ? JSON.object(members).text + "\n" : failure.text(cut))
    return failure.exitCode
  }

  /// - Parameter story: runs the seed once more.
  static func failure(_ mark: Mark, _ story: () throws -> SimTrial.Story) -> SimFailure {
    let isEndless = mark.signal == SIGPROF
    let rule = isEndless ? Violation.liveness : "signal \(mark.signal)"
    let what =
      isEndless
      ? "it used up \(SeedAtWork.secondsMax) s of processor time" : "it stopped the process"
    do {
      let story = try story()
      guard let found = story.trial.failure else {
        return SimFailure(
          seed: mark.seed, rule: rule,
          text: "\(what), and every promise held when it ran once more")
      }
      var text = found.text
      if found.isStandstill, let waits = story.waits { text += ". \(waits)" }
      var failure = SimFailure(seed: mark.seed, rule: found.rule, text: text)
      failure.time = found.time
      failure.step = story.step
      failure.digest = found.digest.map { SimSummary.text(of: $0) }
      failure.lastEvents = story.lastEvents
      return failure
    } catch {
      let why = (error as? Failure)?.message ?? "\(error)"
      return SimFailure(seed: mark.seed, rule: rule, text: "\(what); once more: \(why)")
    }
  }
}
