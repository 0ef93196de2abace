// Snapshots, cleaning, repair and installing a snapshot from the leader: each is prepared elsewhere
// and put in force here, by a write job that replaces the manifest.

import Base
import Consensus

extension LogStore {
  private var site: CleaningJob.Site {
    CleaningJob.Site(
      directory: directory, identity: state.identity, fileSystem: fileSystem, options: state.options
    )
  }

  /// A writer for a snapshot of the machine as of `position`, which must be applied and committed.
  package func snapshotWriter(
    position: LogPosition, membership: Membership, stateHash: UInt64, stateHashIndex: LogIndex
  ) -> SnapshotWriter {
    let info = SnapshotInfo(
      position: position, membership: membership, stateHash: stateHash,
      stateHashIndex: stateHashIndex, byteCount: 0)
    return SnapshotWriter(
      info: info, number: state.takeNumbers(1), directory: directory, fileSystem: fileSystem,
      room: StoreRoom(
        segmentBytes: state.options.segmentBytes, snapshotBytes: snapshot?.byteCount ?? 0))
  }

  /// Puts a finished snapshot in force; the one before is removed. nil if the snapshot in force is
  /// newer, as after one from the leader was installed meanwhile.
  package func stage(_ written: SnapshotWriter) -> WriteJob? {
    invariant(written.isFinished, "snapshot staged and not finished")
    if let snapshot, snapshot.position.index >= written.position.index {
      state.dead.append(.other(name: FileNames.snapshot(written.number)))
      return nil
    }
    invariant(
      written.position.index <= state.last.index, "snapshot behind the log's end \(state.last)")
    var job = state.beginJob()
    replaceSnapshot(
      StoreState.SnapshotFile(
        number: written.number, info: written.info, fileBytes: written.fileBytes), &job)
    job.manifest = state.manifest()
    return state.endJob(job, saved: nil)
  }

  private func replaceSnapshot(_ next: StoreState.SnapshotFile, _ job: inout WritePlan) {
    if let old = state.snapshotFile {
      job.dead.append(.other(name: FileNames.snapshot(old.number)))
    }
    state.snapshotFile = next
  }

  /// Reads the snapshot in force; nil if there is none.
  package func snapshotReader() -> SnapshotReader? {
    guard let snapshotFile = state.snapshotFile else { return nil }
    return SnapshotReader(
      info: snapshotFile.info, path: directory + "/" + FileNames.snapshot(snapshotFile.number),
      fileSystem: fileSystem)
  }

  /// Plans a cleaning; nil if there is nothing to clean or one is under way.
  ///
  /// - Parameter keepFrom: entries from here on stay whole, for followers that are behind. Never
  ///   more is given up than what the snapshot in force covers.
  /// - Parameter live: every record that the snapshot in force refers to, at least.
  package func cleaning(keepFrom: LogIndex, live: @escaping LiveSpans) -> CleaningJob? {
    guard let snapshot, !state.isCleaning, state.failure == nil else { return nil }
    let limit = min(keepFrom, snapshot.position.index.next)
    var candidates = state.log.sparse
    var streamCount = 0
    for segment in state.log.stream.dropLast() {
      // What is not on the disk yet cannot be read by the job.
      guard segment.isEnded, segment.segment < state.synced.place.segment,
        (segment.lastEntry ?? .zero) < limit
      else { break }
      streamCount += 1
      if !segment.slots.isEmpty { candidates.append(.segment(segment)) }
    }
    if candidates.isEmpty && streamCount == 0 { return nil }
    state.isCleaning = true
    state.pins += 1
    return CleaningJob(
      keepFrom: limit, epoch: state.epoch, site: site, log: state.log, live: live,
      firstNumber: state.takeNumbers(CleaningJob.numbersReserved), candidates: candidates,
      streamCount: streamCount)
  }

