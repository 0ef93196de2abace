// The client's background thread: one loop over one connection. It finds the leader and stays with
// it (+Leader), keeps the session (+Session), carries publishes (+Publishing), deliveries and
// settlements (+Consuming) and requests (+Requests). Only this thread touches what is here; tasks
// talk to it through `ClientShared`.

import Base
import Transport
import Wire

final class ClientLoop {
  let shared: ClientShared
  let options: ClientOptions
  let poller: Poller
  let pool = BufferPool()
  /// This turn's reading of the clock.
  var now = MonotonicClock.now()
  var isFinished = false

  // The connection and the way to the leader.
  var leader = LeaderSearch()
  var connection: Connection?
  var nextToken: UInt64 = 1
  /// What a frame made necessary, to be done when parsing has ended: the connection's bytes are
  /// borrowed until then.
  var move: Move?
  var pingSent: MonotonicTime?
  var silence: NodeSilence
  /// When something was last on its way to the node, which drops whoever says nothing.
  var lastSendTime = MonotonicTime.zero
  let connectDeadline: MonotonicTime
  /// That of the last leader, and that of the connected node.
  var cluster: UInt64?
  var connectedCluster: UInt64?

  // Requests.
  var nextRequest: UInt64 = 1
  var requests: [UInt64: PendingRequest] = [:]
  /// Ids of requests that this connection has not been sent, ascending.
  var unsentRequests: [UInt64] = []
  var requestRetryTime = MonotonicTime.zero
  /// The client's own requests on this connection.
  var ownRequests: [UInt64: OwnRequest] = [:]

  // The session.
  var session = SessionState.none
  var isSessionWanted = false
  var sessionWaiters: [(promise: Promise<StagedSettle.Outcome>, deadline: MonotonicTime)] = []
  /// One was opened, at any time.
  var hadSession = false
  /// Why the leader opens none.
  var sessionRefusal: SkeinError?
  var sessionRetryTime = MonotonicTime.zero
  var closing: Closing?

  // Publishes.
  var publishes = PublishQueue()
  var taken: [PublishChunk] = []
  /// Answers of this turn.
  var answers: [PublishAnswerRun] = []

  // Consumers and settlements.
  var consumers: [UInt32: ConsumerEntry] = [:]
  /// Ended while tasks had deliveries of theirs: they are taken up again with the session.
  var retired: [UInt32: ConsumerCore] = [:]
  /// Ended, and not yet known to be gone from the session.
  var endedConsumers: [UInt32: EndedConsumer] = [:]
  /// No subscription begins or ends before: the node pushed back.
  var consumerRetryTime = MonotonicTime.zero
  var settles = SettleQueue()
  /// Of the last session: with it the next one goes on with the producer.
  var producerEpoch = ProducerEpoch.none
  /// The last try to open a session.
  var openAttempt = OpenAttempt(client: .random(in: 1 ... .max), count: 0)

  /// Starts the loop on its own thread.
  static func start(_ shared: ClientShared) throws(SkeinError) {
    do throws(ErrorNumber) {
      _ = try WorkerThread(name: "skein-client") {
        do throws(ErrorNumber) {
          try ClientLoop(shared).run()
        } catch {
          shared.connected.keep(
            .failure(.outOfResources("no descriptor to wait for events: \(error)")))
          shared.ended.keep(())
        }
      }
    } catch {
      shared.ended.keep(())
      throw .outOfResources("no thread for the client: \(error)")
    }
  }

  private init(_ shared: ClientShared) throws(ErrorNumber) {
    self.shared = shared
    options = shared.options
    silence = NodeSilence(pingInterval: options.pingInterval.nanoseconds)
    poller = try Poller()
    try poller.add(shared.mailbox.descriptor, token: 0, interest: .read)
    connectDeadline = now + options.timeout.nanoseconds
    leader.begin(addresses: shared.endpoints, backoff: options.backoffMin.nanoseconds, now: now)
  }

  private func run() {
    var events: [PollEvent] = []
    var commands: [LoopCommand] = []
    var timer = now
    while !isFinished {
      let isIdle = shared.mailbox.maySleep()
      poller.wait(timeout: isIdle ? untilTimer(timer) : .zero, into: &events)
      now = MonotonicClock.now()
      for event in events where event.token != 0 { handle(event) }
      shared.mailbox.takeAwake(into: &commands)
      for command in commands { handle(command) }
      takePublishes()
      timer = runTimers()
      pump()
      reportAnswers()
      flush()
      advanceClosing()
    }
    end()
  }

