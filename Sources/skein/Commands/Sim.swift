// `skein sim`: whole clusters with their clients in this process, one for each seed, under faults
// that the seed draws. docs/simulator.md explains what it does and how to read it.

import Base
import Glibc
import Simulator

enum Sim {
  static let command = Command(
    path: ["sim"], summary: "simulate clusters under faults, one for each seed",
    options: [
      Option("seeds", "A..B", "the seeds to run, both ends included (default 1..100)"),
      Option("seed", "N", "run this one alone"),
      Option("trace", nil, "tell what happens in the one seed, line by line"),
      Option("shrink", nil, "find out which single faults and clients the one seed needs to fail"),
      Option(
        "without", "PARTS",
        "leave out faults (kill,damage), clients (client-2), time (after-9s), single faults as"
          + " --shrink and --trace name them (faults-but-kill@3.1-48-0+…)"),
      Option("verdict", nil, "say of the one seed only what --shrink wants to know"),
      Option(
        "stopped", "SEED:SIGNAL",
        "tell how this seed stopped a process (which becomes this command by itself)"),
      Option("history", "FILE", "write what the clients of the one seed saw, for skein check"),
      Option("digest", "D", "what the one seed's run must come to, as in a failure's message"),
      Option("must-reach", nil, "fail if something that every long run must reach never happened"),
      .json,
    ],
    details: """
      A seed decides everything: the size of the cluster, the clients, which faults come when. The
      same seed is the same run on every machine. Ends with 0 if every promise held, 2 at the first
      that was broken, 3 if a run gets nowhere, with the command that repeats it. Another version of
      Skein makes another run of the same seed: --digest tells.
      """,
    run: .blocking(run))

  /// Seeds that have no meaning of their own.
  private static let seedMax = UInt64.max - 1

  /// So many lines of its story are shown of a seed that fails.
  static let lastEventsCount = 25

  static func run(_ arguments: Arguments) throws -> ExitCode {
    let seeds = try seeds(arguments)
    let cut = try cut(arguments, seeds)
    if arguments.flag("verdict") {
      return try SimTrial.run(seeds.lowerBound, cut, isTold: arguments.flag("trace"))
    }
    let json = arguments.flag("json")
    if let text = arguments.text("stopped") {
      guard let mark = SimStop.Mark(text, in: seeds) else {
        throw arguments.usage("--stopped: \"\(text)\" is none of the seeds with a signal")
      }
      let runs = mark.seed - seeds.lowerBound + 1
      return try SimStop.report(mark, cut, runs: runs, json: json)
    }
    // Seeds are run by other processes.
    if arguments.flag("shrink") { return try shrink(seeds.lowerBound, cut) }
    SeedAtWork.reportEnds(as: end(seeds, cut, arguments))
    var summary = SimSummary(cut: cut)
    let progress = Progress(first: seeds.lowerBound, last: seeds.upperBound)
    for seed in seeds {
      SeedAtWork.begin(seed)
      let report = try run(seed, cut, arguments)
      if let strike = report.foreignStrike { throw foreign(strike, seed) }
      summary.add(report)
      if report.violation != nil { break }
      progress.show(summary)
    }
    progress.clear()
    if let seed = summary.failure?.seed, !arguments.flag("trace") {
      summary.failure?.lastEvents = Simulator.lastEvents(
        seed: seed, without: cut, count: lastEventsCount)
    }
    let text = json ? summary.json.text + "\n" : summary.text(seconds: progress.seconds)
    try StandardOutput.write(text)
    return exitCode(
      summary, mustReach: arguments.flag("must-reach"), digest: arguments.text("digest"))
  }

  /// What becomes of this process if a seed stops it.
  private static func end(
    _ seeds: ClosedRange<UInt64>, _ cut: PlanCut, _ arguments: Arguments
  ) -> SeedAtWork.End {
    if arguments.flag("trace") {
      return .line(again: SimSummary.repeatCommand(seeds.lowerBound, cut, digest: nil))
    }
    var words = ["sim", "--seeds", "\(seeds.lowerBound)..\(seeds.upperBound)"]
    if !cut.text.isEmpty { words += ["--without", cut.text] }
    if arguments.flag("json") { words.append("--json") }
    return .process(words)
  }

  /// A list of single faults that the seed does not have.
  static func foreign(_ strike: Strike, _ seed: UInt64) -> UsageError {
    UsageError(
      "--without: seed \(seed) has no \(strike): the command is another version's, or was made with"
        + " another --without", command: "sim")
  }

