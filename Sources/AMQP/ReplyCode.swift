// The numbers by which AMQP names what went wrong (AMQP 0-9-1 §1.2, "constants"), and faults: such a
// number with the text that RabbitMQ's clients know.

/// A reply code.
package enum ReplyCode: UInt16, Hashable, Sendable {
  case success = 200
  case contentTooLarge = 311
  case noRoute = 312
  case noConsumers = 313
  case connectionForced = 320
  case accessRefused = 403
  case notFound = 404
  case resourceLocked = 405
  case preconditionFailed = 406
  case frameError = 501
  case syntaxError = 502
  case commandInvalid = 503
  case channelError = 504
  case unexpectedFrame = 505
  case resourceError = 506
  case notAllowed = 530
  case notImplemented = 540
  case internalError = 541

  /// As texts begin.
  package var name: String {
    switch self {
    case .success: "REPLY_SUCCESS"
    case .contentTooLarge: "CONTENT_TOO_LARGE"
    case .noRoute: "NO_ROUTE"
    case .noConsumers: "NO_CONSUMERS"
    case .connectionForced: "CONNECTION_FORCED"
    case .accessRefused: "ACCESS_REFUSED"
    case .notFound: "NOT_FOUND"
    case .resourceLocked: "RESOURCE_LOCKED"
    case .preconditionFailed: "PRECONDITION_FAILED"
    case .frameError: "FRAME_ERROR"
    case .syntaxError: "SYNTAX_ERROR"
    case .commandInvalid: "COMMAND_INVALID"
    case .channelError: "CHANNEL_ERROR"
    case .unexpectedFrame: "UNEXPECTED_FRAME"
    case .resourceError: "RESOURCE_ERROR"
    case .notAllowed: "NOT_ALLOWED"
    case .notImplemented: "NOT_IMPLEMENTED"
    case .internalError: "INTERNAL_ERROR"
    }
  }

  /// Whether it ends the whole connection; the others end the channel.
  package var endsConnection: Bool {
    switch self {
    case .success, .connectionForced, .frameError, .syntaxError, .commandInvalid, .channelError,
      .unexpectedFrame, .resourceError, .notAllowed, .notImplemented, .internalError:
      true
    case .contentTooLarge, .noRoute, .noConsumers, .accessRefused, .notFound, .resourceLocked,
      .preconditionFailed:
      false
    }
  }
}

/// Why a channel or a connection is closed.
package struct Fault: Error, Hashable, Sendable {
  package var code: ReplyCode
  /// Behind the code's name and ` - `. Cut to 255 bytes with these when it is sent.
  package var detail: String

  package init(_ code: ReplyCode, _ detail: String) {
    self.code = code
    self.detail = detail
  }

  /// As sent: `NOT_FOUND - no queue 'q' in vhost '/'`.
  package var text: String { "\(code.name) - \(detail)" }
}
