// The load: one thread, one poller, as many connections as there are producers and consumers. It
// shares the machine with the nodes that it measures, so it does as little as a client can: frames
// are written from one buffer, confirms taken as runs, deliveries compared where they landed.

import Base
import CLinux
import Glibc
import Transport
import Wire

package final class LoadLoop {
  let plan: LoadPlan
  package let book: MessageBook
  private let isCancelled: () -> Bool
  private let poller: Poller
  private let pool = BufferPool()
  private var events: [PollEvent] = []
  /// By token.
  private var lanes: [Lane] = []
  private var touched: [Lane] = []
  private var publishers: [Lane] = []
  private var consumers: [Lane] = []
  /// To the leader, for requests.
  private var control: Lane?
  /// For the status of each member.
  private var members: [Lane] = []
  /// The leader's client address.
  package private(set) var leaderAddress = ""
  private var result = LoadResult()
  /// Consumers lose their queues, as they should.
  private var isDeleting = false
  /// When something was confirmed, delivered or settled last.
  private var progress: UInt64 = 0
  private var nextPing: UInt64 = 0

  /// Clients must show themselves within the cluster's `silentConnection`.
  private static let pingPause: UInt64 = 5_000_000_000
  /// Bytes of one publish frame at most: what a reader takes at once.
  private static let publishBytes = 256 << 10
  /// How long the load sleeps at most, so that it notices an interruption.
  private static let sleepMax: UInt64 = 50_000_000

  /// - Parameter isCancelled: asked between turns.
  package init(
    _ plan: LoadPlan, seed: UInt64, isCancelled: @escaping () -> Bool
  ) throws(LoadError) {
    self.plan = plan
    self.isCancelled = isCancelled
    book = MessageBook(bodyBytes: plan.bodyBytes, seed: seed)
    do throws(ErrorNumber) {
      poller = try Poller()
    } catch {
      throw .unreachable("no poller: \(error)")
    }
    // Sleeps of a paced load end within a microsecond instead of fifty.
    skein_precise_timers()
  }

  deinit {
    for lane in lanes { lane.connection.close() }
  }

  static func now() -> UInt64 { MonotonicClock.now().rawValue }

  // MARK: Connections

  /// Finds the leader by asking `endpoints` and connects to it and to all members.
  package func connect(to endpoints: [String]) throws(LoadError) {
    let deadline = Self.now() + plan.patience.rawValue
    var reasons = ""
    while Self.now() < deadline {
      for endpoint in endpoints {
        members.removeAll()
        do throws(LoadError) {
          let lane = try open(endpoint)
          let hello = try greet(lane)
          guard !hello.leaderAddress.isEmpty else { continue }
          leaderAddress = hello.leaderAddress
          let leader = hello.leader == hello.node ? lane : try open(hello.leaderAddress)
          if leader !== lane {
            lane.connection.close()
            _ = try greet(leader)
          }
          control = leader
          for address in hello.addresses { try watch(address) }
          return
        } catch {
          if error == .cancelled { throw error }
          reasons = error.description
        }
      }
      try turn(until: Self.now() + 5_000_000)
    }
    throw .unreachable(reasons.isEmpty ? "no node knows one" : reasons)
  }

  /// Connects to a member for its status. One that is down is left out: a cluster without it is
  /// measured too.
  private func watch(_ address: String) throws(LoadError) {
    let member = try open(address)
    do throws(LoadError) {
      _ = try greet(member)
      members.append(member)
    } catch {
      member.connection.close()
      guard case .unreachable = error else { throw error }
    }
  }

  /// Addresses of the members that are up.
  package var memberAddresses: [String] { members.map(\.address) }

  private func open(_ address: String) throws(LoadError) -> Lane {
    let options = ConnectionOptions(outboundLimit: 64 << 20, unreadMax: 64 << 20)
    let connection: Connection
    do {
      guard let target = try SocketAddress.resolve(address).first else {
        throw LoadError.unreachable("\(address) has no address")
      }
      connection = try Connection.connect(
        to: target, options: options, pool: pool, now: MonotonicClock.now())
    } catch let error as LoadError {
      throw error
    } catch {
      throw .unreachable("\(address): \(error)")
    }
    let lane = Lane(connection, address: address)
    do throws(ErrorNumber) {
      try connection.register(with: poller, token: UInt64(lanes.count), interest: .write)
    } catch {
      throw .unreachable("\(address): \(error)")
    }
    lanes.append(lane)
    return lane
  }

  private func greet(_ lane: Lane) throws(LoadError) -> HelloReply {
    _ = lane.connection.append(Preamble.clientBytes)
    guard case .helloReply(let hello) = try ask(lane, .hello(client: "skein bench")) else {
      throw .protocolViolation("hello was not answered with a hello")
    }
    lane.frameBytesMax = Int(hello.frameBytesMax)
    lane.publishWindow = Int(hello.publishWindow)
    return hello
  }

  private func openSession(_ lane: Lane) throws(LoadError) {
    _ = try greet(lane)
    let producer = ProducerID(UInt64.random(in: 1 ... .max))
    let reply = try ask(
      lane, .openSession(producer: producer, timeout: .zero, name: "skein bench"))
    guard case .sessionOpened = reply else {
      throw .protocolViolation("no session, but \(reply.kind)")
    }
  }

  /// Opens the producers, which publish to `queues` in turn.
  package func openPublishers(_ queues: [QueueID]) throws(LoadError) {
    for place in 0..<plan.producers {
      let lane = try open(leaderAddress)
      try openSession(lane)
      guard plan.window <= lane.publishWindow else {
        throw .refused("a window of \(plan.window); the cluster allows \(lane.publishWindow)")
      }
      lane.publisher = PublisherState(
        queues: queues, window: plan.window, firstQueue: place * queues.count / plan.producers)
      publishers.append(lane)
    }
  }

  /// Consumers that one session may have (`limits.consumersPerSession`).
  private static let consumersPerSession = 1000
  /// What all consumers of a session may hold together, with a reserve.
  private static let creditPerSession = 200_000

  /// Subscribes `count` times to each of `queues`.
  ///
  /// - Parameter prefetch: how many messages each may hold.
  package func openConsumers(
    _ queues: [QueueID], count: Int, prefetch: Int
  ) throws(LoadError) {
    for _ in 0..<count {
      var rest = queues[...]
      while !rest.isEmpty {
        let own = rest.prefix(Self.consumersPerSession)
        rest = rest.dropFirst(own.count)
        let lane = try open(leaderAddress)
        try openSession(lane)
        lane.consumer = ConsumerState(consumers: own.count)
        consumers.append(lane)
        let credit = max(1, min(prefetch, Self.creditPerSession / own.count))
        let frames = own.enumerated().map { place, queue in
          ClientFrame.subscribe(
            consumer: ConsumerID(UInt32(place + 1)), queue: queue, credit: UInt32(credit))
        }
        _ = try askAll(lane, frames)
      }
    }
  }

  /// Ends the producers' sessions; all that they published is answered.
  package func closePublishers() throws(LoadError) { try close(&publishers) }
  /// Ends the consumers' sessions; all that they took is settled.
  package func closeConsumers() throws(LoadError) { try close(&consumers) }

  /// A session that only lost its connection would keep its consumers for a while.
  private func close(_ own: inout [Lane]) throws(LoadError) {
    let ending = own
    own.removeAll()
    for lane in ending {
      _ = try ask(lane, .closeSession)
      lane.connection.close()
    }
  }

  /// Makes queues with the usual settings.
  package func declare(_ names: [String]) throws(LoadError) -> [QueueID] {
    let frames = names.map { ClientFrame.declareQueue(name: $0, settings: QueueSettings()) }
    var queues: [QueueID] = []
    for reply in try askAll(try leader(), frames) {
      guard case .queueReply(let queue, _) = reply else {
        throw .protocolViolation("no queue, but \(reply.kind)")
      }
      queues.append(queue)
    }
    return queues
  }

  /// Removes the queues, behind everything else.
  package func delete(_ names: [String]) throws(LoadError) {
    isDeleting = true
    _ = try askAll(try leader(), names.map { .deleteQueue(name: $0) })
  }

  /// Connections that say hello and nothing else.
  package func openIdle(_ count: Int) throws(LoadError) {
    for _ in 0..<count { _ = try greet(try open(leaderAddress)) }
  }

  /// What each member says of itself.
  package func statuses() throws(LoadError) -> [NodeStatus] {
    var statuses: [NodeStatus] = []
    for lane in members {
      guard case .statusReply(let status) = try ask(lane, .status) else {
        throw .protocolViolation("status was not answered with a status")
      }
      statuses.append(status)
    }
    return statuses
  }

  /// What the leader says of itself and of its followers.
  package func leaderStatus() throws(LoadError) -> NodeStatus {
    guard case .statusReply(let status) = try ask(try leader(), .status) else {
      throw .protocolViolation("status was not answered with a status")
    }
    return status
  }

  /// Lets go of the members, for who means to stop one of them: `statuses()` has none then.
  package func closeMembers() {
    for lane in members where lane !== control { lane.connection.close() }
    members.removeAll()
  }

  private func leader() throws(LoadError) -> Lane {
    guard let control else { throw .unreachable("not connected") }
    return control
  }

  // MARK: Requests

  private func ask(_ lane: Lane, _ frame: ClientFrame) throws(LoadError) -> ServerFrame {
    try askAll(lane, [frame])[0]
  }

  /// Requests that one connection may have in flight.
  private static let requestsInFlight = 200

  private func askAll(_ lane: Lane, _ frames: [ClientFrame]) throws(LoadError) -> [ServerFrame] {
    var numbers: [UInt64] = []
    var replies: [ServerFrame] = []
    var deadline = Self.now() + plan.patience.rawValue
    while replies.count < frames.count {
      while numbers.count < frames.count, numbers.count - replies.count < Self.requestsInFlight {
        guard let number = lane.send(frames[numbers.count]) else { break }
        numbers.append(number)
        touch(lane)
      }
      try turn(until: Self.now() + Self.sleepMax)
      while replies.count < numbers.count,
        let reply = lane.replies.removeValue(forKey: numbers[replies.count])
      {
        if case .refused(let refusal, let detail, _) = reply {
          throw .refused("\(frames[replies.count].kind): \(refusal) \(detail)")
        }
        replies.append(reply)
        deadline = Self.now() + plan.patience.rawValue
      }
      if Self.now() > deadline {
        throw .stalled("\(lane.address) does not answer \(frames[replies.count].kind)")
      }
    }
    return replies
  }

  // MARK: Phases

  /// Carries out one phase, which begins with what `opening` does.
  package func run(
    _ phase: LoadPhase, opening: () throws(LoadError) -> Void = {}
  ) throws(LoadError) -> LoadResult {
    result = LoadResult()
    let start = Self.now()
    progress = start
    try opening()
    let base = book.issued
    let end = phase.timeMax.map { start + $0.rawValue } ?? .max
    let interval = phase.rate.map { 1e9 / $0 } ?? 0
    while true {
      let now = Self.now()
      let left = now < end ? phase.messages - (book.issued - base) : 0
      var wake = now + Self.sleepMax
      if left > 0 {
        if interval > 0 {
          wake = min(
            wake, pace(left, issued: book.issued - base, start, interval: interval, now: now))
        } else {
          publish(left)
        }
      }
      settle()
      if left == 0 || book.issued - base == phase.messages, isDone(phase) { break }
      let isWaiting = publishers.contains { $0.publisher?.unanswered != 0 }
      if now > progress + plan.patience.rawValue, interval == 0 || left == 0 || isWaiting {
        // What was never delivered is found lost; what was never answered is no result.
        let isAnswered =
          publishers.allSatisfy { $0.publisher?.unanswered == 0 }
          && consumers.allSatisfy { $0.consumer?.isSettled ?? true }
        if phase.drains, isAnswered { break }
        throw .stalled("no answer for \((now - progress) / 1_000_000) ms")
      }
      try turn(until: wake)
    }
    result.nanoseconds = progress - start
    result.published = book.issued - base
    return result
  }

  /// Does nothing for a while: an idle node keeps less in memory than a busy one.
  package func rest(_ time: Nanoseconds) throws(LoadError) {
    let end = Self.now() + time.rawValue
    while Self.now() < end { try turn(until: min(end, Self.now() + Self.sleepMax)) }
  }

  private func isDone(_ phase: LoadPhase) -> Bool {
    for lane in publishers where lane.publisher?.unanswered != 0 { return false }
    guard phase.drains else { return true }
    guard book.deliveredCount >= book.confirmedCount else { return false }
    return consumers.allSatisfy { $0.consumer?.isSettled ?? true }
  }

  /// Publishes of one message each that may be unanswered: the cluster keeps the answers to 4096.
  private static let singlesMax = 4000

  /// As many as the windows have room for.
  private func publish(_ limit: UInt64) {
    var left = limit
    for lane in publishers {
      while left > 0, lane.connection.hasRoom, let room = lane.publisher?.room, room > 0 {
        let count = Int(min(UInt64(min(room, frameMessages(lane))), left))
        let due = Self.now()
        lane.publisher?.publish(count, due: due, book: book, to: lane.connection)
        touch(lane)
        left -= UInt64(count)
      }
    }
  }

  private func frameMessages(_ lane: Lane) -> Int {
    let bytes = min(Self.publishBytes, lane.frameBytesMax - Frame.overheadBytes)
    return max(1, min(plan.batch, bytes / book.recordBytes))
  }

  /// Publishes what is due, whether or not anything was answered; when the next one is due.
  private func pace(
    _ limit: UInt64, issued: UInt64, _ start: UInt64, interval: Double, now: UInt64
  ) -> UInt64 {
    let dueCount = UInt64(Double(now - start) / interval) + 1
    var issued = issued
    let last = min(dueCount, issued + limit)
    while issued < last {
      let lane = publishers[Int(issued % UInt64(publishers.count))]
      let unanswered = lane.publisher?.unanswered ?? 0
      // Only an answer makes room: until then there is nothing to wake up for.
      guard lane.connection.hasRoom, unanswered < min(lane.publishWindow, Self.singlesMax)
      else { return .max }
      // Patience counts from the first that waits.
      if publishers.allSatisfy({ $0.publisher?.unanswered == 0 }) { progress = max(progress, now) }
      // Each producer sends its own; neighbours of a burst go to the next.
      let due = start + UInt64(interval * Double(issued))
      lane.publisher?.publish(1, due: due, book: book, to: lane.connection)
      touch(lane)
      issued += 1
    }
    return start + UInt64(interval * Double(issued))
  }

  private func settle() {
    for lane in consumers {
      guard lane.consumer?.isSettled == false else { continue }
      lane.consumer?.settle(on: lane.connection, each: plan.settlesEach)
      touch(lane)
    }
  }

  // MARK: One turn

  private func touch(_ lane: Lane) {
    guard !lane.isTouched else { return }
    lane.isTouched = true
    touched.append(lane)
  }

  /// Sends what is queued, then waits until `time` at most and takes what comes.
  private func turn(until time: UInt64) throws(LoadError) {
    for lane in touched {
      lane.isTouched = false
      try flush(lane)
    }
    touched.removeAll(keepingCapacity: true)
    let before = Self.now()
    poller.wait(
      timeout: Nanoseconds(rawValue: time > before ? time - before : 0), into: &events)
    if isCancelled() { throw .cancelled }
    let now = Self.now()
    for event in events { try handle(event, now: now) }
    if now >= nextPing { ping(now) }
  }

  private func ping(_ now: UInt64) {
    nextPing = now + Self.pingPause
    for lane in lanes where !lane.connection.isConnecting && !lane.connection.isClosed {
      _ = lane.send(.ping)
      touch(lane)
    }
  }

  private func flush(_ lane: Lane) throws(LoadError) {
    guard !lane.connection.isConnecting, !lane.connection.isClosed else { return }
    switch lane.connection.flush(now: MonotonicClock.now()) {
    case .flushed: lane.connection.setInterest(.read, poller: poller)
    case .blocked: lane.connection.setInterest([.read, .write], poller: poller)
    case .failed(let error): throw .connectionLost("\(lane.address): \(error)")
    }
  }

  private func handle(_ event: PollEvent, now: UInt64) throws(LoadError) {
    let lane = lanes[Int(event.token)]
    guard !lane.connection.isClosed else { return }
    if lane.connection.isConnecting {
      switch lane.connection.finishConnect() {
      case .connected: touch(lane)
      case .inProgress: return
      case .failed(let error):
        // Else every later turn would hear of it again.
        lane.connection.close()
        throw .unreachable("\(lane.address): \(error)")
      }
    }
    if event.isWritable { touch(lane) }
    guard event.isReadable || event.isBroken else { return }
    switch lane.connection.read(limit: 1 << 20, now: MonotonicTime(rawValue: now)) {
    case .read, .full: break
    case .wouldBlock: return
    case .closed:
      lane.connection.close()
      throw .connectionLost("\(lane.address) closed it")
    case .failed(let error):
      lane.connection.close()
      throw .connectionLost("\(lane.address): \(error)")
    }
    try takeFrames(of: lane, now: now)
  }

  private func takeFrames(of lane: Lane, now: UInt64) throws(LoadError) {
    // SAFETY: nothing reads or consumes before the end of the loop.
    let bytes = lane.connection.unread
    var offset = 0
    while true {
      do {
        let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
        guard let frame = try FrameDecoder.next(in: rest, limit: 64 << 20) else { break }
        try take(try ServerFrame(decoding: frame), frame.request, of: lane, now: now)
        offset += frame.byteCount
      } catch let error as LoadError {
        throw error
      } catch {
        throw .protocolViolation("\(error)")
      }
    }
    lane.connection.consume(offset)
    let needed = FrameDecoder.bytesNeeded(for: lane.connection.unread)
    if lane.connection.unreadBytes > 0, needed > lane.connection.unreadBytes {
      lane.connection.expect(needed)
    }
  }

  private func take(
    _ frame: ServerFrame, _ request: RequestID, of lane: Lane, now: UInt64
  ) throws(LoadError) {
    switch frame {
    case .deliver(let view):
      progress = now
      result.delivered += UInt64(view.count)
      try lane.consumer?.take(view, now: now, book: book, latencies: &result.endToEnd)
    case .confirmed(let first, let count, _, _):
      progress = now
      try lane.publisher?.confirm(
        first: first.rawValue, count: UInt64(count), now: now, book: book,
        latencies: &result.confirm)
    case .settled(let through):
      progress = now
      try lane.consumer?.settled(through: through.rawValue)
    case .refused(let refusal, let detail, _) where request == .none:
      throw .connectionLost("\(lane.address) says \(refusal): \(detail)")
    case .publishRefused(_, _, let refusal, let detail):
      throw .refused("a publish: \(refusal) \(detail)")
    case .settleRefused(_, _, _, let refusal):
      throw .refused("an acknowledgement: \(refusal)")
    case .consumerCancelled where isDeleting:
      break
    case .consumerCancelled(_, let refusal):
      throw .refused("a consumer: \(refusal)")
    case .sessionEnded(_, .closed):
      break
    case .sessionEnded, .producerFenced, .lapsed:
      throw .connectionLost("\(lane.address): \(frame.kind)")
    case .leaderChanged(_, let address):
      if !address.isEmpty, !leaderAddress.isEmpty, address != leaderAddress {
        throw .leaderChanged
      }
    case .pong, .holding, .membersChanged:
      break
    default:
      lane.replies[request.rawValue] = frame
    }
  }
}