  /// Runs one seed, with its story on the terminal and its history in a file where that is wanted.
  private static func run(
    _ seed: UInt64, _ cut: PlanCut, _ arguments: Arguments
  ) throws -> SimulationReport {
    let isTraced = arguments.flag("trace")
    let file = arguments.text("history")
    guard isTraced || file != nil else { return Simulator.run(seed: seed, without: cut) }
    var failure: (any Error)?
    let report = Simulator.run(seed: seed, without: cut) { line in
      guard isTraced, failure == nil else { return }
      // At once, so that the story is there if an invariant ends the process.
      do { try StandardOutput.write(line + "\n") } catch { failure = error }
    } beforeEach: {
      SeedAtWork.reached($0.step)
    }
    if let failure { throw failure }
    if let file { try write(report.history, to: file) }
    return report
  }

  /// A broken promise counts more than that it is another one than was to be repeated.
  ///
  /// - Parameter digest: what the run was to come to.
  static func exitCode(_ summary: SimSummary, mustReach: Bool, digest: String?) -> ExitCode {
    if let digest, digest != summary.digestText {
      StandardError.write(
        "skein: this is another run than the one that was to be repeated: its digest is"
          + " \(summary.digestText), not \(digest), so Skein was another version then\n")
      if summary.failure == nil { return .failed }
    }
    if let failure = summary.failure { return failure.exitCode }
    guard mustReach, !summary.coverage.missing.isEmpty else { return .fine }
    let names = summary.coverage.missing.map(\.name).joined(separator: ", ")
    StandardError.write("skein: never reached: \(names)\n")
    return .failed
  }

  private static func cut(
    _ arguments: Arguments, _ seeds: ClosedRange<UInt64>
  ) throws -> PlanCut {
    guard let text = arguments.text("without") else { return PlanCut() }
    do throws(PlanCut.UnknownPart) {
      let cut = try PlanCut(text)
      // As many as a plan can have are drawn by one seed in five: more than these need no look.
      let first = seeds.lowerBound
      let some = first...(first + min(seeds.upperBound - first, 1000))
      if let last = cut.clients.max(),
        !some.contains(where: { last <= Simulator.clientCount(seed: $0) })
      {
        throw PlanCut.UnknownPart(part: "client-\(last)")
      }
      return cut
    } catch {
      let known = FaultKind.allCases.map(\.rawValue)
      let nearest = nearestName(to: error.part, in: known).map { "; do you mean \($0)?" } ?? ""
      throw arguments.usage("--without: there is no \"\(error.part)\"\(nearest)")
    }
  }

  private static func write(_ history: [UInt8], to file: String) throws {
    let descriptor = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
    guard descriptor >= 0 else { throw Failure("cannot write \(file)") }
    defer { close(descriptor) }
    var rest = history[...]
    while !rest.isEmpty {
      let written = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      guard written > 0 else { throw Failure("cannot write \(file)") }
      rest = rest.dropFirst(written)
    }
  }

  /// Leaves out what the failure does not need, and says what it needs.
  private static func shrink(_ seed: UInt64, _ cut: PlanCut) throws -> ExitCode {
    let shrunk = try Shrinker.shrink(seed: seed, without: cut) { cut in
      try SimTrial.outcome(seed, cut)
    } progress: { cut in
      if Terminal.isErrorOutput { StandardError.write("still fails: --without \(cut.text)\n") }
    }
    guard let shrunk else {
      try StandardOutput.write("seed \(seed) does not fail\n")
      return .fine
    }
    let failure = shrunk.failure
    let time = failure.time.map { " after \(rounded($0)) simulated s" } ?? ""
    let strikes = shrunk.cut.strikes ?? []
    var text =
      "after \(shrunk.runs) runs, seed \(seed) still fails\(time)\n  \(failure.rule): \(failure.text)\n"
    text += "  with so many faults: \(strikes.count)\n" + strikes.map { "    \($0)\n" }.joined()
    let digest = failure.digest.map { SimSummary.text(of: $0) }
    text += "  again: \(SimSummary.repeatCommand(seed, shrunk.cut, digest: digest))\n"
    try StandardOutput.write(text)
    return failure.isStandstill ? .unknown : .violated
  }

  private static func seeds(_ arguments: Arguments) throws(UsageError) -> ClosedRange<UInt64> {
    let seeds = try range(arguments)
    let isOne = seeds.lowerBound == seeds.upperBound
    if let digest = arguments.text("digest"), !SimSummary.isDigest(digest) {
      throw arguments.usage("--digest: \"\(digest)\" is no digest: those are 16 digits of 0-9a-f")
    }
    for name in ["trace", "shrink", "verdict"] where arguments.flag(name) && !isOne {
      throw arguments.usage("--\(name) needs --seed N")
    }
    for name in ["history", "digest"] where arguments.text(name) != nil && !isOne {
      throw arguments.usage("--\(name) needs --seed N")
    }
    func isGiven(_ name: String) -> Bool {
      name == "stopped" ? arguments.text(name) != nil : arguments.flag(name)
    }
    // One says things to people that the other would not bear.
    let pairs = [
      ("trace", "json"), ("shrink", "json"), ("shrink", "trace"), ("shrink", "must-reach"),
      ("verdict", "json"), ("verdict", "must-reach"), ("verdict", "shrink"),
      ("stopped", "trace"), ("stopped", "must-reach"), ("stopped", "shrink"),
      ("stopped", "verdict"),
    ]
    for (one, other) in pairs where isGiven(one) && isGiven(other) {
      throw arguments.usage("--\(one) or --\(other), not both")
    }
    for flag in ["shrink", "verdict", "stopped"] where isGiven(flag) {
      for name in ["history", "digest"] where arguments.text(name) != nil {
        throw arguments.usage("--\(flag) or --\(name), not both")
      }
    }
    return seeds
  }

