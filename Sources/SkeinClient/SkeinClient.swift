// The client: what programs hold. It owns one background thread, which follows the leader.

import Base
import Synchronization
import Transport
import Wire

/// A connection to a Skein cluster that outlives its leaders: when one dies, the client finds the
/// next, takes its session up again, and sends again what was not answered, each publish under its
/// old number, so that nothing is stored twice and nothing that is held is delivered again.
///
///     let client = try await SkeinClient.connect(endpoints: ["localhost:7400"])
///     let receipt = try await client.publish(Message("hello"), to: "greetings")
public final class SkeinClient: Sendable {
  let shared: ClientShared

  private struct Queues {
    /// Queues published to by name, with their place in the book.
    var known: [String: QueueID] = [:]
    var nextConsumer: UInt32 = 1
    var owner: Int?
  }
  private let queues = Mutex(Queues())

  private init(_ shared: ClientShared) { self.shared = shared }

  deinit {
    shared.mailbox.post(.close(Promise(), within: shared.options.timeout.nanoseconds))
  }

  /// Connects to the leader of a cluster.
  ///
  /// - Parameters:
  ///   - endpoints: client addresses of one or more nodes, `host:port`; the others are learned.
  /// - Throws: `invalidEndpoint`; `unreachable` if no leader was found within `options.timeout`;
  ///   `cancelled`.
  public static func connect(
    endpoints: [String], options: ClientOptions = ClientOptions()
  ) async throws(SkeinError) -> SkeinClient {
    guard !endpoints.isEmpty else { throw .invalidEndpoint("none was given") }
    for endpoint in endpoints {
      do throws(AddressError) {
        _ = try Endpoint(parsing: endpoint)
      } catch {
        throw .invalidEndpoint(error.description)
      }
    }
    let shared = try ClientShared(endpoints: endpoints, options: options)
    let client = SkeinClient(shared)
    try ClientLoop.start(shared)
    try await shared.connected.value(whenCancelled: .failure(.cancelled)).get()
    if options.producer != nil {
      // A producer that was there before goes on behind its last publish.
      let promise = Promise<Result<Void, SkeinError>>()
      shared.mailbox.post(.openSession(promise))
      try await shared.wait(promise).get()
    }
    return client
  }

  /// Confirms or gives up what is under way, ends the session, and closes the connection. Consumers
  /// end and what they hold goes back.
  public func close() async { await close(within: shared.options.timeout) }

  /// As `close()`, but gives up what is not answered after `limit`. Publishes that are given up may
  /// or may not be stored; what consumers hold goes back when the session's time is up.
  public func close(within limit: Duration) async {
    let promise = Promise<Void>()
    shared.mailbox.post(.close(promise, within: limit.nanoseconds))
    if shared.ended.isKept { return }
    await promise.value(whenCancelled: ())
  }

  /// Ends the client as a crash of its process would: the connection is gone, the cluster is told
  /// nothing, and everything under way ends as `closed`. For the chaos harness.
  package func abandon() { shared.mailbox.post(.abandon) }

  /// The producer under which this client publishes.
  public var producer: UInt64 { shared.book.producer }

  /// Up to which number all publishes of the producer are answered. Right after connecting with a
  /// producer of an earlier client: how far that one got, as the cluster knows it.
  public var lastPublish: UInt64 { shared.book.answeredThrough }

  /// The most bytes that a message may have, its key and headers counted, as the cluster told.
  public var messageBytesMax: Int { shared.knowledge.withLock { $0.contentBytesMax } }

  /// The client addresses of the cluster's members as far as they are known, those named last first; behind
  /// them those of former members, and those that were given.
  public var knownAddresses: [String] { shared.knowledge.withLock { $0.addresses } }

  /// The client address of the leader that the client is, or was last, connected to.
  public var leaderAddress: String { shared.knowledge.withLock { $0.leader } }
}

// Publishing.
extension SkeinClient {
  /// Publishes a message and waits until it is on the disks of a majority.
  ///
  /// - Throws: `outcomeUnknown` if no answer came in time or the task was cancelled: the message
  ///   may or may not have been stored, and `outcome(of:)` and `retry(_:)` tell. `refused`,
  ///   `messageTooLarge`, `invalidMessage`: it was not stored. `timedOut`: it was not sent.
  @discardableResult
  public func publish(
    _ message: Message, to queue: String
  ) async throws(SkeinError) -> MessageReceipt {
    try await publish([message], to: queue)[0]
  }

