// `skein sim`: whole clusters with their clients in this process, one for each seed, under faults
// that the seed draws. docs/simulator.md explains what it does and how to read it.

import Base
import Glibc
import Simulator
import Synchronization

enum Sim {
  static let command = Command(
    path: ["sim"], summary: "simulate clusters under faults, one for each seed",
    options: [
      Option("seeds", "A..B", "the seeds to run, both ends included (default 1..100)"),
      Option("seed", "N", "run this one alone"),
      Option("trace", nil, "tell what happens in the one seed, line by line"),
      .json,
    ],
    details: """
      A seed decides everything: the size of the cluster, the clients, which faults come when. The
      same seed is the same run on every machine. Ends with 0 if every promise held, 2 at the first
      that was broken, with the command that repeats it.
      """,
    run: .blocking(run))

  /// Seeds that have no meaning of their own.
  private static let seedMax = UInt64.max - 1

  static func run(_ arguments: Arguments) throws -> ExitCode {
    let seeds = try seeds(arguments)
    let tellsStory = arguments.flag("trace")
    if tellsStory, seeds.count > 1 { throw arguments.usage("--trace needs --seed N") }
    SeedAtWork.reportWhenAborted()
    var summary = SimSummary()
    let progress = Progress(total: UInt64(seeds.count))
    for seed in seeds {
      SeedAtWork.current.store(seed, ordering: .relaxed)
      let report = Simulator.run(seed: seed, tellsStory: tellsStory)
      summary.add(report)
      for line in report.story { try StandardOutput.write(line + "\n") }
      if report.violation != nil { break }
      progress.show(summary)
    }
    progress.clear()
    let json = arguments.flag("json")
    let text = json ? summary.json.text + "\n" : summary.text(seconds: progress.seconds)
    try StandardOutput.write(text)
    return summary.failure == nil ? .fine : .violated
  }

  private static func seeds(_ arguments: Arguments) throws(UsageError) -> ClosedRange<UInt64> {
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

/// A broken invariant stops the process: whoever sees that must learn which seed it was.
private enum SeedAtWork {
  static let current = Atomic<UInt64>(0)

  static func reportWhenAborted() {
    signal(SIGABRT) { _ in SeedAtWork.say() }
    signal(SIGILL) { _ in
      SeedAtWork.say()
      _exit(ExitCode.violated.rawValue)
    }
    signal(SIGTRAP) { _ in
      SeedAtWork.say()
      _exit(ExitCode.violated.rawValue)
    }
  }

  private static func say() {
    // Nothing that allocates: the process is in the middle of dying.
    var digits: (UInt64, Int) = (current.load(ordering: .relaxed), 0)
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 32) { buffer in
      var place = 31
      repeat {
        buffer[place] = UInt8(48 + digits.0 % 10)
        digits.0 /= 10
        place -= 1
      } while digits.0 > 0
      put("skein: stopped in this seed; again: skein sim --trace --seed ")
      // SAFETY: the buffer lives until the closure ends, and place + 1 ... 31 are written.
      if let base = buffer.baseAddress { _ = write(2, base + place + 1, 31 - place) }
      put("\n")
    }
  }

  private static func put(_ text: StaticString) {
    _ = write(2, text.utf8Start, text.utf8CodeUnitCount)
  }
}

/// What came of the seeds so far.
struct SimSummary {
  private(set) var runs: UInt64 = 0
  private(set) var simulated = 0.0
  private(set) var coverage = Coverage()
  private(set) var digest: UInt64 = 0
  private(set) var failure: (seed: UInt64, violation: Violation)?

  mutating func add(_ report: SimulationReport) {
    runs += 1
    simulated += report.simulatedSeconds
    coverage.add(report.coverage)
    digest = (digest &* 31) ^ report.digest
    if let violation = report.violation { failure = (report.seed, violation) }
  }

  var digestText: String {
    let text = String(digest, radix: 16)
    return String(repeating: "0", count: 16 - text.count) + text
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
    if let failure {
      members.append(
        .init(
          name: "violation",
          value: [
            "seed": .unsigned(failure.seed), "rule": .text(failure.violation.rule),
            "text": .text(failure.violation.text), "time": .number(failure.violation.time),
            "repeat": .text(repeatCommand(failure.seed)),
          ]))
    }
    return .object(members)
  }

  private func repeatCommand(_ seed: UInt64) -> String { "skein sim --trace --seed \(seed)" }

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
    if let failure {
      text +=
        "seed \(failure.seed) breaks a promise after \(rounded(failure.violation.time)) simulated s\n"
        + "  \(failure.violation.rule): \(failure.violation.text)\n"
        + "  again: \(repeatCommand(failure.seed))\n"
    } else {
      text += "every promise held\n"
    }
    return text
  }
}

/// One line on a terminal that says how far it is.
private final class Progress {
  private let total: UInt64
  private let start = MonotonicReading.now
  private var shown = 0.0
  private let isTerminal = Terminal.isErrorOutput

  init(total: UInt64) { self.total = total }

  var seconds: Double { MonotonicReading.now - start }

  func show(_ summary: SimSummary) {
    let now = seconds
    guard isTerminal, now - shown > 0.5 else { return }
    shown = now
    let rate = rounded(Double(summary.runs) / now)
    StandardError.write(
      "\r\(summary.runs) of \(total) seeds, \(rate) a second,"
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
