// Transactions (G10): both halves of each are watched for what shows that it happened, and for what
// shows that it did not.

import Base
import History
import QueueMachine

extension Ledger {
  struct Transaction {
    let values: [Int]
    let settled: [(value: Int, delivered: Delivered)]
    /// What it settles never comes again under its id.
    let isFinal: Bool
    /// What shows that it was carried out.
    var happened: String?
    /// What shows that it was not.
    var failed: String?
  }

  /// - Returns: its number.
  func newTransaction(
    publishing values: [Int], settling settled: [(value: Int, delivered: Delivered)],
    _ kind: SettleKind
  ) -> Int {
    let number = transactions.count
    for value in values { messages[value].publishedBy = number }
    for (value, _) in settled { messages[value].settledBy.append(number) }
    transactions.append(
      Transaction(
        values: values, settled: settled, isFinal: kind == .acknowledge || kind == .reject))
    return number
  }

  func transactionEnded(_ number: Int, _ outcome: Outcome) {
    switch outcome {
    case .confirmed: show(number, happened: "it was confirmed")
    case .refused: show(number, failed: "it was refused")
    case .unknown: break
    }
  }

  /// What a delivery says of the transactions that published or settled the message.
  func judgeTransactions(_ value: Int, _ new: Delivered) {
    if let number = messages[value].publishedBy {
      show(number, happened: "message \(value) came out")
    }
    for number in messages[value].settledBy where transactions[number].isFinal {
      let cameAgain = transactions[number].settled.contains {
        $0.value == value && $0.delivered.queue == new.queue && $0.delivered.id == new.id
          && $0.delivered.token < new.token
      }
      if cameAgain { show(number, failed: "message \(value) came again as token \(new.token)") }
    }
  }

  private func show(_ number: Int, happened: String? = nil, failed: String? = nil) {
    if transactions[number].happened == nil { transactions[number].happened = happened }
    if transactions[number].failed == nil { transactions[number].failed = failed }
    if let happened = transactions[number].happened, let failed = transactions[number].failed {
      simulation.violated("G10", "half of transaction \(number): \(happened), and \(failed)")
    }
  }

  /// All was drained: of what a transaction published everything came out, or nothing.
  func judgeWholeTransactions() {
    for (number, transaction) in transactions.enumerated() {
      guard let happened = transaction.happened else { continue }
      for value in transaction.values {
        for queue in messages[value].published.queues
        where !mayVanish(value, from: queue) && !hasComeOut(value, of: queue) {
          simulation.violated(
            "G10",
            "half of transaction \(number): \(happened), and message \(value) never came out of"
              + " \(simulation.plan.queues[queue].name)")
        }
      }
    }
  }

  /// From the queue or from where its dead letters go.
  private func hasComeOut(_ value: Int, of queue: Int) -> Bool {
    let deadLetters = simulation.plan.queues[queue].settings.deadLetterQueue
    return messages[value].deliveries.contains {
      $0.queue == queue || simulation.plan.queues[$0.queue].name == deadLetters
    }
  }

  private func mayVanish(_ value: Int, from queue: Int) -> Bool {
    let settings = simulation.plan.queues[queue].settings
    return mayBePurged(from: queue) || messages[value].published.timeToLive != nil
      || settings.timeToLive != .zero || settings.overflow == .dropOldest
  }
}
