// Settlements in the order of their command numbers, from when the loop took them until they are
// answered.

import Base
import Wire

struct SettleQueue {
  typealias Outcome = StagedSettle.Outcome

  struct Pending {
    let core: ConsumerCore?
    let consumer: ConsumerID
    let action: SettleAction
    /// At most `SettleRequest.rangesMax`.
    let ranges: [DeliveryRange]
    var waiters: [(range: DeliveryRange, promise: Promise<Outcome>)]
    /// Wait for this and everything before it.
    var flushes: [Promise<Outcome>] = []
    let deadline: MonotonicTime
    /// Publishes up to this one were staged before it and are sent before it; 0 for none.
    let behind: UInt64
  }

  private var pending = RingBuffer<Pending>()
  /// Ends of deliveries, which have no numbers yet: publishes that were staged before them, and
  /// extensions, which must come in time, go first.
  private var ends = RingBuffer<Pending>()
  /// The number of the first pending one.
  private var first: UInt64 = 1
  private var sent = 0
  private var expired = 0
  private var expiredEnds = 0
  /// Nothing is sent before: the node pushed back.
  var pauseEnd = MonotonicTime.zero

  var isEmpty: Bool { pending.isEmpty && ends.isEmpty }

  /// - Parameters:
  ///   - core: who is told of failures; nil if nobody needs to be.
  ///   - behind: the last publish that was staged before it.
  mutating func append(
    _ settle: StagedSettle, consumer: ConsumerID, core: ConsumerCore?, deadline: MonotonicTime,
    behind: UInt64 = 0
  ) {
    let ranges = Self.joined(settle.ranges)
    var start = 0
    while start < ranges.count {
      let end = min(ranges.count, start + SettleRequest.rangesMax)
      let part = Pending(
        core: core, consumer: consumer, action: settle.action,
        ranges: Array(ranges[start..<end]),
        waiters: end == ranges.count ? settle.waiters : [], deadline: deadline, behind: behind)
      if settle.action.endsDelivery { ends.append(part) } else { pending.append(part) }
      start = end
    }
  }

  /// Ordered, neighbours joined: deliveries settled in any order become few ranges.
  static func joined(_ ranges: [DeliveryRange]) -> [DeliveryRange] {
    if ranges.count < 2 { return ranges }
    var joined: [DeliveryRange] = []
    for range in ranges.sorted(by: { $0.first < $1.first }) {
      if let last = joined.last, range.first.rawValue <= last.last.rawValue + 1 {
        joined[joined.count - 1].last = max(last.last, range.last)
      } else {
        joined.append(range)
      }
    }
    return joined
  }

  /// Keeps the promise when everything of this consumer so far is answered.
  mutating func whenAnswered(_ consumer: ConsumerID, _ promise: Promise<Outcome>) {
    for place in stride(from: ends.count - 1, through: 0, by: -1)
    where ends[place].consumer == consumer {
      ends[place].flushes.append(promise)
      return
    }
    for place in stride(from: pending.count - 1, through: 0, by: -1)
    where pending[place].consumer == consumer {
      pending[place].flushes.append(promise)
      return
    }
    promise.keep(.success(()))
  }

  /// From the first unanswered one on.
  mutating func sendAgain() {
    sent = 0
    pauseEnd = .zero
  }

  var hasUnsent: Bool { sent < pending.count || !ends.isEmpty }

  /// Whether this one was sent on this connection and is not answered.
  func isOpen(_ sequence: CommandSequence) -> Bool {
    first <= sequence.rawValue && sequence.rawValue < first + UInt64(sent)
  }

  /// Whether everything before this one is answered.
  func isNext(_ sequence: CommandSequence) -> Bool { sequence.rawValue == first }

  /// The next to send, with its number, if it may go.
  mutating func nextToSend(
    where mayGo: (Pending) -> Bool
  ) -> (Pending, CommandSequence)? {
    if sent == pending.count, let end = ends.first, mayGo(end) {
      _ = ends.popFirst()
      expiredEnds = max(0, expiredEnds - 1)
      pending.append(end)
    }
    guard sent < pending.count, mayGo(pending[sent]) else { return nil }
    return (pending[sent], CommandSequence(first + UInt64(sent)))
  }

  mutating func noteSent() { sent += 1 }

  var answeredThrough: CommandSequence { CommandSequence(first - 1) }

