// Jobs for a thread that has nothing else to wait for: it sleeps on a condition instead of a
// poller. Whatever arrives while it works is its next batch.

import Base

/// A queue with many senders and one worker.
@usableFromInline package final class WorkQueue<Job: Sendable>: @unchecked Sendable {
  // SAFETY of the Sendable: everything mutable is touched under `lock` only.
  @usableFromInline let lock: Lock
  @usableFromInline var jobs: [Job] = []
  @usableFromInline var workerSleeps = false
  @usableFromInline var isClosed = false

  package init() { lock = Lock() }

  /// Adds a job; wakes the worker only if it sleeps. Posting to a closed queue is a bug.
  @inlinable package func post(_ job: Job) {
    lock.lock()
    invariant(!isClosed, "a job for a worker that was told to end")
    jobs.append(job)
    let wakes = workerSleeps
    workerSleeps = false
    lock.unlock()
    if wakes { lock.wake() }
  }

  /// Adds jobs behind one another.
  @inlinable package func post(contentsOf more: [Job]) {
    if more.isEmpty { return }
    lock.lock()
    invariant(!isClosed, "jobs for a worker that was told to end")
    jobs.append(contentsOf: more)
    let wakes = workerSleeps
    workerSleeps = false
    lock.unlock()
    if wakes { lock.wake() }
  }

  /// Tells the worker to end once it has taken what waits. May be called again.
  package func close() {
    lock.lock()
    isClosed = true
    workerSleeps = false
    lock.unlock()
    lock.wake()
  }

  /// Replaces `batch` by all jobs that wait, in order; sleeps while there are none. False, with an
  /// empty batch, when the queue is closed and nothing is left.
  @inlinable package func take(into batch: inout [Job]) -> Bool {
    batch.removeAll(keepingCapacity: true)
    lock.lock()
    while jobs.isEmpty && !isClosed {
      workerSleeps = true
      lock.sleep()
    }
    workerSleeps = false
    swap(&jobs, &batch)
    lock.unlock()
    return !batch.isEmpty
  }

  /// All jobs that wait, in order; sleeps while there are none. Nil when the queue is closed and
  /// nothing is left.
  package func take() -> [Job]? {
    var batch: [Job] = []
    return take(into: &batch) ? batch : nil
  }

  /// Jobs that wait.
  package var count: Int {
    lock.lock()
    defer { lock.unlock() }
    return jobs.count
  }

  /// Whether the worker waits for a job (or was never started and then this is false).
  package var isWorkerAsleep: Bool {
    lock.lock()
    defer { lock.unlock() }
    return workerSleeps
  }
}
