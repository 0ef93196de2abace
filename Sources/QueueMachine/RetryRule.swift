// How long a failed message waits (G9): `t0 * 2^(attempt-1)`, at most the cap, moved up or down by
// chance. The chance is drawn from what all replicas know alike.

import Base

enum RetryRule {
  /// The wait after failed attempt `attempt`, 1 for the first.
  ///
  /// - Parameter luck: any number; decides where in the range of the jitter the wait lies.
  static func wait(_ settings: QueueSettings, attempt: UInt32, luck: UInt64) -> Nanoseconds {
    let base = settings.retryDelay.rawValue
    if base == 0 { return .zero }
    let cap = settings.retryDelayMax == .zero ? UInt64.max : settings.retryDelayMax.rawValue
    let doublings = Int(attempt) - 1
    let wait =
      doublings < base.leadingZeroBitCount ? min(base << UInt64(doublings), cap) : cap
    let jitter = UInt64(settings.retryJitterPermille)
    if jitter == 0 { return Nanoseconds(rawValue: wait) }
    // Thousandths of the wait, from 1000 - jitter to 1000 + jitter.
    let share = 1000 - jitter + luck % (2 * jitter + 1)
    let (high, low) = wait.multipliedFullWidth(by: share)
    guard high < 1000 else { return Nanoseconds(rawValue: cap) }
    return Nanoseconds(rawValue: min(UInt64(1000).dividingFullWidth((high, low)).quotient, cap))
  }

  /// Tokens are never the same twice in a queue, so every failure draws anew.
  static func luck(_ id: MessageID, attempt: UInt32, token: FencingToken) -> UInt64 {
    var hash = StateHash(value: id.rawValue)
    hash.fold(UInt64(attempt))
    hash.fold(token.rawValue)
    return hash.value
  }
}
