// A thread that runs jobs one after the other: the storage thread and the background thread.

import Transport

/// Runs closures in the order posted. Their results go to the loop's mailbox.
final class JobThread: Sendable {
  private let queue = WorkQueue<@Sendable () -> Void>()
  private let thread: WorkerThread

  /// Throws EAGAIN when the system allows no more threads.
  init(name: String) throws(ErrorNumber) {
    let queue = queue
    thread = try WorkerThread(name: name) {
      var jobs: [@Sendable () -> Void] = []
      while queue.take(into: &jobs) {
        for job in jobs { job() }
      }
    }
  }

  func post(_ job: @escaping @Sendable () -> Void) { queue.post(job) }

  /// Ends the thread once it has run what was posted, without waiting for that.
  func abandon() { queue.close() }

  /// Ends the thread once it has run what was posted, and waits for that.
  func stop() {
    queue.close()
    thread.join()
  }
}
