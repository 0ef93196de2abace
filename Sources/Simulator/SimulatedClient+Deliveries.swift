// What comes to a client, and what its workers decide to do about it.

import Base
import QueueMachine

extension SimulatedClient {
  func take(_ messages: [DeliveredMessage], _ consumer: ConsumerID) {
    guard let place = subscriptions.firstIndex(where: { $0.consumer == consumer }), let session
    else { return }
    let incarnation = incarnation
    for message in messages {
      let delivery = message.delivery
      guard delivery.delivery > subscriptions[place].received else { continue }
      subscriptions[place].received = delivery.delivery
      guard let value = Self.value(of: message.record) else {
        simulation.violated("G11", "\(self) got bytes that nobody published, as \(delivery.id)")
        return
      }
      guard simulation.ledger.messages.indices.contains(value) else {
        simulation.violated(
          "G2", "message \(value) came as \(delivery.id) to \(self) and was never published")
        return
      }
      let delivered = Ledger.Delivered(
        queue: subscriptions[place].queue, token: delivery.token, id: delivery.id,
        attempt: delivery.attempt, granted: delivery.granted, leaseEnd: delivery.leaseEnd,
        holder: holder, session: session, isRedelivery: delivery.isRedelivery)
      if !simulation.ledger.messages[value].published.queues.contains(delivered.queue) {
        noteDeadLetter(value, delivery.id, delivered.queue)
      }
      subscriptions[place].held[delivery.delivery] = Held(
        value: value, delivered: delivered, node: connection?.node ?? 0)
      simulation.ledger.delivered(value, delivered)
      decide(consumer, delivery.delivery, session)
      // It may have died of this one; what came with it is not the next process's.
      if incarnation != self.incarnation { return }
    }
  }

  /// Why it was given up, by the one that says so.
  private func noteDeadLetter(_ value: Int, _ id: MessageID, _ queue: Int) {
    guard let leader = simulation.leader, let queueID = simulation.queueIDs[queue],
      let message = leader.replica.machine.biography(of: id, in: queueID)?.message
    else { return }
    simulation.note(.deadLettersRead)
    guard let letter = message.deadLetter else {
      return simulation.violated(
        "G8",
        "message \(value) came as \(id) of \(simulation.plan.queues[queue].name), and nothing says why"
      )
    }
    simulation.ledger.deadLetters.append(
      Ledger.DeadLetter(value: value, queue: queue, note: letter))
    switch letter.reason {
    case .expired: simulation.note(.expiredDeadLetters)
    case .overflowed: simulation.note(.overflowedDeadLetters)
    default: break
    }
  }

  /// The message's number, if its bytes are the ones that were published under it.
  static func value(of record: [UInt8]) -> Int? {
    let body = record.withUnsafeBytes { try? MessageRecord.parts(of: $0).body }
    guard let body, body.count >= 8 else { return nil }
    let value = body.withUnsafeBytes {
      Int(truncatingIfNeeded: UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)))
    }
    return value >= 0 && body == self.body(value, body.count - 8) ? value : nil
  }

  /// What becomes of a message that came.
  private func decide(_ consumer: ConsumerID, _ delivery: DeliveryID, _ session: SessionID) {
    let work = simulation.chance.within(plan.workTime)
    if plan.hang > 0, !simulation.isDraining, simulation.laterChance.permille(plan.hang) { hang() }
    if simulation.isDraining {
      simulation.note(.drainedMessages)
      act(
        .settle(session: session, consumer, delivery, .acknowledge),
        after: .milliseconds(simulation.chance.within(1...20)))
      return
    }
    var share = simulation.chance.below(1000)
    func isNext(_ part: Int) -> Bool {
      share -= part
      return share < 0
    }
    if isNext(plan.crash) { return die() }
    var kind = SettleKind.acknowledge
    var time = work
    if isNext(plan.nack) {
      kind = .negative
    } else if isNext(plan.reject) {
      kind = .reject
    } else if isNext(plan.release) {
      kind = .release
    } else if isNext(plan.extend) {
      act(.extend(session: session, consumer, delivery), after: work / 2)
      time = work + .seconds(1)
    } else if isNext(plan.transact) {
      // At times too late, when nothing of it may happen any more.
      let late = UInt64.seconds(simulation.chance.permille(100) ? 8 : 0)
      return act(.transact(session: session, consumer, delivery), after: work + late)
    } else if isNext(plan.overrun) {
      // Long beyond any lease, then as if nothing had been.
      time = .seconds(simulation.chance.within(4...12))
      overrun(consumer, delivery)
    }
    act(.settle(session: session, consumer, delivery, kind), after: time)
  }

  private func overrun(_ consumer: ConsumerID, _ delivery: DeliveryID) {
    guard let place = subscriptions.firstIndex(where: { $0.consumer == consumer }) else { return }
    subscriptions[place].held[delivery]?.overruns = true
  }

  /// What it holds under these numbers, from now on no longer.
  func takeHeld(_ consumer: ConsumerID, _ delivery: DeliveryID) -> Held? {
    guard let place = subscriptions.firstIndex(where: { $0.consumer == consumer }) else {
      return nil
    }
    return subscriptions[place].held.removeValue(forKey: delivery)
  }
}
