// One node of a simulated cluster: a `Consensus`, a disk that completes when it is told to, and
// what `Node` would do with the outputs.

import Base

@testable import Consensus

/// An entry with a number in place of a payload.
struct TestEntry: Hashable {
  var position: LogPosition
  var kind: EntryKind
  var value: UInt64
  var membership: Membership?

  var header: EntryHeader {
    EntryHeader(position: position, kind: kind, payloadBytes: 8, payloadChecksum: Checksum(of: []))
  }
}

/// A message with the payloads that `Node` joins.
struct Envelope {
  var from: NodeID
  var to: NodeID
  var message: PeerMessage
  var entries: [TestEntry] = []
  /// In the last chunk of a snapshot: the entries that it stands for.
  var prefix: [TestEntry] = []
}

/// What a crash leaves behind.
struct Disk {
  var hardState = HardState()
  /// From index 1, also what a snapshot covers, so that tests can compare.
  var entries: [TestEntry] = []
  var snapshot = LogPosition.zero
  var snapshotMembership: Membership
  var logBase = LogPosition.zero
  var canVote = true

  var last: LogPosition { entries.last?.position ?? .zero }

  func restored() -> RestoredState {
    let kept = entries[Int(logBase.index.rawValue)...]
    var runs: [TermRun] = []
    for entry in kept where entry.position.term != runs.last?.term {
      runs.append(TermRun(first: entry.position.index, term: entry.position.term))
    }
    let memberships = kept.compactMap { entry in
      entry.membership.map { MembershipEntry(index: entry.position.index, membership: $0) }
    }
    return RestoredState(
      hardState: hardState, snapshot: snapshot, snapshotMembership: snapshotMembership,
      logBase: logBase, termRuns: runs, last: last.index,
      memberships: memberships.filter { $0.index > snapshot.index }, canVote: canVote)
  }
}

enum StorageOrder {
  case hardState(HardState)
  case truncate(from: LogIndex)
  case append([TestEntry])
  case chunk(SnapshotChunk, prefix: [TestEntry])
  case install(SnapshotChunk, prefix: [TestEntry])
}

final class SimulatedNode {
  let id: NodeID
  var disk: Disk
  var consensus: Consensus
  var isRunning = true
  /// The log as `Node` sees it, from index 1.
  var log: [TestEntry]
  var applied = LogIndex.zero
  var pending = RingBuffer<StorageOrder>()
  /// Storage completes only by hand.
  var holdsStorage = false
  var lives: UInt64 = 0
  /// Ticket to the highest commit index anywhere when the read was asked for.
  var reads: [ReadTicket: LogIndex] = [:]
  var isRemoved = false

  init(id: NodeID, disk: Disk, configuration: ConsensusConfiguration, now: MonotonicTime) {
    self.id = id
    self.disk = disk
    log = disk.entries
    applied = disk.snapshot.index
    consensus = Consensus(configuration: configuration, restored: disk.restored(), now: now)
  }

  func restart(_ configuration: ConsensusConfiguration, now: MonotonicTime) {
    lives += 1
    var configuration = configuration
    configuration.seed &+= lives &* 1000
    consensus = Consensus(configuration: configuration, restored: disk.restored(), now: now)
    log = disk.entries
    applied = disk.snapshot.index
    pending.removeAll()
    reads = [:]
    isRunning = true
  }

  /// Puts the oldest order on disk. Returns what is to be told to consensus.
  func completeOne() -> StorageOrder? {
    guard let order = pending.popFirst() else { return nil }
    switch order {
    case .hardState(let state): disk.hardState = state
    case .truncate(let index): disk.entries.removeSubrange((Int(index.rawValue) - 1)...)
    case .append(let entries):
      invariant(
        entries[0].position.index == disk.last.index.next, "disk gap at \(entries[0].position)")
      disk.entries += entries
    case .chunk: break
    case .install(let chunk, let prefix):
      disk.entries = prefix
      disk.snapshot = chunk.last
      disk.snapshotMembership = chunk.membership
      disk.logBase = chunk.last
    }
    return order
  }
}
