// The deliveries of one message, one after the other: `resurrected`, `early`, `token-regress`,
// `held-twice`, `failover-duplicate`, `attempts`, the own queue's part of `dead-letter-doubled`, and
// the causes of redeliveries.

/// The delivery that held the message until now.
private struct Holding {
  var position: EventPosition
  var event: Event
  /// Its attempt, counted where it is not recorded.
  var attempt: UInt64
  /// The earliest time at which it can have been granted, on the recorder's clock.
  var earliestGrant: UInt64
}

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
    var newest: UInt64?
    var judged = 0
    for place in life.deliveries.indices {
      let position = life.deliveries[place]
      let event = history.events[Int(position)]
      if let newest, event.token <= newest {
        if isReadLate(facts, place, event) { continue }
        report(.tokenRegress, facts.message, at: position, related: newer(than: event, place))
        life.regressed.append(position)
      }
      if let deadLettered, isAfterDeadLetter(facts, deadLettered, position, event) {
        report(.deadLetterDoubled, facts.message, at: position, related: deadLettered)
        continue
      }
      judged += 1
      if event.level != Absent.reference, event.token > newest ?? 0 {
        judgeAttempt(facts, most, position, event)
        if event.level > most.attempt { most = (event.level, position) }
      }
      newest = max(newest ?? 0, event.token)
      judgeFinality(facts, position)
      // One that became a dead letter while it waited came back by a redrive, whenever that was.
      if let due, event.time < due.time, !isRedriven(facts, after: due.since, before: position),
        !isRescheduled(after: due.since, before: position)
      {
        report(.early, facts.message, at: position, related: due.since)
      }
      let grant = judgeRedelivery(facts, holding, position, event) ?? firstGrant(facts)
      holding = Holding(
        position: position, event: event,
        attempt: event.level == Absent.reference ? UInt64(judged) : UInt64(event.level),
        earliestGrant: min(grant, event.time))
    }
  }

  // MARK: Tokens

  /// A delivery with a smaller token and a smaller attempt, on another process than every newer one,
  /// came over a slow link.
  private func isReadLate(_ facts: MessageFacts, _ place: Int, _ event: Event) -> Bool {
    for earlier in life.deliveries[..<place] {
      let other = history.events[Int(earlier)]
      guard other.token >= event.token else { continue }
      if other.token == event.token || other.process == event.process { return false }
      guard event.level != Absent.reference, other.level != Absent.reference else { return false }
      if event.level >= other.level,
        !isRedriven(facts, after: facts.begin, before: life.deliveries[place])
      {
        return false
      }
    }
    return true
  }

  private func newer(than event: Event, _ place: Int) -> EventPosition {
    life.deliveries[..<place].first { history.events[Int($0)].token >= event.token }
      ?? Absent.reference
  }

  // MARK: Attempts

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

  // MARK: Finality

  /// Whether the own queue delivers what already stood in its dead-letter queue.
  private mutating func isAfterDeadLetter(
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

  private mutating func judgeFinality(_ facts: MessageFacts, _ position: EventPosition) {
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
  }

  // MARK: Redeliveries

  /// Finds why the message was delivered again. Returns the earliest time at which that can have
  /// been; nil for a first delivery.
  private mutating func judgeRedelivery(
    _ facts: MessageFacts, _ holding: Holding?, _ position: EventPosition, _ event: Event
  ) -> UInt64? {
    guard let holding else { return nil }
    let settlements = life.settlements(of: holding.event.token)
      .filter { $0.interval.begin < position }
    let floor = holding.earliestGrant
    if let back = settlements.first(where: { $0.action == .nack || $0.action == .release }) {
      counts[back.action == .nack ? .nack : .release] += 1
      var due = nackDue(facts, settlements, holding)
      // One that the nack made a dead letter came back by a redrive, whenever that was.
      if isRedriven(facts, after: back.interval.begin, before: position) { due = nil }
      if let due, event.time < due.time, !isRescheduled(after: due.since, before: position) {
        report(.early, facts.message, at: position, related: due.since)
      }
      return max(floor, due?.time ?? time(back.interval.begin))
    }
    if let death = history.deaths[holding.event.process], death < position {
      counts[.consumerDied] += 1
      return max(floor, time(death))
    }
    if let end = leaseEnd(facts, settlements, holding, event), end.hasPassed {
      counts[.leaseOverran] += 1
      return max(floor, end.onRecorderClock ?? 0)
    }
    if let end = shortenedLeaseEnd(settlements), end <= event.time {
      counts[.leaseOverran] += 1
      return max(floor, end)
    }
    let final = settlements.filter { $0.action == .ack || $0.action == .reject }
    if final.contains(where: { $0.action == .ack && $0.outcome == .unknown }) {
      counts[.unknownAck] += 1
      return floor
    }
    // Settled for good, so its lease had ended. Whether it may come out again is said elsewhere. A
    // redrive shows that an unknown reject had happened.
    let hasEnded = final.contains { settlement in
      settlement.outcome == .ok
        || isRedriven(facts, after: settlement.interval.begin, before: position)
    }
    if hasEnded { return floor }
    if let change = leaderChange(between: holding.position, position) {
      counts[.leaderChange] += 1
      if isStrict { report(.failoverDuplicate, facts.message, at: position, related: change) }
      return floor
    }
    report(.heldTwice, facts.message, at: position, related: holding.position)
    return floor
  }

  private func leaderChange(
    between begin: EventPosition, _ end: EventPosition
  ) -> EventPosition? {
    let changes = history.leaderChanges
    var range = 0..<changes.count
    while !range.isEmpty {
      let middle = range.lowerBound + range.count / 2
      if changes[middle] < begin {
        range = middle + 1..<range.upperBound
      } else {
        range = range.lowerBound..<middle
      }
    }
    guard range.lowerBound < changes.count, changes[range.lowerBound] < end else { return nil }
    return changes[range.lowerBound]
  }

  private struct LeaseEnd {
    var hasPassed: Bool
    /// Nil if it is only known on the machine's clock.
    var onRecorderClock: UInt64?
  }

  /// When the lease of `holding` ended at the earliest, against the grant of `event`. Nil if nothing
  /// says how long it was.
  private func leaseEnd(
    _ facts: MessageFacts, _ settlements: [Settlement], _ holding: Holding, _ event: Event
  ) -> LeaseEnd? {
    let extended = settlements.last { $0.action == .extend && $0.outcome == .ok }
      .map { (invoke: $0.interval.begin, ok: history.events[Int($0.interval.end)]) }
    var lease = holding.event.span
    if lease == Absent.number { lease = queues[Int(facts.queue)].settings.lease ?? lease }
    if let extended, extended.ok.span != Absent.number { lease = extended.ok.span }
    guard lease != Absent.number else { return nil }
    let granted = extended?.ok.moment ?? holding.event.moment
    if granted != Absent.number {
      let next = event.moment == Absent.number ? event.time : event.moment
      return LeaseEnd(hasPassed: sum(granted, lease) <= next, onRecorderClock: nil)
    }
    let begin = extended.map { time($0.invoke) } ?? holding.earliestGrant
    let end = sum(begin, lease)
    return LeaseEnd(hasPassed: end <= event.time, onRecorderClock: end)
  }

  /// An extension sets the lease anew, so one of unknown outcome may have made it shorter: it ended
  /// then when what its invoke asks for had passed, at the earliest. What came before the last
  /// extension that is ok does not count any more.
  private func shortenedLeaseEnd(_ settlements: [Settlement]) -> UInt64? {
    var earliest: UInt64?
    for settlement in settlements where settlement.action == .extend {
      let invoke = history.events[Int(settlement.interval.begin)]
      switch settlement.outcome {
      case .ok: earliest = nil
      case .unknown where invoke.span != Absent.number:
        let end = sum(invoke.time, invoke.span)
        earliest = min(earliest ?? end, end)
      case .unknown, .fail: break
      }
    }
    return earliest
  }

  /// When a first delivery can have been granted at the earliest: when the publish began.
  private func firstGrant(_ facts: MessageFacts) -> UInt64 {
    facts.copies == 0 ? 0 : time(facts.begin)
  }

  // MARK: Due times

  private struct Due {
    var time: UInt64
    /// The invoke from which it counts.
    var since: EventPosition
  }

  /// Whether a reschedule may have put another due time in the place of one set at `after`.
  private func isRescheduled(after: EventPosition, before: EventPosition) -> Bool {
    life.reschedules.contains { $0.begin < before && $0.end > after }
  }

  private func publishDue() -> Due? {
    guard let first = life.publishes.first else { return nil }
    // A retry that names no delay has that of the first; but if the first names none, that is its own.
    var delay = history.events[Int(first)].span
    if delay == Absent.number { return nil }
    for publish in life.publishes { delay = min(delay, history.events[Int(publish)].span) }
    if delay == 0 { return nil }
    return Due(time: sum(time(first), delay), since: first)
  }

  private func nackDue(
    _ facts: MessageFacts, _ settlements: [Settlement], _ holding: Holding
  ) -> Due? {
    let nacks = settlements.filter { $0.action == .nack }
    guard let first = nacks.first, nacks.contains(where: { $0.outcome == .ok }) else { return nil }
    var delay = Absent.number
    for nack in nacks { delay = min(delay, history.events[Int(nack.interval.begin)].span) }
    // A retry that names no delay has that of the first; but if the first names none, it has its own.
    if history.events[Int(first.interval.begin)].span == Absent.number {
      delay = min(delay, backOff(queues[Int(facts.queue)].settings, attempt: holding.attempt))
    }
    return Due(time: sum(time(first.interval.begin), delay), since: first.interval.begin)
  }

  /// `retryDelay * 2^(attempt-1)`, at most `retryMax`, less the most that chance takes away.
  private func backOff(_ settings: HistoryQueueSettings, attempt: UInt64) -> UInt64 {
    guard var delay = settings.retryDelay, delay > 0 else { return 0 }
    let limit = settings.retryMax ?? .max
    var doublings = max(attempt, 1) - 1
    while doublings > 0, delay < limit {
      delay = sum(delay, delay)
      doublings -= 1
    }
    delay = min(delay, limit)
    let part = min(settings.retryJitterBillionths ?? 0, 1_000_000_000)
    let product = delay.multipliedFullWidth(by: part)
    let jitter = UInt64(1_000_000_000).dividingFullWidth(product).quotient
    return delay - jitter
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
    history.messages[Int(facts.message)].orderingPublish = publish
    history.events[Int(first)].marks.insert(.orderedDelivery)
  }
}
