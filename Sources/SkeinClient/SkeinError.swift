// Everything that can go wrong for a user of this library, by name.

import Base
import Wire

/// Why an operation of the client failed, or why its outcome is not known.
public enum SkeinError: Error, Hashable, Sendable {
  /// An endpoint is not of the form `host:port`; with what is wrong.
  case invalidEndpoint(String)
  /// No leader was found in time; with what each attempt met.
  case unreachable(String)
  /// The time is up before anything was done: nothing was stored or changed.
  case timedOut(String)
  /// The time is up and the publish may or may not have been stored. It is safe to ask
  /// `outcome(of:)` or to wait on with `retry(_:)`: neither stores it a second time.
  case outcomeUnknown(PublishReference)
  /// The time is up, or the session is lost, and the request may or may not have been carried out.
  case requestUnknown(String)
  /// The cluster refused, by name and with a sentence for people.
  case refused(RefusalReason, detail: String)
  /// Some of the publishes since the last `flush()` failed, each with its own error.
  case publishesFailed([PublishFailure])
  /// The message is larger than the cluster takes; both in bytes.
  case messageTooLarge(bytes: Int, limit: Int)
  /// The message or an argument cannot be sent at all; with what is wrong.
  case invalidMessage(String)
  /// The lease is over: the message is, or will be, in another consumer's hands.
  case leaseLost
  /// This delivery was settled before.
  case alreadySettled
  /// Another client has taken the producer over: this one can publish no more.
  case producerFenced
  /// The cluster no longer knows what it has answered to this client, with how that shows: it was
  /// wiped, another is in its place, or it has forgotten the producer. This client can publish no
  /// more.
  case forgotten(String)
  /// Of a batch exactly those with these receipts are stored; with why the others are not.
  case publishedInPart([MessageReceipt], String)
  /// The client was closed.
  case closed
  /// The task was cancelled before anything was sent, or while it only waited.
  case cancelled
  /// The other side does not speak as a Skein node does.
  case protocolViolation(String)
  /// The process has no threads or descriptors left.
  case outOfResources(String)
}

/// One publish that failed.
public struct PublishFailure: Hashable, Sendable {
  public let reference: PublishReference
  public let error: SkeinError
}

extension SkeinError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .invalidEndpoint(let text): "invalid endpoint: \(text)"
    case .unreachable(let text): "no leader could be reached: \(text)"
    case .timedOut(let text): "timed out: \(text)"
    case .outcomeUnknown(let reference):
      "the outcome of publish \(reference) is unknown: it may or may not have been stored; asking "
        + "for its outcome or waiting on is safe"
    case .requestUnknown(let text):
      "the outcome is unknown: \(text) may or may not have been carried out"
    case .refused(let reason, let detail):
      detail.isEmpty ? "refused: \(reason.text)" : "refused: \(reason.text): \(detail)"
    case .publishesFailed(let failures):
      failures.count == 1
        ? "publish \(failures[0].reference) failed: \(failures[0].error)"
        : "\(failures.count) publishes failed, the first (\(failures[0].reference)): "
          + "\(failures[0].error)"
    case .messageTooLarge(let bytes, let limit):
      "the message of \(bytes) bytes is over the limit of \(limit)"
    case .invalidMessage(let text): "the message cannot be sent: \(text)"
    case .leaseLost: "the lease is over: the message may be in another consumer's hands"
    case .alreadySettled: "the delivery was settled before"
    case .producerFenced: "another client has taken this producer over"
    case .forgotten(let text): "the cluster does not know this client's publishes any more: \(text)"
    case .publishedInPart(let receipts, let text):
      "\(receipts.count) messages of the batch are stored, the others are not: \(text)"
    case .closed: "the client is closed"
    case .cancelled: "cancelled"
    case .protocolViolation(let text): "the other side is no Skein node: \(text)"
    case .outOfResources(let text): "out of resources: \(text)"
    }
  }
}

