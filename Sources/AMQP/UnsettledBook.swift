// What a channel has delivered and its client has not yet settled, by delivery tag.
//
// Tags only grow, so the book is a ring in their order: a tag is found where it would be if nothing
// before it had been settled, else by bisection. What is settled out of order stays as a hole until
// it is the oldest, or until holes are the larger part: one message held for ever costs a constant.

import Base

/// One delivery that can be settled.
struct Unsettled: Hashable, Sendable {
  var tag: UInt64
  var consumer: ConsumerID
  var delivery: DeliveryID
}

struct UnsettledBook {
  private struct Entry {
    var unsettled: Unsettled
    var isHole: Bool
  }

  private var entries = RingBuffer<Entry>()
  /// Entries that are no holes.
  private(set) var count = 0
  /// With holes.
  var length: Int { entries.count }

  /// Holes that are kept whatever the book's size.
  private static let holesKept = 64

  /// - Parameter unsettled: its tag is above all that were appended before.
  mutating func append(_ unsettled: Unsettled) {
    entries.append(Entry(unsettled: unsettled, isHole: false))
    count += 1
  }

  /// Takes out the delivery of that tag; nil if there is none.
  mutating func take(_ tag: UInt64) -> Unsettled? {
    guard let place = place(of: tag) else { return nil }
    let taken = entries[place].unsettled
    entries[place].isHole = true
    count -= 1
    tidy()
    return taken
  }

  /// In the order of their tags.
  func forEach(_ body: (Unsettled) -> Void) {
    for place in 0..<entries.count where !entries[place].isHole { body(entries[place].unsettled) }
  }

  /// Takes out all up to that tag, which must be there itself, in order; false and nothing if it is
  /// not.
  mutating func takeAll(through tag: UInt64, _ body: (Unsettled) -> Void) -> Bool {
    guard place(of: tag) != nil else { return false }
    while let first = entries.first, first.unsettled.tag <= tag { takeFirst(body) }
    tidy()
    return true
  }

  /// Takes out everything, in order.
  mutating func takeAll(_ body: (Unsettled) -> Void) {
    while !entries.isEmpty { takeFirst(body) }
    entries.removeAll()
  }

  private mutating func takeFirst(_ body: (Unsettled) -> Void) {
    guard let entry = entries.popFirst(), !entry.isHole else { return }
    count -= 1
    body(entry.unsettled)
  }

  /// Puts back what was taken, in its place (tx.rollback). Not for the hot path.
  mutating func putBack(_ returned: [Unsettled]) {
    var all = returned
    takeAll { all.append($0) }
    all.sort { $0.tag < $1.tag }
    for unsettled in all { append(unsettled) }
  }

  private func place(of tag: UInt64) -> Int? {
    guard let first = entries.first?.unsettled.tag, tag >= first else { return nil }
    // Nothing is further from the front than its tag says.
    var high = Int(clamping: min(tag - first, UInt64(entries.count - 1)))
    var low = 0
    if entries[high].unsettled.tag == tag { low = high }
    while low < high {
      let middle = (low + high) / 2
      if entries[middle].unsettled.tag < tag { low = middle + 1 } else { high = middle }
    }
    let entry = entries[low]
    return entry.unsettled.tag == tag && !entry.isHole ? low : nil
  }

  private mutating func tidy() {
    while let first = entries.first, first.isHole { _ = entries.popFirst() }
    guard entries.count > 2 * count + Self.holesKept else { return }
    var kept = RingBuffer<Entry>()
    for place in 0..<entries.count where !entries[place].isHole { kept.append(entries[place]) }
    entries = kept
  }
}
