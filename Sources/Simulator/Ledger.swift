// What clients asked for, were promised and saw, as it happens. It writes the history that the
// checkers of `History` judge at the end of every run, and judges at once what those do not:
// attempts that only grow, deliveries over the limit, cancelled and rescheduled messages.

import Base
import History
import QueueMachine

final class Ledger {
  enum Outcome { case confirmed, refused, unknown }

  /// A message as it was published.
  struct Published {
    let queue: Int
    /// Of one that goes to several, which have the same bytes of it.
    var otherQueues: [Int] = []
    let process: Int
    var key: String?
    var priority: Int?
    var delay: Nanoseconds?
    var timeToLive: Nanoseconds?

    var queues: [Int] { [queue] + otherQueues }
  }

  struct Delivered {
    let queue: Int
    let token: FencingToken
    let id: MessageID
    let attempt: UInt32
    let granted: MachineTime
    let leaseEnd: MachineTime
    let holder: String
    let session: SessionID
    let isRedelivery: Bool
    /// Its holder has asked to settle or to extend it.
    var isSettled = false
  }

  struct Message {
    let published: Published
    var confirmed: MessageID?
    var deliveries: [Delivered] = []
    /// A cancel was confirmed: the message waited then and is gone.
    var isCancelled = false
    /// After a confirmed reschedule: not in anybody's hands before.
    var dueAt: UInt64 = 0
    /// The earliest time that any reschedule asked for: of several the first may come last.
    var earliestAsked = UInt64.max
    /// The newest stamp when the client heard of either. A delivery granted by then may have been on
    /// its way since before, and have lapsed.
    var changedAt = MachineTime.zero
    /// The transactions that published and settled it, by their numbers.
    var publishedBy: Int?
    var settledBy: [Int] = []
    var failures: [AskedFailure] = []
    /// The newest stamp when its producer was told that the queue has it no more.
    var goneAt: MachineTime?
  }

  unowned(unsafe) let simulation: Simulation
  var messages: [Message] = []
  var transactions: [Transaction] = []
  var counts: Counts
  /// What was kept with messages that were given up, as they came out.
  var deadLetters: [DeadLetter] = []
  /// Queues from which anything may have been purged.
  private var purgedQueues: Set<Int> = []
  /// What was given up may have got other ids.
  private(set) var hasRedriven = false
  private var recorder = HistoryRecorder()
  /// Consumers whose end is recorded.
  private var ended: Set<String> = []

  init(_ simulation: Simulation) {
    self.simulation = simulation
    counts = Counts(queues: simulation.plan.queues.count)
  }

  private func name(_ queue: Int) -> String { simulation.plan.queues[queue].name }

  private static func value(_ message: Int) -> String { "m\(message)" }

  private static func producer(_ process: Int) -> String { "p\(process)" }

  /// A span by the queues' clock that has passed at least by the time this much of real time has:
  /// nodes' clocks may run fast.
  private func leastSpan(_ span: Nanoseconds) -> UInt64 {
    let drift = UInt64(simulation.plan.driftPPM) + 1
    let slack = span.rawValue / 1_000_000 * drift + 100_000
    return span.rawValue > slack ? span.rawValue - slack : 0
  }

  // MARK: Queues

  func declared(_ queue: Int) {
    let settings = simulation.plan.queues[queue].settings
    let operation = HistoryOperation.declare(name(queue))
    recorder.invoke(operation, by: "operator", at: simulation.now)
    recorder.ok(
      operation, by: "operator", at: simulation.now,
      settings: HistoryQueueSettings(
        deadLetter: settings.deadLetterQueue.isEmpty ? nil : settings.deadLetterQueue,
        retryDelay: settings.retryDelay == .zero ? nil : leastSpan(settings.retryDelay),
        retryMax: settings.retryDelayMax == .zero ? nil : leastSpan(settings.retryDelayMax),
        retryJitterBillionths: UInt64(settings.retryJitterPermille) * 1_000_000,
        maxDeliveries: settings.deliveriesMax == 0 ? nil : UInt64(settings.deliveriesMax),
        lease: settings.lease.rawValue,
        priorities: settings.priorities > 1 ? UInt64(settings.priorities) : nil,
        keyed: settings.keyLimit == 0 ? nil : UInt64(settings.keyLimit),
        timeToLive: settings.timeToLive == .zero ? nil : leastSpan(settings.timeToLive)))
  }

