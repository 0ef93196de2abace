// Where each entry lies, and reading it: the in-memory index over segments and kept files. A value,
// so that jobs on other threads take a copy and read by themselves.

import Base
import Consensus

/// Where an entry's record begins in its segment, and how long its payload is.
struct EntrySlot: Equatable, Sendable {
  /// 0 if the entry is damaged: no record begins in the file's first block.
  var offset: UInt32
  var payloadBytes: UInt32
}

/// A log segment: consecutive entries, whole. 8 bytes of memory an entry.
struct LogSegment: Equatable, Sendable {
  /// Place in the stream, from 1.
  var segment: UInt64
  /// Number of the file.
  var number: UInt64
  var life: UInt32
  /// Size of the file.
  var fileBytes: UInt64
  /// Where the next record goes.
  var used: UInt32
  /// The end record is written, or is not needed any more: nothing more goes here.
  var isEnded = false
  /// What the first record goes on with.
  var startIndex: LogIndex
  var startPreviousTerm: Term
  /// The first entry in `slots`.
  var firstEntry: LogIndex
  var slots: [EntrySlot] = []

  var end: LogPlace { LogPlace(segment: segment, offset: used) }
  var lastEntry: LogIndex? {
    slots.isEmpty ? nil : firstEntry.advanced(by: slots.count - 1)
  }
  var range: EntryRange? { lastEntry.map { EntryRange(first: firstEntry, last: $0) } }

  func slot(of index: LogIndex) -> EntrySlot? {
    guard index >= firstEntry else { return nil }
    let at = index.rawValue - firstEntry.rawValue
    return at < UInt64(slots.count) ? slots[Int(at)] : nil
  }

  /// Drops the entries from `index` on.
  mutating func truncate(from index: LogIndex) {
    if index <= firstEntry {
      slots.removeAll(keepingCapacity: true)
      firstEntry = index
    } else if let last = lastEntry, index <= last {
      slots.removeLast(Int(last.rawValue - index.rawValue) + 1)
    }
  }

  /// Notes an entry behind the others, leaving damaged slots for those between.
  mutating func note(_ index: LogIndex, _ slot: EntrySlot) {
    if slots.isEmpty { firstEntry = index }
    while let last = lastEntry, last.next < index {
      slots.append(EntrySlot(offset: 0, payloadBytes: 0))
    }
    slots.append(slot)
  }
}

/// A file before the stream.
enum SparseFile: Equatable, Sendable {
  case segment(LogSegment)
  case kept(KeptFile)

  var range: EntryRange {
    switch self {
    case .segment(let segment):
      segment.range ?? EntryRange(first: segment.firstEntry, last: segment.firstEntry)
    case .kept(let kept): kept.range
    }
  }
  var bytes: UInt64 {
    switch self {
    case .segment(let segment): segment.fileBytes
    case .kept(let kept): kept.bytes
    }
  }
}

/// Open files for reading, at most so many; the first opened goes first.
final class ReadFiles {
  /// How far the disk reads ahead of who reads one entry behind the other: several entries of the
  /// largest kind, and little beside a segment.
  static let aheadBytes = 4 << 20

  private let directory: String
  private let fileSystem: any FileSystem
  private let openMax: Int
  private let readsOnce: Bool
  private var open: [String: any FileHandle] = [:]
  private var order: [String] = []
  /// The file last read from, where that read ended, and how far it was read ahead.
  private var run: (name: String, end: Int, ahead: Int) = ("", 0, 0)

  /// - Parameter readsOnce: what is read is not wanted again soon.
  init(directory: String, fileSystem: any FileSystem, openMax: Int, readsOnce: Bool = false) {
    self.directory = directory
    self.fileSystem = fileSystem
    self.openMax = openMax
    self.readsOnce = readsOnce
  }

  func handle(_ name: String) throws(StorageFailure) -> any FileHandle {
    if let handle = open[name] { return handle }
    let path = directory + "/" + name
    let handle =
      readsOnce ? try fileSystem.openToReadOnce(path) : try fileSystem.open(path, .read)
    if order.count >= openMax { open[order.removeFirst()] = nil }
    open[name] = handle
    order.append(name)
    return handle
  }

  /// The bytes of `range`. Reads that go through a file from one end to the other find the disk at
  /// work ahead of them, up to `limit`.
  func read(
    _ range: Range<Int>, of name: String, aheadTo limit: Int
  ) throws(StorageFailure) -> [UInt8] {
    let handle = try handle(name)
    let bytes = try handle.readExactly(range.count, at: UInt64(range.lowerBound))
    // Entries that nobody wants any more may lie between.
    let goesOn =
      run.name == name && (run.end..<run.end + Self.aheadBytes).contains(range.lowerBound)
    let done = goesOn ? max(run.ahead, range.upperBound) : range.upperBound
    run = (name, range.upperBound, done)
    let end = min(range.upperBound + Self.aheadBytes, limit)
    // In pieces of half of it, so that it is not asked for at each entry.
    guard goesOn, end - done >= Self.aheadBytes / 2 || (end == limit && end > done) else {
      return bytes
    }
    handle.willRead(UInt64(end - done), at: UInt64(done))
    run.ahead = end
    return bytes
  }

