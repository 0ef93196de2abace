// A client as a state machine: one session, a producer with its window and resends, consumers that
// work, fail, hang, hand back, overrun their leases and die. It follows the rules of the client
// library: sequences without gaps, everything unanswered is sent again.

import Base
import QueueMachine

/// What a client means to do at some time.
enum ClientAction {
  case connect
  case publish
  case settle(session: SessionID, ConsumerID, DeliveryID, SettleKind)
  case extend(session: SessionID, ConsumerID, DeliveryID)
  case transact(session: SessionID, ConsumerID, DeliveryID)
  /// Nothing may have come over this connection for long.
  case patience(connection: Int)
  /// It stood still, and goes on.
  case wake
}

final class SimulatedClient {
  /// Messages that go to the same queues.
  struct Part {
    let queues: [Int]
    let count: Int
    let runBytes: Int
  }

  /// What is published by one request.
  struct Chunk {
    let first: UInt64
    let parts: [Part]
    let values: [Int]
    let run: [UInt8]
    /// What is settled in the same step.
    var transaction: Transaction?
    /// What the ledger knew when it was made.
    let before: Ledger.Counts
    var answered: Int = 0
    var isSent = false
    var wasSent = false
  }

  private struct Settlement {
    let number: UInt64
    let consumer: ConsumerID
    let delivery: DeliveryID
    var held: Held
    /// nil for an extension.
    let kind: SettleKind?
    let extension_: Nanoseconds
    let delay: Nanoseconds?
    let error: String
    var isRefused = false
  }

  struct Held {
    let value: Int
    let delivered: Ledger.Delivered
    /// Where the session was attached when it came, and since when it was attached elsewhere.
    var node: Int
    var leaderChanges = 0
    /// Its worker takes longer than any lease.
    var overruns = false
    /// Extensions may have made the lease shorter.
    var leaseEndAtLeast: MachineTime
    /// It was asked to be settled before, so that no is an answer.
    var isAskedTwice = false

    init(value: Int, delivered: Ledger.Delivered, node: Int) {
      self.value = value
      self.delivered = delivered
      self.node = node
      leaseEndAtLeast = delivered.leaseEnd
    }
  }

  /// Something asked for beside publishing and settling.
  private enum Order {
    case cancel(Int)
    case reschedule(Int)
    case redrive(Int)
    case purge(Int)
    case setCredit
  }

  struct Subscription {
    let consumer: ConsumerID
    let queue: Int
    var isSubscribed = false
    var request: RequestNumber?
    var received = DeliveryID(0)
    var held: [DeliveryID: Held] = [:]
  }

  unowned(unsafe) let simulation: Simulation
  let place: Int
  let plan: Plan.ClientPlan
  private(set) var incarnation = 0
  /// Unique in the run: the process's name in histories.
  private(set) var process = 0
  /// Sessions of this process that ended.
  private var sessionsLost = 0

  private var connection: ClientConnection?
  /// It stands still until then; what it misses waits for it.
  private var hangsUntil: UInt64 = 0
  private var missed: [(reply: ServerReply, connection: ClientConnection)] = []
  private var missedEnd: ClientConnection?
  private var nodeWanted: Int?
  private var lastHeard: UInt64 = 0
  private(set) var session: SessionID?
  private var isAttached = false
  private var sessionRequest: RequestNumber?
  private var nextRequest: RequestNumber = 1

  private(set) var nextSequence: UInt64 = 1
  var chunks: [Chunk] = []
  private var nextSettle: UInt64 = 1
  private var settlements: [Settlement] = []
  private var sentSettlements = 0
  private(set) var subscriptions: [Subscription] = []
  private var orders: [(request: RequestNumber, order: Order)] = []

  /// The consumers of one session, as histories call them: an ended one's name is not used again.
  private var holder: String { "c\(process).\(sessionsLost)" }

  init(_ simulation: Simulation, place: Int, plan: Plan.ClientPlan) {
    self.simulation = simulation
    self.place = place
    self.plan = plan
  }

  /// Begins a life: a new process with a producer of its own.
  func begin() {
    incarnation += 1
    process = simulation.nextProcess()
    sessionsLost = 0
    orders = []
    hangsUntil = 0
    missed = []
    missedEnd = nil
    connection = nil
    session = nil
    isAttached = false
    sessionRequest = nil
    nextSequence = 1
    chunks = []
    nextSettle = 1
    settlements = []
    sentSettlements = 0
    subscriptions = plan.queuesConsumed.enumerated().map { number, queue in
      Subscription(consumer: ConsumerID(UInt32(number + 1)), queue: queue)
    }
    act(.connect, after: .milliseconds(simulation.chance.within(1...50)))
    act(.publish, after: .milliseconds(simulation.chance.within(1...200)))
  }

