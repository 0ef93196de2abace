// Noticing that answers have stopped coming, whatever goes on being sent meanwhile.

struct AnswerWatch {
  /// How long something may be unanswered with no answer coming.
  let limit: Duration
  private var sent = 0
  private var answered = 0
  /// When the last answer came, or the oldest unanswered was sent, whichever is later; nil while
  /// nothing is unanswered.
  private var since: ContinuousClock.Instant?

  init(limit: Duration) { self.limit = limit }

  /// When it is too late; nil while nothing is unanswered.
  var due: ContinuousClock.Instant? { since.map { $0 + limit } }

  mutating func noteSent(at now: ContinuousClock.Instant) {
    sent += 1
    // An answer may be noted before its sending is.
    if sent > answered, since == nil { since = now }
  }

  mutating func noteAnswered(_ count: Int, at now: ContinuousClock.Instant) {
    answered += count
    since = sent > answered ? now : nil
  }
}
