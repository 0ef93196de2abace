// What the cluster tells a client of its leases: which have lapsed, which are there after a new
// attachment.

import Base
import QueueMachine

extension SimulatedClient {
  /// A worker that overran goes on and finds out when it settles; but it must have overrun.
  func lapsed(_ consumer: ConsumerID, _ ranges: [DeliveryRange]) {
    simulation.note(.leasesLapsed)
    for held in everythingHeld(by: consumer)
    where ranges.contains(where: { $0.first <= held.delivery && held.delivery <= $0.last }) {
      simulation.ledger.taken(held.held, "G6", "has lapsed")
    }
  }

  /// In hands, or on its way back.
  private func everythingHeld(by consumer: ConsumerID) -> [(delivery: DeliveryID, held: Held)] {
    var all: [(delivery: DeliveryID, held: Held)] = []
    for subscription in subscriptions where subscription.consumer == consumer {
      for delivery in subscription.held.keys.sorted() {
        if let held = subscription.held[delivery] { all.append((delivery, held)) }
      }
    }
    // Whoever extends goes on holding.
    for settlement in settlements where settlement.consumer == consumer && settlement.kind != nil {
      all.append((settlement.delivery, settlement.held))
    }
    for chunk in chunks {
      guard let transaction = chunk.transaction, transaction.session == session else { continue }
      for settle in transaction.settles where settle.consumer == consumer {
        all.append((settle.delivery, settle.held))
      }
    }
    return all
  }

  /// After an attachment: what else this client has of the consumer has lapsed.
  func holding(
    _ consumer: ConsumerID, _ through: DeliveryID, _ ranges: [DeliveryRange]
  ) {
    guard let place = subscriptions.firstIndex(where: { $0.consumer == consumer }) else { return }
    for delivery in subscriptions[place].held.keys.sorted() where delivery <= through {
      let isHeld = ranges.contains { $0.first <= delivery && delivery <= $0.last }
      if isHeld {
        noteLeader(of: delivery, at: place)
      } else if let held = subscriptions[place].held.removeValue(forKey: delivery) {
        simulation.ledger.taken(held, "G7", "is not held any more after a new attachment")
      }
    }
  }

  /// A lease that is still there where the session is attached now: another node leads than before?
  private func noteLeader(of delivery: DeliveryID, at place: Int) {
    guard let node = connection?.node, var held = subscriptions[place].held[delivery],
      held.node != node
    else { return }
    held.node = node
    held.leaderChanges += 1
    subscriptions[place].held[delivery] = held
    switch held.leaderChanges {
    case 1: simulation.note(.leasesSurvivingLeaderChange)
    case 2: simulation.note(.leasesSurvivingTwoLeaderChanges)
    default: break
    }
  }
}
