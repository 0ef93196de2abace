// Keeping a rate: the n-th message is not sent before its time.

struct Pace {
  private let rate: Double?
  private let start = ContinuousClock.now
  private var sent = 0

  /// - Parameter rate: per second; nil is as fast as it goes.
  init(rate: Double?) { self.rate = rate }

  /// When the next message may go; nil if that is now.
  mutating func next() -> ContinuousClock.Instant? {
    guard let rate else { return nil }
    let due = start + .seconds(Double(sent) / rate)
    sent += 1
    // Sleeping costs some tens of microseconds: at high rates, in bursts of a millisecond.
    return due - ContinuousClock.now > .milliseconds(1) ? due : nil
  }
}
