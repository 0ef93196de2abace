// Snapshots on the background thread: writing one, cleaning the log behind it, sending one to a
// follower, and taking one from the leader.

import Base
import Consensus
import LogStore
import Node
import QueueMachine
import Transport

extension NodeLoop {
  static var chunkBytes: Int { 1 << 20 }

  // MARK: Writing

  mutating func writeSnapshot(_ request: SnapshotRequest) {
    log.info("writing a snapshot through entry \(request.last.index)")
    let writer = store.snapshotWriter(
      position: request.last, membership: request.membership, stateHash: request.stateHash,
      stateHashIndex: request.last.index)
    runInBackground {
      var failure: StorageFailure?
      do throws(StorageFailure) {
        try writer.write { request.queues.encode(into: $0) }
      } catch { failure = error }
      return .snapshotWritten(writer, request, failure)
    }
  }

  /// The snapshot counts from now on: what it made superfluous can go.
  mutating func snapshotInForce(_ request: SnapshotRequest) {
    snapshotWantedBytes = 0
    let keepFrom = replica.snapshotSaved(last: request.last, freeBytes: roomForLog)
    log.info("snapshot through entry \(request.last.index) is in force")
    let queues = request.queues
    guard
      let job = store.cleaning(
        keepFrom: keepFrom, live: { span, each in queues.forEachLiveRecord(span: span, each) })
    else { return }
    runInBackground {
      var failure: StorageFailure?
      do throws(StorageFailure) { try job.execute() } catch { failure = error }
      return .cleaned(job, failure)
    }
  }

  /// The backlog's snapshot is larger than the disk has room for. It becomes smaller as messages are consumed.
  private mutating func giveUpSnapshot(_ writer: SnapshotWriter, now: MonotonicTime) {
    log.warning(
      "the snapshot through entry \(writer.position.index) is given up: the disk has no room for it"
    )
    store.discard(writer)
    replica.snapshotNotSaved()
    snapshotWantedBytes = writer.wantedBytes
    reliefDeadline = now + Self.reliefPauseWithoutRoom
    startUpkeep(now: now)
  }

  mutating func finishBackground(_ result: BackgroundResult, now: MonotonicTime) {
    guard isTakingPart else { return }
    switch result {
    case .upkeep(let job):
      finishUpkeep(job, now: now)
    case .snapshotWritten(let writer, let request, let failure):
      if let failure { return halt("a snapshot cannot be written: \(failure)", now: now) }
      if writer.hasNoRoom { return giveUpSnapshot(writer, now: now) }
      storage.add(.snapshot(writer, request))
    case .cleaned(let job, let failure):
      if let failure { return halt("the log cannot be cleaned: \(failure)", now: now) }
      for index in store.noteDamage(foundBy: job) { replica.entryIsDamaged(index, now: now) }
      storage.add(.cleaning(job))
    case .repaired(let job, let failure):
      if let failure { return halt("the log cannot be repaired: \(failure)", now: now) }
      log.info("the damaged records are repaired")
      problems.damage.removeAll()
      storage.add(.repair(job))
    case .sourceReady(let plan, let source, let error):
      sourceReady(plan, source, error, now: now)
    case .entriesRead(let read, let job):
      entriesRead(read, job)
    case .resolved(let text, let found):
      peers.resolved(text, found, now: now)
    case .received(let receiver, let chunk, let error):
      finishReceiving(receiver, chunk, error, now: now)
    }
  }

  // MARK: Sending

  /// A source that is not asked for so long is released; it can be made again.
  private static var sourcePatience: Nanoseconds { .seconds(30) }

  mutating func releaseSource(of peer: NodeID) {
    sourceDeadlines[peer] = nil
    // One that is being prepared is released when that is done.
    guard !sourcesInPreparation.contains(peer) else { return }
    if let source = sources.removeValue(forKey: peer) { store.release(source) }
  }

