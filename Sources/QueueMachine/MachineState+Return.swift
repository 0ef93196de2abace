// How a message leaves a consumer's hands other than by an acknowledgement: handed back, failed,
// or dead-lettered. The caller has taken it out of the consumer's `held` and marks no queue dirty:
// these do.

import Base

extension MachineState {
  /// Back to its place without counting an attempt.
  mutating func release(_ held: Held, to queue: Int) {
    hash.fold(.returned, held.message.id.rawValue, held.token.rawValue)
    giveBack(held.message, to: queue)
  }

  /// The attempt failed: back to its place, or out if it was the last one allowed (G8).
  mutating func fail(_ held: Held, in queue: Int, error: String) {
    let limit = queues[queue].settings.deliveriesMax
    if limit > 0, held.attempt >= limit {
      giveUp(
        held.message, in: queue, reason: .deliveriesExhausted, attempts: held.attempt, error: error)
      return
    }
    hash.fold(.failed, held.message.id.rawValue, held.token.rawValue)
    var message = held.message
    let key = message.id.rawValue
    if message.has(Waiting.hasNote) {
      _ = queues[queue].notes.update(key) { note in
        note.attempts = held.attempt
        if !error.isEmpty { note.lastError = error }
      }
    } else {
      queues[queue].notes.insert(MessageNote(attempts: held.attempt, lastError: error), for: key)
      message.set(Waiting.hasNote)
    }
    giveBack(message, to: queue)
  }

  /// Never again: to the dead-letter queue at once.
  mutating func reject(_ held: Held, in queue: Int, error: String) {
    giveUp(
      held.message, in: queue, reason: .rejected, attempts: held.attempt, error: error)
  }

  private mutating func giveBack(_ message: Waiting, to queue: Int) {
    var message = message
    message.set(Waiting.wasDelivered)
    queues[queue].ready.giveBack(message)
    queues[queue].leased -= 1
    markDirty(queue)
  }

  /// Moves a message that was held to the dead-letter queue under a new id, or drops it where
  /// there is none. Part of the entry that decided it, so it happens exactly once.
  private mutating func giveUp(
    _ message: Waiting, in queue: Int, reason: DeadLetterReason, attempts: UInt32, error: String
  ) {
    let note =
      message.has(Waiting.hasNote) ? queues[queue].notes.remove(message.id.rawValue) : nil
    queues[queue].leased -= 1
    queues[queue].bytes -= message.size
    let target = queues[queue].deadLetterSlot
    guard target >= 0 else {
      hash.fold(.dropped, message.id.rawValue)
      queues[queue].dropped += 1
      return
    }
    queues[queue].deadLettered += 1
    let id = nextMessageID()
    hash.fold(.deadLettered, message.id.rawValue, id.rawValue)
    var moved = Waiting(id: id, offset: Int(message.offset), size: Int(message.size))
    moved.set(Waiting.hasNote)
    let recordEntry = note.map(\.recordEntry) ?? .zero
    queues[target].notes.insert(
      MessageNote(
        recordEntry: recordEntry == .zero ? message.id.entry : recordEntry,
        deadLetter: DeadLetterNote(
          reason: reason, originQueue: queues[queue].name, originID: message.id,
          attempts: attempts, lastError: error.isEmpty ? note?.lastError ?? "" : error,
          time: clock)),
      for: id.rawValue)
    queues[target].ready.append(moved)
    queues[target].bytes += moved.size
    markDirty(target)
  }
}
