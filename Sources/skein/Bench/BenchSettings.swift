// What was asked of a measurement, with each mode's own defaults. Everything is bounded.

import Base
import Bench

struct BenchSettings: Sendable {
  let mode: BenchMode
  var plan = LoadPlan()
  var messages: UInt64
  var warmUp: UInt64
  var consumers: Int
  var prefetch: Int
  var rate: Double
  var seconds: Double?
  var queues: Int
  var backlog: UInt64
  var kills: Int
  var idle: Int
  var log: BarePipe.Log
  /// Of `limit`.
  var usesPageCache: Bool
  var nodes: Int
  var basePort: UInt16?
  /// nil: TMPDIR, else /var/tmp.
  var directory: String?

  /// So many messages can be told apart in some megabytes.
  static let messagesMax: UInt64 = 100_000_000

  init(_ mode: BenchMode, _ arguments: Arguments) throws(UsageError) {
    self.mode = mode
    let known = Set(mode.options.map(\.name))
    /// The option's value, or what stands for it in modes that have no such option.
    func count(
      _ name: String, in range: ClosedRange<UInt64>, usually value: UInt64
    ) throws(UsageError) -> UInt64 {
      guard known.contains(name) else { return value }
      return try arguments.count(name, in: range) ?? value
    }
    let least = UInt64(MessageBook.bodyBytesMin)
    plan.bodyBytes = Int(
      try count("body", in: least...32 << 20, usually: mode.bodyBytes))
    messages = try count("messages", in: 1...Self.messagesMax, usually: mode.messages)
    plan.window = Int(try count("window", in: 1...65_536, usually: mode.window))
    plan.producers = Int(try count("producers", in: 1...1000, usually: 1))
    plan.batch = Int(
      try count("batch", in: 1...65_536, usually: mode == .manyQueues ? 1 : 65_536))
    consumers = Int(try count("consumers", in: 1...1000, usually: 1))
    prefetch = Int(
      try count("prefetch", in: 1...65_535, usually: mode == .endToEnd ? 5000 : 10_000))
    plan.settlesEach = known.contains("settle-each") && arguments.flag("settle-each")
    rate =
      known.contains("rate")
      ? try arguments.decimal("rate", in: 1...1_000_000) ?? mode.rate : mode.rate
    seconds =
      known.contains("seconds") ? try arguments.decimal("seconds", in: 0.1...86_400) : nil
    queues = Int(try count("queues", in: 1...100_000, usually: mode == .manyQueues ? 10_000 : 1))
    backlog = try count("backlog", in: 1...Self.messagesMax, usually: 1_000_000)
    kills = Int(try count("kills", in: 1...1000, usually: 10))
    idle = Int(try count("idle", in: 0...60_000, usually: 0))
    nodes = Int(try count("nodes", in: 1...LocalCluster.nodesMax, usually: 3))
    let port = try count("base-port", in: 0...65_400, usually: 0)
    basePort = port == 0 ? nil : UInt16(port)
    if known.contains("timeout") { plan.patience = try arguments.timeout() }
    directory = arguments.text("dir")
    warmUp = 0
    usesPageCache = known.contains("page-cache") && arguments.flag("page-cache")
    log = .recycled
    if known.contains("log"), let text = arguments.text("log") {
      guard let kind = BarePipe.Log(rawValue: text) else {
        throw arguments.usage("--log must be append or recycled, not \(text)")
      }
      log = kind
    }
    if mode == .paced { messages = UInt64(max(1, rate * (seconds ?? 10))) }
    guard messages <= Self.messagesMax else {
      throw arguments.usage("--rate and --seconds make \(messages) messages, which are too many")
    }
    warmUp = try count(
      "warm-up", in: 0...Self.messagesMax, usually: min(messages / 5, mode.warmUpMax(plan)))
  }
}

extension BenchMode {
  fileprivate var bodyBytes: UInt64 { self == .drain || self == .backlog ? 100 : 1024 }

  fileprivate var messages: UInt64 {
    switch self {
    case .publish, .endToEnd, .limit: 500_000
    case .drain, .catchUp: 1_000_000
    case .paced, .failover: 10_000
    case .manyQueues: 200_000
    case .backlog: 500_000
    }
  }

  fileprivate var window: UInt64 { self == .drain ? 20_000 : 1000 }
  fileprivate var rate: Double { self == .failover ? 500 : 1000 }

  fileprivate func warmUpMax(_ plan: LoadPlan) -> UInt64 {
    switch self {
    case .publish, .endToEnd, .catchUp: 100_000
    case .paced: 1000
    default: 0
    }
  }
}
