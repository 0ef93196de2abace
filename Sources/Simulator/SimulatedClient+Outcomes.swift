// What became of a publish, by the answers that a client got and by asking whoever leads: it is the same
// for ever, and not forgotten before the client has said that it knows (G4).

import Base
import QueueMachine

extension SimulatedClient {
  /// Answers are remembered for so many publishes that are answered.
  private static let outcomesKept: UInt64 = 16

  /// The first publish whose answer it has not, or has not used up.
  private var firstUnanswered: UInt64 { chunks.first?.first ?? nextSequence }

  /// It was told for good.
  func heard(_ outcome: PublishOutcome, of sequence: UInt64) {
    if let known = outcomes[sequence], known != outcome {
      simulation.violated(
        "G4", "\(self): publish \(sequence) was \(known), and is \(outcome) now")
    }
    outcomes[sequence] = outcome
  }

  /// Asks of publishes, and of an earlier one whose answer was used up by now.
  func askOutcomes(of sequences: Range<UInt64>) {
    guard let leader = simulation.leader, let first = sequences.first else { return }
    let earlier = first > 8 && outcomes[first - 8] != nil ? [first - 8] : []
    for sequence in earlier + sequences {
      simulation.note(.outcomesAsked)
      let outcome = leader.replica.machine.outcome(
        of: PublishSequence(sequence), by: ProducerID(UInt64(process)))
      judge(outcome, of: sequence, appliedThrough: leader.replica.applied)
    }
  }

  /// - Parameter applied: who says so has applied all entries through this one.
  func judge(
    _ outcome: PublishOutcome, of sequence: UInt64, appliedThrough applied: LogIndex
  ) {
    switch outcome {
    case .stored, .refused: heard(outcome, of: sequence)
    case .answerForgotten:
      if sequence >= firstUnanswered {
        simulation.violated(
          "G4", "\(self): what became of publish \(sequence) is forgotten before it knows")
      }
    case .unseen:
      guard case .stored(let id)? = outcomes[sequence], applied >= id.entry, let session,
        !simulation.checks.sessions.isOver(session)
      else { return }
      simulation.violated(
        "G4", "\(self): publish \(sequence) was stored as \(id), and nothing is known of it")
    }
  }

  func forgetOutcomes() {
    let first = firstUnanswered
    if outcomes.count < 2 * Self.outcomesKept { return }
    outcomes = outcomes.filter { $0.key + Self.outcomesKept >= first }
  }
}
