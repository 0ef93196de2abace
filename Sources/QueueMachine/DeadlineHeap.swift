// What falls due next: a heap by time, then key, with one entry per key. The order of equal times
// is by key, so that it does not depend on how the heap came about.

import Base

struct DeadlineHeap: Sendable {
  struct Entry: Hashable, Sendable {
    var time: MachineTime
    /// Not 0.
    var key: UInt64

    static func < (left: Entry, right: Entry) -> Bool {
      left.time == right.time ? left.key < right.key : left.time < right.time
    }
  }

  private var entries: [Entry] = []
  /// Where each key's entry is.
  private var places = IntegerMap<Int>()

  var first: Entry? { entries.first }
  var count: Int { entries.count }

  func time(of key: UInt64) -> MachineTime? { places[key].map { entries[$0].time } }

  /// Sets the time of `key`, which may have one already.
  mutating func set(_ key: UInt64, to time: MachineTime) {
    if let place = places[key] {
      entries[place].time = time
      siftDown(siftUp(place))
    } else {
      entries.append(Entry(time: time, key: key))
      places.insert(entries.count - 1, for: key)
      _ = siftUp(entries.count - 1)
    }
  }

  mutating func remove(_ key: UInt64) {
    guard let place = places.remove(key), let last = entries.popLast() else { return }
    if place == entries.count { return }
    entries[place] = last
    places.insert(place, for: last.key)
    siftDown(siftUp(place))
  }

  private mutating func siftUp(_ start: Int) -> Int {
    var child = start
    while child > 0 {
      let parent = (child - 1) / 2
      if !(entries[child] < entries[parent]) { break }
      exchange(parent, child)
      child = parent
    }
    return child
  }

  private mutating func siftDown(_ start: Int) {
    var parent = start
    while true {
      var child = 2 * parent + 1
      if child >= entries.count { return }
      if child + 1 < entries.count, entries[child + 1] < entries[child] { child += 1 }
      if !(entries[child] < entries[parent]) { return }
      exchange(parent, child)
      parent = child
    }
  }

  private mutating func exchange(_ left: Int, _ right: Int) {
    entries.swapAt(left, right)
    places.insert(left, for: entries[left].key)
    places.insert(right, for: entries[right].key)
  }

  /// Stops the process if the order or the places are wrong.
  func checkOrder() {
    invariant(entries.count == places.count, "\(entries.count) entries, \(places.count) places")
    for (place, entry) in entries.enumerated() {
      invariant(places[entry.key] == place, "deadline of \(entry.key) misplaced")
      if place > 0 {
        invariant(!(entry < entries[(place - 1) / 2]), "deadlines out of order at \(place)")
      }
    }
  }
}
