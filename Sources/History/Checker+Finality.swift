// What is gone for good and comes all the same: `resurrected` (G3), and the own queue's part of
// `dead-letter-doubled` (G8).

extension Checker {
  mutating func judgeFinality(_ facts: MessageFacts, _ position: EventPosition) {
    if let acked = life.acked, acked < position {
      report(.resurrected, facts.message, at: position, related: acked)
      return
    }
    for reject in life.rejects where reject.end < position {
      if !isRedriven(facts, after: reject.begin, before: position) {
        report(.resurrected, facts.message, at: position, related: reject.end)
        return
      }
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
    if event.moment != Absent.number, moved.moment != Absent.number, event.moment < moved.moment {
      return false
    }
    return !isRedriven(facts, after: deadLettered, before: position)
      && !isRedriven(facts, after: placeBeforeGrant(of: deadLettered), before: position)
  }

  /// A message whose ack is confirmed was in its holder's hands from the grant to the ack, and is gone
  /// since: a dead letter of it can only be older, and then a redrive lies between the two.
  mutating func judgeAckedDeadLetters(_ facts: MessageFacts) {
    guard life.acked != nil else { return }
    for other in facts.deadLetters where isOnlySource(of: other, facts) {
      var position = history.messages[Int(other)].firstEvent
      while position != Absent.reference {
        let event = history.events[Int(position)]
        if event.action == .deliver { judgeAckedDeadLetter(facts, position, event) }
        position = event.next
      }
    }
  }

  private mutating func judgeAckedDeadLetter(
    _ facts: MessageFacts, _ dead: EventPosition, _ letter: Event
  ) {
    for settlement in life.settlements
    where settlement.action == .ack && settlement.outcome == .ok {
      var granted = settlement.interval.begin
      var isLater = false
      if let delivery = life.deliveries.first(where: { token(of: $0) == settlement.token }) {
        // What its delivery is itself wrong with is said of it.
        if life.doubled.contains(delivery) { continue }
        granted = min(granted, delivery)
        let moment = history.events[Int(delivery)].moment
        isLater =
          moment != Absent.number && letter.moment != Absent.number && letter.moment > moment
      }
      if isLater || !isRedriven(facts, after: earliestPlace(of: dead, facts), before: granted) {
        report(
          .resurrected, facts.message, at: max(dead, settlement.interval.end),
          related: min(dead, settlement.interval.end))
        return
      }
    }
  }

  // MARK: Cancels and purges

  /// The end of the confirmed cancel or purge that had certainly taken the message when it was granted.
  private mutating func removal(
    before position: EventPosition, _ facts: MessageFacts
  ) -> EventPosition? {
    if history.events[Int(position)].moment == Absent.number { return nil }
    // Only what waits is cancelled, and what is cancelled is no dead letter to be brought back.
    for cancel in life.cancels where cancel.end < position {
      if isGranted(position, after: cancel.end) { return cancel.end }
    }
    return purge(before: position, facts)
  }

  /// A purge takes all that waits. What is certainly one of that: a message that was confirmed before,
  /// that nobody had had when it came, and of which nobody left who may have had it unread.
  private mutating func purge(
    before position: EventPosition, _ facts: MessageFacts
  ) -> EventPosition? {
    let purges = queues[Int(facts.queue)].purges
    guard !purges.isEmpty, let confirm = life.firstConfirm else { return nil }
    let event = history.events[Int(position)]
    let later = firstPlace(of: purges) { $0.begin > confirm }
    let purge = purges[later...].last { $0.end < position }
    guard let purge, event.level == 1, isGranted(position, after: purge.end),
      life.deliveries.allSatisfy({ $0 == position || token(of: $0) > event.token }),
      !isRedriven(facts, after: facts.begin, before: position),
      !hasSomebodyLeft(after: facts.begin, before: position)
    else { return nil }
    return purge.end
  }

  mutating func hasSomebodyLeft(
    after begin: EventPosition, before end: EventPosition
  ) -> Bool {
    let deaths = deathPlaces ?? history.deaths.values.sorted()
    deathPlaces = deaths
    let place = firstPlace(of: deaths) { $0 > begin }
    return place < deaths.count && deaths[place] < end
  }

  func token(of delivery: EventPosition) -> UInt64 { history.events[Int(delivery)].token }
}
