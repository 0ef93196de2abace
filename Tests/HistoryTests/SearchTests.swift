// What finds its answer without looking at everything says the same as looking at everything: histories
// drawn from seeds, and many of each.

import Base
import Testing

@testable import History

@Suite struct SearchTests {
  private static let seeds = 1...40 as ClosedRange<UInt64>

  private func intervals(_ random: inout SeededRandom) -> [Interval] {
    (0..<Int.random(in: 0...9, using: &random)).map { _ in
      let begin = UInt32.random(in: 0...20, using: &random)
      let hasEnded = Bool.random(using: &random)
      return Interval(
        begin: begin,
        end: hasEnded ? begin + .random(in: 0...9, using: &random) : Absent.reference)
    }
  }

  @Test(arguments: seeds) func intervalsAreFound(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    let all = intervals(&random)
    let (found, ends, redrives) = (Intervals(all), EarliestEnds(all), Redrives(all))
    for after in 0...30 as ClosedRange<UInt32> {
      let earliest = all.filter { $0.begin > after }.map(\.end).min()
      #expect(ends.first(begunAfter: after) == earliest, "seed \(seed)")
      let unknown = all.count { !$0.hasEnded && $0.begin < after }
      #expect(redrives.unknownCount(before: after) == unknown, "seed \(seed)")
      for before in 0...30 as ClosedRange<UInt32> {
        let between = all.filter { $0.begin < before && $0.end > after }
        let isThere = found.mayHaveHappened(after: after, before: before)
        #expect(isThere == !between.isEmpty, "seed \(seed)")
        let isConfirmed = redrives.isConfirmed(after: after, before: before)
        #expect(isConfirmed == between.contains { $0.hasEnded }, "seed \(seed)")
      }
    }
  }

  @Test(arguments: seeds) func rejectsAreFound(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    var life = MessageLife()
    let all = intervals(&random).filter(\.hasEnded)
    life.rejects = all
    life.arrange()
    for before in 0...40 as ClosedRange<UInt32> {
      let last = all.filter { $0.end < before }.map(\.begin).max()
      #expect(life.lastReject(endedBefore: before)?.begin == last, "seed \(seed)")
    }
  }

  /// Deliveries of one message with few tokens, processes and attempts, in any order.
  private func deliveries(_ random: inout SeededRandom) throws -> [Event] {
    var story = Story()
    for _ in 0..<Int.random(in: 1...12, using: &random) {
      story.events.append(
        StoryEvent(
          0, "c\(Int.random(in: 0...3, using: &random))", "ok", "deliver", "q", "m",
          [
            ("token", "\(Int.random(in: 1...9, using: &random))"),
            ("attempt", "\(Int.random(in: 1...4, using: &random))"),
            ("granted", "\(Int.random(in: 1...30, using: &random))"),
          ]))
    }
    return try History.parse(story.bytes).events
  }

  @Test(arguments: seeds) func tokensAreFound(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let events = try deliveries(&random)
    let places = events.indices.map { UInt32($0) }
    var tokens = DeliveryTokens()
    tokens.gather(places, in: events)
    func first(_ token: UInt64?) -> UInt32? {
      token.flatMap { token in places.first { events[Int($0)].token == token } }
    }
    let all = events.map(\.token)
    #expect(tokens.oldest == first(all.min()), "seed \(seed)")
    for token in 0...10 as ClosedRange<UInt64> {
      #expect(tokens.first(of: token) == first(token), "seed \(seed)")
      let above = places.first { events[Int($0)].token > token }
      #expect(tokens.firstRead(above: token) == above, "seed \(seed)")
      #expect(tokens.next(after: token) == first(all.filter { $0 > token }.min()), "seed \(seed)")
      #expect(tokens.next(before: token) == first(all.filter { $0 < token }.max()), "seed \(seed)")
    }
  }

  @Test(arguments: seeds) func whatWasReadBeforeIsFound(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let events = try deliveries(&random)
    var tokens = DeliveryTokens()
    tokens.gather(events.indices.map { UInt32($0) }, in: events)
    var before = ReadBefore(tokens)
    for place in events.indices {
      let (event, known) = (events[place], events[..<place])
      let isKnown = known.contains {
        $0.token == event.token || $0.token > event.token && $0.process == event.process
      }
      #expect(before.isKnown(event) == isKnown, "seed \(seed)")
      let newer = known.filter { $0.token > event.token }
      let least = before.least(above: tokens.rank(of: event.token))
      #expect(least.moment == newer.map(\.moment).min() ?? .max, "seed \(seed)")
      #expect(least.level == newer.map(\.level).min() ?? .max, "seed \(seed)")
      before.note(event, rank: tokens.rank(of: event.token))
    }
  }

  /// A hundred are open at once, of few kinds, and are closed in any order of these.
  @Test(arguments: seeds) func theOldestOfManyOpenInvokesIsFound(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    var story = Story()
    var open: [(place: Int, event: StoryEvent)] = []
    var partners: [Int: Int] = [:]
    for _ in 0..<300 {
      if open.count < 100, Int.random(in: 0..<5, using: &random) > 0 || open.isEmpty {
        let event = StoryEvent(
          0, "p\(Int.random(in: 0...9, using: &random))", "invoke",
          ["ack", "nack", "extend"].randomElement(using: &random)!, "q", "m",
          [("token", "\(Int.random(in: 1...9, using: &random))")])
        open.append((story.events.count, event))
        story.events.append(event)
        continue
      }
      var event = open.randomElement(using: &random)!.event
      let oldest = open.firstIndex {
        $0.event.process == event.process && $0.event.f == event.f && $0.event.token == event.token
      }!
      event.type = "ok"
      partners[story.events.count] = open.remove(at: oldest).place
      story.events.append(event)
    }
    let history = try History.parse(story.bytes)
    #expect(open.count > 40, "there are not many open ones")
    for (completion, invoke) in partners {
      #expect(history.events[completion].partner == UInt32(invoke), "seed \(seed)")
      #expect(history.events[invoke].partner == UInt32(completion), "seed \(seed)")
    }
    for (place, _) in open {
      #expect(history.events[place].partner == Absent.reference, "seed \(seed)")
    }
  }

  /// What names no token is about what its process got last, whoever got some after it.
  @Test func withoutATokenItIsAboutTheLastDelivery() throws {
    let verdict = try Story(
      """
      0 p invoke publish q m
      1 p ok publish q m
      2 c ok deliver q m token=1 attempt=1 lease=5
      3 c invoke nack q m
      4 c ok nack q m
      5 e ok deliver q m token=2 attempt=2 lease=5
      6 e invoke nack q m
      7 e ok nack q m
      8 c ok deliver q m token=3 attempt=3 lease=5
      9 c invoke ack q m
      9 c ok ack q m
      10 a invoke drain q -
      11 a ok drain q -
      """
    ).verdict()
    #expect(verdict.validity == .valid)
    #expect(verdict.counts[.nack] == 2)
  }
}
