// The log store: what a node keeps on its disk. This file has the state and the writing; reading,
// snapshots, cleaning and opening are in the extensions beside it.
//
// Decide and do are apart: the store decides on the event loop where bytes go and builds jobs; the
// jobs do the I/O on whatever thread runs them. Nothing here reads a clock or starts a thread, so
// the simulator runs this code as it is.

import Base
import Consensus

/// The log, hard state and snapshots of one node. Used by one thread, the event loop.
///
/// Write jobs must be executed and given back to `finished` in the order in which they were staged.
package final class LogStore {
  let directory: String
  let identity: StoreIdentity
  let options: StoreOptions
  let fileSystem: any FileSystem
  let context: JobContext
  /// Held as long as the store lives.
  let lock: any DirectoryLock

  /// What is where, as staged.
  var log: LogFiles
  /// Terms of the entries in the stream, ascending.
  var runs: [TermRun]
  /// The entry before the first one whose term `runs` knows.
  var base: LogPosition
  /// The end of the log as staged.
  package internal(set) var last: LogPosition
  /// The first entry that `entries` can give; one past `last` if there is none.
  package internal(set) var firstIndex: LogIndex
  /// What is durable: the end of the last job that was finished.
  var synced: SyncedEnd
  /// The log's durable end.
  package var syncedLast: LogPosition { synced.position }

  var stateSlots: StateSlots
  var isMemoryLost: Bool
  var manifestEdition: UInt64
  var snapshotFile: SnapshotFile?
  /// The snapshot in force.
  package var snapshot: SnapshotInfo? { snapshotFile?.info }

  /// Staged entries that are not known to be on disk yet, with the job that writes them.
  var pending = RingBuffer<PendingEntry>()
  var nextJob: UInt64 = 1
  var nextFinished: UInt64 = 1
  /// The file of the last segment of the stream, nil if it has to be opened or is ended.
  var writeFile: SegmentWriteFile?
  var nextSegment: UInt64
  var nextNumber: UInt64
  var spares: [SpareFile]
  /// Whether dead files stay for reuse, more than are needed at once: not where the disk is short.
  package var keepsSpares = true
  /// Not in force any more and not disposed of yet.
  var dead: [DeadFile]
  var isUpkeepRunning = false
  var isUpkeepBlocked = false
  /// Snapshot streams and cleanings that still read files.
  var pins = 0
  var isCleaning = false
  /// Grows when an installed snapshot replaces the log: a cleaning planned before is void.
  var epoch: UInt64 = 0
  let readFiles: ReadFiles
  /// What followers are fed from: opened here, read by `EntryReadJob` alone.
  let feedFiles: ReadFiles
  /// Why nothing is written any more (G12).
  package internal(set) var failure: StorageFailure?
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

  /// What opening found; see `LogStore.open`.
  struct Start {
    var directory: String
    var identity: StoreIdentity
    var options: StoreOptions
    var fileSystem: any FileSystem
    var context: JobContext
    var lock: any DirectoryLock
    var log = LogFiles()
    var runs: [TermRun] = []
    var base = LogPosition.zero
    var last = LogPosition.zero
    var firstIndex = LogIndex(1)
    var synced = SyncedEnd()
    var stateSlots: StateSlots
    var isMemoryLost = false
    var manifestEdition: UInt64 = 0
    var snapshotFile: SnapshotFile?
    var nextSegment: UInt64 = 1
    var nextNumber: UInt64 = 1
    var spares: [SpareFile] = []
    var dead: [DeadFile] = []
  }

  init(_ start: Start) {
    directory = start.directory
    identity = start.identity
    options = start.options
    fileSystem = start.fileSystem
    context = start.context
    lock = start.lock
    log = start.log
    runs = start.runs
    base = start.base
    last = start.last
    firstIndex = start.firstIndex
    synced = start.synced
    stateSlots = start.stateSlots
    isMemoryLost = start.isMemoryLost
    manifestEdition = start.manifestEdition
    snapshotFile = start.snapshotFile
    nextSegment = start.nextSegment
    nextNumber = start.nextNumber
    spares = start.spares
    dead = start.dead
    readFiles = ReadFiles(
      directory: start.directory, fileSystem: start.fileSystem,
      openMax: start.options.openFilesMax)
    feedFiles = ReadFiles(
      directory: start.directory, fileSystem: start.fileSystem, openMax: 4, readsOnce: true)
  }

  /// The hard state as staged.
  package var hardState: HardState { stateSlots.record.hardState }

  /// Builds the job that makes `operations` durable. Operations of several batches may be given at
  /// once: they cost one fdatasync together (group commit).
  package func stage(_ operations: [LogOperation]) -> WriteJob {
    let job = beginJob()
    var saved: HardState?
    for operation in operations {
      switch operation {
      case .saveHardState(let state): saved = state
      case .truncate(let from): stageTruncate(from, job)
      case .append(let entries):
        let term = (saved ?? hardState).term
        for entry in entries {
          invariant(entry.header.term <= term, "entry of term \(entry.header.term) in term \(term)")
          stageAppend(entry, job)
        }
      }
    }
    endJob(job, saved: saved)
    return job
  }

  /// Notes on disk how far the log is synced, for a clean stop and for idle times: damage to the
  /// last batch is then never taken for a torn write. nil if that is noted already.
  package func stageMarker() -> WriteJob? {
    let isNoted =
      stateSlots.record.synced == synced && stateSlots.isLastDurable
      && stateSlots.record.isMemoryLost == isMemoryLost
    if isNoted || pendingJobs > 0 { return nil }
    let job = beginJob()
    endJob(job, saved: hardState)
    return job
  }

  /// Staged and not finished.
  package var pendingJobs: Int { Int(nextJob - nextFinished) }

  /// Takes a job back when it was executed.
  ///
  /// - Throws: what the execution threw. Nothing is written from then on, and no later job counts.
  package func finished(_ job: WriteJob) throws(StorageFailure) {
    invariant(
      job.ordinal == nextFinished, "job \(job.ordinal) finished before job \(nextFinished)")
    invariant(job.isExecuted || job.isEmpty, "job \(job.ordinal) finished and not executed")
    nextFinished += 1
    if let failure = job.failure ?? failure {
      self.failure = failure
      throw failure
    }
    counters.add(job)
    synced = job.end
    while let first = pending.first, first.job <= job.ordinal { _ = pending.popFirst() }
    if !job.dead.isEmpty {
      dead += job.dead
      for file in job.dead {
        readFiles.close(file.name)
        feedFiles.close(file.name)
      }
    }
    if !job.dead.isEmpty || !job.writes.isEmpty { isUpkeepBlocked = false }
  }

  /// The directory was empty because its disk was wiped: as if `Recovery.isMemoryLost` had been
  /// found. Goes to the disk with the next job, before or with any term that is saved.
  package func memoryWasLost() { isMemoryLost = true }
  /// After `Recovery.isMemoryLost`: a leader elected without this node has brought it up to date.
  /// Goes to the disk with the next job, which may be one of no operations.
  package func memoryIsRestored() { isMemoryLost = false }

  /// The term of an entry that is in the log, or of the one before; nil for others.
  func term(of index: LogIndex) -> Term? {
    if index > last.index { return nil }
    if let snapshot, snapshot.position.index == index { return snapshot.position.term }
    if let run = runs.last(where: { $0.first <= index }) { return run.term }
    return index == base.index ? base.term : nil
  }
}

