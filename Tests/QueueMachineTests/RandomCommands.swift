// Random commands that refer to things by small numbers, resolved against the model when they are
// carried out: so that a list of them stays meaningful when others are taken out of it.

import Base

@testable import QueueMachine

enum Command {
  case open(connection: Int, kind: SessionKind, producer: Int, epoch: Int, timeout: Int)
  case attach(session: Int, connection: Int, received: Int)
  case detach(session: Int, connection: Int)
  case close(session: Int)
  case leaderChanged(Int)
  case nodeGone(Int)
  case declare(name: Int, settings: Int, bySession: Int)
  case delete(name: Int)
  case purge(name: Int, bySession: Int)
  case cancel(name: Int, message: Int)
  case reschedule(name: Int, message: Int, delay: Int)
  case redrive(name: Int, which: Int, after: Int, limit: Int)
  case publish(session: Int, ahead: Int, answered: Int, queue: Int, bodies: [Body])
  /// `holder` picks whose deliveries are settled: mostly the session's own.
  case transact(
    session: Int, ahead: Int, answered: Int, holder: Int, settles: [TransactSettle],
    parts: [TransactPart])
  case subscribe(
    session: Int, consumer: Int, queue: Int, credit: Int, priority: Int, isExclusive: Bool)
  case setCredit(session: Int, consumer: Int, credit: Int)
  case unsubscribe(session: Int, consumer: Int, returnHeld: Bool)
  case settle(
    session: Int, ahead: Int, answered: Int, kind: SettleKind, consumer: Int, ranges: [Ranges],
    error: Int, delay: Int)
  case extend(
    session: Int, ahead: Int, answered: Int, consumer: Int, ranges: [Ranges], duration: Int)

  struct Body {
    var bytes: Int
    /// Numbers of spans, 0 for none.
    var delay = 0
    var timeToLive = 0
    var priority = 0
    var key = 0
  }

  struct TransactSettle {
    var kind: SettleKind
    var consumer: Int
    var ranges: [Ranges]
    var error: Int
  }

  struct TransactPart {
    var queues: [Int]
    var bodies: [Body]
  }

  /// Which deliveries.
  enum Ranges {
    case allHeld
    case oneHeld(Int)
    case someHeld(Int, Int)
    case wild(UInt64, UInt64)
  }
}

struct Step {
  /// Nanoseconds.
  var advance: UInt64
  var commands: [Command]

  static let second: UInt64 = 1_000_000_000

  /// A beginning in which something can happen, and random steps behind it.
  static func script(_ random: inout SeededRandom, count: Int) -> [Step] {
    func number(_ limit: Int) -> Int { Int.random(in: 0..<limit, using: &random) }
    let dead = [0, 0, 8, 9, 10, 12, 15, 18][number(8)]
    let first = [
      // Refused: its own dead-letter queue, and one that is not there.
      Command.declare(name: 0, settings: 5, bySession: 10),
      .declare(name: 5, settings: 3, bySession: 10),
      .declare(name: 4, settings: 0, bySession: 10),
      .declare(name: 3, settings: dead, bySession: 10),
      .declare(
        name: number(2), settings: [2, 3, 4, 7, 8, 10, 13, 14, 16, 17, 19, 20][number(12)],
        bySession: 10),
      .declare(name: 2, settings: number(settingsCount), bySession: 10),
      .open(connection: 1, kind: .native, producer: 1, epoch: 0, timeout: 2),
    ]
    return [Step(advance: 0, commands: first)]
      + (1..<count).map { _ in .random(&random) }
  }

  /// Numbers that `Script.settings` knows.
  static let settingsCount = 22

  static func random(_ random: inout SeededRandom) -> Step {
    let spans: [UInt64] = [
      0, 0, 0, 0, 0, 0, 1, 1, second / 2, second / 2, second, second, second, 2 * second,
      4 * second,
    ]
    let advance =
      Int.random(in: 0..<60, using: &random) == 0
      ? 15 * second : spans.randomElement(using: &random) ?? 0
    let count = Int.random(in: 0...4, using: &random)
    return Step(
      advance: advance,
      commands: (0..<count).map { _ in .random(&random) })
  }
}

