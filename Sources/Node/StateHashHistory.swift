// Replicas compare a hash of their state at agreed log positions (G14). Every node remembers its
// own at each multiple of `interval`; followers report theirs, the leader judges.

import Base

/// The state hashes of one node at the agreed positions, the newest few.
package struct StateHashHistory: Sendable {
  /// Hashes are compared after entries whose index is a multiple of this.
  package static let interval: UInt64 = 64
  private static let depth = 1024

  private var hashes = RingBuffer<(index: LogIndex, hash: UInt64)>()

  package init() {}

  package static func isAgreed(_ index: LogIndex) -> Bool { index.rawValue % interval == 0 }

  package mutating func record(_ hash: UInt64, at index: LogIndex) {
    hashes.append((index, hash))
    if hashes.count > Self.depth { _ = hashes.popFirst() }
  }

  /// Records what a peer reported; reports that skip or repeat positions begin a new history.
  package mutating func recordIfNewer(_ hash: UInt64, at index: LogIndex) {
    if let last = hashes.last {
      if index <= last.index { return }
      if index.rawValue != last.index.rawValue + Self.interval { hashes.removeAll() }
    }
    record(hash, at: index)
  }

  package var newest: (index: LogIndex, hash: UInt64)? { hashes.last }

  /// The hash at `index`; nil if it is not kept or was never computed.
  package func hash(at index: LogIndex) -> UInt64? {
    guard let first = hashes.first, index >= first.index, Self.isAgreed(index) else { return nil }
    let position = Int((index.rawValue - first.index.rawValue) / Self.interval)
    guard position < hashes.count, hashes[position].index == index else { return nil }
    return hashes[position].hash
  }

  package mutating func removeAll() { hashes.removeAll() }
}

/// The leader's judgement over the hashes that were reported for one position.
package enum DivergenceVerdict: Equatable, Sendable {
  case agree
  /// This follower differs from a majority that agrees.
  case odd(NodeID)
  /// The leader differs from a majority of its followers that agree with each other.
  case leaderIsOdd
  /// They differ, and no majority can be told yet.
  case undecided
}

/// Judges a follower's report by those of the others for the same position.
///
/// - Parameters:
///   - reports: what each follower reported for this position, the newest follower's included.
///   - quorum: how many nodes are a majority.
package func judgeHashes(
  own: UInt64, reports: [(node: NodeID, hash: UInt64)], quorum: Int
) -> DivergenceVerdict {
  guard let other = reports.first(where: { $0.hash != own }) else { return .agree }
  let withLeader = 1 + reports.count { $0.hash == own }
  if withLeader >= quorum { return .odd(other.node) }
  let against = reports.count { $0.hash == other.hash }
  return against >= quorum ? .leaderIsOdd : .undecided
}
