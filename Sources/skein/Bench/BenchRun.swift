// The modes that put a load on a cluster and look at it from outside.

import Base
import Bench

struct BenchRun {
  let settings: BenchSettings
  private let loop: LoadLoop
  private let name: String

  init(_ settings: BenchSettings) throws {
    self.settings = settings
    loop = try LoadLoop(settings.plan, seed: .random(in: 1 ... .max)) { Task.isCancelled }
    name = "bench-" + String(UInt32.random(in: 0 ... .max), radix: 36)
  }

  func run(_ endpoints: [String]) throws -> BenchReport {
    try loop.connect(to: endpoints)
    let names = queueNames
    let queues = try loop.declare(names)
    var report: BenchReport
    switch settings.mode {
    case .publish: report = try publish(queues)
    case .endToEnd, .paced: report = try endToEnd(queues)
    case .drain: report = try drain(queues)
    case .manyQueues: report = try manyQueues(queues)
    case .backlog: report = try backlog(queues)
    case .failover, .catchUp, .limit:
      throw Failure("\(settings.mode.rawValue) is measured elsewhere")
    }
    report.lost = loop.book.lost
    report.duplicated = loop.book.duplicated
    report.corrupted = loop.book.corrupted
    try loop.delete(names)
    return report
  }

  private var queueNames: [String] {
    guard settings.mode == .manyQueues else { return [name] }
    return [name] + (1..<max(2, settings.queues)).map { "\(name)-\($0)" }
  }

  private func figures() throws -> NodeFigures {
    let isLocal = loop.memberAddresses.allSatisfy {
      $0.hasPrefix("127.") || $0.hasPrefix("localhost:") || $0.hasPrefix("[::1]")
    }
    return NodeFigures(try loop.statuses(), isLocal: isLocal)
  }

  /// Runs one phase and notes what it cost.
  private func measure(
    _ phase: LoadPhase, opening: () throws(LoadError) -> Void = {}
  ) throws -> (BenchReport, LoadResult) {
    let before = try figures()
    let result = try loop.run(phase, opening: opening)
    let after = try figures()
    var report = BenchReport(settings)
    report.nodes = after.nodes.count
    report.seconds = result.seconds
    report.messages = max(result.published, phase.messages == 0 ? result.delivered : 0)
    let count = Double(max(1, report.messages))
    let nodes = Double(max(1, after.nodes.count))
    report.nodeCPUSecondsPerMillion = after.processorSeconds(since: before).map {
      $0 / count * 1e6
    }
    let written = after.dirtiedBytes(since: before) ?? after.logBytes(since: before)
    report.bytesWrittenPerMessage = Double(written) / count / nodes
    let syncs = after.synchronizations(since: before)
    report.messagesPerSync = syncs > 0 ? count * nodes / Double(syncs) : nil
    report.residentBytes = after.nodes.map(\.residentBytes)
    report.confirm = result.confirm
    report.add("logBytesPerMessage", Double(after.logBytes(since: before)) / count / nodes)
    return (report, result)
  }

  /// Takes out and checks everything that was published.
  private func check(_ queues: [QueueID]) throws {
    _ = try loop.run(LoadPhase(messages: 0, drains: true)) { () throws(LoadError) in
      try loop.openConsumers(queues, count: 1, prefetch: 10_000)
    }
  }

  private var timeMax: Nanoseconds? {
    settings.seconds.map { Nanoseconds(rawValue: UInt64($0 * 1e9)) }
  }

  private func publish(_ queues: [QueueID]) throws -> BenchReport {
    var idleBytes = 0.0
    if settings.idle > 0 {
      let before = try figures()
      try loop.openIdle(settings.idle)
      idleBytes = Self.growth(before, try figures()) / Double(settings.idle)
    }
    try loop.openPublishers(queues)
    _ = try loop.run(LoadPhase(messages: settings.warmUp))
    var (report, _) = try measure(LoadPhase(messages: settings.messages, timeMax: timeMax))
    report.settings.consumers = 0
    if settings.idle > 0 { report.add("bytesPerIdleConnection", idleBytes) }
    try check(queues)
    return report
  }

