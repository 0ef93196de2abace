// Checks of the simulator fail when they should, those of clients, disks and whole states: wrong
// histories and broken states are put before them directly. Those of logs and leaders are in
// `ClusterCheckTests.swift`; what has no test of its own, planted bugs try (`Tests/Mutants`).

import Base
import Consensus
import QueueMachine
import TestSupport
import Testing

@testable import LogStore
@testable import Node
@testable import Simulator

/// Sessions end by their timeout alone (G7).
@Suite(.ownThreads) struct SessionWatchTests {
  private let session = SessionID(7)

  private func watch() -> SessionWatch {
    var watch = SessionWatch()
    watch.opened(session, timeout: .seconds(2))
    return watch
  }

  @Test func oneThatWasAttachedUntilNowMayNotBeOver() {
    var watch = watch()
    let fault1 = watch.look(at: MachineTime(10_000_000_000)) { _ in .attached }
    #expect(fault1 == nil)
    let fault2 = watch.look(at: MachineTime(11_999_999_999)) { _ in .gone }
    #expect(fault2 != nil)
    #expect(watch.isOver(session))
  }

  @Test func oneThatStayedAwayIsOver() {
    var watch = watch()
    let fault3 = watch.look(at: MachineTime(10_000_000_000)) { _ in .attached }
    #expect(fault3 == nil)
    let fault4 = watch.look(at: MachineTime(11_000_000_000)) { _ in .detached }
    #expect(fault4 == nil)
    #expect(!watch.isOver(session))
    let fault5 = watch.look(at: MachineTime(12_000_000_000)) { _ in .gone }
    #expect(fault5 == nil)
    #expect(watch.isOver(session))
  }

  /// Through a whole cluster: somebody else's order ends the session of a client that is there.
  @Test func aSessionThatNobodyClosedIsMissed() throws {
    let simulation = try Self.running()
    let life = try #require(simulation.leader)
    let session = try #require(simulation.clients.compactMap(\.session).first)
    let now = life.localNow
    life.replica.submit(now: now) { CommandWriter.closeSession(session, into: &$0) }
    life.wake()
    while simulation.violation == nil, simulation.now < .seconds(60), simulation.goOn() {}
    #expect(simulation.violation?.rule == "G7")
  }

  /// A cluster without faults, with a client that is attached.
  static func running() throws -> Simulation {
    var cut = PlanCut()
    cut.faults = Set(FaultKind.allCases)
    let simulation = Simulation(seed: 3, without: cut)
    simulation.begin()
    while simulation.now < .seconds(3), simulation.goOn() {}
    try #require(simulation.violation == nil)
    return simulation
  }
}

/// What the cluster takes back before its time (G6, G7).
@Suite struct LeaseTests {
  private let simulation = Simulation(seed: 1, without: PlanCut())

  private func delivered(token: UInt64, granted: UInt64, until end: UInt64) -> Ledger.Delivered {
    Ledger.Delivered(
      queue: 0, token: FencingToken(token), id: MessageID(70), attempt: UInt32(token),
      granted: MachineTime(granted), leaseEnd: MachineTime(end), holder: "c\(token).0",
      session: SessionID(token), isRedelivery: token > 1)
  }

  private func published() -> Int {
    simulation.ledger.newMessage(Ledger.Published(queue: 0, process: 1))
  }

  @Test func whatSomebodyHoldsNobodyElseGets() {
    let message = published()
    simulation.ledger.delivered(message, delivered(token: 1, granted: 10, until: 20))
    simulation.ledger.delivered(message, delivered(token: 2, granted: 19, until: 30))
    #expect(simulation.violation?.rule == "G6")
  }

  @Test func alsoIfTheFirstDeliveryComesLast() {
    let message = published()
    simulation.ledger.delivered(message, delivered(token: 2, granted: 19, until: 30))
    simulation.ledger.delivered(message, delivered(token: 1, granted: 10, until: 20))
    #expect(simulation.violation?.rule == "G6")
  }

  /// That its process was killed does not end a session.
  @Test func whatADeadProcessHeldIsItsOwnForALongAsItsSession() {
    let message = published()
    simulation.ledger.delivered(message, delivered(token: 1, granted: 10, until: 20))
    simulation.ledger.killed("c1.0")
    simulation.ledger.delivered(message, delivered(token: 2, granted: 19, until: 30))
    #expect(simulation.violation?.rule == "G6")
  }

