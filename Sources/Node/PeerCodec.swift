// Peer frames as bytes.
//
//   offset size
//        0    4  frameBytes   all that follows the 20 bytes of this header
//        4    1  kind
//        5    1  version      2
//        6    2  0
//        8    4  group
//       12    4  fieldBytes   how much of the frame is fields; payloads follow to its end
//       16    4  CRC-32C of the 16 bytes above and the fields
//
// Payloads carry their own checksums (entries' in their headers), so a payload is summed once by
// the leader and checked once by each follower, never by the codec.

import Base
import Consensus

/// Why the bytes of a peer are no frame. The connection is closed for any of these.
package enum PeerFrameError: Error, Equatable, Sendable {
  case unknownVersion(UInt8)
  case unknownKind(UInt8)
  case tooLarge(bytes: Int, limit: Int)
  case wrongGroup(GroupID)
  /// The header or the fields were changed on the way.
  case checksumDiffers
  /// The fields of a frame of this kind end early, go on too long or contradict each other.
  case malformed(kind: UInt8)
  /// The payload of this entry does not have the checksum that its header names.
  case payloadDamaged(LogIndex)
}

/// Encodes and decodes `PeerEnvelope`.
package enum PeerCodec {
  package static let headerBytes = 20
  package static let version: UInt8 = 2
  /// The largest frame that is taken: the largest entry and its fields.
  package static let frameBytesMax = 64 << 20

  private enum Kind: UInt8 {
    case introduction = 1
    case preVote, preVoteReply, vote, voteReply, append, appendReply
    case snapshot, snapshotReply, timeoutNow
    case stateHash, diverged, fetchRecords, records
    case relay, askIndex, toldIndex, publishesRefused
  }

  /// The frame's header and fields; the payloads follow it on the wire as they are.
  package static func encode(
    _ envelope: PeerEnvelope, group: GroupID = .main
  ) -> (head: [UInt8], payloads: [[UInt8]]) {
    var head: [UInt8] = []
    let payloads = encode(envelope, into: &head, group: group)
    return (head, payloads)
  }

  /// As `encode(_:group:)`, for who has many frames.
  ///
  /// - Parameter head: is replaced by the frame's header and fields; its memory is used again.
  /// - Returns: the payloads, which follow on the wire.
  package static func encode(
    _ envelope: PeerEnvelope, into head: inout [UInt8], group: GroupID = .main
  ) -> [[UInt8]] {
    head.removeAll(keepingCapacity: true)
    head.reserveCapacity(256)
    // Filled in at the end.
    head.putFields(headerBytes) { fields in
      for _ in 0..<headerBytes / 4 { fields.put(UInt32(0)) }
    }
    let (kind, payloads) = encodeFields(of: envelope, into: &head)
    let fieldBytes = head.count - headerBytes
    var payloadBytes = 0
    for payload in payloads { payloadBytes += payload.count }
    head.patchFields(16, at: 0) { fields in
      fields.put(UInt32(fieldBytes + payloadBytes))
      fields.put(kind.rawValue)
      fields.put(version)
      fields.put(UInt16(0))
      fields.put(group.rawValue)
      fields.put(UInt32(fieldBytes))
    }
    head.patch(head.withUnsafeBytes { checksum(of: $0) }, at: 16)
    return payloads
  }

  /// The first frame of `bytes` and how many bytes it took; nil if it is not whole yet.
  package static func decode(
    _ bytes: UnsafeRawBufferPointer, group: GroupID = .main
  ) throws(PeerFrameError) -> (envelope: PeerEnvelope, byteCount: Int)? {
    guard let size = try frameSize(of: bytes) else { return nil }
    guard bytes.count >= size else { return nil }
    let frame = UnsafeRawBufferPointer(rebasing: bytes[..<size])
    let kindByte = frame[4]
    guard let kind = Kind(rawValue: kindByte) else { throw .unknownKind(kindByte) }
    let fieldBytes = Int(
      UInt32(littleEndian: frame.loadUnaligned(fromByteOffset: 12, as: UInt32.self)))
    guard fieldBytes <= size - headerBytes else { throw .malformed(kind: kindByte) }
    let headBytes = headerBytes + fieldBytes
    let sum = UInt32(littleEndian: frame.loadUnaligned(fromByteOffset: 16, as: UInt32.self))
    let head = UnsafeRawBufferPointer(rebasing: frame[..<headBytes])
    guard sum == checksum(of: head) else { throw .checksumDiffers }
    let frameGroup = GroupID(
      UInt32(littleEndian: frame.loadUnaligned(fromByteOffset: 8, as: UInt32.self)))
    guard frameGroup == group else { throw .wrongGroup(frameGroup) }
    var fields = ByteReader(UnsafeRawBufferPointer(rebasing: head[headerBytes...]))
    var payload = ByteReader(UnsafeRawBufferPointer(rebasing: frame[headBytes...]))
    let envelope = try decodeFields(kind, from: &fields, payload: &payload)
    guard fields.isAtEnd, payload.isAtEnd else { throw .malformed(kind: kindByte) }
    return (envelope, size)
  }

  /// How many bytes the first frame of `bytes` takes, its header included; nil if that cannot be
  /// told yet. The transport uses it to make room for a large frame.
  package static func frameSize(
    of bytes: UnsafeRawBufferPointer
  ) throws(PeerFrameError) -> Int? {
    guard bytes.count >= headerBytes else { return nil }
    guard bytes[5] == version else { throw .unknownVersion(bytes[5]) }
    let frameBytes = Int(
      UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt32.self)))
    guard frameBytes <= frameBytesMax else {
      throw .tooLarge(bytes: frameBytes, limit: frameBytesMax)
    }
    return headerBytes + frameBytes
  }

  private static func checksum(of head: UnsafeRawBufferPointer) -> UInt32 {
    let first = Checksum(of: UnsafeRawBufferPointer(rebasing: head[..<16]))
    return Checksum(of: UnsafeRawBufferPointer(rebasing: head[headerBytes...]), after: first)
      .rawValue
  }

  // MARK: Fields

  private static func encodeFields(
    of envelope: PeerEnvelope, into head: inout [UInt8]
  ) -> (Kind, [[UInt8]]) {
    switch envelope {
    case .introduction(let introduction):
      head.put(introduction.node)
      head.putShortText(introduction.cluster)
      head.put(introduction.term)
      head.put(UInt16(introduction.heard.count))
      for node in introduction.heard { head.put(node) }
      head.put(introduction.founders.rawValue)
      head.putShortText(introduction.peerAddress)
      return (.introduction, [])
    case .consensus(let message, let payloads):
      return (encode(message, into: &head), payloads)
    case .stateHash(let index, let hash):
      head.put(index)
      head.put(hash)
      return (.stateHash, [])
    case .diverged(let index):
      head.put(index)
      return (.diverged, [])
    case .fetchRecords(let references):
      put(references, into: &head)
      return (.fetchRecords, [])
    case .records(let references, let bodies):
      put(references, into: &head)
      return (.records, bodies)
    case .relay(let bytes):
      head.put(Checksum(of: bytes).rawValue)
      return (.relay, [bytes])
    case .askIndex(let request):
      head.put(request)
      return (.askIndex, [])
    case .toldIndex(let request, let index):
      head.put(request)
      head.put(index)
      return (.toldIndex, [])
    case .publishesRefused(let term, let reason):
      head.put(term)
      head.putShortText(reason)
      return (.publishesRefused, [])
    }
  }

  private static func encode(_ message: PeerMessage, into head: inout [UInt8]) -> Kind {
    switch message {
    case .preVote(let request):
      put(request, into: &head)
      return .preVote
    case .preVoteReply(let reply):
      put(reply, into: &head)
      return .preVoteReply
    case .vote(let request):
      put(request, into: &head)
      return .vote
    case .voteReply(let reply):
      put(reply, into: &head)
      return .voteReply
    case .append(let request):
      put(request, into: &head)
      return .append
    case .appendReply(let reply):
      put(reply, into: &head)
      return .appendReply
    case .snapshot(let chunk):
      put(chunk, into: &head)
      return .snapshot
    case .snapshotReply(let reply):
      head.put(reply.term)
      head.put(reply.last)
      head.put(reply.received)
      head.put(UInt8(reply.isInstalled ? 1 : 0))
      return .snapshotReply
    case .timeoutNow(let term):
      head.put(term)
      return .timeoutNow
    }
  }

  private static func put(_ position: LogPosition, into head: inout [UInt8]) {
    head.put(position.term)
    head.put(position.index)
  }

  private static func put(_ position: LogPosition, into fields: inout FieldWriter) {
    fields.put(position.term)
    fields.put(position.index)
  }

  private static func put(_ request: VoteRequest, into head: inout [UInt8]) {
    head.put(request.term)
    put(request.last, into: &head)
    head.put(UInt8(request.isTransfer ? 1 : 0))
  }

  private static func put(_ reply: VoteReply, into head: inout [UInt8]) {
    head.put(reply.term)
    head.put(UInt8(reply.isGranted ? 1 : 0))
  }

  private static func put(_ request: AppendRequest, into head: inout [UInt8]) {
    head.putFields(45 + 17 * request.entries.count) { fields in
      fields.put(request.term)
      put(request.previous, into: &fields)
      fields.put(request.commit)
      fields.put(request.round)
      fields.put(UInt8(request.clearsPromises ? 1 : 0) | UInt8(request.isMember ? 2 : 0))
      fields.put(UInt32(request.entries.count))
      for entry in request.entries {
        fields.put(entry.term)
        fields.put(entry.kind.rawValue)
        fields.put(entry.payloadBytes)
        fields.put(entry.payloadChecksum.rawValue)
      }
    }
  }

  private static func put(_ reply: AppendReply, into head: inout [UInt8]) {
    switch reply.outcome {
    case .accepted(let match, let verified):
      head.putFields(34) { fields in
        fields.put(reply.term)
        fields.put(reply.round)
        fields.put(UInt8(reply.mayVote ? 1 : 0))
        fields.put(UInt8(1))
        fields.put(match)
        fields.put(verified)
      }
    case .rejected(let previous, let hint):
      head.put(reply.term)
      head.put(reply.round)
      head.put(UInt8(reply.mayVote ? 1 : 0))
      head.put(UInt8(0))
      head.put(previous)
      put(hint, into: &head)
    }
  }

  private static func put(_ chunk: SnapshotChunk, into head: inout [UInt8]) {
    head.put(chunk.term)
    put(chunk.last, into: &head)
    head.put(chunk.offset)
    head.put(chunk.byteCount)
    head.put(UInt8(chunk.isLast ? 1 : 0))
    head.append(contentsOf: chunk.membership.encoded())
  }

  private static func put(_ references: [RecordReference], into head: inout [UInt8]) {
    head.put(UInt32(references.count))
    for reference in references {
      head.put(reference.entry)
      head.put(reference.offset)
      head.put(reference.size)
    }
  }

  private static func decodeFields(
    _ kind: Kind, from fields: inout ByteReader, payload: inout ByteReader
  ) throws(PeerFrameError) -> PeerEnvelope {
    do {
      switch kind {
      case .introduction:
        return .introduction(try introduction(&fields))
      case .preVote:
        return .consensus(.preVote(try voteRequest(&fields)), payloads: [])
      case .preVoteReply:
        return .consensus(.preVoteReply(try voteReply(&fields)), payloads: [])
      case .vote:
        return .consensus(.vote(try voteRequest(&fields)), payloads: [])
      case .voteReply:
        return .consensus(.voteReply(try voteReply(&fields)), payloads: [])
      case .append:
        return try append(&fields, payload: &payload)
      case .appendReply:
        return .consensus(.appendReply(try appendReply(&fields)), payloads: [])
      case .snapshot:
        let chunk = try snapshotChunk(&fields)
        return .consensus(.snapshot(chunk), payloads: [try payload.array(Int(chunk.byteCount))])
      case .snapshotReply:
        let reply = SnapshotReply(
          term: try fields.identifier(), last: try fields.identifier(),
          received: try fields.integer(), isInstalled: try fields.integer(UInt8.self) != 0)
        return .consensus(.snapshotReply(reply), payloads: [])
      case .timeoutNow:
        return .consensus(.timeoutNow(try fields.identifier()), payloads: [])
      case .stateHash:
        return .stateHash(index: try fields.identifier(), hash: try fields.integer())
      case .diverged:
        return .diverged(index: try fields.identifier())
      case .fetchRecords:
        return .fetchRecords(try references(&fields))
      case .records:
        let references = try references(&fields)
        var bodies: [[UInt8]] = []
        for reference in references { bodies.append(try payload.array(Int(reference.size))) }
        return .records(references, bodies: bodies)
      case .relay:
        let sum = Checksum(rawValue: try fields.integer())
        let bytes = try payload.array(payload.remaining)
        // Damage on the way must not reach the log.
        guard Checksum(of: bytes) == sum else {
          throw PeerFrameError.malformed(kind: kind.rawValue)
        }
        return .relay(bytes)
      case .askIndex:
        return .askIndex(request: try fields.integer())
      case .toldIndex:
        return .toldIndex(request: try fields.integer(), index: try fields.identifier())
      case .publishesRefused:
        return .publishesRefused(term: try fields.identifier(), reason: try fields.shortText())
      }
    } catch let error as PeerFrameError {
      throw error
    } catch {
      throw .malformed(kind: kind.rawValue)
    }
  }

  private static func introduction(
    _ fields: inout ByteReader
  ) throws(ByteReaderError) -> Introduction {
    let node = try fields.identifier(NodeID.self)
    let cluster = try fields.shortText()
    let term = try fields.identifier(Term.self)
    var heard: [NodeID] = []
    for _ in 0..<(try fields.integer(UInt16.self)) { heard.append(try fields.identifier()) }
    return Introduction(
      node: node, cluster: cluster, term: term, heard: heard,
      founders: Checksum(rawValue: try fields.integer()), peerAddress: try fields.shortText())
  }

  private static func position(_ fields: inout ByteReader) throws(ByteReaderError) -> LogPosition {
    LogPosition(term: try fields.identifier(), index: try fields.identifier())
  }

  private static func voteRequest(
    _ fields: inout ByteReader
  ) throws(ByteReaderError) -> VoteRequest {
    VoteRequest(
      term: try fields.identifier(), last: try position(&fields),
      isTransfer: try fields.integer(UInt8.self) != 0)
  }

  private static func voteReply(_ fields: inout ByteReader) throws(ByteReaderError) -> VoteReply {
    VoteReply(term: try fields.identifier(), isGranted: try fields.integer(UInt8.self) != 0)
  }

  /// An append with its payloads, whose checksums are checked here: damage on the way must not
  /// reach the log.
  private static func append(
    _ fields: inout ByteReader, payload: inout ByteReader
  ) throws -> PeerEnvelope {
    let term = try fields.identifier(Term.self)
    let previous = try position(&fields)
    let commit = try fields.identifier(LogIndex.self)
    let round = try fields.integer(UInt64.self)
    let marks = try fields.integer(UInt8.self)
    let count = Int(try fields.integer(UInt32.self))
    guard previous.index.rawValue <= UInt64(Int64.max) - UInt64(count) else {
      throw PeerFrameError.malformed(kind: Kind.append.rawValue)
    }
    var entries: [EntryHeader] = []
    var payloads: [[UInt8]] = []
    // An entry's fields take 17 bytes: no count that is a lie makes much room.
    let entriesMax = min(count, fields.remaining / 17)
    if entriesMax > 0 {
      entries.reserveCapacity(entriesMax)
      payloads.reserveCapacity(entriesMax)
    }
    for number in 1...max(1, count) where number <= count {
      let entryTerm = try fields.identifier(Term.self)
      guard let kind = EntryKind(rawValue: try fields.integer()) else {
        throw PeerFrameError.malformed(kind: Kind.append.rawValue)
      }
      let bytes = try fields.integer(UInt32.self)
      let sum = Checksum(rawValue: try fields.integer())
      let index = previous.index.advanced(by: number)
      let taken = try payload.take(Int(bytes))
      guard Checksum(of: taken) == sum else { throw PeerFrameError.payloadDamaged(index) }
      entries.append(
        EntryHeader(
          position: LogPosition(term: entryTerm, index: index), kind: kind, payloadBytes: bytes,
          payloadChecksum: sum))
      payloads.append([UInt8](taken))
    }
    let request = AppendRequest(
      term: term, previous: previous, entries: entries, commit: commit, round: round,
      clearsPromises: marks & 1 != 0, isMember: marks & 2 != 0)
    return .consensus(.append(request), payloads: payloads)
  }

  private static func appendReply(
    _ fields: inout ByteReader
  ) throws(ByteReaderError) -> AppendReply {
    let term = try fields.identifier(Term.self)
    let round = try fields.integer(UInt64.self)
    let mayVote = try fields.integer(UInt8.self) != 0
    if try fields.integer(UInt8.self) != 0 {
      let match = try fields.identifier(LogIndex.self)
      let verified = try fields.identifier(LogIndex.self)
      return AppendReply(
        term: term, outcome: .accepted(match: match, verified: verified), round: round,
        mayVote: mayVote)
    }
    let previous = try fields.identifier(LogIndex.self)
    let hint = try position(&fields)
    return AppendReply(
      term: term, outcome: .rejected(previous: previous, hint: hint), round: round,
      mayVote: mayVote)
  }

  private static func snapshotChunk(_ fields: inout ByteReader) throws -> SnapshotChunk {
    let term = try fields.identifier(Term.self)
    let last = try position(&fields)
    let offset = try fields.integer(UInt64.self)
    let byteCount = try fields.integer(UInt32.self)
    let isLast = try fields.integer(UInt8.self) != 0
    return SnapshotChunk(
      term: term, last: last, membership: try Membership(decoding: &fields), offset: offset,
      byteCount: byteCount, isLast: isLast)
  }

  private static func references(
    _ fields: inout ByteReader
  ) throws(ByteReaderError) -> [RecordReference] {
    let count = Int(try fields.integer(UInt32.self))
    var references: [RecordReference] = []
    references.reserveCapacity(min(count, fields.remaining / 16))
    for _ in 0..<count {
      references.append(
        RecordReference(
          entry: try fields.identifier(), offset: try fields.integer(),
          size: try fields.integer()))
    }
    return references
  }
}