  func close(_ name: String) {
    // Another file may get the name.
    if run.name == name { run = ("", 0, 0) }
    open[name] = nil
    order.removeAll { $0 == name }
  }

  func closeAll() {
    run = ("", 0, 0)
    open = [:]
    order = []
  }
}

/// All files in force.
struct LogFiles: Sendable {
  /// Before the stream, ascending by entries, not overlapping.
  var sparse: [SparseFile] = []
  /// Ascending by place; the last one is written.
  var stream: [LogSegment] = []
  /// What repairs brought; looked into first for entries in `mended`.
  var patches: [KeptFile] = []
  /// Entries whose records are damaged or lost and not mended.
  var damaged = EntryRanges()
  /// Entries that were damaged or lost, mended or not, of which a scan of the files in force may not find
  /// that out. Whatever a file before the stream has of them is not read.
  var lost = EntryRanges()
  /// Entries whose live records repairs have replaced.
  var mended = EntryRanges()

  /// Nothing of these entries is alive, or what is lies whole in a file in force.
  mutating func forget(_ range: EntryRange) {
    lost.remove(range)
    damaged.remove(range)
    mended.remove(range)
  }

  /// Gives the next `bytes` of the segment that is written to a record.
  mutating func takePlace(_ bytes: Int) -> (place: LogPlace, life: UInt32) {
    let at = stream.count - 1
    let place = stream[at].end
    stream[at].used += UInt32(bytes)
    return (place, stream[at].life)
  }

  /// The segment of the stream that holds an entry.
  func streamSegment(of index: LogIndex) -> Int? {
    var low = 0
    var high = stream.count
    while low < high {
      let middle = (low + high) / 2
      // Segments without entries have the index that they would begin with.
      if stream[middle].firstEntry <= index { low = middle + 1 } else { high = middle }
    }
    var at = low - 1
    while at >= 0 {
      if stream[at].slot(of: index) != nil { return at }
      if !stream[at].slots.isEmpty { return nil }
      at -= 1
    }
    return nil
  }

  func sparseFile(of index: LogIndex) -> SparseFile? {
    var low = 0
    var high = sparse.count
    while low < high {
      let middle = (low + high) / 2
      if sparse[middle].range.last < index { low = middle + 1 } else { high = middle }
    }
    guard low < sparse.count, sparse[low].range.contains(index) else { return nil }
    return sparse[low]
  }

  /// The largest verified piece of payload around a record.
  func block(
    containing record: RecordReference, _ files: ReadFiles
  ) throws(LogReadError) -> PayloadBlock {
    guard mended.contains(record.entry) else { return try unmended(record, files) }
    for patch in patches where patch.range.contains(record.entry) {
      if let found = try fragment(patch, record, files) { return found }
    }
    do throws(LogReadError) {
      return try unmended(record, files)
    } catch {
      // The repair brought all that was alive: another one would bring no more.
      if case .damaged(let index) = error { throw .notInLog(index) }
      throw error
    }
  }

  private func unmended(
    _ record: RecordReference, _ files: ReadFiles
  ) throws(LogReadError) -> PayloadBlock {
    if let at = streamSegment(of: record.entry) {
      return try whole(record.entry, in: stream[at], files)
    }
    switch sparseFile(of: record.entry) {
    case .segment(let segment):
      return try whole(record.entry, in: segment, files)
    case .kept(let kept):
      if let found = try fragment(kept, record, files) { return found }
    case nil: break
    }
    throw damaged.contains(record.entry) ? .damaged(record.entry) : .notInLog(record.entry)
  }

  private func whole(
    _ index: LogIndex, in segment: LogSegment, _ files: ReadFiles
  ) throws(LogReadError) -> PayloadBlock {
    PayloadBlock(
      entry: index, offset: 0, bytes: try Self.entry(index, in: segment, files).payload)
  }

  private func fragment(
    _ kept: KeptFile, _ record: RecordReference, _ files: ReadFiles
  ) throws(LogReadError) -> PayloadBlock? {
    let handle: any FileHandle
    do throws(StorageFailure) {
      handle = try files.handle(FileNames.kept(kept.number))
    } catch {
      throw error.isNoSuchFile ? .damaged(record.entry) : .storage(error)
    }
    return try kept.fragment(holding: record, in: handle)
  }

