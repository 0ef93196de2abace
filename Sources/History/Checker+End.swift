// What became of a published message by the end: `lost` (G2), and how often a confirmed one was
// accounted for.

/// What a message without a settlement of its own may have come to.
private enum Ending {
  /// Settled, here or as a dead letter.
  case settled
  /// It may rightly have gone: expired, purged, cancelled.
  case excused
  /// It may still stand in this queue, which was not drained.
  case undetermined(UInt32)
  /// The own queue was not drained; said once for all its messages.
  case undrained
  case lost(drain: EventPosition)
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
    case .undetermined(let queue):
      undetermined[queue, default: (0, facts.message)].count += 1
    case .lost(let drain): report(.lost, facts.message, at: confirm, related: drain)
    }
  }

  private func cameOut(_ facts: MessageFacts) -> Bool {
    !life.deliveries.isEmpty || facts.deadLetters.contains { firstDelivery(of: $0) != nil }
  }

  private func ending(_ facts: MessageFacts) -> Ending {
    if life.isSettled || facts.deadLetters.contains(where: { isDoneAsDeadLetter($0) }) {
      return .settled
    }
    if mayBeGone(facts) { return .excused }
    guard let drain = queues[Int(facts.queue)].drain else { return .undrained }
    for queue in queues[Int(facts.queue)].deadLetters {
      guard let last = queues[Int(queue)].drain else { return .undetermined(queue) }
      // Whoever was delivered can have been dead-lettered until the own queue's drain ended.
      if !life.deliveries.isEmpty, last.end < drain.end { return .undetermined(queue) }
    }
    if isRedriven(facts, after: drain.begin, before: .max) {
      return .undetermined(facts.queue)
    }
    return .lost(drain: drain.end)
  }

  /// Settled in a dead-letter queue; or, where the history records no settlements of that queue,
  /// found in it when it was drained.
  private func isDoneAsDeadLetter(_ message: UInt32) -> Bool {
    guard firstDelivery(of: message) != nil else { return false }
    let isSettled =
      firstEvent(of: message) { position, event in
        (event.action == .ack || event.action == .reject) && event.type == .invoke
          && outcome(position) != .fail
      } != nil
    let queue = queues[Int(history.messages[Int(message)].queue)]
    return isSettled || !queue.hasSettlements && queue.drain != nil
  }

  /// Whether its time to live, a purge or a cancel may have taken the message.
  private func mayBeGone(_ facts: MessageFacts) -> Bool {
    guard let first = life.publishes.first else { return false }
    let queue = queues[Int(facts.queue)]
    for publish in life.publishes {
      let event = history.events[Int(publish)]
      let span = min(event.moment, queue.settings.timeToLive ?? .max)
      if span == .max { continue }
      guard let drain = queue.drain, sum(event.time, span) > time(drain.end) else { return true }
    }
    let after = { (interval: Interval) in interval.end > first }
    // What was done after all was drained cannot have taken what was gone by then.
    let taking = { (interval: Interval) in
      after(interval) && interval.begin < (queue.drain?.end ?? .max)
    }
    if life.cancels.contains(where: taking) || queue.purges.contains(where: taking) {
      return true
    }
    let takingDead = { (interval: Interval, queue: UInt32) in
      after(interval) && interval.begin < (queues[Int(queue)].drain?.end ?? .max)
    }
    for number in queue.deadLetters
    where queues[Int(number)].purges.contains(where: { takingDead($0, number) }) {
      return true
    }
    return facts.deadLetters.contains { message in
      firstEvent(of: message) { position, event in
        event.action == .cancel && event.type == .invoke && outcome(position) != .fail
          && takingDead(interval(position), history.messages[Int(message)].queue)
      } != nil
    }
  }

  // MARK: EDN

  /// Marks the publish that is the enqueue, unless the message may rightly be gone unseen.
  private mutating func markEnqueue(_ facts: MessageFacts, _ ending: Ending) {
    if case .excused = ending { return }
    guard let first = life.publishes.first else { return }
    history.events[Int(first)].marks.insert(.enqueue)
    if let confirm = life.firstConfirm { history.events[Int(confirm)].marks.insert(.enqueue) }
  }

  /// Marks the deliveries that were settled. A dead letter that was only found counts as one.
  mutating func markDequeues(_ facts: MessageFacts) {
    guard let first = life.deliveries.first else { return }
    let isListed =
      life.publishes.isEmpty && !queues[Int(facts.queue)].hasSettlements
      && queues[Int(facts.queue)].drain != nil
    if isListed { history.events[Int(first)].marks.insert(.dequeue) }
    var marked = isListed || !life.isSettled
    for position in life.deliveries {
      let settlements = life.settlements(of: history.events[Int(position)].token)
      if settlements.contains(where: { $0.action == .ack || $0.action == .reject }) {
        history.events[Int(position)].marks.insert(.dequeue)
        marked = true
      }
    }
    if !marked { history.events[Int(first)].marks.insert(.dequeue) }
  }
}
