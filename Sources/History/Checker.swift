// The judge of a history: what it gathers first, and the order in which it judges. The rules are in
// `Checker+…` by topic; docs/history-format.md says them for users.

package struct Checker {
  var history: History
  let isStrict: Bool
  var findings: [Finding] = []
  var counts = HistoryCounts()
  var queues: [QueueFacts] = []
  /// Confirmed messages of which nobody can say whether they are lost: by where they may be, how
  /// many, and the first.
  var undetermined: [Whereabouts: (count: Int, first: UInt32)] = [:]
  /// The message at hand, kept to use its storage again.
  var life = MessageLife()
  /// Gathered when a delivery may have been read late.
  var grantTimes: GrantTimes?
  /// By message, the first invoke of a publish that did not fail, or `Absent.reference`.
  var firstPublishes: [EventPosition] = []
  /// By message in a dead-letter queue.
  var origins: [UInt32: Origins] = [:]
  var deadLetterLives: [UInt32: DeadLetterLife] = [:]
  /// Who left, and when that can have been.
  var departures = Departures()
  /// Messages that were handed back and came again.
  var returned: [ReturnedMessage] = []
  private var verdict: Verdict?

  /// - Parameter isStrict: whether a redelivery after a leader change is a violation (G7).
  package init(_ history: consuming History, isStrict: Bool) {
    self.history = history
    self.isStrict = isStrict
  }

  /// Judges the history; asked again, gives the same verdict.
  package mutating func judge() -> Verdict {
    if let verdict { return verdict }
    gatherQueues()
    gatherConfirms()
    gatherOrigins()
    departures = gatherDepartures()
    for message in history.messages.indices
    where history.messages[message].value != Absent.reference {
      judge(message: UInt32(message))
    }
    let unavailability = judgeOrderAndMeasureGaps()
    judgeReturns()
    counts.events = history.events.count
    let violations = violations()
    let reasons = unknownReasons()
    let isViolated = violations.contains { $0.count > 0 }
    let result = Verdict(
      validity: isViolated ? .violated : reasons.isEmpty ? .valid : .unknown,
      unknownReasons: reasons, violations: violations, counts: counts,
      unavailability: unavailability, isStrict: isStrict)
    verdict = result
    return result
  }

  // MARK: Queues

  private mutating func gatherQueues() {
    queues = (0..<history.queues.count).map { _ in QueueFacts() }
    for (queue, settings) in history.settings {
      queues[Int(queue)].settings = settings
      queues[Int(queue)].givesUpAfter = history.leastDeliveries[queue]
      if let deadLetter = settings.deadLetter {
        queues[Int(queue)].deadLetter = history.queues.number(of: deadLetter)
      }
    }
    for queue in queues.indices { followDeadLetters(of: queue) }
    for message in history.messages where message.value == Absent.reference {
      gatherQueueOperations(message)
    }
  }

  /// A dead-letter queue may have one of its own; a circle ends where it began.
  private mutating func followDeadLetters(of queue: Int) {
    var next = queues[queue].deadLetter
    while let target = next, target != queue, !queues[queue].deadLetters.contains(target) {
      queues[queue].deadLetters.append(target)
      queues[Int(target)].sources.append(UInt32(queue))
      next = queues[Int(target)].deadLetter
    }
  }

  private mutating func gatherQueueOperations(_ message: MessageRecord) {
    let queue = Int(message.queue)
    var redrives: [Interval] = []
    var purges: [Interval] = []
    forEachEvent(of: message) { position, event, checker in
      guard event.type == .invoke, checker.outcome(position) != .fail else { return }
      let interval = checker.interval(position)
      switch event.action {
      case .purge: purges.append(interval)
      case .redrive: redrives.append(interval)
      case .drain: if interval.hasEnded { checker.queues[queue].drains.append(interval) }
      default: break
      }
    }
    queues[queue].redrives = Redrives(redrives)
    queues[queue].purges = Intervals(purges)
    queues[queue].purgeEnds = EarliestEnds(purges)
  }

  private mutating func gatherConfirms() {
    firstPublishes = [EventPosition](repeating: Absent.reference, count: history.messages.count)
    for position in history.events.indices {
      let event = history.events[position]
      switch (event.action, event.type) {
      case (.publish, .invoke) where outcome(EventPosition(position)) != .fail:
        queues[queue(of: event)].hasPublishes = true
        let message = Int(event.message)
        firstPublishes[message] = min(firstPublishes[message], EventPosition(position))
      case (.publish, .ok):
        queues[queue(of: event)].lastConfirm = EventPosition(position)
      case (.ack, .invoke), (.reject, .invoke): queues[queue(of: event)].hasSettlements = true
      default: break
      }
    }
    for queue in queues.indices { gatherRounds(of: queue) }
  }

  private func queue(of event: Event) -> Int {
    Int(history.messages[Int(event.message)].queue)
  }

  private func unknownReasons() -> [String] {
    if counts.published == 0, counts.deliveries == 0 {
      return ["the history has no messages"]
    }
    var reasons: [String] = []
    for (number, queue) in queues.enumerated() where queue.hasPublishes && queue.drain == nil {
      let name = history.queues.text(UInt32(number))
      reasons.append(
        queue.lastConfirm == nil
          ? "queue \(name) was not drained"
          : "queue \(name) was not drained after its last confirmed publish")
    }
    let places = undetermined.sorted { left, right in
      (left.key.queue, left.key.isBroughtBack ? 1 : 0)
        < (right.key.queue, right.key.isBroughtBack ? 1 : 0)
    }
    for (place, missing) in places {
      let value = history.values.text(history.messages[Int(missing.first)].value)
      let others = missing.count > 1 ? " and \(missing.count - 1) others" : ""
      let queue = history.queues.text(place.queue)
      reasons.append(
        place.isBroughtBack
          ? "a redrive may have brought \(value)\(others) back to queue \(queue) after it was drained"
          : "\(value)\(others) may be in queue \(queue), which was not drained afterwards")
    }
    return reasons
  }

  // MARK: Events

  /// Calls `visit` with every event of `message`, oldest first.
  mutating func forEachEvent(
    of message: MessageRecord, _ visit: (EventPosition, Event, inout Checker) -> Void
  ) {
    var position = message.firstEvent
    while position != Absent.reference {
      let event = history.events[Int(position)]
      visit(position, event, &self)
      position = event.next
    }
  }

  func outcome(_ invoke: EventPosition) -> Outcome {
    let partner = history.events[Int(invoke)].partner
    if partner == Absent.reference { return .unknown }
    switch history.events[Int(partner)].type {
    case .ok: return .ok
    case .fail: return .fail
    case .info, .invoke: return .unknown
    }
  }

  /// From the invoke to the ok; an unknown operation may still happen at any later time.
  func interval(_ invoke: EventPosition) -> Interval {
    let end =
      outcome(invoke) == .ok ? history.events[Int(invoke)].partner : Absent.reference
    return Interval(begin: invoke, end: end)
  }

  func time(_ position: EventPosition) -> UInt64 { history.events[Int(position)].time }
}

enum Outcome: UInt8 { case ok, fail, unknown }

/// A violation, before its witness is written.
struct Finding {
  var kind: ViolationKind
  var message: UInt32
  /// The event that breaks the promise.
  var at: EventPosition
  /// Another event without which `at` would be fine.
  var related: EventPosition
}

/// Sums that stop at the end of the numbers instead of trapping: a history may say anything.
func sum(_ left: UInt64, _ right: UInt64) -> UInt64 {
  let (sum, overflow) = left.addingReportingOverflow(right)
  return overflow ? .max : sum
}
