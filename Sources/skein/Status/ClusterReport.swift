// What all members of a cluster said at one moment, put together: who leads, who is missing, how
// much more may fail, and what looks wrong. Pure: StatusQuestion asks.

import SkeinClient

struct ClusterReport: Sendable {
  /// One member, or an endpoint that was given and did not answer.
  struct Node: Sendable {
    /// Nil where only the address is known.
    let id: Int?
    /// For clients.
    let address: String
    /// False for a learner, and for one that is no member.
    let votes: Bool
    /// Nil if it did not answer.
    let status: NodeOverview?
    /// Why it did not answer.
    var failure: String = ""
  }

  /// By id, ascending.
  var nodes: [Node]
  /// By name; nil while nobody can say.
  var queues: [QueueOverview]?

  /// The leader: what the answering node with the highest term says of itself or of another.
  var leader: Int? {
    let answers = nodes.compactMap(\.status)
    let newest = answers.map(\.term).max()
    if let own = answers.first(where: { $0.role == .leader && $0.term == newest }) { return own.id }
    return answers.first { $0.term == newest && $0.leader != nil }?.leader
  }

  var term: UInt64 { nodes.compactMap(\.status?.term).max() ?? 0 }

  /// How many voters may still fail before nothing can be confirmed any more; below 0, that many
  /// are missing. Nil while nobody answers: then it is not known who belongs to the cluster.
  var margin: Int? {
    guard nodes.contains(where: { $0.status != nil }) else { return nil }
    let voters = nodes.filter(\.votes)
    let alive = voters.count { $0.status != nil && $0.status?.role != .stopped }
    return alive - (voters.count / 2 + 1)
  }

  /// How many entries `node` has yet to get, by what the leader knows; nil where nobody knows.
  func lag(of node: Int?) -> UInt64? {
    guard let node, let leader, let status = nodes.first(where: { $0.id == leader })?.status else {
      return nil
    }
    if node == leader { return 0 }
    return status.peers.first { $0.id == node }?.lag
  }

  /// Everything that is not as it should be, as sentences.
  var problems: [String] {
    var problems: [String] = []
    if margin == nil {
      problems.append("no node answers")
    } else if leader == nil {
      problems.append("no node leads")
    }
    if let margin, margin < 0 {
      problems.append("no quorum: \(-margin) more \(margin == -1 ? "node" : "nodes") must be up")
    }
    for node in nodes {
      let name = node.id.map { "node \($0)" } ?? node.address
      guard let status = node.status else {
        problems.append("\(name) is down" + (node.failure.isEmpty ? "" : ": \(node.failure)"))
        continue
      }
      for problem in status.problems { problems.append("\(name): \(problem)") }
    }
    return problems + divergence
  }

  /// Nodes whose states differ after the same entry (G14).
  private var divergence: [String] {
    var hashes: [UInt64: NodeOverview] = [:]
    var problems: [String] = []
    for status in nodes.compactMap(\.status) where status.stateHashIndex > 0 {
      guard let other = hashes[status.stateHashIndex] else {
        hashes[status.stateHashIndex] = status
        continue
      }
      if other.stateHash != status.stateHash {
        problems.append(
          "nodes \(other.id) and \(status.id) differ in their state after entry"
            + " \(status.stateHashIndex)")
      }
    }
    return problems
  }
}
