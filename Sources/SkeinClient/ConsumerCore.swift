// What a consumer's tasks and the loop share: deliveries on their way to the tasks, settlements on
// their way to the cluster. One lock, crossed once per deliver frame by the loop, and once per
// batch (taking) or message (settling) by the tasks.

import Base
import Synchronization
import Transport
import Wire

/// What to do with a delivery.
enum SettleAction: Hashable, Sendable {
  case acknowledge
  case retry(error: String, delay: Nanoseconds?)
  case reject(error: String)
  case release
  case extend(Nanoseconds)

  var endsDelivery: Bool {
    if case .extend = self { false } else { true }
  }
}

/// Settlements of one consumer that are the same but for the deliveries.
struct StagedSettle: Sendable {
  typealias Outcome = Result<Void, SkeinError>

  var action: SettleAction
  /// In the order of the calls; neighbours joined.
  var ranges: [DeliveryRange]
  /// Who waits, and for which deliveries.
  var waiters: [(range: DeliveryRange, promise: Promise<Outcome>)] = []
}

final class ConsumerCore: Sendable {
  typealias Outcome = Result<Void, SkeinError>

  fileprivate enum Hold {
    case held
    /// A transaction that is under way settles it.
    case taken
    /// The same, and the cluster says that it is not held any more: because of the transaction,
    /// whose answer has not come, or because its lease is over.
    case takenAndGone
    case lapsed
  }

  fileprivate struct State {
    /// Deliveries that no task has taken yet, from `inboxHead` on.
    var inbox: [Delivery] = []
    var inboxHead = 0
    var waiters: [Promise<Void>] = []
    /// Deliveries that are not settled, by number.
    var holds = IntegerMap<Hold>()
    /// The last delivery that came, 0 for none.
    var received: UInt64 = 0
    /// The number of the session: deliveries of an earlier one have lapsed.
    var generation: UInt64 = 0
    var staged: [StagedSettle] = []
    var isScheduled = false
    /// The answer to the last extension of all that is held.
    var extending: Promise<Outcome>?
    /// The last delivery that it, or what was asked for since, names.
    var extendingThrough: UInt64 = 0
    /// Settlements without waiting that failed since the last flush, at most `failuresMax`.
    var failures: [SettleFailure] = []
    /// Set when nothing more comes; `.some(nil)` is the normal end.
    var end: SkeinError??
  }

  static let failuresMax = 1000
  /// Lapsed deliveries remembered, so that settling one says so.
  fileprivate static let lapsedMax = 65536

  let id: ConsumerID
  let queue: String
  let queueID: QueueID
  let credit: UInt32
  let priority: Int16
  let isExclusive: Bool
  /// Whose consumer it is.
  weak let client: SkeinClient?
  private let mailbox: Mailbox<LoopCommand>
  private let onFailure: (@Sendable (SettleFailure) -> Void)?
  private let state = Mutex(State())

  init(
    id: ConsumerID, queue: String, queueID: QueueID, credit: UInt32, priority: Int16 = 0,
    isExclusive: Bool = false, client: SkeinClient?, mailbox: Mailbox<LoopCommand>,
    onFailure: (@Sendable (SettleFailure) -> Void)?
  ) {
    self.priority = priority
    self.isExclusive = isExclusive
    self.client = client
    self.id = id
    self.queue = queue
    self.queueID = queueID
    self.credit = credit
    self.mailbox = mailbox
    self.onFailure = onFailure
  }
}

// For tasks.
extension ConsumerCore {
  /// Up to `limit` deliveries, waiting for the first. Empty when nothing more comes.
  func take(limit: Int) async throws(SkeinError) -> [Delivery] {
    while true {
      let step = state.withLock { state -> Result<Step, SkeinError> in state.take(limit: limit) }
      switch try step.get() {
      case .deliveries(let deliveries): return deliveries
      case .end: return []
      case .wait(let promise):
        await promise.value(whenCancelled: ())
        guard !Task.isCancelled else {
          state.withLock { state in state.waiters.removeAll { $0 === promise } }
          return []
        }
      }
    }
  }