  // MARK: Publishing

  func newMessage(_ published: Published) -> Int {
    messages.append(Message(published: published))
    made(published)
    let number = messages.count - 1
    for queue in published.queues {
      recorder.invoke(
        HistoryOperation.publish(
          Self.value(number), to: name(queue), delay: published.delay.map(leastSpan),
          timeToLive: published.timeToLive.map(leastSpan), key: published.key,
          priority: published.priority), by: Self.producer(published.process),
        at: simulation.now)
    }
    return number
  }

  func confirmed(_ value: Int, _ id: MessageID) {
    if let earlier = messages[value].confirmed {
      if earlier != id {
        simulation.violated("G4", "message \(value) is confirmed as \(earlier) and as \(id)")
      }
      return
    }
    messages[value].confirmed = id
    for (copy, queue) in messages[value].published.queues.enumerated() {
      recorder.ok(
        .publish(Self.value(value), to: name(queue)), by: producer(of: value),
        at: simulation.now, id: "\(MessageID(rawValue: id.rawValue + UInt64(copy)))")
    }
  }

  func refused(_ value: Int, _ refusal: Refusal) {
    for queue in messages[value].published.queues {
      gone(value, from: queue)
      recorder.fail(
        .publish(Self.value(value), to: name(queue)), by: producer(of: value),
        at: simulation.now, error: "\(refusal)")
    }
  }

  // MARK: Delivering

  /// - Parameter value: one that was published.
  func delivered(_ value: Int, _ new: Delivered) {
    for old in messages[value].deliveries
    where !ended.contains(old.holder) && simulation.checks.sessions.isOver(old.session) {
      over(old.holder)
    }
    simulation.trace {
      "message \(value) as \(new.id) of \(name(new.queue)) to \(new.holder): attempt"
        + " \(new.attempt), token \(new.token), lease"
        + " \(Simulation.seconds(new.leaseEnd.since(new.granted).rawValue)) s"
    }
    recorder.deliver(
      HistoryDelivery(
        queue: name(new.queue), value: Self.value(value), token: new.token.rawValue,
        attempt: new.attempt, lease: new.leaseEnd.since(new.granted).rawValue,
        granted: new.granted.rawValue, id: "\(new.id)"), to: new.holder, at: simulation.now)
    // One that was read late may have been given to others before its lease was over.
    if simulation.checks.sessions.isOver(new.session) { over(new.holder) }
    judge(value, new)
    judgeLeases(value, new)
    judgeTransactions(value, new)
    messages[value].deliveries.append(new)
    note(value, new)
  }

  private func note(_ value: Int, _ new: Delivered) {
    simulation.note(.deliveries)
    if new.attempt > 1 { simulation.note(.redeliveries) }
    if !messages[value].published.queues.contains(new.queue) { simulation.note(.deadLetters) }
    if messages[value].published.delay != nil { simulation.note(.delayedDeliveries) }
  }

  private func judge(_ value: Int, _ new: Delivered) {
    let message = messages[value]
    let settings = simulation.plan.queues[new.queue].settings
    if settings.deliveriesMax > 0, new.attempt > settings.deliveriesMax {
      simulation.violated(
        "G8", "message \(value) is delivered \(new.attempt) times from \(name(new.queue))")
    }
    for old in message.deliveries where old.queue == new.queue && old.id == new.id {
      if new.token < old.token { simulation.note(.lateDeliveries) }
      let isLater = old.token < new.token
      if isLater != (old.granted <= new.granted) && old.granted != new.granted
        || isLater && new.attempt < old.attempt || !isLater && new.attempt > old.attempt
      {
        simulation.violated(
          "G8",
          "message \(value): attempt \(new.attempt), token \(new.token), granted \(new.granted) came"
            + " after attempt \(old.attempt), token \(old.token), granted \(old.granted)")
      }
    }
    guard new.queue == message.published.queue, new.attempt == 1, !new.isRedelivery,
      new.granted > message.changedAt
    else { return }
    if let goneAt = message.goneAt, new.id == message.confirmed, new.granted > goneAt {
      simulation.violated(
        "answers are true",
        "message \(value) was said to be gone from \(name(new.queue)) and is delivered from there")
    }
    // In nobody's hands before, so what was confirmed of it while it waited must hold.
    if message.isCancelled {
      simulation.violated("G3", "message \(value) was cancelled and is delivered")
    }
    // A copy that a redrive made of it, having been given up, is another one.
    if simulation.now < message.dueAt, new.id == message.confirmed {
      simulation.violated("G9", "message \(value) was rescheduled and is delivered before its time")
    }
  }

