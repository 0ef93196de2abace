// `skein status --watch`: the page again and again, in place, until q or Ctrl-C.

import Dispatch
import Glibc
import SkeinClient

enum StatusWatch {
  private static let interval = Duration.seconds(1)

  static func run(_ question: StatusQuestion, _ arguments: Arguments) async throws -> ExitCode {
    if arguments.flag("json") || !Terminal.isOutput {
      return try await stream(question, json: arguments.flag("json"))
    }
    let screen = Screen()
    defer { screen.restore() }
    return try await Interruption.cancels {
      var sampler = RateSampler()
      while !Task.isCancelled {
        let report = await question.ask()
        let rates = sampler.rates(report)
        try screen.draw(report.text(rates: rates, colours: Terminal.hasColours))
        if await screen.quits(within: interval) { break }
      }
      return .fine
    }
  }

  /// For programs and files: one page, or one line of JSON, after the other.
  private static func stream(_ question: StatusQuestion, json: Bool) async throws -> ExitCode {
    var sampler = RateSampler()
    while true {
      let report = await question.ask()
      let rates = sampler.rates(report)
      try StandardOutput.write(
        json ? report.json.text + "\n" : report.text(rates: rates, colours: false) + "\n")
      try await Task.sleep(for: interval)
    }
  }
}

/// The rates between one look and the next.
struct RateSampler {
  private var last: (time: ContinuousClock.Instant, queues: [String: QueueOverview])?

  /// Empty for the first look.
  mutating func rates(_ report: ClusterReport) -> [String: QueueRates] {
    guard let queues = report.queues else { return [:] }
    let now = ContinuousClock.now
    var rates: [String: QueueRates] = [:]
    if let last {
      let seconds = (now - last.time).seconds
      for queue in queues {
        guard let earlier = last.queues[queue.name] else { continue }
        rates[queue.name] = QueueRates(from: earlier, to: queue, seconds: seconds)
      }
    }
    last = (now, Dictionary(queues.map { ($0.name, $0) }) { first, _ in first })
    return rates
  }
}

/// The terminal while it is drawn upon: the alternate screen, keys without Enter.
private final class Screen: Sendable {
  /// As it was; nil if keys do not come from a terminal.
  private let modeBefore: termios?
  private let keys = DispatchQueue(label: "skein.keys")

  init() {
    var mode = termios()
    if tcgetattr(STDIN_FILENO, &mode) == 0 {
      modeBefore = mode
      // Ctrl-C stays a signal; what is typed is neither shown nor waited for until Enter.
      mode.c_lflag &= ~tcflag_t(ICANON | ECHO)
      tcsetattr(STDIN_FILENO, TCSANOW, &mode)
    } else {
      modeBefore = nil
    }
    // Long lines are cut rather than continued, which would move all below.
    write("\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l")
  }

  func restore() {
    write("\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l")
    if var mode = modeBefore { tcsetattr(STDIN_FILENO, TCSANOW, &mode) }
  }

  private func write(_ codes: String) {
    // A terminal that is gone needs no restoring.
    try? StandardOutput.write(codes)
  }

  /// Draws `page` from the top left corner, cut to the height of the screen.
  func draw(_ page: String) throws {
    let height = Terminal.size.lines
    let lines = page.split(separator: "\n", omittingEmptySubsequences: false).prefix(height - 1)
    // Every line clears what was behind it, the end clears what was below: nothing flickers.
    try StandardOutput.write(
      "\u{1b}[H" + lines.map { "\($0)\u{1b}[K\n" }.joined() + "q quits\u{1b}[K\u{1b}[J")
  }

  /// Waits; true as soon as q was typed or the task is cancelled.
  func quits(within time: Duration) async -> Bool {
    guard modeBefore != nil else {
      return (try? await Task.sleep(for: time)) == nil
    }
    let end = ContinuousClock.now + time
    while ContinuousClock.now < end, !Task.isCancelled {
      let typed = await withCheckedContinuation { continuation in
        keys.async { continuation.resume(returning: Screen.key(within: 50)) }
      }
      if typed == UInt8(ascii: "q") || typed == UInt8(ascii: "Q") { return true }
    }
    return Task.isCancelled
  }

  private static func key(within milliseconds: Int32) -> UInt8? {
    var wanted = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
    guard poll(&wanted, 1, milliseconds) > 0 else { return nil }
    var key: UInt8 = 0
    return read(STDIN_FILENO, &key, 1) == 1 ? key : nil
  }
}
