// A first-in, first-out queue in one power-of-two array, for the hot path: push and pop are a few
// instructions and allocate nothing once it has grown.

/// A ring of elements. Index 0 is the oldest.
@frozen @usableFromInline package struct RingBuffer<Element> {
  @usableFromInline var storage: [Element?]
  @usableFromInline var head: Int
  /// 0 <= count <= storage.count.
  @usableFromInline package private(set) var count: Int

  @inlinable package init() {
    storage = []
    head = 0
    count = 0
  }

  @inlinable package var isEmpty: Bool { count == 0 }

  @inlinable package var first: Element? { count == 0 ? nil : storage[head] }
  @inlinable package var last: Element? { count == 0 ? nil : self[count - 1] }

  @inlinable package subscript(position: Int) -> Element {
    get {
      invariant(position >= 0 && position < count, "ring position \(position) of \(count)")
      return storage[(head &+ position) & (storage.count &- 1)]!
    }
    _modify {
      invariant(position >= 0 && position < count, "ring position \(position) of \(count)")
      let slot = (head &+ position) & (storage.count &- 1)
      yield &storage[slot]!
    }
  }

  @inlinable package mutating func append(_ element: consuming Element) {
    if count == storage.count { grow() }
    storage[(head &+ count) & (storage.count &- 1)] = element
    count &+= 1
  }

  @inlinable package mutating func popFirst() -> Element? {
    guard count > 0 else { return nil }
    let element = storage[head].take()
    head = (head &+ 1) & (storage.count &- 1)
    count &-= 1
    return element
  }

  @inlinable package mutating func popLast() -> Element? {
    guard count > 0 else { return nil }
    count &-= 1
    let slot = (head &+ count) & (storage.count &- 1)
    return storage[slot].take()
  }

  @inlinable package mutating func removeAll() {
    storage = []
    head = 0
    count = 0
  }

  @inlinable mutating func grow() {
    let size = Swift.max(8, storage.count * 2)
    var larger: [Element?] = []
    larger.reserveCapacity(size)
    for position in 0..<count {
      larger.append(storage[(head &+ position) & (storage.count &- 1)].take())
    }
    while larger.count < size { larger.append(nil) }
    storage = larger
    head = 0
  }
}

extension RingBuffer: Sendable where Element: Sendable {}