extension Command {
  static func random(_ random: inout SeededRandom) -> Command {
    func number(_ limit: Int) -> Int { Int.random(in: 0..<limit, using: &random) }
    let ahead = [0, 0, 0, 0, 0, 0, -1, -2, -5, 1][number(10)]
    if number(9) == 0 { return .randomTransaction(&random, ahead: ahead) }
    switch number(100) {
    case ..<7:
      return .open(
        connection: number(4), kind: number(3) == 0 ? .amqp : .native, producer: number(5),
        epoch: number(4), timeout: number(3))
    case ..<12: return .attach(session: number(30), connection: number(4), received: number(6))
    case ..<15: return .detach(session: number(30), connection: number(6))
    case ..<16: return .close(session: number(30))
    case ..<17: return .leaderChanged(number(3))
    case ..<18: return .nodeGone(number(3))
    case ..<25:
      return .declare(name: number(6), settings: number(Step.settingsCount), bySession: number(30))
    case ..<26: return .delete(name: number(6))
    case ..<27: return .purge(name: number(6), bySession: number(30))
    case ..<29: return .cancel(name: number(6), message: number(12))
    case ..<31: return .reschedule(name: number(6), message: number(12), delay: number(4))
    case ..<34:
      return .redrive(name: number(6), which: number(8), after: number(9), limit: number(4))
    case ..<54:
      return .publish(
        session: number(30), ahead: ahead, answered: number(12), queue: number(9),
        bodies: (0...number(6)).map { _ in .random(&random) })
    case ..<64:
      return .subscribe(
        session: number(30), consumer: number(4), queue: number(8), credit: number(7),
        priority: [0, 0, 0, 0, 5, -5][number(6)], isExclusive: number(10) == 0)
    case ..<66:
      return .setCredit(session: number(30), consumer: number(4), credit: number(8))
    case ..<69:
      return .unsubscribe(session: number(30), consumer: number(4), returnHeld: number(2) == 0)
    case ..<94:
      return .settle(
        session: number(30), ahead: ahead, answered: number(12),
        kind: [.acknowledge, .acknowledge, .negative, .negative, .reject, .release][number(6)],
        consumer: number(4), ranges: (0...number(2)).map { _ in .random(&random) },
        error: number(3), delay: number(9))
    default:
      return .extend(
        session: number(30), ahead: ahead, answered: number(12), consumer: number(4),
        ranges: [.random(&random)], duration: number(4))
    }
  }
}

extension Command {
  fileprivate static func randomTransaction(
    _ random: inout SeededRandom, ahead: Int
  ) -> Command {
    func number(_ limit: Int) -> Int { Int.random(in: 0..<limit, using: &random) }
    return .transact(
      session: number(30), ahead: ahead, answered: number(12), holder: number(12),
      settles: (0..<number(3)).map { _ in
        TransactSettle(
          kind: [.acknowledge, .acknowledge, .acknowledge, .negative, .reject, .release][number(6)],
          consumer: number(4),
          ranges: number(3) == 0
            ? [.allHeld] : [.oneHeld(number(8))] + (number(12) == 0 ? [.random(&random)] : []),
          error: number(3))
      },
      parts: (0...number(3)).map { _ in
        TransactPart(
          queues: (0...number(3)).map { _ in number(40) },
          bodies: (0...number(3)).map { _ in .random(&random) })
      })
  }
}

extension Command.Body {
  static func random(_ random: inout SeededRandom) -> Command.Body {
    func number(_ limit: Int) -> Int { Int.random(in: 0..<limit, using: &random) }
    return Command.Body(
      bytes: number(40), delay: number(5) == 0 ? number(4) + 1 : 0,
      timeToLive: number(5) == 0 ? number(4) + 1 : 0, priority: number(4) * number(15),
      key: number(4))
  }
}

extension Command.Ranges {
  static func random(_ random: inout SeededRandom) -> Command.Ranges {
    switch Int.random(in: 0..<8, using: &random) {
    case 0: .allHeld
    case 1, 2, 3: .oneHeld(Int.random(in: 0..<8, using: &random))
    case 4, 5:
      .someHeld(Int.random(in: 0..<8, using: &random), Int.random(in: 0..<8, using: &random))
    case 6:
      .wild(UInt64.random(in: 0..<30, using: &random), UInt64.random(in: 0..<30, using: &random))
    default: .wild(UInt64.random(in: 0..<3, using: &random), .max)
    }
  }
}

