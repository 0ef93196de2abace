// The order in which a queue's consumers are next: a doubly linked list in one array, so that one
// can leave from anywhere at the same cost. With a thousand consumers on one queue a change of
// leader takes all of them out, one by one.

import Base

/// The rotations of a queue: the consumers of a higher priority go before all of a lower one. What
/// is done with one of them costs no more than the logarithm of how many priorities there are.
struct Rotations: Sendable {
  /// Of priority 0, which is all of most queues.
  private var usual = Rotation()
  /// Of the other priorities that somebody has.
  private var others: [Int16: Rotation] = [:]
  /// These priorities.
  private var levels = IndexedHeap<PriorityLevel>()
  private(set) var count = 0

  var isEmpty: Bool { count == 0 }
  /// Whether there is somebody of another priority than the usual.
  var hasPriorities: Bool { !levels.isEmpty }

  /// The highest that has a consumer in rotation.
  var highest: Int16? {
    if let first = levels.first, first.priority > 0 || usual.isEmpty { return first.priority }
    return usual.isEmpty ? nil : 0
  }

  func count(of priority: Int16) -> Int {
    priority == 0 ? usual.count : others[priority]?.count ?? 0
  }

  /// Adds the consumer at the end of its priority; returns its place there, by which it can leave.
  mutating func append(_ consumer: Int, _ priority: Int16) -> Int {
    count += 1
    if priority == 0 { return usual.append(consumer) }
    let level = PriorityLevel(priority: priority)
    if levels[level.key] == nil { levels.set(level) }
    return others[priority, default: Rotation()].append(consumer)
  }

  mutating func remove(at place: Int, _ priority: Int16) {
    count -= 1
    if priority == 0 { return usual.remove(at: place) }
    invariant(others[priority] != nil, "no consumer of priority \(priority) in rotation")
    others[priority]?.remove(at: place)
    dropIfEmpty(priority)
  }

  mutating func popFirst(of priority: Int16) -> Int? {
    guard let first = priority == 0 ? usual.popFirst() : others[priority]?.popFirst() else {
      return nil
    }
    count -= 1
    if priority != 0 { dropIfEmpty(priority) }
    return first
  }

  private mutating func dropIfEmpty(_ priority: Int16) {
    guard others[priority]?.isEmpty == true else { return }
    others[priority] = nil
    levels.remove(PriorityLevel(priority: priority).key)
  }

  /// The consumers' slots, next first.
  var consumers: [Int] {
    if levels.isEmpty { return usual.consumers }
    let sorted = levels.entries.map(\.priority).sorted(by: >)
    let higher = sorted.prefix { $0 > 0 }.flatMap { others[$0]?.consumers ?? [] }
    let lower = sorted.drop { $0 > 0 }.flatMap { others[$0]?.consumers ?? [] }
    return higher + usual.consumers + lower
  }
}

/// A priority other than the usual that somebody has, the highest first.
private struct PriorityLevel: HeapEntry {
  /// Not 0.
  var priority: Int16

  var key: UInt64 { UInt64(UInt16(bitPattern: priority)) }

  func precedes(_ other: PriorityLevel) -> Bool { priority > other.priority }
}

/// A consumer that waits to become the active one of its queue.
struct ActiveCandidate: HeapEntry {
  /// The consumer's serial.
  var key: UInt64
  var priority: Int16

  func precedes(_ other: ActiveCandidate) -> Bool {
    priority == other.priority ? key < other.key : priority > other.priority
  }
}

/// Consumers of one priority.
struct Rotation: Sendable {
  private struct Link: Sendable {
    /// The consumer's slot.
    var consumer: Int
    var previous: Int
    /// Of a free link, the next free one.
    var next: Int
  }

  /// Stands for no link.
  static let none = -1

  private var links: [Link] = []
  private var firstFree = Rotation.none
  private var head = Rotation.none
  private var tail = Rotation.none
  private(set) var count = 0

  var isEmpty: Bool { count == 0 }

  /// Adds the consumer at the end; returns its place, by which it can leave.
  mutating func append(_ consumer: Int) -> Int {
    let link = Link(consumer: consumer, previous: tail, next: Self.none)
    let place: Int
    if firstFree == Self.none {
      place = links.count
      links.append(link)
    } else {
      place = firstFree
      firstFree = links[place].next
      links[place] = link
    }
    if tail == Self.none { head = place } else { links[tail].next = place }
    tail = place
    count += 1
    return place
  }

  /// Takes out the consumer at `place`; the others keep their order.
  mutating func remove(at place: Int) {
    let link = links[place]
    if link.previous == Self.none {
      head = link.next
    } else {
      links[link.previous].next = link.next
    }
    if link.next == Self.none {
      tail = link.previous
    } else {
      links[link.next].previous = link.previous
    }
    count -= 1
    links[place].next = firstFree
    firstFree = place
  }

  mutating func popFirst() -> Int? {
    if head == Self.none { return nil }
    let consumer = links[head].consumer
    remove(at: head)
    return consumer
  }

  /// The consumers' slots, next first.
  var consumers: [Int] {
    var consumers: [Int] = []
    consumers.reserveCapacity(count)
    var place = head
    while place != Self.none {
      consumers.append(links[place].consumer)
      place = links[place].next
    }
    return consumers
  }
}
