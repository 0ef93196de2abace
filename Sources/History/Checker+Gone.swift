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

  /// Whether the last queue that it can have come to, which has no dead letters, may have given it up: it
  /// was delivered as often as that queue allows, or somebody left who may have had it unread.
  private func mayBeGivenUp(_ facts: MessageFacts) -> Bool {
    let last = queues[Int(facts.queue)].deadLetters.last ?? facts.queue
    let queue = queues[Int(last)]
    guard let limit = queue.givesUpAfter else { return false }
    // Which attempt it is may not be said: then it may be any.
    let attempts =
      last == facts.queue
      ? life.deliveries.map { history.events[Int($0)].level }.max()
      : facts.deadLetters.first { $0.queue == last }?.mostAttempts
    let isLast = attempts.map { $0 >= limit } ?? false
    return isLast
      || departures.mayHaveHappened(after: facts.begin, before: queue.drain?.end ?? .max)
  }
}
