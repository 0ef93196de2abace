// What one consumer holds, by delivery id. Deliveries are appended at the end and mostly settled
// from the front; what is settled in between leaves a gap that is closed when half are gaps. So
// every operation costs what it touches, however far the ids lie apart.

import Base

/// What became of a delivery.
enum HeldState: UInt8 {
  /// It is settled and gone.
  case gap = 0
  /// In the consumer's hands.
  case held = 1
  // The consumer has settled it so, and an entry may not move that much: it leaves with the due work
  // of the next one. Of AMQP sessions only, whose settles nobody sends again.
  case handedBack = 2
  /// Handed back by its node, which never sent it to the client.
  case unseen = 3
  case failed = 4
  case rejected = 5
}

/// A message in a consumer's hands.
struct Held: Hashable, Sendable {
  var delivery: DeliveryID
  /// As it was in the queue.
  var message: Waiting
  var token: FencingToken
  var leaseEnd: MachineTime
  var granted: MachineTime
  /// This delivery is the n-th try.
  var attempt: UInt32
  fileprivate(set) var state = HeldState.held

  /// False for what is settled, whether or not it has left.
  var isHeld: Bool { state == .held }
  /// It is settled and has not left.
  var isLeaving: Bool { state.rawValue > HeldState.held.rawValue }
}

/// Deliveries by ascending id.
struct HeldDeliveries: Sendable {
  /// Ascending ids; gaps before `start` are to be dropped.
  private var entries: [Held] = []
  private var start = 0
  /// Entries that are not gaps.
  private(set) var count = 0
  /// Those of them that are settled already.
  private(set) var leavingCount = 0

  var isEmpty: Bool { count == 0 }
  /// One past the last place.
  var end: Int { entries.count }

  @inline(__always)
  mutating func append(_ held: Held) {
    entries.append(held)
    count += 1
  }

  @inline(__always)
  subscript(place: Int) -> Held {
    _read { yield entries[place] }
    _modify { yield &entries[place] }
  }

  /// The first place whose id is not below `delivery`; a gap is possible. Valid until `tidy`.
  func place(of delivery: DeliveryID) -> Int {
    if start == entries.count { return start }
    // Usually there are no gaps closed up before it, and the distance of the ids is the place.
    let base = entries[start].delivery.rawValue
    if delivery.rawValue <= base { return start }
    let guess = delivery.rawValue - base
    if guess < UInt64(entries.count - start), entries[start + Int(guess)].delivery == delivery {
      return start + Int(guess)
    }
    var low = start
    var high = entries.count
    while low < high {
      let middle = (low + high) / 2
      if entries[middle].delivery < delivery { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// How many of the range are in the consumer's hands.
  func count(in range: DeliveryRange) -> Int {
    var count = 0
    var place = place(of: range.first)
    while place < entries.count, entries[place].delivery <= range.last {
      if entries[place].isHeld { count += 1 }
      place += 1
    }
    return count
  }

  /// How many have to be looked at, about, to see what of the ranges is held: an order that asks for
  /// that counts as so many looks. The same on every replica, however many gaps there are on it.
  func looks(at ranges: EncodedRanges) -> Int {
    var named = 0
    for place in 0..<ranges.count {
      let range = ranges[place]
      named += min(count, Int(clamping: range.last.rawValue - range.first.rawValue)) + 1
    }
    return min(count, named)
  }

  /// Whether every number from the first that is held to the last is.
  var isWithoutGaps: Bool {
    guard start < entries.count else { return true }
    return entries[entries.count - 1].delivery.rawValue - entries[start].delivery.rawValue + 1
      == UInt64(count)
  }

  /// Runs of the range's numbers that are not held. One that goes on behind what was made is two.
  ///
  /// - Parameter next: the number of the next delivery to be made.
  func gaps(in range: DeliveryRange, next: UInt64) -> Int {
    var gaps = 0
    var expected = range.first
    var place = place(of: range.first)
    while place < entries.count, entries[place].delivery <= range.last {
      if entries[place].isHeld {
        if expected < entries[place].delivery { gaps += 1 }
        expected = entries[place].delivery.next
      }
      place += 1
    }
    guard expected <= range.last else { return gaps }
    if expected.rawValue < next { gaps += 1 }
    if range.last.rawValue >= next { gaps += 1 }
    return gaps
  }

  /// Makes the entry at `place` a gap.
  @inline(__always)
  mutating func remove(at place: Int) {
    if entries[place].isLeaving { leavingCount -= 1 }
    entries[place].state = .gap
    count -= 1
  }

  /// Settles the entry at `place`, which is held and stays until there is room for its leaving.
  mutating func settle(at place: Int, as state: HeldState) {
    entries[place].state = state
    invariant(entries[place].isLeaving, "delivery settled as \(state)")
    leavingCount += 1
  }

  /// Closes gaps where they are many; places found before are not valid any more.
  mutating func tidy() {
    if count == 0 {
      entries.removeAll(keepingCapacity: entries.capacity <= 1_024)
      start = 0
      return
    }
    while entries[start].state == .gap { start += 1 }
    let room = entries.count - start
    if count * 2 < room {
      entries.removeAll { $0.state == .gap }
      start = 0
    } else if start >= 32, start * 2 > entries.count {
      entries.removeSubrange(..<start)
      start = 0
    }
  }

  /// Everything that has not left, by ascending id.
  func forEach(_ body: (Held) -> Void) {
    for place in start..<entries.count where entries[place].state != .gap { body(entries[place]) }
  }

  var all: [Held] {
    var all: [Held] = []
    all.reserveCapacity(count)
    forEach { all.append($0) }
    return all
  }

  mutating func removeAll() { self = HeldDeliveries() }
}