extension LogStore {
  func beginJob() -> WriteJob {
    let job = WriteJob(ordinal: nextJob, context: context)
    nextJob += 1
    return job
  }

  /// Adds what goes to the state file. A save goes before the log's writes and is synced; a marker
  /// goes behind them and is not, except where a segment was begun, which must not be forgotten.
  func endJob(_ job: WriteJob, saved: HardState?) {
    let end = SyncedEnd(place: endPlace, position: last)
    job.end = end
    for place in job.writes.indices { job.writes[place].gather.flush() }
    var record = stateSlots.record
    let wasMemoryLost = record.isMemoryLost
    record.isMemoryLost = isMemoryLost
    record.synced = synced
    if saved != nil || isMemoryLost != wasMemoryLost {
      record.hardState = saved ?? record.hardState
      job.stateBefore = stateSlots.save(record)
    }
    if job.writes.isEmpty && job.manifest == nil { return }
    record.synced = end
    let newest = log.stream.last?.segment ?? 0
    let hasBegun = newest > record.newestSegment
    record.newestSegment = max(newest, record.newestSegment)
    job.stateAfter = hasBegun ? stateSlots.save(record) : stateSlots.mark(record)
  }

  /// Where the next record goes, the beginning of the next segment if none is open.
  var endPlace: LogPlace {
    if let open = log.stream.last, !open.isEnded { return open.end }
    return LogPlace(segment: nextSegment, offset: UInt32(FileHeader.blockBytes))
  }

