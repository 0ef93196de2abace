// The lock under the mailbox and the work queue: a pthread mutex, because it is faster than
// Synchronization.Mutex on Linux, has a condition to sleep on, and the thread sanitizer knows it
// (swift test --sanitize=thread --filter TransportTests).

import Glibc

/// A mutex and a condition at addresses that do not move, which pthreads want.
@usableFromInline final class Lock: @unchecked Sendable {
  // SAFETY: both point to memory of this object's life; pthreads make them safe to share.
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  @usableFromInline init() {
    // Neither can fail with default attributes on Linux.
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(condition, nil)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  @inlinable func withLock<Result>(_ body: () -> Result) -> Result {
    lock()
    defer { unlock() }
    return body()
  }

  @usableFromInline func lock() { pthread_mutex_lock(mutex) }
  @usableFromInline func unlock() { pthread_mutex_unlock(mutex) }
  /// Unlocks, waits to be woken (or not: ask again) and locks.
  @usableFromInline func sleep() { pthread_cond_wait(condition, mutex) }
  @usableFromInline func wake() { pthread_cond_signal(condition) }
}
