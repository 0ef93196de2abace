// `skein cluster up`: a cluster on this machine, made if there is none, started where it stands.

import Base
import Glibc
import Server

enum ClusterUp {
  static let command = Command(
    path: ["cluster", "up"], summary: "start a cluster on this machine and wait for its leader",
    options: [
      Option("nodes", "N", "how many nodes a new cluster has (default 3)"),
      .directory,
      Option(
        "base-port", "PORT", "node N of a new cluster takes clients at PORT + N (default 7400)"),
      Option("timeout", "TIME", "wait this long for a leader (default 30s)"),
      .json,
    ],
    details: """
      Nodes that run are left alone, nodes that do not are started again on their data. The
      configurations, data, logs and process ids are in the directory; peers use the ports 50 above
      those for clients.
      """,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let cluster = try LocalCluster(
      directory: arguments.text("dir") ?? LocalCluster.standardDirectory)
    let timeout =
      try arguments.duration("timeout", in: .milliseconds(1) ... .seconds(3600)) ?? .seconds(30)
    try prepare(cluster, arguments)
    try await cluster.locked { try await start(cluster) }
    try await cluster.waitForLeader(atMost: timeout)
    return try await Status.show(cluster, arguments)
  }

  /// Writes the configurations of a new cluster, or checks that the one here is what was asked for.
  private static func prepare(_ cluster: LocalCluster, _ arguments: Arguments) throws {
    let count = try arguments.count("nodes", in: 1...LocalCluster.nodesMax)
    let port = try arguments.count("base-port", in: 1...65_400)
    let present = try cluster.nodes()
    guard !present.isEmpty else {
      try cluster.create(nodes: Int(count ?? 3), basePort: UInt16(port ?? 7400))
      return
    }
    if let count, Int(count) != present.count {
      throw arguments.usage(
        "\(cluster.directory) holds a cluster of \(present.count) nodes already (skein cluster add"
          + " adds one, skein cluster down --wipe removes all)")
    }
    if let port, try cluster.basePort() != UInt16(port) {
      throw arguments.usage("\(cluster.directory) holds a cluster with other ports already")
    }
  }

  /// Starts what does not run, after a look at all ports, so that nothing is half started.
  private static func start(_ cluster: LocalCluster) async throws {
    let stopped = try cluster.nodes().filter { cluster.process(of: $0) == nil }
    // One that somebody has just killed may still hold its ports.
    _ = try await LocalCluster.wait(atMost: .seconds(10)) {
      stopped.allSatisfy { cluster.lastProcess(of: $0)?.hasLeft ?? true }
    }
    for node in stopped { try checkPorts(cluster.configuration(node)) }
    for node in stopped { _ = try cluster.start(node) }
  }

  static func checkPorts(_ configuration: ServerConfiguration) throws {
    guard let fault = configuration.addressFaults().first else { return }
    let advice = fault.isInUse ? "; --base-port chooses others for a new cluster" : ""
    throw Failure("node \(configuration.node): \(fault)\(advice)")
  }
}
