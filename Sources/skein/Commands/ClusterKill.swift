// `skein cluster kill`: ends a node as a crash would.

import Base
import Glibc

enum ClusterKill {
  static let command = Command(
    path: ["cluster", "kill"], summary: "kill a node at once (SIGKILL), as a crash would",
    operands: [Operand(name: "N|leader", help: "the node's number, or whoever leads")],
    options: [.directory],
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let cluster = try LocalCluster.existing(arguments)
    let node = try await cluster.node(arguments)
    let process = try cluster.runningProcess(of: node)
    guard process.send(SIGKILL) else { throw Failure("node \(node) does not run") }
    // Gone when the command returns, so that a restart may follow at once.
    guard try await LocalCluster.wait(atMost: .seconds(10), until: { process.hasLeft }) else {
      throw Failure("node \(node) (pid \(process.pid)) does not die")
    }
    try StandardOutput.write("node \(node) killed (pid \(process.pid))\n")
    return .fine
  }
}
