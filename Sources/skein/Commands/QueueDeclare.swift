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
    return options
  }
}
