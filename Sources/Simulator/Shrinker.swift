// Finds what a failing seed needs: leaves out faults, clients and time while the same promise is
// broken.

/// What is left of a failing seed.
package struct ShrunkSeed: Sendable {
  package let cut: PlanCut
  package let report: SimulationReport
  /// How many runs it took.
  package let runs: Int
}

package enum Shrinker {
  /// The least that was found to fail as the whole seed does; nil if the seed does not fail. A run
  /// with less draws other delays, so what can be left out is found by trying.
  package static func shrink(
    seed: UInt64, without cut: PlanCut = PlanCut(), progress: (PlanCut) -> Void
  ) -> ShrunkSeed? {
    var search = Search(seed: seed)
    guard let whole = search.fails(cut) else { return nil }
    search.best = (cut, whole)
    var isSmaller = true
    while isSmaller {
      isSmaller = false
      for candidate in search.candidates where search.attempt(candidate) {
        progress(candidate)
        isSmaller = true
        break
      }
    }
    return search.best.map { ShrunkSeed(cut: $0.cut, report: $0.report, runs: search.runs) }
  }

  private struct Search {
    let seed: UInt64
    var best: (cut: PlanCut, report: SimulationReport)?
    var runs = 0
    private var rule: String?
    private var tried: Set<PlanCut> = []

    init(seed: UInt64) { self.seed = seed }

    /// The report, if the run breaks the promise that the whole seed breaks.
    mutating func fails(_ cut: PlanCut) -> SimulationReport? {
      runs += 1
      tried.insert(cut)
      let report = Simulator.run(seed: seed, without: cut)
      guard let violation = report.violation, rule ?? violation.rule == violation.rule else {
        return nil
      }
      rule = violation.rule
      return report
    }

    mutating func attempt(_ cut: PlanCut) -> Bool {
      guard !tried.contains(cut), let report = fails(cut) else { return false }
      best = (cut, report)
      return true
    }

    /// One step less each: first much, then little.
    var candidates: [PlanCut] {
      guard let best else { return [] }
      let plan = Plan(seed: seed, without: best.cut)
      var result: [PlanCut] = []
      let kinds = plan.faults.map(\.kind)
      if kinds.count > 3 {
        for half in [kinds.prefix(kinds.count / 2), kinds.suffix(kinds.count / 2)] {
          var cut = best.cut
          cut.faults.formUnion(half)
          result.append(cut)
        }
      }
      for kind in kinds {
        var cut = best.cut
        cut.faults.insert(kind)
        result.append(cut)
      }
      for place in plan.clients.indices where !best.cut.clients.contains(place + 1) {
        var cut = best.cut
        cut.clients.insert(place + 1)
        result.append(cut)
      }
      let seconds = plan.duration / 1_000_000_000
      for less in [seconds / 2, seconds * 3 / 4] where less >= 1 && less < seconds {
        var cut = best.cut
        cut.seconds = less
        result.append(cut)
      }
      return result
    }
  }
}

extension PlanCut {
  /// As `--without` takes it: names of faults, `client-2`, `after-12s`.
  package var text: String {
    let faults = FaultKind.allCases.filter { self.faults.contains($0) }.map(\.rawValue)
    let clients = self.clients.sorted().map { "client-\($0)" }
    return (faults + clients + (seconds.map { ["after-\($0)s"] } ?? [])).joined(separator: ",")
  }

  /// Reads what `text` wrote.
  ///
  /// - Throws: the part that means nothing.
  package init(_ text: String) throws(UnknownPart) {
    self.init()
    for part in text.split(separator: ",") {
      if let kind = FaultKind(rawValue: String(part)) {
        faults.insert(kind)
      } else if part.hasPrefix("client-"), let place = Int(part.dropFirst(7)), place > 0 {
        clients.insert(place)
      } else if part.hasPrefix("after-"), part.hasSuffix("s"),
        let seconds = UInt64(part.dropFirst(6).dropLast()), seconds > 0
      {
        self.seconds = seconds
      } else {
        throw UnknownPart(part: String(part))
      }
    }
  }

  /// A part of a run that there is not.
  package struct UnknownPart: Error, Sendable {
    package let part: String
    package init(part: String) { self.part = part }
  }
}
