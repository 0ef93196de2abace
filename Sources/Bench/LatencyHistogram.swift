// Latencies by the million in a few KiB: the value's highest seven bits choose the bucket, so that
// what a percentile says is at most 1/64 above the truth.

import Base

/// Counts spans of time. Everything it answers is in nanoseconds.
package struct LatencyHistogram: Sendable {
  private static let linearBits = 6
  private static let linear = 1 << linearBits
  /// A little over an hour; what is longer counts as that.
  private static let valueMax: UInt64 = 1 << 42

  private var buckets = [UInt64](
    repeating: 0, count: (42 - LatencyHistogram.linearBits + 1) * LatencyHistogram.linear + 1)
  package private(set) var count: UInt64 = 0
  /// The largest value as it was recorded, 0 while there is none.
  package private(set) var max: UInt64 = 0

  package init() {}

  /// Counts `value` as often as `times` says: a run of messages is confirmed at once.
  package mutating func record(_ value: UInt64, times: UInt64 = 1) {
    let clipped = min(value, Self.valueMax)
    buckets[Self.bucket(of: clipped)] += times
    count += times
    max = Swift.max(max, clipped)
  }

  package mutating func add(_ other: LatencyHistogram) {
    for place in buckets.indices { buckets[place] += other.buckets[place] }
    count += other.count
    max = Swift.max(max, other.max)
  }

  /// The value that `fraction` (0...1) of all are at most; nil while there is none.
  package func value(at fraction: Double) -> UInt64? {
    guard count > 0 else { return nil }
    let wanted = Swift.max(1, UInt64((fraction * Double(count)).rounded(.up)))
    var seen: UInt64 = 0
    for (place, times) in buckets.enumerated() {
      seen += times
      if seen >= wanted { return Swift.min(max, Self.upperEnd(of: place)) }
    }
    return max
  }

  /// How many values lie in each of the spans that end with `ends` (ascending), and behind the last.
  package func counts(upTo ends: [UInt64]) -> [UInt64] {
    var counts = [UInt64](repeating: 0, count: ends.count + 1)
    var span = 0
    for (place, times) in buckets.enumerated() where times > 0 {
      let value = Swift.min(max, Self.upperEnd(of: place))
      while span < ends.count, value > ends[span] { span += 1 }
      counts[span] += times
    }
    return counts
  }

  private static func bucket(of value: UInt64) -> Int {
    if value < UInt64(linear) { return Int(value) }
    let shift = 63 - value.leadingZeroBitCount - linearBits
    return (shift << linearBits) + Int(value >> UInt64(shift))
  }

  /// The largest value that falls into the bucket.
  private static func upperEnd(of bucket: Int) -> UInt64 {
    if bucket < 2 * linear { return UInt64(bucket) }
    let shift = UInt64((bucket >> linearBits) - 1)
    let mantissa = UInt64(bucket - (Int(shift) << linearBits))
    return ((mantissa + 1) << shift) - 1
  }
}
