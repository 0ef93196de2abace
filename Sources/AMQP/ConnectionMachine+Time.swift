// Heartbeats and deadlines. Time is told; nothing here waits.

import Base

extension ConnectionMachine {
  /// When to call `tick` at the latest.
  package var nextDeadline: MonotonicTime {
    phase == .finished ? .never : min(phaseDeadline, min(nextHeartbeat, silenceDeadline))
  }

  /// A client that was silent for two intervals and a half is gone.
  private var silenceDeadline: MonotonicTime {
    guard heartbeat > .zero, phase != .closed else { return .never }
    return lastReceived + Nanoseconds(heartbeat.rawValue / 2 * 5)
  }

  mutating func startHeartbeats() {
    nextHeartbeat = heartbeat > .zero ? now + Nanoseconds(heartbeat.rawValue / 2) : .never
  }

  /// Lets time pass: heartbeats, and whoever took too long.
  ///
  /// - Parameter isReading: false if the gateway does not read from the socket, so that silence is
  ///   not the client's.
  package mutating func tick(
    now: MonotonicTime, isReading: Bool, output: inout [UInt8], requests: inout BrokerRequests
  ) {
    self.now = now
    if !isReading { lastReceived = now }
    let halfIsOver = lend(&output, &requests) { $0.letTimePass() }
    // The heartbeat itself does not count as something sent.
    if halfIsOver { hasSent = false }
  }

  /// True if half an interval was over.
  private mutating func letTimePass() -> Bool {
    guard phase != .finished else { return false }
    if now >= phaseDeadline || now >= silenceDeadline {
      // Without a word: nobody is there to hear it, or somebody who had time enough.
      abandon()
      return false
    }
    guard now >= nextHeartbeat else { return false }
    if !hasSent, phase != .closed { output.putHeartbeat() }
    nextHeartbeat = now + Nanoseconds(heartbeat.rawValue / 2)
    return true
  }
}
