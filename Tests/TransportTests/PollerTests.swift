// The poller and its clock, without sockets where possible.

import Base
import Glibc
import Testing

@testable import Transport

@Suite struct PollerTests {
  @Test func `a wait with a timeout ends not before it, with nothing`() throws {
    let poller = try Poller()
    var events = [PollEvent]()
    let before = MonotonicClock.now()
    poller.wait(timeout: Nanoseconds(300_000), into: &events)
    #expect(events.isEmpty)
    #expect(MonotonicClock.now().since(before) >= Nanoseconds(300_000))
  }

  @Test func `a timeout of zero asks without waiting, and old events are dropped`() throws {
    let poller = try Poller()
    let mailbox = try Mailbox<Int>()
    try poller.add(mailbox.descriptor, token: 7, interest: .read)
    var events = [PollEvent]()
    poller.wait(timeout: .zero, into: &events)
    #expect(events.isEmpty)
    mailbox.post(1)
    poller.wait(timeout: nil, into: &events)
    #expect(events.map(\.token) == [7])
    #expect(events[0].isReadable && !events[0].isWritable && !events[0].isBroken)
    poller.remove(mailbox.descriptor)
    poller.wait(timeout: .zero, into: &events)
    #expect(events.isEmpty)
  }

  @Test func `interest and token can be changed`() throws {
    let poller = try Poller()
    let mailbox = try Mailbox<Int>()
    mailbox.post(1)
    try poller.add(mailbox.descriptor, token: 1, interest: [])
    var events = [PollEvent]()
    poller.wait(timeout: .zero, into: &events)
    #expect(events.isEmpty)
    poller.modify(mailbox.descriptor, token: UInt64.max, interest: [.read, .write])
    poller.wait(timeout: nil, into: &events)
    #expect(events.map(\.token) == [UInt64.max])
    #expect(events[0].isReadable && events[0].isWritable)
  }

  @Test func `watching a descriptor that cannot be watched is an error`() throws {
    let poller = try Poller()
    #expect(throws: ErrorNumber(EBADF)) { try poller.add(-1, token: 1, interest: .read) }
  }

  @Test func `milliseconds are rounded up`() {
    #expect(Poller.milliseconds(nil) == -1)
    #expect(Poller.milliseconds(.zero) == 0)
    #expect(Poller.milliseconds(Nanoseconds(1)) == 1)
    #expect(Poller.milliseconds(.milliseconds(1)) == 1)
    #expect(Poller.milliseconds(Nanoseconds(1_000_001)) == 2)
    #expect(Poller.milliseconds(Nanoseconds(.max)) == .max)
  }

  @Test func `the clocks move and tell different times`() {
    let first = MonotonicClock.now()
    #expect(MonotonicClock.now() >= first)
    #expect(WallClock.now() > .seconds(1_500_000_000))
  }
}
