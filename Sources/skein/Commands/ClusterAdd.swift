// `skein cluster add`: one more node on this machine.

import Base

enum ClusterAdd {
  static let command = Command(
    path: ["cluster", "add"], summary: "start one more node and make it a member",
    options: [
      .directory, Option("timeout", "TIME", "wait this long until it votes (default 60s)"), .json,
    ],
    details: """
      If the node could not become a member in time it runs on; the same command goes on with it.
      """,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let cluster = try LocalCluster.existing(arguments)
    let timeout =
      try arguments.duration("timeout", in: .milliseconds(1) ... .seconds(86_400)) ?? .seconds(60)
    try await Connection.with(endpoints: cluster.endpoints(), arguments, timeout: timeout) {
      client in
      let members = Set(try await client.members().map { NodeID(UInt32($0.id)) })
      let node = try await cluster.locked { () throws -> NodeID in
        // One that a call before this started and did not get in.
        let waiting = try cluster.nodes().first { !members.contains($0) }
        let node = try waiting ?? nextNode(cluster, members)
        if waiting == nil { _ = try cluster.createJoining(node) }
        if cluster.process(of: node) == nil {
          try ClusterUp.checkPorts(cluster.configuration(node))
          _ = try cluster.start(node)
        }
        return node
      }
      let configuration = try cluster.configuration(node)
      try await client.addMember(
        id: Int(node.rawValue), peerAddress: configuration.peerListen.description,
        clientAddress: configuration.clientListen.description)
    }
    return try await Status.show(cluster, arguments)
  }

  /// Larger than any number in the directory and in the cluster.
  private static func nextNode(
    _ cluster: LocalCluster, _ members: Set<NodeID>
  ) throws -> NodeID {
    let local = try cluster.nextNode()
    return members.max().map { max($0.next, local) } ?? local
  }
}
