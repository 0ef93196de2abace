// Which of a channel's publishes were confirmed, and what of that the client has not heard. Confirms
// that come in order are told as one basic.ack with multiple=true per turn; those that come early
// are told singly, since the ones before them are not confirmed.

import Base

struct ConfirmBook {
  /// All below are confirmed or refused.
  private(set) var next: UInt64 = 1
  /// Ranges above `next` that are settled, ascending and apart from each other.
  private var early: [ClosedRange<UInt64>] = []
  /// The client has heard all below.
  private var told: UInt64 = 1
  /// Single ones to be told, unless one for all before is told as well. Above `next` when they came.
  private var singles: [UInt64] = []

  var hasNews: Bool { told < next || !singles.isEmpty }

  /// - Parameter range: not confirmed or refused before.
  mutating func confirm(_ range: ClosedRange<UInt64>) {
    if range.lowerBound != next { singles.append(contentsOf: range) }
    insert(range)
  }

  /// They were told to be refused already.
  mutating func refuse(_ range: ClosedRange<UInt64>) {
    let hadNews = told < next
    insert(range)
    // If nothing else was to be told up to here, nothing is now: what came early is told singly.
    if !hadNews { told = next }
  }

  private mutating func insert(_ range: ClosedRange<UInt64>) {
    guard range.lowerBound <= next else {
      let place = early.firstIndex { $0.lowerBound > range.lowerBound } ?? early.count
      early.insert(range, at: place)
      return
    }
    next = max(next, range.upperBound + 1)
    while let first = early.first, first.lowerBound <= next {
      next = max(next, first.upperBound + 1)
      early.removeFirst()
    }
  }

  /// Calls `body` for each basic.ack to send, and forgets what was to be told.
  mutating func tell(_ body: (_ tag: UInt64, _ multiple: Bool) -> Void) {
    let covered = told < next ? next : 0
    if told < next {
      body(next - 1, next - told > 1 || singles.contains { $0 < told })
      told = next
    }
    for single in singles where single >= covered { body(single, false) }
    singles.removeAll(keepingCapacity: singles.count <= 1024)
  }
}
