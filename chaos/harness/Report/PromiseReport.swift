// What a run says about each promise of docs/guarantees.md. That nothing was seen means that a promise
// was kept only where the history can show it, and where the run came to its end.

import History

/// One promise, and what became of it.
package struct PromiseReport: Equatable, Sendable {
  /// `G7`.
  package let name: String
  package let promise: String
  package let judgement: Judgement

  package enum Judgement: Equatable, Sendable {
    case kept
    /// So many messages show it; with the names of the violations.
    case broken(Int, String)
    /// A node was seen to break it, so often.
    case brokenByNodes(Int)
    /// Nothing was seen, which says nothing; why.
    case unknown(String)
  }
}

extension PromiseReport {
  private struct Rule {
    let name: String
    let promise: String
    /// By name, those that break it.
    var violations: [String] = []
    /// Why a history can not show it.
    var blind: String?
    /// Without one of these faults it was not put to the test, and why.
    var needs: (faults: Set<FaultKind>, why: String)?
  }

  private static let rules = [
    Rule(
      name: "G1", promise: "confirmed means on a majority of disks", violations: ["lost"],
      needs: ([.powerLoss], "no power was lost, and a killed process loses nothing it wrote")),
    Rule(name: "G2", promise: "nothing confirmed is lost", violations: ["lost"]),
    Rule(
      name: "G3", promise: "a confirmed acknowledgement is final", violations: ["resurrected"]),
    Rule(
      name: "G4", promise: "a publish tried again is stored once", violations: ["confirmed-twice"]),
    Rule(name: "G5", promise: "each producer's order is kept", violations: ["out-of-order"]),
    Rule(
      name: "G6", promise: "one consumer at a time holds a message",
      violations: ["held-twice", "token-regress", "stale-accepted", "lease-cut"]),
    Rule(
      name: "G7", promise: "a new leader alone delivers nothing again",
      violations: ["failover-duplicate"]),
    Rule(
      name: "G8", promise: "attempts are counted, and dead letters are so once",
      violations: ["dead-letter-doubled", "attempts"]),
    Rule(name: "G9", promise: "nothing comes before its time", violations: ["early"]),
    Rule(
      name: "G10", promise: "what belongs together is done as a whole",
      blind: "a history does not say what belonged together"),
    Rule(
      name: "G11", promise: "damaged data is never served", violations: ["unexpected"],
      needs: (
        [.powerLoss, .diskFlip, .diskTruncate, .diskStale, .diskWipe], "no disk was harmed"
      )),
    Rule(
      name: "G12",
      promise: "a node whose disk fails or is full says so, and confirms nothing on it",
      needs: ([.diskFull], "no disk was full")),
    Rule(
      name: "G13", promise: "overload is pushed back", blind: "clients do not see what is kept"),
    Rule(
      name: "G14", promise: "replicas that differ are stopped",
      blind: "clients do not see it; a node that stops is named"),
  ]

  /// All promises, in order.
  ///
  /// - Parameters:
  ///   - verdict: of the run; with reasons where something of it is not known.
  ///   - trouble: why the run did not come to its end.
  ///   - faults: what was done.
  ///   - breaches: promises that nodes were seen to break, each as often as that was seen.
  package static func all(
    of verdict: Verdict, trouble: String?, faults: Set<FaultKind>, breaches: [String] = []
  ) -> [PromiseReport] {
    rules.map { rule in
      let seen = breaches.count { $0 == rule.name }
      return PromiseReport(
        name: rule.name, promise: rule.promise,
        judgement: seen > 0
          ? .brokenByNodes(seen) : judge(rule, verdict, trouble, faults))
    }
  }

  private static func judge(
    _ rule: Rule, _ verdict: Verdict, _ trouble: String?, _ faults: Set<FaultKind>
  ) -> Judgement {
    let found = verdict.violations.filter { rule.violations.contains($0.kind.name) }
    let broken = found.filter { $0.count > 0 }
    if !broken.isEmpty {
      let names = broken.map(\.kind.name).joined(separator: ", ")
      return .broken(broken.reduce(0) { $0 + $1.count }, names)
    }
    if let blind = rule.blind { return .unknown(blind) }
    if let needs = rule.needs, needs.faults.isDisjoint(with: faults) {
      return .unknown(needs.why)
    }
    if found.contains(where: { !verdict.isJudged($0.kind) }) {
      return .unknown(verdict.unknownReasons.first ?? "redeliveries were only counted")
    }
    return trouble.map { .unknown("nothing was seen until the run broke off: \($0)") } ?? .kept
  }
}

extension Verdict {
  /// Whether it means something that no message is listed under `kind`: what was not taken out of
  /// the queues may be lost, and without `strict` nobody looks for redeliveries.
  package func isJudged(_ kind: ViolationKind) -> Bool {
    switch kind {
    case .lost: unknownReasons.isEmpty
    case .failoverDuplicate: isStrict
    default: true
    }
  }
}

extension ChaosResult {
  /// That producers published less than they were asked to, if so: what was not published attacks
  /// nothing, and counts as a time without a confirm.
  package var waiting: String? {
    if totals.waited == .zero { return nil }
    return "producers waited \(HTML.seconds(totals.waited)) for consumers that were"
      + " \(HTML.count(Recording.backlogMax)) messages behind"
  }
}
