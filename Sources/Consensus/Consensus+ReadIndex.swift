// Linearizable reads without log entries (§6.4): the commit index of now may be served once a
// majority has answered a round of heartbeats begun after the request.

import Base

struct PendingRead {
  let ticket: ReadTicket
  /// Served when this is applied; at least the begin entry of the term.
  let index: LogIndex
  /// Confirmed by a majority of answers to this round or a later one.
  let round: UInt64
}

/// A round as a number of its own type, for the quorum rule.
private struct Round: Identifier {
  let rawValue: UInt64
}

extension Consensus {
  /// Asks to read. `readReady` or `readFailed` with the ticket follows, perhaps in this call.
  /// nil if this node does not lead or too many reads wait.
  package mutating func readIndex(
    now: MonotonicTime, into output: inout [ConsensusOutput]
  ) -> ReadTicket? {
    guard role == .leader, leading.reads.count < configuration.pendingReadsMax else { return nil }
    let index = max(commit, leading.begin)
    if leading.isRoundSent { startRound(now) }
    if let last = leading.reads.last, last.round == leading.round, last.index == index {
      return last.ticket
    }
    let ticket = ReadTicket(number: leading.nextTicket)
    leading.nextTicket += 1
    leading.reads.append(PendingRead(ticket: ticket, index: index, round: leading.round))
    releaseReads(&output)
    return ticket
  }

  /// The latest round that a majority answered: when it was begun, nobody had a majority's votes in a
  /// later term.
  var confirmedRound: UInt64 {
    quorumValue(own: Round(rawValue: leading.round)) { Round(rawValue: $0.roundHeard) }.rawValue
  }

  mutating func releaseReads(_ output: inout [ConsensusOutput]) {
    guard role == .leader, !leading.reads.isEmpty else { return }
    let confirmed = confirmedRound
    let ready = leading.reads.prefix { $0.round <= confirmed && $0.index <= commit }
    for read in ready { output.append(.readReady(read.ticket, index: read.index)) }
    leading.reads.removeFirst(ready.count)
  }
}
