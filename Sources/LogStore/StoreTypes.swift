// The values that the log store takes and gives: identity, options, errors, figures.

import Base
import Consensus

/// Whose data a directory holds. Written at the first start, compared at every later one.
package struct StoreIdentity: Hashable, Sendable {
  /// The cluster's name; at most 255 bytes.
  package var cluster: String
  package var node: NodeID

  package init(cluster: String, node: NodeID) {
    self.cluster = cluster
    self.node = node
  }
}

/// What snapshots and rewritten segments may take of the disk: the log must be able to go on.
struct StoreRoom: Sendable {
  var segmentBytes: UInt64
  /// Of the snapshot in force.
  var snapshotBytes: UInt64

  /// So little is tried anywhere: the snapshot of empty queues is what makes room. The other files need some
  /// blocks as well.
  private var littleBytes: UInt64 { min(64 << 10, segmentBytes / 16) }

  /// Whether the next snapshot, which may be larger than this one, has to be counted first.
  func isShort(_ free: UInt64) -> Bool { free < 4 * segmentBytes + 2 * snapshotBytes }

  /// What of the free bytes stays: a segment, or a fourth, since most of the time the next segment is there
  /// already.
  func left(of free: UInt64) -> UInt64 { min(segmentBytes, free / 4) }

  /// A disk of which nothing is left says no more, so that little can only be tried.
  func fits(_ bytes: UInt64, free: UInt64, leaving left: UInt64) -> Bool {
    bytes <= littleBytes
      ? free == 0 || bytes + littleBytes / 4 <= free
      : bytes + left <= free
  }
}

/// What can be set. Sizes are bytes.
package struct StoreOptions: Hashable, Sendable {
  /// Size of a segment file. An entry that does not fit one gets a file of its own.
  package var segmentBytes: UInt64 = 64 << 20
  /// Dead segment files kept for reuse; more are deleted. One more than die with a snapshot of the
  /// default size, so that a queue in steady state neither makes nor deletes any.
  package var sparesMax = 5
  /// Segment files kept ready, so that rolling does not stall a batch.
  package var sparesReady = 1
  /// A segment with less than this share of its bytes alive is rewritten.
  package var rewriteBelowPercent: UInt64 = 25
  /// How many segments one cleaning rewrites at most.
  package var rewriteSegmentsMax = 16
  /// File handles kept open for reading.
  package var openFilesMax = 128
  /// Recovery reads this much at a time.
  package var recoveryReadBytes = 4 << 20

  package init() {}

  package static let segmentBytesMin: UInt64 = 16 << 10
  /// Offsets in a segment are 32 bits wide.
  package static let segmentBytesMax: UInt64 = 1 << 31
}

/// Why a data directory cannot be used. The texts say what to do.
package enum LogStoreError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The directory is missing and cannot be made.
  case directoryUnusable(path: String, reason: String)
  /// Another process uses the directory.
  case locked(path: String, process: Int32?)
  case foreignCluster(path: String, found: String, expected: String)
  case foreignNode(path: String, found: NodeID, expected: NodeID)
  /// The directory was written by a newer version of Skein.
  case newerFormat(path: String, found: UInt32, known: UInt32)
  case identityDamaged(path: String)
  /// There are files, and no identity: nothing that Skein wrote.
  case notSkein(path: String, found: [String])
  /// An option has an impossible value.
  case badOption(String)
  /// The disk refused something.
  case storage(StorageFailure)

  package var description: String {
    switch self {
    case .directoryUnusable(let path, let reason):
      "data directory \(path) cannot be used: \(reason); make it, or check its owner and rights"
    case .locked(let path, let process):
      "data directory \(path) is in use by "
        + (process.map { "process \($0)" } ?? "another process")
        + "; stop that node, or give this one a directory of its own"
    case .foreignCluster(let path, let found, let expected):
      "data directory \(path) belongs to cluster \"\(found)\", not \"\(expected)\"; "
        + "check the configuration's cluster name and directory"
    case .foreignNode(let path, let found, let expected):
      "data directory \(path) belongs to node \(found), not \(expected); "
        + "check the configuration's node id and directory"
    case .newerFormat(let path, let found, let known):
      "\(path) has format version \(found), this program knows up to \(known); "
        + "start the newer version of skein"
    case .identityDamaged(let path):
      "\(path) is damaged or missing beside a log; restore that file, or empty the directory "
        + "and let the node fetch everything from its peers as a new member"
    case .notSkein(let path, let found):
      "\(path) is no data directory of Skein (it has \(found.prefix(3).joined(separator: ", "))"
        + "\(found.count > 3 ? ", …" : "")); give an empty or a new directory"
    case .badOption(let text): text
    case .storage(let failure): "\(failure)"
    }
  }
}

