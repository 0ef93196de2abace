// Carrying out what consensus orders, and checking what must always hold (§3.2, figure 3.2).

import Base

@testable import Consensus

extension SimulatedCluster {
  func carryOut(_ order: ConsensusOutput, at node: SimulatedNode, _ envelope: Envelope?) {
    note(order, at: node)
    switch order {
    case .persistHardState(let state): node.pending.append(.hardState(state))
    case .truncateLog(let index):
      if index <= node.applied { fail("\(node.id) truncates \(index), applied \(node.applied)") }
      node.log.removeSubrange((Int(index.rawValue) - 1)...)
      node.pending.append(.truncate(from: index))
      truncations += 1
    case .appendEntries(let first, let last):
      let entries = envelope!.entries.filter {
        $0.position.index >= first && $0.position.index <= last
      }
      append(entries, at: node)
    case .send(let peer, let message): send(message, from: node.id, to: peer)
    case .commit(let index): apply(through: index, at: node)
    case .becameLeader(let begin):
      append([TestEntry(position: begin, kind: .begin, value: 0)], at: node)
      checkElected(node, begin)
    case .receiveSnapshotChunk(let chunk):
      chunksStored += 1
      node.pending.append(.chunk(chunk, prefix: envelope!.prefix))
      if chunk.isLast { node.pending.append(.install(chunk, prefix: envelope!.prefix)) }
    case .readReady(let ticket, let index):
      guard let needed = node.reads.removeValue(forKey: ticket) else { return }
      if index < needed { fail("read at \(node.id) saw \(index), committed was \(needed)") }
    case .readFailed(let ticket): node.reads[ticket] = nil
    case .voteRestored:
      node.disk.canVote = true
      node.consensus.restoredVoteStored()
      votesRestored += 1
    case .removedFromCluster: node.isRemoved = true
    case .contradicted(let index): fail("\(node.id) is contradicted at \(index)")
    case .becameFollower, .leaderChanged, .membershipChanged, .transferAbandoned, .floorCleared:
      break
    }
  }

  func append(_ entries: [TestEntry], at node: SimulatedNode) {
    if entries.first?.position.index.rawValue != UInt64(node.log.count) + 1 {
      fail("\(node.id) appends \(entries.map(\.position)) after \(node.log.count)")
    }
    node.log += entries
    node.pending.append(.append(entries))
  }

  func send(_ message: PeerMessage, from: NodeID, to: NodeID) {
    guard nodes[to]?.isRunning == true, !isCut(from, to) else { return }
    messages.append(Envelope(from: from, to: to, message: message))
  }

  /// Sends all that consensus allows.
  func pump(_ node: SimulatedNode) {
    guard node.consensus.isLeader else { return }
    for peer in ids where peer != node.id {
      var turns = 0
      while let plan = node.consensus.nextAppend(to: peer) {
        sendAppend(plan, from: node)
        turns += 1
        if turns > 1000 { return fail("\(node.id) never stops sending to \(peer)") }
      }
      if let plan = node.consensus.nextSnapshotChunk(to: peer, now: now) {
        sendChunk(plan, from: node)
      }
    }
  }

  private func sendAppend(_ plan: AppendPlan, from node: SimulatedNode) {
    let count = min(Int(plan.last.rawValue - plan.previous.index.rawValue), entriesPerMessageMax)
    let start = Int(plan.previous.index.rawValue)
    let entries = count == 0 ? [] : Array(node.log[start..<start + count])
    let request = AppendRequest(
      term: plan.term, previous: plan.previous, entries: entries.map(\.header),
      commit: plan.commit, round: plan.round, clearsPromises: plan.clearsPromises,
      isMember: plan.isMember)
    node.consensus.didSend(plan, through: request.lastIndex, bytes: count * 8)
    note("\(node.id)>\(plan.to) \(describe(.append(request)))")
    guard nodes[plan.to]?.isRunning == true, !isCut(node.id, plan.to) else { return }
    messages.append(
      Envelope(from: node.id, to: plan.to, message: .append(request), entries: entries))
  }

  private func sendChunk(_ plan: SnapshotPlan, from node: SimulatedNode) {
    let bytes = min(chunkBytes, max(0, snapshotBytes - Int(plan.offset)))
    let chunk = SnapshotChunk(
      term: plan.term, last: plan.last, membership: plan.membership, offset: plan.offset,
      byteCount: UInt32(bytes), isLast: Int(plan.offset) + bytes >= snapshotBytes)
    node.consensus.didSend(plan, bytes: bytes, isLast: chunk.isLast, now: now)
    note("\(node.id)>\(plan.to) \(describe(.snapshot(chunk)))")
    guard nodes[plan.to]?.isRunning == true, !isCut(node.id, plan.to) else { return }
    let prefix = Array(node.log[0..<Int(plan.last.index.rawValue)])
    messages.append(
      Envelope(from: node.id, to: plan.to, message: .snapshot(chunk), prefix: prefix))
  }

  // MARK: Checks

  func fail(_ problem: String) { problems.append(problem) }

  /// State machine safety: nobody applies another entry at an index.
  private func apply(through index: LogIndex, at node: SimulatedNode) {
    guard index.rawValue <= UInt64(node.log.count) else {
      return fail("\(node.id) commits \(index), has \(node.log.count)")
    }
    while node.applied < index {
      let entry = node.log[Int(node.applied.rawValue)]
      node.applied = node.applied.next
      if Int(node.applied.rawValue) <= committed.count {
        let known = committed[Int(node.applied.rawValue) - 1]
        if known != entry { fail("\(node.id) commits \(entry.position), was \(known.position)") }
      } else {
        committed.append(entry)
      }
    }
  }

  /// Election safety and leader completeness.
  private func checkElected(_ node: SimulatedNode, _ begin: LogPosition) {
    if let other = leaders[begin.term], other != node.id {
      fail("\(node.id) and \(other) lead term \(begin.term)")
    }
    leaders[begin.term] = node.id
    if !node.log.starts(with: committed) {
      fail("\(node.id) leads term \(begin.term) without all \(committed.count) committed entries")
    }
  }

  /// The tables of consensus describe the log.
  func check(_ node: SimulatedNode) {
    let consensus = node.consensus.lastPosition
    let position = node.log.last?.position ?? .zero
    if consensus != position { fail("\(node.id): consensus ends at \(consensus), log \(position)") }
  }

  /// Log matching: where two logs have the same position they agree up to there.
  func checkLogMatching() {
    for left in ids {
      for right in ids where left < right {
        let (a, b) = (nodes[left]!.log, nodes[right]!.log)
        let same = zip(a, b).reversed().drop { $0.position != $1.position }
        if let pair = same.first(where: { $0 != $1 }) {
          fail("\(left) and \(right) differ at \(pair.0.position) before a common entry")
        }
      }
    }
  }

  // MARK: Trace

  func note(_ line: @autoclosure () -> String) {
    guard trace != nil else { return }
    trace?.append(line())
  }

  func note(_ order: ConsensusOutput, at node: SimulatedNode) {
    guard trace != nil else { return }
    switch order {
    case .send(let peer, let message): note("\(node.id)>\(peer) \(describe(message))")
    default: note("\(node.id) \(describe(order))")
    }
  }
}
