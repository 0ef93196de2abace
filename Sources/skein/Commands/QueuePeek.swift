// `skein queue peek`: looks at messages without taking them.

import SkeinClient

enum QueuePeek {
  static let command = Command(
    path: ["queue", "peek"], summary: "look at messages without taking them",
    operands: [Operand(name: "NAME", help: "the queue")],
    options: [
      Option("limit", "N", "show at most N messages (default 10)"),
      Option("after", "ID", "begin behind this message"),
      .json,
    ] + Option.connection,
    run: .asynchronous(run))

  /// Of a body, what a table shows.
  private static let bodyCharactersMax = 60

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let limit = try arguments.count("limit", in: 1...1000) ?? 10
    let after = try after(arguments)
    let name = arguments.operands[0]
    return try await Connection.with(arguments) { client in
      let messages = try await client.peek(name, after: after, limit: Int(limit))
      if arguments.flag("json") {
        for message in messages {
          try StandardOutput.write(JSON.object(json(message, name)).text + "\n")
        }
        return .fine
      }
      var table = Table(["message", "state", ">failed", ">bytes", "body", "last error"])
      for message in messages {
        let body = message.message.body
        // In a dead-letter queue, what happened in the queue before is of interest.
        let attempts = message.deadLetter?.attempts ?? message.attempts
        let error = message.deadLetter?.lastError ?? message.lastError
        table.add([
          message.id.description, message.state.rawValue, "\(attempts)",
          "\(body.count)", short(body), error,
        ])
      }
      try StandardOutput.write(
        messages.isEmpty ? "no messages\n" : table.text(colours: Terminal.hasColours))
      return .fine
    }
  }

  private static func after(_ arguments: Arguments) throws -> MessageIdentifier? {
    guard let text = arguments.text("after") else { return nil }
    guard let id = MessageIdentifier(text) else {
      throw arguments.usage("--after: \"\(text)\" is no message id such as 12-0")
    }
    return id
  }

  /// What is known of a message at rest; docs/cli.md explains the fields.
  static func json(_ message: PeekedMessage, _ queue: String) -> [JSON.Member] {
    var members: [JSON.Member] = [
      .init(name: "id", value: .text(message.id.description)),
      .init(name: "queue", value: .text(queue)),
      .init(name: "state", value: .text(message.state.rawValue)),
      .init(name: "attempts", value: .integer(exactly: message.attempts)),
      .init(name: "lastError", value: .text(message.lastError)),
    ]
    if let due = message.due { members.append(.init(name: "due", value: .number(due.seconds))) }
    if let expires = message.expires {
      members.append(.init(name: "expires", value: .number(expires.seconds)))
    }
    members += MessageText.contents(message.message)
    if let dead = message.deadLetter {
      members.append(
        .init(
          name: "deadLetter",
          value: [
            "reason": .text(dead.reason.rawValue), "queue": .text(dead.originQueue),
            "id": .text(dead.originID.description), "attempts": .integer(exactly: dead.attempts),
            "lastError": .text(dead.lastError), "firstTime": .number(dead.firstTime.seconds),
            "time": .number(dead.time.seconds),
          ]))
    }
    return members
  }

  /// A body in one line, without what would harm a terminal.
  static func short(_ body: [UInt8]) -> String {
    let text = String(decoding: body.prefix(bodyCharactersMax * 4), as: UTF8.self)
    let shown = text.prefix(bodyCharactersMax).map { character in
      character.unicodeScalars.contains { $0.properties.generalCategory == .control }
        ? "·" : character
    }
    return String(shown) + (text.count > bodyCharactersMax ? "…" : "")
  }
}
