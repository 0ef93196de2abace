// Messages and orders as short lines for traces and transcripts.

import Base

@testable import Consensus

func describe(_ message: PeerMessage) -> String {
  switch message {
  case .preVote(let request): "pre-vote? term \(request.term) last \(request.last)"
  case .preVoteReply(let reply): "pre-vote \(reply.isGranted ? "yes" : "no") term \(reply.term)"
  case .vote(let request):
    "vote? term \(request.term) last \(request.last)\(request.isTransfer ? " transfer" : "")"
  case .voteReply(let reply): "vote \(reply.isGranted ? "yes" : "no") term \(reply.term)"
  case .append(let request): describe(request)
  case .appendReply(let reply): describe(reply)
  case .snapshot(let chunk):
    "snapshot term \(chunk.term) through \(chunk.last) bytes \(chunk.offset)+\(chunk.byteCount)"
      + (chunk.isLast ? " end" : "")
  case .snapshotReply(let reply):
    "snapshot-reply term \(reply.term) through \(reply.last) "
      + (reply.isInstalled ? "installed" : "has \(reply.received)")
  case .timeoutNow(let term): "timeout-now term \(term)"
  }
}

private func describe(_ request: AppendRequest) -> String {
  let entries = request.entries.map { entry in
    switch entry.kind {
    case .begin: "\(entry.position)b"
    case .commands: "\(entry.position)"
    case .membership: "\(entry.position)m"
    }
  }
  let what = entries.isEmpty ? "heartbeat" : "append [\(entries.joined(separator: " "))]"
  return "\(what) term \(request.term) after \(request.previous) commit \(request.commit)"
}

private func describe(_ reply: AppendReply) -> String {
  switch reply.outcome {
  case .accepted(let match, let verified):
    "accepted term \(reply.term) match \(match) verified \(verified)"
  case .rejected(let previous, let hint):
    "rejected term \(reply.term) after \(previous) hint \(hint)"
  }
}

func describe(_ state: HardState) -> String {
  "term \(state.term) vote \(state.vote.map { "\($0)" } ?? "none")"
    + (state.floor == .zero ? "" : " floor \(state.floor)")
}

func describe(_ membership: Membership) -> String {
  "(" + membership.members.map { "\($0.id)\($0.isLearner ? "*" : "")" }.joined(separator: " ") + ")"
}

func describe(_ order: ConsensusOutput) -> String {
  switch order {
  case .persistHardState(let state): "persist \(describe(state))"
  case .truncateLog(let index): "truncate from \(index)"
  case .appendEntries(let first, let last): "append \(first)...\(last)"
  case .send(let peer, let message): "send \(peer) \(describe(message))"
  case .commit(let index): "commit \(index)"
  case .becameLeader(let begin): "leads, begin \(begin)"
  case .becameFollower(let term): "leads no more, term \(term)"
  case .leaderChanged(let leader): "leader is \(leader.map { "\($0)" } ?? "unknown")"
  case .membershipChanged(let membership, let index):
    "members \(describe(membership)) at \(index)"
  case .removedFromCluster: "is removed"
  case .contradicted(let index): "is contradicted at \(index)"
  case .receiveSnapshotChunk(let chunk):
    "store snapshot through \(chunk.last) bytes \(chunk.offset)+\(chunk.byteCount)"
  case .readReady(_, let index): "read ready at \(index)"
  case .readFailed: "read failed"
  case .transferAbandoned(let target): "transfer to \(target) abandoned"
  case .voteRestored: "may vote again"
  case .floorCleared: "has all it acknowledged"
  }
}
