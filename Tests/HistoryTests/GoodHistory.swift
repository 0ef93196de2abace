// Histories of a queue that keeps every promise, drawn from a seed: a plain model of queues,
// consumers and leases, with unknown outcomes, deaths, overrun leases, delays, dead letters, redrives,
// changes of leader, keys, priorities, times to live, purges and cancels, and of consumers that stand
// still and read later what they were given, or find out later that their session has ended.

import Base

@testable import History

struct GoodHistory {
  static let lease: UInt64 = 1_000
  static let retryDelay: UInt64 = 40
  static let deliveriesMax: UInt64 = 3
  /// Plain; with times to live and purges; with keys; with priorities.
  static let queueNames = ["q", "r", "k", "s"]
  private static let settings = ["k": "\"keyed\":true,", "s": "\"priorities\":3,"]

  /// What a publish says of its message.
  private struct Terms {
    var key: String?
    var priority: Int?
    var ttl: UInt64?

    var json: [(key: String, json: String)] {
      key.map { [("key", "\"\($0)\"")] } ?? priority.map { [("priority", "\($0)")] }
        ?? ttl.map { [("ttl", "\($0)")] } ?? []
    }
  }

  private struct Stored {
    var value: String
    var queue: String
    var terms: Terms
    var end: UInt64
    var id: Int
    var order: Int
    var attempts: UInt64 = 0
    var due: UInt64
    var holder: String?
    /// Its holder stands still and has not read it.
    var isUnread = false
    var leaseEnd: UInt64 = 0
    /// The place in the story.
    var grantedAt = 0
    var token: UInt64 = 0
  }

  private(set) var story = Story()
  /// Messages that went by their time to live, or by a purge.
  private(set) var expired = 0
  private(set) var purged = 0
  /// Deliveries while an earlier message waited behind another of its key, or below in priority.
  private(set) var overtaken = 0
  /// Deliveries that were read when somebody else had the message, or had settled it.
  private(set) var readLate = 0
  private(set) var cancelled = 0
  /// Deliveries that were read when their session had ended, and sessions that ended unnoticed.
  private(set) var readTooLate = 0
  private(set) var unnoticed = 0
  private var random: SeededRandom
  private var now: UInt64 = 0
  private var lastChange = -1
  private var stored: [Stored] = []
  private var consumers = ["c1", "c2", "c3"]
  private var consumersMade = 3
  /// Those that stand still, and what they have not read, in order.
  private var standing: [String] = []
  private var unread: [StoryEvent] = []
  /// Those whose session has ended, which they have not found out.
  private var unaware: [(process: String, timeout: UInt64?)] = []
  private struct Unanswered {
    var value: String
    var queue: String
    var terms: Terms
    var wasStored: Bool
  }
  private var producers: [(name: String, unanswered: Unanswered?)] = [("p1", nil), ("p2", nil)]
  private var made = 0
  private var published: [String: (queue: String, terms: Terms)] = [:]
  private var tokens: [String: UInt64] = [:]

  init(seed: UInt64, steps: Int) {
    random = SeededRandom(seed: seed)
    for queue in Self.queueNames {
      add("admin", "invoke", "declare", queue, nil)
      add(
        "admin", "ok", "declare", queue, nil,
        [
          (
            "config",
            "{\(Self.settings[queue] ?? "")\"deadLetter\":\"d\",\"lease\":\(Self.lease),"
              + "\"retryDelay\":\(Self.retryDelay),"
              + "\"retryMax\":60,\"retryJitter\":0.5,\"maxDeliveries\":\(Self.deliveriesMax)}"
          )
        ])
    }
    for _ in 0..<steps { step() }
    drain()
  }

  // MARK: Steps

  private mutating func step() {
    now += UInt64.random(in: 0...8, using: &random)
    if Int.random(in: 0..<60, using: &random) == 0 { now += Self.lease }
    expire()
    if chance(10, &random) { findOut() }
    switch Int.random(in: 0..<100, using: &random) {
    case ..<33: publish()
    case ..<60: deliver(from: Self.queueNames.randomElement(using: &random)!)
    case ..<86: settle()
    case ..<87: cancel()
    case ..<90: standStill()
    case ..<92: goOn()
    case ..<94: deliver(from: "d")
    case ..<96: killConsumer()
    case ..<97: changeLeader()
    case ..<98: purge()
    default: redrive()
    }
  }

