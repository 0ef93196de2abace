// The simulator's dice. One generator decides everything, in the order in which things happen, so a
// seed is a whole story.

import Base

/// Draws from one seeded generator.
struct Chance {
  private var random: SeededRandom
  /// How often it was asked.
  private(set) var draws: UInt64 = 0

  init(seed: UInt64) { random = SeededRandom(seed: seed) }

  mutating func next() -> UInt64 {
    draws += 1
    return random.next()
  }

  /// 0 ..< bound; 0 for a bound of 0.
  mutating func below(_ bound: Int) -> Int {
    bound <= 0 ? 0 : Int(next() % UInt64(bound))
  }

  mutating func within(_ range: ClosedRange<UInt64>) -> UInt64 {
    let width = range.upperBound - range.lowerBound
    return width == .max ? next() : range.lowerBound + next() % (width + 1)
  }

  mutating func within(_ range: ClosedRange<Int>) -> Int {
    range.lowerBound + below(range.upperBound - range.lowerBound + 1)
  }

  mutating func permille(_ share: Int) -> Bool { below(1000) < share }

  mutating func flip() -> Bool { next() & 1 == 0 }

  mutating func pick<Element>(_ elements: [Element]) -> Element? {
    elements.isEmpty ? nil : elements[below(elements.count)]
  }

  /// Mostly near the low end, sometimes far out: as delays and sizes are.
  mutating func skewed(_ range: ClosedRange<UInt64>) -> UInt64 {
    var low = range.lowerBound
    var high = max(low, low + (range.upperBound - low) / 64)
    while high < range.upperBound, permille(250) {
      low = high
      high = min(range.upperBound, range.lowerBound + (high - range.lowerBound + 1) * 4)
    }
    return within(low...high)
  }
}

extension UInt64 {
  static func milliseconds(_ count: UInt64) -> UInt64 { count * 1_000_000 }
  static func seconds(_ count: UInt64) -> UInt64 { count * 1_000_000_000 }
}
