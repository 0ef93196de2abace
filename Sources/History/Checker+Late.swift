// Deliveries that were read late: recorded after ones that were granted later. A slow link or a client
// that stood still explains the order in which they were read, not the order in which they were granted,
// nor that two of them were held at once: `token-regress`, and the part of `held-twice` that only shows
// when the victim reads.

extension Checker {
  /// A delivery with a smaller token and a smaller attempt, on another process than every newer one,
  /// came over a slow link. Granted it was before: the tokens of a queue grow with its clock.
  func isReadLate(_ facts: MessageFacts, _ place: Int, _ event: Event) -> Bool {
    for earlier in life.deliveries[..<place] {
      let other = history.events[Int(earlier)]
      guard other.token >= event.token else { continue }
      if other.token == event.token || other.process == event.process { return false }
      if event.moment != Absent.number, other.moment != Absent.number,
        event.moment > other.moment
      {
        return false
      }
      guard event.level != Absent.reference, other.level != Absent.reference else { return false }
      if event.level >= other.level,
        !isRedriven(facts, after: facts.begin, before: life.deliveries[place])
      {
        return false
      }
    }
    return true
  }

  func newer(than event: Event, _ place: Int) -> EventPosition {
    life.deliveries[..<place].first { history.events[Int($0)].token >= event.token }
      ?? Absent.reference
  }

  // MARK: Leases

  /// Compares the lease of what was read late with those next to it by token, whenever these were read.
  mutating func judgeLateLeases(_ facts: MessageFacts, _ position: EventPosition, _ event: Event) {
    var before: EventPosition?
    var after: EventPosition?
    for other in life.deliveries {
      let token = history.events[Int(other)].token
      if token < event.token, before.map({ self.token(of: $0) < token }) ?? true { before = other }
      if token > event.token, after.map({ self.token(of: $0) > token }) ?? true { after = other }
    }
    if let before { judgeLateLease(facts, before, position) }
    if let after { judgeLateLease(facts, position, after) }
  }

  /// Whoever read late had nothing to do with how its lease ended: it ran out, or whoever held it died,
  /// which is perhaps recorded only when it was noticed.
  private mutating func judgeLateLease(
    _ facts: MessageFacts, _ older: EventPosition, _ newer: EventPosition
  ) {
    let (event, next) = (history.events[Int(older)], history.events[Int(newer)])
    var lease = event.span
    if lease == Absent.number { lease = queues[Int(facts.queue)].settings.lease ?? lease }
    guard event.moment != Absent.number, next.moment != Absent.number, lease != Absent.number,
      sum(event.moment, lease) > next.moment,
      !life.settlements(of: event.token).contains(where: { $0.interval.begin < newer }),
      !mayHaveLeft(event.process, before: newer)
    else { return }
    let at = max(older, newer)
    if let change = leaderChange(between: earliestPlace(of: older, facts), newer) {
      if isStrict { report(.failoverDuplicate, facts.message, at: at, related: change) }
    } else {
      report(.heldTwice, facts.message, at: at, related: min(older, newer))
    }
  }

  /// Whether a process was dead by an event, or its session over. A session that ended may be recorded
  /// later than it ended, by whoever finds out.
  func mayHaveLeft(_ process: UInt32, before position: EventPosition) -> Bool {
    guard let death = history.deaths[process] else { return false }
    return death < position || history.names.text(history.events[Int(death)].id) == "session-end"
  }
}
