// What a node with a full disk must do (G12, G13), held against nodes that do something else.

import Base
import History
import SkeinClient
import Testing

@testable import ChaosHarness

@Suite struct FullDiskTests {
  private func sight(
    _ milliseconds: UInt64, _ problems: [String] = [], leads: UInt64? = nil
  ) -> FullDiskWatch.Sight {
    FullDiskWatch.Sight(time: .milliseconds(milliseconds), problems: problems, leads: leads)
  }

  private let refuses = [
    "publishes are refused: the disk has 0 bytes left, below two log segments and a snapshot"
  ]
  private let stopped = ["stopped taking part: write segment-3: no space left on device"]

  /// The watch after these sights.
  private func watch(_ sights: [FullDiskWatch.Sight]) -> FullDiskWatch {
    var watch = FullDiskWatch()
    for sight in sights { watch.see(sight) }
    return watch
  }

  @Test func whoRefusesAndThenStopsKeepsThePromise() {
    let watch = watch([sight(0), sight(50), sight(500, refuses), sight(900, stopped)])
    #expect(watch.word == .stopped && watch.breaches.isEmpty)
  }

  @Test func whoStoppedStaysSo() {
    let watch = watch([sight(0), sight(500, stopped), sight(600, refuses)])
    #expect(
      watch.breaches
        == ["takes part again after it had stopped for want of space, and nobody had started it"])
  }

  /// Two sights of which nothing follows of what was tried between them.
  private var apart: [(before: FullDiskWatch.Sight, after: FullDiskWatch.Sight)] {
    [
      (sight(500, refuses), sight(600, refuses)),
      (sight(500, refuses, leads: 3), sight(600, refuses)),
      (sight(500, refuses, leads: 3), sight(600, stopped)),
      (sight(500, refuses, leads: 3), sight(600, leads: 3)),
      (sight(500, refuses, leads: 3), sight(600, refuses, leads: 4)),
    ]
  }

  /// Only where the same leader refused before and after, and did not say otherwise between.
  @Test func whoRefusesConfirmsNothing() {
    var watch = watch([sight(0), sight(500, refuses, leads: 3)])
    for (before, after) in apart { watch.confirmed(before: before, after: after, took: false) }
    let (before, after) = (sight(500, refuses, leads: 3), sight(600, refuses, leads: 3))
    watch.confirmed(before: before, after: after, took: true)
    #expect(watch.breaches.isEmpty)
    watch.confirmed(before: before, after: after, took: false)
    #expect(watch.breaches == ["confirmed a publish although it said that it refuses them"])
  }

  /// A refusal is a breach, being late is not; both only where the same leader was full all the while.
  @Test func consumersGoOn() {
    var watch = watch([sight(0), sight(500, refuses)])
    for (before, after) in apart {
      watch.drained(.refused("no"), before: before, after: after, took: false)
      watch.drained(.unknown("late"), before: before, after: after, took: false)
    }
    let (before, after) = (sight(500, refuses, leads: 3), sight(600, refuses, leads: 3))
    watch.drained(.refused("no"), before: before, after: after, took: true)
    watch.drained(.done, before: before, after: after, took: false)
    #expect(watch.breaches.isEmpty && watch.unknowns.isEmpty)
    watch.drained(.unknown("late"), before: before, after: after, took: false)
    #expect(watch.breaches.isEmpty)
    #expect(watch.unknowns == ["is full, and what waited in a queue was not taken out: late"])
    watch.drained(.refused("no"), before: before, after: after, took: false)
    #expect(watch.breaches == ["is full and nothing can be consumed any more: no"])
  }

  /// Only what a node says counts as a refusal; what came too late, or was cancelled, does not.
  @Test func onlyARefusalIsOne() {
    typealias Attempt = RoomProbe.Attempt
    for error: SkeinError in [
      .cancelled, .closed, .timedOut("it"), .unreachable("it"), .requestUnknown("it"), .leaseLost,
      .refused(.notLeader, detail: ""), .refused(.noQuorum, detail: ""),
    ] {
      #expect(Attempt(error) == .unknown("\(error)"))
    }
    let error = SkeinError.refused(.diskFailed, detail: "")
    #expect(Attempt(error) == .refused("\(error)"))
  }

  /// An empty batch is the end of a consumer, not a reason to ask again.
  @Test func aDrainThatGetsNothingEnds() async throws {
    var batches = [7, 0, 20]
    let broken = try await RoomProbe.takeOut(20) { batches.removeFirst() }
    #expect(broken == .unknown("no more came after 7 of 20") && batches == [20])
    let done = try await RoomProbe.takeOut(20) { batches.removeFirst() }
    #expect(done == .done && batches.isEmpty)
  }

  /// A consumer to whom nothing is delivered: it waits until it is cancelled, and says so by an empty batch.
  private static func nothingComes() async throws(SkeinError) -> RoomProbe.Attempt {
    try await RoomProbe.takeOut(20) { () async throws(SkeinError) in
      do { try await Task.sleep(for: .seconds(86_400)) } catch { return 0 }
      return 20
    }
  }

  @Test func aDrainThatWaitsIsReportedAsLate() async {
    let late = await RoomProbe.limited(.milliseconds(1)) { () async throws(SkeinError) in
      try await Self.nothingComes()
    }
    #expect(late == .unknown("it takes more than \(Duration.milliseconds(1))"))
  }

  @Test func aDrainThatIsCancelledReturnsAndShowsNothing() async {
    let drain = Task {
      await RoomProbe.limited(.seconds(86_400)) { () async throws(SkeinError) in
        try await Self.nothingComes()
      }
    }
    drain.cancel()
    #expect(await drain.value == .unknown("it was interrupted"))
    // Whatever it came to.
    let done = Task {
      withUnsafeCurrentTask { $0?.cancel() }
      return await RoomProbe.limited(.seconds(86_400)) { .refused("no") }
    }
    #expect(await done.value == .unknown("it was interrupted"))
  }

  @Test func nothingIsWrittenAfterTheEnd() {
    var watch = watch([sight(0), sight(500)])
    let (old, new) = (["segment-1": "a", "state": "b"], ["segment-1": "c", "state": "b"])
    watch.see(files: old, at: .milliseconds(500))
    watch.see(sight(600, stopped))
    watch.see(files: old, at: .milliseconds(600))
    // It was under way.
    watch.see(files: new, at: .milliseconds(1700))
    watch.see(files: new, at: .milliseconds(2600))
    watch.see(files: old, at: .milliseconds(2700))
    watch.see(files: old, at: .milliseconds(3700))
    #expect(watch.breaches.isEmpty)
    watch.see(files: new, at: .milliseconds(3701))
    #expect(watch.breaches == ["wrote after it had stopped for want of space: segment-1"])
  }

  @Test func withRoomPublishesShouldBeTakenAgain() {
    var watch = watch([sight(0), sight(500, refuses)])
    watch.isLate(sight(12_000, refuses))
    watch.isLate(nil)
    #expect(watch.breaches.isEmpty)
    #expect(
      watch.unknowns == [
        "still refuses publishes 10s after there was room again",
        "does not answer 10s after there was room again",
      ])
  }

  /// What a node was seen to do decides over the promise, whatever the history says.
  @Test func aBreachIsTheRuns() throws {
    var reader = HistoryReader()
    var checker = Checker(try reader.finish(), isStrict: true)
    let verdict = checker.judge()
    let faults: Set<FaultKind> = [.diskFull]
    func judgement(_ breaches: [String]) -> PromiseReport.Judgement? {
      PromiseReport.all(of: verdict, trouble: nil, faults: faults, breaches: breaches)
        .first { $0.name == "G12" }?.judgement
    }
    #expect(judgement([]) == .kept)
    #expect(judgement(["G12", "G11", "G12"]) == .brokenByNodes(2))
    let none = PromiseReport.all(of: verdict, trouble: nil, faults: [.kill])
    #expect(none.first { $0.name == "G12" }?.judgement == .unknown("no disk was full"))
  }
}
