// `skein cluster resume`: a paused node goes on.

import Base
import Glibc

enum ClusterResume {
  static let command = Command(
    path: ["cluster", "resume"], summary: "let a paused node go on",
    operands: [Operand(name: "N", help: "the node's number")],
    options: [.directory],
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let cluster = try LocalCluster.existing(arguments)
    let node = try await cluster.node(arguments)
    let process = try cluster.runningProcess(of: node)
    guard process.isPaused else { throw Failure("node \(node) is not paused") }
    guard process.send(SIGCONT) else { throw Failure("node \(node) does not run") }
    try StandardOutput.write("node \(node) goes on\n")
    return .fine
  }
}
