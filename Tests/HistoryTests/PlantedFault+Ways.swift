// Faults that are planted beside the plain ones: other ways to break the same promises.

import Base

@testable import History

extension PlantedFault {
  func plantAnotherWay(in story: inout Story, _ random: inout SeededRandom) -> String? {
    switch self {
    case .lostBehindDrain:
      return story.change(one: story.simpleMessages, &random) { $0.settleBehindDrain($1) }
    case .lostReject, .lostRejectRedrivenLater:
      let isRedriven = self == .lostRejectRedrivenLater
      let rejected = story.values(living: Story.rejectedLife).filter { story.queue(of: $0) != "r" }
      return story.change(one: rejected, &random) { story, value in
        story.events.removeAll { $0.value == value && $0.queue == "d" }
        // When all is drained, there is nothing left for it.
        if isRedriven { story.append("admin", "redrive", "d", nil) }
      }
    case .lostAfterUnknownAck:
      let nacked = story.nackedOnce.filter { value in
        // Else its lease ran out as well, and that is waited for from then on.
        let granted = story.places(value, "ok", "deliver").map { story.events[$0].granted }
        return story.queue(of: value) != "r" && granted[1] < granted[0] + GoodHistory.lease
      }
      return story.change(one: nacked, &random) { $0.ackUnknown($1) }
    case .cancelledAndAcked:
      return story.change(one: story.simpleMessages, &random) { story, value in
        story.append("admin", "cancel", story.queue(of: value), value)
      }
    case .ackedDeadLetter:
      return story.change(one: story.simpleMessages, &random) { $0.buryAcked($1) }
    case .deliveredAfterCancel, .deliveredAfterPurge:
      let isCancel = self == .deliveredAfterCancel
      return story.change(one: story.certainlyGrantedLater, &random) { story, message in
        let removal = isCancel ? ("cancel", message) : ("purge", String?.none)
        let confirmed = story.place(message, "ok", "publish")
        let (time, queue) = (story.events[confirmed].time, story.events[confirmed].queue)
        for (offset, type) in ["invoke", "ok"].enumerated() {
          story.events.insert(
            StoryEvent(time, "remover", type, removal.0, queue, removal.1),
            at: confirmed + 1 + offset)
        }
      }
    case .readLateGrantedLater, .readLateHeld:
      let isHeld = self == .readLateHeld
      return story.change(one: story.nackedOnce, &random) { $0.readLate($1, isHeld: isHeld) }
    case .attemptStays:
      return story.change(one: story.nackedOnce, &random) { story, value in
        story.events[story.places(value, "ok", "deliver")[1]]["attempt"] = "1"
      }
    case .earlyAfterOverrun:
      let overran = story.values(living: Story.overrunLife).filter { value in
        let deliveries = story.places(value, "ok", "deliver")
        return deliveries.allSatisfy { story.events[$0].queue != "d" }
          && !story.isDead(story.events[deliveries[0]].process)
      }
      return story.change(one: overran, &random) { story, value in
        let deliveries = story.places(value, "ok", "deliver")
        let granted = story.events[deliveries[0]].granted
        // The first wait is 40, of which chance takes half.
        story.events[deliveries[1]]["granted"] = "\(granted + GoodHistory.lease + 19)"
      }
    case .strangerAccepted:
      return story.change(one: story.simpleMessages, &random) { story, value in
        for place in story.events.indices
        where story.events[place].value == value && story.events[place].f == "ack" {
          story.events[place].process = "stranger"
        }
      }
    case .failoverEndedLater:
      guard let value = PlantedFault.failoverDuplicate.plant(in: &story, &random) else {
        return nil
      }
      // It reads nothing else that shows how long its session was there.
      story.events[story.place(value, "ok", "deliver")].process = "victim"
      story.end("victim")
      return value
    case .outOfOrderUndated:
      // What was read late shows by nothing else than what was granted when.
      let undated = Story(story.events.map(\.undated))
      guard (try? undated.verdict().violated) == [],
        let value = PlantedFault.outOfOrder.plant(in: &story, &random)
      else { return nil }
      story.events = story.events.map(\.undated)
      let reader = story.events[story.place(value, "ok", "deliver")].process
      story.end(story.events[story.place(value, "invoke", "publish")].process)
      if !story.isDead(reader) { story.end(reader) }
      return value
    case .leaseCut:
      return story.change(one: story.shownWithinLease, &random) { $0.refuse($1) }
    case .overtakenWhenReturned: return story.overtakeReturned(&random)
    default: return nil
    }
  }
}

extension StoryEvent {
  var granted: UInt64 { self["granted"].flatMap { UInt64($0) } ?? 0 }

  var undated: Self {
    var event = self
    event["granted"] = nil
    return event
  }
}

extension Story {
  private static let published = ["invoke publish", "ok publish"]
  static let rejectedLife =
    published + ["ok deliver", "invoke reject", "ok reject", "ok deliver", "invoke ack", "ok ack"]
  static let overrunLife = published + ["ok deliver", "ok deliver", "invoke ack", "ok ack"]

  /// Messages to which exactly this happened, in whatever queues.
  func values(living life: [String]) -> [String] {
    let lives = Dictionary(grouping: events.filter { $0.value != nil }, by: { $0.value! })
    return lives.filter { $0.value.map { "\($0.type) \($0.f)" } == life }.keys.sorted()
  }

  mutating func end(_ process: String) {
    events.append(
      StoryEvent(events.last?.time ?? 0, "nemesis", "info", "session-end", nil, process))
  }

  func queue(of value: String) -> String? { events[place(value, "invoke", "publish")].queue }