  private func chance(_ percent: Int, _ random: inout SeededRandom) -> Bool {
    Int.random(in: 0..<100, using: &random) < percent
  }

  private mutating func publish() {
    let place = Int.random(in: 0..<producers.count, using: &random)
    let producer = producers[place].name
    if let open = producers[place].unanswered {
      // The retry of a publish whose outcome is unknown: stored once.
      if !open.wasStored { store(open.value, in: open.queue, delay: 0, open.terms) }
      let id = stored.first { $0.value == open.value && $0.queue == open.queue }?.id
      add(producer, "invoke", "publish", open.queue, open.value, open.terms.json)
      add(producer, "ok", "publish", open.queue, open.value, id.map { [("id", "\"\($0)\"")] } ?? [])
      producers[place].unanswered = nil
      return
    }
    made += 1
    let (value, queue) = ("m\(made)", Self.queueNames.randomElement(using: &random)!)
    let delay: UInt64? = chance(10, &random) ? UInt64.random(in: 1...200, using: &random) : nil
    let terms = terms(for: queue)
    published[value] = (queue, terms)
    add(
      producer, "invoke", "publish", queue, value,
      terms.json + (delay.map { [("delay", "\($0)")] } ?? []))
    if chance(3, &random) {
      add(producer, "fail", "publish", queue, value)
    } else if delay == nil, chance(8, &random) {
      let wasStored = chance(50, &random)
      if wasStored { store(value, in: queue, delay: 0, terms) }
      add(producer, "info", "publish", queue, value)
      if chance(60, &random) {
        producers[place].unanswered = Unanswered(
          value: value, queue: queue, terms: terms, wasStored: wasStored)
      }
    } else {
      store(value, in: queue, delay: delay ?? 0, terms)
      now += UInt64.random(in: 0...3, using: &random)
      add(producer, "ok", "publish", queue, value, [("id", "\"\(stored.last!.id)\"")])
    }
  }

  private var ids = 0

  private mutating func terms(for queue: String) -> Terms {
    switch queue {
    case "r": Terms(ttl: chance(20, &random) ? UInt64.random(in: 50...2_000, using: &random) : nil)
    case "k": Terms(key: ["a", "b", "c"].randomElement(using: &random)!)
    case "s": Terms(priority: Int.random(in: 0...2, using: &random))
    default: Terms()
    }
  }

  private mutating func store(
    _ value: String, in queue: String, delay: UInt64, _ terms: Terms = Terms()
  ) {
    ids += 1
    stored.append(
      Stored(
        value: value, queue: queue, terms: terms, end: terms.ttl.map { now + $0 } ?? .max, id: ids,
        order: ids, due: now + delay))
  }

  /// Nobody holds one of the same key, and none that came before waits.
  private func isFirstOfKey(_ message: Stored) -> Bool {
    guard message.terms.key != nil else { return true }
    return !stored.contains {
      $0.queue == message.queue && $0.terms.key == message.terms.key
        && ($0.holder != nil || $0.order < message.order)
    }
  }

  private mutating func deliver(from queue: String, by consumer: String? = nil) {
    let ready = stored.indices.filter {
      stored[$0].queue == queue && stored[$0].holder == nil && stored[$0].due <= now
        && isFirstOfKey(stored[$0])
    }
    func rank(_ place: Int) -> (Int, Int) {
      (-(stored[place].terms.priority ?? 0), stored[place].order)
    }
    guard let place = ready.min(by: { rank($0) < rank($1) }) else { return }
    let (queue, order) = (stored[place].queue, stored[place].order)
    if stored.contains(where: {
      $0.queue == queue && $0.holder == nil && $0.due <= now && $0.order < order
    }) {
      overtaken += 1
    }
    let consumer = consumer ?? consumers.randomElement(using: &random)!
    tokens[queue, default: 0] += 1
    stored[place].attempts += 1
    stored[place].token = tokens[queue]!
    stored[place].holder = consumer
    stored[place].leaseEnd = now + Self.lease
    stored[place].grantedAt = story.events.count
    stored[place].isUnread = standing.contains(consumer)
    let message = stored[place]
    let event = StoryEvent(
      now, consumer, "ok", "deliver", queue, message.value,
      [
        ("token", "\(message.token)"), ("attempt", "\(message.attempts)"),
        ("lease", "\(Self.lease)"), ("granted", "\(now + 5_000_000)"), ("id", "\"\(message.id)\""),
      ])
    if message.isUnread { unread.append(event) } else { story.events.append(event) }
  }

