// The replica's small parts: cache, clock, hash history.

import Base
import Consensus
import Testing

@testable import Node

@Suite struct EntryCacheTests {
  func entry(_ index: UInt64, bytes: Int = 10, term: UInt64 = 1) -> Entry {
    Entry(
      position: LogPosition(term: Term(term), index: LogIndex(index)), kind: .commands,
      payload: [UInt8](repeating: UInt8(index % 251), count: bytes))
  }

  @Test("Trimming keeps to the bound but never drops what is still needed")
  func trim() {
    var cache = EntryCache(byteCountMax: 1_000)
    for index in 5...24 { cache.append(entry(UInt64(index), bytes: 100)) }
    cache.trim(needed: LogIndex(7))
    #expect(cache.firstIndex == LogIndex(7))
    cache.trim(needed: LogIndex(100))
    #expect(cache.byteCount <= 1_000)
    #expect(cache.lastIndex == LogIndex(24))
    #expect(cache.entry(LogIndex(24))?.payload.count == 100)
    #expect(cache.entry(LogIndex(4)) == nil)
    #expect(cache.entry(LogIndex(25)) == nil)
  }

  @Test("An entry in place of another drops those behind it")
  func replace() {
    var cache = EntryCache(byteCountMax: 1_000)
    for index in 1...5 { cache.append(entry(UInt64(index))) }
    cache.append(entry(3, term: 2))
    #expect(cache.lastIndex == LogIndex(3))
    #expect(cache.entry(LogIndex(3))?.header.term == Term(2))
    cache.truncate(from: LogIndex(1))
    #expect(cache.firstIndex == nil)
    #expect(cache.byteCount == 0)
  }

  @Test("A gap empties the cache: what it holds is always consecutive")
  func gap() {
    var cache = EntryCache(byteCountMax: 1_000)
    cache.append(entry(1))
    cache.append(entry(7))
    #expect(cache.firstIndex == LogIndex(7))
    #expect(cache.entry(LogIndex(1)) == nil)
  }
}

@Suite struct MachineClockTests {
  @Test("The clock goes on monotonically from the newest stamp and never back")
  func clock() {
    var clock = MachineClock(start: MachineTime(1_000), now: MonotonicTime(50))
    #expect(clock.reading(at: MonotonicTime(60)) == MachineTime(1_010))
    clock.observe(MachineTime(900), at: MonotonicTime(60))
    #expect(clock.reading(at: MonotonicTime(60)) == MachineTime(1_010))
    clock.observe(MachineTime(5_000), at: MonotonicTime(70))
    #expect(clock.reading(at: MonotonicTime(75)) == MachineTime(5_005))
    #expect(
      clock.monotonicTime(of: MachineTime(5_105), now: MonotonicTime(75)) == MonotonicTime(175))
    #expect(clock.monotonicTime(of: .never, now: MonotonicTime(75)) == .never)
  }

  /// Found by `skein chaos run leader-kill`: a follower that had heard the first leader sooner than
  /// the second one had was ahead of that one, and led next: delayed messages came early.
  @Test("Whoever leads next is never ahead of who led before (G9)")
  func newLeader() {
    var clock = MachineClock(start: MachineTime(1_000), now: MonotonicTime(0))
    clock.observe(MachineTime(5_000), of: Term(1), at: MonotonicTime(10))
    clock.observe(MachineTime(5_000), of: Term(1), at: MonotonicTime(30))
    #expect(clock.reading(at: MonotonicTime(30)) == MachineTime(5_020))
    // The second leader's clock is 15 behind what this node had made out of the first one's.
    clock.observe(MachineTime(5_015), of: Term(2), at: MonotonicTime(40))
    #expect(clock.reading(at: MonotonicTime(40)) == MachineTime(5_015))
    clock.observe(MachineTime(5_020), of: Term(2), at: MonotonicTime(50))
    #expect(clock.reading(at: MonotonicTime(50)) == MachineTime(5_020))
  }
}

@Suite struct FollowerClockTests {
  @Test("A follower whose clock runs fast does not gain on the leader's (G9, seed 1)")
  func follows() {
    var clock = MachineClock(start: .zero, now: MonotonicTime(0))
    // One part in ten fast, for a hundred rounds.
    for round in 1...100 as ClosedRange<UInt64> {
      clock.observe(
        MachineTime(round * 1_000), of: Term(1), at: MonotonicTime(round * 1_100))
    }
    #expect(clock.reading(at: MonotonicTime(110_000)) == MachineTime(100_000))
    #expect(clock.reading(at: MonotonicTime(110_050)) == MachineTime(100_050))
    // What is older than the newest stamp says nothing.
    clock.observe(MachineTime(99_000), of: Term(1), at: MonotonicTime(110_060))
    #expect(clock.reading(at: MonotonicTime(110_060)) == MachineTime(100_060))
  }
}

@Suite struct StateHashTests {
  @Test("Hashes are found at agreed positions, the oldest forgotten (G14)")
  func history() {
    var history = StateHashHistory()
    for step in 1...2_000 as ClosedRange<UInt64> { history.record(step, at: LogIndex(step * 64)) }
    #expect(history.hash(at: LogIndex(2_000 * 64)) == 2_000)
    #expect(history.hash(at: LogIndex(977 * 64)) == 977)
    #expect(history.hash(at: LogIndex(976 * 64)) == nil)
    #expect(history.hash(at: LogIndex(64 * 2_001)) == nil)
    #expect(history.hash(at: LogIndex(64 * 1_999 + 1)) == nil)
  }

  @Test("The odd one out is told from a leader that is itself the odd one (G14)")
  func judgement() {
    let two = NodeID(2)
    let three = NodeID(3)
    #expect(judgeHashes(own: 1, reports: [(two, 1), (three, 1)], quorum: 2) == .agree)
    #expect(judgeHashes(own: 1, reports: [(two, 1), (three, 9)], quorum: 2) == .odd(three))
    #expect(judgeHashes(own: 1, reports: [(two, 9), (three, 9)], quorum: 2) == .leaderIsOdd)
    #expect(judgeHashes(own: 1, reports: [(three, 9)], quorum: 2) == .undecided)
    #expect(judgeHashes(own: 1, reports: [(two, 8), (three, 9)], quorum: 2) == .undecided)
  }
}
