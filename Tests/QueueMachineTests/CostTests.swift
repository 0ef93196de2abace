// Whether a message costs the same however many wait (G13). Slow, and only of use in a release build:
//
//   SKEIN_COST=10M swift test -c release -Xswiftc -enable-testing --filter CostTests

import Base
import Foundation
import Testing

@Suite struct CostTests {
  private static let most =
    ProcessInfo.processInfo.environment["SKEIN_COST"].flatMap { CountText.parse($0) }.map(Int.init)
    ?? 0

  @Test(.enabled(if: most > 0)) func aMessageCostsTheSameHoweverManyWait() {
    print("waiting, publish ns, consume ns, bytes a waiting message; medians of 3")
    for kind in CostKind.allCases {
      var base: Cost?
      for waiting in [1_000, 100_000, 1_000_000, 10_000_000] where waiting <= Self.most {
        let costs = (0..<3).map { _ in
          var run = CostRun(kind, waiting: waiting)
          return run.measure(rounds: 300)
        }
        func median(_ part: KeyPath<Cost, Double>) -> Double {
          costs.map { $0[keyPath: part] }.sorted()[1]
        }
        let cost = Cost(
          publish: median(\.publish), consume: median(\.consume), bytes: median(\.bytes))
        print(
          "\(kind.rawValue) \(waiting): "
            + [cost.publish, cost.consume, cost.bytes].map { String(format: "%.1f", $0) }
            .joined(separator: " "))
        // A heap of ten million is four times as deep as one of a thousand, and not in the cache.
        let first = base ?? cost
        base = first
        #expect(cost.publish < 10 * first.publish && cost.consume < 10 * first.consume)
      }
    }
  }
}
