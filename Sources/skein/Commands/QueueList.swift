// `skein queue list`: all queues at a glance.

enum QueueList {
  static let command = Command(
    path: ["queue", "list"], summary: "show all queues",
    options: [.json] + Option.connection,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    try await Connection.with(arguments) { client in
      let queues = try await client.listQueues()
      if arguments.flag("json") {
        let json: JSON = ["queues": .array(queues.map(\.json))]
        try StandardOutput.write(json.text + "\n")
      } else if queues.isEmpty {
        try StandardOutput.write("no queues\n")
      } else {
        try StandardOutput.write(
          ClusterReport.queueTable(queues, [:], colours: Terminal.hasColours))
      }
      return .fine
    }
  }
}
