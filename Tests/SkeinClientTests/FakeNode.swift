// A scripted node on a real loopback socket: it answers the usual frames by itself, records all
// that it is sent, and says what a test tells it to. It has no queues and no log.

import Base
import Synchronization
import Testing
import Transport
import Wire

@testable import SkeinClient

/// A frame that a client sent, with its bytes.
struct Received: Sendable {
  let connection: UInt64
  let kind: FrameKind
  let request: RequestID
  let payload: [UInt8]

  /// Reads the frame. What `body` returns must not hold on to borrowed bytes.
  func read<Result>(_ body: (ClientFrame) throws -> Result) throws -> Result {
    try payload.withUnsafeBytes {
      try body(
        try ClientFrame(decoding: FrameView(kind: kind, request: request, payload: $0)))
    }
  }

  /// Of a publish: its first sequence and the messages' bodies as text.
  func publish() throws -> (first: UInt64, answeredThrough: UInt64, bodies: [String]) {
    try read { frame in
      guard case .publish(let view) = frame else { throw WrongFrame(kind: kind) }
      var bodies: [String] = []
      var offset = 0
      while offset < view.run.count {
        let size = MessageRecord.size(in: view.run, at: offset)
        let record = UnsafeRawBufferPointer(rebasing: view.run[offset..<offset + size])
        bodies.append(String(decoding: try MessageRecord.parts(of: record).body, as: UTF8.self))
        offset += size
      }
      #expect(bodies.count == view.count)
      return (view.first.rawValue, view.answeredThrough.rawValue, bodies)
    }
  }

  func settle() throws -> SettleRequest {
    try read { frame in
      guard case .settle(let request) = frame else { throw WrongFrame(kind: kind) }
      return request
    }
  }
}

struct WrongFrame: Error {
  let kind: FrameKind
}

final class FakeNode: Sendable {
  struct Script: Sendable {
    var id = NodeID(1)
    /// 0: knows none.
    var leader = NodeID(1)
    var leaderAddress = ""
    var addresses: [String] = []
    var window: UInt32 = 65_536
    var messageBytesMax: UInt32 = 1 << 20
    var frameBytesMax: UInt32 = 4 << 20
    /// What it knows of the producer's publishes and of the session's settlements.
    var lastSequence: UInt64 = 0
    var settledThrough: UInt64 = 0
    var cluster: UInt64 = 1
    /// As if another client had taken every producer over.
    var refusesEpochs = false
    /// Why it opens no session, if it does not.
    var sessionRefusal: Refusal?
    /// Answers nothing at all, like a stopped process.
    var isSilent = false
    /// Sent instead of any answer, like a stranger on the port.
    var greeting: [UInt8]?
    /// Kinds that the test answers itself.
    var manual: Set<FrameKind> = []
    /// Sessions that may be attached to; others are refused.
    var sessions: Set<UInt64> = []
    var nextSession: UInt64 = 100

    mutating func note(_ frame: ServerFrame) {
      switch frame {
      case .confirmed(let first, let count, _, _):
        lastSequence = max(lastSequence, first.rawValue + UInt64(count) - 1)
      case .publishRefused(let first, let count, .queueFull, _),
        .publishRefused(let first, let count, .queueNotFound, _):
        lastSequence = max(lastSequence, first.rawValue + UInt64(count) - 1)
      case .settled(let through): settledThrough = max(settledThrough, through.rawValue)
      default: break
      }
    }
  }

  private enum Command: Sendable {
    case send(UInt64?, [UInt8])
    case closeConnections
    case stop
  }

  /// A test that waits for a frame.
  private struct Waiter {
    var number: Int
    var kind: FrameKind
    var continuation: CheckedContinuation<Received, any Error>
  }

  private struct Inbox {
    var frames: [Received] = []
    var waiters: [Waiter] = []
    var nextWaiter = 0
  }

  let address: String
  private let mailbox: Mailbox<Command>
  private let inbox = Mutex(Inbox())
  private let script: Mutex<Script>
  private let listenerBox: Mutex<Listener?>

  init(_ script: Script = Script()) throws {
    let listener = try Listener(.loopback(port: 0))
    address = listener.address.description
    mailbox = try Mailbox()
    self.script = Mutex(script)
    nonisolated(unsafe) let moved = listener
    listenerBox = Mutex(moved)
    _ = try WorkerThread(name: "fake-node") { [mailbox, weak self] in
      do {
        guard let self else { return }
        let loop = try FakeLoop(node: self, mailbox: mailbox)
        try loop.run()
      } catch {
        Issue.record("the fake node broke: \(error)")
      }
    }
  }

  deinit { mailbox.post(.stop) }

  /// Changes what it answers from now on.
  func change(_ change: @Sendable (inout Script) -> Void) { script.withLock { change(&$0) } }

  var known: Script { script.withLock { $0 } }

  /// Says something on the newest connection, or on that of a request.
  func send(_ frame: ServerFrame, to received: Received? = nil) {
    script.withLock { $0.note(frame) }
    var bytes: [UInt8] = []
    frame.encode(request: received?.request ?? .none, into: &bytes)
    mailbox.post(.send(received?.connection, bytes))
  }

