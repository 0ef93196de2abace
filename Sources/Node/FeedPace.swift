// How fast a member that lacks much is fed from the log. Each entry costs it, this node and its disk about
// what it cost when it was new: fed as fast as it goes, one that comes back would slow down the clients
// of all. A little faster than new entries come is enough to catch up.

import Base

/// What this node has added to its log: what a member must be fed in order not to fall further behind.
struct LogGrowth {
  /// Payload bytes since this process began.
  private(set) var bytes: UInt64 = 0
  private(set) var time: MonotonicTime

  init(now: MonotonicTime) { time = now }

  mutating func added(_ count: Int, now: MonotonicTime) {
    bytes += UInt64(count)
    time = now
  }
}

/// Bytes that may be read for one member that is behind, earned by time and by what is new. Begun when
/// the first are read for it, forgotten when it needs none any more.
struct FeedPace {
  /// While the log grows: payload bytes a second that the member gains on it.
  private let bytesPerSecond: UInt64
  private var bytes = 0
  private var earned: MonotonicTime
  private var growth: UInt64
  /// After a read that failed nothing is read until then.
  private var pauseEnd = MonotonicTime(0)

  /// A log that did not grow for so long leaves time for members that are behind.
  private static var idlePause: Nanoseconds { .milliseconds(20) }
  /// What failed is tried again after this.
  private static var failurePause: Nanoseconds { .seconds(1) }

  /// What is saved up at most, bytes. Much at once with pauses between costs clients less than the same
  /// bytes evenly.
  private let savedMost: Int
  /// What is owed at most, and what is read at a time: bytes.
  private let readMost: Int

  init(_ growth: LogGrowth, _ configuration: ReplicaConfiguration, now: MonotonicTime) {
    bytesPerSecond = configuration.feedBytesPerSecond
    savedMost = max(1, Int(configuration.feedBytesPerSecond / 8))
    readMost = Self.readMost(of: configuration)
    self.growth = growth.bytes
    earned = now
  }

  static func readMost(of configuration: ReplicaConfiguration) -> Int {
    max(1, Int(configuration.feedBytesPerSecond / 32))
  }

  mutating func fed(_ count: Int) { bytes = max(-readMost, bytes - count) }

  mutating func failed(now: MonotonicTime) { pauseEnd = now + Self.failurePause }

  /// When the next may be read: now if not later.
  mutating func nextRead(_ growth: LogGrowth, now: MonotonicTime) -> MonotonicTime {
    if pauseEnd > now { return pauseEnd }
    let span = min(now.since(earned), .seconds(1))
    earned = now
    let gained = min(UInt64(savedMost) * 2, growth.bytes - self.growth)
    self.growth = growth.bytes
    bytes += Int(gained + span.rawValue * bytesPerSecond / 1_000_000_000)
    bytes = min(savedMost, bytes)
    let idle = growth.time + Self.idlePause
    if idle <= now {
      bytes = max(0, bytes)
      return now
    }
    if bytes > 0 { return now }
    let missing = UInt64(1 - bytes) * 1_000_000_000 / bytesPerSecond
    return min(now + Nanoseconds(rawValue: missing + 1), idle)
  }
}