  /// One whole entry, verified.
  static func entry(
    _ index: LogIndex, in segment: LogSegment, _ files: ReadFiles
  ) throws(LogReadError) -> Entry {
    guard let slot = segment.slot(of: index), slot.offset != 0 else { throw .damaged(index) }
    let head = try read(
      from: slot.offset, count: RecordHeader.bytes, segment, index, files, isWithAhead: false)
    // By itself, so that nobody has to copy it out of a larger piece.
    let payload = try read(
      from: slot.offset + UInt32(RecordHeader.bytes), count: Int(slot.payloadBytes), segment,
      index, files)
    return try verified(
      index, slot, head.withUnsafeBytes { RecordHeader(in: $0, at: 0) }, payload, segment)
  }

  /// Consecutive entries that lie one behind the other, in one read; at least the first.
  static func entries(
    from first: LogIndex, through last: LogIndex, maxBytes: Int, in segment: LogSegment,
    _ files: ReadFiles
  ) throws(LogReadError) -> [Entry] {
    let run = try EntryRun(from: first, through: last, maxBytes: maxBytes, in: segment)
    return try read(from: run.offset, count: run.count, segment, first, files)
      .withUnsafeBytes { run.entries(in: $0) }.get()
  }

  private static func read(
    from offset: UInt32, count: Int, _ segment: LogSegment, _ index: LogIndex, _ files: ReadFiles,
    isWithAhead: Bool = true
  ) throws(LogReadError) -> [UInt8] {
    do throws(StorageFailure) {
      let name = FileNames.segment(segment.number)
      let start = Int(offset)
      guard isWithAhead else {
        return try files.handle(name).readExactly(count, at: UInt64(start))
      }
      return try files.read(
        start..<start + count, of: name,
        aheadTo: segment.isEnded ? Int(segment.used) : start + count)
    } catch {
      if error.operation == .shortRead || error.isNoSuchFile { throw .damaged(index) }
      throw .storage(error)
    }
  }

  fileprivate static func verified(
    _ index: LogIndex, _ slot: EntrySlot, _ head: RecordHeader?, _ payload: [UInt8],
    _ segment: LogSegment
  ) throws(LogReadError) -> Entry {
    guard let head, let kind = head.kind.entryKind, head.index == index,
      head.place == LogPlace(segment: segment.segment, offset: slot.offset),
      head.life == segment.life, head.payloadBytes == slot.payloadBytes
    else { throw .damaged(index) }
    guard Checksum(of: payload) == head.payloadChecksum else { throw .damaged(index) }
    return Entry(
      header: EntryHeader(
        position: LogPosition(term: head.term, index: index), kind: kind,
        payloadBytes: head.payloadBytes, payloadChecksum: head.payloadChecksum),
      payload: payload)
  }
}

/// Entries that lie one behind the other in a segment: where, and what their bytes should be.
struct EntryRun: Sendable {
  /// Without its entries: a copy of these would be made when the next one is added.
  private var segment: LogSegment
  private let first: LogIndex
  private var slots: [EntrySlot]
  /// Of the first record in the file.
  var offset: UInt32 { slots[0].offset }
  /// Bytes of the records together. The last one's padding may lie beyond what is written.
  var count: Int {
    let last = slots[slots.count - 1]
    return Int(last.offset - offset) + RecordHeader.bytes + Int(last.payloadBytes)
  }

  /// As many as fit `maxBytes` of payload, at least the first.
  init(
    from first: LogIndex, through last: LogIndex, maxBytes: Int, in segment: LogSegment
  ) throws(LogReadError) {
    guard let slot = segment.slot(of: first), slot.offset != 0 else { throw .damaged(first) }
    self.segment = segment
    self.segment.slots = []
    self.first = first
    slots = [slot]
    var end = Int(slot.offset) + RecordHeader.recordBytes(payload: Int(slot.payloadBytes))
    var payloads = Int(slot.payloadBytes)
    var index = first
    while index < last, let slot = segment.slot(of: index.next), Int(slot.offset) == end,
      payloads + Int(slot.payloadBytes) <= maxBytes
    {
      slots.append(slot)
      payloads += Int(slot.payloadBytes)
      end += RecordHeader.recordBytes(payload: Int(slot.payloadBytes))
      index = index.next
    }
  }

  /// The entries, verified.
  func entries(in bytes: UnsafeRawBufferPointer) -> Result<[Entry], LogReadError> {
    do throws(LogReadError) {
      return .success(try verifiedEntries(in: bytes))
    } catch {
      return .failure(error)
    }
  }

  private func verifiedEntries(
    in bytes: UnsafeRawBufferPointer
  ) throws(LogReadError) -> [Entry] {
    var entries: [Entry] = []
    entries.reserveCapacity(slots.count)
    for (place, slot) in slots.enumerated() {
      let at = Int(slot.offset - offset)
      let start = at + RecordHeader.bytes
      let payload = Array(bytes[start..<start + Int(slot.payloadBytes)])
      entries.append(
        try LogFiles.verified(
          first.advanced(by: place), slot, RecordHeader(in: bytes, at: at), payload, segment))
    }
    return entries
  }
}
