// How long a silent node is waited for.

import Base
import Testing

@testable import SkeinClient

@Suite struct NodeSilenceTests {
  private static let second: UInt64 = 1_000_000_000

  private func at(_ milliseconds: UInt64) -> MonotonicTime {
    MonotonicTime(rawValue: Self.second + milliseconds * 1_000_000)
  }

  private func silence(waiting: Bool) -> NodeSilence {
    var silence = NodeSilence(pingInterval: Nanoseconds(rawValue: Self.second))
    silence.note(isWaiting: waiting, now: at(0))
    return silence
  }

  private func giveUp(_ silence: NodeSilence) -> MonotonicTime {
    silence.due(lastRead: at(0), lastSend: at(0)).giveUp
  }

  @Test func `Whoever waits for an answer asks and gives up four times sooner`() {
    let idle = silence(waiting: false).due(lastRead: at(0), lastSend: at(0))
    #expect(idle == (at(1000), at(3000)))
    let waiting = silence(waiting: true).due(lastRead: at(0), lastSend: at(0))
    #expect(waiting == (at(250), at(750)))
  }

  @Test func `While bytes cannot be sent the patience is the long one`() {
    var silence = silence(waiting: true)
    silence.noteFlush(before: 16 << 20, after: 12 << 20, now: at(0))
    #expect(giveUp(silence) == at(3000))
    silence.noteFlush(before: 12 << 20, after: 0, now: at(10))
    #expect(giveUp(silence) == at(760))
  }

  @Test func `A frame that takes long to send is a word of the node with every piece`() {
    var silence = silence(waiting: true)
    var unsent = 16 << 20
    for step in 0..<16 as Range<UInt64> {
      #expect(at(step * 2900) < giveUp(silence))
      silence.noteFlush(before: unsent, after: unsent - 1 << 20, now: at(step * 2900))
      unsent -= 1 << 20
    }
    #expect(unsent == 0 && giveUp(silence) == at(15 * 2900 + 750))
  }

  @Test func `What a socket takes at once is no word of a node that is gone`() {
    var silence = silence(waiting: true)
    for time in stride(from: 0, to: 700, by: 50) as StrideTo<Int> {
      silence.noteFlush(before: 1000, after: 0, now: at(UInt64(time)))
      silence.noteUnacknowledged(0, lastRead: at(0), now: at(UInt64(time)))
    }
    #expect(giveUp(silence) == at(750))
  }

  @Test func `The end of a large frame is waited for while the node's kernel takes it`() {
    var silence = silence(waiting: true)
    silence.noteFlush(before: 4 << 20, after: 0, now: at(0))
    silence.noteUnacknowledged(3 << 20, lastRead: at(0), now: at(250))
    #expect(giveUp(silence) == at(750))
    silence.noteUnacknowledged(2 << 20, lastRead: at(0), now: at(750))
    #expect(giveUp(silence) == at(1500))
    // Cut off: nothing more is acknowledged.
    silence.noteUnacknowledged(2 << 20, lastRead: at(0), now: at(1000))
    #expect(giveUp(silence) == at(1500))
  }

  @Test func `What was acknowledged before the silence does not prolong it`() {
    var silence = silence(waiting: true)
    silence.noteFlush(before: 4 << 20, after: 0, now: at(0))
    silence.noteUnacknowledged(3 << 20, lastRead: at(0), now: at(100))
    silence.noteUnacknowledged(0, lastRead: at(5000), now: at(5250))
    #expect(silence.due(lastRead: at(5000), lastSend: at(0)).giveUp == at(5750))
  }

  @Test func `A node that does not read but is there has the long patience, and no second one`() {
    var silence = silence(waiting: true)
    silence.noteFlush(before: 1 << 20, after: 0, now: at(0))
    silence.noteUnacknowledged(1000, isHeldBack: true, lastRead: at(0), now: at(250))
    #expect(giveUp(silence) == at(3000))
    silence.noteUnacknowledged(1000, isHeldBack: true, lastRead: at(0), now: at(2000))
    #expect(giveUp(silence) == at(3000))
    // It reads again.
    silence.noteUnacknowledged(0, lastRead: at(0), now: at(2500))
    #expect(giveUp(silence) == at(3250))
    // Of the next silence this says nothing.
    silence.noteUnacknowledged(1000, isHeldBack: true, lastRead: at(0), now: at(2600))
    #expect(silence.due(lastRead: at(2700), lastSend: at(0)).giveUp == at(3450))
  }
}
