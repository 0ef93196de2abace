// What is asked of the node rather than of the queues: its status, the membership, the leadership.

import Base
import Consensus
import Glibc
import Node
import Transport
import Wire

/// A change that was begun for a client and is answered when it is committed.
struct PendingChange {
  indirect enum Kind {
    /// Ordered once the leader has committed something in its term, which a new one does at once; then the
    /// other.
    case order(MembershipChange, then: Kind)
    case add(NodeID)
    case remove(NodeID)
    /// To this node, or nil for whichever.
    case transfer(NodeID?, deadline: MonotonicTime)
  }
  var request: NodeRequestID
  var kind: Kind
}

extension NodeLoop {
  mutating func answerRequests(now: MonotonicTime) {
    for request in gateway.takeRequests() { answer(request, now: now) }
    promoteLearners(now: now)
    answerPendingChanges(now: now)
  }

  /// Changes that wait to be committed at a time.
  private static var pendingChangesMax: Int { 64 }

  private mutating func answer(_ request: NodeRequest, now: MonotonicTime) {
    if pendingChanges.count >= Self.pendingChangesMax {
      switch request.question {
      case .status, .memberList: break
      case .memberAdd, .memberRemove, .transferLeadership:
        refuse(request.id, .overloaded, "\(pendingChanges.count) changes are waiting already")
        return
      }
    }
    switch request.question {
    case .status:
      gateway.answer(request.id, with: .statusReply(status(now: now)))
    case .memberList:
      gateway.answer(request.id, with: .memberListReply(members))
    case .memberAdd(let node, let peerAddress, let clientAddress):
      add(node, peerAddress, clientAddress, request.id, now: now)
    case .memberRemove(let node):
      change(.remove(node), .remove(node), request.id, now: now)
    case .transferLeadership(let target):
      transfer(to: target, request.id, now: now)
    }
  }

  // MARK: Membership

  private mutating func add(
    _ node: NodeID, _ peerAddress: String, _ clientAddress: String, _ request: NodeRequestID,
    now: MonotonicTime
  ) {
    for address in [peerAddress, clientAddress] {
      do {
        guard address.utf8.count <= 255 else {
          refuse(request, .malformedRequest, "an address of \(address.utf8.count) bytes")
          return
        }
        _ = try Endpoint(parsing: address)
      } catch {
        refuse(request, .malformedRequest, "\(error)")
        return
      }
    }
    if let member = replica.consensus.membership.member(node) {
      guard member.peerAddress == peerAddress, member.clientAddress == clientAddress else {
        refuse(
          request, .memberDiffers,
          "node \(node) is a member already, at \(member.peerAddress) and \(member.clientAddress)")
        return
      }
      pendingChanges.append(PendingChange(request: request, kind: .add(node)))
      return
    }
    let change = MembershipChange.addLearner(
      id: node, peerAddress: peerAddress, clientAddress: clientAddress)
    self.change(change, .add(node), request, now: now)
  }

  private mutating func change(
    _ change: MembershipChange, _ kind: PendingChange.Kind, _ request: NodeRequestID,
    now: MonotonicTime
  ) {
    do {
      try replica.changeMembership(change, now: now)
      pendingChanges.append(PendingChange(request: request, kind: kind))
    } catch .noCommitInTerm {
      pendingChanges.append(PendingChange(request: request, kind: .order(change, then: kind)))
    } catch {
      refuse(request, Self.refusal(for: error), Self.text(for: error))
    }
  }

  /// Whoever was added becomes a voter as soon as its log is close enough (thesis §4.2.1), also
  /// under a leader that was elected meanwhile.
  private mutating func promoteLearners(now: MonotonicTime) {
    guard replica.isLeader else { return }
    for member in replica.consensus.membership.members where member.isLearner {
      // Too far behind, or another change is on its way: asked again next turn.
      do { try replica.changeMembership(.promote(member.id), now: now) } catch { continue }
    }
  }

  mutating func answerPendingChanges(now: MonotonicTime) {
    guard !pendingChanges.isEmpty else { return }
    var waiting: [PendingChange] = []
    swap(&waiting, &pendingChanges)
    for pending in waiting where !maybeAnswer(pending, now: now) { pendingChanges.append(pending) }
  }

  private mutating func maybeAnswer(_ pending: PendingChange, now: MonotonicTime) -> Bool {
    let membership = replica.appliedMembership
    switch pending.kind {
    case .order(let change, let kind):
      // Ordered, refused, or waiting anew.
      self.change(change, kind, pending.request, now: now)
      return true
    case .add(let node):
      guard membership.isVoter(node) else { return loseIfDeposed(pending) }
    case .remove(let node):
      guard membership.member(node) == nil else { return loseIfDeposed(pending) }
    case .transfer(let target, let deadline):
      let isDone = replica.leader.map { $0 != configuration.node && target ?? $0 == $0 } ?? false
      if isDone { break }
      guard now >= deadline else { return false }
      refuse(pending.request, .transferFailed, "no other node took over in time")
      return true
    }
    gateway.answer(pending.request, with: .done(count: 1))
    return true
  }

  /// A change whose leader lost its office may or may not be committed by the next one.
  private mutating func loseIfDeposed(_ pending: PendingChange) -> Bool {
    guard !replica.isLeader else { return false }
    refuse(
      pending.request, .notLeader,
      "leadership was lost on the way: `skein member list` shows whether it was done")
    return true
  }

