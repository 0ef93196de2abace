// Every bound of the machine, in one place (G13). All are part of the format: they decide what is
// refused, so a replica with others, or the same one after a change of its file, would contradict
// what was answered. What a node's configuration allows is less, and is checked by whoever proposes.

import Base

/// What a machine takes before it refuses. The same on all nodes and in all runs: only tests use
/// others than these.
package struct MachineLimits: Hashable, Sendable {
  /// Queues that may exist at once.
  package var queues = 100_000
  /// Sessions that may exist at once, detached ones included. `openSession` names a lower number.
  package var sessions = 100_000
  /// Consumers of all sessions, ended ones that still hold messages included.
  package var consumers = 1_000_000
  /// Consumers of one session, ended ones that still hold messages included.
  package var consumersPerSession = 2_048
  /// Messages that the consumers of one session may hold together: all of them come again in one
  /// go when the session is attached.
  package var creditPerSession = 262_144
  /// Producers remembered after their last session ended; over this the one idle longest goes,
  /// even before `producerMemory` is over. Those of live sessions are not counted and never go.
  package var idleProducers = 100_000
  /// How long a producer without a session is remembered (G4), machine time.
  package var producerMemory: Nanoseconds = .seconds(24 * 3600)
  /// Publishes of a producer whose answers it has not said to have seen.
  package var unansweredMessages: UInt64 = 65_536
  /// The same in runs of equal answers. A publish that would make more is carried out as far as
  /// they go; a transaction, which makes 1,024 at most, waits.
  package var unansweredRuns = 4_096
  /// The same of all producers with a session together. Above it a producer may have
  /// `runsWhenFull`, so that nobody's publishes depend on what others do not answer.
  package var liveRuns = 1 << 22
  package var runsWhenFull = 64
  /// Refused ranges of settles that a session has not said to have seen. A settle that would make
  /// more is not carried out until the session has seen enough of them; one that makes more than
  /// this by itself, for the gaps between what is held, is refused as a whole.
  package var unansweredRefusals = 4_096
  /// The same of all sessions together. Above it a session may have `refusalsWhenFull`, so that
  /// nobody's acknowledgements depend on what others do not answer.
  package var refusals = 1 << 20
  package var refusalsWhenFull = 64
  /// Runs of answers kept of all producers without a session. A producer that becomes idle above
  /// it keeps its last run only.
  package var idleRuns = 1 << 20
  /// The longest time that a session may stay detached before it ends.
  package var sessionTimeoutMax: Nanoseconds = .seconds(24 * 3600)
  /// The longest lease that an extension may ask for, from the time of asking.
  package var extensionMax: Nanoseconds = .seconds(24 * 3600)

  /// Messages that publishes of one entry may store. Above it those of native clients are
  /// `overloaded`, and of an AMQP gateway's bundle the rest waits for another entry. This and the next
  /// two are at most their namesakes in `FixedLimits`.
  package var publishesPerEntry = FixedLimits.publishesPerEntry
  package var dueWorkPerEntry = FixedLimits.dueWorkPerEntry
  package var settledPerEntry = FixedLimits.settledPerEntry
  /// Messages that one entry moves to other queues, by what is due, settled or asked for.
  package var movesPerEntry = FixedLimits.movesPerEntry
  /// Leases that the extends of one entry may set; `overloaded` above it.
  package var extendedPerEntry = 1 << 22
  /// What the orders of one entry may look at before it is known whether they can be carried out:
  /// deliveries that are to be settled or extended, what consumers hold and queues where a message
  /// is looked for that is not where it was said to be.
  /// `overloaded` above it: an order that comes to nothing can be sent again and again.
  package var looksPerEntry = 1 << 22
  /// The same of the settles and extends of one session, so that nobody's wait for another's.
  package var looksPerSession = 1 << 18
  /// A settle or extend that looks at no more than this is never pushed back for it.
  package var looksOfLittle = 256
  /// Bytes of headers kept in memory for messages that a headers exchange may decide on when they
  /// are dead, and of further keys by which they go on then, each waiting copy counted. A publish
  /// that would make more is `overloaded`; a message that moves goes without them.
  package var headerBytesKept = 256 << 20
  /// Words in the keys of all bindings of topic exchanges, one node of their trees each: what keys
  /// of one exchange have in common from their beginning on counts once. A node takes about a
  /// hundred bytes, and a key of 255 bytes may have 256 words.
  package var topicNodes = 8_000_000
  /// Headers that the bindings of all headers exchanges ask for, and one for each binding: what a single
  /// message can cost that comes to all of them, so at most about a quarter of `headerLooksPerEntry`.
  package var wantedHeaders = 1_000_000
  /// The same of one exchange: each message that comes to it is matched against all of them.
  package var wantedHeadersPerExchange = 100_000
  /// What is looked at for the messages of one entry that come to headers exchanges: the bindings of
  /// these, the headers that they ask for, and the messages' own. What would look at more waits for
  /// the next, but for the message that goes beyond it.
  package var headerLooksPerEntry = 1 << 22
  /// The same for a transaction, which is refused above it: so that an entry has room for any.
  var headerLooksPerTransaction: Int { headerLooksPerEntry / 2 }
  /// The same for dead letters, so that publishes and transactions have some whatever dies.
  var headerLooksOfDead: Int { max(1, headerLooksPerEntry / 4) }

  package init() {}

  /// Stops the process if the message ids of one entry could run out.
  func check() {
    invariant(
      publishesPerEntry <= FixedLimits.publishesPerEntry
        && dueWorkPerEntry <= FixedLimits.dueWorkPerEntry
        && settledPerEntry <= FixedLimits.settledPerEntry, "limits per entry: \(self)")
    // The copies of one dead message, one for each queue, may go together whatever the limit is.
    let most = publishesPerEntry + max(movesPerEntry, queues)
    invariant(most <= MessageID.perEntryMax, "\(most) messages in one entry")
  }
}

