// How a client settles and extends what it holds: numbered, sent again until it is answered.

import Base
import History
import QueueMachine

extension SimulatedClient {
  /// A transaction settles it, which after a new attachment is sent first: an extension that was asked for
  /// before may come too late.
  func mayComeTooLate(_ consumer: ConsumerID, _ delivery: DeliveryID) {
    for place in settlements.indices
    where settlements[place].consumer == consumer && settlements[place].delivery == delivery {
      settlements[place].held.isAskedTwice = true
    }
  }

  func settle(_ consumer: ConsumerID, _ delivery: DeliveryID, _ kind: SettleKind?) {
    guard let place = subscriptions.firstIndex(where: { $0.consumer == consumer }),
      let held = subscriptions[place].held[delivery]
    else { return }
    if kind != nil {
      subscriptions[place].held[delivery] = nil
      if held.overruns, simulation.checks.newestClock >= held.delivered.leaseEnd {
        simulation.note(.leasesOverrun)
      }
    } else {
      simulation.note(.extends)
    }
    add(consumer, delivery, held, kind)
    // Now and then once more, as a worker does that lost track: it must be refused.
    if kind != nil, simulation.chance.permille(plan.settleTwice) {
      simulation.note(.settlesTwice)
      var again = held
      again.isAskedTwice = true
      add(consumer, delivery, again, simulation.chance.flip() ? kind : .acknowledge)
    }
    sendSettlements()
  }

  func add(
    _ consumer: ConsumerID, _ delivery: DeliveryID, _ held: Held, _ kind: SettleKind?
  ) {
    var delay: Nanoseconds?
    if kind == .negative, simulation.chance.permille(plan.ownDelay) {
      delay = .milliseconds(simulation.chance.skewed(0...8000))
    }
    let error =
      kind == .negative || kind == .reject ? "attempt \(held.delivered.attempt) failed" : ""
    let extension_ = Nanoseconds.milliseconds(simulation.chance.within(100...5000))
    if kind == nil, let place = subscriptions.firstIndex(where: { $0.consumer == consumer }) {
      let end = min(held.leaseEndAtLeast, simulation.checks.newestClock + extension_)
      subscriptions[place].held[delivery]?.leaseEndAtLeast = end
    }
    simulation.ledger.willSettle(
      held.value, held.delivered, kind, delay: delay, lease: extension_, error: error)
    settlements.append(
      Settlement(
        number: nextSettle, consumer: consumer, delivery: delivery, held: held, kind: kind,
        extension_: extension_, delay: delay, error: error))
    nextSettle += 1
  }

  func sendSettlements() {
    guard isAttached else { return }
    let answered = CommandSequence((settlements.first?.number ?? nextSettle) - 1)
    while sentSettlements < settlements.count {
      let settlement = settlements[sentSettlements]
      sentSettlements += 1
      let range = DeliveryRange(first: settlement.delivery, last: settlement.delivery)
      if let kind = settlement.kind {
        send(
          .settle(
            CommandSequence(settlement.number), answeredThrough: answered, kind,
            settlement.consumer, [range], delay: settlement.delay, error: settlement.error))
      } else {
        send(
          .extend(
            CommandSequence(settlement.number), answeredThrough: answered, settlement.consumer,
            [range], settlement.extension_))
      }
    }
  }

  func settled(_ through: UInt64) {
    while let settlement = settlements.first, settlement.number <= through {
      settlements.removeFirst()
      sentSettlements = max(0, sentSettlements - 1)
      simulation.ledger.settled(
        settlement.held.value, settlement.held.delivered, settlement.kind,
        settlement.isRefused ? .refused : .confirmed, lease: settlement.extension_,
        error: settlement.isRefused ? HistoryOperation.stale : nil)
      if settlement.isRefused { continue }
      switch settlement.kind {
      case .acknowledge: simulation.note(.acks)
      case .negative: simulation.note(.nacks)
      case .reject: simulation.note(.rejects)
      case .release: simulation.note(.releases)
      case nil: break
      }
    }
  }

  func settleRefused(
    _ number: UInt64, _ consumer: ConsumerID, _ range: DeliveryRange, _ refusal: Refusal
  ) {
    if refusal == .notLeader || refusal == .sessionNotFound { return leave(for: nil) }
    if refusal == .staleDelivery { simulation.note(.staleSettles) }
    if [.sequenceGap, .overloaded, .tooManyUnanswered].contains(refusal) {
      // Not now: its number is not used up, so all is sent again from there.
      sentSettlements = min(
        sentSettlements, settlements.firstIndex { $0.number >= number } ?? sentSettlements)
      return
    }
    if refusal != .staleDelivery {
      simulation.violated("G6", "\(self) may not settle what it was given: \(refusal)")
    }
    simulation.trace {
      "\(self) is refused settlement \(number) of deliveries \(range): \(refusal)"
    }
    for place in settlements.indices
    where settlements[place].number == number && settlements[place].consumer == consumer
      && range.first <= settlements[place].delivery && settlements[place].delivery <= range.last
    {
      settlements[place].isRefused = true
      simulation.ledger.taken(settlements[place].held, "G6", "is refused as stale")
    }
  }
}
