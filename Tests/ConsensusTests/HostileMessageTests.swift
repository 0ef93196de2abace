// Messages that no correct peer sends: dropped or refused, never a crash, never a broken invariant.

import Base
import Testing

@testable import Consensus

@Suite struct HostileMessageTests {
  static let huge = UInt64.max

  @Test(
    "impossible messages are dropped without an answer",
    arguments: [
      .vote(VoteRequest(term: Term(huge), last: .zero)),
      .vote(VoteRequest(term: Term(3), last: position(huge, 2))),
      .vote(VoteRequest(term: Term(3), last: position(5, 9))),
      .vote(VoteRequest(term: Term(3), last: position(5, 0))),
      .vote(VoteRequest(term: Term(0), last: .zero)),
      .preVote(VoteRequest(term: Term(huge), last: .zero)),
      .voteReply(VoteReply(term: Term(huge), isGranted: true)),
      .append(
        AppendRequest(
          term: Term(3), previous: position(huge, 3), entries: [], commit: .zero, round: 1)),
      .append(
        AppendRequest(
          term: Term(3), previous: .zero, entries: [], commit: LogIndex(huge), round: 1)),
      .append(
        AppendRequest(term: Term(3), previous: .zero, entries: [], commit: .zero, round: huge)),
      .append(
        AppendRequest(term: Term(0), previous: .zero, entries: [], commit: .zero, round: 1)),
      appendRequest(3, after: position(2, 2), terms: [1]),
      appendRequest(3, after: position(2, 2), terms: [4]),
      appendRequest(3, after: position(2, 4)),
      .appendReply(
        AppendReply(
          term: Term(3), outcome: .accepted(match: LogIndex(5), verified: LogIndex(4)), round: 1)),
      .appendReply(
        AppendReply(
          term: Term(3), outcome: .rejected(previous: LogIndex(4), hint: position(5, 1)), round: 1)
      ),
      SnapshotTests.chunk(term: 3, offset: huge),
      SnapshotTests.chunk(term: 3, offset: 0, last: .zero),
      SnapshotTests.chunk(term: 1, offset: 0),
      .timeoutNow(Term(huge)),
    ] as [PeerMessage])
  func impossible(message: PeerMessage) {
    let node = LoneNode(log: [1, 1, 2])
    #expect(node.receive(message, from: 2).isEmpty)
    #expect(node.consensus.term == Term(2))
  }

  @Test("a gap between entries, or a message from oneself, is dropped")
  func gap() {
    let node = LoneNode(term: 1)
    var entries: [EntryHeader] = []
    if case .append(let request) = appendRequest(1, terms: [1, 1, 1]) { entries = request.entries }
    entries.remove(at: 1)
    let request = AppendRequest(
      term: Term(1), previous: .zero, entries: entries, commit: .zero, round: 1)
    #expect(node.receive(.append(request), from: 2).isEmpty)
    #expect(node.receive(appendRequest(1, terms: [1]), from: 1).isEmpty)
  }

