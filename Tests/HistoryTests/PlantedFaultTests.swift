// Good histories drawn from seeds are valid; with one fault planted in them, exactly the property of
// that fault is violated, for exactly that message.
//
//     SKEIN_SEEDS=500 swift test --filter PlantedFaultTests     looks longer
//     SKEIN_SEED=17 swift test --filter PlantedFaultTests       repeats one

import Base
import Foundation
import TestSupport
import Testing

@testable import History

@Suite(.ownThreads) struct PlantedFaultTests {
  static var seeds: [UInt64] {
    let environment = ProcessInfo.processInfo.environment
    if let seed = environment["SKEIN_SEED"].flatMap({ UInt64($0) }) { return [seed] }
    return Array(1...(environment["SKEIN_SEEDS"].flatMap { UInt64($0) } ?? 10))
  }

  private func repeated(_ seed: UInt64) -> Comment {
    "seed \(seed); repeat with: SKEIN_SEED=\(seed) swift test --filter PlantedFaultTests"
  }

  @Test func goodHistoriesAreValid() throws {
    var redelivered = [Int](repeating: 0, count: RedeliveryCause.allCases.count)
    var (expired, purged, overtaken, readLate, cancelled) = (0, 0, 0, 0, 0)
    var (readTooLate, unnoticed) = (0, 0)
    for seed in Self.seeds {
      let history = GoodHistory(seed: seed, steps: 400)
      expired += history.expired
      purged += history.purged
      overtaken += history.overtaken
      readLate += history.readLate
      cancelled += history.cancelled
      readTooLate += history.readTooLate
      unnoticed += history.unnoticed
      let verdict = try history.story.verdict()
      #expect(verdict.validity == .valid, repeated(seed))
      #expect(verdict.violated == [], repeated(seed))
      #expect(verdict.counts.persisted == 1, repeated(seed))
      for cause in RedeliveryCause.allCases { redelivered[cause.rawValue] += verdict.counts[cause] }
    }
    // The histories show what they are meant to show. An unknown ack is one whose lease runs out.
    for cause in [RedeliveryCause.nack, .release, .consumerDied, .leaseOverran]
    where Self.seeds.count > 5 {
      #expect(redelivered[cause.rawValue] > 0, "no redelivery by \(cause.name)")
    }
    if Self.seeds.count > 5 {
      #expect(expired > 0 && purged > 0 && overtaken > 0 && readLate > 0 && cancelled > 0)
      #expect(readTooLate > 0 && unnoticed > 0)
    }
  }

  @Test(arguments: PlantedFault.allCases)
  func exactlyThePlantedFaultIsFound(_ fault: PlantedFault) throws {
    var planted = 0
    for seed in Self.seeds {
      var story = GoodHistory(seed: seed, steps: 700).story
      var random = SeededRandom(seed: seed)
      guard let value = fault.plant(in: &story, &random) else { continue }
      planted += 1
      let verdict = try story.verdict()
      #expect(verdict.violated == [fault.kind], repeated(seed))
      let violation = verdict.violations.first { $0.kind.name == fault.kind }
      // Messages that are swapped may let others be overtaken, and a purge takes others too.
      if fault == .outOfOrder || fault == .outOfOrderUndated { continue }
      if fault == .deliveredAfterPurge {
        let ids = try #require(violation?.ids)
        // Twenty are named.
        #expect(ids.contains(value) || ids.count == 20, repeated(seed))
      } else {
        #expect(violation?.ids == [value], repeated(seed))
      }
    }
    // For one of them two messages are needed, and that nobody leaves while both are there.
    let least = fault == .overtakenWhenReturned ? 4 : 2
    #expect(planted * least > Self.seeds.count, "the histories have no place for the fault")
  }
}

enum PlantedFault: String, CaseIterable {
  case lost, resurrected, unexpected, early, attempts
  case heldTwice = "held-twice"
  case failoverDuplicate = "failover-duplicate"
  case tokenRegress = "token-regress"
  case staleAccepted = "stale-accepted"
  case outOfOrder = "out-of-order"
  case deadLetterDoubled = "dead-letter-doubled"
  case confirmedTwice = "confirmed-twice"
  case leaseCut = "lease-cut"
  // Other ways to break the same.
  case lostBehindDrain, lostReject, ackedDeadLetter, deliveredAfterCancel, deliveredAfterPurge
  case readLateGrantedLater, readLateHeld, attemptStays, earlyAfterOverrun, strangerAccepted
  case lostRejectRedrivenLater, lostAfterUnknownAck, cancelledAndAcked, overtakenWhenReturned
  // With an end of a session that is recorded behind all, and explains nothing.
  case failoverEndedLater, outOfOrderUndated

