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

/// Deliveries of messages without keys of one queue and priority, by the time of their grant.
private struct GrantedInTurn {
  struct Grant {
    var moment: UInt64
    /// The first publish of the message.
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
  /// Remembers after what a message that was published once, at once and without a key can only have waited
  /// to be delivered: a release, or a nack that asks for no wait.
  mutating func noteReturns(_ facts: MessageFacts) {
    guard facts.copies == 1, let publish = life.publishes.first, life.publishInvokes == 1,
      let confirm = life.firstConfirm, publishDue() == nil, life.reschedules.isEmpty,
      history.events[Int(publish)].key == Absent.reference, !hasTimeToLive(facts)
    else { return }
    var rest = life.settlements[...]
    while let first = rest.first {
      let ofToken = rest.prefix { $0.token == first.token }
      rest = rest[ofToken.endIndex...]
      guard let release = handedBack(facts, ofToken),
        let held = life.tokens.first(of: first.token),
        let next = life.tokens.next(after: first.token),
        hasWaited(facts, release, since: held, until: next)
      else { continue }
      returned.append(
        ReturnedMessage(
          message: facts.message, release: release.interval.end, confirm: confirm, next: next))
    }
  }

  /// What certainly put a message back to its place, as whose holder nothing else was asked for but
  /// extensions. Nil if there is no such thing.
  private func handedBack(
    _ facts: MessageFacts, _ settlements: ArraySlice<Settlement>
  ) -> Settlement? {
    let others = settlements.lazy.filter { $0.action != .extend }
    guard let action = others.first?.action,
      others.allSatisfy({
        $0.action == action && ($0.action == .release || hasNoWait(facts, $0))
      })
    else { return nil }
    return others.filter { $0.outcome == .ok }.min { $0.interval.end < $1.interval.end }
  }

  private func hasNoWait(_ facts: MessageFacts, _ nack: Settlement) -> Bool {
    guard nack.action == .nack else { return false }
    let delay = history.events[Int(nack.interval.begin)].span
    return delay == 0
      || delay == Absent.number && history.longestRetryDelays[facts.queue] == 0
  }

  /// Whether nobody can have had it unread meanwhile: what is released keeps its attempt, a nack counts
  /// one, and a lease that runs out unread one more. Who left may have handed it back as it was, and a new
  /// leader, where it need not keep leases, may have forgotten one.
  private func hasWaited(
    _ facts: MessageFacts, _ release: Settlement, since held: EventPosition,
    until next: EventPosition
  ) -> Bool {
    let (before, after) = (history.events[Int(held)], history.events[Int(next)])
    return before.level != Absent.reference && after.level != Absent.reference
      && UInt64(after.level) == UInt64(before.level) + (release.action == .nack ? 1 : 0)
      && after.moment != Absent.number
      && life.regressed[before.token] == nil && life.regressed[after.token] == nil
      && !departures.mayHaveHappened(in: facts.queue, after: release.interval.begin, before: next)
      && !isRedriven(facts, after: facts.begin, before: next)
      && (isStrict || leaderChange(between: release.interval.begin, next) == nil)
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

  /// Where a message that was published later has its place behind those before it, however it got there: the
  /// first time, or handed back.
  private func gatherGrantedInTurn() -> [UInt64: GrantedInTurn] {
    var grants: [UInt64: [GrantedInTurn.Grant]] = [:]
    for (number, message) in history.messages.enumerated() where message.value != Absent.reference {
      // Of several copies nobody knows which it was.
      guard let publish = firstPublish(of: UInt32(number)), origins[UInt32(number)] == nil
      else { continue }
      let level = history.events[Int(publish)].level
      let isMoved = firstEvent(of: UInt32(number)) { position, event in
        event.type == .invoke && outcome(position) != .fail
          && (event.action == .reschedule
            || event.action == .publish
              && (event.key != Absent.reference || event.level != level))
      }
      if isMoved != nil { continue }
      var position = publish
      while position != Absent.reference {
        let event = history.events[Int(position)]
        if event.action == .deliver, event.moment != Absent.number {
          grants[PairTable.pair(message.queue, level), default: []].append(
            GrantedInTurn.Grant(moment: event.moment, publish: publish, delivery: position))
        }
        position = event.next
      }
    }
    return grants.mapValues { GrantedInTurn($0) }
  }
}
