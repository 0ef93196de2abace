// The figure of a run: throughput and latency over time, with the faults as bands over both and who
// led below. Drawn once for a desk and once for a phone, since text in a scaled drawing would become
// too small.

import Base
import Glibc

struct TimelineFigure {
  let result: ChaosResult
  let width: Double

  private let left = 46.0
  private let right = 8.0
  /// Fault numbers stand here.
  private let bandTop = 18.0
  private let panelHeight: Double = 130
  private let panelGap = 30.0
  private let laneHeight = 18.0

  init(result: ChaosResult, width: Double) {
    self.result = result
    self.width = width
  }

  /// Until the last thing that happened, be it a fault after which nothing came any more.
  private var length: Double {
    let faults = result.faults.map { ($0.end ?? $0.start).seconds }
    return max(1, Double(result.series.bins.count) * 0.1, faults.max() ?? 0)
  }
  private var throughputTop: Double { bandTop + 22 }
  private var latencyTop: Double { throughputTop + panelHeight + panelGap }
  private var laneTop: Double { latencyTop + panelHeight + panelGap }
  private var height: Double { laneTop + laneHeight + 30 }

  private func x(_ seconds: Double) -> Double {
    left + seconds / length * (width - left - right)
  }

  var svg: String {
    """
    <svg viewBox="0 0 \(HTML.number(width)) \(HTML.number(height))" role="img" \
    aria-label="Throughput, latency and leaders over time">
    \(bands)\(throughput)\(latency)\(leaders)\(axis)</svg>
    """
  }

  // MARK: Faults

  private var bands: String {
    var text = ""
    var lastLabel = -100.0
    let bottom = laneTop + laneHeight
    for fault in result.faults.sorted(by: { $0.start < $1.start }) where fault.skipped == nil {
      let from = x(fault.start.seconds)
      let to = max(from + 1.5, x(min(length, (fault.end ?? result.length).seconds)))
      let victims = fault.victims.isEmpty ? "" : " (\(fault.victims))"
      text += """
        <g><title>\(fault.fault.number): \(HTML.escaped(fault.name + victims)) \
        at \(HTML.seconds(fault.start))</title>
        <rect class="fault" x="\(number(from))" y="\(number(bandTop))" width="\(number(to - from))" \
        height="\(number(bottom - bandTop))"/>
        <line class="faultedge" x1="\(number(from))" x2="\(number(from))" y1="\(number(bandTop))" \
        y2="\(number(bottom))"/></g>

        """
      if from - lastLabel > 16 {
        text +=
          "<text x=\"\(number(from))\" y=\"\(number(bandTop - 5))\">\(fault.fault.number)</text>\n"
        lastLabel = from
      }
    }
    return text
  }

  // MARK: Panels

  /// So many tenths of a second make a point, that the line stays readable.
  private var group: Int {
    max(1, Int((Double(result.series.bins.count) / (width / 2.5)).rounded(.up)))
  }

  private func groups<Value>(_ value: (ArraySlice<TimeSeries.Bin>) -> Value) -> [(Double, Value)] {
    let bins = result.series.bins
    return stride(from: 0, to: bins.count, by: group).map { start in
      let end = min(bins.count, start + group)
      return (Double(start + end) / 2 * 0.1, value(bins[start..<end]))
    }
  }

  private var throughput: String {
    let confirmed = groups { bins in
      Double(bins.reduce(0) { $0 + $1.confirmed }) / (Double(bins.count) * 0.1)
    }
    let delivered = groups { bins in
      Double(bins.reduce(0) { $0 + $1.delivered }) / (Double(bins.count) * 0.1)
    }
    let top = Self.roundUp(max(1, (confirmed + delivered).map(\.1).max() ?? 1))
    func y(_ value: Double) -> Double { throughputTop + panelHeight * (1 - value / top) }
    var text = title("messages a second", throughputTop)
    for share in [0, 0.5, 1.0] { text += gridLine(y(top * share), Self.short(top * share)) }
    text += line(delivered.map { (x($0.0), y($0.1)) }, "ldelivered")
    text += line(confirmed.map { (x($0.0), y($0.1)) }, "lconfirmed")
    return text
  }

