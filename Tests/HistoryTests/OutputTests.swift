// What comes out besides the answer: counts, gaps, the verdict's JSON, witnesses, Jepsen's EDN.

import Base
import Foundation
import Testing

@testable import History

@Suite struct OutputTests {
  private static let story = """
    0 a invoke declare q -
    0 a ok declare q - config.deadLetter=d
    1 p invoke publish q m
    2 p ok publish q m id=A
    3 c ok deliver q m token=1 attempt=1 lease=100
    4 c invoke nack q m token=1
    5 c ok nack q m token=1
    6 c ok deliver q m token=2 attempt=2 lease=100
    7 c invoke ack q m token=2
    8 c ok ack q m token=2
    9 p invoke publish q unknown
    9 c ok deliver q unknown token=3 attempt=1
    9 c invoke ack q unknown token=3
    10 p invoke publish q lost
    10 p info publish q lost
    11 p invoke publish q lost
    12 p ok publish q lost
    12 p invoke publish q gone ttl=1
    12 p ok publish q gone
    13 p invoke publish q dead
    13 p ok publish q dead
    13 c ok deliver q dead token=4
    14 c invoke reject q dead token=4
    14 c ok reject q dead token=4
    15 c ok deliver d dead token=1
    15 c invoke ack d dead token=1
    15 c ok ack d dead token=1
    16 c ok deliver q ghost token=5
    17 p invoke publish q failed
    17 p fail publish q failed
    20 a invoke drain q -
    21 a ok drain q -
    22 a invoke drain d -
    23 a ok drain d -
    """

  @Test func whatIsNoViolationIsCounted() throws {
    let counts = try Story(Self.story).verdict().counts
    #expect(counts.events == 34)
    #expect(counts.published == 6)
    #expect(counts.attempts == 7)
    #expect(counts.confirmed == 4)
    #expect(counts.acked == 2)
    #expect(counts.recovered == 1)
    #expect(counts[.nack] == 1)
    #expect(counts.persisted == 0.75)
    #expect(counts.retriesEnded == 1)
  }

