// The loop of a simulated node and its disk, as in the server's `NodeLoop+Storage` and
// `NodeLoop+Snapshot`.

import Base
import Consensus
import LogStore
import Node
import QueueMachine

extension NodeLife {
  /// A batch up to this size is written by the loop itself when nothing else is on its way.
  static var inlineBytesMax: Int { 16 << 10 }
  static var markerPause: Nanoseconds { .milliseconds(200) }

  func startStorage() {
    guard isTakingPart else { return }
    let bytes = storage.waitingBytes
    store.expectsReads = replica.feedsFromLog
    let hasBegun = storage.begin(from: store)
    if storage.takeDroppedSnapshot() { replica.snapshotNotSaved() }
    for _ in 0..<storage.takeStagedRepairs() { replica.repairStaged() }
    guard hasBegun else { return }
    simulation.checks.checkDisk(of: self, "writes")
    let done = simulation.now + node.syncTime(&simulation.chance)
    storageBegan = simulation.now
    // A batch of one sector is there or not: it cannot be torn.
    let isOneSector = storage.isCurrentSmall && bytes < SimulatedFile.sectorBytes
    // Nobody can tell when the bytes reach the disk: at once, or just before it says so.
    if !isOneSector, isAmbushed(by: storage.current?.followUp.ambush, until: done) {
      // It dies before.
    } else if simulation.chance.flip() {
      storage.execute()
    }
    if storage.isCurrentSmall, bytes <= Self.inlineBytesMax {
      blockedUntil = max(blockedUntil, done)
      simulation.schedule(.inlineWritten(node.place, number), at: done)
    } else {
      simulation.schedule(.written(node.place, number), at: done)
    }
  }

  func startBackground() {
    guard isTakingPart, background.begin() else { return }
    let syncs = simulation.chance.within(UInt64(1)...20)
    let done = simulation.now + node.syncTime(&simulation.chance, times: syncs)
    // Most rewrites find nothing to write: more is to be seen where they are put in force.
    let isIdle = background.crash == .crashesInsideRewrite && simulation.chance.permille(700)
    if !isIdle, isAmbushed(by: Ambush(background.crash), until: done) {
      // It dies before.
    } else if simulation.chance.flip() {
      background.execute()
    }
    simulation.schedule(.backgroundDone(node.place, number), at: done)
  }

  /// Whether the process was to die in the middle of what begins now; then that is arranged.
  private func isAmbushed(by ambush: Ambush?, until done: UInt64) -> Bool {
    guard let ambush, ambush == node.ambush else { return false }
    node.ambush = nil
    isDyingAtSync = ambush == .batch && simulation.chance.permille(700)
    simulation.schedule(
      .ambush(node.place, number, power: ambush == .batch || simulation.chance.flip()),
      at: simulation.now + simulation.chance.within(0...done - simulation.now - 1))
    return true
  }

  /// The process dies now: what was on its way got to the disk in part.
  func dieInsideJobs() {
    if replica.consensus.isLeader, replica.consensus.membership != replica.appliedMembership {
      simulation.note(.crashesInsideMembershipChange)
    }
    if let current = storage.current, !current.isExecuted {
      dieInside({ storage.execute() }, steps: current.followUp.steps, current.followUp.crash)
    }
    if background.hasUnexecuted {
      dieInside({ background.execute() }, steps: 20, background.crash)
    }
    node.disk.revive()
  }

  private func dieInside(_ execute: () -> Void, steps: Int, _ crash: Happening?) {
    node.disk.revive()
    if isDyingAtSync {
      node.disk.diesAtSync = true
      isDyingAtSync = false
    } else {
      // Some jobs have few steps, all have a first and a last one.
      node.disk.callsLeft = simulation.chance.below(simulation.chance.flip() ? 4 : steps)
    }
    execute()
    guard node.disk.hasRefused else { return }
    simulation.note(.crashesInsideJob)
    if let crash { simulation.note(crash) }
  }

