// Where the process begins: finds the command, runs it, turns what went wrong into a message on
// standard error and an exit code.

import Dispatch
import Glibc
import Transport

@main struct Skein {
  static func main() {
    // Writing to a pipe whose reader left fails instead of killing us, so that a consumer can hand
    // back what it holds.
    Signals.ignoreSIGPIPE()
    exit(run(Array(CommandLine.arguments.dropFirst())).rawValue)
  }

  static func run(_ words: [String]) -> ExitCode {
    do {
      switch try CommandTable.call(words) {
      case .help(let text):
        try StandardOutput.write(text)
        return .fine
      case .run(let command, let arguments):
        switch command.run {
        case .blocking(let body): return try body(arguments)
        case .asynchronous(let body): return wait { try await body(arguments) }
        }
      }
    } catch {
      return report(error)
    }
  }

  /// Runs `body` on the concurrency pool while the main thread sleeps.
  private static func wait(_ body: @escaping @Sendable () async throws -> ExitCode) -> ExitCode {
    let finished = DispatchSemaphore(value: 0)
    let result = OneResult()
    Task {
      do {
        result.code = try await body()
      } catch {
        result.code = report(error)
      }
      finished.signal()
    }
    finished.wait()
    return result.code
  }

  /// Written by the task before it signals, read by the main thread after: never at once.
  private final class OneResult: @unchecked Sendable {
    var code: ExitCode = .failed
  }

  private static func report(_ error: any Error) -> ExitCode {
    switch error {
    case let error as UsageError:
      let words = error.command.isEmpty ? "skein --help" : "skein \(error.command) --help"
      StandardError.write("skein: \(error.message)\nskein: try \(words)\n")
      return .usage
    case let error as Failure:
      StandardError.write("skein: \(error.message)\n")
      return .failed
    case is StandardOutput.Closed:
      // The reader has seen enough (`| head`).
      return .fine
    default:
      StandardError.write("skein: \(error)\n")
      return .failed
    }
  }
}
