// What will happen when: a binary heap over simulated time. Events of the same instant come in the
// order in which they were scheduled, so that a seed always tells the same story.

/// Events by time, then by the order of scheduling.
struct EventQueue<Event> {
  private struct Item {
    var time: UInt64
    var order: UInt64
    var event: Event
  }

  private var heap: [Item] = []
  private var nextOrder: UInt64 = 0

  mutating func schedule(_ event: Event, at time: UInt64) {
    heap.append(Item(time: time, order: nextOrder, event: event))
    nextOrder += 1
    var place = heap.count - 1
    while place > 0 {
      let parent = (place - 1) / 2
      guard isBefore(place, parent) else { break }
      heap.swapAt(place, parent)
      place = parent
    }
  }

  mutating func next() -> (time: UInt64, event: Event)? {
    guard let first = heap.first, let last = heap.popLast() else { return nil }
    if heap.isEmpty { return (first.time, first.event) }
    heap[0] = last
    sink()
    return (first.time, first.event)
  }

  /// Moves the first to its place.
  private mutating func sink() {
    var place = 0
    while true {
      let (left, right) = (2 * place + 1, 2 * place + 2)
      guard left < heap.count else { return }
      let child = right < heap.count && isBefore(right, left) ? right : left
      guard isBefore(child, place) else { return }
      heap.swapAt(place, child)
      place = child
    }
  }

  private func isBefore(_ left: Int, _ right: Int) -> Bool {
    (heap[left].time, heap[left].order) < (heap[right].time, heap[right].order)
  }
}
