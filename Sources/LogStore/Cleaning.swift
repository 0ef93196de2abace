// Cleaning: segments whose records are all dead go, segments with little alive are rewritten as
// kept files, so that one old message does not pin the disk. Planned on the event loop (a copy of
// the index, nothing per record), carried out on the low-priority thread, put in force by a write
// job that replaces the manifest.

import Base
import Consensus

/// A plan to clean, and what came of it. `execute` on the low-priority thread, then
/// `LogStore.stage(_: CleaningJob)`.
package final class CleaningJob: @unchecked Sendable {
  // Used by one thread at a time, handed over through mailboxes.
  struct Site: Sendable {
    let directory: String
    let identity: StoreIdentity
    let fileSystem: any FileSystem
    let options: StoreOptions
  }

  /// Entries from here on stay whole.
  package let keepFrom: LogIndex
  let epoch: UInt64
  private let site: Site
  private let log: LogFiles
  private let live: LiveSpans
  private let firstNumber: UInt64
  /// The files that may go, ascending: those before the stream and the stream's first ones.
  let candidates: [SparseFile]
  /// Of the candidates, in one piece of memory: each record that is alive is looked up in it.
  private let ranges: [EntryRange]
  /// How many of the candidates are of the stream.
  let streamCount: Int

  private(set) var isExecuted = false
  /// Parallel to `candidates`: the file is not needed any more.
  private(set) var isGone: [Bool]
  private(set) var kept: [KeptFile] = []
  /// Losses of which nothing is alive any more.
  private(set) var deadLosses = EntryRanges()
  /// Entries whose records turned out damaged while they were read.
  package private(set) var damaged: [LogIndex] = []

  /// One cleaning makes at most this many files.
  static let numbersReserved: UInt64 = 1 << 16

  init(
    keepFrom: LogIndex, epoch: UInt64, site: Site, log: LogFiles, live: @escaping LiveSpans,
    firstNumber: UInt64, candidates: [SparseFile], streamCount: Int
  ) {
    self.keepFrom = keepFrom
    self.epoch = epoch
    self.site = site
    self.log = log
    self.live = live
    self.firstNumber = firstNumber
    self.candidates = candidates
    ranges = candidates.map(\.range)
    self.streamCount = streamCount
    isGone = candidates.map { _ in false }
  }

  /// A repair has come meanwhile.
  func isMendedSince(_ index: LogIndex, in now: LogFiles) -> Bool {
    now.mended.contains(index) && !log.mended.contains(index)
  }

  /// Counts what is alive and rewrites what is worth it.
  package func execute() throws(StorageFailure) {
    invariant(!isExecuted, "cleaning executed twice")
    isExecuted = true
    let counts = countLive()
    var isKeptWhole = candidates.map { log.damaged.overlaps($0.range) }
    var numbers = firstNumber
    let free = try site.fileSystem.freeBytes(site.directory)
    var room =
      free - StoreRoom(segmentBytes: site.options.segmentBytes, snapshotBytes: 0).left(of: free)
    while true {
      let rewritten = choose(counts, isKeptWhole, room: room)
      let writer = KeptWriter(
        directory: site.directory, fileSystem: site.fileSystem, identity: site.identity,
        firstNumber: numbers, fileBytesMax: site.options.segmentBytes, isSteady: true)
      do throws(LogReadError) {
        try rewrite(rewritten, counts, writer)
        kept = try Self.storage { () throws(StorageFailure) in try writer.finish() }
        for at in candidates.indices {
          isGone[at] = counts[at] == 0 || rewritten[at]
          // A file that stays may hold what something else has replaced.
          if !isGone[at] { deadLosses.remove(ranges[at]) }
        }
        return
      } catch {
        numbers += UInt64(writer.numbers.count)
        writer.takeBack()
        switch error {
        case .storage(let failure):
          // Others were quicker: nothing is rewritten, and what is dead goes. What the directory did not
          // take concerns their files too.
          guard failure.isNoSpace, failure.operation != .synchronizeDirectory, room > 0 else {
            throw failure
          }
          room = 0
        case .damaged(let index), .notInLog(let index):
          damaged.append(index)
          guard let at = candidate(of: index), !isKeptWhole[at] else {
            throw StorageFailure(
              .verify, site.directory, code: 0, detail: "entry \(index) read and not in any file")
          }
          isKeptWhole[at] = true
        }
      }
    }
  }

  static func storage<Result>(
    _ body: () throws(StorageFailure) -> Result
  ) throws(LogReadError) -> Result {
    do throws(StorageFailure) { return try body() } catch { throw .storage(error) }
  }

  /// Bytes that each candidate's live records would take in a kept file, at most.
  private func countLive() -> [UInt64] {
    var counts = candidates.map { _ in UInt64(0) }
    var recent = 0
    var losses = log.lost.through(keepFrom.previous)
    defer { deadLosses = losses }
    live { span in
      if losses.overlaps(EntryRange(first: span.first, last: span.last)) { return false }
      switch place(of: span) {
      case .none: return true
      case .several: return false
      case .one(let at):
        counts[at] += UInt64(span.count * (FragmentHeader.bytes + 7)) + span.bytes
        return true
      }
    } _: { record in
      if !losses.isEmpty, let alive = losses.range(containing: record.entry) {
        losses.remove(alive)
      }
      guard let at = candidate(of: record.entry, near: recent) else { return }
      recent = at
      counts[at] += UInt64(FragmentHeader.recordBytes(Int(record.size)))
    }
    return counts
  }

  /// - Parameter recent: where the last one was: most records lie beside their neighbours.
  private func candidate(of index: LogIndex, near recent: Int = 0) -> Int? {
    if recent < ranges.count, ranges[recent].contains(index) { return recent }
    let at = firstCandidate(from: index)
    return at < ranges.count && ranges[at].contains(index) ? at : nil
  }

  /// The first that does not end before `index`.
  private func firstCandidate(from index: LogIndex) -> Int {
    var low = 0
    var high = ranges.count
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].last < index { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// In how many candidates a span's entries are.
  private enum Place {
    case none
    case one(Int)
    case several
  }

  private func place(of span: RecordSpan) -> Place {
    let at = firstCandidate(from: span.first)
    guard at < ranges.count, ranges[at].first <= span.last else { return .none }
    return ranges[at].contains(span.first) && ranges[at].contains(span.last) ? .one(at) : .several
  }

  /// Which candidates to rewrite: those with little alive, and small kept files beside them, so that
  /// cleanings do not leave ever more little files.
  ///
  /// - Parameter room: what they may take of the disk, bytes. What does not fit is rewritten later, or goes
  ///   when nothing of it is alive.
  private func choose(_ counts: [UInt64], _ isKeptWhole: [Bool], room: UInt64) -> [Bool] {
    var chosen = candidates.map { _ in false }
    var (left, room) = (site.options.rewriteSegmentsMax, room)
    /// Each may come to begin a file.
    func bytes(_ at: Int) -> UInt64 { chosen[at] ? 0 : counts[at] + UInt64(FileHeader.blockBytes) }
    for at in candidates.indices where left > 0 && counts[at] > 0 && !isKeptWhole[at] {
      if counts[at] * 100 < candidates[at].bytes * site.options.rewriteBelowPercent,
        !isSmallKept(at), bytes(at) <= room
      {
        room -= bytes(at)
        chosen[at] = true
        left -= 1
      }
    }
    var previous: Int?
    for at in candidates.indices where counts[at] > 0 {
      if let previous, !isKeptWhole[at], !isKeptWhole[previous],
        isSmallKept(at) || isSmallKept(previous),
        isSmallKept(at) || chosen[at], isSmallKept(previous) || chosen[previous]
      {
        guard bytes(at) + bytes(previous) <= room else { break }
        room -= bytes(at) + bytes(previous)
        chosen[at] = true
        chosen[previous] = true
      }
      previous = at
    }
    return chosen
  }

  private func isSmallKept(_ at: Int) -> Bool {
    guard case .kept(let kept) = candidates[at] else { return false }
    return kept.bytes * 4 < site.options.segmentBytes
  }

  private func rewrite(
    _ chosen: [Bool], _ counts: [UInt64], _ writer: KeptWriter
  ) throws(LogReadError) {
    guard chosen.contains(true) else { return }
    var records: [RecordReference] = []
    var recent = 0
    live { span in
      switch place(of: span) {
      case .none: true
      case .one(let at): !chosen[at]
      case .several: false
      }
    } _: { record in
      guard let at = candidate(of: record.entry, near: recent) else { return }
      recent = at
      if chosen[at] { records.append(record) }
    }
    let files = ReadFiles(
      directory: site.directory, fileSystem: site.fileSystem, openMax: site.options.openFilesMax)
    var copier = FragmentCopier(log: log, files: files)
    var current = candidates.startIndex
    for fragment in FragmentCopier.merged(&records) {
      // A file that stays lies between: the ranges of kept files must not overlap it.
      while current < candidates.count, candidates[current].range.last < fragment.entry {
        if counts[current] > 0 && !chosen[current] {
          try Self.storage { () throws(StorageFailure) in try writer.breakFile() }
        }
        current += 1
      }
      let bytes = try copier.bytes(of: fragment)
      try Self.storage { () throws(StorageFailure) in
        try writer.add(entry: fragment.entry, offset: fragment.offset, bytes: bytes)
      }
    }
  }
}

/// Reads live records in ascending order, each entry once.
struct FragmentCopier {
  /// Neighbouring records are kept as one fragment up to this size.
  static let mergedBytesMax: UInt32 = 4096

  let log: LogFiles
  let files: ReadFiles
  private var block: PayloadBlock?

  init(log: LogFiles, files: ReadFiles) {
    self.log = log
    self.files = files
  }

  mutating func bytes(of fragment: RecordReference) throws(LogReadError) -> ArraySlice<UInt8> {
    if let block, block.contains(fragment) { return block.slice(fragment) }
    let found: PayloadBlock
    do throws(LogReadError) {
      found = try log.block(containing: fragment, files)
    } catch {
      guard case .notInLog = error else { throw error }
      found = try joined(fragment)
    }
    guard found.contains(fragment) else { throw .notInLog(fragment.entry) }
    block = found
    return found.slice(fragment)
  }

  /// Merged records may lie in several fragments of a kept file: one behind the other.
  private func joined(_ fragment: RecordReference) throws(LogReadError) -> PayloadBlock {
    var bytes: [UInt8] = []
    let end = fragment.offset + fragment.size
    while bytes.count < Int(fragment.size) {
      let at = fragment.offset + UInt32(bytes.count)
      let byte = RecordReference(entry: fragment.entry, offset: at, size: 1)
      let part = try log.block(containing: byte, files)
      guard part.contains(byte) else { throw .notInLog(fragment.entry) }
      let stop = min(end, part.offset + UInt32(part.bytes.count))
      bytes += part.bytes[Int(at - part.offset)..<Int(stop - part.offset)]
    }
    return PayloadBlock(entry: fragment.entry, offset: fragment.offset, bytes: bytes)
  }

  /// Sorts records, drops repeated ones and joins neighbours. Empties `records`.
  static func merged(_ records: inout [RecordReference]) -> [RecordReference] {
    records.sort { ($0.entry, $0.offset) < ($1.entry, $1.offset) }
    var count = 0
    for record in records {
      if count > 0 {
        let last = records[count - 1]
        let end = last.offset + last.size
        if last.entry == record.entry {
          if record.offset < end { continue }
          if record.offset == end, last.size + record.size <= mergedBytesMax {
            records[count - 1].size += record.size
            continue
          }
        }
      }
      records[count] = record
      count += 1
    }
    let result = Array(records[..<count])
    records = []
    return result
  }
}

/// Brings the bytes of damaged records back. `execute` on the low-priority thread, then
/// `LogStore.stage(_: RepairJob)`.
package final class RepairJob: @unchecked Sendable {
  /// So many ranges have a file of their own; large ones need several.
  private static let filesMax = Int(CleaningJob.numbersReserved) / 2

  let epoch: UInt64
  /// What is mended when the job is in force.
  package let ranges: [EntryRange]
  private let site: CleaningJob.Site
  private let records: [(RecordReference, [UInt8])]
  private let firstNumber: UInt64
  private(set) var isExecuted = false
  private(set) var patches: [KeptFile] = []

  init(
    epoch: UInt64, ranges: [EntryRange], records: [(RecordReference, [UInt8])],
    site: CleaningJob.Site, firstNumber: UInt64
  ) {
    self.epoch = epoch
    self.ranges = ranges
    self.records = records
    self.site = site
    self.firstNumber = firstNumber
  }

  package func execute() throws(StorageFailure) {
    isExecuted = true
    let sorted = records.sorted { ($0.0.entry, $0.0.offset) < ($1.0.entry, $1.0.offset) }
    let writer = KeptWriter(
      directory: site.directory, fileSystem: site.fileSystem, identity: site.identity,
      firstNumber: firstNumber, fileBytesMax: site.options.segmentBytes, isSteady: true)
    var last: RecordReference?
    let ranges = EntryRanges(ranges).ranges
    var at = ranges.startIndex
    for (record, bytes) in sorted where record != last {
      invariant(
        bytes.count == Int(record.size), "\(bytes.count) bytes for a record of \(record.size)")
      // What a file stands for are the entries from its first to its last.
      while at < ranges.endIndex, ranges[at].last < record.entry {
        if writer.numbers.count < Self.filesMax { try writer.breakFile() }
        at += 1
      }
      try writer.add(entry: record.entry, offset: record.offset, bytes: bytes[...])
      last = record
    }
    patches = try writer.finish()
  }
}
