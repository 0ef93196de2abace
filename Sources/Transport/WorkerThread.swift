// A thread of our own: for a loop, or for a worker that blocks (disk, snapshots).

import CLinux
import Glibc

/// A named thread that runs one closure.
package final class WorkerThread: @unchecked Sendable {
  // SAFETY of the Sendable: `thread` never changes, `isJoined` is the joiner's.
  private let thread: pthread_t
  private var isJoined = false

  /// Starts a thread that runs `body`, with every signal blocked so that signals reach the thread
  /// that asked for them. `name` is cut to 15 bytes.
  ///
  /// Throws EAGAIN when the system allows no more threads.
  package init(name: String, _ body: @escaping @Sendable () -> Void) throws(ErrorNumber) {
    let start = Unmanaged.passRetained(Start(name: String(name.utf8.prefix(15)) ?? "", body))
    var thread = pthread_t()
    let result = pthread_create(&thread, nil, runThread, start.toOpaque())
    guard result == 0 else {
      start.release()
      throw ErrorNumber(result)
    }
    self.thread = thread
  }

  deinit {
    if !isJoined { pthread_detach(thread) }
  }

  /// Waits until the closure has returned. One thread joins; it may do so again.
  package func join() {
    if isJoined { return }
    isJoined = true
    pthread_join(thread, nil)
  }
}

/// What a new thread is to do.
private final class Start: Sendable {
  let name: String
  let body: @Sendable () -> Void

  init(name: String, _ body: @escaping @Sendable () -> Void) {
    self.name = name
    self.body = body
  }
}

private func runThread(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
  guard let argument else { return nil }
  blockSignals()
  // SAFETY: `WorkerThread.init` passed this object, retained for us.
  let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
  // A name that is not taken only makes the thread harder to find in a debugger.
  _ = skein_name_thread(start.name)
  start.body()
  return nil
}

/// All but those that tell of a crash of this very thread, which a crash reporter wants to see.
private func blockSignals() {
  var set = sigset_t()
  sigfillset(&set)
  for signal in [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT] { sigdelset(&set, signal) }
  pthread_sigmask(SIG_BLOCK, &set, nil)
}
