// Transactions: messages to one or several queues, and deliveries done with, in one step of the
// cluster. All of it happens or nothing does.

import Base
import Transport
import Wire

/// A message and the queues that it goes to.
public struct OutgoingMessage: Hashable, Sendable {
  public var message: Message
  /// At least one, at most 1,024. A queue that is named twice gets the message twice.
  public var queues: [String]

  public init(_ message: Message, to queues: [String]) {
    self.message = message
    self.queues = queues
  }

  public init(_ message: Message, to queue: String) {
    self.init(message, to: [queue])
  }
}

extension SkeinClient {
  /// Publishes a message to several queues in one step: it is stored in all of them, or in none.
  ///
  /// - Returns: a receipt with an id for each queue.
  /// - Throws: as `publishAll(_:)`.
  @discardableResult
  public func publish(
    _ message: Message, toAll queues: [String]
  ) async throws(SkeinError) -> MessageReceipt {
    try await publishAll([OutgoingMessage(message, to: queues)])[0]
  }

  /// Publishes messages to their queues in one step: all are stored, in this order and with nothing
  /// between them, or none is.
  ///
  /// - Parameter batch: at least one message. Together they must fit into one frame (the largest
  ///   message that the cluster takes, 32 MiB unless configured otherwise) and be at most 65,536,
  ///   each queue's counted. Neighbours that go to the same queues are one group, of which there may
  ///   be 1,024: of messages that go to `a` and `b` by turns no more, since their order is kept.
  /// - Returns: the receipts in the order of the messages.
  /// - Throws: `refused` with `queueNotFound` or `queueFull` if that is so of one of the queues:
  ///   then nothing is stored. `outcomeUnknown` as `publish(_:to:)`, for all of it; `invalidMessage`,
  ///   `messageTooLarge`; `timedOut`: it was not sent.
  @discardableResult
  public func publishAll(
    _ batch: [OutgoingMessage]
  ) async throws(SkeinError) -> [MessageReceipt] {
    try await acknowledge([], publishing: batch)
  }

  /// Acknowledges deliveries and publishes messages in one step: both or neither.
  ///
  /// - Parameters:
  ///   - deliveries: of this client's consumers, at most 1,024 of them, and at most 4,096 runs of
  ///     consecutive deliveries. Leases can be prolonged while this is under way (`extendSoon`).
  ///   - batch: as in `publishAll(_:)`.
  /// - Throws: `leaseLost` if one of the deliveries is no longer this consumer's: then nothing is
  ///   published, and nothing acknowledged. `alreadySettled`. Else as `publishAll(_:)`. After
  ///   `refused` the deliveries are still held. After `outcomeUnknown`, which names the first
  ///   message, it goes on being sent, and `retry(_:)` tells what became of it; it is never carried
  ///   out twice. Only if this client can publish no more, or the leader takes no frame so large, it
  ///   is not sent on: then the deliveries can be settled in another way, which ends in `leaseLost`
  ///   or `alreadySettled` if it was carried out after all.
  @discardableResult
  public func acknowledge(
    _ deliveries: [Delivery], publishing batch: [OutgoingMessage]
  ) async throws(SkeinError) -> [MessageReceipt] {
    guard !batch.isEmpty else { throw .invalidMessage("there is no message to publish") }
    let limit = shared.knowledge.withLock { $0.contentBytesMax }
    for outgoing in batch {
      try outgoing.message.check(contentBytesMax: limit)
      guard (1...TransactView.queuesMax).contains(outgoing.queues.count) else {
        throw .invalidMessage(
          "it goes to \(outgoing.queues.count) queues, not 1 to \(TransactView.queuesMax)")
      }
    }
    let order = try TransactionOrder(batch, ids: await queueIDs(of: batch), deliveries)
    let promise = Promise<PublishBook.Receipts>()
    let reference = try await stage(order, promise)
    let result = await promise.value(whenCancelled: .failure(.outcomeUnknown(reference)))
    switch result {
    case .success(let receipts): return receipts
    case .failure(.publishesFailed(let failures)):
      noteMissingQueues(failures[0].error, batch)
      throw failures[0].error
    case .failure(let error):
      noteMissingQueues(error, batch)
      throw error
    }
  }

  private func queueIDs(
    of batch: [OutgoingMessage]
  ) async throws(SkeinError) -> [String: QueueID] {
    var ids: [String: QueueID] = [:]
    for outgoing in batch {
      for queue in outgoing.queues where ids[queue] == nil {
        ids[queue] = try await queueID(named: queue)
      }
    }
    return ids
  }

