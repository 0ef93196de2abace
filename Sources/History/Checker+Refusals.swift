// `lease-cut` (G6, G7): who held a message was told that its lease was over, before it can have been. Nobody
// else need have read it yet: another may have it unread, or get it when its lease would have been over.

extension Checker {
  mutating func judgeRefusals(_ facts: MessageFacts) {
    guard facts.copies == 1, !hasTimeToLive(facts) else { return }
    for refusal in life.refusals {
      guard let delivery = life.tokens.first(of: refusal.token),
        isHolder(delivery, of: refusal),
        let end = earliestLeaseEnd(facts, delivery, refusal),
        let moment = momentAfter(refusal.interval.end), moment < end,
        isStrict
          || leaderChange(between: placeBeforeGrant(of: delivery), refusal.interval.end) == nil
      else { continue }
      report(.leaseCut, facts.message, at: refusal.interval.end, related: delivery)
    }
  }

  /// Whether nothing but its lease can have taken the message from the process that was refused: it read it
  /// in its turn, had not settled it, and was there.
  private func isHolder(_ delivery: EventPosition, of refusal: Settlement) -> Bool {
    let refused = refusal.interval.end
    let process = history.events[Int(refused)].process
    return delivery < refusal.interval.begin
      && history.events[Int(delivery)].process == process
      && life.regressed[refusal.token] == nil && !life.isDoubled(delivery)
      && !mayHaveLeft(process, before: refused)
      && !life.settlements(of: refusal.token).contains {
        $0.action != .extend && $0.interval.begin < refused
      }
  }

  /// When the lease of a delivery ended at the earliest, on the machine's clock. An extension counts from its
  /// own grant, which is no earlier than the first one; with several nobody asks which came last. Nil if that
  /// cannot be said.
  private func earliestLeaseEnd(
    _ facts: MessageFacts, _ delivery: EventPosition, _ refusal: Settlement
  ) -> UInt64? {
    let event = history.events[Int(delivery)]
    let lease = event.span == Absent.number ? queues[Int(facts.queue)].settings.lease : event.span
    guard event.moment != Absent.number, let lease, lease != Absent.number else { return nil }
    let extensions = life.settlements(of: refusal.token).filter {
      $0.action == .extend && $0.interval.begin < refusal.interval.end
    }
    var ends: [UInt64] = []
    for settlement in extensions {
      guard settlement.outcome == .ok else { return nil }
      let (invoke, ok) = (
        history.events[Int(settlement.interval.begin)], history.events[Int(settlement.interval.end)]
      )
      let begin = ok.moment == Absent.number ? event.moment : ok.moment
      let span = ok.span == Absent.number ? invoke.span : ok.span
      ends.append(sum(begin, span == Absent.number ? lease : span))
    }
    let isExtended = extensions.contains { $0.interval.end < refusal.interval.begin }
    if !isExtended { ends.append(sum(event.moment, lease)) }
    return ends.min()
  }
}
