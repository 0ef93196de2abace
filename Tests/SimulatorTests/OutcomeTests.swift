// What was kept of dead letters (G8) and what became of publishes (G4): wrong answers are seen.

import Base
import TestSupport
import Testing

@testable import QueueMachine
@testable import Simulator

/// Reason, attempts and last error of what was given up (G8).
@Suite struct DeadLetterTests {
  private let simulation: Simulation
  private let origin: Int
  private let dead: Int
  private let max: UInt32
  private let message: Int

  /// A queue that gives up after at least two attempts, with a message in it.
  init() throws {
    for seed in UInt64(1)...200 {
      let simulation = Simulation(seed: seed, without: PlanCut())
      let queues = simulation.plan.queues
      guard let origin = queues.firstIndex(where: { $0.settings.deliveriesMax > 2 }),
        let dead = queues.firstIndex(where: { $0.name == queues[origin].settings.deadLetterQueue })
      else { continue }
      self.simulation = simulation
      (self.origin, self.dead) = (origin, dead)
      max = queues[origin].settings.deliveriesMax
      message = simulation.ledger.newMessage(Ledger.Published(queue: origin, process: 1))
      simulation.ledger.confirmed(message, MessageID(rawValue: 70))
      return
    }
    throw NoSuchPlan()
  }

  private struct NoSuchPlan: Error {}

  private func delivered(_ attempt: UInt32) -> Ledger.Delivered {
    Ledger.Delivered(
      queue: origin, token: FencingToken(UInt64(attempt)), id: MessageID(rawValue: 70),
      attempt: attempt, granted: MachineTime(UInt64(attempt) * 10),
      leaseEnd: MachineTime(UInt64(attempt) * 10 + 10), holder: "c1.0", session: SessionID(1),
      isRedelivery: attempt > 1)
  }

  /// An attempt that a client saw, and failed or left alone.
  private func attempt(
    _ number: UInt32, _ kind: SettleKind? = nil, isConfirmed: Bool = true, isSilent: Bool = false
  ) {
    let delivered = delivered(number)
    simulation.ledger.delivered(message, delivered)
    guard let kind else { return }
    simulation.ledger.willSettle(
      message, delivered, kind, delay: nil, lease: .zero, error: isSilent ? "" : error(number))
    simulation.ledger.settled(message, delivered, kind, isConfirmed ? .confirmed : .unknown)
  }

  private func error(_ attempt: UInt32) -> String { "attempt \(attempt) failed" }

  private func fault(
    _ reason: DeadLetterReason, _ attempts: UInt32, _ error: String, id: UInt64 = 70,
    from queue: Int? = nil
  ) -> String? {
    let note = DeadLetterNote(
      reason: reason, originQueue: simulation.plan.queues[queue ?? origin].name,
      originID: MessageID(rawValue: id), attempts: attempts, lastError: error, firstTime: .zero,
      time: .zero)
    return simulation.ledger.fault(
      of: Ledger.DeadLetter(value: message, queue: dead, note: note))
  }

  @Test func whatFailedToTheLastSaysSo() {
    for number in 1...max { attempt(number, .negative) }
    #expect(fault(.deliveriesExhausted, max, error(max)) == nil)
    #expect(fault(.deliveriesExhausted, max - 1, error(max - 1)) != nil)
    #expect(fault(.deliveriesExhausted, max, error(max - 1)) != nil)
    #expect(fault(.deliveriesExhausted, max, "") != nil)
    #expect(fault(.deliveriesExhausted, max, "lease ran out") != nil)
    #expect(fault(.rejected, max, error(max)) != nil)
    #expect(fault(.expired, max, error(max)) != nil)
    #expect(fault(.deliveriesExhausted, max, error(max), id: 71) != nil)
    #expect(fault(.deliveriesExhausted, max, error(max), from: dead) != nil)
  }