/// Bounds that are part of the format or of arithmetic.
package enum FixedLimits {
  /// Messages that a consumer may hold at once.
  package static let creditMax: UInt32 = 65_535
  /// Bytes of an entry's payload: offsets are kept in 28 bits.
  package static let payloadBytesMax = (1 << 28) - 1
  /// Commands in one entry: session ids keep their ordinal in 20 bits.
  package static let commandsPerEntry = 1 << 19
  /// Messages that the publishes of one entry may store. The other half of an entry's message ids
  /// is for what the machine itself moves.
  package static let publishesPerEntry = 1 << 19
  /// Messages returned or moved because their time came, per entry, and copies of dead letters
  /// that an exchange makes beyond the first; what is left waits for the next entry, whose deadline
  /// has then passed already.
  package static let dueWorkPerEntry = 1 << 18
  /// Messages that one entry's nacks, rejects and releases may take from consumers.
  package static let settledPerEntry = 3 << 16
  /// Messages that one entry may move: together with those that it publishes no more than
  /// `MessageID.perEntryMax`, and more than the two limits above together.
  package static let movesPerEntry = 1 << 19
  /// Ranges in one settle or extend.
  package static let rangesPerSettle = 4_096
  /// Messages that one transaction stores, each queue's counted.
  package static let copiesPerTransaction = 1 << 16
  /// Settles in one transaction, and parts of it: messages for the same queues.
  package static let partsPerTransaction = 1_024
  /// Ranges in all settles of one transaction.
  package static let rangesPerTransaction = 4_096
  /// Queues that one part of a transaction names.
  package static let queuesPerPart = 1_024
  /// Consumers listed in one attach.
  package static let consumersPerAttach = 65_535
  /// Bytes of a nack's error text; the proposer cuts longer ones.
  package static let errorBytesMax = 1_024
  /// The same in a message's events, of which each keeps a text.
  package static let eventErrorBytesMax = 256
  /// What is kept of a message's deliveries and moves: the last ones.
  package static let eventsPerMessage = 16
  /// Ids that a message remembers from before its moves: the last ones.
  package static let formerIDsPerMessage = 8
  /// Notes on messages that one search for a moved one looks at.
  package static let notesPerSearch = 1 << 21
  /// Messages that one redrive looks at, which bounds its entry; the next goes on behind them.
  package static let redrivePerCommand = 4_096
  /// Bytes of a session's name.
  package static let sessionNameBytesMax = 255
}
