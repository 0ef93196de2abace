// The histogram says what was recorded, to within 1/64.

import Base
import Testing

@testable import Bench

@Suite struct LatencyHistogramTests {
  @Test func anEmptyOneKnowsNothing() {
    let histogram = LatencyHistogram()
    #expect(histogram.value(at: 0.5) == nil)
    #expect(histogram.max == 0)
    #expect(histogram.counts(upTo: [10]) == [0, 0])
  }

  @Test func smallValuesAreExact() {
    var histogram = LatencyHistogram()
    for value in 0..<128 as Range<UInt64> { histogram.record(value) }
    for value in 1...128 as ClosedRange<UInt64> {
      #expect(histogram.value(at: Double(value) / 128) == value - 1)
    }
  }

  /// Against the sorted values. Again: change the seed.
  @Test(arguments: [1, 2, 3] as [UInt64])
  func percentilesAreAtMostOnePart64Above(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    var histogram = LatencyHistogram()
    var values: [UInt64] = []
    for _ in 0..<5000 {
      let value = UInt64.random(
        in: 0..<1 << UInt64.random(in: 1...41, using: &random), using: &random)
      values.append(value)
      histogram.record(value)
    }
    values.sort()
    for fraction in [0.001, 0.25, 0.5, 0.99, 0.999, 1] {
      let truth = values[max(0, Int((fraction * 5000).rounded(.up)) - 1)]
      let told = try #require(histogram.value(at: fraction))
      #expect(
        told >= truth && told <= truth + truth / 64,
        "seed \(seed), \(fraction): \(told), not \(truth)")
    }
    #expect(histogram.max == values.last)
    #expect(histogram.count == 5000)
  }

  @Test func runsAndSumsCountAsOften() {
    var one = LatencyHistogram()
    one.record(10, times: 99)
    var other = LatencyHistogram()
    other.record(1_000_000)
    one.add(other)
    #expect(one.count == 100)
    #expect(one.value(at: 0.99) == 10)
    #expect(one.value(at: 1) == 1_000_000)
    #expect(one.counts(upTo: [10, 100]) == [99, 0, 1])
  }

  @Test func whatIsTooLongCountsAsTheLongest() {
    var histogram = LatencyHistogram()
    histogram.record(.max)
    #expect(histogram.max == 1 << 42)
    #expect(histogram.value(at: 0.5) == 1 << 42)
  }
}
