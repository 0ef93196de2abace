// `skein cluster restart`: a node stops, if it runs, and starts again on its data.

import Base

enum ClusterRestart {
  static let command = Command(
    path: ["cluster", "restart"], summary: "start a node again, after stopping it if it runs",
    operands: [Operand(name: "N|leader", help: "the node's number, or whoever leads")],
    options: [.directory],
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let cluster = try LocalCluster.existing(arguments)
    let node = try await cluster.node(arguments)
    let process = try await cluster.locked {
      _ = try await ClusterDown.stop(cluster, [node])
      try ClusterUp.checkPorts(cluster.configuration(node))
      return try cluster.start(node)
    }
    try StandardOutput.write("node \(node) started (pid \(process.pid))\n")
    return .fine
  }
}