  private func stage(
    _ order: TransactionOrder, _ promise: Promise<PublishBook.Receipts>
  ) async throws(SkeinError) -> PublishReference {
    let owner = ownOwner()
    while true {
      try await waitForSpace(owner: owner)
      try order.takeDeliveries()
      do throws(SkeinError) {
        let staged = try shared.book.stage(order, owner: owner, promise: promise)
        if case .sent(let first, _, let wake) = staged {
          if wake { shared.mailbox.post(.published) }
          return shared.book.reference(first)
        }
      } catch {
        order.giveDeliveriesBack()
        throw error
      }
      // Somebody else was quicker.
      order.giveDeliveriesBack()
    }
  }

  private func noteMissingQueues(_ error: SkeinError, _ batch: [OutgoingMessage]) {
    guard case .refused(.queueNotFound, _) = error else { return }
    for outgoing in batch { for queue in outgoing.queues { forgetQueueID(of: queue) } }
  }
}

extension Delivery {
  /// Acknowledges the delivery and publishes messages in one step: both or neither. With no message
  /// it only acknowledges. See `SkeinClient.acknowledge(_:publishing:)`.
  @discardableResult
  public func acknowledge(
    publishing batch: [OutgoingMessage]
  ) async throws(SkeinError) -> [MessageReceipt] {
    if batch.isEmpty {
      try await acknowledge()
      return []
    }
    guard let client = core.client else { throw .closed }
    return try await client.acknowledge([self], publishing: batch)
  }
}

/// What a transaction is to do, with the queues' ids.
struct TransactionOrder: Sendable {
  let messages: [Message]
  /// Of consecutive messages that go to the same queues: these, and how many.
  let groups: [(queues: [QueueID], count: Int)]
  let holder: SessionID
  let settles: [TransactSettle]
  private let deliveries: [Delivery]

  init(
    _ batch: [OutgoingMessage], ids: [String: QueueID], _ deliveries: [Delivery]
  ) throws(SkeinError) {
    messages = batch.map(\.message)
    var groups: [(queues: [QueueID], count: Int)] = []
    for outgoing in batch {
      let queues = outgoing.queues.compactMap { ids[$0] }
      if groups.last?.queues == queues {
        groups[groups.count - 1].count += 1
      } else {
        groups.append((queues, 1))
      }
    }
    self.groups = groups
    let copies = groups.reduce(0) { $0 + $1.queues.count * $1.count }
    guard groups.count <= TransactView.partsMax, copies <= TransactView.copiesMax else {
      throw .invalidMessage(
        "\(copies) messages in \(groups.count) groups are too many for one transaction")
    }
    holder = deliveries.first?.session ?? .none
    self.deliveries = deliveries
    var numbers: [UInt32: [DeliveryRange]] = [:]
    for delivery in deliveries {
      numbers[delivery.core.id.rawValue, default: []].append(
        DeliveryRange(first: delivery.delivery, last: delivery.delivery))
    }
    settles = numbers.sorted { $0.key < $1.key }.map { consumer, ranges in
      TransactSettle(consumer: ConsumerID(consumer), ranges: SettleQueue.joined(ranges))
    }
    for settle in settles where settle.ranges.count > SettleRequest.rangesMax {
      throw .invalidMessage("\(settle.ranges.count) ranges of deliveries are too many")
    }
    guard settles.count <= TransactView.partsMax else {
      throw .invalidMessage("\(settles.count) consumers are too many for one transaction")
    }
  }

  /// Takes the deliveries out of the tasks' hands, so that nothing else settles them; none of them
  /// if one cannot be had.
  func takeDeliveries() throws(SkeinError) {
    for (place, delivery) in deliveries.enumerated() {
      do throws(SkeinError) {
        guard delivery.session == holder else { throw SkeinError.leaseLost }
        try delivery.core.take(delivery)
      } catch {
        for taken in deliveries[..<place] { taken.core.giveBack(taken) }
        throw error
      }
    }
  }

  /// Nothing was done, or the cluster will not say: they can be settled in another way, which it
  /// refuses if they are settled already.
  func giveDeliveriesBack() {
    for delivery in deliveries { delivery.core.giveBack(delivery) }
  }

  /// All of it was done.
  func finishDeliveries() {
    for delivery in deliveries { delivery.core.finish(delivery) }
  }
}

/// What makes a chunk of publishes a transaction.
struct ChunkTransaction: Sendable {
  let order: TransactionOrder
  let parts: [TransactPart]

  func head(
    first: UInt64, answeredThrough: UInt64, run: UnsafeRawBufferPointer
  ) -> TransactView {
    TransactView(
      first: PublishSequence(first), answeredThrough: PublishSequence(answeredThrough),
      holder: order.holder, settles: order.settles, parts: parts, run: run)
  }
}
