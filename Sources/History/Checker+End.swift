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
    let queue = queues[Int(facts.queue)]
    guard let last = queue.drain, let first = queue.firstDrain else {
      if isDone(facts, .whenever) { return .settled }
      return mayBeGone(facts) ? .excused : .undrained
    }
    // What the first drain shows is lost can be in no later one.
    let atFirst = ending(facts, by: first)
    if case .lost = atFirst { return atFirst }
    return first.end == last.end ? atFirst : ending(facts, by: last)
  }

  /// - Parameter drain: of the own queue. When it ended nothing was left there, so whatever settled the
  ///   message had begun before.
  private func ending(_ facts: MessageFacts, by drain: Interval) -> Ending {
    let drains = deadLetterDrains(facts, after: drain)
    if isDone(facts, Done(own: drain.end, dead: drains.map(\.limit))) { return .settled }
    if mayBeGone(facts) { return .excused }
    // Whoever may have been a dead letter after its queue was looked at may be done at any later time.
    func orUndetermined(_ queue: UInt32) -> Ending {
      isDone(facts, .whenever) || life.isSettled ? .settled : .undetermined(queue)
    }
    for (queue, last) in zip(queues[Int(facts.queue)].deadLetters, drains) {
      guard let last = last.drain else { return orUndetermined(queue) }
      // Whoever was delivered can have been dead-lettered until the own queue's drain ended.
      if !life.deliveries.isEmpty, last.end < drain.end { return orUndetermined(queue) }
    }
    if isRedriven(facts, after: drain.begin, before: .max) { return orUndetermined(facts.queue) }
    return .lost(drain: drain.end)
  }

  // MARK: Dead letters

  /// Before what places a message must have been settled in its own queue and in each of its
  /// dead-letter queues.
  private struct Done {
    var own: EventPosition
    var dead: [EventPosition]

    /// Only whether it was settled at all.
    static let whenever = Done(own: .max, dead: [])

    func dead(_ place: Int) -> EventPosition { place < dead.count ? dead[place] : .max }
  }

  /// Of each dead-letter queue the first drain that ended after those of the queues before it: what
  /// died there until then had to be out by its end. One that ended earlier limits nothing.
  private func deadLetterDrains(
    _ facts: MessageFacts, after drain: Interval
  ) -> [(drain: Interval?, limit: EventPosition)] {
    var before = drain.end
    return queues[Int(facts.queue)].deadLetters.map { number in
      let queue = queues[Int(number)]
      let later = [queue.firstDrain, queue.drain].compactMap(\.self).first { $0.end > before }
      if let later { before = later.end }
      return (later ?? queue.drain, later?.end ?? .max)
    }
  }

  /// Whether the message was settled for good in time. One that was brought back by name was not done
  /// before: it was a dead letter then.
  private func isDone(_ facts: MessageFacts, _ done: Done) -> Bool {
    let since = life.acked == nil ? lastBroughtBack(facts) : nil
    let isSettled =
      !life.deliveries.isEmpty
      && life.settlements.contains { settlement in
        (settlement.action == .ack || settlement.action == .reject && rejectEnds(facts.queue))
          && settlement.interval.begin < done.own
          && (since.map { settlement.interval.begin > $0 } ?? true)
      }
    if isSettled { return true }
    for message in facts.deadLetters {
      let queue = history.messages[Int(message)].queue
      let place = queues[Int(facts.queue)].deadLetters.firstIndex(of: queue) ?? 0
      if isDoneAsDeadLetter(message, facts, since: since, before: done.dead(place)) { return true }
    }
    return false
  }

  /// Whether a reject is the end of a message. Where the queue has dead letters it only moves it there:
  /// then it must come out of there, if that can be seen.
  private func rejectEnds(_ queue: UInt32) -> Bool {
    let deadLetters = queues[Int(queue)].deadLetters
    guard let last = deadLetters.last else { return true }
    // The last one has nowhere to put what it gives up.
    return (queues[Int(last)].settings.maxDeliveries ?? 0) > 0
      || deadLetters.contains { queues[Int($0)].drain == nil }
  }

  /// The begin of the last confirmed redrive of this very message, if it can be told from others of its
  /// value.
  private func lastBroughtBack(_ facts: MessageFacts) -> EventPosition? {
    if facts.redrives.isEmpty { return nil }
    var last: EventPosition?
    for other in facts.deadLetters where isOnlySource(of: other, facts) {
      _ = firstEvent(of: other) { position, event in
        if event.action == .redrive, event.type == .invoke, outcome(position) == .ok {
          last = max(last ?? position, position)
        }
        return false
      }
    }
    return last
  }

  /// Settled in a dead-letter queue; or, where the history records no settlements of that queue,
  /// found in it when it was drained, and not in its own queue afterwards.
  private func isDoneAsDeadLetter(
    _ message: UInt32, _ facts: MessageFacts, since: EventPosition?, before limit: EventPosition
  ) -> Bool {
    let number = history.messages[Int(message)].queue
    let queue = queues[Int(number)]
    let inTime = { (position: EventPosition) in
      position < limit && (since.map { position > $0 } ?? true)
    }
    guard firstDelivery(of: message) != nil else { return false }
    if queue.hasSettlements {
      return firstEvent(of: message) { position, event in
        (event.action == .ack || event.action == .reject && rejectEnds(number))
          && event.type == .invoke && outcome(position) != .fail && inTime(position)
      } != nil
    }
    guard queue.drain != nil else { return false }
    // That it was in its own queue after it was found shows only where both say when.
    let latest = life.deliveries.filter { !life.doubled.contains($0) }
      .map { history.events[Int($0)].moment }.filter { $0 != Absent.number }.max()
    return firstEvent(of: message) { position, event in
      guard event.action == .deliver, inTime(position) else { return false }
      guard let latest, event.moment != Absent.number else { return true }
      return event.moment >= latest
    } != nil
  }

  // MARK: Rightly gone

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
    // The time to live of a dead-letter queue counts from when it came there.
    for number in queue.deadLetters {
      guard let span = queues[Int(number)].settings.timeToLive else { continue }
      let drain = queues[Int(number)].drain
      guard let drain, sum(time(first), span) > time(drain.end) else { return true }
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
    if case .excused = ending, !life.isSettled, !isDone(facts, .whenever) { return }
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
