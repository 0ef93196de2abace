// What consensus asks its caller to do, by value, in the order in which it must be begun.

import Base

/// One order to `Node`. Storage must begin (and complete) the disk orders in the order in which
/// they were given; sends need not wait for them, consensus holds back what must.
package enum ConsensusOutput: Hashable, Sendable {
  /// Write this and say `hardStatePersisted`.
  case persistHardState(HardState)
  /// Remove the entries from here on from the log and from every cache. Never at or before commit.
  case truncateLog(from: LogIndex)
  /// Write these entries of the message at hand to the log and say `logPersisted`. Entries of the
  /// message before `first` are known already.
  case appendEntries(first: LogIndex, last: LogIndex)
  case send(to: NodeID, PeerMessage)
  /// Apply the entries through this one.
  case commit(through: LogIndex)
  /// This node leads `begin.term`; write an empty entry of kind `.begin` at `begin`, which the log
  /// is already taken to hold.
  case becameLeader(begin: LogPosition)
  /// This node leads no more. What it proposed and was not committed has an unknown outcome.
  case becameFollower(Term)
  /// Who leads as far as known; nil while nobody is known to.
  case leaderChanged(NodeID?)
  /// In force from the moment that it is in the log (thesis §4.1), taken back if the entry is.
  case membershipChanged(Membership, at: LogIndex)
  /// The committed membership no longer has this node. It will not campaign any more.
  case removedFromCluster
  /// Store this chunk's bytes (offset 0: drop what was stored before) and say
  /// `snapshotChunkStored`; if it is the last, put the snapshot in force in place of the whole log
  /// and say `snapshotInstalled`, or `snapshotFailed`.
  case receiveSnapshotChunk(SnapshotChunk)
  /// A read that asked for this ticket may be served once `index` is applied.
  case readReady(ReadTicket, index: LogIndex)
  /// A leader has another entry than this node at a place that this node knows to be committed: one
  /// of the two has a forged or foreign past. Nothing was acknowledged; the node should stop.
  case contradicted(LogIndex)
  /// Leadership was lost first: ask again, elsewhere.
  case readFailed(ReadTicket)
  /// The leadership transfer did not happen in time; this node leads on.
  case transferAbandoned(NodeID)
  /// This node, whose disk was wiped, may vote from now on: remember that on disk and say
  /// `restoredVoteStored`.
  case voteRestored
  /// The log again holds all that this node ever acknowledged.
  case floorCleared
}

/// A linearizable read on its way (thesis §6.4). Reads asked for in one turn share a ticket.
package struct ReadTicket: Hashable, Sendable {
  package let number: UInt64
}

/// An append that the leader may send now. Node joins the payloads.
package struct AppendPlan: Hashable, Sendable {
  package let to: NodeID
  package let term: Term
  package let previous: LogPosition
  /// The last entry that could be sent; `previous.index` if the message is to carry none.
  package let last: LogIndex
  package let commit: LogIndex
  package let round: UInt64
  package let clearsPromises: Bool
  /// As in the request (`AppendRequest.isMember`).
  package let isMember: Bool
  /// How many payload bytes fit the follower's window. At least one entry is sent in any case.
  package let bytesMax: Int

  package var first: LogIndex { previous.index.next }
  package var hasEntries: Bool { last > previous.index }
}

/// A piece of a snapshot that the leader may send now.
package struct SnapshotPlan: Hashable, Sendable {
  package let to: NodeID
  package let term: Term
  package let last: LogPosition
  package let membership: Membership
  package let offset: UInt64
}
