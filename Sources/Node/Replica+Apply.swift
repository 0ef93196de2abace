// Committed entries reach the queues: from memory, or read back from the log after a restart.

import Base
import Consensus
import QueueMachine

extension Replica {
  /// Whether everything that is known to be committed has been applied.
  package var isCaughtUp: Bool { applied >= consensus.commit }

  mutating func applyCommitted(now: MonotonicTime) {
    while applied < consensus.commit {
      guard let entry = cache.entry(applied.next) else {
        askForApply()
        return
      }
      apply(entry)
    }
    releaseReads()
  }

  private mutating func askForApply() {
    guard applyRead == nil else { return }
    var last = consensus.commit
    if let first = cache.firstIndex, first > applied.next { last = min(last, first.previous) }
    let read = EntryRead(
      purpose: .apply, first: applied.next, last: last, bytesMax: configuration.readBytesMax)
    applyRead = read
    outputs.append(.read(read))
  }

  private mutating func apply(_ entry: Entry) {
    invariant(entry.index == applied.next, "entry \(entry.index) applied after \(applied)")
    switch entry.header.kind {
    case .begin:
      break
    case .commands:
      entry.payload.withUnsafeBytes { payload in
        machine.apply(index: entry.index, payload: payload, effects: &effects)
      }
      // Also when the log is read back after a start: the clock goes on from its last stamp.
      clock.observe(machine.clock, at: turnTime)
    case .membership:
      if let membership = Self.decodeMembership(entry.payload) { appliedMembership = membership }
    }
    applied = entry.index
    appliedTerm = entry.header.term
    if cache.contains(entry.index) { unappliedBytes -= entry.payload.count }
    appliedBytesSinceSnapshot += entry.payload.count
    logReach.applied(entry.payload.count)
    if StateHashHistory.isAgreed(entry.index) { recordHash(after: entry.index) }
  }

  /// Entries that the shell read back, in order, for whatever they were asked.
  package mutating func entriesRead(
    _ read: EntryRead, _ entries: [Entry]
  ) {
    switch read.purpose {
    case .apply:
      guard read == applyRead else { return }
      applyRead = nil
      for entry in entries where entry.index == applied.next && entry.index <= consensus.commit {
        apply(entry)
      }
    case .replicate(let peer):
      guard read == peerReads[peer] else { return }
      peerReads[peer] = nil
      sendRead(entries, to: peer)
    }
  }

  /// The log store could not read what a follower is to be sent.
  package mutating func entriesUnreadable(_ read: EntryRead, _ reason: String) {
    // What is to be applied must be readable: the shell ends the process instead of telling.
    if case .replicate(let peer) = read.purpose {
      peerReads[peer] = nil
      feedPaces[peer]?.failed(now: turnTime)
    }
    outputs.append(.note("entries \(read.first) to \(read.last) cannot be read: \(reason)"))
  }

  // MARK: Linearizable reads (thesis §6.4)

  /// Begins a read; nil if this node does not lead or too many wait. Told by `readReady`.
  package mutating func beginRead(now: MonotonicTime) -> ReadTicket? {
    let ticket = consensus.readIndex(now: now, into: &consensusOutputs)
    carryOutConsensus(now: now)
    return ticket
  }

  private mutating func releaseReads() {
    guard !waitingReads.isEmpty else { return }
    for waiting in waitingReads where waiting.index <= applied {
      outputs.append(.readReady(waiting.ticket))
    }
    waitingReads.removeAll { $0.index <= applied }
  }

  // MARK: State hashes (G14)

  private mutating func recordHash(after index: LogIndex) {
    hashes.record(machine.stateHash, at: index)
    if let leader, leader != id {
      outputs.append(.send(to: leader, .stateHash(index: index, hash: machine.stateHash)))
    }
  }

  mutating func receiveHash(_ hash: UInt64, after index: LogIndex, from peer: NodeID) {
    guard isLeader, StateHashHistory.isAgreed(index), appliedMembership.member(peer) != nil
    else { return }
    hashReports[peer, default: StateHashHistory()].recordIfNewer(hash, at: index)
    guard let own = hashes.hash(at: index) else { return }
    let reports = hashReports.keys.sorted().compactMap { node in
      hashReports[node]?.hash(at: index).map { (node: node, hash: $0) }
    }
    switch judgeHashes(own: own, reports: reports, quorum: appliedMembership.quorum) {
    case .agree:
      break
    case .odd(let node):
      outputs.append(.note("node \(node) has a different state after entry \(index)"))
      outputs.append(.send(to: node, .diverged(index: index)))
    case .leaderIsOdd:
      outputs.append(.stop(.diverged(after: index)))
    case .undecided:
      outputs.append(
        .note("node \(peer) has a different state after entry \(index); no majority tells who errs")
      )
    }
  }
}