  private static func range(_ arguments: Arguments) throws(UsageError) -> ClosedRange<UInt64> {
    if let seed = try arguments.count("seed", in: 0...seedMax) {
      if arguments.text("seeds") != nil { throw arguments.usage("--seed or --seeds, not both") }
      return seed...seed
    }
    guard let text = arguments.text("seeds") else { return 1...100 }
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 3, parts[1].isEmpty, let first = UInt64(parts[0]),
      let last = UInt64(parts[2]), first <= last, last <= seedMax
    else { throw arguments.usage("--seeds: \"\(text)\" is no range such as 1..2000") }
    return first...last
  }
}

/// What came of the seeds so far.
struct SimSummary {
  /// What was left out.
  let cut: PlanCut
  private(set) var runs: UInt64 = 0
  private(set) var simulated = 0.0
  private(set) var coverage = Coverage()
  private(set) var digest: UInt64 = 0
  var failure: SimFailure?

  init(cut: PlanCut = PlanCut()) { self.cut = cut }

  mutating func add(_ report: SimulationReport) {
    runs += 1
    simulated += report.simulatedSeconds
    coverage.add(report.coverage)
    digest = (digest &* 31) ^ report.digest
    if let violation = report.violation { failure = SimFailure(violation, of: report) }
  }

  var digestText: String { Self.text(of: digest) }

  static func text(of digest: UInt64) -> String {
    let text = String(digest, radix: 16)
    return String(repeating: "0", count: 16 - text.count) + text
  }

  /// Whether `text(of:)` may have written it.
  static func isDigest(_ text: String) -> Bool {
    UInt64(text, radix: 16).map { Self.text(of: $0) == text } ?? false
  }

  var json: JSON {
    var members: [JSON.Member] = [
      .init(name: "seeds", value: .unsigned(runs)),
      .init(name: "simulatedSeconds", value: .number(simulated)),
      .init(name: "digest", value: .text(digestText)),
      .init(
        name: "happened",
        value: .object(
          Happening.allCases.map { .init(name: $0.name, value: .unsigned(coverage[$0])) })),
      .init(name: "neverReached", value: .array(coverage.missing.map { .text($0.name) })),
    ]
    if let failure { members.append(.init(name: "violation", value: failure.json(cut))) }
    return .object(members)
  }

  /// - Parameter digest: nil where the process ended before there was one.
  static func repeatCommand(_ seed: UInt64, _ cut: PlanCut, digest: String?) -> String {
    "skein sim --trace --seed \(seed)" + (cut.text.isEmpty ? "" : " --without \(cut.text)")
      + (digest.map { " --digest \($0)" } ?? "")
  }

  func text(seconds: Double) -> String {
    var table = Table(["happened", ">times"])
    for happening in Happening.allCases {
      table.add([happening.name, "\(coverage[happening])"])
    }
    var text = table.text(colours: Terminal.hasColours)
    let rate = seconds > 0 ? Double(runs) / seconds : 0
    text +=
      "\(runs) seeds, \(rounded(simulated / 3600)) simulated hours in \(rounded(seconds)) s"
      + " (\(rounded(rate * 60)) seeds a minute), digest \(digestText)\n"
    let missing = coverage.missing
    if runs >= 200, !missing.isEmpty {
      text += "never reached: \(missing.map(\.name).joined(separator: ", "))\n"
    }
    return text + (failure?.text(cut) ?? "every promise held\n")
  }
}

/// One line on a terminal that says how far it is.
private final class Progress {
  private let total: Double
  private let start = MonotonicReading.now
  private var shown = 0.0
  private let isTerminal = Terminal.isErrorOutput

  init(first: UInt64, last: UInt64) { total = Double(last - first) + 1 }

  var seconds: Double { MonotonicReading.now - start }

  func show(_ summary: SimSummary) {
    let now = seconds
    guard isTerminal, now - shown > 0.5 else { return }
    shown = now
    let rate = rounded(Double(summary.runs) / now)
    StandardError.write(
      "\r\(summary.runs) of \(rounded(total)) seeds, \(rate) a second,"
        + " \(rounded(summary.simulated / 3600)) simulated hours ")
  }

  func clear() { if isTerminal, shown > 0 { StandardError.write("\r\u{1b}[K") } }
}

private enum MonotonicReading {
  /// Seconds since some moment.
  static var now: Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}
