// `skein bench catch-up`: a follower that missed much comes back while the load goes on. What counts is
// how much of the load's usual rate is left until it has everything. The usual rate is that of as many
// messages before as after: a queue that grows, and a disk that others share, are not the same a
// quarter of a minute later.

import Base
import Bench
import Glibc

struct BenchCatchUp {
  let settings: BenchSettings
  let cluster: LocalCluster
  private let loop: LoadLoop

  /// How long the load runs between two looks at the follower.
  private static let slice = Nanoseconds.milliseconds(250)
  /// As much again as the follower missed may come so often before it must have everything.
  private static let timesMax: UInt64 = 8
  /// Entries that a follower may lack while the load runs.
  private static let lagMax: UInt64 = 100

  init(_ settings: BenchSettings, _ cluster: LocalCluster) throws {
    self.settings = settings
    self.cluster = cluster
    loop = try LoadLoop(settings.plan, seed: .random(in: 1 ... .max)) { Task.isCancelled }
  }

  func run() async throws -> BenchReport {
    guard settings.nodes >= 3 else {
      throw Failure("a cluster of \(settings.nodes) does not go on without a node; try --nodes 3")
    }
    try loop.connect(to: try cluster.endpoints())
    // One of them is to be killed.
    loop.closeMembers()
    let queues = try loop.declare(["bench"])
    try loop.openPublishers(queues)
    _ = try loop.run(LoadPhase(messages: settings.warmUp))
    let before = try load(while: { $0 < settings.messages })

    let follower = try await killFollower()
    let away = try load(while: { $0 < settings.messages })
    _ = try cluster.start(follower)
    let most = settings.messages * Self.timesMax
    var report = BenchReport(settings)
    let behind = try load { published in
      if published > 0, try hasCaughtUp(follower) { return false }
      guard published < most else {
        throw Failure("node \(follower) lacks entries still, \(published) messages after its start")
      }
      return true
    }
    let after = try load(while: { $0 < settings.messages })
    let normal =
      Double(before.messages + after.messages) / max(1e-9, before.seconds + after.seconds)
    report.nodes = settings.nodes
    report.messages = behind.messages
    report.seconds = behind.seconds
    report.confirm = behind.confirm
    report.settings.consumers = 0
    report.add("behindBytes", settings.messages * UInt64(settings.plan.bodyBytes))
    report.add("normalMessagesPerSecond", normal)
    report.add("beforeMessagesPerSecond", before.rate)
    report.add("afterMessagesPerSecond", after.rate)
    report.add("awayMessagesPerSecond", away.rate)
    report.add("ratioToNormal", behind.rate / normal)
    _ = try loop.run(LoadPhase(messages: 0, drains: true)) { () throws(LoadError) in
      try loop.openConsumers(queues, count: 1, prefetch: 10_000)
    }
    report.lost = loop.book.lost
    report.duplicated = loop.book.duplicated
    report.corrupted = loop.book.corrupted
    return report
  }

  private struct Load {
    var messages: UInt64 = 0
    var seconds = 0.0
    var confirm = LatencyHistogram()

    var rate: Double { Double(messages) / max(1e-9, seconds) }
  }

  /// Publishes slice by slice, as long as `goesOn` says so of the messages so far.
  private func load(while goesOn: (UInt64) throws -> Bool) throws -> Load {
    var load = Load()
    while try goesOn(load.messages) {
      let result = try loop.run(LoadPhase(messages: settings.messages, timeMax: Self.slice))
      load.messages += result.published
      load.seconds += result.seconds
      load.confirm.add(result.confirm)
    }
    return load
  }

  private func killFollower() async throws -> NodeID {
    let leader = try await cluster.leader()
    guard let follower = try cluster.nodes().first(where: { $0 != leader }) else {
      throw Failure("there is no follower")
    }
    let process = try cluster.runningProcess(of: follower)
    process.send(SIGKILL)
    let hasLeft = try await LocalCluster.wait(atMost: .seconds(10)) { process.hasLeft }
    guard hasLeft else { throw Failure("node \(follower) does not end") }
    return follower
  }

  private func hasCaughtUp(_ follower: NodeID) throws -> Bool {
    let peers = try loop.leaderStatus().peers
    guard let peer = peers.first(where: { $0.id == follower }) else { return false }
    return peer.isConnected && peer.lag < Self.lagMax
  }
}
