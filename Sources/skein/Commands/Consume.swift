// `skein consume`: takes messages and acknowledges them after they were written, or after a command
// was fine with them. What it holds when it ends early goes back untried.

import Base
import SkeinClient
import Synchronization

enum Consume {
  static let command = Command(
    path: ["consume"], summary: "take messages, print them or run a command for each",
    operands: [Operand(name: "QUEUE", help: "the queue")],
    options: [
      Option("count", "N", "stop after N messages"),
      Option("follow", nil, "wait for more when the queue is empty"),
      Option("exec", "CMD", "run CMD with /bin/sh for each message, its body on standard input"),
      Option(
        "publish-to", "LIST",
        "publish what CMD writes to these queues, commas between, together with the acknowledgement"
      ),
      Option(
        "priority", "N", "consumers of a lower one get what this one has no room for (default 0)"),
      Option("exclusive", nil, "be the only consumer of the queue, or fail"),
      Option("prefetch", "N", "hold up to N messages (default 1000, with --exec 1)"),
      .json,
    ] + Option.connection,
    details: """
      Without --follow it stops when the queue is empty. Each body is written with a line feed behind
      it; the message is acknowledged after that. With --json each message is one object in one line.

      With --exec a message is acknowledged when CMD ends with 0. Else it has failed and is tried
      again, by whoever is next, until --max-deliveries of the queue; the last line that CMD wrote to
      standard error is kept with it. CMD finds SKEIN_QUEUE, SKEIN_ID, SKEIN_ATTEMPT, SKEIN_TOKEN,
      SKEIN_KEY and a SKEIN_HEADER_NAME for every header in its environment. While CMD runs, the leases
      of all that is held (--prefetch) are prolonged.

      With --publish-to what CMD writes to standard output, without a line feed at its end, is a message
      for each of these queues, with the key, the priority and the headers of the one that it was made
      of. It is published in the same step that acknowledges the other: both happen or neither,
      whatever dies meanwhile.
      """,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let limit = try arguments.count("count", in: 1 ... .max)
    let exec = arguments.text("exec")
    let prefetch = try arguments.count("prefetch", in: 1...65_535) ?? (exec == nil ? 1000 : 1)
    guard exec == nil || !arguments.flag("json") else {
      throw arguments.usage("--json and --exec do not go together")
    }
    let targets = try targets(arguments)
    let priority = try priority(arguments)
    return try await Interruption.cancels {
      try await Connection.with(arguments) { client in
        let consumer = try await client.consume(
          arguments.operands[0], prefetch: Int(min(prefetch, limit ?? prefetch)),
          priority: priority, isExclusive: arguments.flag("exclusive"))
        let run = ConsumeRun(
          client, consumer, limit: limit, follow: arguments.flag("follow"))
        do {
          if let exec {
            try await run.executing(exec, into: targets)
          } else {
            try await run.printing(arguments.flag("json") ? MessageText.json : MessageText.plain)
          }
        } catch SkeinError.refused(.queueNotFound, _) {
          // It was there when this began to consume.
          throw Failure("the queue \"\(arguments.operands[0])\" was deleted")
        }
        return .fine
      }
    }
  }
}

extension Consume {
  private static func priority(_ arguments: Arguments) throws -> Int {
    guard let text = arguments.text("priority") else { return 0 }
    guard let priority = Int16(text) else {
      throw arguments.usage("--priority must be a number from -32768 to 32767, not \(text)")
    }
    return Int(priority)
  }

  /// The queues of `--publish-to`.
  private static func targets(_ arguments: Arguments) throws -> [String] {
    guard let list = arguments.text("publish-to") else { return [] }
    guard arguments.text("exec") != nil else {
      throw arguments.usage("--publish-to needs --exec")
    }
    let names = list.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    guard !names.contains("") else { throw arguments.usage("--publish-to names no queue") }
    guard Set(names).count == names.count else {
      throw arguments.usage("--publish-to names a queue twice")
    }
    return names
  }
}

/// One consumer at work.
private final class ConsumeRun {
  private let client: SkeinClient
  private let consumer: Consumer
  private var remaining: UInt64
  private let follow: Bool

  /// After so long without a message it is asked whether the queue is empty.
  private static let idle = Duration.milliseconds(50)
  /// With `--follow`, how often it is looked whether anybody still reads.
  private static let followIdle = Duration.seconds(1)
  /// For so long messages that others hold are waited for: they may come back.
  private static let patience = Duration.seconds(1)
  private static let batchMax: UInt64 = 1000

  init(_ client: SkeinClient, _ consumer: Consumer, limit: UInt64?, follow: Bool) {
    self.client = client
    self.consumer = consumer
    remaining = limit ?? .max
    self.follow = follow
  }

  /// The next messages; empty when it is time to stop.
  private func next() async throws -> [Delivery] {
    let started = ContinuousClock.now
    while remaining > 0, !Task.isCancelled {
      let batch = try await nextOrIdle(max: Int(min(remaining, ConsumeRun.batchMax)))
      if !batch.isEmpty {
        remaining -= UInt64(batch.count)
        return batch
      }
      // While nothing is written, nobody else would notice that the reader left (`| head`).
      if StandardOutput.isClosed { throw StandardOutput.Closed() }
      if !follow, try await isEmpty(since: started) { return [] }
    }
    return []
  }

