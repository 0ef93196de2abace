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
  /// The session's end was asked for.
  var isSent = false
}

extension ClientLoop {
  func pumpSession() {
    switch session {
    case .none:
      guard isSessionWanted, now >= sessionRetryTime else { return }
      let opened = ask(
        .openSession(
          producer: ProducerID(shared.book.producer), timeout: options.sessionTimeout.nanoseconds,
          name: String(options.name.prefix(63))), .openSession)
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

  func handleSessionOpened(_ id: SessionID, lastSequence: PublishSequence) {
    session = .open(id)
    if options.producer != nil { shared.book.begin(behind: lastSequence.rawValue) }
    for waiter in sessionWaiters { waiter.keep(.success(())) }
    sessionWaiters = []
  }

  func handleSessionAttached(_ id: SessionID) {
    session = .open(id)
  }

  func handleSessionEnded(_ id: SessionID) {
    switch session {
    case .open(let own), .attaching(let own), .detached(let own):
      if own == id { loseSession() }
    case .none, .opening: break
    }
  }

  /// The cluster has given the session up: what was delivered has lapsed, what was published and
  /// not answered is sent again under its old numbers in a new session of the same producer.
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
    shared.book.fail(.producerFenced)
    publishes.removeAll()
  }

  func beginClosing(_ promise: Promise<Void>) {
    if closing == nil {
      let timeout = options.timeout.nanoseconds
      closing = Closing(
        promises: [], deadline: now + timeout, idleDeadline: now + min(timeout, .seconds(1)))
    }
    closing?.promises.append(promise)
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
    case .detached, .attaching: isFinished = now >= closing.idleDeadline
    case .open:
      guard ask(.closeSession, .closeSession) else { return }
      self.closing?.isSent = true
      flush()
    }
  }
}
