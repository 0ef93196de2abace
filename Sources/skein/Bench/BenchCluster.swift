// The cluster that a measurement starts for itself and removes behind, however it ends.

import Base
import Glibc
import Server

enum BenchCluster {
  /// Starts a cluster in a new directory, runs `body`, stops it and removes everything.
  static func with<Result: Sendable>(
    _ settings: BenchSettings, _ body: (LocalCluster) async throws -> Result
  ) async throws -> Result {
    let directory = try makeDirectory(settings)
    let cluster = try LocalCluster(directory: directory)
    do {
      try cluster.create(nodes: settings.nodes, basePort: try basePort(settings))
      for node in try cluster.nodes() {
        try ClusterUp.checkPorts(cluster.configuration(node))
        _ = try cluster.start(node)
      }
      try await cluster.waitForLeader(atMost: .seconds(30))
      let result = try await body(cluster)
      try await remove(cluster)
      return result
    } catch {
      do {
        try await remove(cluster)
      } catch let second {
        StandardError.write("skein: \(directory) is not removed: \(second)\n")
      }
      throw error
    }
  }

  /// A new directory of our own.
  static func makeDirectory(_ settings: BenchSettings) throws -> String {
    let place = settings.directory ?? Terminal.environment("TMPDIR") ?? "/var/tmp"
    try Files.makeDirectory(place)
    // mkdtemp(3) wants six of them, to be replaced.
    let blank = String(repeating: "X", count: 6)
    var path = Array("\(place)/skein-bench-\(blank)".utf8CString)
    guard mkdtemp(&path) != nil else { throw Failure.system(place) }
    return String(decoding: path.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Also when this task was cancelled: in a task of its own, which is not.
  private static func remove(_ cluster: LocalCluster) async throws {
    try await Task {
      _ = try await ClusterDown.stop(cluster, try cluster.nodes())
      try Files.remove(cluster.directory)
    }.value
  }

  /// Ports that nobody has, below those that the kernel gives to connections.
  private static func basePort(_ settings: BenchSettings) throws -> UInt16 {
    if let port = settings.basePort { return port }
    for _ in 0..<100 {
      let port = UInt16.random(in: 200...310) * 100
      let areFree = (1...settings.nodes).allSatisfy { node in
        isFree(Int(port) + node) && isFree(Int(port) + node + 50)
          && isFree(Int(port) + node + 80)
      }
      if areFree { return port }
    }
    throw Failure("no free ports were found; --base-port chooses some")
  }

  private static func isFree(_ port: Int) -> Bool {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    var one: Int32 = 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, 4)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(port).bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    // SAFETY: a sockaddr_in is what the kernel reads as a sockaddr of its family.
    return withUnsafePointer(to: address) { own in
      own.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
  }
}
