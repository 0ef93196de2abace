// What became of a published message by the end: `lost` (G2), and how often a confirmed one was
// accounted for.

/// What a message without a settlement of its own may have come to.
enum Ending {
  /// Settled, here or as a dead letter.
  case settled
  /// It may rightly have gone: expired, purged, cancelled, given up.
  case excused
  /// It may still stand in a queue that was not drained, or not afterwards.
  case undetermined(Whereabouts)
  /// The own queue was not drained; said once for all its messages.
  case undrained
  case lost(drain: EventPosition)
}

/// Where a message may stand of which nobody can say whether it is lost.
struct Whereabouts: Hashable {
  var queue: UInt32
  /// By a redrive, after this queue was drained; else as a dead letter, and it was not drained.
  var isBroughtBack: Bool
}

extension Checker {
  mutating func judgeEnd(_ facts: MessageFacts) {
    let ending = ending(facts)
    markEnqueue(facts, ending)
    guard let confirm = life.firstConfirm else { return }
    switch ending {
    case .settled, .excused: counts.accounted += 1
    case .undetermined, .undrained, .lost:
      if cameOut(facts) { counts.accounted += 1 }
    }
    switch ending {
    case .settled, .excused, .undrained: break
    case .undetermined(let place):
      undetermined[place, default: (0, facts.message)].count += 1
    case .lost(let drain): report(.lost, facts.message, at: confirm, related: drain)
    }
  }

  private func ending(_ facts: MessageFacts) -> Ending {
    let queue = queues[Int(facts.queue)]
    let last = lastGrant(facts)
    func isDone(_ round: DrainRound?) -> Bool { self.isDone(facts, round, last) }
    var unexplained = 0
    // A delivery may be recorded before its publish.
    var before: EventPosition = 0
    for round in queue.rounds {
      if isDone(round) { return .settled }
      if mayBeGone(facts) { return .excused }
      if !mayBeDeadLetter(facts, after: before, before: round.end) {
        return .lost(drain: round.own.end)
      }
      before = round.own.begin
      // Whoever was brought back when its queue had been looked at may be done at any later time. A
      // redrive of unknown outcome may still come, but each only once.
      if hasConfirmedRedrive(facts, after: round.own.begin, before: round.end) { continue }
      unexplained += 1
      if unexplained > unknownRedrives(facts, before: round.end) {
        return .lost(drain: round.own.end)
      }
    }
    if isDone(nil) { return .settled }
    if mayBeGone(facts) { return .excused }
    if queue.drain == nil { return .undrained }
    return .undetermined(
      Whereabouts(queue: queue.undrained ?? facts.queue, isBroughtBack: queue.undrained == nil))
  }

  /// Whether something may have made it a dead letter between two events, for a redrive to bring back: it
  /// came out of the dead letters; or it was delivered, perhaps read later, or with somebody unread who
  /// left before the second, from a queue that makes such a one a dead letter. Where a redrive brought it back in one round, it was in its own queue from then on; of dead-letter
  /// queues that have their own it may have been in one of these.
  private func mayBeDeadLetter(
    _ facts: MessageFacts, after: EventPosition, before: EventPosition
  ) -> Bool {
    let queue = queues[Int(facts.queue)]
    guard queue.deadLetters.count == 1, queue.redrives.isEmpty, facts.redrives.isEmpty,
      facts.copies == 1
    else { return true }
    if facts.deadLetters.contains(where: { $0.deliveries.contains { $0 >= after } }) { return true }
    let mayFail =
      queue.givesUpAfter != nil || hasTimeToLive(facts)
      || life.settlements.contains { $0.action == .reject }
    return mayFail
      && (life.deliveries.contains { $0 >= after }
        || departures.mayHaveHappened(in: facts.queue, before: before))
  }

  /// Whether it may expire in its own queue.
  func hasTimeToLive(_ facts: MessageFacts) -> Bool {
    queues[Int(facts.queue)].settings.timeToLive != nil
      || life.publishes.contains { history.events[Int($0)].moment != Absent.number }
  }

  private func hasConfirmedRedrive(
    _ facts: MessageFacts, after: EventPosition, before: EventPosition
  ) -> Bool {
    redrives(facts).contains { $0.isConfirmed(after: after, before: before) }
  }

  private func unknownRedrives(_ facts: MessageFacts, before position: EventPosition) -> Int {
    redrives(facts).reduce(0) { $0 + $1.unknownCount(before: position) }
  }

  // MARK: Done

  /// What the last grant of the message in its own queue says of what was asked for before.
  private struct LastGrant {
    /// By the queues' clock, if a delivery says.
    var moment: UInt64?
    /// Settlements of smaller tokens whose outcome is unknown did not happen: it was delivered again.
    var token: UInt64 = 0
  }

  private func lastGrant(_ facts: MessageFacts) -> LastGrant {
    var last = LastGrant()
    var areAllDated = facts.copies == 1
    for delivery in life.deliveries where !life.isDoubled(delivery) {
      let event = history.events[Int(delivery)]
      if event.moment == Absent.number {
        areAllDated = false
      } else {
        last.moment = max(last.moment ?? 0, event.moment)
      }
      last.token = max(last.token, event.token)
    }
    if !areAllDated { last.token = 0 }
    return last
  }

  /// Whether it was settled at any time.
  func isDoneAtAll(_ facts: MessageFacts) -> Bool { isDone(facts, nil, lastGrant(facts)) }

  /// Whether the message was settled for good, before a round found that it was nowhere, or at all.
  private func isDone(_ facts: MessageFacts, _ round: DrainRound?, _ last: LastGrant) -> Bool {
    let own = round?.own.end ?? .max
    let isSettled =
      !life.deliveries.isEmpty
      && life.settlements.contains { settlement in
        (settlement.action == .ack || settlement.action == .reject && rejectEnds(facts.queue))
          && settlement.interval.begin < own
          && (settlement.outcome == .ok || settlement.token >= last.token)
      }
    if isSettled { return true }
    return facts.deadLetters.contains { letter in
      let place = queues[Int(facts.queue)].deadLetters.firstIndex(of: letter.queue) ?? 0
      return isDone(letter, before: round?.dead[place].end ?? .max, last)
    }
  }

  /// Settled in a dead-letter queue; or, where the history records no settlements of that queue,
  /// found in it when it was drained, and not in its own queue afterwards.
  private func isDone(
    _ letter: DeadLetterLife, before limit: EventPosition, _ last: LastGrant
  ) -> Bool {
    if letter.deliveries.isEmpty { return false }
    let queue = queues[Int(letter.queue)]
    if queue.hasSettlements {
      if letter.settled < limit { return true }
      return letter.perhapsSettled < limit && last.moment ?? 0 <= letter.newestGrant ?? .max
    }
    guard queue.drain != nil else { return false }
    let inTime = firstPlace(of: letter.deliveries) { $0 >= limit }
    // That it was in its own queue after it was found shows only where both say when.
    return inTime > 0 && letter.latestGrants[inTime - 1] >= last.moment ?? 0
  }

  /// Whether a reject is the end of a message. Where the queue has dead letters it only moves it there:
  /// then it must come out of there, if that can be seen.
  func rejectEnds(_ queue: UInt32) -> Bool {
    let deadLetters = queues[Int(queue)].deadLetters
    guard let last = deadLetters.last else { return true }
    // The last one has nowhere to put what it gives up.
    return queues[Int(last)].givesUpAfter != nil
      || deadLetters.contains { queues[Int($0)].drain == nil }
  }
}
