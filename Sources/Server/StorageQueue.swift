// What the loop wants written, in order, one job at a time: while one is on its way to the disk the
// next batch gathers, so that one sync serves everything that came meanwhile (group commit).

import Base
import Consensus
import LogStore
import Node
import Transport

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
enum StorageFollowUp: Sendable {
  case stored([StoreTicket])
  case marker
  case snapshotInForce(SnapshotRequest)
  case rewritten
  case installed(SnapshotChunk)
}

struct StorageQueue {
  private var requests = RingBuffer<StorageRequest>()
  /// The job that is on its way to the disk and what follows it.
  private(set) var current: (job: WriteJob, followUp: StorageFollowUp)?
  /// Payload bytes of the operations that wait.
  private(set) var waitingBytes = 0
  /// A snapshot was superfluous by the time it was to be put in force.
  private var hasDroppedSnapshot = false
  /// Repairs that the log has, or refused, since this was asked last.
  private var stagedRepairs = 0

  /// Whether what is on its way is a batch of operations or a marker: nothing that takes long
  /// whatever its size.
  var isCurrentSmall: Bool {
    switch current?.followUp {
    case .stored, .marker: true
    default: false
    }
  }

  var isIdle: Bool { current == nil && requests.isEmpty }

  /// Whether `next` would stage something.
  var mayGoOn: Bool { current == nil && !requests.isEmpty }

  mutating func add(_ request: StorageRequest) {
    if case .operations(let tickets, let operations) = request {
      waitingBytes += Self.byteCount(of: operations)
      if case .operations(var earlier, var gathered)? = requests.last {
        // Let go of the queue's own copy, so that nothing is copied by appending.
        _ = requests.popLast()
        earlier.append(contentsOf: tickets)
        gathered.append(contentsOf: operations)
        requests.append(.operations(earlier, gathered))
        return
      }
    }
    requests.append(request)
  }

  /// Stages the next request, if none is on its way; nil if there is nothing to do.
  mutating func next(from store: LogStore) -> WriteJob? {
    guard current == nil else { return nil }
    while let request = requests.popFirst() {
      let staged = stage(request, store)
      if let job = staged.job {
        current = (job, staged.followUp)
        return job
      }
      if case .snapshotInForce = staged.followUp { hasDroppedSnapshot = true }
    }
    return nil
  }

  private mutating func stage(
    _ request: StorageRequest, _ store: LogStore
  ) -> (job: WriteJob?, followUp: StorageFollowUp) {
    switch request {
    case .operations(let tickets, let operations):
      waitingBytes -= Self.byteCount(of: operations)
      return (store.stage(operations), .stored(tickets))
    case .marker:
      return (store.stageMarker(), .marker)
    case .snapshot(let writer, let request):
      return (store.stage(writer), .snapshotInForce(request))
    case .cleaning(let job):
      return (store.stage(job), .rewritten)
    case .repair(let job):
      stagedRepairs += 1
      return (store.stage(job), .rewritten)
    case .install(let receiver, let chunk):
      return (store.stage(receiver), .installed(chunk))
    }
  }

  /// Whether a snapshot was dropped since this was asked last.
  mutating func takeDroppedSnapshot() -> Bool {
    defer { hasDroppedSnapshot = false }
    return hasDroppedSnapshot
  }

  /// How many repairs were staged since this was asked last.
  mutating func takeStagedRepairs() -> Int {
    defer { stagedRepairs = 0 }
    return stagedRepairs
  }

  /// The current job came back from the disk.
  mutating func takeCurrent() -> StorageFollowUp {
    let followUp = current?.followUp ?? .marker
    current = nil
    return followUp
  }

  private static func byteCount(of operations: [LogOperation]) -> Int {
    operations.reduce(0) { sum, operation in
      guard case .append(let entries) = operation else { return sum }
      return entries.reduce(sum) { $0 + $1.payload.count }
    }
  }
}
