// The order in which a queue's consumers are next: a doubly linked list in one array, so that one
// can leave from anywhere at the same cost. With a thousand consumers on one queue a change of
// leader takes all of them out, one by one.

import Base

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
