// The log store: what a node keeps on its disk. This file has what the event loop asks of it when it
// writes; reading, snapshots, cleaning and opening are in the extensions beside it, what it knows and
// decides in `StoreState`.
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
  let fileSystem: any FileSystem
  /// Held as long as the store lives.
  let lock: any DirectoryLock
  var state: StoreState
  let readFiles: ReadFiles
  /// What followers are fed from: opened here, read by `EntryReadJob` alone.
  let feedFiles: ReadFiles

  init(_ state: consuming StoreState, lock: any DirectoryLock) {
    directory = state.context.directory
    fileSystem = state.context.fileSystem
    self.lock = lock
    readFiles = ReadFiles(
      directory: directory, fileSystem: fileSystem, openMax: state.options.openFilesMax)
    feedFiles = ReadFiles(
      directory: directory, fileSystem: fileSystem, openMax: 4, readsOnce: true)
    self.state = state
  }

  /// The end of the log as staged.
  package var last: LogPosition { state.last }
  /// The first entry that `entries` can give; one past `last` if there is none.
  package var firstIndex: LogIndex { state.firstIndex }
  /// The log's durable end.
  package var syncedLast: LogPosition { state.synced.position }
  /// The hard state as staged.
  package var hardState: HardState { state.stateSlots.record.hardState }
  /// The snapshot in force.
  package var snapshot: SnapshotInfo? { state.snapshot }
  /// Why nothing is written any more (G12).
  package var failure: StorageFailure? { state.failure }

  /// Whether dead files stay for reuse, more than are needed at once: not where the disk is short.
  package var keepsSpares: Bool {
    get { state.keepsSpares }
    set { state.keepsSpares = newValue }
  }

  /// Whether entries that are staged from here on are likely to be read again soon, as for a member
  /// that lacks them: they stay in the page cache then, if the system has room.
  package var expectsReads: Bool {
    get { state.expectsReads }
    set { state.expectsReads = newValue }
  }

  /// Builds the job that makes `operations` durable. Operations of several batches may be given at
  /// once: they cost one fdatasync together (group commit).
  package func stage(_ operations: [LogOperation]) -> WriteJob { state.stage(operations) }

  /// Notes on disk how far the log is synced, for a clean stop and for idle times: damage to the
  /// last batch is then never taken for a torn write. nil if that is noted already.
  package func stageMarker() -> WriteJob? { state.stageMarker() }

  /// Staged and not finished.
  package var pendingJobs: Int { Int(state.nextJob - state.nextFinished) }

  /// Takes a job back when it was executed.
  ///
  /// - Throws: what the execution threw. Nothing is written from then on, and no later job counts.
  package func finished(_ job: WriteJob) throws(StorageFailure) {
    try state.finished(job)
    for file in job.plan.dead {
      readFiles.close(file.name)
      feedFiles.close(file.name)
    }
  }

  /// What is to be done to the files that are not in force; nil if nothing is, or a job is under
  /// way. Ask after every `finished`.
  package func nextUpkeep() -> UpkeepJob? { state.nextUpkeep() }

  package func finished(_ job: UpkeepJob) { state.finished(job) }

  /// The directory was empty because its disk was wiped: as if `Recovery.isMemoryLost` had been
  /// found. Goes to the disk with the next job, before or with any term that is saved.
  package func memoryWasLost() { state.isMemoryLost = true }
  /// After `Recovery.isMemoryLost`: a leader elected without this node has brought it up to date.
  /// Goes to the disk with the next job, which may be one of no operations.
  package func memoryIsRestored() { state.isMemoryLost = false }

  package var figures: StoreFigures { state.figures }

  /// Bytes that may still be written to the disk.
  package func freeBytes() throws(StorageFailure) -> UInt64 {
    try fileSystem.freeBytes(directory)
  }
}
