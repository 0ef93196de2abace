// What a load is to be, and why one ended early.

import Base

/// The shape of a load. Everything is bounded here; the command line checks the ranges.
package struct LoadPlan: Sendable {
  package var bodyBytes = 1024
  package var producers = 1
  /// Publishes of one producer that may be unconfirmed.
  package var window = 1000
  /// Messages in one publish at most; the window is the other limit.
  package var batch = Int.max
  /// Each delivery is acknowledged by a command of its own. Otherwise what came at once is
  /// acknowledged at once, as the client library does it.
  package var settlesEach = false
  /// Without any progress for so long the load gives up.
  package var patience = Nanoseconds.seconds(10)

  package init() {}
}

/// One stretch of a load.
package struct LoadPhase: Sendable {
  /// Messages to publish, over all producers.
  package var messages: UInt64
  /// Messages a second over all producers, each due at its own time whether or not earlier ones are
  /// answered; nil is as fast as the window allows.
  package var rate: Double?
  /// Publishing ends after so long.
  package var timeMax: Nanoseconds?
  /// The phase ends only when all that was ever confirmed is delivered and settled.
  package var drains: Bool

  package init(
    messages: UInt64, rate: Double? = nil, timeMax: Nanoseconds? = nil, drains: Bool = false
  ) {
    self.messages = messages
    self.rate = rate
    self.timeMax = timeMax
    self.drains = drains
  }
}

/// What was measured in a phase.
package struct LoadResult: Sendable {
  package var published: UInt64 = 0
  /// Deliveries, duplicates included.
  package var delivered: UInt64 = 0
  package var nanoseconds: UInt64 = 0
  package var confirm = LatencyHistogram()
  package var endToEnd = LatencyHistogram()

  package init() {}

  package var seconds: Double { Double(nanoseconds) / 1e9 }
}

/// Why a load could not be carried through.
package enum LoadError: Error, Equatable, Sendable, CustomStringConvertible {
  /// No leader was found at any of the endpoints.
  case unreachable(String)
  /// A node closed the connection or broke it.
  case connectionLost(String)
  /// The cluster refused a request, a publish or a settlement.
  case refused(String)
  /// Another node leads now: what was measured means nothing.
  case leaderChanged
  /// Nothing was confirmed and nothing delivered for `LoadPlan.patience`.
  case stalled(String)
  /// A node sent what the protocol does not allow.
  case protocolViolation(String)
  case cancelled

  package var description: String {
    switch self {
    case .unreachable(let text): "no leader was found: \(text)"
    case .connectionLost(let text): "a connection was lost: \(text)"
    case .refused(let text): "refused: \(text)"
    case .leaderChanged: "another node took over the lead meanwhile: measure again"
    case .stalled(let text): "nothing goes on: \(text)"
    case .protocolViolation(let text): "a node sent what makes no sense: \(text)"
    case .cancelled: "interrupted"
    }
  }
}
