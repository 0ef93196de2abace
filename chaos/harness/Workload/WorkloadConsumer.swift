// A client that takes messages: it acknowledges most, hands some back, holds some for too long, and
// dies now and then; every step recorded.

import Base
import History
import SkeinClient
import Synchronization

final class WorkloadConsumer: Sendable {
  let process: String
  private let queue: String
  private let client: SkeinClient
  private let plan: WorkloadPlan
  private let recording: Recording
  private let seed: UInt64
  private let control: WorkloadControl
  private let isAbandoned = Atomic<Bool>(false)
  /// It takes messages, as far as it knows.
  var isAlive: Bool { !isAbandoned.load(ordering: .relaxed) }
  /// What it consumes with, kept when it is abandoned: a consumer that is let go hands back what was
  /// not read, which nothing that crashed does.
  private let consumer = Mutex<Consumer?>(nil)
  /// Until then it takes nothing and settles nothing.
  private let sleepsUntil = Atomic<UInt64>(0)

  init(
    _ process: String, queue: String, client: SkeinClient, plan: WorkloadPlan,
    recording: Recording, seed: UInt64, control: WorkloadControl
  ) {
    self.process = process
    self.queue = queue
    self.client = client
    self.plan = plan
    self.recording = recording
    self.seed = seed
    self.control = control
  }

  /// As a crash would: what it holds is taken from it when the cluster notices.
  func abandon() {
    // First: from here on it cancels nothing any more.
    isAbandoned.store(true, ordering: .sequentiallyConsistent)
    recording.clientKill(process)
    client.abandon()
  }

  /// As a program that hangs: it holds what it has and reads nothing.
  func sleep(until time: Nanoseconds) {
    sleepsUntil.store(time.rawValue, ordering: .relaxed)
  }

  func close() async {
    if !isAbandoned.load(ordering: .relaxed) { await client.close(within: .seconds(2)) }
  }

  /// Takes messages until the workload is over.
  func run() async {
    guard let consumer = await subscribe() else { return }
    self.consumer.withLock { $0 = consumer }
    await withDiscardingTaskGroup { group in
      while control.isConsuming, !isAbandoned.load(ordering: .relaxed) {
        await dawdle()
        let batch: [Delivery]
        do throws(SkeinError) {
          batch = try await consumer.nextBatch(max: 64)
        } catch {
          endSession()
          break
        }
        if batch.isEmpty {
          if control.isConsuming { endSession() }
          break
        }
        for delivery in batch {
          let value = WorkloadMessage.value(of: delivery, bytes: plan.bodyBytes)
          let isRecorded = recording.deliver(
            HistoryDelivery(
              queue: queue, value: value, token: delivery.token,
              attempt: UInt32(delivery.attempt), lease: UInt64(delivery.lease.nanoseconds),
              granted: delivery.granted.rawValue, id: "\(delivery.id)"), to: process)
          guard isRecorded else { break }
          group.addTask { await self.handle(delivery, value) }
        }
      }
      if !isAbandoned.load(ordering: .sequentiallyConsistent) { consumer.cancel() }
    }
  }

  /// The consumer has ended without being told to: what it held goes back.
  private func endSession() {
    if isAbandoned.load(ordering: .relaxed) { return }
    recording.sessionEnd(process, timeout: plan.session)
    isAbandoned.store(true, ordering: .relaxed)
    client.abandon()
  }

  private func subscribe() async -> Consumer? {
    while control.isConsuming, !isAbandoned.load(ordering: .relaxed) {
      do throws(SkeinError) {
        return try await client.consume(queue, prefetch: plan.prefetch)
      } catch {
        if case .closed = error { return nil }
      }
    }
    return nil
  }

  private func dawdle() async {
    let time = Nanoseconds(rawValue: sleepsUntil.load(ordering: .relaxed))
    guard time > recording.clock.now, !control.isDraining else { return }
    do { try await recording.clock.sleep(until: time) } catch { return }
  }

  private func handle(_ delivery: Delivery, _ value: String) async {
    var random = WorkloadMessage.draw(value, delivery: delivery.token, seed: seed)
    await dawdle()
    do {
      // What work costs.
      try await Task.sleep(for: .microseconds(Int64.random(in: 100...3000, using: &random)))
    } catch { return }
    if control.isDraining {
      await settle(delivery, .ack(value, of: queue, token: delivery.token))
      return
    }
    await handle(delivery, value, place: UInt64.random(in: 0..<1000, using: &random))
  }

