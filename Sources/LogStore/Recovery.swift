// What opening a store finds out: what is there, what is damaged, what is lost.

import Base
import Consensus

/// One thing that is wrong with the files.
package struct DamageReport: Hashable, Sendable, CustomStringConvertible {
  package enum Consequence: Hashable, Sendable {
    /// Nothing that counts was there.
    case nothingLost
    /// Entries behind the snapshot: the log now ends before them, they come again by replication.
    case logCutFrom(LogIndex)
    /// Entries covered by the snapshot: records in them that are alive must be fetched.
    case recordsLost(EntryRange)
    /// The snapshot, or the list of what is in force: everything comes again from the leader.
    case everythingLost
    /// The term and vote.
    case hardStateLost
  }
  /// What is wrong, where; a sentence for humans.
  package var text: String
  package var consequence: Consequence

  package var description: String {
    switch consequence {
    case .nothingLost: "\(text); nothing is lost"
    case .logCutFrom(let index):
      "\(text); the log is cut before entry \(index), what follows comes from the leader"
    case .recordsLost(let range):
      "\(text); live messages of entries \(range) are fetched from the peers"
    case .everythingLost: "\(text); the log and the state come again from the leader"
    case .hardStateLost: "\(text); the node does not vote until it has caught up"
    }
  }
}

/// A membership entry of the log.
package struct MembershipRecord: Hashable, Sendable {
  package var index: LogIndex
  package var membership: Membership
}

/// The state that a node begins with.
package struct Recovery: Sendable {
  /// The directory was empty: the node has no memory (it must not vote as if it had, G11).
  package var isFresh = false
  /// With `floor` raised to what damage took away.
  package var hardState = HardState()
  /// Promises that the node made may be forgotten: the hard state was lost, or an unknown number of
  /// acknowledged entries. It must not vote or stand for election until a leader elected without
  /// it has brought it up to date; `LogStore.memoryIsRestored` then ends this. It survives
  /// restarts until then.
  package var isMemoryLost = false
  /// The snapshot in force, read with `LogStore.snapshotReader`.
  package var snapshot: SnapshotInfo?
  /// The first entry that `entries` can give; one past `last` if there is none.
  package var firstIndex = LogIndex(1)
  /// The end of the log: the last entry, or the snapshot's, or zero.
  package var last = LogPosition.zero
  /// The terms of the entries from `firstIndex` to `last`.
  package var termRuns: [TermRun] = []
  /// Membership entries behind the snapshot, ascending.
  package var memberships: [MembershipRecord] = []
  /// Entries at or before the snapshot of which records are damaged or missing, ascending, not
  /// overlapping. The live ones among them are to be fetched from peers and given to a repair.
  package var damagedEntries: [EntryRange] = []
  package var damage: [DamageReport] = []
  /// Bytes of an unfinished last write that were cut off; never confirmed.
  package var tornBytes: UInt64 = 0
}
