// What the loop wants written, in order, one job at a time: while one is on its way to the disk the
// next batch gathers, so that one sync serves everything that came meanwhile (group commit).

import Base
import Consensus
import LogStore
import Node
import Transport

/// What is to be staged besides operations. Staging order is the order on disk.
enum StorageRequest {
  case marker
  case snapshot(SnapshotWriter, SnapshotRequest)
  case cleaning(CleaningJob)
  case repair(RepairJob)
  case install(SnapshotReceiver, SnapshotChunk)
}

/// Operations that are staged together.
struct StorageBatch {
  /// Of all that wait for it, one behind the other; nil if nobody does.
  private(set) var tickets: ClosedRange<StoreTicket>?
  private(set) var operations: [LogOperation]
  /// Payload bytes of the operations.
  private(set) var byteCount: Int

  init(_ operations: [LogOperation], for ticket: StoreTicket?) {
    tickets = ticket.map { $0...$0 }
    self.operations = operations
    byteCount = operations.reduce(0) { sum, operation in
      guard case .append(let entries) = operation else { return sum }
      return entries.reduce(sum) { $0 + $1.payload.count }
    }
  }

  mutating func append(_ later: StorageBatch) {
    if let own = tickets, let others = later.tickets {
      invariant(
        own.upperBound.advanced(by: 1) == others.lowerBound,
        "ticket \(others.lowerBound.number) behind \(own.upperBound.number)")
      tickets = own.lowerBound...others.upperBound
    } else {
      tickets = tickets ?? later.tickets
    }
    operations += later.operations
    byteCount += later.byteCount
  }
}

/// What follows when a write job is durable.
enum StorageFollowUp: Sendable {
  case stored(ClosedRange<StoreTicket>?)
  case marker
  case snapshotInForce(SnapshotRequest)
  case rewritten
  case installed(SnapshotChunk)
}

struct StorageQueue {
  private enum Waiting {
    case operations(StorageBatch)
    case request(StorageRequest)
  }

  private var requests = RingBuffer<Waiting>()
  /// The operations that came behind all of `requests`.
  private var batch: StorageBatch?
  /// What follows the job that is on its way to the disk.
  private var current: StorageFollowUp?
  /// Payload bytes of the operations that wait.
  private(set) var waitingBytes = 0
  /// A snapshot was superfluous by the time it was to be put in force.
  private var hasDroppedSnapshot = false
  /// Repairs that the log has, or refused, since this was asked last.
  private var stagedRepairs = 0

  /// Whether what is on its way is a batch of operations or a marker: nothing that takes long
  /// whatever its size.
  var isCurrentSmall: Bool {
    switch current {
    case .stored, .marker: true
    default: false
    }
  }

  var isIdle: Bool { current == nil && !isWaiting }

  /// Whether `next` would stage something.
  var mayGoOn: Bool { current == nil && isWaiting }

  private var isWaiting: Bool { batch != nil || !requests.isEmpty }

  /// Operations, and the ticket of who waits for them.
  mutating func add(_ operations: [LogOperation], for ticket: StoreTicket? = nil) {
    let added = StorageBatch(operations, for: ticket)
    waitingBytes += added.byteCount
    if batch == nil { batch = added } else { batch?.append(added) }
  }

  mutating func add(_ request: StorageRequest) {
    if let batch = batch.take() { requests.append(.operations(batch)) }
    requests.append(.request(request))
  }

  /// Stages the next request, if none is on its way; nil if there is nothing to do.
  mutating func next(from store: LogStore) -> WriteJob? {
    guard current == nil else { return nil }
    while !requests.isEmpty {
      if let job = stageFirst(store) { return job }
    }
    guard let batch = batch.take() else { return nil }
    return stage(batch, store)
  }

  private mutating func stage(_ batch: StorageBatch, _ store: LogStore) -> WriteJob {
    waitingBytes -= batch.byteCount
    current = .stored(batch.tickets)
    return store.stage(batch.operations)
  }

  /// Stages the first of `requests`; nil if that needs no writing.
  private mutating func stageFirst(_ store: LogStore) -> WriteJob? {
    switch requests.popFirst() {
    case nil: nil
    case .operations(let batch): stage(batch, store)
    case .request(let request): stage(request, store)
    }
  }

  private mutating func stage(_ request: StorageRequest, _ store: LogStore) -> WriteJob? {
    let job: WriteJob?
    let followUp: StorageFollowUp
    switch request {
    case .marker:
      (job, followUp) = (store.stageMarker(), .marker)
    case .snapshot(let writer, let request):
      (job, followUp) = (store.stage(writer), .snapshotInForce(request))
      if job == nil { hasDroppedSnapshot = true }
    case .cleaning(let done):
      (job, followUp) = (store.stage(done), .rewritten)
    case .repair(let done):
      stagedRepairs += 1
      (job, followUp) = (store.stage(done), .rewritten)
    case .install(let receiver, let chunk):
      (job, followUp) = (store.stage(receiver), .installed(chunk))
    }
    if job != nil { current = followUp }
    return job
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
  mutating func takeCurrent() -> StorageFollowUp { current.take() ?? .marker }
}
