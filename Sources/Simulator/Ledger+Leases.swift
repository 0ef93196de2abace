// What the cluster says no to, or takes back, and whether it may: a lease ends by its time, by a settlement
// or with its session, and by nothing else (G6, G7); a queue is full only if so many messages can be in
// it (G13).

import Base
import QueueMachine

extension Ledger {
  /// How many messages of each queue are known to be gone for good.
  struct Counts {
    var made: [Int]
    var gone: [Int]

    init(queues: Int) {
      made = Array(repeating: 0, count: queues)
      gone = made
    }
  }

  // MARK: Leases

  /// Nobody else gets a message before whoever had it settled it, held it too long or went away. Of two
  /// deliveries the later may have come first.
  func judgeLeases(_ value: Int, _ new: Delivered) {
    for old in messages[value].deliveries
    where old.queue == new.queue && old.id == new.id && old.token != new.token {
      let (first, second) = old.token < new.token ? (old, new) : (new, old)
      guard !first.isSettled, second.granted < first.leaseEnd,
        !simulation.checks.sessions.isOver(first.session)
      else { continue }
      simulation.violated(
        "G6",
        "message \(value): token \(second.token) was granted at \(second.granted), and \(first.holder)"
          + " held it by token \(first.token) until \(first.leaseEnd) and had not settled it")
    }
  }

  /// It is about to be settled or extended: from now on it may be taken from its holder.
  func noteSettled(_ value: Int, _ delivery: Delivered) {
    let place = messages[value].deliveries.firstIndex {
      $0.token == delivery.token && $0.queue == delivery.queue
    }
    if let place { messages[value].deliveries[place].isSettled = true }
  }

  /// The cluster says that a session which is still there does not hold this.
  func taken(_ held: SimulatedClient.Held, _ rule: String, _ reason: @autoclosure () -> String) {
    let newest = simulation.checks.newestClock
    guard !held.isAskedTwice, newest < held.leaseEndAtLeast,
      !simulation.checks.sessions.isOver(held.delivered.session)
    else { return }
    simulation.violated(
      rule,
      "message \(held.value), token \(held.delivered.token) of \(held.delivered.holder), \(reason()) at"
        + " \(newest) at the latest: its lease lasts until \(held.leaseEndAtLeast), and its session goes on"
    )
  }

  // MARK: Full queues

  func made(_ published: Published) { for queue in published.queues { counts.made[queue] += 1 } }

  func gone(_ value: Int, from queue: Int) {
    if messages[value].published.queues.contains(queue) { counts.gone[queue] += 1 }
  }

  /// - Parameter before: the counts when it was first asked for.
  func refusedForLength(_ queues: [Int], since before: Counts) {
    let canBeFull = queues.contains { queue in
      let settings = simulation.plan.queues[queue].settings
      let most = counts.made[queue] - before.gone[queue]
      return settings.lengthMax > 0 && settings.overflow == .reject
        && most > Int(clamping: settings.lengthMax)
    }
    if canBeFull { return }
    let names = queues.map { simulation.plan.queues[$0].name }.joined(separator: ", ")
    simulation.violated(
      "G13", "a publish to \(names) is refused for want of room, and there is some")
  }
}
