// `skein queue list`: all queues at a glance.

enum QueueList {
  static let command = Command(
    path: ["queue", "list"], summary: "show all queues",
    options: [.json] + Option.connection,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let queues = try await Connection.with(arguments) { try await $0.listQueues() }
    if arguments.flag("json") {
      let json: JSON = ["queues": .array(queues.map(\.json))]
      try StandardOutput.write(json.text + "\n")
      return .fine
    }
    let question = StatusQuestion(
      endpoints: try Connection.endpoints(arguments), timeout: .seconds(1))
    let report = await question.ask(queues: false)
    let table =
      queues.isEmpty
      ? "no queues\n" : ClusterReport.queueTable(queues, [:], colours: Terminal.hasColours)
    try StandardOutput.write(table + (report.amqpLine.map { "\n" + $0 } ?? ""))
    return .fine
  }
}
