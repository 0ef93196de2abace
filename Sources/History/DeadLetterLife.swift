// What became of a message as a dead letter, for the queues that it can have come from: their messages
// are judged by it.

/// Where dead letters of one value may have come from.
struct Origins {
  /// How many queues it was published to.
  var count = 0
  /// The first publish that did not fail, and its message.
  var begin = Absent.reference
  var first = Absent.reference
}

struct DeadLetterLife {
  var message: UInt32
  var queue: UInt32
  /// Published to one queue of origin, and not here: whatever is here is that message.
  var hasOneOrigin = false
  /// As they were read.
  var deliveries: [EventPosition] = []
  /// For each delivery, the latest grant up to there; later than all of one that does not say.
  var latestGrants: [UInt64] = []
  /// The earliest invoke of a confirmed settlement that ends it, and of one of unknown outcome that no
  /// delivery from this queue disproves; later than all if there is none.
  var settled = Absent.reference
  var perhapsSettled = Absent.reference
  /// When the delivery with the newest token was granted, if all of them say when.
  var newestGrant: UInt64?
  /// The most that a delivery says; more than any if one does not say.
  var mostAttempts: UInt32 = 0
  var redrives = Redrives()
  var cancels = Intervals()
}

extension Checker {
  /// How the message stands in each of the dead-letter queues of its queue where it can be.
  mutating func deadLetterLives(queue: UInt32, value: UInt32) -> [DeadLetterLife] {
    let deadLetters = queues[Int(queue)].deadLetters
    if deadLetters.isEmpty { return [] }
    var lives: [DeadLetterLife] = []
    for queue in deadLetters {
      guard let message = history.messageNumber(queue: queue, value: value) else { continue }
      lives.append(deadLetterLife(of: message, in: queue))
    }
    return lives
  }

  /// Those that several queues ask for are kept.
  private mutating func deadLetterLife(
    of message: UInt32, in queue: UInt32
  ) -> DeadLetterLife {
    if let known = deadLetterLives[message] { return known }
    var life = DeadLetterLife(message: message, queue: queue)
    let origins = origins[message]?.count ?? 0
    life.hasOneOrigin = origins == 1 && firstPublish(of: message) == nil
    gather(&life)
    if origins > 1 { deadLetterLives[message] = life }
    return life
  }

  private func gather(_ life: inout DeadLetterLife) {
    var unknown: [(token: UInt64, begin: EventPosition)] = []
    var redrives: [Interval] = []
    var position = history.messages[Int(life.message)].firstEvent
    while position != Absent.reference {
      let event = history.events[Int(position)]
      defer { position = event.next }
      if event.action == .deliver {
        life.deliveries.append(position)
        life.latestGrants.append(max(life.latestGrants.last ?? 0, event.moment))
        life.mostAttempts = max(life.mostAttempts, event.level)
        continue
      }
      guard event.type == .invoke, outcome(position) != .fail else { continue }
      switch event.action {
      case .ack where outcome(position) == .ok, .reject where outcome(position) == .ok:
        if event.action == .ack || rejectEnds(life.queue) {
          life.settled = min(life.settled, position)
        }
      case .ack: unknown.append((event.token, position))
      case .reject: if rejectEnds(life.queue) { unknown.append((event.token, position)) }
      case .redrive: redrives.append(interval(position))
      case .cancel: life.cancels.append(interval(position))
      default: break
      }
    }
    life.redrives = Redrives(redrives)
    let newest = life.hasOneOrigin ? newestDated(of: life.deliveries) : nil
    life.newestGrant = newest?.moment
    for settlement in unknown where settlement.token >= newest?.token ?? 0 {
      life.perhapsSettled = min(life.perhapsSettled, settlement.begin)
    }
  }

  /// The delivery with the newest token, if all say when they were granted. What was granted later shows
  /// that nothing asked for about the others took the message.
  func newestDated(of deliveries: [EventPosition]) -> (token: UInt64, moment: UInt64)? {
    var newest: (token: UInt64, moment: UInt64)?
    for delivery in deliveries {
      let event = history.events[Int(delivery)]
      if event.moment == Absent.number { return nil }
      if event.token >= newest?.token ?? 0 { newest = (event.token, event.moment) }
    }
    return newest
  }

  // MARK: Origins

  /// Finds for each message in a dead-letter queue where it was published.
  mutating func gatherOrigins() {
    for (number, message) in history.messages.enumerated() where message.value != Absent.reference {
      let deadLetters = queues[Int(message.queue)].deadLetters
      guard !deadLetters.isEmpty, let begin = firstPublish(of: UInt32(number)) else { continue }
      for queue in deadLetters {
        guard let other = history.messageNumber(queue: queue, value: message.value) else {
          continue
        }
        var known = origins[other] ?? Origins()
        known.count += 1
        if begin < known.begin { (known.begin, known.first) = (begin, UInt32(number)) }
        origins[other] = known
      }
    }
  }

  /// The first invoke of a publish that did not fail.
  func firstPublish(of message: UInt32) -> EventPosition? {
    let first = firstPublishes[Int(message)]
    return first == Absent.reference ? nil : first
  }
}
