// A client that publishes: paced or as fast as its window lets it, each message until its outcome is
// known, every step recorded.

import Base
import History
import SkeinClient
import Synchronization

final class WorkloadProducer: Sendable {
  let process: String
  private let client: SkeinClient
  private let plan: WorkloadPlan
  private let recording: Recording
  private let seed: UInt64
  private let control: WorkloadControl
  private let isAbandoned = Atomic<Bool>(false)

  /// A publish, as the history and as the cluster is told of it.
  private struct Order {
    let operation: HistoryOperation
    let message: Message
    let isCancelled: Bool
  }

  /// It publishes, as far as it knows.
  var isAlive: Bool { !isAbandoned.load(ordering: .relaxed) }

  /// Unconfirmed messages of one producer and queue.
  private static let window = 500
  /// So often an unknown outcome is asked about, with a pause each. Where the client's session ended
  /// meanwhile the answer comes at once, and will never be another: unknown it stays. Where nobody
  /// answers, each lasts as long as the client's timeout, and the run does not settle.
  static let askedMax = 20
  static let askedPause = Duration.milliseconds(100)

  init(
    _ process: String, client: SkeinClient, plan: WorkloadPlan, recording: Recording, seed: UInt64,
    control: WorkloadControl
  ) {
    self.process = process
    self.client = client
    self.plan = plan
    self.recording = recording
    self.seed = seed
    self.control = control
  }

  /// As a crash would.
  func abandon() {
    recording.clientKill(process)
    isAbandoned.store(true, ordering: .relaxed)
    client.abandon()
  }

  func close() async {
    if !isAbandoned.load(ordering: .relaxed) { await client.close(within: .seconds(2)) }
  }

  /// Publishes until the workload stops, and then until every outcome is known.
  func run() async {
    var publishers: [Publisher] = []
    for queue in plan.queueNames {
      guard let publisher = await publisher(for: queue) else { return }
      publishers.append(publisher)
    }
    await withDiscardingTaskGroup { group in
      var random = WorkloadMessage.draw(process, delivery: 0, seed: seed)
      let start = recording.clock.now
      var number: UInt64 = 0
      while control.isPublishing, !isAbandoned.load(ordering: .relaxed) {
        number += 1
        await pace(number, since: start)
        let publisher = publishers[Int.random(in: 0..<publishers.count, using: &random)]
        let order = order(number, to: publisher.queue, &random)
        let began = recording.clock.now
        // Killed while it waited for its time: it must not do what nobody will know of.
        guard recording.invoke(order.operation, by: process) else { break }
        do throws(SkeinError) {
          let ticket = try await publisher.enqueue(order.message)
          group.addTask { await self.confirm(order, ticket, since: began) }
        } catch {
          // It was not sent.
          recording.fail(order.operation, by: process, error: "\(error)")
          if case .closed = error { break }
        }
      }
    }
  }

  private func publisher(for queue: String) async -> Publisher? {
    while control.isPublishing, !isAbandoned.load(ordering: .relaxed) {
      do throws(SkeinError) {
        return try await client.publisher(for: queue, window: Self.window)
      } catch {
        if case .closed = error { return nil }
      }
    }
    return nil
  }

  /// Waits until the message's time has come, and while consumers are too far behind.
  private func pace(_ number: UInt64, since start: Nanoseconds) async {
    do {
      if let rate = plan.rate {
        let due = Double(number) * Double(plan.producers) / Double(rate)
        try await recording.clock.sleep(
          until: start + Nanoseconds(rawValue: UInt64(due * 1e9)))
      }
      while control.isPublishing, recording.isBacklogged {
        try await Task.sleep(for: .milliseconds(5))
      }
    } catch {
      // Cancelled: `isPublishing` is false soon.
    }
  }

  private func order(
    _ number: UInt64, to queue: String, _ random: inout SeededRandom
  ) -> Order {
    let value = "\(process)-\(number)"
    var message = Message(body: WorkloadMessage.body(value, bytes: plan.bodyBytes))
    let isCancelled = Self.isDrawn(plan.cancelled, &random)
    var delay: UInt64?
    if isCancelled || Self.isDrawn(plan.delayed, &random) {
      delay = UInt64.random(in: 1...2000, using: &random) * 1_000_000
      message.delay = delay.map { .nanoseconds(Int64($0)) }
    }
    var timeToLive: UInt64?
    if Self.isDrawn(plan.expiring, &random) {
      timeToLive = UInt64.random(in: 1...2000, using: &random) * 1_000_000
      message.timeToLive = timeToLive.map { .nanoseconds(Int64($0)) }
    }
    if plan.keys > 0 { message.key = "key-\(Int.random(in: 0..<plan.keys, using: &random))" }
    var priority: Int?
    if plan.priorities > 1 {
      message.priority = UInt8.random(in: 0..<UInt8(plan.priorities), using: &random)
      priority = Int(message.priority)
    }
    let key = message.key.isEmpty ? nil : message.key
    let operation = HistoryOperation.publish(
      value, to: queue, delay: delay, timeToLive: timeToLive, key: key, priority: priority)
    return Order(operation: operation, message: message, isCancelled: isCancelled)
  }

  private static func isDrawn(_ share: UInt64, _ random: inout SeededRandom) -> Bool {
    share > 0 && UInt64.random(in: 0..<1000, using: &random) < share
  }

  /// Takes a message back that is not due yet, or only just.
  private func cancel(_ order: Order, _ id: MessageIdentifier) async {
    guard let value = order.operation.value else { return }
    let operation = HistoryOperation.cancel(value, in: order.operation.queue)
    guard recording.invoke(operation, by: process) else { return }
    do throws(SkeinError) {
      try await client.cancelMessage(id, in: order.operation.queue)
      recording.ok(operation, by: process)
    } catch {
      // Also where it was not found: an earlier try may have taken it away.
      recording.info(operation, by: process, error: "\(error)")
    }
  }

  /// Records the outcome; an unknown one is asked about again until it is known.
  private func confirm(
    _ order: Order, _ ticket: PublishTicket, since began: Nanoseconds
  ) async {
    let operation = order.operation
    var result = await outcome { () async throws(SkeinError) in try await ticket.receipt() }
    var asked = 0
    while true {
      switch result {
      case .success(let receipt):
        recording.ok(
          operation, by: process, id: "\(receipt.id)",
          latency: Nanoseconds(rawValue: recording.clock.now.rawValue - began.rawValue))
        if order.isCancelled { await cancel(order, receipt.id) }
        return
      case .failure(.outcomeUnknown(let reference)):
        recording.info(operation, by: process, error: "outcome unknown")
        asked += 1
        do { try await Task.sleep(for: Self.askedPause) } catch { return }
        if !isAlive || !control.mayRetry || asked > Self.askedMax { return }
        guard recording.invoke(operation, by: process) else { return }
        result = await outcome { () async throws(SkeinError) in
          try await self.client.retry(reference)
        }
      case .failure(let error):
        if error.isDefinite {
          recording.fail(operation, by: process, error: "\(error)")
        } else {
          recording.info(operation, by: process, error: "\(error)")
        }
        return
      }
    }
  }
}

/// What comes of an operation, as a value.
func outcome<Value>(
  _ body: () async throws(SkeinError) -> Value
) async -> Result<Value, SkeinError> {
  do throws(SkeinError) { return .success(try await body()) } catch { return .failure(error) }
}

extension SkeinError {
  /// Whether the operation certainly was not, and will not be, carried out.
  var isDefinite: Bool {
    switch self {
    case .refused, .timedOut, .messageTooLarge, .invalidMessage, .leaseLost, .alreadySettled: true
    default: false
    }
  }
}
