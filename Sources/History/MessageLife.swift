// What happened to one message, sorted by kind: gathered from its chain of events before the rules
// are put to it.

/// An ack, nack, reject, release or extend that did not fail.
struct Settlement {
  var action: HistoryAction
  var token: UInt64
  var outcome: Outcome
  var interval: Interval
}

struct MessageLife {
  /// Invokes that did not fail, in order.
  var publishes: [EventPosition] = []
  /// Invokes, failed ones too.
  var publishInvokes = 0
  var firstConfirm: EventPosition?
  var deliveries: [EventPosition] = []
  /// Those whose token did not grow.
  var regressed: [EventPosition] = []
  /// Those that came after the message had come out as a dead letter: judged as that and nothing else.
  var doubled: [EventPosition] = []
  /// By token, then in order.
  var settlements: [Settlement] = []
  var cancels: [Interval] = []
  var reschedules: [Interval] = []
  /// Redrives of the message as a dead letter of this queue.
  var redrives: [Interval] = []
  /// Confirmed ones.
  var rejects: [Interval] = []
  /// The first confirmed ack, by its ok.
  var acked: EventPosition?

  mutating func clear() {
    publishes.removeAll(keepingCapacity: true)
    publishInvokes = 0
    firstConfirm = nil
    deliveries.removeAll(keepingCapacity: true)
    regressed.removeAll(keepingCapacity: true)
    doubled.removeAll(keepingCapacity: true)
    settlements.removeAll(keepingCapacity: true)
    cancels.removeAll(keepingCapacity: true)
    reschedules.removeAll(keepingCapacity: true)
    redrives.removeAll(keepingCapacity: true)
    rejects.removeAll(keepingCapacity: true)
    acked = nil
  }

  /// Those of one token.
  func settlements(of token: UInt64) -> ArraySlice<Settlement> {
    let begin = firstPlace(of: settlements) { $0.token >= token }
    var end = begin
    while end < settlements.count, settlements[end].token == token { end += 1 }
    return settlements[begin..<end]
  }

  /// Whether the message was settled for good: acked or rejected, or perhaps so.
  var isSettled: Bool {
    !deliveries.isEmpty && settlements.contains { $0.action == .ack || $0.action == .reject }
  }
}

extension Checker {
  /// Fills `life` with what happened to `message`.
  mutating func gatherLife(of message: UInt32) {
    life.clear()
    let record = history.messages[Int(message)]
    forEachEvent(of: record) { position, event, checker in
      switch event.action {
      case .publish: checker.gatherPublish(position, event)
      case .deliver: checker.life.deliveries.append(position)
      case .ack, .nack, .reject, .release, .extend:
        if event.type == .invoke { checker.gatherSettlement(position, event) }
      case .cancel:
        if event.type == .invoke, checker.outcome(position) != .fail {
          checker.life.cancels.append(checker.interval(position))
        }
      case .reschedule:
        if event.type == .invoke, checker.outcome(position) != .fail {
          checker.life.reschedules.append(checker.interval(position))
        }
      case .redrive:
        if event.type == .invoke, checker.outcome(position) != .fail {
          checker.life.redrives.append(
            checker.endedByDrain(checker.interval(position), of: record.queue))
        }
      case .declare, .purge, .drain, .nemesis: break
      }
    }
    let count = life.settlements.count
    let isSorted = (1..<max(1, count)).allSatisfy {
      life.settlements[$0 - 1].token <= life.settlements[$0].token
    }
    if !isSorted {
      life.settlements.sort {
        ($0.token, $0.interval.begin) < ($1.token, $1.interval.begin)
      }
    }
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

  private mutating func gatherSettlement(_ position: EventPosition, _ event: Event) {
    let outcome = outcome(position)
    if outcome == .fail { return }
    var token = event.token
    if token == Absent.number {
      // Without a token it is about what this process got last.
      let last = life.deliveries.last {
        history.events[Int($0)].process == event.process
      }
      token = last.map { history.events[Int($0)].token } ?? Absent.number
    }
    life.settlements.append(
      Settlement(
        action: event.action, token: token, outcome: outcome, interval: interval(position)))
    guard outcome == .ok else { return }
    if event.action == .ack { life.acked = min(life.acked ?? event.partner, event.partner) }
    if event.action == .reject { life.rejects.append(interval(position)) }
  }
}