  private func stageTruncate(_ from: LogIndex, _ job: WriteJob) {
    invariant(from > (snapshot?.position.index ?? .zero), "truncate \(from) in the snapshot")
    invariant(from <= last.index.next, "truncate \(from) behind the end \(last)")
    if from == last.index.next { return }
    guard let previousTerm = term(of: from.previous) else {
      invariant(false, "truncate from \(from): entry before it unknown")
      return
    }
    place(.truncate, term: previousTerm, index: from, previousTerm: previousTerm, [], job)
    for place in log.stream.indices { log.stream[place].truncate(from: from) }
    while let newest = pending.last, newest.entry.index >= from { _ = pending.popLast() }
    runs.removeAll { $0.first >= from }
    last = LogPosition(term: previousTerm, index: from.previous)
    firstIndex = min(firstIndex, from)
  }

  private func stageAppend(_ entry: Entry, _ job: WriteJob) {
    let header = entry.header
    invariant(header.index == last.index.next, "append \(header.index) behind \(last)")
    invariant(
      Int(header.payloadBytes) == entry.payload.count,
      "entry \(header.index) says \(header.payloadBytes) bytes, has \(entry.payload.count)")
    let slot = place(
      RecordKind(header.kind), term: header.term, index: header.index, previousTerm: last.term,
      entry.payload, checksum: header.payloadChecksum, job)
    log.stream[log.stream.count - 1].note(header.index, slot)
    pending.append(PendingEntry(entry: entry, job: job.ordinal))
    if runs.last?.term != header.term {
      runs.append(TermRun(first: header.index, term: header.term))
    }
    last = header.position
  }

  /// Puts a record behind the last one, beginning a segment where it does not fit.
  @discardableResult
  private func place(
    _ kind: RecordKind, term: Term, index: LogIndex, previousTerm: Term, _ payload: [UInt8],
    checksum: Checksum = Checksum(rawValue: 0), _ job: WriteJob
  ) -> EntrySlot {
    let needed = RecordHeader.recordBytes(payload: payload.count)
    if !hasRoom(for: needed) { roll(needed: needed, job) }
    let (place, life) = log.takePlace(needed)
    var header = RecordHeader(
      kind: kind, term: term, index: index, previousTerm: previousTerm, place: place,
      life: life, synced: synced)
    header.payloadBytes = UInt32(payload.count)
    header.payloadChecksum = checksum
    write(header, payload, job)
    return EntrySlot(offset: place.offset, payloadBytes: UInt32(payload.count))
  }

  private func hasRoom(for needed: Int) -> Bool {
    guard let segment = log.stream.last, !segment.isEnded else { return false }
    return UInt64(segment.used) + UInt64(needed + RecordHeader.bytes) <= segment.fileBytes
  }

  private func write(_ header: RecordHeader, _ payload: [UInt8], _ job: WriteJob) {
    job.add(header, payload, to: openWriteFile())
  }

  private func openWriteFile() -> SegmentWriteFile {
    if let writeFile { return writeFile }
    invariant(!log.stream.isEmpty, "a record before the first segment")
    let number = log.stream[log.stream.count - 1].number
    let file = SegmentWriteFile(name: FileNames.segment(number), newFileBytes: nil)
    writeFile = file
    return file
  }