  mutating func releaseIdleSources(now: MonotonicTime) {
    if !failedStreams.isEmpty {
      for failed in failedStreams where failed.retryAt <= now {
        replica.snapshotUnreadable(failed.plan, failed.reason)
      }
      failedStreams.removeAll { $0.retryAt <= now }
    }
    guard !sourceDeadlines.isEmpty else { return }
    for (peer, deadline) in sourceDeadlines where deadline <= now { releaseSource(of: peer) }
  }

  /// A stream that cannot be read is tried again after a while, not in every turn; what is damaged
  /// is fetched from the peers meanwhile.
  private mutating func streamFailed(
    _ plan: SnapshotPlan, _ error: LogReadError, now: MonotonicTime
  ) {
    if let source = sources.removeValue(forKey: plan.to) { store.release(source) }
    switch error {
    case .damaged(let index):
      store.noteDamage(index)
      replica.entryIsDamaged(index, now: now)
    case .notInLog: replica.snapshotLacksRecord(plan)
    case .storage: break
    }
    failedStreams.append((plan, "\(error)", now + .seconds(1)))
  }

  mutating func readSnapshot(_ plan: SnapshotPlan, now: MonotonicTime) {
    sourceDeadlines[plan.to] = now + Self.sourcePatience
    if let source = sources[plan.to] {
      // While it is being prepared the chunk goes when that is done, or is asked for again.
      if sourcesInPreparation.contains(plan.to) { return }
      if source.info.position == plan.last {
        sendChunk(plan, source, now: now)
        return
      }
      store.release(source)
      sources[plan.to] = nil
    }
    prepareSource(plan, now: now)
  }

  /// Opens the stream and sorts what it has to send, off the loop; the first chunk goes then.
  private mutating func prepareSource(_ plan: SnapshotPlan, now: MonotonicTime) {
    guard store.snapshot?.position == plan.last, let reader = store.snapshotReader() else {
      // A newer one is on its way into force; consensus hears of it when it is there.
      failedStreams.append((plan, "a newer one replaces it", now + .milliseconds(50)))
      return
    }
    let live = SnapshotRecords(reader)
    guard let source = store.snapshotSource(live: { each in live.forEach(each) }) else {
      failedStreams.append((plan, "there is none", now + .seconds(1)))
      return
    }
    sources[plan.to] = source
    sourcesInPreparation.insert(plan.to)
    runInBackground {
      var failure: LogReadError?
      do throws(LogReadError) {
        try live.load()
        try source.prepare()
      } catch { failure = error }
      return .sourceReady(plan, source, failure)
    }
  }

  private mutating func sourceReady(
    _ plan: SnapshotPlan, _ source: SnapshotSource, _ error: LogReadError?, now: MonotonicTime
  ) {
    sourcesInPreparation.remove(plan.to)
    guard sources[plan.to] === source else {
      store.release(source)
      return
    }
    guard peers.isConnected(plan.to), sourceDeadlines[plan.to] != nil else {
      releaseSource(of: plan.to)
      return
    }
    if let error {
      streamFailed(plan, error, now: now)
      return
    }
    log.info(
      "sending node \(plan.to) the snapshot through entry \(plan.last.index),"
        + " \(source.totalBytes) bytes")
    sendChunk(plan, source, now: now)
  }

  private mutating func sendChunk(
    _ plan: SnapshotPlan, _ source: SnapshotSource, now: MonotonicTime
  ) {
    do {
      let bytes = try source.read(at: plan.offset, maxBytes: Self.chunkBytes)
      let isLast = plan.offset + UInt64(bytes.count) >= source.totalBytes
      replica.snapshotRead(plan, bytes, isLast: isLast, now: now)
    } catch {
      streamFailed(plan, error, now: now)
    }
  }

  // MARK: Taking

