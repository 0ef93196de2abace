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

/// How far a member has come: what it needs of the log is behind that.
package struct MemberReach: Hashable, Sendable {
  package let index: LogIndex
  /// It is connected and on its way: being sent a snapshot, or entries.
  package let isFed: Bool
}

extension Progress {
  fileprivate var reach: MemberReach {
    guard isConnected else { return MemberReach(index: reached, isFed: false) }
    return switch mode {
    case .snapshot: MemberReach(index: transfer?.last.index ?? reached, isFed: true)
    case .replicate: MemberReach(index: match, isFed: true)
    case .probe: MemberReach(index: min(reached, next.previous), isFed: false)
    }
  }
}

extension Consensus {
  /// How far each other member has come, if this node leads; empty otherwise.
  package var reaches: [MemberReach] { progress.map(\.reach) }

  /// How many other members this node feeds, and which: those of `memberStatuses`, in that order.
  package var followerCount: Int { progress.count }
  package func follower(at place: Int) -> NodeID { progress[place].id }
  /// The first entry that must still be sent to it, as far as this node knows.
  package func firstToSend(at place: Int) -> LogIndex {
    let member = progress[place]
    return member.isConnected && member.mode == .replicate ? member.next : member.reach.index.next
  }
  /// The log it needs is gone: `nextSnapshotChunk` may have something for it.
  package func isFedSnapshot(at place: Int) -> Bool { progress[place].mode == .snapshot }

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
