// How a message leaves a consumer's hands other than by an acknowledgement: handed back, failed, or
// given up. The caller has taken it out of the consumer's `held` and marks no queue dirty: these
// do.

import Base

/// How a delivery ended without success.
struct FailedDelivery {
  var kind: MessageEvent.Kind
  /// What the consumer said, or what the machine saw.
  var error: String
  /// The slot of the consumer that held it.
  var consumer: Int
  /// Wait before the next attempt; nil for the queue's rule.
  var delay: Nanoseconds?
}

extension MachineState {
  /// Back to its place without counting an attempt.
  ///
  /// - Parameter wasSeen: false for one that never reached its client: to the next one it comes as
  ///   if it had not been given out.
  mutating func release(_ held: Held, to queue: Int, wasSeen: Bool = true) {
    hash.fold(.returned, held.message.id.rawValue, held.token.rawValue)
    queues[queue].takeBack(held)
    var message = held.message
    if wasSeen { message.set(Waiting.wasDelivered) }
    makeReady(message, in: queue)
    trimIfOverfull(queue)
  }

  /// The attempt failed: out if it was the last one allowed (G8), else to be tried again after the
  /// queue's wait (G9).
  mutating func fail(_ held: Held, _ end: FailedDelivery, in queue: Int) {
    queues[queue].takeBack(held)
    let event = event(of: held, end, in: queue)
    let settings = queues[queue].settings
    if settings.deliveriesMax > 0, held.attempt >= settings.deliveriesMax {
      giveUp(
        held.message, in: queue, .deliveriesExhausted, attempts: held.attempt, error: end.error,
        event: event)
      return
    }
    hash.fold(.failed, held.message.id.rawValue, held.token.rawValue)
    var message = held.message
    message.set(Waiting.wasDelivered)
    queues[queue].note(&message) { note in
      note.attempts = held.attempt
      var story = note.story ?? MessageStory()
      story.add(event)
      if !end.error.isEmpty { story.lastError = end.error }
      story.firstTry = min(story.firstTry, held.granted)
      note.story = story
    }
    let wait =
      end.delay
      ?? RetryRule.wait(
        settings, attempt: held.attempt,
        luck: RetryRule.luck(message.id, attempt: held.attempt, token: held.token))
    if wait == .zero || queues[queue].expires(message) <= clock {
      makeReady(message, in: queue)
    } else {
      delay(message, in: queue, until: clock + wait)
    }
    trimIfOverfull(queue)
  }

  /// Never again: to the dead-letter queue at once.
  mutating func reject(_ held: Held, _ end: FailedDelivery, in queue: Int) {
    queues[queue].takeBack(held)
    giveUp(
      held.message, in: queue, .rejected, attempts: held.attempt, error: end.error,
      event: event(of: held, end, in: queue))
  }

  /// Does with a delivery that has left its consumer's hands as it was settled before; false if it
  /// was not.
  mutating func carryOutSettle(of held: Held, by consumer: Int, in queue: Int) -> Bool {
    // An AMQP client says no text with it, and asks for no wait of its own.
    switch held.state {
    case .gap, .held: return false
    case .handedBack: release(held, to: queue)
    case .unseen: release(held, to: queue, wasSeen: false)
    case .failed:
      fail(held, FailedDelivery(kind: .failed, error: "", consumer: consumer), in: queue)
    case .rejected:
      reject(held, FailedDelivery(kind: .rejected, error: "", consumer: consumer), in: queue)
    }
    return true
  }

  private func event(of held: Held, _ end: FailedDelivery, in queue: Int) -> MessageEvent {
    let consumer = consumers[end.consumer]
    let session = sessions[consumer.sessionSlot]
    return MessageEvent(
      kind: end.kind, time: clock, queue: queues[queue].name, granted: held.granted,
      attempt: held.attempt, session: session.name, consumer: consumer.id, node: session.node,
      error: end.error.cut(toBytes: FixedLimits.eventErrorBytesMax))
  }

  /// Puts a message that is in no one's hands to its own place among the ready ones. One that is
  /// too old by now waits for the next look at what is due, which is bounded per entry.
  mutating func makeReady(_ message: Waiting, in queue: Int) {
    let expires = queues[queue].expires(message)
    if expires <= clock {
      queues[queue].expiries.set(message.id.rawValue, to: expires)
      delay(message, in: queue, until: clock)
    } else {
      // In a queue with keys what was never delivered takes a turn, others keep their place.
      if queues[queue].settings.keyLimit > 0, !message.has(Waiting.wasDelivered) {
        queues[queue].join(message)
      } else {
        queues[queue].ready.giveBack(message)
      }
      markDirty(queue)
    }
  }

  mutating func delay(_ message: Waiting, in queue: Int, until due: MachineTime) {
    hash.fold(.delayed, message.id.rawValue, due.rawValue)
    queues[queue].delayed.set(DelayedMessage(due: due, message: message))
    lowerDeadline(ofQueue: queue)
  }

