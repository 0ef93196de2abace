// What came out of a run.

import Base
import History

package struct ChaosResult: Sendable {
  package let options: ChaosOptions
  package let plan: FaultPlan
  package let verdict: Verdict
  /// Why the run is not complete: it could not be started, healed or drained.
  package let trouble: String?
  /// Nodes that ended though nobody had told them to, stopped taking part, or were seen to break a promise.
  package let exits: [NodeExit]
  package let faults: [FaultRecord]
  package let leaderships: [Leadership]
  package let series: TimeSeries
  package let totals: Recording.Totals
  package let length: Nanoseconds
  /// The cluster's directory, if it was kept because something is wrong.
  package var keptDirectory: String?

  package enum Outcome: Sendable {
    case valid
    /// A promise was broken, or a node ended, stopped, led or went on against the rules.
    case violated
    /// It could not be brought to its end, so nobody knows.
    case incomplete
  }

  package var outcome: Outcome {
    if verdict.validity == .violated || !exits.isEmpty { return .violated }
    return trouble == nil && verdict.validity == .valid ? .valid : .incomplete
  }

  /// What is known of the whole run, of which the history is one part: a node that ended by itself,
  /// or an end that was not reached, is not in it.
  package var runVerdict: Verdict {
    var whole = verdict
    if let trouble { whole.unknownReasons.insert("the run is not complete: \(trouble)", at: 0) }
    whole.validity =
      switch outcome {
      case .valid: .valid
      case .violated: .violated
      case .incomplete: .unknown
      }
    return whole
  }

  /// Each promise, and what this run shows of it.
  package var promises: [PromiseReport] {
    PromiseReport.all(
      of: runVerdict, trouble: trouble,
      faults: Set(faults.filter { $0.skipped == nil }.map(\.fault.line.kind)),
      breaches: exits.compactMap(\.promise))
  }

  /// The command that does the same again.
  package var command: String {
    "skein chaos run \(Self.shellWord(options.word)) --seed \(options.seed)"
      + " --duration \(DurationText.format(options.duration))"
      + (options.rate.map { " --rate \($0)" } ?? "") + (options.isAMQP ? " --protocol amqp" : "")
      + (options.isStrict ? "" : " --no-strict")
      + (options.usesNamespaces ? " --netns" : "")
  }

  /// As a shell takes it for one word.
  private static func shellWord(_ text: String) -> String {
    let plain = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./+,:@%=")
    if !text.isEmpty, text.allSatisfy(plain.contains) { return text }
    return "'"
      + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: #"'\''"#)
      + "'"
  }

  /// From a fault to the next leader, of faults that cost the cluster its leader: milliseconds.
  ///
  /// Each change is one fault's: the last before the leader was lost that had the leader among its
  /// victims. A fault of others meanwhile does not shorten what an election took.
  package var elections: [(fault: FaultRecord, milliseconds: Double)] {
    let done = faults.filter { $0.skipped == nil && !$0.isOfClients }.sorted { $0.start < $1.start }
    return zip(leaderships, leaderships.dropFirst()).compactMap { former, next in
      let lost = min(former.end ?? next.time, next.time)
      let candidates = done.filter { $0.start >= former.time && $0.start <= lost }
      guard
        let fault = candidates.last(where: { $0.nodes.contains(former.node) })
          ?? candidates.last(where: { $0.nodes.isEmpty }) ?? candidates.last
      else { return nil }
      return (fault, Double(next.time.rawValue - fault.start.rawValue) / 1e6)
    }.sorted { $0.fault.start < $1.fault.start }
  }

  /// The longest time without a confirm that a fault brought, until the next fault: milliseconds.
  /// Nil if there was none worth to be kept.
  package func gap(of fault: FaultRecord) -> Double? {
    let next = faults.filter { $0.skipped == nil && $0.start > fault.start }.map(\.start).min()
    var gaps = series.gaps
    // A run that broke off may have had no confirm any more. After one that did not, nobody publishes.
    if trouble != nil, let last = series.lastConfirm {
      gaps.append(TimeSeries.Gap(start: last, end: length))
    }
    // What the next fault brought begins with the last confirm before it.
    return gaps.filter { $0.end > fault.start }.map { gap in
      TimeSeries.Gap(start: gap.start, end: next.map { min($0, gap.end) } ?? gap.end)
    }.filter {
      $0.end > $0.start && $0.end.rawValue - $0.start.rawValue >= TimeSeries.gapMin.rawValue
    }
    .map(\.milliseconds).max()
  }

  /// `verdict.json`: what `skein check --json` says, and the run beside it. Whether it is valid is
  /// said of the run.
  package var json: String {
    var text = runVerdict.json
    text.removeLast()
    text += ",\"run\":{"
    text += "\"scenario\":\(JSONText.quoted(options.scenario.name))"
    text += ",\"seed\":\(options.seed),\"seconds\":\(options.duration.seconds)"
    text += ",\"outcome\":\"\(outcome)\""
    text += ",\"trouble\":\(trouble.map(JSONText.quoted) ?? "null")"
    text += ",\"command\":\(JSONText.quoted(command))"
    text += ",\"promises\":{\(promises.map(Self.json).joined(separator: ","))}"
    text += ",\"producersWaitedSeconds\":\(JSONText.number(totals.waited.seconds))"
    text += ",\"leaderChanges\":\(leaderships.count)"
    text += ",\"electionMs\":\(JSONText.distribution(elections.map(\.milliseconds)))"
    text += ",\"latencyMs\":{\"p50\":\(milliseconds(0.5)),\"p99\":\(milliseconds(0.99))"
    text += ",\"max\":\(JSONText.number(Double(series.latencies.max.rawValue) / 1e6))}"
    let elections = Dictionary(
      elections.map { ($0.fault.fault.number, $0.milliseconds) },
      uniquingKeysWith: { one, _ in one })
    let records = faults.map {
      Self.json($0, gap: gap(of: $0), election: elections[$0.fault.number])
    }
    text += ",\"faults\":[\(records.joined(separator: ","))]"
    text += ",\"nodeExits\":[\(exits.map(Self.json).joined(separator: ","))]"
    return text + "}}"
  }

  private func milliseconds(_ share: Double) -> String {
    series.latencies.quantile(share).map { JSONText.number(Double($0.rawValue) / 1e6) } ?? "null"
  }

  private static func json(_ fault: FaultRecord, gap: Double?, election: Double?) -> String {
    var text =
      "{\"fault\":\(JSONText.quoted(fault.name)),\"victims\":\(JSONText.quoted(fault.victims))"
    text += ",\"start\":\(JSONText.number(fault.start.seconds))"
    text += ",\"end\":\(fault.end.map { JSONText.number($0.seconds) } ?? "null")"
    text += ",\"detail\":\(JSONText.quoted(fault.detail))"
    // Of what was not done there is no price.
    let gap = fault.skipped == nil ? gap : nil
    text += ",\"gapMs\":\(gap.map(JSONText.number) ?? "null")"
    text += ",\"electionMs\":\(election.map(JSONText.number) ?? "null")"
    return text + ",\"skipped\":\(fault.skipped.map(JSONText.quoted) ?? "null")}"
  }

  private static func json(_ promise: PromiseReport) -> String {
    let judgement =
      switch promise.judgement {
      case .kept: "kept"
      case .broken, .brokenByNodes: "broken"
      case .unknown: "unknown"
      }
    return "\"\(promise.name)\":\"\(judgement)\""
  }

  private static func json(_ exit: NodeExit) -> String {
    "{\"node\":\(exit.node),\"time\":\(JSONText.number(exit.time.seconds))"
      + ",\"cause\":\(JSONText.quoted(exit.cause)),\"log\":\(JSONText.quoted(exit.log))"
      + ",\"promise\":\(exit.promise.map(JSONText.quoted) ?? "null")}"
  }
}

/// The little JSON that the harness writes.
enum JSONText {
  /// RFC 8259 §7.
  static func quoted(_ text: String) -> String {
    var quoted = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": quoted += "\\\""
      case "\\": quoted += "\\\\"
      case "\n": quoted += "\\n"
      case _ where scalar.value < 0x20:
        let digits = String(scalar.value, radix: 16)
        quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: quoted.unicodeScalars.append(scalar)
      }
    }
    return quoted + "\""
  }

  /// With three decimals.
  static func number(_ value: Double) -> String { "\((value * 1000).rounded() / 1000)" }

  static func distribution(_ values: [Double]) -> String {
    let sorted = values.sorted()
    guard let last = sorted.last else { return "{\"count\":0,\"p50\":null,\"max\":null}" }
    return "{\"count\":\(sorted.count),\"p50\":\(number(sorted[(sorted.count - 1) / 2]))"
      + ",\"max\":\(number(last))}"
  }
}