  func finishWrite(now: MonotonicTime) {
    guard isTakingPart else { return }
    storage.execute()
    guard let current = storage.current else { return }
    storage.current = nil
    if let failure = current.failure { diskFailure = failure }
    do {
      try store.finished(current.job)
      if let failure = current.failure { throw failure }
    } catch {
      if current.failure?.operation == .synchronize { node.hasFailedSync = true }
      haltForDisk("the disk failed and nothing is written any more: \(error)")
      return
    }
    markerDeadline = now + Self.markerPause
    checkSpace(now: now)
    switch current.followUp {
    case .stored(let tickets):
      noteHarmIsOlder()
      noteDurable(tickets)
      for ticket in tickets { replica.stored(ticket, now: now) }
    case .marker:
      noteHarmIsOlder()
      markerDeadline = .never
    case .snapshotInForce(let request): snapshotInForce(request)
    case .rewritten: blocks.removeAll()
    case .installed(let chunk): snapshotInstalled(chunk, now: now)
    }
    startUpkeep(now: now)
  }

  /// What was written and synced since the disk was harmed tells, after a loss of power too, that what is
  /// before it was whole once. Other jobs leave that to a marker that is not synced.
  private func noteHarmIsOlder() {
    if let harmedAt = node.harmedAt, storageBegan > harmedAt { node.harmedAt = nil }
  }

  private func noteDurable(_ tickets: [StoreTicket]) {
    while let first = hardStates.first, tickets.contains(first.ticket) {
      node.hardState = first.state
      hardStates.removeFirst()
    }
    if node.log.stored(tickets) { node.hasTornLog = false }
  }

  func startUpkeep(now: MonotonicTime) {
    guard !isUpkeepRunning, now >= upkeepPauseEnd, let job = store.nextUpkeep() else { return }
    isUpkeepRunning = true
    background.add(nil) {
      job.execute()
      return .upkeep(job)
    }
  }

  func writeMarkerIfIdle(now: MonotonicTime) {
    guard now >= markerDeadline else { return }
    markerDeadline = .never
    if storage.isIdle { storage.add(.marker) }
  }

  /// Publishes are refused before the disk is full.
  func checkSpace(now: MonotonicTime) {
    guard now >= spaceDeadline else { return }
    spaceDeadline = now + .milliseconds(250)
    let free = UInt64(max(0, node.disk.capacity - node.disk.used))
    let needed =
      2 * simulation.plan.storeOptions.segmentBytes
      + max(store.snapshot?.byteCount ?? 0, snapshotWantedBytes)
    store.keepsSpares = free >= needed
    hasNoSpace = free + store.figures.reusableBytes < needed
    if hasNoSpace, now >= reliefDeadline {
      reliefDeadline = now + .seconds(2)
      replica.takeSnapshot()
    }
  }

  // MARK: Reading back

  func carryOut(_ read: EntryRead) {
    simulation.note(.readsFromLog)
    if case .replicate = read.purpose, read.first <= replica.formerSnapshot {
      simulation.note(.readsFromKeptLog)
    }
    if case .replicate = read.purpose,
      let job = store.entryReading(
        from: read.first, through: read.last, maxBytes: read.bytesMax)
    {
      // Nobody can tell when the bytes leave the disk: what they were may have been replaced.
      if simulation.laterChance.flip() { job.execute() }
      reads.append((read, job))
      simulation.schedule(
        .entriesRead(node.place, number),
        at: simulation.now + 1000 * simulation.laterChance.within(UInt64(1)...5000))
      return
    }
    carryOutNow(read)
  }

  func finishRead() {
    guard let (read, job) = reads.popFirst(), isTakingPart else { return }
    if job.entries == nil { job.execute() }
    guard let entries = job.entries else {
      simulation.note(.readsOfReplacedEntries)
      return carryOutNow(read)
    }
    // The log may have got others in their place.
    simulation.checks.wasRead(
      entries.filter { replica.consensus.term(at: $0.index) == $0.header.term }, at: self)
    replica.entriesRead(read, entries)
  }

  private func carryOutNow(_ read: EntryRead) {
    do {
      let entries = try store.entries(from: read.first, through: read.last, maxBytes: read.bytesMax)
      simulation.checks.wasRead(entries, at: self)
      replica.entriesRead(read, entries)
    } catch {
      if case .damaged(let index) = error {
        simulation.note(.damageFoundRunning)
        if !node.wasHarmed {
          simulation.violated("G11", "\(node) reads entry \(index) damaged without any harm done")
        }
        end("entry \(index) is damaged on disk")
      } else if case .apply = read.purpose {
        simulation.violated(
          "the log holds what is committed",
          "\(node) cannot read the entries from \(read.first) on to apply them: \(error)")
        end("entries from \(read.first) on cannot be read: \(error)")
      } else {
        if case .notInLog(let index) = error, index > replica.consensus.logBase.index {
          simulation.violated(
            "the log holds what a leader says it has",
            "\(node) cannot read entry \(index) for a follower: it is not in the log")
        }
        replica.entriesUnreadable(read, "\(error)")
      }
    }
  }

