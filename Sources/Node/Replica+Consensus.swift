// Between the replica and its consensus: messages in, orders out.

import Base
import Consensus
import QueueMachine

extension Replica {
  // MARK: Inputs from peers

  /// A connection with a peer is ready in both directions of talk.
  package mutating func peerConnected(_ peer: NodeID, now: MonotonicTime) {
    consensus.peerConnected(peer, now: now, into: &consensusOutputs)
    carryOutConsensus(now: now)
  }

  /// The peer's connection closed.
  package mutating func peerDisconnected(_ peer: NodeID, now: MonotonicTime) {
    peerReads[peer] = nil
    snapshotReads.remove(peer)
    consensus.peerDisconnected(peer, now: now, into: &consensusOutputs)
    carryOutConsensus(now: now)
  }

  /// Takes what a peer sent. Nothing that a peer sends can stop this node but `.diverged` from the
  /// leader that it follows.
  package mutating func receive(
    _ envelope: consuming PeerEnvelope, from peer: NodeID, now: MonotonicTime
  ) {
    switch consume envelope {
    case .introduction(let introduction):
      receive(introduction, now: now)
    case .consensus(let message, let payloads):
      receive(message, payloads, from: peer, now: now)
    case .stateHash(let index, let hash):
      receiveHash(hash, after: index, from: peer)
    case .diverged(let index):
      if peer == leader, hashes.hash(at: index) != nil {
        outputs.append(.stop(.diverged(after: index)))
      }
    case .fetchRecords(let references):
      // Only what is committed is the same everywhere.
      let references = references.prefix(Repair.recordsPerQuestion).filter { $0.entry <= applied }
      outputs.append(.lookUpRecords(for: peer, references))
    case .records(let references, let bodies):
      receiveRecords(references, bodies, now: now)
    case .relay, .askIndex, .toldIndex, .publishesRefused:
      // For the shell, which has the gateways.
      break
    }
  }

  private mutating func receive(_ introduction: Introduction, now: MonotonicTime) {
    guard formation != nil else { return }
    let heardBefore = formation?.heard
    formation?.receive(introduction)
    if formation?.heard != heardBefore { introduceAgain(to: appliedMembership) }
    maybeBegin(now: now)
  }

  /// The others have to know what this node knows by now.
  private mutating func introduceAgain(to membership: Membership) {
    for member in membership.members where member.id != id {
      outputs.append(.send(to: member.id, .introduction(introduction)))
    }
  }

  /// The note that this node is a founder may have reached the disk.
  mutating func maybeFound(now: MonotonicTime) {
    guard isForming, formation?.isFounder == false, consensus.isFounderDurably else { return }
    formation?.noteFounding()
    introduceAgain(to: appliedMembership)
    maybeBegin(now: now)
  }

  /// Ends the time of forming once the verdict is there.
  package mutating func maybeBegin(now: MonotonicTime) {
    guard isForming, let verdict = formation?.verdict(now: now) else { return }
    switch verdict {
    case .waiting:
      return
    case .isFounder:
      // Once: the disk is on it.
      if consensus.hardState.isFounder { return }
      consensus.noteFounding(into: &consensusOutputs)
    case .isNew:
      isForming = false
      isMemoryLost = false
      consensus.nothingWasForgotten(now: now)
      outputs.append(.note("the cluster is new: all initial members founded it together"))
    case .differs(let node):
      if differingFounder != node {
        differingFounder = node
        outputs.append(
          .note("node \(node) was given other founding members than this node; waiting"))
      }
      return
    case .hasHistory(let witness):
      isForming = false
      formation = nil
      outputs.append(.memoryLost)
      outputs.append(
        .note(
          "node \(witness) has a past and this data directory is empty: taking part without a vote"
            + " until the log has caught up"))
    }
    carryOutConsensus(now: now)
  }

  private mutating func receive(
    _ message: consuming PeerMessage, _ payloads: consuming [[UInt8]], from peer: NodeID,
    now: MonotonicTime
  ) {
    if isForming {
      // Before the past of this disk is known, taking part could contradict it. But who speaks of a
      // term has a past; it had none perhaps when it introduced itself.
      formation?.receive(message, from: peer)
      return maybeBegin(now: now)
    }
    var memberships: [MembershipEntry] = []
    switch copy message {
    case .append(let request):
      guard request.entries.count == payloads.count else { return }
      guard let found = Self.membershipEntries(request.entries, payloads) else {
        outputs.append(.note("node \(peer) sent a membership entry that cannot be read"))
        return
      }
      memberships = found
      incoming = (request.entries, payloads)
    case .snapshot:
      incomingChunk = payloads.first ?? []
    default:
      break
    }
    consensus.receive(
      message, from: peer, memberships: memberships, now: now, into: &consensusOutputs)
    carryOutConsensus(now: now)
    incoming = ([], [])
    incomingChunk = []
  }

  private static func membershipEntries(
    _ headers: [EntryHeader], _ payloads: [[UInt8]]
  ) -> [MembershipEntry]? {
    var memberships: [MembershipEntry] = []
    for place in headers.indices {
      guard case .membership = headers[place].kind else { continue }
      guard let membership = decodeMembership(payloads[place]) else { return nil }
      memberships.append(
        MembershipEntry(index: headers[place].index, membership: membership))
    }
    return memberships
  }

  package static func decodeMembership(_ payload: [UInt8]) -> Membership? {
    payload.withUnsafeBytes { bytes in
      var reader = ByteReader(bytes)
      guard let membership = try? Membership(decoding: &reader), reader.isAtEnd else { return nil }
      return membership
    }
  }

