// What all connections of a gateway together have waiting to be sent (G13). Each has a bound of its own, but
// the sum of these for thousands that do not read is no bound for a node.
//
// Half of the bound is everybody's own: what fits into a connection's share of it is written whatever others
// have, so that nobody with small messages waits for those with large ones. The other half is for who comes
// first, of what size their messages may be. No more than a part of it is written in one turn of the loop, or
// heartbeats would wait for it. Who is left out comes first in the next turn. Room comes as others read.
// If for a while there is none and somebody gets nothing, those are closed that have read nothing
// meanwhile and hold more than their share; if all of them read a little, one of them.

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

/// What may be written for one connection now, as bytes that wait for it then.
struct OutputRoom {
  /// Nothing more is written from here on; the last message may go beyond.
  var end: Int
  /// Before this what comes next is written, of whatever size.
  var commonEnd: Int
  /// What does not go beyond this is written too.
  var shareEnd: Int

  /// Whether a message of `size` may be written while `pending` bytes wait.
  func takes(_ size: Int, behind pending: Int) -> Bool {
    pending < end && (pending < commonEnd || pending + size <= shareEnd)
  }

  /// How many bytes may be added to `pending` in one go, if not more than `most` are.
  func bytes(upTo most: Int, behind pending: Int) -> Int {
    pending < commonEnd ? most : min(most, shareEnd - pending)
  }
}

struct OutputBudget {
  /// Deliveries have no more bytes waiting than this, but for the last message.
  var bytesMax = ClientGatewayLimits.outputBytes
  /// What deliveries may write in one turn; the last message may go beyond.
  var bytesPerTurn = ClientGatewayLimits.deliverBytesPerTurn
  /// With answers, and the last message, it may be so much more: then somebody is closed at once.
  var answerBytes = ClientGatewayLimits.answerBytes
  /// As counted when each connection was last written to or flushed.
  private(set) var bytes = 0
  private var turnBytesLeft = 0
  private var connections = 0
  private var wasFull = false
  /// Deliveries were cut short in the last turn.
  private var isAwaited = false
  /// Of somebody who has little to read meanwhile, for what waits already.
  private var isStarving = false
  /// Since when there was no room for somebody who has little to read.
  private(set) var stuckSince: MonotonicTime?

  /// Half of `bytesMax`, and what everybody has of the other half.
  private var commonMax: Int { bytesMax / 2 }
  private var share: Int { commonMax / (connections + 1) }
  private var overrunBytes: Int { bytesMax + answerBytes }
  private var isFull: Bool { bytes >= commonMax }
  private var isOverrun: Bool { bytes > overrunBytes }
  /// Nothing more is written in this turn of the loop.
  var isTurnOver: Bool { turnBytesLeft <= 0 }
  /// More can be written in another turn, without waiting for anybody to read.
  var goesOn: Bool { isAwaited && (isTurnOver || !isFull) || isStarving && stuckSince == nil }
  /// When somebody is to be closed.
  var deadline: MonotonicTime {
    stuckSince.map { $0 + ClientGatewayLimits.outputPatience } ?? .never
  }

  /// Whether somebody is to be closed now, so that others get something; mostly nobody.
  func closesSomebody(now: MonotonicTime) -> Bool { isOverrun || now >= deadline }

  /// Notes what a connection has waiting. `counted` is what was noted before.
  mutating func count(_ connection: Connection, _ counted: inout Int) {
    let pending = connection.pendingBytes
    bytes += pending - counted
    counted = pending
  }

  /// To be called once in a turn of the loop, however often it writes.
  mutating func beginTurn() { turnBytesLeft = bytesPerTurn }

  mutating func beginWriting(to connections: Int) {
    self.connections = connections
    wasFull = isFull
    isAwaited = false
    isStarving = false
  }

  /// - Parameter pendingMax: where the connection is full.
  func room(for connection: Connection, pendingMax: Int) -> OutputRoom {
    let pending = connection.pendingBytes
    return OutputRoom(
      end: min(pendingMax, pending + max(0, turnBytesLeft)), commonEnd: pending + commonMax - bytes,
      shareEnd: share)
  }

  /// So much was written for one connection.
  mutating func wrote(_ count: Int) { turnBytesLeft -= count }

  /// Its deliveries were cut short.
  mutating func noteCut(_ connection: Connection, gotSomething: Bool) {
    isAwaited = true
    guard !isTurnOver, !gotSomething else { return }
    if connection.pendingBytes <= share / 2 { isStarving = true }
  }

  mutating func endWriting(now: MonotonicTime) {
    if wasFull && isStarving {
      stuckSince = stuckSince ?? now
    } else if !isTurnOver || !wasFull {
      stuckSince = nil
    }
  }

  /// Whom to close where `closesSomebody`.
  mutating func takeNonReaders<Client: OutputHolder>(
    among clients: borrowing IntegerMap<Client>, now: MonotonicTime
  ) -> [Client] {
    guard closesSomebody(now: now) else { return [] }
    let isOverrun = isOverrun
    stuckSince = nil
    // There is room again since it was last written.
    guard isOverrun || isFull else { return [] }
    let patience = ClientGatewayLimits.outputPatience
    // Nobody within its share is closed for what others have. Of the others, who has read nothing for the
    // longest time, and of those for whom that is the same, whoever holds most.
    let ranks = clients.sortedKeys.compactMap { clients[$0] }.map { holder in
      let stalled = holder.connection.stalledSince.map { min(now.since($0), patience) } ?? .zero
      let held = holder.countedOutput
      return (
        holder: holder, isDeaf: stalled >= patience && held > share,
        order: (held > share ? 1 : 0, stalled.rawValue / Nanoseconds.seconds(1).rawValue, held)
      )
    }.sorted { $0.order > $1.order }
    // What is made room for should last for a while.
    let wanted = isOverrun ? overrunBytes : commonMax / 2
    var closed: [Client] = []
    var left = bytes
    for rank in ranks where left > wanted {
      // Some read: one of them is enough.
      if !isOverrun, !rank.isDeaf, !closed.isEmpty { break }
      closed.append(rank.holder)
      left -= rank.holder.countedOutput
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