  fileprivate enum Step {
    case deliveries([Delivery])
    case wait(Promise<Void>)
    case end
  }

  func settle(_ delivery: Delivery, _ action: SettleAction) async throws(SkeinError) {
    let promise = Promise<Outcome>()
    try stage(delivery, action, promise)
    try await promise.value(whenCancelled: .failure(.cancelled)).get()
  }

  func settleSoon(_ delivery: Delivery, _ action: SettleAction) {
    do throws(SkeinError) {
      try stage(delivery, action, nil)
    } catch {
      // Whoever prolongs leases beside the work may be late: that harms nobody.
      if error == .alreadySettled, !action.endsDelivery { return }
      report([SettleFailure(deliveries: delivery.number...delivery.number, error: error)])
    }
  }

  /// Asks for more time for all that is held here, whether a task has taken it yet or a transaction
  /// settles it. Not for what it is asked for already: where nobody answers, what is asked every few
  /// seconds would pile up, and the request that waits counts from when it is answered.
  func extendAllSoon(by duration: Nanoseconds) {
    let wakesLoop = state.withLock { state -> Bool in
      if case .some(.some) = state.end { return false }
      let isOpen = state.extending.map { !$0.isKept } ?? false
      let asked = isOpen ? state.extendingThrough : 0
      var isAny = false
      for number in state.holds.sortedKeys where number > asked {
        switch state.holds[number] {
        case .held, .taken:
          state.stage(DeliveryID(number), .extend(duration), nil)
          state.extendingThrough = number
          isAny = true
        case .takenAndGone, .lapsed, nil: break
        }
      }
      guard isAny else { return false }
      if !isOpen {
        let promise = Promise<Outcome>()
        state.extending = promise
        // Of no delivery: what comes too late is told like that of others who do not wait.
        state.staged[state.staged.count - 1].waiters.append((DeliveryRange.none, promise))
      }
      return state.schedule()
    }
    if wakesLoop { mailbox.post(.settles(self)) }
  }

  /// Whether it can still be settled, as far as is known here.
  func isHeld(_ delivery: Delivery) -> Bool {
    state.withLock { state in state.fault(of: delivery) == nil }
  }

  /// Takes back what a task took and did not look at: the next to ask gets it, else the cluster.
  func putBack(_ deliveries: ArraySlice<Delivery>) {
    let (woken, wakesLoop) = state.withLock { state in state.putBack(deliveries) }
    for promise in woken { promise.keep(()) }
    if wakesLoop { mailbox.post(.settles(self)) }
  }

  /// For tests: holds these as if they had been delivered here.
  func adopt(_ deliveries: [Delivery]) {
    state.withLock { state in
      for delivery in deliveries { state.holds.insert(.held, for: delivery.number) }
    }
  }

  /// For tests: whether a transaction settles it and nothing has been heard of it since.
  func isHeldForTransaction(_ delivery: Delivery) -> Bool {
    state.withLock { state in
      if case .taken = state.holds[delivery.number] { true } else { false }
    }
  }

  /// For tests: tasks that wait for deliveries.
  var waiterCount: Int { state.withLock { $0.waiters.count } }

  /// Takes a delivery out of the tasks' hands: a transaction will settle it.
  func take(_ delivery: Delivery) throws(SkeinError) {
    let fault = state.withLock { state -> SkeinError? in
      if let fault = state.fault(of: delivery) { return fault }
      state.holds.insert(.taken, for: delivery.number)
      return nil
    }
    if let fault { throw fault }
  }

  /// The transaction was refused, or nobody will say what became of it. What has lapsed meanwhile
  /// stays so.
  func giveBack(_ delivery: Delivery) {
    state.withLock { state in
      guard delivery.generation == state.generation else { return }
      switch state.holds[delivery.number] {
      case .taken: state.holds.insert(.held, for: delivery.number)
      case .takenAndGone: state.noteLapsed(delivery.number)
      case .held, .lapsed, nil: break
      }
    }
  }

  /// The transaction was carried out: the delivery is settled.
  func finish(_ delivery: Delivery) {
    state.withLock { state in
      if delivery.generation == state.generation { state.holds.remove(delivery.number) }
    }
  }

