// `skein publish`: messages from the command line, a file or standard input. Says how many were
// confirmed: those are on the disks of a majority.

import Base
import SkeinClient
import Synchronization

enum Publish {
  static let command = Command(
    path: ["publish"], summary: "publish messages and wait for their confirms",
    operands: [
      Operand(name: "QUEUE", help: "the queue, which must exist"),
      Operand(
        name: "BODY", help: "a message each; without any, one message is read from standard input",
        occurrence: .anyNumber),
    ],
    options: [
      Option("lines", nil, "every line of the input is a message"),
      Option("file", "FILE", "read this file instead of standard input"),
      Option("rate", "N", "at most N messages per second"),
      Option("key", "KEY", "the key of all messages"),
      Option("header", "NAME=VALUE", "a header of all messages; may be repeated", repeats: true),
      Option("content-type", "TYPE", "the content type of all messages"),
      Option("priority", "N", "of all messages, for queues declared with --priorities (default 0)"),
      Option("delay", "TIME", "deliver the messages so long after they are stored, not before"),
      Option("ttl", "TIME", "messages that waited so long go to the dead-letter queue, or away"),
      Option(
        "also", "LIST",
        "store every message in these queues too, commas between: in all of them or in none"),
      Option(
        "atomic", nil, "store all messages in one step: all or none (together at most 32 MiB)"),
      Option("window", "N", "at most N messages unconfirmed at a time (default 10000)"),
      Option(
        "resume", "FILE",
        "remember in FILE who publishes; started again with the same input and FILE, go on where the"
          + " cluster has got to, without doubling (with --lines)"),
      .json,
    ] + Option.connection,
    details: """
      Messages are sent in order and without waiting for each other's confirm; memory stays bounded
      however long the input is. Ends with 0 when all are confirmed. If it gives up before that
      (--timeout), it says how many were confirmed: the others may or may not be stored.

      With --also and --atomic messages are stored as a whole or not at all, whatever dies meanwhile.
      With --also they go in small groups, each waiting for the one before, with --atomic in one. The
      first group that is refused, because one of the queues is full or gone, ends it.

      With --resume the cluster is asked what became of them: a run that was broken off, even by a
      kill, is gone on with by the same command, and every line is stored once. The cluster
      remembers for 24 hours how far a producer got.
      """,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let queue = arguments.operands[0]
    let queues = try [queue] + also(arguments)
    let bodies = Array(arguments.operands.dropFirst())
    let template = try template(arguments)
    let rate = try arguments.decimal("rate", in: 0.001...1e9)
    let window = try arguments.count("window", in: 1...1_000_000) ?? 10_000
    let byLines = arguments.flag("lines")
    let file = arguments.text("file")
    guard bodies.isEmpty || !byLines && file == nil else {
      throw arguments.usage("messages come from BODY or from --lines and --file, not from both")
    }
    let input = bodies.isEmpty ? try InputReader(file: file) : nil
    try checkSteps(arguments)
    let resume = try arguments.text("resume").map { path in
      guard byLines else { throw arguments.usage("--resume needs --lines") }
      return try ResumeFile(path: path, queue: queues.joined(separator: ","))
    }
    return try await Connection.with(arguments, producer: resume?.producer) { client in
      let known = client.lastPublish
      try resume?.check(known: known)
      let refused = try await resume?.refused(through: known, window: window, client)
      let source = PublishSource(bodies: bodies, input: input, byLines: byLines, known: known)
      if queues.count > 1 || arguments.flag("atomic") {
        let steps = PublishSteps(
          client, queues, template: template, rate: rate, isAtomic: arguments.flag("atomic"))
        try await steps.run(source, arguments)
      } else {
        let publisher = try await client.publisher(for: queue, window: Int(window))
        let run = PublishRun(
          publisher, template: template, rate: rate, timeout: Duration(try arguments.timeout()))
        try await run.finish(arguments, client) { try await source.forEach(run.send) }
      }
      try resume?.finish()
      try refused?.check()
      return .fine
    }
  }

  /// The queues of `--also`.
  private static func also(_ arguments: Arguments) throws -> [String] {
    guard let list = arguments.text("also") else { return [] }
    let names = list.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    guard !names.contains("") else { throw arguments.usage("--also names no queue") }
    guard Set(names + [arguments.operands[0]]).count == names.count + 1 else {
      throw arguments.usage("--also names a queue twice")
    }
    guard names.count < 1024 else {
      throw arguments.usage("--also names \(names.count) queues, which is more than 1023")
    }
    return names
  }

  private static func checkSteps(_ arguments: Arguments) throws {
    if arguments.flag("atomic") {
      for name in ["rate", "resume"] where arguments.text(name) != nil {
        throw arguments.usage("--atomic and --\(name) do not go together")
      }
    }
    let isInSteps = arguments.flag("atomic") || arguments.text("also") != nil
    if isInSteps, arguments.text("window") != nil {
      throw arguments.usage("--window does not go together with --also or --atomic")
    }
  }

  private static func template(_ arguments: Arguments) throws -> Message {
    let headers = try arguments.all("header").map { text in
      let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2, !parts[0].isEmpty else {
        throw arguments.usage("--header must be NAME=VALUE, not \"\(text)\"")
      }
      return MessageHeader(String(parts[0]), String(parts[1]))
    }
    let longest = Nanoseconds.seconds(365 * 86_400)
    return Message(
      body: [], headers: headers, key: arguments.text("key") ?? "",
      contentType: arguments.text("content-type") ?? "",
      priority: UInt8(try arguments.count("priority", in: 0...31) ?? 0),
      delay: try arguments.duration("delay", in: .zero...longest).map { Duration($0) },
      timeToLive: try arguments.duration("ttl", in: .milliseconds(1)...longest).map {
        Duration($0)
      })
  }
}

