// `lease-cut` (G6, G7): who held a message was told that its lease was over, before it can have been. Nobody
// else need have read it yet: another may have it unread, or get it when its lease would have been over.

/// What the holder of one delivery asked for with its token.
private struct HeldLease {
  var token: UInt64
  var delivery: EventPosition
  /// When its own lease ends, on the machine's clock.
  var end: UInt64
  /// The first that may have taken the message from it.
  var settled = Absent.reference
  /// In order. For each, the earliest end of these leases up to there, and the first ok up to there.
  var extensions: [(invoke: EventPosition, end: UInt64, confirm: EventPosition)] = []

  mutating func append(extension invoke: EventPosition, end: UInt64, confirm: EventPosition) {
    let last = extensions.last
    extensions.append(
      (invoke, min(end, last?.end ?? end), min(confirm, last?.confirm ?? confirm)))
  }

  /// When the lease ended at the earliest. With several extensions nobody asks which came last; its own
  /// end counts no more once one was certainly granted.
  func earliestEnd(at refusal: Interval) -> UInt64 {
    let place = firstPlace(of: extensions) { $0.invoke >= refusal.end }
    guard place > 0 else { return end }
    let last = extensions[place - 1]
    return last.confirm < refusal.begin ? last.end : min(last.end, end)
  }
}

extension Checker {
  /// Says it once of a message.
  mutating func judgeRefusals(_ facts: MessageFacts) {
    guard facts.copies == 1, !mayExpire(facts) else { return }
    var held: HeldLease?
    for refusal in life.refusals.sorted(by: { $0.token < $1.token }) {
      if held?.token != refusal.token { held = heldLease(facts, token: refusal.token) }
      guard let held, isHolder(held, of: refusal.interval),
        let moment = momentAfter(refusal.interval.end),
        moment < held.earliestEnd(at: refusal.interval),
        isStrict
          || leaderChange(between: placeBeforeGrant(of: held.delivery), refusal.interval.end)
            == nil
      else { continue }
      report(.leaseCut, facts.message, at: refusal.interval.end, related: held.delivery)
      return
    }
  }

  /// Whether nothing but its lease can have taken the message from the process that was refused: it read it
  /// in its turn, had not settled it, and was there.
  private func isHolder(_ held: HeldLease, of refusal: Interval) -> Bool {
    let process = history.events[Int(refusal.end)].process
    return held.delivery < refusal.begin && held.settled > refusal.end
      && history.events[Int(held.delivery)].process == process
      && !mayHaveLeft(process, before: refusal.end)
  }

  /// Nil if it cannot be said how long the lease was, or why the message came.
  private func heldLease(_ facts: MessageFacts, token: UInt64) -> HeldLease? {
    guard let delivery = life.tokens.first(of: token), life.regressed[token] == nil,
      !life.isDoubled(delivery)
    else { return nil }
    let event = history.events[Int(delivery)]
    let own = event.span == Absent.number ? history.shortestLeases[facts.queue] : event.span
    guard event.moment != Absent.number, let own else { return nil }
    var held = HeldLease(token: token, delivery: delivery, end: sum(event.moment, own))
    for settlement in life.settlements(of: token) {
      let invoke = settlement.interval.begin
      guard settlement.action == .extend else {
        held.settled = min(held.settled, invoke)
        continue
      }
      // Of unknown outcome it may have been granted all the same: never before the delivery was.
      var (begin, span) = (event.moment, min(own, history.events[Int(invoke)].span))
      if settlement.outcome == .ok {
        let ok = history.events[Int(settlement.interval.end)]
        if ok.moment != Absent.number { begin = ok.moment }
        if ok.span != Absent.number { span = ok.span }
      }
      held.append(extension: invoke, end: sum(begin, span), confirm: settlement.interval.end)
    }
    return held
  }

  /// Whether the message may expire, also in somebody's hands: a dead letter also by what is said of the
  /// queues from which it may have come, or was when it was published.
  private func mayExpire(_ facts: MessageFacts) -> Bool {
    if hasTimeToLive(facts) { return true }
    guard let origin = origins[facts.message]?.first else { return false }
    return queues[Int(facts.queue)].sources.contains {
      queues[Int($0)].settings.timeToLive != nil
    }
      || firstEvent(of: origin) { _, event in
        event.action == .publish && event.type == .invoke && event.moment != Absent.number
      } != nil
  }
}
