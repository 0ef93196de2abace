// How far back the log reaches. A node itself needs no entry that its snapshot covers; other members
// may. Who lacks what the leader's log has not any more is sent the snapshot with every message that
// waits, which under load can take longer than the log since then is kept.

import Base
import Consensus

/// Where the log may be cut, and the decision where it is.
struct LogReach {
  private struct Mark {
    let index: LogIndex
    /// Payload bytes applied up to there since this process began.
    let bytes: UInt64
  }

  /// Where the log begins at the latest, then the snapshots since, oldest first. Never empty.
  private var marks: [Mark]
  /// The snapshot that is being written.
  private var pending: Mark?
  private var appliedBytes: UInt64 = 0

  /// The log reaches back no more snapshots than these, however small they are.
  private static let marksMax = 256

  /// The snapshot before the newest: further back the log is there for other members only.
  var formerSnapshot: LogIndex { marks.count > 1 ? marks[marks.count - 2].index : .zero }

  init(from snapshot: LogIndex) { marks = [Mark(index: snapshot, bytes: 0)] }

  /// What an entry costs the log besides its payload, about.
  static let entryOverhead = 128

  mutating func applied(_ bytes: Int) { appliedBytes += UInt64(bytes + Self.entryOverhead) }

  mutating func snapshotBegins(at index: LogIndex) {
    pending = Mark(index: index, bytes: appliedBytes)
  }

  /// The whole log was replaced by a snapshot through `index`.
  mutating func reset(to index: LogIndex) {
    pending = nil
    marks = [Mark(index: index, bytes: appliedBytes)]
  }

  /// The snapshot that was begun is durable.
  ///
  /// - Parameters:
  ///   - members: how far the others have come, if this node leads.
  ///   - absentBytes: payload bytes of log that are kept for a member that is away.
  ///   - fedBytes: those kept for one that is being sent what it lacks.
  ///   - freeBytes: what the disk has left; what is kept takes no more than that.
  /// - Returns: the last entry that the log needs no more.
  mutating func snapshotSaved(
    members: [MemberReach], absentBytes: UInt64, fedBytes: UInt64, freeBytes: UInt64
  ) -> LogIndex {
    // Since the snapshot before this one everything stays, for who is a little behind.
    var start = marks.count - 1
    for member in members {
      let bytesMax = min(member.isFed ? fedBytes : absentBytes, freeBytes)
      guard let at = marks.lastIndex(where: { $0.index <= member.index }), at < start,
        appliedBytes - marks[at].bytes <= bytesMax
      else { continue }
      start = at
    }
    marks.removeFirst(start)
    let end = marks[0].index
    if let pending { marks.append(pending) }
    pending = nil
    if marks.count > Self.marksMax { marks.removeFirst() }
    return end
  }
}
