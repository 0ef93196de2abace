// The pieces of the log that deliveries read last. Messages of many queues lie side by side in the log, and a
// connection takes those of one queue after the other: a piece is needed again for each of the queues that
// have something in it.

import Base
import LogStore

struct BlockCache {
  private struct Slot {
    var block: PayloadBlock
    /// When it was last used, in uses.
    var lastUse: UInt64

    /// Where it begins.
    var place: (LogIndex, UInt32) { (block.entry, block.offset) }
  }

  /// At most one for each place, by ascending place.
  private var slots: [Slot] = []
  private(set) var bytes = 0
  private var uses: UInt64 = 0

  /// Bytes kept, unless one block alone has more.
  static let bytesMax = 32 << 20
  static let countMax = 1_024

  var count: Int { slots.count }

  /// A block in which all of the record lies.
  mutating func block(containing reference: RecordReference) -> PayloadBlock? {
    // Of blocks that overlap only the one that begins last is looked at.
    let behind = firstSlot(behind: (reference.entry, reference.offset))
    guard behind > 0, slots[behind - 1].block.contains(reference) else { return nil }
    uses += 1
    slots[behind - 1].lastUse = uses
    return slots[behind - 1].block
  }

  /// Keeps a block, and gives up those that were not used for longest where it is too much.
  mutating func insert(_ block: PayloadBlock) {
    uses += 1
    let slot = Slot(block: block, lastUse: uses)
    let behind = firstSlot(behind: slot.place)
    bytes += block.bytes.count
    if behind > 0, slots[behind - 1].place == slot.place {
      bytes -= slots[behind - 1].block.bytes.count
      slots[behind - 1] = slot
    } else {
      slots.insert(slot, at: behind)
    }
    while slots.count > 1, slots.count > Self.countMax || bytes > Self.bytesMax { removeOldest() }
  }

  /// - Returns: how many bytes were given up.
  mutating func release(downTo bytesMax: Int) -> Int {
    let before = bytes
    while bytes > bytesMax { removeOldest() }
    return before - bytes
  }

  mutating func removeAll() {
    slots = []
    bytes = 0
  }

  private mutating func removeOldest() {
    guard let oldest = slots.indices.min(by: { slots[$0].lastUse < slots[$1].lastUse }) else {
      return
    }
    bytes -= slots.remove(at: oldest).block.bytes.count
  }

  private func firstSlot(behind place: (LogIndex, UInt32)) -> Int {
    var (low, high) = (0, slots.count)
    while low < high {
      let middle = (low + high) / 2
      if slots[middle].place <= place { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
