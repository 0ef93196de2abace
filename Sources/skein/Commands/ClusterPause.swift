// `skein cluster pause`: a node that hangs without being dead.

import Base
import Glibc

enum ClusterPause {
  static let command = Command(
    path: ["cluster", "pause"], summary: "stop a node in its tracks (SIGSTOP), as if it hung",
    operands: [Operand(name: "N|leader", help: "the node's number, or whoever leads")],
    options: [.directory],
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let cluster = try LocalCluster.existing(arguments)
    let node = try await cluster.node(arguments)
    guard try cluster.runningProcess(of: node).send(SIGSTOP) else {
      throw Failure("node \(node) does not run")
    }
    try StandardOutput.write("node \(node) paused; skein cluster resume \(node) goes on\n")
    return .fine
  }
}
