// Snapshots: the log's beginning goes when one was taken; a follower that needs what is gone gets
// the snapshot in chunks, one on its way at a time (§5.1, §5.3). Consensus knows only offsets.

import Base

/// A snapshot that is being received.
struct SnapshotReceipt {
  /// The stream may differ from leader to leader: only the same leader in the same term goes on
  /// with it.
  let leader: NodeID
  let term: Term
  let last: LogPosition
  let membership: Membership
  /// Ordered to be stored and stored through here, bytes. stored <= ordered.
  var ordered: UInt64 = 0
  var stored: UInt64 = 0
  /// The last chunk was ordered: the snapshot is being put in force, and the log not touched.
  var isComplete = false
}

extension Consensus {
  // MARK: Our own

  /// A snapshot through `index` is durable. The log through there may be dropped.
  package mutating func snapshotTaken(through index: LogIndex) {
    invariant(index <= commit, "snapshot through \(index), commit \(commit)")
    guard index > snapshot.index, let term = log.term(at: index) else { return }
    let kept = MembershipEntry(
      index: (memberships.last { $0.index <= index } ?? memberships[0]).index,
      membership: membership(at: index))
    snapshot = LogPosition(term: term, index: index)
    memberships = [kept] + memberships.filter { $0.index > index }
  }

  /// The entries through `index` can no longer be read. They are covered by the snapshot.
  package mutating func logDropped(through index: LogIndex) {
    invariant(index <= snapshot.index, "log dropped through \(index), snapshot \(snapshot)")
    log.drop(through: index)
    for place in progress.indices
    where progress[place].mode != .snapshot && progress[place].next.previous < log.base.index {
      needsSnapshot(at: place)
    }
  }

  // MARK: Sending

  mutating func needsSnapshot(at place: Int) {
    guard snapshot.index > .zero else {
      invariant(false, "log begins after \(log.base) without a snapshot")
      return
    }
    progress[place].becomeSnapshot(snapshot, membership(at: snapshot.index))
  }

  /// The piece of a snapshot that may be sent to `peer` now. The stream is that of `plan.last`.
  package func nextSnapshotChunk(to peer: NodeID, now: MonotonicTime) -> SnapshotPlan? {
    guard role == .leader, let place = progressPlace(peer), progress[place].isConnected,
      let transfer = progress[place].transfer
    else { return nil }
    if let sentAt = transfer.sentAt, now.since(sentAt) < configuration.electionTimeoutMax {
      return nil
    }
    return SnapshotPlan(
      to: peer, term: term, last: transfer.last, membership: transfer.membership,
      offset: transfer.acknowledged)
  }

  /// Node put a chunk with `bytes` of the stream from `plan.offset` on into the write queue. A
  /// chunk at the stream's end is empty and asks only how things stand.
  package mutating func didSend(
    _ plan: SnapshotPlan, bytes: Int, isLast: Bool, now: MonotonicTime
  ) {
    guard role == .leader, plan.term == term, let place = progressPlace(plan.to),
      let transfer = progress[place].transfer, transfer.last == plan.last
    else { return }
    let end = plan.offset + UInt64(bytes)
    progress[place].transfer?.sent = max(transfer.sent, end)
    progress[place].lastTransfer = (plan.last, max(transfer.sent, end))
    progress[place].transfer?.sentAt = now
    if isLast { progress[place].transfer?.end = end }
  }

  /// Node cannot serve the stream of an earlier snapshot any more: begin again with the newest.
  package mutating func snapshotUnavailable(_ plan: SnapshotPlan) {
    guard role == .leader, plan.term == term, let place = progressPlace(plan.to),
      progress[place].transfer?.last == plan.last
    else { return }
    needsSnapshot(at: place)
  }

  mutating func receiveSnapshotReply(
    _ reply: SnapshotReply, from peer: NodeID, _ now: MonotonicTime,
    _ output: inout [ConsensusOutput]
  ) {
    if reply.term > term { return becomeFollower(in: reply.term, leader: nil, now, &output) }
    guard reply.term == term, let place = heard(peer, round: 0, now),
      let transfer = progress[place].transfer, transfer.last.index == reply.last,
      reply.received <= transfer.sent
    else { return }
    if reply.isInstalled {
      progress[place].match = max(progress[place].match, reply.last)
      progress[place].next = max(progress[place].next, reply.last.next)
      progress[place].becomeProbe(next: reply.last.next)
      if reply.last < log.base.index { needsSnapshot(at: place) }
      maybeCommit(now, &output)
      return
    }
    progress[place].transfer?.acknowledged = reply.received
    // All of it is there and is being put in force: ask again only after a while.
    if reply.received != transfer.end { progress[place].transfer?.sentAt = nil }
  }

