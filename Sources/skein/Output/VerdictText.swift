// A verdict for people: the answer first, then what was violated with its story, then the counts.

import History

enum VerdictText {
  /// - Parameter broken: what is wrong with what was judged, if something is.
  static func text(
    _ verdict: Verdict, broken: String = "promises were broken", colours: Bool
  ) -> String {
    var text = headline(verdict, broken, colours) + "\n"
    for reason in verdict.unknownReasons { text += "  \(reason)\n" }
    text += "\n" + table(verdict, colours)
    for violation in verdict.violations where violation.count > 0 {
      text += "\n" + story(violation, colours)
    }
    return text + "\n" + counts(verdict.counts) + gaps(verdict.unavailability)
  }

  private static func headline(
    _ verdict: Verdict, _ broken: String, _ colours: Bool
  ) -> String {
    switch verdict.validity {
    case .valid:
      Style.good.apply("valid", colours: colours)
        + (verdict.isStrict
          ? ": every promise that a history can show was kept"
          : ": what was judged was kept; redeliveries after a change of leader were only counted"
            + " (--strict judges them)")
    case .violated: Style.bad.apply("violated", colours: colours) + ": \(broken)"
    case .unknown:
      Style.warning.apply("unknown", colours: colours) + ": nothing is wrong as far as can be seen"
    }
  }

  private static func table(_ verdict: Verdict, _ colours: Bool) -> String {
    var table = Table(["property", ">messages", "first"])
    for violation in verdict.violations {
      table.add([
        Table.Cell(text: violation.kind.name),
        Table.Cell(text: "\(violation.count)", style: violation.count > 0 ? .bad : .faint),
        Table.Cell(
          text: doubt(violation, verdict) ?? violation.ids.prefix(5).joined(separator: " ")),
      ])
    }
    return table.text(colours: colours)
  }

  /// Why it means little that nothing is listed.
  private static func doubt(_ violation: Violation, _ verdict: Verdict) -> String? {
    switch violation.kind {
    case .lost where violation.count == 0 && !verdict.unknownReasons.isEmpty: "not known"
    case .failoverDuplicate where !verdict.isStrict: "not judged"
    default: nil
    }
  }

  private static func story(_ violation: Violation, _ colours: Bool) -> String {
    var text = Style.strong.apply(violation.kind.name, colours: colours) + "\n"
    for event in violation.witness { text += "  \(event)\n" }
    return text
  }

  private static func counts(_ counts: HistoryCounts) -> String {
    var text = """
      \(counts.events) events; \(counts.published) messages published (\(counts.attempts) attempts), \
      \(counts.confirmed) confirmed, \(counts.recovered) of unknown outcome came out; \
      \(counts.delivered) delivered, \(counts.acked) acknowledged
      """
    let again = RedeliveryCause.allCases.filter { counts[$0] > 0 }
    if !again.isEmpty {
      text += "\ndelivered again: "
      text += again.map { "\(counts[$0]) \($0.name)" }.joined(separator: ", ")
    }
    return text + "\n"
  }

  private static func gaps(_ unavailability: Unavailability) -> String {
    guard let all = unavailability.all else { return "" }
    return "longest time without a confirm after each of \(all.count) faults:"
      + " median \(milliseconds(all.median)), max \(milliseconds(all.max))\n"
  }

  private static func milliseconds(_ value: Double) -> String { "\(Int(value.rounded())) ms" }
}
