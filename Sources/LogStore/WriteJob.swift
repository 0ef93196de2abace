// A batch of writes as a value: built on the event loop, carried out on the storage thread (or
// inline), taken back by the loop. Everything that changes what is in force goes through one of
// these, in one order, so that a crash at any point leaves a state that once was.

import Base
import Consensus

/// What the jobs of one store share. Touched by the thread that carries jobs out, only.
final class JobContext: @unchecked Sendable {
  let directory: String
  let fileSystem: any FileSystem
  let stateFile: any FileHandle
  /// The first failure. Once set nothing is written again (G12).
  var failure: StorageFailure?

  init(directory: String, fileSystem: any FileSystem, stateFile: any FileHandle) {
    self.directory = directory
    self.fileSystem = fileSystem
    self.stateFile = stateFile
  }
}

/// A segment file that jobs write. The handle is opened by the first job that needs it; jobs are
/// carried out one after the other, so no two threads touch it at once.
final class SegmentWriteFile: @unchecked Sendable {
  let name: String
  /// Size of a file that is still to be made; nil if it exists.
  let newFileBytes: UInt64?
  private var handle: (any FileHandle)?

  init(name: String, newFileBytes: UInt64?) {
    self.name = name
    self.newFileBytes = newFileBytes
  }

  func opened(_ context: JobContext) throws(StorageFailure) -> any FileHandle {
    if let handle { return handle }
    let path = context.directory + "/" + name
    let made: any FileHandle
    if let newFileBytes {
      made = try context.fileSystem.openLog(path, .createNew)
      try made.allocate(newFileBytes)
      try context.fileSystem.synchronizeDirectory(context.directory)
    } else {
      made = try context.fileSystem.openLog(path, .readWrite)
    }
    handle = made
    return made
  }
}

/// Pieces that are written one behind the other: small ones copied together, large payloads shared.
struct Gather: Sendable {
  static let copyMax = 8 << 10

  /// What goes before `bytes`: large payloads and what lies between them.
  private var earlier: [[UInt8]] = []
  private var bytes: [UInt8] = []
  private(set) var byteCount = 0

  mutating func add(header: RecordHeader, payload: [UInt8]) {
    // Most batches are one entry: room for all of it at once.
    if bytes.isEmpty {
      bytes.reserveCapacity(
        payload.count <= Self.copyMax ? header.recordBytes : RecordHeader.bytes)
    }
    header.append(to: &bytes)
    if payload.count <= Self.copyMax {
      bytes += payload
    } else {
      earlier.append(bytes)
      earlier.append(payload)
      bytes = []
    }
    bytes.putZeros(header.recordBytes - RecordHeader.bytes - payload.count)
    byteCount += header.recordBytes
  }

  mutating func add(_ more: [UInt8]) {
    bytes += more
    byteCount += more.count
  }

  func write(to file: any FileHandle, at offset: UInt64) throws(StorageFailure) {
    if earlier.isEmpty {
      try file.write(bytes, at: offset)
    } else {
      try file.write(bytes.isEmpty ? earlier : earlier + [bytes], at: offset)
    }
  }
}

/// What a job writes to one segment.
struct SegmentWrite: Sendable {
  let file: SegmentWriteFile
  let offset: UInt64
  var gather = Gather()
  /// The head of a segment that begins in a file used before. It is durable before any record is
  /// written behind it: records that survived a crash without it would be of the life that the next
  /// attempt gives the file again, and follow what that attempt writes.
  var head: [UInt8] = []
}

/// What a job writes, and what is so when it is done.
struct WritePlan: ~Copyable, Sendable {
  let ordinal: UInt64
  /// Its entries are likely to be read again soon.
  var expectsReads = false
  var stateBefore: StateWrite?
  /// The segments that end in this job, in order, and the one behind them, which the next job goes on
  /// with: mostly the only one.
  private(set) var endedSegments: [SegmentWrite] = []
  private(set) var lastSegment: SegmentWrite?
  var manifest: Manifest?
  var stateAfter: StateWrite?
  /// What is synced when the job is done.
  var end = SyncedEnd()
  /// Files that are no longer in force when the job is done.
  var dead: [DeadFile] = []

  init(ordinal: UInt64) { self.ordinal = ordinal }

  var writesLog: Bool { lastSegment != nil }

  /// What is added from here on goes behind `write`.
  mutating func begin(_ write: SegmentWrite) {
    if let lastSegment { endedSegments.append(lastSegment) }
    lastSegment = write
  }

  /// Adds a record to what is written to `file`, behind what the job has for it already.
  mutating func add(_ header: RecordHeader, _ payload: [UInt8], to file: SegmentWriteFile) {
    if lastSegment?.file !== file {
      begin(SegmentWrite(file: file, offset: UInt64(header.place.offset)))
    }
    lastSegment?.gather.add(header: header, payload: payload)
  }
}

