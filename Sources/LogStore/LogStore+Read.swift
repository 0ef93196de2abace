// Reading entries and records on the event loop. Everything is verified: bytes whose checksum does
// not fit are never given out.

import Base
import Consensus

/// Reads entries on another thread than the store's, which must be the same for all such jobs. What it reads may be replaced meanwhile, which it
/// notices as it would notice damage: why it failed, `LogStore.entries` says.
package final class EntryReadJob: @unchecked Sendable {
  // Used by one thread at a time, handed over through mailboxes.
  private let run: EntryRun
  private let file: any FileHandle
  /// Consecutive ones, at least one; nil if they could not be read, or not yet.
  package private(set) var entries: [Entry]?

  init(_ run: EntryRun, in file: any FileHandle) {
    self.run = run
    self.file = file
  }

  package func execute() {
    let run = run
    entries = try? file.withBytes(run.count, at: UInt64(run.offset)) { run.entries(in: $0) }.get()
  }
}

extension LogStore {
  /// Consecutive entries, at least one, as many as fit `maxBytes` of payload.
  ///
  /// - Throws: `.damaged` or `.notInLog` with the first entry that cannot be read; entries before
  ///   it are given without an error.
  package func entries(
    from first: LogIndex, through last: LogIndex, maxBytes: Int
  ) throws(LogReadError) -> [Entry] {
    guard first >= firstIndex, first <= last, last <= self.last.index else {
      throw .notInLog(first < firstIndex ? first : max(first, self.last.index.next))
    }
    var entries: [Entry] = []
    var index = first
    var payloads = 0
    while index <= last {
      // Asked before it is read: what does not fit would be read again the next time.
      if let bytes = payloadBytes(of: index), !entries.isEmpty, payloads + bytes > maxBytes {
        break
      }
      let more: [Entry]
      do throws(LogReadError) {
        more = try next(from: index, through: last, maxBytes: maxBytes - payloads)
      } catch {
        if entries.isEmpty { throw error }
        return entries
      }
      for entry in more {
        if !entries.isEmpty && payloads + entry.payload.count > maxBytes { return entries }
        entries.append(entry)
        payloads += entry.payload.count
      }
      index = index.advanced(by: more.count)
    }
    return entries
  }

  /// A job that reads what `entries` would give, for another thread; nil if only `entries` can tell,
  /// as where they are not on the disk yet.
  package func entryReading(
    from first: LogIndex, through last: LogIndex, maxBytes: Int
  ) -> EntryReadJob? {
    guard first >= firstIndex, first <= last, pendingEntry(first) == nil,
      let at = state.log.streamSegment(of: first)
    else { return nil }
    let segment = state.log.stream[at]
    let end = min(last, state.pending.first?.entry.index.previous ?? last)
    guard
      let run = try? EntryRun(from: first, through: end, maxBytes: maxBytes, in: segment),
      let file = try? feedFiles.handle(FileNames.segment(segment.number))
    else { return nil }
    return EntryReadJob(run, in: file)
  }

  /// nil if the entry cannot be read.
  private func payloadBytes(of index: LogIndex) -> Int? {
    if let entry = pendingEntry(index) { return entry.payload.count }
    guard let at = state.log.streamSegment(of: index),
      let slot = state.log.stream[at].slot(of: index)
    else {
      return nil
    }
    return Int(slot.payloadBytes)
  }

  private func next(
    from index: LogIndex, through last: LogIndex, maxBytes: Int
  ) throws(LogReadError) -> [Entry] {
    if let entry = pendingEntry(index) { return [entry] }
    guard let at = state.log.streamSegment(of: index) else {
      throw state.log.damaged.contains(index) ? .damaged(index) : .notInLog(index)
    }
    var end = last
    if let firstPending = state.pending.first?.entry.index, firstPending <= end,
      firstPending > index
    {
      end = firstPending.previous
    }
    return try LogFiles.entries(
      from: index, through: end, maxBytes: maxBytes, in: state.log.stream[at], readFiles)
  }

  /// A staged entry that may not be on the disk yet.
  private func pendingEntry(_ index: LogIndex) -> Entry? {
    guard let first = state.pending.first?.entry.index, index >= first, index <= last.index else {
      return nil
    }
    let entry = state.pending[Int(index.rawValue - first.rawValue)].entry
    invariant(entry.index == index, "pending entry \(entry.index) at the place of \(index)")
    return entry
  }

  /// The whole payload of an entry.
  package func payload(of index: LogIndex) throws(LogReadError) -> [UInt8] {
    if let entry = pendingEntry(index) { return entry.payload }
    if let at = state.log.streamSegment(of: index) {
      return try LogFiles.entry(index, in: state.log.stream[at], readFiles).payload
    }
    if case .segment(let segment) = state.log.sparseFile(of: index) {
      return try LogFiles.entry(index, in: segment, readFiles).payload
    }
    throw state.log.damaged.contains(index) ? .damaged(index) : .notInLog(index)
  }

  /// The largest verified piece of payload around a record: the whole payload where the log has
  /// the entry whole. For the caller's cache.
  package func block(
    containing record: RecordReference
  ) throws(LogReadError) -> PayloadBlock {
    if let entry = pendingEntry(record.entry) {
      return PayloadBlock(entry: record.entry, offset: 0, bytes: entry.payload)
    }
    let block = try state.log.block(containing: record, readFiles)
    // The entry's bytes are right, so the reference is not one into them.
    guard block.contains(record) else { throw .notInLog(record.entry) }
    return block
  }

  /// The bytes of one record.
  package func record(_ record: RecordReference) throws(LogReadError) -> [UInt8] {
    Array(try block(containing: record).slice(record))
  }
}