  @Test("what is committed or was verified is never overwritten")
  func committedStays() {
    let node = LoneNode(term: 1)
    node.receive(appendRequest(1, terms: [1, 1, 1], commit: 2), from: 2)
    #expect(
      node.receive(appendRequest(3, terms: [2, 2, 2]), from: 3).lines.allSatisfy {
        !$0.hasPrefix("trunc")
      })
    #expect(node.consensus.lastPosition == position(3, 1))
  }

  @Test("an acknowledgement of what the leader does not have is dropped")
  func ackBeyondLast() {
    let node = LoneNode()
    node.lead()
    node.pump(2)
    #expect(node.accept(2, match: 50).isEmpty)
    #expect(node.consensus.commit == .zero)
    // Nor is an answer to a round that was never begun, or from a stranger.
    let outcome = AppendReply.Outcome.accepted(match: LogIndex(1), verified: LogIndex(1))
    let reply = AppendReply(term: Term(1), outcome: outcome, round: 99)
    #expect(node.receive(.appendReply(reply), from: 2).isEmpty)
    #expect(node.accept(9, match: 1).isEmpty)
  }

  @Test("replies that wait for the disk are bounded")
  func heldReplies() {
    let node = LoneNode()
    node.receive(voteRequest(1, .zero), from: 2)
    for peer in 3..<500 as Range<UInt32> { node.receive(voteRequest(1, .zero), from: peer) }
    #expect(node.persistHardState().sent.count <= 64)
  }

  @Test("twenty thousand random messages break nothing")
  func fuzz() {
    for seed in 1...8 as ClosedRange<UInt64> {
      var random = SeededRandom(seed: seed)
      let node = LoneNode(voters: [1, 2, 3], log: [1, 1, 2])
      node.connect()
      for _ in 0..<2500 {
        let peer = UInt32(2 + random.next() % 3)
        let message = Self.message(&random)
        var memberships: [MembershipEntry] = []
        if case .append(let request) = message {
          memberships = request.entries.filter { $0.kind == .membership }.map {
            MembershipEntry(
              index: $0.index,
              membership: Membership(members: [1, 2, 3].map { member(NodeID($0)) }))
          }
        }
        node.receive(message, from: peer, memberships: memberships)
        Self.answer(node, &random)
      }
    }
  }

  /// The disk and time go on in between.
  private static func answer(_ node: LoneNode, _ random: inout SeededRandom) {
    switch random.next() % 8 {
    case 0: node.persistHardState()
    case 1: node.persistLog()
    case 2: node.tick(after: random.next() % 200)
    case 3: for peer in [2, 3, 4] as [UInt32] { node.pump(peer) }
    case 4:
      let receipt = node.consensus.receipt
      guard let receipt else { return }
      node.input {
        $0.snapshotChunkStored(
          last: receipt.last, received: receipt.ordered, now: node.now, into: &$1)
        if receipt.isComplete {
          $0.snapshotInstalled(last: receipt.last, now: node.now, into: &$1)
        }
      }
    default: break
    }
  }

  private static func message(_ random: inout SeededRandom) -> PeerMessage {
    func small(_ bound: UInt64) -> UInt64 {
      random.next() % 64 == 0 ? random.next() : random.next() % bound
    }
    // Terms creep up slowly, so that all roles are reached.
    func term() -> Term { Term(small(6)) }
    func place() -> LogPosition { LogPosition(term: term(), index: LogIndex(small(8))) }
    let isYes = random.next() % 2 == 0
    switch random.next() % 10 {
    case 0: return .preVote(VoteRequest(term: term(), last: place()))
    case 1: return .preVoteReply(VoteReply(term: term(), isGranted: isYes))
    case 2: return .vote(VoteRequest(term: term(), last: place(), isTransfer: isYes))
    case 3: return .voteReply(VoteReply(term: term(), isGranted: isYes))
    case 4, 5:
      let previous = place()
      let count = previous.index.rawValue < 100 ? random.next() % 4 : 0
      let entryTerm = term()
      let entries = (0..<count).map { number in
        EntryHeader(
          position: LogPosition(
            term: entryTerm, index: LogIndex(previous.index.rawValue + 1 + number)),
          kind: random.next() % 4 == 0 ? .membership : .commands, payloadBytes: 1,
          payloadChecksum: Checksum(of: []))
      }
      return .append(
        AppendRequest(
          term: term(), previous: previous, entries: entries, commit: LogIndex(small(8)),
          round: small(4)))
    case 6:
      return .appendReply(
        AppendReply(
          term: term(),
          outcome: isYes
            ? .accepted(match: LogIndex(small(8)), verified: LogIndex(small(8)))
            : .rejected(previous: LogIndex(small(8)), hint: place()), round: small(4)))
    case 7:
      return .snapshot(
        SnapshotChunk(
          term: term(), last: place(), membership: Membership(members: [member(NodeID(1))]),
          offset: small(3) &* 10, byteCount: UInt32(random.next() % 2 * 10), isLast: isYes))
    case 8:
      return .snapshotReply(
        SnapshotReply(
          term: term(), last: LogIndex(small(8)), received: small(30), isInstalled: isYes))
    default: return .timeoutNow(term())
    }
  }
}
