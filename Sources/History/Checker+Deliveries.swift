// The deliveries of one message, one after the other, each put to the rules of the other files; and
// what goes by the delivery alone: `token-regress` (G6), `attempts` (G8), `early` after a publish (G9).

extension Checker {
  mutating func judgeDeliveries(_ facts: MessageFacts) {
    guard let first = life.deliveries.first else { return }
    if facts.copies > 1 {
      // Several copies may rightly be here, and what happens to one says nothing about the others.
      return
    }
    let deadLettered = deadLettered(facts)
    let due = publishDue()
    markOrdered(facts, first)
    var holding: Holding?
    var most: (attempt: UInt32, at: EventPosition) = (0, first)
    var newest: (token: UInt64, at: EventPosition)?
    var readBefore: ReadBefore?
    for place in life.deliveries.indices {
      let position = life.deliveries[place]
      let event = history.events[Int(position)]
      let hasGrown = newest.map { event.token > $0.token } ?? true
      if let newest, !hasGrown {
        if isReadLate(facts, place, event, &readBefore) {
          judgeLateLeases(facts, position, event)
          continue
        }
        report(.tokenRegress, facts.message, at: position, related: newest.at)
        life.regressed[event.token] = position
      }
      if let deadLettered, isAfterDeadLetter(facts, deadLettered, position, event) {
        report(.deadLetterDoubled, facts.message, at: position, related: deadLettered)
        life.doubled.append(position)
        continue
      }
      judgeFinality(facts, position)
      // One that became a dead letter while it waited came back by a redrive, whenever that was.
      if let due, event.time < due.time, !isRedriven(facts, after: due.since, before: position),
        !isRescheduled(after: due.since, before: position)
      {
        report(.early, facts.message, at: position, related: due.since)
      }
      // What else a delivery without a token of its own is wrong with, and why it came, nobody can tell.
      guard hasGrown else { continue }
      newest = (event.token, position)
      if event.level != Absent.reference {
        judgeAttempt(facts, most, position, event)
        if event.level > most.attempt { most = (event.level, position) }
      }
      let grant = judgeRedelivery(facts, holding, position, event) ?? firstGrant(facts)
      holding = Holding(
        position: position, event: event, attempt: attempt(facts, position, event, after: holding),
        earliestGrant: min(grant, event.time))
    }
    judgeAckedDeadLetters(facts)
    judgeHeldDeadLetters(facts)
  }

  // MARK: Attempts

  /// Where it is not recorded, at least one more than those that were certainly nacked, unless a redrive
  /// has begun them anew.
  private func attempt(
    _ facts: MessageFacts, _ position: EventPosition, _ event: Event, after holding: Holding?
  ) -> UInt64 {
    if event.level != Absent.reference { return UInt64(event.level) }
    guard let holding, !isRedriven(facts, after: facts.begin, before: position) else { return 1 }
    let isNacked = life.settlements(of: holding.event.token).contains {
      $0.action == .nack && $0.outcome == .ok
    }
    return holding.attempt + (isNacked ? 1 : 0)
  }

  /// A queue says how often it delivers a message, and the attempts of one message never fall, but
  /// by a redrive.
  private mutating func judgeAttempt(
    _ facts: MessageFacts, _ most: (attempt: UInt32, at: EventPosition), _ position: EventPosition,
    _ event: Event
  ) {
    let limit = queues[Int(facts.queue)].settings.maxDeliveries ?? 0
    if limit > 0, UInt64(event.level) > limit {
      report(.attempts, facts.message, at: position)
    } else if event.level < most.attempt,
      !isRedriven(facts, after: facts.begin, before: position)
    {
      report(.attempts, facts.message, at: position, related: most.at)
    }
  }

  // MARK: Order

  /// Remembers a delivery that must come in order: the first of a message that was published once,
  /// at once and with success.
  private mutating func markOrdered(_ facts: MessageFacts, _ first: EventPosition) {
    guard life.publishInvokes == 1, let publish = life.publishes.first, life.firstConfirm != nil,
      life.reschedules.isEmpty
    else { return }
    let delay = history.events[Int(publish)].span
    guard delay == 0 || delay == Absent.number else { return }
    let attempt = history.events[Int(first)].level
    guard attempt == Absent.reference || attempt <= 1 else { return }
    if isRedriven(facts, after: publish, before: first) { return }
    if attempt == Absent.reference, mayHaveOverrunUnread(facts, publish, first) { return }
    if !isStrict, leaderChange(between: publish, first) != nil { return }
    // Who left may have had it unread, and handed it back; not to itself. Whoever may have been killed or
    // ended a little later than that is recorded would have made this a second attempt, if that is said.
    let reader = history.events[Int(first)].process
    let after = attempt == Absent.reference ? 0 : publish
    if departures.mayHaveHappened(in: facts.queue, after: after, before: first, butOf: reader) {
      return
    }
    history.messages[Int(facts.message)].orderingPublish = publish
    history.events[Int(first)].marks.insert(.orderedDelivery)
  }

  /// Whether a lease of the message may have run out before its first delivery was read, as far as it is
  /// known how long one is.
  private func mayHaveOverrunUnread(
    _ facts: MessageFacts, _ publish: EventPosition, _ first: EventPosition
  ) -> Bool {
    var lease = history.events[Int(first)].span
    if let shortest = history.shortestLeases[facts.queue], shortest > 0 {
      lease = min(lease, shortest)
    }
    // Protocols without leases say 0.
    return lease > 0 && sum(time(publish), lease) <= time(first)
  }
}
