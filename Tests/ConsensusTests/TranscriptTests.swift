// Whole stories as text: commands and all that the nodes order and say, in `Scenarios/*.txt`.
// `SKEIN_REWRITE=1 swift test --filter TranscriptTests` writes the files anew; the change is then
// reviewed as a diff.
//
//   > command          what is done; the lines after it are what happened
//   # remark
//   1>2 message        node 1 sends to node 2
//   1 order            node 1 orders

import Base
import Foundation
import Testing

@testable import Consensus

/// Carries out the commands of a transcript on a simulated cluster.
final class Transcript {
  private var cluster = SimulatedCluster(voters: [])

  /// The transcript with the output of its commands as it is now.
  func replay(_ text: String) -> String {
    var lines: [String] = []
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      if line.hasPrefix("> ") {
        lines.append(String(line))
        lines += run(line.dropFirst(2).split(separator: " ").map(String.init))
      } else if line.isEmpty || line.hasPrefix("#") {
        lines.append(String(line))
      }
    }
    return lines.joined(separator: "\n")
  }

  private func run(_ words: [String]) -> [String] {
    cluster.trace = []
    var numbers = words.dropFirst().compactMap { UInt32($0) }
    if words[0] == "cluster" {
      cluster = SimulatedCluster(voters: numbers)
      return []
    }
    let id = NodeID(numbers.isEmpty ? 0 : numbers.removeFirst())
    let rest = numbers
    switch words[0] {
    case "settle": cluster.settle()
    case "lose": cluster.messages = []
    case "advance": cluster.run(milliseconds: UInt64(id.rawValue))
    case "timeout": timeOut(id)
    case "elect": elect(id)
    case "propose": for _ in 0..<(rest.first ?? 1) { cluster.propose(id) }
    case "cut": for other in rest { cluster.cut(id, NodeID(other)) }
    case "isolate": cluster.isolate(id)
    case "heal": cluster.cuts = []
    case "hold": cluster[id].holdsStorage = true
    case "release": cluster[id].holdsStorage = false
    case "crash": cluster.crash(id)
    case "restart": cluster.restart(id)
    case "damage": cluster.damage(id, keep: Int(rest[0]))
    case "wipe": cluster.wipe(id, membership: cluster[id].consensus.membership)
    case "snapshot": cluster.snapshot(id)
    case "transfer": attempt { try cluster.transfer(id, to: rest.first.map { NodeID($0) }) }
    case "member": member(id, words)
    case "one-entry-messages": cluster.entriesPerMessageMax = 1
    case "lead": lead(id)
    case "disk": while !cluster[id].pending.isEmpty { cluster.completeStorage(id) }
    case "term": cluster[id].disk.hardState = HardState(term: Term(UInt64(rest[0])))
    case "step": for _ in 0..<id.rawValue { step() }
    case "status": status()
    default: cluster.note("unknown command \(words[0])")
    }
    // What repeats itself within a command, such as heartbeats, is shown once.
    var seen: Set<String> = []
    return cluster.trace!.filter { seen.insert($0).inserted } + cluster.problems
  }

  /// One message or disk order.
  private func step() {
    if let id = cluster.running.first(where: {
      !cluster[$0].holdsStorage && !cluster[$0].pending.isEmpty
    }) {
      cluster.completeStorage(id)
    } else if !cluster.messages.isEmpty {
      cluster.deliver(at: 0)
    }
  }

  /// The election timeout of one node passes at this moment.
  private func timeOut(_ id: NodeID) {
    cluster[id].consensus.electionDeadline = cluster.now
    cluster.tick(id)
  }

  /// One node is elected, whatever came before.
  private func elect(_ id: NodeID) {
    cluster.now = cluster.now + .seconds(1)
    cluster.tick(id)
    cluster.settle()
  }

  /// The same, stopping at the moment when it leads.
  private func lead(_ id: NodeID) {
    for _ in 0..<3 where !cluster[id].consensus.isLeader {
      cluster.now = cluster.now + .seconds(1)
      cluster.tick(id)
      while !cluster[id].consensus.isLeader,
        !cluster.messages.isEmpty
          || cluster.running.contains(where: { !cluster[$0].pending.isEmpty })
      { step() }
    }
  }

  private func attempt(_ body: () throws -> Void) {
    do { try body() } catch { cluster.note("refused: \(error)") }
  }

  private func member(_ id: NodeID, _ words: [String]) {
    let target = NodeID(UInt32(words[3]) ?? 0)
    attempt {
      switch words[2] {
      case "add":
        if cluster.nodes[target] == nil {
          cluster.addNode(target)
          cluster.connectAll()
        }
        try cluster.change(
          id,
          .addLearner(
            id: target, peerAddress: "peer\(target)", clientAddress: "client\(target)"))
      case "promote": try cluster.change(id, .promote(target))
      default: try cluster.change(id, .remove(target))
      }
    }
  }

  private func status() {
    for id in cluster.ids {
      let node = cluster[id]
      guard node.isRunning else {
        cluster.note("\(id) stopped, disk ends at \(node.disk.last)")
        continue
      }
      let role = "\(node.consensus.role)"
      let leader = node.consensus.leader.map { "\($0)" } ?? "unknown"
      cluster.note(
        "\(id) \(role) term \(node.consensus.term) leader \(leader) last "
          + "\(node.consensus.lastPosition) commit \(node.consensus.commit) "
          + "members \(describe(node.consensus.membership))"
          + (node.consensus.canVote ? "" : " may not vote")
          + (node.consensus.hardState.floor == .zero
            ? "" : " floor \(node.consensus.hardState.floor)"))
    }
  }
}

@Suite struct TranscriptTests {
  static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(
    path: "Scenarios")

  @Test(
    "transcripts",
    arguments: [
      "old-term-commit", "partitioned-leader", "removed-leader", "disruptive-rejoin", "transfer",
      "learner-promotion", "snapshot-interrupted", "damaged-node", "wiped-node",
    ])
  func transcript(name: String) throws {
    let file = Self.folder.appending(path: "\(name).txt")
    let expected = try String(contentsOf: file, encoding: .utf8)
    let actual = Transcript().replay(expected)
    if ProcessInfo.processInfo.environment["SKEIN_REWRITE"] == "1" {
      try actual.write(to: file, atomically: true, encoding: .utf8)
      return
    }
    let pairs = zip(
      expected.split(separator: "\n", omittingEmptySubsequences: false),
      actual.split(separator: "\n", omittingEmptySubsequences: false))
    let difference = pairs.enumerated().first { $0.element.0 != $0.element.1 }
    #expect(
      expected == actual,
      """
      \(name).txt line \((difference?.offset ?? 0) + 1): expected "\(difference?.element.0 ?? "")", \
      got "\(difference?.element.1 ?? "")"; SKEIN_REWRITE=1 swift test --filter TranscriptTests
      """)
  }
}
