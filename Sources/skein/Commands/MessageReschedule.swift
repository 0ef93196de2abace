// `skein message reschedule`: gives one message that waits another time.

import Base
import SkeinClient

enum MessageReschedule {
  static let command = Command(
    path: ["message", "reschedule"],
    summary: "let a message that no consumer holds be delivered sooner or later",
    operands: [
      Operand(name: "QUEUE", help: "the queue that it is in"),
      Operand(name: "ID", help: "of the message, such as 12-0"),
      Operand(name: "DELAY", help: "from now, such as 90s; 0 is at once"),
    ],
    options: [.json] + Option.connection,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let queue = arguments.operands[0]
    let id = try MessageShow.id(arguments.operands[1], arguments)
    guard let delay = DurationText.parse(arguments.operands[2]),
      delay <= .seconds(365 * 86_400)
    else {
      throw arguments.usage("\"\(arguments.operands[2])\" is no time such as 90s, up to 365d")
    }
    return try await Connection.with(arguments) { client in
      try await client.rescheduleMessage(id, in: queue, delay: Duration(delay))
      let json: JSON = ["queue": .text(queue), "rescheduled": .text(id.description)]
      try StandardOutput.write(
        arguments.flag("json") ? json.text + "\n" : "message \(id) rescheduled\n")
      return .fine
    }
  }
}