/// Carries commands out in the model and writes them into a payload.
struct Script {
  static let names = ["a", "b", "c", "dead", "graves", "f"]
  static let limits: MachineLimits = {
    var limits = MachineLimits()
    limits.queues = 5
    limits.sessions = 6
    limits.consumersPerSession = 2
    limits.consumers = 8
    limits.creditPerSession = 10
    limits.refusals = 6
    limits.refusalsWhenFull = 2
    limits.idleRuns = 4
    limits.liveRuns = 7
    limits.runsWhenFull = 3
    limits.idleProducers = 2
    limits.producerMemory = .seconds(20)
    limits.unansweredMessages = 24
    limits.unansweredRuns = 5
    limits.unansweredRefusals = 4
    return limits
  }()

  static func settings(_ number: Int) -> QueueSettings {
    var settings = QueueSettings()
    settings.lease = .seconds(2)
    switch number {
    case 1: settings.deliveriesMax = 2
    case 2:
      settings.deliveriesMax = 2
      settings.deadLetterQueue = "dead"
    case 3:
      settings.deliveriesMax = 1
      settings.deadLetterQueue = "graves"
      settings.lease = .seconds(5)
    case 4: settings.deadLetterQueue = "dead"
    case 5: settings.deadLetterQueue = "a"
    case 6:
      settings.retryDelay = .seconds(1)
      settings.retryDelayMax = .seconds(3)
      settings.deliveriesMax = 4
    case 7:
      settings.retryDelay = .milliseconds(700)
      settings.retryJitterPermille = 300
      settings.deadLetterQueue = "dead"
    case 8:
      settings.timeToLive = .seconds(3)
      settings.deadLetterQueue = "dead"
    case 9: settings.lengthMax = 4
    case 10:
      settings.lengthMax = 5
      settings.bytesMax = 150
      settings.overflow = .dropOldest
      settings.deadLetterQueue = "graves"
    case 11:
      settings.bytesMax = 120
      settings.overflow = .dropOldest
      settings.timeToLive = .seconds(6)
    case 12: settings.priorities = 3
    case 13:
      settings.priorities = 32
      settings.retryDelay = .milliseconds(600)
      settings.lengthMax = 12
      settings.overflow = .dropOldest
      settings.deadLetterQueue = "dead"
    case 15: settings.keyLimit = 1
    case 16:
      settings.keyLimit = 1
      settings.retryDelay = .seconds(1)
      settings.deliveriesMax = 2
      settings.deadLetterQueue = "dead"
    case 17:
      settings.keyLimit = 2
      settings.priorities = 3
      settings.timeToLive = .seconds(9)
      settings.lengthMax = 9
      settings.deadLetterQueue = "graves"
    case 14:
      settings.priorities = 2
      settings.timeToLive = .seconds(8)
      settings.deliveriesMax = 2
      settings.deadLetterQueue = "dead"
    case 18: settings.expires = .seconds(6)
    case 19:
      settings.hasSingleActiveConsumer = true
      settings.deadLetterQueue = "dead"
      settings.deliveriesMax = 2
    case 20:
      settings.hasSingleActiveConsumer = true
      settings.keyLimit = 1
      settings.priorities = 3
      settings.retryDelay = .milliseconds(500)
    case 21:
      settings.expires = .seconds(3)
      settings.deadLetterQueue = "dead"
      settings.timeToLive = .seconds(2)
    default: break
    }
    return settings
  }

  var payload: [UInt8] = []
  var tag: UInt64 = 0

  private func session(_ number: Int, _ model: Model) -> SessionID {
    if number == 29 { return SessionID(0) }
    if number == 28 || model.sessions.isEmpty { return SessionID(12_345) }
    return model.sessions[number % model.sessions.count].id
  }

  /// Mostly one that may publish.
  private func publisher(_ number: Int, _ model: Model) -> SessionID {
    let able = model.sessions.filter { model.producers[$0.producer]?.session == $0.id }
    return number % 6 == 0 || able.isEmpty
      ? session(number, model) : able[number % able.count].id
  }

  /// Mostly a consumer that holds something.
  private func holder(_ number: Int, _ consumer: Int, _ model: Model) -> (SessionID, ConsumerID) {
    let holders = model.sessions.flatMap { session in
      session.consumers.filter { !$0.held.isEmpty }.map { (session.id, $0.id) }
    }
    return number % 8 == 0 || holders.isEmpty
      ? (session(number, model), ConsumerID(UInt32(consumer))) : holders[number % holders.count]
  }

