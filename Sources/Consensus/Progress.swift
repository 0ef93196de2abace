// What a leader knows of one other member: how far its log agrees, and how it is being fed.

import Base

/// How a leader feeds a member.
package enum ReplicationMode: Hashable, Sendable {
  /// Where the logs agree is not known: one append at a time, until one is accepted.
  case probe
  /// Appends follow each other without waiting, as far as the window allows.
  case replicate
  /// The log it needs is gone: the snapshot goes first.
  case snapshot
}

/// The sending of one snapshot (thesis §5.3).
struct SnapshotTransfer {
  let last: LogPosition
  let membership: Membership
  /// The follower has taken the stream up to here, bytes. acknowledged <= sent.
  var acknowledged: UInt64 = 0
  /// The end of the chunk sent last.
  var sent: UInt64 = 0
  /// The last chunk's end, once it was sent.
  var end: UInt64?
  /// When the chunk that is not answered yet was sent; one is on its way at a time.
  var sentAt: MonotonicTime?
}

struct Progress {
  let id: NodeID
  /// Known to be on the member's disk and equal to our log. 0 <= match < next. Falls back to 0 when
  /// the connection is lost, since the member may come back with less (G11).
  var match: LogIndex = .zero {
    didSet { if match > .zero { reached = match } }
  }
  /// The last `match`, also of a member that is away. A guess until there was one: what it lacked of
  /// the log before this node led is not known. Promises nothing: for what is worth keeping only.
  private(set) var reached: LogIndex
  /// The first entry that was not sent yet, in `probe` the one to try. next <= last + 1.
  var next: LogIndex
  var mode: ReplicationMode = .probe
  /// In `probe`: an append is on its way and no other follows before its answer.
  var isProbeSent = false
  var window: InFlightWindow
  /// Present exactly in the mode `snapshot`.
  var transfer: SnapshotTransfer?
  /// The snapshot whose sending was begun last and how far it got: the follower may have kept that
  /// much although the connection was lost.
  var lastTransfer: (last: LogPosition, sent: UInt64) = (.zero, 0)
  var isConnected: Bool
  /// When it last answered in this term, or when the term began.
  var lastHeard: MonotonicTime
  /// The highest round that it answered; roundHeard <= roundSent <= the leader's round.
  var roundHeard: UInt64 = 0
  var roundSent: UInt64 = 0
  /// The commit index sent last.
  var commitSent: LogIndex = .zero
  /// It said on this connection that it votes (`AppendReply.mayVote`).
  var mayVote = false
  /// The last round that was begun before the connection came up. What answers it or an earlier one
  /// may come from an earlier process, which perhaps had another disk.
  var roundAtConnection: UInt64
  /// Not in the membership any more: it is fed until it knows that, and counts for nothing.
  var isLeaving = false

  init(
    id: NodeID, next: LogIndex, window: InFlightWindow, isConnected: Bool, round: UInt64,
    now: MonotonicTime
  ) {
    self.id = id
    self.next = next
    self.reached = next.previous
    self.window = window
    self.isConnected = isConnected
    self.roundAtConnection = round
    self.lastHeard = now
  }

  /// Tries at `next` whether the logs agree; nothing sent before counts as on its way.
  mutating func becomeProbe(next: LogIndex) {
    mode = .probe
    isProbeSent = false
    transfer = nil
    window.clear()
    self.next = max(next, match.next)
  }

  mutating func becomeReplicate(next: LogIndex) {
    mode = .replicate
    isProbeSent = false
    transfer = nil
    window.clear()
    self.next = max(next, match.next)
  }

  mutating func becomeSnapshot(_ last: LogPosition, _ membership: Membership) {
    mode = .snapshot
    isProbeSent = false
    window.clear()
    transfer = SnapshotTransfer(last: last, membership: membership)
    if lastTransfer.last == last { transfer?.sent = lastTransfer.sent }
  }

  func checkInvariants(last: LogIndex, round: UInt64) {
    invariant(match < next, "\(id): match \(match), next \(next)")
    invariant(next <= last.next, "\(id): next \(next) beyond last \(last)")
    invariant(
      roundHeard <= roundSent && roundSent <= round, "\(id): round \(roundHeard) \(roundSent)")
    invariant((mode == .snapshot) == (transfer != nil), "\(id): \(mode) with or without a transfer")
    if let transfer {
      invariant(transfer.acknowledged <= transfer.sent, "\(id): snapshot offsets \(transfer)")
    }
    window.checkInvariants()
  }
}