  // MARK: Settling

  private func settlement(
    _ value: Int, _ delivery: Delivered, _ kind: SettleKind?, delay: Nanoseconds? = nil,
    lease: Nanoseconds? = nil, error: String? = nil
  ) -> HistoryOperation {
    let queue = name(delivery.queue)
    let token = delivery.token.rawValue
    return switch kind {
    case .acknowledge: .ack(Self.value(value), of: queue, token: token)
    case .negative:
      .nack(
        Self.value(value), of: queue, token: token, delay: delay.map(leastSpan), error: error)
    case .reject: .reject(Self.value(value), of: queue, token: token)
    case .release: .release(Self.value(value), of: queue, token: token)
    case nil:
      .extend(Self.value(value), of: queue, token: token, lease: lease.map(leastSpan))
    }
  }

  /// - Parameters:
  ///   - kind: nil for an extension.
  ///   - lease: how long the extension asks for.
  func willSettle(
    _ value: Int, _ delivery: Delivered, _ kind: SettleKind?, delay: Nanoseconds?,
    lease: Nanoseconds, error: String
  ) {
    simulation.trace {
      "message \(value): token \(delivery.token) to be settled: \(kind.map { "\($0)" } ?? "extend")"
    }
    noteSettled(value, delivery)
    noteFailure(value, delivery, kind, error: error)
    recorder.invoke(
      settlement(
        value, delivery, kind, delay: delay, lease: lease, error: error.isEmpty ? nil : error),
      by: delivery.holder, at: simulation.now)
  }

  /// - Parameter error: why it was refused.
  func settled(
    _ value: Int, _ delivery: Delivered, _ kind: SettleKind?, _ outcome: Outcome,
    lease: Nanoseconds? = nil, error: String? = nil
  ) {
    simulation.trace {
      "message \(value): token \(delivery.token) settled (\(kind.map { "\($0)" } ?? "extend")):"
        + " \(outcome)"
    }
    let operation = settlement(value, delivery, kind)
    switch outcome {
    case .confirmed:
      if kind == .acknowledge { gone(value, from: delivery.queue) }
      failureConfirmed(value, delivery, kind)
      recorder.ok(
        operation, by: delivery.holder, at: simulation.now,
        lease: kind == nil ? lease.map(leastSpan) : nil)
    case .refused:
      recorder.fail(operation, by: delivery.holder, at: simulation.now, error: error)
    case .unknown: recorder.info(operation, by: delivery.holder, at: simulation.now)
    }
  }

  // MARK: Other orders

  func willCancel(_ value: Int) {
    recorder.invoke(cancel(value), by: producer(of: value), at: simulation.now)
  }

  func cancelled(_ value: Int, _ outcome: Outcome) {
    if outcome == .confirmed {
      messages[value].isCancelled = true
      gone(value, from: messages[value].published.queue)
      messages[value].changedAt = simulation.checks.newestClock
    }
    complete(cancel(value), by: producer(of: value), outcome)
  }

  func saidToBeGone(_ value: Int) {
    messages[value].goneAt = messages[value].goneAt ?? simulation.checks.newestClock
  }

  private func cancel(_ value: Int) -> HistoryOperation {
    .cancel(Self.value(value), in: queue(of: value))
  }

  private func producer(of value: Int) -> String {
    Self.producer(messages[value].published.process)
  }

  func willReschedule(_ value: Int, delay: Nanoseconds) {
    simulation.trace { "message \(value) is to be put off by \(delay)" }
    let asked = simulation.now + leastSpan(delay)
    messages[value].earliestAsked = min(messages[value].earliestAsked, asked)
    recorder.invoke(
      .reschedule(Self.value(value), in: queue(of: value), delay: leastSpan(delay)),
      by: producer(of: value), at: simulation.now)
  }

  func rescheduled(_ value: Int, _ outcome: Outcome) {
    simulation.trace { "message \(value) put off: \(outcome)" }
    if outcome == .confirmed {
      messages[value].dueAt = messages[value].earliestAsked
      messages[value].changedAt = simulation.checks.newestClock
    }
    complete(
      .reschedule(Self.value(value), in: queue(of: value), delay: 0), by: producer(of: value),
      outcome)
  }

