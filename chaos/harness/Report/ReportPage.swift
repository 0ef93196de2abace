// report.html: one page that needs nothing beside itself, for light and dark, for a desk and a phone.

import Base
import History

struct ReportPage {
  let result: ChaosResult

  var html: String {
    """
    <!doctype html>
    <html lang="en">
    <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>\(HTML.escaped(title))</title>
    <style>\(ReportStyle.css)</style>
    </head>
    <body>
    <main>
    \(header)
    \(tiles)
    \(timeline)
    \(gaps)
    \(duplicates)
    \(promises)
    \(exits)
    \(faults)
    \(footer)
    </main>
    </body>
    </html>

    """
  }

  private var title: String { "\(verdictWord): \(result.options.scenario.name)" }

  private var verdictWord: String {
    switch result.outcome {
    case .valid: "valid"
    case .violated: "violated"
    case .incomplete: "not complete"
    }
  }

  // MARK: The head

  private var header: String {
    let scenario = result.options.scenario
    let sentence =
      switch result.outcome {
      case .valid: "Every promise that a history can show was kept."
      case .violated:
        result.verdict.validity == .violated
          ? "Promises were broken."
          : "A node ended, stopped, led or went on against the rules."
      case .incomplete: "The run could not be brought to its end, so nobody knows."
      }
    var text = """
      <header>
      <p class="badge \(result.outcome)">\(verdictWord)</p>
      <h1>\(HTML.escaped(scenario.name))</h1>
      <p class="lead">\(sentence) In this run \(HTML.escaped(scenario.about)).</p>
      <p><code>\(HTML.escaped(result.command))</code></p>

      """
    for reason in result.runVerdict.unknownReasons {
      text += "<p class=\"trouble\">\(HTML.escaped(reason))</p>\n"
    }
    if let waiting = result.waiting {
      text += "<p class=\"trouble\">\(HTML.escaped(waiting))</p>\n"
    }
    return text + "</header>\n"
  }

  private var tiles: String {
    let counts = result.verdict.counts
    let again = RedeliveryCause.allCases.reduce(0) { $0 + counts[$1] }
    let latencies = result.series.latencies
    let elections = result.elections.map(\.milliseconds).sorted()
    let done = result.faults.count { $0.skipped == nil }
    let all: [(String, String, String)] = [
      (HTML.count(counts.confirmed), "confirmed", "of \(HTML.count(counts.published)) published"),
      (HTML.count(counts.acked), "acknowledged", "\(HTML.count(again)) delivered again"),
      (HTML.count(done), "faults", "\(result.leaderships.count) changes of leader"),
      (
        result.verdict.unavailability.all.map { HTML.milliseconds($0.max) } ?? "–",
        "longest without a confirm",
        result.verdict.unavailability.all.map { "median \(HTML.milliseconds($0.median))" } ?? ""
      ),
      (
        elections.last.map { HTML.milliseconds($0) } ?? "–", "longest without a leader",
        elections.isEmpty
          ? "" : "median \(HTML.milliseconds(elections[(elections.count - 1) / 2]))"
      ),
      (
        latencies.quantile(0.5).map { HTML.milliseconds(Double($0.rawValue) / 1e6) } ?? "–",
        "median to confirm",
        latencies.quantile(0.99).map { "99 % in \(HTML.milliseconds(Double($0.rawValue) / 1e6))" }
          ?? ""
      ),
    ]
    let items = all.map { value, name, note in
      "<li><b>\(value)</b><span>\(name)</span><small>\(note)</small></li>"
    }
    return "<ul class=\"tiles\">\n\(items.joined(separator: "\n"))\n</ul>\n"
  }

  // MARK: Figures

  private var timeline: String {
    """
    <section>
    <h2>What happened</h2>
    <div class="wide">\(TimelineFigure(result: result, width: 1000).svg)</div>
    <div class="narrow">\(TimelineFigure(result: result, width: 380).svg)</div>
    <p class="key"><span><i class="confirmed"></i>confirmed</span>
    <span><i class="delivered"></i>delivered</span> <span><i class="median"></i>median to confirm</span>
    <span><i class="high"></i>99 of 100</span>
    <span><i class="band"></i>a fault (numbers as in the table below)</span></p>
    </section>

    """
  }

