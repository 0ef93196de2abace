// What clients and nodes say to each other in a simulation: the native protocol by value, without
// its bytes, which have tests and a fuzzer of their own.

import Base
import QueueMachine

/// Numbers a client's requests.
typealias RequestNumber = UInt64

enum ClientRequest {
  case openSession(RequestNumber, ProducerID, OpenAttempt, timeout: Nanoseconds, name: String)
  case attachSession(RequestNumber, SessionID, [ConsumerPosition])
  case declareQueue(RequestNumber, name: String, QueueSettings)
  case subscribe(RequestNumber, ConsumerID, QueueID, credit: UInt32)
  case publish(
    first: PublishSequence, answeredThrough: PublishSequence, QueueID, count: UInt32, run: [UInt8])
  case transact(
    first: PublishSequence, answeredThrough: PublishSequence, holder: SessionID,
    [TransactionSettle], [TransactionPart], run: [UInt8])
  case settle(
    CommandSequence, answeredThrough: CommandSequence, SettleKind, ConsumerID, [DeliveryRange],
    delay: Nanoseconds?, error: String)
  case extend(
    CommandSequence, answeredThrough: CommandSequence, ConsumerID, [DeliveryRange], Nanoseconds)
  case setCredit(RequestNumber, ConsumerID, UInt32)
  case cancel(RequestNumber, queue: String, MessageID)
  case reschedule(RequestNumber, queue: String, MessageID, Nanoseconds)
  case redrive(RequestNumber, queue: String)
  case purge(RequestNumber, queue: String)
  case ping
}

/// A message as it reaches a client.
struct DeliveredMessage {
  var delivery: Delivery
  var record: [UInt8]
}

enum ServerReply {
  case leader(Int?)
  case pong
  case sessionOpened(RequestNumber, SessionID)
  case sessionAttached(RequestNumber, SessionID)
  case sessionEnded(SessionID)
  case producerFenced
  case queueDeclared(RequestNumber, QueueID)
  case done(RequestNumber)
  case refused(RequestNumber, Refusal)
  case confirmed(first: PublishSequence, count: UInt32, MessageID, copies: UInt32)
  case publishRefused(first: PublishSequence, count: UInt32, Refusal)
  case deliver(ConsumerID, [DeliveredMessage])
  case settled(CommandSequence)
  case settleRefused(CommandSequence, ConsumerID, DeliveryRange, Refusal)
  case lapsed(ConsumerID, [DeliveryRange])
  case holding(ConsumerID, through: DeliveryID, [DeliveryRange])
  case consumerCancelled(ConsumerID)
}