  private func act(_ action: ClientAction, after span: UInt64) {
    simulation.schedule(.client(place, incarnation, action), at: simulation.now + span)
  }

  /// Nothing is on its way any more.
  var isQuiet: Bool { chunks.isEmpty && settlements.isEmpty }

  var summary: String {
    "client \(place + 1): \(session == nil ? "no session" : isAttached ? "attached" : "detached"),"
      + " \(chunks.count) publishes and \(settlements.count) settlements unanswered,"
      + " \(subscriptions.reduce(0) { $0 + $1.held.count }) held"
  }

  private func request() -> RequestNumber {
    defer { nextRequest += 1 }
    return nextRequest
  }

  private func send(_ request: ClientRequest) {
    if let connection { simulation.clientNetwork.send(request, over: connection) }
  }

  // MARK: Actions

  func perform(_ action: ClientAction) {
    if isHanging { return act(action, after: hangsUntil - simulation.now) }
    switch action {
    case .wake: wake()
    case .connect: connect()
    case .publish:
      publish()
      let pause = simulation.isDraining ? .milliseconds(100) : simulation.chance.within(plan.pause)
      act(.publish, after: pause)
    case .settle(let session, let consumer, let delivery, let kind):
      if session == self.session { settle(consumer, delivery, kind) }
    case .extend(let session, let consumer, let delivery):
      if session == self.session { settle(consumer, delivery, nil) }
    case .transact(let session, let consumer, let delivery):
      if session == self.session { transact(consumer, delivery) }
    case .patience(let number):
      guard let connection, connection.number == number else { return }
      if simulation.now > lastHeard + .seconds(3) {
        simulation.clientNetwork.closeFromClient(connection)
        closed(connection)
      } else {
        send(.ping)
        act(.patience(connection: number), after: .seconds(1))
      }
    }
  }

  // MARK: Standing still

  var isHanging: Bool { hangsUntil > simulation.now }

  /// The process is stopped, as by SIGSTOP: its machine goes on taking what comes for it. For longer
  /// than its leases, at times for longer than the node waits for a word of it and its session lasts.
  private func hang() {
    guard !isHanging else { return }
    let longest = simulation.plan.silence + simulation.plan.sessionTimeout.rawValue + .seconds(5)
    let span = simulation.laterChance.within(.milliseconds(500)...longest)
    hangsUntil = simulation.now + span
    simulation.trace { "\(self) stands still until \(Simulation.seconds(self.hangsUntil))" }
    act(.wake, after: span)
    if let connection {
      simulation.schedule(
        .clientSilence(connection.number), at: simulation.now + simulation.plan.silence)
    }
  }

  /// A delivery counts as seen when it reaches the machine: the history's checkers take an event for
  /// not much later than its cause, and a redrive before a delivery was read would be one after it.
  /// Whatever comes of it comes when the process goes on.
  private func miss(_ reply: ServerReply, over connection: ClientConnection) {
    if case .deliver(let consumer, let messages) = reply {
      take(messages, consumer)
    } else {
      missed.append((reply, connection))
    }
  }

  /// It goes on as if nothing had been, and finds out.
  private func wake() {
    if !missed.isEmpty || missedEnd != nil { simulation.note(.clientHangs) }
    if let session, simulation.checks.sessions.isOver(session) {
      simulation.note(.hangsBeyondSession)
    }
    let (replies, end) = (missed, missedEnd)
    missed = []
    missedEnd = nil
    for (reply, connection) in replies { receive(reply, over: connection) }
    if let end { closed(end) }
  }

  private func connect() {
    guard connection == nil else { return }
    let node = nodeWanted ?? simulation.chance.below(simulation.nodes.count)
    nodeWanted = nil
    guard let made = simulation.clientNetwork.connect(self, to: node) else {
      act(.connect, after: .milliseconds(simulation.chance.within(10...200)))
      return
    }
    connection = made
    lastHeard = simulation.now
    act(.patience(connection: made.number), after: .seconds(1))
  }

  /// The connection is gone: everything unanswered will be sent again.
  func closed(_ closed: ClientConnection) {
    guard closed === connection, closed.incarnation == incarnation else { return }
    if isHanging {
      missedEnd = closed
      return
    }
    connection = nil
    isAttached = false
    sessionRequest = nil
    for place in subscriptions.indices { subscriptions[place].request = nil }
    for order in orders { finish(order.order, .unknown) }
    orders = []
    act(.connect, after: .milliseconds(simulation.chance.within(1...100)))
  }

