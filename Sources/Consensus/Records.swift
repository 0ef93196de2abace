// What consensus keeps in the log and beside it: entries, the hard state, the membership. LogStore
// writes these to disk, Node carries them between the two, peers send them to each other.

import Base

/// A place in the log with the term of its entry: what two logs are compared by (thesis §3.6.1).
@frozen @usableFromInline
package struct LogPosition: Hashable, Sendable, Comparable,
  CustomStringConvertible
{
  package var term: Term
  package var index: LogIndex

  package init(term: Term, index: LogIndex) {
    self.term = term
    self.index = index
  }

  package static let zero = LogPosition(term: .zero, index: .zero)

  /// "At least as up-to-date" of thesis §3.6.1: the later term wins, then the longer log.
  @usableFromInline package static func < (left: LogPosition, right: LogPosition) -> Bool {
    (left.term, left.index) < (right.term, right.index)
  }

  @usableFromInline package var description: String { "\(index)@\(term)" }
}

/// What must be on disk before a vote or a term is answered (thesis §3.4, figure 3.1).
package struct HardState: Hashable, Sendable {
  /// The latest term seen.
  package var term: Term
  /// Whom this node voted for in `term`, itself included.
  package var vote: NodeID?
  /// The end of the log that this node has acknowledged at some time although damage took it away
  /// (G11). Candidates must be at least as up-to-date as this too; `zero` when nothing is missing.
  package var floor: LogPosition
  /// This disk was there when its cluster was new: all initial members said that they had no past.
  /// Noted before this node says so to anybody, and for ever: an empty log beside it was not wiped.
  package var isFounder: Bool

  package init(
    term: Term = .zero, vote: NodeID? = nil, floor: LogPosition = .zero, isFounder: Bool = false
  ) {
    self.term = term
    self.vote = vote
    self.floor = floor
    self.isFounder = isFounder
  }
}

/// What an entry's payload is. The raw value is on disk and on the wire.
package enum EntryKind: UInt8, Sendable {
  /// Empty: the first entry of every leader (thesis §6.4).
  case begin = 1
  /// A batch of commands for the queue machine.
  case commands = 2
  /// A `Membership`, in force from the moment it is in the log (thesis §4.1).
  case membership = 3
}

/// An entry without its payload.
package struct EntryHeader: Hashable, Sendable {
  package var position: LogPosition
  package var kind: EntryKind
  /// Bytes.
  package var payloadBytes: UInt32
  /// CRC-32C of the payload, computed once by the leader.
  package var payloadChecksum: Checksum

  package init(
    position: LogPosition, kind: EntryKind, payloadBytes: UInt32, payloadChecksum: Checksum
  ) {
    self.position = position
    self.kind = kind
    self.payloadBytes = payloadBytes
    self.payloadChecksum = payloadChecksum
  }

  package var index: LogIndex { position.index }
  package var term: Term { position.term }
}

/// An entry with its payload. The array is shared, never copied, by cache, disk and peers.
package struct Entry: Hashable, Sendable {
  package var header: EntryHeader
  package var payload: [UInt8]

  package init(header: EntryHeader, payload: [UInt8]) {
    self.header = header
    self.payload = payload
  }

  /// An entry whose checksum is computed here.
  package init(position: LogPosition, kind: EntryKind, payload: [UInt8]) {
    self.header = EntryHeader(
      position: position, kind: kind, payloadBytes: UInt32(payload.count),
      payloadChecksum: Checksum(of: payload))
    self.payload = payload
  }

  package var index: LogIndex { header.position.index }
}

/// Who takes part. One member changes at a time (thesis §4.1, §4.2).
package struct Membership: Hashable, Sendable {
  package struct Member: Hashable, Sendable {
    package var id: NodeID
    /// Where peers reach it, `host:port`.
    package var peerAddress: String
    /// Where clients reach it, `host:port`.
    package var clientAddress: String
    /// Learners get the log but neither vote nor count (thesis §4.2.1).
    package var isLearner: Bool

    package init(id: NodeID, peerAddress: String, clientAddress: String, isLearner: Bool = false) {
      self.id = id
      self.peerAddress = peerAddress
      self.clientAddress = clientAddress
      self.isLearner = isLearner
    }
  }

  /// By ascending id, no id twice.
  package let members: [Member]
  /// Who votes, by ascending id. Kept, since a leader asks at every tick.
  package let voters: [NodeID]

  package init(members: [Member]) {
    self.members = members.sorted { $0.id < $1.id }
    voters = self.members.filter { !$0.isLearner }.map(\.id)
    for (left, right) in zip(self.members, self.members.dropFirst()) {
      invariant(left.id != right.id, "member \(left.id) twice")
    }
  }

  package func member(_ id: NodeID) -> Member? { members.first { $0.id == id } }
  package func contains(_ id: NodeID) -> Bool { isVoter(id) || isLearner(id) }
  package func isVoter(_ id: NodeID) -> Bool { voters.contains(id) }
  package func isLearner(_ id: NodeID) -> Bool { !isVoter(id) && member(id) != nil }
  /// How many voters are a majority; at least 1.
  package var quorum: Int { voters.count / 2 + 1 }

  /// As it lies in an entry and in a snapshot:
  /// u16 count, then per member u32 id, u8 learner, short text peer address, client address.
  package func encoded() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.put(UInt16(members.count))
    for member in members {
      bytes.put(member.id)
      bytes.put(UInt8(member.isLearner ? 1 : 0))
      bytes.putShortText(member.peerAddress)
      bytes.putShortText(member.clientAddress)
    }
    return bytes
  }

  /// Reads what `encoded` wrote.
  package init(decoding reader: inout ByteReader) throws(MembershipDecodingError) {
    var members: [Member] = []
    do throws(ByteReaderError) {
      for _ in 0..<(try reader.integer(UInt16.self)) { members.append(try Member(from: &reader)) }
    } catch {
      throw .malformed(error)
    }
    var seen: Set<NodeID> = []
    for member in members where !seen.insert(member.id).inserted { throw .duplicate(member.id) }
    self.init(members: members)
  }
}

/// Why bytes are no membership.
package enum MembershipDecodingError: Error, Equatable, Sendable {
  /// A field is cut off or is no text.
  case malformed(ByteReaderError)
  /// The node is in it twice.
  case duplicate(NodeID)
}

extension Membership.Member {
  fileprivate init(from reader: inout ByteReader) throws(ByteReaderError) {
    id = try reader.identifier()
    isLearner = try reader.integer(UInt8.self) != 0
    peerAddress = try reader.shortText()
    clientAddress = try reader.shortText()
  }
}
