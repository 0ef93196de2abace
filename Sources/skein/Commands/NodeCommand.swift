// `skein node`: runs one node until it is told to stop.

import Base
import Server

enum NodeCommand {
  static let command = Command(
    path: ["node"], summary: "run one node of a cluster, in the foreground",
    options: [
      Option("config", "FILE", "its configuration (cluster/README.md explains the keys)"),
      Option("check", nil, "check the configuration and exit"),
    ],
    details: """
      Logs to standard error, one event a line. SIGTERM hands leadership over, finishes what is under
      way and ends with 0.
      """,
    run: .blocking(run))

  static func run(_ arguments: Arguments) throws -> ExitCode {
    try EndWithParent.obey()
    guard let file = arguments.text("config") else { throw arguments.usage("--config is missing") }
    let configuration: ServerConfiguration
    do throws(ConfigurationError) {
      configuration = try ServerConfiguration.read(file: file)
    } catch {
      for fault in error.faults { StandardError.write("skein: \(file): \(fault)\n") }
      return .failed
    }
    let checksOnly = arguments.flag("check")
    // A node that is only checked may be running.
    let faults = configuration.addressFaults().filter { !(checksOnly && $0.isInUse) }
    for fault in faults { StandardError.write("skein: \(file): \(fault)\n") }
    guard faults.isEmpty else { return .failed }
    if checksOnly {
      try StandardOutput.write("\(file): fine\n")
      return .fine
    }
    return ExitCode(rawValue: Server.run(configuration: configuration)) ?? .failed
  }
}
