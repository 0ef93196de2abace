// All clients of a run: starts them, replaces those that are killed, and brings everything to an end.

import Base
import History
import SkeinClient
import Synchronization

package actor Workload {
  private let plan: WorkloadPlan
  private let recording: Recording
  private let seed: UInt64
  /// Where clients find the cluster now: members come and go.
  private let endpoints: @Sendable () async -> [String]
  private let control = WorkloadControl()
  private var producers: [Member<WorkloadProducer>] = []
  private var consumers: [Member<WorkloadConsumer>] = []
  private let amqp: AMQPClients
  private var amqpPublishing: [Task<Void, any Error>] = []
  private var amqpConsuming: [Task<Void, any Error>] = []
  private var redriving: Task<Void, Never>?
  /// Clients on their way to take the place of others.
  private var replacing: [Task<Void, Never>] = []
  private var nextName: [Character: Int] = [:]

  private struct Member<Client> {
    let client: Client
    let task: Task<Void, Never>
    /// Of a consumer: what it takes from.
    let queue: String
  }

  /// Until a client gives up what it waits for and asks anew.
  private static let timeout = Duration.seconds(5)
  /// At the end, for clients that should end by themselves.
  private static let endMax = Duration.seconds(15)

  init(
    plan: WorkloadPlan, recording: Recording, seed: UInt64,
    endpoints: @escaping @Sendable () async -> [String], amqpAddresses: [String]
  ) {
    self.plan = plan
    self.recording = recording
    self.seed = seed
    self.endpoints = endpoints
    amqp = AMQPClients(
      plan: plan, recording: recording, control: control, seed: seed, addresses: amqpAddresses)
  }

  private func options(_ name: String) -> ClientOptions {
    var options = ClientOptions()
    options.timeout = Self.timeout
    options.sessionTimeout = Duration(plan.session)
    options.name = name
    return options
  }

  private func name(_ kind: Character) -> String {
    nextName[kind, default: 0] += 1
    return "\(kind)\(nextName[kind] ?? 0)"
  }

  // MARK: Beginning

  /// Declares the queues.
  func declare() async throws {
    let client = try await SkeinClient.connect(
      endpoints: await endpoints(), options: options("declare"))
    var dead = QueueOptions()
    dead.lease = Duration(plan.lease)
    try await declare(plan.deadLetterQueue, dead, by: client)
    if plan.amqp > 0 { try await declareForAMQP(by: client) }
    for queue in plan.workQueues {
      var options = QueueOptions()
      options.lease = Duration(plan.lease)
      options.priorities = plan.priorities
      options.maxDeliveries = plan.maxDeliveries
      options.deadLetterQueue = plan.deadLetterQueue
      options.retryDelay = Duration(plan.retryDelay)
      if options.retryDelay > .zero { options.retryDelayMax = .seconds(1) }
      // What moves on has no key.
      options.keyLimit = plan.keys > 0 && queue != plan.onwardQueue ? 1 : 0
      try await declare(queue, options, by: client)
    }
    await client.close()
  }

  /// As an AMQP program would declare it: no limit of deliveries, no dead letters.
  private func declareForAMQP(by client: SkeinClient) async throws {
    var options = QueueOptions()
    options.lease = Duration(plan.lease)
    options.maxDeliveries = 0
    try await declare(AMQPClients.queue, options, by: client)
  }

  private func declare(
    _ queue: String, _ options: QueueOptions, by client: SkeinClient
  ) async throws {
    let operation = HistoryOperation.declare(queue)
    _ = recording.invoke(operation, by: "admin")
    try await client.declareQueue(queue, options: options)
    recording.ok(operation, by: "admin", settings: Self.settings(of: options))
  }

  /// What the history says of a queue that was declared with `options`.
  static func settings(of options: QueueOptions) -> HistoryQueueSettings {
    HistoryQueueSettings(
      deadLetter: options.deadLetterQueue.isEmpty ? nil : options.deadLetterQueue,
      retryDelay: UInt64(options.retryDelay.nanoseconds),
      // To a queue, 0 is no cap.
      retryMax: options.retryDelayMax > .zero ? UInt64(options.retryDelayMax.nanoseconds) : nil,
      retryJitterBillionths: UInt64((options.retryJitter * 1e9).rounded()),
      maxDeliveries: UInt64(options.maxDeliveries), lease: UInt64(options.lease.nanoseconds),
      priorities: UInt64(options.priorities), keyed: options.keyLimit > 0 ? 1 : nil)
  }

  func start() async throws {
    for number in 0..<plan.consumers {
      try await addConsumer(queue: plan.queueNames[number % plan.queues])
    }
    if let onward = plan.onwardQueue { try await addConsumer(queue: onward) }
    for _ in 0..<plan.producers { try await addProducer() }
    for number in 0..<plan.amqp {
      amqpConsuming.append(Task { try await self.amqp.consume(number) })
      amqpPublishing.append(Task { try await self.amqp.publish(number) })
    }
    if let pause = plan.redrive {
      redriving = Task { await self.redriveAgainAndAgain(every: pause) }
    }
  }

  /// Brings the dead letters back, so that they can die again, while there is work.
  private func redriveAgainAndAgain(every pause: Nanoseconds) async {
    guard let client = try? await connect("redrive") else { return }
    let operation = HistoryOperation.redrive(from: plan.deadLetterQueue)
    while control.isPublishing {
      do {
        try await control.pauseWhilePublishing(pause, clock: recording.clock)
      } catch { break }
      guard control.isPublishing, recording.invoke(operation, by: "redrive") else { break }
      do throws(SkeinError) {
        _ = try await client.redrive(plan.deadLetterQueue)
        recording.ok(operation, by: "redrive")
      } catch {
        // It goes in steps: some may have been done.
        recording.info(operation, by: "redrive", error: "\(error)")
      }
    }
    await client.close(within: .seconds(2))
  }

  private func addProducer() async throws {
    let name = name("p")
    let client = try await connect(name)
    let producer = WorkloadProducer(
      name, client: client, plan: plan, recording: recording, seed: seed, control: control)
    producers.append(Member(client: producer, task: Task { await producer.run() }, queue: ""))
  }

  private func addConsumer(queue: String) async throws {
    let name = name("c")
    let client = try await connect(name)
    let consumer = WorkloadConsumer(
      name, queue: queue, client: client, plan: plan, recording: recording, seed: seed,
      control: control)
    let task = Task {
      await consumer.run()
      await self.replaceIfNeeded(name)
    }
    consumers.append(Member(client: consumer, task: task, queue: queue))
  }

  /// Tries until it succeeds or the workload is over: there may be no leader for a while.
  private func connect(_ name: String) async throws -> SkeinClient {
    while true {
      do throws(SkeinError) {
        return try await SkeinClient.connect(
          endpoints: await endpoints(), options: options(name))
      } catch {
        guard case .unreachable = error, control.isConsuming, !Task.isCancelled else {
          throw ChaosError("client \(name) cannot connect: \(error)")
        }
      }
    }
  }

  /// A consumer has ended; while there is work, another takes its place.
  private func replaceIfNeeded(_ name: String) async {
    guard control.isConsuming,
      let place = consumers.firstIndex(where: { $0.client.process == name })
    else { return }
    let queue = consumers[place].queue
    consumers.remove(at: place)
    // It cannot be replaced only when all is over.
    try? await addConsumer(queue: queue)
  }

  // MARK: Harm

  /// Kills a consumer, as a crash would; another takes its place at once, since what the dead one
  /// has begun may sleep for seconds before its task ends.
  /// - Returns: its name; nil if there is none.
  func killConsumer(draw: UInt64) -> String? {
    guard let place = Self.place(of: draw, among: consumers.map(\.client.isAlive)) else {
      return nil
    }
    let victim = consumers.remove(at: place)
    victim.client.abandon()
    // It cannot be replaced only when all is over.
    replacing.append(Task { try? await self.addConsumer(queue: victim.queue) })
    return victim.client.process
  }

  func killProducer(draw: UInt64) -> String? {
    guard let place = Self.place(of: draw, among: producers.map(\.client.isAlive)) else {
      return nil
    }
    let victim = producers.remove(at: place).client
    victim.abandon()
    replacing.append(Task { try? await self.addProducer() })
    return victim.process
  }

  /// Makes a consumer hang until then.
  func slowConsumer(draw: UInt64, until time: Nanoseconds) -> String? {
    guard let place = Self.place(of: draw, among: consumers.map(\.client.isAlive)) else {
      return nil
    }
    let victim = consumers[place].client
    victim.sleep(until: time)
    return victim.process
  }

  /// Whom `draw` means, of those that are alive: a fault that is done to a dead client is none.
  static func place(of draw: UInt64, among areAlive: [Bool]) -> Int? {
    let alive = areAlive.indices.filter { areAlive[$0] }
    return alive.isEmpty ? nil : alive[Int(draw % UInt64(alive.count))]
  }

  // MARK: The end

  /// Shows that a healed cluster takes new messages, then publishes nothing more and waits until
  /// every outcome is known. In this order: what the harness needs to connect and to wait would be
  /// a time without a confirm otherwise, and count as the last fault's.
  /// - Returns: false if some are still unknown after `limit`.
  func settle(atMost limit: Duration) async throws -> Bool {
    let client = try await SkeinClient.connect(
      endpoints: await endpoints(), options: options("settle"))
    try await publishOnce(by: client)
    control.stopPublishing()
    recording.publishingEnded()
    let tasks = producers.map(\.task) + (redriving.map { [$0] } ?? [])
    let others = amqpPublishing
    let isDone = await isOver(within: limit) {
      for task in tasks { await task.value }
      for task in others { _ = await task.result }
    }
    if !isDone { control.drain() }
    await client.close(within: .seconds(2))
    return isDone
  }

  /// Takes everything out of all queues, the dead letters last.
  /// - Throws: `ChaosError` with what is left when the time is up.
  func drain(atMost limit: Duration) async throws {
    control.drain()
    let client = try await SkeinClient.connect(
      endpoints: await endpoints(), options: options("drain"))
    let deadline = ContinuousClock.now + limit
    try await drainWork(client, until: deadline)
    _ = recording.invoke(.drain(plan.deadLetterQueue), by: "drain")
    try await addConsumer(queue: plan.deadLetterQueue)
    try await waitUntilEmpty(plan.deadLetterQueue, client, until: deadline)
    recording.ok(.drain(plan.deadLetterQueue), by: "drain")
    if plan.redrive != nil {
      // A redrive of unknown outcome may have brought something back meanwhile. Now there is nothing
      // left for it: what is not found this time is lost.
      try await drainWork(client, until: deadline)
      _ = recording.invoke(.drain(plan.deadLetterQueue), by: "drain")
      try await waitUntilEmpty(plan.deadLetterQueue, client, until: deadline)
      recording.ok(.drain(plan.deadLetterQueue), by: "drain")
    }
    await client.close()
  }

  /// All but the dead letters.
  private func drainWork(
    _ client: SkeinClient, until deadline: ContinuousClock.Instant
  ) async throws {
    // All at once: each ends when it is empty.
    for queue in plan.queueNames + (plan.amqp > 0 ? [AMQPClients.queue] : []) {
      _ = recording.invoke(.drain(queue), by: "drain")
      try await waitUntilEmpty(queue, client, until: deadline)
      recording.ok(.drain(queue), by: "drain")
    }
    guard let onward = plan.onwardQueue else { return }
    // What is to be there is published before the drain begins.
    while !control.areMovesOver, ContinuousClock.now < deadline {
      try await Task.sleep(for: .milliseconds(20))
    }
    _ = recording.invoke(.drain(onward), by: "drain")
    try await waitUntilEmpty(onward, client, until: deadline)
    recording.ok(.drain(onward), by: "drain")
  }

  /// A healed cluster takes new messages: one for each queue.
  private func publishOnce(by client: SkeinClient) async throws {
    for queue in plan.queueNames {
      let value = "healed-\(queue)"
      var message = Message(body: WorkloadMessage.body(value, bytes: plan.bodyBytes))
      if plan.keys > 0 { message.key = "key-0" }
      let key = message.key.isEmpty ? nil : message.key
      let operation = HistoryOperation.publish(value, to: queue, delay: nil, key: key)
      let began = recording.clock.now
      _ = recording.invoke(operation, by: "settle")
      do throws(SkeinError) {
        let receipt = try await client.publish(message, to: queue)
        recording.ok(
          operation, by: "settle", id: "\(receipt.id)",
          latency: Nanoseconds(rawValue: recording.clock.now.rawValue - began.rawValue))
      } catch {
        recording.info(operation, by: "settle", error: "\(error)")
        throw ChaosError("queue \(queue) takes nothing from a healed cluster: \(error)")
      }
    }
  }

  private func waitUntilEmpty(
    _ queue: String, _ client: SkeinClient, until deadline: ContinuousClock.Instant
  ) async throws {
    while true {
      let left: String
      do throws(SkeinError) {
        let overview = try await client.showQueue(queue)
        if overview.ready + overview.leased + overview.delayed == 0 { return }
        left = "\(overview.ready) ready, \(overview.leased) held, \(overview.delayed) delayed"
      } catch {
        left = "\(error)"
      }
      if ContinuousClock.now > deadline {
        throw ChaosError("queue \(queue) could not be drained: \(left)")
      }
      try await Task.sleep(for: .milliseconds(20))
    }
  }

  /// Ends all clients.
  func end() async {
    control.end()
    recording.publishingEnded()
    redriving?.cancel()
    let others = amqpPublishing + amqpConsuming
    let replacing = replacing
    // One that does not end by itself is left to the end of the process.
    _ = await isOver(within: Self.endMax) {
      for client in others { _ = await client.result }
      for task in replacing { await task.value }
    }
    for producer in producers { producer.task.cancel() }
    for consumer in consumers { consumer.task.cancel() }
    let publishing = producers.map(\.client)
    let consuming = consumers.map(\.client)
    await withTaskGroup { group in
      for client in publishing { group.addTask { await client.close() } }
      for client in consuming { group.addTask { await client.close() } }
    }
  }
}

/// Waits until `body` has ended, but not for longer than `limit`, nor when this task is cancelled:
/// what does not end is left behind. (A task group would wait for it.)
/// - Returns: whether it has ended.
func isOver(
  within limit: Duration, _ body: @escaping @Sendable () async -> Void
) async -> Bool {
  let (ends, ending) = AsyncStream.makeStream(of: Bool.self)
  let waiting = Task {
    await body()
    ending.yield(true)
  }
  let limiting = Task {
    do { try await Task.sleep(for: limit) } catch { return }
    ending.yield(false)
  }
  defer {
    waiting.cancel()
    limiting.cancel()
  }
  for await isDone in ends { return isDone }
  return false
}
