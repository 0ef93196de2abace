// What a log store knows, and the writing of the log: where each record goes, what the state file says
// when, which files are spare. `LogStore` has one of these and gives its callers' orders on.

import Base
import Consensus

/// The state of a `LogStore`. A value, so that an order is one access to it, however much of it the
/// order reads and changes.
struct StoreState: ~Copyable {
  let identity: StoreIdentity
  let options: StoreOptions
  let context: JobContext

  /// What is where, as staged.
  var log = LogFiles()
  /// Terms of the entries in the stream, ascending.
  var runs: [TermRun] = []
  /// The entry before the first one whose term `runs` knows.
  var base = LogPosition.zero
  /// The end of the log as staged.
  var last = LogPosition.zero
  /// The first entry that `entries` can give; one past `last` if there is none.
  var firstIndex = LogIndex(1)
  /// What is durable: the end of the last job that was finished.
  var synced = SyncedEnd()

  var stateSlots: StateSlots
  var isMemoryLost = false
  var manifestEdition: UInt64 = 0
  var snapshotFile: SnapshotFile?
  /// The snapshot in force.
  var snapshot: SnapshotInfo? { snapshotFile?.info }

  /// Staged entries that are not known to be on disk yet, with the job that writes them.
  var pending = RingBuffer<PendingEntry>()
  var nextJob: UInt64 = 1
  var nextFinished: UInt64 = 1
  /// The file of the last segment of the stream, nil if it has to be opened or is ended.
  var writeFile: SegmentWriteFile?
  var nextSegment: UInt64 = 1
  var nextNumber: UInt64 = 1
  var spares: [SpareFile] = []
  /// Whether dead files stay for reuse, more than are needed at once: not where the disk is short.
  var keepsSpares = true
  /// Whether entries that are staged from here on are likely to be read again soon.
  var expectsReads = false
  /// Not in force any more and not disposed of yet.
  var dead: [DeadFile] = []
  var isUpkeepRunning = false
  var isUpkeepBlocked = false
  /// Snapshot streams and cleanings that still read files.
  var pins = 0
  var isCleaning = false
  /// Grows when an installed snapshot replaces the log: a cleaning planned before is void.
  var epoch: UInt64 = 0
  /// Why nothing is written any more (G12).
  var failure: StorageFailure?
  var counters = StoreFigures()

  struct PendingEntry {
    var entry: Entry
    var job: UInt64
  }

  struct SnapshotFile: Equatable {
    var number: UInt64
    var info: SnapshotInfo
    var fileBytes: UInt64
  }

  init(
    identity: StoreIdentity, options: StoreOptions, context: JobContext, stateSlots: StateSlots
  ) {
    self.identity = identity
    self.options = options
    self.context = context
    self.stateSlots = stateSlots
  }

  mutating func stage(_ operations: [LogOperation]) -> WriteJob {
    var job = beginJob()
    var saved: HardState?
    for operation in operations {
      switch operation {
      case .saveHardState(let state): saved = state
      case .truncate(let from): stageTruncate(from, &job)
      case .append(let entries):
        let term = (saved ?? stateSlots.record.hardState).term
        for entry in entries {
          invariant(entry.header.term <= term, "entry of term \(entry.header.term) in term \(term)")
          stageAppend(entry, &job)
        }
      }
    }
    return endJob(job, saved: saved)
  }

  mutating func stageMarker() -> WriteJob? {
    let isNoted =
      stateSlots.record.synced == synced && stateSlots.isLastDurable
      && stateSlots.record.isMemoryLost == isMemoryLost
    if isNoted || nextFinished < nextJob { return nil }
    return endJob(beginJob(), saved: stateSlots.record.hardState)
  }

  mutating func finished(_ job: WriteJob) throws(StorageFailure) {
    invariant(
      job.ordinal == nextFinished, "job \(job.ordinal) finished before job \(nextFinished)")
    invariant(job.isExecuted || job.isEmpty, "job \(job.ordinal) finished and not executed")
    nextFinished += 1
    if let failure = job.failure ?? failure {
      self.failure = failure
      throw failure
    }
    counters.add(job)
    synced = job.plan.end
    while !pending.isEmpty, pending[0].job <= job.ordinal { _ = pending.popFirst() }
    if !job.plan.dead.isEmpty { dead += job.plan.dead }
    if !job.plan.dead.isEmpty || job.plan.writesLog { isUpkeepBlocked = false }
  }

  /// The term of an entry that is in the log, or of the one before; nil for others.
  func term(of index: LogIndex) -> Term? {
    if index > last.index { return nil }
    if let snapshot, snapshot.position.index == index { return snapshot.position.term }
    if let run = runs.last(where: { $0.first <= index }) { return run.term }
    return index == base.index ? base.term : nil
  }
}

// The steps of staging.
extension StoreState {
  mutating func beginJob() -> WritePlan {
    defer { nextJob += 1 }
    return WritePlan(ordinal: nextJob)
  }

  /// Adds what goes to the state file. A save goes before the log's writes and is synced; a marker
  /// goes behind them and is not, except where a segment was begun, which must not be forgotten.
  mutating func endJob(_ begun: consuming WritePlan, saved: HardState?) -> WriteJob {
    var job = begun
    job.expectsReads = expectsReads
    job.end = SyncedEnd(place: endPlace, position: last)
    var record = stateSlots.record
    let wasMemoryLost = record.isMemoryLost
    record.isMemoryLost = isMemoryLost
    record.synced = synced
    if saved != nil || isMemoryLost != wasMemoryLost {
      record.hardState = saved ?? record.hardState
      job.stateBefore = stateSlots.save(record)
    }
    if job.writesLog || job.manifest != nil {
      record.synced = job.end
      let newest = log.stream.last?.segment ?? 0
      let hasBegun = newest > record.newestSegment
      record.newestSegment = max(newest, record.newestSegment)
      job.stateAfter = hasBegun ? stateSlots.save(record) : stateSlots.mark(record)
    }
    return WriteJob(job, context)
  }

