// Reading log segments back and judging what is found: which entries are whole, where the log
// ends, and whether what ends it is a torn last write or damage to something that was synced.
//
// The rule. Every record and the state file say up to which place the log was synced when they were
// written; P is the largest of these. A record that cannot be read at a place before P is damage. At
// or behind P nothing was confirmed: the log ends there. Before the second is believed, the rest of
// the stream is looked through for records that know of a larger P.
//
// Behind damage the scan goes on at the next record that can be read. That record names its index
// and the term before it; where these do not fit what is in hand, a truncation may have been lost
// in the damage, and entries that it may have replaced are damaged too: a stale entry must not be
// served for the one that replaced it.

import Base
import Consensus

/// A buffer that is read into again and again.
final class ScanBuffer {
  private(set) var bytes: UnsafeMutableRawBufferPointer
  private(set) var count = 0

  init() { bytes = UnsafeMutableRawBufferPointer(start: nil, count: 0) }
  deinit { bytes.deallocate() }

  /// What was read last.
  // SAFETY: valid until the next `fill`; users do not keep it.
  var content: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: bytes[..<count]) }

  func fill(from file: any FileHandle, readBytes: Int) throws(StorageFailure) {
    count = 0
    let size = Int(try file.size())
    if bytes.count < size {
      bytes.deallocate()
      bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
    }
    while count < size {
      let end = min(size, count + readBytes)
      let got = try file.read(
        into: UnsafeMutableRawBufferPointer(rebasing: bytes[count..<end]), at: UInt64(count))
      count += got
      if got == 0 { return }
    }
  }
}

/// A log segment's file as its head describes it.
struct SegmentFileInfo: Equatable, Sendable {
  var number: UInt64
  /// Its head says that it is this file's.
  var hasOwnHead: Bool
  var segment: UInt64
  var life: UInt32
  var fileBytes: UInt64
  var nextIndex: LogIndex
  var previousTerm: Term
}

/// Scans the stream, or one segment before it.
final class StreamScan {
  struct Defect {
    var text: String
    var place: LogPlace
    /// Entries lost by it, as far as they were in force when it was found.
    var lost = EntryRanges()
    /// The end of the log is missing.
    var isTail = false
    /// What it took was removed by a later truncation.
    var isReplaced = false
  }

  let directory: String
  let fileSystem: any FileSystem
  let readBytes: Int
  let buffer: ScanBuffer
  /// The last entry that the snapshot covers.
  let snapshotIndex: LogIndex
  /// The newest segment that is known to have been begun and synced.
  let newestSynced: UInt64
  private let files: [UInt64: SegmentFileInfo]
  private let newest: UInt64

  /// P of the rule above.
  private(set) var synced: SyncedEnd
  private var hasLookedAhead = false

  private(set) var segments: [LogSegment] = []
  private(set) var runs: [TermRun] = []
  private(set) var memberships: [(index: LogIndex, payload: [UInt8])] = []
  private(set) var damaged = EntryRanges()
  /// Damaged only because what is damaged behind them may have replaced them: once the files around
  /// it are gone no scan would find that out again.
  private(set) var suspected = EntryRanges()
  private(set) var defects: [Defect] = []
  private(set) var nextIndex: LogIndex
  private(set) var lastTerm: Term
  /// Where the log ends.
  private(set) var end: LogPlace
  /// The log ends at a write that was never confirmed.
  private(set) var isTorn = false
  /// Acknowledged entries may be missing and nothing says how many.
  private(set) var isExtentUnknown = false
  /// A segment is in no file that says so.
  private(set) var isSegmentMissing = false
  private(set) var highestTerm = Term.zero
  /// How many records the damage that was just passed may have held; nil outside damage.
  private var holeRecords: Int?
  private var holePlace = LogPlace.zero

