// A cluster of this machine, kept in one directory (`.skein`):
//
//     lock             held while nodes are added, started or stopped
//     node-1.json      configuration
//     node-1.pid       process id of the running node
//     node-1/          log, snapshots and hard state
//     logs/node-1.log  what the node had to say
//
// A node that was removed leaves node-1.removed.json behind, so that its number is never used again.

import Base
import Glibc
import Server
import Transport

struct LocalCluster: Sendable {
  /// Absolute and without symbolic links, so that a node's command line can be recognised.
  let directory: String

  static let standardDirectory = ".skein"

  /// The cluster in `path`, which need not exist yet.
  init(directory path: String) throws {
    // SAFETY: realpath with a null buffer allocates the result, which is freed here.
    if let resolved = realpath(path, nil) {
      directory = String(cString: resolved)
      free(resolved)
    } else {
      directory = try SmallFile.absolute(path)
    }
  }

  /// The cluster that `--dir` names, which must exist.
  static func existing(_ arguments: Arguments) throws -> LocalCluster {
    let path = arguments.text("dir") ?? standardDirectory
    let cluster = try LocalCluster(directory: path)
    guard try !cluster.nodes().isEmpty else {
      throw Failure("there is no cluster in \(path); skein cluster up starts one")
    }
    return cluster
  }

  func configurationFile(_ node: NodeID) -> String { "\(directory)/node-\(node).json" }
  func removedFile(_ node: NodeID) -> String { "\(directory)/node-\(node).removed.json" }
  func processFile(_ node: NodeID) -> String { "\(directory)/node-\(node).pid" }
  func dataDirectory(_ node: NodeID) -> String { "\(directory)/node-\(node)" }
  func logFile(_ node: NodeID) -> String { "\(directory)/logs/node-\(node).log" }

  /// The nodes that have a configuration here, ascending.
  func nodes() throws -> [NodeID] { try numbers(suffix: ".json") }

  /// The number for the next node: larger than any that was ever used here.
  func nextNode() throws -> NodeID {
    let used = try nodes() + numbers(suffix: ".removed.json")
    return NodeID((used.max()?.rawValue ?? 0) + 1)
  }

  private func numbers(suffix: String) throws -> [NodeID] {
    guard Files.exists(directory) else { return [] }
    return try Files.names(in: directory).compactMap { name in
      guard name.hasPrefix("node-"), name.hasSuffix(suffix) else { return nil }
      return UInt32(name.dropFirst(5).dropLast(suffix.count)).map { NodeID($0) }
    }.sorted()
  }

  func configuration(_ node: NodeID) throws(ConfigurationError) -> ServerConfiguration {
    try ServerConfiguration.read(file: configurationFile(node))
  }

  /// - Throws: `UsageError` that says which nodes there are.
  func check(_ node: NodeID, _ arguments: Arguments) throws {
    let known = try nodes()
    guard !known.contains(node) else { return }
    let list = known.map { "\($0)" }.joined(separator: ", ")
    throw arguments.usage("there is no node \(node) here (there are \(list))")
  }

  /// Runs `body` while no other process starts or stops nodes of this cluster.
  func locked<Result>(_ body: () async throws -> Result) async throws -> Result {
    let descriptor = open("\(directory)/lock", O_CREAT | O_RDWR | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw Failure.system("\(directory)/lock") }
    defer { close(descriptor) }
    while flock(descriptor, LOCK_EX) != 0 {
      guard errno == EINTR else { throw Failure.system("\(directory)/lock") }
    }
    return try await body()
  }
}

extension Failure {
  /// `what` failed for the reason in `errno`.
  static func system(_ what: String) -> Failure {
    Failure("\(what): \(String(cString: strerror(errno)))")
  }
}
