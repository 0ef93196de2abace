// `skein member remove`: a node is no member any more.

enum MemberRemove {
  static let command = Command(
    path: ["member", "remove"], summary: "take a node out of the cluster",
    operands: [Operand(name: "N", help: "the node's number")],
    options: [.json] + Option.connection,
    details: """
      The others go on without it at once; a leader hands over first. The node itself may be stopped
      then, and its data removed: it cannot come back under the same number. On this machine skein
      cluster remove does all of it.
      """,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    guard let node = try arguments.nodeOperand(0) else { throw arguments.usage("N is missing") }
    return try await Connection.with(arguments) { client in
      try await client.removeMember(id: Int(node.rawValue))
      if arguments.flag("json") {
        let json: JSON = ["removed": .integer(exactly: node.rawValue)]
        try StandardOutput.write(json.text + "\n")
      } else {
        try StandardOutput.write("node \(node) is no member any more\n")
      }
      return .fine
    }
  }
}
