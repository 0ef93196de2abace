// `skein member list`: who belongs to the cluster.

enum MemberList {
  static let command = Command(
    path: ["member", "list"], summary: "show the members of the cluster",
    options: [.json] + Option.connection,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    try await Connection.with(arguments) { client in
      let members = try await client.members()
      if arguments.flag("json") {
        let list = members.map { member -> JSON in
          [
            "id": .integer(exactly: member.id), "peerAddress": .text(member.peerAddress),
            "clientAddress": .text(member.clientAddress), "votes": .bool(member.votes),
            "leader": .bool(member.isLeader),
          ]
        }
        let json: JSON = ["members": .array(list)]
        try StandardOutput.write(json.text + "\n")
        return .fine
      }
      var table = Table(["node", "vote", "clients", "peers", ""])
      for member in members {
        table.add([
          "\(member.id)", member.votes ? "yes" : "no", member.clientAddress, member.peerAddress,
          member.isLeader ? "leads" : "",
        ])
      }
      try StandardOutput.write(table.text(colours: Terminal.hasColours))
      return .fine
    }
  }
}