  /// One of several always goes on.
  private mutating func standStill() {
    guard standing.isEmpty else { return }
    standing.append(consumers.randomElement(using: &random)!)
  }

  /// It reads what it was given meanwhile.
  private mutating func goOn() {
    guard let consumer = standing.popLast() else { return }
    for var event in unread where event.process == consumer {
      event.time = now
      story.events.append(event)
      let place = stored.firstIndex {
        $0.value == event.value && $0.queue == event.queue && $0.token == event.token
          && $0.holder == consumer
      }
      if let place { stored[place].isUnread = false } else { readLate += 1 }
    }
    unread.removeAll { $0.process == consumer }
  }

  /// What waits.
  private mutating func cancel() {
    guard
      let place = stored.indices.filter({ stored[$0].queue == "q" && stored[$0].holder == nil })
        .randomElement(using: &random)
    else { return }
    let value = stored[place].value
    add("admin", "invoke", "cancel", "q", value)
    let (isUnknown, happens) = (chance(20, &random), chance(80, &random))
    if happens { stored.remove(at: place) }
    cancelled += happens ? 1 : 0
    add("admin", isUnknown ? "info" : happens ? "ok" : "fail", "cancel", "q", value)
  }

  private mutating func settle() {
    guard
      let place = stored.indices.filter({ place in
        stored[place].holder.map { !standing.contains($0) } ?? false
      }).randomElement(using: &random)
    else { return }
    let action =
      ["ack", "ack", "ack", "ack", "nack", "nack", "nack", "reject", "reject", "release", "extend"]
      .randomElement(using: &random)!
    settle(place, action)
  }

  private mutating func settle(_ place: Int, _ action: String, isCertain: Bool = false) {
    let message = stored[place]
    let token: [(key: String, json: String)] = [("token", "\(message.token)")]
    add(message.holder!, "invoke", action, message.queue, message.value, token)
    now += UInt64.random(in: 0...3, using: &random)
    expire()
    guard let place = stored.firstIndex(where: { $0.id == message.id }),
      stored[place].token == message.token, stored[place].holder == message.holder
    else {
      let why = [(key: "error", json: "\"stale\"")]
      add(message.holder!, "fail", action, message.queue, message.value, token + why)
      return
    }
    let isUnknown = !isCertain && chance(6, &random)
    let happens = !isUnknown || chance(50, &random)
    var answer = token
    if action == "extend", !isUnknown { answer.append(("lease", "\(Self.lease)")) }
    add(
      message.holder!, isUnknown ? "info" : "ok", action, message.queue, message.value, answer)
    guard happens else { return }
    switch action {
    case "ack": stored.remove(at: place)
    case "nack": returnMessage(place)
    case "reject": bury(place)
    case "release": release(place)
    default: stored[place].leaseEnd = now + Self.lease
    }
  }

  /// Handed back, which counts as no attempt.
  private mutating func release(_ place: Int) {
    stored[place].attempts -= 1
    stored[place].holder = nil
  }

  private mutating func returnMessage(_ place: Int) {
    guard stored[place].attempts < Self.deliveriesMax || stored[place].queue == "d" else {
      bury(place)
      return
    }
    stored[place].holder = nil
    if stored[place].queue != "d" {
      // Base 40, 60 at most; chance takes half of it away at the most.
      stored[place].due = now + (stored[place].attempts == 1 ? 20 : 30)
    }
  }

  private mutating func bury(_ place: Int) {
    let message = stored.remove(at: place)
    if message.queue != "d" { store(message.value, in: "d", delay: 0) }
  }

  private mutating func expire() {
    for place in stored.indices.reversed()
    where stored[place].holder != nil && stored[place].leaseEnd <= now {
      returnMessage(place)
    }
    let before = stored.count
    stored.removeAll { $0.holder == nil && $0.end <= now }
    expired += before - stored.count
  }

  /// All that nobody holds.
  private mutating func purge() {
    add("admin", "invoke", "purge", "r", nil)
    let before = stored.count
    stored.removeAll { $0.queue == "r" && $0.holder == nil }
    purged += before - stored.count
    add("admin", "ok", "purge", "r", nil)
  }

