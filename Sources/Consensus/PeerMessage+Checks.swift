// What no correct peer can have sent: refused before it reaches the state, so that a garbled or
// hostile message can neither overflow a number nor break an invariant.

import Base

extension PeerMessage {
  /// Far beyond any real index, term or round, and far from overflow.
  private static let numberMax: UInt64 = 1 << 60

  private static func isSmall(_ number: UInt64) -> Bool { number < numberMax }

  private static func isPlausible(_ position: LogPosition, at term: Term) -> Bool {
    isSmall(position.index.rawValue) && position.term <= term
      && (position.index == .zero) == (position.term == .zero)
  }

  /// The term that the sender is in; nil for a granted pre-vote, which carries the term asked for.
  package var senderTerm: Term? {
    switch self {
    case .preVote(let request):
      request.term == .zero ? .zero : Term(request.term.rawValue - 1)
    case .preVoteReply(let reply): reply.isGranted ? nil : reply.term
    case .vote(let request): request.term
    case .voteReply(let reply): reply.term
    case .append(let request): request.term
    case .appendReply(let reply): reply.term
    case .snapshot(let chunk): chunk.term
    case .snapshotReply(let reply): reply.term
    case .timeoutNow(let term): term
    }
  }

  var isPlausible: Bool {
    switch self {
    case .preVote(let request), .vote(let request):
      Self.isSmall(request.term.rawValue) && Self.isPlausible(request.last, at: request.term)
    case .preVoteReply(let reply), .voteReply(let reply): Self.isSmall(reply.term.rawValue)
    case .append(let request): Self.isPlausible(request)
    case .appendReply(let reply): Self.isPlausible(reply)
    case .snapshot(let chunk):
      Self.isSmall(chunk.term.rawValue) && Self.isSmall(chunk.offset) && chunk.last.index > .zero
        && Self.isPlausible(chunk.last, at: chunk.term)
    case .snapshotReply(let reply):
      Self.isSmall(reply.term.rawValue) && Self.isSmall(reply.last.rawValue)
        && Self.isSmall(reply.received)
    case .timeoutNow(let term): Self.isSmall(term.rawValue)
    }
  }

  private static func isPlausible(_ request: AppendRequest) -> Bool {
    guard
      isSmall(request.term.rawValue), isSmall(request.commit.rawValue), isSmall(request.round),
      request.term > .zero, isPlausible(request.previous, at: request.term)
    else { return false }
    var previous = request.previous
    for entry in request.entries {
      guard
        entry.index == previous.index.next, entry.term >= previous.term, entry.term > .zero,
        entry.term <= request.term
      else { return false }
      previous = entry.position
    }
    return true
  }

  private static func isPlausible(_ reply: AppendReply) -> Bool {
    guard isSmall(reply.term.rawValue), isSmall(reply.round) else { return false }
    return switch reply.outcome {
    case .accepted(let match, let verified): isSmall(verified.rawValue) && match <= verified
    case .rejected(let previous, let hint):
      isSmall(previous.rawValue) && isPlausible(hint, at: reply.term) && hint.index <= previous
    }
  }
}