  /// The next messages; empty if none came for a while.
  private func nextOrIdle(max: Int) async throws -> [Delivery] {
    let consumer = consumer
    let idle = follow ? ConsumeRun.followIdle : ConsumeRun.idle
    let taking = Task { try await consumer.nextBatch(max: max) }
    let timer = Task {
      // Cancelled when something came first.
      guard (try? await Task.sleep(for: idle)) != nil else { return }
      taking.cancel()
    }
    defer { timer.cancel() }
    return try await withTaskCancellationHandler {
      try await taking.value
    } onCancel: {
      taking.cancel()
    }
  }

  /// Whether the queue has nothing for us: nothing ready, and nothing held that could still be on
  /// its way to us or come back soon.
  private func isEmpty(since started: ContinuousClock.Instant) async throws -> Bool {
    try await settled()
    let queue = try await client.showQueue(consumer.queue)
    if queue.ready > 0 { return false }
    return queue.leased == 0 || ContinuousClock.now - started > ConsumeRun.patience
  }

  /// Waits until everything that was acknowledged is confirmed, and says what was not.
  private func settled() async throws {
    let failures = try await consumer.flush()
    let count = failures.reduce(0) { $0 + $1.deliveries.count }
    if count > 0 {
      StandardError.write(
        "skein: \(count) acknowledgements came too late, these messages come again:"
          + " \(failures[0].error)\n")
    }
  }

  // MARK: Printing

  func printing(_ format: (Delivery, inout [UInt8]) -> Void) async throws {
    var bytes: [UInt8] = []
    while true {
      let batch = try await next()
      if batch.isEmpty { break }
      bytes.removeAll(keepingCapacity: true)
      for delivery in batch { format(delivery, &bytes) }
      // Written first: a message that nobody has seen must not be gone.
      try StandardOutput.write(bytes)
      for delivery in batch { delivery.acknowledgeSoon() }
    }
    try await finish()
  }

  /// Also after an interruption: what was written must be acknowledged.
  private func finish() async throws {
    let consumer = consumer
    let failures = try await Task { try await consumer.flush() }.value
    if !failures.isEmpty {
      throw Failure("some acknowledgements came too late: \(failures[0].error)")
    }
  }

  // MARK: Commands

  /// Runs the command for each message. What it writes is published to `queues`, if there are any, in
  /// the step that acknowledges the message.
  func executing(_ command: String, into queues: [String]) async throws {
    var done = 0
    var failed = 0
    var missed = 0
    var keeper: Task<Void, Never>?
    defer { keeper?.cancel() }
    while true {
      let batch = try await next()
      if batch.isEmpty { break }
      keeper = keeper ?? keepLeases(like: batch[0])
      for delivery in batch {
        if Task.isCancelled {
          delivery.releaseSoon()
          continue
        }
        // It comes again, perhaps elsewhere: no need to do it twice.
        guard delivery.isHeld else {
          missed += 1
          remaining += 1
          continue
        }
        let outcome = try await CommandRunner.run(
          command, body: delivery.body, environment: MessageText.environment(delivery),
          outputMax: queues.isEmpty ? nil : client.messageBytesMax)
        if outcome.code == 0, !outcome.isOutputCut {
          if try await acknowledge(delivery, publishing: outcome.output, to: queues) {
            done += 1
          } else {
            failed += 1
          }
        } else if Task.isCancelled {
          // Ctrl-C goes to the command too: that is no failure of the message.
          delivery.releaseSoon()
        } else {
          delivery.retrySoon(error: ConsumeRun.words(of: outcome))
          failed += 1
        }
      }
    }
    try await finish()
    let late = missed > 0 ? ", \(missed) leases over before their turn" : ""
    StandardError.write("\(done) done, \(failed) failed\(late)\n")
  }

  private static func words(of outcome: CommandOutcome) -> String {
    if outcome.isOutputCut { return "it wrote more than a message can hold" }
    return outcome.lastError.isEmpty ? "exit code \(outcome.code)" : outcome.lastError
  }

  /// False if it could not be published: the message is tried again, here or elsewhere.
  private func acknowledge(
    _ delivery: Delivery, publishing output: [UInt8], to queues: [String]
  ) async throws -> Bool {
    guard !queues.isEmpty else {
      delivery.acknowledgeSoon()
      return true
    }
    var message = delivery.message
    message.body = output.last == UInt8(ascii: "\n") ? output.dropLast() : output
    message.contentType = ""
    message.delay = nil
    message.timeToLive = nil
    let made = message
    // An interruption does not end what is on its way: else nobody would know what became of it.
    let publishing = Task {
      try await delivery.acknowledge(publishing: [OutgoingMessage(made, to: queues)])
    }
    do {
      _ = try await publishing.value
      return true
    } catch SkeinError.leaseLost {
      StandardError.write("skein: a lease was over before its message was done: it comes again\n")
      return false
    } catch let error as SkeinError {
      switch error {
      case .refused, .messageTooLarge, .invalidMessage: break
      default: throw error
      }
      delivery.retrySoon(error: "\(error)")
      StandardError.write("skein: \(error)\n")
      return false
    }
  }

  /// Prolongs the leases of all that is held, until it is cancelled: of what a command runs for, of
  /// what waits for its turn, and of what a transaction is about to settle. One for all messages, as
  /// many short commands may run before a lease has to be prolonged once.
  private func keepLeases(like delivery: Delivery) -> Task<Void, Never> {
    let lease = delivery.lease
    let consumer = consumer
    return Task {
      while (try? await Task.sleep(for: lease / 3)) != nil { consumer.extendAllSoon(by: lease) }
    }
  }
}