  /// - Parameter lowest: the first entry that may be found, at or before `nextIndex`: a truncation may go
  ///   below where the first segment was begun.
  init(
    directory: String, fileSystem: any FileSystem, readBytes: Int, buffer: ScanBuffer,
    files: [UInt64: SegmentFileInfo], first: UInt64, lowest: LogIndex, nextIndex: LogIndex,
    previousTerm: Term,
    snapshotIndex: LogIndex, synced: SyncedEnd, newestSynced: UInt64
  ) {
    self.directory = directory
    self.fileSystem = fileSystem
    self.readBytes = readBytes
    self.buffer = buffer
    self.files = files.filter { $0.key >= first }
    self.lowest = min(lowest, nextIndex)
    self.nextIndex = nextIndex
    self.snapshotIndex = snapshotIndex
    self.synced = synced
    self.newestSynced = newestSynced
    lastTerm = previousTerm
    newest = self.files.keys.max() ?? 0
    end = LogPlace(segment: first, offset: UInt32(FileHeader.blockBytes))
    firstSegment = first
  }

  private let firstSegment: UInt64
  let lowest: LogIndex
  /// Of the entry before the first in hand, as that one's record says.
  private var beforeFirst: LogPosition?

  /// Reads everything and stops at the end of the log.
  func run() throws(StorageFailure) {
    var segment = firstSegment
    while segment <= newest {
      guard let info = files[segment] else {
        isSegmentMissing = true
        let place = LogPlace(segment: segment, offset: UInt32(FileHeader.blockBytes))
        guard try meetDefect("segment \(segment) is missing", place, isShort: false) else { return }
        beginHole(at: place, bytes: 64 << 20)
        segment += 1
        continue
      }
      guard try scan(info) else { return }
      segment += 1
    }
    // What has no whole record, behind segments that are missing, is cut away with them.
    segments.removeAll { $0.segment > end.segment }
    if newestSynced > newest, newestSynced >= firstSegment {
      isExtentUnknown = true
      isSegmentMissing = true
      defects.append(
        Defect(
          text: "segment \(newestSynced), the newest, is missing", place: end, isTail: true))
    } else if synced.place > end {
      defects.append(
        Defect(
          text: "the log ends at \(end) and was synced to \(synced.place)", place: end, isTail: true
        )
      )
    }
  }

  /// One segment before the stream, of which `used` bytes were in use: all that is missing from `range` is
  /// damaged.
  func runSparse(_ range: EntryRange, used: UInt64) throws(StorageFailure) {
    if let info = files[firstSegment] { _ = try scan(info) }
    if let segment = segments.last, UInt64(segment.used) < used {
      // What is gone behind the last record may have replaced entries before it, up to the last one.
      let bytes = used - UInt64(segment.used)
      defects.append(
        Defect(
          text:
            "segment \(segment.segment), offset \(segment.used): the last \(bytes) bytes are damaged",
          place: segment.end))
      let reach = bytes / UInt64(RecordHeader.bytes) + 1
      let lowest = range.last.next.rawValue > reach ? range.last.next.rawValue - reach : 1
      suspect(from: LogIndex(lowest), place: segment.end)
    }
    truncateInHand(from: range.last.next)
    if nextIndex <= range.last { lose(nextIndex, range.last) }
    if let first = firstInHand { miss(range.first, before: first) }
    let before = EntryRange(first: .zero, last: max(range.first, LogIndex(1)).previous)
    damaged.remove(before)
    suspected.remove(before)
  }

