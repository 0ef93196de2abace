// When a node that says nothing is asked whether it is there, and when it is given up.
//
// Whoever waits for an answer from a leader that was cut off silently waits for nothing, while
// another may lead already: that is found out soon. But a node that is busy taking a large frame
// cannot answer what is behind it, and giving it up would begin the same frame anew, for ever.
// So bytes that it takes count as words of it, and while some cannot be sent at all, or its kernel
// has no room for them, the patience is the long one. Small writes do not count: a socket takes those also for a node that is gone.

import Base

struct NodeSilence {
  let pingInterval: Nanoseconds
  /// Since when something has no answer.
  private var waitingSince: MonotonicTime?
  /// When the node was last seen to take bytes of a backlog.
  private var takenTime = MonotonicTime.zero
  /// The socket took less than there was.
  private var isBackedUp = false
  /// Bytes that the socket took in all.
  private var takenBytes = 0

  /// The last look at what the node has acknowledged.
  private var lookTime = MonotonicTime.zero
  private var acknowledgedBytes = 0
  private var unacknowledgedBytes = 0
  /// Its kernel had acknowledged all that was sent and had no room for the rest: the node is there
  /// and does not read.
  private var wasHeldBack = false

  /// How many times sooner a client asks, and gives up, that waits for an answer.
  static let impatience: UInt64 = 4
  /// Intervals of silence after which the node is given up.
  static let intervalsMax: UInt64 = 3
  /// So many bytes on their way are no backlog: even a stopped process has them taken for it.
  static let backlogMin = 64 << 10

  init(pingInterval: Nanoseconds) { self.pingInterval = pingInterval }

  mutating func note(isWaiting: Bool, now: MonotonicTime) {
    if !isWaiting {
      waitingSince = nil
    } else if waitingSince == nil {
      waitingSince = now
    }
  }

  /// The connection had so many unsent bytes before and after it was flushed.
  mutating func noteFlush(before: Int, after: Int, now: MonotonicTime) {
    // What a full socket takes, the other end has made room for.
    if isBackedUp, after < before { takenTime = now }
    takenBytes += before - after
    isBackedUp = after > 0
  }

  /// Of what the socket took, the node has not acknowledged so much.
  mutating func noteUnacknowledged(
    _ bytes: Int, isHeldBack: Bool = false, lastRead: MonotonicTime, now: MonotonicTime
  ) {
    let acknowledged = takenBytes - bytes
    // Only of this same silence: else it would tell of long ago.
    if lookTime > lastRead, unacknowledgedBytes > Self.backlogMin || wasHeldBack,
      acknowledged > acknowledgedBytes
    {
      takenTime = now
    }
    lookTime = now
    acknowledgedBytes = acknowledged
    unacknowledgedBytes = bytes
    wasHeldBack = isHeldBack
  }

  /// When the node is to be asked, unless it was, and when it is to be given up.
  func due(
    lastRead: MonotonicTime, lastSend: MonotonicTime
  ) -> (ask: MonotonicTime, giveUp: MonotonicTime) {
    var interval = pingInterval
    var heard = max(lastRead, takenTime)
    var lastWord = min(heard, lastSend)
    if let waitingSince {
      if !isBackedUp, !(wasHeldBack && lookTime > lastRead) {
        interval = Nanoseconds(rawValue: interval.rawValue / Self.impatience)
      }
      heard = max(heard, waitingSince)
      lastWord = heard
    }
    let giveUp = heard + Nanoseconds(rawValue: interval.rawValue * Self.intervalsMax)
    return (lastWord + interval, giveUp)
  }
}
