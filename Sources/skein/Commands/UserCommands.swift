// `skein user`: who may come by AMQP. Passwords are read from standard input or a file, never from the
// command line, which others can see; what is kept is salted and hashed.

import Glibc
import Server
import SkeinClient

enum UserList {
  static let command = Command(
    path: ["user", "list"], summary: "show the users of AMQP",
    options: [.json] + Option.connection,
    details: """
      guest, with the password guest and from a node's own machine only, is there until it is given
      another password: skein user add guest.
      """,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    try await Connection.with(arguments) { client in
      let users = try await client.access().users
      if arguments.flag("json") {
        let json: JSON = ["users": .array(users.map { .text($0) })]
        try StandardOutput.write(json.text + "\n")
        return .fine
      }
      var table = Table(["user", ""])
      if !users.contains("guest") { table.add(["guest", "from a node's own machine"]) }
      for user in users { table.add([user, ""]) }
      try StandardOutput.write(table.text(colours: Terminal.hasColours))
      return .fine
    }
  }
}

enum UserAdd {
  static let command = Command(
    path: ["user", "add"], summary: "let somebody come by AMQP",
    operands: [Operand(name: "NAME", help: "the user")],
    options: [Password.option, .json] + Option.connection,
    details: Password.details,
    run: .asynchronous { try await Password.set(of: $0, isNew: true) })
}

enum UserPassword {
  static let command = Command(
    path: ["user", "password"], summary: "give a user of AMQP another password",
    operands: [Operand(name: "NAME", help: "the user")],
    options: [Password.option, .json] + Option.connection,
    details: Password.details + " Connections that there are stay.",
    run: .asynchronous { try await Password.set(of: $0, isNew: false) })
}

enum UserRemove {
  static let command = Command(
    path: ["user", "remove"], summary: "let a user of AMQP come no more",
    operands: [Operand(name: "NAME", help: "the user")],
    options: [.json] + Option.connection,
    details: """
      Connections that there are stay. If guest is removed, its first password holds again: guest, from a
      node's own machine only.
      """,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let name = arguments.operands[0]
    return try await Connection.with(arguments) { client in
      guard try await client.access().users.contains(name) else {
        throw Failure(
          name == "guest"
            ? "guest with the password guest may always come from a node's own machine, unless it is"
              + " given another password: skein user add guest"
            : "there is no user \(name): skein user list shows them")
      }
      try await client.setUser(name, salt: [], hash: [])
      if arguments.flag("json") {
        let json: JSON = ["removed": .text(name)]
        try StandardOutput.write(json.text + "\n")
      } else {
        try StandardOutput.write(
          name == "guest"
            ? "guest has its first password again, and may come from a node's own machine only\n"
            : "user \(name) may come no more\n")
      }
      return .fine
    }
  }
}

private enum Password {
  static let option = Option(
    "password-file", "FILE", "whose first line is the password (default: standard input)")
  static let details = """
    The password is the first line of standard input or of a file. On a terminal it is asked for, and
    not shown.
    """

  static func set(of arguments: Arguments, isNew: Bool) async throws -> ExitCode {
    let name = arguments.operands[0]
    let password = try await read(arguments)
    var generator = SystemRandomNumberGenerator()
    let salt = (0..<16).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
    let hash = SHA256.digest(salt + password)
    return try await Connection.with(arguments) { client in
      let isThere = try await client.access().users.contains(name)
      if isNew, isThere {
        throw Failure("user \(name) is there already: skein user password gives it another one")
      }
      if !isNew, !isThere { throw Failure("there is no user \(name): skein user add adds it") }
      try await client.setUser(name, salt: salt, hash: hash)
      if arguments.flag("json") {
        let json: JSON = ["user": .text(name)]
        try StandardOutput.write(json.text + "\n")
      } else {
        try StandardOutput.write("user \(name) may come\(isNew ? "" : " with the new password")\n")
      }
      return .fine
    }
  }

  private static func read(_ arguments: Arguments) async throws -> [UInt8] {
    let file = arguments.text("password-file")
    let isAsked = (file ?? "-") == "-" && isatty(STDIN_FILENO) != 0
    var shown = termios()
    if isAsked {
      StandardError.write("password: ")
      tcgetattr(STDIN_FILENO, &shown)
      var hidden = shown
      hidden.c_lflag &= ~tcflag_t(ECHO)
      tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden)
    }
    defer {
      if isAsked {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown)
        StandardError.write("\n")
      }
    }
    let reader = try InputReader(file: file)
    var bytes: [UInt8] = []
    while !bytes.contains(UInt8(ascii: "\n")), bytes.count <= bytesMax {
      let piece = try await reader.next()
      if piece.isEmpty { break }
      bytes += piece
    }
    var line = bytes.prefix { $0 != UInt8(ascii: "\n") }
    if line.last == UInt8(ascii: "\r") { line.removeLast() }
    guard !line.isEmpty, line.count <= bytesMax else {
      throw Failure("a password has 1 to \(bytesMax) bytes")
    }
    return [UInt8](line)
  }

  private static let bytesMax = 1024
}
