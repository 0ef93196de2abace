// A client as a state machine: one session, a producer with its window and resends, consumers that
// work, fail, hang, hand back, overrun their leases and die. It follows the rules of the client
// library: sequences without gaps, everything unanswered is sent again. Here is what it has, and who does
// what when; the files beside this one each have a part of what it does.

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

  struct Settlement {
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
  enum Order {
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
  var sessionsLost = 0

  var connection: ClientConnection?
  /// It stands still until then; what it misses waits for it.
  var hangsUntil: UInt64 = 0
  var missed: [(reply: ServerReply, connection: ClientConnection)] = []
  var missedEnd: ClientConnection?
  var nodeWanted: Int?
  var lastHeard: UInt64 = 0
  var session: SessionID?
  var isAttached = false
  var sessionRequest: RequestNumber?
  private var nextRequest: RequestNumber = 1

  var nextSequence: UInt64 = 1
  var chunks: [Chunk] = []
  /// What became of its publishes, as far as it was told.
  var outcomes: [UInt64: PublishOutcome] = [:]
  var nextSettle: UInt64 = 1
  var settlements: [Settlement] = []
  var sentSettlements = 0
  var subscriptions: [Subscription] = []
  var orders: [(request: RequestNumber, order: Order)] = []

  /// The consumers of one session, as histories call them: an ended one's name is not used again.
  var holder: String { "c\(process).\(sessionsLost)" }

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
    outcomes = [:]
    nextSettle = 1
    settlements = []
    sentSettlements = 0
    subscriptions = plan.queuesConsumed.enumerated().map { number, queue in
      Subscription(consumer: ConsumerID(UInt32(number + 1)), queue: queue)
    }
    act(.connect, after: .milliseconds(simulation.chance.within(1...50)))
    act(.publish, after: .milliseconds(simulation.chance.within(1...200)))
  }

  func act(_ action: ClientAction, after span: UInt64) {
    simulation.schedule(.client(place, incarnation, action), at: simulation.now + span)
  }

  /// Nothing is on its way any more.
  var isQuiet: Bool { chunks.isEmpty && settlements.isEmpty }

  var summary: String {
    "client \(place + 1): \(session == nil ? "no session" : isAttached ? "attached" : "detached"),"
      + " \(chunks.count) publishes and \(settlements.count) settlements unanswered,"
      + " \(subscriptions.reduce(0) { $0 + $1.held.count }) held"
  }

  func request() -> RequestNumber {
    defer { nextRequest += 1 }
    return nextRequest
  }

  func send(_ request: ClientRequest) {
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

  /// The process dies: nothing is closed in order.
  func die() {
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
}

extension SimulatedClient: CustomStringConvertible {
  var description: String { "process \(process)" }
}
