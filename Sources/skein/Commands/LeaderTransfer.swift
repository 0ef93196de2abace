// `skein leader transfer`: another node leads, without anybody having to fail.

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
    let node = try arguments.nodeOperand(0)
    return try await Connection.with(arguments) { client in
      try await client.transferLeadership(to: node.map { Int($0.rawValue) })
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
}
