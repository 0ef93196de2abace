// Scenario files. One setting a line: a key and its value; `#` begins a comment. A fault is
//
//     fault kill leader every 3s..5s for 500ms..2s
//
// its kind, its target, and then settings in any order. chaos/README.md has all of them.

import Base

/// What is wrong with a scenario file, and where.
package struct ScenarioError: Error, Equatable, CustomStringConvertible {
  package let file: String
  /// From 1; the last where the file lacks something.
  package let line: Int
  /// The key or the setting.
  package let field: String
  package let message: String

  package var description: String {
    "\(file):\(line): \(field): \(message)"
  }
}

package struct ScenarioParser {
  private let file: String
  private var scenario: Scenario
  private var line = 0
  /// The line of each key but `fault`.
  private var given: [String: Int] = [:]
  /// Of each fault, its line and the settings that stand there.
  private var faults: [(line: Int, settings: Set<String>)] = []

  /// Closer to each other faults would be too many to be kept, let alone to be done.
  private static let pauseMin = Nanoseconds.milliseconds(10)
  private static let leaseMin = Nanoseconds.milliseconds(100)
  private static let redriveMin = Nanoseconds.milliseconds(100)
  /// Nodes are told to take no message above 256 KiB (ClusterPlaces), headers among it.
  private static let bodyMax: UInt64 = 250_000

  /// - Parameters:
  ///   - text: of the file.
  ///   - name: of the scenario.
  ///   - file: for messages.
  package static func parse(
    _ text: String, name: String, file: String
  ) throws(ScenarioError) -> Scenario {
    var parser = ScenarioParser(name: name, file: file)
    // "\r\n" is one character.
    for line in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline) {
      parser.line += 1
      let words = line.prefix { $0 != "#" }.split { $0.isWhitespace }.map(String.init)
      if let key = words.first { try parser.take(key, words.dropFirst()) }
    }
    return try parser.finish()
  }

  private init(name: String, file: String) {
    scenario = Scenario(name: name)
    self.file = file
  }

  private static let keys = [
    "about", "attacks", "nodes", "duration", "calm", "rate", "queues", "producers", "consumers",
    "prefetch", "body", "keys", "lease", "session", "deliveries", "retry", "delayed", "nacked",
    "rejected", "released", "extended", "overrun", "moved", "expiring", "cancelled", "priorities",
    "redrive", "amqp", "disk", "mix", "fault",
  ]

  private mutating func take(_ key: String, _ words: ArraySlice<String>) throws(ScenarioError) {
    guard Self.keys.contains(key) else {
      throw fault(key, "unknown setting" + Self.nearest(key, Self.keys))
    }
    if key != "fault", given.updateValue(line, forKey: key) != nil {
      throw fault(key, "is given twice")
    }
    guard let first = words.first else { throw fault(key, "has no value") }
    switch key {
    case "about": scenario.about = words.joined(separator: " ")
    case "attacks":
      let promises = (1...14).map { "G\($0)" }
      for word in words where !promises.contains(word) {
        throw fault(key, "\"\(word)\" is no promise: they are G1 to G14")
      }
      scenario.attacks = Array(words)
    case "fault":
      let (line, settings) = try faultLine(words)
      scenario.faults.append(line)
      faults.append((self.line, settings))
    default:
      guard words.count == 1 else {
        throw fault(key, "\"\(words.joined(separator: " "))\" is more than one value")
      }
      try takeValue(key, first)
    }
  }

  private mutating func takeValue(_ key: String, _ text: String) throws(ScenarioError) {
    switch key {
    case "nodes": scenario.nodes = try count(key, text, in: 1...9)
    case "duration": scenario.duration = try duration(key, text, atLeast: .seconds(1))
    case "calm": scenario.calm = try duration(key, text)
    case "mix": scenario.mix = try durations(key, text, atLeast: Self.pauseMin)
    case "disk":
      guard let bytes = ByteCountText.parse(text), bytes >= 64 << 20 else {
        throw fault(key, "\"\(text)\" is no size of at least 64MiB")
      }
      scenario.diskBytes = bytes
    default: try takeWorkload(key, text)
    }
  }

  private mutating func takeWorkload(_ key: String, _ text: String) throws(ScenarioError) {
    switch key {
    case "rate":
      scenario.workload.rate =
        text == "max" ? nil : UInt64(try count(key, text, in: 1...1_000_000))
    case "queues": scenario.workload.queues = try count(key, text, in: 1...100)
    case "producers": scenario.workload.producers = try count(key, text, in: 1...100)
    case "consumers": scenario.workload.consumers = try count(key, text, in: 1...100)
    case "prefetch": scenario.workload.prefetch = try count(key, text, in: 1...1000)
    case "body": scenario.workload.bodyBytes = try count(key, text, in: 32...Self.bodyMax)
    case "keys": scenario.workload.keys = try count(key, text, in: 0...100_000)
    case "lease": scenario.workload.lease = try duration(key, text, atLeast: Self.leaseMin)
    case "session": scenario.workload.session = try duration(key, text)
    case "deliveries": scenario.workload.maxDeliveries = try count(key, text, in: 0...1000)
    case "retry": scenario.workload.retryDelay = try duration(key, text)
    case "delayed": scenario.workload.delayed = try permille(key, text)
    case "nacked": scenario.workload.nacked = try permille(key, text)
    case "rejected": scenario.workload.rejected = try permille(key, text)
    case "released": scenario.workload.released = try permille(key, text)
    case "extended": scenario.workload.extended = try permille(key, text)
    case "moved": scenario.workload.moved = try permille(key, text)
    case "expiring": scenario.workload.expiring = try permille(key, text)
    case "cancelled": scenario.workload.cancelled = try permille(key, text)
    case "priorities": scenario.workload.priorities = try count(key, text, in: 1...32)
    case "amqp": scenario.workload.amqp = try count(key, text, in: 0...50)
    case "redrive":
      scenario.workload.redrive = try duration(key, text, atLeast: Self.redriveMin)
    default: scenario.workload.overrun = try permille(key, text)
    }
  }

  private func finish() throws(ScenarioError) -> Scenario {
    if given["about"] == nil { throw fault("about", "is missing") }
    if scenario.faults.isEmpty { throw fault("fault", "is missing") }
    try checkWorkload()
    for (place, fault) in scenario.faults.enumerated() {
      try check(fault, line: faults[place].line, settings: faults[place].settings)
    }
    return scenario
  }

  /// What no value says by itself.
  private func checkWorkload() throws(ScenarioError) {
    let plan = scenario.workload
    if scenario.calm >= scenario.duration {
      throw mistake(["calm", "duration"], "the calm lasts for the whole duration")
    }
    if plan.session <= plan.lease {
      throw mistake(["session", "lease"], "session must be longer than the lease")
    }
    if plan.consumers < plan.queues {
      throw mistake(["consumers", "queues"], "each queue needs a consumer")
    }
    let shares = ["nacked", "rejected", "released", "extended", "overrun", "moved"]
    let all =
      plan.nacked + plan.rejected + plan.released + plan.extended + plan.overrun + plan.moved
    if all > 1000 {
      throw mistake(shares, "with \(shares.joined(separator: ", ")) it is more than 100%")
    }
  }

  /// What is wrong with a fault beside the rest of the file.
  private func check(
    _ fault: FaultLine, line: Int, settings: Set<String>
  ) throws(ScenarioError) {
    func mistake(_ field: String, _ message: String) -> ScenarioError {
      ScenarioError(file: file, line: line, field: field, message: message)
    }
    let name = fault.kind.rawValue
    if scenario.mix == nil {
      if settings.contains("weight") { throw mistake("weight", "of \(fault.name) needs a mix") }
    } else {
      for setting in ["every", "at"] where settings.contains(setting) {
        throw mistake(setting, "is not for a mix, which draws what comes when")
      }
    }
    if scenario.diskBytes == nil, fault.kind.needsDisk {
      throw mistake("disk", "is missing: \(name) needs its size")
    }
    if scenario.nodes < fault.kind.nodesMin {
      throw mistake("fault", "\(name) needs \(fault.kind.nodesMin) nodes or more")
    }
    if fault.target == .follower, scenario.nodes < 2 {
      throw mistake("target", "one node alone has no follower")
    }
    if fault.kind == .latency, fault.delay == .zero, fault.jitter == .zero {
      throw mistake("delay", "without delay and jitter nothing is done")
    }
  }

  /// These keys do not go together: it is named for the one that stands last in the file.
  private func mistake(_ keys: [String], _ message: String) -> ScenarioError {
    let last = keys.max { given[$0] ?? 0 < given[$1] ?? 0 } ?? ""
    return ScenarioError(file: file, line: given[last] ?? line, field: last, message: message)
  }
}

