import Base
import Testing

@testable import Consensus

@Suite struct TransferTests {
  static func refusal(_ target: UInt32?, at node: LoneNode) -> TransferError? {
    var refusal: TransferError?
    node.input { consensus, output in
      do throws(TransferError) {
        try consensus.transferLeadership(
          to: target.map { NodeID($0) }, now: node.now, into: &output)
      } catch { refusal = error }
    }
    return refusal
  }

  @Test("§3.10: the target begins an election at once when it has the whole log, not before")
  func waitsForTheLog() {
    let node = MembershipTests.leader()
    _ = node.consensus.propose()
    node.pump(2)
    #expect(Self.refusal(2, at: node) == nil)
    #expect(node.consensus.propose() == nil)
    #expect(!node.history.sent.contains("2 timeout-now term 1"))
    #expect(node.accept(2, match: 2).sent == ["2 timeout-now term 1"])
    #expect(node.accept(2, match: 2).sent.isEmpty)
  }

  @Test("§3.10: a transfer that takes longer than an election timeout is given up")
  func abandoned() {
    let node = MembershipTests.leader()
    #expect(Self.refusal(2, at: node) == nil)
    for _ in 0..<8 {
      node.tick(after: 50)
      node.pump(2)
      node.accept(2, match: 1)
    }
    #expect(node.consensus.propose() == nil)
    for _ in 0..<4 {
      node.tick(after: 50)
      node.pump(2)
      node.accept(2, match: 1)
    }
    #expect(node.history.lines.contains("transfer to 2 abandoned"))
    #expect(node.consensus.propose() != nil)
  }

  @Test("§3.10: transfers that cannot be are named")
  func refusals() {
    let node = LoneNode()
    #expect(Self.refusal(nil, at: node) == .notLeader)
    node.lead()
    #expect(Self.refusal(1, at: node) == .notVoter(NodeID(1)))
    #expect(Self.refusal(9, at: node) == .notVoter(NodeID(9)))
    node.input { $0.peerDisconnected(NodeID(3), now: node.now, into: &$1) }
    #expect(Self.refusal(3, at: node) == .notConnected(NodeID(3)))
    #expect(Self.refusal(nil, at: node) == nil)
    #expect(Self.refusal(2, at: node) == .alreadyTransferring(to: NodeID(2)))
    #expect(MembershipTests.refusal(.remove(NodeID(3)), at: node) == .transferring)
    let alone = LoneNode(voters: [1])
    alone.tick(after: 0)
    alone.persistAll()
    #expect(Self.refusal(nil, at: alone) == .nobody)
  }

  @Test("§3.10: only the leader's own hand-over is obeyed")
  func onlyFromTheLeader() {
    let node = LoneNode(term: 1)
    #expect(node.receive(.timeoutNow(Term(1)), from: 3).isEmpty)
    node.receive(appendRequest(1), from: 2)
    #expect(node.receive(.timeoutNow(Term(1)), from: 3).isEmpty)
    #expect(
      node.receive(.timeoutNow(Term(1)), from: 2).lines
        == ["leader is unknown", "persist term 2 vote 1"])
    #expect(node.persistHardState().sent.contains("3 vote? term 2 last 0@0 transfer"))
  }
}

@Suite struct ReadIndexTests {
  static func read(_ node: LoneNode) -> (ReadTicket?, [String]) {
    var ticket: ReadTicket?
    let output = node.input { ticket = $0.readIndex(now: node.now, into: &$1) }
    return (ticket, output.lines)
  }

  @Test("§6.4: a read waits for answers of a majority to a round begun after it")
  func needsALaterRound() {
    let node = MembershipTests.leader()
    node.pump(2)
    let round = node.consensus.leading.round
    #expect(Self.read(node).1.isEmpty)
    // An answer to the earlier round.
    let outcome = AppendReply.Outcome.accepted(match: LogIndex(1), verified: LogIndex(1))
    let old = AppendReply(term: Term(1), outcome: outcome, round: round)
    #expect(node.receive(.appendReply(old), from: 2).isEmpty)
    #expect(node.pump(2).map(\.round) == [round + 1])
    #expect(node.accept(2, match: 1).lines == ["read ready at 1"])
  }

  @Test("§6.4: a read waits for the first commit of the term")
  func needsOwnTerm() {
    let node = LoneNode()
    node.lead()
    node.pump(2)
    _ = Self.read(node)
    node.pump(2)
    #expect(node.accept(2, match: 0, verified: 1).isEmpty)
    #expect(node.accept(2, match: 1).lines == ["commit 1", "read ready at 1"])
  }

  @Test("§6.4: an answer to what the leader sent in an earlier term confirms nothing (seed 27844)")
  func roundOfAnEarlierTerm() throws {
    let leader = LoneNode(term: 1)
    leader.lead()
    leader.pump(2)
    leader.accept(2, match: 1)
    leader.pump(2)
    #expect(Self.read(leader).1.isEmpty)
    leader.pump(2)
    let round = try #require(leader.pump(3).map(\.round).last)
    // It led term 1 too. What it sent then was long on its way to somebody who voted for it meanwhile, and
    // for another by now.
    let voter = LoneNode(term: 2)
    let late = voter.receive(appendRequest(1, after: position(3, 1), round: round), from: 2)
    let answers = late.compactMap { output -> PeerMessage? in
      if case .send(_, let message) = output { message } else { nil }
    }
    #expect(answers.count == 1)
    for answer in answers { #expect(leader.receive(answer, from: 3).isEmpty) }
    #expect(leader.accept(2, match: 1).lines == ["read ready at 1"])
  }

  @Test("§6.4: reads of one turn share a round, reads are bounded")
  func shared() {
    let node = LoneNode { $0.pendingReadsMax = 3 }
    #expect(Self.read(node).0 == nil)
    node.lead()
    let first = Self.read(node).0
    #expect(first != nil && Self.read(node).0 == first)
    for _ in 0..<2 {
      node.pump(2)
      node.pump(3)
      #expect(Self.read(node).0 != nil)
    }
    node.pump(2)
    #expect(Self.read(node).0 == nil)
  }

  @Test("§6.4: a single voter reads at once")
  func single() {
    let node = LoneNode(voters: [1])
    node.tick(after: 0)
    node.persistAll()
    #expect(Self.read(node).1 == ["read ready at 1"])
  }

  @Test("§6.4: reads fail by name when leadership is lost")
  func failed() {
    let node = MembershipTests.leader()
    node.pump(2)
    _ = Self.read(node)
    let answer = AppendReply(
      term: Term(5), outcome: .rejected(previous: .zero, hint: .zero), round: 0)
    #expect(node.receive(.appendReply(answer), from: 3).lines.first == "read failed")
  }
}
