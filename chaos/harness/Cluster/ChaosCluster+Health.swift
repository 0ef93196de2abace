// How the nodes are, asked of themselves.

import Base
import SkeinClient

extension ChaosCluster {
  func overview(of node: Int) async throws(SkeinError) -> NodeOverview {
    try await SkeinClient.status(of: network.directAddress(node), timeout: Self.statusTimeout)
  }

  /// What is still wrong; nil when all members are up, agree on a leader and have caught up.
  func trouble() async -> String? {
    for node in members where nodes[node]?.pid == nil { return "node \(node) does not run" }
    var leader: NodeOverview?
    for node in members {
      let overview: NodeOverview
      do throws(SkeinError) {
        overview = try await self.overview(of: node)
      } catch {
        return "node \(node) does not answer: \(error)"
      }
      if let problem = overview.problems.first { return "node \(node): \(problem)" }
      if overview.role == .leader, overview.term >= leader?.term ?? 0 { leader = overview }
      if overview.role != .leader, overview.role != .follower {
        return "node \(node) is a \(overview.role.rawValue)"
      }
    }
    guard let leader else { return "no node leads" }
    for peer in leader.peers {
      if !peer.isConnected { return "node \(peer.id) is not connected to the leader" }
      if peer.lag > 1000 { return "node \(peer.id) is \(peer.lag) entries behind" }
    }
    if leader.peers.count != members.count - 1 {
      return "the leader knows \(leader.peers.count + 1) members instead of \(members.count)"
    }
    return nil
  }

  /// - Returns: nil once all is well, else what was still wrong when the time was up.
  func waitUntilHealthy(atMost limit: Duration) async -> String? {
    let start = ContinuousClock.now
    while true {
      guard let trouble = await trouble() else { return nil }
      if ContinuousClock.now - start > limit { return trouble }
      do { try await Task.sleep(for: .milliseconds(50)) } catch { return trouble }
    }
  }
}
