// `skein queue declare`: makes a queue, or finds it as it is wanted.

import Base
import SkeinClient

enum QueueDeclare {
  static let command = Command(
    path: ["queue", "declare"], summary: "make a queue; fine if it is there with the same settings",
    operands: [Operand(name: "NAME", help: "1 to 255 bytes without control characters")],
    options: [
      Option(
        "lease", "TIME",
        "how long a consumer may hold a message unless it asks for more (default 30s)"),
      Option(
        "max-deliveries", "N",
        "after N failed deliveries a message goes to the dead-letter queue, or away where there is"
          + " none (default: no limit)"),
      Option("dead-letter", "QUEUE", "the queue for messages that failed; it must exist"),
      Option(
        "retry-delay", "TIME",
        "wait before the second delivery; doubles with each further one (default: none)"),
      Option("retry-max", "TIME", "the longest wait between deliveries (default: no cap)"),
      Option(
        "retry-jitter", "SHARE",
        "how far a wait is moved up or down by chance, 0 to 1 (default 0)"),
      Option("priorities", "N", "levels of priority, 1 to 32 (default 1)"),
      Option(
        "keyed", "N",
        "keep the order of each key: at most N of its messages are out at a time (1 for strict"
          + " order)"),
      Option("ttl", "TIME", "messages that waited so long go to the dead-letter queue, or away"),
      Option("max-length", "N", "the most messages that may wait"),
      Option("max-bytes", "SIZE", "the most bytes that may wait"),
      Option(
        "overflow", "RULE",
        "what happens at --max-length: reject (the default; the publisher is told) or drop-oldest"
          + " (to the dead-letter queue where there is one)"),
      Option(
        "expires", "TIME",
        "the queue goes, with its messages, when it had no consumer for so long and was not"
          + " declared again"),
      Option(
        "single-active", nil,
        "only one consumer gets messages, until it is gone; then the next"),
      .json,
    ] + Option.connection,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let name = arguments.operands[0]
    let options = try options(arguments)
    return try await Connection.with(arguments) { client in
      let isNew = try await client.declareQueue(name, options: options)
      if arguments.flag("json") {
        let json: JSON = ["name": .text(name), "new": .bool(isNew)]
        try StandardOutput.write(json.text + "\n")
      } else {
        try StandardOutput.write("queue \(name) \(isNew ? "declared" : "was there already")\n")
      }
      return .fine
    }
  }

  private static func readRetry(
    _ arguments: Arguments, _ longest: Nanoseconds, _ options: inout QueueOptions
  ) throws(UsageError) {
    if let delay = try arguments.duration("retry-delay", in: .milliseconds(1)...longest) {
      options.retryDelay = Duration(delay)
    }
    if let most = try arguments.duration("retry-max", in: .milliseconds(1)...longest) {
      guard options.retryDelay > .zero else {
        throw arguments.usage("--retry-max needs --retry-delay")
      }
      guard Duration(most) >= options.retryDelay else {
        throw arguments.usage("--retry-max must not be below --retry-delay")
      }
      options.retryDelayMax = Duration(most)
    }
    if let jitter = try arguments.decimal("retry-jitter", in: 0...1) {
      guard options.retryDelay > .zero else {
        throw arguments.usage("--retry-jitter needs --retry-delay")
      }
      options.retryJitter = jitter
    }
  }

  private static func readBounds(
    _ arguments: Arguments, _ longest: Nanoseconds, _ options: inout QueueOptions
  ) throws(UsageError) {
    if let span = try arguments.duration("ttl", in: .milliseconds(1)...longest) {
      options.timeToLive = Duration(span)
    }
    options.maxLength = try arguments.count("max-length", in: 1...UInt64.max) ?? 0
    if let text = arguments.text("max-bytes") {
      guard let bytes = ByteCountText.parse(text), bytes > 0 else {
        throw arguments.usage("--max-bytes: \"\(text)\" is no size such as 64MiB")
      }
      options.maxBytes = bytes
    }
    switch arguments.text("overflow") {
    case nil, "reject": break
    case "drop-oldest": options.overflow = .dropOldest
    case let text?:
      throw arguments.usage("--overflow must be reject or drop-oldest, not \"\(text)\"")
    }
    if arguments.text("overflow") != nil, options.maxLength == 0, options.maxBytes == 0 {
      throw arguments.usage("--overflow needs --max-length or --max-bytes")
    }
  }

  static func options(_ arguments: Arguments) throws(UsageError) -> QueueOptions {
    var options = QueueOptions()
    let longest = Nanoseconds.seconds(365 * 86_400)
    if let lease = try arguments.duration("lease", in: .milliseconds(1)...longest) {
      options.lease = Duration(lease)
    }
    if let most = try arguments.count("max-deliveries", in: 1...UInt64(UInt32.max)) {
      options.maxDeliveries = Int(most)
    }
    if let queue = arguments.text("dead-letter") {
      guard QueueSettings.isValid(name: queue) else {
        throw arguments.usage("--dead-letter: \"\(queue)\" is no queue name of 1 to 255 bytes")
      }
      options.deadLetterQueue = queue
    }
    if let levels = try arguments.count("priorities", in: 1...32) {
      options.priorities = Int(levels)
    }
    if let most = try arguments.count("keyed", in: 1...UInt64(UInt32.max)) {
      options.keyLimit = Int(most)
    }
    if let span = try arguments.duration("expires", in: .milliseconds(1)...longest) {
      options.expires = Duration(span)
    }
    options.singleActiveConsumer = arguments.flag("single-active")
    try readRetry(arguments, longest, &options)
    try readBounds(arguments, longest, &options)
    return options
  }
}
