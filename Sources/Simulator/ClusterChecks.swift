// What must hold in the cluster after every step: one leader a term, logs that match, committed
// entries that never change, replicas whose states are equal at equal index.

import Base
import Consensus
import LogStore
import Node
import QueueMachine

final class ClusterChecks {
  private struct EntryFacts {
    var checksum: Checksum
    var kind: EntryKind
    var previousTerm: Term?
  }

  unowned(unsafe) let simulation: Simulation
  /// By the number of their lives: who forgot its vote in a crash must not lead the same term again.
  private var leaders: [Term: (life: Int, place: Int)] = [:]
  private var entries: [LogPosition: EntryFacts] = [:]
  /// The term of each committed entry, from 1 on.
  private var committed: [Term?] = [nil]
  /// The term of the first node that knew it: it was committed in this one or before.
  private var committedIn: [Term] = [.zero]
  private var hashes: [LogIndex: UInt64] = [:]
  private(set) var commit = LogIndex.zero
  private var newestApplied = LogIndex.zero
  /// The members as of the newest entry that any node ever applied.
  private(set) var newestMembership: Membership?
  /// The newest time of the queues that any replica ever had.
  private(set) var newestClock = MachineTime.zero
  private(set) var sessions = SessionWatch()
  /// Times at which two replicas could have been compared, and were not.
  private var chancesToCompare = 0

  init(_ simulation: Simulation) { self.simulation = simulation }

  // MARK: After every step

  func afterStep(_ life: NodeLife) {
    life.steps += 1
    life.replica.consensus.checkInvariants()
    if life.steps & 15 == 0 { life.replica.checkInvariants() }
    if life.steps & 63 == 0 { life.store.checkInvariants() }
    if life.steps & 255 == 0 { life.replica.machine.checkInvariants() }
    checkCommitted(life)
    life.checkedLeadership = life.replica.isLeader ? life.replica.consensus.term : nil
    let applied = life.replica.applied
    if applied > life.checkedApplied {
      life.checkedApplied = applied
      if applied > newestApplied {
        newestApplied = applied
        noteMembership(life.replica.appliedMembership)
        newestClock = max(newestClock, life.replica.machine.clock)
        watchSessions(life)
      }
      compare(life.replica.machine.stateHash, after: applied, at: life.node)
      maybeCompareWhole(life)
    }
    simulation.digest(
      life.node.place, life.replica.applied.rawValue, life.replica.machine.stateHash)
  }

  private func checkCommitted(_ life: NodeLife) {
    let commit = life.replica.consensus.commit
    guard commit > life.checkedCommit else { return }
    var index = max(life.checkedCommit.next, life.replica.consensus.logBase.index)
    while index <= commit {
      checkCommitted(index, life)
      index = index.next
    }
    let term = life.replica.consensus.term(at: commit)
    if let term, let led = life.checkedLeadership, led == life.replica.consensus.term, term != led {
      // By counting a leader commits entries of its own term only (thesis §3.6.2).
      simulation.violated(
        "leader completeness",
        "\(life.node) leads term \(led) and commits entry \(commit) of term \(term)")
    }
    life.checkedCommit = commit
    if commit > self.commit { self.commit = commit }
  }

  private func checkCommitted(_ index: LogIndex, _ life: NodeLife) {
    guard index > .zero, let term = life.replica.consensus.term(at: index) else { return }
    let place = Int(index.rawValue)
    while committed.count <= place {
      committed.append(nil)
      committedIn.append(.zero)
    }
    if let known = committed[place] {
      if known != term {
        simulation.violated(
          "committed entries never change",
          "\(life.node) has entry \(index) of term \(term) committed, and it was committed with term"
            + " \(known)")
      }
    } else {
      committed[place] = term
      committedIn[place] = life.replica.consensus.term
      simulation.note(.commits)
    }
  }

  /// The term of a committed entry, if anybody knew it as such.
  func committedTerm(_ index: LogIndex) -> Term? {
    let place = Int(index.rawValue)
    return place < committed.count ? committed[place] : nil
  }

  func compare(_ hash: UInt64, after index: LogIndex, at node: SimulatedNode) {
    if let known = hashes[index] {
      if known != hash {
        simulation.violated(
          "G14",
          "\(node) has another state after entry \(index) than the replica that was there first")
      }
    } else {
      hashes[index] = hash
    }
  }

  // MARK: Sessions

  func sessionOpened(_ session: SessionID) {
    sessions.opened(session, timeout: simulation.plan.sessionTimeout)
  }

  private func noteMembership(_ membership: Membership) {
    defer { newestMembership = membership }
    guard let before = newestMembership, membership != before else { return }
    for member in membership.members {
      if let known = before.member(member.id) {
        if known.isLearner, !member.isLearner { simulation.note(.promotions) }
      } else {
        simulation.note(.membersAdded)
      }
    }
    for member in before.members where membership.member(member.id) == nil {
      simulation.note(.membersRemoved)
      let newest = leaders.max { $0.key < $1.key }
      if newest?.value.place == simulation.place(member.id) { simulation.note(.leadersRemoved) }
    }
  }