// Faults.
extension ScenarioParser {
  private func faultLine(
    _ words: ArraySlice<String>
  ) throws(ScenarioError) -> (FaultLine, settings: Set<String>) {
    var words = words
    let name = words.removeFirst()
    guard let kind = FaultKind(rawValue: name) else {
      let known = FaultKind.allCases.map(\.rawValue)
      throw fault("fault", "unknown fault \"\(name)\"" + Self.nearest(name, known))
    }
    var line = FaultLine(kind: kind)
    if kind.needsTarget { line.target = try target(kind, words.popFirst()) }
    var settings: Set<String> = []
    while let setting = words.popFirst() {
      if !kind.needsTarget, FaultTarget(rawValue: setting) != nil {
        throw fault("target", "\(kind.rawValue) has none")
      }
      guard let value = words.popFirst() else { throw fault(setting, "has no value") }
      if !settings.insert(setting).inserted { throw fault(setting, "is given twice") }
      try take(setting, value, &line)
    }
    return (line, settings)
  }

  private func target(
    _ kind: FaultKind, _ word: String?
  ) throws(ScenarioError) -> FaultTarget {
    let known = FaultTarget.allCases.map(\.rawValue)
    guard let word, let target = FaultTarget(rawValue: word) else {
      let found = word.map { "\"\($0)\" is none of " } ?? "is missing: one of "
      throw fault("target", found + known.joined(separator: ", "))
    }
    if !kind.takesSeveral, target.count(of: 9) > 1 {
      throw fault("target", "\(kind.rawValue) is for one node at a time")
    }
    return target
  }