  /// False if the log ends before a torn write in this segment.
  private func scan(_ info: SegmentFileInfo) throws(StorageFailure) -> Bool {
    try fill(info)
    let size = buffer.count
    let isShort = UInt64(size) < info.fileBytes && info.segment <= newestSynced
    segments.append(
      LogSegment(
        segment: info.segment, number: info.number, life: info.life, fileBytes: info.fileBytes,
        used: UInt32(FileHeader.blockBytes), startIndex: info.nextIndex,
        startPreviousTerm: info.previousTerm, firstEntry: nextIndex))
    var at = FileHeader.blockBytes
    // The last record, where the file ends in the middle of it.
    var cutRecord: LogPlace?
    while true {
      let place = cutRecord ?? LogPlace(segment: info.segment, offset: UInt32(at))
      if let head = head(at: at, info) {
        note(head.synced)
        guard let isWhole = try take(head, at: at, isShort: isShort) else { return false }
        at += head.recordBytes
        // One whose padding alone is cut off is all there.
        if at <= size || isWhole {
          segments[segments.count - 1].used = UInt32(at)
          end = LogPlace(segment: info.segment, offset: UInt32(at))
        } else {
          // What is missing begins with it: its head would claim what is written behind the cut.
          cutRecord = place
          at = size
        }
        if head.kind == .end && isWhole {
          segments[segments.count - 1].isEnded = true
          end = LogPlace(segment: info.segment + 1, offset: UInt32(FileHeader.blockBytes))
          return true
        }
        continue
      }
      let next = nextHead(from: at + RecordHeader.alignment, info)
      if next == nil && info.segment == newest {
        if isShort && at + RecordHeader.bytes > size { isExtentUnknown = true }
        return true
      }
      let text =
        "segment \(info.segment), offset \(at): "
        + (next.map { "\($0 - at) bytes are damaged" } ?? "the rest is damaged or missing")
      guard try meetDefect(text, place, isShort: isShort, info) else { return false }
      beginHole(at: place, bytes: (next ?? max(size, Int(info.fileBytes))) - at)
      guard let next else {
        segments[segments.count - 1].isEnded = true
        end = LogPlace(segment: info.segment + 1, offset: UInt32(FileHeader.blockBytes))
        return true
      }
      at = next
    }
  }

  private func fill(_ info: SegmentFileInfo) throws(StorageFailure) {
    let path = directory + "/" + FileNames.segment(info.number)
    let file = try fileSystem.open(path, .read)
    try buffer.fill(from: file, readBytes: readBytes)
    // The next one is read into the same memory: new memory for all of the log costs more than its reading.
    // What may not be on the disk is read and written again (`rewriteTail`).
    if info.segment < synced.place.segment { file.willNotRead(info.fileBytes, at: 0) }
  }

  /// The record at an offset of the file in the buffer, if it belongs there.
  private func head(at offset: Int, _ info: SegmentFileInfo) -> RecordHeader? {
    guard let head = RecordHeader(in: buffer.content, at: offset),
      head.place == LogPlace(segment: info.segment, offset: UInt32(offset)),
      head.life == info.life, head.group == .main
    else { return nil }
    return head
  }

