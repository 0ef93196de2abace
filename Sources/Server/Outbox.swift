// The deliveries of one session that are decided but not yet written to its connection: numbers
// and references only, the records come from the log when there is room to write them.

import Base
import QueueMachine

struct Outbox {
  struct Item {
    var consumer: ConsumerID
    var delivery: Delivery
  }

  /// In the order decided, which keeps each consumer's order.
  private var items = RingBuffer<Item>()

  var count: Int { items.count }
  var isEmpty: Bool { items.isEmpty }
  var first: Item? { items.first }

  var countsByConsumer: [ConsumerID: Int] {
    var counts: [ConsumerID: Int] = [:]
    for place in 0..<items.count { counts[items[place].consumer, default: 0] += 1 }
    return counts
  }

  mutating func append(_ deliveries: ArraySlice<Delivery>, to consumer: ConsumerID) {
    for delivery in deliveries { items.append(Item(consumer: consumer, delivery: delivery)) }
  }

  mutating func removeFirst() {
    _ = items.popFirst()
  }

  mutating func removeAll() {
    items.removeAll()
  }

  /// Takes out what waits for a consumer.
  mutating func take(of consumer: ConsumerID) -> [Delivery] {
    var taken: [Delivery] = []
    removeAll { item in
      if item.consumer == consumer { taken.append(item.delivery) }
      return item.consumer == consumer
    }
    return taken
  }

  func count(of consumer: ConsumerID) -> Int {
    (0..<items.count).count { items[$0].consumer == consumer }
  }

  /// Drops what a consumer that is gone no longer waits for.
  mutating func remove(of consumer: ConsumerID) {
    removeAll { $0.consumer == consumer }
  }

  /// Drops deliveries whose leases ran out before they were sent.
  mutating func remove(of consumer: ConsumerID, in ranges: ArraySlice<DeliveryRange>) {
    removeAll { item in
      item.consumer == consumer
        && ranges.contains {
          $0.first <= item.delivery.delivery && item.delivery.delivery <= $0.last
        }
    }
  }

  private mutating func removeAll(where isGone: (Item) -> Bool) {
    guard !items.isEmpty else { return }
    for _ in 0..<items.count {
      guard let item = items.popFirst() else { return }
      if !isGone(item) { items.append(item) }
    }
  }
}
