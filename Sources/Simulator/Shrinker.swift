// Finds what a failing seed needs: leaves out single faults, clients and time while it fails as before.
// Whoever calls runs the candidates: some end their process.

/// What came of a candidate.
package struct Trial: Sendable {
  /// How it failed; nil if every promise held.
  package let failure: Failure?
  /// The faults that came to pass, up to where it failed.
  package let strikes: [Strike]

  package init(failure: Failure?, strikes: [Strike]) {
    self.failure = failure
    self.strikes = strikes
  }

  package struct Failure: Sendable {
    /// The promise, or the line of the invariant: two runs fail alike if it is the same.
    package let rule: String
    package let text: String
    /// Seconds of simulated time; nil where an invariant ended the process.
    package let time: Double?
    /// The run's digest, likewise.
    package let digest: UInt64?

    package init(rule: String, text: String, time: Double? = nil, digest: UInt64? = nil) {
      self.rule = rule
      self.text = text
      self.time = time
      self.digest = digest
    }

    /// Nothing was broken, but nothing goes on either.
    package var isStandstill: Bool { rule == Violation.liveness }
  }
}

extension Trial {
  package init(_ report: SimulationReport) {
    let failure = report.violation.map {
      Failure(rule: $0.rule, text: $0.text, time: $0.time, digest: report.digest)
    }
    self.init(failure: failure, strikes: report.strikes)
  }
}

/// What is left of a failing seed.
package struct ShrunkSeed: Sendable {
  package let cut: PlanCut
  package let failure: Trial.Failure
  /// How many runs it took.
  package let runs: Int
}

package enum Shrinker {
  /// The least that was found to fail as the whole seed does; nil if the seed does not fail. A run
  /// with less draws other delays, so what can be left out is found by trying.
  ///
  /// - Parameters:
  ///   - runsMax: no more than so many candidates are run.
  ///   - run: says what becomes of one.
  package static func shrink(
    seed: UInt64, without cut: PlanCut = PlanCut(), runsMax: Int = 600,
    run: (PlanCut) throws -> Trial, progress: (PlanCut) -> Void = { _ in }
  ) rethrows -> ShrunkSeed? {
    let whole = try run(cut)
    guard let failure = whole.failure else { return nil }
    // Faults are left out one by one from here on, so that the others stay what they are.
    var first = cut
    first.strikes = whole.strikes
    var search = Search(seed: seed, runsMax: runsMax, best: first, failure: failure)
    var pass = 0
    // Each pass may make the next one possible.
    while pass == 0 || search.isSmaller {
      search.isSmaller = false
      for step in Search.steps { try search.take(step, run, progress) }
      pass += 1
    }
    return ShrunkSeed(cut: search.best, failure: search.failure, runs: search.runs)
  }

  private struct Search {
    let seed: UInt64
    let runsMax: Int
    var best: PlanCut
    var failure: Trial.Failure
    var runs = 1
    var isSmaller = false
    private var tried: Set<PlanCut> = []

    init(seed: UInt64, runsMax: Int, best: PlanCut, failure: Trial.Failure) {
      self.seed = seed
      self.runsMax = runsMax
      self.best = best
      self.failure = failure
    }

    enum Step { case time, kinds, single, clients }
    static let steps: [Step] = [.time, .kinds, .single, .clients]

    mutating func take(
      _ step: Step, _ run: (PlanCut) throws -> Trial, _ progress: (PlanCut) -> Void
    ) rethrows {
      func attempt(_ cut: PlanCut) throws -> Bool {
        guard try self.attempt(cut, run) else { return false }
        progress(best)
        return true
      }
      switch step {
      case .time: for seconds in shorter { _ = try attempt(with { $0.seconds = seconds }) }
      case .clients:
        for place in 1...Plan(seed: seed).clients.count where !best.clients.contains(place) {
          _ = try attempt(with { $0.clients.insert(place) })
        }
      case .kinds:
        for kind in FaultKind.allCases where strikes.contains(where: { $0.kind == kind }) {
          let others = strikes.filter { $0.kind != kind }
          _ = try attempt(with { $0.strikes = others })
        }
      case .single:
        // Many at once first, the latest first: what comes before them stays exactly what it was.
        var size = max(1, strikes.count / 2)
        while !strikes.isEmpty {
          var end = strikes.count
          while end > 0 {
            let start = max(0, end - size)
            var fewer = strikes
            fewer.removeSubrange(start..<end)
            _ = try attempt(with { $0.strikes = fewer })
            end = min(start, strikes.count)
          }
          if size == 1 { return }
          size = max(1, min(size, strikes.count) / 2)
        }
      }
    }

    private var strikes: [Strike] { best.strikes ?? [] }

    private func with(_ change: (inout PlanCut) -> Void) -> PlanCut {
      var cut = best
      change(&cut)
      return cut
    }

    /// Times after which the faults might end, seconds.
    private var shorter: [UInt64] {
      let seconds = Plan(seed: seed, without: best).duration / 1_000_000_000
      // Faults after the failure are no part of it.
      let needed = failure.time.map { UInt64($0) + 1 } ?? seconds
      return [needed, seconds / 2, seconds * 3 / 4].filter { (1..<seconds).contains($0) }
    }

    /// Whether it fails alike; then it is the best.
    private mutating func attempt(_ cut: PlanCut, _ run: (PlanCut) throws -> Trial) rethrows -> Bool
    {
      guard runs < runsMax, tried.insert(cut).inserted else { return false }
      runs += 1
      let trial = try run(cut)
      guard let failure = trial.failure, failure.rule == self.failure.rule else { return false }
      self.failure = failure
      best = cut
      best.strikes = trial.strikes
      isSmaller = true
      return true
    }
  }
}

extension PlanCut {
  private static let allBut = "faults-but-"
  private static let none = "none"

  /// As `--without` takes it: names of faults, `client-2`, `after-12s`, and last
  /// `faults-but-kill@3.120456789-48213-12+…`.
  package var text: String {
    let faults = FaultKind.allCases.filter { self.faults.contains($0) }.map(\.rawValue)
    let clients = self.clients.sorted().map { "client-\($0)" }
    var parts = faults + clients
    if let seconds { parts.append("after-\(seconds)s") }
    if let strikes {
      let text = strikes.map(\.description).joined(separator: "+")
      parts.append(Self.allBut + (strikes.isEmpty ? Self.none : text))
    }
    return parts.joined(separator: ",")
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
      } else if part.hasPrefix(Self.allBut) {
        strikes = try Self.strikes(part.dropFirst(Self.allBut.count))
      } else {
        throw UnknownPart(part: String(part))
      }
    }
  }

  /// In the order in which they were drawn.
  private static func strikes(_ text: Substring) throws(UnknownPart) -> [Strike] {
    var strikes: [Strike] = []
    if text == none { return [] }
    for part in text.split(separator: "+", omittingEmptySubsequences: false) {
      guard let strike = Strike(part), strikes.last.map({ $0.isBefore(strike) }) ?? true else {
        throw UnknownPart(part: String(part))
      }
      strikes.append(strike)
    }
    return strikes
  }

  /// A part of a run that there is not.
  package struct UnknownPart: Error, Sendable {
    package let part: String
    package init(part: String) { self.part = part }
  }
}

extension Strike {
  fileprivate func isBefore(_ other: Strike) -> Bool {
    time < other.time && draws < other.draws && laterDraws <= other.laterDraws
  }
}
