// Publishing many messages without waiting for each.

import Base
import Transport

/// Publishes to one queue, pipelined: `send` returns as soon as the message has a place in the
/// window and waits only while the window is full. What became of it is told by `flush()`, by
/// `confirmations`, or by the ticket of `enqueue(_:)`.
///
/// The messages of one publisher are stored in the order of their sends.
public final class Publisher: Sendable {
  public let queue: String
  private let id: QueueID
  private let owner: Int
  private let client: SkeinClient

  init(client: SkeinClient, queue: String, id: QueueID, window: Int) {
    self.client = client
    self.queue = queue
    self.id = id
    owner = client.shared.book.addOwner(
      window: max(1, window), bytesMax: client.shared.options.publishBytesMax)
  }

  deinit {
    client.shared.book.releaseOwner(owner)
  }

  /// Sends a message; suspends only while the window is full.
  ///
  /// - Returns: the name of the publish, by which its confirmation is known.
  /// - Throws: `messageTooLarge`, `invalidMessage`; `timedOut` if the window stayed full, and
  ///   `cancelled` if the task was cancelled while it was (nothing was sent then); `closed`.
  @discardableResult
  public func send(_ message: Message) async throws(SkeinError) -> PublishReference {
    if let reference = try trySend(message) { return reference }
    while true {
      try await client.waitForSpace(owner: owner)
      if let reference = try trySend(message) { return reference }
    }
  }

  /// Sends a message if the window has a place for it, without waiting; nil if it has not.
  public func trySend(_ message: Message) throws(SkeinError) -> PublishReference? {
    switch try client.shared.book.stage(message, owner: owner, queue: id) {
    case .full: return nil
    case .sent(_, let last, let wake):
      if wake { client.shared.mailbox.post(.published) }
      return client.shared.book.reference(last)
    }
  }

  /// Sends a message as `send(_:)` does and gives a ticket for its own answer.
  public func enqueue(_ message: Message) async throws(SkeinError) -> PublishTicket {
    let promise = Promise<PublishBook.Receipts>()
    let (first, _) = try await client.stage([message], owner: owner, queue: id, promise: promise)
    return PublishTicket(reference: client.shared.book.reference(first), promise: promise)
  }

  /// Waits until every message sent so far is confirmed.
  ///
  /// - Throws: `publishesFailed` with those sends since the last flush that failed, each by name;
  ///   `outcomeUnknown` with the first that was not answered in time or when the task was
  ///   cancelled.
  public func flush() async throws(SkeinError) {
    let book = client.shared.book
    let last = book.lastSequence(of: owner)
    if let promise = book.waitForAnswer(to: last) {
      let unknown = PublishBook.Receipts.failure(.outcomeUnknown(book.reference(last)))
      let result = await promise.value(
        whenCancelled: unknown, within: client.shared.options.timeout, late: unknown)
      if case .failure(.outcomeUnknown(let reference)) = result {
        throw .outcomeUnknown(reference)
      }
    } else if last > 0, let failure = book.failure, !book.isAnswered(last) {
      switch failure {
      case .producerFenced, .forgotten: throw failure
      default: throw .outcomeUnknown(book.reference(last))
      }
    }
    let failures = book.takeFailures(of: owner)
    guard failures.isEmpty else { throw .publishesFailed(failures) }
  }

  /// The answers to this publisher's sends from now on, in the order of the sends, each element
  /// what became known at once. Ends when the client is closed. For one listener.
  public var confirmations: PublishConfirmations {
    client.shared.book.listen(owner: owner)
    return PublishConfirmations(publisher: self)
  }

  func takeConfirmations() -> PublishBook.Confirmations {
    client.shared.book.takeConfirmations(of: owner)
  }
}

/// The answer to one message sent with `Publisher.enqueue(_:)`.
public struct PublishTicket: Sendable {
  public let reference: PublishReference
  let promise: Promise<PublishBook.Receipts>

  /// Waits for the answer. Throws what `SkeinClient.publish(_:to:)` throws.
  public func receipt() async throws(SkeinError) -> MessageReceipt {
    try await promise.value(whenCancelled: .failure(.outcomeUnknown(reference))).get()[0]
  }
}

/// The same answer to consecutive publishes of a publisher.
public struct PublishConfirmation: Hashable, Sendable {
  /// The first of them; the sequences of the others follow.
  public let first: PublishReference
  public let count: Int
  /// The id of the first message (those of the others lie behind it in the same entry), or why
  /// they were refused.
  public let result: Result<MessageIdentifier, SkeinError>
}

/// A publisher's confirmations, in batches.
public struct PublishConfirmations: AsyncSequence, Sendable {
  let publisher: Publisher

  public struct AsyncIterator: AsyncIteratorProtocol {
    let publisher: Publisher

    /// The next batch, never empty; nil once the client is closed or the task cancelled.
    public mutating func next() async -> [PublishConfirmation]? {
      while true {
        switch publisher.takeConfirmations() {
        case .some(let batch): return batch
        case .ended: return nil
        case .wait(let promise):
          await promise.value(whenCancelled: ())
          if Task.isCancelled { return nil }
        }
      }
    }
  }

  public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(publisher: publisher) }
}
