// Nothing that depends on a term or a vote is said before they are on disk (§3.4, figure 3.1; §3.8).

import Base

/// A reply that waits for the hard state to be durable.
struct HeldReply {
  let to: NodeID
  let message: PeerMessage
}

extension Consensus {
  /// How many replies to votes may wait for the disk; the eldest is forgotten beyond that, and
  /// whoever asked asks again.
  static let heldRepliesMax = 64

  var isHardStateDurable: Bool { pendingHardStates.isEmpty && hardState == lastOrderedHardState }

  /// Orders the hard state to the disk if it changed. Called before anything that relies on it is
  /// ordered, and at the end of every input.
  mutating func orderHardState(_ output: inout [ConsensusOutput]) {
    guard hardState != lastOrderedHardState else { return }
    lastOrderedHardState = hardState
    pendingHardStates.append(hardState)
    output.append(.persistHardState(hardState))
  }

  /// `state`, once ordered, is on disk, and all that was ordered before it.
  package mutating func hardStatePersisted(
    _ state: HardState, now: MonotonicTime, into output: inout [ConsensusOutput]
  ) {
    guard let place = pendingHardStates.firstIndex(of: state) else {
      invariant(false, "hard state \(state) persisted but not ordered: \(pendingHardStates)")
      return
    }
    pendingHardStates.removeSubrange(...place)
    finish(now, &output)
  }

  mutating func reply(to peer: NodeID, _ message: PeerMessage, _ output: inout [ConsensusOutput]) {
    if isHardStateDurable {
      output.append(.send(to: peer, message))
      return
    }
    heldReplies.removeAll { $0.to == peer && $0.message.isSameKind(as: message) }
    if heldReplies.count == Self.heldRepliesMax { heldReplies.removeFirst() }
    heldReplies.append(HeldReply(to: peer, message: message))
  }

  mutating func releaseHeld(_ now: MonotonicTime, _ output: inout [ConsensusOutput]) {
    guard isHardStateDurable else { return }
    if !heldReplies.isEmpty {
      for held in heldReplies { output.append(.send(to: held.to, held.message)) }
      heldReplies.removeAll()
    }
    releaseAppendReply(&output)
    maybeReportVoteRestored(&output)
    if role == .candidate, !tally.isAsked {
      askForVotes(now, &output)
      orderHardState(&output)
    }
  }
}

extension PeerMessage {
  fileprivate func isSameKind(as other: PeerMessage) -> Bool {
    switch (self, other) {
    case (.voteReply, .voteReply), (.preVoteReply, .preVoteReply),
      (.appendReply, .appendReply), (.snapshotReply, .snapshotReply):
      true
    default: false
    }
  }
}
