// Feeding the followers. Node pulls: after each turn it asks for the appends that may be sent, so
// that its write queues set the pace; what is on its way is bounded by a window (§3.5, §10.2.1).

import Base

extension Consensus {
  // MARK: Sending

  /// What may be sent to `peer` now: entries, or a heartbeat or commit index that is due. nil if
  /// there is nothing or the window is full. Ask again after `didSend`, until nil.
  package func nextAppend(to peer: NodeID) -> AppendPlan? {
    guard role == .leader, let place = progressPlace(peer), progress[place].isConnected else {
      return nil
    }
    let isRoundDue = progress[place].roundSent < leading.round
    switch progress[place].mode {
    case .snapshot:
      // Agrees with any log: only says who leads.
      return isRoundDue ? plan(for: place, previous: .zero, last: .zero) : nil
    case .probe:
      if !progress[place].isProbeSent { return plan(for: place, through: log.last) }
      return isRoundDue ? plan(for: place, through: progress[place].next.previous) : nil
    case .replicate:
      if mayTakeEntries(place) { return plan(for: place, through: log.last) }
      guard isRoundDue || isBehindCommit(place) else { return nil }
      return plan(for: place, through: progress[place].next.previous)
    }
  }

  /// Whether `nextAppend` has nothing for the member at `place` but that more is committed: the next
  /// entry says so too.
  package func hasOnlyNews(at place: Int) -> Bool {
    role == .leader && progress[place].isConnected && progress[place].mode == .replicate
      && isBehindCommit(place) && progress[place].roundSent >= leading.round
      && !mayTakeEntries(place)
  }

  private func mayTakeEntries(_ place: Int) -> Bool {
    progress[place].next <= log.last && progress[place].window.isOpen
  }

  /// It was not told yet that entries it was sent are committed.
  private func isBehindCommit(_ place: Int) -> Bool {
    progress[place].commitSent < min(commit, progress[place].next.previous)
  }

  /// What tells `peer` who leads although entries that it could be sent are not at hand: it is due, and
  /// `nextAppend` was not carried out.
  package func nextHeartbeat(to peer: NodeID) -> AppendPlan? {
    guard role == .leader, let place = progressPlace(peer), progress[place].isConnected,
      progress[place].roundSent < leading.round, progress[place].mode != .snapshot
    else { return nil }
    return plan(for: place, through: progress[place].next.previous)
  }

  private func plan(for place: Int, through last: LogIndex) -> AppendPlan? {
    let index = progress[place].next.previous
    guard let term = log.term(at: index) else {
      invariant(
        false,
        "\(progress[place].id): no term at \(index), base \(log.base), last \(log.last)")
      return nil
    }
    return plan(for: place, previous: LogPosition(term: term, index: index), last: last)
  }

  private func plan(for place: Int, previous: LogPosition, last: LogIndex) -> AppendPlan {
    let member = progress[place].id
    return AppendPlan(
      to: member, term: term, previous: previous, last: last, commit: commit,
      round: leading.round, clearsPromises: clearsPromises(of: place),
      isMember: membership.contains(member) || membership(at: commit).contains(member),
      bytesMax: progress[place].window.bytesLeft)
  }

  /// Whether a learner may be told that its promises are void: a majority confirmed this leader in a
  /// round begun after the connection came up, hence after the learner's process began.
  private func clearsPromises(of place: Int) -> Bool {
    guard !progress[place].mayVote, membership.isLearner(progress[place].id),
      commit >= leading.begin
    else { return false }
    return confirmedRound > progress[place].roundAtConnection
  }

  /// Node put the plan's message with the entries through `last` into the peer's write queue.
  ///
  /// - Parameters:
  ///   - last: the last entry sent, `plan.previous.index` if none was.
  ///   - bytes: of the payloads sent.
  package mutating func didSend(_ plan: AppendPlan, through last: LogIndex, bytes: Int) {
    invariant(
      last >= plan.previous.index && last <= plan.last, "sent through \(last) of plan \(plan)")
    guard role == .leader, plan.term == term, let place = progressPlace(plan.to) else { return }
    if plan.round == leading.round { leading.isRoundSent = true }
    progress[place].roundSent = max(progress[place].roundSent, plan.round)
    switch progress[place].mode {
    case .snapshot: return
    case .probe: progress[place].isProbeSent = true
    case .replicate:
      guard progress[place].next == plan.first else { return }
      if last > plan.previous.index {
        progress[place].window.sent(through: last, bytes: bytes)
        progress[place].next = last.next
      }
    }
    progress[place].commitSent = max(progress[place].commitSent, min(plan.commit, last))
  }