  // MARK: Receiving

  mutating func receiveSnapshot(
    _ chunk: SnapshotChunk, from peer: NodeID, _ now: MonotonicTime,
    _ output: inout [ConsensusOutput]
  ) {
    if chunk.term < term {
      let answer = SnapshotReply(
        term: term, last: chunk.last.index, received: 0, isInstalled: false)
      return reply(to: peer, .snapshotReply(answer), &output)
    }
    guard follow(peer, in: chunk.term, now, &output) else { return }
    if chunk.last.index <= commit || log.contains(chunk.last) {
      // The log has it: what the leader may count is said in an append reply.
      following.verified = max(following.verified, min(chunk.last.index, log.last))
      following.owed = .accepted
      return
    }
    if let receipt, receipt.isComplete { return replyReceived(receipt, &output) }
    beginReceiptIfNew(of: chunk, from: peer)
    guard let current = receipt else { return }
    guard chunk.offset == current.ordered, chunk.byteCount > 0 || chunk.isLast else {
      return replyReceived(current, &output)
    }
    receipt?.ordered += UInt64(chunk.byteCount)
    receipt?.isComplete = chunk.isLast
    orderHardState(&output)
    output.append(.receiveSnapshotChunk(chunk))
  }

  private mutating func beginReceiptIfNew(of chunk: SnapshotChunk, from peer: NodeID) {
    if let receipt, receipt.leader == peer, receipt.term == chunk.term, receipt.last == chunk.last {
      return
    }
    receipt = SnapshotReceipt(
      leader: peer, term: chunk.term, last: chunk.last, membership: chunk.membership)
  }

  private mutating func replyReceived(
    _ receipt: SnapshotReceipt, _ output: inout [ConsensusOutput]
  ) {
    guard receipt.leader == leader, receipt.term == term else { return }
    let answer = SnapshotReply(
      term: term, last: receipt.last.index, received: receipt.stored, isInstalled: false)
    reply(to: receipt.leader, .snapshotReply(answer), &output)
  }

  /// The chunks of the snapshot through `last` are stored through `received` bytes.
  package mutating func snapshotChunkStored(
    last: LogPosition, received: UInt64, now: MonotonicTime, into output: inout [ConsensusOutput]
  ) {
    guard let current = receipt, current.last == last, received <= current.ordered,
      received >= current.stored
    else { return }
    receipt?.stored = received
    if let receipt { replyReceived(receipt, &output) }
    finish(now, &output)
  }

  /// The snapshot through `last` is durable and in force, and the whole log before is gone.
  package mutating func snapshotInstalled(
    last: LogPosition, now: MonotonicTime, into output: inout [ConsensusOutput]
  ) {
    guard let done = receipt, done.last == last, done.isComplete else { return }
    invariant(last.index > commit, "snapshot \(last) put in force over commit \(commit)")
    receipt = nil
    log.reset(to: last)
    snapshot = last
    commit = last.index
    persisted = last.index
    unsettledTruncation = nil
    following.verified = last.index
    let former = membership
    memberships = [MembershipEntry(index: last.index, membership: done.membership)]
    if former != done.membership {
      output.append(.membershipChanged(done.membership, at: last.index))
    }
    noteRemoval(&output)
    if role == .follower, let leader {
      let answer = SnapshotReply(
        term: term, last: last.index, received: done.ordered, isInstalled: true)
      if done.leader == leader, done.term == term {
        reply(to: leader, .snapshotReply(answer), &output)
      } else {
        following.owed = .accepted
      }
    }
    finish(now, &output)
  }

  /// The snapshot through `last` could not be stored or was found damaged; it is begun anew.
  package mutating func snapshotFailed(last: LogPosition) {
    if receipt?.last == last { receipt = nil }
  }
}
