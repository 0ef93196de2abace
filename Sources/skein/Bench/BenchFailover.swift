// `skein bench failover`: a real client publishes at a rate while the leader is killed again and
// again. What counts is how long nothing is confirmed, and that nothing is lost or doubled.

import Base
import Bench
import Glibc
import SkeinClient
import Synchronization
import Transport

struct BenchFailover: Sendable {
  let settings: BenchSettings
  let cluster: LocalCluster
  private let ledger: FailoverLedger

  /// How long the cluster is left alone between two kills, once the killed node is back.
  private static let pause = Duration.milliseconds(500)
  /// A failover that takes longer is none.
  private static let patience = Nanoseconds.seconds(30)
  private static let queue = "bench"

  init(_ settings: BenchSettings, _ cluster: LocalCluster) {
    self.settings = settings
    self.cluster = cluster
    ledger = FailoverLedger(bodyBytes: settings.plan.bodyBytes)
  }

  func run() async throws -> BenchReport {
    var options = ClientOptions()
    options.name = "skein bench failover"
    options.timeout = .seconds(60)
    let client = try await SkeinClient.connect(
      endpoints: try cluster.endpoints(), options: options)
    do {
      let report = try await measure(client)
      await client.close(within: .seconds(2))
      return report
    } catch {
      await Task { await client.close(within: .milliseconds(100)) }.value
      throw error
    }
  }

  private func measure(_ client: SkeinClient) async throws -> BenchReport {
    _ = try await client.declareQueue(Self.queue)
    let publisher = try await client.publisher(for: Self.queue, window: 65_536)
    let consumer = try await client.consume(Self.queue, prefetch: 1000)
    let confirmations = publisher.confirmations
    let start = MonotonicClock.now()
    let gaps = try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await consume(consumer) }
      group.addTask { await listen(confirmations) }
      group.addTask { try await publish(publisher) }
      let gaps = try await killAgainAndAgain()
      ledger.stopPublishing()
      try await waitUntilAllCame()
      consumer.cancel()
      group.cancelAll()
      return gaps
    }
    var report = ledger.report(settings)
    report.settings.plan.window = 65_536
    report.nodes = try cluster.nodes().count
    report.seconds = Double(MonotonicClock.now().since(start).rawValue) / 1e9
    let milliseconds = gaps.map { Double($0.rawValue) / 1e6 }
    let sorted = milliseconds.sorted()
    report.add("rate", settings.rate)
    report.add("gapMedianMs", sorted[sorted.count / 2])
    report.add("gapMaxMs", sorted[sorted.count - 1])
    report.further.append(.init(name: "gapsMs", value: .array(milliseconds.map { .number($0) })))
    return report
  }

  // MARK: The load

  /// Each message at its own time, however late the answers are.
  private func publish(_ publisher: Publisher) async throws {
    let interval = 1e9 / settings.rate
    let start = MonotonicClock.now().rawValue
    var sent = 0
    while let body = ledger.nextBody(due: start + UInt64(interval * Double(sent))) {
      let reference = try await publisher.send(Message(body: body.bytes))
      ledger.sent(body.number, as: reference.sequence)
      sent += 1
      let due = start + UInt64(interval * Double(sent))
      let now = MonotonicClock.now().rawValue
      if due > now { try await Task.sleep(for: .nanoseconds(Int64(due - now))) }
    }
    try await publisher.flush()
  }

  private func listen(_ confirmations: PublishConfirmations) async {
    for await batch in confirmations {
      let now = MonotonicClock.now().rawValue
      for confirmation in batch { ledger.confirmed(confirmation, now: now) }
    }
  }

  private func consume(_ consumer: Consumer) async throws {
    for try await delivery in consumer {
      ledger.delivered(delivery.body, now: MonotonicClock.now().rawValue)
      delivery.acknowledgeSoon()
    }
  }

  /// Until every message sent is confirmed and delivered. What was never delivered is found lost; what
  /// was never answered is no result.
  private func waitUntilAllCame() async throws {
    _ = try await LocalCluster.wait(atMost: Self.patience) { ledger.isComplete }
    let unanswered = ledger.unanswered
    if unanswered > 0 {
      throw Failure(
        "\(unanswered) messages were neither confirmed nor refused within 30 s of the last kill")
    }
  }

  // MARK: The kills

  private func killAgainAndAgain() async throws -> [Nanoseconds] {
    var gaps: [Nanoseconds] = []
    for kill in 1...settings.kills {
      try await Task.sleep(for: Self.pause)
      try await waitUntilAllFollow()
      guard let leader = try await cluster.leader() else {
        throw Failure("no node leads before kill \(kill)")
      }
      let process = try cluster.runningProcess(of: leader)
      process.send(SIGKILL)
      ledger.beginGap()
      let isBack = try await LocalCluster.wait(atMost: Self.patience) { ledger.isGapOver }
      guard isBack else {
        throw Failure("nothing was confirmed for 30 s after node \(leader) was killed")
      }
      gaps.append(ledger.gap)
      _ = try await LocalCluster.wait(atMost: Self.patience) { process.hasLeft }
      _ = try cluster.start(leader)
    }
    return gaps
  }

  /// Until every follower has all but a little of the leader's log: else the next kill might leave
  /// no majority.
  private func waitUntilAllFollow() async throws {
    let question = StatusQuestion(endpoints: try cluster.endpoints(), timeout: .seconds(1))
    let start = MonotonicClock.now()
    while MonotonicClock.now().since(start) < Self.patience {
      let report = await question.ask(queues: false)
      let lags = report.nodes.compactMap { $0.status }.flatMap(\.peers)
      if lags.count == settings.nodes - 1, lags.allSatisfy({ $0.isConnected && $0.lag < 100 }) {
        return
      }
      try await Task.sleep(for: .milliseconds(20))
    }
    throw Failure("a node that was started again did not catch up within 30 s")
  }
}

