// What clients were promised and what they saw: every message with its answers and deliveries, judged
// as it happens and at the end. A small judge of its own beside the checkers of `History`.

import Base
import QueueMachine

final class Ledger {
  enum Outcome { case open, confirmed, refused, unknown }

  struct Delivered {
    let queue: Int
    let token: FencingToken
    let id: MessageID
    let attempt: UInt32
    let granted: MachineTime
    /// The earliest end that the lease can have.
    var leaseEnd: MachineTime
    let process: Int
    let session: SessionID
    let consumer: ConsumerID
    let delivery: DeliveryID
    let isRedelivery: Bool
    /// The leader's term when it came.
    let term: Term
    var settle: SettleKind?
    var outcome = Outcome.open
    /// The consumer died, or its session is over.
    var isOver = false
  }

  struct Message {
    let queue: Int
    let process: Int
    let order: Int
    var isPublished = false
    var confirmed: MessageID?
    var refused: Refusal?
    var deliveries: [Delivered] = []
    var isSettled = false
  }

  unowned let simulation: Simulation
  private(set) var messages: [Message] = []
  private(set) var confirmedCount = 0
  /// By queue, consumer's process and number, producer: the last first delivery.
  private var lastFirst: [[Int]: Int] = [:]

  init(_ simulation: Simulation) { self.simulation = simulation }

  // MARK: Publishing

  func newMessage(queue: Int, process: Int) -> Int {
    messages.append(Message(queue: queue, process: process, order: messages.count))
    return messages.count - 1
  }

  func confirmed(_ value: Int, _ id: MessageID) {
    if let earlier = messages[value].confirmed {
      if earlier != id {
        simulation.violated("G4", "message \(value) is confirmed as \(earlier) and as \(id)")
      }
      return
    }
    messages[value].confirmed = id
    confirmedCount += 1
    for delivered in messages[value].deliveries
    where delivered.queue == messages[value].queue && delivered.id != id {
      simulation.violated(
        "G4", "message \(value) was delivered as \(delivered.id) and confirmed as \(id)")
    }
  }

  func refused(_ value: Int, _ refusal: Refusal) { messages[value].refused = refusal }

  // MARK: Delivering

  func delivered(_ value: Int, _ new: Delivered) {
    guard messages.indices.contains(value) else {
      simulation.violated("G2", "message \(value) was delivered and never published")
      return
    }
    let message = messages[value]
    let queue = simulation.plan.queues[new.queue]
    let isOwn = new.queue == message.queue
    guard isOwn || simulation.plan.queues[message.queue].settings.deadLetterQueue == queue.name
    else {
      simulation.violated("G2", "message \(value) came out of \(queue.name), where it never was")
      return
    }
    if message.refused != nil, message.confirmed == nil, message.refused?.isFinal == true {
      simulation.violated("G2", "message \(value) was refused and is delivered")
    }
    if isOwn, let id = message.confirmed, id != new.id {
      simulation.violated("G4", "message \(value), confirmed as \(id), is delivered as \(new.id)")
    }
    if queue.settings.deliveriesMax > 0, new.attempt > queue.settings.deliveriesMax {
      simulation.violated(
        "G8", "message \(value) is delivered \(new.attempt) times from \(queue.name)")
    }
    simulation.trace {
      "message \(value) as \(new.id) to process \(new.process): attempt \(new.attempt), token"
        + " \(new.token), granted \(new.granted), lease to \(new.leaseEnd)"
    }
    for old in message.deliveries { compare(value, old, new) }
    checkOrder(value, message, new)
    messages[value].deliveries.append(new)
    simulation.note(.deliveries)
    if new.attempt > 1 { simulation.note(.redeliveries) }
    if !isOwn { simulation.note(.deadLetters) }
  }

  private func compare(_ value: Int, _ old: Delivered, _ new: Delivered) {
    guard old.queue == new.queue else {
      // Out of the own queue into the dead-letter queue, never back.
      let isBack = new.queue == messages[value].queue
      if isBack, new.granted > old.granted {
        simulation.violated("G8", "message \(value) is delivered again after it was dead-lettered")
      }
      return
    }
    if old.id != new.id {
      simulation.violated(
        new.queue == messages[value].queue ? "G4" : "G8",
        "message \(value) is in its queue twice, as \(old.id) and \(new.id)")
      return
    }
    if old.token == new.token {
      if old.process != new.process || old.delivery != new.delivery {
        simulation.violated("G6", "message \(value) is delivered twice under token \(new.token)")
      }
      return
    }
    if new.token < old.token {
      // Read late from a slow connection.
      simulation.note(.lateDeliveries)
      if new.granted > old.granted || new.attempt > old.attempt {
        simulation.violated("G6", "the token of message \(value) fell to \(new.token)")
      }
      return
    }
    if new.granted < old.granted || new.attempt < old.attempt {
      simulation.violated(
        "G8", "message \(value): attempt \(new.attempt) came after attempt \(old.attempt)")
    }
    checkCause(value, old, new)
  }