  /// Whether a task has one of these that is not settled, also if its lease is over: whoever asked
  /// for more time must hear of that.
  func hasUnsettled(_ range: DeliveryRange) -> Bool {
    let first = max(1, range.first.rawValue)
    guard first <= range.last.rawValue else { return false }
    return state.withLock { state in
      if range.last.rawValue - first < UInt64(state.holds.count) {
        return (first...range.last.rawValue).contains { state.isUnsettled($0) }
      }
      return state.holds.sortedKeys.contains {
        first <= $0 && $0 <= range.last.rawValue && state.isUnsettled($0)
      }
    }
  }

  private func stage(
    _ delivery: Delivery, _ action: SettleAction, _ promise: Promise<Outcome>?
  ) throws(SkeinError) {
    let result = state.withLock { state -> Result<Bool, SkeinError> in
      if let fault = state.fault(of: delivery, whenTaken: action.endsDelivery) {
        return .failure(fault)
      }
      if action.endsDelivery { state.holds.remove(delivery.number) }
      state.stage(delivery.delivery, action, promise)
      return .success(state.schedule())
    }
    if try result.get() { mailbox.post(.settles(self)) }
  }

  /// Acknowledges everything up to `delivery` that a task has taken and not settled.
  func acknowledge(upTo delivery: Delivery) async throws(SkeinError) {
    let promise = Promise<Outcome>()
    let result = state.withLock { state -> Result<Bool?, SkeinError> in
      guard delivery.generation == state.generation else { return .failure(.leaseLost) }
      if case .some(.some(let error)) = state.end { return .failure(error) }
      return .success(state.stageAcknowledge(upTo: delivery.number, promise))
    }
    guard let wake = try result.get() else { return }
    if wake { mailbox.post(.settles(self)) }
    try await promise.value(whenCancelled: .failure(.cancelled)).get()
  }

  func takeFailures() -> [SettleFailure] {
    state.withLock { state in
      let failures = state.failures
      state.failures = []
      return failures
    }
  }
}

extension ConsumerCore.State {
  fileprivate func isUnsettled(_ number: UInt64) -> Bool {
    switch holds[number] {
    case .held, .lapsed: true
    case .taken, .takenAndGone, nil: false
    }
  }

  /// Why the delivery cannot be settled.
  ///
  /// - Parameter whenTaken: whether it is a fault that a transaction settles it. More time for it can
  ///   be asked for all the same: it may be long until the transaction is carried out.
  fileprivate func fault(of delivery: Delivery, whenTaken: Bool = true) -> SkeinError? {
    guard delivery.generation == generation else { return .leaseLost }
    switch holds[delivery.number] {
    case .held: break
    case .lapsed: return .leaseLost
    // The transaction may be why it is gone: whoever prolongs leases beside it has missed nothing.
    case .takenAndGone: return whenTaken ? .leaseLost : .alreadySettled
    case .taken: if whenTaken { return .alreadySettled }
    case nil: return .alreadySettled
    }
    if case .some(.some(let error)) = end { return error }
    return nil
  }

  fileprivate mutating func take(limit: Int) -> Result<ConsumerCore.Step, SkeinError> {
    let ready = inbox.count - inboxHead
    if ready > 0 {
      if inboxHead == 0, ready <= limit {
        var taken: [Delivery] = []
        swap(&taken, &inbox)
        return .success(.deliveries(taken))
      }
      let end = inboxHead + min(ready, max(1, limit))
      let taken = Array(inbox[inboxHead..<end])
      inboxHead = end
      if inboxHead == inbox.count { clearInbox() }
      return .success(.deliveries(taken))
    }
    switch end {
    case .some(.some(let error)): return .failure(error)
    case .some(nil): return .success(.end)
    case nil:
      let promise = Promise<Void>()
      waiters.append(promise)
      return .success(.wait(promise))
    }
  }