  /// Answers a peer that lost records to damage, as far as this node has them.
  func lookUpRecords(_ references: [RecordReference], for peer: NodeID) {
    var found: [RecordReference] = []
    var bodies: [[UInt8]] = []
    for reference in references {
      switch record(reference) {
      case .found(let bytes):
        found.append(reference)
        bodies.append(bytes)
      case .damaged: replica.entryIsDamaged(reference.entry, now: localNow)
      case .unavailable: continue
      }
    }
    simulation.network.send(
      .records(found, bodies: bodies), from: node.place, to: simulation.place(peer))
  }

  enum RecordLookup {
    case found([UInt8])
    case damaged
    case unavailable(String)
  }

  /// From the newest entries, else from the log, as the server's `RecordSource`.
  func record(_ reference: RecordReference) -> RecordLookup {
    if let entry = replica.cache.entry(reference.entry) {
      return slice(reference, of: entry.payload, from: 0)
    }
    if let block = blocks.last(where: { $0.contains(reference) }) {
      return slice(reference, of: block.bytes, from: block.offset)
    }
    do {
      let block = try store.block(containing: reference)
      if blocks.count == 8 { blocks.removeFirst() }
      blocks.append(block)
      return slice(reference, of: block.bytes, from: block.offset)
    } catch {
      switch error {
      case .damaged(let index):
        store.noteDamage(index)
        if !node.wasHarmed {
          simulation.violated("G11", "\(node) finds entry \(index) damaged without any harm done")
        }
        return .damaged
      case .notInLog(let index):
        return .unavailable("entry \(index) is not in the log")
      case .storage(let failure): return .unavailable("\(failure)")
      }
    }
  }

  private func slice(
    _ reference: RecordReference, of bytes: [UInt8], from offset: UInt32
  ) -> RecordLookup {
    let start = Int(reference.offset) - Int(offset)
    let end = start + Int(reference.size)
    guard start >= 0, end <= bytes.count else {
      return .unavailable("record at \(reference.offset) beyond entry \(reference.entry)")
    }
    return .found(Array(bytes[start..<end]))
  }

  // MARK: Repair (G11)

  func repair(
    _ ranges: [ClosedRange<LogIndex>], _ references: [RecordReference], _ bodies: [[UInt8]]
  ) {
    let job = store.repair(
      ranges.map { EntryRange(first: $0.lowerBound, last: $0.upperBound) },
      with: Array(zip(references, bodies)))
    simulation.trace { "\(self.node): \(references.count) damaged records came from the peers" }
    background.add(.crashesInsideRewrite) {
      var failure: StorageFailure?
      do throws(StorageFailure) { try job.execute() } catch { failure = error }
      return .repaired(job, failure)
    }
  }

  // MARK: Snapshots

  func writeSnapshot(_ request: SnapshotRequest) {
    simulation.checks.compare(request.stateHash, after: request.last.index, at: node)
    let writer = store.snapshotWriter(
      position: request.last, membership: request.membership, stateHash: request.stateHash,
      stateHashIndex: request.last.index)
    background.add(.crashesInsideSnapshot) {
      var failure: StorageFailure?
      do throws(StorageFailure) {
        try writer.write { request.queues.encode(into: $0) }
      } catch { failure = error }
      return .snapshotWritten(writer, request, failure)
    }
  }

  func snapshotInForce(_ request: SnapshotRequest) {
    simulation.note(.snapshots)
    snapshotWantedBytes = 0
    let keepFrom = replica.snapshotSaved(
      last: request.last, freeBytes: hasNoSpace ? 0 : (try? store.freeBytes()) ?? 0)
    let queues = request.queues
    guard
      let job = store.cleaning(
        keepFrom: keepFrom, live: { span, each in queues.forEachLiveRecord(span: span, each) })
    else { return }
    background.add(.crashesInsideRewrite) {
      var failure: StorageFailure?
      do throws(StorageFailure) { try job.execute() } catch { failure = error }
      return .cleaned(job, failure)
    }
  }