  private func leave(for node: Int?) {
    guard let connection else { return }
    nodeWanted = node
    simulation.clientNetwork.closeFromClient(connection)
    closed(connection)
  }

  /// The process dies: nothing is closed in order.
  private func die() {
    simulation.note(.clientCrashes)
    simulation.trace { "\(self) dies with \(self.subscriptions.map(\.held.count)) held" }
    simulation.ledger.killed(holder)
    if let connection { simulation.clientNetwork.closeFromClient(connection) }
    begin()
  }

  // MARK: Replies

  func receive(_ reply: ServerReply, over connection: ClientConnection) {
    guard connection === self.connection, connection.incarnation == incarnation else { return }
    if isHanging { return miss(reply, over: connection) }
    lastHeard = simulation.now
    switch reply {
    case .pong: break
    case .leader(let leader): heard(leader)
    case .sessionOpened(let request, let id):
      guard request == sessionRequest else { return }
      session = id
      attached(isNew: true)
    case .sessionAttached(let request, let id):
      guard request == sessionRequest, id == session else { return }
      attached(isNew: false)
    case .sessionEnded(let id): if id == session { loseSession() }
    case .producerFenced:
      simulation.violated("G4", "\(self) is fenced and nobody else uses its producer")
    case .queueDeclared(_, let queue): _ = queue
    case .done(let request): done(request)
    case .refused(let request, let refusal): refused(request, refusal)
    case .confirmed(let first, let count, let id, let copies):
      confirmed(first.rawValue, Int(count), id, copies: UInt64(copies))
    case .publishRefused(let first, let count, let refusal):
      publishRefused(first.rawValue, Int(count), refusal)
    case .deliver(let consumer, let messages): take(messages, consumer)
    case .settled(let through): settled(through.rawValue)
    case .settleRefused(let number, let consumer, let range, let refusal):
      settleRefused(number.rawValue, consumer, range, refusal)
    case .lapsed(let consumer, let ranges): lapsed(consumer, ranges)
    case .holding(let consumer, let through, let ranges): holding(consumer, through, ranges)
    case .consumerCancelled(let consumer):
      simulation.violated("G7", "\(self) is told that its consumer \(consumer) is no more")
    }
  }

  private func heard(_ leader: Int?) {
    guard let connection else { return }
    // Told of a change, also to the same node again, a session has to be taken up anew.
    isAttached = false
    sessionRequest = nil
    if leader == connection.node {
      beginSession()
    } else if let leader {
      leave(for: leader)
    } else if simulation.chance.permille(300) {
      leave(for: nil)
    }
  }

  private func beginSession() {
    let number = request()
    sessionRequest = number
    if let session {
      send(
        .attachSession(
          number, session,
          subscriptions.filter(\.isSubscribed).map {
            ConsumerPosition(consumer: $0.consumer, lastDelivery: $0.received)
          }))
    } else {
      send(
        .openSession(
          number, ProducerID(UInt64(process)),
          OpenAttempt(client: UInt32(process), count: UInt32(number)),
          timeout: simulation.plan.sessionTimeout, name: "p\(process)"))
    }
  }

  private func attached(isNew: Bool) {
    simulation.note(isNew ? .sessionsOpened : .sessionsAttached)
    isAttached = true
    sessionRequest = nil
    for place in chunks.indices { chunks[place].isSent = false }
    sentSettlements = 0
    subscribe()
    sendChunks()
    sendSettlements()
  }

  private func subscribe() {
    for place in subscriptions.indices
    where !subscriptions[place].isSubscribed && subscriptions[place].request == nil {
      guard let queue = simulation.queueIDs[subscriptions[place].queue] else { continue }
      let number = request()
      subscriptions[place].request = number
      send(
        .subscribe(
          number, subscriptions[place].consumer, queue, credit: UInt32(plan.credit)))
    }
  }

  private func done(_ request: RequestNumber) {
    if let place = orders.firstIndex(where: { $0.request == request }) {
      finish(orders.remove(at: place).order, .confirmed)
      return
    }
    guard let place = subscriptions.firstIndex(where: { $0.request == request }) else { return }
    subscriptions[place].request = nil
    subscriptions[place].isSubscribed = true
  }

