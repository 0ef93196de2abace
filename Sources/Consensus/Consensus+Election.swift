// Elections: pre-vote, vote, and the rules by which both are granted (§3.4, §3.6.1, §4.2.3, §9.6).

import Base

/// The answers in an election or pre-vote of ours.
struct Tally {
  var granted: [NodeID] = []
  var refused: [NodeID] = []
  /// The vote requests are out: our own vote is on disk.
  var isAsked = false
  /// The leader handed over to us.
  var isTransfer = false
  /// Begun because the leader's connection closed: others begin at the same moment, and of two the
  /// one with the longer log, then the higher id, goes first.
  var isRush = false
}

extension Consensus {
  /// Whether this node may try to become leader. Also one whose removal is in its log and not known
  /// to be committed: it may be the only one that has that entry, and with its longer log vote for
  /// nobody else (§4.2.2). It does not count itself then.
  var canCampaign: Bool {
    (membership.isVoter(id) || membership(at: commit).isVoter(id)) && recovery == nil && canLead
      && lastPosition >= hardState.floor
      && (receipt.map { !$0.isComplete } ?? true)
  }

  /// The damaged entries are repaired: this node can serve all of its log.
  package mutating func allowLeading() { canLead = true }

  /// What a candidate's log must reach: also what this node once acknowledged and lost (G11).
  private var voteBar: LogPosition { max(lastPosition, hardState.floor) }

  /// The rule against disturbing a live leader (§4.2.3): this node leads, or heard of the leader
  /// within the shortest election timeout and its connection is not known to have closed.
  func hearsLeader(_ now: MonotonicTime) -> Bool {
    switch role {
    case .leader: true
    case .preCandidate, .candidate: false
    case .follower:
      leader != nil && !following.isLeaderLost
        && now.since(following.lastContact) < configuration.electionTimeoutMin
    }
  }

  mutating func electionTimedOut(_ now: MonotonicTime, _ output: inout [ConsensusOutput]) {
    electionDeadline = now + randomElectionTimeout()
    guard canCampaign else {
      if role != .follower { abandonElection() }
      return setLeader(nil, &output)
    }
    becomePreCandidate(now, &output)
  }

  /// At once, but for a small random wait: the other followers saw the same.
  mutating func leaderConnectionClosed(_ now: MonotonicTime) {
    following.isLeaderLost = true
    let soon = now + randomSpan(.zero, configuration.disconnectStagger)
    electionDeadline = min(electionDeadline, soon)
  }

  // MARK: Pre-vote

  private mutating func becomePreCandidate(
    _ now: MonotonicTime, _ output: inout [ConsensusOutput]
  ) {
    tally = Tally(granted: [id], isRush: role == .follower && following.isLeaderLost)
    role = .preCandidate
    setLeader(nil, &output)
    guard !hasWon else { return becomeCandidate(isTransfer: false, now, &output) }
    for voter in membership.voters where voter != id {
      output.append(.send(to: voter, preVoteRequest))
    }
  }

  private var preVoteRequest: PeerMessage {
    .preVote(VoteRequest(term: term.next, last: lastPosition))
  }

  mutating func receivePreVote(
    _ request: VoteRequest, from peer: NodeID, _ now: MonotonicTime,
    _ output: inout [ConsensusOutput]
  ) {
    var isGranted =
      recovery == nil && request.term > term && request.last >= voteBar && !hearsLeader(now)
    let isRival = role == .preCandidate && request.term > term
    if isRival, isGranted, tally.isRush {
      let isOurTurn = (lastPosition, id) > (request.last, peer)
      if isOurTurn { isGranted = false } else { abandonElection() }
    }
    if isRival, !isGranted {
      // It may have refused us while it still heard the leader, as it does no more: two that asked each
      // other just once would both wait for an election timeout.
      askAgain(peer, &output)
    }
    if isGranted {
      // Leave the other one the time to win.
      electionDeadline = max(electionDeadline, now + configuration.heartbeatInterval)
    }
    let answer = VoteReply(term: isGranted ? request.term : term, isGranted: isGranted)
    reply(to: peer, .preVoteReply(answer), &output)
  }

  mutating func receivePreVoteReply(
    _ reply: VoteReply, from peer: NodeID, _ now: MonotonicTime, _ output: inout [ConsensusOutput]
  ) {
    if !reply.isGranted, reply.term > term {
      let wasAsking = role == .preCandidate
      becomeFollower(in: reply.term, leader: nil, now, &output)
      if wasAsking { retryElectionSoon(now) }
      return
    }
    guard role == .preCandidate, !reply.isGranted || reply.term == term.next else { return }
    count(reply.isGranted, of: peer)
    if hasWon {
      becomeCandidate(isTransfer: false, now, &output)
    } else if hasLost {
      abandonElection()
      retryElectionSoon(now)
    }
  }