  /// Moves a message that is out of all its queue's lists to the dead-letter queue, or drops it
  /// where there is none. Part of the entry that decided it, so it happens exactly once; where an
  /// exchange would make more copies than the entry may, or the entry has no ids for more, it stays,
  /// dead already, and goes with the due work of a later one.
  mutating func giveUp(
    _ message: Waiting, in queue: Int, _ reason: DeadLetterReason, attempts: UInt32,
    error: String = "", event: MessageEvent? = nil, isOut: Bool = true
  ) {
    let target = queues[queue].deadLetterSlot
    var copies: DeadLetterCopies?
    var reason = reason
    if target >= 0 || hasDeadLetterExchange(queue) {
      reason = postponedReason(of: message, in: queue) ?? reason
      if target < 0 { copies = deadLetterCopies(of: message, reason, from: queue) }
      let count = target >= 0 ? 1 : copies?.targets.count
      if !(count.map { mayMove($0) } ?? false) {
        dueWork = max(dueWork, limits.dueWorkPerEntry + 1)
        postpone(
          message, in: queue, reason, attempts: attempts, error: error, event: event, isOut: isOut)
        return
      }
    }
    let key = queues[queue].keys.key(of: message.id)
    let note = leave(message, from: queue, isOut: isOut)
    markDirty(queue)
    queues[queue].bytes -= message.size
    let targets = target >= 0 ? [target] : copies?.targets ?? []
    guard !targets.isEmpty else {
      hash.fold(.dropped, message.id.rawValue, UInt64(reason.rawValue))
      queues[queue].dropped += 1
      return
    }
    var story = copies?.story ?? note?.story ?? MessageStory()
    noteDeath(
      of: message, in: queue, reason, attempts: attempts, error: error, event: event, &story)
    story.add(
      MessageEvent(
        kind: .deadLettered, time: clock, queue: queues[queue].name, reason: reason))
    queues[queue].deadLettered += 1
    hash.fold(.deadLettered, message.id.rawValue, UInt64(reason.rawValue))
    var moved = message
    if targets.count > 1 { moved.becomeShared() }
    for target in targets { move(moved, note, story, key: key, to: target) }
  }

  /// Whether the entry has ids for so many messages more that it moves: publishes have the others. One
  /// that has more copies than any entry may make goes where nothing else did.
  func mayMove(_ count: Int) -> Bool {
    let moved = nextOrdinal - publishedHere
    return moved == 0 || moved + count <= limits.movesPerEntry
  }

  /// Why a message is dead that waits in its queue for an entry that may move or copy it.
  private func postponedReason(of message: Waiting, in queue: Int) -> DeadLetterReason? {
    // One that came here by its death has the id that it had before in this note.
    guard let note = deadLetterNote(of: message, in: queue), note.originID == message.id else {
      return nil
    }
    return note.reason
  }

  /// Keeps a dead message in its queue until the next due work, where it counts as too old.
  private mutating func postpone(
    _ message: Waiting, in queue: Int, _ reason: DeadLetterReason, attempts: UInt32,
    error: String, event: MessageEvent?, isOut: Bool
  ) {
    var message = message
    if event != nil {
      message.set(Waiting.wasDelivered)
    } else if isOut, !message.has(Waiting.wasDelivered) {
      queues[queue].giveUpPlace(of: message)
    }
    markDirty(queue)
    let now = clock
    var story = queues[queue].story(of: message) ?? MessageStory()
    noteDeath(
      of: message, in: queue, reason, attempts: attempts, error: error, event: event, &story)
    if !error.isEmpty { story.lastError = error }
    queues[queue].note(&message) { note in
      note.attempts = attempts
      note.expires = now
      note.story = story
    }
    queues[queue].expiries.set(message.id.rawValue, to: now)
    delay(message, in: queue, until: now)
  }

  /// - Parameter event: the failed delivery that it died of, if it was in somebody's hands.
  private func noteDeath(
    of message: Waiting, in queue: Int, _ reason: DeadLetterReason, attempts: UInt32,
    error: String, event: MessageEvent?, _ story: inout MessageStory
  ) {
    if let event {
      story.add(event)
      story.firstTry = min(story.firstTry, event.granted)
    }
    story.deadLetter = DeadLetterNote(
      reason: reason, originQueue: queues[queue].name, originID: message.id, attempts: attempts,
      lastError: error.isEmpty ? story.lastError : error,
      firstTime: min(story.firstTry, clock), time: clock)
  }

  /// Puts a message that left its queue into another under a new id, where its attempts and errors
  /// begin anew.
  mutating func move(
    _ message: Waiting, _ note: MessageNote?, _ story: MessageStory, key: UInt64, to target: Int
  ) {
    let id = nextMessageID()
    hash.fold(id.rawValue)
    var moved = Waiting(
      id: id, isShared: message.isShared, offset: Int(message.offset), size: Int(message.size))
    moved.set(priority: message.priority)
    let recordEntry = note?.recordEntry ?? .zero
    let key = key != 0 ? key : note?.key ?? 0
    let span = queues[target].settings.timeToLive
    let expires = span == .zero ? MachineTime.never : clock + span
    let kept = story.keptBytes
    let keepsAll = kept == 0 || keepsHeaders(kept, movedTo: target)
    if keepsAll { countHeaders(kept, in: target) }
    queues[target].note(&moved) { fresh in
      fresh.recordEntry = recordEntry == .zero ? message.id.entry : recordEntry
      fresh.expires = expires
      fresh.key = key
      var story = story
      story.lastError = ""
      story.firstTry = .never
      story.addFormerID(message.id)
      if !keepsAll { story.forgetWhatIsCounted() }
      fresh.story = story
    }
    if expires != .never { queues[target].expiries.set(id.rawValue, to: expires) }
    if queues[target].settings.keyLimit > 0, key != 0 {
      moved.set(Waiting.hasKey)
      queues[target].keys.add(id, key: key)
    }
    queues[target].join(moved)
    queues[target].bytes += moved.size
    if queues[target].settings.overflow == .dropOldest, queues[target].isOverfull {
      queues[target].needsTrim = true
    }
    lowerDeadline(ofQueue: target)
    markDirty(target)
  }
}

extension QueueState {
  /// Takes a message out of what is leased.
  fileprivate mutating func takeBack(_ held: Held) {
    leased -= 1
    leasedBytes -= held.message.size
  }
}
