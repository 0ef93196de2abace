// Membership changes, one member at a time (§4.1), learners first (§4.2.1). A membership is in
// force from the moment that it is in the log, and falls back when its entry is truncated.

import Base

package enum MembershipChange: Hashable, Sendable {
  /// Begins to feed a new node the log; it does not count.
  case addLearner(id: NodeID, peerAddress: String, clientAddress: String)
  /// Makes a learner a voter.
  case promote(NodeID)
  case remove(NodeID)
}

/// Why a membership change was not begun. Nothing happened.
package enum MembershipChangeError: Error, Hashable, Sendable {
  /// This node does not lead.
  case notLeader
  /// Leadership is being handed over.
  case transferring
  /// An earlier change is not committed yet.
  case changePending
  /// The leader has not committed an entry of its term yet (the error in the thesis' first
  /// edition): try again in a moment.
  case noCommitInTerm
  case alreadyMember(NodeID)
  case notMember(NodeID)
  /// Only learners are promoted.
  case notLearner(NodeID)
  /// The learner is not connected or too far behind to count as a voter: entries it lacks.
  case learnerBehind(NodeID, entries: UInt64)
  /// The learner does not vote yet: its disk is new or was wiped, and it has not heard every voter
  /// since. As a voter it would count for the majority and could not be part of one.
  case learnerMayNotVote(NodeID)
  /// Of the voters left fewer than a majority, `needed`, are connected and say that they vote: if
  /// the leader failed then, nobody could be elected.
  case tooFewVoters(voting: Int, needed: Int)
  /// Without it nobody would be left to decide.
  case lastVoter(NodeID)
}

extension Consensus {
  /// Begins a membership change. Node writes an entry of kind `.membership` with the membership's
  /// encoding at the position given; the log is taken to hold it.
  package mutating func proposeMembership(
    _ change: MembershipChange, now: MonotonicTime, into output: inout [ConsensusOutput]
  ) throws(MembershipChangeError) -> (position: LogPosition, membership: Membership) {
    guard role == .leader else { throw .notLeader }
    guard leading.transfer == nil else { throw .transferring }
    guard commit >= leading.begin else { throw .noCommitInTerm }
    guard memberships[memberships.count - 1].index <= commit else { throw .changePending }
    let changed = Membership(members: try members(after: change))
    let position = appendAsLeader()
    addMembership(MembershipEntry(index: position.index, membership: changed), &output)
    syncProgress(now)
    startRound(now)
    return (position, changed)
  }

  /// The first leader writes the founding membership into the log, so that from then on nobody's
  /// configuration decides who votes. nil if it is there already, in the log or in a snapshot.
  package mutating func recordFoundingMembership(
    now: MonotonicTime, into output: inout [ConsensusOutput]
  ) -> (position: LogPosition, membership: Membership)? {
    guard role == .leader, memberships.count == 1, memberships[0].index == .zero,
      !membership.members.isEmpty
    else { return nil }
    let founded = membership
    let position = appendAsLeader()
    addMembership(MembershipEntry(index: position.index, membership: founded), &output)
    syncProgress(now)
    return (position, founded)
  }

  private func members(
    after change: MembershipChange
  ) throws(MembershipChangeError) -> [Membership.Member] {
    var members = membership.members
    switch change {
    case .addLearner(let id, let peerAddress, let clientAddress):
      guard membership.member(id) == nil else { throw .alreadyMember(id) }
      members.append(
        Membership.Member(
          id: id, peerAddress: peerAddress, clientAddress: clientAddress, isLearner: true))
    case .promote(let id):
      guard let place = members.firstIndex(where: { $0.id == id }) else { throw .notMember(id) }
      guard members[place].isLearner else { throw .notLearner(id) }
      let match = progressPlace(id).map { progress[$0].match } ?? .zero
      let behind = log.last.rawValue - match.rawValue
      let isConnected = connected.contains(id)
      guard isConnected, behind <= configuration.promotionLagMax else {
        throw .learnerBehind(id, entries: behind)
      }
      guard saysItVotes(id) else { throw .learnerMayNotVote(id) }
      members[place].isLearner = false
    case .remove(let id):
      guard membership.member(id) != nil else { throw .notMember(id) }
      guard membership.voters != [id] else { throw .lastVoter(id) }
      members.removeAll { $0.id == id }
      try checkVoters(without: id)
    }
    return members
  }

  private func saysItVotes(_ node: NodeID) -> Bool {
    if node == id { return isVoteKept }
    return progressPlace(node).map { progress[$0].isConnected && progress[$0].mayVote } ?? false
  }

  /// One that does not vote may always go: what is left is then no worse than before.
  private func checkVoters(without removed: NodeID) throws(MembershipChangeError) {
    guard membership.isVoter(removed), saysItVotes(removed) else { return }
    let left = membership.voters.filter { $0 != removed }
    let voting = left.count { saysItVotes($0) }
    let needed = left.count / 2 + 1
    guard voting >= needed else { throw .tooFewVoters(voting: voting, needed: needed) }
  }

  // MARK: History

  mutating func addMembership(_ entry: MembershipEntry, _ output: inout [ConsensusOutput]) {
    invariant(
      entry.index > memberships[memberships.count - 1].index, "memberships out of order: \(entry)")
    memberships.append(entry)
    output.append(.membershipChanged(entry.membership, at: entry.index))
  }

  mutating func dropMemberships(from index: LogIndex, _ output: inout [ConsensusOutput]) {
    let former = memberships.count
    while memberships.count > 1, let last = memberships.last, last.index >= index {
      memberships.removeLast()
    }
    if memberships.count < former, let last = memberships.last {
      output.append(.membershipChanged(last.membership, at: last.index))
    }
  }

  /// The membership as of `index`, which is at or after the snapshot.
  package func membership(at index: LogIndex) -> Membership {
    (memberships.last { $0.index <= index } ?? memberships[0]).membership
  }

  /// A leader that has removed itself gives up its office when that is committed (§4.2.2), and hands it to
  /// the follower that is furthest. Others learn of it by `noteRemoval`.
  mutating func membershipsCommitted(
    after former: LogIndex, _ now: MonotonicTime, _ output: inout [ConsensusOutput]
  ) {
    guard role == .leader, !membership.contains(id), let newest = memberships.last,
      newest.index > former, newest.index <= commit
    else { return }
    isRemovalTold = true
    output.append(.removedFromCluster)
    if let heir = bestHeir() { output.append(.send(to: heir, .timeoutNow(term))) }
    becomeFollower(in: term, leader: nil, now, &output)
  }

  /// A follower is removed if the newest membership, which is committed, has it not, and its leader says so
  /// too. One that was added again later reads of its removal when it catches up, and one that an earlier
  /// leader began to add may get a snapshot from before it was: their leader, who knows more, has them as
  /// members. Whoever is fed by nobody is told by nobody, and waits without a leader.
  mutating func noteRemoval(_ output: inout [ConsensusOutput]) {
    guard role == .follower, following.isMember == false, recovery == nil, !isRemovalTold,
      !membership.contains(id), let newest = memberships.last, newest.index > .zero,
      newest.index <= commit
    else { return }
    isRemovalTold = true
    output.append(.removedFromCluster)
  }

  /// A removed member that has its removal and knows it to be committed needs no more.
  mutating func dropInformed(_ peer: NodeID) {
    guard let place = progressPlace(peer), progress[place].isLeaving,
      let last = memberships.last, last.index <= commit, progress[place].match >= last.index,
      progress[place].commitSent >= last.index
    else { return }
    progress.remove(at: place)
  }
}
