// Clients that speak AMQP, as a program written for RabbitMQ would: they connect to any node, publish
// with confirms, acknowledge, and connect to another node when theirs is gone. AMQP has no leases, no
// tokens and no answer to an acknowledgement, and a publish whose confirm is missing can not be asked
// about: so what the history can show is that nothing confirmed is lost.

import Base
import Glibc
import History
import Synchronization
import Transport

final class AMQPClients: Sendable {
  static let queue = "amqp-work"

  private let plan: WorkloadPlan
  private let recording: Recording
  private let control: WorkloadControl
  private let seed: UInt64
  private let addresses: [String]
  private let tokens = Atomic<UInt64>(0)

  /// Publishes of one connection that wait for their confirm.
  private static let window = 200

  init(
    plan: WorkloadPlan, recording: Recording, control: WorkloadControl, seed: UInt64,
    addresses: [String]
  ) {
    self.plan = plan
    self.recording = recording
    self.control = control
    self.seed = seed
    self.addresses = addresses
  }

  /// Ends when all that was published is answered, its connection is gone, or nobody waits for
  /// answers any more: a confirm that never comes is what this is to find, not to hang on.
  func publish(_ number: Int) async throws { try await onAThread { self.publishing(number) } }
  /// Ends with the workload.
  func consume(_ number: Int) async throws { try await onAThread { self.consuming(number) } }

  private func onAThread(_ body: @escaping @Sendable () -> Void) async throws {
    try await withCheckedThrowingContinuation {
      (continuation: CheckedContinuation<Void, any Error>) in
      do throws(ErrorNumber) {
        _ = try WorkerThread(name: "skein-amqp") {
          body()
          continuation.resume()
        }
      } catch {
        continuation.resume(throwing: ChaosError("no thread for an AMQP client: \(error)"))
      }
    }
  }

  /// The next node's turn, each time.
  private func connect(_ attempt: Int) -> AMQPLink? {
    do throws(AMQPLink.Ended) {
      return try AMQPLink(to: addresses[attempt % addresses.count])
    } catch {
      usleep(20_000)
      return nil
    }
  }

  // MARK: Publishing

  private struct Publishing {
    /// By the number that the confirm names; ascending.
    var waiting = RingBuffer<(tag: UInt64, publish: HistoryOperation, began: Nanoseconds)>()
    var nextTag: UInt64 = 1
  }

  private func publishing(_ number: Int) {
    var attempt = number
    var sent: UInt64 = 0
    while control.isPublishing {
      defer { attempt += 1 }
      guard let link = connect(attempt) else { continue }
      var state = Publishing()
      do throws(AMQPLink.Ended) {
        try link.selectConfirms()
        try publish(on: link, &state, &sent, number)
      } catch {
        // Another node may go on; what had no answer stays unknown.
      }
      let reason = control.mayRetry ? "the connection ended" : "no confirm came"
      while let (_, publish, _) = state.waiting.popFirst() {
        recording.info(publish, by: process(publish), error: reason)
      }
    }
  }

  /// Each message is a producer of its own: another connection may overtake.
  private func process(_ publish: HistoryOperation) -> String { "p-\(publish.value ?? "")" }

  private func publish(
    on link: AMQPLink, _ state: inout Publishing, _ sent: inout UInt64, _ number: Int
  ) throws(AMQPLink.Ended) {
    // Beside others they publish half as much.
    let share: UInt64 = plan.producers > 0 ? 2 : 1
    let pause = Nanoseconds(
      rawValue: 1_000_000_000 / (plan.rate ?? 2000) * UInt64(plan.amqp) * share)
    var due = recording.clock.now
    while control.isPublishing || (!state.waiting.isEmpty && control.mayRetry) {
      let now = recording.clock.now
      if control.isPublishing, now >= due, state.waiting.count < Self.window,
        !recording.isBacklogged
      {
        due = max(due + pause, now)
        sent += 1
        let value = "amqp-\(number)-\(sent)"
        let publish = HistoryOperation.publish(value, to: Self.queue)
        _ = recording.invoke(publish, by: process(publish))
        // Before it is written: if that fails in the middle, nobody knows.
        state.waiting.append((state.nextTag, publish, now))
        state.nextTag += 1
        try link.publish(WorkloadMessage.body(value, bytes: plan.bodyBytes), to: Self.queue)
      }
      let wait = due > now && control.isPublishing ? due.rawValue - now.rawValue : 20_000_000
      for event in try link.events(within: Nanoseconds(rawValue: min(wait, 20_000_000))) {
        guard case .confirm(let tag, let isMultiple, let isStored) = event else { continue }
        confirmed(tag, isMultiple, isStored, &state)
      }
    }
  }

  private func confirmed(
    _ tag: UInt64, _ isMultiple: Bool, _ isStored: Bool, _ state: inout Publishing
  ) {
    var others = RingBuffer<(tag: UInt64, publish: HistoryOperation, began: Nanoseconds)>()
    while let one = state.waiting.popFirst() {
      guard isMultiple ? one.tag <= tag : one.tag == tag else {
        others.append(one)
        continue
      }
      if isStored {
        recording.ok(
          one.publish, by: process(one.publish),
          latency: Nanoseconds(rawValue: recording.clock.now.rawValue - one.began.rawValue))
      } else {
        recording.info(one.publish, by: process(one.publish), error: "basic.nack")
      }
    }
    state.waiting = others
  }

  // MARK: Consuming

  private func consuming(_ number: Int) {
    var random = WorkloadMessage.draw("amqp-\(number)", delivery: 0, seed: seed)
    var attempt = number + 1
    while control.isConsuming {
      defer { attempt += 1 }
      guard let link = connect(attempt) else { continue }
      let process = "a\(number)-\(attempt)"
      do throws(AMQPLink.Ended) {
        try link.consume(Self.queue, prefetch: plan.prefetch)
        while control.isConsuming {
          for event in try link.events(within: .milliseconds(20)) {
            guard case .deliver(let tag, let isRedelivered, let body) = event else { continue }
            try take(tag, isRedelivered, body, link, process, &random)
          }
        }
      } catch {
        recording.sessionEnd(process)
      }
      link.hangUp()
    }
  }

  private func take(
    _ tag: UInt64, _ isRedelivered: Bool, _ body: [UInt8], _ link: AMQPLink, _ process: String,
    _ random: inout SeededRandom
  ) throws(AMQPLink.Ended) {
    let value = body.withUnsafeBytes { WorkloadMessage.value(of: $0, bytes: plan.bodyBytes) }
    let token = tokens.add(1, ordering: .relaxed).newValue
    // The lease is over at once: AMQP promises none, and the node may have been given up meanwhile. Nor is
    // there a number of the attempt, and what is read late would be out of place with one.
    _ = recording.deliver(
      HistoryDelivery(queue: Self.queue, value: value, token: token, lease: 0), to: process)
    let isGivenBack =
      !control.isDraining && UInt64.random(in: 0..<1000, using: &random) < plan.nacked
    let operation: HistoryOperation =
      isGivenBack
      ? .release(value, of: Self.queue, token: token) : .ack(value, of: Self.queue, token: token)
    _ = recording.invoke(operation, by: process)
    // There is no answer to either. That it was sent is all that the backlog can go by.
    defer {
      recording.info(operation, by: process, error: "AMQP does not say", isTaken: !isGivenBack)
    }
    if isGivenBack { try link.giveBack(tag) } else { try link.acknowledge(tag) }
  }
}