  private func untilTimer(_ timer: MonotonicTime) -> Nanoseconds? {
    timer == .never ? nil : timer.since(MonotonicClock.now())
  }

  private func handle(_ command: LoopCommand) {
    switch command {
    case .published: break
    case .settles(let core): stageSettles(of: core)
    case .flushSettles(let core, let promise):
      stageSettles(of: core)
      settles.whenAnswered(core.id, promise)
    case .request(let request): add(request)
    case .addConsumer(let core, let promise): add(core, promise)
    case .endConsumer(let core): endConsumer(core)
    case .openSession(let promise):
      isSessionWanted = true
      if case .open = session {
        promise.keep(.success(()))
      } else {
        sessionWaiters.append((promise, now + options.timeout.nanoseconds))
      }
    case .close(let promise, let limit): beginClosing(promise, within: limit)
    case .abandon: isFinished = true
    }
  }

  /// Everything that has its time; returns when the next is due.
  private func runTimers() -> MonotonicTime {
    var next = runLeaderTimers()
    next = min(next, runRequestTimers())
    next = min(next, runPublishTimers())
    next = min(next, runConsumerTimers())
    next = min(next, shared.book.timeOutSpace(now: now))
    if let closing {
      next = min(next, now < closing.idleDeadline ? closing.idleDeadline : closing.deadline)
      if closing.retryTime > now { next = min(next, closing.retryTime) }
    }
    return next
  }

  /// Sends what the connection has not been sent, as far as it takes it.
  private func pump() {
    guard leader.phase == .ready else { return }
    pumpSession()
    pumpRequests()
    guard case .open = session else { return }
    pumpConsumers()
    pumpExtensions()
    pumpPublishes()
    pumpSettles()
  }

  /// Fails everything that is left, for whoever still waits.
  private func end() {
    connection?.close()
    connection = nil
    shared.connected.keep(.failure(.closed))
    failAll()
    shared.ended.keep(())
    // Who posted before `ended` was kept is answered here, who does so later sees it.
    var commands: [LoopCommand] = []
    shared.mailbox.take(into: &commands)
    for command in commands { handle(command) }
    failAll()
  }

  private func failAll() {
    shared.book.fail(.closed)
    publishes.removeAll()
    for request in requests.values { request.request.promise.keep(.failure(.closed)) }
    requests = [:]
    for waiter in sessionWaiters { waiter.promise.keep(.failure(.closed)) }
    sessionWaiters = []
    for entry in consumers.values {
      entry.promise?.keep(.failure(.closed))
      entry.core.end(.closed)
      failStaged(entry.core.takeStaged(), .closed)
    }
    consumers = [:]
    // What is settled later finds its session gone, for nobody would take it.
    for core in retired.values { failStaged(core.beginSession(), .closed) }
    retired = [:]
    settles.failAll(.requestUnknown("the settlement"))
    for promise in closing?.promises ?? [] { promise.keep(()) }
    closing = nil
  }
}

// The connection.
extension ClientLoop {
  /// Frames that the client takes: deliver frames and replies with whole messages.
  static let frameBytesMax = 64 << 20

  private func handle(_ event: PollEvent) {
    guard let connection, connection.token == event.token else { return }
    if leader.phase == .connecting {
      finishConnecting(connection)
      return
    }
    if event.isReadable {
      read(connection)
    } else if event.isBroken {
      drop("the connection broke")
    }
  }

  private func read(_ connection: Connection) {
    let outcome = connection.read(now: now)
    if case .read = outcome {
      pingSent = nil
      parse(connection)
    }
    if let move {
      self.move = nil
      carryOut(move)
      return
    }
    switch outcome {
    case .read, .wouldBlock: break
    case .full: drop("a frame is too large")
    case .closed: drop("the node closed the connection")
    case .failed(let error): drop("the connection broke: \(error)")
    }
  }

  private func parse(_ connection: Connection) {
    let unread = connection.unread
    var offset = 0
    do throws(FrameError) {
      while move == nil {
        let rest = UnsafeRawBufferPointer(rebasing: unread[offset...])
        guard let view = try FrameDecoder.next(in: rest, limit: Self.frameBytesMax) else { break }
        try handle(view)
        offset += view.byteCount
      }
    } catch {
      move = .drop(Self.text(of: error, unread: unread))
    }
    let needed = FrameDecoder.bytesNeeded(
      for: UnsafeRawBufferPointer(rebasing: unread[offset...]))
    connection.consume(offset)
    if move == nil, needed > 64 << 10, needed <= connection.unreadMax {
      connection.expect(needed)
    }
  }

