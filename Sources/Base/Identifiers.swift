// The numbers that Skein's parts exchange, each a type of its own so that no two of different
// meaning can be mixed up. All are plain integers on the wire and on disk, little-endian.

/// A number with a meaning. Conforming types only name themselves.
@usableFromInline
package protocol Identifier: RawRepresentable, Hashable, Comparable, Sendable,
  CustomStringConvertible
where RawValue: FixedWidthInteger & Sendable {
  init(rawValue: RawValue)
}

extension Identifier {
  @inlinable package init(_ value: RawValue) { self.init(rawValue: value) }
  @inlinable package static func < (left: Self, right: Self) -> Bool {
    left.rawValue < right.rawValue
  }
  @inlinable package static func == (left: Self, right: Self) -> Bool {
    left.rawValue == right.rawValue
  }
  /// The next number. Overflow is a bug and stops the process.
  @inlinable package var next: Self { Self(rawValue: rawValue + 1) }
  @usableFromInline package var description: String { "\(rawValue)" }
}

/// A member of the cluster, from 1. One that was removed may join again, with an empty directory.
@frozen @usableFromInline package struct NodeID: Identifier {
  @usableFromInline package let rawValue: UInt32
  @inlinable package init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// A replication group. There is one, number 0; every peer frame and log record names it, so that
/// several can later share nodes and a log.
@frozen @usableFromInline package struct GroupID: Identifier {
  @usableFromInline package let rawValue: UInt32
  @inlinable package init(rawValue: UInt32) { self.rawValue = rawValue }
  @inlinable package static var main: GroupID { GroupID(rawValue: 0) }
}

/// A term of leadership (thesis §3.3), 0 before the first election.
@frozen @usableFromInline package struct Term: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable package static var zero: Term { Term(rawValue: 0) }
}

/// The place of an entry in the replicated log, from 1; 0 is the place before the first.
@frozen @usableFromInline package struct LogIndex: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable package static var zero: LogIndex { LogIndex(rawValue: 0) }
  /// The index before; the one before 0 is a bug and stops the process.
  @inlinable package var previous: LogIndex { LogIndex(rawValue: rawValue - 1) }
  @inlinable package func advanced(by count: Int) -> LogIndex {
    LogIndex(rawValue: UInt64(Int64(rawValue) + Int64(count)))
  }
}

/// A queue, numbered in the order of declaration and never used again.
@frozen @usableFromInline package struct QueueID: Identifier {
  @usableFromInline package let rawValue: UInt32
  @inlinable package init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// A client's session: the log index and place of the command that opened it, packed as in
/// `MessageID`, so that it is unique for the life of the cluster. 0 is no session.
@frozen @usableFromInline package struct SessionID: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable package static var none: SessionID { SessionID(rawValue: 0) }
}

/// A consumer within its session, chosen by the client.
@frozen @usableFromInline package struct ConsumerID: Identifier {
  @usableFromInline package let rawValue: UInt32
  @inlinable package init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// A producer, chosen by the client at random; its publishes are numbered by `PublishSequence`.
@frozen @usableFromInline package struct ProducerID: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// Who has a producer: drawn anew by the cluster whenever a session takes it over, so that a client
/// whose session ended can tell whether another client published under its numbers meanwhile.
@frozen @usableFromInline package struct ProducerEpoch: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
  /// Of a session that takes its producer over, or has none.
  @inlinable package static var none: ProducerEpoch { ProducerEpoch(rawValue: 0) }
}

/// One try of a client to open a session: 32 bits that the client drew when it began, then a count
/// from 1. What was sent over a connection that the client gave up may arrive long after, when it
/// has opened another session: it must not take the producer from that one.
@frozen @usableFromInline package struct OpenAttempt: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
  package init(client: UInt32, count: UInt32) {
    rawValue = UInt64(client) << 32 | UInt64(count)
  }
  /// Of a client that does not number them.
  @inlinable package static var none: OpenAttempt { OpenAttempt(rawValue: 0) }

  /// Whether this is `other`, or the client had given it up when it made `other`.
  package func isSuperseded(by other: OpenAttempt) -> Bool {
    rawValue >> 32 != 0 && rawValue >> 32 == other.rawValue >> 32 && rawValue <= other.rawValue
  }
}

/// The number of a publish among its producer's, from 1 without gaps (G4).
@frozen @usableFromInline package struct PublishSequence: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable package static var zero: PublishSequence { PublishSequence(rawValue: 0) }
}

/// The number of a delivery among its consumer's, from 1 without gaps. A consumer that sees a gap
/// or knows its last one can ask for what it missed.
@frozen @usableFromInline package struct DeliveryID: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// Grows with every delivery from one queue (G6): of two holders of a message, the one with the
/// larger token is the later.
@frozen @usableFromInline package struct FencingToken: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// The id of a stored copy of a message: the log index of the entry that put it into its queue in
/// the upper 44 bits, its place among the messages of that entry in the lower 20. Ids of one queue
/// grow in its order.
@frozen @usableFromInline package struct MessageID: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }

  /// How many messages one entry may put into queues.
  @inlinable package static var perEntryMax: Int { 1 << 20 }

  @inlinable package init(entry: LogIndex, ordinal: Int) {
    self.rawValue = entry.rawValue << 20 | UInt64(ordinal)
  }
  @inlinable package var entry: LogIndex { LogIndex(rawValue: rawValue >> 20) }
  @inlinable package var ordinal: Int { Int(rawValue & 0xfffff) }

  /// As users see it: `index-ordinal`.
  @usableFromInline package var description: String { "\(entry)-\(ordinal)" }

  /// Reads `index-ordinal`; nil for anything else.
  package init?(text: String) {
    let parts = text.split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count == 2, let index = UInt64(parts[0]), index < 1 << 44,
      let ordinal = UInt64(parts[1]), ordinal < UInt64(Self.perEntryMax)
    else { return nil }
    self.rawValue = index << 20 | ordinal
  }
}

/// The number of a settle or extend among its session's, from 1 without gaps. A session that comes
/// back sends again what it has not seen answered; the machine answers a number it knows as before.
@frozen @usableFromInline package struct CommandSequence: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable package static var zero: CommandSequence { CommandSequence(rawValue: 0) }
  /// Of a settle that the log itself holds once, so that nobody asks for its answer: those of AMQP
  /// sessions, whose commands are numbered by their node (`CommandWriter.beginRelay`).
  @inlinable package static var unnumbered: CommandSequence { CommandSequence(rawValue: .max) }
}
