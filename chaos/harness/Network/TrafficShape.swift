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
  /// Netem lets packets overtake only those that it delays.
  private static let overtaken = Nanoseconds.milliseconds(1)

  /// - Returns: the commands, in order; none if there is nothing to do.
  static func commands(_ ways: [Way], on device: Device) throws(ChaosError) -> [[String]] {
    let harmed = ways.filter { $0.rule.delay > .zero || $0.rule.lossPercent > 0 }
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
    let delay = rule.lossPercent > 0 ? max(rule.delay, overtaken) : rule.delay
    var words = ["delay", "\(delay.rawValue / 1000)us", "\(rule.jitter.rawValue / 1000)us"]
    // Where packets get lost, some come twice and some too early.
    if rule.lossPercent > 0 {
      words += ["loss", "\(rule.lossPercent)%", "duplicate", "1%", "reorder", "1%"]
    }
    return words
  }
}
