// Messages from other threads to a loop. Crossed per batch: senders append under a lock, the loop
// swaps the whole array out; its poller is woken only if it may be asleep.

/// A queue with many senders and one receiver whose `descriptor` is in the receiver's `Poller`.
///
/// The simple receiver calls `take` when the descriptor is readable. One that is busy anyway saves
/// the wake-ups (two system calls each): it calls `takeAwake` every turn, and `maySleep` right
/// before it waits, with a timeout of zero if that says no.
@usableFromInline package final class Mailbox<Message: Sendable>: @unchecked Sendable {
  /// What the lock guards, in one struct: each access to a property of a class costs a check that
  /// there is no other.
  @usableFromInline struct Guarded {
    @usableFromInline var messages: [Message] = []
    @usableFromInline var wakeUp = MailboxWakeUp.needed

    @inlinable mutating func swapOut(
      into taken: inout [Message], then next: MailboxWakeUp, _ event: borrowing EventDescriptor
    ) {
      if wakeUp == .sent { event.clear() }
      wakeUp = next
      swap(&messages, &taken)
    }

    @inlinable mutating func maySleep() -> Bool {
      guard messages.isEmpty else { return false }
      if wakeUp == .unneeded { wakeUp = .needed }
      return true
    }
  }

  // SAFETY of the Sendable: `guarded` is touched under `lock` only, the rest never changes.
  @usableFromInline let lock = Lock()
  @usableFromInline var guarded = Guarded()
  @usableFromInline let event: EventDescriptor
  /// Messages from which on `tryPost` refuses.
  @usableFromInline let bound: Int

  /// Throws EMFILE or ENFILE when there is no descriptor left.
  package init(bound: Int = .max) throws(ErrorNumber) {
    event = try EventDescriptor()
    self.bound = bound
  }

  /// Readable while messages wait that the receiver was woken for.
  package var descriptor: Int32 { event.descriptor }

  /// Adds a message, also beyond the bound: for what must not be lost and is bounded elsewhere.
  @inlinable package func post(_ message: Message) {
    lock.withLock {
      guarded.messages.append(message)
      if guarded.wakeUp == .needed { wake() }
    }
  }

  /// Adds messages behind one another, with nobody's between them.
  @inlinable package func post(contentsOf messages: [Message]) {
    if messages.isEmpty { return }
    lock.withLock {
      guarded.messages.append(contentsOf: messages)
      if guarded.wakeUp == .needed { wake() }
    }
  }

  /// Adds a message, or returns false if as many as the bound wait.
  @inlinable package func tryPost(_ message: Message) -> Bool {
    lock.withLock {
      guard guarded.messages.count < bound else { return false }
      guarded.messages.append(message)
      if guarded.wakeUp == .needed { wake() }
      return true
    }
  }

  /// Replaces `messages` by all that wait, in order. The next post wakes the receiver.
  @inlinable package func take(into messages: inout [Message]) {
    swapOut(into: &messages, then: .needed)
  }

  /// As `take`, but posts wake nobody until `maySleep` was called.
  @inlinable package func takeAwake(into messages: inout [Message]) {
    swapOut(into: &messages, then: .unneeded)
  }

  /// Whether nothing waits; if so the next post wakes the receiver. If not, take first.
  @inlinable package func maySleep() -> Bool {
    lock.withLock { guarded.maySleep() }
  }

  @inlinable func swapOut(into messages: inout [Message], then wakeUp: MailboxWakeUp) {
    // What the receiver has dealt with is released here, not under the lock, and its room serves
    // for the next messages.
    if !messages.isEmpty { messages.removeAll(keepingCapacity: true) }
    lock.withLock { guarded.swapOut(into: &messages, then: wakeUp, event) }
  }

  /// Under the lock, so that the descriptor is readable exactly while `wakeUp` says so.
  @usableFromInline func wake() {
    event.signal()
    guarded.wakeUp = .sent
  }
}

/// What a post to a mailbox has to do about the receiver.
@frozen @usableFromInline enum MailboxWakeUp {
  /// It may be asleep: signal it.
  case needed
  /// The descriptor is readable, and only then.
  case sent
  /// It is awake and will look before it sleeps.
  case unneeded
}