  @Test func whatRanOutOrWasSettledMayGoElsewhere() {
    let message = published()
    let first = delivered(token: 1, granted: 10, until: 20)
    simulation.ledger.delivered(message, first)
    let second = delivered(token: 2, granted: 20, until: 30)
    simulation.ledger.delivered(message, second)
    simulation.ledger.willSettle(
      message, second, .negative, delay: nil, lease: .zero, error: "")
    simulation.ledger.delivered(message, delivered(token: 3, granted: 25, until: 40))
    #expect(simulation.violation == nil)
  }

  @Test func whatWasSaidToBeGoneIsNotDelivered() {
    let value = published()
    simulation.ledger.confirmed(value, delivered(token: 1, granted: 10, until: 20).id)
    simulation.ledger.saidToBeGone(value)
    simulation.ledger.delivered(value, delivered(token: 1, granted: .max - 20, until: .max - 10))
    #expect(simulation.violation?.rule == "answers are true")
  }

  @Test(arguments: [
    (Refusal.messageNotFound, true), (.messageLeased, false), (.overloaded, false),
    (.queueNotFound, true),
  ])
  func anOrderIsRefusedForWhatIsTrue(refusal: Refusal, isFalse: Bool) {
    let client = SimulatedClient(simulation, place: 0, plan: Plan.ClientPlan(drains: 0))
    client.judge(refusal, of: .cancel(published()))
    #expect((simulation.violation != nil) == isFalse)
  }

  @Test func aRefusalBeforeTheLeaseEndsIsNoAnswer() {
    let held = SimulatedClient.Held(
      value: published(), delivered: delivered(token: 1, granted: 10, until: 20), node: 0)
    simulation.ledger.taken(held, "G6", "is refused as stale")
    #expect(simulation.violation?.rule == "G6")
  }

  @Test func aRefusalOfWhatWasSettledOrRanOutIsRight() {
    var held = SimulatedClient.Held(
      value: published(), delivered: delivered(token: 1, granted: 10, until: 20), node: 0)
    held.isAskedTwice = true
    simulation.ledger.taken(held, "G6", "is refused as stale")
    held.isAskedTwice = false
    // Extended to what has passed already.
    held.leaseEndAtLeast = .zero
    simulation.ledger.taken(held, "G6", "is refused as stale")
    #expect(simulation.violation == nil)
  }
}

/// A queue is full only with so many messages in it (G13).
@Suite struct FullQueueTests {
  private static func simulation(
    where isWanted: (QueueSettings) -> Bool
  ) throws -> (Simulation, queue: Int) {
    for seed in UInt64(1)...200 {
      let simulation = Simulation(seed: seed, without: PlanCut())
      let queues = simulation.plan.queues
      if let queue = queues.firstIndex(where: { isWanted($0.settings) }) {
        return (simulation, queue)
      }
    }
    throw NoSuchPlan()
  }

  private struct NoSuchPlan: Error {}

  @Test func oneWithoutALimitIsNeverFull() throws {
    let (simulation, queue) = try Self.simulation { $0.lengthMax == 0 }
    let before = simulation.ledger.counts
    _ = simulation.ledger.newMessage(Ledger.Published(queue: queue, process: 1))
    simulation.ledger.refusedForLength([queue], since: before)
    #expect(simulation.violation?.rule == "G13")
  }

  @Test func oneThatMakesRoomIsNeverFull() throws {
    let (simulation, queue) = try Self.simulation {
      $0.lengthMax > 0 && $0.overflow == .dropOldest
    }
    let before = simulation.ledger.counts
    for _ in 0..<100 {
      _ = simulation.ledger.newMessage(Ledger.Published(queue: queue, process: 1))
    }
    simulation.ledger.refusedForLength([queue], since: before)
    #expect(simulation.violation?.rule == "G13")
  }

  @Test func oneIsFullWithAllThatItMayHold() throws {
    let (simulation, queue) = try Self.simulation { $0.lengthMax > 0 && $0.overflow == .reject }
    let most = Int(simulation.plan.queues[queue].settings.lengthMax)
    let before = simulation.ledger.counts
    for _ in 0...most {
      _ = simulation.ledger.newMessage(Ledger.Published(queue: queue, process: 1))
    }
    simulation.ledger.refusedForLength([queue], since: before)
    #expect(simulation.violation == nil)
    // One of them is known to be gone before the next is asked for.
    simulation.ledger.gone(0, from: queue)
    let later = simulation.ledger.counts
    simulation.ledger.refusedForLength([queue], since: later)
    #expect(simulation.violation?.rule == "G13")
  }
}

