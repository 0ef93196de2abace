// What apply tells the shell to do. Only the node that a session is connected to carries out that
// session's effects; the others fill no lists (DESIGN section 3, Publish and Deliver).

import Base

/// A delivery to carry out or repeat.
@frozen @usableFromInline package struct Delivery: Hashable, Sendable {
  @usableFromInline package var delivery: DeliveryID
  @usableFromInline package var token: FencingToken
  @usableFromInline package var id: MessageID
  /// Where the record lies, which for a message that was moved is not the entry of `id`.
  @usableFromInline package var reference: RecordReference
  /// The lease is over when the machine's clock reaches this.
  @usableFromInline package var leaseEnd: MachineTime
  /// The machine's clock when the lease began.
  @usableFromInline package var granted: MachineTime
  /// From 1: this is the n-th try.
  @usableFromInline package var attempt: UInt32
  /// It was in a consumer's hands before, whether or not that counted as an attempt.
  @usableFromInline package var isRedelivery: Bool

  @usableFromInline package init(
    delivery: DeliveryID, token: FencingToken, id: MessageID, reference: RecordReference,
    leaseEnd: MachineTime, granted: MachineTime, attempt: UInt32, isRedelivery: Bool
  ) {
    self.delivery = delivery
    self.token = token
    self.id = id
    self.reference = reference
    self.leaseEnd = leaseEnd
    self.granted = granted
    self.attempt = attempt
    self.isRedelivery = isRedelivery
  }
}

/// Why a session ended.
package enum SessionEnd: UInt8, Sendable {
  /// Its client closed it.
  case closed = 1
  /// It was without a connection for longer than its timeout.
  case expired = 2
}

/// The answer to a request with a tag.
package enum Reply: Hashable, Sendable {
  /// `isNew` is false if the queue was there with the same settings.
  case queueDeclared(QueueID, isNew: Bool)
  /// With how many messages, held ones included.
  case queueDeleted(messages: UInt64)
  case queuePurged(messages: UInt64)
  case messageCancelled
  case messageRescheduled
  /// How many went back and how many stay although they were meant, since their queue is gone or
  /// full; `next` is where to go on, nil if all through `through` were looked at.
  case queueRedriven(messages: UInt64, skipped: UInt64, next: MessageID?, through: MessageID)
  case subscribed(ConsumerID, QueueID)
  case creditSet(ConsumerID)
  case unsubscribed(ConsumerID)
  /// With a sentence that says what exactly is wrong, possibly empty.
  case refused(Refusal, detail: String)
  /// To an AMQP gateway.
  case topology(TopologyReply)
}

/// One thing to do. Ranges are places in the arrays of the `EffectList`.
package enum Effect: Hashable, Sendable {
  /// `lastSequence` is the producer's last known publish, 0 for a producer not known; `epoch` is
  /// the producer's, `none` for a session without one.
  case sessionOpened(
    SessionOrigin, SessionID, lastSequence: PublishSequence, epoch: ProducerEpoch)
  case sessionOpenRefused(SessionOrigin, Refusal)
  /// The session goes on through `origin`. `lastSequence` and `settledThrough` are the last
  /// publish and the last settle that the machine knows: the client sends again what comes after.
  /// Followed by `.holding`, `.deliver` and `.consumerCancelled` per consumer.
  case sessionAttached(
    SessionOrigin, SessionID, lastSequence: PublishSequence, settledThrough: CommandSequence)
  case sessionAttachRefused(SessionOrigin, SessionID, Refusal)
  /// Of the consumer's deliveries through `through`, the session holds exactly those in
  /// `EffectList.ranges[ranges]`; what else the client has of them has lapsed.
  case holding(SessionID, ConsumerID, through: DeliveryID, ranges: Range<Int>)
  case sessionEnded(SessionID, SessionEnd)
  /// A later session of the same producer took over: this one can publish no more.
  case producerFenced(SessionID)
  case reply(Requester, RequestTag, Reply)
  /// `count` publishes from `first` are stored under consecutive ids from `firstID`: each under so
  /// many as it has copies, one for each of its queues in the order in which they were named.
  case confirmed(
    SessionID, first: PublishSequence, count: UInt32, firstID: MessageID, copies: UInt32 = 1)
  /// `count` publishes from `first` are not stored. See `Refusal.isFinal`.
  case refused(SessionID, first: PublishSequence, count: UInt32, Refusal)
  /// Send `EffectList.deliveries[deliveries]` to the consumer.
  case deliver(SessionID, ConsumerID, deliveries: Range<Int>)
  /// All settles and extends through here are carried out, but for what `.settleRefused` named.
  case settled(SessionID, through: CommandSequence)
  /// This part of a settle or extend had no effect.
  case settleRefused(SessionID, CommandSequence, ConsumerID, DeliveryRange, Refusal)
  /// The leases of `EffectList.ranges[ranges]` ran out; the messages are no longer held.
  case lapsed(SessionID, ConsumerID, ranges: Range<Int>)
  /// The consumer's queue was deleted, or an attach named a consumer that is no more.
  case consumerCancelled(SessionID, ConsumerID)
  /// For an AMQP gateway.
  case topology(TopologyEffect)
}

extension Refusal {
  /// Whether a refused publish has used up its number, so that the same answer comes again for it.
  /// If not, the producer may publish under the same number again.
  package var isFinal: Bool {
    switch self {
    case .sequenceGap, .tooManyUnanswered, .producerFenced, .sessionNotFound, .overloaded: false
    default: true
    }
  }
}

/// The effects of entries applied since it was last emptied. Used again and again.
package struct EffectList: Sendable {
  /// Whether effects are gathered at all. State changes are the same either way.
  package var isWanted: Bool
  /// Gather only what concerns sessions connected to this node; nil gathers everything.
  package var node: NodeID?
  package internal(set) var effects: [Effect] = []
  package internal(set) var deliveries: [Delivery] = []
  package internal(set) var ranges: [DeliveryRange] = []

  package init(isWanted: Bool = true, node: NodeID? = nil) {
    self.isWanted = isWanted
    self.node = node
  }

  package var isEmpty: Bool { effects.isEmpty }

  /// Empties the list and keeps its memory.
  package mutating func removeAll() {
    effects.removeAll(keepingCapacity: true)
    if !deliveries.isEmpty { deliveries.removeAll(keepingCapacity: true) }
    if !ranges.isEmpty { ranges.removeAll(keepingCapacity: true) }
  }
}