  private func refused(_ request: RequestNumber, _ refusal: Refusal) {
    if let place = orders.firstIndex(where: { $0.request == request }) {
      // Leadership may have been lost after it was proposed.
      finish(orders.remove(at: place).order, refusal == .notLeader ? .unknown : .refused)
    }
    if let place = subscriptions.firstIndex(where: { $0.request == request }) {
      subscriptions[place].request = nil
    }
    guard request == sessionRequest else {
      if refusal == .notLeader { leave(for: nil) }
      return
    }
    sessionRequest = nil
    if refusal == .sessionNotFound { loseSession() } else { leave(for: nil) }
  }

  /// The cluster gave the session up: what was held has lapsed, what was published is published
  /// again under its numbers in a new session.
  private func loseSession() {
    if let session, !simulation.checks.sessions.isOver(session) {
      simulation.violated("G7", "\(self) is told that its session is over, and it is not")
    }
    simulation.note(.sessionsLost)
    simulation.trace { "\(self) lost its session" }
    for place in subscriptions.indices {
      subscriptions[place].held = [:]
      subscriptions[place].received = DeliveryID(0)
      subscriptions[place].isSubscribed = false
      subscriptions[place].request = nil
    }
    for settlement in settlements {
      if settlement.kind == .acknowledge { simulation.note(.unknownAcks) }
      simulation.ledger.settled(
        settlement.held.value, settlement.held.delivered, settlement.kind, .unknown)
    }
    for place in chunks.indices { sessionEnded(for: place) }
    simulation.ledger.over(holder)
    sessionsLost += 1
    settlements = []
    sentSettlements = 0
    nextSettle = 1
    session = nil
    isAttached = false
    leave(for: connection?.node)
  }

  // MARK: Publishing

  private func publish() {
    guard simulation.areQueuesDeclared else { return }
    if !simulation.isDraining, let queue = simulation.chance.pick(plan.queuesPublished),
      chunks.count < plan.window
    {
      let before = simulation.ledger.counts
      let count = simulation.chance.within(1...plan.batch)
      var run: [UInt8] = []
      var values: [Int] = []
      let part = append(count, to: [queue], &values, &run)
      addChunk(
        Chunk(first: nextSequence, parts: [part], values: values, run: run, before: before))
    }
    sendChunks()
    sendSettlements()
    if !simulation.isDraining { giveOrders() }
  }

  func addChunk(_ chunk: Chunk) {
    chunks.append(chunk)
    nextSequence += UInt64(chunk.values.count)
  }

  /// Draws new messages for some queues.
  func append(
    _ count: Int, to queues: [Int], _ values: inout [Int], _ run: inout [UInt8]
  ) -> Part {
    let start = run.count
    for _ in 0..<count {
      let published = drawMessage(for: queues)
      let value = simulation.ledger.newMessage(published)
      values.append(value)
      let size = Int(simulation.chance.skewed(0...UInt64(plan.bodyMax)))
      MessageRecord.append(
        MessageParts(
          body: Self.body(value, size), key: published.key ?? "",
          priority: UInt8(published.priority ?? 0), delay: published.delay,
          timeToLive: published.timeToLive), to: &run)
    }
    return Part(queues: queues, count: count, runBytes: run.count - start)
  }

  private func drawMessage(for queues: [Int]) -> Ledger.Published {
    let settings = simulation.plan.queues[queues[0]].settings
    var published = Ledger.Published(
      queue: queues[0], otherQueues: Array(queues.dropFirst()), process: process)
    if settings.keyLimit > 0, simulation.chance.permille(800) {
      published.key = "k\(simulation.chance.below(4))"
    }
    if settings.priorities > 1 {
      published.priority = simulation.chance.below(Int(settings.priorities))
    }
    if simulation.chance.permille(plan.delayed) {
      simulation.note(.delayedPublishes)
      published.delay = .milliseconds(simulation.chance.skewed(1...20_000))
    }
    if simulation.chance.permille(plan.expiring) {
      published.timeToLive = .milliseconds(simulation.chance.skewed(1...30_000))
    }
    return published
  }

  /// Eight bytes of number, then bytes that follow from it.
  static func body(_ value: Int, _ size: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(size + 8)
    bytes.put(UInt64(value))
    for place in 0..<size { bytes.append(UInt8(truncatingIfNeeded: value &* 31 &+ place)) }
    return bytes
  }

  func sendChunks() {
    guard isAttached else { return }
    let answered = PublishSequence((chunks.first?.first ?? nextSequence) - 1)
    for place in chunks.indices where !chunks[place].isSent {
      guard let request = request(for: chunks[place], answeredThrough: answered) else { return }
      chunks[place].isSent = true
      simulation.note(chunks[place].wasSent ? .publishesRepeated : .publishes)
      chunks[place].wasSent = true
      send(request)
    }
  }

