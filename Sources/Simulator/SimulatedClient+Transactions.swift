// Clients that settle what they hold and publish in one step (G10), as a worker does that takes a
// message, and hands on what comes of it.

import Base
import QueueMachine

extension SimulatedClient {
  /// What a transaction settles beside what it publishes.
  struct Transaction {
    /// The ledger's.
    let number: Int
    /// Who has the deliveries: a later session does not.
    let session: SessionID
    let kind: SettleKind
    let settles: [(consumer: ConsumerID, delivery: DeliveryID, held: Held)]
    /// The history says what became of the settlements.
    var isSettled = false
  }

  /// Settles a message, and perhaps more, together with what it publishes.
  func transact(_ consumer: ConsumerID, _ delivery: DeliveryID) {
    guard let session, let held = takeHeld(consumer, delivery) else { return }
    if simulation.isDraining || chunks.count >= plan.window {
      add(consumer, delivery, held, .acknowledge)
      return sendSettlements()
    }
    var settles = [(consumer: consumer, delivery: delivery, held: held)]
    for subscription in subscriptions {
      for other in subscription.held.keys.sorted()
      where settles.count < 4 && simulation.chance.permille(200) {
        guard let held = takeHeld(subscription.consumer, other) else { continue }
        settles.append((subscription.consumer, other, held))
      }
    }
    let kinds: [SettleKind] = [.negative, .reject, .release]
    let kind =
      simulation.chance.permille(700)
      ? SettleKind.acknowledge : simulation.chance.pick(kinds) ?? .acknowledge
    for settle in settles {
      mayComeTooLate(settle.consumer, settle.delivery)
      simulation.ledger.willSettle(
        settle.held.value, settle.held.delivered, kind, delay: nil, lease: .zero, error: "")
    }
    let before = simulation.ledger.counts
    var parts: [Part] = []
    var values: [Int] = []
    var run: [UInt8] = []
    for _ in 0..<simulation.chance.within(1...2) {
      let part = append(simulation.chance.within(1...2), to: drawTargets(), &values, &run)
      parts.append(part)
    }
    let number = simulation.ledger.newTransaction(
      publishing: values, settling: settles.map { ($0.held.value, $0.held.delivered) }, kind)
    var chunk = Chunk(
      first: nextSequence, parts: parts, values: values, run: run, before: before)
    chunk.transaction = Transaction(number: number, session: session, kind: kind, settles: settles)
    addChunk(chunk)
    sendChunks()
  }

  /// Any queue, or several of those that nobody's dead letters come to: what came there by two ways
  /// could not be told apart.
  private func drawTargets() -> [Int] {
    let all = simulation.plan.queues.indices
    if simulation.chance.flip() { return [simulation.chance.below(all.count)] }
    let others = all.filter {
      !simulation.plan.deadLetterQueues.contains($0) && simulation.chance.permille(700)
    }
    return others.isEmpty ? [simulation.chance.below(all.count)] : others
  }

  /// An answer to a transaction came.
  func conclude(_ place: Int, _ outcome: Ledger.Outcome) {
    guard let transaction = chunks[place].transaction else { return }
    simulation.ledger.transactionEnded(transaction.number, outcome)
    guard settle(place, outcome) else { return }
    if outcome == .confirmed {
      simulation.note(.transactions)
      if chunks[place].parts.contains(where: { $0.queues.count > 1 }) {
        simulation.note(.transactionsAcrossQueues)
      }
    } else {
      simulation.note(.transactionsRefused)
      // Nothing was done, so what is still held is settled by itself.
      for settle in transaction.settles where transaction.session == session {
        add(settle.consumer, settle.delivery, settle.held, .acknowledge)
      }
    }
  }

  /// Its session is over. It is sent again in the next, and has been carried out or never will be.
  func sessionEnded(for place: Int) { _ = settle(place, .unknown) }

  /// False if that was said before.
  private func settle(_ place: Int, _ outcome: Ledger.Outcome) -> Bool {
    guard let transaction = chunks[place].transaction, !transaction.isSettled else { return false }
    chunks[place].transaction?.isSettled = true
    for settle in transaction.settles {
      simulation.ledger.settled(
        settle.held.value, settle.held.delivered, transaction.kind, outcome)
    }
    return true
  }

  /// The request that publishes a chunk; nil while a queue is not known.
  func request(for chunk: Chunk, answeredThrough answered: PublishSequence) -> ClientRequest? {
    var parts: [TransactionPart] = []
    for part in chunk.parts {
      let queues = part.queues.compactMap { simulation.queueIDs[$0] }
      guard queues.count == part.queues.count else { return nil }
      parts.append(TransactionPart(queues: queues, count: part.count, runBytes: part.runBytes))
    }
    let first = PublishSequence(chunk.first)
    guard let transaction = chunk.transaction else {
      return .publish(
        first: first, answeredThrough: answered, parts[0].queues[0],
        count: UInt32(chunk.values.count), run: chunk.run)
    }
    let settles = transaction.settles.map {
      TransactionSettle(
        consumer: $0.consumer, kind: transaction.kind,
        ranges: [DeliveryRange(first: $0.delivery, last: $0.delivery)])
    }
    return .transact(
      first: first, answeredThrough: answered, holder: transaction.session, settles, parts,
      run: chunk.run)
  }
}
