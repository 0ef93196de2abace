// The log store. Signatures first; bodies follow in the next commits.

import Base
import Consensus

/// The log, hard state and snapshots of one node. Used by one thread, the event loop; everything
/// slow is a job value that another thread runs and that comes back to `finished`.
package final class LogStore {
  package static func open(
    directory: String, identity: StoreIdentity, options: StoreOptions, fileSystem: any FileSystem
  ) throws(LogStoreError) -> (store: LogStore, recovery: Recovery) { notBuilt() }

  /// The end of the log as staged.
  package var last: LogPosition { notBuilt() }
  /// The first entry that `entries` can give.
  package var firstIndex: LogIndex { notBuilt() }
  /// The snapshot in force.
  package var snapshot: SnapshotInfo? { notBuilt() }
  /// Why nothing is written any more (G12).
  package var failure: StorageFailure? { notBuilt() }
  package var figures: StoreFigures { notBuilt() }

  // Writing: stage on the loop, execute on the storage thread in the order staged, finish on the
  // loop. Operations of several batches may be given at once (group commit).
  package func stage(_ operations: [LogOperation]) -> WriteJob { notBuilt() }
  /// What is synced is noted in the hard-state file, for a clean stop and for idle times. nil if
  /// that is already so.
  package func stageMarker() -> WriteJob? { notBuilt() }
  /// Takes a job back. Throws what its execution threw: the store is stopped from then on.
  package func finished(_ job: WriteJob) throws(StorageFailure) { notBuilt() }
  /// After `Recovery.isMemoryLost`: the node has caught up with a leader elected without it. Goes
  /// to the disk with the next job.
  package func memoryIsRestored() { notBuilt() }

  // Reading, on the loop.
  package func entries(
    from first: LogIndex, through last: LogIndex, maxBytes: Int
  ) throws(LogReadError) -> [Entry] { notBuilt() }
  /// The whole payload of an entry.
  package func payload(of index: LogIndex) throws(LogReadError) -> [UInt8] { notBuilt() }
  /// The largest verified piece of payload around a record, for the caller's cache.
  package func block(
    containing record: RecordReference
  ) throws(LogReadError) -> PayloadBlock { notBuilt() }
  package func record(_ record: RecordReference) throws(LogReadError) -> [UInt8] { notBuilt() }

  // Upkeep, on the low-priority thread: prepares segments, recycles and deletes dead files.
  /// Ask after each `finished`; nil if there is nothing to do or one is under way.
  package func nextUpkeep() -> UpkeepJob? { notBuilt() }
  package func finished(_ job: UpkeepJob) { notBuilt() }

  // Snapshots.
  package func snapshotWriter(
    position: LogPosition, membership: Membership, stateHash: UInt64, stateHashIndex: LogIndex
  ) -> SnapshotWriter { notBuilt() }
  package func stage(_ written: SnapshotWriter) -> WriteJob { notBuilt() }
  /// Reads the snapshot in force; nil if there is none. May go to another thread.
  package func snapshotReader() -> SnapshotReader? { notBuilt() }

  // Cleaning: entries from `keepFrom` on stay whole.
  package func cleaning(keepFrom: LogIndex, live: @escaping LiveRecords) -> CleaningJob? {
    notBuilt()
  }
  package func stage(_ done: CleaningJob) -> WriteJob? { notBuilt() }

  // Repair of damaged records with bytes that peers gave.
  package func repair(
    _ ranges: [EntryRange], with records: [(RecordReference, [UInt8])]
  ) -> RepairJob { notBuilt() }
  package func stage(_ done: RepairJob) -> WriteJob? { notBuilt() }

  // Snapshot streams between nodes.
  package func snapshotSource(live: @escaping LiveRecords) -> SnapshotSource? { notBuilt() }
  package func release(_ source: SnapshotSource) { notBuilt() }
  package func snapshotReceiver(position: LogPosition) -> SnapshotReceiver { notBuilt() }
  package func stage(_ received: SnapshotReceiver) -> WriteJob { notBuilt() }
  package func discard(_ receiver: SnapshotReceiver) { notBuilt() }

  package func checkInvariants() { notBuilt() }
}

package final class WriteJob: @unchecked Sendable {
  package func execute() throws(StorageFailure) { notBuilt() }
}

package final class UpkeepJob: @unchecked Sendable {
  package func execute() { notBuilt() }
}

package final class SnapshotWriter: @unchecked Sendable {
  package func append(_ bytes: [UInt8]) throws(StorageFailure) { notBuilt() }
  package func finish() throws(StorageFailure) { notBuilt() }
}

package final class SnapshotReader: @unchecked Sendable {
  package var info: SnapshotInfo { notBuilt() }
  /// The next piece of the machine's bytes, verified; empty at the end.
  package func next() throws(LogReadError) -> [UInt8] { notBuilt() }
}

package final class CleaningJob: @unchecked Sendable {
  package func execute() throws(StorageFailure) { notBuilt() }
}

package final class RepairJob: @unchecked Sendable {
  package func execute() throws(StorageFailure) { notBuilt() }
}

package final class SnapshotSource: @unchecked Sendable {
  package var info: SnapshotInfo { notBuilt() }
  /// Sorts the live records; on the low-priority thread, before the first read.
  package func prepare() throws(LogReadError) { notBuilt() }
  package var totalBytes: UInt64 { notBuilt() }
  package func read(at offset: UInt64, maxBytes: Int) throws(LogReadError) -> [UInt8] { notBuilt() }
}

package enum SnapshotStreamError: Error, Equatable, Sendable {
  /// The chunk does not begin where the last one ended: `expected` is wanted.
  case outOfOrder(expected: UInt64)
  /// The bytes are no snapshot stream, or damaged: begin again.
  case damaged(String)
  case storage(StorageFailure)
}

package final class SnapshotReceiver: @unchecked Sendable {
  package var received: UInt64 { notBuilt() }
  package func take(_ bytes: [UInt8], at offset: UInt64) throws(SnapshotStreamError) { notBuilt() }
  /// Everything has come: verifies it and makes it durable.
  package func finish() throws(SnapshotStreamError) -> SnapshotInfo { notBuilt() }
}

func notBuilt() -> Never {
  invariant(false, "not built yet")
  fatalError()
}
