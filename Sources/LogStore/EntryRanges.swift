// Sets of entries as sorted ranges: what is damaged, lost, mended.

import Base

/// A set of entry indexes. Ranges ascend, do not overlap and do not touch.
struct EntryRanges: Equatable, Sendable {
  private(set) var ranges: [EntryRange] = []

  init(_ ranges: [EntryRange] = []) {
    for range in ranges { insert(range) }
  }

  var isEmpty: Bool { ranges.isEmpty }

  func range(containing index: LogIndex) -> EntryRange? {
    var low = 0
    var high = ranges.count
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].last < index { low = middle + 1 } else { high = middle }
    }
    guard low < ranges.count, ranges[low].contains(index) else { return nil }
    return ranges[low]
  }

  func contains(_ index: LogIndex) -> Bool { range(containing: index) != nil }

  func overlaps(_ other: EntryRange) -> Bool {
    ranges.contains { $0.first <= other.last && other.first <= $0.last }
  }

  mutating func insert(_ range: EntryRange) {
    var merged = range
    var result: [EntryRange] = []
    for old in ranges {
      let touches = old.first <= merged.last.next && merged.first <= old.last.next
      if touches {
        merged = EntryRange(first: min(old.first, merged.first), last: max(old.last, merged.last))
      } else {
        result.append(old)
      }
    }
    result.append(merged)
    ranges = result.sorted { $0.first < $1.first }
  }

  mutating func remove(_ range: EntryRange) {
    var result: [EntryRange] = []
    for old in ranges {
      if old.last < range.first || old.first > range.last {
        result.append(old)
        continue
      }
      if old.first < range.first {
        result.append(EntryRange(first: old.first, last: range.first.previous))
      }
      if old.last > range.last {
        result.append(EntryRange(first: range.last.next, last: old.last))
      }
    }
    ranges = result
  }

  /// Only what is at or before `index`.
  func through(_ index: LogIndex) -> EntryRanges {
    var result = self
    result.remove(EntryRange(first: index.next, last: LogIndex(.max)))
    return result
  }

  func subtracting(_ other: EntryRanges) -> EntryRanges {
    var result = self
    for range in other.ranges { result.remove(range) }
    return result
  }
}
