// What is asked about single messages that wait: cancel, reschedule, and back from the dead-letter
// queue.

import Base

/// Why a message is not waiting where it was looked for.
package struct MessageAbsence: Error, Hashable, Sendable {
  package var refusal: Refusal
  /// The message, or the queue.
  package var detail: String
}

extension MachineState {
  mutating func cancelMessage(_ command: NameMessage, _ effects: inout EffectList) {
    let reply =
      switch takeWaiting(command) {
      case .success(let found): cancel(found.message, isOut: found.isOut, in: found.queue)
      case .failure(let absence): Reply.refused(absence.refusal, detail: absence.detail)
      }
    self.reply(reply, to: command.requester, command.tag, &effects)
  }

  private mutating func cancel(_ message: Waiting, isOut: Bool, in queue: Int) -> Reply {
    hash.fold(.cancelled, message.id.rawValue)
    leave(message, from: queue, isOut: isOut)
    markDirty(queue)
    queues[queue].bytes -= message.size
    return .messageCancelled
  }

  mutating func rescheduleMessage(_ command: NameMessage, _ effects: inout EffectList) {
    let reply: Reply
    switch takeWaiting(command) {
    case .success((let message, let isOut, let queue)):
      // What a consumer had keeps its place among those of its key.
      if isOut, !message.has(Waiting.wasDelivered) {
        queues[queue].giveUpPlace(of: message)
        markDirty(queue)
      }
      delay(message, in: queue, until: clock + command.delay)
      // What is due now is ready at once, like what a nack gives no delay.
      if command.delay == .zero, let found = queues[queue].delayed.remove(message.id.rawValue) {
        makeReady(found.message, in: queue)
      }
      reply = .messageRescheduled
    case .failure(let absence):
      reply = .refused(absence.refusal, detail: absence.detail)
    }
    self.reply(reply, to: command.requester, command.tag, &effects)
  }

  /// Takes the message that a command names out of its queue's lists.
  private mutating func takeWaiting(
    _ command: NameMessage
  ) -> Result<(message: Waiting, isOut: Bool, queue: Int), MessageAbsence> {
    guard let queue = queueNames[command.queue] else {
      return .failure(MessageAbsence(refusal: .queueNotFound, detail: command.queue))
    }
    if let (message, isOut) = queues[queue].removeWaiting(command.message) {
      return .success((message, isOut, queue))
    }
    return .failure(absence(of: command.message, from: queue))
  }

  /// Why no message of that id is ready in the queue. Slow, so each entry may do only so much of it.
  private mutating func absence(of id: MessageID, from queue: Int) -> MessageAbsence {
    guard lookedHere < limits.looksPerEntry else {
      return MessageAbsence(
        refusal: .overloaded, detail: "too much is looked for by this entry already")
    }
    let (absence, looks) = absence(
      of: id, from: queue, looks: limits.looksPerEntry - lookedHere)
    lookedHere += looks
    return absence
  }

  /// - Parameter looks: how much may be looked at. What consumers of the queue hold is looked at
  ///   all the same; where there is not enough left for all other queues, none of them is looked at,
  ///   so that the answer does not depend on their order.
  /// - Returns: why, and how much was looked at.
  func absence(
    of id: MessageID, from queue: Int, looks: Int
  ) -> (absence: MessageAbsence, looks: Int) {
    guard id.rawValue != 0, id.entry <= appliedIndex else {
      return (MessageAbsence(refusal: .messageNotFound, detail: "\(id)"), 0)
    }
    var looked = looksAtHeld(of: queue)
    if isHeld(id, from: queue) {
      return (MessageAbsence(refusal: .messageLeased, detail: "\(id)"), looked)
    }
    if queues[queue].delayed[id.rawValue] != nil {
      return (MessageAbsence(refusal: .messageDelayed, detail: "\(id)"), looked)
    }
    let gone = MessageAbsence(refusal: .messageGone, detail: "\(id)")
    let wide = Self.wideLook + Self.looksPerQueue * queues.count
    guard looked + wide <= looks else { return (gone, looked) }
    looked += wide
    let others = queues.slots.filter { $0 != queue }
    let held = others.reduce(0) { $0 + looksAtHeld(of: $1) }
    guard looked + held <= looks else { return (gone, looked) }
    looked += held
    for other in others where queues[other].isWaiting(id) || isHeld(id, from: other) {
      let detail = "\(id) is in queue \(queues[other].name)"
      return (MessageAbsence(refusal: .messageElsewhere, detail: detail), looked)
    }
    return (gone, looked)
  }