  /// Publishes messages in this order and waits until all are on the disks of a majority. Others
  /// may come between them.
  ///
  /// - Throws: as for one message. `publishesFailed` names those that were refused; the others are
  ///   stored. `publishedInPart` has the receipts of those that are stored if not all could be sent.
  @discardableResult
  public func publish(
    _ messages: [Message], to queue: String
  ) async throws(SkeinError) -> [MessageReceipt] {
    let limit = shared.knowledge.withLock { $0.contentBytesMax }
    for message in messages { try message.check(contentBytesMax: limit) }
    let id = try await queueID(named: queue)
    let owner = ownOwner()
    var promises: [(Promise<PublishBook.Receipts>, PublishReference)] = []
    var start = 0
    var unsent: SkeinError?
    while start < messages.count {
      let promise = Promise<PublishBook.Receipts>()
      do throws(SkeinError) {
        let (first, count) = try await stage(
          Array(messages[start...]), owner: owner, queue: id, promise: promise)
        promises.append((promise, shared.book.reference(first)))
        start += count
      } catch {
        // Of what is under way already it must not be said that nothing was stored.
        guard !promises.isEmpty else { throw error }
        unsent = error
        break
      }
    }
    var receipts: [MessageReceipt] = []
    var failures: [PublishFailure] = []
    for (promise, reference) in promises {
      switch await promise.value(whenCancelled: .failure(.outcomeUnknown(reference))) {
      case .success(let part): receipts.append(contentsOf: part)
      case .failure(.publishesFailed(let part)): failures.append(contentsOf: part)
      case .failure(.outcomeUnknown(let reference)): throw .outcomeUnknown(reference)
      case .failure(let error):
        failures.append(PublishFailure(reference: reference, error: error))
      }
    }
    if let unsent {
      noteMissingQueue(queue, id, failures)
      throw .publishedInPart(receipts, "\(failures.first?.error ?? unsent)")
    }
    if failures.isEmpty { return receipts }
    noteMissingQueue(queue, id, failures)
    throw messages.count == 1 ? failures[0].error : .publishesFailed(failures)
  }

  /// A publisher for many messages to one queue.
  ///
  /// - Parameter window: how many messages may be unconfirmed before `send` waits.
  /// - Throws: `refused` with `queueNotFound`; `timedOut`, `closed`, `cancelled`.
  public func publisher(
    for queue: String, window: Int = 1000
  ) async throws(SkeinError) -> Publisher {
    let id = try await resolve(queue)
    let most = shared.knowledge.withLock { $0.publishWindow }
    return Publisher(client: self, queue: queue, id: id, window: min(window, most))
  }

  /// Asks the cluster what became of a publish, of this or another client.
  ///
  /// A publish of this client that is `notSeen` may still be on its way: it goes on being sent
  /// until it is answered or the client is closed.
  public func outcome(of reference: PublishReference) async throws(SkeinError) -> PublishOutcome {
    let reply = try await shared.ask(
      .publishOutcome(
        producer: ProducerID(reference.producer), sequence: PublishSequence(reference.sequence)))
    guard case .outcome(let answer) = reply else { throw Self.unexpected(reply) }
    return switch answer {
    case .stored(let id): .stored(MessageIdentifier(id))
    case .refused(let refusal): .refused(RefusalReason(refusal))
    case .notSeen: .notSeen
    case .forgotten: .forgotten
    }
  }

  /// Waits on for the answer to a publish of this client whose outcome was unknown. It is never
  /// stored twice. Of a transaction, of which the first message is named, all have the same fate;
  /// the receipts of the others are had under the numbers that follow.
  ///
  /// - Throws: `outcomeUnknown` if again no answer came in time, or if the answer was forgotten or
  ///   the publish is none of this client's; else as `publish(_:to:)`, or as
  ///   `acknowledge(_:publishing:)`.
  public func retry(_ reference: PublishReference) async throws(SkeinError) -> MessageReceipt {
    guard reference.producer == producer else { throw .outcomeUnknown(reference) }
    if let promise = shared.book.waitForAnswer(to: reference.sequence) {
      shared.mailbox.post(.published)
      let unknown = PublishBook.Receipts.failure(.outcomeUnknown(reference))
      return try await promise.value(
        whenCancelled: unknown, within: shared.options.timeout, late: unknown
      ).get()[0]
    }
    let late = shared.book.lateAnswer(to: reference.sequence)
    if let answer = late?.answer { return try answer.get() }
    switch try await outcome(of: reference) {
    case .stored(let id):
      return MessageReceipt(id: id, reference: reference, copies: late?.copies ?? 1)
    case .refused(let reason): throw .refusal(for: reason, detail: "")
    case .notSeen, .forgotten: throw .outcomeUnknown(reference)
    }
  }

