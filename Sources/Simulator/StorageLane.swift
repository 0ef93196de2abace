// What a node wants written, in order, one job at a time: the same rules as the server's
// `StorageQueue`, so that the seams between replica and log store are those of production.

import Base
import Consensus
import LogStore
import Node

/// What is to be staged next. Staging order is the order on disk.
enum StorageRequest {
  case operations([StoreTicket], [LogOperation])
  case marker
  case snapshot(SnapshotWriter, SnapshotRequest)
  case cleaning(CleaningJob)
  case repair(RepairJob)
  case install(SnapshotReceiver, SnapshotChunk)
}

/// What follows when a write job is durable.
enum StorageFollowUp {
  case stored([StoreTicket])
  case marker
  case snapshotInForce(SnapshotRequest)
  case rewritten
  case installed(SnapshotChunk)
}

extension StorageFollowUp {
  /// What a crash in the middle of the job counts as.
  var crash: Happening? {
    switch self {
    case .stored, .marker: nil
    case .snapshotInForce: .crashesInsideSnapshot
    case .rewritten: .crashesInsideRewrite
    case .installed: .crashesInsideInstall
    }
  }

  /// What may lie in wait for it.
  var ambush: Ambush? { if case .stored = self { .batch } else { Ambush(crash) } }

  /// About how many times it changes something on the disk.
  var steps: Int {
    switch self {
    case .stored, .marker: 5
    case .snapshotInForce, .rewritten, .installed: 14
    }
  }
}

struct StorageLane {
  /// A job on its way to the disk.
  struct Current {
    let job: WriteJob
    let followUp: StorageFollowUp
    /// The bytes went to the disk when the job began, not when it is reported.
    var isExecuted = false
    var failure: StorageFailure?
  }

  private var requests = RingBuffer<StorageRequest>()
  var current: Current?
  /// Payload bytes of the operations that wait.
  private(set) var waitingBytes = 0
  private var hasDroppedSnapshot = false
  /// Repairs that the log has, or refused, since this was asked last.
  private var stagedRepairs = 0

  var isIdle: Bool { current == nil && requests.isEmpty }

  /// Nothing that takes long whatever its size.
  var isCurrentSmall: Bool {
    switch current?.followUp {
    case .stored, .marker: true
    default: false
    }
  }

  mutating func add(_ request: StorageRequest) {
    if case .operations(let tickets, let operations) = request {
      waitingBytes += Self.byteCount(of: operations)
      if case .operations(var earlier, var gathered)? = requests.last {
        _ = requests.popLast()
        earlier.append(contentsOf: tickets)
        gathered.append(contentsOf: operations)
        requests.append(.operations(earlier, gathered))
        return
      }
    }
    requests.append(request)
  }

  /// Stages the next request, if none is on its way; false if there is nothing to do.
  mutating func begin(from store: LogStore) -> Bool {
    guard current == nil else { return false }
    while let request = requests.popFirst() {
      let (job, followUp) = stage(request, store)
      if let job {
        current = Current(job: job, followUp: followUp)
        return true
      }
      if case .snapshotInForce = followUp { hasDroppedSnapshot = true }
    }
    return false
  }

  /// Whether a snapshot was superfluous by the time it was to be put in force.
  mutating func takeDroppedSnapshot() -> Bool {
    defer { hasDroppedSnapshot = false }
    return hasDroppedSnapshot
  }

  /// How many repairs were staged since this was asked last.
  mutating func takeStagedRepairs() -> Int {
    defer { stagedRepairs = 0 }
    return stagedRepairs
  }

  private mutating func stage(
    _ request: StorageRequest, _ store: LogStore
  ) -> (WriteJob?, StorageFollowUp) {
    switch request {
    case .operations(let tickets, let operations):
      waitingBytes -= Self.byteCount(of: operations)
      return (store.stage(operations), .stored(tickets))
    case .marker: return (store.stageMarker(), .marker)
    case .snapshot(let writer, let request): return (store.stage(writer), .snapshotInForce(request))
    case .cleaning(let job): return (store.stage(job), .rewritten)
    case .repair(let job):
      stagedRepairs += 1
      return (store.stage(job), .rewritten)
    case .install(let receiver, let chunk): return (store.stage(receiver), .installed(chunk))
    }
  }

  /// Carries the current job out on the disk.
  mutating func execute() {
    guard let job = current?.job, current?.isExecuted == false else { return }
    current?.isExecuted = true
    do throws(StorageFailure) { try job.execute() } catch { current?.failure = error }
  }

  private static func byteCount(of operations: [LogOperation]) -> Int {
    operations.reduce(0) { sum, operation in
      guard case .append(let entries) = operation else { return sum }
      return entries.reduce(sum) { $0 + $1.payload.count }
    }
  }
}

/// What a job on the background thread came to.
enum BackgroundResult {
  case upkeep(UpkeepJob)
  case snapshotWritten(SnapshotWriter, SnapshotRequest, StorageFailure?)
  case cleaned(CleaningJob, StorageFailure?)
  case repaired(RepairJob, StorageFailure?)
  case sourceReady(SnapshotPlan, SnapshotSource, LogReadError?)
  case received(SnapshotReceiver, SnapshotChunk, SnapshotStreamError?)

  /// What the disk refused. The log does without spare files and without a reader's snapshot.
  var failure: StorageFailure? {
    switch self {
    case .snapshotWritten(_, _, let failure), .cleaned(_, let failure), .repaired(_, let failure):
      failure
    case .received(_, _, .storage(let failure)): failure
    case .upkeep, .sourceReady, .received: nil
    }
  }
}

/// The low-priority thread: one job after the other.
struct BackgroundLane {
  private var jobs = RingBuffer<(crash: Happening?, job: () -> BackgroundResult)>()
  private var isRunning = false
  private var result: BackgroundResult?

  /// - Parameter crash: what dying in the middle of it counts as.
  mutating func add(_ crash: Happening?, _ job: @escaping () -> BackgroundResult) {
    jobs.append((crash, job))
  }

  /// What a crash now counts as.
  var crash: Happening? { jobs.first?.crash }

  var isIdle: Bool { jobs.isEmpty && !isRunning }

  var hasUnexecuted: Bool { isRunning && result == nil }

  /// True if a job began.
  mutating func begin() -> Bool {
    guard !isRunning, !jobs.isEmpty else { return false }
    isRunning = true
    return true
  }

  /// Does the job that began.
  mutating func execute() {
    guard isRunning, result == nil, let next = jobs.popFirst() else { return }
    result = next.job()
  }

  mutating func finish() -> BackgroundResult? {
    execute()
    isRunning = false
    defer { result = nil }
    return result
  }
}