/// What counts as being on a disk (G1).
@Suite(.ownThreads) struct OrderedLogTests {
  private func ticket(_ number: UInt64) -> StoreTicket { StoreTicket(number: number) }

  private func position(_ index: UInt64, _ term: UInt64) -> LogPosition {
    LogPosition(term: Term(term), index: LogIndex(index))
  }

  private func append(_ range: ClosedRange<UInt64>, term: UInt64) -> LogOperation {
    .append(range.map { Entry(position: position($0, term), kind: .commands, payload: []) })
  }

  private func found(through last: UInt64, term: UInt64) -> Recovery {
    var recovery = Recovery()
    recovery.last = position(last, term)
    recovery.termRuns = last == 0 ? [] : [TermRun(first: LogIndex(1), term: Term(term))]
    return recovery
  }

  @Test func whatIsOnItsWayIsNotThere() {
    var log = OrderedLog()
    log.order([append(1...2, term: 1)], ticket(1))
    log.order([append(3...3, term: 1)], ticket(2))
    #expect(!log.holds(position(1, 1)))
    log.stored([ticket(1)])
    #expect(log.holds(position(2, 1)) && !log.holds(position(3, 1)))
    #expect(!log.holds(position(2, 2)), "of another term")
  }

  @Test func whatWasRemovedIsNotThere() {
    var log = OrderedLog()
    log.order([append(1...3, term: 1)], ticket(1))
    log.order([.truncate(from: LogIndex(2)), append(2...2, term: 2)], ticket(2))
    log.stored([ticket(1)])
    #expect(log.holds(position(3, 1)) && log.mayHave(position(3, 1)))
    log.stored([ticket(2)])
    #expect(!log.holds(position(3, 1)) && !log.mayHave(position(3, 1)))
    #expect(log.holds(position(2, 2)))
  }

  @Test func aMajorityOfDisksIsCounted() {
    var first = OrderedLog()
    first.order([append(1...1, term: 1)], ticket(1))
    var second = first
    first.stored([ticket(1)])
    #expect(!OrderedLog.hold(position(1, 1), [first, second, OrderedLog()], quorum: 2))
    second.stored([ticket(1)])
    #expect(OrderedLog.hold(position(1, 1), [first, second, OrderedLog()], quorum: 2))
  }

  @Test func whatWasDurableIsMissedAfterACrash() {
    var log = OrderedLog()
    log.order([append(1...3, term: 1)], ticket(1))
    log.stored([ticket(1)])
    log.order([append(4...4, term: 1)], ticket(2))
    let lost6 = log.begin(with: found(through: 3, term: 1))
    #expect(lost6 == nil)
    let lost7 = log.begin(with: found(through: 2, term: 1))
    #expect(lost7 == position(3, 1))
    // It may have been counted before it was lost.
    #expect(log.holds(position(3, 1)))
  }

  @Test func whatWasBeingRemovedIsNotMissed() {
    var log = OrderedLog()
    log.order([append(1...3, term: 1)], ticket(1))
    log.stored([ticket(1)])
    log.order([.truncate(from: LogIndex(3))], ticket(2))
    let lost8 = log.begin(with: found(through: 2, term: 1))
    #expect(lost8 == nil)
  }

  @Test func aConfirmOfWhatIsOnOneDiskAloneIsSeen() throws {
    let simulation = try SessionWatchTests.running()
    let life = try #require(simulation.leader)
    let committed = life.replica.applied
    simulation.checks.willConfirm(committed, at: life)
    #expect(simulation.violation == nil)
    for node in simulation.nodes where node !== life.node { node.log = OrderedLog() }
    simulation.checks.willConfirm(committed, at: life)
    #expect(simulation.violation?.rule == "G1")
  }
}

/// After a failed sync nothing is written, synced or said any more (G12).
@Suite(.ownThreads) struct FailedDiskTests {
  @Test func aFileIsNotSyncedAgain() throws {
    let disk = SimulatedDisk()
    let file = try disk.open("/data/a", .createNew)
    try file.write([[1]], at: 0)
    disk.failingSyncs = 1
    #expect(throws: StorageFailure.self) { try file.synchronize() }
    #expect(disk.syncedAgain == nil)
    try file.synchronize()
    #expect(disk.syncedAgain == "/data/a")
  }