/// What was sent, confirmed and delivered, shared by the tasks.
private final class FailoverLedger: Sendable {
  fileprivate struct State {
    let book: MessageBook
    /// Message and due time by sequence, until confirmed.
    var waiting: [UInt64: (number: UInt64, due: UInt64)] = [:]
    /// Confirms that came before the sender had noted its sequence.
    var early: [UInt64: UInt64] = [:]
    var lastDue: UInt64 = 0
    var confirm = LatencyHistogram()
    var endToEnd = LatencyHistogram()
    var refused: UInt64 = 0
    var isPublishing = true
    var lastConfirm: UInt64 = 0
    var longestGap: UInt64 = 0
    var gapStart: UInt64 = 0
    var confirmsBehindGap = 0
  }
  private let state: Mutex<State>

  init(bodyBytes: Int) {
    state = Mutex(State(book: MessageBook(bodyBytes: bodyBytes, seed: 1)))
  }

  /// The next message; nil once publishing is to end.
  func nextBody(due: UInt64) -> (number: UInt64, bytes: [UInt8])? {
    state.withLock { state in
      guard state.isPublishing else { return nil }
      state.lastDue = due
      let (number, body) = state.book.nextBody(time: due)
      return (number, body)
    }
  }

  func sent(_ number: UInt64, as sequence: UInt64) {
    state.withLock { state in
      let due = state.lastDue
      if let time = state.early.removeValue(forKey: sequence) {
        state.noteConfirmed(number, due: due, now: time)
      } else {
        state.waiting[sequence] = (number, due)
      }
    }
  }

  func confirmed(_ confirmation: PublishConfirmation, now: UInt64) {
    state.withLock { state in
      guard case .success = confirmation.result else {
        state.refused += UInt64(confirmation.count)
        return
      }
      let first = confirmation.first.sequence
      for sequence in first..<first + UInt64(confirmation.count) {
        if let (number, due) = state.waiting.removeValue(forKey: sequence) {
          state.noteConfirmed(number, due: due, now: now)
        } else {
          state.early[sequence] = now
        }
      }
      if state.lastConfirm > 0 {
        state.longestGap = max(state.longestGap, now - state.lastConfirm)
      }
      state.lastConfirm = now
    }
  }

  func delivered(_ body: [UInt8], now: UInt64) {
    state.withLock { state in
      if let due = body.withUnsafeBytes({ state.book.noteDelivered(body: $0) }) {
        state.endToEnd.record(now > due ? now - due : 0)
      }
    }
  }

  /// The leader is dead. The longest time without a confirm counts from the last one before now.
  func beginGap() {
    state.withLock { state in
      state.longestGap = 0
      state.gapStart = MonotonicClock.now().rawValue
      state.confirmsBehindGap = 0
    }
  }

  /// Messages that were due after the leader's death can only be confirmed by the next one.
  var isGapOver: Bool { state.withLock { $0.confirmsBehindGap >= 10 } }

  var gap: Nanoseconds { Nanoseconds(rawValue: state.withLock { $0.longestGap }) }

  func stopPublishing() { state.withLock { $0.isPublishing = false } }

  var isComplete: Bool {
    state.withLock { $0.unanswered == 0 && $0.book.deliveredCount >= $0.book.confirmedCount }
  }

  /// Of how many messages nothing was heard.
  var unanswered: UInt64 { state.withLock { $0.unanswered } }

  func report(_ settings: BenchSettings) -> BenchReport {
    state.withLock { state in
      var report = BenchReport(settings)
      report.messages = state.book.confirmedCount
      report.confirm = state.confirm
      report.endToEnd = state.endToEnd
      report.lost = state.book.lost
      report.duplicated = state.book.duplicated
      report.corrupted = state.book.corrupted
      // Refused, or their outcome is not known.
      report.unconfirmed = state.refused
      return report
    }
  }
}

extension FailoverLedger.State {
  var unanswered: UInt64 { book.issued - min(book.issued, book.confirmedCount + refused) }

  fileprivate mutating func noteConfirmed(_ number: UInt64, due: UInt64, now: UInt64) {
    book.noteConfirmed(first: number, count: 1)
    confirm.record(now > due ? now - due : 0)
    if due > gapStart { confirmsBehindGap += 1 }
  }
}
