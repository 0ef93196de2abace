// One message of one queue: where it may come from, and which rules are put to it.

/// The message at hand and what the other queues know of it.
struct MessageFacts {
  var message: UInt32
  var queue: UInt32
  var value: UInt32
  /// What stands in its dead-letter queues under the same value.
  var deadLetters: [DeadLetterLife] = []
  /// How many copies of it may rightly be here: one of its own, one of each queue of origin.
  var copies = 0
  /// Redrives of this message alone, as a dead letter of this queue.
  var redrives = Redrives()
  /// When it can have come to its queue at the earliest.
  var begin: EventPosition = 0
}

extension Checker {
  mutating func judge(message: UInt32) {
    gatherLife(of: message)
    let facts = facts(of: message)
    countPublishes(facts)
    if life.deliveries.isEmpty && life.publishes.isEmpty { return }
    if facts.copies == 0 {
      if let first = life.deliveries.first {
        report(.unexpected, message, at: first)
        history.events[Int(first)].marks.insert(.dequeue)
      }
      return
    }
    countDeliveries(facts)
    judgeCopies(facts)
    life.tokens.gather(life.deliveries, in: history.events)
    judgeDeliveries(facts)
    judgeCancelled(facts)
    judgeSettlements(facts)
    noteReturns(facts)
    if !life.publishes.isEmpty { judgeEnd(facts) }
    markDequeues(facts)
  }

  mutating func report(
    _ kind: ViolationKind, _ message: UInt32, at: EventPosition,
    related: EventPosition = Absent.reference
  ) {
    findings.append(Finding(kind: kind, message: message, at: at, related: related))
  }

  // MARK: Facts

  private mutating func facts(of message: UInt32) -> MessageFacts {
    let record = history.messages[Int(message)]
    var facts = MessageFacts(message: message, queue: record.queue, value: record.value)
    let origins = origins[message] ?? Origins()
    facts.copies = origins.count + (life.publishes.isEmpty ? 0 : 1)
    if facts.copies == 0 { return facts }
    facts.begin = min(life.publishes.first ?? origins.begin, origins.begin)
    facts.deadLetters = deadLetterLives(queue: record.queue, value: record.value)
    if !life.redrives.isEmpty { facts.redrives = Redrives(life.redrives) }
    return facts
  }

  func firstEvent(
    of message: UInt32, where holds: (EventPosition, Event) -> Bool
  ) -> EventPosition? {
    var position = history.messages[Int(message)].firstEvent
    while position != Absent.reference {
      let event = history.events[Int(position)]
      if holds(position, event) { return position }
      position = event.next
    }
    return nil
  }

  /// Whether a redrive may have brought the message back between two events. One from its own
  /// queue's dead letters counts, and one of this queue, if it is itself for dead letters.
  func isRedriven(
    _ facts: MessageFacts, after: EventPosition, before: EventPosition
  ) -> Bool {
    let queue = queues[Int(facts.queue)]
    if queue.redrives.mayHaveHappened(after: after, before: before) { return true }
    for other in queue.deadLetters
    where queues[Int(other)].redrives.mayHaveHappened(after: after, before: before) {
      return true
    }
    return facts.redrives.mayHaveHappened(after: after, before: before)
      || facts.deadLetters.contains {
        $0.redrives.mayHaveHappened(after: after, before: before)
      }
  }

  /// All that `isRedriven` looks at.
  func redrives(_ facts: MessageFacts) -> [Redrives] {
    let queue = queues[Int(facts.queue)]
    return [queue.redrives, facts.redrives] + facts.deadLetters.map(\.redrives)
      + queue.deadLetters.map { queues[Int($0)].redrives }
  }

  // MARK: Counts

  private mutating func countPublishes(_ facts: MessageFacts) {
    guard life.publishInvokes > 0 else { return }
    counts.published += 1
    counts.attempts += life.publishInvokes
    if life.firstConfirm != nil { counts.confirmed += 1 }
  }

  /// Whether anybody had it, perhaps as a dead letter.
  func cameOut(_ facts: MessageFacts) -> Bool {
    !life.deliveries.isEmpty || facts.deadLetters.contains { !$0.deliveries.isEmpty }
  }

  private mutating func countDeliveries(_ facts: MessageFacts) {
    if life.acked != nil { counts.acked += 1 }
    if !life.publishes.isEmpty, life.firstConfirm == nil {
      if cameOut(facts) { counts.recovered += 1 }
    }
    if life.deliveries.isEmpty { return }
    counts.delivered += 1
    counts.deliveries += life.deliveries.count
    if life.deliveries.count > 1 {
      counts.retried += 1
      if life.acked != nil { counts.retriedAndAcked += 1 }
    }
  }
}
