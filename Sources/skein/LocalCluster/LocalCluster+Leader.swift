// Who leads a local cluster, and waiting until somebody does.

import Base
import Server

extension LocalCluster {
  /// How often a cluster that starts is asked.
  private static let interval = Duration.milliseconds(5)

  /// The node that the first operand names: a number of one here, or `leader`.
  func node(_ arguments: Arguments) async throws -> NodeID {
    if arguments.operands.first == "leader", arguments.command.operands[0].name != "N" {
      guard let leader = try await leader() else { throw Failure("no node leads at the moment") }
      return leader
    }
    guard let node = try arguments.nodeOperand(0) else {
      throw arguments.usage("\(arguments.command.operands[0].name) is missing")
    }
    try check(node, arguments)
    return node
  }

  /// The node here that leads now, and is up.
  func leader() async throws -> NodeID? {
    let report = await StatusQuestion(endpoints: try endpoints(), timeout: .seconds(1)).ask(
      queues: false)
    guard let leader = report.leader.map({ NodeID(UInt32($0)) }), process(of: leader) != nil else {
      return nil
    }
    return leader
  }

  /// Returns as soon as a node leads.
  /// - Throws: `Failure` when the time is up, or, with the end of its log, when a node ended.
  func waitForLeader(atMost limit: Nanoseconds) async throws {
    let start = ContinuousClock.now
    let question = StatusQuestion(endpoints: try endpoints(), timeout: .milliseconds(200))
    while true {
      let report = await question.ask(queues: false)
      if let leader = report.leader,
        report.nodes.contains(where: { $0.id == leader && $0.status?.role == .leader })
      {
        return
      }
      for node in try nodes() where process(of: node) == nil {
        throw Failure("node \(node) ended:\n\(try logEnd(node))")
      }
      if ContinuousClock.now - start > Duration(limit) {
        throw Failure("no leader after \(DurationText.format(limit)); see \(directory)/logs")
      }
      try await Task.sleep(for: LocalCluster.interval)
    }
  }

  /// The last lines that `node` logged.
  private func logEnd(_ node: NodeID) throws -> String {
    let lines = String(decoding: try SmallFile.read(logFile(node)), as: UTF8.self).split(
      separator: "\n")
    // A crash report may follow what the node itself said.
    let own = lines.filter { $0.contains(" node \(node) ") || $0.hasPrefix("skein: ") }
    return (own.isEmpty ? lines : own).suffix(3).joined(separator: "\n")
  }
}
