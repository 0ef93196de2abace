// Waiting for many descriptors at once (epoll, level-triggered). The owner writes the loop:
//
//     while running {
//       poller.wait(timeout: untilNextTimer, into: &events)
//       let now = MonotonicClock.now()
//       for event in events { … read, write, accept by event.token … }
//       … timers, decisions, then flush what the turn produced …
//     }
//
// Level-triggered: an event comes back every turn until what it says was dealt with or the
// interest was dropped. So a paused reader costs nothing and no event can be missed.

import Base
import CLinux
import Glibc

/// What an owner wants to hear about a descriptor. A broken descriptor is always heard of.
package struct Interest: OptionSet, Hashable, Sendable {
  package let rawValue: UInt8
  package init(rawValue: UInt8) { self.rawValue = rawValue }

  package static let read = Interest(rawValue: 1)
  package static let write = Interest(rawValue: 2)

  fileprivate var epollEvents: UInt32 {
    (contains(.read) ? EPOLLIN.rawValue : 0) | (contains(.write) ? EPOLLOUT.rawValue : 0)
  }
}

/// One descriptor that is ready.
package struct PollEvent: Hashable, Sendable {
  /// What the owner gave when it added the descriptor. A descriptor that was closed earlier in the
  /// same turn may still have an event there, so never use a token a second time.
  package let token: UInt64
  /// There are bytes, an end of stream, an error to read, or a connection to accept.
  package let isReadable: Bool
  /// There is room to write, or an outgoing connection was made or refused.
  package let isWritable: Bool
  /// Reset, refused or closed on both sides. Without `isReadable` and `isWritable` nothing more
  /// can be learned from the descriptor: close it, else the event comes back every turn.
  package let isBroken: Bool

  fileprivate init(_ event: epoll_event) {
    token = event.data.u64
    isReadable = event.events & EPOLLIN.rawValue != 0
    isWritable = event.events & EPOLLOUT.rawValue != 0
    isBroken = event.events & (EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0
  }
}

/// An epoll descriptor. Belongs to one thread.
package final class Poller {
  /// Events taken out of the kernel in one call; what is beyond comes in the next turn.
  package static let eventsMax = 512

  private let descriptor: Int32
  private let events: UnsafeMutableBufferPointer<epoll_event>
  /// False once the kernel has turned out not to know epoll_pwait2.
  private var waitsToTheNanosecond = true

  /// Throws EMFILE or ENFILE when there is no descriptor left.
  package init() throws(ErrorNumber) {
    descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard descriptor >= 0 else { throw .current }
    events = .allocate(capacity: Poller.eventsMax)
    events.initialize(repeating: epoll_event())
  }

  deinit {
    closeDescriptor(descriptor)
    events.deallocate()
  }

  /// Watches `descriptor`, until it is removed or closed.
  ///
  /// Throws ENOSPC or ENOMEM when the kernel has no room to watch another one.
  package func add(_ descriptor: Int32, token: UInt64, interest: Interest) throws(ErrorNumber) {
    let result = control(EPOLL_CTL_ADD, descriptor, token: token, interest: interest)
    if result < 0 { throw .current }
  }

  /// Replaces token and interest of a descriptor that was added before.
  package func modify(_ descriptor: Int32, token: UInt64, interest: Interest) {
    let result = control(EPOLL_CTL_MOD, descriptor, token: token, interest: interest)
    invariant(result == 0, "cannot watch descriptor \(descriptor): \(ErrorNumber.current)")
  }

  /// Stops watching. Closing a descriptor does the same.
  package func remove(_ descriptor: Int32) {
    let result = control(EPOLL_CTL_DEL, descriptor, token: 0, interest: [])
    invariant(result == 0, "cannot unwatch descriptor \(descriptor): \(ErrorNumber.current)")
  }

  /// Waits until something is ready or `timeout` has passed (nil: without end), and replaces
  /// `ready` by what is ready. May come back early with nothing when a signal arrived.
  package func wait(timeout: Nanoseconds?, into ready: inout [PollEvent]) {
    ready.removeAll(keepingCapacity: true)
    let count = waitInKernel(timeout)
    guard count >= 0 else {
      invariant(errno == EINTR, "cannot wait for events: \(ErrorNumber.current)")
      return
    }
    for index in 0..<Int(count) { ready.append(PollEvent(events[index])) }
  }

  private func waitInKernel(_ timeout: Nanoseconds?) -> Int32 {
    if waitsToTheNanosecond {
      let count = waitToTheNanosecond(timeout)
      // A sandbox that does not know the call answers EPERM instead of ENOSYS.
      if count >= 0 || (errno != ENOSYS && errno != EPERM) { return count }
      waitsToTheNanosecond = false
    }
    return epoll_wait(
      descriptor, events.baseAddress, Int32(events.count), Poller.milliseconds(timeout))
  }

  private func waitToTheNanosecond(_ timeout: Nanoseconds?) -> Int32 {
    guard let timeout else {
      return skein_epoll_wait(descriptor, events.baseAddress, Int32(events.count), nil)
    }
    let seconds = min(timeout.rawValue / 1_000_000_000, UInt64(Int32.max))
    var time = timespec(
      tv_sec: Int(seconds), tv_nsec: Int(timeout.rawValue % 1_000_000_000))
    return skein_epoll_wait(descriptor, events.baseAddress, Int32(events.count), &time)
  }

  /// For epoll_wait: rounded up, since a timer that is not yet due would make the owner spin.
  static func milliseconds(_ timeout: Nanoseconds?) -> Int32 {
    guard let timeout else { return -1 }
    let (whole, rest) = timeout.rawValue.quotientAndRemainder(dividingBy: 1_000_000)
    return Int32(min(whole + (rest > 0 ? 1 : 0), UInt64(Int32.max)))
  }

  private func control(
    _ operation: Int32, _ watched: Int32, token: UInt64, interest: Interest
  ) -> Int32 {
    var event = epoll_event()
    event.events = interest.epollEvents
    event.data.u64 = token
    return epoll_ctl(descriptor, operation, watched, &event)
  }
}
