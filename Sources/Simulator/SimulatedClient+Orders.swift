// What a client asks for beside publishing and settling: it changes its mind about what it published,
// redrives, purges, changes its credit.

import Base
import QueueMachine

extension SimulatedClient {
  /// What was published may be called off, or put off.
  func changeMind(about value: Int, _ id: MessageID) {
    if simulation.isDraining { return }
    let published = simulation.ledger.messages[value].published
    let queue = simulation.plan.queues[published.queue].name
    if simulation.chance.permille(plan.cancel) {
      let number = order(.cancel(value))
      simulation.ledger.willCancel(value)
      send(.cancel(number, queue: queue, id))
    } else if let delay = published.delay, simulation.chance.permille(plan.reschedule) {
      // To later only, and only where order and the first due time say nothing any more.
      let longer = Nanoseconds(
        delay.rawValue + .milliseconds(simulation.chance.skewed(0...5000)))
      let number = order(.reschedule(value))
      simulation.ledger.willReschedule(value, delay: longer)
      send(.reschedule(number, queue: queue, id, longer))
    }
  }

  private func order(_ order: Order) -> RequestNumber {
    let number = request()
    orders.append((number, order))
    return number
  }

  func giveOrders() {
    guard isAttached else { return }
    if simulation.chance.permille(plan.redrive),
      let queue = simulation.chance.pick(simulation.plan.deadLetterQueues)
    {
      simulation.ledger.willRedrive(queue, by: process)
      send(.redrive(order(.redrive(queue)), queue: simulation.plan.queues[queue].name))
    }
    if simulation.chance.permille(plan.purge) {
      let queue = simulation.chance.below(simulation.plan.queues.count)
      simulation.ledger.willPurge(queue, by: process)
      send(.purge(order(.purge(queue)), queue: simulation.plan.queues[queue].name))
    }
    if simulation.chance.permille(plan.changeCredit),
      let consumer = subscriptions.first(where: \.isSubscribed)?.consumer
    {
      let credit = simulation.chance.flip() ? plan.credit : simulation.chance.below(plan.credit * 2)
      send(.setCredit(order(.setCredit), consumer, UInt32(credit)))
    }
  }

  // MARK: Refusals

  /// What is asked for is there and allowed: only the cluster's state of the moment speaks against it, or,
  /// where it is about one message, what became of that.
  func judge(_ refusal: Refusal, of order: Order) {
    switch order {
    case .cancel(let value), .reschedule(let value):
      let isTrue = [.messageGone, .messageLeased, .messageElsewhere].contains(refusal)
      judge(refusal, of: "an order about message \(value)", isTrue: isTrue)
      if refusal == .messageGone { simulation.ledger.saidToBeGone(value) }
    case .redrive: judge(refusal, of: "a redrive", isTrue: false)
    case .purge: judge(refusal, of: "a purge", isTrue: false)
    case .setCredit: judge(refusal, of: "other credit", isTrue: false)
    }
  }

  func judge(_ refusal: Refusal, of what: String, isTrue: Bool) {
    if isTrue || [.notLeader, .sessionNotFound, .overloaded].contains(refusal) { return }
    simulation.violated("answers are true", "\(self) is refused \(what): \(refusal)")
  }

  func finish(_ order: Order, _ outcome: Ledger.Outcome) {
    let isDone = outcome == .confirmed
    switch order {
    case .cancel(let value):
      if isDone { simulation.note(.cancels) }
      simulation.ledger.cancelled(value, outcome)
    case .reschedule(let value):
      if isDone { simulation.note(.reschedules) }
      simulation.ledger.rescheduled(value, outcome)
    case .redrive(let queue):
      if isDone { simulation.note(.redrives) }
      simulation.ledger.redriven(queue, by: process, outcome)
    case .purge(let queue):
      if isDone { simulation.note(.purges) }
      simulation.ledger.purged(queue, by: process, outcome)
    case .setCredit: if isDone { simulation.note(.creditChanges) }
    }
  }

  func done(_ request: RequestNumber) {
    if let place = orders.firstIndex(where: { $0.request == request }) {
      finish(orders.remove(at: place).order, .confirmed)
      return
    }
    guard let place = subscriptions.firstIndex(where: { $0.request == request }) else { return }
    subscriptions[place].request = nil
    subscriptions[place].isSubscribed = true
  }
}
