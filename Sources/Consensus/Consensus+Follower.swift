// Following: appends are checked against the log, conflicts removed, and acknowledged as far as
// they are on disk (§3.5, figure 3.1).

import Base

/// What a follower knows about its place behind the leader of this term.
struct Following {
  /// Our log agrees with the leader's through here: what it sent in this term, or committed
  /// before. verified <= last.
  var verified: LogIndex
  /// The match that was told to the leader last.
  var acknowledged: LogIndex?
  /// The leader's highest round seen, which replies return.
  var round: UInt64 = 0
  /// A reply that the leader is owed; it waits for the hard state, and the newest replaces it.
  var owed: Owed?
  /// Whether the leader's newest membership has this node; nil until it said so in its term.
  var isMember: Bool?
  /// When we heard of the leader last.
  var lastContact = MonotonicTime(0)
  /// Its connection closed since: the lease on our vote is over.
  var isLeaderLost = false

  enum Owed {
    case accepted
    case rejected(previous: LogIndex, hint: LogPosition)
  }
}

extension Consensus {
  /// Takes over `peer` as the leader of `term`, or answers or drops what is not from one.
  /// True if the message may be acted on.
  mutating func follow(
    _ peer: NodeID, in term: Term, _ now: MonotonicTime, _ output: inout [ConsensusOutput]
  ) -> Bool {
    guard term >= self.term else { return false }
    // One leader a term (§3.2): another in the same term is a forgery.
    if term == self.term, role == .leader || (leader ?? peer) != peer { return false }
    if term > self.term || role != .follower || leader != peer {
      becomeFollower(in: term, leader: peer, now, &output)
      following = Following(verified: commit)
    }
    following.lastContact = now
    following.isLeaderLost = false
    electionDeadline = now + randomElectionTimeout()
    return true
  }

  mutating func receiveAppend(
    _ request: AppendRequest, _ decoded: [MembershipEntry], from peer: NodeID,
    _ now: MonotonicTime, _ output: inout [ConsensusOutput]
  ) {
    if request.term < term {
      // It learns of the newer term and steps down. Should it lead that one by then, this answers none of its
      // rounds, which are numbered anew.
      let outcome = AppendReply.Outcome.rejected(previous: request.previous.index, hint: .zero)
      let answer = AppendReply(term: term, outcome: outcome, round: 0, mayVote: isVoteKept)
      return reply(to: peer, .appendReply(answer), &output)
    }
    guard let brought = Self.memberships(of: request, decoded) else { return }
    guard follow(peer, in: request.term, now, &output) else { return }
    let isNewRound = request.round > following.round
    following.round = max(following.round, request.round)
    following.isMember = request.isMember
    recoveryTold(commit: request.commit, clearsPromises: request.clearsPromises)
    if let receipt, receipt.isComplete {
      // The snapshot that is being put in force replaces the log; what is appended now would go.
      following.owed = .accepted
      return
    }
    if contradicts(request.previous) {
      output.append(.contradicted(request.previous.index))
      return
    }
    guard agrees(at: request.previous) else {
      let hint = log.place(
        atOrBefore: request.previous.index, termAtMost: request.previous.term)
      following.owed = .rejected(previous: request.previous.index, hint: hint)
      return
    }
    guard takeEntries(of: request, brought, &output) else { return }
    advanceCommit(to: min(request.commit, following.verified), now, &output)
    noteRemoval(&output)
    // What is still on its way to the disk is acknowledged from there, many messages by one reply.
    if isNewRound || durableMatch >= request.lastIndex { following.owed = .accepted }
  }

  /// The membership entries of a message with their values; nil if the two do not fit.
  private static func memberships(
    of request: AppendRequest, _ decoded: [MembershipEntry]
  ) -> [MembershipEntry]? {
    let expected = request.entries.lazy.filter { $0.kind == .membership }.map(\.index)
    return expected.elementsEqual(decoded.lazy.map(\.index)) ? decoded : nil
  }

