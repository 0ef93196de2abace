// A seed of `skein sim --shrink` is run by a process of its own, since what fails may be an invariant, which
// ends it, and so is one whose story is told after it stopped the process (`SimStop`). It says as it goes
// which faults strike, the story if that is wanted, and at last what became of the run: lines that only this
// file and `SeedAtWork` write, and only this one reads.

import Glibc
import Simulator

enum SimTrial {
  private static let struck = "struck "
  private static let held = "held"
  private static let foreign = "foreign "
  private static let violated = "violated "
  private static let told = "told "
  private static let stopped = "stopped "
  private static let waits = "waits "
  private static let bug = "skein: invariant broken at "

  // MARK: The process that runs the seed

  /// Runs one seed and says what became of it.
  ///
  /// - Parameter isTold: whether it says the story too.
  static func run(_ seed: UInt64, _ cut: PlanCut, isTold: Bool) throws -> ExitCode {
    // An invariant that breaks is what may be looked for: no cores.
    var none = rlimit(rlim_cur: 0, rlim_max: 0)
    _ = setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &none)
    SeedAtWork.begin(
      seed, seconds: isTold ? SeedAtWork.storySecondsMax : SeedAtWork.secondsMax)
    var failure: (any Error)?
    func say(_ line: String) {
      // At once, or it is lost when the process ends.
      if failure == nil { do { try StandardOutput.write(line + "\n") } catch { failure = error } }
    }
    if isTold { SeedAtWork.reportEnds(as: .verdict) }
    let report = Simulator.run(
      seed: seed, without: cut, tell: isTold ? { say("\(told)\($0)") } : nil,
      struck: { say("\(struck)\($0)") },
      beforeEach: { moment in
        guard isTold else { return }
        SeedAtWork.reached(moment.step)
        // Within an event it is too late to ask, and for each of them it would take too long.
        if moment.step % 64 == 1 {
          SeedAtWork.everybodyWaits(
            for: "Before step \(moment.step): \(moment.whatEverybodyWaitsFor)")
        }
      })
    if let strike = report.foreignStrike {
      say("\(foreign)\(seed) \(strike)")
    } else if let violation = report.violation {
      let digest = SimSummary.text(of: report.digest)
      say("\(violated)\(digest) \(violation.time) \(violation.rule)\n\(violation.text)")
    } else {
      say(held)
    }
    if let failure { throw failure }
    return .fine
  }

  // MARK: The process that wants to know

  /// Has a process of this program run the seed.
  static func outcome(_ seed: UInt64, _ cut: PlanCut) throws -> Trial {
    try outcome(of: words(seed, cut), executable: try ownExecutable())
  }

  static func outcome(of words: [String], executable: String) throws -> Trial {
    let (output, signal) = try output(of: words, executable: executable)
    return try trial(output, signal: signal)
  }

  /// What became of the seed, and what it did last.
  struct Story {
    let trial: Trial
    var lastEvents: [String] = []
    /// The event in which the process ended; nil if it ended by itself.
    var step: UInt64?
    /// What every node waited for shortly before.
    var waits: String?
  }

  /// Has a process of this program run the seed and tell it.
  static func story(_ seed: UInt64, _ cut: PlanCut) throws -> Story {
    try story(of: words(seed, cut) + ["--trace"], executable: try ownExecutable())
  }

  static func story(of words: [String], executable: String) throws -> Story {
    let (output, signal) = try output(of: words, executable: executable)
    var rest: [Substring] = []
    var events: [Substring] = []
    var step: UInt64?
    var waiting: String?
    for line in output.split(separator: "\n") {
      if line.hasPrefix(told) {
        events.append(line.dropFirst(told.count))
      } else if line.hasPrefix(stopped) {
        step = UInt64(line.dropFirst(stopped.count))
      } else if line.hasPrefix(waits) {
        waiting = String(line.dropFirst(waits.count))
      } else {
        rest.append(line)
      }
    }
    let trial = try trial(rest.joined(separator: "\n"), signal: signal)
    return Story(
      trial: trial, lastEvents: events.suffix(Sim.lastEventsCount).map(String.init), step: step,
      waits: waiting)
  }

  private static func words(_ seed: UInt64, _ cut: PlanCut) -> [String] {
    ["skein", "sim", "--verdict", "--seed", "\(seed)"]
      + (cut.text.isEmpty ? [] : ["--without", cut.text])
  }

  /// Reads what a process says, errors too, until it ends.
  ///
  /// - Returns: that, and the signal that ended it, 0 if it ended by itself.
  private static func output(of words: [String], executable: String) throws -> (String, Int32) {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw Failure.system("pipe") }
    defer { close(ends[0]) }
    let pid: pid_t
    do {
      defer { close(ends[1]) }
      for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
      var actions = posix_spawn_file_actions_t()
      posix_spawn_file_actions_init(&actions)
      defer { posix_spawn_file_actions_destroy(&actions) }
      posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO)
      posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO)
      pid = try spawn(words, executable: executable, actions: &actions, newSession: false)
    }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
      let count = read(ends[0], &chunk, chunk.count)
      if count < 0, errno == EINTR { continue }
      if count <= 0 { break }
      bytes += chunk[..<count]
    }
    var status: Int32 = 0
    while waitpid(pid, &status, 0) < 0 {
      if errno != EINTR { throw Failure.system("waitpid") }
    }
    return (String(decoding: bytes, as: UTF8.self), status & 0x7f)
  }

  /// - Parameter signal: that ended the process; 0 if it ended by itself.
  static func trial(_ output: String, signal: Int32) throws -> Trial {
    let lines = output.split(separator: "\n")
    let strikes = lines.compactMap {
      $0.hasPrefix(struck) ? Strike($0.dropFirst(struck.count)) : nil
    }
    let last = lines.drop { $0.hasPrefix(struck) }
    if last.first == held[...] { return Trial(failure: nil, strikes: strikes) }
    if let first = last.first, first.hasPrefix(foreign) {
      let words = first.dropFirst(foreign.count).split(separator: " ")
      if words.count == 2, let seed = UInt64(words[0]), let strike = Strike(words[1]) {
        throw Sim.foreign(strike, seed)
      }
    }
    if let first = last.first, first.hasPrefix(violated) {
      let words = first.dropFirst(violated.count).split(separator: " ", maxSplits: 2)
      if words.count == 3, let digest = UInt64(words[0], radix: 16), let time = Double(words[1]) {
        return Trial(
          failure: Trial.Failure(
            rule: String(words[2]), text: last.dropFirst().joined(separator: "\n"), time: time,
            digest: digest), strikes: strikes)
      }
    }
    guard SeedAtWork.signals.contains(signal) else {
      let what = last.last.map(String.init) ?? "signal \(signal)"
      throw Failure("a run of the seed ended without a verdict, by signal \(signal): \(what)")
    }
    // A backtrace may follow, or come before.
    let line =
      last.first { $0.hasPrefix(bug) } ?? last.first { $0.contains("Fatal error: ") } ?? last.last
    return Trial(failure: end(line.map(String.init), by: signal), strikes: strikes)
  }

  /// A process that ended in the middle: by the line of an invariant, else by what the signal is.
  private static func end(_ line: String?, by signal: Int32) -> Trial.Failure {
    if signal == SIGPROF {
      return Trial.Failure(
        rule: Violation.liveness,
        text: "the seed does not end, its processor time is used up")
    }
    let text = line ?? ""
    guard text.hasPrefix(bug) else {
      return Trial.Failure(rule: "signal \(signal)", text: text.isEmpty ? "it says nothing" : text)
    }
    let words = text.dropFirst(bug.count).split(separator: " ", maxSplits: 1)
    let place = words.first.map { $0.hasSuffix(":") ? $0.dropLast() : $0 } ?? ""
    return Trial.Failure(
      rule: "invariant at \(place)", text: words.count > 1 ? String(words[1]) : "")
  }
}
