// The order in which a queue's consumers are next: a doubly linked list in one array, so that one
// can leave from anywhere at the same cost. With a thousand consumers on one queue a change of
// leader takes all of them out, one by one.

import Base

/// The rotations of a queue: the consumers of a higher priority go before all of a lower one.
struct Rotations: Sendable {
  /// Of priority 0, which is all of most queues.
  private(set) var usual = Rotation()
  /// Of the other priorities that somebody has, the highest first.
  private(set) var others: [(priority: Int16, rotation: Rotation)] = []

  var isEmpty: Bool { usual.isEmpty && others.isEmpty }
  var count: Int { others.reduce(usual.count) { $0 + $1.rotation.count } }

  /// Those that have a consumer in rotation, the highest first.
  var priorities: [Int16] {
    var priorities = others.map(\.priority)
    let place = priorities.firstIndex { $0 < 0 } ?? priorities.count
    if !usual.isEmpty { priorities.insert(0, at: place) }
    return priorities
  }

  func count(of priority: Int16) -> Int {
    if priority == 0 { return usual.count }
    return others.first { $0.priority == priority }?.rotation.count ?? 0
  }

  /// Adds the consumer at the end of its priority; returns its place there, by which it can leave.
  mutating func append(_ consumer: Int, _ priority: Int16) -> Int {
    if priority == 0 { return usual.append(consumer) }
    let at = others.firstIndex { $0.priority <= priority } ?? others.count
    if at == others.count || others[at].priority != priority {
      others.insert((priority, Rotation()), at: at)
    }
    return others[at].rotation.append(consumer)
  }

  mutating func remove(at place: Int, _ priority: Int16) {
    if priority == 0 { return usual.remove(at: place) }
    guard let at = others.firstIndex(where: { $0.priority == priority }) else {
      stopForBug("no consumer of priority \(priority) in rotation")
    }
    others[at].rotation.remove(at: place)
    if others[at].rotation.isEmpty { others.remove(at: at) }
  }

  mutating func popFirst(of priority: Int16) -> Int? {
    if priority == 0 { return usual.popFirst() }
    guard let at = others.firstIndex(where: { $0.priority == priority }) else { return nil }
    let first = others[at].rotation.popFirst()
    if others[at].rotation.isEmpty { others.remove(at: at) }
    return first
  }

  /// The consumers' slots, next first.
  var consumers: [Int] {
    priorities.flatMap { priority in
      priority == 0
        ? usual.consumers
        : others.first { $0.priority == priority }?.rotation.consumers ?? []
    }
  }
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