  func finishBackground(now: MonotonicTime) {
    guard let result = background.finish(), isTakingPart else { return }
    if let failure = result.failure { diskFailure = failure }
    switch result {
    case .upkeep(let job):
      isUpkeepRunning = false
      store.finished(job)
      if job.failure != nil { upkeepPauseEnd = now + .seconds(1) }
      startUpkeep(now: now)
    case .snapshotWritten(let writer, let request, let failure):
      if let failure { return haltForDisk("a snapshot cannot be written: \(failure)") }
      guard !writer.hasNoRoom else {
        simulation.note(.snapshotsWithoutRoom)
        store.discard(writer)
        replica.snapshotNotSaved()
        snapshotWantedBytes = writer.wantedBytes
        reliefDeadline = localNow + .seconds(10)
        return startUpkeep(now: now)
      }
      storage.add(.snapshot(writer, request))
    case .cleaned(let job, let failure):
      if let failure { return haltForDisk("the log cannot be cleaned: \(failure)") }
      for index in store.noteDamage(foundBy: job) { replica.entryIsDamaged(index, now: localNow) }
      simulation.note(.cleanings)
      storage.add(.cleaning(job))
    case .repaired(let job, let failure):
      if let failure { return haltForDisk("the log cannot be repaired: \(failure)") }
      simulation.note(.repairs)
      storage.add(.repair(job))
    case .sourceReady(let plan, let source, let error):
      sourceReady(plan, source, error, now: now)
    case .received(let receiver, let chunk, let error):
      finishReceiving(receiver, chunk, error)
    }
  }

  // MARK: Sending snapshots

  func releaseSource(of peer: Int) {
    sourceDeadlines[peer] = nil
    // One that is being prepared is released when that is done.
    guard !sourcesInPreparation.contains(peer) else { return }
    if let source = sources.removeValue(forKey: peer) { store.release(source) }
  }

  func releaseIdleSources(now: MonotonicTime) {
    for failed in failedStreams where failed.retryAt <= now {
      replica.snapshotUnreadable(failed.plan, failed.reason)
    }
    failedStreams.removeAll { $0.retryAt <= now }
    guard !sourceDeadlines.isEmpty else { return }
    for peer in sourceDeadlines.keys.sorted() {
      if let deadline = sourceDeadlines[peer], deadline <= now { releaseSource(of: peer) }
    }
  }

  /// A stream that cannot be read is tried again after a while; what is damaged is fetched from the
  /// peers meanwhile.
  private func streamFailed(_ plan: SnapshotPlan, _ error: LogReadError, now: MonotonicTime) {
    simulation.note(.snapshotStreamsFailed)
    simulation.trace { "\(self.node) cannot read the snapshot for node \(plan.to): \(error)" }
    let peer = simulation.place(plan.to)
    if let source = sources.removeValue(forKey: peer) { store.release(source) }
    switch error {
    case .damaged(let index):
      if !node.wasHarmed {
        simulation.violated("G11", "\(node) finds entry \(index) damaged without any harm done")
      }
      store.noteDamage(index)
      replica.entryIsDamaged(index, now: now)
    case .notInLog(let index):
      if !node.wasHarmed {
        simulation.violated(
          "G11", "\(node) lacks entry \(index) of its own snapshot without any harm done")
      }
      replica.snapshotLacksRecord(plan)
    case .storage: break
    }
    failedStreams.append((plan, "\(error)", now + .seconds(1)))
  }

  func readSnapshot(_ plan: SnapshotPlan, now: MonotonicTime) {
    let peer = simulation.place(plan.to)
    sourceDeadlines[peer] = now + .seconds(30)
    if let source = sources[peer] {
      if sourcesInPreparation.contains(peer) { return }
      if source.info.position == plan.last {
        sendChunk(plan, source, now: now)
        return
      }
      store.release(source)
      sources[peer] = nil
    }
    prepareSource(plan, for: peer, now: now)
  }

  private func prepareSource(_ plan: SnapshotPlan, for peer: Int, now: MonotonicTime) {
    guard store.snapshot?.position == plan.last, let reader = store.snapshotReader() else {
      failedStreams.append((plan, "a newer one replaces it", now + .milliseconds(50)))
      return
    }
    let live = SnapshotRecords(reader)
    guard let source = store.snapshotSource(live: { each in live.forEach(each) }) else {
      failedStreams.append((plan, "there is none", now + .seconds(1)))
      return
    }
    sources[peer] = source
    sourcesInPreparation.insert(peer)
    background.add(nil) {
      var failure: LogReadError?
      do throws(LogReadError) {
        try live.load()
        try source.prepare()
      } catch { failure = error }
      return .sourceReady(plan, source, failure)
    }
  }

