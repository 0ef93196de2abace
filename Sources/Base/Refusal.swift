// Why the cluster refused something, by name: the same numbers in the queue machine, on the wire
// and in the client library's errors.

/// A named refusal. The raw value is on the wire and in the log; numbers are never used again.
@frozen @usableFromInline package enum Refusal: UInt16, CaseIterable, Sendable, Error {
  // Queues.
  case queueNotFound = 1
  /// Declared before with other settings.
  case queueDiffers = 2
  case queueNameInvalid = 3
  case settingInvalid = 4
  case deadLetterQueueNotFound = 5
  case deadLetterCycle = 6
  case tooManyQueues = 7
  /// Another queue names it as its dead-letter queue.
  case queueInUse = 8
  // Sessions, producers, consumers.
  case sessionNotFound = 20
  case tooManySessions = 21
  /// A later session of the same producer took over.
  case producerFenced = 22
  /// A publish skipped numbers of its producer.
  case sequenceGap = 23
  /// More publishes or settles are unanswered than a session may have.
  case tooManyUnanswered = 24
  case consumerNotFound = 25
  /// The consumer id is taken by one with another queue or other settings.
  case consumerDiffers = 26
  case tooManyConsumers = 27
  /// The producer had said that it saw the answer to this publish, so the answer is forgotten.
  case answerForgotten = 28
  /// The consumers of the session could hold too many messages together.
  case tooMuchCredit = 29
  /// A consumer has the queue for itself, or asked for that while there are others.
  case consumerExclusive = 30
  /// The producer had no session for so long that nothing is known of it any more.
  case producerForgotten = 31
  // Messages and deliveries.
  case messageTooLarge = 40
  case messageMalformed = 41
  case messageNotFound = 42
  /// The delivery's lease ended and its token is no longer the newest (G6).
  case staleDelivery = 43
  /// No such delivery was ever made to this consumer.
  case deliveryNotFound = 44
  case queueFull = 45
  /// A consumer holds the message, so it cannot be cancelled, rescheduled or moved.
  case messageLeased = 46
  /// A transaction gives back or stores more messages than one entry takes.
  case transactionTooLarge = 47
  /// The queue does not have the message any more: it was acknowledged, cancelled, dropped or moved.
  /// Ids are not remembered, so one that the queue never had is answered alike, unless it was never
  /// given at all (`messageNotFound`).
  case messageGone = 48
  /// Another queue has it.
  case messageElsewhere = 49
  /// It waits for its time, so it cannot be redriven.
  case messageDelayed = 50
  // Cluster.
  case notLeader = 60
  case noQuorum = 61
  /// The node pushes back: too much is waiting already (G13).
  case overloaded = 62
  case memberDiffers = 63
  case memberNotFound = 64
  case membershipChangePending = 65
  case lastVoter = 66
  case transferFailed = 67
  case shuttingDown = 68
  case diskFailed = 69
  // Protocol.
  case malformedRequest = 80
  case unknownRequest = 81
  case notSupported = 82
  /// A reason that the reader is too old to know. Never written.
  case other = 0xffff
}