/// A batch of writes. `execute` on the storage thread, in the order in which jobs were staged, then
/// back to `LogStore.finished` on the event loop, in the same order.
package final class WriteJob: @unchecked Sendable {
  // Handed from thread to thread through mailboxes, used by one at a time.
  let plan: WritePlan
  private let context: JobContext
  private(set) var isExecuted = false
  private(set) var failure: StorageFailure?
  private(set) var synchronizations: UInt64 = 0
  private(set) var bytesWritten: UInt64 = 0

  init(_ plan: consuming WritePlan, _ context: JobContext) {
    self.plan = plan
    self.context = context
  }

  var ordinal: UInt64 { plan.ordinal }

  /// Nothing to write: the job may be finished without being executed.
  package var isEmpty: Bool {
    plan.stateBefore == nil && !plan.writesLog && plan.manifest == nil && plan.stateAfter == nil
  }

  /// Writes the batch and makes it durable. After a failure, its own or an earlier job's, nothing
  /// is written again and every job fails (G12): a failed fdatasync may have dropped the pages.
  package func execute() throws(StorageFailure) {
    invariant(!isExecuted, "write job \(ordinal) executed twice")
    isExecuted = true
    if let failure = context.failure {
      self.failure = failure
      throw failure
    }
    do throws(StorageFailure) {
      try executeSteps()
    } catch {
      context.failure = error
      failure = error
      throw error
    }
  }

  /// The hard state goes first: an entry of a term is never on disk before the term.
  private func executeSteps() throws(StorageFailure) {
    if let state = plan.stateBefore { try write(state) }
    for segment in plan.endedSegments { try write(segment) }
    if let segment = plan.lastSegment { try write(segment) }
    for segment in plan.endedSegments { try synchronize(segment.file) }
    if let file = plan.lastSegment?.file { try synchronize(file) }
    if let manifest = plan.manifest {
      try ManifestFiles.write(manifest, context.directory, context.fileSystem)
    }
    if let state = plan.stateAfter { try write(state) }
  }

  private func write(_ segment: SegmentWrite) throws(StorageFailure) {
    let file = try segment.file.opened(context)
    if !segment.head.isEmpty {
      try file.write(segment.head, at: 0)
      try file.synchronize()
      synchronizations += 1
      bytesWritten += UInt64(segment.head.count)
    }
    file.expectReads(plan.expectsReads)
    try segment.gather.write(to: file, at: segment.offset)
    bytesWritten += UInt64(segment.gather.byteCount)
  }

  private func synchronize(_ file: SegmentWriteFile) throws(StorageFailure) {
    try file.opened(context).synchronize()
    synchronizations += 1
  }

  private func write(_ state: StateWrite) throws(StorageFailure) {
    try state.write(to: context.stateFile)
    bytesWritten += UInt64(state.copies * state.bytes.count)
    if state.isSynchronized {
      try context.stateFile.synchronize()
      synchronizations += 1
    }
  }
}

/// The two manifest files.
enum ManifestFiles {
  /// Replaces both, one after the other, each by rename.
  static func write(
    _ manifest: Manifest, _ directory: String, _ fileSystem: any FileSystem
  ) throws(StorageFailure) {
    let bytes = manifest.encoded()
    for name in FileNames.manifests {
      try replaceFile(name, bytes, directory, fileSystem)
    }
    try fileSystem.synchronizeDirectory(directory)
  }

  /// The newest whole one, nil if there is none, and whether the other is an older one.
  static func read(
    _ directory: String, _ fileSystem: any FileSystem
  ) throws(StorageFailure)
    -> (manifest: Manifest?, differ: Bool, damaged: [String], missing: [String])
  {
    var found: [Manifest] = []
    var damaged: [String] = []
    var missing: [String] = []
    for name in FileNames.manifests {
      do throws(StorageFailure) {
        let file = try fileSystem.open(directory + "/" + name, .read)
        let bytes = try WholeFile.read(file, readBytes: 1 << 20)
        if let manifest = Manifest.decode(bytes) {
          found.append(manifest)
        } else {
          damaged.append(name)
        }
      } catch {
        guard error.isNoSuchFile else { throw error }
        missing.append(name)
      }
    }
    let differ = Set(found.map(\.edition)).count > 1
    return (found.max { $0.edition < $1.edition }, differ, damaged, missing)
  }
}

/// Writes a small file beside the old one, syncs it, and gives it the name. The caller syncs the
/// directory.
func replaceFile(
  _ name: String, _ bytes: [UInt8], _ directory: String, _ fileSystem: any FileSystem
) throws(StorageFailure) {
  let temporary = directory + "/" + name + FileNames.temporarySuffix
  let file = try fileSystem.open(temporary, .createIfMissing)
  try file.truncate(to: 0)
  try file.write([bytes], at: 0)
  try file.synchronize()
  try fileSystem.rename(temporary, to: directory + "/" + name)
}