  /// Returns who waited for deliveries, and whether the loop must be told.
  fileprivate mutating func putBack(
    _ deliveries: ArraySlice<Delivery>
  ) -> (woken: [Promise<Void>], wakesLoop: Bool) {
    let returned = deliveries.filter { delivery in
      guard delivery.generation == generation else { return false }
      if case .held = holds[delivery.number] { return true } else { return false }
    }
    if returned.isEmpty { return ([], false) }
    guard end == nil else {
      for delivery in returned {
        holds.remove(delivery.number)
        stage(delivery.delivery, .release, nil)
      }
      return ([], schedule())
    }
    inbox = (returned + inbox[inboxHead...]).sorted { $0.number < $1.number }
    inboxHead = 0
    let woken = waiters
    waiters = []
    return (woken, false)
  }

  fileprivate mutating func clearInbox() {
    inbox.removeAll()
    inboxHead = 0
  }

  fileprivate mutating func stage(
    _ delivery: DeliveryID, _ action: SettleAction, _ promise: Promise<StagedSettle.Outcome>?
  ) {
    let own = DeliveryRange(first: delivery, last: delivery)
    if staged.last?.action != action {
      staged.append(StagedSettle(action: action, ranges: []))
    }
    let last = staged.count - 1
    if let range = staged[last].ranges.last, range.last.next == delivery {
      staged[last].ranges[staged[last].ranges.count - 1].last = delivery
    } else {
      staged[last].ranges.append(own)
    }
    if let promise { staged[last].waiters.append((own, promise)) }
  }

  /// nil if there was nothing to acknowledge, else whether the loop must be told.
  fileprivate mutating func stageAcknowledge(
    upTo number: UInt64, _ promise: Promise<StagedSettle.Outcome>
  ) -> Bool? {
    var unread = inboxHead
    var span: DeliveryRange?
    for held in holds.sortedKeys where held <= number {
      // Both are ordered.
      while unread < inbox.count, inbox[unread].number < held { unread += 1 }
      if unread < inbox.count, inbox[unread].number == held { continue }
      guard case .held = holds[held] else { continue }
      holds.remove(held)
      let delivery = DeliveryID(held)
      stage(delivery, .acknowledge, nil)
      span = DeliveryRange(first: span?.first ?? delivery, last: delivery)
    }
    guard let span else { return nil }
    staged[staged.count - 1].waiters.append((span, promise))
    return schedule()
  }

  /// Whether the loop must be told.
  fileprivate mutating func schedule() -> Bool {
    defer { isScheduled = true }
    return !isScheduled
  }

  fileprivate mutating func lapse(_ number: UInt64) {
    guard holds.contains(number) else { return }
    if case .taken = holds[number] {
      holds.insert(.takenAndGone, for: number)
    } else if case .takenAndGone = holds[number] {
      return
    } else {
      noteLapsed(number)
    }
  }

  fileprivate mutating func noteLapsed(_ number: UInt64) {
    if holds.count > ConsumerCore.lapsedMax {
      holds.remove(number)
    } else {
      holds.insert(.lapsed, for: number)
    }
  }
}

// For the loop.
extension ConsumerCore {
  /// The session's deliveries in one frame. What came before (as a repetition) is left out.
  func receive(_ view: DeliverySource, in session: SessionID) {
    let woken = state.withLock { state in
      view.forEachMessage { header, range in
        guard header.delivery.rawValue > state.received else { return }
        state.received = header.delivery.rawValue
        state.holds.insert(.held, for: header.delivery.rawValue)
        state.inbox.append(
          Delivery(
            core: self, frame: view.bytes, record: range, delivery: header.delivery,
            generation: state.generation, session: session, granted: header.granted,
            id: MessageIdentifier(header.message),
            attempt: Int(header.attempt), token: header.token.rawValue,
            isRedelivered: header.isRedelivery, lease: Duration(header.lease)))
      }
      let woken = state.waiters
      state.waiters = []
      return woken
    }
    for promise in woken { promise.keep(()) }
  }

  /// The last delivery that came.
  var received: DeliveryID { DeliveryID(state.withLock { $0.received }) }

  /// Whether a task has deliveries that it may still settle.
  var hasHolds: Bool { state.withLock { !$0.holds.isEmpty } }