  private func nextHead(from offset: Int, _ info: SegmentFileInfo) -> Int? {
    let bytes = buffer.content
    var at = offset
    while at + RecordHeader.bytes <= bytes.count {
      // SAFETY: four bytes at `at` lie within the buffer, checked by the loop.
      if bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self).littleEndian
        == RecordHeader.magic, head(at: at, info) != nil
      {
        return at
      }
      at += RecordHeader.alignment
    }
    return nil
  }

  private func note(_ end: SyncedEnd) {
    if end.place > synced.place { synced = end }
  }

  /// Something cannot be read. False if it is where the log was not confirmed any more: the log ends
  /// there. True if it is damage.
  private func meetDefect(
    _ text: String, _ place: LogPlace, isShort: Bool, _ info: SegmentFileInfo? = nil
  ) throws(StorageFailure) -> Bool {
    if !hasLookedAhead && place >= synced.place {
      hasLookedAhead = true
      try lookAhead(from: place, info)
    }
    let isDamage = place < synced.place || nextIndex <= snapshotIndex || isShort
    if isDamage {
      if isShort && place >= synced.place { isExtentUnknown = true }
      defects.append(Defect(text: text, place: place))
    } else {
      isTorn = true
      end = place
    }
    return isDamage
  }

  /// Reads on for records that know of a later synced place, and leaves the buffer as it was.
  private func lookAhead(
    from place: LogPlace, _ current: SegmentFileInfo?
  ) throws(StorageFailure) {
    for segment in place.segment...max(newest, place.segment) {
      guard let info = files[segment] else { continue }
      if info != current { try fill(info) }
      var at = segment == place.segment ? Int(place.offset) : FileHeader.blockBytes
      while let found = nextHead(from: at, info) {
        if let head = head(at: found, info) { note(head.synced) }
        at = found + RecordHeader.bytes
      }
    }
    if let current, newest > place.segment { try fill(current) }
  }

  private func beginHole(at place: LogPlace, bytes: Int) {
    // A file may end before its first record.
    let records = max(0, bytes) / RecordHeader.bytes
    if holeRecords == nil { holePlace = place }
    holeRecords = (holeRecords ?? 0) + records
  }

  /// Takes a record whose head is whole. nil if the log ends before it, false if its payload is
  /// damaged.
  private func take(
    _ head: RecordHeader, at offset: Int, isShort: Bool
  ) throws(StorageFailure) -> Bool? {
    let count = Int(head.payloadBytes)
    let start = offset + RecordHeader.bytes
    var sum: Checksum?
    if start + count <= buffer.count {
      sum = Checksum(of: UnsafeRawBufferPointer(rebasing: buffer.content[start..<start + count]))
    }
    let isWhole = count == 0 || sum == head.payloadChecksum
    if !isWhole {
      let text =
        "entry \(head.index) (segment \(head.place.segment), offset \(offset)): payload checksum "
        + (sum.map { "is \(hex($0.rawValue)), " } ?? "cannot be computed, ")
        + "should be \(hex(head.payloadChecksum.rawValue))"
      let isCut = isShort && sum == nil
      let info = files[head.place.segment]
      guard try meetDefect(text, head.place, isShort: isCut, info) else { return nil }
    }
    highestTerm = max(highestTerm, head.term)
    settle(before: head.index, head.previousTerm, head.place)
    guard let kind = head.kind.entryKind else { return isWhole }
    if runs.last?.term != head.term { runs.append(TermRun(first: head.index, term: head.term)) }
    let slot = EntrySlot(
      offset: isWhole ? head.place.offset : 0, payloadBytes: isWhole ? head.payloadBytes : 0)
    segments[segments.count - 1].note(head.index, slot)
    nextIndex = head.index.next
    lastTerm = head.term
    if !isWhole {
      damage(EntryRange(first: head.index, last: head.index), head.place)
    } else if kind == .membership {
      memberships.append((head.index, Array(buffer.content[start..<start + count])))
    }
    return isWhole
  }

  /// Makes what is in hand end right before `index`, with `term`.
  private func settle(before index: LogIndex, _ term: Term, _ place: LogPlace) {
    let records = holeRecords ?? 0
    let from = holeRecords == nil ? place : holePlace
    let inHand = nextIndex
    if index < nextIndex { truncateInHand(from: index) }
    if holeRecords != nil {
      // A truncation may be lost in the damage that went below where the first segment was begun.
      let reach = UInt64(records)
      let first = index.rawValue > reach ? LogIndex(index.rawValue - reach) : LogIndex(1)
      miss(max(lowest, first), before: firstInHand ?? index)
    }
    if let known = self.term(of: min(index, nextIndex).previous), known != term,
      inHand != index
        || holeRecords != nil
    {
      // A truncation may be lost in the damage: entries that it may have replaced are suspect.
      let reach = UInt64(records) + 1
      let lowest = index.rawValue > reach ? LogIndex(index.rawValue - reach) : LogIndex(1)
      if lowest < nextIndex { suspect(from: lowest, place: from) }
    }
    if index > nextIndex { lose(nextIndex, index.previous, from) }
    if firstInHand == nil { beforeFirst = LogPosition(term: term, index: index.previous) }
    nextIndex = index
    lastTerm = term
    holeRecords = nil
  }

  private func suspect(from lowest: LogIndex, place: LogPlace) {
    guard nextIndex.rawValue > 1 else { return }
    var first: LogIndex?
    var firstPlace = place
    for at in segments.indices {
      guard let range = segments[at].range, range.last >= lowest else { continue }
      for slot in segments[at].slots.indices {
        let index = segments[at].firstEntry.advanced(by: slot)
        if index < lowest || segments[at].slots[slot].offset == 0 { continue }
        if first == nil {
          first = index
          firstPlace = LogPlace(
            segment: segments[at].segment, offset: segments[at].slots[slot].offset)
        }
        segments[at].slots[slot] = EntrySlot(offset: 0, payloadBytes: 0)
      }
    }
    guard let first else { return }
    memberships.removeAll { $0.index >= first }
    let range = EntryRange(first: first, last: nextIndex.previous)
    suspected.insert(range)
    damage(range, min(firstPlace, place), by: place)
  }

  /// The first entry that is in hand, whole or damaged.
  var firstInHand: LogIndex? { segments.first { !$0.slots.isEmpty }?.firstEntry }

  /// Of the entries from `first` to the one before `index` those are damaged that are not known to be.
  private func miss(_ first: LogIndex, before index: LogIndex) {
    guard first < index else { return }
    let missing = EntryRanges([EntryRange(first: first, last: index.previous)])
    for range in missing.subtracting(damaged).ranges { damage(range, end) }
  }

  private func lose(_ first: LogIndex, _ last: LogIndex, _ place: LogPlace? = nil) {
    damage(EntryRange(first: first, last: last), place ?? end)
    nextIndex = last.next
  }

  /// Where each loss began, for the place at which the log is cut.
  private(set) var losses: [(range: EntryRange, place: LogPlace)] = []

  /// - Parameters:
  ///   - place: where the log would be cut before the first of them.
  ///   - cause: where the damage lies that cost them; behind them, where it may have held the truncation
  ///     that removed them.
  private func damage(_ range: EntryRange, _ place: LogPlace, by cause: LogPlace? = nil) {
    damaged.insert(range)
    losses.append((range, place))
    let cause = cause ?? place
    if let at = defects.lastIndex(where: { !$0.isReplaced && $0.place <= cause }) {
      defects[at].lost.insert(range)
    } else {
      defects.append(
        Defect(
          text: "entries \(range) are missing before \(cause)", place: cause,
          lost: EntryRanges([range])))
    }
  }

  private func truncateInHand(from index: LogIndex) {
    for at in segments.indices { segments[at].truncate(from: index) }
    runs.removeAll { $0.first >= index }
    memberships.removeAll { $0.index >= index }
    damaged.remove(EntryRange(first: index, last: LogIndex(.max)))
    suspected.remove(EntryRange(first: index, last: LogIndex(.max)))
    losses.removeAll { $0.range.first >= index }
    for at in defects.indices where !defects[at].lost.isEmpty {
      defects[at].lost.remove(EntryRange(first: index, last: LogIndex(.max)))
      defects[at].isReplaced = defects[at].lost.isEmpty
    }
    nextIndex = min(nextIndex, index)
    lastTerm = term(of: nextIndex.previous) ?? lastTerm
  }

  /// The term of an entry in hand.
  private func term(of index: LogIndex) -> Term? {
    if index.next == nextIndex && runs.isEmpty { return lastTerm }
    if let run = runs.last(where: { $0.first <= index }), index < nextIndex { return run.term }
    return nil
  }

  /// What is in hand is, or may be, from before a truncation that was lost behind it: `position`, before
  /// which everything is in force, does not go on with it.
  func mayBeReplaced(before position: LogPosition) -> Bool {
    guard let first = firstInHand else { return false }
    if nextIndex <= position.index { return !runs.isEmpty && lastTerm != position.term }
    if position.index.next == first, let known = beforeFirst, known.index == position.index {
      return known.term != position.term
    }
    if position.index >= first, !damaged.contains(position.index) {
      return term(of: position.index) != position.term
    }
    // Leaders of its term and of later ones have it; those of earlier terms have none behind it.
    var later = max(first, position.index.next)
    if let hidden = damaged.range(containing: later) { later = hidden.last.next }
    return later < nextIndex
      ? (term(of: later) ?? .zero) < position.term : lastTerm != position.term
  }

  /// Cuts what is in hand before `index`. Gives the place from which everything goes.
  func cut(before index: LogIndex) -> LogPlace {
    var place = end
    for segment in segments {
      for (at, slot) in segment.slots.enumerated()
      where segment.firstEntry.advanced(by: at) >= index && slot.offset != 0 {
        place = min(place, LogPlace(segment: segment.segment, offset: slot.offset))
      }
    }
    for loss in losses where loss.range.last >= index { place = min(place, loss.place) }
    truncateInHand(from: index)
    segments.removeAll { $0.segment > place.segment }
    if let last = segments.last, last.segment == place.segment {
      segments[segments.count - 1].used = place.offset
      segments[segments.count - 1].isEnded = false
    }
    end = place
    return place
  }
}

func hex(_ value: UInt32) -> String {
  let digits = String(value, radix: 16)
  return "0x" + String(repeating: "0", count: 8 - digits.count) + digits
}