  private func queue(of value: Int) -> String { name(messages[value].published.queue) }

  func willRedrive(_ queue: Int, by process: Int) {
    hasRedriven = true
    recorder.invoke(
      .redrive(from: name(queue)), by: Self.producer(process), at: simulation.now)
  }

  func redriven(_ queue: Int, by process: Int, _ outcome: Outcome) {
    complete(.redrive(from: name(queue)), by: Self.producer(process), outcome)
  }

  func willPurge(_ queue: Int, by process: Int) {
    purgedQueues.insert(queue)
    recorder.invoke(.purge(name(queue)), by: Self.producer(process), at: simulation.now)
  }

  /// Whether what was in a queue may be gone without anybody having got it, from there or from where its
  /// dead letters go.
  func mayBePurged(from queue: Int) -> Bool {
    let deadLetters = simulation.plan.queues[queue].settings.deadLetterQueue
    return purgedQueues.contains(queue)
      || purgedQueues.contains { simulation.plan.queues[$0].name == deadLetters }
  }

  func purged(_ queue: Int, by process: Int, _ outcome: Outcome) {
    complete(.purge(name(queue)), by: Self.producer(process), outcome)
  }

  private func complete(
    _ operation: HistoryOperation, by process: String, _ outcome: Outcome
  ) {
    switch outcome {
    case .confirmed: recorder.ok(operation, by: process, at: simulation.now)
    case .refused: recorder.fail(operation, by: process, at: simulation.now)
    case .unknown: recorder.info(operation, by: process, at: simulation.now)
    }
  }

  // MARK: Ends of lives

  /// The consumer's process died.
  func killed(_ holder: String) {
    if ended.insert(holder).inserted { recorder.clientKill(holder, at: simulation.now) }
  }

  /// The consumer's session is over: what it held may go elsewhere.
  func over(_ holder: String) {
    guard ended.insert(holder).inserted else { return }
    recorder.sessionEnd(
      holder, timeout: leastSpan(simulation.plan.sessionTimeout), at: simulation.now)
  }

  func leaderChanged(to node: SimulatedNode) {
    recorder.leaderChange(to: "\(node)", at: simulation.now)
  }

  // MARK: The end

  /// Everything was drained: what was confirmed must have come out.
  func drained() {
    let names = Set(simulation.plan.queues.map(\.settings.deadLetterQueue))
    let queues = simulation.plan.queues.map(\.name)
    // Dead letters after the queues that they come from.
    for queue in queues.filter({ !names.contains($0) }) + queues.filter({ names.contains($0) }) {
      recorder.invoke(.drain(queue), by: "operator", at: simulation.now)
      recorder.ok(.drain(queue), by: "operator", at: simulation.now)
    }
  }

  /// The run ended at a broken promise: the history up to there is for whoever looks into it.
  func stopped() { simulation.keepHistory(recorder.takeBytes()) }

  /// The verdict of the history's checkers, redeliveries after a change of leader not allowed.
  func judge() {
    judgeWholeTransactions()
    judgeDeadLetters()
    let bytes = recorder.takeBytes()
    simulation.keepHistory(bytes)
    let verdict: Verdict
    do {
      var checker = Checker(try History.parse(bytes), isStrict: true)
      verdict = checker.judge()
    } catch {
      return simulation.violated("history", "the history cannot be read: \(error)")
    }
    for violation in verdict.violations where violation.count > 0 {
      simulation.violated(
        violation.kind.promise,
        "\(violation.kind.name): \(violation.ids.joined(separator: ", "))\n"
          + violation.witness.prefix(24).joined(separator: "\n"))
    }
    if verdict.validity == .unknown, !messages.isEmpty {
      simulation.violated("history", verdict.unknownReasons.joined(separator: "; "))
    }
  }
}

extension ViolationKind {
  /// What it breaks.
  fileprivate var promise: String {
    switch self {
    case .lost, .unexpected: "G2"
    case .resurrected: "G3"
    case .heldTwice, .tokenRegress, .staleAccepted, .leaseCut: "G6"
    case .failoverDuplicate: "G7"
    case .early: "G9"
    case .outOfOrder: "G5"
    case .deadLetterDoubled, .attempts: "G8"
    case .confirmedTwice: "G4"
    }
  }
}
