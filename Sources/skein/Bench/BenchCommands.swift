// `skein bench MODE`: how fast a cluster is, with every message checked. One command for each mode,
// so that each takes only the options that mean something to it.

import Base
import Bench

enum BenchCommands {
  static let commands = [
    publish, endToEnd, drain, paced, manyQueues, backlog, failover, catchUp, limit,
  ]

  private static let publish = command(
    .publish, "publish with confirms, as fast as the window allows; the backlog grows")
  private static let endToEnd = command(
    .endToEnd, "publish, deliver and acknowledge at once, the queue staying short")
  private static let drain = command(
    .drain, "take a full queue empty, each message acknowledged")
  private static let paced = command(
    .paced, "latency at a fixed rate, each message counted from when it was due")
  private static let manyQueues = command(
    .manyQueues, "publish to many queues in turn, and to one for comparison")
  private static let backlog = command(
    .backlog, "publish and drain beside a large backlog, and without one for comparison")
  private static let failover = command(
    .failover, "kill the leader again and again: how long nothing is confirmed")
  private static let catchUp = command(
    .catchUp, "a follower that missed much comes back: how much of the usual rate is left")
  private static let limit = command(
    .limit, "what this machine could do: the same bytes and syncs and nothing else")

  private static func command(_ mode: BenchMode, _ summary: String) -> Command {
    Command(
      path: ["bench", mode.rawValue], summary: summary, options: mode.options,
      details: mode.details,
      run: .asynchronous { arguments in
        let settings = try BenchSettings(mode, arguments)
        let report = try await Interruption.cancels { try await run(settings, arguments) }
        try StandardOutput.write(
          arguments.flag("json") ? report.json.text + "\n" : report.text(Terminal.hasColours))
        return report.isClean ? .fine : .failed
      })
  }

  private static func run(
    _ settings: BenchSettings, _ arguments: Arguments
  ) async throws -> BenchReport {
    switch settings.mode {
    case .limit: return try BenchLimit.run(settings)
    case .failover:
      return try await BenchCluster.with(settings) { cluster in
        try await BenchFailover(settings, cluster).run()
      }
    case .catchUp:
      return try await BenchCluster.with(settings) { cluster in
        try await BenchCatchUp(settings, cluster).run()
      }
    default: break
    }
    if arguments.text("endpoints") != nil {
      return try BenchRun(settings).run(try Connection.endpoints(arguments))
    }
    return try await BenchCluster.with(settings) { cluster in
      try BenchRun(settings).run(try cluster.endpoints())
    }
  }
}

enum BenchMode: String, CaseIterable {
  case publish
  case endToEnd = "end-to-end"
  case drain
  case paced
  case manyQueues = "many-queues"
  case backlog
  case failover
  case catchUp = "catch-up"
  case limit

  var options: [Option] {
    let names: [String] =
      switch self {
      case .publish: ["messages", "window", "producers", "batch", "seconds", "idle", "warm-up"]
      case .endToEnd:
        [
          "messages", "window", "producers", "batch", "consumers", "prefetch", "settle-each",
          "seconds", "warm-up",
        ]
      case .drain: ["messages", "consumers", "prefetch", "settle-each"]
      case .paced: ["rate", "seconds", "producers", "consumers", "prefetch", "warm-up"]
      case .manyQueues: ["messages", "window", "producers", "batch", "queues", "seconds"]
      case .backlog: ["messages", "window", "producers", "backlog", "consumers", "prefetch"]
      case .failover: ["kills", "rate"]
      case .catchUp: ["messages", "window", "producers", "batch", "warm-up"]
      case .limit: ["messages", "window", "log", "page-cache"]
      }
    let cluster: [Option] =
      switch self {
      case .limit: []
      case .failover: [Self.nodes, Self.basePort]
      case .catchUp: [Self.nodes, Self.basePort, Self.patience]
      default: [Self.endpoints, Self.nodes, Self.basePort, Self.patience]
      }
    return Self.load.filter { $0.name == "body" || names.contains($0.name) } + cluster
      + [Self.directory, .json]
  }

  private static let endpoints = Option(
    "endpoints", "LIST",
    "measure this cluster, host:port with commas between (default: one of its own, removed behind)")
  private static let nodes = Option("nodes", "N", "nodes of the own cluster (default 3)")
  private static let basePort = Option(
    "base-port", "PORT", "ports of the own cluster (default: free ones)")
  private static let patience = Option(
    "timeout", "TIME", "give up after this long without any progress (default 10s)")
  private static let directory = Option(
    "dir", "DIR", "where the files lie meanwhile (default: TMPDIR, else /var/tmp)")

  private static let load = [
    Option("body", "BYTES", "size of a message's body (default 1024)"),
    Option("messages", "N", "messages to measure"),
    Option("window", "N", "publishes of a producer that may be unconfirmed (default 1000)"),
    Option("producers", "N", "producers, each with a connection of its own (default 1)"),
    Option("batch", "N", "messages in one publish at most (default: as the window allows)"),
    Option("consumers", "N", "consumers, each with a connection of its own (default 1)"),
    Option("prefetch", "N", "messages that a consumer may hold"),
    Option("settle-each", nil, "acknowledge with a command for each message"),
    Option("rate", "R", "messages a second"),
    Option("seconds", "N", "publish for this long at most"),
    Option("queues", "N", "how many queues (default 10000)"),
    Option("backlog", "N", "messages that wait meanwhile (default 1M)"),
    Option("kills", "N", "how often (default 10)"),
    Option("idle", "N", "further connections that do nothing (default 0)"),
    Option("warm-up", "N", "messages before the measurement"),
    Option(
      "log", "KIND", "append to files that grow, or overwrite recycled ones (default recycled)"),
    Option("page-cache", nil, "write through the page cache, not past it as nodes do"),
  ]

  var details: String {
    switch self {
    case .limit:
      """
      A client, a leader and two followers, threads of this process, over loopback TCP: every batch is
      written and synced by all three, and confirmed when a majority has it. No parsing, no queue.
      """
    case .failover:
      """
      Publishes at a rate while the leader is killed (SIGKILL), again and again; the killed node is
      started again each time. Every confirmed message must be delivered, once. Ends with 1 if not.
      """
    case .catchUp:
      """
      Measures the usual rate, kills a follower, publishes --messages that it misses, starts it again and
      goes on publishing until it has everything. Every message is delivered and checked then.
      """
    default:
      """
      Every message is checked by number and content: ends with 1 if one was lost, came twice or was
      changed. Latencies count from when a message was written, with --rate from when it was due.
      """
    }
  }
}
