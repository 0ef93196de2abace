// `skein cluster down`: stops the nodes of a local cluster, kindly first.

import Base
import Glibc

enum ClusterDown {
  static let command = Command(
    path: ["cluster", "down"], summary: "stop all nodes; their data stays",
    options: [
      .directory,
      Option("wipe", nil, "then remove the data, logs and configurations"),
    ],
    details: """
      Nodes get SIGTERM, and SIGKILL if they still run 6 seconds later.
      """,
    run: .asynchronous(run))

  /// A node ends within 5 s of SIGTERM (`timeouts.stop`); one more for a busy machine.
  private static let patience = Nanoseconds.seconds(6)

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let cluster = try LocalCluster.existing(arguments)
    let stopped = try await cluster.locked {
      let count = try await stop(cluster, try cluster.nodes())
      if arguments.flag("wipe") { try cluster.wipe() }
      return count
    }
    let words = arguments.flag("wipe") ? ", everything is removed" : ""
    try StandardOutput.write("\(stopped) \(stopped == 1 ? "node" : "nodes") stopped\(words)\n")
    return .fine
  }

  /// Stops `nodes`; how many ran.
  static func stop(_ cluster: LocalCluster, _ nodes: [NodeID]) async throws -> Int {
    let processes = nodes.compactMap { cluster.process(of: $0) }
    for process in processes {
      process.send(SIGTERM)
      // A paused one would not see it.
      process.send(SIGCONT)
    }
    let ended = try await LocalCluster.wait(atMost: patience) {
      processes.allSatisfy { $0.hasLeft }
    }
    if !ended {
      for process in processes where process.send(SIGKILL) {
        StandardError.write("skein: node \(process.node) did not stop and was killed\n")
      }
      _ = try await LocalCluster.wait(atMost: patience) { processes.allSatisfy { $0.hasLeft } }
    }
    for node in nodes { unlink(cluster.processFile(node)) }
    return processes.count
  }
}