/// Why an entry or record cannot be read.
package enum LogReadError: Error, Equatable, Sendable {
  /// It was in the log and its bytes are damaged or gone: to be fetched from a peer.
  case damaged(LogIndex)
  /// It is not, or no longer, in the log.
  case notInLog(LogIndex)
  /// The disk refused to read.
  case storage(StorageFailure)
}

/// Consecutive entries, both ends included; never empty.
package struct EntryRange: Hashable, Sendable, CustomStringConvertible {
  package var first: LogIndex
  package var last: LogIndex

  package init(first: LogIndex, last: LogIndex) {
    invariant(first <= last, "entry range \(first)...\(last)")
    self.first = first
    self.last = last
  }

  package func contains(_ index: LogIndex) -> Bool { first <= index && index <= last }
  package var description: String { first == last ? "\(first)" : "\(first)…\(last)" }
}

/// What a snapshot is about; its bytes are the machine's own.
package struct SnapshotInfo: Hashable, Sendable {
  /// The last entry that it covers.
  package var position: LogPosition
  /// The membership as of `position`.
  package var membership: Membership
  /// The machine's state hash at `stateHashIndex` (G14).
  package var stateHash: UInt64
  package var stateHashIndex: LogIndex
  /// Size of the machine's bytes.
  package var byteCount: UInt64

  package init(
    position: LogPosition, membership: Membership, stateHash: UInt64, stateHashIndex: LogIndex,
    byteCount: UInt64
  ) {
    self.position = position
    self.membership = membership
    self.stateHash = stateHash
    self.stateHashIndex = stateHashIndex
    self.byteCount = byteCount
  }
}

/// A piece of an entry's payload, verified: whole entries where the log still has them, otherwise
/// what a rewritten segment kept.
package struct PayloadBlock: Sendable {
  package var entry: LogIndex
  /// Where `bytes` begins in the payload.
  package var offset: UInt32
  package var bytes: [UInt8]

  package func contains(_ reference: RecordReference) -> Bool {
    reference.entry == entry && reference.offset >= offset
      && UInt64(reference.offset) + UInt64(reference.size) <= UInt64(offset) + UInt64(bytes.count)
  }

  /// The bytes of a record that lies in this block.
  package func slice(_ reference: RecordReference) -> ArraySlice<UInt8> {
    invariant(contains(reference), "record of entry \(reference.entry) outside its block")
    let start = Int(reference.offset - offset)
    return bytes[start..<start + Int(reference.size)]
  }
}

/// Calls its argument with every record that is alive, in any order, the same ones every time.
/// Called on the low-priority thread.
package typealias LiveRecords = @Sendable (_ each: (RecordReference) -> Void) -> Void

/// As `LiveRecords`, but first asks `span` of many records at once: those that it takes are not told to `each`.
package typealias LiveSpans =
  @Sendable (_ span: (RecordSpan) -> Bool, _ each: (RecordReference) -> Void) -> Void

/// Figures for the status page and the tests. Bytes are sizes of files.
package struct StoreFigures: Hashable, Sendable {
  package var batches: UInt64 = 0
  package var synchronizations: UInt64 = 0
  package var bytesWritten: UInt64 = 0
  package var segmentFiles = 0
  package var keptFiles = 0
  package var spareFiles = 0
  package var diskBytes: UInt64 = 0
  /// The part of `diskBytes` that goes where the disk is short (`LogStore.keepsSpares`).
  package var reusableBytes: UInt64 = 0
  package init() {}

  mutating func add(_ job: WriteJob) {
    batches += 1
    synchronizations += job.synchronizations
    bytesWritten += job.bytesWritten
  }
}
