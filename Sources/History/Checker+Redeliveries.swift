// Why a message was delivered again: `held-twice` (G6), `failover-duplicate` (G7), `early` (G9), what
// must have been counted (`attempts`, G8), and the causes of redeliveries.

/// The delivery that held the message until now.
struct Holding {
  var position: EventPosition
  var event: Event
  /// Its attempt, counted where it is not recorded.
  var attempt: UInt64
  /// The earliest time at which it can have been granted, on the recorder's clock.
  var earliestGrant: UInt64
}

extension Checker {
  /// Finds why the message was delivered again. Returns the earliest time at which that can have
  /// been; nil for a first delivery.
  mutating func judgeRedelivery(
    _ facts: MessageFacts, _ holding: Holding?, _ position: EventPosition, _ event: Event
  ) -> UInt64? {
    guard let holding else { return nil }
    let settlements = life.settlements(of: holding.event.token)
      .filter { $0.interval.begin < position }
    let floor = holding.earliestGrant
    let end = leaseEnd(facts, settlements, holding, event)
    if let back = settlements.first(where: { $0.action == .nack || $0.action == .release }) {
      counts[back.action == .nack ? .nack : .release] += 1
      var due = nackDue(facts, settlements, holding)
      // One that the nack made a dead letter came back by a redrive, whenever that was.
      if isRedriven(facts, after: back.interval.begin, before: position) { due = nil }
      if let due, event.time < due.time, !isRescheduled(after: due.since, before: position) {
        report(.early, facts.message, at: position, related: due.since)
      }
      judgeFailedAttempt(facts, settlements, holding, end, position, event)
      let isConfirmed = settlements.contains {
        ($0.action == .nack || $0.action == .release) && $0.outcome == .ok
      }
      let since = due?.time ?? time(back.interval.begin)
      return max(floor, isConfirmed ? since : min(since, overrunTime(settlements, end, event)))
    }
    if let departure = departures.departure(of: holding.event.process, before: position),
      !isGranted(holding.position, after: departure.when.end),
      explains(departure, from: holding.position, to: position)
    {
      counts[.consumerDied] += 1
      return max(floor, min(time(departure.when.begin), overrunTime(settlements, end, event)))
    }
    if let end, end.hasPassed {
      counts[.leaseOverran] += 1
      judgeFailedAttempt(facts, settlements, holding, end, position, event)
      judgeOverrunWait(facts, settlements, holding, end, position, event)
      return max(floor, end.isOnRecorderClock ? end.time : 0)
    }
    if let end = shortenedLeaseEnd(settlements), end <= event.time {
      counts[.leaseOverran] += 1
      judgeFailedAttempt(facts, settlements, holding, nil, position, event)
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

  func leaderChange(between begin: EventPosition, _ end: EventPosition) -> EventPosition? {
    let changes = history.leaderChanges
    let place = firstPlace(of: changes) { $0 >= begin }
    return place < changes.count && changes[place] < end ? changes[place] : nil
  }

  // MARK: Leases

  private struct LeaseEnd {
    var hasPassed: Bool
    var time: UInt64
    /// Else it is a time on the machine's clock, which says nothing of times on this one.
    var isOnRecorderClock: Bool

    /// What may have been granted at any time before it was read had perhaps not ended.
    var hasCertainlyPassed: Bool { hasPassed && !isOnRecorderClock }
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
    if granted != Absent.number, event.moment != Absent.number {
      let end = sum(granted, lease)
      return LeaseEnd(hasPassed: end <= event.moment, time: end, isOnRecorderClock: false)
    }
    let begin = extended.map { time($0.invoke) } ?? holding.earliestGrant
    let end = sum(begin, lease)
    return LeaseEnd(hasPassed: end <= event.time, time: end, isOnRecorderClock: true)
  }

  /// When its lease may have run out at the earliest, before anything else took it away; later than all if
  /// it cannot have done so.
  private func overrunTime(
    _ settlements: [Settlement], _ end: LeaseEnd?, _ event: Event
  ) -> UInt64 {
    if let end, end.hasPassed { return end.isOnRecorderClock ? end.time : 0 }
    return shortenedLeaseEnd(settlements).flatMap { $0 <= event.time ? $0 : nil } ?? .max
  }

  /// An extension sets the lease anew, so one of unknown outcome may have made it shorter: it ended
  /// then when what its invoke asks for had passed, at the earliest. It may have come after any that is
  /// ok, but if it was asked for before, not before that one was.
  private func shortenedLeaseEnd(_ settlements: [Settlement]) -> UInt64? {
    var (earliest, shortest): (UInt64?, UInt64?)
    for settlement in settlements where settlement.action == .extend {
      let invoke = history.events[Int(settlement.interval.begin)]
      switch settlement.outcome {
      case .ok: earliest = shortest.map { sum(invoke.time, $0) }
      case .unknown where invoke.span != Absent.number:
        let end = sum(invoke.time, invoke.span)
        earliest = min(earliest ?? end, end)
        shortest = min(shortest ?? invoke.span, invoke.span)
      case .unknown, .fail: break
      }
    }
    return earliest
  }

  /// When a first delivery can have been granted at the earliest: when the publish began.
  func firstGrant(_ facts: MessageFacts) -> UInt64 {
    facts.copies == 0 ? 0 : time(facts.begin)
  }

  // MARK: Failed attempts

  /// An attempt that failed counts: the next has a higher number, and after the last one that the queue
  /// allows there is none but by a redrive. It failed if its nack is confirmed; or by its lease or an
  /// unknown nack, unless it was perhaps released, or its holder was gone: a session that is closed
  /// hands back what does not count.
  private mutating func judgeFailedAttempt(
    _ facts: MessageFacts, _ settlements: [Settlement], _ holding: Holding, _ end: LeaseEnd?,
    _ position: EventPosition, _ event: Event
  ) {
    guard holding.event.level != Absent.reference, event.token > holding.event.token,
      !isDoneWith(settlements)
    else { return }
    let limit = queues[Int(facts.queue)].settings.maxDeliveries ?? 0
    let isLast = limit > 0 && UInt64(holding.event.level) >= limit
    guard isLast || event.level != Absent.reference && event.level <= holding.event.level
    else { return }
    let isNacked = settlements.contains { $0.action == .nack && $0.outcome == .ok }
    if !isNacked {
      if settlements.contains(where: { $0.action == .release }) { return }
      if mayHaveLeft(holding.event.process, before: position)
        || mayBeFailover(facts, holding, end, position)
      {
        return
      }
    }
    if isRedriven(facts, after: facts.begin, before: position) { return }
    report(.attempts, facts.message, at: position, related: holding.position)
  }

  /// A lease that ran out is waited for like a nack, from its end. Not if an extension of unknown outcome
  /// may have made it shorter, or its holder was perhaps gone before.
  private mutating func judgeOverrunWait(
    _ facts: MessageFacts, _ settlements: [Settlement], _ holding: Holding, _ end: LeaseEnd,
    _ position: EventPosition, _ event: Event
  ) {
    guard holding.event.level != Absent.reference, event.token > holding.event.token,
      !isDoneWith(settlements)
    else { return }
    let wait = backOff(
      queues[Int(facts.queue)].settings, attempt: UInt64(holding.event.level))
    let granted = end.isOnRecorderClock ? event.time : event.moment
    guard granted < sum(end.time, wait),
      !settlements.contains(where: { $0.action == .extend && $0.outcome == .unknown }),
      !mayHaveLeft(holding.event.process, before: position),
      !mayBeFailover(facts, holding, end, position),
      !life.reschedules.mayHaveHappened(after: 0, before: position),
      !isRedriven(facts, after: earliestPlace(of: holding.position, facts), before: position)
    else { return }
    report(.early, facts.message, at: position, related: holding.position)
  }

  /// Whether a change of leader may be why it came again: not where the lease had certainly ended.
  private mutating func mayBeFailover(
    _ facts: MessageFacts, _ holding: Holding, _ end: LeaseEnd?, _ position: EventPosition
  ) -> Bool {
    if let end, end.hasCertainlyPassed { return false }
    return leaderChange(between: earliestPlace(of: holding.position, facts), position) != nil
  }

  /// Settled for good: what comes after that is `resurrected`.
  private func isDoneWith(_ settlements: [Settlement]) -> Bool {
    settlements.contains { ($0.action == .ack || $0.action == .reject) && $0.outcome == .ok }
  }

  // MARK: Due times

  struct Due {
    var time: UInt64
    /// The invoke from which it counts.
    var since: EventPosition
  }

  /// Whether a reschedule may have put another due time in the place of one set at `after`.
  func isRescheduled(after: EventPosition, before: EventPosition) -> Bool {
    life.reschedules.mayHaveHappened(after: after, before: before)
  }

  func publishDue() -> Due? {
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
    let jitter = UInt64(1_000_000_000).dividingFullWidth(product)
    // A queue that rounds down waits a nanosecond less.
    return delay - jitter.quotient - (jitter.remainder > 0 ? 1 : 0)
  }
}