  /// Every redelivery has a cause, and a change of leader is none (G6, G7).
  private func checkCause(_ value: Int, _ old: Delivered, _ new: Delivered) {
    switch (old.settle, old.outcome) {
    case (.acknowledge?, .confirmed), (.reject?, .confirmed):
      simulation.violated(
        "G3",
        "message \(value) was settled for good by process \(old.process) and is delivered again to"
          + " process \(new.process) (token \(old.token), then \(new.token))")
      return
    case (.negative?, _), (.release?, _): return
    default: break
    }
    if old.isOver || simulation.isSessionOver(old.session) { return }
    if old.leaseEnd <= new.granted { return }
    simulation.violated(
      "G6",
      "message \(value) is held by process \(old.process) (token \(old.token), lease to"
        + " \(old.leaseEnd)) and was given to process \(new.process) at \(new.granted)"
        + (old.term < new.term ? "; the leader changed between (G7)" : ""))
  }

  /// First deliveries to one consumer keep each producer's order (G5).
  private func checkOrder(_ value: Int, _ message: Message, _ new: Delivered) {
    guard new.attempt == 1, !new.isRedelivery, new.queue == message.queue else { return }
    let key = [
      new.queue, Int(truncatingIfNeeded: new.session.rawValue), Int(new.consumer.rawValue),
      message.process,
    ]
    if let last = lastFirst[key], last > message.order {
      simulation.violated("G5", "message \(value) came after message \(last) of the same producer")
    }
    lastFirst[key] = max(lastFirst[key] ?? 0, message.order)
  }

  // MARK: Settling

  private func change(
    _ value: Int, _ token: FencingToken, _ change: (inout Delivered) -> Void
  ) {
    guard let place = messages[value].deliveries.lastIndex(where: { $0.token == token })
    else { return }
    change(&messages[value].deliveries[place])
  }

  func willSettle(_ value: Int, _ token: FencingToken, _ kind: SettleKind) {
    simulation.trace { "message \(value): token \(token) to be settled: \(kind)" }
    change(value, token) { $0.settle = kind }
  }

  func settled(_ value: Int, _ token: FencingToken, _ outcome: Outcome) {
    var kind: SettleKind?
    simulation.trace { "message \(value): token \(token) settled: \(outcome)" }
    change(value, token) {
      $0.outcome = outcome
      kind = $0.settle
    }
    guard outcome == .confirmed, kind == .acknowledge || kind == .reject,
      let own = messages[value].deliveries.last(where: { $0.token == token })
    else { return }
    messages[value].isSettled = true
    for other in messages[value].deliveries where other.queue == own.queue && other.token > token {
      simulation.violated(
        "G6",
        "token \(token) of message \(value) was accepted although token \(other.token) is newer")
    }
  }

  func extended(_ value: Int, _ token: FencingToken, to least: Nanoseconds) {
    change(value, token) { $0.leaseEnd = min($0.leaseEnd, $0.granted + least) }
  }

  /// The consumer is gone, or its session: what it held may go elsewhere.
  func over(_ value: Int, _ token: FencingToken) { change(value, token) { $0.isOver = true } }

  // MARK: The end

  /// Everything was drained: what was confirmed must have come out.
  func checkEnd() {
    for (value, message) in messages.enumerated() {
      guard let id = message.confirmed else { continue }
      let settings = simulation.plan.queues[message.queue].settings
      let isGone = message.deliveries.contains { delivered in
        switch (delivered.settle, delivered.outcome) {
        case (.acknowledge?, .refused), (.reject?, .refused): false
        case (.acknowledge?, _), (.reject?, _): true
        default: false
        }
      }
      let mayBeDropped =
        settings.deadLetterQueue.isEmpty && settings.deliveriesMax > 0
        && message.deliveries.contains { $0.attempt == settings.deliveriesMax }
      guard !isGone, !mayBeDropped else { continue }
      let story = message.deliveries.map {
        "attempt \($0.attempt) token \($0.token) \($0.settle.map { "\($0)" } ?? "not settled")"
          + " \($0.outcome)"
      }
      simulation.violated(
        "G2",
        "message \(value), confirmed as \(id) in \(simulation.plan.queues[message.queue].name), is"
          + " lost; deliveries: \(story.isEmpty ? "none" : story.joined(separator: ", "))")
      return
    }
  }
}
