// Ctrl-C, SIGTERM and a terminal that closes, for commands that hold something: they end in order,
// handing it back. The second time they end at once.

import Dispatch
import Glibc
import Synchronization

enum Interruption {
  private static let signals = [SIGINT, SIGTERM, SIGHUP]

  /// Runs `body` in a task of its own, which is cancelled by the first of the signals.
  ///
  /// - Parameter atOnce: what has to be done before the process ends at the second one.
  static func cancels<Result: Sendable>(
    atOnce: @escaping @Sendable () -> Void = {},
    _ body: @escaping @Sendable () async throws -> Result
  ) async throws -> Result {
    let task = Task { try await body() }
    let count = Mutex(0)
    let sources = signals.map { number in
      // Else the signal would end the process before anybody is told.
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        let times = count.withLock { count in
          count += 1
          return count
        }
        if times > 1 {
          atOnce()
          exit(128 + number)
        }
        task.cancel()
      }
      source.resume()
      return source
    }
    defer {
      for source in sources { source.cancel() }
      for number in signals { signal(number, SIG_DFL) }
    }
    return try await task.value
  }
}
