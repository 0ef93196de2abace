// The parser and the help: what is understood, and in which words the rest is refused.

import Base
import Foundation
import Testing

@testable import skein

@Suite struct ArgumentTests {
  static let sample = Command(
    path: ["sample"], summary: "an example",
    operands: [
      Operand(name: "QUEUE", help: "a queue"),
      Operand(name: "BODY", help: "bodies", occurrence: .anyNumber),
    ],
    options: [
      Option("count", "N", "how many"), Option("lease", "TIME", "how long"),
      Option("share", "X", "how much"), Option("lines", nil, "by lines"),
      Option("header", "NAME=VALUE", "a header", repeats: true),
    ],
    run: .blocking { _ in .fine })

  static func message(_ words: [String]) -> String? {
    do throws(UsageError) {
      _ = try Arguments(sample, words)
      return nil
    } catch {
      return error.message
    }
  }

  @Test func optionsAndOperandsAreToldApart() throws {
    let arguments = try Arguments(
      Self.sample,
      ["orders", "--count", "20k", "--lines", "a", "--header=k=v", "--header", "l=", "-"])
    #expect(arguments.operands == ["orders", "a", "-"])
    #expect(try arguments.count("count", in: 1 ... .max) == 20_000)
    #expect(arguments.flag("lines"))
    #expect(arguments.all("header") == ["k=v", "l="])
    #expect(arguments.text("lease") == nil)
  }

  @Test func twoDashesEndTheOptions() throws {
    let arguments = try Arguments(Self.sample, ["orders", "--", "--count", "-x"])
    #expect(arguments.operands == ["orders", "--count", "-x"])
  }

  @Test(
    arguments: [
      (["q", "--cuont", "1"], "unknown option --cuont, did you mean --count?"),
      (["q", "--colour"], "unknown option --colour"),
      (["q", "-c"], "unknown option -c"),
      (["q", "--count"], "--count needs a value (N)"),
      (["q", "--count", "1", "--count", "2"], "--count is given twice"),
      (["q", "--lines=yes"], "--lines takes no value"),
      ([], "the QUEUE is missing"),
    ] as [([String], String)])
  func wrongOptionsAreNamed(words: [String], message: String) {
    #expect(Self.message(words) == message)
  }

  @Test func anArgumentTooManyIsNamed() {
    let command = Command(path: ["none"], summary: "", run: .blocking { _ in .fine })
    #expect(throws: UsageError("\"x\" is one argument too many", command: "none")) {
      try Arguments(command, ["x"])
    }
  }

  @Test(
    arguments: [
      ("--count", "many", "--count: \"many\" is no whole number"),
      ("--count", "0", "--count must be from 1 to 100, not 0"),
      ("--lease", "10", "--lease: \"10\" is no time such as 500ms, 10s, 5m, 1h or 1d"),
      ("--lease", "2d", "--lease must be from 1ms to 1d, not 2d"),
      ("--share", "half", "--share: \"half\" is no number"),
      ("--share", "1.5", "--share must be from 0.0 to 1.0, not 1.5"),
    ])
  func wrongValuesAreNamedWithWhatWouldBeRight(option: String, value: String, message: String)
    throws
  {
    let arguments = try Arguments(Self.sample, ["q", option, value])
    #expect(throws: UsageError(message, command: "sample")) {
      _ = try arguments.count("count", in: 1...100)
      _ = try arguments.duration("lease", in: .milliseconds(1) ... .seconds(86_400))
      _ = try arguments.decimal("share", in: 0...1)
    }
  }

  @Test(
    arguments: [
      (["clutser"], "unknown command \"clutser\", did you mean \"cluster\"?"),
      (["cluster", "dwon"], "unknown command \"cluster dwon\", did you mean \"cluster down\"?"),
      (["xyzzy"], "unknown command \"xyzzy\""),
      (["--verbose"], "unknown option --verbose"),
    ] as [([String], String)])
  func wrongCommandsAreNamed(words: [String], message: String) {
    do throws(UsageError) {
      _ = try CommandTable.call(words)
      Issue.record("\(words) was understood")
    } catch {
      #expect(error.message == message)
    }
  }

  /// The help of every command names all its operands and options, and asks for nothing.
  @Test(arguments: CommandTable.commands.map(\.name))
  func everyCommandExplainsItself(name: String) throws {
    let words = name.split(separator: " ").map(String.init)
    for call in [words + ["--help"], ["help"] + words] {
      guard case .help(let text) = try CommandTable.call(call) else {
        Issue.record("\(call) is no call for help")
        continue
      }
      let command = try #require(CommandTable.commands.first { $0.name == name })
      #expect(text.hasPrefix("usage: skein \(name)"))
      for option in command.allOptions { #expect(text.contains("  --\(option.name)")) }
      for operand in command.operands { #expect(text.contains("  \(operand.name)")) }
      #expect(text.split(separator: "\n").allSatisfy { $0.count <= 100 })
    }
  }

  @Test func theOverviewNamesEveryCommand() throws {
    guard case .help(let text) = try CommandTable.call([]) else {
      Issue.record("no help")
      return
    }
    for command in CommandTable.commands { #expect(text.contains(command.path[0])) }
    #expect(text.split(separator: "\n").allSatisfy { $0.count <= 100 })
  }

  /// docs/cli.md has every command and every option.
  @Test func theDocumentationIsComplete() throws {
    let root = #filePath.dropLast("Tests/CommandTests/ArgumentTests.swift".count)
    let page = try String(contentsOfFile: root + "docs/cli.md", encoding: .utf8)
    for command in CommandTable.commands {
      let last = command.path.last ?? ""
      #expect(page.contains("`\(last)") || page.contains("`\(command.name)"), "\(command.name)")
      for option in command.options {
        #expect(page.contains("--\(option.name)"), "\(command.name) --\(option.name)")
      }
    }
  }

  @Test func noOptionIsThereTwice() {
    for command in CommandTable.commands {
      let names = command.allOptions.map(\.name)
      #expect(Set(names).count == names.count, "\(command.name)")
    }
  }
}
