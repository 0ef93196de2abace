// The result of a chaos run for people: the verdict, then what was done and what it cost.

import Base
import ChaosHarness
import History

enum ChaosText {
  static func text(_ result: ChaosResult, colours: Bool) -> String {
    // Of the run: a history can be fine where a node ended, or where the end was not reached.
    var text = VerdictText.text(
      result.runVerdict,
      broken: result.verdict.validity == .violated
        ? "promises were broken" : "a node ended, stopped, led or went on against the rules",
      colours: colours)
    text += unknownPromises(result)
    text += faults(result, colours)
    text += elections(result)
    for exit in result.exits {
      let what = exit.isAlive ? exit.cause : "ended by itself (\(exit.cause))"
      text += Style.bad.apply("node \(exit.node) \(what)", colours: colours)
      text += " after \(rounded(exit.time)) s:\n  "
      text += exit.log.split(separator: "\n").joined(separator: "\n  ") + "\n"
    }
    if let waiting = result.waiting {
      text += Style.warning.apply("less load", colours: colours) + ": \(waiting)\n"
    }
    if let kept = result.keptDirectory { text += "the nodes' data and logs are in \(kept)\n" }
    return text + "again: \(result.command)\n"
  }

  /// What a run says nothing about is not kept: it is named.
  private static func unknownPromises(_ result: ChaosResult) -> String {
    let names = result.promises.compactMap { promise in
      if case .unknown = promise.judgement { promise.name } else { nil }
    }
    return names.isEmpty
      ? "" : "not known of \(names.joined(separator: ", ")) (docs/guarantees.md)\n"
  }

  private static func faults(_ result: ChaosResult, _ colours: Bool) -> String {
    var table = Table(["fault", ">times", ">skipped", ">median gap ms", ">longest gap ms"])
    let names = Set(result.faults.map(\.name)).sorted()
    for name in names {
      let same = result.faults.filter { $0.name == name }
      let gaps = result.verdict.unavailability.byFault.first { $0.name == name }?.gaps
      table.add([
        name, "\(same.count { $0.skipped == nil })", "\(same.count { $0.skipped != nil })",
        gaps.map { "\(Int($0.median.rounded()))" } ?? "",
        gaps.map { "\(Int($0.max.rounded()))" } ?? "",
      ])
    }
    return "\n" + table.text(colours: colours)
  }

  private static func elections(_ result: ChaosResult) -> String {
    let times = result.elections.map(\.milliseconds).sorted()
    var text = "\(result.leaderships.count) changes of leader"
    if let last = times.last {
      text += "; from a fault to the next leader: median \(Int(times[(times.count - 1) / 2])) ms,"
      text += " longest \(Int(last)) ms"
    }
    if let median = result.series.latencies.quantile(0.5),
      let high = result.series.latencies.quantile(0.99)
    {
      text += "\nfrom publish to confirm: median \(milliseconds(median)) ms,"
      text += " 99 of 100 within \(milliseconds(high)) ms"
    }
    return text + "\n"
  }

  private static func milliseconds(_ span: Nanoseconds) -> String {
    rounded(Double(span.rawValue) / 1e6)
  }

  private static func rounded(_ time: Nanoseconds) -> String {
    skein.rounded(Double(time.rawValue) / 1e9)
  }

  private static func rounded(_ value: Double) -> String { skein.rounded(value) }
}
