// A table of structs with small numbers as handles, so that the hot path reaches them by an array
// index. Which number something has is a matter of one process: it never reaches state that is
// compared, effects, or bytes.

import Base

struct SlotTable<Element> {
  private var items: [Element] = []
  private var isTaken: [Bool] = []
  private var free: [Int] = []
  /// What a free slot holds.
  private let vacant: Element

  init(vacant: Element) { self.vacant = vacant }

  var count: Int { items.count - free.count }
  /// The taken slots.
  var slots: [Int] { items.indices.filter { isTaken[$0] } }

  @inline(__always)
  subscript(slot: Int) -> Element {
    _read { yield items[slot] }
    _modify { yield &items[slot] }
  }

  mutating func insert(_ element: Element) -> Int {
    if let slot = free.popLast() {
      items[slot] = element
      isTaken[slot] = true
      return slot
    }
    items.append(element)
    isTaken.append(true)
    return items.count - 1
  }

  mutating func remove(_ slot: Int) {
    invariant(isTaken[slot], "slot \(slot) freed twice")
    items[slot] = vacant
    isTaken[slot] = false
    free.append(slot)
  }
}

extension SlotTable: Sendable where Element: Sendable {}
