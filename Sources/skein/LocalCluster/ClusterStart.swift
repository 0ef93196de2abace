// What follows when nodes were started: waiting for a leader, showing who is there.

import Base

enum ClusterStart {
  /// Returns as soon as a leader is known; a node that ended meanwhile is reported with the end of
  /// its log.
  static func waitForLeader(_ cluster: LocalCluster, atMost limit: Nanoseconds) async throws {
  }

  static func show(_ cluster: LocalCluster, _ arguments: Arguments) async throws -> ExitCode {
    for node in try cluster.nodes() {
      let state = cluster.process(of: node).map { "runs (pid \($0.pid))" } ?? "does not run"
      try StandardOutput.write("node \(node) \(state)\n")
    }
    return .fine
  }
}

extension LocalCluster {
  /// The node that the first operand names: a number of one here, or `leader`.
  func node(_ arguments: Arguments) async throws -> NodeID {
    if arguments.operands.first == "leader", arguments.command.operands[0].name != "N" {
      return try await leader()
    }
    guard let node = try arguments.nodeOperand(0) else {
      throw arguments.usage("\(arguments.command.operands[0].name) is missing")
    }
    try check(node, arguments)
    return node
  }

  private func leader() async throws -> NodeID {
    throw Failure("no node leads at the moment")
  }
}
