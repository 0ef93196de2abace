// The loop and its disk: batches to the storage thread, entries read back, damaged records repaired.

import Base
import CLinux
import Consensus
import LogStore
import Node
import Transport

extension NodeLoop {
  /// A batch up to this size is written by the loop itself when nothing else is on its way: waking
  /// a sleeping thread costs more than the sync of a small write saves.
  static var inlineBytesMax: Int { 16 << 10 }
  /// After so long without a write the disk is told what is synced.
  static var markerPause: Nanoseconds { .milliseconds(200) }

  /// Sends the next job to the storage thread, or does it here if it is small.
  ///
  /// - Returns: whether something was done here, so that there is more to do at once.
  mutating func startStorage(now: MonotonicTime) -> Bool {
    guard isTakingPart else { return false }
    let bytes = storage.waitingBytes
    store.expectsReads = replica.feedsFromLog
    let next = storage.next(from: store)
    if storage.takeDroppedSnapshot() { replica.snapshotNotSaved() }
    for _ in 0..<storage.takeStagedRepairs() { replica.repairStaged() }
    guard let job = next else { return false }
    if storage.isCurrentSmall, bytes <= Self.inlineBytesMax {
      var failure: StorageFailure?
      do throws(StorageFailure) { try job.execute() } catch { failure = error }
      finishWrite(job, failure, now: MonotonicClock.now())
      return true
    }
    let mailbox = mailbox
    storageThread.post {
      var failure: StorageFailure?
      do throws(StorageFailure) { try job.execute() } catch { failure = error }
      mailbox.post(.written(job, failure))
    }
    return false
  }

  mutating func handle(_ message: LoopMessage, now: MonotonicTime) {
    switch message {
    case .written(let job, let failure): finishWrite(job, failure, now: now)
    case .background(let result): finishBackground(result, now: now)
    case .stop: beginStopping(now: now)
    case .kill: phase = .ended(exitCode: 1)
    }
  }

  private mutating func finishWrite(
    _ job: WriteJob, _ failure: StorageFailure?, now: MonotonicTime
  ) {
    let followUp = storage.takeCurrent()
    do {
      try store.finished(job)
      if let failure { throw failure }
    } catch {
      halt("the disk failed and nothing is written any more: \(error)", now: now)
      return
    }
    guard isTakingPart else { return }
    markerDeadline = now + Self.markerPause
    checkSpace(now: now)
    switch consume followUp {
    case .stored(let tickets?):
      for ticket in tickets { replica.stored(ticket, now: now) }
    case .stored(nil): break
    case .marker:
      markerDeadline = .never
    case .snapshotInForce(let request):
      snapshotInForce(request)
    case .rewritten:
      records.forget()
    case .installed(let chunk):
      snapshotInstalled(chunk, now: now)
    }
    startUpkeep(now: now)
  }

  /// Prepares segments ahead of need and removes dead ones, off the loop.
  mutating func startUpkeep(now: MonotonicTime) {
    guard !isUpkeepRunning, now >= upkeepPauseEnd, let job = store.nextUpkeep() else { return }
    isUpkeepRunning = true
    runInBackground {
      job.execute()
      return .upkeep(job)
    }
  }

  mutating func finishUpkeep(_ job: UpkeepJob, now: MonotonicTime) {
    isUpkeepRunning = false
    store.finished(job)
    if let failure = job.failure {
      // Nothing in force depends on it; the batch that needs the disk will say if it is full.
      log.warning("the log's files cannot be tidied now: \(failure)")
      upkeepPauseEnd = now + .seconds(1)
    }
    startUpkeep(now: now)
  }

  func runInBackground(_ work: @escaping @Sendable () -> BackgroundResult) {
    let mailbox = mailbox
    backgroundThread.post { mailbox.post(.background(work())) }
  }

  mutating func writeMarkerIfIdle(now: MonotonicTime) {
    guard now >= markerDeadline else { return }
    markerDeadline = .never
    if storage.isIdle { storage.add(.marker) }
    let released =
      replica.releaseCache(downTo: Self.idleCacheBytes)
      + records.release(downTo: Self.idleCacheBytes)
    // To give it back goes through the whole heap: not for little.
    if released >= 4 * Self.idleCacheBytes { skein_return_freed_memory() }
  }

  /// What an idle node keeps in memory of entries, and of what was read of them, each, bytes.
  private static var idleCacheBytes: Int { 1 << 20 }

  /// Whether there is room for more is asked this often while anything is written.
  static var spacePause: Nanoseconds { .milliseconds(250) }

  /// Publishes are refused before the disk is full: a failed write would stop the node (G12).
  mutating func checkSpace(now: MonotonicTime) {
    guard now >= spaceDeadline else { return }
    spaceDeadline = now + Self.spacePause
    let wasFull = gateway.noSpace != nil
    gateway.noSpace = reasonForNoSpace()
    if let reason = gateway.noSpace, !wasFull { log.warning("publishes are refused: \(reason)") }
    if wasFull, gateway.noSpace == nil { log.info("publishes are taken again") }
    // Other nodes are to hear it too.
    if wasFull != (gateway.noSpace != nil) { gateway.needsTurn = true }
    // Files that a stream held may have become free since.
    if gateway.noSpace != nil { startUpkeep(now: now) }
    // Consuming goes on and writes little, so no snapshot falls due by size; but only behind a
    // snapshot can the log be cleaned.
    if gateway.noSpace != nil, now >= reliefDeadline {
      reliefDeadline = now + Self.reliefPause
      if !replica.takeSnapshot() { makeSnapshotPossible(now: now) }
    }
  }

