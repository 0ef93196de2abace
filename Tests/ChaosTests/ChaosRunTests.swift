// What makes a run show something: faults that were done, and nodes that are watched meanwhile.

import Base
import Foundation
import Synchronization
import Testing

@testable import ChaosHarness

@Suite struct ChaosRunTests {
  private func options(
    duration: Nanoseconds, in place: String = NSTemporaryDirectory()
  ) throws -> ChaosOptions {
    var options = ChaosOptions(scenario: try ScenarioLibrary.scenario("leader-kill"), seed: 1)
    options.duration = duration
    options.temporary = place
    return options
  }

  /// Before its calm is over a scenario harms nobody.
  @Test func aRunTooShortForAnyFaultDoesNotStart() async throws {
    let run = ChaosRun(try options(duration: .seconds(2))) { _, _ in
      throw ChaosError("nothing is to be started")
    }
    #expect(run.plan.faults.isEmpty)
    let error = await #expect(throws: ChaosError.self) {
      _ = try await run.run(warn: { _ in }) { _ in }
    }
    #expect(error?.description == "2s are too short for any fault of leader-kill")
  }

  @Test func aRunThatHarmedNobodyShowsNothing() throws {
    let plan = FaultPlan(
      try ScenarioLibrary.scenario("leader-kill"), seed: 1, duration: .seconds(20))
    var record = FaultRecord(fault: try #require(plan.faults.first), start: .zero, victims: "1")
    #expect(ChaosRun.harmlessness([record]) == nil)
    record.skipped = "nobody was there"
    #expect(ChaosRun.harmlessness([record, record]) == "no fault was done: nobody was there")
    #expect(ChaosRun.harmlessness([]) == "no fault was done: there was none")
    var done = record
    done.skipped = nil
    #expect(ChaosRun.harmlessness([record, done]) == nil)
    // Nor does one where a node was too late to be judged.
    #expect(ChaosRun.doubt([], [done]) == nil)
    #expect(ChaosRun.doubt([], [record]) == "no fault was done: nobody was there")
    #expect(ChaosRun.doubt(["a", "b"], [done]) == "not known: a; b")
  }

  /// The proxies see no packets, and namespaces have no proxies: that is said before anything is begun.
  @Test(arguments: [
    (
      "packet-loss", false,
      "loss: proxies see no packets: it needs --netns, as root, and netem in the kernel"
    ),
    (
      "packet-reorder", false,
      "reorder: proxies see no packets: it needs --netns, as root, and netem in the kernel"
    ),
    ("throttled-links", true, "throttle: only the proxies can do it: without --netns"),
  ])
  func aRunOfWhichNothingCanBeDoneDoesNotStart(
    name: String, usesNamespaces: Bool, reason: String
  ) async throws {
    let place = try ClusterFiles.makeTemporaryDirectory(in: NSTemporaryDirectory())
    defer { try? FileManager.default.removeItem(atPath: place) }
    var options = ChaosOptions(scenario: try ScenarioLibrary.scenario(name), seed: 1)
    options.usesNamespaces = usesNamespaces
    options.temporary = place
    let run = ChaosRun(options) { _, _ in throw ChaosError("nothing is to be started") }
    let message = "no fault of \(name) can be done: \(reason)"
    #expect(run.misuse == message)
    let error = await #expect(throws: ChaosError.self) {
      _ = try await run.run(warn: { _ in }) { _ in }
    }
    #expect(error?.description == message)
    #expect(try ClusterFiles.names(in: place).isEmpty)
  }

  /// Where something is left, that is done.
  @Test func whatCannotBeDoneIsNamedBesideWhatCan() throws {
    var options = ChaosOptions(scenario: try ScenarioLibrary.scenario("mixed"), seed: 1)
    options.duration = .seconds(3600)
    options.usesNamespaces = true
    let run = ChaosRun(options) { _, _ in throw ChaosError("nothing is to be started") }
    #expect(run.misuse == nil)
    #expect(run.refusals.map(\.kind) == [.throttle, .drop, .halfOpen])
  }

  /// What a killed harness had on disk goes with the next run; what runs, or was kept, stays.
  @Test func onlyWhatKilledRunsLeftIsRemoved() throws {
    let place = try ClusterFiles.makeTemporaryDirectory(in: NSTemporaryDirectory())
    defer { try? FileManager.default.removeItem(atPath: place) }
    let running = try RunDirectory(in: place)
    let kept = try RunDirectory(in: place)
    try kept.keep()
    let killed = try RunDirectory(in: place)
    let killedPath = killed.path
    try ClusterFiles.write("x", to: killedPath + "/node-1.json")
    // As the kernel does for a process that ends.
    _ = consume killed
    try ClusterFiles.makeDirectory(place + "/skein-chaos-begins")
    try ClusterFiles.makeDirectory(place + "/other")
    try ClusterFiles.write("", to: place + "/other/running")
    #expect(RunDirectory.removeRemains(in: place).isEmpty)
    let left = try ClusterFiles.names(in: place).map { "\(place)/\($0)" }
    #expect(
      Set(left) == [running.path, kept.path, place + "/skein-chaos-begins", place + "/other"])
    try running.remove()
    #expect(access(running.path, F_OK) != 0)
    // What fails is told.
    #expect(RunDirectory.removeRemains(in: place + "/none").count == 1)
  }

  /// Whoever ends a run at once leaves its directory, and no later run removes it.
  @Test func whatIsEndedAtOnceKeepsItsDirectory() async throws {
    let place = try ClusterFiles.makeTemporaryDirectory(in: NSTemporaryDirectory())
    defer { try? FileManager.default.removeItem(atPath: place) }
    let options = try options(duration: .seconds(20), in: place)
    let box = Mutex<ChaosRun?>(nil)
    let run = ChaosRun(options) { _, _ in
      // As a signal's handler does it: beside what starts a node, and waiting for it to kill that too.
      Thread.detachNewThread { box.withLock { $0 }?.killAll() }
      let names = try ClusterFiles.names(in: place)
      #expect(names.count == 1)
      let lock = "\(place)/\(names[0])/running"
      for _ in 0..<10_000 where access(lock, F_OK) == 0 { usleep(1000) }
      #expect(access(lock, F_OK) != 0)
      throw ChaosError("it was ended at once")
    }
    box.withLock { $0 = run }
    _ = await #expect(throws: ChaosError.self) {
      _ = try await run.run(warn: { _ in }) { _ in }
    }
  }

  /// Nothing of a run stays that could not even begin.
  @Test func whatCannotStartLeavesNoDirectory() async throws {
    let place = try ClusterFiles.makeTemporaryDirectory(in: NSTemporaryDirectory())
    defer { try? FileManager.default.removeItem(atPath: place) }
    var options = try options(duration: .seconds(20))
    options.temporary = place
    options.report = "/proc/no/such/place"
    let run = ChaosRun(options) { _, _ in throw ChaosError("nothing is to be started") }
    _ = await #expect(throws: ChaosError.self) {
      _ = try await run.run(warn: { _ in }) { _ in }
    }
    #expect(try ClusterFiles.names(in: place).isEmpty)
  }
}