  @Test func theNextProcessMaySyncIt() throws {
    let disk = SimulatedDisk()
    let file = try disk.open("/data/a", .createNew)
    disk.failingSyncs = 1
    #expect(throws: StorageFailure.self) { try file.synchronize() }
    disk.beginProcess()
    try file.synchronize()
    #expect(disk.syncedAgain == nil)
  }

  @Test func aProcessThatGoesOnIsSeen() throws {
    let simulation = try SessionWatchTests.running()
    let life = try #require(simulation.leader)
    life.diskFailure = StorageFailure(.synchronize, "/data/a", code: StorageFailure.ioCode)
    while simulation.violation == nil, simulation.now < .seconds(60), simulation.goOn() {}
    #expect(simulation.violation?.rule == "G12")
  }
}

/// Equal index, equal state, in all of it (G14).
@Suite(.ownThreads) struct WholeStateTests {
  @Test func queuesThatDifferAreSeen() throws {
    let simulation = try SessionWatchTests.running()
    let lives = simulation.nodes.compactMap(\.life)
    let life = try #require(lives.first)
    simulation.checks.compareWhole(life, life)
    #expect(simulation.violation == nil)
    life.replica.machine = QueueMachine()
    simulation.checks.compareWhole(life, lives[1])
    #expect(simulation.violation?.rule == "G14")
  }

  /// As a snapshot would that forgets something: also while the run goes on.
  @Test func aStateThatForgotSomethingIsSeenInTheRun() throws {
    let simulation = try SessionWatchTests.running()
    let life = try #require(
      simulation.nodes.compactMap(\.life).first { !$0.replica.isLeader })
    // What it decided has the digest that all of them have.
    life.isFromSnapshot = true
    life.replica.machine = try QueueMachine(
      snapshot: Self.withAnotherFloor(life.replica.machine.freeze().encoded()))
    while simulation.violation == nil, simulation.now < .seconds(60), simulation.goOn() {}
    #expect(simulation.violation?.rule == "G14")
  }

  /// The same with another token floor in its head, and a checksum that fits.
  private static func withAnotherFloor(_ bytes: [UInt8]) -> [UInt8] {
    var bytes = Array(bytes.dropLast(4))
    bytes[36] ^= 1
    bytes.put(bytes.withUnsafeBytes { Checksum(of: $0).rawValue })
    return bytes
  }
}

/// Once the faults are over somebody leads soon.
@Suite struct LeaderDemandTests {
  @Test func nobodyInTimeIsSeen() {
    var demand = LeaderDemand()
    let isInTime9 = demand.look(hasLeader: false, at: 1_000)
    #expect(isInTime9)
    demand.begin(until: 2_000)
    let isInTime10 = demand.look(hasLeader: false, at: 2_000)
    #expect(isInTime10)
    let isInTime11 = demand.look(hasLeader: false, at: 2_001)
    #expect(!isInTime11)
  }

  @Test func oneLeaderIsEnough() {
    var demand = LeaderDemand()
    demand.begin(until: 2_000)
    let isInTime12 = demand.look(hasLeader: true, at: 1_500)
    #expect(isInTime12)
    let isInTime13 = demand.look(hasLeader: false, at: 9_000)
    #expect(isInTime13)
  }

  @Test func thePatienceIsMuchLessThanWhatTheWholeDrainMayTake() {
    for seed in UInt64(1)...500 {
      #expect(Plan(seed: seed).leaderPatience <= .seconds(50), "seed \(seed)")
    }
  }
}

/// Changes of members come one at a time (G2).
@Suite(.ownThreads) struct MembershipChangeTests {
  @Test func aChangeBeforeTheOneBeforeItIsCommittedIsMissed() throws {
    let simulation = try SessionWatchTests.running()
    let life = try #require(simulation.leader)
    let (term, commit) = (life.replica.consensus.term, life.replica.consensus.commit)
    func position(_ distance: UInt64) -> LogPosition {
      LogPosition(term: term, index: LogIndex(commit.rawValue + distance))
    }
    simulation.checks.judgeChange(position(1), after: nil, at: life)
    simulation.checks.judgeChange(position(1), after: position(0), at: life)
    let former = LogPosition(term: Term(0), index: position(1).index)
    simulation.checks.judgeChange(position(2), after: former, at: life)
    #expect(simulation.violation == nil)
    simulation.checks.judgeChange(position(2), after: position(1), at: life)
    #expect(simulation.violation?.rule == "G2")
  }
}
