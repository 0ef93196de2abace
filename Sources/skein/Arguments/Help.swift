// The help texts, made from the tables, so that they cannot say anything else than the parser does.

enum Help {
  private static let width = 100

  /// `skein --help`.
  static func overview() -> String {
    var text = """
      skein: a replicated message queue that keeps every confirmed message

      usage: skein COMMAND [ARGUMENTS]


      """
    var shown: Set<String> = []
    for command in CommandTable.commands {
      if command.path.count == 1 {
        text += entry("  " + synopsis(command), command.summary, column: 30)
      } else if shown.insert(command.path[0]).inserted,
        let group = CommandTable.groups.first(where: { $0.name == command.path[0] })
      {
        let names = CommandTable.commands.filter { $0.path.first == group.name }.map { $0.path[1] }
        text += entry(
          "  \(group.name) \(names.joined(separator: "|"))", group.summary, column: 30)
      }
    }
    text += """

      skein COMMAND --help explains a command. A cluster is found by --endpoints, else by the variable
      SKEIN_ENDPOINTS, else in the directory .skein (which skein cluster up makes).
      Exit codes: 0 fine, 1 failed, 2 a checker found a violation, 3 it cannot tell, 64 wrong usage.

      """
    return text
  }

  /// `skein queue --help`.
  static func group(_ group: CommandTable.Group) -> String {
    var text = "skein \(group.name): \(group.summary)\n\n"
    for command in CommandTable.commands where command.path.first == group.name {
      text += entry("  skein " + synopsis(command), command.summary, column: 40)
    }
    return text + "\nskein \(group.name) COMMAND --help explains one.\n"
  }

  /// `skein queue declare --help`.
  static func command(_ command: Command) -> String {
    var text = "usage: skein \(synopsis(command))"
    text += command.options.isEmpty ? "\n\n" : " [OPTIONS]\n\n"
    text += "\(sentence(command.summary))\n"
    if !command.details.isEmpty { text += "\n\(command.details)\n" }
    if !command.operands.isEmpty {
      text += "\n"
      for operand in command.operands {
        text += entry("  " + operand.name, operand.help, column: 26)
      }
    }
    text += "\n"
    for option in command.allOptions {
      text += entry("  " + self.option(option), option.help, column: 26)
    }
    return text
  }

  /// `queue peek NAME`, without options.
  static func synopsis(_ command: Command) -> String {
    let operands = command.operands.map { operand in
      switch operand.occurrence {
      case .once: " \(operand.name)"
      case .optional: " [\(operand.name)]"
      case .anyNumber: " [\(operand.name)…]"
      }
    }
    return command.name + operands.joined()
  }

  static func option(_ option: Option) -> String {
    "--\(option.name)" + (option.value.map { " \($0)" } ?? "")
  }

  private static func sentence(_ summary: String) -> String {
    summary.prefix(1).uppercased() + summary.dropFirst() + "."
  }

  /// A name and what it means in a second column, broken into lines.
  private static func entry(_ name: String, _ meaning: String, column: Int) -> String {
    var text = name
    if name.count > column - 2 {
      text += "\n" + String(repeating: " ", count: column)
    } else {
      text += String(repeating: " ", count: column - name.count)
    }
    var used = column
    for (position, word) in meaning.split(separator: " ").enumerated() {
      if position > 0 {
        if used + 1 + word.count > width {
          text += "\n" + String(repeating: " ", count: column)
          used = column
        } else {
          text += " "
          used += 1
        }
      }
      text += word
      used += word.count
    }
    return text + "\n"
  }
}
