// `skein queue delete`: a queue goes, with all that is in it.

enum QueueDelete {
  static let command = Command(
    path: ["queue", "delete"], summary: "delete a queue with all its messages",
    operands: [Operand(name: "NAME", help: "the queue")],
    options: [.json] + Option.connection,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let name = arguments.operands[0]
    return try await Connection.with(arguments) { client in
      let count = try await client.deleteQueue(name)
      if arguments.flag("json") {
        let json: JSON = ["name": .text(name), "messages": .unsigned(count)]
        try StandardOutput.write(json.text + "\n")
      } else {
        try StandardOutput.write("queue \(name) deleted, with \(grouped(count)) messages\n")
      }
      return .fine
    }
  }
}
