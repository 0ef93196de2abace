// How the consumers of an AMQP connection share what its session may hold. Programs open hundreds of them
// without a prefetch, each of which would take whatever there is.

import QueueMachine

/// Finds the largest power of two that all consumers together may have as credit, those that want less as
/// much as they want.
struct CreditShares {
  /// A share is 2^level.
  private(set) var level = CreditShares.levelMax
  /// What all would have together at each level.
  private var totals = [Int](repeating: 0, count: CreditShares.levelMax + 1)

  private static let levelMax = 16
  /// The rest is for what basic.get takes, and for those that hold more than their share from before.
  static let budget = MachineLimits().creditPerSession / 4 * 3

  /// The most that one may have.
  var share: Int { 1 << level }

  mutating func add(_ wanted: Int) { count(wanted, 1) }
  mutating func remove(_ wanted: Int) { count(wanted, -1) }

  private mutating func count(_ wanted: Int, _ sign: Int) {
    for level in totals.indices { totals[level] += sign * min(wanted, 1 << level) }
  }

  /// Lowers the share as soon as all have too much together, and raises it when there is room to spare: so
  /// who opens and cancels a consumer in turns does not change all others each time.
  ///
  /// - Returns: whether it is another one.
  mutating func settle() -> Bool {
    let before = level
    while level > 0, totals[level] > Self.budget { level -= 1 }
    while level < Self.levelMax, totals[level + 1] <= Self.budget / 4 * 3 { level += 1 }
    return level != before
  }
}
