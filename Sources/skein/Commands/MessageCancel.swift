// `skein message cancel`: removes one message that waits.

import SkeinClient

enum MessageCancel {
  static let command = Command(
    path: ["message", "cancel"],
    summary: "remove a message that no consumer holds, such as a delayed one",
    operands: [
      Operand(name: "QUEUE", help: "the queue that it is in"),
      Operand(name: "ID", help: "of the message, such as 12-0"),
    ],
    options: [.json] + Option.connection,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let queue = arguments.operands[0]
    let id = try MessageShow.id(arguments.operands[1], arguments)
    return try await Connection.with(arguments) { client in
      try await client.cancelMessage(id, in: queue)
      let json: JSON = ["queue": .text(queue), "cancelled": .text(id.description)]
      try StandardOutput.write(
        arguments.flag("json") ? json.text + "\n" : "message \(id) cancelled\n")
      return .fine
    }
  }
}