  /// On a logarithmic scale: what matters lies between a millisecond and seconds.
  private var latency: String {
    let median = quantiles(0.5)
    let high = quantiles(0.99)
    let all = (median + high).compactMap(\.1)
    let low = Self.powerOfTen(atMost: all.min() ?? 1)
    var top = low * 10
    while top < all.max() ?? 1 { top *= 10 }
    func y(_ value: Double) -> Double {
      let share = Self.decades(from: low, to: max(low, value)) / Self.decades(from: low, to: top)
      return latencyTop + panelHeight * (1 - share)
    }
    var text = title("from publish to confirm", latencyTop)
    var tick = low
    while tick <= top * 1.01 {
      text += gridLine(
        y(tick), tick < 1000 ? "\(Self.short(tick)) ms" : "\(Self.short(tick / 1000)) s")
      tick *= 10
    }
    text += pieces(high, y, "lhigh") + pieces(median, y, "lmedian")
    return text
  }

  private func quantiles(_ share: Double) -> [(Double, Double?)] {
    groups { bins -> Double? in
      // Of all that was confirmed in the group: the greatest of its medians would be no median.
      var all = LatencyHistogram()
      for bin in bins { all.add(bin.latencies) }
      return all.quantile(share).map { Double($0.rawValue) / 1e6 }
    }
  }

  /// A line with gaps where nothing was confirmed.
  private func pieces(
    _ values: [(Double, Double?)], _ y: (Double) -> Double, _ name: String
  ) -> String {
    var text = ""
    var piece: [(Double, Double)] = []
    for (time, value) in values {
      if let value {
        piece.append((x(time), y(value)))
      } else {
        text += line(piece, name)
        piece = []
      }
    }
    return text + line(piece, name)
  }

  // MARK: Leaders

  private var leaders: String {
    var text = title("leader, term", laneTop)
    let changes = result.leaderships
    for (place, change) in changes.enumerated() {
      let from = x(change.time.seconds)
      let next = place + 1 < changes.count ? changes[place + 1].time.seconds : length
      // Where it was lost there is a gap until the next one leads.
      let until = min(next, change.end?.seconds ?? next)
      let to = max(from + 1, x(min(length, until)))
      text += """
        <g><title>node \(change.node) leads term \(change.term) from \(HTML.seconds(change.time))</title>
        <rect class="node\(change.node % 6)" x="\(number(from))" y="\(number(laneTop))" \
        width="\(number(to - from))" height="\(number(laneHeight))" rx="2"/>

        """
      let label = "\(change.node), \(change.term)"
      if to - from > Double(label.count) * 7 {
        text +=
          "<text class=\"onnode\" x=\"\(number(from + 4))\" y=\"\(number(laneTop + 13))\">\(label)</text>"
      }
      text += "</g>\n"
    }
    return text
  }

