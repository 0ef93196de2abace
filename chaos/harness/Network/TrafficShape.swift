// How links are delayed and made to lose packets in namespaces: the words for tc(8). All that a device
// sends is sorted by sender and receiver into bands; each band but the first has a netem of its own. So only
// the links that a fault names are harmed, and not what else leaves the same node.

import Base

enum TrafficShape {
  struct Device: Hashable {
    /// nil is the harness's own.
    let namespace: String?
    let name: String
  }

  /// A link, by addresses.
  struct Way {
    let from: String
    let to: String
    let rule: LinkRule
  }

  /// The kernel's TCQ_PRIO_BANDS. The first takes what no fault is about.
  private static let bandsMax = 16
  /// - Returns: the commands, in order; none if there is nothing to do.
  static func commands(_ ways: [Way], on device: Device) throws(ChaosError) -> [[String]] {
    let harmed = ways.filter(\.rule.isShaped)
      .sorted { ($0.from, $0.to) < ($1.from, $1.to) }
    var bands: [LinkRule] = []
    for way in harmed where !bands.contains(way.rule) { bands.append(way.rule) }
    if bands.isEmpty { return [] }
    guard bands.count < bandsMax else { throw ChaosError("more than 15 ways of harm at once") }
    var commands = [
      tc(device, "qdisc", "add")
        + ["root", "handle", "1:", "prio", "bands", "\(bands.count + 1)", "priomap"]
        + [String](repeating: "0", count: 16)
    ]
    for (place, rule) in bands.enumerated() {
      commands.append(
        tc(device, "qdisc", "add")
          + ["parent", "1:\(place + 2)", "handle", "\(place + 2)0:", "netem"] + netem(rule))
    }
    for way in harmed {
      guard let place = bands.firstIndex(of: way.rule) else { continue }
      commands.append(
        tc(device, "filter", "add")
          + ["parent", "1:", "protocol", "ip", "prio", "1", "u32", "match", "ip", "src"]
          + ["\(way.from)/32", "match", "ip", "dst", "\(way.to)/32", "flowid", "1:\(place + 2)"])
    }
    return commands
  }

  static func removal(from device: Device) -> [String] { tc(device, "qdisc", "del") + ["root"] }

  private static func tc(_ device: Device, _ object: String, _ verb: String) -> [String] {
    ["tc"] + (device.namespace.map { ["-n", $0] } ?? []) + [object, verb, "dev", device.name]
  }

  private static func netem(_ rule: LinkRule) -> [String] {
    var words: [String] = []
    if rule.isDelayed {
      words += ["delay", "\(rule.delay.rawValue / 1000)us", "\(rule.jitter.rawValue / 1000)us"]
    }
    if rule.lossPercent > 0 { words += ["loss", "\(rule.lossPercent)%"] }
    if rule.duplicatePercent > 0 { words += ["duplicate", "\(rule.duplicatePercent)%"] }
    // So many are sent at once, and overtake those that wait for their delay.
    if rule.reorderPercent > 0 { words += ["reorder", "\(rule.reorderPercent)%"] }
    return words
  }

  /// What the kernel needs for the faults that are done by netem, tried out on a device.
  static func trial(on device: Device) throws(ChaosError) -> [[String]] {
    var rule = LinkRule()
    rule.delay = .milliseconds(1)
    rule.lossPercent = 1
    rule.duplicatePercent = 1
    rule.reorderPercent = 1
    return try commands([Way(from: "127.0.0.2", to: "127.0.0.3", rule: rule)], on: device)
  }
}

extension LinkRule {
  fileprivate var isDelayed: Bool { delay > .zero || jitter > .zero }

  /// Something is left to do for netem.
  fileprivate var isShaped: Bool {
    isDelayed || lossPercent > 0 || duplicatePercent > 0 || reorderPercent > 0
  }
}