  // MARK: Orders of consensus

  mutating func carryOutConsensus(now: MonotonicTime) {
    // Orders beget orders (a new leader proposes): go on until there are none.
    while !consensusOutputs.isEmpty {
      var orders: [ConsensusOutput] = []
      swap(&orders, &consensusOutputs)
      for place in orders.indices {
        // Taken out of the list, not copied: what is left in its place asks for nothing.
        carryOut(exchange(&orders[place], with: .commit(through: .zero)), now: now)
      }
      if consensusOutputs.isEmpty {
        orders.removeAll(keepingCapacity: true)
        swap(&orders, &consensusOutputs)
      }
    }
  }

  private mutating func carryOut(_ order: consuming ConsensusOutput, now: MonotonicTime) {
    switch consume order {
    case .persistHardState(let state):
      operations.append(.saveHardState(state))
      pendingHardState = state
    case .truncateLog(let from):
      truncate(from: from)
    case .appendEntries(let first, let last):
      takeIncoming(first, last, now: now)
    case .send(let peer, let message):
      outputs.append(.send(to: peer, .consensus(message, payloads: [])))
    case .commit:
      break  // `applyCommitted` looks at `consensus.commit` once per turn.
    case .becameLeader(let begin):
      becomeLeader(begin, now: now)
    case .becameFollower(let term):
      becomeFollower(term)
    case .leaderChanged(let leader):
      outputs.append(.leaderChanged(leader, consensus.term))
    case .membershipChanged(let membership, _):
      outputs.append(.membershipChanged(membership))
      // Who heard this node before it knew where it is reached could not be told, and it may have
      // learnt it from a membership that did not have them yet.
      if !ownPeerAddress.isEmpty { introduceAgain(to: membership) }
    case .removedFromCluster:
      outputs.append(.stop(.removed))
    case .receiveSnapshotChunk(let chunk):
      outputs.append(.storeSnapshotChunk(chunk, incomingChunk))
    case .contradicted(let index):
      outputs.append(.stop(.contradicted(index)))
    case .readReady(let ticket, let index):
      waitingReads.append((ticket, index))
    case .readFailed(let ticket):
      outputs.append(.readFailed(ticket))
    case .transferAbandoned(let target):
      outputs.append(.note("leadership transfer to node \(target) was not completed in time"))
    case .voteRestored:
      isMemoryLost = false
      outputs.append(.memoryRestored)
      // Saved once more for the word that it is on disk: others may rely on this vote then.
      operations.append(.saveHardState(consensus.hardState))
      isVoteRestoring = true
      outputs.append(.note("this node has caught up and votes again"))
    case .floorCleared:
      outputs.append(.logMended)
    }
  }

  private mutating func truncate(from index: LogIndex) {
    while let last = cache.lastIndex, last >= index {
      if let entry = cache.entry(last), last > applied { unappliedBytes -= entry.payload.count }
      cache.truncate(from: last)
    }
    operations.append(.truncate(from: index))
    persisted = min(persisted, consensus.persisted)
    // What was truncated can no longer be reported as the batch's last entry.
    if let last = pendingLast, last.index >= index { pendingLast = nil }
    peerReads.removeAll()
    applyRead = nil
  }

  private mutating func takeIncoming(
    _ first: LogIndex, _ last: LogIndex, now: MonotonicTime
  ) {
    let count = Int(last.rawValue - first.rawValue) + 1
    // Those before are known already.
    let offset = incoming.headers.count - count
    invariant(
      offset >= 0 && incoming.headers[offset].index == first,
      "entries \(first)...\(last) are not in the message at hand")
    for place in offset..<incoming.headers.count {
      let entry = Entry(header: incoming.headers[place], payload: incoming.payloads[place])
      keep(entry)
      if case .commands = entry.header.kind { observeStamp(of: entry, now: now) }
    }
  }

  private mutating func observeStamp(of entry: Entry, now: MonotonicTime) {
    let stamp: UInt64? = entry.payload.withUnsafeBytes { bytes in
      var reader = ByteReader(bytes)
      return try? reader.integer(UInt64.self)
    }
    if let stamp { clock.observe(MachineTime(stamp), of: entry.header.term, at: now) }
  }

  // MARK: Roles

  private mutating func becomeLeader(_ begin: LogPosition, now: MonotonicTime) {
    keep(Entry(position: begin, kind: .begin, payload: []))
    effects.isWanted = true
    tickIndex = .zero
    hashReports.removeAll()
    outputs.append(.roleChanged(isLeader: true, begin.term))
    dropBatch()
    let node = id
    submit(now: now) { CommandWriter.leaderChanged(to: node, into: &$0) }
    if let founded = consensus.recordFoundingMembership(now: now, into: &consensusOutputs) {
      // This leader alone gives the queues their time, before any command: wall clocks differ, and
      // another one's would make a later leader's time jump.
      clock.observe(wallClock, at: now)
      keep(
        Entry(
          position: founded.position, kind: .membership, payload: founded.membership.encoded()))
    }
  }

  private mutating func becomeFollower(_ term: Term) {
    if !configuration.hasStickySessions {
      effects.isWanted = false
      effects.removeAll()
    }
    dropBatch()
    peerReads.removeAll()
    snapshotReads.removeAll()
    for waiting in waitingReads { outputs.append(.readFailed(waiting.ticket)) }
    waitingReads.removeAll()
    outputs.append(.roleChanged(isLeader: false, term))
  }
}
