// What is kept with a message that was given up: why, after how many attempts, and the last error (G8). It is
// compared with what the clients asked for and were told. They may have missed a delivery, but what the queue
// itself says of one is known.

import Base
import QueueMachine

extension Ledger {
  /// A settlement that counts as a failed attempt, as a client asked for it.
  struct AskedFailure {
    let queue: Int
    let token: FencingToken
    let kind: SettleKind
    /// Empty in a transaction.
    let error: String
    var isConfirmed = false
  }

  /// A message that came from a dead-letter queue, with what was kept of its death.
  struct DeadLetter {
    let value: Int
    let queue: Int
    let note: DeadLetterNote
  }

  /// What the queue says of an attempt that no client failed.
  private static let ownErrors = ["lease ran out", "consumer is gone"]

  func noteFailure(
    _ value: Int, _ delivery: Delivered, _ kind: SettleKind?, error: String
  ) {
    guard let kind, kind == .negative || kind == .reject else { return }
    messages[value].failures.append(
      AskedFailure(queue: delivery.queue, token: delivery.token, kind: kind, error: error))
  }

  func failureConfirmed(_ value: Int, _ delivery: Delivered, _ kind: SettleKind?) {
    for place in messages[value].failures.indices
    where messages[value].failures[place].token == delivery.token
      && messages[value].failures[place].queue == delivery.queue
      && messages[value].failures[place].kind == kind
    {
      messages[value].failures[place].isConfirmed = true
    }
  }

  /// All answers are there: what was kept with the dead must be what happened to them.
  func judgeDeadLetters() {
    for letter in deadLetters {
      guard let fault = fault(of: letter) else { continue }
      let note = letter.note
      simulation.violated(
        "G8",
        "message \(letter.value) in \(simulation.plan.queues[letter.queue].name) was given up"
          + " (\(note.reason)) as \(note.originID) of \(note.originQueue) after \(note.attempts)"
          + " attempts, the last error \"\(note.lastError)\": \(fault)")
    }
  }

  /// What is wrong with it; nil if nothing is known to be.
  func fault(of letter: DeadLetter) -> String? {
    let note = letter.note
    let message = messages[letter.value]
    guard
      let origin = message.published.queues.first(where: {
        simulation.plan.queues[$0].name == note.originQueue
      }),
      simulation.plan.queues[origin].settings.deadLetterQueue
        == simulation.plan.queues[letter.queue].name
    else { return "it was never in a queue whose dead letters come here" }
    let id = message.confirmed.map {
      $0.rawValue + UInt64(message.published.queues.firstIndex(of: origin) ?? 0)
    }
    if let id, !hasRedriven, note.originID.rawValue != id {
      return "there it was \(MessageID(rawValue: id))"
    }
    let seen = message.deliveries.filter { $0.queue == origin && $0.id == note.originID }
    let history = History(note, seen, message.failures.filter { $0.queue == origin })
    return history.faultOfAttempts(
      deliveriesMax: simulation.plan.queues[origin].settings.deliveriesMax)
      ?? history.faultOfError
  }

  /// One message in the queue that gave it up.
  private struct History {
    let note: DeadLetterNote
    let seen: [Delivered]
    /// Of these deliveries, with the attempt.
    private var asked: [(attempt: UInt32, failure: AskedFailure)] = []

    init(_ note: DeadLetterNote, _ seen: [Delivered], _ failures: [AskedFailure]) {
      self.note = note
      self.seen = seen
      for delivery in seen {
        for failure in failures where failure.token == delivery.token {
          asked.append((delivery.attempt, failure))
        }
      }
    }

    /// The attempt may have been failed by somebody who said no error.
    private func mayBeSilent(_ attempt: UInt32) -> Bool {
      asked.contains { $0.attempt == attempt && $0.failure.error.isEmpty }
    }

    func faultOfAttempts(deliveriesMax: UInt32) -> String? {
      let most = seen.map(\.attempt).max() ?? 0
      let failed = asked.filter(\.failure.isConfirmed).map(\.attempt).max() ?? 0
      if note.attempts < max(failed, most == 0 ? 0 : most - 1) {
        return "attempt \(most) was seen, and attempt \(failed) failed"
      }
      switch note.reason {
      case .deliveriesExhausted:
        if deliveriesMax == 0 || note.attempts != deliveriesMax {
          return "it may be tried \(deliveriesMax) times"
        }
      case .rejected:
        let isAsked = asked.contains {
          $0.attempt == note.attempts && $0.failure.kind == .reject
        }
        if !isAsked { return "nobody rejected that attempt" }
      case .expired, .overflowed:
        if deliveriesMax > 0, note.attempts >= deliveriesMax {
          return "it may be tried \(deliveriesMax) times"
        }
      }
      if note.reason != .rejected,
        asked.contains(where: { $0.failure.isConfirmed && $0.failure.kind == .reject })
      {
        return "it was rejected"
      }
      return nil
    }

    var faultOfError: String? {
      let said = asked.filter(\.failure.isConfirmed).filter { !$0.failure.error.isEmpty }
      if let last = said.first(where: { $0.attempt == note.attempts }),
        last.failure.error != note.lastError
      {
        return "its last error was \"\(last.failure.error)\""
      }
      // The attempt that the error is of; those after it failed without one.
      var attempt = note.attempts
      while attempt > 0 {
        if asked.contains(where: { $0.attempt == attempt && $0.failure.error == note.lastError }),
          !note.lastError.isEmpty
        {
          return nil
        }
        // What the queue says is of one that nobody failed, or whose failure came too late.
        if Ledger.ownErrors.contains(note.lastError),
          !said.contains(where: { $0.attempt == attempt })
        {
          return nil
        }
        guard mayBeSilent(attempt) else { return "nobody said so of attempt \(attempt)" }
        attempt -= 1
      }
      return note.lastError.isEmpty ? nil : "nobody said so"
    }
  }
}