/// The nodes' logs, followed as they grow.
@Suite struct LeaderWatchTests {
  private func watch(
    _ body: (LeaderWatch, ClusterPlaces, (Int, String) throws -> Void) throws -> Void
  )
    throws
  {
    let directory = try ClusterFiles.makeTemporaryDirectory(in: NSTemporaryDirectory())
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let places = ClusterPlaces(directory: directory, basePort: 20_000)
    try ClusterFiles.makeDirectory(directory + "/logs")
    let recording = try Recording(path: directory + "/history.jsonl", clock: RunClock())
    let leaders = LeaderWatch(places: places, recording: recording)
    var logs: [Int: String] = [:]
    for node in 1...3 { leaders.add(node) }
    try body(leaders, places) { node, line in
      logs[node, default: ""] +=
        "2099-11-20T22:00:00.\(100 + logs[node, default: ""].count)Z node \(node) \(line)\n"
      try ClusterFiles.write(logs[node, default: ""], to: places.logFile(node))
    }
  }

  @Test func aNodeThatStopsTakingPartIsSeenThoughItLives() throws {
    try watch { leaders, _, say in
      try say(1, "info: leads term 3")
      #expect(leaders.halts.isEmpty)
      try say(2, "error: stopped taking part: the state of the queues differs (G14)")
      #expect(leaders.halts.map(\.node) == [2])
      #expect(leaders.halts.first?.isAlive == true)
      #expect(
        leaders.halts.first?.cause == "stopped taking part: the state of the queues differs (G14)")
    }
  }

  @Test func twoLeadersOfATermAreSeen() throws {
    try watch { leaders, _, say in
      try say(1, "info: leads term 3")
      try say(1, "info: does not lead any more")
      try say(1, "info: leads term 3")
      try say(2, "info: leads term 4")
      #expect(leaders.halts.isEmpty)
      try say(3, "info: leads term 3")
      #expect(leaders.halts.map(\.node) == [3])
      #expect(leaders.halts.first?.cause == "leads term 3, in which node 1 had led")
    }
  }

  /// A disk in hand, or a member that goes, explains it; what was said before and after does not.
  @Test func whoIsHarmedMayStopTakingPart() throws {
    try watch { leaders, _, say in
      leaders.excuse(2)
      try say(2, "error: stopped taking part: its disk is full")
      leaders.excuseNoMore(2)
      #expect(leaders.halts.isEmpty)
      try say(2, "error: stopped taking part: a sync failed")
      leaders.excuse(2)
      #expect(leaders.halts.map(\.cause) == ["stopped taking part: a sync failed"])
    }
  }

  /// A crash, and power that was lost, leave torn tails, which are no damage.
  @Test func damageOnADiskThatNobodyHarmedIsABreach() throws {
    try watch { leaders, _, say in
      leaders.diskIsHarmed(1)
      try say(1, "warning: damage: segment 3 is cut short")
      #expect(leaders.halts.isEmpty)
      try say(2, "info: damage: no warning")
      try say(2, "warning: damage: the state file is of term 0, the log of term 1")
      try say(2, "warning: damage: the state file is of term 0, the log of term 1")
      #expect(leaders.halts.map(\.node) == [2])
      #expect(leaders.halts.first?.promise == "G11")
      #expect(
        leaders.halts.first?.cause
          == "finds damage on a disk that nobody harmed: the state file is of term 0, the log of term 1"
      )
    }
  }

  @Test func aLeadershipEndsWithItsNode() throws {
    try watch { leaders, _, say in
      try say(1, "info: leads term 3")
      #expect(leaders.leader?.node == 1)
      leaders.died(1)
      #expect(leaders.leader == nil)
      #expect(leaders.changes.map(\.end).allSatisfy { $0 != nil })
      try say(2, "info: leads term 4")
      #expect(leaders.leader?.node == 2)
      #expect(leaders.changes.map(\.node) == [1, 2])
      #expect(leaders.changes.last?.end == nil)
      try say(2, "info: does not lead in term 5")
      #expect(leaders.leader == nil)
      #expect(leaders.changes.last?.end != nil)
    }
  }
}