  private var gaps: String {
    let values = result.faults.filter { $0.skipped == nil }.map { result.gap(of: $0) ?? 0 }
    if values.isEmpty { return "" }
    return """
      <section>
      <h2>Without a confirm</h2>
      <p>For each fault, the longest time in which no publish was confirmed, until the next fault.</p>
      <div class="wide">\(GapFigure(values: values, width: 1000).svg)</div>
      <div class="narrow">\(GapFigure(values: values, width: 380).svg)</div>
      \(gapTable)
      </section>

      """
  }

  private var gapTable: String {
    let rows = result.verdict.unavailability.byFault.map { name, gaps in
      "<tr><td>\(HTML.escaped(name))</td><td class=\"n\">\(gaps.count)</td>"
        + "<td class=\"n\">\(HTML.milliseconds(gaps.median))</td>"
        + "<td class=\"n\">\(HTML.milliseconds(gaps.max))</td></tr>"
    }
    return HTML.table(
      ["fault", ">times", ">median", ">longest"], rows)
  }

  private var duplicates: String {
    let counts = result.verdict.counts
    let causes = RedeliveryCause.allCases.filter { counts[$0] > 0 }
    let most = causes.map { counts[$0] }.max() ?? 1
    let rows = causes.map { cause in
      let share = Double(counts[cause]) / Double(most) * 100
      return "<tr><td>\(Self.words(cause))</td><td class=\"n\">\(HTML.count(counts[cause]))</td>"
        + "<td class=\"bar\"><i style=\"width:\(HTML.number(share))%\"></i></td></tr>"
    }
    let table = rows.isEmpty ? "<p>None.</p>" : HTML.table(["why", ">times", ""], rows)
    return """
      <section>
      <h2>Delivered again</h2>
      <p>What at-least-once delivery allows. A change of leader is no reason.</p>
      \(table)
      </section>

      """
  }

  private static func words(_ cause: RedeliveryCause) -> String {
    switch cause {
    case .nack: "handed back to be tried again"
    case .release: "handed back untried"
    case .consumerDied: "its consumer died"
    case .leaseOverran: "its lease was overrun"
    case .unknownAck: "the outcome of its acknowledgement is unknown"
    case .leaderChange: "the leader changed"
    }
  }

  // MARK: The verdict

  private var promises: String {
    let promises = result.promises.map { promise in
      "<tr><td>\(promise.name)</td><td>\(HTML.escaped(promise.promise))</td>"
        + "<td>\(Self.mark(promise.judgement))</td></tr>"
    }
    let verdict = result.runVerdict
    let rows = verdict.violations.map { violation in
      let count =
        violation.count == 0 && !verdict.isJudged(violation.kind)
        ? "not known" : HTML.count(violation.count)
      return "<tr><td>\(violation.kind.name)</td><td>\(Self.meaning(violation.kind))</td>"
        + "<td class=\"n\">\(count)</td></tr>"
    }
    var text = """
      <section>
      <h2>Promises</h2>
      \(HTML.table(["", "promise", ""], promises))
      <p>What was looked for:</p>
      \(HTML.table(["violation", "would be", ">messages"], rows))

      """
    for violation in result.verdict.violations where violation.count > 0 {
      let events = violation.witness.map(HTML.escaped).joined(separator: "\n")
      text += """
        <details open>
        <summary>\(violation.kind.name): \(HTML.escaped(violation.ids.joined(separator: ", ")))</summary>
        <pre>\(events)</pre>
        </details>

        """
    }
    return text + "</section>\n"
  }

  private static func mark(_ judgement: PromiseReport.Judgement) -> String {
    switch judgement {
    case .kept: "<span class=\"good\">kept</span>"
    case .broken(let count, let names):
      "<span class=\"bad\">broken</span>: \(names), \(HTML.count(count)) messages"
    case .brokenByNodes(let count):
      "<span class=\"bad\">broken</span> by a node, \(count == 1 ? "once" : "\(count) times")"
    case .unknown(let why): "not known: \(HTML.escaped(why))"
    }
  }

  private static func meaning(_ kind: ViolationKind) -> String {
    switch kind {
    case .lost: "a confirmed message that never came out, or too late"
    case .resurrected: "delivered after it was acknowledged, or gone otherwise"
    case .unexpected: "delivered and never published"
    case .heldTwice: "two consumers hold it at once"
    case .failoverDuplicate: "delivered again for nothing but a new leader"
    case .early: "delivered before its time"
    case .tokenRegress: "a fencing token that did not grow"
    case .staleAccepted: "an acknowledgement too late or not its holder's, and it counted"
    case .leaseCut: "a consumer was told that its lease was over, and it was not"
    case .outOfOrder: "messages overtaking each other"
    case .deadLetterDoubled: "a dead letter that exists twice"
    case .confirmedTwice: "one publish stored twice"
    case .attempts: "attempts counted anew or not at all, or more than the queue allows"
    }
  }

