// One value that some thread will give and a task waits for. The first to give it wins: the loop
// with an answer, a timer, or the cancelled task itself.

import Synchronization

final class Promise<Value: Sendable>: Sendable {
  private enum State: Sendable {
    case pending([CheckedContinuation<Value, Never>])
    case kept(Value)
  }

  private let state = Mutex<State>(.pending([]))

  /// Gives the value; false if there was one already.
  @discardableResult
  func keep(_ value: Value) -> Bool {
    let waiting = state.withLock { state -> [CheckedContinuation<Value, Never>]? in
      guard case .pending(let waiting) = state else { return nil }
      state = .kept(value)
      return waiting
    }
    guard let waiting else { return false }
    for continuation in waiting { continuation.resume(returning: value) }
    return true
  }

  var isKept: Bool {
    state.withLock { state in
      if case .kept = state { true } else { false }
    }
  }

  /// Waits for the value, which is `late` if none was given within `limit`: for a wait that begins
  /// when the loop's own time for the matter may be up already.
  func value(whenCancelled cancelled: Value, within limit: Duration, late: Value) async -> Value {
    if isKept { return await value(whenCancelled: cancelled) }
    let timer = Task {
      do {
        try await Task.sleep(for: limit)
        keep(late)
      } catch {
        // Cancelled: the value came.
        return
      }
    }
    defer { timer.cancel() }
    return await value(whenCancelled: cancelled)
  }

  /// Waits for the value. If the task is cancelled first, the value is `cancelled`, for everybody.
  func value(whenCancelled cancelled: Value) async -> Value {
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let kept = state.withLock { state -> Value? in
          switch state {
          case .kept(let value): return value
          case .pending(let waiting):
            state = .pending(waiting + [continuation])
            return nil
          }
        }
        if let kept { continuation.resume(returning: kept) }
      }
    } onCancel: {
      keep(cancelled)
    }
  }
}