  /// - Parameter copies: ids of each message, one for each of its queues.
  private func confirmed(_ first: UInt64, _ count: Int, _ firstID: MessageID, copies: UInt64) {
    for number in 0..<count {
      guard let (chunk, value) = value(of: first + UInt64(number)) else { continue }
      simulation.note(.confirms)
      let id = MessageID(rawValue: firstID.rawValue + UInt64(number) * copies)
      simulation.ledger.confirmed(value, id)
      chunks[chunk].answered = Int(first + UInt64(number) - chunks[chunk].first) + 1
      if chunks[chunk].transaction == nil {
        changeMind(about: value, id)
      } else {
        conclude(chunk, .confirmed)
      }
    }
    dropAnswered()
  }

  private func dropAnswered() {
    while let chunk = chunks.first, chunk.answered == chunk.values.count { chunks.removeFirst() }
  }

  /// What was published may be called off, or put off.
  private func changeMind(about value: Int, _ id: MessageID) {
    if simulation.isDraining { return }
    let published = simulation.ledger.messages[value].published
    let queue = simulation.plan.queues[published.queue].name
    if simulation.chance.permille(plan.cancel) {
      let number = order(.cancel(value))
      simulation.ledger.willCancel(value)
      send(.cancel(number, queue: queue, id))
    } else if let delay = published.delay, simulation.chance.permille(plan.reschedule) {
      // To later only, and only where order and the first due time say nothing any more.
      let longer = Nanoseconds(
        delay.rawValue + .milliseconds(simulation.chance.skewed(0...5000)))
      let number = order(.reschedule(value))
      simulation.ledger.willReschedule(value, delay: longer)
      send(.reschedule(number, queue: queue, id, longer))
    }
  }

  private func order(_ order: Order) -> RequestNumber {
    let number = request()
    orders.append((number, order))
    return number
  }

  private func giveOrders() {
    guard isAttached else { return }
    if simulation.chance.permille(plan.redrive),
      let queue = simulation.chance.pick(simulation.plan.deadLetterQueues)
    {
      simulation.ledger.willRedrive(queue, by: process)
      send(.redrive(order(.redrive(queue)), queue: simulation.plan.queues[queue].name))
    }
    if simulation.chance.permille(plan.purge) {
      let queue = simulation.chance.below(simulation.plan.queues.count)
      simulation.ledger.willPurge(queue, by: process)
      send(.purge(order(.purge(queue)), queue: simulation.plan.queues[queue].name))
    }
    if simulation.chance.permille(plan.changeCredit),
      let consumer = subscriptions.first(where: \.isSubscribed)?.consumer
    {
      let credit = simulation.chance.flip() ? plan.credit : simulation.chance.below(plan.credit * 2)
      send(.setCredit(order(.setCredit), consumer, UInt32(credit)))
    }
  }

  private func finish(_ order: Order, _ outcome: Ledger.Outcome) {
    let isDone = outcome == .confirmed
    switch order {
    case .cancel(let value):
      if isDone { simulation.note(.cancels) }
      simulation.ledger.cancelled(value, outcome)
    case .reschedule(let value):
      if isDone { simulation.note(.reschedules) }
      simulation.ledger.rescheduled(value, outcome)
    case .redrive(let queue):
      if isDone { simulation.note(.redrives) }
      simulation.ledger.redriven(queue, by: process, outcome)
    case .purge(let queue):
      if isDone { simulation.note(.purges) }
      simulation.ledger.purged(queue, by: process, outcome)
    case .setCredit: if isDone { simulation.note(.creditChanges) }
    }
  }

  private func value(of sequence: UInt64) -> (chunk: Int, value: Int)? {
    guard
      let place = chunks.firstIndex(where: {
        $0.first <= sequence && sequence < $0.first + UInt64($0.values.count)
      })
    else { return nil }
    return (place, chunks[place].values[Int(sequence - chunks[place].first)])
  }