  /// By how much the node that grew most grew, bytes.
  private static func growth(_ before: NodeFigures, _ after: NodeFigures) -> Double {
    zip(before.nodes, after.nodes).map { old, new in
      Double(new.residentBytes) - Double(old.residentBytes)
    }.max() ?? 0
  }

  private func endToEnd(_ queues: [QueueID]) throws -> BenchReport {
    try loop.openConsumers(queues, count: settings.consumers, prefetch: settings.prefetch)
    try loop.openPublishers(queues)
    let rate = settings.mode == .paced ? settings.rate : nil
    _ = try loop.run(LoadPhase(messages: settings.warmUp, rate: rate, drains: true))
    var (report, result) = try measure(
      LoadPhase(
        messages: settings.messages, rate: rate, timeMax: rate == nil ? timeMax : nil, drains: true)
    )
    report.endToEnd = result.endToEnd
    if let rate { report.add("rate", rate) }
    return report
  }

  /// The nodes as they are when nothing happens.
  private func idleFigures() throws -> NodeFigures {
    try loop.rest(.seconds(1))
    return try figures()
  }

  private func drain(_ queues: [QueueID]) throws -> BenchReport {
    try loop.openPublishers(queues)
    let before = try idleFigures()
    let filled = try loop.run(LoadPhase(messages: settings.messages))
    let growth = Self.growth(before, try idleFigures())
    var (report, _) = try measure(LoadPhase(messages: 0, drains: true)) { () throws(LoadError) in
      try loop.openConsumers(queues, count: settings.consumers, prefetch: settings.prefetch)
    }
    report.confirm = nil
    report.add("fillMessagesPerSecond", Double(filled.published) / max(1e-9, filled.seconds))
    report.add("bytesPerWaitingMessage", growth / Double(max(1, filled.published)))
    return report
  }

  private func manyQueues(_ queues: [QueueID]) throws -> BenchReport {
    try loop.openPublishers([queues[0]])
    let phase = LoadPhase(messages: settings.messages, timeMax: timeMax)
    _ = try loop.run(LoadPhase(messages: settings.messages / 5))
    let one = try loop.run(phase)
    try loop.closePublishers()
    try loop.openPublishers(Array(queues.dropFirst()))
    _ = try loop.run(LoadPhase(messages: settings.messages / 5))
    var (report, _) = try measure(phase)
    let rate = Double(one.published) / max(1e-9, one.seconds)
    report.settings.consumers = 0
    report.add("queues", UInt64(queues.count - 1))
    report.add("oneQueueMessagesPerSecond", rate)
    report.add("ratioToOneQueue", report.messagesPerSecond / rate)
    try check(queues)
    return report
  }

  private func backlog(_ queues: [QueueID]) throws -> BenchReport {
    try loop.openPublishers(queues)
    let phase = LoadPhase(messages: settings.messages)
    let drained = LoadPhase(messages: 0, drains: true)
    func rate(_ count: UInt64, _ result: LoadResult) -> Double {
      Double(count) / max(1e-9, result.seconds)
    }
    func drain() throws -> LoadResult {
      let result = try loop.run(drained) { () throws(LoadError) in
        try loop.openConsumers(queues, count: settings.consumers, prefetch: settings.prefetch)
      }
      try loop.closeConsumers()
      return result
    }
    _ = try loop.run(phase)
    _ = try drain()
    let emptyPublish = try loop.run(phase)
    let emptyDrain = try drain()
    let before = try idleFigures()
    _ = try loop.run(LoadPhase(messages: settings.backlog))
    let growth = Self.growth(before, try idleFigures())
    var (report, published) = try measure(phase)
    let fullDrain = try drain()
    let emptyRate = rate(emptyPublish.published, emptyPublish)
    let emptyDrainRate = rate(emptyDrain.delivered, emptyDrain)
    let drainRate = rate(fullDrain.delivered, fullDrain)
    report.add("backlog", settings.backlog)
    report.add("emptyMessagesPerSecond", emptyRate)
    report.add("ratioToEmpty", rate(published.published, published) / emptyRate)
    report.add("emptyDrainPerSecond", emptyDrainRate)
    report.add("drainPerSecond", drainRate)
    report.add("drainRatioToEmpty", drainRate / emptyDrainRate)
    report.add("bytesPerWaitingMessage", growth / Double(max(1, settings.backlog)))
    return report
  }
}