  /// The violation that it is.
  var kind: String {
    switch self {
    case .lostBehindDrain, .lostReject, .lostRejectRedrivenLater, .lostAfterUnknownAck: "lost"
    case .ackedDeadLetter, .deliveredAfterCancel, .deliveredAfterPurge, .cancelledAndAcked:
      "resurrected"
    case .readLateGrantedLater: "token-regress"
    case .readLateHeld: "held-twice"
    case .attemptStays: "attempts"
    case .earlyAfterOverrun: "early"
    case .strangerAccepted: "stale-accepted"
    case .failoverEndedLater: "failover-duplicate"
    case .outOfOrderUndated, .overtakenWhenReturned: "out-of-order"
    default: rawValue
    }
  }

  /// Changes `story`; returns the message concerned, nil if the story has none that will do.
  func plant(in story: inout Story, _ random: inout SeededRandom) -> String? {
    let simple = story.simpleMessages
    switch self {
    case .lost:
      guard let value = simple.randomElement(using: &random) else { return nil }
      story.events.removeAll { $0.value == value && $0.f != "publish" }
      return value
    case .resurrected:
      guard let value = simple.randomElement(using: &random) else { return nil }
      let acked = story.place(value, "ok", "ack")
      var again = story.events[story.place(value, "ok", "deliver")]
      again.time = story.events[acked].time
      again["token"] = "\(again.token! + 100_000)"
      again["attempt"] = "2"
      story.events.insert(again, at: acked + 1)
      return value
    case .unexpected:
      guard let value = simple.randomElement(using: &random) else { return nil }
      story.events.removeAll { $0.value == value && $0.f == "publish" }
      return value
    case .early:
      guard let value = simple.randomElement(using: &random) else { return nil }
      let (publish, delivery) = (
        story.place(value, "invoke", "publish"), story.place(value, "ok", "deliver")
      )
      let waited = story.events[delivery].time - story.events[publish].time
      story.events[publish]["delay"] = "\(waited + 1)"
      return value
    case .attempts:
      guard let value = story.nackedOnce.randomElement(using: &random) else { return nil }
      let last = story.places(value, "ok", "deliver").last!
      story.events[last]["attempt"] = "\(GoodHistory.deliveriesMax + 1)"
      return value
    case .heldTwice, .failoverDuplicate:
      let staying = simple.filter { value in
        !story.isDead(story.events[story.place(value, "ok", "deliver")].process)
      }
      guard let value = staying.randomElement(using: &random) else { return nil }
      return story.deliverTwice(value, withLeaderChange: self == .failoverDuplicate)
    case .tokenRegress:
      guard let value = story.nackedOnce.randomElement(using: &random) else { return nil }
      let deliveries = story.places(value, "ok", "deliver")
      let (old, new) = (
        story.events[deliveries[0]]["token"]!, story.events[deliveries[1]]["token"]!
      )
      for place in story.events.indices
      where story.events[place].value == value && story.events[place]["token"] == new {
        story.events[place]["token"] = old
      }
      return value
    case .staleAccepted:
      let departures = story.departures
      let alive = story.nackedOnce.filter { value in
        let deliveries = story.places(value, "ok", "deliver")
        return !departures.contains {
          story.events[$0.upperBound - 1].value == story.events[deliveries[0]].process
            && $0.lowerBound <= deliveries[1]
        }
      }
      guard let value = alive.randomElement(using: &random) else { return nil }
      let deliveries = story.places(value, "ok", "deliver")
      let (first, second) = (story.events[deliveries[0]], story.events[deliveries[1]])
      for (offset, type) in ["invoke", "ok"].enumerated() {
        story.events.insert(
          StoryEvent(
            second.time, first.process, type, "extend", first.queue, value,
            [("token", first["token"]!)]),
          at: deliveries[1] + 1 + offset)
      }
      return value
    case .outOfOrder: return story.swapTwo(among: simple, &random)
    case .deadLetterDoubled:
      let dead = story.events.indices.filter {
        story.events[$0].type == "ok" && story.events[$0].f == "ack"
          && story.events[$0].queue == "d" && !story.mayBeRedriven(story.events[$0].value!)
      }
      guard let acked = dead.randomElement(using: &random) else { return nil }
      let value = story.events[acked].value!
      var again = story.events[
        story.events.firstIndex { $0.value == value && $0.f == "deliver" && $0.queue == "d" }!]
      again.time = story.events[acked].time
      again.process = "again"
      again["id"] = "\"again\""
      again["token"] = "\(again.token! + 100_000)"
      story.events.insert(again, at: acked + 1)
      return value
    case .confirmedTwice:
      guard let value = simple.randomElement(using: &random) else { return nil }
      let confirmed = story.places(value, "ok", "publish").first!
      var (invoke, ok) = (story.events[confirmed], story.events[confirmed])
      invoke.type = "invoke"
      invoke.rest = []
      ok["id"] = "\"again\""
      story.events.insert(contentsOf: [invoke, ok], at: confirmed + 1)
      return value
    default: return plantAnotherWay(in: &story, &random)
    }
  }
}

