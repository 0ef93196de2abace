// Snapshots: taking them, sending them to a follower whose entries are gone, and being sent one.

import Base
import Consensus
import QueueMachine

extension Replica {
  mutating func maybeTakeSnapshot() {
    guard !isSnapshotPending, appliedBytesSinceSnapshot >= configuration.snapshotBytes,
      repair.damaged.isEmpty
    else { return }
    takeSnapshot()
  }

  /// Asks for a snapshot of the state as it is now, also before it is due; false if one is being
  /// written or there is nothing new.
  @discardableResult
  package mutating func takeSnapshot() -> Bool {
    // A follower may have applied what its own disk does not have yet; a snapshot must never be
    // ahead of the log that it is to shorten.
    guard !isSnapshotPending, applied > consensus.snapshot.index, applied <= persisted else {
      return false
    }
    isSnapshotPending = true
    appliedBytesSinceSnapshot = 0
    logReach.snapshotBegins(at: applied)
    outputs.append(
      .takeSnapshot(
        SnapshotRequest(
          last: LogPosition(term: appliedTerm, index: applied), membership: appliedMembership,
          stateHash: machine.stateHash, queues: machine.freeze())))
    return true
  }

  /// The snapshot is durable: the log may go that neither it nor a member needs (`LogReach`).
  ///
  /// - Parameter freeBytes: what the log's disk has left.
  /// - Returns: the first entry that the log store must keep whole.
  package mutating func snapshotSaved(last: LogPosition, freeBytes: UInt64) -> LogIndex {
    isSnapshotPending = false
    consensus.snapshotTaken(through: last.index)
    let end = logReach.snapshotSaved(
      members: consensus.reaches, absentBytes: configuration.logBytesForAbsent,
      fedBytes: configuration.logBytesForFed, freeBytes: freeBytes)
    consensus.logDropped(through: end)
    return consensus.logBase.index.next
  }

  /// Further back the log is there for other members only.
  package var formerSnapshot: LogIndex { logReach.formerSnapshot }

  package mutating func snapshotNotSaved() { isSnapshotPending = false }

  // MARK: Sending

  /// A piece of the snapshot stream was read. An empty one at its end asks how things stand.
  package mutating func snapshotRead(
    _ plan: SnapshotPlan, _ bytes: [UInt8], isLast: Bool, now: MonotonicTime
  ) {
    snapshotReads.remove(plan.to)
    guard isLeader, consensus.term == plan.term else { return }
    consensus.didSend(plan, bytes: bytes.count, isLast: isLast, now: now)
    let chunk = SnapshotChunk(
      term: plan.term, last: plan.last, membership: plan.membership, offset: plan.offset,
      byteCount: UInt32(bytes.count), isLast: isLast)
    outputs.append(.send(to: plan.to, .consensus(.snapshot(chunk), payloads: [bytes])))
  }

  /// The stream cannot be read now.
  package mutating func snapshotUnreadable(_ plan: SnapshotPlan, _ reason: String) {
    snapshotReads.remove(plan.to)
    consensus.snapshotUnavailable(plan)
    outputs.append(.note("the snapshot for node \(plan.to) cannot be read: \(reason)"))
  }

  /// A record that this snapshot refers to is not in the log: it was damaged, and when that was
  /// mended nobody needed it any more. A snapshot of now does without it, unless one is in force
  /// that is newer already.
  package mutating func snapshotLacksRecord(_ plan: SnapshotPlan) {
    if plan.last.index >= consensus.snapshot.index { takeSnapshot() }
  }

  // MARK: Receiving

  package mutating func snapshotChunkStored(_ chunk: SnapshotChunk, now: MonotonicTime) {
    consensus.snapshotChunkStored(
      last: chunk.last, received: chunk.offset + UInt64(chunk.byteCount), now: now,
      into: &consensusOutputs)
    carryOutConsensus(now: now)
  }

  /// The snapshot that the leader sent is in force on disk in place of the whole log: from here the
  /// queues are `machine`.
  package mutating func snapshotInstalled(
    _ chunk: SnapshotChunk, machine: consuming QueueMachine, now: MonotonicTime
  ) {
    self.machine = machine
    clock.observe(self.machine.clock, at: now)
    cache.removeAll()
    operations.removeAll { operation in
      switch operation {
      case .append, .truncate: true
      case .saveHardState: false
      }
    }
    pendingLast = nil
    unstoredBytes -= pendingBytes
    pendingBytes = 0
    unappliedBytes = 0
    applied = chunk.last.index
    appliedTerm = chunk.last.term
    appliedMembership = chunk.membership
    persisted = chunk.last.index
    applyRead = nil
    hashes.removeAll()
    appliedBytesSinceSnapshot = 0
    logReach.reset(to: applied)
    repair.removeAll()
    consensus.snapshotInstalled(last: chunk.last, now: now, into: &consensusOutputs)
    carryOutConsensus(now: now)
  }

  package mutating func snapshotInstallFailed(
    _ chunk: SnapshotChunk, _ reason: String
  ) {
    outputs.append(.note("the snapshot from the leader cannot be used: \(reason)"))
    consensus.snapshotFailed(last: chunk.last)
  }
}
