// `stale-accepted` (G6): a settlement with a token that was no longer the newest, or that its process
// never had, carried out all the same.

extension Checker {
  mutating func judgeSettlements(_ facts: MessageFacts) {
    if !life.refusals.isEmpty { judgeRefusals(facts) }
    judgeStrangers(facts)
    judgeLateSettlements(facts)
  }

  /// A token and who had it.
  private struct Holder: Hashable {
    var token: UInt64
    var process: UInt32
  }

  /// A token is its holder's alone. Where nobody is known to have had it, nothing is said of whose it was.
  private mutating func judgeStrangers(_ facts: MessageFacts) {
    var holders: Set<Holder>?
    for settlement in life.settlements
    where settlement.outcome == .ok && settlement.token != Absent.number {
      guard let holder = life.tokens.first(of: settlement.token) else { continue }
      let process = history.events[Int(settlement.interval.begin)].process
      if history.events[Int(holder)].process == process { continue }
      let all = holders ?? Set(life.deliveries.map { self.holder(of: $0) })
      holders = all
      if all.contains(Holder(token: settlement.token, process: process)) { continue }
      report(.staleAccepted, facts.message, at: settlement.interval.end, related: holder)
    }
  }

  private func holder(of delivery: EventPosition) -> Holder {
    Holder(token: token(of: delivery), process: history.events[Int(delivery)].process)
  }

  private mutating func judgeLateSettlements(_ facts: MessageFacts) {
    guard life.deliveries.count > 1, facts.copies == 1 else { return }
    for settlement in life.settlements
    where settlement.outcome == .ok && settlement.token != Absent.number {
      guard let newer = life.tokens.firstRead(above: settlement.token) else { continue }
      // A delivery whose token did not grow is judged as that. What settles it is stale only if
      // something came after it.
      if let own = life.regressed[settlement.token], newer < own { continue }
      if isStale(facts, settlement, newer: newer) {
        report(
          .staleAccepted, facts.message, at: settlement.interval.end, related: newer)
      }
    }
  }

  private func isStale(
    _ facts: MessageFacts, _ settlement: Settlement, newer: EventPosition
  ) -> Bool {
    switch settlement.action {
    case .ack: settlement.interval.end > newer
    case .reject:
      settlement.interval.end > newer
        && !isRedriven(facts, after: settlement.interval.begin, before: newer)
    default: settlement.interval.begin > newer
    }
  }
}
