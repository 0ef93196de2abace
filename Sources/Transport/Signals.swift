// Signals as events: the loop reads them from a descriptor instead of being interrupted.

import Base
import CLinux
import Glibc

package enum Signals {
  /// Lets writing to a connection or pipe whose reader is gone fail with EPIPE instead of ending
  /// the process. Connections do not need it; standard output does.
  package static func ignoreSIGPIPE() {
    signal(SIGPIPE, SIG_IGN)
  }

  /// This process is killed when the thread ends that started it, also while it is stopped.
  package static func endWithParent() { skein_end_with_parent() }
}

/// Turns some signals into events of a poller (signalfd).
///
/// They are blocked in the thread that makes this, and in threads started by it later; make it
/// before any other thread exists, else one of those may be interrupted. Children inherit the
/// blocked set. Released on the same thread, it puts the set back.
package final class SignalSource {
  /// Readable while a signal waits.
  package let descriptor: Int32
  private var maskBefore = sigset_t()

  /// Throws EMFILE or ENFILE when there is no descriptor left.
  package init(_ signals: [Int32]) throws(ErrorNumber) {
    var set = sigset_t()
    sigemptyset(&set)
    for signal in signals { sigaddset(&set, signal) }
    let descriptor = signalfd(-1, &set, Int32(SFD_CLOEXEC | SFD_NONBLOCK))
    guard descriptor >= 0 else { throw .current }
    self.descriptor = descriptor
    let result = pthread_sigmask(SIG_BLOCK, &set, &maskBefore)
    invariant(result == 0, "cannot block signals \(signals): \(ErrorNumber(result))")
  }

  deinit {
    closeDescriptor(descriptor)
    pthread_sigmask(SIG_SETMASK, &maskBefore, nil)
  }

  /// The next signal that arrived, such as `SIGTERM`; nil if none waits.
  package func next() -> Int32? {
    var information = signalfd_siginfo()
    var count: Int
    let size = MemoryLayout<signalfd_siginfo>.size
    repeat { count = read(descriptor, &information, size) } while count < 0 && errno == EINTR
    guard count == size else {
      invariant(count < 0 && errno == EAGAIN, "cannot read signals: \(ErrorNumber.current)")
      return nil
    }
    return Int32(information.ssi_signo)
  }
}
