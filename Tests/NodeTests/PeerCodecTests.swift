// Peer frames: every kind goes through its bytes unchanged; nothing damaged or cut short is taken.

import Base
import Consensus
import Testing

@testable import Node

@Suite struct PeerCodecTests {
  static let membership = Membership(members: [
    .init(id: NodeID(1), peerAddress: "a:1", clientAddress: "a:2"),
    .init(id: NodeID(2), peerAddress: "b:1", clientAddress: "b:2", isLearner: true),
  ])

  static let append: PeerEnvelope = {
    let previous = LogPosition(term: Term(3), index: LogIndex(9))
    let entries = [
      Entry(
        position: LogPosition(term: Term(3), index: LogIndex(10)), kind: .commands,
        payload: [1, 2, 3]),
      Entry(position: LogPosition(term: Term(4), index: LogIndex(11)), kind: .begin, payload: []),
    ]
    return .consensus(
      .append(
        AppendRequest(
          term: Term(4), previous: previous, entries: entries.map(\.header), commit: LogIndex(8),
          round: 77, clearsPromises: true)),
      payloads: entries.map(\.payload))
  }()

  static let all: [PeerEnvelope] = [
    .relay([1, 2, 3, 4, 5]), .askIndex(request: 9), .toldIndex(request: 9, index: LogIndex(77)),
    .publishesRefused(term: Term(7), reason: "the disk is full"),
    .publishesRefused(term: Term(7), reason: ""),
    .introduction(
      Introduction(
        node: NodeID(3), cluster: "geese", term: Term(1), heard: [NodeID(1)],
        founders: Checksum(rawValue: 5), peerAddress: "node-3:7401")),
    .consensus(
      .preVote(VoteRequest(term: Term(5), last: LogPosition(term: Term(4), index: LogIndex(2)))),
      payloads: []),
    .consensus(.preVoteReply(VoteReply(term: Term(5), isGranted: true)), payloads: []),
    .consensus(
      .vote(VoteRequest(term: Term(5), last: .zero, isTransfer: true)), payloads: []),
    .consensus(.voteReply(VoteReply(term: Term(5), isGranted: false)), payloads: []),
    append,
    .consensus(
      .appendReply(
        AppendReply(
          term: Term(4), outcome: .accepted(match: LogIndex(10), verified: LogIndex(11)), round: 7,
          mayVote: true)),
      payloads: []),
    .consensus(
      .appendReply(
        AppendReply(
          term: Term(4),
          outcome: .rejected(
            previous: LogIndex(9), hint: LogPosition(term: Term(2), index: LogIndex(4))), round: 8)),
      payloads: []),
    .consensus(
      .snapshot(
        SnapshotChunk(
          term: Term(6), last: LogPosition(term: Term(5), index: LogIndex(90)),
          membership: membership, offset: 1 << 33, byteCount: 4, isLast: true)),
      payloads: [[9, 8, 7, 6]]),
    .consensus(
      .snapshotReply(
        SnapshotReply(term: Term(6), last: LogIndex(90), received: 4, isInstalled: false)),
      payloads: []),
    .consensus(.timeoutNow(Term(6)), payloads: []),
    .stateHash(index: LogIndex(64), hash: 0xfeed),
    .diverged(index: LogIndex(64)),
    .fetchRecords([RecordReference(entry: LogIndex(5), offset: 8, size: 2)]),
    .records([RecordReference(entry: LogIndex(5), offset: 8, size: 2)], bodies: [[1, 2]]),
  ]

  static func frame(_ envelope: PeerEnvelope) -> [UInt8] {
    let (head, payloads) = PeerCodec.encode(envelope)
    return payloads.reduce(head) { $0 + $1 }
  }

  @Test("Every kind of frame goes through its bytes unchanged", arguments: all)
  func roundTrip(_ envelope: PeerEnvelope) throws {
    let bytes = Self.frame(envelope)
    let decoded = try bytes.withUnsafeBytes { try PeerCodec.decode($0) }
    #expect(decoded?.envelope == envelope)
    #expect(decoded?.byteCount == bytes.count)
  }

  @Test("A frame's head in memory that others had is the same")
  func keptHead() {
    var head: [UInt8] = []
    for envelope in Self.all + Self.all.reversed() {
      let payloads = PeerCodec.encode(envelope, into: &head)
      #expect(payloads.reduce(head) { $0 + $1 } == Self.frame(envelope))
    }
  }

  @Test("A frame cut short anywhere is not whole yet, and nothing else", arguments: all)
  func truncation(_ envelope: PeerEnvelope) throws {
    let bytes = Self.frame(envelope)
    for count in 0..<bytes.count {
      let decoded = try Array(bytes[..<count]).withUnsafeBytes { try PeerCodec.decode($0) }
      #expect(decoded == nil)
    }
  }

  @Test("A bit flipped anywhere is noticed or leaves the frame waiting", arguments: all)
  func bitFlips(_ envelope: PeerEnvelope) {
    let bytes = Self.frame(envelope)
    // The bytes of a snapshot chunk and of fetched records have their own checksums further in.
    let head = PeerCodec.encode(envelope).head
    let checked = if case .consensus(.append, _) = envelope { bytes.count } else { head.count }
    for at in 0..<checked {
      for bit in 0..<8 {
        var changed = bytes
        changed[at] ^= 1 << bit
        let decoded = changed.withUnsafeBytes { bytes in
          (try? PeerCodec.decode(bytes)) ?? nil
        }
        #expect(decoded == nil, "byte \(at) bit \(bit)")
      }
    }
  }

  @Test("A frame of another group, version or absurd size is refused by name")
  func refusals() {
    var bytes = Self.frame(.diverged(index: LogIndex(1)))
    #expect(throws: PeerFrameError.wrongGroup(.main)) {
      try bytes.withUnsafeBytes { try PeerCodec.decode($0, group: GroupID(7)) }
    }
    bytes.patch(UInt32.max, at: 0)
    #expect(
      throws: PeerFrameError.tooLarge(bytes: Int(UInt32.max), limit: PeerCodec.frameBytesMax)
    ) {
      try bytes.withUnsafeBytes { try PeerCodec.decode($0) }
    }
    bytes[5] = 9
    #expect(throws: PeerFrameError.unknownVersion(9)) {
      try bytes.withUnsafeBytes { try PeerCodec.decode($0) }
    }
  }

  @Test("Random bytes never crash the decoder")
  func garbage() {
    var random = SeededRandom(seed: 11)
    for _ in 0..<2_000 {
      var bytes = (0..<Int.random(in: 0...200, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      if bytes.count > 8 {
        bytes[5] = PeerCodec.version
        bytes.patch(UInt32(bytes.count > 20 ? bytes.count - 20 : 0), at: 0)
      }
      _ = bytes.withUnsafeBytes { bytes in (try? PeerCodec.decode(bytes)) ?? nil }
    }
  }
}
