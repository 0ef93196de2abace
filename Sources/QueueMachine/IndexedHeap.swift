// A heap whose entries can be found and removed by a key: deadlines, messages that wait for their
// time, messages that came back. The order of entries that compare equal is by key, so that it does
// not depend on how the heap came about.

import Base

protocol HeapEntry: Sendable {
  /// Not 0, and of one entry only.
  var key: UInt64 { get }
  /// A total order: entries of different keys are never equal.
  func precedes(_ other: Self) -> Bool
}

struct IndexedHeap<Entry: HeapEntry>: Sendable {
  private(set) var entries: [Entry] = []
  /// Where each key's entry is.
  private var places = IntegerMap<Int>()

  var first: Entry? { entries.first }
  var count: Int { entries.count }
  var isEmpty: Bool { entries.isEmpty }

  subscript(key: UInt64) -> Entry? { places[key].map { entries[$0] } }

  /// Adds the entry, in place of one with its key.
  mutating func set(_ entry: Entry) {
    if let place = places[entry.key] {
      entries[place] = entry
      siftDown(siftUp(place))
    } else {
      entries.append(entry)
      places.insert(entries.count - 1, for: entry.key)
      _ = siftUp(entries.count - 1)
    }
  }

  @discardableResult
  mutating func remove(_ key: UInt64) -> Entry? {
    guard let place = places.remove(key), let last = entries.popLast() else { return nil }
    if place == entries.count { return last }
    let removed = entries[place]
    entries[place] = last
    places.insert(place, for: last.key)
    siftDown(siftUp(place))
    return removed
  }

  mutating func popFirst() -> Entry? { entries.first.flatMap { remove($0.key) } }

  /// Children of an entry: with four a path is half as long as with two, and each step of it costs
  /// a look into `places`, which is large.
  private static var fanOut: Int { 4 }

  /// Moves the entry towards the first as far as it belongs; where it is then.
  private mutating func siftUp(_ start: Int) -> Int {
    let entry = entries[start]
    var place = start
    while place > 0 {
      let parent = (place - 1) / Self.fanOut
      if !entry.precedes(entries[parent]) { break }
      put(entries[parent], at: place)
      place = parent
    }
    if place != start { put(entry, at: place) }
    return place
  }

  /// Moves the entry away from the first as far as it belongs.
  private mutating func siftDown(_ start: Int) {
    let entry = entries[start]
    var place = start
    while true {
      let child = Self.fanOut * place + 1
      if child >= entries.count { break }
      var least = child
      for other in child + 1..<max(child + 1, min(child + Self.fanOut, entries.count))
      where entries[other].precedes(entries[least]) { least = other }
      if !entries[least].precedes(entry) { break }
      put(entries[least], at: place)
      place = least
    }
    if place != start { put(entry, at: place) }
  }

  private mutating func put(_ entry: Entry, at place: Int) {
    entries[place] = entry
    places.insert(place, for: entry.key)
  }

  /// Stops the process if the order or the places are wrong.
  func checkOrder() {
    invariant(entries.count == places.count, "\(entries.count) entries, \(places.count) places")
    for (place, entry) in entries.enumerated() {
      invariant(places[entry.key] == place, "entry of \(entry.key) misplaced")
      if place > 0 {
        invariant(
          !entry.precedes(entries[(place - 1) / Self.fanOut]), "heap out of order at \(place)")
      }
    }
  }
}

/// When something of a kind falls due.
struct Deadline: HeapEntry {
  var time: MachineTime
  var key: UInt64

  func precedes(_ other: Deadline) -> Bool {
    time == other.time ? key < other.key : time < other.time
  }
}

/// What falls due next, with one time per key.
typealias DeadlineHeap = IndexedHeap<Deadline>

extension IndexedHeap<Deadline> {
  func time(of key: UInt64) -> MachineTime? { self[key]?.time }

  /// Sets the time of `key`, which may have one already.
  mutating func set(_ key: UInt64, to time: MachineTime) { set(Deadline(time: time, key: key)) }
}

/// A message that waits for its time: for its retry, or as it was published.
struct DelayedMessage: HeapEntry {
  var due: MachineTime
  var message: Waiting

  var key: UInt64 { message.id.rawValue }

  func precedes(_ other: DelayedMessage) -> Bool {
    due == other.due ? message.id < other.message.id : due < other.due
  }
}

/// By id: for messages that go back to their own place.
extension Waiting: HeapEntry {
  var key: UInt64 { id.rawValue }
  func precedes(_ other: Waiting) -> Bool { id < other.id }
}
