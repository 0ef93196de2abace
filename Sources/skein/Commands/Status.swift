// `skein status`: who is up, who leads, how the queues stand.

import Base

enum Status {
  static let command = Command(
    path: ["status"], summary: "show nodes, the leader, what may still fail, and the queues",
    options: [
      Option("watch", nil, "show it anew every second, with rates; q ends"),
      .json, .endpoints, .directory,
      Option(
        "timeout", "TIME", "take a node for down that does not answer in this time (default 1s)"),
    ],
    details: """
      Every node answers for itself. Ends with 1 if none answers.
      """,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let question = StatusQuestion(
      endpoints: try Connection.endpoints(arguments),
      timeout: try arguments.duration("timeout", in: .milliseconds(1) ... .seconds(600))
        ?? .seconds(1))
    if arguments.flag("watch") { return try await StatusWatch.run(question, arguments) }
    return try await show(await question.ask(), arguments)
  }

  /// Prints what a local cluster looks like now.
  static func show(_ cluster: LocalCluster, _ arguments: Arguments) async throws -> ExitCode {
    let question = StatusQuestion(endpoints: try cluster.endpoints(), timeout: .seconds(1))
    return try await show(await question.ask(), arguments)
  }

  private static func show(_ report: ClusterReport, _ arguments: Arguments) async throws -> ExitCode
  {
    try StandardOutput.write(
      arguments.flag("json")
        ? report.json.text + "\n" : report.text(colours: Terminal.hasColours))
    return report.nodes.contains { $0.status != nil } ? .fine : .failed
  }
}
