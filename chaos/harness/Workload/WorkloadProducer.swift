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

  /// Unconfirmed messages of one producer and queue.
  private static let window = 500

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
        guard let (operation, message) = message(number, to: publisher.queue, &random) else {
          break
        }
        let began = recording.clock.now
        // Killed while it waited for its time: it must not do what nobody will know of.
        guard recording.invoke(operation, by: process) else { break }
        do throws(SkeinError) {
          let ticket = try await publisher.enqueue(message)
          group.addTask { await self.confirm(operation, ticket, since: began) }
        } catch {
          // It was not sent.
          recording.fail(operation, by: process, error: "\(error)")
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

  private func message(
    _ number: UInt64, to queue: String, _ random: inout SeededRandom
  ) -> (HistoryOperation, Message)? {
    let value = "\(process)-\(number)"
    var message = Message(body: WorkloadMessage.body(value, bytes: plan.bodyBytes))
    var delay: UInt64?
    if UInt64.random(in: 0..<1000, using: &random) < plan.delayed {
      delay = UInt64.random(in: 1...2000, using: &random) * 1_000_000
      message.delay = delay.map { .nanoseconds(Int64($0)) }
    }
    if plan.keys > 0 { message.key = "key-\(Int.random(in: 0..<plan.keys, using: &random))" }
    let key = message.key.isEmpty ? nil : message.key
    return (.publish(value, to: queue, delay: delay, key: key), message)
  }

  /// Records the outcome; an unknown one is asked about again until it is known.
  private func confirm(
    _ operation: HistoryOperation, _ ticket: PublishTicket, since began: Nanoseconds
  ) async {
    var result = await outcome { () async throws(SkeinError) in try await ticket.receipt() }
    while true {
      switch result {
      case .success(let receipt):
        recording.ok(
          operation, by: process, id: "\(receipt.id)",
          latency: Nanoseconds(rawValue: recording.clock.now.rawValue - began.rawValue))
        return
      case .failure(.outcomeUnknown(let reference)):
        recording.info(operation, by: process, error: "outcome unknown")
        if isAbandoned.load(ordering: .relaxed) || !control.mayRetry { return }
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

  private func outcome(
    _ body: () async throws(SkeinError) -> MessageReceipt
  ) async -> Result<MessageReceipt, SkeinError> {
    do throws(SkeinError) { return .success(try await body()) } catch { return .failure(error) }
  }
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
