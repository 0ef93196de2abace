// A message in a consumer's hands, and how it is given back.

import Base

/// A delivered message. Until its lease is over or it is settled, no other consumer has it.
///
/// Each way to settle it comes in two forms: the one that waits returns when the cluster has it
/// confirmed, the one with `Soon` returns at once, and what fails is told by
/// `Consumer.flush()` and by the failure handler of `consume`.
public struct Delivery: Sendable {
  let core: ConsumerCore
  /// The connection's bytes in which the record lies, shared by the deliveries of one frame.
  let frame: [UInt8]
  let record: Range<Int>
  let delivery: DeliveryID
  /// Of the client's sessions, by number and id, the one that it was made in.
  let generation: UInt64
  let session: SessionID
  /// When the lease began, on the queues' clock: for histories.
  package let granted: MachineTime

  public let id: MessageIdentifier
  /// From 1: this is the n-th try.
  public let attempt: Int
  /// Grows with every delivery from the queue: of two holders of a message the one with the larger
  /// token is the later. Pass it on to systems that can refuse the smaller one.
  public let token: UInt64
  /// The message was in a consumer's hands before.
  public let isRedelivered: Bool
  /// How long the message may be held, from when the cluster delivered it.
  public let lease: Duration

  public var queue: String { core.queue }
}

// The message.
extension Delivery {
  /// A copy of the body.
  public var body: [UInt8] { withBody { [UInt8]($0) } }

  /// The body as text, with what is no UTF-8 repaired.
  public var text: String { withBody { String(decoding: $0, as: UTF8.self) } }

  /// Calls `read` with the body in place, without a copy. The bytes are valid only in the call.
  public func withBody<Result>(_ read: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result
  {
    try frame.withUnsafeBytes { bytes in
      // SAFETY: the record was checked when it came: its body lies at its end.
      let bodyBytes = UInt32(
        littleEndian: bytes.loadUnaligned(
          fromByteOffset: record.lowerBound + 4, as: UInt32.self))
      let start = record.upperBound - Int(bodyBytes)
      return try read(UnsafeRawBufferPointer(rebasing: bytes[start..<record.upperBound]))
    }
  }

  /// The whole message, its bytes copied.
  public var message: Message {
    frame.withUnsafeBytes { bytes in
      do throws(MessageRecordError) {
        let parts = try MessageRecord.parts(of: UnsafeRawBufferPointer(rebasing: bytes[record]))
        return Message(parts)
      } catch {
        stopForBug("a record that was checked cannot be read: \(error)")
      }
    }
  }

  public var headers: [MessageHeader] { message.headers }
  public var key: String { message.key }
  public var contentType: String { message.contentType }
}

extension Delivery {
  /// Whether it can still be settled, as far as this client knows: it is not settled, and the cluster
  /// has not said that its lease is over.
  public var isHeld: Bool { core.isHeld(self) }
}

// Settling, waiting until the cluster confirmed.
extension Delivery {
  /// Done: the message is gone for good once this returns.
  ///
  /// - Throws: `leaseLost`, `alreadySettled`; `requestUnknown` if no answer came in time or the
  ///   session was lost meanwhile; `closed`. A cancelled task throws `cancelled`, and the
  ///   settlement goes on.
  public func acknowledge() async throws(SkeinError) {
    try await core.settle(self, .acknowledge)
  }

  /// Never to be tried again: it goes to the dead-letter queue. Throws as `acknowledge()`.
  public func reject(error: String = "") async throws(SkeinError) {
    try await core.settle(self, .reject(error: error))
  }

  /// It failed: it comes back after the queue's retry delay, or `delay`, or goes to the dead-letter
  /// queue after too many attempts. `error` is kept with it. Throws as `acknowledge()`.
  public func retry(error: String = "", delay: Duration? = nil) async throws(SkeinError) {
    try await core.settle(self, .retry(error: error, delay: delay?.nanoseconds))
  }

  /// Hands it back untried: it goes to its old place and the attempt does not count. Throws as
  /// `acknowledge()`.
  public func release() async throws(SkeinError) {
    try await core.settle(self, .release)
  }

  /// The lease runs out `duration` after this is confirmed. Throws as `acknowledge()`.
  public func extend(by duration: Duration) async throws(SkeinError) {
    try await core.settle(self, .extend(duration.nanoseconds))
  }
}

// Settling without waiting.
extension Delivery {
  /// As `acknowledge()`, without waiting.
  public func acknowledgeSoon() { core.settleSoon(self, .acknowledge) }
  /// As `reject(error:)`, without waiting.
  public func rejectSoon(error: String = "") { core.settleSoon(self, .reject(error: error)) }
  /// As `retry(error:delay:)`, without waiting.
  public func retrySoon(error: String = "", delay: Duration? = nil) {
    core.settleSoon(self, .retry(error: error, delay: delay?.nanoseconds))
  }
  /// As `release()`, without waiting.
  public func releaseSoon() { core.settleSoon(self, .release) }
  /// As `extend(by:)`, without waiting.
  public func extendSoon(by duration: Duration) {
    core.settleSoon(self, .extend(duration.nanoseconds))
  }
}

/// A settlement without waiting that had no effect.
public struct SettleFailure: Hashable, Sendable {
  /// Deliveries of the consumer, by their numbers in the order of delivery.
  public let deliveries: ClosedRange<UInt64>
  public let error: SkeinError
}

extension Delivery {
  /// The delivery's number among its consumer's, from 1 in each session: by this
  /// `SettleFailure` names it.
  public var number: UInt64 { delivery.rawValue }
}
