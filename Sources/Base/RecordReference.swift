// Where messages lie. QueueMachine names records by this, LogStore finds them.

/// Where a message's record lies in the log: within the payload of an entry.
@frozen @usableFromInline package struct RecordReference: Hashable, Sendable {
  /// The entry in whose payload the record lies.
  @usableFromInline package var entry: LogIndex
  /// From the beginning of the payload, bytes.
  @usableFromInline package var offset: UInt32
  /// Bytes.
  @usableFromInline package var size: UInt32

  @usableFromInline package init(entry: LogIndex, offset: UInt32, size: UInt32) {
    self.entry = entry
    self.offset = offset
    self.size = size
  }
}

/// Records of entries that follow each other, told at once where nobody asks for each.
package struct RecordSpan: Hashable, Sendable {
  package var first: LogIndex
  package var last: LogIndex
  /// How many records, all of entries from `first` to `last`, though not all of those.
  package var count: Int
  /// Of all of them.
  package var bytes: UInt64

  package init(first: LogIndex, last: LogIndex, count: Int, bytes: UInt64) {
    self.first = first
    self.last = last
    self.count = count
    self.bytes = bytes
  }
}
