// The newest entries with their payloads, in memory: what is being replicated, applied and
// delivered. Older ones come from the log store.

import Base
import Consensus

/// Consecutive entries up to the end of the log, bounded in bytes.
package struct EntryCache {
  private var entries = RingBuffer<Entry>()
  /// Index of the oldest entry held; meaningless while empty.
  private var first = LogIndex.zero
  /// Sum of the payloads held, and what an entry costs besides.
  package private(set) var byteCount = 0
  /// Bytes kept beyond what is still needed.
  private let byteCountMax: Int

  private static let entryOverhead = 96

  package init(byteCountMax: Int) {
    self.byteCountMax = byteCountMax
  }

  package var firstIndex: LogIndex? { entries.isEmpty ? nil : first }
  package var lastIndex: LogIndex? {
    entries.isEmpty ? nil : first.advanced(by: entries.count - 1)
  }

  package func contains(_ index: LogIndex) -> Bool {
    !entries.isEmpty && index >= first && index.rawValue - first.rawValue < entries.count
  }

  package func entry(_ index: LogIndex) -> Entry? {
    guard !entries.isEmpty, index >= first else { return nil }
    let position = Int(index.rawValue - first.rawValue)
    return position < entries.count ? entries[position] : nil
  }

  /// Adds the entry behind the last; a gap empties the cache first.
  package mutating func append(_ entry: Entry) {
    if let last = lastIndex, entry.index != last.next {
      if entry.index <= last {
        truncate(from: entry.index)
      } else {
        removeAll()
      }
    }
    if entries.isEmpty { first = entry.index }
    entries.append(entry)
    byteCount += entry.payload.count + Self.entryOverhead
  }

  /// Drops the entries from `index` on.
  package mutating func truncate(from index: LogIndex) {
    while let last = lastIndex, last >= index {
      if let entry = entries.popLast() { byteCount -= entry.payload.count + Self.entryOverhead }
    }
  }

  /// Drops the oldest entries while over the bound, but none above `needed`: those are not yet
  /// applied or not yet durable, and nowhere else to be had.
  package mutating func trim(needed: LogIndex) {
    while byteCount > byteCountMax, !entries.isEmpty, first < needed {
      if let entry = entries.popFirst() { byteCount -= entry.payload.count + Self.entryOverhead }
      first = first.next
    }
  }

  /// Drops as `trim` does, down to `bytes`.
  ///
  /// - Returns: the bytes dropped.
  package mutating func shrink(to bytes: Int, needed: LogIndex) -> Int {
    let before = byteCount
    while byteCount > bytes, !entries.isEmpty, first < needed {
      if let entry = entries.popFirst() { byteCount -= entry.payload.count + Self.entryOverhead }
      first = first.next
    }
    return before - byteCount
  }

  package mutating func removeAll() {
    entries.removeAll()
    byteCount = 0
  }
}
