import Base
import Testing

@testable import Consensus
@testable import Node

@Suite struct LogReachTests {
  /// A snapshot at each hundredth entry: 12,800 bytes.
  private struct Log {
    var reach = LogReach(from: .zero)
    var last: UInt64 = 0

    mutating func snapshot(
      _ members: [(UInt64, isFed: Bool)], absent: UInt64 = 0, fed: UInt64 = 0, free: UInt64 = .max
    ) -> LogIndex {
      for _ in 0..<100 { reach.applied(0) }
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
    for _ in 1...3 { _ = log.snapshot(members, absent: 64_000, fed: 64_000) }
    #expect(log.snapshot(members, absent: 64_000, fed: 64_000) == .zero)
    #expect(log.snapshot(members, absent: 51_200, fed: 51_200) == LogIndex(100))
    #expect(log.snapshot(members, absent: 51_200, fed: 51_200) == LogIndex(200))
    // What was given up once is gone.
    #expect(log.snapshot(members, absent: 640_000, fed: 640_000) == LogIndex(200))
  }

  @Test("Who is away is waited for less long than who is being fed")
  func fed() {
    var log = Log()
    for _ in 1...5 { _ = log.snapshot([(100, true)], absent: 25_600, fed: 640_000) }
    #expect(log.snapshot([(100, true)], absent: 25_600, fed: 640_000) == LogIndex(100))
    #expect(log.snapshot([(100, false)], absent: 25_600, fed: 640_000) == LogIndex(600))
  }

  @Test("No more is kept than the disk has left")
  func free() {
    var log = Log()
    for _ in 1...5 { _ = log.snapshot([(100, true)], fed: 640_000) }
    #expect(log.snapshot([(100, true)], fed: 640_000, free: 64_000) == LogIndex(100))
    #expect(log.snapshot([(100, true)], fed: 640_000, free: 64_000) == LogIndex(600))
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
  private static let rate: UInt64 = 128 << 20

  /// A member that is fed in pieces of 1 MiB, each read taking a millisecond.
  private struct Feeding {
    var now = FeedPaceTests.start
    var growth = LogGrowth(now: FeedPaceTests.start)
    var pace: FeedPace
    var fed = 0

    init() {
      var configuration = ReplicaConfiguration(
        consensus: ConsensusConfiguration(id: NodeID(1), seed: 1), cluster: "test")
      configuration.feedBytesPerSecond = FeedPaceTests.rate
      pace = FeedPace(growth, configuration, now: now)
    }

    mutating func go(milliseconds: UInt64, load: Int) {
      for _ in 0..<milliseconds {
        now = now + .milliseconds(1)
        if load > 0 { growth.added(load, now: now) }
        if pace.nextRead(growth, now: now) <= now {
          pace.fed(1 << 20)
          fed += 1 << 20
        }
      }
    }
  }

  @Test("While the log grows a member gains a fixed rate on it, however many are behind")
  func gains() {
    for load in [1, 10_000, 300_000] {
      var feeding = Feeding()
      feeding.go(milliseconds: 2_000, load: load)
      let expected = 2_000 * load + 2 * Int(Self.rate)
      #expect(abs(feeding.fed - expected) <= 1 << 20, "load \(load)")
    }
  }

  @Test("While the log does not grow a member is fed as it is read, and owes nothing for it")
  func idle() {
    var feeding = Feeding()
    feeding.go(milliseconds: 5_000, load: 0)
    #expect(feeding.fed >= 4_970 << 20)
    let before = feeding.fed
    feeding.go(milliseconds: 1_000, load: 1_000)
    #expect(feeding.fed - before >= Int(Self.rate) * 9 / 10)
  }

  @Test("What is owed and what is saved up are bounded")
  func bounded() {
    var feeding = Feeding()
    feeding.growth.added(1, now: feeding.now)
    feeding.pace.fed(1 << 30)
    let next = feeding.pace.nextRead(feeding.growth, now: feeding.now)
    #expect(next > feeding.now && next <= feeding.now + .milliseconds(20))
    // It pays as time goes by: a 32nd of a second.
    feeding.go(milliseconds: 40, load: 1)
    #expect(feeding.fed > 0)
    feeding.now = feeding.now + .seconds(100)
    for _ in 0..<100 { feeding.growth.added(1 << 20, now: feeding.now) }
    var pieces = 0
    while feeding.pace.nextRead(feeding.growth, now: feeding.now) <= feeding.now {
      feeding.pace.fed(1 << 20)
      pieces += 1
    }
    #expect(pieces == 16)
  }

  @Test("A read that failed is not tried again at once")
  func failed() {
    var feeding = Feeding()
    feeding.go(milliseconds: 100, load: 0)
    feeding.pace.failed(now: feeding.now)
    #expect(feeding.pace.nextRead(feeding.growth, now: feeding.now) == feeding.now + .seconds(1))
    let later = feeding.now + .seconds(1)
    #expect(feeding.pace.nextRead(feeding.growth, now: later) == later)
  }
}
