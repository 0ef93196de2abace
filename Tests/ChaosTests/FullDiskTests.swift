// What a node with a full disk must do (G12, G13), held against nodes that do something else.

import Base
import History
import Testing

@testable import ChaosHarness

@Suite struct FullDiskTests {
  private func sight(
    _ milliseconds: UInt64, _ problems: [String] = [], last: UInt64 = 1, leads: UInt64? = nil
  ) -> FullDiskWatch.Sight {
    FullDiskWatch.Sight(
      time: .milliseconds(milliseconds), problems: problems, lastIndex: last, leads: leads)
  }

  private let refuses = ["publishes are refused: the disk has 0 bytes left, below two log segments"]
  private let stopped = ["stopped taking part: write segment-3: no space left on device"]

  /// The watch after these sights.
  private func watch(_ sights: [FullDiskWatch.Sight], mustSay: Bool = true) -> FullDiskWatch {
    var watch = FullDiskWatch(mustSay: mustSay)
    for sight in sights { watch.see(sight) }
    return watch
  }

  @Test func whoRefusesAndThenStopsKeepsThePromise() {
    let watch = watch([sight(0), sight(50, last: 2), sight(500, refuses), sight(900, stopped)])
    #expect(watch.word == .stopped && watch.breaches.isEmpty)
  }

  @Test func whoWritesOnMustSaySo() {
    // Nobody wrote: nothing is to be said.
    #expect(watch([sight(0), sight(5000)]).breaches.isEmpty)
    #expect(watch([sight(0), sight(100, last: 2), sight(2000, last: 9)]).breaches.isEmpty)
    let sights = [sight(0), sight(100, last: 2), sight(2200, last: 9), sight(3000, last: 12)]
    // A limit may not have been reached.
    #expect(watch(sights, mustSay: false).breaches.isEmpty)
    let silent = watch(sights)
    #expect(
      silent.breaches == ["has written for 2s since and did not say that its disk is full"])
  }

  @Test func whoStoppedStaysSo() {
    let watch = watch([sight(0), sight(500, stopped), sight(600, refuses)])
    #expect(
      watch.breaches
        == ["takes part again after it had stopped for want of space, and nobody had started it"])
  }

  /// Only where the same leader refused before and after.
  @Test func whoRefusesConfirmsNothing() {
    var watch = watch([sight(0), sight(500, refuses, leads: 3)])
    watch.confirmed(before: sight(500, refuses), after: sight(600, refuses))
    watch.confirmed(before: sight(500, refuses, leads: 3), after: sight(600, refuses))
    watch.confirmed(before: sight(500, refuses, leads: 3), after: sight(600, stopped))
    watch.confirmed(before: sight(500, refuses, leads: 3), after: sight(600, refuses, leads: 4))
    #expect(watch.breaches.isEmpty)
    watch.confirmed(before: sight(500, refuses, leads: 3), after: sight(600, refuses, leads: 3))
    #expect(watch.breaches == ["confirmed a publish although it said that it refuses them"])
  }

  @Test func consumersGoOn() {
    var watch = watch([sight(0), sight(500, refuses)])
    watch.notDrained("it takes more than 5.0 seconds")
    #expect(
      watch.breaches
        == ["is full and nothing can be consumed any more: it takes more than 5.0 seconds"])
  }

  @Test func nothingIsWrittenAfterTheEnd() {
    var watch = watch([sight(0), sight(500, stopped)])
    watch.filesChanged([])
    #expect(watch.breaches.isEmpty)
    watch.filesChanged(["segment-0000000001", "state"])
    #expect(
      watch.breaches
        == ["wrote after it had stopped for want of space: segment-0000000001, state"])
  }

  @Test func withRoomPublishesAreTakenAgain() {
    var watch = watch([sight(0), sight(500, refuses)])
    watch.see(sight(3000, refuses), roomFor: .seconds(9))
    watch.see(sight(3000), roomFor: .seconds(11))
    // Who stopped waits to be started.
    watch.see(sight(3000, stopped), roomFor: .seconds(11))
    #expect(watch.breaches.isEmpty)
    watch.see(sight(3000, refuses), roomFor: .seconds(11))
    #expect(watch.breaches == ["still refuses publishes 10s after there was room again"])
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
