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
package enum DeadLetterReason: UInt8, Sendable, CaseIterable {
  case deliveriesExhausted = 1
  case rejected = 2
  /// It was older than its time to live.
  case expired = 3
  /// It made room for a later message.
  case overflowed = 4
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
  /// When the first of these deliveries began; the same as `time` if there was none.
  package var firstTime: MachineTime
  /// When it was moved.
  package var time: MachineTime
}

/// Something that happened to a message. Deliveries that were handed back untried are not told.
package struct MessageEvent: Hashable, Sendable {
  package enum Kind: UInt8, Sendable, CaseIterable {
    /// A delivery that ended by a nack.
    case failed = 1
    case leaseRanOut = 2
    case consumerGone = 3
    case rejected = 4
    /// Moved to the dead-letter queue: `reason` says why.
    case deadLettered = 5
    /// Moved back from it.
    case redriven = 6
  }
  package var kind: Kind
  /// When it happened, or the delivery ended.
  package var time: MachineTime
  /// The queue that the message was in.
  package var queue: String
  /// Of `.deadLettered`.
  package var reason: DeadLetterReason?
  // Of a delivery, else empty or 0.
  /// When it began.
  package var granted = MachineTime.zero
  package var attempt: UInt32 = 0
  /// The session's name, and the consumer's number within it.
  package var session = ""
  package var consumer = ConsumerID(0)
  /// The node that the session was last connected to.
  package var node = NodeID(0)
  /// Cut to `FixedLimits.eventErrorBytesMax`.
  package var error = ""
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
  /// When it becomes ready, if delayed; else `never`.
  package var due = MachineTime.never
  /// When it is too old; `never` if it has all time.
  package var expires = MachineTime.never
  /// The last error of a failed delivery in this queue; empty for none.
  package var lastError: String
  package var deadLetter: DeadLetterNote?
}

/// All that is known of one message.
package struct MessageBiography: Hashable, Sendable {
  package var message: PeekedMessage
  /// If leased: the holder's session by name, the node that it is connected through (0 while
  /// detached), and when the lease began.
  package var holder = ""
  package var node = NodeID(0)
  package var granted = MachineTime.zero
  /// The last events, at most `FixedLimits.eventsPerMessage`.
  package var events: [MessageEvent] = []
  /// Events before these, no longer known.
  package var eventsForgotten: UInt32 = 0
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
