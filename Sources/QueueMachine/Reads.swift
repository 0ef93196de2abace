// What can be read from the machine between entries, without changing it.

import Base

/// What became of a publish (G4).
package enum PublishOutcome: Hashable, Sendable {
  case stored(MessageID)
  case refused(Refusal)
  /// It was answered, the producer said to have seen the answer, and the machine forgot it.
  case answerForgotten
  /// No such publish is known: it has not arrived, or the producer was forgotten.
  case unseen
}

/// Where a message stands.
package enum MessageState: UInt8, Sendable {
  case ready = 1
  case leased = 2
  case delayed = 3
}

/// Why a message is in a dead-letter queue.
package enum DeadLetterReason: UInt8, Sendable {
  case deliveriesExhausted = 1
  case rejected = 2
}

/// What is kept with a message that was moved to a dead-letter queue.
package struct DeadLetterNote: Hashable, Sendable {
  package var reason: DeadLetterReason
  /// The queue it came from and its id there.
  package var originQueue: String
  package var originID: MessageID
  /// Failed deliveries there.
  package var attempts: UInt32
  /// The last error text given with a nack or reject, or what the machine saw.
  package var lastError: String
  /// When it was moved.
  package var time: MachineTime
}

/// A message as it is seen without consuming it.
package struct PeekedMessage: Hashable, Sendable {
  package var id: MessageID
  package var reference: RecordReference
  package var state: MessageState
  /// Failed deliveries so far.
  package var attempts: UInt32
  /// Who holds it, if leased.
  package var session: SessionID
  package var consumer: ConsumerID
  /// When the lease ends, if leased.
  package var leaseEnd: MachineTime
  /// The last error of a failed delivery in this queue; empty for none.
  package var lastError: String
  package var deadLetter: DeadLetterNote?
}

/// A session as it stands.
package struct SessionSummary: Hashable, Sendable {
  package var session: SessionID
  package var name: String
  package var kind: SessionKind
  /// nil while detached.
  package var origin: SessionOrigin?
  package var producer: ProducerID
  package var consumers: Int
  package var held: Int
}