  private func sourceReady(
    _ plan: SnapshotPlan, _ source: SnapshotSource, _ error: LogReadError?, now: MonotonicTime
  ) {
    let peer = simulation.place(plan.to)
    sourcesInPreparation.remove(peer)
    guard sources[peer] === source else {
      store.release(source)
      return
    }
    guard simulation.network.isConnected(node.place, to: peer), sourceDeadlines[peer] != nil else {
      releaseSource(of: peer)
      return
    }
    if let error { return streamFailed(plan, error, now: now) }
    simulation.note(.snapshotsSent)
    simulation.trace { "\(self.node) sends node \(plan.to) the snapshot through \(plan.last)" }
    sendChunk(plan, source, now: now)
  }

  private func sendChunk(_ plan: SnapshotPlan, _ source: SnapshotSource, now: MonotonicTime) {
    do {
      let bytes = try source.read(at: plan.offset, maxBytes: simulation.plan.chunkBytes)
      let isLast = plan.offset + UInt64(bytes.count) >= source.totalBytes
      replica.snapshotRead(plan, bytes, isLast: isLast, now: now)
    } catch {
      streamFailed(plan, error, now: now)
    }
  }

  // MARK: Taking snapshots

  func storeSnapshotChunk(_ chunk: SnapshotChunk, _ bytes: [UInt8], now: MonotonicTime) {
    // The one being put in force comes first; consensus asks for chunks again.
    if isReceiverBusy { return }
    if chunk.offset == 0 {
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
      abandonReceiving(chunk, error)
      return
    }
    guard chunk.isLast else {
      replica.snapshotChunkStored(chunk, now: now)
      return
    }
    isReceiverBusy = true
    background.add(.crashesInsideInstall) {
      var failure: SnapshotStreamError?
      do throws(SnapshotStreamError) { _ = try receiver.finish() } catch { failure = error }
      return .received(receiver, chunk, failure)
    }
  }

  private func finishReceiving(
    _ receiver: SnapshotReceiver, _ chunk: SnapshotChunk, _ error: SnapshotStreamError?
  ) {
    guard self.receiver === receiver else { return }
    isReceiverBusy = false
    if let error {
      abandonReceiving(chunk, error)
      return
    }
    self.receiver = nil
    storage.add(.install(receiver, chunk))
  }

  /// Its leader is gone, and the next one's stream may differ.
  func discardReceiver() {
    guard let receiver, !isReceiverBusy else { return }
    store.discard(receiver)
    self.receiver = nil
  }

  private func abandonReceiving(_ chunk: SnapshotChunk, _ error: SnapshotStreamError) {
    if case .storage(let failure) = error {
      return haltForDisk("the leader's snapshot cannot be written: \(failure)")
    }
    simulation.note(.snapshotStreamsFailed)
    if let receiver { store.discard(receiver) }
    receiver = nil
    replica.snapshotInstallFailed(chunk, "\(error)")
  }

  private func snapshotInstalled(_ chunk: SnapshotChunk, now: MonotonicTime) {
    blocks.removeAll()
    do {
      let machine = try loadMachine(from: store)
      snapshotWantedBytes = 0
      replica.snapshotInstalled(chunk, machine: machine, now: now)
      checkedApplied = .zero
      isFromSnapshot = true
      node.log.reset(to: chunk.last.index)
      simulation.note(.snapshotsInstalled)
      if node.hasTornLog { simulation.note(.snapshotsOverTornLogs) }
      node.hasTornLog = false
      simulation.trace { "\(self.node) is at the snapshot through \(chunk.last)" }
    } catch {
      simulation.violated("G11", "\(node) cannot read the snapshot that it installed: \(error)")
      halt("the snapshot that the leader sent cannot be read: \(error)")
    }
  }
}

/// The records that a snapshot on disk refers to.
private final class SnapshotRecords: @unchecked Sendable {
  // Unchecked: nothing of a simulation leaves its thread.
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
        invariant(false, "the snapshot in force cannot be read: \(error)")
      }
    }
  }
}

/// The queues as the snapshot in force has them; empty without one.
func loadMachine(from store: LogStore) throws -> QueueMachine {
  guard let reader = store.snapshotReader() else { return QueueMachine() }
  var bytes: [UInt8] = []
  while true {
    let piece = try reader.next()
    if piece.isEmpty { break }
    bytes.append(contentsOf: piece)
  }
  return try QueueMachine(snapshot: bytes)
}