  func isDead(_ process: String) -> Bool {
    events.contains { $0.process == "nemesis" && $0.value == process }
  }

  /// For each process that left, where it can have done so: if it found out that its session was over,
  /// since it asked for the last thing that was done for it, and since the last message that it read there
  /// was published.
  var departures: [Range<Int>] {
    var published: [String: Int] = [:]
    var asked: [String: Int] = [:]
    var signs: [String: Int] = [:]
    for (place, event) in events.enumerated() {
      guard let value = event.value else { continue }
      let operation =
        "\(event.process) \(event.f) \(value) \(event.queue ?? "") \(event["token"] ?? "")"
      switch (event.f, event.type) {
      case ("publish", _): published[value] = published[value] ?? place
      case ("deliver", _):
        if event.queue != "d" {
          signs[event.process] = max(signs[event.process] ?? 0, published[value]!)
        }
      case (_, "invoke"): asked[operation] = place
      case ("ack", "ok"), ("nack", "ok"), ("reject", "ok"), ("release", "ok"), ("extend", "ok"):
        signs[event.process] = max(signs[event.process] ?? 0, asked[operation]!)
      default: break
      }
    }
    return events.indices.filter { ["client-kill", "session-end"].contains(events[$0].f) }.map {
      end in
      let begin = events[end].f == "session-end" ? signs[events[end].value!] ?? 0 : end
      return begin..<end + 1
    }
  }

  /// A redrive of it has no known outcome.
  func mayBeRedriven(_ value: String) -> Bool { !places(value, "info", "redrive").isEmpty }

  /// - Returns: which one was changed; nil if there is none.
  mutating func change(
    one values: [String], _ random: inout SeededRandom, _ body: (inout Story, String) -> Void
  ) -> String? {
    guard let value = values.randomElement(using: &random) else { return nil }
    body(&self, value)
    return value
  }

  // MARK: Changes

  /// An operation that is carried out when everything else is over.
  mutating func append(_ process: String, _ f: String, _ queue: String?, _ value: String?) {
    let time = events.last?.time ?? 0
    for type in ["invoke", "ok"] {
      events.append(StoryEvent(time, process, type, f, queue, value))
    }
  }

  /// Of a message that was nacked once, it is an ack without an answer that the first delivery ended with,
  /// and nothing that the second one did.
  mutating func ackUnknown(_ value: String) {
    let first = events[place(value, "ok", "deliver")].token
    for place in events.indices where events[place].value == value && events[place].f == "nack" {
      events[place].f = "ack"
      if events[place].type == "ok" { events[place].type = "info" }
    }
    events.removeAll { $0.value == value && $0.f == "ack" && $0.token != first }
  }

  mutating func settleBehindDrain(_ value: String) {
    let late = events.filter { $0.value == value && $0.f != "publish" }
    events.removeAll { $0.value == value && $0.f != "publish" }
    let time = events.last?.time ?? 0
    for var event in late {
      event.time = time
      event.process = "late"
      events.append(event)
    }
  }

  /// It becomes a dead letter right after its ack.
  mutating func buryAcked(_ value: String) {
    let acked = place(value, "ok", "ack")
    var letter = events[place(value, "ok", "deliver")]
    letter.time = events[acked].time
    letter.process = "undertaker"
    letter.queue = "d"
    letter["token"] = "\(letter.token! + 100_000)"
    letter["granted"] = "\(letter.granted + 1)"
    letter["id"] = "\"dead\""
    let token = [(key: "token", json: letter["token"]!)]
    let settled = ["invoke", "ok"].map {
      StoryEvent(letter.time, "undertaker", $0, "ack", "d", value, token)
    }
    events.insert(contentsOf: [letter] + settled, at: acked + 1)
  }

  /// Of a message that was nacked, the first delivery was not nacked, but read after the second one.
  /// - Parameter isHeld: its lease was live when the second was granted; else it was granted later, when
  ///   that one's was over.
  mutating func readLate(_ value: String, isHeld: Bool) {
    let deliveries = places(value, "ok", "deliver")
    var first = events[deliveries[0]]
    let second = events[deliveries[1]]
    first.process = "late"
    first.time = second.time
    if isHeld {
      first["lease"] = "\(second.granted - first.granted + 1)"
    } else {
      first["granted"] = "\(second.granted + GoodHistory.lease)"
    }
    events.insert(first, at: deliveries[1] + 1)
    events.remove(at: deliveries[0])
    // Nor did anybody begin to lead.
    events.removeAll { $0.value == value && $0.f == "nack" || $0.f == "leader-change" }
  }

  /// Messages of which something shows that they were granted after their confirm: another one, published
  /// after that and granted before. Nobody died meanwhile, and nobody had had them.
  var certainlyGrantedLater: [String] {
    var published: [String: Int] = [:]
    for (place, event) in events.enumerated()
    where event.f == "publish" && published[event.value!] == nil {
      published[event.value!] = place
    }
    let others = events.filter { $0.f == "deliver" && $0.queue != "d" }
      .map { (published: published[$0.value!]!, granted: $0.granted) }
    let departures = departures
    return simpleMessages.filter { value in
      let (confirmed, delivered) = (place(value, "ok", "publish"), place(value, "ok", "deliver"))
      let lasts = place(value, "invoke", "publish")..<delivered
      let hasSomebodyLeft = departures.contains { $0.overlaps(lasts) }
      let granted = events[delivered].granted
      return !hasSomebodyLeft && events[delivered]["attempt"] == "1"
        && others.contains { $0.published > confirmed && $0.granted < granted }
    }
  }
}
