// `skein chaos run`: a real cluster, loaded and hurt, and the verdict on what its clients saw.
// chaos/README.md explains scenarios and how to read a verdict.

import Base
import ChaosHarness
import Glibc
import History
import Synchronization

enum ChaosRunCommand {
  static let command = Command(
    path: ["chaos", "run"], summary: "hurt a real cluster and judge what its clients saw",
    operands: [
      Operand(name: "SCENARIO", help: "a name of skein chaos list, or a file (chaos/README.md)")
    ],
    options: [
      Option("seed", "N", "draws what comes when; the same seed is the same plan (default: drawn)"),
      Option("duration", "TIME", "for how long faults come (default: the scenario's, 60s)"),
      Option("rate", "R", "publishes a second, or max (default: the scenario's, 500)"),
      Option("protocol", "NAME", "amqp: all load goes through AMQP (default: the scenario's)"),
      Option("report", "DIR", "write history, verdict, logs and report.html there"),
      Option("netns", nil, "a network namespace for each node (needs root)"),
      Option("no-strict", nil, "redeliveries after a change of leader are only counted"),
      Option("base-port", "PORT", "node N takes clients at PORT + N (default: free ones)"),
      .json,
    ],
    details: """
      Starts the nodes as processes of this program in a directory of their own, which is removed at
      the end. Ctrl-C heals, stops everything, and judges what there is; a second one
      kills the nodes and leaves their directory.
      Exit codes: 0 valid; 2 a promise was broken, as a history or a node shows, or a node crashed or
      stopped taking part; 3 nobody knows, since it could not be brought to its end, was interrupted,
      harmed nothing, or a node was too late to be judged; 1 it could not be started.
      """,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let options = try options(arguments)
    let executable = try ownExecutable()
    try takeOwnMounts(options, executable: executable)
    let starter = try SpawnThread()
    let run = ChaosRun(options) { words, logFile in
      try starter.run { try launch(words, logFile: logFile, executable: executable) }
    }
    if let misuse = run.misuse { throw arguments.usage(misuse) }
    for (kind, reason) in run.refusals {
      StandardError.write("chaos: \(kind.rawValue) is left out: \(reason)\n")
    }
    StandardError.write(
      "chaos: \(options.scenario.name), seed \(options.seed), \(run.plan.faults.count) faults in"
        + " \(DurationText.format(options.duration))\n")
    let line = ChaosProgressLine()
    let result = try await Interruption.cancels(atOnce: { run.killAll() }) {
      try await run.run(
        warn: { StandardError.write("chaos: \($0)\n") }, progress: { line.show($0) })
    }
    line.end()
    try StandardOutput.write(
      arguments.flag("json")
        ? result.json + "\n" : ChaosText.text(result, colours: Terminal.hasColours))
    switch result.outcome {
    case .valid: return .fine
    case .violated: return .violated
    case .incomplete: return .unknown
    }
  }

  /// What a run as root mounts shall go with it, however it ends.
  private static func takeOwnMounts(_ options: ChaosOptions, executable: String) throws {
    guard geteuid() == 0, options.usesNamespaces || options.scenario.diskBytes != nil else {
      return
    }
    try OwnMounts.enter(executable: executable)
    if options.usesNamespaces { try OwnMounts.hideNamespaceNames() }
  }

  private static func options(_ arguments: Arguments) throws -> ChaosOptions {
    var scenario: Scenario
    do {
      scenario = try ScenarioLibrary.scenario(arguments.operands[0])
    } catch let error as ChaosError {
      if arguments.operands[0].contains("/") { throw Failure(error.description) }
      throw arguments.usage(error.description)
    } catch {
      throw Failure("\(error)")
    }
    if let rate = arguments.text("rate") {
      scenario.workload.rate =
        rate == "max" ? nil : try arguments.count("rate", in: 1...1_000_000)
    }
    let seed = try arguments.count("seed", in: 0 ... .max) ?? UInt64.random(in: 1...999_999)
    var options = ChaosOptions(scenario: scenario, seed: seed)
    if let duration = try arguments.duration("duration", in: .seconds(1) ... .seconds(86_400)) {
      options.duration = duration
    }
    options.rate = arguments.text("rate")
    if let name = arguments.text("protocol") {
      guard name == "amqp" else {
        throw arguments.usage("--protocol must be amqp, not \"\(name)\"")
      }
      options.speakAMQP()
    }
    options.word = arguments.operands[0]
    options.isStrict = !arguments.flag("no-strict")
    options.usesNamespaces = arguments.flag("netns")
    options.basePort = try arguments.count("base-port", in: 1...65_400).map { UInt16($0) }
    options.report = arguments.text("report")
    options.temporary = Terminal.environment("TMPDIR") ?? "/tmp"
    return options
  }

  /// Starts a program for the harness: `skein` is this one.
  private static func launch(
    _ words: [String], logFile: String, executable: String
  ) throws -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(
      &actions, STDOUT_FILENO, logFile, O_WRONLY | O_CREAT | O_APPEND, 0o644)
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO)
    try keepDescriptorsFromChildren()
    // What goes before it, as `ip netns exec`, finds this program by its path.
    let words = words.first == "skein" ? words : words.map { $0 == "skein" ? executable : $0 }
    // A session of its own: Ctrl-C is for the harness, which then stops the nodes in order. If the harness
    // dies and cannot, they die with it.
    return try spawn(
      words, executable: words[0] == "skein" ? executable : words[0], actions: &actions,
      newSession: true, environment: EndWithParent.environment)
  }
}

/// One line that says how far a run is; where nobody can rewrite lines, one now and then.
private final class ChaosProgressLine: Sendable {
  private struct Shown {
    var phase: ChaosPhase?
    var time = Nanoseconds.zero
    var confirmed: UInt64 = 0
  }

  private let isTerminal = Terminal.isErrorOutput
  private let shown = Mutex(Shown())
  /// Nanoseconds between two lines where they stay.
  private static let lineInterval: UInt64 = 5_000_000_000

  func show(_ progress: ChaosProgress) {
    let rate: Double? = shown.withLock { shown in
      let passed = progress.time.rawValue - min(shown.time.rawValue, progress.time.rawValue)
      guard isTerminal || shown.phase != progress.phase || passed >= Self.lineInterval else {
        return nil
      }
      let confirmed = progress.totals.confirmed - shown.confirmed
      shown = Shown(
        phase: progress.phase, time: progress.time, confirmed: progress.totals.confirmed)
      return passed == 0 ? 0 : Double(confirmed) / Double(passed) * 1e9
    }
    guard let rate else { return }
    let totals = progress.totals
    var text = "\(progress.phase.rawValue) \(rounded(Double(progress.time.rawValue) / 1e9)) s:"
    text += " \(totals.confirmed) confirmed (\(Int(rate)) a second), \(totals.delivered)"
    text += " delivered, \(totals.acked) acknowledged; \(progress.faults) faults"
    if !progress.active.isEmpty { text += ", now " + progress.active.joined(separator: ", ") }
    StandardError.write(
      isTerminal ? "\r\u{1b}[K" + text.prefix(Terminal.size.columns - 1) : text + "\n")
  }

  func end() { if isTerminal { StandardError.write("\r\u{1b}[K") } }
}
