// How a client behaves: every time and bound of it in one place.

import Base

/// Settings of a client.
public struct ClientOptions: Hashable, Sendable {
  /// How long an operation may take, finding a leader included, before it throws.
  public var timeout: Duration = .seconds(10)
  /// How long the cluster keeps the session, with all that its consumers hold, while the client is
  /// not connected.
  public var sessionTimeout: Duration = .seconds(10)
  /// How long one endpoint may take to be connected to and to answer the first words.
  public var attemptTimeout: Duration = .milliseconds(500)
  /// The wait before the second round of attempts; it doubles with each round.
  public var backoffMin: Duration = .milliseconds(10)
  /// The longest wait between rounds of attempts.
  public var backoffMax: Duration = .milliseconds(500)
  /// A connection that is silent for so long is asked whether it is still there; after three times
  /// as long it is dropped. A client with nothing to send says that it is there as often; one that
  /// waits for an answer asks, and gives up, four times sooner, unless the connection is full. That
  /// the node takes bytes of what is on its way to it counts as a word of it.
  public var pingInterval: Duration = .seconds(1)
  /// The producer whose publishes these are, 1 or more; nil draws one at random. Only one client
  /// at a time may be a producer: a later one fences the earlier.
  public var producer: UInt64?
  /// For people: which program this is.
  public var name: String = "SkeinClient"
  /// Publishes by `publish(_:to:)` that may be unconfirmed at once; further ones wait.
  public var publishWindow: Int = 10_000
  /// Bytes of unconfirmed publishes of one publisher; further ones wait.
  public var publishBytesMax: Int = 64 << 20

  public init() {}
}

extension Duration {
  var nanoseconds: Nanoseconds {
    let (seconds, attoseconds) = components
    if seconds < 0 || attoseconds < 0 { return .zero }
    let (whole, overflow) = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
    let (sum, carry) = whole.addingReportingOverflow(UInt64(attoseconds) / 1_000_000_000)
    return Nanoseconds(rawValue: overflow || carry ? .max : sum)
  }

  init(_ span: Nanoseconds) {
    self =
      .seconds(Int64(span.rawValue / 1_000_000_000))
      + .nanoseconds(Int64(span.rawValue % 1_000_000_000))
  }
}