extension Publish {
  /// Says that all are confirmed.
  static func report(
    _ count: Int, to queues: [String], in span: Duration, _ arguments: Arguments
  ) throws {
    let seconds = span.seconds
    if arguments.flag("json") {
      var json = [JSON.Member(name: "queue", value: .text(queues[0]))]
      if queues.count > 1 {
        json.append(JSON.Member(name: "also", value: .array(queues.dropFirst().map(JSON.text))))
      }
      json.append(JSON.Member(name: "confirmed", value: .integer(exactly: count)))
      json.append(JSON.Member(name: "seconds", value: .number(seconds)))
      try StandardOutput.write(JSON.object(json).text + "\n")
    } else {
      let rate = grouped(UInt64(Double(count) / max(seconds, 1e-6)))
      StandardError.write(
        "\(grouped(UInt64(count))) \(count == 1 ? "message" : "messages") confirmed in"
          + " \(rounded(seconds)) s" + (count > 1 ? ", \(rate) per second\n" : "\n"))
    }
  }

  static func words(_ error: any Error) -> String {
    (error as? Failure)?.message ?? "\(error)"
  }
}

/// Messages on their way, and how many of them are confirmed.
private final class PublishRun: Sendable {
  private let publisher: Publisher
  private let template: Message
  private let start = ContinuousClock.now
  private let pace: Mutex<Pace>
  private let timeout: Duration
  private let sent = Mutex(0)
  private let confirmed = Mutex(0)
  private let watch: Mutex<AnswerWatch>

  init(_ publisher: Publisher, template: Message, rate: Double?, timeout: Duration) {
    self.publisher = publisher
    self.template = template
    self.timeout = timeout
    watch = Mutex(AnswerWatch(limit: timeout))
    pace = Mutex(Pace(rate: rate))
  }

  func send(_ body: some Sequence<UInt8>) async throws {
    try await wait()
    var message = template
    message.body = Array(body)
    if try publisher.trySend(message) == nil { try await publisher.send(message) }
    sent.withLock { $0 += 1 }
    watch.withLock { $0.noteSent(at: .now) }
  }

  private func wait() async throws {
    guard let due = pace.withLock({ $0.next() }) else { return }
    try await Task.sleep(until: due)
  }

  /// Runs `sending`, waits for all confirms and reports, also when something failed.
  func finish(
    _ arguments: Arguments, _ client: SkeinClient,
    _ sending: @escaping @Sendable () async throws -> Void
  ) async throws {
    do {
      try await sendAll(sending)
    } catch {
      // What is unconfirmed has had its time: closing must not give it as much again.
      if PublishRun.isOverdue(error) { await client.close(within: .zero) }
      throw Failure(
        "\(PublishRun.words(error)) (\(PublishRun.counts(confirmed.withLock { $0 }, of: sent.withLock { $0 }, error)))"
      )
    }
    try Publish.report(
      sent.withLock { $0 }, to: [publisher.queue], in: ContinuousClock.now - start, arguments)
  }

  /// Runs `sending` and waits for all confirms, until that is done or answers have stopped coming,
  /// whichever is first: a sender that waits for its input cannot be cancelled and is left behind.
  private func sendAll(_ sending: @escaping @Sendable () async throws -> Void) async throws {
    let (results, first) = AsyncStream.makeStream(of: Result<Void, any Error>.self)
    let listener = Task { await listen() }
    let sender = Task {
      do {
        try await sending()
        try await publisher.flush()
        first.yield(.success(()))
      } catch {
        first.yield(.failure(error))
      }
    }
    let watcher = Task {
      if await waitUntilOverdue() { first.yield(.failure(Overdue(timeout: timeout))) }
    }
    defer {
      for task in [listener, sender, watcher] { task.cancel() }
    }
    for await result in results { return try result.get() }
    throw CancellationError()
  }

  private func waitUntilOverdue() async -> Bool {
    while true {
      let due = watch.withLock { $0.due } ?? .now + timeout
      if due <= .now { return true }
      do {
        try await Task.sleep(until: due)
      } catch {
        return false
      }
    }
  }

  private struct Overdue: Error {
    let timeout: Duration
  }

  private static func isOverdue(_ error: any Error) -> Bool {
    switch error {
    case is Overdue, SkeinError.outcomeUnknown, SkeinError.timedOut: true
    default: false
    }
  }

  private static func counts(_ confirmed: Int, of sent: Int, _ error: any Error) -> String {
    let text = "\(grouped(UInt64(confirmed))) of \(grouped(UInt64(sent))) messages are confirmed"
    if confirmed >= sent { return text }
    if case SkeinError.publishesFailed = error { return text + "; the others are not stored" }
    return text + "; the others may or may not be stored"
  }

  /// Counts confirms, for the report if the rest fails, and for people who wait.
  private func listen() async {
    var shown = ContinuousClock.now
    for await batch in publisher.confirmations {
      var count = 0
      var answered = 0
      for confirmation in batch {
        answered += confirmation.count
        if case .success = confirmation.result { count += confirmation.count }
      }
      watch.withLock { $0.noteAnswered(answered, at: .now) }
      let sum = confirmed.withLock { confirmed in
        confirmed += count
        return confirmed
      }
      if Terminal.isErrorOutput, ContinuousClock.now - shown > .milliseconds(200) {
        shown = ContinuousClock.now
        StandardError.write("\r\(grouped(UInt64(sum))) confirmed\u{1b}[K\r")
      }
    }
  }

  private static func words(_ error: any Error) -> String {
    if let overdue = error as? Overdue {
      return "no confirm came for \(rounded(overdue.timeout.seconds)) s"
    }
    return Publish.words(error)
  }
}
