// From findings to violations: distinct messages by their first witness, and the events that tell
// the story of the first few.

extension Checker {
  private static let idsMax = 20
  private static let storiesMax = 3
  /// Events of one story. A message that went round for minutes has thousands.
  private static let storyEventsMax = 24

  mutating func violations() -> [Violation] {
    var byKind = [[Finding]](repeating: [], count: ViolationKind.allCases.count)
    for finding in findings { byKind[finding.kind.rawValue].append(finding) }
    return ViolationKind.allCases.map { kind in
      violation(kind, byKind[kind.rawValue])
    }
  }

  private mutating func violation(_ kind: ViolationKind, _ findings: [Finding]) -> Violation {
    var distinct: [Finding] = []
    var seen: Set<UInt32> = []
    for finding in findings.sorted(by: { ($0.at, $0.message) < ($1.at, $1.message) }) {
      if seen.insert(subject(of: finding)).inserted { distinct.append(finding) }
    }
    var violation = Violation(kind: kind, count: distinct.count)
    violation.ids = distinct.prefix(Self.idsMax).map { finding in
      history.values.text(history.messages[Int(finding.message)].value)
    }
    for finding in distinct.prefix(Self.storiesMax) {
      violation.witness += story(of: finding).map { written($0) }
    }
    return violation
  }

  /// What is counted once. A doubled dead letter shows in two queues.
  private func subject(of finding: Finding) -> UInt32 {
    guard finding.kind == .deadLetterDoubled else { return finding.message }
    return history.messages[Int(finding.message)].value
  }

  // MARK: Stories

  private func story(of finding: Finding) -> [EventPosition] {
    let message = history.messages[Int(finding.message)]
    var events: Set<EventPosition> = []
    let facts = queues[Int(message.queue)]
    for queue in [message.queue] + facts.deadLetters + facts.sources {
      if let other = history.messageNumber(queue: queue, value: message.value) {
        collect(other, &events)
      }
    }
    var needed: Set = [finding.at]
    if finding.related != Absent.reference { needed.insert(finding.related) }
    addContext(of: finding, &needed)
    if events.count > Self.storyEventsMax {
      let near = events.sorted { distance($0, finding.at) < distance($1, finding.at) }
      events = Set(near.prefix(Self.storyEventsMax)).union([message.firstEvent])
    }
    return events.union(needed).sorted()
  }

  private func distance(_ left: EventPosition, _ right: EventPosition) -> EventPosition {
    left < right ? right - left : left - right
  }

  private func collect(_ message: UInt32, _ events: inout Set<EventPosition>) {
    var position = history.messages[Int(message)].firstEvent
    while position != Absent.reference {
      events.insert(position)
      position = history.events[Int(position)].next
    }
  }

  /// Events of others that the story needs.
  private func addContext(of finding: Finding, _ needed: inout Set<EventPosition>) {
    switch finding.kind {
    case .lost:
      for queue in [history.messages[Int(finding.message)].queue]
        + queues[Int(history.messages[Int(finding.message)].queue)].deadLetters
      {
        if let drain = queues[Int(queue)].drain { needed.formUnion([drain.begin, drain.end]) }
      }
    case .outOfOrder:
      let overtaking = history.events[Int(finding.related)].message
      if let publish = firstPublish(of: overtaking) { needed.insert(publish) }
    default: break
    }
  }

  // MARK: Events as JSON

  /// The event as a line of the history, without keys that the reader does not keep.
  private func written(_ position: EventPosition) -> String {
    let event = history.events[Int(position)]
    var line = JSONLine()
    line.begin()
    line.put("index", event.index)
    line.put("time", event.time)
    line.put("process", history.processes.text(event.process))
    line.put("type", event.type.name)
    if event.action == .nemesis {
      line.put("f", history.names.text(event.id))
      line.put("value", name(event.key))
    } else {
      line.put("f", event.action.name)
      writeOperation(event, to: &line)
    }
    line.end()
    return String(decoding: line.bytes, as: UTF8.self)
  }

  private func writeOperation(_ event: Event, to line: inout JSONLine) {
    let message = history.messages[Int(event.message)]
    line.put("queue", history.queues.text(message.queue))
    if message.value != Absent.reference {
      line.put("value", history.values.text(message.value))
    }
    line.put("token", number(event.token))
    let level = event.level == Absent.reference ? nil : UInt64(event.level)
    switch event.action {
    case .publish:
      line.put("delay", number(event.span))
      line.put("ttl", number(event.moment))
      line.put("key", name(event.key))
      line.put("priority", level)
    case .nack: line.put("delay", number(event.span))
    default:
      line.put("attempt", level)
      line.put("lease", number(event.span))
      line.put("granted", number(event.moment))
    }
    line.put("id", name(event.id))
  }

  private func number(_ number: UInt64) -> UInt64? { number == Absent.number ? nil : number }

  private func name(_ number: UInt32) -> String? {
    number == Absent.reference ? nil : history.names.text(number)
  }
}
