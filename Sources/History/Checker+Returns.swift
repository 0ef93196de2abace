// The other part of `out-of-order` (G5): what is handed back goes to its own place, ahead of all that was
// published later.

/// A message that was released and came again, and waited in its queue in between.
struct ReturnedMessage {
  var message: UInt32
  /// The ok of its release, and of its publish.
  var release: EventPosition
  var confirm: EventPosition
  /// The next delivery.
  var next: EventPosition
}

/// First deliveries of messages without keys of one queue and priority, by the time of their grant.
private struct GrantedInTurn {
  struct Grant {
    var moment: UInt64
    var publish: EventPosition
    var delivery: EventPosition
  }
  private var grants: [Grant]
  /// A tree over them: each node has the place of the one that was published last of those under it.
  private var latest: [Int]

  init(_ unsorted: [Grant]) {
    grants = unsorted.sorted { ($0.moment, $0.delivery) < ($1.moment, $1.delivery) }
    latest = Array(repeating: 0, count: grants.count) + grants.indices
    for node in (1..<max(1, grants.count)).reversed() {
      latest[node] = later(latest[2 * node], latest[2 * node + 1])
    }
  }

  private func later(_ one: Int, _ other: Int) -> Int {
    grants[one].publish >= grants[other].publish ? one : other
  }

  /// Of those granted between two times, without these, the one that was published last.
  func lastPublished(after begin: UInt64, before end: UInt64) -> Grant? {
    var low = firstPlace(of: grants) { $0.moment > begin }
    var high = firstPlace(of: grants) { $0.moment >= end }
    guard low < high else { return nil }
    var best = low
    low += grants.count
    high += grants.count
    while low < high {
      if low & 1 == 1 {
        best = later(best, latest[low])
        low += 1
      }
      if high & 1 == 1 {
        high -= 1
        best = later(best, latest[high])
      }
      low /= 2
      high /= 2
    }
    return grants[best]
  }
}

extension Checker {
  /// Remembers the releases after which a message that was published once, at once and without a key can
  /// only have waited to be delivered.
  mutating func noteReturns(_ facts: MessageFacts) {
    guard facts.copies == 1, let publish = life.publishes.first, life.publishInvokes == 1,
      let confirm = life.firstConfirm, publishDue() == nil, life.reschedules.isEmpty,
      history.events[Int(publish)].key == Absent.reference, !hasTimeToLive(facts)
    else { return }
    for settlement in life.settlements
    where settlement.action == .release && settlement.outcome == .ok {
      guard let held = life.tokens.first(of: settlement.token),
        let next = life.tokens.next(after: settlement.token),
        hasWaited(facts, settlement, since: held, until: next)
      else { continue }
      returned.append(
        ReturnedMessage(
          message: facts.message, release: settlement.interval.end, confirm: confirm, next: next))
    }
  }

  /// Whether nobody can have had it unread meanwhile: what is released keeps its attempt, and a lease that
  /// runs out unread does not. Who left may have handed it back as it was.
  private func hasWaited(
    _ facts: MessageFacts, _ release: Settlement, since held: EventPosition,
    until next: EventPosition
  ) -> Bool {
    let (before, after) = (history.events[Int(held)], history.events[Int(next)])
    return before.level != Absent.reference && after.level == before.level
      && after.moment != Absent.number
      && life.regressed[before.token] == nil && life.regressed[after.token] == nil
      && !life.settlements(of: before.token).contains {
        $0.action != .release && $0.action != .extend
      }
      && !departures.mayHaveHappened(in: facts.queue, after: release.interval.begin, before: next)
      && !isRedriven(facts, after: facts.begin, before: next)
  }

  mutating func judgeReturns() {
    if returned.isEmpty { return }
    let groups = gatherGrantedInTurn()
    for one in returned {
      let publish = history.events[Int(firstPublishes[Int(one.message)])]
      let queue = history.messages[Int(one.message)].queue
      guard let group = groups[PairTable.pair(queue, publish.level)],
        let freed = momentAfter(one.release)
      else { continue }
      let granted = history.events[Int(one.next)].moment
      if let overtaking = group.lastPublished(after: freed, before: granted),
        overtaking.publish > one.confirm
      {
        report(.outOfOrder, one.message, at: one.next, related: overtaking.delivery)
      }
    }
  }

  private func gatherGrantedInTurn() -> [UInt64: GrantedInTurn] {
    var grants: [UInt64: [GrantedInTurn.Grant]] = [:]
    for (place, event) in history.events.enumerated()
    where event.marks.contains(.orderedDelivery) && event.moment != Absent.number
      && event.level == 1
    {
      let message = history.messages[Int(event.message)]
      let publish = history.events[Int(message.orderingPublish)]
      if publish.key != Absent.reference { continue }
      grants[PairTable.pair(message.queue, publish.level), default: []].append(
        GrantedInTurn.Grant(
          moment: event.moment, publish: message.orderingPublish, delivery: EventPosition(place)))
    }
    return grants.mapValues { GrantedInTurn($0) }
  }
}
