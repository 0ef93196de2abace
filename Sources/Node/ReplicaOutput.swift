// What a replica is told at its start and what it asks of its shell, all by value: the server does
// it with real sockets and disks, the simulator with simulated ones.

import Base
import Consensus
import QueueMachine

/// Settings of one replica. All sizes in bytes.
package struct ReplicaConfiguration: Sendable {
  package var consensus: ConsensusConfiguration
  /// Name of the cluster, for introductions.
  package var cluster: String
  /// Recent entries kept in memory.
  package var cacheBytesMax: Int = 64 << 20
  /// Proposed or taken but not yet applied; over this the leader refuses work (G13).
  package var unappliedBytesMax: Int = 64 << 20
  /// When a batch of commands is this large it is proposed without waiting for the turn's end.
  package var batchBytesMax: Int = 1 << 20
  /// A snapshot is asked for whenever the applied log has grown by this much.
  package var snapshotBytes: Int = 256 << 20
  /// A leader's log reaches back this far for a member that is away, so that it need not be sent a
  /// snapshot; payloads.
  package var logBytesForAbsent: UInt64 = 8 * 256 << 20
  /// As far for a member that is being sent what it lacks: else the log could be gone again when it
  /// has the snapshot.
  package var logBytesForFed: UInt64 = 64 * 256 << 20
  /// While clients publish, a member that is behind gains so many payload bytes a second on them.
  package var feedBytesPerSecond: UInt64 = 96 << 20
  /// How much is asked of the log store at a time.
  package var readBytesMax: Int = 4 << 20
  /// How long to wait for a peer's answer when repairing before another one is asked.
  package var repairPatience: Nanoseconds = .seconds(1)
  /// Sessions stay with this node whether it leads or not, so it gathers their effects always. Those
  /// of sessions that go to the leader are then gathered too and concern nobody here.
  package var hasStickySessions = false

  package init(consensus: ConsensusConfiguration, cluster: String) {
    self.consensus = consensus
    self.cluster = cluster
  }
}

/// What the disk held when the node started.
package struct RestoredReplica: Sendable {
  /// With `canVote` false where the disk is known to have forgotten promises. One without any past
  /// may have, or may be new: `Formation` finds out, and until then it does not vote either.
  package var consensus: RestoredState
  /// Entries up to the snapshot whose records were damaged on this disk.
  package var damaged: [ClosedRange<LogIndex>]
  /// The wall clock, nanoseconds since 1970, for the first stamp of a new cluster.
  package var wallClock: MachineTime

  package init(
    consensus: RestoredState, damaged: [ClosedRange<LogIndex>] = [], wallClock: MachineTime
  ) {
    self.consensus = consensus
    self.damaged = damaged
    self.wallClock = wallClock
  }
}

/// Numbers the storage batches; reported done in order.
package struct StoreTicket: Hashable, Sendable, Strideable {
  package let number: UInt64

  package func distance(to other: StoreTicket) -> Int { number.distance(to: other.number) }
  package func advanced(by count: Int) -> StoreTicket {
    StoreTicket(number: number.advanced(by: count))
  }
}

/// Entries wanted from the log store.
package struct EntryRead: Hashable, Sendable {
  package enum Purpose: Hashable, Sendable {
    /// To apply what is committed but no longer in memory.
    case apply
    /// To send to a follower that is behind.
    case replicate(to: NodeID)
  }
  package var purpose: Purpose
  package var first: LogIndex
  package var last: LogIndex
  /// At least one entry is wanted even if it is larger.
  package var bytesMax: Int
}

/// A snapshot to be written: encode `queues` off the loop, then tell `snapshotSaved`.
package struct SnapshotRequest: Sendable {
  package var last: LogPosition
  package var membership: Membership
  package var stateHash: UInt64
  package var queues: FrozenQueues
}

/// Why a node must stop.
package enum StopReason: Hashable, Sendable, CustomStringConvertible {
  /// Its state differs from the majority's after this entry (G14).
  case diverged(after: LogIndex)
  /// A leader has another entry at a place that this node knows to be committed.
  case contradicted(LogIndex)
  /// It is no longer a member.
  case removed

  package var description: String {
    switch self {
    case .diverged(let index):
      "the state of the queues after entry \(index) differs from that of the other nodes (G14)"
    case .contradicted(let index):
      "the leader has another entry \(index) than the one that was committed here: this node's data"
        + " is not of the leader's cluster"
    case .removed: "this node was removed from the cluster"
    }
  }
}

/// One order to the shell.
package enum ReplicaOutput: Sendable {
  /// Carry out in order, durably, then tell `stored`.
  case store(StoreTicket, [LogOperation])
  case send(to: NodeID, PeerEnvelope)
  /// Read, then tell `entriesRead` or `readFailed`.
  case read(EntryRead)
  case leaderChanged(NodeID?, Term)
  /// This node leads from now on, or no longer; proposals before have an unknown outcome.
  case roleChanged(isLeader: Bool, Term)
  /// Whom to have connections with.
  case membershipChanged(Membership)
  case takeSnapshot(SnapshotRequest)
  /// Read this piece of the snapshot stream, then tell `snapshotRead`.
  case readSnapshot(SnapshotPlan)
  /// Keep this piece of a stream from the leader, then tell `snapshotChunkStored`; after the last
  /// one put it in force and tell `snapshotInstalled` or `snapshotInstallFailed`.
  case storeSnapshotChunk(SnapshotChunk, [UInt8])
  /// A read that was asked for with this ticket may be answered from the state as it is now.
  case readReady(ReadTicket)
  case readFailed(ReadTicket)
  /// Look these records up and send what is there to the peer.
  case lookUpRecords(for: NodeID, [RecordReference])
  /// All that was still needed of these damaged entries: put it in their place.
  /// Say `repairStaged` when reads see it, or when it came to nothing since the log was replaced.
  case repair([ClosedRange<LogIndex>], [RecordReference], bodies: [[UInt8]])
  /// This disk was wiped, or is new in a cluster with a past: the log store notes, no later than it
  /// saves a term, that promises may be forgotten.
  case memoryLost
  /// Nothing that this node promised is forgotten any more: the log store may note it.
  case memoryRestored
  /// The log again holds all that this node ever acknowledged: damage behind the snapshot is mended.
  case logMended
  /// For the log: one event.
  case note(String)
  case stop(StopReason)
}

extension RestoredState {
  /// Neither an entry nor a term: a directory that is new, or was wiped.
  package var hasNoPast: Bool {
    hardState.term == .zero && last == .zero && snapshot == .zero
  }
}