  private var axis: String {
    let steps: [Double] = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600]
    let step = steps.first { length / $0 <= width / 60 } ?? 7200
    var text = ""
    for second in stride(from: 0, through: length, by: step) {
      text +=
        "<text x=\"\(number(x(second)))\" y=\"\(number(height - 8))\" text-anchor=\"middle\">"
        + "\(Int(second)) s</text>\n"
    }
    return text
  }

  // MARK: Pieces

  private func title(_ text: String, _ top: Double) -> String {
    "<text class=\"title\" x=\"\(number(left))\" y=\"\(number(top - 7))\">\(text)</text>\n"
  }

  private func gridLine(_ y: Double, _ label: String) -> String {
    "<line class=\"grid\" x1=\"\(number(left))\" x2=\"\(number(width - right))\" y1=\"\(number(y))\""
      + " y2=\"\(number(y))\"/>"
      + "<text x=\"\(number(left - 6))\" y=\"\(number(y + 4))\" text-anchor=\"end\">\(label)</text>\n"
  }

  private func line(_ points: [(Double, Double)], _ name: String) -> String {
    guard let first = points.first else { return "" }
    // A single point would not be seen.
    let points = points.count == 1 ? [first, (first.0 + 1.5, first.1)] : points
    let list = points.map { "\(number($0.0)),\(number($0.1))" }.joined(separator: " ")
    return "<polyline class=\"l \(name)\" points=\"\(list)\"/>\n"
  }

  private func number(_ value: Double) -> String { "\((value * 10).rounded() / 10)" }

  /// 1, 2, 5 and their multiples by ten.
  static func roundUp(_ value: Double) -> Double {
    let power = powerOfTen(atMost: value)
    return [1, 2, 5, 10].map { $0 * power }.first { $0 >= value } ?? value
  }

  private static func powerOfTen(atMost value: Double) -> Double {
    var power = 1.0
    while power > value, power > 1e-3 { power /= 10 }
    while power * 10 <= value { power *= 10 }
    return power
  }

  private static func decades(from: Double, to: Double) -> Double { log10(to / from) }

  static func short(_ value: Double) -> String {
    if value >= 1_000_000 { return "\(trimmed(value / 1_000_000))M" }
    if value >= 1000 { return "\(trimmed(value / 1000))k" }
    return trimmed(value)
  }

  private static func trimmed(_ value: Double) -> String {
    value == value.rounded() ? "\(Int(value))" : "\((value * 1000).rounded() / 1000)"
  }
}

/// How long faults kept publishes from being confirmed: columns by length.
struct GapFigure {
  /// Milliseconds; 0 is too short to be kept.
  let values: [Double]
  let width: Double

  private static let labelWidth = 64.0
  private static let edges: [Double] = [20, 50, 100, 200, 400, 700, 1200, 2000, 5000, 10_000]

  var svg: String {
    var counts = [Int](repeating: 0, count: Self.edges.count + 1)
    for value in values { counts[Self.edges.firstIndex { value < $0 } ?? Self.edges.count] += 1 }
    // Nothing behind the last that is there.
    let shown = max(5, (counts.lastIndex { $0 > 0 } ?? 0) + 1)
    let most = Double(max(1, counts.max() ?? 1))
    let step = width / Double(shown)
    // Where they would touch each other, every second label is a line deeper.
    let isTight = step < Self.labelWidth
    var text = ""
    for place in 0..<shown {
      let share = Double(counts[place]) / most
      let height = counts[place] == 0 ? 0 : max(2, share * 100)
      let from = Double(place) * step + step * 0.12
      let middle = (Double(place) + 0.5) * step
      text += """
        <rect class="column" x="\(number(from))" y="\(number(118 - height))" \
        width="\(number(step * 0.76))" height="\(number(height))" rx="3"/>
        <text x="\(number(middle))" y="\(number(112 - height))" text-anchor="middle">\
        \(counts[place] == 0 ? "" : "\(counts[place])")</text>
        <text x="\(number(middle))" y="\(isTight && place % 2 == 1 ? 148 : 134)" text-anchor="middle">\
        \(Self.label(place))</text>

        """
    }
    return """
      <svg viewBox="0 0 \(HTML.number(width)) \(isTight ? 154 : 140)" role="img" aria-label="Times without a confirm">
      <line class="grid" x1="0" x2="\(HTML.number(width))" y1="118" y2="118"/>
      \(text)</svg>
      """
  }

  private static func label(_ place: Int) -> String {
    if place == edges.count { return "&gt; 10 s" }
    let edge = edges[place]
    return edge < 1000 ? "&lt; \(Int(edge)) ms" : "&lt; \(TimelineFigure.short(edge / 1000)) s"
  }

  private func number(_ value: Double) -> String { "\((value * 10).rounded() / 10)" }
}
