// How fast members that lack much are fed from the log. Each entry costs them, this node and its disk
// about what it cost when it was new; fed as fast as it goes, one member that comes back would slow
// down the clients of all. A little faster than new entries come is enough to catch up.

import Base

/// Bytes that may be read for members that are behind, earned by time and by what clients publish.
struct FeedPace {
  /// While clients write: payload bytes a second that a member gains on them.
  static var bytesPerSecond: UInt64 { 128 << 20 }
  /// A leader that proposed nothing for so long has time for members that are behind.
  private static var idlePause: Nanoseconds { .milliseconds(20) }
  /// What is not used is saved up so far, bytes.
  private static var savedMax: Int { 4 << 20 }

  private var bytes = 0
  private var earned: MonotonicTime
  private var proposed: MonotonicTime

  init(now: MonotonicTime) {
    earned = now
    proposed = now
  }

  /// This leader proposed an entry of its clients.
  mutating func proposed(_ count: Int, now: MonotonicTime) {
    proposed = now
    bytes = min(Self.savedMax, bytes + count)
  }

  /// Entries were sent that had to be read.
  mutating func fed(_ count: Int) { bytes -= count }

  /// When the next may be read: now if not later.
  mutating func nextRead(now: MonotonicTime) -> MonotonicTime {
    let span = min(now.since(earned), .seconds(1))
    earned = now
    bytes = min(Self.savedMax, bytes + Int(span.rawValue * Self.bytesPerSecond / 1_000_000_000))
    if bytes > 0 { return now }
    let missing = UInt64(1 - bytes) * 1_000_000_000 / Self.bytesPerSecond
    return min(now + Nanoseconds(missing + 1), max(now, proposed + Self.idlePause))
  }
}
