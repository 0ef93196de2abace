// Whether a message costs the same however many wait (G13). Slow, and only of use in a release build:
//
//   SKEIN_COST=10M swift test -c release -Xswiftc -enable-testing --filter CostTests

import Base
import Foundation
import Testing

@testable import QueueMachine

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

/// The same of bindings: what is deleted costs what there is of it, however it is bound.
@Suite struct TopologyCostTests {
  private static let most =
    ProcessInfo.processInfo.environment["SKEIN_COST"].flatMap { CountText.parse($0) }.map(Int.init)
    ?? 0

  @Test(.enabled(if: most > 0), arguments: ExchangeType.allCases, [false, true])
  func deletingCostsTheSameForEachBinding(kind: ExchangeType, isQueue: Bool) {
    var base: Double?
    for count in [1_000, 10_000, 100_000, 1_000_000] where count <= Self.most {
      let rig = Rig()
      let session = AMQPSession(rig)
      session.queue("q")
      session.exchange("x", kind)
      _ = Self.time(rig) { payload in
        for number in 0..<count {
          let order = BindingOrder(
            source: TopologyName("x"), target: .queue("q"), key: [UInt8]("key".utf8),
            arguments: table(["number": number]))
          CommandWriter.bind(.session(session.id), tag: RequestTag(1), order, into: &payload)
        }
      }
      #expect(rig.machine.bindingCount == count)
      let spent = Self.time(rig) { payload in
        if isQueue {
          CommandWriter.deleteQueue(
            .session(session.id), tag: RequestTag(2), name: "q", into: &payload)
        } else {
          CommandWriter.deleteExchange(
            .session(session.id), tag: RequestTag(2), TopologyName("x"), ifUnused: false,
            into: &payload)
        }
      }
      #expect(rig.machine.bindingCount == 0)
      let each = spent / Double(count)
      print(
        "\(kind) \(isQueue ? "queue" : "exchange") with \(count) bindings: \(Int(each)) ns each")
      let first = base ?? each
      base = first
      #expect(each < 10 * first)
    }
  }

  /// Applies an entry; nanoseconds of processor time.
  private static func time(_ rig: Rig, _ build: (inout [UInt8]) -> Void) -> Double {
    var payload: [UInt8] = []
    CommandWriter.beginBatch(stamp: MachineTime(rig.now), into: &payload)
    build(&payload)
    rig.index = rig.index.next
    var effects = EffectList(isWanted: false)
    let start = CostRun.processorTime()
    payload.withUnsafeBytes { rig.machine.apply(index: rig.index, payload: $0, effects: &effects) }
    return Double(CostRun.processorTime() - start)
  }
}