  private func publishRefused(_ first: UInt64, _ count: Int, _ refusal: Refusal) {
    switch refusal {
    case .notLeader, .sessionNotFound:
      leave(for: nil)
    case .queueFull, .staleDelivery, .deliveryNotFound, .consumerNotFound:
      simulation.note(.publishesRefused)
      for number in 0..<count {
        guard let (chunk, value) = value(of: first + UInt64(number)) else { continue }
        judge(refusal, of: chunks[chunk])
        simulation.ledger.refused(value, refusal)
        chunks[chunk].answered = Int(first + UInt64(number) - chunks[chunk].first) + 1
        conclude(chunk, .refused)
      }
      dropAnswered()
      sendSettlements()
    case _ where refusal.isFinal:
      simulation.violated("G4", "\(self) is refused publish \(first) with \(refusal)")
    default:
      // Not now: everything from there on is sent again, in order, at the next turn.
      simulation.trace { "\(self) is to publish again from \(first): \(refusal)" }
      for place in chunks.indices
      where chunks[place].first + UInt64(chunks[place].values.count) > first {
        chunks[place].isSent = false
      }
    }
  }

  /// Why a publish is refused for good must be true.
  private func judge(_ refusal: Refusal, of chunk: Chunk) {
    if refusal == .queueFull {
      simulation.ledger.refusedForLength(chunk.parts.flatMap(\.queues), since: chunk.before)
      return
    }
    guard let transaction = chunk.transaction else {
      simulation.violated("G4", "\(self) is refused publish \(chunk.first) with \(refusal)")
      return
    }
    // Of a later session it is refused for that.
    guard transaction.session == session else { return }
    if refusal != .staleDelivery || transaction.settles.isEmpty {
      simulation.violated("G10", "\(self) is refused a transaction with \(refusal)")
    }
    let newest = simulation.checks.newestClock
    if transaction.settles.allSatisfy({ newest < $0.held.leaseEndAtLeast }) {
      simulation.ledger.taken(
        transaction.settles[0].held, "G10", "is refused in a transaction as stale")
    }
  }

  // MARK: Consuming

  private func take(_ messages: [DeliveredMessage], _ consumer: ConsumerID) {
    guard let place = subscriptions.firstIndex(where: { $0.consumer == consumer }), let session
    else { return }
    let incarnation = incarnation
    for message in messages {
      let delivery = message.delivery
      guard delivery.delivery > subscriptions[place].received else { continue }
      subscriptions[place].received = delivery.delivery
      guard let value = Self.value(of: message.record) else {
        simulation.violated("G11", "\(self) got bytes that nobody published, as \(delivery.id)")
        return
      }
      let delivered = Ledger.Delivered(
        queue: subscriptions[place].queue, token: delivery.token, id: delivery.id,
        attempt: delivery.attempt, granted: delivery.granted, leaseEnd: delivery.leaseEnd,
        holder: holder, session: session, isRedelivery: delivery.isRedelivery)
      if !simulation.ledger.messages[value].published.queues.contains(delivered.queue) {
        noteDeadLetter(delivery.id, delivered.queue)
      }
      subscriptions[place].held[delivery.delivery] = Held(
        value: value, delivered: delivered, node: connection?.node ?? 0)
      simulation.ledger.delivered(value, delivered)
      decide(consumer, delivery.delivery, session)
      // It may have died of this one; what came with it is not the next process's.
      if incarnation != self.incarnation { return }
    }
  }

  /// Why it was given up, by the one that says so.
  private func noteDeadLetter(_ id: MessageID, _ queue: Int) {
    guard let leader = simulation.leader, let queue = simulation.queueIDs[queue] else { return }
    switch leader.replica.machine.biography(of: id, in: queue)?.message.deadLetter?.reason {
    case .expired: simulation.note(.expiredDeadLetters)
    case .overflowed: simulation.note(.overflowedDeadLetters)
    default: break
    }
  }