  private var exits: String {
    if result.exits.isEmpty { return "" }
    let items = result.exits.map { exit in
      """
      <details open>
      <summary>node \(exit.node) after \(HTML.seconds(exit.time)): \(HTML.escaped(exit.cause))</summary>
      <pre>\(HTML.escaped(exit.log))</pre>
      </details>
      """
    }
    return """
      <section>
      <h2>Nodes that ended, stopped, led or went on against the rules</h2>
      \(items.joined(separator: "\n"))
      </section>

      """
  }

  private var faults: String {
    let elections = Dictionary(
      result.elections.map { ($0.fault.fault.number, $0.milliseconds) },
      uniquingKeysWith: { first, _ in first })
    let rows = result.faults.sorted { $0.fault.number < $1.fault.number }.map { fault in
      let victims = [fault.victims, fault.detail].filter { !$0.isEmpty }.joined(separator: ": ")
      let note = fault.skipped.map { "skipped: \($0)" } ?? victims
      let gap = fault.skipped == nil ? result.gap(of: fault).map { HTML.milliseconds($0) } : nil
      return "<tr><td class=\"n\">\(fault.fault.number)</td>"
        + "<td class=\"n\">\(HTML.seconds(fault.start))</td>"
        + "<td>\(HTML.escaped(fault.name))</td><td>\(HTML.escaped(note))</td>"
        + "<td class=\"n\">\(gap ?? "")</td>"
        + "<td class=\"n\">\(elections[fault.fault.number].map { HTML.milliseconds($0) } ?? "")</td></tr>"
    }
    return """
      <section>
      <h2>Faults</h2>
      \(HTML.table([">#", ">at", "fault", "to whom", ">no confirm", ">new leader"], rows))
      </section>

      """
  }

  private var footer: String {
    let isStrict = result.verdict.isStrict
    return """
      <footer>
      <p>Judged from history.jsonl beside this page by the rules of docs/history-format.md
      (\(isStrict ? "strict" : "not strict")); <code>skein check\(isStrict ? " --strict" : "")
      history.jsonl</code> judges the same, without what is not in it: nodes that ended, and an end that
      was not reached. \(HTML.count(result.verdict.counts.events)) events,
      seed \(result.options.seed), \(HTML.seconds(result.length)) in all.</p>
      </footer>
      """
  }
}

/// Pieces of a page.
enum HTML {
  static func escaped(_ text: String) -> String {
    var escaped = ""
    for character in text {
      switch character {
      case "&": escaped += "&amp;"
      case "<": escaped += "&lt;"
      case ">": escaped += "&gt;"
      case "\"": escaped += "&quot;"
      default: escaped.append(character)
      }
    }
    return escaped
  }

  /// Columns whose title begins with `>` are to the right.
  static func table(_ titles: [String], _ rows: [String]) -> String {
    let head = titles.map { title in
      title.hasPrefix(">") ? "<th class=\"n\">\(title.dropFirst())</th>" : "<th>\(title)</th>"
    }
    return """
      <div class="scroll"><table>
      <thead><tr>\(head.joined())</tr></thead>
      <tbody>
      \(rows.joined(separator: "\n"))
      </tbody>
      </table></div>
      """
  }

  /// 1234567 as 1,234,567.
  static func count(_ number: some BinaryInteger) -> String {
    let digits = "\(number)"
    var text = ""
    for (place, digit) in digits.enumerated() {
      if place > 0, (digits.count - place) % 3 == 0 { text += "," }
      text.append(digit)
    }
    return text
  }

  /// With one decimal where that tells something.
  static func number(_ value: Double) -> String {
    value < 100 ? "\((value * 10).rounded() / 10)" : "\(Int(value.rounded()))"
  }

  static func milliseconds(_ value: Double) -> String {
    value < 10_000 ? "\(number(value)) ms" : "\(number(value / 1000)) s"
  }

  static func seconds(_ time: Nanoseconds) -> String { "\(number(time.seconds)) s" }
}