@Suite struct DamageReportTests {
  /// Only what the node has found since.
  @Test func whatTheNodeSaysOfItsDamageIsFound() throws {
    let directory = try ClusterFiles.makeTemporaryDirectory(in: NSTemporaryDirectory())
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let places = ClusterPlaces(directory: directory, basePort: 20_000)
    #expect(places.logBytes(1) == 0)
    #expect(places.warning("damage", by: 1, from: 0) == nil)
    try ClusterFiles.makeDirectory(directory + "/logs")
    let old = "2026-11-20T22:00:00.123Z node 1 warning: damage: an old one\n"
    try ClusterFiles.write(old, to: places.logFile(1))
    #expect(places.logBytes(1) == old.utf8.count)
    #expect(places.warning("damage", by: 1, from: places.logBytes(1)) == nil)
    try ClusterFiles.write(
      old + "2026-11-20T22:00:01.123Z node 1 warning: damage: segment 3 is cut short\n",
      to: places.logFile(1))
    #expect(places.warning("damage", by: 1, from: old.utf8.count) == "segment 3 is cut short")
  }

  @Test func runsAtTheSameTimeHavePortsOfTheirOwn() throws {
    let claims = try (0..<30).map { _ in try ClusterPlaces.claimPorts(nodes: 3) }
    #expect(Set(claims.map(\.base)).count == 30)
  }

  @Test func aLimitComesAndGoes() throws {
    let places = ClusterPlaces(directory: "/tmp", basePort: 20_000)
    let network = ProxyNetwork(places: places, proxies: try Proxies(seed: 1))
    defer { network.stop() }
    let usual = places.configuration(1, members: [1, 2], joins: false, network: network)
    let limited = ClusterPlaces.limit(true, in: usual)
    #expect(!usual.contains("diskBytesMax") && limited.contains("\"diskBytesMax\": \"16MiB\""))
    #expect(ClusterPlaces.limit(false, in: limited) == usual)
  }
}