  /// Everything up to `number` is done, but for what was refused before.
  mutating func answered(through number: UInt64) {
    while first <= number, let settle = pending.popFirst() {
      first += 1
      sent = max(0, sent - 1)
      expired = max(0, expired - 1)
      for waiter in settle.waiters { waiter.promise.keep(.success(())) }
      for promise in settle.flushes { promise.keep(.success(())) }
    }
  }

  /// Part of a settlement had no effect: whoever waits for it is told, else the consumer.
  func refused(
    _ sequence: CommandSequence, _ consumer: ConsumerID, _ range: DeliveryRange,
    _ error: SkeinError
  ) {
    let place = Int(clamping: sequence.rawValue &- first)
    // A transaction may have ended the delivery meanwhile: being too late then harms nobody.
    if place < pending.count, !pending[place].action.endsDelivery,
      pending[place].core.map({ !$0.hasUnsettled(range) }) ?? true,
      !pending[place].waiters.contains(where: { $0.range.overlaps(range) })
    {
      return
    }
    var isWaitedFor = false
    var core: ConsumerCore?
    // Who waits for a settlement of many ranges stands with the last part of it.
    for settles in [pending, ends] {
      for place in 0..<settles.count where settles[place].consumer == consumer {
        core = core ?? settles[place].core
        for waiter in settles[place].waiters where waiter.range.overlaps(range) {
          waiter.promise.keep(.failure(error))
          isWaitedFor = true
        }
      }
    }
    if !isWaitedFor { core?.report([SettleFailure(range, error)]) }
  }

  /// Nothing of this will be answered.
  mutating func failAll(_ error: SkeinError) {
    while let settle = pending.popFirst() ?? ends.popFirst() {
      let isWaitedFor = settle.waiters.contains { $0.promise.keep(.failure(error)) }
      for waiter in settle.waiters { waiter.promise.keep(.failure(error)) }
      for promise in settle.flushes { promise.keep(.failure(error)) }
      if !isWaitedFor, let core = settle.core {
        core.report(settle.ranges.map { SettleFailure($0, error) })
      }
    }
    sent = 0
    expired = 0
    expiredEnds = 0
  }

  /// Tells those whose time is up; they go on being sent. Returns when the next is due.
  mutating func expire(now: MonotonicTime) -> MonotonicTime {
    let next = Self.expire(pending, &expired, now: now)
    return min(next, Self.expire(ends, &expiredEnds, now: now))
  }

  private static func expire(
    _ settles: RingBuffer<Pending>, _ expired: inout Int, now: MonotonicTime
  ) -> MonotonicTime {
    while expired < settles.count, settles[expired].deadline <= now {
      let error = SkeinError.requestUnknown("the settlement")
      for waiter in settles[expired].waiters { waiter.promise.keep(.failure(error)) }
      for promise in settles[expired].flushes { promise.keep(.failure(error)) }
      expired += 1
    }
    return expired < settles.count ? settles[expired].deadline : .never
  }
}

extension DeliveryRange {
  /// Overlaps no delivery.
  static var none: DeliveryRange { DeliveryRange(first: DeliveryID(0), last: DeliveryID(0)) }

  fileprivate func overlaps(_ other: DeliveryRange) -> Bool {
    first <= other.last && other.first <= last
  }
}

extension SettleFailure {
  init(_ range: DeliveryRange, _ error: SkeinError) {
    self.init(deliveries: range.first.rawValue...range.last.rawValue, error: error)
  }
}

extension SettleAction {
  func frame(
    consumer: ConsumerID, ranges: [DeliveryRange], sequence: CommandSequence,
    answeredThrough: CommandSequence
  ) -> ClientFrame {
    func settle(_ kind: SettleKind, error: String = "", delay: Nanoseconds? = nil) -> ClientFrame {
      .settle(
        SettleRequest(
          sequence: sequence, answeredThrough: answeredThrough, kind: kind, consumer: consumer,
          ranges: ranges, delay: delay, error: error))
    }
    switch self {
    case .acknowledge: return settle(.acknowledge)
    case .retry(let error, let delay): return settle(.negative, error: error, delay: delay)
    case .reject(let error): return settle(.reject, error: error)
    case .release: return settle(.release)
    case .extend(let duration):
      return .extend(
        ExtendRequest(
          sequence: sequence, answeredThrough: answeredThrough, consumer: consumer,
          ranges: ranges, by: duration))
    }
  }
}