  func deliver(_ consumer: UInt32, _ messages: [(UInt64, String)], attempt: UInt32 = 1) {
    var bytes: [UInt8] = []
    var encoder = DeliverEncoder(ConsumerID(consumer), into: &bytes)
    for (number, body) in messages {
      var record: [UInt8] = []
      MessageRecord.append(
        MessageParts(body: Array(body.utf8), headers: [("h", [7])], key: "k"), to: &record)
      let header = DeliveryHeader(
        delivery: DeliveryID(number), token: FencingToken(number + 1000),
        message: MessageID(number << 20), lease: .seconds(30),
        granted: MachineTime(rawValue: 1), attempt: attempt, isRedelivery: attempt > 1)
      record.withUnsafeBytes { encoder.append(header, record: $0, to: &bytes) }
    }
    encoder.finish(in: &bytes)
    mailbox.post(.send(nil, bytes))
  }

  func closeConnections() { mailbox.post(.closeConnections) }
  /// Closes its listener and connections, like a killed process.
  func stop() { mailbox.post(.stop) }

  /// The oldest recorded frame of a kind, waiting for it; others stay recorded. Throws
  /// `CancellationError` when the test's time is up.
  func take(_ kind: FrameKind) async throws -> Received {
    let number = inbox.withLock { inbox in
      inbox.nextWaiter += 1
      return inbox.nextWaiter
    }
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        let found = inbox.withLock { inbox -> Result<Received, any Error>? in
          if let place = inbox.frames.firstIndex(where: { $0.kind == kind }) {
            return .success(inbox.frames.remove(at: place))
          }
          if Task.isCancelled { return .failure(CancellationError()) }
          inbox.waiters.append(Waiter(number: number, kind: kind, continuation: continuation))
          return nil
        }
        if let found { continuation.resume(with: found) }
      }
    } onCancel: {
      let waiter = inbox.withLock { inbox in
        inbox.waiters.firstIndex { $0.number == number }.map { inbox.waiters.remove(at: $0) }
      }
      waiter?.continuation.resume(throwing: CancellationError())
    }
  }

  /// How many of a kind are recorded and not taken.
  func count(_ kind: FrameKind) -> Int {
    inbox.withLock { inbox in inbox.frames.count { $0.kind == kind } }
  }

  fileprivate func record(_ received: Received) {
    let waiter = inbox.withLock { inbox -> Waiter? in
      if let place = inbox.waiters.firstIndex(where: { $0.kind == received.kind }) {
        return inbox.waiters.remove(at: place)
      }
      inbox.frames.append(received)
      return nil
    }
    waiter?.continuation.resume(returning: received)
  }

  /// What it answers by itself.
  fileprivate func answer(_ received: Received) throws -> [UInt8] {
    var bytes: [UInt8] = []
    try script.withLock { script in
      if script.isSilent { return }
      if let greeting = script.greeting {
        bytes = greeting
        return
      }
      guard !script.manual.contains(received.kind),
        let frame = try Self.usual(received, &script)
      else { return }
      frame.encode(request: received.request, into: &bytes)
    }
    return bytes
  }

  private static func usual(_ received: Received, _ script: inout Script) throws -> ServerFrame? {
    switch received.kind {
    case .hello:
      return .helloReply(
        HelloReply(
          cluster: script.cluster, node: script.id, leader: script.leader,
          leaderAddress: script.leaderAddress,
          addresses: script.addresses, version: "fake", messageBytesMax: script.messageBytesMax,
          frameBytesMax: script.frameBytesMax, publishWindow: script.window, creditMax: 65_535))
    case .ping: return .pong
    case .openSession:
      if let refusal = script.sessionRefusal {
        return .refused(refusal, detail: "1000", leader: "")
      }
      let epoch = try received.read { frame -> ProducerEpoch in
        guard case .openSession(_, let epoch, _, _, _) = frame else {
          throw WrongFrame(kind: .openSession)
        }
        return epoch
      }
      guard epoch == .none || !script.refusesEpochs else {
        return .refused(.producerFenced, detail: "", leader: "")
      }
      let session = SessionID(script.nextSession)
      script.nextSession += 1
      script.sessions.insert(session.rawValue)
      return .sessionOpened(
        session: session, lastSequence: PublishSequence(script.lastSequence),
        epoch: ProducerEpoch(session.rawValue + 1_000))
    case .attachSession:
      let session = try received.read { frame -> SessionID in
        guard case .attachSession(let request) = frame else {
          throw WrongFrame(kind: .attachSession)
        }
        return request.session
      }
      guard script.sessions.contains(session.rawValue) else {
        return .refused(.sessionNotFound, detail: "", leader: "")
      }
      return .sessionAttached(
        session: session, lastSequence: PublishSequence(script.lastSequence),
        settledThrough: CommandSequence(script.settledThrough))
    case .resolveQueue: return .queueReply(queue: QueueID(1), isNew: false)
    case .subscribe, .unsubscribe, .closeSession: return .done(count: 0)
    default: return nil
    }
  }

  /// The node's thread.
  private final class FakeLoop {
    let node: FakeNode
    let mailbox: Mailbox<Command>
    let poller: Poller
    let pool = BufferPool()
    var listener: Listener?
    var connections: [UInt64: (Connection, hasPreamble: Bool)] = [:]
    var newest: UInt64 = 1

    init(node: FakeNode, mailbox: Mailbox<Command>) throws {
      self.node = node
      self.mailbox = mailbox
      poller = try Poller()
      let moved = node.listenerBox.withLock { box -> Listener? in
        nonisolated(unsafe) let listener = box
        box = nil
        return listener
      }
      listener = moved
      try poller.add(mailbox.descriptor, token: 0, interest: .read)
      if let listener { try poller.add(listener.descriptor, token: 1, interest: .read) }
    }

    func run() throws {
      var events: [PollEvent] = []
      var commands: [Command] = []
      while true {
        poller.wait(timeout: nil, into: &events)
        let now = MonotonicClock.now()
        for event in events {
          switch event.token {
          case 0: break
          case 1: try accept(now)
          default: try read(event.token, now)
          }
        }
        mailbox.take(into: &commands)
        for command in commands {
          switch command {
          case .send(let token, let bytes):
            _ = connections[token ?? newest]?.0.append(bytes)
          case .closeConnections: closeAll(now)
          case .stop:
            closeAll(now)
            return
          }
        }
        for (connection, _) in connections.values { _ = connection.flush(now: now) }
      }
    }

    private func closeAll(_ now: MonotonicTime) {
      for (connection, _) in connections.values {
        _ = connection.flush(now: now)
        connection.close()
      }
      connections = [:]
    }

    private func accept(_ now: MonotonicTime) throws {
      guard let listener else { return }
      var accepted: [Connection] = []
      _ = listener.accept(limit: 16, pool: pool, now: now, into: &accepted)
      for connection in accepted {
        newest += 1
        try connection.register(with: poller, token: newest, interest: .read)
        connections[newest] = (connection, false)
      }
    }

    private func read(_ token: UInt64, _ now: MonotonicTime) throws {
      guard let (connection, hasPreamble) = connections[token] else { return }
      switch connection.read(now: now) {
      case .read: break
      case .wouldBlock, .full: return
      case .closed, .failed:
        connection.close()
        connections[token] = nil
        return
      }
      if !hasPreamble {
        guard connection.unreadBytes >= Preamble.byteCount else { return }
        #expect(connection.withUnread { Preamble(reading: $0) } == .client)
        connection.consume(Preamble.byteCount)
        connections[token] = (connection, true)
      }
      while connection.unreadBytes > 0 {
        guard let view = try FrameDecoder.next(in: connection.unread, limit: 8 << 20) else {
          return
        }
        let received = Received(
          connection: token, kind: view.kind, request: view.request, payload: [UInt8](view.payload))
        connection.consume(view.byteCount)
        let answer = try node.answer(received)
        if !answer.isEmpty { _ = connection.append(answer) }
        node.record(received)
      }
    }
  }
}