  /// What was staged, alike settlements joined but for those with an extension between them: of one
  /// delivery that must not come behind its end.
  func takeStaged() -> [StagedSettle] {
    let staged = state.withLock { state in
      let staged = state.staged
      state.staged = []
      state.isScheduled = false
      return staged
    }
    if staged.count <= 1 { return staged }
    var places: [SettleAction: Int] = [:]
    var joined: [StagedSettle] = []
    for settle in staged {
      if !settle.action.endsDelivery {
        let isAsLast = joined.last?.action == settle.action
        places = isAsLast ? [settle.action: joined.count - 1] : [:]
      }
      if let place = places[settle.action] {
        joined[place].ranges.append(contentsOf: settle.ranges)
        joined[place].waiters.append(contentsOf: settle.waiters)
      } else {
        places[settle.action] = joined.count
        joined.append(settle)
      }
    }
    return joined
  }

  /// Of the deliveries up to `through`, the cluster holds exactly `ranges` for this consumer.
  func keepOnly(_ ranges: [DeliveryRange], through: DeliveryID) {
    state.withLock { state in
      for number in state.holds.sortedKeys where number <= through.rawValue {
        let isHeld = ranges.contains { $0.first.rawValue <= number && number <= $0.last.rawValue }
        if !isHeld { state.lapse(number) }
      }
      state.dropLapsedFromInbox()
    }
  }

  func lapse(_ ranges: [DeliveryRange]) {
    state.withLock { state in
      for range in ranges {
        for number in range.first.rawValue...range.last.rawValue { state.lapse(number) }
      }
      state.dropLapsedFromInbox()
    }
  }

  /// The session is gone and with it all that was delivered. Returns what was staged for it.
  func beginSession() -> [StagedSettle] {
    state.withLock { state in
      state.generation += 1
      state.extendingThrough = 0
      state.received = 0
      state.holds.removeAll()
      state.clearInbox()
      let staged = state.staged
      state.staged = []
      return staged
    }
  }

  /// Nothing more comes: with an error, or in the normal way. Returns the deliveries that no task
  /// has taken.
  @discardableResult
  func end(_ error: SkeinError?) -> [DeliveryRange] {
    let (woken, untaken) = state.withLock { state -> ([Promise<Void>], [DeliveryRange]) in
      guard state.end == nil else { return ([], []) }
      state.end = .some(error)
      let untaken = state.inbox[state.inboxHead...].map(\.delivery)
      for delivery in untaken { state.holds.remove(delivery.rawValue) }
      state.clearInbox()
      let waiters = state.waiters
      state.waiters = []
      return (waiters, untaken.map { DeliveryRange(first: $0, last: $0) })
    }
    for promise in woken { promise.keep(()) }
    return untaken
  }

  /// Settlements without waiting had no effect.
  func report(_ failures: [SettleFailure]) {
    state.withLock { state in
      for failure in failures where state.failures.count < ConsumerCore.failuresMax {
        state.failures.append(failure)
      }
    }
    if let onFailure { for failure in failures { onFailure(failure) } }
  }
}

extension ConsumerCore.State {
  fileprivate mutating func dropLapsedFromInbox() {
    if inboxHead == inbox.count { return }
    inbox = inbox[inboxHead...].filter { delivery in
      if case .held = holds[delivery.number] { true } else { false }
    }
    inboxHead = 0
  }
}

/// A deliver frame's messages, copied out of the connection's bytes once.
struct DeliverySource {
  /// Headers and records as in the frame's payload, from the consumer's id on.
  let bytes: [UInt8]
  let view: DeliverView
  private let base: UnsafeRawPointer?

  /// `payload` is the frame's, of which `view` was made.
  init(_ view: DeliverView, payload: UnsafeRawBufferPointer) {
    self.view = view
    bytes = [UInt8](payload)
    base = payload.baseAddress
  }

  func forEachMessage(_ body: (DeliveryHeader, Range<Int>) -> Void) {
    guard let base else { return }
    view.forEachMessage { header, record in
      guard let start = record.baseAddress else { return }
      let offset = start - base
      body(header, offset..<offset + record.count)
    }
  }
}
