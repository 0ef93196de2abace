// What is known of a producer: the last number it published and the answers that it may still ask
// for again (G4). Answers are kept as runs, so that steady publishing costs no memory per message.

import Base

struct ProducerState: Sendable {
  /// Consecutive publishes that were answered alike.
  struct Run: Hashable, Sendable {
    var first: UInt64
    var count: UInt64
    /// The id of the first, those of the others follow; 0 if refused.
    var firstID: UInt64
    /// nil if stored.
    var refusal: Refusal?
    /// In how many queues each is stored: each has so many ids, one behind the other.
    var copies: UInt32 = 1

    var last: UInt64 { first + count - 1 }

    /// Whether `next` goes on where this one ends.
    func joins(_ next: Run) -> Bool {
      next.first == first + count && next.refusal == refusal
        && (refusal != nil || next.copies == copies && next.firstID == id(after: count))
    }

    /// The first id of the message `count` behind the first.
    private func id(after count: UInt64) -> UInt64 { firstID + count * UInt64(copies) }

    /// The part from `first` on, `count` long.
    func part(from first: UInt64, count: UInt64) -> Run {
      Run(
        first: first, count: count, firstID: refusal == nil ? id(after: first - self.first) : 0,
        refusal: refusal, copies: copies)
    }
  }

  var id = ProducerID(0)
  /// The live session that may publish; `none` while the producer is idle.
  var session = SessionID.none
  /// Drawn by the session that took it over last.
  var epoch = ProducerEpoch.none
  /// The one by which that session, or the last that went on with its epoch, was opened.
  var attempt = OpenAttempt.none
  /// The end of its last session; `never` while it has one.
  var idleSince = MachineTime.never
  /// The last number answered for good.
  var lastSequence: UInt64 = 0
  /// Answers to all numbers that are not forgotten: contiguous, up to `lastSequence`.
  private(set) var runs = RingBuffer<Run>()

  /// How many answers are kept.
  var unanswered: UInt64 { runs.first.map { lastSequence - $0.first + 1 } ?? 0 }

  mutating func forgetAnswers(through sequence: UInt64) {
    while let run = runs.first, run.first <= sequence {
      if run.last <= sequence {
        _ = runs.popFirst()
      } else {
        runs[0] = run.part(from: sequence + 1, count: run.last - sequence)
      }
    }
  }

  mutating func keepLastRun() {
    while runs.count > 1 { _ = runs.popFirst() }
  }

  /// Adds the answer to the numbers after `lastSequence`.
  mutating func answer(_ run: Run) {
    invariant(run.first == lastSequence + 1, "answer to \(run.first) after \(lastSequence)")
    if let last = runs.last, last.joins(run) {
      runs[runs.count - 1].count += run.count
    } else {
      runs.append(run)
    }
    lastSequence = run.last
  }

  /// Calls `body` with the answers to `count` known numbers from `first`: nil, with how many, for
  /// those that are forgotten.
  func answers(from first: UInt64, count: UInt64, _ body: (Run?, UInt64) -> Void) {
    var next = first
    let end = first + count
    let kept = runs.first?.first ?? lastSequence + 1
    if next < kept {
      let forgotten = min(end, kept) - next
      body(nil, forgotten)
      next += forgotten
    }
    var place = runPlace(of: next)
    while next < end {
      let run = runs[place]
      let part = min(end, run.first + run.count) - next
      body(run.part(from: next, count: part), part)
      next += part
      place += 1
    }
  }

  /// The place of the run with `sequence`, which is not forgotten.
  private func runPlace(of sequence: UInt64) -> Int {
    var low = 0
    var high = runs.count
    while low < high {
      let middle = (low + high) / 2
      if runs[middle].last < sequence { low = middle + 1 } else { high = middle }
    }
    return low
  }

  func outcome(of sequence: UInt64) -> PublishOutcome {
    if sequence == 0 || sequence > lastSequence { return .unseen }
    var outcome = PublishOutcome.answerForgotten
    answers(from: sequence, count: 1) { run, _ in
      if let run {
        outcome = run.refusal.map { .refused($0) } ?? .stored(MessageID(rawValue: run.firstID))
      }
    }
    return outcome
  }

  /// Puts back what a snapshot kept.
  mutating func restore(_ runs: RingBuffer<Run>) { self.runs = runs }
}