  @Test func theVerdictIsJSON() throws {
    let verdict = try Story(Self.story).verdict()
    let json = try #require(
      try JSONSerialization.jsonObject(with: Data(verdict.json.utf8)) as? [String: Any])
    #expect(json["valid"] as? Bool == false)
    let violations = try #require(json["violations"] as? [String: [String: Any]])
    #expect(violations.count == ViolationKind.allCases.count)
    #expect(violations["lost"]?["count"] as? Int == 1)
    #expect(violations["lost"]?["ids"] as? [String] == ["lost"])
    let witness = try #require(violations["lost"]?["witness"] as? [[String: Any]])
    #expect(
      witness.map { "\($0["index"]!) \($0["f"]!)" }
        == [
          "13 publish", "14 publish", "15 publish", "16 publish", "30 drain", "31 drain",
          "32 drain", "33 drain",
        ])
    let counts = try #require(json["counts"] as? [String: Any])
    #expect(
      counts["redelivered"] as? [String: Int] == [
        "nack": 1, "release": 0, "consumerDied": 0, "leaseOverran": 0, "unknownAck": 0,
        "leaderChange": 0,
      ])
    #expect(json["unavailabilityMs"] is [String: Any])
    #expect(try Story("").verdict().json.hasPrefix("{\"valid\":\"unknown\""))
  }

  @Test func theFirstTwentyAreNamedInTheOrderOfTheirWitness() throws {
    let text = (0..<30).map { "\(30 - $0 + $0) c ok deliver q ghost-\(29 - $0) token=\($0)" }
    let violation = try Story(text.joined(separator: "\n")).verdict()[.unexpected]
    #expect(violation.count == 30)
    #expect(violation.ids == (0..<20).map { "ghost-\(29 - $0)" })
    #expect(violation.witness.count == 3)
  }

  @Test func aStoryOfAThousandEventsIsCutAroundItsPoint() throws {
    var text = "0 p invoke publish q m\n0 p ok publish q m\n"
    for token in 1...500 {
      text += "0 c ok deliver q m token=\(token)\n0 c invoke nack q m token=\(token)\n"
    }
    text += "0 c ok deliver q m token=501\n0 e ok deliver q m token=502\n"
    let verdict = try Story(text).verdict()
    #expect(verdict.violated == ["held-twice"])
    #expect(verdict.counts[.nack] == 500)
    #expect(verdict[.heldTwice].witness.count < 30)
    #expect(verdict[.heldTwice].witness[0].contains("publish"))
  }

  @Test func gapsBetweenConfirmsBelongToTheFaultBefore() throws {
    func published(_ name: String, _ milliseconds: Int) -> String {
      "\(milliseconds)000000 p invoke publish q \(name)\n\(milliseconds)000000 p ok publish q \(name)\n"
    }
    let verdict = try Story(
      published("a", 0) + published("b", 10) + "12000000 nemesis invoke kill - 1\n"
        + "12000000 nemesis ok kill - 1\n" + published("c", 50) + published("d", 55)
        + "56000000 nemesis info leader-change - 2\n" + "60000000 nemesis info cut - 2\n"
        + "61000000 nemesis info kill - 3\n" + published("e", 155) + published("f", 160)
    ).verdict()
    #expect(verdict.unavailability.all == .init(count: 3, median: 100, max: 100))
    #expect(verdict.unavailability.byFault.map(\.name) == ["cut", "kill"])
    #expect(verdict.unavailability.byFault[1].gaps == .init(count: 2, median: 40, max: 100))
  }

  @Test func theExportIsWhatTotalQueueExpects() throws {
    let lines = try Story(Self.story).edn().split(separator: "\n")
    #expect(
      lines.first
        == #"{:index 0, :time 1, :type :invoke, :process 1, :f :enqueue, :value ["q" "m"]}"#)
    for (index, line) in lines.enumerated() { #expect(line.hasPrefix("{:index \(index),")) }
    let result = TotalQueue(lines.map(String.init))
    #expect(result.lost == [#"["q" "lost"]"#])
    #expect(result.unexpected == [#"["q" "ghost"]"#])
    #expect(!lines.contains { $0.contains("gone") || $0.contains("failed") })
    #expect(lines.filter { $0.contains(":invoke") && $0.contains(#""lost""#) }.count == 1)
  }

  @Test func totalQueueAgreesOnGoodAndOnWrongHistories() throws {
    for seed in 1...4 as ClosedRange<UInt64> {
      var random = SeededRandom(seed: seed)
      for fault in [PlantedFault.lost, .unexpected, nil] {
        var story = GoodHistory(seed: seed, steps: 300).story
        let value = fault?.plant(in: &story, &random)
        let result = TotalQueue(try story.edn().split(separator: "\n").map(String.init))
        let verdict = try story.verdict()
        #expect(result.lost.count == verdict[.lost].count, "seed \(seed)")
        #expect(result.unexpected.count == verdict[.unexpected].count, "seed \(seed)")
        if fault != nil, let value {
          #expect((result.lost + result.unexpected).allSatisfy { $0.contains("\"\(value)\"") })
        }
      }
    }
  }
}

/// Jepsen's `total-queue`, as `jepsen.checker` computes it from a history without drains.
private struct TotalQueue {
  var lost: [String] = []
  var unexpected: [String] = []

  init(_ lines: [String]) {
    var attempts: [String: Int] = [:]
    var enqueues: [String: Int] = [:]
    var dequeues: [String: Int] = [:]
    for line in lines {
      let value = String(line[line.range(of: ":value ")!.upperBound...].dropLast())
      if line.contains(":f :enqueue") {
        if line.contains(":type :invoke") { attempts[value, default: 0] += 1 }
        if line.contains(":type :ok") { enqueues[value, default: 0] += 1 }
      } else if line.contains(":type :ok") {
        dequeues[value, default: 0] += 1
      }
    }
    lost = enqueues.keys.filter { enqueues[$0]! > dequeues[$0, default: 0] }.sorted()
    unexpected = dequeues.keys.filter { attempts[$0] == nil }.sorted()
  }
}
