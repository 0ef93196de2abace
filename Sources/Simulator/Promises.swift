// What a node's disk holds of its promises, as the world knows it: term, vote and log. Whatever it says
// to others and whatever its next process finds is compared with this.

import Base
import Consensus
import LogStore
import Node

/// Terms by index.
struct TermTable {
  /// From index 0 on; zero where there is no entry.
  private var terms: [Term] = []

  subscript(index: LogIndex) -> Term {
    get {
      let place = Int(index.rawValue)
      return place < terms.count ? terms[place] : .zero
    }
    set {
      let place = Int(index.rawValue)
      while terms.count <= place { terms.append(.zero) }
      terms[place] = newValue
    }
  }

  /// The last entry.
  var last: LogIndex { LogIndex(UInt64(max(terms.count, 1) - 1)) }

  func has(_ position: LogPosition) -> Bool {
    position.term != .zero && self[position.index] == position.term
  }

  mutating func remove(from index: LogIndex, _ body: (LogPosition) -> Void = { _ in }) {
    while last >= index, let term = terms.popLast() {
      if term != .zero { body(LogPosition(term: term, index: LogIndex(UInt64(terms.count)))) }
    }
  }
}

/// The log as it was ordered to the disk, and as the disk is known to hold it.
struct OrderedLog {
  private var ordered = TermTable()
  /// Entries that were removed by what may not be on the disk yet: a crash may bring them back.
  private var removed: Set<LogPosition> = []
  /// Ordered and not reported as durable, oldest first.
  private var waiting = RingBuffer<(ticket: StoreTicket, operations: [LogOperation])>()
  private var durable = TermTable()
  /// The snapshot on the disk stands for all through here.
  private var snapshot = LogIndex.zero
  /// What was durable until the disk was harmed or replaced: it may have been counted before.
  private var harmed: Set<LogPosition> = []
  private var harmedSnapshot = LogIndex.zero

  mutating func order(_ operations: [LogOperation], _ ticket: StoreTicket) {
    waiting.append((ticket, operations))
    for operation in operations {
      switch operation {
      case .append(let entries):
        for entry in entries { ordered[entry.index] = entry.header.term }
      case .truncate(let from): ordered.remove(from: from) { removed.insert($0) }
      case .saveHardState: break
      }
    }
  }

  /// These are on the disk.
  ///
  /// - Returns: whether entries came to it.
  @discardableResult
  mutating func stored(_ tickets: [StoreTicket]) -> Bool {
    var hasGrown = false
    while let first = waiting.first, tickets.contains(first.ticket) {
      _ = waiting.popFirst()
      for operation in first.operations {
        switch operation {
        case .append(let entries):
          for entry in entries { durable[entry.index] = entry.header.term }
          hasGrown = hasGrown || !entries.isEmpty
        case .truncate(let from): durable.remove(from: from)
        case .saveHardState: break
        }
      }
    }
    if waiting.isEmpty { removed.removeAll(keepingCapacity: true) }
    return hasGrown
  }

  /// A snapshot is in force in the place of the log.
  mutating func reset(to index: LogIndex) {
    ordered = TermTable()
    durable = TermTable()
    removed = []
    snapshot = max(snapshot, index)
  }

  /// All through here is on the disk.
  var durableEnd: LogIndex { max(durable.last, snapshot) }

  /// What was lost to harm is not counted any more by anybody.
  mutating func forgetHarm() {
    harmed = []
    harmedSnapshot = .zero
  }

  func mayHave(_ position: LogPosition) -> Bool {
    ordered.has(position) || removed.contains(position)
  }

  /// Whether the disk has the entry, or had it until it was harmed.
  func holds(_ position: LogPosition) -> Bool {
    durable.has(position) || position.index <= max(snapshot, harmedSnapshot)
      || harmed.contains(position)
  }

  /// Whether enough of these disks have the entry.
  static func hold(_ position: LogPosition, _ logs: [OrderedLog], quorum: Int) -> Bool {
    logs.count { $0.holds(position) } >= quorum
  }

  /// Goes on from what a new process found.
  ///
  /// - Returns: the first entry that was on the disk and is not there any more.
  mutating func begin(with recovery: Recovery) -> LogPosition? {
    var found = TermTable()
    Self.forEachEntry(of: recovery) { found[$0.index] = $0.term }
    let end = recovery.snapshot?.position.index ?? .zero
    var lost: LogPosition?
    let cut = firstToBeRemoved
    durable.remove(from: end.next) { position in
      guard position.index < cut, !found.has(position) else { return }
      lost = position
      harmed.insert(position)
    }
    if snapshot > end {
      lost = LogPosition(term: .zero, index: snapshot)
      harmedSnapshot = max(harmedSnapshot, snapshot)
    }
    snapshot = end
    ordered = found
    durable = found
    removed = []
    waiting.removeAll()
    return lost
  }