extension Story {
  func places(_ value: String, _ type: String, _ f: String) -> [Int] {
    events.indices.filter {
      events[$0].value == value && events[$0].type == type && events[$0].f == f
    }
  }

  func place(_ value: String, _ type: String, _ f: String) -> Int { places(value, type, f)[0] }

  /// Messages published once, at once and with success, delivered once and then acked, of queues that
  /// nobody purges.
  var simpleMessages: [String] {
    let lives = Dictionary(grouping: events.filter { $0.value != nil }, by: { $0.value! })
    return lives.filter { $0.value.map { "\($0.type) \($0.f)" } == Self.simpleLife }
      .filter { $0.value[0]["delay"] == nil && $0.value[0].queue != "r" }.keys.sorted()
  }

  private static let simpleLife = [
    "invoke publish", "ok publish", "ok deliver", "invoke ack", "ok ack",
  ]

  /// Messages that were nacked once, then acked, and were no dead letters.
  var nackedOnce: [String] {
    let lives = Dictionary(grouping: events.filter { $0.value != nil }, by: { $0.value! })
    let wanted =
      Self.simpleLife[..<3] + ["invoke nack", "ok nack"] + Self.simpleLife[2...]
    return lives.filter { $0.value.map { "\($0.type) \($0.f)" } == Array(wanted) }
      .filter { $0.value.allSatisfy { $0.queue != "d" } }.keys.sorted()
  }

  /// Lets another process have the message too, at once; that one acks it.
  mutating func deliverTwice(_ value: String, withLeaderChange: Bool) -> String {
    let place = place(value, "ok", "deliver")
    let first = events[place]
    let token = "\(first.token! + 100_000)"
    for place in events.indices where events[place].value == value && events[place].f == "ack" {
      events[place].process = "thief"
      events[place]["token"] = token
    }
    var second = first
    second.process = "thief"
    second["token"] = token
    second["attempt"] = "2"
    events.insert(second, at: place + 1)
    if withLeaderChange {
      events.insert(
        StoryEvent(first.time, "nemesis", "info", "leader-change", nil, "2"), at: place + 1)
    }
    return value
  }

  /// Exchanges two messages that one producer published and one consumer got.
  mutating func swapTwo(among simple: [String], _ random: inout SeededRandom) -> String? {
    let groups = Dictionary(grouping: simple) { value in
      let invoke = events[place(value, "invoke", "publish")]
      let delivery = place(value, "ok", "deliver")
      return "\(invoke.process) \(invoke.queue!) \(events[delivery].process) "
        + "\(invoke["key"] ?? "") \(invoke["priority"] ?? "")"
    }
    let departures = departures
    let published = Dictionary(
      uniqueKeysWithValues: simple.map { ($0, place($0, "invoke", "publish")) })
    let pairs = groups.values.flatMap { group in
      let group = group.sorted { published[$0]! < published[$1]! }
      return zip(group, group.dropFirst()).map { [$0, $1] }
    }.filter { pair in
      // Else it may have been handed back unread.
      let last = pair.map { place($0, "ok", "deliver") }.max() ?? 0
      return !departures.contains { $0.overlaps(published[pair[0]]!..<last) }
    }.sorted { $0[0] < $1[0] }
    guard let pair = pairs.randomElement(using: &random) else { return nil }
    for place in events.indices where events[place].f == "publish" {
      if events[place].value == pair[0] {
        events[place].value = pair[1]
      } else if events[place].value == pair[1] {
        events[place].value = pair[0]
      }
      if events[place].value == pair[0] || events[place].value == pair[1] {
        events[place]["id"] = nil
      }
    }
    return pair[0]
  }
}
