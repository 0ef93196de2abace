// What the workload makes known to the checker, and what not.

import Base
import Foundation
import History
import SkeinClient
import Testing

@testable import ChaosHarness

@Suite struct WorkloadTests {
  @Test("A body is the one that was published, to its last byte, or has no value known (G11)")
  func damagedBodies() {
    let body = WorkloadMessage.body("p1-7", bytes: 40)
    func value(_ bytes: [UInt8]) -> String {
      bytes.withUnsafeBytes { WorkloadMessage.value(of: $0, bytes: 40) }
    }
    #expect(value(body) == "p1-7")
    for place in body.indices {
      var damaged = body
      damaged[place] ^= 1
      #expect(value(damaged) != "p1-7", "byte \(place)")
    }
    #expect(value(body.dropLast()) != "p1-7")
    #expect(value(body + [0]) != "p1-7")
  }

  @Test("A client that was killed begins nothing that nobody would know of")
  func nothingAfterDeath() throws {
    let path = NSTemporaryDirectory() + "skein-recording-\(UUID().uuidString)"
    defer { unlink(path) }
    let recording = try Recording(path: path, clock: RunClock())
    let operation = HistoryOperation.publish("p1-1", to: "work")
    let other = HistoryOperation.publish("p2-1", to: "work")
    #expect(recording.invoke(operation, by: "p1"))
    recording.clientKill("p1")
    #expect(!recording.invoke(operation, by: "p1"))
    #expect(recording.invoke(other, by: "p2"))
    #expect(recording.totals.published == 2)
    try recording.finish()
  }
  /// A recording in a file that is gone afterwards.
  private func record(_ backlogMax: UInt64, _ body: (Recording) async throws -> Void) async throws {
    let path = NSTemporaryDirectory() + "skein-recording-\(UUID().uuidString)"
    defer { unlink(path) }
    let recording = try Recording(path: path, clock: RunClock(), backlogMax: backlogMax)
    try await body(recording)
    try recording.finish()
  }

  @Test("What an AMQP client has acknowledged is no backlog, though nobody answers it")
  func amqpIsTaken() async throws {
    try await record(3) { recording in
      for number in 1...10 {
        let publish = HistoryOperation.publish("m\(number)", to: "work")
        let ack = HistoryOperation.ack("m\(number)", of: "work", token: UInt64(number))
        _ = recording.invoke(publish, by: "p\(number)")
        recording.ok(publish, by: "p\(number)")
        _ = recording.invoke(ack, by: "a1")
        recording.info(ack, by: "a1", error: "AMQP does not say", isTaken: true)
        #expect(!recording.isBacklogged)
      }
      #expect(recording.totals.settledUnanswered == 10 && recording.totals.waited == .zero)
    }
  }

  @Test("That producers wait for consumers, and for how long, is known")
  func waitingIsCounted() async throws {
    try await record(3) { recording in
      for number in 1...4 {
        #expect(!recording.isBacklogged)
        let publish = HistoryOperation.publish("m\(number)", to: "work")
        _ = recording.invoke(publish, by: "p1")
        recording.ok(publish, by: "p1")
      }
      #expect(recording.isBacklogged)
      #expect(recording.totals.waited == .zero)
      recording.publishingEnded()
      let waited = recording.totals.waited
      #expect(waited > .zero)
      // Nobody publishes any more: what comes later is no waiting, whoever looks.
      #expect(recording.isBacklogged)
      recording.publishingEnded()
      #expect(recording.totals.waited == waited)
    }
  }

  @Test("A confirm whose latency nobody measured is not one of 0 ms")
  func unmeasuredConfirms() async throws {
    try await record(100) { recording in
      for number in 1...3 {
        let publish = HistoryOperation.publish("m\(number)", to: "work")
        _ = recording.invoke(publish, by: "p1")
        recording.ok(publish, by: "p1", latency: number == 1 ? .milliseconds(8) : nil)
      }
      #expect(recording.series.bins.reduce(0) { $0 + $1.confirmed } == 3)
      #expect(recording.series.latencies.count == 1)
      #expect((recording.series.latencies.quantile(0.5) ?? .zero) > .milliseconds(6))
    }
  }

  @Test("A client is drawn among those that live")
  func theDeadAreNotKilled() {
    for draw in 0..<20 as Range<UInt64> {
      #expect(Workload.place(of: draw, among: [false, false]) == nil)
      #expect(Workload.place(of: draw, among: [false, true, false]) == 1)
      #expect([0, 2].contains(Workload.place(of: draw, among: [true, false, true])))
    }
    #expect(Workload.place(of: 3, among: []) == nil)
  }

  @Test("The end of a run waits neither for a pause nor for what never ends")
  func theEndWaitsForNothing() async throws {
    let control = WorkloadControl()
    let clock = RunClock()
    async let pause: Void = control.pauseWhilePublishing(.seconds(3600), clock: clock)
    control.stopPublishing()
    try await pause
    #expect(clock.now < .seconds(600))

    let (never, end) = AsyncStream.makeStream(of: Void.self)
    let hung = Task { for await _ in never {} }
    #expect(await isOver(within: .milliseconds(1)) { await hung.value } == false)
    let waiting = Task { await isOver(within: .seconds(3600)) { await hung.value } }
    waiting.cancel()
    #expect(await waiting.value == false)
    end.finish()
    #expect(await isOver(within: .seconds(3600)) { await hung.value })
  }

  @Test("The history says of each queue what it was declared with")
  func settingsAreTheQueuesOwn() {
    var options = QueueOptions()
    options.lease = .seconds(3)
    options.maxDeliveries = 4
    let plain = Workload.settings(of: options)
    #expect(plain.retryDelay == 0 && plain.retryMax == nil && plain.keyed == nil)
    #expect(plain.lease == 3_000_000_000 && plain.maxDeliveries == 4 && plain.deadLetter == nil)
    options.retryDelay = .milliseconds(50)
    options.retryDelayMax = .seconds(1)
    options.retryJitter = 0.2
    options.keyLimit = 1
    options.deadLetterQueue = "dead"
    let full = Workload.settings(of: options)
    #expect(full.retryDelay == 50_000_000 && full.retryMax == 1_000_000_000 && full.keyed == 1)
    #expect(full.retryJitterBillionths == 200_000_000 && full.deadLetter == "dead")
  }
}
