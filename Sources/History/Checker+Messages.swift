// One message of one queue: where it may come from, and which rules are put to it.

/// The message at hand and what the other queues know of it.
struct MessageFacts {
  var message: UInt32
  var queue: UInt32
  var value: UInt32
  /// The messages of the queues from which it may have been dead-lettered here.
  var sources: [UInt32] = []
  /// What may stand in its dead-letter queues under the same value.
  var deadLetters: [UInt32] = []
  /// How many copies of it may rightly be here: one of its own, one of each source.
  var copies = 0
  /// Redrives of this message alone, here or in a dead-letter queue.
  var redrives = Intervals()
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
    judgeDeliveries(facts)
    judgeSettlements(facts)
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

  private func facts(of message: UInt32) -> MessageFacts {
    let record = history.messages[Int(message)]
    var facts = MessageFacts(message: message, queue: record.queue, value: record.value)
    for source in queues[Int(record.queue)].sources {
      if let other = history.messageNumber(queue: source, value: record.value),
        firstPublish(of: other) != nil
      {
        facts.sources.append(other)
      }
    }
    for queue in queues[Int(record.queue)].deadLetters {
      if let other = history.messageNumber(queue: queue, value: record.value) {
        facts.deadLetters.append(other)
      }
    }
    facts.copies = facts.sources.count + (life.publishes.isEmpty ? 0 : 1)
    let publishes = life.publishes.prefix(1) + facts.sources.compactMap { firstPublish(of: $0) }
    facts.begin = publishes.min() ?? 0
    var redrives = life.redrives
    for other in facts.deadLetters { gatherRedrives(of: other, into: &redrives) }
    if !redrives.isEmpty { facts.redrives = Intervals(redrives) }
    return facts
  }

  /// The first invoke of a publish that did not fail.
  func firstPublish(of message: UInt32) -> EventPosition? {
    firstEvent(of: message) { position, event in
      event.action == .publish && event.type == .invoke && outcome(position) != .fail
    }
  }

  func firstDelivery(of message: UInt32) -> EventPosition? {
    firstEvent(of: message) { _, event in event.action == .deliver }
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
  }

  private func gatherRedrives(of message: UInt32, into redrives: inout [Interval]) {
    var position = history.messages[Int(message)].firstEvent
    while position != Absent.reference {
      let event = history.events[Int(position)]
      if event.action == .redrive, event.type == .invoke, outcome(position) != .fail {
        redrives.append(
          endedByDrain(interval(position), of: history.messages[Int(message)].queue))
      }
      position = event.next
    }
  }

  // MARK: Counts

  private mutating func countPublishes(_ facts: MessageFacts) {
    guard life.publishInvokes > 0 else { return }
    counts.published += 1
    counts.attempts += life.publishInvokes
    if life.firstConfirm != nil { counts.confirmed += 1 }
  }

  private mutating func countDeliveries(_ facts: MessageFacts) {
    if life.acked != nil { counts.acked += 1 }
    if !life.publishes.isEmpty, life.firstConfirm == nil {
      let cameOut =
        !life.deliveries.isEmpty || facts.deadLetters.contains { firstDelivery(of: $0) != nil }
      if cameOut { counts.recovered += 1 }
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
