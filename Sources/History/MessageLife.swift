// What happened to one message, sorted by kind: gathered from its chain of events before the rules
// are put to it.

/// An ack, nack, reject, release or extend that did not fail.
struct Settlement {
  var action: HistoryAction
  var token: UInt64
  var outcome: Outcome
  var interval: Interval

  /// Whether it takes the message from the queue for good, or to its dead letters.
  var isFinal: Bool { action == .ack || action == .reject }
}

struct MessageLife {
  /// Invokes that did not fail, in order.
  var publishes: [EventPosition] = []
  /// Invokes, failed ones too.
  var publishInvokes = 0
  var firstConfirm: EventPosition?
  var deliveries: [EventPosition] = []
  /// Those deliveries, without the ones that are judged as copies too many.
  var tokens = DeliveryTokens()
  /// By token, the last of those whose token did not grow.
  var regressed: [UInt64: EventPosition] = [:]
  /// Those that came after the message had come out as a dead letter: judged as that and nothing else.
  /// In order.
  var doubled: [EventPosition] = []
  /// By token, then in order.
  var settlements: [Settlement] = []
  /// Those that failed as stale.
  var refusals: [Settlement] = []
  /// Those that did not fail.
  var cancels = Intervals()
  /// Of the confirmed ones that ended after the last publish began, the end of the first.
  var cancelled: EventPosition?
  var reschedules = Intervals()
  /// Redrives of the message as a dead letter of this queue.
  var redrives: [Interval] = []
  /// Confirmed ones, by end; each has the latest begin up to there.
  var rejects: [Interval] = []
  /// The first confirmed ack, by its ok.
  var acked: EventPosition?
  /// By process, the token that it got last, of the first `tokensSeen` deliveries: for what names none.
  private var lastTokens: [UInt32: UInt64] = [:]
  private var tokensSeen = 0

  mutating func clear() {
    publishes.removeAll(keepingCapacity: true)
    publishInvokes = 0
    firstConfirm = nil
    deliveries.removeAll(keepingCapacity: true)
    if !regressed.isEmpty { regressed.removeAll() }
    doubled.removeAll(keepingCapacity: true)
    settlements.removeAll(keepingCapacity: true)
    refusals.removeAll(keepingCapacity: true)
    cancels.removeAll()
    cancelled = nil
    reschedules.removeAll()
    redrives.removeAll(keepingCapacity: true)
    rejects.removeAll(keepingCapacity: true)
    acked = nil
    if tokensSeen > 0 { lastTokens.removeAll() }
    tokensSeen = 0
  }

  /// Those of one token.
  func settlements(of token: UInt64) -> ArraySlice<Settlement> {
    let begin = firstPlace(of: settlements) { $0.token >= token }
    let end = firstPlace(of: settlements[begin...]) { $0.token > token }
    return settlements[begin..<end]
  }

  /// Whether the message was settled for good: acked or rejected, or perhaps so.
  var isSettled: Bool { !deliveries.isEmpty && settlements.contains(where: \.isFinal) }

  func isDoubled(_ delivery: EventPosition) -> Bool {
    let place = firstPlace(of: doubled) { $0 >= delivery }
    return place < doubled.count && doubled[place] == delivery
  }

  /// The confirmed reject that began last of those that had ended before an event.
  func lastReject(endedBefore position: EventPosition) -> Interval? {
    let place = firstPlace(of: rejects) { $0.end >= position }
    return place > 0 ? rejects[place - 1] : nil
  }

  /// The token that a process got last until now, for what it asks for without one.
  mutating func lastToken(of process: UInt32, in events: [Event]) -> UInt64? {
    for delivery in deliveries[tokensSeen...] {
      lastTokens[events[Int(delivery)].process] = events[Int(delivery)].token
    }
    tokensSeen = deliveries.count
    return lastTokens[process]
  }

  /// When everything is gathered.
  mutating func arrange() {
    let isSorted = zip(settlements, settlements.dropFirst()).allSatisfy { $0.token <= $1.token }
    if !isSorted {
      settlements.sort { ($0.token, $0.interval.begin) < ($1.token, $1.interval.begin) }
    }
    if rejects.count < 2 { return }
    rejects.sort { $0.end < $1.end }
    for place in rejects.indices.dropFirst() where rejects[place].begin < rejects[place - 1].begin {
      rejects[place].begin = rejects[place - 1].begin
    }
  }
}

extension Checker {
  /// Fills `life` with what happened to `message`.
  mutating func gatherLife(of message: UInt32) {
    life.clear()
    forEachEvent(of: history.messages[Int(message)]) { position, event, checker in
      switch event.action {
      case .publish: checker.gatherPublish(position, event)
      case .deliver: checker.life.deliveries.append(position)
      case .ack, .nack, .reject, .release, .extend:
        if event.type == .invoke { checker.gatherSettlement(position, event) }
      case .cancel, .reschedule, .redrive:
        if event.type == .invoke, checker.outcome(position) != .fail {
          checker.gatherOther(event.action, checker.interval(position))
        }
      case .declare, .purge, .drain, .nemesis: break
      }
    }
    if let cancelled = life.cancelled, cancelled < life.publishes.last ?? 0 {
      life.cancelled = firstCancel(of: message, endedAfter: life.publishes.last ?? 0)
    }
    life.arrange()
  }

  private mutating func gatherPublish(_ position: EventPosition, _ event: Event) {
    switch event.type {
    case .invoke:
      life.publishInvokes += 1
      if outcome(position) != .fail { life.publishes.append(position) }
    case .ok: if life.firstConfirm == nil { life.firstConfirm = position }
    case .fail, .info: break
    }
  }

  private mutating func gatherOther(_ action: HistoryAction, _ interval: Interval) {
    switch action {
    case .cancel:
      life.cancels.append(interval)
      if interval.hasEnded { life.cancelled = min(life.cancelled ?? interval.end, interval.end) }
    case .reschedule: life.reschedules.append(interval)
    default: life.redrives.append(interval)
    }
  }

  /// One that ended before the message was published once more has nothing to do with that.
  private func firstCancel(
    of message: UInt32, endedAfter position: EventPosition
  ) -> EventPosition? {
    firstEvent(of: message) { completion, event in
      event.action == .cancel && event.type == .ok && completion > position
    }
  }

  private mutating func gatherSettlement(_ position: EventPosition, _ event: Event) {
    let outcome = outcome(position)
    let isRefused =
      outcome == .fail && history.events[Int(event.partner)].marks.contains(.stale)
    if outcome == .fail, !isRefused { return }
    var token = event.token
    if token == Absent.number {
      // Without a token it is about what this process got last.
      token = life.lastToken(of: event.process, in: history.events) ?? Absent.number
    }
    if isRefused {
      let interval = Interval(begin: position, end: event.partner)
      life.refusals.append(
        Settlement(action: event.action, token: token, outcome: outcome, interval: interval))
      return
    }
    life.settlements.append(
      Settlement(
        action: event.action, token: token, outcome: outcome, interval: interval(position)))
    guard outcome == .ok else { return }
    if event.action == .ack { life.acked = min(life.acked ?? event.partner, event.partner) }
    if event.action == .reject { life.rejects.append(interval(position)) }
  }
}
