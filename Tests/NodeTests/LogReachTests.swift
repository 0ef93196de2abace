import Base
import Testing

@testable import Consensus
@testable import Node

@Suite struct LogReachTests {
  /// A snapshot at each hundredth entry, of ten bytes each.
  private struct Log {
    var reach = LogReach(from: .zero)
    var last: UInt64 = 0

    mutating func snapshot(
      _ members: [(UInt64, isFed: Bool)], absent: UInt64 = 0, fed: UInt64 = 0, free: UInt64 = .max
    ) -> LogIndex {
      for _ in 0..<100 { reach.applied(10) }
      last += 100
      reach.snapshotBegins(at: LogIndex(last))
      return reach.snapshotSaved(
        members: members.map { MemberReach(index: LogIndex($0.0), isFed: $0.isFed) },
        absentBytes: absent, fedBytes: fed, freeBytes: free)
    }
  }

  @Test("Without others, the log is kept since the snapshot before")
  func alone() {
    var log = Log()
    let ends = (1...4).map { _ in log.snapshot([]) }
    #expect(ends == [0, 100, 200, 300].map { LogIndex($0) })
    #expect(log.reach.formerSnapshot == LogIndex(300))
  }

  @Test("It is kept for the one that needs most of those that may be waited for")
  func members() {
    var log = Log()
    let members: [(UInt64, isFed: Bool)] = [(150, false), (250, true), (10, true), (450, true)]
    for _ in 1...3 { _ = log.snapshot(members, absent: 5_000, fed: 5_000) }
    #expect(log.snapshot(members, absent: 5_000, fed: 5_000) == .zero)
    #expect(log.snapshot(members, absent: 4_000, fed: 4_000) == LogIndex(100))
    #expect(log.snapshot(members, absent: 4_000, fed: 4_000) == LogIndex(200))
    // What was given up once is gone.
    #expect(log.snapshot(members, absent: 50_000, fed: 50_000) == LogIndex(200))
  }

  @Test("Who is away is waited for less long than who is being fed")
  func fed() {
    var log = Log()
    for _ in 1...5 { _ = log.snapshot([(100, true)], absent: 2_000, fed: 50_000) }
    #expect(log.snapshot([(100, true)], absent: 2_000, fed: 50_000) == LogIndex(100))
    #expect(log.snapshot([(100, false)], absent: 2_000, fed: 50_000) == LogIndex(600))
  }

  @Test("No more is kept than the disk has left")
  func free() {
    var log = Log()
    for _ in 1...5 { _ = log.snapshot([(100, true)], fed: 50_000) }
    #expect(log.snapshot([(100, true)], fed: 50_000, free: 5_000) == LogIndex(100))
    #expect(log.snapshot([(100, true)], fed: 50_000, free: 5_000) == LogIndex(600))
  }

  @Test("A snapshot from the leader is where the log begins; one on its way counts no more")
  func installed() {
    var log = Log()
    _ = log.snapshot([])
    log.reach.snapshotBegins(at: LogIndex(150))
    log.reach.reset(to: LogIndex(900))
    let end = log.reach.snapshotSaved(
      members: [], absentBytes: .max, fedBytes: .max, freeBytes: .max)
    #expect(end == LogIndex(900))
    #expect(log.reach.formerSnapshot == .zero)
  }

  @Test("However much the disk would hold, nobody is waited for longer than 256 snapshots")
  func bounded() {
    var log = Log()
    var ends: [LogIndex] = []
    for _ in 1...600 { ends.append(log.snapshot([(0, true)], fed: .max)) }
    #expect(ends[200] == .zero)
    #expect(ends[599] == LogIndex(59_900))
  }
}

@Suite struct FeedPaceTests {
  private static let start = MonotonicTime(10_000_000_000)

  /// Bytes read in pieces of 1 MiB while clients publish `load` bytes each millisecond.
  private func fed(milliseconds: UInt64, load: Int) -> Int {
    var pace = FeedPace(now: Self.start)
    var fed = 0
    for step in 1...milliseconds {
      let now = Self.start + .milliseconds(step)
      if load > 0 { pace.proposed(load, now: now) }
      while pace.nextRead(now: now) <= now, fed < 1 << 40 {
        pace.fed(1 << 20)
        fed += 1 << 20
        if load == 0 { break }
      }
    }
    return fed
  }

  @Test("Under load a member gains a fixed rate on what comes new")
  func gains() {
    for load in [1, 10_000, 300_000] {
      let expected = 2_000 * load + 2 * Int(FeedPace.bytesPerSecond)
      #expect(abs(fed(milliseconds: 2_000, load: load) - expected) <= 1 << 20, "load \(load)")
    }
  }

  @Test("A leader with nothing else to do feeds as fast as it reads")
  func idle() {
    #expect(fed(milliseconds: 2_000, load: 0) >= 1_900 << 20)
  }

  @Test("Who must wait is told until when, and may read then")
  func waits() {
    var pace = FeedPace(now: Self.start)
    var now = Self.start + .milliseconds(1)
    pace.proposed(1, now: now)
    #expect(pace.nextRead(now: now) == now)
    pace.fed(1 << 20)
    let next = pace.nextRead(now: now)
    #expect(next > now && next <= now + .milliseconds(20))
    now = next
    pace.proposed(0, now: now)
    #expect(pace.nextRead(now: now) == now)
    // What is saved up while nobody reads is bounded.
    now = now + .seconds(100)
    for _ in 0..<100 { pace.proposed(1 << 20, now: now) }
    var pieces = 0
    while pace.nextRead(now: now) <= now {
      pace.fed(1 << 20)
      pieces += 1
    }
    #expect(pieces == 4)
  }
}
