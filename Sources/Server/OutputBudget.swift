// What all connections of a gateway together have waiting to be sent (G13). Each has a bound of its own, but
// the sum of these for thousands that do not read is no bound for a node.
//
// Deliveries are written while there is room here, and no more than a share of it in one turn of the loop, or
// heartbeats would wait for it. Who is left out comes first in the next turn. Room comes as others read. If
// for a while nothing can be written to anybody, those are closed that have read nothing meanwhile and hold
// more than their share; if all of them read a little, whoever holds most.

import Base
import Transport

/// Why no more of a connection's deliveries are written in this turn.
enum PumpEnd {
  /// For no reason that others share: there are none, the connection is full, or they cannot be had.
  case ownReasons
  /// Enough was read in this turn.
  case reading
  /// Enough was written in this turn, or waits to be sent.
  case output
}

struct OutputBudget {
  /// Deliveries are written while all connections together have fewer bytes waiting, so the last message
  /// written may go beyond.
  var bytesMax = ClientGatewayLimits.outputBytes
  /// What deliveries may write in one turn; the last message may go beyond.
  var bytesPerTurn = ClientGatewayLimits.deliverBytesPerTurn
  /// As counted when each connection was last written to or flushed.
  private(set) var bytes = 0
  private var turnBytesLeft = 0
  private var wasFull = false
  /// Deliveries were cut short in the last turn.
  private(set) var isAwaited = false
  /// Since when nothing at all was written of the deliveries that wait, for what waits already.
  private(set) var stuckSince: MonotonicTime?

  /// Answers are written in any case; where they are too much somebody is closed at once.
  private var overrunBytes: Int { bytesMax + ClientGatewayLimits.answerBytes }
  private var isOverrun: Bool { bytes > overrunBytes }
  var isFull: Bool { bytes >= bytesMax }
  /// What may be written at present.
  var room: Int { min(bytesMax - bytes, turnBytesLeft) }
  /// When somebody is to be closed.
  var deadline: MonotonicTime {
    stuckSince.map { $0 + ClientGatewayLimits.outputPatience } ?? .never
  }

  /// Notes what a connection has waiting. `counted` is what was noted before.
  mutating func count(_ connection: Connection, _ counted: inout Int) {
    let pending = connection.pendingBytes
    bytes += pending - counted
    counted = pending
  }

  mutating func beginTurn() {
    turnBytesLeft = bytesPerTurn
    wasFull = isFull
    isAwaited = false
  }

  /// So much was written for one connection.
  mutating func wrote(_ count: Int) { turnBytesLeft -= count }

  mutating func noteAwaited() { isAwaited = true }

  mutating func endTurn(now: MonotonicTime) {
    stuckSince = wasFull && isAwaited ? stuckSince ?? now : nil
  }

  /// Who is to be closed now, so that others get something; mostly nobody.
  mutating func takeNonReaders<Client: OutputHolder>(
    among clients: borrowing IntegerMap<Client>, now: MonotonicTime
  ) -> [Client] {
    let isStuck = now >= deadline
    guard isStuck || isOverrun else { return [] }
    stuckSince = nil
    let holders = clients.sortedKeys.compactMap { clients[$0] }
      .sorted { $0.countedOutput > $1.countedOutput }
    let share = bytesMax / (holders.count + 1)
    var closed: [Client] = []
    if isStuck {
      closed = holders.filter { holder in
        guard let since = holder.connection.stalledSince else { return false }
        return holder.countedOutput > share
          && now.since(since) >= ClientGatewayLimits.outputPatience
      }
    }
    guard closed.isEmpty else { return closed }
    var bytes = bytes
    for holder in holders where closed.isEmpty || bytes > overrunBytes {
      closed.append(holder)
      bytes -= holder.countedOutput
    }
    return closed
  }
}

/// A connection as the budget sees it.
protocol OutputHolder: AnyObject {
  var connection: Connection { get }
  /// What it has waiting to be sent, as it was counted.
  var countedOutput: Int { get }
}

extension ClientConnection: OutputHolder {}
extension AMQPClient: OutputHolder {}