  @Test func whatIsFoundIsAViolation() {
    attempt(1, .reject)
    let note = DeadLetterNote(
      reason: .rejected, originQueue: simulation.plan.queues[origin].name,
      originID: MessageID(rawValue: 70), attempts: 1, lastError: "", firstTime: .zero, time: .zero)
    simulation.ledger.deadLetters = [Ledger.DeadLetter(value: message, queue: dead, note: note)]
    simulation.ledger.judgeDeadLetters()
    #expect(simulation.violation?.rule == "G8")
  }

  @Test func whatWasRejectedSaysSo() {
    attempt(1)
    attempt(2, .reject)
    #expect(fault(.rejected, 2, error(2)) == nil)
    #expect(fault(.rejected, 1, error(2)) != nil)
    #expect(fault(.rejected, 2, "lease ran out") != nil)
    #expect(fault(.expired, 2, error(2)) != nil)
  }

  @Test func whoseAnswerIsUnknownMayHaveComeTooLate() {
    for number in 1...max { attempt(number, .negative, isConfirmed: false) }
    #expect(fault(.deliveriesExhausted, max, error(max)) == nil)
    #expect(fault(.deliveriesExhausted, max, "lease ran out") == nil)
    #expect(fault(.deliveriesExhausted, max, "consumer is gone") == nil)
    #expect(fault(.deliveriesExhausted, max, error(max - 1)) != nil)
    #expect(fault(.deliveriesExhausted, max, "who knows") != nil)
  }

  /// A transaction says no error: the one before is the last.
  @Test func whatFailedWithoutAWordKeepsTheErrorBefore() {
    attempt(1, .negative)
    attempt(2, .reject, isSilent: true)
    #expect(fault(.rejected, 2, error(1)) == nil)
    #expect(fault(.rejected, 2, "") != nil)
    #expect(fault(.rejected, 2, error(2)) != nil)
  }

  @Test func whatNobodyHadIsTooOldWithoutAnError() {
    #expect(fault(.expired, 0, "") == nil)
    #expect(fault(.overflowed, 0, "") == nil)
    #expect(fault(.expired, 0, "lease ran out") != nil)
    #expect(fault(.expired, 1, "") != nil)
    attempt(1, .negative)
    #expect(fault(.expired, 0, "") != nil)
    #expect(fault(.expired, 1, error(1)) == nil)
  }
}

/// What became of a publish is the same for ever (G4).
@Suite(.ownThreads) struct PublishOutcomeTests {
  private let simulation: Simulation
  private let client: SimulatedClient
  private let id = MessageID(rawValue: 1 << 20)

  init() throws {
    simulation = try SessionWatchTests.running()
    client = try #require(simulation.clients.first { $0.session != nil })
    client.outcomes = [:]
  }

  private func judge(_ outcome: PublishOutcome, of sequence: UInt64) {
    client.judge(outcome, of: sequence, appliedThrough: LogIndex(.max))
  }

  @Test func itStaysWhatItWas() {
    client.heard(.stored(id), of: 1)
    judge(.stored(id), of: 1)
    // Answered and used up.
    judge(.answerForgotten, of: 0)
    judge(.unseen, of: 2)
    #expect(simulation.violation == nil)
  }

  @Test func anotherIDIsSeen() {
    client.heard(.stored(id), of: 1)
    judge(.stored(MessageID(rawValue: id.rawValue + 1)), of: 1)
    #expect(simulation.violation?.rule == "G4")
  }

  @Test func aRefusalOfWhatWasStoredIsSeen() {
    judge(.stored(id), of: 1)
    client.heard(.refused(.queueFull), of: 1)
    #expect(simulation.violation?.rule == "G4")
  }

  @Test func whatIsForgottenTooSoonIsSeen() {
    judge(.answerForgotten, of: client.nextSequence)
    #expect(simulation.violation?.rule == "G4")
  }

  @Test func whatIsForgottenWhollyIsSeen() {
    client.heard(.stored(id), of: 1)
    judge(.unseen, of: 1)
    #expect(simulation.violation?.rule == "G4")
  }
}
