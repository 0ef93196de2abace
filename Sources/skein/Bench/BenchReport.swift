// What a measurement says: JSON whose fields stay as they are (docs/cli.md), and a table.

import Base
import Bench

struct BenchReport: Sendable {
  var settings: BenchSettings
  var nodes = 0
  var messages: UInt64 = 0
  var seconds = 0.0
  var confirm: LatencyHistogram?
  var endToEnd: LatencyHistogram?
  /// nil where the nodes' processes cannot be seen.
  var nodeCPUSecondsPerMillion: Double?
  /// By one node.
  var bytesWrittenPerMessage: Double?
  var messagesPerSync: Double?
  /// By node.
  var residentBytes: [UInt64] = []
  var lost: UInt64 = 0
  var duplicated: UInt64 = 0
  var corrupted: UInt64 = 0
  /// Refused, or with an unknown outcome; nil where the mode ends by such a message.
  var unconfirmed: UInt64?
  /// What only some modes have.
  var further: [JSON.Member] = []

  init(_ settings: BenchSettings) { self.settings = settings }

  var messagesPerSecond: Double { seconds > 0 ? Double(messages) / seconds : 0 }
  /// Nothing was lost, doubled or changed, and everything was confirmed.
  var isClean: Bool {
    lost == 0 && duplicated == 0 && corrupted == 0 && (unconfirmed ?? 0) == 0
  }

  mutating func add(_ name: String, _ value: Double) {
    further.append(.init(name: name, value: .number(value)))
  }

  mutating func add(_ name: String, _ value: UInt64) {
    further.append(.init(name: name, value: .unsigned(value)))
  }

  var json: JSON {
    var members: [JSON.Member] = [
      .init(name: "mode", value: .text(settings.mode.rawValue)),
      .init(name: "nodes", value: .integer(exactly: nodes)),
      .init(name: "bodyBytes", value: .integer(exactly: settings.plan.bodyBytes)),
      .init(name: "messages", value: .unsigned(messages)),
      .init(name: "window", value: .integer(exactly: settings.plan.window)),
      .init(name: "producers", value: .integer(exactly: settings.plan.producers)),
      .init(name: "consumers", value: .integer(exactly: settings.consumers)),
      .init(name: "seconds", value: .number(seconds)),
      .init(name: "messagesPerSecond", value: .number(messagesPerSecond)),
      .init(name: "confirmMs", value: Self.milliseconds(confirm)),
      .init(name: "endToEndMs", value: Self.milliseconds(endToEnd)),
      .init(name: "nodeCPUSecondsPerMillion", value: Self.number(nodeCPUSecondsPerMillion)),
      .init(name: "bytesWrittenPerMessage", value: Self.number(bytesWrittenPerMessage)),
      .init(name: "messagesPerSync", value: Self.number(messagesPerSync)),
      .init(name: "residentBytes", value: .array(residentBytes.map { .unsigned($0) })),
      .init(name: "lost", value: .unsigned(lost)),
      .init(name: "duplicated", value: .unsigned(duplicated)),
      .init(name: "corrupted", value: .unsigned(corrupted)),
    ]
    if let unconfirmed { members.append(.init(name: "unconfirmed", value: .unsigned(unconfirmed))) }
    members += further
    return .object(members)
  }

  private static func number(_ value: Double?) -> JSON { value.map { .number($0) } ?? .null }

  private static func milliseconds(_ histogram: LatencyHistogram?) -> JSON {
    guard let histogram, histogram.count > 0 else { return .null }
    func at(_ fraction: Double) -> JSON {
      .number(Double(histogram.value(at: fraction) ?? 0) / 1e6)
    }
    return [
      "p50": at(0.5), "p99": at(0.99), "p999": at(0.999),
      "max": .number(Double(histogram.max) / 1e6),
    ]
  }
}

// For people.
extension BenchReport {
  func text(_ colours: Bool) -> String {
    var table = Table(["measure", ">value"])
    func row(_ name: String, _ value: String) { table.add([name, value]) }
    row("messages of \(settings.plan.bodyBytes) B", "\(messages)")
    row("seconds", rounded(seconds))
    row("messages per second", rounded(messagesPerSecond))
    for (name, histogram) in [("confirm", confirm), ("end to end", endToEnd)] {
      guard let histogram, histogram.count > 0 else { continue }
      let values = [0.5, 0.99, 0.999].map { Self.text(histogram.value(at: $0) ?? 0) }
      row(
        "\(name) p50 / p99 / p99.9 / max, ms",
        (values + [Self.text(histogram.max)]).joined(separator: " / "))
    }
    if let value = nodeCPUSecondsPerMillion {
      row("CPU of all nodes, s per million", rounded(value))
    }
    if let value = bytesWrittenPerMessage {
      row("bytes written per message and node", rounded(value))
    }
    if let value = messagesPerSync { row("messages per sync", rounded(value)) }
    if !residentBytes.isEmpty {
      let megabytes = residentBytes.map { "\($0 >> 20)" }.joined(separator: " / ")
      row("resident memory of the nodes, MiB", megabytes)
    }
    for member in further { row(member.name, Self.text(member.value)) }
    if let unconfirmed { row("unconfirmed", "\(unconfirmed)") }
    if settings.mode != .limit {
      table.add([
        .init(text: "lost / duplicated / corrupted"),
        .init(
          text: "\(lost) / \(duplicated) / \(corrupted)", style: isClean ? .good : .bad),
      ])
    }
    var text = table.text(colours: colours)
    if let histogram = endToEnd ?? confirm {
      text += Self.bars(histogram, of: endToEnd == nil ? "confirm" : "end to end")
    }
    return text
  }

  private static func text(_ nanoseconds: UInt64) -> String {
    rounded(Double(nanoseconds) / 1e9 * 1e3)
  }

  private static func text(_ value: JSON) -> String {
    switch value {
    case .number(let number): rounded(number)
    case .array(let values): values.map { text($0) }.joined(separator: " ")
    case .text(let text): text
    default: value.text
    }
  }

  /// One line for each span of time that has some, the spans growing by the factor 2.
  static func bars(_ histogram: LatencyHistogram, of name: String) -> String {
    guard histogram.count > 0 else { return "" }
    let ends = (0..<25).map { UInt64(31_250) << UInt64($0) }
    let counts = histogram.counts(upTo: ends)
    guard let first = counts.firstIndex(where: { $0 > 0 }),
      let last = counts.lastIndex(where: { $0 > 0 })
    else { return "" }
    let most = counts.max() ?? 1
    var text = "\(name), ms\n"
    for place in first...last {
      let label = place < ends.count ? Self.text(ends[place]) : "more"
      let padding = String(repeating: " ", count: max(0, 9 - label.count))
      let width = Int((Double(counts[place]) / Double(most) * 40).rounded(.up))
      let percent = rounded(Double(counts[place]) / Double(histogram.count) * 100)
      text += "\(padding)\(label)  \(String(repeating: "█", count: width)) \(percent) %\n"
    }
    return text
  }
}