  /// - Parameter place: 0 to 999, drawn.
  private func handle(_ delivery: Delivery, _ value: String, place: UInt64) async {
    let token = delivery.token
    var place = place
    func isIn(_ share: UInt64) -> Bool {
      if place < share { return true }
      place -= share
      return false
    }
    if let onward = plan.onwardQueue, queue != onward, isIn(plan.moved) {
      await move(delivery, value, to: onward)
    } else if isIn(plan.nacked) {
      await settle(delivery, .nack(value, of: queue, token: token, error: "try again"))
    } else if isIn(plan.rejected) {
      await settle(delivery, .reject(value, of: queue, token: token))
    } else if isIn(plan.released) {
      await settle(delivery, .release(value, of: queue, token: token))
    } else {
      if isIn(plan.extended) {
        await extend(delivery, value)
      } else if isIn(plan.overrun) {
        // The acknowledgement behind must be refused, or have had its effect in time.
        do { try await Task.sleep(for: delivery.lease * 1.3) } catch { return }
      }
      await settle(delivery, .ack(value, of: queue, token: token))
    }
  }

  /// Acknowledges it and publishes a message made of it, in one step (G10). The other message's value
  /// is the same whoever makes it: that it was made twice, or once too seldom, shows.
  private func move(_ delivery: Delivery, _ value: String, to onward: String) async {
    let made = value + ">"
    let acknowledgement = HistoryOperation.ack(value, of: queue, token: delivery.token)
    let publish = HistoryOperation.publish(made, to: onward)
    // A process of its own: moves overtake each other.
    let publisher = "\(process)>\(delivery.token)"
    let message = Message(body: WorkloadMessage.body(made, bytes: plan.bodyBytes))
    control.beginMove()
    defer { control.endMove() }
    let began = recording.clock.now
    guard recording.invoke(acknowledgement, by: process) else { return }
    _ = recording.invoke(publish, by: publisher)
    var result = await outcome { () async throws(SkeinError) in
      try await delivery.acknowledge(publishing: [OutgoingMessage(message, to: onward)])[0]
    }
    for asked in 0... {
      switch result {
      case .success(let receipt):
        recording.ok(
          publish, by: publisher, id: "\(receipt.id)",
          latency: Nanoseconds(rawValue: recording.clock.now.rawValue - began.rawValue))
        recording.ok(acknowledgement, by: process)
        return
      case .failure(let error):
        conclude(publish, error, by: publisher)
        conclude(acknowledgement, error, by: process)
        guard case .outcomeUnknown(let reference) = error, asked < WorkloadProducer.askedMax else {
          return
        }
        do { try await Task.sleep(for: WorkloadProducer.askedPause) } catch { return }
        guard control.isConsuming, recording.invoke(acknowledgement, by: process) else { return }
        _ = recording.invoke(publish, by: publisher)
        result = await outcome { () async throws(SkeinError) in
          try await self.client.retry(reference)
        }
      }
    }
  }

  private func extend(_ delivery: Delivery, _ value: String) async {
    let operation = HistoryOperation.extend(value, of: queue, token: delivery.token)
    let lease = delivery.lease * 2
    guard recording.invoke(operation, by: process) else { return }
    do throws(SkeinError) {
      try await delivery.extend(by: lease)
      recording.ok(operation, by: process, lease: UInt64(lease.nanoseconds))
    } catch {
      conclude(operation, error, by: process)
    }
  }

  private func settle(_ delivery: Delivery, _ operation: HistoryOperation) async {
    guard recording.invoke(operation, by: process) else { return }
    do throws(SkeinError) {
      switch operation.action {
      case .nack: try await delivery.retry(error: operation.error ?? "")
      case .reject: try await delivery.reject(error: "unwanted")
      case .release: try await delivery.release()
      default: try await delivery.acknowledge()
      }
      recording.ok(operation, by: process)
    } catch {
      conclude(operation, error, by: process)
    }
  }

  private func conclude(_ operation: HistoryOperation, _ error: SkeinError, by process: String) {
    if error.isDefinite {
      let isStale = error == .leaseLost
      recording.fail(
        operation, by: process, error: isStale ? HistoryOperation.stale : "\(error)")
    } else {
      recording.info(operation, by: process, error: "\(error)")
    }
  }
}
