// What the whole history says about one queue, and when it and its dead-letter queues were empty.

struct QueueFacts {
  var settings = HistoryQueueSettings()
  /// The fewest deliveries after which it ever gave a message up; nil if it never does.
  var givesUpAfter: UInt64?
  var deadLetter: UInt32?
  /// Its dead-letter queue, that one's, and so on.
  var deadLetters: [UInt32] = []
  /// The queues whose dead letters may come here.
  var sources: [UInt32] = []
  var purges = Intervals()
  var purgeEnds = EarliestEnds()
  /// Redrives of everything in this dead-letter queue.
  var redrives = Redrives()
  /// Those that ended, in order.
  var drains: [Interval] = []
  /// Whether anything may have been published to it.
  var hasPublishes = false
  var lastConfirm: EventPosition?
  /// Whether the history records an ack or reject of any of its messages.
  var hasSettlements = false
  /// The drain that counts: the last.
  var drain: Interval?
  /// One after the other.
  var rounds: [DrainRound] = []
  /// Where there are none though it was drained itself: its dead-letter queue that was not, after those
  /// before it.
  var undrained: UInt32?
}

/// A queue was drained after its last confirmed publish, and then its dead-letter queues one after the
/// other. What was confirmed was in none of them afterwards, unless a redrive brought it back meanwhile.
struct DrainRound {
  var own: Interval
  /// By dead-letter queue.
  var dead: [Interval]

  var end: EventPosition { dead.last?.end ?? own.end }
}

extension Checker {
  /// No more of one queue are looked at: the first ones and the last ones.
  private static let roundsMax = 16

  mutating func gatherRounds(of queue: Int) {
    let facts = queues[queue]
    let counting = facts.drains.filter { drain in facts.lastConfirm.map { drain.begin > $0 } ?? true
    }
    // Nothing that happened before its end can be hidden in the queue.
    queues[queue].drain = counting.last
    var rounds: [DrainRound] = []
    for drain in counting where rounds.last.map({ $0.end < drain.begin }) ?? true {
      var round = DrainRound(own: drain, dead: [])
      let undrained = facts.deadLetters.first { !add($0, to: &round) }
      if let undrained {
        if rounds.isEmpty { queues[queue].undrained = undrained }
        break
      }
      rounds.append(round)
    }
    if rounds.count > Self.roundsMax {
      rounds.removeSubrange(Self.roundsMax / 2..<rounds.count - Self.roundsMax / 2)
    }
    queues[queue].rounds = rounds
  }

  /// Whether a dead-letter queue was drained after the round so far. When a drain began before that was
  /// over, there may have been something left in the queue before.
  private func add(_ queue: UInt32, to round: inout DrainRound) -> Bool {
    let drains = queues[Int(queue)].drains
    let place = firstPlace(of: drains) { $0.begin > round.end }
    if place == drains.count { return false }
    round.dead.append(drains[place])
    return true
  }
}
