// A machine with an index and a clock, and effects in a form that can be compared.

import Base

@testable import QueueMachine

/// An effect with what its ranges name.
enum Seen: Hashable {
  case plain(Effect)
  case deliver(SessionID, ConsumerID, [Delivery])
  case holding(SessionID, ConsumerID, through: DeliveryID, [DeliveryRange])
  case lapsed(SessionID, ConsumerID, [DeliveryRange])

  static func all(_ list: EffectList) -> [Seen] {
    list.effects.map { effect in
      switch effect {
      case .deliver(let session, let consumer, let range):
        .deliver(session, consumer, Array(list.deliveries[range]))
      case .holding(let session, let consumer, let through, let range):
        .holding(session, consumer, through: through, Array(list.ranges[range]))
      case .lapsed(let session, let consumer, let range):
        .lapsed(session, consumer, Array(list.ranges[range]))
      default: .plain(effect)
      }
    }
  }
}

/// A run of records with bodies of these sizes.
func run(_ bodyBytes: [Int]) -> [UInt8] {
  var bytes: [UInt8] = []
  for size in bodyBytes {
    MessageRecord.append(MessageParts(body: [UInt8](repeating: 7, count: size)), to: &bytes)
  }
  return bytes
}

final class Rig {
  var machine: QueueMachine
  var index = LogIndex(0)
  /// Nanoseconds.
  var now: UInt64 = 1_000
  let origin = SessionOrigin(node: NodeID(1), connection: 1)
  var nextTag: UInt64 = 0

  init(limits: MachineLimits = MachineLimits()) { machine = QueueMachine(limits: limits) }

  /// Applies one entry and checks the state.
  @discardableResult
  func apply(_ build: (inout [UInt8]) -> Void) -> [Seen] {
    var payload: [UInt8] = []
    CommandWriter.beginBatch(stamp: MachineTime(now), into: &payload)
    build(&payload)
    return apply(payload: payload)
  }

  func apply(payload: [UInt8]) -> [Seen] {
    index = index.next
    var effects = EffectList()
    payload.withUnsafeBytes {
      do { try CommandBatch.check($0) } catch { stopForBug("test payload: \(error)") }
      machine.apply(index: index, payload: $0, effects: &effects)
    }
    machine.checkInvariants()
    return Seen.all(effects)
  }

  /// An entry without commands `nanoseconds` later.
  @discardableResult
  func tick(_ span: Nanoseconds) -> [Seen] {
    now += span.rawValue
    return apply { _ in }
  }

  func tag() -> RequestTag {
    nextTag += 1
    return RequestTag(nextTag)
  }

  @discardableResult
  func declare(_ name: String, _ change: (inout QueueSettings) -> Void = { _ in }) -> QueueID {
    var settings = QueueSettings()
    change(&settings)
    let seen = declareReply(name, settings)
    guard case .queueDeclared(let queue, _) = seen else { stopForBug("declare: \(seen)") }
    return queue
  }

  func declareReply(_ name: String, _ settings: QueueSettings) -> Reply {
    let tag = tag()
    let seen = apply {
      CommandWriter.declareQueue(
        .connection(origin), tag: tag, name: name, settings: settings, into: &$0)
    }
    guard case .plain(.reply(.connection(origin), tag, let reply))? = seen.first, seen.count == 1
    else { stopForBug("declare: \(seen)") }
    return reply
  }

  func open(
    producer: UInt64 = 0, timeout: Nanoseconds = .seconds(10), origin: SessionOrigin? = nil,
    kind: SessionKind = .native
  ) -> SessionID {
    let seen = tryOpen(producer: producer, timeout: timeout, origin: origin, kind: kind)
    for case .plain(.sessionOpened(_, let session, _, _)) in seen { return session }
    stopForBug("open: \(seen)")
  }

  func tryOpen(
    producer: UInt64 = 0, epoch: ProducerEpoch = .none, attempt: OpenAttempt = .none,
    timeout: Nanoseconds = .seconds(10), origin: SessionOrigin? = nil, kind: SessionKind = .native
  ) -> [Seen] {
    apply {
      CommandWriter.openSession(
        origin: origin ?? self.origin, kind: kind, producer: ProducerID(producer), epoch: epoch,
        attempt: attempt, timeout: timeout, name: "test", into: &$0)
    }
  }