  private func take(
    _ setting: String, _ value: String, _ line: inout FaultLine
  ) throws(ScenarioError) {
    switch setting {
    case "every": line.every = try durations(setting, value, atLeast: Self.pauseMin)
    case "for":
      guard line.kind.lasts else { throw fault(setting, "\(line.kind.rawValue) does not last") }
      line.length = try durations(setting, value)
    case "at": line.first = try duration(setting, value)
    case "weight": line.weight = UInt64(try count(setting, value, in: 1...1000))
    case "delay" where line.kind == .latency: line.delay = try duration(setting, value)
    case "delay" where line.kind == .reorder:
      line.delay = try duration(setting, value, atLeast: .milliseconds(1))
    case "jitter" where line.kind == .latency: line.jitter = try duration(setting, value)
    case "bytes" where line.kind == .throttle:
      guard let bytes = ByteCountText.parse(value), bytes >= 1024 else {
        throw fault(setting, "\"\(value)\" is no size of at least 1KiB")
      }
      line.bytesPerSecond = bytes
    case "percent" where line.kind.needsNamespaces:
      guard let percent = Double(value), percent > 0, percent <= 100 else {
        throw fault(setting, "\"\(value)\" is no number from 0 to 100")
      }
      line.percent = percent
    default:
      let known = ["every", "for", "at", "weight", "delay", "jitter", "bytes", "percent"]
      throw fault(
        setting, "is no setting of \(line.kind.rawValue)" + Self.nearest(setting, known))
    }
  }
}

// Values.
extension ScenarioParser {
  /// In the line at hand.
  private func fault(_ field: String, _ message: String) -> ScenarioError {
    ScenarioError(file: file, line: line, field: field, message: message)
  }

  private static func nearest(_ name: String, _ known: [String]) -> String {
    nearestName(to: name, in: known).map { $0 == name ? "" : ", did you mean \($0)?" } ?? ""
  }

  private func count(
    _ key: String, _ text: String, in range: ClosedRange<UInt64>
  ) throws(ScenarioError) -> Int {
    guard let value = CountText.parse(text), range.contains(value) else {
      throw fault(
        key, "\"\(text)\" is no whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return Int(value)
  }

  private func duration(
    _ key: String, _ text: String, atLeast low: Nanoseconds = .zero
  ) throws(ScenarioError) -> Nanoseconds {
    guard let value = DurationText.parse(text), value <= .seconds(86_400) else {
      throw fault(key, "\"\(text)\" is no time such as 500ms, 10s or 5m")
    }
    if value < low {
      throw fault(key, "\"\(text)\" is less than \(DurationText.format(low))")
    }
    return value
  }

  /// `3s`, or `3s..5s`.
  private func durations(
    _ key: String, _ text: String, atLeast low: Nanoseconds = .zero
  ) throws(ScenarioError) -> ClosedRange<Nanoseconds> {
    guard let separator = text.firstRange(of: "..") else {
      let value = try duration(key, text, atLeast: low)
      return value...value
    }
    let first = try duration(key, String(text[..<separator.lowerBound]), atLeast: low)
    let last = try duration(key, String(text[separator.upperBound...]))
    guard first <= last else { throw fault(key, "\"\(text)\" ends before it begins") }
    return first...last
  }

  /// `2%` or `0.5%`, as thousandths.
  private func permille(_ key: String, _ text: String) throws(ScenarioError) -> UInt64 {
    guard text.hasSuffix("%"), let percent = Double(text.dropLast()), percent >= 0, percent <= 100
    else { throw fault(key, "\"\(text)\" is no share such as 2%") }
    let thousandths = (percent * 10).rounded()
    guard abs(percent * 10 - thousandths) < 1e-6 else {
      throw fault(key, "\"\(text)\" is no multiple of 0.1%")
    }
    return UInt64(thousandths)
  }
}
