// `skein vhost`: virtual hosts, each with exchanges and queues of its own for AMQP's clients.

import SkeinClient

enum VhostList {
  static let command = Command(
    path: ["vhost", "list"], summary: "show the virtual hosts of AMQP",
    options: [.json] + Option.connection,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    try await Connection.with(arguments) { client in
      let hosts = try await client.access().hosts
      if arguments.flag("json") {
        let json: JSON = ["vhosts": .array(hosts.map { .text($0) })]
        try StandardOutput.write(json.text + "\n")
        return .fine
      }
      var table = Table(["vhost"])
      for host in hosts { table.add([host]) }
      try StandardOutput.write(table.text(colours: Terminal.hasColours))
      return .fine
    }
  }
}

enum VhostAdd {
  static let command = Command(
    path: ["vhost", "add"], summary: "add a virtual host for AMQP",
    operands: [Operand(name: "NAME", help: "1 to 100 bytes without a colon")],
    options: [.json] + Option.connection,
    details: """
      Every user may use every virtual host. Native clients and the other commands know a queue of it
      as //NAME:QUEUE. A virtual host cannot be removed yet.
      """,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let name = arguments.operands[0]
    return try await Connection.with(arguments) { client in
      try await client.addVirtualHost(name)
      if arguments.flag("json") {
        let json: JSON = ["vhost": .text(name)]
        try StandardOutput.write(json.text + "\n")
      } else {
        try StandardOutput.write("vhost \(name) is there\n")
      }
      return .fine
    }
  }
}
