// `skein queue redrive`: messages of a dead-letter queue go back to where they came from.

import SkeinClient

enum QueueRedrive {
  static let command = Command(
    path: ["queue", "redrive"],
    summary: "move messages of a dead-letter queue back to where they came from",
    operands: [Operand(name: "NAME", help: "the dead-letter queue")],
    options: [
      Option(
        "reason", "REASON",
        "only those dead-lettered for this reason: deliveries-exhausted, rejected, expired or"
          + " overflowed"),
      Option("id", "ID", "only this message"),
      Option("limit", "N", "move at most N messages"),
      Option("step", "N", "move N messages at a time, which leaves room for others (default 1000)"),
      .json,
    ] + Option.connection,
    details: """
      Each step is atomic: a message is in one queue or the other, whatever crashes. Attempts begin
      anew. Messages whose queue is gone or full, and those that a consumer holds, stay.
      """,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let name = arguments.operands[0]
    let selection = try selection(arguments)
    let limit = try arguments.count("limit", in: 1...UInt64.max)
    let step = try arguments.count("step", in: 1...4096) ?? 1000
    return try await Connection.with(arguments) { client in
      let result = try await client.redrive(name, selection, limit: limit, step: Int(step))
      if arguments.flag("json") {
        let json: JSON = [
          "name": .text(name), "messages": .unsigned(result.moved),
          "skipped": .unsigned(result.skipped),
        ]
        try StandardOutput.write(json.text + "\n")
      } else {
        let skipped =
          result.skipped == 0
          ? "" : ", \(grouped(result.skipped)) stay: their queue is gone or full"
        try StandardOutput.write(
          "\(grouped(result.moved)) \(result.moved == 1 ? "message" : "messages") moved back"
            + " from queue \(name)\(skipped)\n")
      }
      return .fine
    }
  }

  private static func selection(_ arguments: Arguments) throws(UsageError) -> RedriveSelection {
    let id = try arguments.text("id").map { text throws(UsageError) in
      try MessageShow.id(text, arguments)
    }
    guard let text = arguments.text("reason") else {
      return id.map { .message($0) } ?? .all
    }
    guard id == nil else { throw arguments.usage("--reason and --id cannot go together") }
    guard let reason = PeekedMessage.DeadLetter.Reason(rawValue: text) else {
      let reasons = PeekedMessage.DeadLetter.Reason.allCases.map(\.rawValue)
      throw arguments.usage(
        "--reason must be one of \(reasons.joined(separator: ", ")), not \"\(text)\"")
    }
    return .reason(reason)
  }
}
