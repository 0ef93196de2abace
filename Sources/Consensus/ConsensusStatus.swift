// What `skein status` shows of a member as its leader sees it.

import Base

/// A member seen by the leader.
package struct MemberStatus: Hashable, Sendable {
  package let id: NodeID
  package let isConnected: Bool
  /// On the member's disk for certain.
  package let match: LogIndex
  /// The first entry that was not sent yet.
  package let next: LogIndex
  /// Messages with entries that are not answered yet.
  package let inFlight: Int
  package let mode: ReplicationMode
  package let lastHeard: MonotonicTime
}

extension Consensus {
  /// The oldest snapshot that is on its way to a connected follower: behind it that one needs the
  /// entries that the log still has.
  package var oldestTransfer: LogIndex? {
    progress.lazy.filter(\.isConnected).compactMap { $0.transfer?.last.index }.min()
  }

  /// The other members, if this node leads; empty otherwise.
  package var memberStatuses: [MemberStatus] {
    progress.map {
      MemberStatus(
        id: $0.id, isConnected: $0.isConnected, match: $0.match, next: $0.next,
        inFlight: $0.mode == .probe && $0.isProbeSent ? 1 : $0.window.count, mode: $0.mode,
        lastHeard: $0.lastHeard)
    }
  }
}
