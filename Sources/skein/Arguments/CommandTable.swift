// All commands, in the order of the help, and how the words of a call find theirs.

import Base

enum CommandTable {
  /// Commands that belong together: `skein queue …`.
  struct Group: Sendable {
    let name: String
    let summary: String
  }

  static let groups: [Group] = [
    Group(name: "cluster", summary: "a cluster on this machine: start, stop, harm"),
    Group(name: "queue", summary: "declare queues and look at them"),
    Group(name: "message", summary: "single messages: what happened to them, cancel, reschedule"),
    Group(name: "user", summary: "who may come by AMQP"),
    Group(name: "vhost", summary: "virtual hosts of AMQP"),
    Group(name: "member", summary: "who belongs to the cluster"),
    Group(name: "leader", summary: "who leads"),
    Group(name: "bench", summary: "how fast a cluster is, every message checked"),
    Group(name: "chaos", summary: "hurt a real cluster and judge what its clients saw"),
  ]

  static let commands: [Command] =
    [
      ClusterUp.command, ClusterDown.command, ClusterKill.command, ClusterRestart.command,
      ClusterPause.command, ClusterResume.command, ClusterLogs.command, ClusterAdd.command,
      ClusterRemove.command,
      NodeCommand.command,
      Status.command, Doctor.command,
      QueueDeclare.command, QueueList.command, QueueShow.command, QueueDelete.command,
      QueuePurge.command, QueuePeek.command, QueueRedrive.command,
      MessageShow.command, MessageCancel.command, MessageReschedule.command,
      Publish.command, Consume.command,
      UserList.command, UserAdd.command, UserPassword.command, UserRemove.command,
      VhostList.command, VhostAdd.command,
      MemberList.command, MemberAdd.command, MemberRemove.command,
      LeaderTransfer.command,
      ChaosList.command, ChaosRunCommand.command,
      Check.command,
      Sim.command,
    ] + BenchCommands.commands

  /// What a call asks for.
  enum Call {
    case run(Command, Arguments)
    case help(String)
  }

  /// Finds the command that `words` (without the program's name) begin with.
  static func call(_ words: [String]) throws(UsageError) -> Call {
    guard let first = words.first else { return .help(Help.overview()) }
    switch first {
    case "--help", "-h", "help":
      return try help(for: words.dropFirst().filter { !$0.hasPrefix("-") })
    case "--version", "version": return .help("skein \(Version.text)\n")
    default: break
    }
    if let command = commands.first(where: { $0.path == [first] }) {
      return try parsed(command, Array(words.dropFirst()))
    }
    guard let group = groups.first(where: { $0.name == first }) else {
      if first.hasPrefix("-") { throw UsageError("unknown option \(first)") }
      let nearest = nearestName(to: first, in: topLevelNames)
      throw UsageError(
        "unknown command \"\(first)\"" + (nearest.map { ", did you mean \"\($0)\"?" } ?? ""))
    }
    guard words.count > 1, words[1] != "--help", words[1] != "-h" else {
      return .help(Help.group(group))
    }
    guard let command = commands.first(where: { $0.path == [first, words[1]] }) else {
      let known = commands.filter { $0.path.count == 2 && $0.path[0] == first }.map { $0.path[1] }
      let nearest = nearestName(to: words[1], in: known)
      throw UsageError(
        "unknown command \"\(first) \(words[1])\""
          + (nearest.map { ", did you mean \"\(first) \($0)\"?" } ?? ""), command: first)
    }
    return try parsed(command, Array(words.dropFirst(2)))
  }

  /// The first words there are.
  static var topLevelNames: [String] {
    commands.filter { $0.path.count == 1 }.map { $0.path[0] } + groups.map(\.name)
      + ["help", "version"]
  }

  private static func parsed(_ command: Command, _ words: [String]) throws(UsageError) -> Call {
    let arguments = try Arguments(command, words)
    return arguments.wantsHelp ? .help(Help.command(command)) : .run(command, arguments)
  }

  private static func help(for words: [String]) throws(UsageError) -> Call {
    if words.isEmpty { return .help(Help.overview()) }
    return try call(words + ["--help"])
  }
}

/// Shown by `skein version`.
enum Version {
  static let text = "0.1.0"
}