  /// Puts a cleaning in force; nil if it changed nothing, failed, or the log was replaced meanwhile.
  package func stage(_ done: CleaningJob) -> WriteJob? {
    invariant(state.isCleaning, "cleaning staged and not planned")
    state.isCleaning = false
    state.pins -= 1
    state.isUpkeepBlocked = false
    guard done.isExecuted, done.epoch == state.epoch else {
      state.dead += done.kept.map { .other(name: FileNames.kept($0.number)) }
      return nil
    }
    let empty = done.streamCount - done.candidates.count { $0.isOfStream(state.log) }
    if !done.isGone.contains(true) && empty == 0 && done.deadLosses.isEmpty { return nil }
    var job = state.beginJob()
    let staying = Set(
      done.candidates.indices.filter { !done.isGone[$0] }
        .compactMap { done.candidates[$0].segmentNumber })
    for segment in state.log.stream.prefix(done.streamCount)
    where segment.slots.isEmpty && !staying.contains(segment.number) {
      job.dead.append(SparseFile.segment(segment).dead)
    }
    state.log.stream.removeFirst(done.streamCount)
    // Before they are replaced: a kept file's range may hide what lay between them.
    state.rememberLosses(among: done.candidates)
    var sparse: [SparseFile] = done.kept.map { .kept($0) }
    for (at, file) in done.candidates.enumerated() {
      guard done.isGone[at] else {
        sparse.append(file)
        continue
      }
      job.dead.append(file.dead)
      // What was alive of them lies in a kept file now, out of repairs too.
      state.log.forget(file.range)
    }
    for range in done.deadLosses.ranges { state.log.forget(range) }
    state.log.sparse = sparse.sorted { $0.range.first < $1.range.first }
    dropPatches(&job)
    moveFirstIndex()
    job.manifest = state.manifest()
    return state.endJob(job, saved: nil)
  }

  /// The stream begins later: so do the entries that can be given.
  private func moveFirstIndex() {
    guard let first = state.log.stream.first else { return }
    let known = first.startIndex.previous
    if known > state.base.index {
      state.base = LogPosition(term: first.startPreviousTerm, index: known)
    }
    let whole = state.log.stream.first { !$0.slots.isEmpty }?.firstEntry ?? state.last.index.next
    state.firstIndex = max(state.firstIndex, whole)
  }

  /// Patches that are looked into for no entry any more.
  private func dropPatches(_ job: inout WritePlan) {
    let mended = state.log.mended
    for patch in state.log.patches where !mended.overlaps(patch.range) {
      job.dead.append(.other(name: FileNames.kept(patch.number)))
    }
    state.log.patches.removeAll { !mended.overlaps($0.range) }
  }

  /// Notes what a cleaning has found damaged. Ask before it is staged.
  ///
  /// - Returns: the entries that are to be repaired.
  package func noteDamage(foundBy job: CleaningJob) -> [LogIndex] {
    guard job.epoch == state.epoch else { return [] }
    let found = job.damaged.filter { !job.isMendedSince($0, in: state.log) }
    for index in found { noteDamage(index) }
    return found
  }

  /// A read found damage that recovery did not see.
  package func noteDamage(_ index: LogIndex) {
    state.log.damaged.insert(EntryRange(first: index, last: index))
  }

  /// Entries whose records are known to be damaged, ascending.
  package var damagedEntries: [EntryRange] { state.log.damaged.ranges }

  /// A repair of `ranges`, all damaged, with the bytes of every record in them that is alive.
  package func repair(
    _ ranges: [EntryRange], with records: [(RecordReference, [UInt8])]
  ) -> RepairJob {
    for (record, _) in records {
      invariant(
        ranges.contains { $0.contains(record.entry) },
        "record of entry \(record.entry) outside the repaired ranges")
    }
    return RepairJob(
      epoch: state.epoch, ranges: ranges, records: records, site: site,
      firstNumber: state.takeNumbers(CleaningJob.numbersReserved))
  }

  /// Puts a repair in force; nil if the log was replaced meanwhile.
  package func stage(_ done: RepairJob) -> WriteJob? {
    guard done.isExecuted, done.epoch == state.epoch else {
      state.dead += done.patches.map { .other(name: FileNames.kept($0.number)) }
      return nil
    }
    var job = state.beginJob()
    // What has its entries now need not be whole any more.
    let isReplaced = { (patch: KeptFile) in
      done.ranges.contains { $0.first <= patch.range.first && patch.range.last <= $0.last }
    }
    for patch in state.log.patches where isReplaced(patch) {
      job.dead.append(.other(name: FileNames.kept(patch.number)))
    }
    state.log.patches = done.patches + state.log.patches.filter { !isReplaced($0) }
    for range in done.ranges {
      state.log.mended.insert(range)
      state.log.damaged.remove(range)
    }
    job.manifest = state.manifest()
    return state.endJob(job, saved: nil)
  }

  /// A stream of the snapshot in force with the records that it refers to; nil without one. Give it
  /// back with `release`: until then no file is removed.
  package func snapshotSource(live: @escaping LiveRecords) -> SnapshotSource? {
    guard let snapshotFile = state.snapshotFile else { return nil }
    state.pins += 1
    return SnapshotSource(
      snapshot: snapshotFile, log: state.log, site: site, live: live)
  }

