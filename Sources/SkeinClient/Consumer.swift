// Taking messages from a queue.

import Base

/// Deliveries from one queue, one after the other or in batches. Several tasks may take from one
/// consumer; each delivery goes to one of them.
///
/// The consumer ends when it is cancelled, released, when the task that waits in its iterator is
/// cancelled, or with an error when its queue is deleted or the client closed. What was delivered
/// and not yet taken goes back; what a task holds can still be settled.
public final class Consumer: AsyncSequence, Sendable {
  public typealias Element = Delivery
  public typealias Failure = SkeinError

  let core: ConsumerCore
  private let client: SkeinClient

  init(client: SkeinClient, core: ConsumerCore) {
    self.client = client
    self.core = core
  }

  deinit { cancel() }

  public var queue: String { core.queue }

  /// The next deliveries, at least one and up to `max`; empty once the consumer has ended in the
  /// normal way or the task is cancelled (which leaves the consumer as it is).
  ///
  /// - Throws: why the consumer ended: `refused` with `queueNotFound` when its queue was deleted,
  ///   `closed`, `unreachable`.
  public func nextBatch(max: Int = .max) async throws(SkeinError) -> [Delivery] {
    try await core.take(limit: max)
  }

  /// Acknowledges every delivery up to and with this one that was taken and is not settled.
  /// Throws as `Delivery.acknowledge()`, if that would for one of them.
  public func acknowledge(upTo delivery: Delivery) async throws(SkeinError) {
    try await core.acknowledge(upTo: delivery)
  }

  /// The leases of all that this consumer holds run out `duration` after this is confirmed: also of
  /// what was delivered and not taken yet, and of what a transaction under way settles. Does not
  /// wait, and does nothing while the one before it is not answered; what comes too late is told as of
  /// `Delivery.extendSoon(by:)`.
  public func extendAllSoon(by duration: Duration) {
    core.extendAllSoon(by: duration.nanoseconds)
  }

  /// Waits until everything that was settled so far is confirmed.
  ///
  /// - Returns: the settlements without waiting since the last flush that had no effect.
  /// - Throws: `requestUnknown` if no answer came in time, `closed`, `cancelled`.
  @discardableResult
  public func flush() async throws(SkeinError) -> [SettleFailure] {
    let promise = Promise<ConsumerCore.Outcome>()
    client.shared.mailbox.post(.flushSettles(core, promise))
    if client.shared.ended.isKept { promise.keep(.failure(.closed)) }
    try await promise.value(
      whenCancelled: .failure(.cancelled), within: client.shared.options.timeout,
      late: .failure(.requestUnknown("the settlement"))
    ).get()
    return core.takeFailures()
  }

  /// Ends the consumer.
  public func cancel() {
    client.shared.mailbox.post(.endConsumer(core))
  }

  public struct AsyncIterator: AsyncIteratorProtocol {
    private let buffer: Buffer

    /// What was taken and not handed out yet. When the iterator is let go of, it goes back.
    private final class Buffer {
      let consumer: Consumer
      var batch: [Delivery] = []
      var position = 0

      init(_ consumer: Consumer) { self.consumer = consumer }

      deinit { consumer.core.putBack(batch[position...]) }
    }

    init(consumer: Consumer) { buffer = Buffer(consumer) }

    /// The next delivery, nil at the end. A task that is cancelled here ends the consumer.
    public mutating func next(
      isolation actor: isolated (any Actor)? = #isolation
    ) async throws(SkeinError) -> Delivery? {
      if buffer.position == buffer.batch.count {
        // One at a time while they trickle in, many at once under load; never so many that tasks
        // beside this one would wait for what lies here.
        buffer.batch = []
        buffer.position = 0
        buffer.batch = try await buffer.consumer.nextBatch(max: 64)
        if buffer.batch.isEmpty {
          buffer.consumer.cancel()
          return nil
        }
      }
      defer { buffer.position += 1 }
      return buffer.batch[buffer.position]
    }

    public mutating func next() async throws(SkeinError) -> Delivery? {
      try await next(isolation: nil)
    }
  }

  public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(consumer: self) }

  /// The deliveries as batches of up to `max`, for speed.
  public func batches(max: Int = 1000) -> DeliveryBatches {
    DeliveryBatches(consumer: self, max: max)
  }
}

/// A consumer's deliveries in batches.
public struct DeliveryBatches: AsyncSequence, Sendable {
  let consumer: Consumer
  let max: Int

  public struct AsyncIterator: AsyncIteratorProtocol {
    let consumer: Consumer
    let max: Int

    /// The next batch, never empty; nil at the end. A task that is cancelled here ends the
    /// consumer.
    public mutating func next(
      isolation actor: isolated (any Actor)? = #isolation
    ) async throws(SkeinError) -> [Delivery]? {
      let batch = try await consumer.nextBatch(max: max)
      if !batch.isEmpty { return batch }
      consumer.cancel()
      return nil
    }

    public mutating func next() async throws(SkeinError) -> [Delivery]? {
      try await next(isolation: nil)
    }
  }

  public func makeAsyncIterator() -> AsyncIterator {
    AsyncIterator(consumer: consumer, max: max)
  }
}
