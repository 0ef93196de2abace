// `skein member add`: a node that runs becomes a member.

import Base
import Transport

enum MemberAdd {
  static let command = Command(
    path: ["member", "add"], summary: "make a node a member and wait until it votes",
    operands: [
      Operand(name: "N", help: "the node's number, never used before in this cluster"),
      Operand(name: "PEERS", help: "host:port where the other nodes reach it"),
      Operand(name: "CLIENTS", help: "host:port where clients reach it"),
    ],
    options: [.json] + Option.connection,
    details: """
      Start the node first, with "join": true in its configuration. It gets the log while it has no
      vote, and votes when it has caught up: --timeout must leave time for that. On this machine
      skein cluster add does all of it.
      """,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    guard let node = try arguments.nodeOperand(0) else { throw arguments.usage("N is missing") }
    for address in arguments.operands.dropFirst() {
      do throws(AddressError) {
        _ = try Endpoint(parsing: address)
      } catch {
        throw arguments.usage("\(error)")
      }
    }
    return try await Connection.with(arguments) { client in
      try await client.addMember(
        id: Int(node.rawValue), peerAddress: arguments.operands[1],
        clientAddress: arguments.operands[2])
      if arguments.flag("json") {
        let json: JSON = ["added": .integer(exactly: node.rawValue)]
        try StandardOutput.write(json.text + "\n")
      } else {
        try StandardOutput.write("node \(node) is a member and votes\n")
      }
      return .fine
    }
  }
}