  /// The message's number, if its bytes are the ones that were published under it.
  private static func value(of record: [UInt8]) -> Int? {
    let body = record.withUnsafeBytes { try? MessageRecord.parts(of: $0).body }
    guard let body, body.count >= 8 else { return nil }
    let value = body.withUnsafeBytes {
      Int(truncatingIfNeeded: UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)))
    }
    return value >= 0 && body == self.body(value, body.count - 8) ? value : nil
  }

  /// What becomes of a message that came.
  private func decide(_ consumer: ConsumerID, _ delivery: DeliveryID, _ session: SessionID) {
    let work = simulation.chance.within(plan.workTime)
    if plan.hang > 0, !simulation.isDraining, simulation.laterChance.permille(plan.hang) { hang() }
    if simulation.isDraining {
      simulation.note(.drainedMessages)
      act(
        .settle(session: session, consumer, delivery, .acknowledge),
        after: .milliseconds(simulation.chance.within(1...20)))
      return
    }
    var share = simulation.chance.below(1000)
    func isNext(_ part: Int) -> Bool {
      share -= part
      return share < 0
    }
    if isNext(plan.crash) { return die() }
    var kind = SettleKind.acknowledge
    var time = work
    if isNext(plan.nack) {
      kind = .negative
    } else if isNext(plan.reject) {
      kind = .reject
    } else if isNext(plan.release) {
      kind = .release
    } else if isNext(plan.extend) {
      act(.extend(session: session, consumer, delivery), after: work / 2)
      time = work + .seconds(1)
    } else if isNext(plan.transact) {
      // At times too late, when nothing of it may happen any more.
      let late = UInt64.seconds(simulation.chance.permille(100) ? 8 : 0)
      return act(.transact(session: session, consumer, delivery), after: work + late)
    } else if isNext(plan.overrun) {
      // Long beyond any lease, then as if nothing had been.
      time = .seconds(simulation.chance.within(4...12))
      overrun(consumer, delivery)
    }
    act(.settle(session: session, consumer, delivery, kind), after: time)
  }

  private func overrun(_ consumer: ConsumerID, _ delivery: DeliveryID) {
    guard let place = subscriptions.firstIndex(where: { $0.consumer == consumer }) else { return }
    subscriptions[place].held[delivery]?.overruns = true
  }

  /// What it holds under these numbers, from now on no longer.
  func takeHeld(_ consumer: ConsumerID, _ delivery: DeliveryID) -> Held? {
    guard let place = subscriptions.firstIndex(where: { $0.consumer == consumer }) else {
      return nil
    }
    return subscriptions[place].held.removeValue(forKey: delivery)
  }

  /// A transaction settles it, which after a new attachment is sent first: an extension that was asked for
  /// before may come too late.
  func mayComeTooLate(_ consumer: ConsumerID, _ delivery: DeliveryID) {
    for place in settlements.indices
    where settlements[place].consumer == consumer && settlements[place].delivery == delivery {
      settlements[place].held.isAskedTwice = true
    }
  }

  private func settle(_ consumer: ConsumerID, _ delivery: DeliveryID, _ kind: SettleKind?) {
    guard let place = subscriptions.firstIndex(where: { $0.consumer == consumer }),
      let held = subscriptions[place].held[delivery]
    else { return }
    if kind != nil {
      subscriptions[place].held[delivery] = nil
      if held.overruns, simulation.newestStamp >= held.delivered.leaseEnd {
        simulation.note(.leasesOverrun)
      }
    } else {
      simulation.note(.extends)
    }
    add(consumer, delivery, held, kind)
    // Now and then once more, as a worker does that lost track: it must be refused.
    if kind != nil, simulation.chance.permille(plan.settleTwice) {
      simulation.note(.settlesTwice)
      var again = held
      again.isAskedTwice = true
      add(consumer, delivery, again, simulation.chance.flip() ? kind : .acknowledge)
    }
    sendSettlements()
  }

  func add(
    _ consumer: ConsumerID, _ delivery: DeliveryID, _ held: Held, _ kind: SettleKind?
  ) {
    var delay: Nanoseconds?
    if kind == .negative, simulation.chance.permille(plan.ownDelay) {
      delay = .milliseconds(simulation.chance.skewed(0...8000))
    }
    let error =
      kind == .negative || kind == .reject ? "attempt \(held.delivered.attempt) failed" : ""
    let extension_ = Nanoseconds.milliseconds(simulation.chance.within(100...5000))
    if kind == nil, let place = subscriptions.firstIndex(where: { $0.consumer == consumer }) {
      let end = min(held.leaseEndAtLeast, simulation.checks.newestClock + extension_)
      subscriptions[place].held[delivery]?.leaseEndAtLeast = end
    }
    simulation.ledger.willSettle(
      held.value, held.delivered, kind, delay: delay, lease: extension_, error: error)
    settlements.append(
      Settlement(
        number: nextSettle, consumer: consumer, delivery: delivery, held: held, kind: kind,
        extension_: extension_, delay: delay, error: error))
    nextSettle += 1
  }

  func sendSettlements() {
    guard isAttached else { return }
    let answered = CommandSequence((settlements.first?.number ?? nextSettle) - 1)
    while sentSettlements < settlements.count {
      let settlement = settlements[sentSettlements]
      sentSettlements += 1
      let range = DeliveryRange(first: settlement.delivery, last: settlement.delivery)
      if let kind = settlement.kind {
        send(
          .settle(
            CommandSequence(settlement.number), answeredThrough: answered, kind,
            settlement.consumer, [range], delay: settlement.delay, error: settlement.error))
      } else {
        send(
          .extend(
            CommandSequence(settlement.number), answeredThrough: answered, settlement.consumer,
            [range], settlement.extension_))
      }
    }
  }

  private func settled(_ through: UInt64) {
    while let settlement = settlements.first, settlement.number <= through {
      settlements.removeFirst()
      sentSettlements = max(0, sentSettlements - 1)
      simulation.ledger.settled(
        settlement.held.value, settlement.held.delivered, settlement.kind,
        settlement.isRefused ? .refused : .confirmed, lease: settlement.extension_)
      if settlement.isRefused { continue }
      switch settlement.kind {
      case .acknowledge: simulation.note(.acks)
      case .negative: simulation.note(.nacks)
      case .reject: simulation.note(.rejects)
      case .release: simulation.note(.releases)
      case nil: break
      }
    }
  }

  private func settleRefused(
    _ number: UInt64, _ consumer: ConsumerID, _ range: DeliveryRange, _ refusal: Refusal
  ) {
    if refusal == .notLeader || refusal == .sessionNotFound { return leave(for: nil) }
    if refusal == .staleDelivery { simulation.note(.staleSettles) }
    if [.sequenceGap, .overloaded, .tooManyUnanswered].contains(refusal) {
      // Not now: its number is not used up, so all is sent again from there.
      sentSettlements = min(
        sentSettlements, settlements.firstIndex { $0.number >= number } ?? sentSettlements)
      return
    }
    if refusal != .staleDelivery {
      simulation.violated("G6", "\(self) may not settle what it was given: \(refusal)")
    }
    simulation.trace {
      "\(self) is refused settlement \(number) of deliveries \(range): \(refusal)"
    }
    for place in settlements.indices
    where settlements[place].number == number && settlements[place].consumer == consumer
      && range.first <= settlements[place].delivery && settlements[place].delivery <= range.last
    {
      settlements[place].isRefused = true
      simulation.ledger.taken(settlements[place].held, "G6", "is refused as stale")
    }
  }

  /// A worker that overran goes on and finds out when it settles; but it must have overrun.
  private func lapsed(_ consumer: ConsumerID, _ ranges: [DeliveryRange]) {
    simulation.note(.leasesLapsed)
    for held in everythingHeld(by: consumer)
    where ranges.contains(where: { $0.first <= held.delivery && held.delivery <= $0.last }) {
      simulation.ledger.taken(held.held, "G6", "has lapsed")
    }
  }

  /// In hands, or on its way back.
  private func everythingHeld(by consumer: ConsumerID) -> [(delivery: DeliveryID, held: Held)] {
    var all: [(delivery: DeliveryID, held: Held)] = []
    for subscription in subscriptions where subscription.consumer == consumer {
      for delivery in subscription.held.keys.sorted() {
        if let held = subscription.held[delivery] { all.append((delivery, held)) }
      }
    }
    // Whoever extends goes on holding.
    for settlement in settlements where settlement.consumer == consumer && settlement.kind != nil {
      all.append((settlement.delivery, settlement.held))
    }
    for chunk in chunks {
      guard let transaction = chunk.transaction, transaction.session == session else { continue }
      for settle in transaction.settles where settle.consumer == consumer {
        all.append((settle.delivery, settle.held))
      }
    }
    return all
  }

  /// After an attachment: what else this client has of the consumer has lapsed.
  private func holding(
    _ consumer: ConsumerID, _ through: DeliveryID, _ ranges: [DeliveryRange]
  ) {
    guard let place = subscriptions.firstIndex(where: { $0.consumer == consumer }) else { return }
    for delivery in subscriptions[place].held.keys.sorted() where delivery <= through {
      let isHeld = ranges.contains { $0.first <= delivery && delivery <= $0.last }
      if isHeld {
        noteLeader(of: delivery, at: place)
      } else if let held = subscriptions[place].held.removeValue(forKey: delivery) {
        simulation.ledger.taken(held, "G7", "is not held any more after a new attachment")
      }
    }
  }

  /// A lease that is still there where the session is attached now: another node leads than before?
  private func noteLeader(of delivery: DeliveryID, at place: Int) {
    guard let node = connection?.node, var held = subscriptions[place].held[delivery],
      held.node != node
    else { return }
    held.node = node
    held.leaderChanges += 1
    subscriptions[place].held[delivery] = held
    switch held.leaderChanges {
    case 1: simulation.note(.leasesSurvivingLeaderChange)
    case 2: simulation.note(.leasesSurvivingTwoLeaderChanges)
    default: break
    }
  }
}

extension SimulatedClient: CustomStringConvertible {
  var description: String { "process \(process)" }
}