  private func origin(_ number: Int) -> SessionOrigin {
    SessionOrigin(node: NodeID(UInt32(number % 3 + 1)), connection: UInt64(number))
  }

  private func queue(_ number: Int, _ model: Model) -> QueueID {
    if number == 0 || model.queues.isEmpty { return QueueID(UInt32(number)) }
    return model.queues[number % model.queues.count].id
  }

  /// Mostly a message of the queue; by number 0 and 1 one that is not there, by 2 of any queue.
  private func message(_ number: Int, _ name: String, _ model: Model) -> MessageID {
    if number == 2, let message = model.queues.lazy.flatMap({ model.peek($0.id) }).first {
      return message.message.id
    }
    guard number > 1, let queue = model.queues.first(where: { $0.name == name }) else {
      return MessageID(rawValue: UInt64(number) << 20)
    }
    let all = model.peek(queue.id)
    return all.isEmpty ? MessageID(rawValue: 77) : all[number % all.count].message.id
  }

  static let spans: [UInt64] = [0, 1, Step.second, 2 * Step.second, 20 * Step.second]

  private mutating func nextTag() -> RequestTag {
    tag += 1
    return RequestTag(tag)
  }

  /// The answers seen so far as a client would say it; 0...9 are fair, the rest is too much.
  private func answered(_ number: Int, _ last: UInt64) -> UInt64 {
    switch number {
    case ..<5: 0
    case ..<8: last / 2
    case ..<11: last
    default: last + 3
    }
  }

  private func sequence(_ last: UInt64, _ ahead: Int) -> UInt64 {
    UInt64(max(0, Int(last) + 1 + ahead))
  }

  private func ranges(
    _ ranges: [Command.Ranges], _ session: SessionID, _ consumer: ConsumerID,
    _ model: Model
  ) -> [DeliveryRange] {
    var held: [UInt64] = []
    if let (s, c) = model.find(session, consumer) {
      held = model.sessions[s].consumers[c].held.map(\.delivery)
    }
    func pick(_ number: Int) -> UInt64 { held.isEmpty ? UInt64(number) : held[number % held.count] }
    let chosen = ranges.map { range in
      switch range {
      case .allHeld: DeliveryRange((held.first ?? 1)...(held.last ?? 1))
      case .oneHeld(let number): DeliveryRange(pick(number)...pick(number))
      case .someHeld(let left, let right):
        DeliveryRange(min(pick(left), pick(right))...max(pick(left), pick(right)))
      case .wild(let first, let last):
        DeliveryRange(first: DeliveryID(first), last: DeliveryID(last))
      }
    }
    // Mostly in order and apart, as they should be.
    if chosen.count == 3 { return chosen }
    var apart: [DeliveryRange] = []
    for range in chosen.sorted(by: { $0.first < $1.first })
    where apart.last.map({ $0.last < range.first }) ?? true {
      apart.append(range)
    }
    return apart
  }

  mutating func carryOut(_ command: Command, _ model: inout Model) {
    switch command {
    case .open(let connection, let kind, let producer, let epoch, let timeout):
      // Of two clients, now and then in the wrong order.
      let attempts: [UInt64] = [0, 0, 1 << 32 | 1, 1 << 32 | 2, 2 << 32 | 1]
      let attempt = OpenAttempt(rawValue: attempts[(connection + producer + timeout) % 5])
      let timeout = UInt64(timeout) * 5 * Step.second
      let known = model.producers[ProducerID(UInt64(producer))]?.epoch ?? 3
      let epoch = [0, 0, known, known / 2][epoch]
      let sessionsMax = connection == 3 ? 4 : 1_000
      CommandWriter.openSession(
        origin: origin(connection), kind: kind, producer: ProducerID(UInt64(producer)),
        epoch: ProducerEpoch(epoch), attempt: attempt, sessionsMax: UInt32(sessionsMax),
        timeout: Nanoseconds(timeout), name: "n", into: &payload)
      model.openSession(
        origin(connection), kind, ProducerID(UInt64(producer)), epoch: epoch, attempt: attempt,
        sessionsMax: sessionsMax, timeout)
    case .attach(let number, let connection, let received):
      attach(session(number, model), origin(connection), received, &model)
    case .detach(let number, let connection):
      let id = session(number, model)
      // Mostly the right connection.
      let right = model.sessions.first { $0.id == id }?.origin
      let origin = connection < 4 ? right ?? origin(0) : origin(connection)
      CommandWriter.detachSession(id, origin: origin, into: &payload)
      model.detachSessions { $0.id == id && $0.origin == origin }
    case .close(let number):
      let id = session(number, model)
      CommandWriter.closeSession(id, into: &payload)
      model.closeSession(id)
    case .leaderChanged(let number):
      let node = origin(number).node
      CommandWriter.leaderChanged(to: node, into: &payload)
      model.detachSessions { $0.kind == .native && $0.origin?.node != node }
    case .nodeGone(let number):
      let node = origin(number).node
      CommandWriter.nodeGone(node, into: &payload)
      model.detachSessions { $0.kind == .native && $0.origin?.node == node }
    case .declare, .delete, .purge: carryOutOnQueue(command, &model)
    case .cancel, .reschedule, .redrive: carryOutOnMessages(command, &model)
    case .publish(let number, let ahead, let answeredNumber, let queueNumber, let bodies):
      publish(
        publisher(number, model), ahead, answeredNumber, queue(queueNumber, model), bodies, &model)
    case .transact: transact(command, &model)
    case .subscribe, .setCredit, .unsubscribe: carryOutOnConsumer(command, &model)
    case .settle, .extend: carryOutOnDeliveries(command, &model)
    }
  }