  private func watchSessions(_ life: NodeLife) {
    let fault = sessions.look(at: newestClock) { session in
      if life.replica.machine.origin(of: session) != nil { return .attached }
      return life.replica.machine.held(by: session) == nil ? .gone : .detached
    }
    if let fault { simulation.violated("G7", fault) }
  }

  // MARK: States

  /// Hashes are of what was decided, and a snapshot brings its own along: so now and then, and whenever a
  /// state was read from a snapshot, all of it is compared with another replica's.
  private func maybeCompareWhole(_ life: NodeLife) {
    let applied = life.replica.applied
    for node in simulation.nodes {
      guard let other = node.life, other !== life, other.replica.applied == applied else {
        continue
      }
      chancesToCompare += 1
      // Two that may be from the same snapshot prove nothing of it.
      let isDue = life.isFromSnapshot != other.isFromSnapshot
      if !isDue, chancesToCompare & 255 != 0 { return }
      if isDue {
        life.isFromSnapshot = false
        other.isFromSnapshot = false
      }
      return compareWhole(life, other)
    }
  }

  /// The same state has the same bytes in a snapshot (G14).
  func compareWhole(_ life: NodeLife, _ other: NodeLife) {
    simulation.note(.statesCompared)
    let bytes = life.replica.machine.freeze().encoded()
    let others = other.replica.machine.freeze().encoded()
    if bytes == others { return }
    let place = zip(bytes, others).enumerated().first { $0.element.0 != $0.element.1 }?.offset
    simulation.violated(
      "G14",
      "\(life.node) and \(other.node) have other queues after entry \(life.replica.applied): their"
        + " snapshots of \(bytes.count) and \(others.count) bytes differ at byte"
        + " \(place ?? min(bytes.count, others.count))")
  }

  /// Everything is at rest: what must hold of every node still running.
  func checkAtRest() {
    for node in simulation.nodes {
      guard let life = node.life else { continue }
      life.replica.consensus.checkInvariants()
      life.replica.checkInvariants()
      life.store.checkInvariants()
      life.replica.machine.checkInvariants()
    }
  }

  // MARK: Logs

  func willStore(_ operations: [LogOperation], _ ticket: StoreTicket, at life: NodeLife) {
    life.node.log.order(operations, ticket)
    for operation in operations {
      switch operation {
      case .append(let entries):
        for entry in entries {
          check(entry, at: life)
          if entry.header.kind == .membership { willChangeMembers(entry, at: life) }
        }
      case .truncate(let from):
        simulation.note(.truncations)
        simulation.trace { "\(life.node) removes its entries from \(from)" }
        if from <= life.checkedCommit {
          simulation.violated(
            "committed entries never change", "\(life.node) removes committed entries from \(from)")
        }
      case .saveHardState: break
      }
    }
  }

  func wasRead(_ entries: [Entry], at life: NodeLife) {
    for entry in entries { check(entry, at: life) }
  }

  /// Whether these are the bytes that somebody stored at the entry's position first.
  func isKnown(_ entry: Entry) -> Bool {
    guard let known = entries[entry.header.position] else { return false }
    return known.checksum == Checksum(of: entry.payload) && known.kind == entry.header.kind
  }

  /// Equal index and term are the same entry, with the same one before it (figure 3.2).
  private func check(_ entry: Entry, at life: NodeLife) {
    let previous = life.replica.consensus.term(at: entry.index.previous)
    let position = entry.header.position
    guard let known = entries[position] else {
      entries[position] = EntryFacts(
        checksum: entry.header.payloadChecksum, kind: entry.header.kind, previousTerm: previous)
      return
    }
    if known.checksum != entry.header.payloadChecksum || known.kind != entry.header.kind {
      simulation.violated("log matching", "\(life.node) has another entry at \(position)")
    }
    if let before = known.previousTerm, let previous, before != previous,
      life.replica.consensus.term(at: entry.index) == position.term
    {
      simulation.violated(
        "log matching",
        "\(life.node) has an entry of term \(previous) before \(position), not \(before)")
    }
  }

  // MARK: Leaders

  func becameLeader(_ life: NodeLife, _ term: Term) {
    simulation.note(.elections)
    simulation.trace { "\(life.node) leads term \(term)" }
    if let other = leaders[term], other.life != life.number {
      simulation.violated(
        "one leader a term", "\(life.node) and node \(other.place + 1) lead term \(term)")
    }
    leaders[term] = (life.number, life.node.place)
    checkVotes(for: life, term)
    simulation.leaderBegan(life.node.place)
    // Of what was committed in later terms one that won late, with votes long on their way, knows
    // nothing: also of entries of earlier ones (thesis §3.6.3).
    var commit = self.commit
    while commit > .zero,
      committed[Int(commit.rawValue)] == nil || committedIn[Int(commit.rawValue)] >= term
    {
      commit = commit.previous
    }
    guard commit > .zero, let known = committed[Int(commit.rawValue)] else { return }
    let consensus = life.replica.consensus.term(at: commit)
    if life.replica.consensus.lastIndex < commit || (consensus != nil && consensus != known) {
      simulation.violated(
        "leader completeness",
        "\(life.node) leads term \(term) without the committed entry \(commit) of term \(known)")
    }
  }
}