  @discardableResult
  func publish(
    _ session: SessionID, _ first: UInt64, to queue: QueueID, bodies: [Int] = [10],
    answeredThrough: UInt64 = 0
  ) -> [Seen] {
    apply {
      Self.publish(
        session, first, to: queue, bodies: bodies, answeredThrough: answeredThrough, into: &$0)
    }
  }

  static func publish(
    _ session: SessionID, _ first: UInt64, to queue: QueueID, bodies: [Int],
    answeredThrough: UInt64 = 0, into payload: inout [UInt8]
  ) {
    run(bodies).withUnsafeBytes {
      CommandWriter.publish(
        session, first: PublishSequence(first),
        answeredThrough: PublishSequence(answeredThrough), queue: queue,
        count: UInt32(bodies.count), run: $0, into: &payload)
    }
  }

  /// Publishes messages given as their parts.
  @discardableResult
  func publish(
    _ session: SessionID, _ first: UInt64, to queue: QueueID, messages: [MessageParts]
  ) -> [Seen] {
    var records: [UInt8] = []
    for message in messages { MessageRecord.append(message, to: &records) }
    return apply { payload in
      records.withUnsafeBytes {
        CommandWriter.publish(
          session, first: PublishSequence(first), answeredThrough: .zero, queue: queue,
          count: UInt32(messages.count), run: $0, into: &payload)
      }
    }
  }

  /// The reply to a request about a queue.
  @discardableResult
  func ask(_ build: (Requester, RequestTag, inout [UInt8]) -> Void) -> Reply {
    let tag = tag()
    let seen = apply { build(.connection(origin), tag, &$0) }
    for case .plain(.reply(.connection(origin), tag, let reply)) in seen { return reply }
    stopForBug("no reply: \(seen)")
  }

  @discardableResult
  func subscribe(
    _ session: SessionID, _ consumer: UInt32, _ queue: QueueID, credit: UInt32 = 10
  ) -> [Seen] {
    apply {
      CommandWriter.subscribe(
        session, consumer: ConsumerID(consumer), tag: tag(), queue: queue, credit: credit,
        into: &$0)
    }
  }

  @discardableResult
  func settle(
    _ session: SessionID, _ sequence: UInt64, _ kind: SettleKind,
    _ ranges: [ClosedRange<UInt64>], answeredThrough: UInt64 = 0, delay: Nanoseconds? = nil,
    error: String = ""
  ) -> [Seen] {
    apply {
      CommandWriter.settle(
        session, sequence: CommandSequence(sequence),
        answeredThrough: CommandSequence(answeredThrough), kind: kind,
        consumer: ConsumerID(1), ranges: ranges.map { DeliveryRange($0) }, delay: delay,
        error: error, into: &$0)
    }
  }

  @discardableResult
  func attach(
    _ session: SessionID, origin: SessionOrigin, received: [UInt32: UInt64] = [:]
  ) -> [Seen] {
    apply {
      CommandWriter.attachSession(
        session, origin: origin,
        consumers: received.sorted { $0.key < $1.key }.map {
          ConsumerPosition(consumer: ConsumerID($0.key), lastDelivery: DeliveryID($0.value))
        }, into: &$0)
    }
  }

  func detach(_ session: SessionID, origin: SessionOrigin? = nil) {
    apply {
      CommandWriter.detachSession(session, origin: origin ?? self.origin, into: &$0)
    }
  }

  func summary(_ queue: QueueID) -> QueueSummary {
    guard let summary = machine.summary(of: queue) else { stopForBug("no queue \(queue)") }
    return summary
  }

  /// Goes on with a machine read from a snapshot.
  func restart(limits: MachineLimits = MachineLimits()) throws {
    let bytes = machine.freeze().encoded()
    machine = try QueueMachine(snapshot: bytes, limits: limits)
  }
}

extension DeliveryRange {
  init(_ range: ClosedRange<UInt64>) {
    self.init(first: DeliveryID(range.lowerBound), last: DeliveryID(range.upperBound))
  }
}

extension [Seen] {
  /// All deliveries in them.
  var deliveries: [Delivery] {
    flatMap { seen in
      if case .deliver(_, _, let deliveries) = seen { return deliveries }
      return []
    }
  }

  /// What each consumer got, in order.
  var takers: [UInt32] {
    flatMap { seen -> [UInt32] in
      if case .deliver(_, let consumer, let deliveries) = seen {
        return deliveries.map { _ in consumer.rawValue }
      }
      return []
    }
  }
}
