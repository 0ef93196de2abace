// What was read of a message before one of its deliveries: whether this one was read late is a question
// about all those with larger tokens, which there may be many of.

/// The least of what deliveries with larger tokens say, in a Fenwick tree over the tokens.
struct ReadBefore {
  /// The largest token comes first. Of each place, the least of those up to it that it stands for.
  private var moments: [UInt64]
  private var levels: [UInt32]
  private var tokens: Set<UInt64> = []
  private var newest: [UInt32: UInt64] = [:]
  /// How many deliveries are noted.
  private(set) var count = 0

  init(_ tokens: DeliveryTokens) {
    moments = [UInt64](repeating: .max, count: tokens.count + 1)
    levels = [UInt32](repeating: .max, count: tokens.count + 1)
  }

  mutating func note(_ event: Event, rank: Int) {
    count += 1
    tokens.insert(event.token)
    newest[event.process] = max(newest[event.process] ?? 0, event.token)
    // Which attempt it is nobody knows: it may be any.
    let level = event.level == Absent.reference ? 0 : event.level
    var place = moments.count - 1 - rank
    while place < moments.count {
      moments[place] = min(moments[place], event.moment)
      levels[place] = min(levels[place], level)
      place += place & -place
    }
  }

  /// Whether its process, or anybody with the very token, had read so much already.
  func isKnown(_ event: Event) -> Bool {
    tokens.contains(event.token) || newest[event.process].map { $0 >= event.token } ?? false
  }

  /// Of those with larger tokens, the earliest grant and the smallest attempt.
  func least(above rank: Int) -> (moment: UInt64, level: UInt32) {
    var least = (moment: UInt64.max, level: UInt32.max)
    var place = moments.count - 2 - rank
    while place > 0 {
      least = (min(least.moment, moments[place]), min(least.level, levels[place]))
      place -= place & -place
    }
    return least
  }
}
