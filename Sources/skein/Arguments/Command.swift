// What the command line understands, as data: the commands, their operands and options. The parser
// (Arguments.swift), the help (Help.swift) and a test of docs/cli.md all go by it.

/// One command such as `queue declare`.
struct Command: Sendable {
  /// The words that call it.
  let path: [String]
  /// One line, for the list of commands.
  let summary: String
  var operands: [Operand] = []
  var options: [Option] = []
  /// Further help: paragraphs, already broken into lines.
  var details: String = ""
  let run: Action

  enum Action: Sendable {
    /// Runs on the main thread; no other has been started.
    case blocking(@Sendable (Arguments) throws -> ExitCode)
    case asynchronous(@Sendable (Arguments) async throws -> ExitCode)
  }

  var name: String { path.joined(separator: " ") }

  /// The options of this command and those of all.
  var allOptions: [Option] { options + [.help] }
}

/// A word that is no option.
struct Operand: Sendable {
  enum Occurrence: Sendable {
    case once, optional, anyNumber
  }

  /// In capitals, as in the help.
  let name: String
  let help: String
  var occurrence: Occurrence = .once
}

/// `--name VALUE` or, without a value, a flag.
struct Option: Sendable {
  let name: String
  /// Stands for the value in the help, nil for a flag.
  var value: String?
  let help: String
  /// May be given several times.
  var repeats = false

  init(_ name: String, _ value: String? = nil, _ help: String, repeats: Bool = false) {
    self.name = name
    self.value = value
    self.help = help
    self.repeats = repeats
  }

  static let help = Option("help", nil, "show this help")
  static let json = Option("json", nil, "write JSON, for programs")
  static let directory = Option("dir", "DIR", "where the local cluster lives (default .skein)")
  static let endpoints = Option(
    "endpoints", "LIST",
    "client addresses of nodes, host:port with commas between (default: SKEIN_ENDPOINTS, else the"
      + " local cluster)")
  static let timeout = Option(
    "timeout", "TIME", "give up after this long without an answer (default 10s)")

  /// What every command that talks to a cluster takes.
  static let connection: [Option] = [.endpoints, .directory, .timeout]
}

/// How the process ends.
enum ExitCode: Int32, Sendable {
  case fine = 0
  case failed = 1
  /// A checker's verdict.
  case violated = 2
  /// A checker cannot tell.
  case unknown = 3
  /// The command line was wrong.
  case usage = 64
}

/// The command line was wrong: exit 64.
struct UsageError: Error, Hashable {
  let message: String
  /// The words to put `--help` behind.
  let command: String

  init(_ message: String, command: String = "") {
    self.message = message
    self.command = command
  }
}

/// Something did not work: exit 1.
struct Failure: Error, Hashable {
  let message: String
  init(_ message: String) { self.message = message }
}
