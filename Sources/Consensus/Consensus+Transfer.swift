// Leadership transfer (§3.10): stop proposing, bring the target up to date, let it begin an
// election at once. Used on a graceful stop and when the leader is removed.

import Base

struct LeadershipTransfer {
  let target: NodeID
  /// Given up then, and this node leads on.
  let deadline: MonotonicTime
  var isSent = false
}

/// Why leadership was not handed over. Nothing happened.
package enum TransferError: Error, Hashable, Sendable {
  /// This node does not lead.
  case notLeader
  /// A transfer is under way already.
  case alreadyTransferring(to: NodeID)
  /// Not a voter other than this node.
  case notVoter(NodeID)
  /// The target has no connection.
  case notConnected(NodeID)
  /// No target was named and no other voter is connected.
  case nobody
}

extension Consensus {
  /// Hands leadership to `target`, or to the connected voter whose log is longest. Nothing is
  /// proposed until that succeeded (`becameFollower`) or failed (`transferAbandoned`).
  package mutating func transferLeadership(
    to target: NodeID?, now: MonotonicTime, into output: inout [ConsensusOutput]
  ) throws(TransferError) {
    guard role == .leader else { throw .notLeader }
    if let transfer = leading.transfer { throw .alreadyTransferring(to: transfer.target) }
    if let target {
      guard target != id, membership.isVoter(target) else { throw .notVoter(target) }
      guard connected.contains(target) else { throw .notConnected(target) }
    }
    guard let heir = target ?? bestHeir() else { throw .nobody }
    leading.transfer = LeadershipTransfer(
      target: heir, deadline: now + configuration.electionTimeoutMax)
    maybeFinishTransfer(to: heir, &output)
    finish(now, &output)
  }

  /// Whether leadership is being handed over, so that nothing can be proposed.
  package var isHandingOver: Bool { role == .leader && leading.transfer != nil }

  /// The connected voter that has most of the log.
  func bestHeir() -> NodeID? {
    let heirs = progress.filter { $0.isConnected && membership.isVoter($0.id) }
    return heirs.max { ($0.match, $1.id) < ($1.match, $0.id) }?.id
  }

  mutating func maybeFinishTransfer(to peer: NodeID, _ output: inout [ConsensusOutput]) {
    guard let transfer = leading.transfer, transfer.target == peer, !transfer.isSent,
      let place = progressPlace(peer), progress[place].match == log.last
    else { return }
    leading.transfer?.isSent = true
    output.append(.send(to: peer, .timeoutNow(term)))
  }

  mutating func maybeAbandonTransfer(_ now: MonotonicTime, _ output: inout [ConsensusOutput]) {
    guard let transfer = leading.transfer, now >= transfer.deadline else { return }
    leading.transfer = nil
    output.append(.transferAbandoned(transfer.target))
  }

  /// The leader of this term hands over to us: no pre-vote, and no lease stands in the way.
  mutating func receiveTimeoutNow(
    _ term: Term, from peer: NodeID, _ now: MonotonicTime, _ output: inout [ConsensusOutput]
  ) {
    guard term == self.term, role == .follower, leader == peer, canCampaign else { return }
    becomeCandidate(isTransfer: true, now, &output)
  }
}
