// Stored copies: one publish is stored once (`confirmed-twice`, G4), a message is dead-lettered once
// (`dead-letter-doubled`, G8).

extension Checker {
  /// Counts the server's ids under which the message stood in this queue. Deliveries of a copy too
  /// many in a dead-letter queue are taken out of `life`: they are judged as that and nothing else.
  mutating func judgeCopies(_ facts: MessageFacts) {
    var known: Set<UInt32> = []
    var last: EventPosition?
    var lastID = Absent.reference
    var copies = 1
    var doubled: Set<UInt32> = []
    var position = history.messages[Int(facts.message)].firstEvent
    while position != Absent.reference {
      let event = history.events[Int(position)]
      defer { position = event.next }
      guard event.id != Absent.reference, event.action == .publish || event.action == .deliver,
        event.id != lastID, !known.contains(event.id)
      else { continue }
      if let last, !mayBeRedriven(facts, last, position) {
        copies += 1
        if copies > facts.copies {
          let kind: ViolationKind =
            life.publishes.isEmpty ? .deadLetterDoubled : .confirmedTwice
          report(kind, facts.message, at: position, related: last)
          if kind == .deadLetterDoubled { doubled.insert(event.id) }
        }
      }
      if last != nil { known.formUnion([lastID, event.id]) }
      (last, lastID) = (position, event.id)
    }
    if !doubled.isEmpty {
      life.deliveries.removeAll { doubled.contains(history.events[Int($0)].id) }
    }
  }

  /// Whether a redrive may have made one of two copies from the other.
  private mutating func mayBeRedriven(
    _ facts: MessageFacts, _ earlier: EventPosition, _ later: EventPosition
  ) -> Bool {
    let isConfirm = [earlier, later].map { history.events[Int($0)].action == .publish }
    guard isConfirm[0] != isConfirm[1], let publish = life.publishes.first else {
      // It may have been read late, and be as old as its publish if nothing says when it was granted.
      let event = history.events[Int(earlier)]
      let isOfAnyAge = event.action == .deliver && event.moment == Absent.number
      let after = isOfAnyAge ? facts.begin : placeBeforeGrant(of: earlier)
      return isRedriven(facts, after: min(after, earlier), before: later)
    }
    // The copy that was confirmed may be as old as its publish, however late the confirm came.
    return isRedriven(facts, after: publish, before: isConfirm[0] ? later : earlier)
  }

  /// The first delivery from a dead-letter queue of this very message, if it can be told.
  func deadLettered(_ facts: MessageFacts) -> EventPosition? {
    facts.deadLetters.filter { isOnlySource(of: $0) }.compactMap(\.deliveries.first).min()
  }

  /// Whether a dead letter can only be this very message: not if the same value came to that queue by
  /// another way as well.
  func isOnlySource(of letter: DeadLetterLife) -> Bool {
    letter.hasOneOrigin && !life.publishes.isEmpty
  }
}