  /// A truncation on its way may have reached the disk or not.
  private var firstToBeRemoved: LogIndex {
    var first = LogIndex(.max)
    for place in 0..<waiting.count {
      for case .truncate(let from) in waiting[place].operations { first = min(first, from) }
    }
    return first
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
    checkDisk(of: life, "speaks to \(simulation.nodes[simulation.place(peer)])")
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
      check(match, life)
    case .snapshot(let chunk): check(true, chunk.term, "its office", life)
    case .snapshotReply(let reply):
      check(true, reply.term, "its term", life)
      if reply.isInstalled { check(reply.last, life) }
    case .preVote, .preVoteReply, .voteReply, .timeoutNow: break
    }
  }

  /// A leader counts what a follower says that it has.
  private func check(_ match: LogIndex, _ life: NodeLife) {
    let end = life.node.log.durableEnd
    if match > end {
      simulation.violated(
        "G1", "\(life.node) acknowledges entry \(match), and its disk has those through \(end)")
    }
  }

  /// A process that was told that a write or sync failed neither writes nor says anything on the strength
  /// of its disk any more (G12).
  func checkDisk(of life: NodeLife, _ doing: @autoclosure () -> String) {
    if let failure = life.diskFailure {
      simulation.violated(
        "G12", "\(life.node) \(doing()) although its disk has failed: \(failure)")
    }
    if let path = life.node.disk.syncedAgain {
      simulation.violated(
        "G12", "\(life.node) syncs \(path) again, which it could not sync before")
    }
  }

  /// Who leads has the votes of a majority, each on its voter's disk (thesis §3.4). Who may have lost its
  /// memory after it voted may have voted.
  func checkVotes(for life: NodeLife, _ term: Term) {
    let membership = life.replica.consensus.membership
    let votes = membership.voters.count { voter in
      let node = simulation.nodes[simulation.place(voter)]
      let kept = node.hardState
      return kept.term > term || (kept.term == term && kept.vote == life.replica.id)
        || node.wasHarmed
    }
    if votes < membership.quorum {
      simulation.violated(
        "G2",
        "\(life.node) leads term \(term) by \(votes) votes of \(membership.voters.count), and needs"
          + " \(membership.quorum)")
    }
  }

  /// Something leaves only for what a majority has on disk (G1).
  func willConfirm(_ index: LogIndex, at life: NodeLife) {
    checkDisk(of: life, "confirms entry \(index)")
    guard index > .zero, let term = life.replica.consensus.term(at: index) ?? committedTerm(index)
    else { return }
    let position = LogPosition(term: term, index: index)
    // It was committed by the members of then, which may be those applied or newer ones.
    func log(_ voter: NodeID) -> OrderedLog { simulation.nodes[simulation.place(voter)].log }
    func isHeld(_ members: Membership) -> Bool {
      OrderedLog.hold(position, members.voters.map(log), quorum: members.quorum)
    }
    let consensus = life.replica.consensus.membership
    if isHeld(consensus) || isHeld(life.replica.appliedMembership) { return }
    if membershipsSince(index, life).contains(where: isHeld) { return }
    let holders = consensus.voters.filter { log($0).holds(position) }
    simulation.violated(
      "G1",
      "\(life.node) confirms entry \(position), which is not on a majority of disks: nodes"
        + " \(holders) of \(consensus.voters) have it")
  }

  /// Those of the log from `index` on.
  private func membershipsSince(_ index: LogIndex, _ life: NodeLife) -> Set<Membership> {
    var found: Set<Membership> = []
    var at = max(index, life.replica.consensus.snapshot.index)
    while at <= life.replica.consensus.lastIndex {
      found.insert(life.replica.consensus.membership(at: at))
      at = at.next
    }
    return found
  }

  /// The same for answers to what some entry did that was applied by now.
  func willAnswer(_ life: NodeLife) {
    let applied = life.replica.applied
    guard applied > life.answeredApplied else { return }
    life.answeredApplied = applied
    willConfirm(applied, at: life)
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
    guard life.replica.isLeader, leader >= member else { return }
    let status = life.replica.consensus.memberStatuses.first { $0.id == peer.replica.id }
    let end = peer.replica.consensus.persisted
    guard let match = status?.match, match > end else { return }
    simulation.violated(
      "G1",
      "\(life.node) counts entry \(match) at \(peer.node), whose disk has those through \(end)")
  }

  /// A leader changes the members by one change at a time, and only after it has committed in its term:
  /// the error in the thesis' first edition.
  func willChangeMembers(_ entry: Entry, at life: NodeLife) {
    if life.replica.isLeader, entry.header.term == life.replica.consensus.term {
      judgeChange(entry.header.position, after: life.lastChange, at: life)
      life.lastChange = entry.header.position
    }
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

  /// One change at a time (thesis §4.1): majorities of memberships that differ by two need not meet.
  func judgeChange(_ change: LogPosition, after earlier: LogPosition?, at life: NodeLife) {
    guard let earlier, earlier.term == change.term,
      earlier.index > life.replica.consensus.commit
    else { return }
    simulation.violated(
      "G2",
      "\(life.node) changes the members by entry \(change) before the change by entry \(earlier) is"
        + " committed")
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
    let lost = node.log.begin(with: recovery)
    if let lost, !node.wasHarmed {
      simulation.violated(
        "G1", "\(node) had entry \(lost) on its disk, and finds it no more after a crash")
    }
    compare(recovery.hardState, with: node.hardState, at: node)
    node.hardState = recovery.hardState
  }

  /// A term and a vote that were on the disk are there after a crash, or newer ones (thesis §3.8).
  private func compare(_ found: HardState, with kept: HardState, at node: SimulatedNode) {
    let isVoteThere = kept.vote == nil || found.vote == kept.vote
    if node.wasHarmed || found.term > kept.term || (found.term == kept.term && isVoteThere) {
      return
    }
    simulation.violated(
      "G2", "\(node) had \(kept) on its disk, and finds \(found) after a crash")
  }
}
