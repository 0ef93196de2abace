// Messages from other threads to a loop. Crossed per batch: senders append under a lock, the loop
// swaps the whole array out; its poller is woken only if it may be asleep.

import Base
import Synchronization

/// A queue with many senders and one receiver whose `descriptor` is in the receiver's `Poller`.
///
/// The simple receiver calls `take` when the descriptor is readable. One that is busy anyway saves
/// the wake-ups (two system calls each): it calls `takeAwake` every turn, and `maySleep` right
/// before it waits, with a timeout of zero if that says no.
package final class Mailbox<Message: Sendable>: Sendable {
  @usableFromInline struct Contents {
    @usableFromInline var messages: [Message] = []
    @usableFromInline var wakeUp = WakeUp.needed
    @usableFromInline init() {}
  }

  /// What a post has to do about the receiver.
  @usableFromInline enum WakeUp {
    /// It may be asleep: signal it.
    case needed
    /// The descriptor is readable, and only then.
    case sent
    /// It is awake and will look before it sleeps.
    case unneeded
  }

  @usableFromInline let contents: Mutex<Contents>
  private let event: EventDescriptor
  /// Messages from which on `tryPost` refuses.
  @usableFromInline let bound: Int

  /// Throws EMFILE or ENFILE when there is no descriptor left.
  package init(bound: Int = .max) throws(ErrorNumber) {
    event = try EventDescriptor()
    contents = Mutex(Contents())
    self.bound = bound
  }

  /// Readable while messages wait that the receiver was woken for.
  package var descriptor: Int32 { event.descriptor }

  /// Adds a message, also beyond the bound: for what must not be lost and is bounded elsewhere.
  @inlinable package func post(_ message: Message) {
    contents.withLock { contents in
      contents.messages.append(message)
      if contents.wakeUp == .needed { wake(&contents) }
    }
  }

  /// Adds messages behind one another, with nobody's between them.
  @inlinable package func post(contentsOf messages: [Message]) {
    if messages.isEmpty { return }
    contents.withLock { contents in
      contents.messages.append(contentsOf: messages)
      if contents.wakeUp == .needed { wake(&contents) }
    }
  }

  /// Adds a message, or returns false if as many as the bound wait.
  @inlinable package func tryPost(_ message: Message) -> Bool {
    contents.withLock { contents in
      guard contents.messages.count < bound else { return false }
      contents.messages.append(message)
      if contents.wakeUp == .needed { wake(&contents) }
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
    contents.withLock { contents in
      guard contents.messages.isEmpty else { return false }
      if contents.wakeUp == .unneeded { contents.wakeUp = .needed }
      return true
    }
  }

  @inlinable func swapOut(into messages: inout [Message], then wakeUp: WakeUp) {
    // What the receiver has dealt with is released here, not under the lock, and its room serves
    // for the next messages.
    messages.removeAll(keepingCapacity: true)
    contents.withLock { contents in
      if contents.wakeUp == .sent { clear() }
      contents.wakeUp = wakeUp
      swap(&contents.messages, &messages)
    }
  }

  /// Under the lock, so that the descriptor is readable exactly while `wakeUp` says so.
  @usableFromInline func wake(_ contents: inout Contents) {
    event.signal()
    contents.wakeUp = .sent
  }

  @usableFromInline func clear() { event.clear() }
}