  /// Takes in as many messages as there is space for, waiting for the first.
  func stage(
    _ messages: [Message], owner: Int, queue: QueueID, promise: Promise<PublishBook.Receipts>
  ) async throws(SkeinError) -> (first: UInt64, count: Int) {
    while true {
      let staged = try shared.book.stage(
        messages, from: 0, owner: owner, queue: queue, promise: promise)
      if case .sent(let first, let last, let wake) = staged {
        if wake { shared.mailbox.post(.published) }
        return (first, Int(last - first) + 1)
      }
      try await waitForSpace(owner: owner)
    }
  }

  func waitForSpace(owner: Int) async throws(SkeinError) {
    let deadline = MonotonicClock.now() + shared.options.timeout.nanoseconds
    guard let promise = shared.book.waitForSpace(owner: owner, until: deadline) else { return }
    // The loop has to set its timer.
    shared.mailbox.post(.published)
    try await shared.wait(promise).get()
  }

  /// The window of `publish(_:to:)`.
  func ownOwner() -> Int {
    let most = shared.knowledge.withLock { $0.publishWindow }
    return queues.withLock { queues in
      if let owner = queues.owner { return owner }
      let owner = shared.book.addOwner(
        window: min(max(1, shared.options.publishWindow), most),
        bytesMax: shared.options.publishBytesMax)
      queues.owner = owner
      return owner
    }
  }

  /// The queue's id, asked for once.
  func queueID(named name: String) async throws(SkeinError) -> QueueID {
    if let known = queues.withLock({ $0.known[name] }) { return known }
    let id = try await resolve(name)
    queues.withLock { $0.known[name] = id }
    return id
  }

  /// A queue that was deleted may be declared again under another id: ask the next time.
  private func noteMissingQueue(_ name: String, _ id: QueueID, _ failures: [PublishFailure]) {
    let isMissing = failures.contains {
      if case .refused(.queueNotFound, _) = $0.error { true } else { false }
    }
    guard isMissing else { return }
    queues.withLock { queues in
      if queues.known[name] == id { queues.known[name] = nil }
    }
  }

  func forgetQueueID(of name: String) { queues.withLock { $0.known[name] = nil } }

  func resolve(_ name: String) async throws(SkeinError) -> QueueID {
    try Self.check(queueName: name)
    let reply = try await shared.ask(.resolveQueue(name: name))
    guard case .queue(let id, _) = reply else { throw Self.unexpected(reply) }
    return id
  }

  static func check(queueName name: String) throws(SkeinError) {
    guard QueueSettings.isValid(name: name) else {
      throw .refused(.queueNameInvalid, detail: "\"\(name)\"")
    }
  }

  static func unexpected(_ reply: RequestReply) -> SkeinError {
    .protocolViolation("unexpected reply \(reply)")
  }
}

// Consuming.
extension SkeinClient {
  /// Takes messages from a queue.
  ///
  /// - Parameters:
  ///   - prefetch: how many unsettled messages the consumer may hold, 1...65,535.
  ///   - priority: consumers of a lower one get what those of a higher one have no room for,
  ///     -32,768...32,767.
  ///   - isExclusive: the queue must have no other consumer, and gets none beside this one.
  ///   - onSettleFailure: told of settlements without waiting that had no effect, on a thread of
  ///     the client's: it must return at once.
  /// - Throws: `refused` with `queueNotFound` or `consumerExclusive`; `timedOut`, `closed`,
  ///   `cancelled`.
  public func consume(
    _ queue: String, prefetch: Int = 100, priority: Int = 0, isExclusive: Bool = false,
    onSettleFailure: (@Sendable (SettleFailure) -> Void)? = nil
  ) async throws(SkeinError) -> Consumer {
    let most = shared.knowledge.withLock { $0.creditMax }
    guard (1...most).contains(prefetch) else {
      throw .invalidMessage("a prefetch must be between 1 and \(most), not \(prefetch)")
    }
    guard let priority = Int16(exactly: priority) else {
      throw .invalidMessage("a consumer's priority must be between -32768 and 32767")
    }
    let id = try await resolve(queue)
    let number = queues.withLock { queues in
      defer { queues.nextConsumer += 1 }
      return queues.nextConsumer
    }
    let core = ConsumerCore(
      id: ConsumerID(number), queue: queue, queueID: id, credit: UInt32(prefetch),
      priority: priority, isExclusive: isExclusive,
      client: self, mailbox: shared.mailbox, onFailure: onSettleFailure)
    let consumer = Consumer(client: self, core: core)
    let promise = Promise<Result<Void, SkeinError>>()
    shared.mailbox.post(.addConsumer(core, promise))
    try await shared.wait(promise).get()
    return consumer
  }
}