  // MARK: Vote

  mutating func becomeCandidate(
    isTransfer: Bool, _ now: MonotonicTime, _ output: inout [ConsensusOutput]
  ) {
    role = .candidate
    setLeader(nil, &output)
    enterTerm(term.next)
    hardState.vote = id
    tally = Tally(isTransfer: isTransfer)
    electionDeadline = now + randomElectionTimeout()
  }

  /// Our own vote is on disk and may be counted, and the others' asked for. Not before: after a
  /// crash we could stand again in the same term with a shorter log, and old votes would count.
  mutating func askForVotes(_ now: MonotonicTime, _ output: inout [ConsensusOutput]) {
    tally.isAsked = true
    tally.granted = [id]
    guard !hasWon else { return becomeLeader(now, &output) }
    for voter in membership.voters where voter != id {
      output.append(.send(to: voter, voteRequest))
    }
  }

  private var voteRequest: PeerMessage {
    .vote(VoteRequest(term: term, last: lastPosition, isTransfer: tally.isTransfer))
  }

  /// A peer that came back while we wait for votes has not got our question; one that asks itself may answer
  /// otherwise now.
  mutating func askAgain(_ peer: NodeID, _ output: inout [ConsensusOutput]) {
    guard membership.isVoter(peer), !tally.granted.contains(peer) else { return }
    if role == .preCandidate {
      output.append(.send(to: peer, preVoteRequest))
    } else if role == .candidate, tally.isAsked {
      output.append(.send(to: peer, voteRequest))
    }
  }

  mutating func receiveVote(
    _ request: VoteRequest, from peer: NodeID, _ now: MonotonicTime,
    _ output: inout [ConsensusOutput]
  ) {
    guard request.term > .zero else { return }
    let isDisturbance = hearsLeader(now) && !request.isTransfer
    if request.term > term, !isDisturbance {
      becomeFollower(in: request.term, leader: nil, now, &output)
    }
    let isGranted =
      request.term == term && !isDisturbance && role == .follower && recovery == nil
      && leader == nil && (hardState.vote ?? peer) == peer && request.last >= voteBar
    if isGranted {
      hardState.vote = peer
      electionDeadline = now + randomElectionTimeout()
    }
    reply(to: peer, .voteReply(VoteReply(term: term, isGranted: isGranted)), &output)
  }

  mutating func receiveVoteReply(
    _ reply: VoteReply, from peer: NodeID, _ now: MonotonicTime, _ output: inout [ConsensusOutput]
  ) {
    if reply.term > term { return becomeFollower(in: reply.term, leader: nil, now, &output) }
    guard role == .candidate, tally.isAsked, reply.term == term || !reply.isGranted else { return }
    count(reply.isGranted, of: peer)
    if hasWon {
      becomeLeader(now, &output)
    } else if hasLost {
      abandonElection()
      retryElectionSoon(now)
    }
  }

  // MARK: Counting

  private mutating func count(_ isGranted: Bool, of peer: NodeID) {
    tally.granted.removeAll { $0 == peer }
    tally.refused.removeAll { $0 == peer }
    guard membership.isVoter(peer) else { return }
    if isGranted { tally.granted.append(peer) } else { tally.refused.append(peer) }
  }

  private var hasWon: Bool {
    tally.granted.count { membership.isVoter($0) } >= membership.quorum
  }

  private var hasLost: Bool {
    membership.voters.count - tally.refused.count < membership.quorum
  }

  private mutating func abandonElection() {
    role = .follower
    tally = Tally()
  }

  /// The election was lost although nobody leads: sooner than a whole timeout, since a pre-vote
  /// disturbs nobody.
  private mutating func retryElectionSoon(_ now: MonotonicTime) {
    let pause = randomSpan(configuration.heartbeatInterval, configuration.electionTimeoutMin)
    electionDeadline = now + pause
  }

  // MARK: Terms

  mutating func enterTerm(_ term: Term) {
    invariant(term > hardState.term, "term \(term) after \(hardState.term)")
    hardState.term = term
    hardState.vote = nil
    heldReplies.removeAll(keepingCapacity: true)
    following = Following(verified: commit)
  }

  /// Follows in `term`, which is this one or a later one.
  mutating func becomeFollower(
    in term: Term, leader: NodeID?, _ now: MonotonicTime, _ output: inout [ConsensusOutput]
  ) {
    let former = role
    if term > hardState.term { enterTerm(term) }
    role = .follower
    tally = Tally()
    if former == .leader {
      stopLeading(&output)
      following = Following(verified: commit)
      output.append(.becameFollower(term))
    }
    if former == .leader || former == .candidate {
      electionDeadline = now + randomElectionTimeout()
    }
    if leader != self.leader || leader == nil { setLeader(leader, &output) }
  }
}