  // MARK: Answers

  mutating func receiveAppendReply(
    _ reply: AppendReply, from peer: NodeID, _ now: MonotonicTime, _ output: inout [ConsensusOutput]
  ) {
    if reply.term > term { return becomeFollower(in: reply.term, leader: nil, now, &output) }
    guard reply.term == term, let place = heard(peer, round: reply.round, now),
      reply.round > progress[place].roundAtConnection
    else { return }
    progress[place].mayVote = reply.mayVote
    switch reply.outcome {
    case .accepted(let match, let verified):
      guard verified <= log.last else { return }
      accepted(at: place, match: match, verified: verified)
      maybeCommit(now, &output)
      guard role == .leader else { return }
      maybeFinishTransfer(to: peer, &output)
      dropInformed(peer)
    case .rejected(let previous, let hint):
      rejected(at: place, previous: previous, hint: hint, round: reply.round)
    }
    releaseReads(&output)
  }

  /// Notes a sign of life of a member in this term. nil if the sender or the round cannot be.
  mutating func heard(_ peer: NodeID, round: UInt64, _ now: MonotonicTime) -> Int? {
    guard role == .leader, let place = progressPlace(peer), round <= progress[place].roundSent
    else { return nil }
    progress[place].lastHeard = now
    progress[place].roundHeard = max(progress[place].roundHeard, round)
    return place
  }

  private mutating func accepted(at place: Int, match: LogIndex, verified: LogIndex) {
    let next = max(verified.next, match.next)
    if match > progress[place].match {
      progress[place].match = match
      progress[place].next = max(progress[place].next, match.next)
      progress[place].window.acknowledged(through: match)
    }
    switch progress[place].mode {
    case .probe: progress[place].becomeReplicate(next: next)
    case .replicate: progress[place].next = max(progress[place].next, next)
    case .snapshot:
      // The follower got so far by itself or by an earlier message: the log suffices again.
      guard verified >= log.base.index else {
        // It has the snapshot that is being sent, and what it needs next is gone meanwhile.
        if let sending = progress[place].transfer, verified >= sending.last.index {
          needsSnapshot(at: place)
        }
        return
      }
      progress[place].becomeReplicate(next: next)
    }
    if progress[place].next.previous < log.base.index { needsSnapshot(at: place) }
  }

  /// Fast back-up (§3.5): both sides skip the entries whose terms cannot agree.
  private mutating func rejected(
    at place: Int, previous: LogIndex, hint: LogPosition, round: UInt64
  ) {
    guard progress[place].mode != .snapshot, previous > .zero, previous < progress[place].next,
      round >= progress[place].roundHeard
    else { return }
    let tried = min(hint.index, previous.previous)
    let agreed = log.place(atOrBefore: tried, termAtMost: hint.term)
    // A follower whose disk was damaged has less than it once acknowledged (G11).
    if agreed.index < progress[place].match { progress[place].match = .zero }
    if tried < log.base.index {
      needsSnapshot(at: place)
    } else {
      progress[place].becomeProbe(next: agreed.index.next)
    }
  }

  // MARK: Members' replication

  /// After a connection came or went nothing is on its way, and the follower may have lost what it
  /// had. The logs are compared from the end again. A reply on its way from before, which says more
  /// than the disk may hold now, is known by its round: who calls this begins another.
  mutating func restartReplication(at place: Int) {
    progress[place].match = .zero
    progress[place].mayVote = false
    progress[place].roundAtConnection = leading.round
    progress[place].becomeProbe(next: log.last.next)
  }

  /// Brings `progress` in line with the membership, when leading begins and when that changes.
  mutating func syncProgress(_ now: MonotonicTime) {
    for place in progress.indices {
      progress[place].isLeaving = !membership.contains(progress[place].id)
    }
    progress.removeAll { $0.isLeaving && !$0.isConnected }
    for member in membership.members where member.id != id && progressPlace(member.id) == nil {
      let window = InFlightWindow(
        messagesMax: configuration.windowMessagesMax, bytesMax: configuration.windowBytesMax)
      progress.append(
        Progress(
          id: member.id, next: log.last.next, window: window,
          isConnected: connected.contains(member.id), round: leading.round, now: now))
    }
    progress.sort { $0.id < $1.id }
  }
}
