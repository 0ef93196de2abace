// Deliveries that were read late: recorded after ones that were granted later. A slow link or a client
// that stood still explains the order in which they were read, not the order in which they were granted,
// nor that two of them were held at once: `token-regress`, and the part of `held-twice` that only shows
// when the victim reads.

extension Checker {
  /// A delivery with a smaller token and a smaller attempt, on another process than every newer one,
  /// came over a slow link. Granted it was before: the tokens of a queue grow with its clock. The attempt
  /// is the same where it was handed back unread, by a process whose session had ended.
  mutating func isReadLate(
    _ facts: MessageFacts, _ place: Int, _ event: Event, _ before: inout ReadBefore?
  ) -> Bool {
    var known = before ?? ReadBefore(life.tokens)
    before = nil
    for earlier in life.deliveries[known.count..<place] {
      let event = history.events[Int(earlier)]
      known.note(event, rank: life.tokens.rank(of: event.token))
    }
    defer { before = known }
    if known.isKnown(event) || event.level == Absent.reference { return false }
    let least = known.least(above: life.tokens.rank(of: event.token))
    if event.moment != Absent.number, event.moment > least.moment { return false }
    let position = life.deliveries[place]
    return event.level < least.level
      || event.level == least.level && mayHaveLeft(event.process, before: position)
      || isRedriven(facts, after: facts.begin, before: position)
  }

  // MARK: Leases

  /// Compares the lease of what was read late with those next to it by token, whenever these were read.
  mutating func judgeLateLeases(_ facts: MessageFacts, _ position: EventPosition, _ event: Event) {
    let before = life.tokens.next(before: event.token)
    let after = life.tokens.next(after: event.token)
    if let before { judgeLateLease(facts, before, position) }
    if let after { judgeLateLease(facts, position, after) }
  }

  /// While somebody holds it in its own queue it is no dead letter: compares each with what was granted
  /// last before it. Not where it may have expired, which a queue may let happen to what is held.
  mutating func judgeHeldDeadLetters(_ facts: MessageFacts) {
    let letters = facts.deadLetters.filter { isOnlySource(of: $0) }.flatMap(\.deliveries)
    if letters.isEmpty || hasTimeToLive(facts) { return }
    func moment(_ delivery: EventPosition) -> UInt64 { history.events[Int(delivery)].moment }
    let own = life.deliveries.filter { moment($0) != Absent.number && !life.isDoubled($0) }
      .sorted { moment($0) < moment($1) }
    for letter in letters where moment(letter) != Absent.number {
      let place = firstPlace(of: own) { moment($0) >= moment(letter) }
      guard place > 0 else { continue }
      let held = own[place - 1]
      // What was acked as well is `resurrected`; why one came whose token did not grow nobody knows.
      let isAcked = life.settlements(of: token(of: held)).contains {
        $0.action == .ack && $0.outcome == .ok
      }
      if isAcked || life.regressed[token(of: held)] != nil { continue }
      judgeLateLease(facts, held, letter)
    }
  }

  /// Whoever read late had nothing to do with how its lease ended: it ran out, or whoever held it died,
  /// which is perhaps recorded only when it was noticed.
  private mutating func judgeLateLease(
    _ facts: MessageFacts, _ older: EventPosition, _ newer: EventPosition
  ) {
    let (event, next) = (history.events[Int(older)], history.events[Int(newer)])
    var lease = event.span
    if lease == Absent.number { lease = queues[Int(facts.queue)].settings.lease ?? lease }
    guard event.moment != Absent.number, next.moment != Absent.number, lease != Absent.number,
      sum(event.moment, lease) > next.moment,
      !life.settlements(of: event.token).contains(where: { $0.interval.begin < newer }),
      !mayHaveLeft(event.process, before: newer)
    else { return }
    let at = max(older, newer)
    if let change = leaderChange(between: earliestPlace(of: older, facts), newer) {
      if isStrict { report(.failoverDuplicate, facts.message, at: at, related: change) }
    } else {
      report(.heldTwice, facts.message, at: at, related: min(older, newer))
    }
  }
}
