// `skein leader transfer`: another node leads, without anybody having to fail.

import Base

enum LeaderTransfer {
  static let command = Command(
    path: ["leader", "transfer"], summary: "hand the leadership to another node",
    operands: [
      Operand(
        name: "N", help: "the node that is to lead; else whoever is furthest along",
        occurrence: .optional)
    ],
    options: [.json] + Option.connection,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let named = try arguments.nodeOperand(0)
    let node = if let named { named } else { try await furthestAlong(arguments) }
    return try await Connection.with(arguments) { client in
      try await client.transferLeadership(to: Int(node.rawValue))
      let leader = try await client.members().first { $0.isLeader }?.id
      if arguments.flag("json") {
        let json: JSON = ["leader": leader.map { .integer(exactly: $0) } ?? .null]
        try StandardOutput.write(json.text + "\n")
      } else {
        try StandardOutput.write("node \(leader.map { "\($0)" } ?? "?") leads\n")
      }
      return .fine
    }
  }

  /// The voter other than the leader that is closest behind it. Chosen here, once: a request
  /// without a name that has to be sent again would pass the leadership on again.
  private static func furthestAlong(_ arguments: Arguments) async throws -> NodeID {
    let report = await StatusQuestion(
      endpoints: try Connection.endpoints(arguments), timeout: .seconds(1)
    ).ask(queues: false)
    guard let leader = report.nodes.first(where: { $0.id == report.leader })?.status else {
      throw Failure("no node leads at the moment")
    }
    let voters = report.nodes.filter { $0.votes && $0.status != nil && $0.id != leader.id }
    let known = leader.peers.filter { peer in
      peer.isConnected && voters.contains { $0.id == peer.id }
    }
    guard let next = known.max(by: { $0.matchIndex < $1.matchIndex }) else {
      throw Failure("there is no other node that could lead")
    }
    return NodeID(UInt32(next.id))
  }
}