  /// Whoever does not know yet that its session is over finds out first, if nobody can tell from its timeout
  /// that it was not the new leader that ended it.
  private mutating func changeLeader() {
    while let place = unaware.firstIndex(where: { $0.timeout == nil }) { findOut(place) }
    lastChange = story.events.count
    add("nemesis", "info", "leader-change", nil, "\(made % 3)")
  }

  private mutating func killConsumer() {
    let drawn = Int.random(in: 0..<consumers.count, using: &random)
    // Often the one that stands still: that is how a session ends.
    let still = chance(60, &random) ? consumers.firstIndex { standing.contains($0) } : nil
    let dead = consumers.remove(at: still ?? drawn)
    consumersMade += 1
    consumers.append("c\(consumersMade)")
    standing.removeAll { $0 == dead }
    // What it has unread of a queue from which it never read would have been a consumer's of another name.
    let isKill = chance(50, &random) || hasUnreadOfUnknownQueue(dead)
    let hasOlder = stored.contains { $0.holder == dead && $0.grantedAt <= lastChange }
    if isKill || chance(50, &random) {
      add("nemesis", "info", isKill ? "client-kill" : "session-end", nil, dead)
      unread.removeAll { $0.process == dead }
    } else {
      unaware.append((dead, hasOlder || chance(50, &random) ? silence(of: dead) : nil))
      unnoticed += 1
    }
    for place in stored.indices.reversed() where stored[place].holder == dead {
      if stored[place].isUnread, !isKill { release(place) } else { returnMessage(place) }
    }
  }

  private func hasUnreadOfUnknownQueue(_ process: String) -> Bool {
    let known = Set(
      story.events.filter { $0.process == process && $0.f == "deliver" }.map(\.queue))
    return unread.contains { $0.process == process && !known.contains($0.queue) }
  }

  /// For how long nothing has been heard of a consumer, or sent to it.
  private func silence(of process: String) -> UInt64 {
    let last = (story.events + unread).filter { $0.process == process }.map(\.time).max()
    return now - (last ?? now)
  }

  /// Whose session has ended finds out, and may have read some of what it was given.
  private mutating func findOut(_ place: Int = 0) {
    guard !unaware.isEmpty else { return }
    let (process, timeout) = unaware.remove(at: place)
    let reads = chance(50, &random)
    for var event in unread where event.process == process && reads {
      event.time = now
      story.events.append(event)
      readTooLate += 1
    }
    unread.removeAll { $0.process == process }
    add(
      "nemesis", "info", "session-end", nil, process,
      timeout.map { [("timeout", "\($0)")] } ?? [])
  }

  private mutating func redrive() {
    guard let place = stored.firstIndex(where: { $0.queue == "d" && $0.holder == nil }) else {
      return
    }
    let message = stored[place]
    let published = published[message.value]!
    add("admin", "invoke", "redrive", "d", message.value)
    let isUnknown = chance(10, &random)
    if !isUnknown || chance(50, &random) {
      stored.remove(at: place)
      // It lives as long as it must.
      var terms = published.terms
      terms.ttl = nil
      store(message.value, in: published.queue, delay: 0, terms)
    }
    add("admin", isUnknown ? "info" : "ok", "redrive", "d", message.value)
  }

  // MARK: The end

  private mutating func drain() {
    // One that stands still reads what it was given when all is over.
    if chance(50, &random) { goOn() }
    for queue in Self.queueNames + ["d"] {
      add("admin", "invoke", "drain", queue, nil)
      while let place = stored.firstIndex(where: { $0.queue == queue }) {
        now = max(now, stored[place].due)
        if stored[place].holder != nil {
          now = max(now, stored[place].leaseEnd)
          expire()
          continue
        }
        expire()
        deliver(from: queue, by: consumers.first { !standing.contains($0) })
        for held in stored.indices.reversed()
        where stored[held].holder != nil && !stored[held].isUnread && stored[held].queue == queue {
          settle(held, "ack", isCertain: true)
        }
      }
      add("admin", "ok", "drain", queue, nil)
    }
    goOn()
    while !unaware.isEmpty { findOut() }
  }

  private mutating func add(
    _ process: String, _ type: String, _ f: String, _ queue: String?, _ value: String?,
    _ rest: [(key: String, json: String)] = []
  ) {
    story.events.append(StoryEvent(now, process, type, f, queue, value, rest))
  }
}
