// One `Consensus` whose peers the test plays itself, for rules about single messages.

import Base

@testable import Consensus

final class LoneNode {
  var consensus: Consensus
  var now = MonotonicTime(1_000_000_000)
  /// All orders since the start.
  var history: [ConsensusOutput] = []

  /// Node 1 of `voters`, with a log whose entries have the terms of `log`.
  init(
    voters: [UInt32] = [1, 2, 3], log: [UInt64] = [], term: UInt64? = nil,
    floor: LogPosition = .zero, canVote: Bool = true,
    configure: (inout ConsensusConfiguration) -> Void = { _ in }
  ) {
    var runs: [TermRun] = []
    for (place, term) in log.enumerated() where Term(term) != runs.last?.term {
      runs.append(TermRun(first: LogIndex(UInt64(place + 1)), term: Term(term)))
    }
    var configuration = ConsensusConfiguration(id: NodeID(1), seed: 7)
    configure(&configuration)
    let restored = RestoredState(
      hardState: HardState(term: Term(term ?? log.last ?? 0), floor: floor),
      snapshotMembership: Membership(members: voters.map { member(NodeID($0)) }),
      termRuns: runs, last: LogIndex(UInt64(log.count)), canVote: canVote)
    consensus = Consensus(configuration: configuration, restored: restored, now: now)
  }

  var isLeader: Bool { consensus.isLeader }

  /// Gives an input and returns what it ordered.
  @discardableResult
  func input(
    _ body: (inout Consensus, inout [ConsensusOutput]) -> Void
  ) -> [ConsensusOutput] {
    var output: [ConsensusOutput] = []
    body(&consensus, &output)
    consensus.checkInvariants()
    history += output
    return output
  }

  @discardableResult
  func receive(
    _ message: PeerMessage, from peer: UInt32, memberships: [MembershipEntry] = []
  ) -> [ConsensusOutput] {
    input {
      $0.receive(message, from: NodeID(peer), memberships: memberships, now: self.now, into: &$1)
    }
  }

  @discardableResult func tick(after milliseconds: UInt64) -> [ConsensusOutput] {
    now = now + .milliseconds(milliseconds)
    return input { $0.tick(self.now, into: &$1) }
  }

  /// The newest hard state reaches the disk.
  @discardableResult func persistHardState() -> [ConsensusOutput] {
    guard let state = consensus.pendingHardStates.last else { return [] }
    return input { $0.hardStatePersisted(state, now: self.now, into: &$1) }
  }

  /// The log reaches the disk through `index`, or as a whole.
  @discardableResult func persistLog(through index: UInt64? = nil) -> [ConsensusOutput] {
    let end = index.map { LogIndex($0) } ?? consensus.lastIndex
    guard let term = consensus.term(at: end) else { return [] }
    return input {
      $0.logPersisted(through: LogPosition(term: term, index: end), now: self.now, into: &$1)
    }
  }

  @discardableResult func persistAll() -> [ConsensusOutput] { persistHardState() + persistLog() }

  func connect(_ peers: [UInt32] = [2, 3]) {
    for peer in peers {
      input { $0.peerConnected(NodeID(peer), now: self.now, into: &$1) }
    }
  }

  /// Wins an election with the votes of `voters`; its begin entry is on its own disk.
  func lead(votes voters: [UInt32] = [2]) {
    connect()
    tick(after: 1000)
    let next = consensus.term.next
    for voter in voters {
      receive(.preVoteReply(VoteReply(term: next, isGranted: true)), from: voter)
    }
    persistHardState()
    for voter in voters {
      receive(.voteReply(VoteReply(term: next, isGranted: true)), from: voter)
    }
    persistLog()
  }

  /// Sends all that may be sent to `peer`, `perMessage` entries at a time.
  @discardableResult
  func pump(_ peer: UInt32, perMessage: Int = 64, bytesPerEntry: Int = 8) -> [AppendPlan] {
    var plans: [AppendPlan] = []
    while let plan = consensus.nextAppend(to: NodeID(peer)), plans.count < 10_000 {
      let end = min(plan.last, plan.previous.index.advanced(by: perMessage))
      let count = Int(end.rawValue - plan.previous.index.rawValue)
      consensus.didSend(plan, through: end, bytes: count * bytesPerEntry)
      plans.append(plan)
    }
    consensus.checkInvariants()
    return plans
  }

  @discardableResult
  func accept(
    _ peer: UInt32, match: UInt64, verified: UInt64? = nil, mayVote: Bool = true
  ) -> [ConsensusOutput] {
    let outcome = AppendReply.Outcome.accepted(
      match: LogIndex(match), verified: LogIndex(verified ?? match))
    return receive(
      .appendReply(
        AppendReply(
          term: consensus.term, outcome: outcome, round: consensus.leading.round,
          mayVote: mayVote)),
      from: peer)
  }
}

func position(_ index: UInt64, _ term: UInt64) -> LogPosition {
  LogPosition(term: Term(term), index: LogIndex(index))
}

/// An append of the leader of `term`: entries with `terms` after `previous`.
func appendRequest(
  _ term: UInt64, after previous: LogPosition = .zero, terms: [UInt64] = [], commit: UInt64 = 0,
  round: UInt64 = 1, isMember: Bool = true
) -> PeerMessage {
  let entries = terms.enumerated().map { place, term in
    EntryHeader(
      position: position(previous.index.rawValue + UInt64(place) + 1, term), kind: .commands,
      payloadBytes: 8, payloadChecksum: Checksum(of: []))
  }
  return .append(
    AppendRequest(
      term: Term(term), previous: previous, entries: entries, commit: LogIndex(commit),
      round: round, isMember: isMember))
}

func voteRequest(_ term: UInt64, _ last: LogPosition, isTransfer: Bool = false) -> PeerMessage {
  .vote(VoteRequest(term: Term(term), last: last, isTransfer: isTransfer))
}

func preVote(_ term: UInt64, _ last: LogPosition) -> PeerMessage {
  .preVote(VoteRequest(term: Term(term), last: last))
}

extension [ConsensusOutput] {
  /// The messages sent, with their addressees.
  var sent: [String] {
    compactMap { order in
      guard case .send(let peer, let message) = order else { return nil }
      return "\(peer) \(describe(message))"
    }
  }
  var lines: [String] {
    map { order in
      if case .send(let peer, let message) = order { return "\(peer) \(describe(message))" }
      return describe(order)
    }
  }
}
