// `stale-accepted` (G6): a settlement with a token that was no longer the newest, or that its process
// never had, carried out all the same.

extension Checker {
  mutating func judgeSettlements(_ facts: MessageFacts) {
    judgeStrangers(facts)
    judgeLateSettlements(facts)
  }

  /// A token is its holder's alone. Where nobody is known to have had it, nothing is said of whose it was.
  private mutating func judgeStrangers(_ facts: MessageFacts) {
    let deliveries = life.deliveries
    let isAscending = zip(deliveries, deliveries.dropFirst()).allSatisfy {
      token(of: $0) < token(of: $1)
    }
    var place = 0
    for settlement in life.settlements
    where settlement.outcome == .ok && settlement.token != Absent.number {
      // Settlements are in order of their tokens, so the search goes on where it was.
      if !isAscending { place = 0 }
      while place < deliveries.count, token(of: deliveries[place]) < settlement.token { place += 1 }
      let process = history.events[Int(settlement.interval.begin)].process
      var holder: EventPosition?
      var isHolders = false
      for delivery in deliveries[place...] {
        if token(of: delivery) == settlement.token {
          holder = holder ?? delivery
          isHolders = isHolders || history.events[Int(delivery)].process == process
        }
        if isAscending { break }
      }
      if let holder, !isHolders {
        report(.staleAccepted, facts.message, at: settlement.interval.end, related: holder)
      }
    }
  }

  private mutating func judgeLateSettlements(_ facts: MessageFacts) {
    guard life.deliveries.count > 1, facts.copies == 1 else { return }
    let tokens = life.deliveries.map { history.events[Int($0)].token }
    // Tokens grow, unless something is wrong with them.
    let isAscending = zip(tokens, tokens.dropFirst()).allSatisfy { $0 < $1 }
    var place = 0
    for settlement in life.settlements
    where settlement.outcome == .ok && settlement.token != Absent.number {
      // Settlements are in order of their tokens, so the search goes on where it was.
      if !isAscending { place = 0 }
      while place < tokens.count, tokens[place] <= settlement.token { place += 1 }
      guard place < tokens.count else { continue }
      let newer = life.deliveries[place]
      // A delivery whose token did not grow is judged as that. What settles it is stale only if
      // something came after it.
      if let own = life.regressed.last(where: { token(of: $0) == settlement.token }), newer < own {
        continue
      }
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