  private mutating func attach(
    _ id: SessionID, _ origin: SessionOrigin, _ received: Int, _ model: inout Model
  ) {
    var positions: [ConsumerPosition] = []
    for consumer in 0..<UInt32(4) where received != 0 {
      let next = model.find(id, ConsumerID(consumer))
        .map { model.sessions[$0].consumers[$1].nextDelivery }
      positions.append(
        ConsumerPosition(
          consumer: ConsumerID(consumer),
          lastDelivery: DeliveryID(received == 5 ? .max : (next ?? 3) * UInt64(received) / 4)))
    }
    if received == 2 { positions.removeFirst() }
    CommandWriter.attachSession(id, origin: origin, consumers: positions, into: &payload)
    model.attachSession(id, origin, positions)
  }

  private mutating func carryOutOnQueue(_ command: Command, _ model: inout Model) {
    let tag = nextTag()
    switch command {
    case .declare(let name, let settings, let bySession):
      let requester: Requester =
        bySession < 10 ? .session(fixed(session(bySession, model))) : .connection(origin(bySession))
      CommandWriter.declareQueue(
        requester, tag: tag, name: Self.names[name], settings: Self.settings(settings),
        into: &payload)
      model.declare(requester, tag, Self.names[name], Self.settings(settings))
    case .delete(let name):
      CommandWriter.deleteQueue(
        .connection(origin(0)), tag: tag, name: Self.names[name], into: &payload)
      model.delete(.connection(origin(0)), tag, Self.names[name])
    case .purge(let name, let bySession):
      let requester = Requester.session(fixed(session(bySession, model)))
      CommandWriter.purgeQueue(requester, tag: tag, name: Self.names[name], into: &payload)
      model.purge(requester, tag, Self.names[name])
    default: break
    }
  }

  private mutating func carryOutOnMessages(_ command: Command, _ model: inout Model) {
    let tag = nextTag()
    let requester = Requester.connection(origin(0))
    switch command {
    case .cancel(let name, let number):
      let name = Self.names[name]
      let id = message(number, name, model)
      CommandWriter.cancelMessage(requester, tag: tag, queue: name, message: id, into: &payload)
      model.cancel(requester, tag, name, id)
    case .reschedule(let name, let number, let delay):
      let name = Self.names[name]
      let id = message(number, name, model)
      CommandWriter.rescheduleMessage(
        requester, tag: tag, queue: name, message: id, delay: Nanoseconds(Self.spans[delay]),
        into: &payload)
      model.reschedule(requester, tag, name, id, Self.spans[delay])
    case .redrive(let name, let number, let after, let limit):
      // Mostly one that has dead letters.
      let graves = model.queues.filter { $0.ready.contains { $0.note.deadLetter != nil } }
      let name = graves.isEmpty || number == 0 ? Self.names[name] : graves[name % graves.count].name
      let which: RedriveChoice =
        switch number {
        case 5: .reason(DeadLetterReason.allCases[after % 4])
        case 6, 7: .message(message(after + 2, name, model))
        default: .all
        }
      let after = after < 6 ? MessageID(rawValue: 0) : message(after, name, model)
      let through = limit == 3 ? message(number + 3, name, model) : MessageID(rawValue: 0)
      let limit = limit == 0 ? 1_000 : limit
      CommandWriter.redriveQueue(
        requester, tag: tag, queue: name, which: which, after: after, through: through,
        limit: UInt32(limit), into: &payload)
      model.redrive(requester, tag, name, which, after: after, through: through, limit: limit)
    default: break
    }
  }

