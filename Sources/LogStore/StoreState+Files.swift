// Which files are in force, as the manifest says it, and what becomes of the others.

import Base
import Consensus

extension StoreState {
  /// The manifest of what is in force as staged. Damage of which its files would not tell the next start
  /// is added to what is lost first.
  mutating func manifest() -> Manifest {
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

  /// Entries that damage took and of which no file tells: a scan of these files would not find out.
  mutating func rememberLosses(among files: [SparseFile]) {
    let end = log.stream.first?.startIndex ?? last.index.next
    var losses = log.damaged
    for range in log.mended.ranges { losses.insert(range) }
    losses = losses.through(end.previous)
    for file in files { losses.remove(file.range) }
    for range in losses.ranges { log.lost.insert(range) }
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

extension StoreState {
  mutating func nextUpkeep() -> UpkeepJob? {
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

  mutating func finished(_ job: UpkeepJob) {
    invariant(job.isExecuted && isUpkeepRunning, "upkeep finished and not executed")
    isUpkeepRunning = false
    // After a failure nothing is tried again before something has changed.
    isUpkeepBlocked = job.failure != nil
    // Taken from the end: recycled files, whose blocks exist, before new ones.
    spares =
      job.made.filter { job.spares.contains($0) } + spares
      + job.recycled.filter { job.spares.contains($0) }
  }

  var figures: StoreFigures {
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
}
