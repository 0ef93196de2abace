// An eventfd: a descriptor that one thread makes readable to wake another's poller.

import Base
import CLinux
import Glibc

@usableFromInline struct EventDescriptor: ~Copyable, Sendable {
  let descriptor: Int32

  /// Throws EMFILE or ENFILE when there is no descriptor left.
  init() throws(ErrorNumber) {
    descriptor = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
    guard descriptor >= 0 else { throw .current }
  }

  deinit { closeDescriptor(descriptor) }

  /// Makes it readable.
  func signal() {
    var result: Int32
    repeat { result = eventfd_write(descriptor, 1) } while result < 0 && errno == EINTR
    invariant(result == 0, "cannot signal a mailbox: \(ErrorNumber.current)")
  }

  /// Makes it unreadable.
  @usableFromInline func clear() {
    var value: eventfd_t = 0
    var result: Int32
    repeat { result = eventfd_read(descriptor, &value) } while result < 0 && errno == EINTR
    invariant(result == 0 || errno == EAGAIN, "cannot clear a mailbox: \(ErrorNumber.current)")
  }
}