  /// A node that refuses us at once, or a stranger, answers by a line of text.
  private static func text(of error: FrameError, unread: UnsafeRawBufferPointer) -> String {
    let start = unread.prefix(200)
    if start.starts(with: "skein:".utf8) || start.starts(with: "HTTP/".utf8) {
      let line = start.prefix { $0 != 13 && $0 != 10 }
      return "it says: \(String(decoding: line, as: UTF8.self))"
    }
    return error.description
  }

  private func handle(_ view: FrameView) throws(FrameError) {
    let frame = try ServerFrame(decoding: view)
    switch frame {
    case .helloReply(let reply):
      ownRequests[view.request.rawValue] = nil
      handleHello(reply)
    case .pong: ownRequests[view.request.rawValue] = nil
    case .leaderChanged(_, let address): handleLeaderChanged(address)
    case .membersChanged(let addresses): handleMembers(addresses)
    case .refused(let refusal, let detail, let leader):
      handleRefused(view.request, refusal, detail: detail, leader: leader)
    case .sessionOpened(let id, let lastSequence, let epoch):
      ownRequests[view.request.rawValue] = nil
      handleSessionOpened(id, lastSequence: lastSequence, epoch: epoch)
    case .sessionAttached(let id, let lastSequence, let settledThrough):
      ownRequests[view.request.rawValue] = nil
      handleSessionAttached(id, lastSequence: lastSequence, settledThrough: settledThrough)
    case .sessionEnded(let id, _): handleSessionEnded(id)
    case .producerFenced: handleFenced()
    case .confirmed(let first, let count, let message, let copies):
      noteAnswer(
        first: first.rawValue, count: Int(count), result: .success(message), copies: copies)
    case .publishRefused(let first, let count, let refusal, let detail):
      handlePublishRefused(first: first.rawValue, count: Int(count), refusal, detail: detail)
    case .deliver(let deliver): handleDeliver(deliver, payload: view.payload)
    case .settled(let through): settles.answered(through: through.rawValue)
    case .settleRefused(let sequence, let consumer, let range, let refusal):
      handleSettleRefused(sequence, consumer, range, refusal)
    case .consumerCancelled(let consumer, let refusal):
      handleConsumerCancelled(consumer, refusal)
    case .holding(let consumer, let through, let ranges):
      core(of: consumer)?.keepOnly(ranges, through: through)
    case .lapsed(let consumer, let ranges): core(of: consumer)?.lapse(ranges)
    default:
      guard let reply = RequestReply(frame) else { return }
      handleReply(view.request, reply)
    }
  }

  /// Queues a frame; false if the connection takes no more now.
  func send(_ frame: ClientFrame, request: RequestID = .none) -> Bool {
    guard let connection, connection.hasRoom else { return false }
    return connection.write { frame.encode(request: request, into: &$0) }
  }

  /// Sends one of the client's own requests.
  func ask(_ frame: ClientFrame, _ own: OwnRequest) -> Bool {
    let id = nextRequest
    guard send(frame, request: RequestID(id)) else { return false }
    nextRequest += 1
    ownRequests[id] = own
    return true
  }

  func flush() {
    guard let connection, leader.phase != .connecting else { return }
    let unsentBytes = connection.pendingBytes
    if unsentBytes > 0 { lastSendTime = now }
    let outcome = connection.flush(now: now)
    silence.noteFlush(before: unsentBytes, after: connection.pendingBytes, now: now)
    switch outcome {
    case .flushed: connection.setInterest(.read, poller: poller)
    case .blocked: connection.setInterest([.read, .write], poller: poller)
    case .failed(let error): drop("the connection broke: \(error)")
    }
  }
}

/// Away from the connected node.
enum Move {
  /// Give the connection up and try the next node.
  case drop(String)
  /// Go where the leader is said to be.
  case follow(String)
}

/// The client's own requests, answered to the loop itself.
enum OwnRequest {
  case hello
  case ping
  case openSession
  case attachSession
  case closeSession
  case subscribe(ConsumerID)
  case unsubscribe(ConsumerID)
}

extension MonotonicTime {
  static var zero: MonotonicTime { MonotonicTime(rawValue: 0) }
}