  mutating func storeSnapshotChunk(
    _ chunk: SnapshotChunk, _ bytes: [UInt8], now: MonotonicTime
  ) {
    // The one being put in force comes first; consensus asks for chunks again.
    if isReceiverBusy { return }
    if chunk.offset == 0 {
      log.info("taking the leader's snapshot through entry \(chunk.last.index)")
      if let receiver { store.discard(receiver) }
      receiver = store.snapshotReceiver(position: chunk.last)
    }
    guard let receiver else {
      replica.snapshotInstallFailed(chunk, "its beginning is not here")
      return
    }
    do {
      try receiver.take(bytes, at: chunk.offset)
    } catch {
      abandonReceiving(chunk, error, now: now)
      return
    }
    guard chunk.isLast else {
      replica.snapshotChunkStored(chunk, now: now)
      return
    }
    isReceiverBusy = true
    runInBackground {
      var failure: SnapshotStreamError?
      do throws(SnapshotStreamError) { _ = try receiver.finish() } catch { failure = error }
      return .received(receiver, chunk, failure)
    }
  }

  private mutating func finishReceiving(
    _ receiver: SnapshotReceiver, _ chunk: SnapshotChunk, _ error: SnapshotStreamError?,
    now: MonotonicTime
  ) {
    guard self.receiver === receiver else { return }
    isReceiverBusy = false
    if let error {
      abandonReceiving(chunk, error, now: now)
      return
    }
    self.receiver = nil
    storage.add(.install(receiver, chunk))
  }

  /// Its leader is gone, and the next one's stream may differ.
  mutating func discardReceiver() {
    guard let receiver, !isReceiverBusy else { return }
    store.discard(receiver)
    self.receiver = nil
  }

  private mutating func abandonReceiving(
    _ chunk: SnapshotChunk, _ error: SnapshotStreamError, now: MonotonicTime
  ) {
    if case .storage(let failure) = error {
      // As any other failed write or sync (G12).
      return halt("the leader's snapshot cannot be written: \(failure)", now: now)
    }
    if let receiver { store.discard(receiver) }
    receiver = nil
    replica.snapshotInstallFailed(chunk, "\(error)")
  }

  mutating func snapshotInstalled(_ chunk: SnapshotChunk, now: MonotonicTime) {
    records.forget()
    do {
      let machine = try loadMachine(from: store, limits: configuration.machineLimits)
      snapshotWantedBytes = 0
      replica.snapshotInstalled(chunk, machine: machine, now: now)
      amqp.startAnew(now: now, replica: &replica)
      problems = NodeProblems()
      log.info("the leader's snapshot through entry \(chunk.last.index) is in force")
    } catch {
      halt("the snapshot that the leader sent cannot be read: \(error)", now: now)
    }
  }
}

/// The records that a snapshot on disk refers to: read once, off the loop.
private final class SnapshotRecords: @unchecked Sendable {
  // Unchecked: the background thread alone loads it, and enumerates it after that.
  private let reader: SnapshotReader
  private var bytes: [UInt8] = []

  init(_ reader: SnapshotReader) { self.reader = reader }

  func load() throws(LogReadError) {
    while true {
      let piece = try reader.next()
      if piece.isEmpty { return }
      bytes.append(contentsOf: piece)
    }
  }

  func forEach(_ each: (RecordReference) -> Void) {
    bytes.withUnsafeBytes { bytes in
      do {
        try QueueMachine.forEachLiveRecord(inSnapshot: bytes, each)
      } catch {
        // Its checksums were right, so its writer was wrong.
        invariant(false, "the snapshot in force cannot be read: \(error)")
      }
    }
  }
}

/// The queues as the snapshot in force has them; empty without one.
func loadMachine(
  from store: LogStore, limits: MachineLimits
) throws -> QueueMachine {
  guard let reader = store.snapshotReader() else { return QueueMachine(limits: limits) }
  var bytes: [UInt8] = []
  bytes.reserveCapacity(Int(reader.info.byteCount))
  while true {
    let piece = try reader.next()
    if piece.isEmpty { break }
    bytes.append(contentsOf: piece)
  }
  return try QueueMachine(snapshot: bytes, limits: limits)
}
