// What a run did, tenth of a second by tenth: for the report's plot.

import Base

package struct TimeSeries: Sendable {
  package static let binLength = Nanoseconds.milliseconds(100)

  package struct Bin: Sendable {
    package var confirmed: UInt32 = 0
    package var delivered: UInt32 = 0
    package var acked: UInt32 = 0
    package var latencies = LatencyHistogram()
  }

  /// A time without a confirm.
  package struct Gap: Equatable, Sendable {
    package let start: Nanoseconds
    package let end: Nanoseconds

    package var milliseconds: Double { Double(end.rawValue - start.rawValue) / 1e6 }
  }

  /// Shorter ones are not kept.
  package static let gapMin = Nanoseconds.milliseconds(20)

  package private(set) var bins: [Bin] = []
  package private(set) var gaps: [Gap] = []
  package private(set) var lastConfirm: Nanoseconds?
  package private(set) var latencies = LatencyHistogram()

  package init() {}

  /// - Parameter latency: nil where nobody measured it.
  mutating func confirmed(at time: Nanoseconds, latency: Nanoseconds?) {
    if let last = lastConfirm, time.rawValue - last.rawValue >= Self.gapMin.rawValue {
      gaps.append(Gap(start: last, end: time))
    }
    lastConfirm = time
    let place = bin(at: time)
    bins[place].confirmed += 1
    guard let latency else { return }
    bins[place].latencies.add(latency)
    latencies.add(latency)
  }

  mutating func delivered(at time: Nanoseconds) { bins[bin(at: time)].delivered += 1 }

  mutating func acked(at time: Nanoseconds) { bins[bin(at: time)].acked += 1 }

  private mutating func bin(at time: Nanoseconds) -> Int {
    let place = Int(time.rawValue / Self.binLength.rawValue)
    while bins.count <= place { bins.append(Bin()) }
    return place
  }
}

/// Latencies in classes that are a fifth wide: 8 for each doubling, from 16 µs to over an hour.
package struct LatencyHistogram: Sendable {
  private static let smallest = 14
  private static let classes = 8 * 28

  /// Empty until something is counted, so that quiet times cost nothing.
  private var counts: [UInt32] = []
  package private(set) var count: UInt64 = 0
  package private(set) var max = Nanoseconds.zero

  package init() {}

  package mutating func add(_ latency: Nanoseconds) {
    if counts.isEmpty { counts = [UInt32](repeating: 0, count: Self.classes) }
    counts[Self.place(of: latency)] += 1
    count += 1
    max = Swift.max(max, latency)
  }

  /// Counts what `other` has counted, too.
  package mutating func add(_ other: LatencyHistogram) {
    if other.counts.isEmpty { return }
    if counts.isEmpty {
      counts = other.counts
    } else {
      for place in counts.indices { counts[place] += other.counts[place] }
    }
    count += other.count
    max = Swift.max(max, other.max)
  }

  private static func place(of latency: Nanoseconds) -> Int {
    let value = Swift.max(latency.rawValue, 1 << smallest)
    let exponent = 63 - value.leadingZeroBitCount
    let eighth = Int((value >> (exponent - 3)) & 7)
    return min(classes - 1, (exponent - smallest) * 8 + eighth)
  }

  /// The latency that `share` of all did not exceed, by the middle of its class; nil without any.
  package func quantile(_ share: Double) -> Nanoseconds? {
    guard count > 0 else { return nil }
    let wanted = UInt64((Double(count) * share).rounded(.up))
    var seen: UInt64 = 0
    for (place, number) in counts.enumerated() {
      seen += UInt64(number)
      guard seen >= Swift.max(1, wanted) else { continue }
      let base = UInt64(1) << (place / 8 + Self.smallest)
      let low = base + base / 8 * UInt64(place % 8)
      return Nanoseconds(rawValue: min(low + base / 16, max.rawValue))
    }
    return max
  }
}
