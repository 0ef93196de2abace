// Leading: taking office, proposing, committing, and giving up without a majority (§3.4, §3.5,
// §3.6.2, §6.2).

import Base

/// What only a leader has.
struct Leading {
  /// The entry that this leader began its term with. Nothing is known to be committed, no read is
  /// answered and no membership changed before it is committed.
  var begin: LogIndex = .zero
  /// Numbers the rounds of heartbeats, from 1 in each term.
  var round: UInt64 = 0
  /// Some member was sent this round: a read that comes now needs another.
  var isRoundSent = false
  var heartbeatDeadline: MonotonicTime = .never
  var transfer: LeadershipTransfer?
  /// By ascending round.
  var reads: [PendingRead] = []
  var nextTicket: UInt64 = 1
}

extension Consensus {
  mutating func becomeLeader(_ now: MonotonicTime, _ output: inout [ConsensusOutput]) {
    invariant(
      isHardStateDurable && hardState.vote == id, "leads \(term) before its vote is durable")
    role = .leader
    tally = Tally()
    receipt = nil
    setLeader(id, &output)
    let begin = LogPosition(term: term, index: log.last.next)
    let nextTicket = leading.nextTicket
    leading = Leading()
    leading.nextTicket = nextTicket
    leading.begin = begin.index
    progress = []
    syncProgress(now)
    startRound(now)
    log.append(begin)
    output.append(.becameLeader(begin: begin))
  }

  mutating func stopLeading(_ output: inout [ConsensusOutput]) {
    for read in leading.reads { output.append(.readFailed(read.ticket)) }
    leading.reads = []
    leading.transfer = nil
    progress = []
  }

  mutating func tickAsLeader(_ now: MonotonicTime, _ output: inout [ConsensusOutput]) {
    guard hasQuorum(now) else {
      return becomeFollower(in: term, leader: nil, now, &output)
    }
    maybeAbandonTransfer(now, &output)
    if now >= leading.heartbeatDeadline { startRound(now) }
  }

  /// Heartbeats are due to everybody: `nextAppend` gives them out.
  mutating func startRound(_ now: MonotonicTime) {
    leading.round += 1
    leading.isRoundSent = false
    leading.heartbeatDeadline = now + configuration.heartbeatInterval
  }

  /// Check-quorum (§6.2): a majority answered within the election timeout.
  private func hasQuorum(_ now: MonotonicTime) -> Bool {
    let heard = membership.voters.count { voter in
      if voter == id { return true }
      guard let place = progressPlace(voter) else { return false }
      return now.since(progress[place].lastHeard) < configuration.electionTimeoutMax
    }
    return heard >= membership.quorum
  }

  // MARK: Proposing

  /// The place of a new entry of commands, which the log is then taken to hold: Node keeps its
  /// payload there and orders it to the disk. nil if this node does not lead or hands over.
  package mutating func propose() -> LogPosition? {
    guard role == .leader, leading.transfer == nil else { return nil }
    return appendAsLeader()
  }

  mutating func appendAsLeader() -> LogPosition {
    let position = LogPosition(term: term, index: log.last.next)
    log.append(position)
    return position
  }

  // MARK: Committing

  /// The leader's own disk is one of the majority's.
  mutating func leaderPersisted(_ now: MonotonicTime, _ output: inout [ConsensusOutput]) {
    maybeCommit(now, &output)
  }

  /// The highest index that a majority has on disk, if its entry is of this term (§3.6.2: an entry
  /// of an earlier term is committed only by one of the own term after it).
  mutating func maybeCommit(_ now: MonotonicTime, _ output: inout [ConsensusOutput]) {
    guard role == .leader, commit < log.last else { return }
    let agreed = quorumValue(own: persisted) { $0.match }
    guard agreed > commit, log.term(at: agreed) == term else { return }
    advanceCommit(to: agreed, now, &output)
    releaseReads(&output)
  }

  /// The highest value that a majority of the voters reaches. This node counts only as a voter.
  func quorumValue<Value: Identifier>(own: Value, _ value: (Progress) -> Value) -> Value {
    func reached(by voter: NodeID) -> Value? {
      voter == id ? own : progressPlace(voter).map { value(progress[$0]) }
    }
    // Voters are few: no list is made and sorted.
    var highest = Value(rawValue: 0)
    for voter in membership.voters {
      guard let candidate = reached(by: voter), candidate > highest else { continue }
      let count = membership.voters.count { reached(by: $0).map { $0 >= candidate } ?? false }
      if count >= membership.quorum { highest = candidate }
    }
    return highest
  }

  mutating func advanceCommit(
    to index: LogIndex, _ now: MonotonicTime, _ output: inout [ConsensusOutput]
  ) {
    guard index > commit else { return }
    invariant(index <= log.last, "commit \(index) beyond last \(log.last)")
    let former = commit
    commit = index
    output.append(.commit(through: index))
    membershipsCommitted(after: former, now, &output)
  }
}
