// What a message costs the machine with so many others waiting: entries of 1,000 messages each, and
// only the time inside `apply` counts, as processor time of this thread.

import Base
import Glibc

@testable import QueueMachine

/// How the messages of a run wait.
enum CostKind: String, CaseIterable {
  case plain, priorities, keyed, delayed
}

/// Nanoseconds of processor time per message.
struct Cost {
  var publish: Double
  /// Its falling due, delivery and acknowledgement.
  var consume: Double
  /// Bytes of the process per message that waits.
  var bytes: Double
}

struct CostRun: ~Copyable {
  /// Messages in one entry.
  static let batch = 1_000

  private let kind: CostKind
  /// Messages that wait all the time.
  private let waiting: Int
  private var machine = QueueMachine()
  private var effects = EffectList()
  private var index = LogIndex(0)
  /// Nanoseconds.
  private var now: UInt64 = 1
  private var random: UInt64 = 0x9E37_79B9_7F4A_7C15
  private var payload: [UInt8] = []
  private var published: UInt64 = 0
  private var settles: UInt64 = 0
  private var delivered: UInt64 = 0
  private var settled: UInt64 = 0
  private let session = SessionID(rawValue: 1 << 20)

  init(_ kind: CostKind, waiting: Int) {
    self.kind = kind
    self.waiting = waiting
    let origin = SessionOrigin(node: NodeID(1), connection: 1)
    apply {
      CommandWriter.openSession(
        origin: origin, kind: .native, producer: ProducerID(1), timeout: .seconds(1 << 20),
        name: "cost", into: &$0)
    }
    var settings = QueueSettings()
    settings.lease = .seconds(1 << 30)
    if kind == .priorities { settings.priorities = 10 }
    if kind == .keyed { settings.keyLimit = 1 }
    apply {
      CommandWriter.declareQueue(
        .connection(origin), tag: RequestTag(1), name: "q", settings: settings, into: &$0)
    }
    let queue = queue
    let session = session
    apply {
      CommandWriter.subscribe(
        session, consumer: ConsumerID(1), tag: RequestTag(2), queue: queue,
        credit: UInt32(Self.batch), into: &$0)
    }
  }

  private var queue: QueueID { machine.queue(named: "q") ?? QueueID(0) }

  /// Fills the queue and then publishes and consumes by turns.
  mutating func measure(rounds: Int) -> Cost {
    let before = Self.residentBytes()
    let queue = queue
    // What the consumer has at once does not wait.
    for _ in 0..<(waiting / Self.batch + 1) { _ = publish(to: queue, isFilling: true) }
    let bytes = Double(Self.residentBytes() - before) / Double(waiting)
    for _ in 0..<20 { _ = turn(queue) }
    var publishing: UInt64 = 0
    var consuming: UInt64 = 0
    let settledBefore = settled
    for _ in 0..<rounds {
      let turn = turn(queue)
      publishing += turn.publish
      consuming += turn.consume
    }
    return Cost(
      publish: Double(publishing) / Double(rounds * Self.batch),
      consume: Double(consuming) / Double(max(1, settled - settledBefore)), bytes: bytes)
  }

  private mutating func turn(_ queue: QueueID) -> (publish: UInt64, consume: UInt64) {
    let publish = publish(to: queue, isFilling: false)
    var consume: UInt64 = 0
    if kind == .delayed {
      now += UInt64(Self.batch) * 1_000_000
      consume += apply { _ in }
    }
    let first = DeliveryID(settled + 1)
    let last = DeliveryID(delivered)
    let session = session
    let number = settles + 1
    guard first <= last else { return (publish, consume) }
    consume += apply {
      CommandWriter.settle(
        session, sequence: CommandSequence(number),
        answeredThrough: CommandSequence(number - 1), kind: .acknowledge,
        consumer: ConsumerID(1), ranges: [DeliveryRange(first: first, last: last)], into: &$0)
    }
    settles = number
    settled = last.rawValue
    return (publish, consume)
  }

  private mutating func publish(to queue: QueueID, isFilling: Bool) -> UInt64 {
    var run: [UInt8] = []
    for _ in 0..<Self.batch {
      MessageRecord.append(message(isFilling: isFilling), to: &run)
    }
    let session = session
    let first = published + 1
    published += UInt64(Self.batch)
    return apply { payload in
      run.withUnsafeBytes {
        CommandWriter.publish(
          session, first: PublishSequence(first), answeredThrough: PublishSequence(first - 1),
          queue: queue, count: UInt32(Self.batch), run: $0, into: &payload)
      }
    }
  }

  private mutating func message(isFilling: Bool) -> MessageParts {
    var message = MessageParts(body: [1, 2, 3, 4])
    switch kind {
    case .plain: break
    case .priorities: message.priority = UInt8(draw(10))
    case .keyed: message.key = "key \(draw(UInt64(max(Self.batch, waiting / 10))))"
    case .delayed:
      // One message a millisecond comes and goes, waiting for as long as makes so many wait.
      let share = Double(draw(1 << 30)) / Double(1 << 30)
      let rest = isFilling ? 1 - (1 - share).squareRoot() : share
      message.delay = Nanoseconds(UInt64(rest * Double(2 * waiting) * 1e6) + 1)
    }
    return message
  }

  private mutating func draw(_ bound: UInt64) -> UInt64 {
    random ^= random << 13
    random ^= random >> 7
    random ^= random << 17
    return (random >> 11) % bound
  }

  /// Applies one entry; how long that took.
  @discardableResult
  private mutating func apply(_ build: (inout [UInt8]) -> Void) -> UInt64 {
    payload.removeAll(keepingCapacity: true)
    CommandWriter.beginBatch(stamp: MachineTime(now), into: &payload)
    build(&payload)
    index = index.next
    effects.removeAll()
    let start = Self.processorTime()
    payload.withUnsafeBytes { machine.apply(index: index, payload: $0, effects: &effects) }
    let end = Self.processorTime()
    delivered += UInt64(effects.deliveries.count)
    return end - start
  }

  /// Of this thread, in nanoseconds.
  static func processorTime() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  private static func residentBytes() -> Int {
    guard let file = fopen("/proc/self/statm", "r") else { return 0 }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 128)
    let count = fread(&bytes, 1, bytes.count, file)
    let fields = bytes[..<count].split(separator: UInt8(ascii: " "))
    return fields.count < 2 ? 0 : (Int(String(decoding: fields[1], as: UTF8.self)) ?? 0) * 4_096
  }
}