  /// Where the next record goes, the beginning of the next segment if none is open.
  var endPlace: LogPlace {
    if let open = log.stream.last, !open.isEnded { return open.end }
    return LogPlace(segment: nextSegment, offset: UInt32(FileHeader.blockBytes))
  }

  private mutating func stageTruncate(_ from: LogIndex, _ job: inout WritePlan) {
    invariant(from > (snapshot?.position.index ?? .zero), "truncate \(from) in the snapshot")
    invariant(from <= last.index.next, "truncate \(from) behind the end \(last)")
    if from == last.index.next { return }
    guard let previousTerm = term(of: from.previous) else {
      invariant(false, "truncate from \(from): entry before it unknown")
      return
    }
    place(.truncate, term: previousTerm, index: from, previousTerm: previousTerm, [], &job)
    for place in log.stream.indices { log.stream[place].truncate(from: from) }
    while let newest = pending.last, newest.entry.index >= from { _ = pending.popLast() }
    runs.removeAll { $0.first >= from }
    last = LogPosition(term: previousTerm, index: from.previous)
    firstIndex = min(firstIndex, from)
  }

  private mutating func stageAppend(_ entry: Entry, _ job: inout WritePlan) {
    let header = entry.header
    invariant(header.index == last.index.next, "append \(header.index) behind \(last)")
    invariant(
      Int(header.payloadBytes) == entry.payload.count,
      "entry \(header.index) says \(header.payloadBytes) bytes, has \(entry.payload.count)")
    let slot = place(
      RecordKind(header.kind), term: header.term, index: header.index, previousTerm: last.term,
      entry.payload, checksum: header.payloadChecksum, &job)
    log.stream[log.stream.count - 1].note(header.index, slot)
    pending.append(PendingEntry(entry: entry, job: job.ordinal))
    if runs.last?.term != header.term {
      runs.append(TermRun(first: header.index, term: header.term))
    }
    last = header.position
  }

  /// Puts a record behind the last one, beginning a segment where it does not fit.
  @discardableResult
  private mutating func place(
    _ kind: RecordKind, term: Term, index: LogIndex, previousTerm: Term, _ payload: [UInt8],
    checksum: Checksum = Checksum(rawValue: 0), _ job: inout WritePlan
  ) -> EntrySlot {
    let needed = RecordHeader.recordBytes(payload: payload.count)
    if !hasRoom(for: needed) { roll(needed: needed, &job) }
    let (place, life) = log.takePlace(needed)
    var header = RecordHeader(
      kind: kind, term: term, index: index, previousTerm: previousTerm, place: place,
      life: life, synced: synced)
    header.payloadBytes = UInt32(payload.count)
    header.payloadChecksum = checksum
    job.add(header, payload, to: openWriteFile())
    return EntrySlot(offset: place.offset, payloadBytes: UInt32(payload.count))
  }

  private func hasRoom(for needed: Int) -> Bool {
    guard let segment = log.stream.last, !segment.isEnded else { return false }
    return UInt64(segment.used) + UInt64(needed + RecordHeader.bytes) <= segment.fileBytes
  }

  private mutating func openWriteFile() -> SegmentWriteFile {
    if let writeFile { return writeFile }
    invariant(!log.stream.isEmpty, "a record before the first segment")
    let number = log.stream[log.stream.count - 1].number
    let file = SegmentWriteFile(name: FileNames.segment(number), newFileBytes: nil)
    writeFile = file
    return file
  }

  /// Ends the segment and begins the next, in a spare file if one fits.
  private mutating func roll(needed: Int, _ job: inout WritePlan) {
    if let segment = log.stream.last, !segment.isEnded {
      let end = RecordHeader(
        kind: .end, term: last.term, index: last.index.next, previousTerm: last.term,
        place: segment.end, life: segment.life, synced: synced)
      job.add(end, [], to: openWriteFile())
      log.stream[log.stream.count - 1].used += UInt32(RecordHeader.bytes)
      log.stream[log.stream.count - 1].isEnded = true
    }
    let least = UInt64(FileHeader.blockBytes + needed + RecordHeader.bytes)
    var header = FileHeader(
      use: .log, identity: identity, life: 1, number: 0,
      fileBytes: max(options.segmentBytes, (least + 4095) / 4096 * 4096))
    let isNew: Bool
    if header.fileBytes == options.segmentBytes, let spare = spares.popLast() {
      header.number = spare.number
      header.life = spare.life + 1
      isNew = false
    } else {
      header.number = takeNumbers(1)
      isNew = true
    }
    header.segment = nextSegment
    header.nextIndex = last.index.next
    header.previousTerm = last.term
    nextSegment += 1
    log.stream.append(
      LogSegment(
        segment: header.segment, number: header.number, life: header.life,
        fileBytes: header.fileBytes, used: UInt32(FileHeader.blockBytes),
        startIndex: header.nextIndex, startPreviousTerm: header.previousTerm,
        firstEntry: header.nextIndex))
    let file = SegmentWriteFile(
      name: FileNames.segment(header.number), newFileBytes: isNew ? header.fileBytes : nil)
    writeFile = file
    var write = SegmentWrite(file: file, offset: isNew ? 0 : UInt64(FileHeader.blockBytes))
    if isNew { write.gather.add(header.block()) } else { write.head = header.block() }
    job.begin(write)
    isUpkeepBlocked = false
  }

  /// Reserves file numbers.
  mutating func takeNumbers(_ count: UInt64) -> UInt64 {
    let first = nextNumber
    nextNumber += count
    return first
  }
}