  /// Whether the log has another entry at a place that is committed: no leader of the same cluster
  /// and past can say so.
  private func contradicts(_ previous: LogPosition) -> Bool {
    guard previous.index > .zero, previous.index <= commit,
      let ours = log.term(at: previous.index)
    else { return false }
    return ours != previous.term
  }

  /// Whether the log has `previous`. What is committed is in every later leader's log (§3.6.3).
  private func agrees(at previous: LogPosition) -> Bool {
    previous.index <= commit || log.contains(previous)
  }

  /// Appends what is new, after removing what conflicts. False if the message cannot be taken now
  /// or is garbled: no reply then, the leader sends again.
  private mutating func takeEntries(
    of request: AppendRequest, _ brought: [MembershipEntry], _ output: inout [ConsensusOutput]
  ) -> Bool {
    var known = 0
    for entry in request.entries {
      guard entry.index <= log.last else { break }
      if let ours = log.term(at: entry.index), ours != entry.term {
        // A leader does not change its own entries, and nobody those that are committed.
        guard entry.index > commit, entry.index > following.verified else { return false }
        break
      }
      known += 1
    }
    following.verified = max(following.verified, min(request.previous.index, log.last))
    if known > 0 { following.verified = max(following.verified, request.entries[known - 1].index) }
    if known == request.entries.count { return true }
    let first = request.entries[known].index
    orderHardState(&output)
    if first <= log.last {
      guard unsettledTruncation == nil else { return false }
      truncate(from: first, &output)
    }
    for place in known..<request.entries.count { log.append(request.entries[place].position) }
    output.append(.appendEntries(first: first, last: log.last))
    following.verified = log.last
    for entry in brought where entry.index >= first { addMembership(entry, &output) }
    return true
  }

  private mutating func truncate(from index: LogIndex, _ output: inout [ConsensusOutput]) {
    invariant(index > commit, "truncate from \(index), commit \(commit)")
    if persisted < log.last { unsettledTruncation = index }
    log.truncate(from: index)
    persisted = min(persisted, log.last)
    output.append(.truncateLog(from: index))
    dropMemberships(from: index, &output)
  }

  // MARK: Acknowledging

  /// What this follower may acknowledge: on disk, and known to be the leader's.
  var durableMatch: LogIndex { min(persisted, following.verified) }

  /// The log is on disk through `position`, or was before entries were replaced.
  package mutating func logPersisted(
    through position: LogPosition, now: MonotonicTime, into output: inout [ConsensusOutput]
  ) {
    guard log.contains(position), position.index > persisted else { return }
    persisted = position.index
    if let place = unsettledTruncation, persisted >= place { unsettledTruncation = nil }
    if role == .leader {
      leaderPersisted(now, &output)
    } else if leader != nil, durableMatch > (following.acknowledged ?? .zero) {
      following.owed = .accepted
    }
    finish(now, &output)
  }

  /// Says to the leader what it is owed. Called once the term is on disk. One reply stands for all
  /// before it.
  mutating func releaseAppendReply(_ output: inout [ConsensusOutput]) {
    guard role == .follower, let leader, let owed = following.owed else { return }
    following.owed = nil
    let outcome: AppendReply.Outcome
    switch owed {
    case .accepted:
      following.acknowledged = durableMatch
      outcome = .accepted(match: durableMatch, verified: following.verified)
    case .rejected(let previous, let hint): outcome = .rejected(previous: previous, hint: hint)
    }
    let answer = AppendReply(
      term: term, outcome: outcome, round: following.round, mayVote: isVoteKept)
    output.append(.send(to: leader, .appendReply(answer)))
  }

  /// The log again reaches what was once acknowledged, under a leader (G11).
  mutating func maybeClearFloor(_ output: inout [ConsensusOutput]) {
    guard hardState.floor != .zero, role == .follower, leader != nil,
      let term = log.term(at: durableMatch),
      LogPosition(term: term, index: durableMatch) >= hardState.floor
    else { return }
    hardState.floor = .zero
    output.append(.floorCleared)
  }
}