  /// Ends the segment and begins the next, in a spare file if one fits.
  private func roll(needed: Int, _ job: WriteJob) {
    if let segment = log.stream.last, !segment.isEnded {
      let end = RecordHeader(
        kind: .end, term: last.term, index: last.index.next, previousTerm: last.term,
        place: segment.end, life: segment.life, synced: synced)
      write(end, [], job)
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
    var write = WriteJob.SegmentWrite(
      file: file, offset: isNew ? 0 : UInt64(FileHeader.blockBytes))
    if isNew { write.gather.add(header.block()) } else { write.head = header.block() }
    job.writes.append(write)
    isUpkeepBlocked = false
  }

  /// Reserves file numbers.
  func takeNumbers(_ count: UInt64) -> UInt64 {
    let first = nextNumber
    nextNumber += count
    return first
  }

  /// The manifest of what is in force as staged. Damage of which its files would not tell the next start
  /// is added to what is lost first.
  func manifest() -> Manifest {
    rememberLosses(among: log.sparse)
    manifestEdition += 1
    var manifest = Manifest(node: identity.node)
    manifest.edition = manifestEdition
    if let snapshotFile {
      manifest.snapshotNumber = snapshotFile.number
      manifest.snapshot = snapshotFile.info.position
    }
    if let first = log.stream.first {
      manifest.streamFirst = first.segment
      manifest.streamIndex = first.startIndex
      manifest.streamPreviousTerm = first.startPreviousTerm
    } else {
      manifest.streamFirst = nextSegment
      manifest.streamIndex = last.index.next
      manifest.streamPreviousTerm = last.term
    }
    manifest.files = log.sparse.map(Self.listed) + log.patches.map { Self.listed($0, .patch) }
    manifest.lost = log.lost.ranges
    manifest.mended = log.mended.ranges
    return manifest
  }

  static func listed(_ file: SparseFile) -> Manifest.File {
    switch file {
    case .segment(let segment):
      Manifest.File(
        form: .segment, number: segment.number, segment: segment.segment, life: segment.life,
        range: file.range, bytes: UInt64(segment.used))
    case .kept(let kept): listed(kept, .kept)
    }
  }

  static func listed(_ kept: KeptFile, _ form: Manifest.Form) -> Manifest.File {
    Manifest.File(form: form, number: kept.number, range: kept.range, bytes: kept.bytes)
  }
}

extension LogStore {
  /// What is to be done to the files that are not in force; nil if nothing is, or a job is under
  /// way. Ask after every `finished`.
  package func nextUpkeep() -> UpkeepJob? {
    if isUpkeepRunning || isUpkeepBlocked || failure != nil { return nil }
    var recycled: [SpareFile] = []
    var deleted: [DeadFile] = []
    let sparesMax = max(keepsSpares ? options.sparesMax : 0, options.sparesReady)
    while spares.count > sparesMax {
      let spare = spares.removeFirst()
      deleted.append(
        .segment(number: spare.number, life: spare.life, fileBytes: spare.fileBytes))
    }
    if pins == 0, !dead.isEmpty {
      for file in dead {
        if case .segment(let number, let life, options.segmentBytes) = file,
          spares.count + recycled.count < sparesMax
        {
          recycled.append(
            SpareFile(number: number, life: life + 1, fileBytes: options.segmentBytes))
        } else {
          deleted.append(file)
        }
      }
      dead = []
    }
    let missing = max(0, options.sparesReady - spares.count - recycled.count)
    let made = (0..<missing).map { _ in
      SpareFile(number: takeNumbers(1), life: 1, fileBytes: options.segmentBytes)
    }
    if recycled.isEmpty && deleted.isEmpty && made.isEmpty { return nil }
    isUpkeepRunning = true
    return UpkeepJob(
      context: context, identity: identity, recycled: recycled, deleted: deleted, made: made,
      isDiskShort: !keepsSpares)
  }

  package func finished(_ job: UpkeepJob) {
    invariant(job.isExecuted && isUpkeepRunning, "upkeep finished and not executed")
    isUpkeepRunning = false
    // After a failure nothing is tried again before something has changed.
    isUpkeepBlocked = job.failure != nil
    // Taken from the end: recycled files, whose blocks exist, before new ones.
    spares =
      job.made.filter { job.spares.contains($0) } + spares
      + job.recycled.filter { job.spares.contains($0) }
  }

  package var figures: StoreFigures {
    var figures = counters
    figures.segmentFiles =
      log.stream.count
      + log.sparse.count {
        if case .segment = $0 { true } else { false }
      }
    figures.keptFiles =
      log.sparse.count + log.stream.count - figures.segmentFiles
      + log.patches.count
    figures.spareFiles = spares.count
    figures.reusableBytes = spares.dropFirst(options.sparesReady).reduce(0) { $0 + $1.fileBytes }
    figures.diskBytes =
      log.stream.reduce(0) { $0 + $1.fileBytes } + log.sparse.reduce(0) { $0 + $1.bytes }
      + log.patches.reduce(0) { $0 + $1.bytes } + spares.reduce(0) { $0 + $1.fileBytes }
      + (snapshotFile?.fileBytes ?? 0)
    return figures
  }

  /// Bytes that may still be written to the disk.
  package func freeBytes() throws(StorageFailure) -> UInt64 {
    try fileSystem.freeBytes(directory)
  }
}