extension ClientOptions {
  /// Short enough for tests, long enough for a busy machine.
  static var quick: ClientOptions {
    var options = ClientOptions()
    options.timeout = .seconds(20)
    options.attemptTimeout = .seconds(5)
    options.backoffMin = .milliseconds(1)
    options.backoffMax = .milliseconds(5)
    return options
  }

  /// With a time that is soon up, but not before an answer arrives on a machine with other things to
  /// do.
  static var hasty: ClientOptions {
    var options = quick
    options.timeout = .seconds(3)
    return options
  }
}

/// Two nodes that know each other, the first of which leads.
struct Pair {
  let first: FakeNode
  let second: FakeNode

  init() throws {
    first = try FakeNode()
    second = try FakeNode()
    let (one, two) = (first.address, second.address)
    first.change {
      $0.id = NodeID(1)
      $0.leader = NodeID(1)
      $0.leaderAddress = one
      $0.addresses = [one, two]
    }
    second.change {
      $0.id = NodeID(2)
      $0.leader = NodeID(1)
      $0.leaderAddress = one
      $0.addresses = [one, two]
    }
  }

  /// The second leads; it knows the sessions unless told otherwise.
  func failOver(keepingSessions: Bool = true, forgettingPublishes: Bool = false) {
    let two = second.address
    let known = first.known
    second.change {
      // At once with the rest: the client may be there before this returns.
      $0.lastSequence = forgettingPublishes ? 0 : known.lastSequence
      $0.settledThrough = keepingSessions ? known.settledThrough : 0
      $0.leader = NodeID(2)
      $0.leaderAddress = two
      if keepingSessions { $0.sessions = [100, 101, 102] }
      $0.nextSession = 200
    }
    first.stop()
  }

  func connect(_ options: ClientOptions = .quick) async throws -> SkeinClient {
    try await SkeinClient.connect(endpoints: [first.address], options: options)
  }
}

/// Lets others go on until it is so, or the test is over.
func until(_ isSo: @autoclosure () -> Bool) async throws {
  while !isSo() {
    try Task.checkCancellation()
    await Task.yield()
  }
}
