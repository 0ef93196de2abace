// Requests of tasks: sent to the leader, again after a lost connection, answered or timed out.

import Base
import Wire

struct PendingRequest {
  let request: ClientRequest
  let deadline: MonotonicTime
  /// How often it was sent.
  var attempts = 0
}

extension ClientLoop {
  func add(_ request: ClientRequest) {
    let id = nextRequest
    nextRequest += 1
    requests[id] = PendingRequest(
      request: request, deadline: now + options.timeout.nanoseconds)
    if leader.phase == .ready { unsentRequests.append(id) }
  }

  func pumpRequests() {
    guard !unsentRequests.isEmpty, now >= requestRetryTime else { return }
    var sent = 0
    var unanswered = requests.count - unsentRequests.count
    for id in unsentRequests {
      // A node refuses more than it is willing to keep in mind for one connection.
      guard unanswered < Self.requestsInFlightMax else { break }
      guard let pending = requests[id] else {
        sent += 1
        continue
      }
      guard let connection, connection.hasRoom else { break }
      var frame = pending.request.frame
      frame.patch(id, at: 8)
      guard connection.append(frame) else { break }
      requests[id]?.attempts += 1
      unanswered += 1
      sent += 1
    }
    unsentRequests.removeFirst(sent)
  }

  /// Requests of either kind that wait for the node's answers at once.
  static let requestsInFlightMax = 256

  /// Handing the leadership to anybody is done when the leader is lost: asked again, the next one
  /// would hand it on.
  func finishTransfers() {
    for (id, pending) in requests
    where pending.request.isDoneWithLeader && pending.attempts > 0 {
      requests[id] = nil
      pending.request.promise.keep(.success(.done(0)))
    }
  }

  func handleReply(_ request: RequestID, _ reply: RequestReply) {
    if let own = ownRequests.removeValue(forKey: request.rawValue) {
      handleOwnReply(own)
      return
    }
    // One that timed out meanwhile is not there any more.
    requests.removeValue(forKey: request.rawValue)?.request.promise.keep(.success(reply))
  }

  private func handleOwnReply(_ own: OwnRequest) {
    switch own {
    case .subscribe(let consumer): handleSubscribed(consumer)
    case .closeSession: isFinished = true
    case .unsubscribe(let consumer): endedConsumers[consumer.rawValue] = nil
    case .hello, .ping, .openSession, .attachSession: break
    }
  }

  func handleRefused(_ request: RequestID, _ refusal: Refusal, detail: String, leader: String) {
    if request == .none {
      move = .drop(detail.isEmpty ? "it refused the connection: \(refusal)" : detail)
      return
    }
    if let own = ownRequests.removeValue(forKey: request.rawValue) {
      handleOwnRefused(own, refusal, detail: detail, leader: leader)
      return
    }
    guard let pending = requests[request.rawValue] else { return }
    switch refusal {
    case .notLeader, .shuttingDown, .noQuorum:
      // It stays where it is and is sent to the next leader.
      leaveLeader(leader, because: refusal)
    case .overloaded:
      requestRetryTime = now + .milliseconds(50)
      unsentRequests.append(request.rawValue)
    case pending.request.refusalWhenRepeated where pending.attempts > 1:
      requests[request.rawValue] = nil
      pending.request.promise.keep(.success(.done(0)))
    case pending.request.unknownWhenRepeated where pending.attempts > 1:
      requests[request.rawValue] = nil
      pending.request.promise.keep(.failure(.requestUnknown("\(pending.request.kind)")))
    default:
      requests[request.rawValue] = nil
      pending.request.promise.keep(.failure(.refusal(refusal, detail: detail)))
    }
  }

  private func handleOwnRefused(
    _ own: OwnRequest, _ refusal: Refusal, detail: String, leader: String
  ) {
    switch refusal {
    case .notLeader, .shuttingDown, .noQuorum:
      leaveLeader(leader, because: refusal)
      return
    default: break
    }
    switch own {
    case .openSession: handleOpenRefused(refusal, detail: detail)
    case .attachSession:
      if refusal == .sessionNotFound {
        loseSession()
      } else {
        move = .drop("it refused the session: \(refusal)")
      }
    case .subscribe(let consumer): handleSubscribeRefused(consumer, refusal, detail: detail)
    case .closeSession: handleCloseRefused(refusal)
    case .hello: move = .drop("it refused: \(refusal) \(detail)")
    case .unsubscribe(let consumer): handleUnsubscribeRefused(consumer, refusal)
    case .ping: break
    }
  }

  private func handleOpenRefused(_ refusal: Refusal, detail: String) {
    session = .none
    if refusal == .producerFenced {
      // The numbers may be another client's publishes by now.
      handleFenced()
      return
    }
    if refusal == .producerForgotten {
      handleForgotten("it had no session for longer than the cluster remembers producers")
      return
    }
    sessionRetryTime = now + .milliseconds(100)
    let error = SkeinError.refusal(refusal, detail: detail)
    sessionRefusal = error
    takeBackPublishes(error)
    guard refusal != .overloaded else { return }
    for waiter in sessionWaiters { waiter.promise.keep(.failure(error)) }
    sessionWaiters = []
  }

  func runRequestTimers() -> MonotonicTime {
    var next = MonotonicTime.never
    if !unsentRequests.isEmpty, requestRetryTime > now { next = requestRetryTime }
    if case .none = session, isSessionWanted, sessionRetryTime > now {
      next = min(next, sessionRetryTime)
    }
    sessionWaiters.removeAll { waiter in
      guard now >= waiter.deadline else {
        next = min(next, waiter.deadline)
        return false
      }
      waiter.promise.keep(
        .failure(.timedOut("no leader opened a session in time: \(leader.report)")))
      return true
    }
    for (id, pending) in requests {
      if pending.request.promise.isKept {
        requests[id] = nil
      } else if now >= pending.deadline {
        requests[id] = nil
        let name = "\(pending.request.kind)"
        pending.request.promise.keep(
          .failure(
            pending.attempts == 0 || pending.request.isRead
              ? .timedOut("no leader answered \(name) in time: \(leader.report)")
              : .requestUnknown(name)))
      } else {
        next = min(next, pending.deadline)
      }
    }
    return next
  }
}

extension ClientRequest {
  /// It changes nothing, so that its outcome does not matter.
  var isRead: Bool {
    switch kind {
    case .resolveQueue, .publishOutcome, .listQueues, .showQueue, .peek, .status, .memberList,
      .listAccess:
      true
    default: false
    }
  }
}
