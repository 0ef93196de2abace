// What may rightly have gone without a settlement: by its time to live, a purge or a cancel, or because
// its attempts were up and its queue has no dead letters.

extension Checker {
  /// Whether its time to live, a purge or a cancel may have taken the message, or its last attempt.
  func mayBeGone(_ facts: MessageFacts) -> Bool {
    guard let first = life.publishes.first else { return false }
    return mayHaveExpired(facts, first) || mayBeRemoved(facts, first) || mayBeGivenUp(facts)
  }

  private func mayHaveExpired(_ facts: MessageFacts, _ first: EventPosition) -> Bool {
    let queue = queues[Int(facts.queue)]
    for publish in life.publishes {
      let event = history.events[Int(publish)]
      let span = min(event.moment, queue.settings.timeToLive ?? .max)
      if span == .max { continue }
      guard let drain = queue.drain, sum(event.time, span) > time(drain.end) else { return true }
    }
    // The time to live of a dead-letter queue counts from when it came there.
    for number in queue.deadLetters {
      guard let span = queues[Int(number)].settings.timeToLive else { continue }
      let drain = queues[Int(number)].drain
      guard let drain, sum(time(first), span) > time(drain.end) else { return true }
    }
    return false
  }

  /// What was done after all was drained cannot have taken what was gone by then.
  private func mayBeRemoved(_ facts: MessageFacts, _ first: EventPosition) -> Bool {
    let queue = queues[Int(facts.queue)]
    let end = queue.drain?.end ?? .max
    if life.cancels.mayHaveHappened(after: first, before: end)
      || queue.purges.mayHaveHappened(after: first, before: end)
    {
      return true
    }
    func endOfDead(_ number: UInt32) -> EventPosition { queues[Int(number)].drain?.end ?? .max }
    return queue.deadLetters.contains {
      queues[Int($0)].purges.mayHaveHappened(after: first, before: endOfDead($0))
    }
      || facts.deadLetters.contains {
        $0.cancels.mayHaveHappened(after: first, before: endOfDead($0.queue))
      }
  }

  /// Whether the last queue that it can have come to, which has no dead letters, may have given it up:
  /// there, and in those before it where it was not seen any later, a delivery was the last attempt, or
  /// somebody left who may have had it unread, as often as the queue allows.
  private func mayBeGivenUp(_ facts: MessageFacts) -> Bool {
    let ways = [facts.queue] + queues[Int(facts.queue)].deadLetters
    let last = queues[Int(ways[ways.count - 1])]
    guard last.givesUpAfter != nil else { return false }
    for queue in ways.reversed() {
      let seen = mostAttempts(facts, in: queue)
      // Whoever had it in one on the way may have rejected it.
      let isOnTheWay = queue != facts.queue && queue != ways.last && seen != nil
      if !isOnTheWay, !mayBeRejected(facts, in: queue) {
        guard let limit = queues[Int(queue)].givesUpAfter,
          UInt64(seen ?? 0) >= limit
            || departures.mayHaveHappened(in: queue, before: last.drain?.end ?? .max)
        else { return false }
      }
      if seen != nil { break }
    }
    return true
  }

  /// The most that a delivery from that queue says; more than any if one does not say, nil if there is none.
  private func mostAttempts(_ facts: MessageFacts, in queue: UInt32) -> UInt32? {
    if queue == facts.queue { return life.deliveries.map { history.events[Int($0)].level }.max() }
    let letter = facts.deadLetters.first { $0.queue == queue }
    return letter.flatMap { $0.deliveries.isEmpty ? nil : $0.mostAttempts }
  }

  private func mayBeRejected(_ facts: MessageFacts, in queue: UInt32) -> Bool {
    queue == facts.queue && life.settlements.contains { $0.action == .reject }
  }
}