  package func release(_ source: SnapshotSource) {
    invariant(state.pins > 0 && !source.isReleased, "snapshot source released twice")
    source.isReleased = true
    state.pins -= 1
    state.isUpkeepBlocked = false
  }

  /// Takes a snapshot stream from the leader.
  package func snapshotReceiver(position: LogPosition) -> SnapshotReceiver {
    SnapshotReceiver(
      position: position, site: site, snapshotNumber: state.takeNumbers(1),
      firstNumber: state.takeNumbers(CleaningJob.numbersReserved))
  }

  /// Puts a received snapshot in force instead of the whole log. Only where the log does not hold
  /// the snapshot's last entry; what follows it would be lost otherwise.
  package func stage(_ received: SnapshotReceiver) -> WriteJob {
    guard let file = received.snapshotFile else {
      invariant(false, "snapshot installed before it was whole")
      return WriteJob(state.beginJob(), state.context)
    }
    var job = state.beginJob()
    state.epoch += 1
    for sparse in state.log.sparse { job.dead.append(sparse.dead) }
    for segment in state.log.stream { job.dead.append(SparseFile.segment(segment).dead) }
    for patch in state.log.patches { job.dead.append(.other(name: FileNames.kept(patch.number))) }
    replaceSnapshot(file, &job)
    state.log = LogFiles()
    state.log.sparse = received.kept.map { .kept($0) }
    received.isInstalled = true
    state.writeFile = nil
    state.runs = []
    state.base = file.info.position
    state.last = state.base
    state.firstIndex = state.last.index.next
    while state.pending.popFirst() != nil {}
    job.manifest = state.manifest()
    return state.endJob(job, saved: nil)
  }

  /// Gives up one that is not to be put in force.
  package func discard(_ written: SnapshotWriter) {
    state.dead.append(.other(name: FileNames.snapshot(written.number)))
    state.isUpkeepBlocked = false
  }

  /// Gives up a stream that is not installed.
  package func discard(_ receiver: SnapshotReceiver) {
    if receiver.isInstalled { return }
    receiver.close()
    state.dead += receiver.names.map { .other(name: $0) }
    state.isUpkeepBlocked = false
  }

  /// Stops the process if the index contradicts itself.
  package func checkInvariants() {
    var next: LogIndex?
    for segment in state.log.stream {
      invariant(segment.used >= UInt32(FileHeader.blockBytes), "segment \(segment.segment) empty")
      invariant(UInt64(segment.used) <= segment.fileBytes, "segment \(segment.segment) overfull")
      guard let range = segment.range else { continue }
      if let next, range.first >= state.firstIndex, next >= state.firstIndex {
        invariant(range.first == next, "stream goes on with \(range.first), not \(next)")
      }
      next = range.last.next
    }
    if let next, next >= state.firstIndex {
      invariant(next == state.last.index.next, "stream ends before \(next), log \(state.last)")
    }
    for (left, right) in zip(state.log.stream, state.log.stream.dropFirst()) {
      invariant(left.segment < right.segment, "segment \(right.segment) behind \(left.segment)")
      invariant(left.isEnded, "segment \(left.segment) goes on before \(right.segment)")
    }
    for (left, right) in zip(state.log.sparse, state.log.sparse.dropFirst()) {
      invariant(left.range.last < right.range.first, "\(left.range) and \(right.range) overlap")
    }
    invariant(
      state.synced.place <= state.endPlace,
      "synced to \(state.synced.place), written to \(state.endPlace)")
    invariant(
      state.firstIndex <= state.last.index.next,
      "first entry \(state.firstIndex), last \(state.last)")
    if let snapshot {
      invariant(
        snapshot.position.index <= state.last.index, "snapshot behind the log's end \(state.last)")
    }
  }
}

extension SparseFile {
  var dead: DeadFile {
    switch self {
    case .segment(let segment):
      .segment(number: segment.number, life: segment.life, fileBytes: segment.fileBytes)
    case .kept(let kept): .other(name: FileNames.kept(kept.number))
    }
  }

  var segmentNumber: UInt64? {
    if case .segment(let segment) = self { segment.number } else { nil }
  }

  func isOfStream(_ log: LogFiles) -> Bool {
    guard let number = segmentNumber else { return false }
    return log.stream.contains { $0.number == number }
  }
}