  /// What a look over all queues costs beside them: their table does not shrink, and how long it is
  /// differs from node to node.
  private static let wideLook = 4_096
  /// A queue is looked up in several tables, which no cache has.
  private static let looksPerQueue = 16

  /// What it costs to look through all that the queue's consumers hold. Those that ended are among
  /// them only while they hold something.
  private func looksAtHeld(of queue: Int) -> Int {
    let held = Int(clamping: queues[queue].leased)
    return held == 0 ? 0 : 2 * held + Int(queues[queue].consumers)
  }

  private func isHeld(_ id: MessageID, from queue: Int) -> Bool {
    if queues[queue].leased == 0 { return false }
    var isHeld = false
    for consumer in consumers(of: queue) {
      consumers[consumer].held.forEach { if $0.message.id == id { isHeld = true } }
    }
    return isHeld
  }

  mutating func redriveQueue(_ command: RedriveQueue, _ effects: inout EffectList) {
    let reply: Reply
    if let queue = queueNames[command.queue] {
      if settledHere + FixedLimits.redrivePerCommand > limits.settledPerEntry
        || lookedHere >= limits.looksPerEntry || !mayMove(FixedLimits.redrivePerCommand)
      {
        reply = .refused(.overloaded, detail: "too much is moved by this entry already")
      } else {
        settledHere += FixedLimits.redrivePerCommand
        lookedHere += queues[queue].keys.blockedCount
        reply = redrive(command, queue)
      }
    } else {
      reply = .refused(.queueNotFound, detail: command.queue)
    }
    self.reply(reply, to: command.requester, command.tag, &effects)
  }

  private mutating func redrive(_ command: RedriveQueue, _ queue: Int) -> Reply {
    if case .message(let id) = command.which {
      guard id.rawValue != 0,
        let message = queues[queue].ready.message(id) ?? queues[queue].keys.blocked(id)
      else {
        let absence = absence(of: id, from: queue)
        return .refused(absence.refusal, detail: absence.detail)
      }
      let isMoved = redrive(message, from: queue)
      return .queueRedriven(
        messages: isMoved ? 1 : 0, skipped: isMoved ? 0 : 1, next: nil, through: id)
    }
    let most = FixedLimits.redrivePerCommand
    let through =
      command.through.rawValue == 0 ? MessageID(entry: appliedIndex, ordinal: 0) : command.through
    let found = queues[queue].readyOrBlocked(after: command.after, limit: most)
    var moved: UInt64 = 0
    var skipped: UInt64 = 0
    for message in found {
      if message.id > through {
        return .queueRedriven(messages: moved, skipped: skipped, next: nil, through: through)
      }
      if moved >= UInt64(command.limit) {
        // Behind the one before this.
        return .queueRedriven(
          messages: moved, skipped: skipped, next: MessageID(rawValue: message.id.rawValue - 1),
          through: through)
      }
      guard isMeant(message, in: queue, by: command.which) else { continue }
      if redrive(message, from: queue) { moved += 1 } else { skipped += 1 }
    }
    return .queueRedriven(
      messages: moved, skipped: skipped, next: found.count == most ? found.last?.id : nil,
      through: through)
  }

  private func isMeant(_ message: Waiting, in queue: Int, by choice: RedriveChoice) -> Bool {
    guard let note = deadLetterNote(of: message, in: queue) else { return false }
    if case .reason(let reason) = choice { return note.reason == reason }
    return true
  }

  func deadLetterNote(of message: Waiting, in queue: Int) -> DeadLetterNote? {
    queues[queue].story(of: message)?.deadLetter
  }

  /// Moves a ready message back to where it came from; false if there is no such place or no room.
  private mutating func redrive(_ message: Waiting, from queue: Int) -> Bool {
    guard let dead = deadLetterNote(of: message, in: queue),
      let target = queueNames[dead.originQueue],
      queues[target].settings.overflow == .dropOldest || !queues[target].isFull(for: message.size),
      let (_, isOut) = queues[queue].removeWaiting(message.id)
    else { return false }
    hash.fold(.redriven, message.id.rawValue)
    let key = queues[queue].keys.key(of: message.id)
    let note = leave(message, from: queue, isOut: isOut)
    markDirty(queue)
    queues[queue].bytes -= message.size
    var story = note?.story ?? MessageStory()
    story.deadLetter = nil
    story.add(MessageEvent(kind: .redriven, time: clock, queue: queues[queue].name))
    move(message, note, story, key: key, to: target)
    return true
  }
}
