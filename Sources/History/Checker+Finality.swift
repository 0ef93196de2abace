// What is gone for good and comes all the same: `resurrected` (G3), and the own queue's part of
// `dead-letter-doubled` (G8).

extension Checker {
  mutating func judgeFinality(_ facts: MessageFacts, _ position: EventPosition) {
    if let acked = life.acked, acked < position {
      report(.resurrected, facts.message, at: position, related: acked)
      return
    }
    if let reject = life.lastReject(endedBefore: position),
      !isRedriven(facts, after: reject.begin, before: position)
    {
      report(.resurrected, facts.message, at: position, related: reject.end)
      return
    }
    if let removed = removal(before: position, facts) {
      report(.resurrected, facts.message, at: position, related: removed)
    }
  }

  // MARK: Dead letters

  /// Whether the own queue delivers what already stood in its dead-letter queue.
  mutating func isAfterDeadLetter(
    _ facts: MessageFacts, _ deadLettered: EventPosition, _ position: EventPosition,
    _ event: Event
  ) -> Bool {
    guard position > deadLettered else { return false }
    let moved = history.events[Int(deadLettered)]
    if event.moment != Absent.number, moved.moment != Absent.number, event.moment <= moved.moment {
      return false
    }
    return !isRedriven(facts, after: earliestPlace(of: deadLettered, facts), before: position)
  }

  /// A message whose ack is confirmed was in its holder's hands from the grant to the ack, and is gone
  /// since: a dead letter of it can only be older, and then a redrive lies between the two.
  mutating func judgeAckedDeadLetters(_ facts: MessageFacts) {
    guard life.acked != nil else { return }
    for other in facts.deadLetters where isOnlySource(of: other) && !other.deliveries.isEmpty {
      guard let ack = firstAcked() else { return }
      for dead in other.deliveries {
        let moment = history.events[Int(dead)].moment
        let isLater = moment != Absent.number && moment > ack.moment
        guard
          isLater || !isRedriven(facts, after: earliestPlace(of: dead, facts), before: ack.place)
        else { continue }
        report(
          .resurrected, facts.message, at: max(dead, ack.end), related: min(dead, ack.end))
      }
    }
  }

  /// Of all that was acked, the earliest grant, by place and by time where that is said; and when the
  /// first of these acks ended. What its delivery is itself wrong with is said of it.
  private func firstAcked() -> (place: EventPosition, moment: UInt64, end: EventPosition)? {
    var first: (place: EventPosition, moment: UInt64, end: EventPosition)?
    for settlement in life.settlements
    where settlement.action == .ack && settlement.outcome == .ok {
      var (place, moment) = (settlement.interval.begin, Absent.number)
      if let delivery = life.tokens.first(of: settlement.token) {
        if life.isDoubled(delivery) { continue }
        place = min(place, delivery)
        moment = history.events[Int(delivery)].moment
      }
      let known = first ?? (place, moment, settlement.interval.end)
      first = (
        min(place, known.place), min(moment, known.moment), min(settlement.interval.end, known.end)
      )
    }
    return first
  }

  // MARK: Cancels and purges

  /// Only what waits is cancelled, so what was cancelled was never acked.
  mutating func judgeCancelled(_ facts: MessageFacts) {
    guard facts.copies == 1, let acked = life.acked, let cancelled = life.cancelled,
      cancelled > facts.begin
    else { return }
    report(
      .resurrected, facts.message, at: max(acked, cancelled), related: min(acked, cancelled))
  }

  /// The end of the confirmed cancel or purge that had certainly taken the message when it was granted.
  private mutating func removal(
    before position: EventPosition, _ facts: MessageFacts
  ) -> EventPosition? {
    if history.events[Int(position)].moment == Absent.number { return nil }
    // Only what waits is cancelled, and what is cancelled is no dead letter to be brought back.
    if let cancelled = life.cancelled, cancelled > facts.begin,
      isGranted(position, after: cancelled)
    {
      return cancelled
    }
    return purge(before: position, facts)
  }

  /// A purge takes all that waits. What is certainly one of that: a message that was confirmed before,
  /// was to wait for nothing, that nobody had had when it came, and of which nobody left who may have had
  /// it unread.
  private mutating func purge(
    before position: EventPosition, _ facts: MessageFacts
  ) -> EventPosition? {
    let process = history.events[Int(position)].process
    guard let confirm = life.firstConfirm, let last = life.publishes.last,
      let purged = queues[Int(facts.queue)].purgeEnds.first(begunAfter: max(confirm, last)),
      history.events[Int(position)].level == 1, life.tokens.oldest == position,
      publishDue() == nil, life.reschedules.isEmpty, isGranted(position, after: purged),
      !isRedriven(facts, after: facts.begin, before: position),
      !departures.mayHaveHappened(
        in: facts.queue, after: facts.begin, before: position, butOf: process)
    else { return nil }
    return purged
  }

  func token(of delivery: EventPosition) -> UInt64 { history.events[Int(delivery)].token }
}
