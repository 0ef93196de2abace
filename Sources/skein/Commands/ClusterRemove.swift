// `skein cluster remove`: a node of this machine leaves for good.

import Base

enum ClusterRemove {
  static let command = Command(
    path: ["cluster", "remove"],
    summary: "take a node out of the cluster, stop it and remove its data",
    operands: [Operand(name: "N|leader", help: "the node's number, or whoever leads")],
    options: [
      .directory, Option("timeout", "TIME", "wait this long for the change (default 30s)"), .json,
    ],
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let cluster = try LocalCluster.existing(arguments)
    let node = try await cluster.node(arguments)
    let timeout =
      try arguments.duration("timeout", in: .milliseconds(1) ... .seconds(86_400)) ?? .seconds(30)
    try await Connection.with(endpoints: cluster.endpoints(), arguments, timeout: timeout) {
      client in
      // One that never became a member may go as it is.
      if try await client.members().contains(where: { $0.id == Int(node.rawValue) }) {
        try await client.removeMember(id: Int(node.rawValue))
      }
    }
    try await cluster.locked {
      _ = try await ClusterDown.stop(cluster, [node])
      try cluster.forget(node)
    }
    return try await Status.show(cluster, arguments)
  }
}
