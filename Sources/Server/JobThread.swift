// A thread that runs jobs one after the other: the storage thread and the background thread.

import CLinux
import Transport

/// Runs closures in the order posted. Their results go to the loop's mailbox.
final class JobThread: Sendable {
  private let queue = WorkQueue<@Sendable () -> Void>()
  private let thread: WorkerThread

  /// - Parameter isPatient: what others of this machine do goes first, as far as they need it.
  ///
  /// Throws EAGAIN when the system allows no more threads.
  init(name: String, isPatient: Bool = false) throws(ErrorNumber) {
    let queue = queue
    thread = try WorkerThread(name: name) {
      if isPatient { skein_lower_thread_priority(Self.patientNice) }
      var jobs: [@Sendable () -> Void] = []
      while queue.take(into: &jobs) {
        for job in jobs { job() }
      }
    }
  }

  /// A quarter of a processor that another thread wants too.
  private static let patientNice: Int32 = 5

  func post(_ job: @escaping @Sendable () -> Void) { queue.post(job) }

  /// Ends the thread once it has run what was posted, without waiting for that.
  func abandon() { queue.close() }

  /// Ends the thread once it has run what was posted, and waits for that.
  func stop() {
    queue.close()
    thread.join()
  }
}