  /// Session 0 cannot be a requester: it means that there is none.
  private func fixed(_ id: SessionID) -> SessionID { id == .none ? SessionID(77) : id }

  private mutating func publish(
    _ id: SessionID, _ ahead: Int, _ answeredNumber: Int, _ queue: QueueID,
    _ bodies: [Command.Body],
    _ model: inout Model
  ) {
    let producer = model.sessions.first { $0.id == id }?.producer ?? ProducerID(0)
    let last = model.producers[producer]?.last ?? 0
    let first = sequence(last, ahead)
    let answeredThrough = answered(answeredNumber, last)
    var records: [UInt8] = []
    var places = Self.append(bodies, to: &records)
    if bodies.count == 4, bodies[0].bytes < 10 {
      CommandWriter.refusePublish(
        id, first: PublishSequence(first), answeredThrough: PublishSequence(answeredThrough),
        count: 4, .messageTooLarge, into: &payload)
      model.publish(
        id, first: first, answeredThrough: answeredThrough, queue: queue, records: places,
        refusal: .messageTooLarge)
      return
    }
    records.withUnsafeBytes {
      CommandWriter.publish(
        id, first: PublishSequence(first), answeredThrough: PublishSequence(answeredThrough),
        queue: queue, count: UInt32(bodies.count), run: $0, into: &payload)
    }
    for place in places.indices { places[place].offset += payload.count - records.count }
    model.publish(
      id, first: first, answeredThrough: answeredThrough, queue: queue, records: places)
  }

  /// Where the records lie in `records`.
  private static func append(
    _ bodies: [Command.Body], to records: inout [UInt8]
  ) -> [Model.Record] {
    func span(_ number: Int) -> Nanoseconds? {
      number == 0 ? nil : Nanoseconds(Self.spans[number - 1])
    }
    return bodies.map { body in
      let start = records.count
      MessageRecord.append(
        MessageParts(
          body: [UInt8](repeating: 7, count: body.bytes),
          key: body.key == 0 ? "" : "key \(body.key)", priority: UInt8(body.priority),
          delay: span(body.delay), timeToLive: span(body.timeToLive)), to: &records)
      return Model.Record(
        offset: start, size: records.count - start, delay: span(body.delay)?.rawValue,
        timeToLive: span(body.timeToLive)?.rawValue, priority: body.priority, key: body.key)
    }
  }

  private mutating func transact(_ command: Command, _ model: inout Model) {
    guard
      case .transact(
        let number, let ahead, let answeredNumber, let holderNumber, let settles, let parts) =
        command
    else { return }
    let id = transactor(number, settles.isEmpty, model)
    let producer = model.sessions.first { $0.id == id }?.producer ?? ProducerID(0)
    let last = model.producers[producer]?.last ?? 0
    let first = sequence(last, ahead)
    let answeredThrough = answered(answeredNumber, last)
    let holder = holderNumber == 0 ? session(number + 1, model) : id
    let mine = model.sessions.first { $0.id == id }?.consumers.filter { !$0.held.isEmpty } ?? []
    let named = settles.map { settle in
      let consumer =
        mine.isEmpty
        ? ConsumerID(UInt32(settle.consumer)) : mine[settle.consumer % mine.count].id
      return TransactionSettle(
        consumer: consumer, kind: settle.kind, ranges: ranges(settle.ranges, id, consumer, model),
        delay: settle.error == 2 ? Nanoseconds(Self.spans[2]) : nil,
        error: ["", "it broke", "é"][settle.error])
    }
    var records: [UInt8] = []
    var known: [(queues: [QueueID], records: [Model.Record])] = []
    var written: [TransactionPart] = []
    for part in parts {
      let start = records.count
      let queues = part.queues.map { number in
        number == 0 || model.queues.isEmpty
          ? QueueID(UInt32(number)) : model.queues[number % model.queues.count].id
      }
      known.append((queues, Self.append(part.bodies, to: &records)))
      written.append(
        TransactionPart(
          queues: queues, count: part.bodies.count, runBytes: records.count - start))
    }
    records.withUnsafeBytes {
      CommandWriter.transact(
        id, first: PublishSequence(first), answeredThrough: PublishSequence(answeredThrough),
        holder: holder, settles: named, parts: written, run: $0, into: &payload)
    }
    for part in known.indices {
      for place in known[part].records.indices {
        known[part].records[place].offset += payload.count - records.count
      }
    }
    model.transact(
      id, first: first, answeredThrough: answeredThrough, holder: holder, settles: named,
      parts: known)
  }