  /// The log is kept from the snapshot before the newest on. Where nothing happens any more, since
  /// publishes are refused and everything is consumed, there would be no next one, and no space for
  /// ever: an entry without commands makes one possible.
  private mutating func makeSnapshotPossible(now: MonotonicTime) {
    let kept = replica.consensus.snapshot.index.rawValue - replica.consensus.logBase.index.rawValue
    guard kept > 1, replica.isLeader, replica.hasRoom else { return }
    replica.submit(now: now) { _ in }
  }

  /// How often the log is cleaned while there is no space.
  private static var reliefPause: Nanoseconds { .seconds(2) }
  /// Where the disk had no room for the last snapshot: each attempt goes through all that waits.
  static var reliefPauseWithoutRoom: Nanoseconds { .seconds(10) }

  /// Files that are kept for reuse are no reason: they go first.
  private func reasonForNoSpace() -> String? {
    let figures = store.figures
    store.keepsSpares = true
    if let limit = configuration.storage.diskBytesMax, figures.diskBytes >= limit {
      store.keepsSpares = false
      if figures.diskBytes - figures.reusableBytes >= limit {
        return "the data directory has reached storage.diskBytesMax, \(limit) bytes"
      }
    }
    do {
      let free = try store.freeBytes()
      // The next snapshot must fit, or nothing makes room.
      let needed =
        UInt64(2 * configuration.storage.segmentBytes)
        + max(store.snapshot?.byteCount ?? 0, snapshotWantedBytes)
      if free < needed {
        store.keepsSpares = false
        if free + figures.reusableBytes < needed {
          return "the disk has \(free) bytes left, below two log segments and a snapshot"
        }
      }
    } catch {
      return "the disk's free space cannot be told: \(error)"
    }
    return nil
  }

  /// What the disk has left for log that only others need: nothing where that cannot be told, nor where
  /// publishes are refused, since then it must become less.
  var roomForLog: UInt64 {
    guard gateway.noSpace == nil, var free = try? store.freeBytes() else { return 0 }
    if let limit = configuration.storage.diskBytesMax {
      let used = store.figures.diskBytes
      free = min(free, limit > used ? UInt64(limit) - used : 0)
    }
    let storage = configuration.storage
    // The next snapshot and the one before are there for a while both.
    let reserve =
      UInt64(2 * storage.segmentBytes + storage.snapshotBytes)
      + 2 * (store.snapshot?.byteCount ?? 0)
    return free > reserve ? free - reserve : 0
  }

  // MARK: Reading back

  mutating func carryOut(_ read: EntryRead) {
    if case .replicate = read.purpose,
      let job = store.entryReading(
        from: read.first, through: read.last, maxBytes: read.bytesMax)
    {
      let mailbox = mailbox
      readerThread.post {
        job.execute()
        mailbox.post(.background(.entriesRead(read, job)))
      }
      return
    }
    carryOutNow(read)
  }

  mutating func entriesRead(_ read: EntryRead, _ job: EntryReadJob) {
    if let entries = job.entries { replica.entriesRead(read, entries) } else { carryOutNow(read) }
  }

  private mutating func carryOutNow(_ read: EntryRead) {
    do {
      let entries = try store.entries(from: read.first, through: read.last, maxBytes: read.bytesMax)
      replica.entriesRead(read, entries)
    } catch {
      if case .damaged(let index) = error {
        // Recovery finds the damage, cuts the log there without forgetting what it promised, and
        // lets the leader send the rest again: all of that is for a start, not for this life.
        end("entry \(index) is damaged on disk; started again, the node fetches it from its peers")
      } else if case .apply = read.purpose {
        // Nothing goes on without it, and a leader that cannot apply must not stay one.
        end("entries from \(read.first) on cannot be read: \(error)")
      } else {
        replica.entriesUnreadable(read, "\(error)")
      }
    }
  }

  /// Ends the process with an error, so that a new one can begin better.
  private mutating func end(_ reason: String) {
    log.error("this process ends: \(reason)")
    phase = .ended(exitCode: 1)
  }

  /// Answers a peer that lost records to damage, as far as this node has them.
  mutating func lookUpRecords(
    _ references: [RecordReference], for peer: NodeID, now: MonotonicTime
  ) {
    var found: [RecordReference] = []
    var bodies: [[UInt8]] = []
    var bytes = 0
    for reference in references where bytes < 8 << 20 {
      switch records.record(reference, cache: replica.cache) {
      case .found(let payload, let range):
        found.append(reference)
        bodies.append(Array(payload[range]))
        bytes += range.count
      case .damaged: replica.entryIsDamaged(reference.entry, now: now)
      case .later, .unavailable: continue
      }
    }
    peers.send(.records(found, bodies: bodies), to: peer)
  }

  // MARK: Repair (G11)

  mutating func repair(
    _ ranges: [ClosedRange<LogIndex>], _ references: [RecordReference], _ bodies: [[UInt8]]
  ) {
    let job = store.repair(
      ranges.map { EntryRange(first: $0.lowerBound, last: $0.upperBound) },
      with: Array(zip(references, bodies)))
    log.info("\(references.count) damaged records came from the peers; writing them")
    runInBackground {
      var failure: StorageFailure?
      do throws(StorageFailure) { try job.execute() } catch { failure = error }
      return .repaired(job, failure)
    }
  }
}
