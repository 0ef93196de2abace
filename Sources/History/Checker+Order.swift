// What goes by the order of the whole history: `out-of-order` (G5; what was handed back is in
// Checker+Returns.swift), and the gaps between confirms that faults caused.

/// The messages that one consumer process gets of one queue, producer, priority and key, by number.
private struct OrderGroups {
  private var consumers = PairTable()
  private var producers = PairTable()
  private var keys = PairTable()
  private var priorities = PairTable()
  /// Of each group, the latest publish that was delivered, and its delivery.
  var latest: [(publish: EventPosition, delivery: EventPosition)] = []

  mutating func number(queue: UInt32, publish: Event, delivery: Event) -> Int {
    let consumer = consumers.insert(PairTable.pair(queue, delivery.process)).number
    let producer = producers.insert(PairTable.pair(consumer, publish.process)).number
    let key = keys.insert(PairTable.pair(producer, publish.key)).number
    let (group, isNew) = priorities.insert(PairTable.pair(key, publish.level))
    if isNew { latest.append((0, 0)) }
    return Int(group)
  }
}

extension Checker {
  mutating func judgeOrderAndMeasureGaps() -> Unavailability {
    var groups = OrderGroups()
    var gaps = FaultGaps()
    for position in history.events.indices {
      let event = history.events[position]
      switch event.action {
      case .deliver:
        if event.marks.contains(.orderedDelivery) {
          judgeOrder(EventPosition(position), event, &groups)
        }
      case .publish:
        if event.type == .ok { gaps.confirm(at: event.time) }
        if event.type == .invoke { gaps.publish(at: event.time) }
      case .nemesis: gaps.nemesis(event, name: history.names.text(event.id))
      default: break
      }
    }
    return gaps.finish()
  }

  private mutating func judgeOrder(
    _ position: EventPosition, _ event: Event, _ groups: inout OrderGroups
  ) {
    let message = history.messages[Int(event.message)]
    let publish = message.orderingPublish
    let group = groups.number(
      queue: message.queue, publish: history.events[Int(publish)], delivery: event)
    if publish >= groups.latest[group].publish {
      groups.latest[group] = (publish, position)
    } else {
      report(
        .outOfOrder, event.message, at: position, related: groups.latest[group].delivery)
    }
  }
}

/// Of each fault, the longest time without a confirm until the next fault.
private struct FaultGaps {
  private var faults: [(name: String, gap: UInt64)] = []
  /// Those that the next confirm belongs to: the fault at hand, and earlier ones since which nothing
  /// was confirmed.
  private var active: [Int] = []
  private var lastConfirm: UInt64?
  private var lastPublish: UInt64?

  /// Events of the nemesis that harm nothing, or only clients.
  private static let harmless: Set = ["leader-change", "session-end", "client-kill", "heal"]

  mutating func nemesis(_ event: Event, name: String) {
    // With an invoke the fault begins; what completes it is no further one.
    let isCompletion = event.type == .ok || event.type == .fail
    if isCompletion || Self.harmless.contains(name) { return }
    if let last = active.last, event.type == .info, faults[last].name == name { return }
    faults.append((name, 0))
    if lastConfirm == nil { lastConfirm = event.time }
    // The next confirm belongs to none that had one; only the first can, since that left no other.
    if let first = active.first, faults[first].gap > 0 { active.removeFirst() }
    active.append(faults.count - 1)
  }

  mutating func publish(at time: UInt64) { lastPublish = time }

  mutating func confirm(at time: UInt64) {
    if let lastConfirm { record(time - lastConfirm) }
    lastConfirm = time
    active.removeAll { $0 != faults.count - 1 }
  }

  private mutating func record(_ gap: UInt64) {
    for fault in active { faults[fault].gap = max(faults[fault].gap, gap) }
  }

  mutating func finish() -> Unavailability {
    // Publishes that nobody confirmed any more.
    if let lastConfirm, let lastPublish, lastPublish > lastConfirm {
      record(lastPublish - lastConfirm)
    }
    var result = Unavailability()
    result.all = Self.gaps(faults.map(\.gap))
    result.byFault = Dictionary(grouping: faults, by: \.name)
      .compactMap { name, faults in
        Self.gaps(faults.map(\.gap)).map { (name: name, gaps: $0) }
      }
      .sorted { $0.name < $1.name }
    return result
  }

  private static func gaps(_ gaps: [UInt64]) -> Unavailability.Gaps? {
    guard let longest = gaps.max() else { return nil }
    let median = gaps.sorted()[(gaps.count - 1) / 2]
    return Unavailability.Gaps(
      count: gaps.count, median: Double(median) / 1e6, max: Double(longest) / 1e6)
  }
}