  private static func refusal(for error: MembershipChangeError) -> Refusal {
    switch error {
    case .notLeader: .notLeader
    case .transferring, .changePending, .noCommitInTerm: .membershipChangePending
    case .alreadyMember: .memberDiffers
    case .notMember, .notLearner: .memberNotFound
    case .learnerBehind, .learnerMayNotVote, .tooFewVoters: .membershipChangePending
    case .lastVoter: .lastVoter
    }
  }

  private static func text(for error: MembershipChangeError) -> String {
    switch error {
    case .notLeader: "this node does not lead"
    case .transferring: "leadership is being handed over"
    case .changePending: "another change of members is not committed yet"
    case .noCommitInTerm: "the leader is new and has not committed anything yet"
    case .alreadyMember(let node): "node \(node) is a member already"
    case .notMember(let node): "node \(node) is no member"
    case .notLearner(let node): "node \(node) votes already"
    case .learnerBehind(let node, let entries): "node \(node) is \(entries) entries behind"
    case .learnerMayNotVote(let node):
      "node \(node) does not vote yet: it has not heard from every voter since its disk was new"
    case .tooFewVoters(let voting, let needed):
      "\(needed) of the voters left must be connected and able to vote, and \(voting) are"
    case .lastVoter(let node): "without node \(node) nobody would be left to decide"
    }
  }

  // MARK: Leadership

  private mutating func transfer(
    to target: NodeID?, _ request: NodeRequestID, now: MonotonicTime
  ) {
    if target == configuration.node, replica.isLeader {
      gateway.answer(request, with: .done(count: 0))
      return
    }
    do {
      try replica.transferLeadership(to: target, now: now)
      let deadline = now + Nanoseconds(2 * configuration.timeouts.electionMax.rawValue)
      pendingChanges.append(
        PendingChange(request: request, kind: .transfer(target, deadline: deadline)))
    } catch {
      switch error {
      case .notLeader: refuse(request, .notLeader, "this node does not lead")
      case .alreadyTransferring(let node):
        refuse(request, .transferFailed, "leadership is being handed to node \(node)")
      case .notVoter(let node):
        refuse(request, .memberNotFound, "node \(node) is no other voting member")
      case .notConnected(let node):
        refuse(request, .transferFailed, "node \(node) is not connected")
      case .nobody: refuse(request, .transferFailed, "no other voting member is connected")
      }
    }
  }

  private mutating func refuse(_ request: NodeRequestID, _ refusal: Refusal, _ detail: String) {
    gateway.refuse(request, refusal, detail)
  }

  // MARK: Status

  private var members: [MemberInfo] {
    replica.consensus.membership.members.map {
      MemberInfo(
        id: $0.id, peerAddress: $0.peerAddress, clientAddress: $0.clientAddress,
        votes: !$0.isLearner, isLeader: $0.id == replica.leader)
    }
  }

  private func status(now: MonotonicTime) -> NodeStatus {
    let last = replica.consensus.lastIndex
    return NodeStatus(
      id: configuration.node, role: role, term: replica.consensus.term,
      leader: isTakingPart ? replica.leader ?? NodeID(0) : NodeID(0),
      commitIndex: replica.consensus.commit, appliedIndex: replica.applied, lastIndex: last,
      stateHash: replica.machine.stateHash, stateHashIndex: replica.applied,
      diskBytes: store.figures.diskBytes, memoryBytes: Self.residentBytes(),
      pid: UInt32(getpid()), uptime: now.since(started),
      sessions: UInt32(clamping: gateway.sessionCount),
      connections: UInt32(clamping: gateway.connectionCount),
      synchronizations: store.figures.synchronizations, bytesWritten: store.figures.bytesWritten,
      amqp: AMQPStatus(
        port: amqp.localAddress?.port ?? 0, connections: UInt32(clamping: amqp.connectionCount),
        exchanges: UInt32(clamping: replica.machine.exchangeCount),
        bindings: UInt32(clamping: replica.machine.bindingCount),
        advice: amqp.advice.sentences),
      version: Server.version,
      peers: replica.consensus.memberStatuses.map { member in
        PeerStatus(
          id: member.id, isConnected: member.isConnected, match: member.match,
          lag: last.rawValue - min(last, member.match).rawValue,
          silence: now.since(member.lastHeard))
      }, problems: problems.texts(replica, noSpace: gateway.noSpace))
  }

  private var role: NodeRole {
    guard isTakingPart else { return .stopped }
    if let own = replica.consensus.membership.member(configuration.node), own.isLearner {
      return .learner
    }
    return switch replica.consensus.role {
    case .follower: .follower
    case .preCandidate, .candidate: .candidate
    case .leader: .leader
    }
  }

  /// Resident memory, bytes; 0 if /proc does not tell.
  private static func residentBytes() -> UInt64 {
    guard let file = fopen("/proc/self/statm", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 128)
    guard fgets(&line, Int32(line.count), file) != nil else { return 0 }
    let text = String(
      decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let fields = text.split(separator: " ")
    guard fields.count > 1, let pages = UInt64(fields[1]) else { return 0 }
    return pages * UInt64(sysconf(Int32(_SC_PAGESIZE)))
  }
}
