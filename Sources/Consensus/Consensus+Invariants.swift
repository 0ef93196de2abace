// What must hold between any two inputs. Only our own bugs break these, never a peer.

import Base

extension Consensus {
  /// Stops the process if the state contradicts itself. For tests and the simulator after every
  /// step; costs time in proportion to members and terms.
  package borrowing func checkInvariants() {
    log.checkInvariants()
    invariant(commit <= log.last, "commit \(commit), last \(log.last)")
    invariant(log.base.index <= snapshot.index, "base \(log.base), snapshot \(snapshot)")
    invariant(snapshot.index <= commit, "snapshot \(snapshot), commit \(commit)")
    invariant(persisted <= log.last, "persisted \(persisted), last \(log.last)")
    invariant(lastPosition.term <= term, "last \(lastPosition), term \(term)")
    for (left, right) in zip(memberships, memberships.dropFirst()) {
      invariant(left.index < right.index, "memberships at \(left.index) and \(right.index)")
    }
    invariant(
      memberships[memberships.count - 1].index <= log.last, "membership beyond last \(log.last)")
    invariant(following.verified <= log.last, "verified \(following.verified), last \(log.last)")
    invariant(heldReplies.count <= Self.heldRepliesMax, "\(heldReplies.count) replies held")
    if let receipt {
      invariant(receipt.stored <= receipt.ordered, "snapshot offsets of \(receipt)")
    }
    checkRole()
  }

  private borrowing func checkRole() {
    invariant((leader == id) == (role == .leader), "\(role), leader \(String(describing: leader))")
    guard role == .leader else {
      invariant(progress.isEmpty, "\(role) with progress")
      return
    }
    invariant(hardState.vote == id, "leads \(term) without its own vote")
    invariant(leading.begin <= log.last, "term began at \(leading.begin), last \(log.last)")
    for member in progress { member.checkInvariants(last: log.last, round: leading.round) }
    for member in membership.members where member.id != id {
      invariant(progressPlace(member.id) != nil, "member \(member.id) without progress")
    }
  }
}
