// `skein queue peek`: looks at messages without taking them.

import SkeinClient

enum QueuePeek {
  static let command = Command(
    path: ["queue", "peek"], summary: "look at messages without taking them",
    operands: [Operand(name: "NAME", help: "the queue")],
    options: [
      Option("limit", "N", "show at most N messages (default 10)"),
      Option("after", "ID", "begin behind this message"),
      Option("skip", "N", "pass over the first N messages (at most 1000000)"),
      Option("id", "ID", "only this message"),
      Option("state", "LIST", "only these, commas between: ready, leased, delayed, dead"),
      Option("key", "KEY", "only those with this key"),
      Option("header", "NAME=VALUE", "only those with this header"),
      .json,
    ] + Option.connection,
    details: """
      With --key and --header it goes through the queue from the beginning, or from --after, a thousand
      messages at a time, until it has found --limit of them. Nothing is consumed.
      """,
    run: .asynchronous(run))

  /// Of a body, what a table shows.
  private static let bodyCharactersMax = 60

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let limit = try arguments.count("limit", in: 1...1000) ?? 10
    let after = try after(arguments)
    let query = try query(arguments)
    let id = try arguments.text("id").map { try MessageShow.id($0, arguments) }
    guard id == nil || after == nil && query == MessageQuery() else {
      throw arguments.usage("--id goes with no other choice")
    }
    let name = arguments.operands[0]
    return try await Connection.with(arguments) { client in
      let messages = try await find(name, query, after: after, only: id, Int(limit), client)
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

  /// Page after page, until there are enough or there is no more.
  private static func find(
    _ queue: String, _ query: MessageQuery, after: MessageIdentifier?,
    only id: MessageIdentifier?, _ limit: Int, _ client: SkeinClient
  ) async throws -> [PeekedMessage] {
    if let id {
      let message = try await client.message(id, in: queue)
      return message.queue == queue && message.message.id == id ? [message.message] : []
    }
    var query = query
    var next = after
    var found: [PeekedMessage] = []
    repeat {
      let page = try await client.search(queue, query, after: next, limit: limit - found.count)
      found += page.messages
      next = page.next
      query.skip = 0
    } while next != nil && found.count < limit
    return found
  }

  private static func query(_ arguments: Arguments) throws -> MessageQuery {
    var query = MessageQuery()
    for word in (arguments.text("state") ?? "").split(separator: ",") {
      if word == "dead" {
        query.onlyDeadLetters = true
      } else if let state = PeekedMessage.State(rawValue: String(word)) {
        query.states.insert(state)
      } else {
        throw arguments.usage("--state knows ready, leased, delayed and dead, not \(word)")
      }
    }
    query.key = arguments.text("key")
    if let text = arguments.text("header") {
      let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2, !parts[0].isEmpty else {
        throw arguments.usage("--header must be NAME=VALUE, not \"\(text)\"")
      }
      query.header = MessageHeader(String(parts[0]), String(parts[1]))
    }
    query.skip = Int(try arguments.count("skip", in: 0...1_000_000) ?? 0)
    return query
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
