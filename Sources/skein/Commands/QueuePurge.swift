// `skein queue purge`: what waits in a queue goes, the queue stays.

enum QueuePurge {
  static let command = Command(
    path: ["queue", "purge"],
    summary: "drop the messages of a queue that no consumer holds",
    operands: [Operand(name: "NAME", help: "the queue")],
    options: [.json] + Option.connection,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let name = arguments.operands[0]
    return try await Connection.with(arguments) { client in
      let count = try await client.purgeQueue(name)
      if arguments.flag("json") {
        let json: JSON = ["name": .text(name), "messages": .unsigned(count)]
        try StandardOutput.write(json.text + "\n")
      } else {
        try StandardOutput.write("\(grouped(count)) messages dropped from queue \(name)\n")
      }
      return .fine
    }
  }
}