  /// Mostly one that may publish, and that holds something if it is to settle.
  private func transactor(_ number: Int, _ onlyPublishes: Bool, _ model: Model) -> SessionID {
    let able = model.sessions.filter { session in
      model.producers[session.producer]?.session == session.id
        && session.consumers.contains { !$0.held.isEmpty }
    }
    return onlyPublishes || able.isEmpty || number % 8 == 0
      ? publisher(number, model) : able[number % able.count].id
  }

  private mutating func carryOutOnConsumer(_ command: Command, _ model: inout Model) {
    let tag = nextTag()
    switch command {
    case .subscribe(
      let number, let consumer, let queueNumber, let credit, let priority, let isExclusive):
      let id = session(number, model)
      let consumer = ConsumerID(UInt32(consumer))
      let queue = queue(queueNumber, model)
      CommandWriter.subscribe(
        id, consumer: consumer, tag: tag, queue: queue, credit: UInt32(credit),
        priority: Int16(priority), isExclusive: isExclusive, into: &payload)
      model.subscribe(
        id, consumer, tag, queue, credit, priority: priority, isExclusive: isExclusive)
    case .setCredit(let number, let consumer, let credit):
      let id = session(number, model)
      let consumer = ConsumerID(UInt32(consumer))
      let credit = credit == 7 ? 65_536 : credit
      CommandWriter.setCredit(
        id, consumer: consumer, tag: tag, credit: UInt32(credit), into: &payload)
      model.setCredit(id, consumer, tag, credit)
    case .unsubscribe(let number, let consumer, let returnHeld):
      let id = session(number, model)
      let consumer = ConsumerID(UInt32(consumer))
      CommandWriter.unsubscribe(
        id, consumer: consumer, tag: tag, returnHeld: returnHeld, into: &payload)
      model.unsubscribe(id, consumer, tag, returnHeld)
    default: break
    }
  }

  private mutating func carryOutOnDeliveries(_ command: Command, _ model: inout Model) {
    switch command {
    case .settle(
      let number, let ahead, let answeredNumber, let kind, let consumer, let styles, let error,
      let delay):
      let delay = delay < 5 ? nil : Self.spans[delay - 5]
      let (id, consumer) = holder(number, consumer, model)
      let last = model.sessions.first { $0.id == id }?.settled ?? 0
      let ranges = ranges(styles, id, consumer, model)
      let text = ["", "it broke", "é"][error]
      CommandWriter.settle(
        id, sequence: CommandSequence(sequence(last, ahead)),
        answeredThrough: CommandSequence(answered(answeredNumber, last)), kind: kind,
        consumer: consumer, ranges: ranges, delay: delay.map { Nanoseconds($0) }, error: text,
        into: &payload)
      model.settle(
        id, sequence(last, ahead), answered(answeredNumber, last), kind, consumer, ranges, text,
        delay: delay)
    case .extend(let number, let ahead, let answeredNumber, let consumer, let styles, let duration):
      let (id, consumer) = holder(number, consumer, model)
      let last = model.sessions.first { $0.id == id }?.settled ?? 0
      let ranges = ranges(styles, id, consumer, model)
      let duration = [0, 1, 3 * Step.second, .max][duration]
      CommandWriter.extend(
        id, sequence: CommandSequence(sequence(last, ahead)),
        answeredThrough: CommandSequence(answered(answeredNumber, last)), consumer: consumer,
        ranges: ranges, duration: Nanoseconds(duration), into: &payload)
      model.extend(
        id, sequence(last, ahead), answered(answeredNumber, last), consumer, ranges, duration)
    default: break
    }
  }
}