/// Why the cluster refused. The numbers are those of the protocol.
public enum RefusalReason: UInt16, CaseIterable, Sendable {
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
  case sessionNotFound = 20
  case tooManySessions = 21
  case producerFenced = 22
  case sequenceGap = 23
  case tooManyUnanswered = 24
  case consumerNotFound = 25
  case consumerDiffers = 26
  case tooManyConsumers = 27
  case answerForgotten = 28
  /// The prefetches of the client's consumers are too large together.
  case tooMuchCredit = 29
  /// A consumer has the queue for itself, or this one asked for that and there are others.
  case consumerExclusive = 30
  /// The producer had no session for longer than the cluster remembers producers.
  case producerForgotten = 31
  case messageTooLarge = 40
  case messageMalformed = 41
  case messageNotFound = 42
  case staleDelivery = 43
  case deliveryNotFound = 44
  case queueFull = 45
  /// A consumer holds the message.
  case messageLeased = 46
  /// A transaction has more messages than the cluster takes in one step.
  case transactionTooLarge = 47
  /// The queue does not have the message any more: it was acknowledged, cancelled, dropped or moved.
  /// The cluster does not remember ids: of one that the queue never had it says the same, unless it
  /// was never given to any message (`messageNotFound`).
  case messageGone = 48
  /// Another queue has the message.
  case messageElsewhere = 49
  /// The message waits for its time, so it cannot be redriven.
  case messageDelayed = 50
  case notLeader = 60
  case noQuorum = 61
  case overloaded = 62
  case memberDiffers = 63
  case memberNotFound = 64
  case membershipChangePending = 65
  case lastVoter = 66
  case transferFailed = 67
  case shuttingDown = 68
  case diskFailed = 69
  case malformedRequest = 80
  case unknownRequest = 81
  case notSupported = 82
  /// A reason that this library is too old to know.
  case other = 0xffff

  init(_ refusal: Refusal) {
    self = RefusalReason(rawValue: refusal.rawValue) ?? .other
  }

  /// For people.
  var text: String {
    switch self {
    case .queueNotFound: "there is no such queue"
    case .queueDiffers: "the queue exists with other settings"
    case .queueNameInvalid: "a queue's name must be 1 to 255 bytes without control characters"
    case .settingInvalid: "a setting is invalid"
    case .deadLetterQueueNotFound: "the dead-letter queue does not exist"
    case .deadLetterCycle: "the dead-letter queues would form a cycle"
    case .queueInUse: "another queue names it as its dead-letter queue"
    case .queueFull: "the queue is full"
    case .messageNotFound: "there is no such message"
    case .messageLeased: "a consumer holds the message"
    case .messageGone: "the message is not in the queue any more, if it ever was"
    case .messageElsewhere: "the message is in another queue"
    case .messageDelayed: "the message waits for its time"
    case .consumerExclusive: "a consumer has the queue for itself, or others have it"
    case .producerForgotten: "the producer was not heard of for too long"
    case .transactionTooLarge: "there are too many messages for one step"
    case .notSupported: "this is not supported"
    case .noQuorum: "the cluster has no majority"
    case .overloaded: "the node is overloaded"
    case .memberDiffers: "a member of that id exists with other addresses"
    case .memberNotFound: "there is no such member"
    case .membershipChangePending: "another change of members is under way"
    case .lastVoter: "the last voting member cannot be removed"
    case .transferFailed: "the leadership was not handed over"
    case .shuttingDown: "the node is shutting down"
    case .diskFailed: "the node's disk failed"
    default: "\(self)"
    }
  }
}

extension SkeinError {
  /// What a refusal means to a user of the library.
  static func refusal(_ refusal: Refusal, detail: String) -> SkeinError {
    Self.refusal(for: RefusalReason(refusal), detail: detail)
  }

  static func refusal(for reason: RefusalReason, detail: String) -> SkeinError {
    switch reason {
    case .staleDelivery: .leaseLost
    case .deliveryNotFound: .alreadySettled
    case .producerFenced: .producerFenced
    default: .refused(reason, detail: detail)
    }
  }
}
