// The deliveries of one message by their tokens, which is the order in which they were granted.

/// Deliveries by token, those of the same token as they were read.
struct DeliveryTokens {
  private struct Entry {
    var token: UInt64
    var delivery: EventPosition
  }

  private var entries: [Entry] = []
  /// For each, the largest token up to there, as they were read.
  private var largest: [UInt64] = []
  private var read: [EventPosition] = []

  /// - Parameter deliveries: as they were read.
  mutating func gather(_ deliveries: [EventPosition], in events: [Event]) {
    entries.removeAll(keepingCapacity: true)
    largest.removeAll(keepingCapacity: true)
    read.removeAll(keepingCapacity: true)
    var isAscending = true
    for delivery in deliveries {
      let token = events[Int(delivery)].token
      if let last = largest.last, token < last { isAscending = false }
      entries.append(Entry(token: token, delivery: delivery))
      largest.append(max(largest.last ?? 0, token))
      read.append(delivery)
    }
    if !isAscending {
      entries.sort { ($0.token, $0.delivery) < ($1.token, $1.delivery) }
    }
  }

  /// The first that was read with a larger token.
  func firstRead(above token: UInt64) -> EventPosition? {
    let place = firstPlace(of: largest) { $0 > token }
    return place < read.count ? read[place] : nil
  }

  /// The first that was read with this token.
  func first(of token: UInt64) -> EventPosition? {
    let place = firstPlace(of: entries) { $0.token >= token }
    return place < entries.count && entries[place].token == token ? entries[place].delivery : nil
  }

  /// The one with the next larger token.
  func next(after token: UInt64) -> EventPosition? {
    let place = firstPlace(of: entries) { $0.token > token }
    return place < entries.count ? entries[place].delivery : nil
  }

  /// The one with the next smaller token.
  func next(before token: UInt64) -> EventPosition? {
    let place = firstPlace(of: entries) { $0.token >= token }
    return place > 0 ? first(of: entries[place - 1].token) : nil
  }

  /// By token.
  var all: some Sequence<EventPosition> { entries.lazy.map(\.delivery) }
  var oldest: EventPosition? { entries.first?.delivery }

  /// How many have smaller tokens.
  func rank(of token: UInt64) -> Int { firstPlace(of: entries) { $0.token >= token } }
  var count: Int { entries.count }
}
