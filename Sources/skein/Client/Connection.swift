// How every command finds and uses a cluster.

import Base
import SkeinClient

enum Connection {
  /// Client addresses: `--endpoints`, else `SKEIN_ENDPOINTS`, else the local cluster's.
  static func endpoints(_ arguments: Arguments) throws -> [String] {
    if let list = arguments.text("endpoints") {
      let endpoints = split(list)
      guard !endpoints.isEmpty else { throw arguments.usage("--endpoints names no endpoint") }
      return endpoints
    }
    // A directory that was asked for goes before the environment.
    if arguments.text("dir") == nil, let list = Terminal.environment("SKEIN_ENDPOINTS") {
      let endpoints = split(list)
      if !endpoints.isEmpty { return endpoints }
    }
    return try LocalCluster.existing(arguments).endpoints()
  }

  private static func split(_ list: String) -> [String] {
    list.split { $0 == "," || $0.isWhitespace }.map(String.init)
  }

  /// Connects, runs `body`, and closes whatever happens, so that what the client holds goes back
  /// at once.
  static func with<Result>(
    _ arguments: Arguments, producer: UInt64? = nil,
    _ body: (SkeinClient) async throws -> Result
  ) async throws -> Result {
    try await with(
      endpoints: try endpoints(arguments), arguments, timeout: try arguments.timeout(),
      producer: producer, body)
  }

  /// As above, with a cluster and a time that are known already.
  static func with<Result>(
    endpoints: [String], _ arguments: Arguments, timeout: Nanoseconds, producer: UInt64? = nil,
    _ body: (SkeinClient) async throws -> Result
  ) async throws -> Result {
    var options = ClientOptions()
    options.name = "skein \(arguments.command.name)"
    options.timeout = Duration(timeout)
    options.producer = producer
    let client: SkeinClient
    do {
      client = try await SkeinClient.connect(endpoints: endpoints, options: options)
    } catch .invalidEndpoint(let text) {
      throw arguments.usage("--endpoints: \(text)")
    }
    do {
      let result = try await body(client)
      await close(client)
      return result
    } catch {
      await close(client)
      if case SkeinError.refused(.queueNotFound, _) = error, let name = arguments.operands.first {
        throw Failure.noQueue(name)
      }
      throw error
    }
  }

  /// Also when this task was cancelled, by Ctrl-C for example.
  private static func close(_ client: SkeinClient) async {
    await Task { await client.close() }.value
  }
}

extension Failure {
  fileprivate static func noQueue(_ name: String) -> Failure {
    Failure("there is no queue \"\(name)\"; skein queue declare \(name) makes it")
  }
}

extension LocalCluster {
  /// The client addresses of all nodes here.
  func endpoints() throws -> [String] {
    try nodes().map { try configuration($0).clientListen.description }
  }
}

extension Duration {
  init(_ span: Nanoseconds) {
    self = .nanoseconds(Int64(clamping: span.rawValue))
  }

  /// In whole nanoseconds; the longest that fits for what is longer.
  var rounded: Nanoseconds {
    let (whole, attoseconds) = components
    let (product, overflow) = UInt64(max(0, whole)).multipliedReportingOverflow(by: 1_000_000_000)
    return Nanoseconds(
      rawValue: overflow ? .max : product + UInt64(max(0, attoseconds)) / 1_000_000_000)
  }

  /// With decimals.
  var seconds: Double {
    let (whole, attoseconds) = components
    return Double(whole) + Double(attoseconds) / 1e18
  }
}
