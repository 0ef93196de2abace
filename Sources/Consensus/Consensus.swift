// Raft for one group at one node, without I/O (Ongaro's thesis, "§" below): its state, and the
// doors by which time and messages enter. Node owns it, feeds it inputs and carries out the outputs
// in order; the topics are in the extensions `Consensus+*.swift`.
//
// It sees no payloads: the log is a table of term runs here, the bytes are with Node and LogStore.

import Base

package struct Consensus: ~Copyable {
  package enum Role: Hashable, Sendable {
    case follower, preCandidate, candidate, leader
  }

  private let inPlace = InPlace()
  package let configuration: ConsensusConfiguration
  package internal(set) var role: Role = .follower
  /// Who leads in this term as far as known; this node itself if it does.
  package internal(set) var leader: NodeID?
  var random: SeededRandom

  // What is or will be on disk.
  /// The newest; may still be on its way to the disk, see `pendingHardStates`.
  package internal(set) var hardState: HardState
  /// Ordered but not yet confirmed, oldest first; the last one is the last that was ordered.
  var pendingHardStates: [HardState] = []
  var lastOrderedHardState: HardState
  /// Replies that wait for the hard state: at most one of a kind for each peer.
  var heldReplies: [HeldReply] = []
  var log: TermRuns
  /// commit <= last; never goes back.
  package internal(set) var commit: LogIndex
  /// The log is on disk through here; persisted <= last. Falls back when entries are truncated.
  package internal(set) var persisted: LogIndex
  /// Entries were removed from here on before they were reported as persisted, and the one that
  /// took this place is not reported yet. No second truncation before that, or the report of an
  /// entry that was removed and came back could be taken for the new one's.
  var unsettledTruncation: LogIndex?
  /// The newest snapshot: its position is committed; at or after `log.base`.
  package internal(set) var snapshot: LogPosition
  /// By ascending index: the one as of `snapshot`, then those after it. The last one is in force.
  var memberships: [MembershipEntry]

  // Elections.
  /// When a node that does not lead begins an election or tries again.
  var electionDeadline: MonotonicTime
  var tally = Tally()
  /// Whoever runs this node knows that it was removed, and stops it.
  var isRemovalTold = false
  var canLead: Bool
  /// Present while this node must not vote (G11).
  var recovery: VoteRecovery?
  /// This node may vote and its disk says so too: also its next process will.
  package internal(set) var isVoteKept: Bool

  // Following.
  var following: Following
  var receipt: SnapshotReceipt?

  // Leading; meaningless in the other roles.
  var leading = Leading()
  /// One for each other member, by ascending id.
  var progress: [Progress] = []
  /// Peers with an open connection, by ascending id, whatever the role.
  var connected: [NodeID] = []

  package init(
    configuration: ConsensusConfiguration, restored: RestoredState, now: MonotonicTime
  ) {
    self.configuration = configuration
    random = SeededRandom(seed: configuration.seed)
    hardState = restored.hardState
    lastOrderedHardState = restored.hardState
    log = TermRuns(base: restored.logBase, runs: restored.termRuns, last: restored.last)
    commit = restored.snapshot.index
    persisted = restored.last
    snapshot = restored.snapshot
    memberships =
      [MembershipEntry(index: restored.snapshot.index, membership: restored.snapshotMembership)]
      + restored.memberships
    canLead = restored.canLead
    recovery = restored.canVote ? nil : VoteRecovery()
    isVoteKept = restored.canVote
    following = Following(verified: commit)
    electionDeadline = now
    // A node that is the only voter need not wait to hear of others.
    if membership.voters != [id] { electionDeadline = now + randomElectionTimeout() }
    invariant(
      lastPosition.term <= hardState.term, "log ends at \(lastPosition), term \(hardState.term)")
    invariant(log.contains(snapshot), "snapshot \(snapshot) outside the log \(log.base)...")
    checkInvariants()
  }

  package var id: NodeID { configuration.id }
  package var term: Term { hardState.term }
  package var lastPosition: LogPosition { log.lastPosition }
  package var lastIndex: LogIndex { log.last }
  /// The position before the first entry that the log still has.
  package var logBase: LogPosition { log.base }
  /// The one in force, committed or not.
  package var membership: Membership { memberships[memberships.count - 1].membership }
  package var isLeader: Bool { role == .leader }
  package var canVote: Bool { recovery == nil }
  package func term(at index: LogIndex) -> Term? { log.term(at: index) }

  // MARK: Time

  /// When `tick` wants to be called next, at the latest.
  package var nextDeadline: MonotonicTime {
    guard role == .leader else { return min(electionDeadline, recovery?.inquiryDeadline ?? .never) }
    return min(leading.heartbeatDeadline, leading.transfer?.deadline ?? .never)
  }

  package mutating func tick(_ now: MonotonicTime, into output: inout [ConsensusOutput]) {
    if role == .leader {
      tickAsLeader(now, &output)
    } else if now >= electionDeadline {
      electionTimedOut(now, &output)
    }
    maybeInquireTerms(now, &output)
    finish(now, &output)
  }

  // MARK: Messages

  /// Takes a peer's message. Whatever cannot be right is dropped without an answer.
  ///
  /// - Parameter memberships: the decoded payloads of the message's entries of that kind.
  package mutating func receive(
    _ message: PeerMessage, from peer: NodeID, memberships: [MembershipEntry] = [],
    now: MonotonicTime, into output: inout [ConsensusOutput]
  ) {
    guard peer != id, message.isPlausible else { return }
    if recovery != nil, let term = message.senderTerm { recovery?.heard(peer, in: term) }
    switch message {
    case .preVote(let request): receivePreVote(request, from: peer, now, &output)
    case .preVoteReply(let reply): receivePreVoteReply(reply, from: peer, now, &output)
    case .vote(let request): receiveVote(request, from: peer, now, &output)
    case .voteReply(let reply): receiveVoteReply(reply, from: peer, now, &output)
    case .append(let request): receiveAppend(request, memberships, from: peer, now, &output)
    case .appendReply(let reply): receiveAppendReply(reply, from: peer, now, &output)
    case .snapshot(let chunk): receiveSnapshot(chunk, from: peer, now, &output)
    case .snapshotReply(let reply): receiveSnapshotReply(reply, from: peer, now, &output)
    case .timeoutNow(let term): receiveTimeoutNow(term, from: peer, now, &output)
    }
    finish(now, &output)
  }

  /// Every input ends here: what it changed is ordered to the disk, and what now may be said is.
  mutating func finish(_ now: MonotonicTime, _ output: inout [ConsensusOutput]) {
    if recovery != nil { maybeRestoreVote() }
    maybeClearFloor(&output)
    orderHardState(&output)
    releaseHeld(now, &output)
  }

  // MARK: Connections

  package mutating func peerConnected(
    _ peer: NodeID, now: MonotonicTime, into output: inout [ConsensusOutput]
  ) {
    if !connected.contains(peer) {
      connected.append(peer)
      connected.sort()
    }
    if let place = progressPlace(peer) {
      progress[place].isConnected = true
      restartReplication(at: place)
      if role == .leader { startRound(now) }
    }
    askAgain(peer, &output)
    finish(now, &output)
  }

  /// The connection closed: a process that was killed closes it at once, so that the others need
  /// not wait for the timeout.
  package mutating func peerDisconnected(
    _ peer: NodeID, now: MonotonicTime, into output: inout [ConsensusOutput]
  ) {
    connected.removeAll { $0 == peer }
    if let place = progressPlace(peer) {
      progress[place].isConnected = false
      if progress[place].isLeaving {
        progress.remove(at: place)
      } else {
        restartReplication(at: place)
      }
    }
    if role == .follower, peer == leader { leaderConnectionClosed(now) }
    finish(now, &output)
  }

  // MARK: Helpers of several topics

  mutating func randomElectionTimeout() -> Nanoseconds {
    randomSpan(configuration.electionTimeoutMin, configuration.electionTimeoutMax)
  }

  /// In `low ..< high`, or `low` if that is empty.
  mutating func randomSpan(_ low: Nanoseconds, _ high: Nanoseconds) -> Nanoseconds {
    guard low < high else { return low }
    return Nanoseconds(low.rawValue + random.next() % (high.rawValue - low.rawValue))
  }

  func progressPlace(_ peer: NodeID) -> Int? { progress.firstIndex { $0.id == peer } }

  mutating func setLeader(_ new: NodeID?, _ output: inout [ConsensusOutput]) {
    guard new != leader else { return }
    leader = new
    output.append(.leaderChanged(new))
  }
}
