// Where a message lies. QueueMachine names records by this, LogStore finds them.

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
