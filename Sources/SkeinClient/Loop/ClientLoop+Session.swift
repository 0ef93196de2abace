// The session: opened when first something is published or consumed, taken up again with each new
// leader, opened anew when the cluster has given it up.

import Base
import Transport
import Wire

enum SessionState {
  case none
  case opening
  /// There, but not on this connection.
  case detached(SessionID)
  case attaching(SessionID)
  case open(SessionID)

  /// `none` while there is none.
  var id: SessionID {
    switch self {
    case .none, .opening: .none
    case .detached(let id), .attaching(let id), .open(let id): id
    }
  }

  mutating func detach() {
    switch self {
    case .none, .opening: self = .none
    case .detached(let id), .attaching(let id), .open(let id): self = .detached(id)
    }
  }
}

/// The client is being closed: what is under way is waited for until `deadline`.
struct Closing {
  var promises: [Promise<Void>]
  let deadline: MonotonicTime
  /// With nothing under way a connection is waited for until then, to end the session.
  let idleDeadline: MonotonicTime
  /// The session's end was asked for, on this connection.
  var isSent = false
  /// It is not asked for before: the node pushed back.
  var retryTime = MonotonicTime.zero
}

extension ClientLoop {
  func pumpSession() {
    switch session {
    case .none:
      guard isSessionWanted, now >= sessionRetryTime else { return }
      // One that is being closed needs none but for what is under way.
      guard
        closing == nil || !publishes.isEmpty
          || consumers.values.contains(where: { $0.promise != nil })
      else { return }
      openAttempt = openAttempt.next
      let opened = ask(
        .openSession(
          producer: canPublish ? ProducerID(shared.book.producer) : ProducerID(0),
          epoch: canPublish ? producerEpoch : .none, attempt: openAttempt,
          timeout: options.sessionTimeout.nanoseconds, name: String(options.name.prefix(63))),
        .openSession)
      if opened { session = .opening }
    case .detached(let id):
      retired = retired.filter { $0.value.hasHolds }
      let known = (consumers.values.filter(\.isSubscribed).map(\.core) + retired.values)
        .sorted { $0.id < $1.id }
      let request = AttachRequest(
        session: id,
        consumers: known.map { .init(consumer: $0.id, received: $0.received) })
      if ask(.attachSession(request), .attachSession) { session = .attaching(id) }
    case .opening, .attaching, .open: break
    }
  }

  /// Once nothing can be published any more, what is consumed goes on without a producer.
  private var canPublish: Bool { shared.book.failure == nil }

  func handleSessionOpened(
    _ id: SessionID, lastSequence: PublishSequence, epoch: ProducerEpoch
  ) {
    session = .open(id)
    hadSession = true
    sessionRefusal = nil
    producerEpoch = epoch
    if options.producer != nil { shared.book.begin(behind: lastSequence.rawValue) }
    checkPublishes(lastSequence)
    for waiter in sessionWaiters { waiter.promise.keep(.success(())) }
    sessionWaiters = []
  }

  func handleSessionAttached(
    _ id: SessionID, lastSequence: PublishSequence, settledThrough: CommandSequence
  ) {
    session = .open(id)
    checkPublishes(lastSequence)
    if settledThrough < settles.answeredThrough { loseSessionAndConnection() }
  }

  /// The cluster must know every publish that it has answered.
  private func checkPublishes(_ lastSequence: PublishSequence) {
    guard shared.book.failure == nil else { return }
    // An answer of this same turn counts.
    reportAnswers()
    let answered = shared.book.answeredThrough
    guard lastSequence.rawValue < answered else { return }
    handleForgotten("it has answered \(answered) of them and knows \(lastSequence)")
  }

  /// Sent again, the publishes that are not answered would be refused for ever, or stored twice.
  func handleForgotten(_ what: String) {
    endPublishing(.forgotten(what))
  }

  private func endPublishing(_ error: SkeinError) {
    // An answer of this same turn counts.
    reportAnswers()
    shared.book.fail(error)
    publishes.removeAll()
  }

  /// The leader is of another cluster than those before: its queues are others, whatever their ids.
  func becomeStranger() {
    loseSession()
    let what = "the leader at \(leader.target) is of another cluster"
    handleForgotten(what)
    for entry in consumers.values {
      entry.promise?.keep(.failure(.forgotten(what)))
      entry.core.end(.forgotten(what))
    }
    consumers = [:]
    isSessionWanted = false
  }

  func handleSessionEnded(_ id: SessionID) {
    switch session {
    case .open(let own), .attaching(let own), .detached(let own):
      if own == id { loseSession() }
    case .none, .opening: break
    }
  }

  /// The cluster has given the session up: what was delivered has lapsed, what was published and
  /// not answered is sent again under its old numbers in a new session of the same producer, unless
  /// another client has taken the producer over meanwhile.
  func loseSession() {
    session = .none
    settles.failAll(.requestUnknown("the settlement"))
    settles = SettleQueue()
    endedConsumers = [:]
    publishes.sendAgain()
    for core in retired.values { failStaged(core.beginSession(), .leaseLost) }
    retired = [:]
    for id in consumers.keys.sorted() {
      guard let core = consumers[id]?.core else { continue }
      consumers[id]?.isSubscribed = false
      consumers[id]?.isSubscribeSent = false
      failStaged(core.beginSession(), .leaseLost)
    }
  }

  /// The node has another view of the session than this client: both begin anew.
  func loseSessionAndConnection() {
    loseSession()
    move = move ?? .drop("it does not know the session")
  }

  /// A later client has the producer: nothing that is not answered can be published any more.
  func handleFenced() {
    endPublishing(.producerFenced)
  }

  func beginClosing(_ promise: Promise<Void>, within limit: Nanoseconds) {
    let deadline = min(closing?.deadline ?? .never, now + limit)
    closing = Closing(
      promises: (closing?.promises ?? []) + [promise], deadline: deadline,
      idleDeadline: min(closing?.idleDeadline ?? .never, min(deadline, now + .seconds(1))),
      isSent: closing?.isSent ?? false)
  }

  func handleCloseRefused(_ refusal: Refusal) {
    guard refusal == .overloaded || refusal == .tooManyUnanswered else {
      isFinished = true
      return
    }
    closing?.isSent = false
    closing?.retryTime = now + .milliseconds(20)
  }

  /// Ends the session once nothing is under way, then the loop.
  func advanceClosing() {
    guard let closing, !isFinished else { return }
    if now >= closing.deadline {
      isFinished = true
      return
    }
    guard publishes.isEmpty, settles.isEmpty, requests.isEmpty, !closing.isSent,
      !consumers.values.contains(where: { $0.promise != nil })
    else { return }
    switch session {
    case .none, .opening: isFinished = true
    case .detached, .attaching:
      // What consumers hold would else count as failed once the cluster gives the session up.
      let holds = !consumers.isEmpty || !retired.isEmpty || !endedConsumers.isEmpty
      isFinished = !holds && now >= closing.idleDeadline
    case .open:
      guard now >= closing.retryTime, ask(.closeSession, .closeSession) else { return }
      self.closing?.isSent = true
      flush()
    }
  }
}
