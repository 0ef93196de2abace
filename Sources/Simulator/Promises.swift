// What a node's disk holds of its promises, as the world knows it: term, vote and log. Whatever it says
// to others and whatever its next process finds is compared with this.

import Base
import Consensus
import LogStore
import Node

/// The log as it was ordered to the disk.
struct OrderedLog {
  /// By index. Only looked up, so its order decides nothing.
  private var terms: [LogIndex: Term] = [:]
  private var last = LogIndex.zero
  /// Entries that were removed by what may not be on the disk yet: a crash may bring them back.
  private var removed: Set<LogPosition> = []

  mutating func order(_ operations: [LogOperation]) {
    for operation in operations {
      switch operation {
      case .append(let entries):
        for entry in entries {
          terms[entry.index] = entry.header.term
          last = entry.index
        }
      case .truncate(let from): remove(from: from)
      case .saveHardState: break
      }
    }
  }

  private mutating func remove(from index: LogIndex) {
    while last >= index {
      if let term = terms.removeValue(forKey: last) {
        removed.insert(LogPosition(term: term, index: last))
      }
      last = last.previous
    }
  }

  /// All that was ordered is on the disk.
  mutating func isDurable() { removed.removeAll(keepingCapacity: true) }

  /// A snapshot is in force in the place of the log.
  mutating func reset(to index: LogIndex) {
    self = OrderedLog()
    last = index
  }

  func mayHave(_ position: LogPosition) -> Bool {
    terms[position.index] == position.term || removed.contains(position)
  }

  /// Goes on from what a new process found.
  mutating func begin(with recovery: Recovery) {
    self = OrderedLog()
    Self.forEachEntry(of: recovery) { terms[$0.index] = $0.term }
    last = recovery.last.index
  }

  static func forEachEntry(of recovery: Recovery, _ body: (LogPosition) -> Void) {
    var runs = recovery.termRuns[...]
    var index = max(recovery.firstIndex, LogIndex(1))
    while index <= recovery.last.index {
      while let next = runs.dropFirst().first, next.first <= index { runs.removeFirst() }
      if let run = runs.first, run.first <= index {
        body(LogPosition(term: run.term, index: index))
      }
      index = index.next
    }
  }
}

extension ClusterChecks {
  /// Nobody is told of a term, a vote or an entry that the disk does not have yet (thesis §3.4, §3.8).
  func willSend(_ envelope: PeerEnvelope, to peer: NodeID, from life: NodeLife) {
    guard case .consensus(let message, _) = envelope else { return }
    let kept = life.node.hardState
    switch message {
    case .voteReply(let reply) where reply.isGranted:
      check(kept.term > reply.term || kept.vote == peer, reply.term, "its vote", life)
    case .vote(let request):
      check(
        kept.term > request.term || kept.vote == life.replica.id, request.term, "its own vote", life
      )
    case .append(let request): check(true, request.term, "its office", life)
    case .appendReply(let reply):
      check(true, reply.term, "its term", life)
      guard case .accepted(let match, _) = reply.outcome else { return }
      let end = max(life.store.syncedLast.index, life.store.snapshot?.position.index ?? .zero)
      if match > end {
        simulation.violated(
          "G1", "\(life.node) acknowledges entry \(match), and its disk has those through \(end)")
      }
    default: break
    }
  }

  private func check(_ isKept: Bool, _ term: Term, _ what: String, _ life: NodeLife) {
    guard !isKept || life.node.hardState.term < term else { return }
    simulation.violated(
      "G2",
      "\(life.node) speaks of \(what) in term \(term), and its disk has \(life.node.hardState)")
  }

  /// Who leads counts nothing of a member's log that the process it speaks to from now on does not
  /// have: the disk may be another (G11).
  func connected(_ life: NodeLife, to peer: NodeLife) {
    let (leader, member) = (life.replica.consensus.term, peer.replica.consensus.term)
    guard life.blockedUntil <= simulation.now, life.replica.isLeader, leader >= member else {
      return
    }
    let status = life.replica.consensus.memberStatuses.first { $0.id == peer.replica.id }
    let end = peer.replica.consensus.persisted
    guard let match = status?.match, match > end else { return }
    simulation.violated(
      "G1",
      "\(life.node) counts entry \(match) at \(peer.node), whose disk has those through \(end)")
  }

  /// A leader changes the members only after it has committed in its term: the error in the thesis'
  /// first edition.
  func willChangeMembers(_ entry: Entry, at life: NodeLife) {
    let consensus = life.replica.consensus.term(at: life.replica.consensus.commit)
    guard life.replica.isLeader, entry.header.term == life.replica.consensus.term,
      consensus != entry.header.term,
      Replica.decodeMembership(entry.payload) != simulation.foundingMembership
    else { return }
    simulation.violated(
      "G2",
      "\(life.node) changes the members by entry \(entry.index) before it has committed in term"
        + " \(entry.header.term)")
  }

  /// A process finds in the log only what was there when the last one ended (G11). Where harm took a
  /// truncation, what it removed may be there again, and the floor keeps it from counting.
  func recovered(_ recovery: Recovery, at node: SimulatedNode) {
    let snapshot = recovery.snapshot?.position.index ?? .zero
    OrderedLog.forEachEntry(of: recovery) { position in
      if position.index > snapshot, recovery.damage.isEmpty, !node.log.mayHave(position) {
        simulation.violated(
          "G11", "\(node) finds entry \(position) in its log, which was not there before")
      }
    }
    node.log.begin(with: recovery)
    node.hardState = recovery.hardState
  }
}
