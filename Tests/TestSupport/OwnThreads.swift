// Tests that compute for seconds, or block. Swift's pool has no more threads than the machine has
// cores: what holds them keeps every other test waiting, whose clients and nodes run out of time
// meanwhile.

import Foundation
import Testing

/// Runs each test of a suite on a thread of its own, as many at once as there are processors. A
/// `.timeLimit` beside it would count the time before the test's turn comes.
public struct OwnThreads: SuiteTrait, TestTrait, TestScoping {
  @TaskLocal private static var hasTurn = false

  public var isRecursive: Bool { true }

  public func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    // A suite within a suite, or a test of its own mark: the thread is there, and a second turn could be
    // what all who have one wait for.
    if Self.hasTurn { return try await function() }
    await Turns.shared.take()
    let result: Result<Void, any Error>
    do {
      try await withTaskExecutorPreference(OwnThread()) {
        try await Self.$hasTurn.withValue(true) { try await function() }
      }
      result = .success(())
    } catch {
      result = .failure(error)
    }
    await Turns.shared.giveBack()
    try result.get()
  }
}

extension Trait where Self == OwnThreads {
  public static var ownThreads: OwnThreads { OwnThreads() }
}

/// One thread, in whose time a task may block.
private final class OwnThread: TaskExecutor {
  private let queue = DispatchQueue(label: "test")

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    queue.async { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
  }
}

/// Who may run now.
private actor Turns {
  static let shared = Turns()

  private var free = ProcessInfo.processInfo.activeProcessorCount
  private var waiting: [CheckedContinuation<Void, Never>] = []

  func take() async {
    if free > 0 {
      free -= 1
    } else {
      await withCheckedContinuation { waiting.append($0) }
    }
  }

  func giveBack() {
    if waiting.isEmpty {
      free += 1
    } else {
      waiting.removeFirst().resume()
    }
  }
}
