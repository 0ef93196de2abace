// What the network of namespaces does to whom: the words for tc(8), and what is cleared away. What needs
// root is run by .ci/run.

import Base
import Testing

@testable import ChaosHarness

@Suite struct NamespaceTests {
  private let device = TrafficShape.Device(namespace: "skc7n1", name: "eth0")

  private func loss(_ percent: Double) -> LinkRule {
    var rule = LinkRule()
    rule.lossPercent = percent
    return rule
  }

  /// The links of node 2 are harmed; what node 1 sends to node 3 and to clients is not.
  @Test func onlyTheNamedLinksAreShaped() throws {
    var line = FaultLine(kind: .loss, target: .node)
    line.lossPercent = 10
    let fault = PlannedFault(line: line, start: .zero, end: .seconds(1), draw: 1)
    let rules = NetworkFaults.rules(fault, nodes: [2], members: [1, 2, 3], leader: 1).rules
    let ways = rules.filter { $0.key.from == .node(1) }.map { link, rule in
      TrafficShape.Way(from: "\(link.from)", to: "\(link.to)", rule: rule)
    }
    let commands = try TrafficShape.commands(ways, on: device).map { $0.joined(separator: " ") }
    #expect(commands.count == 3)
    #expect(commands[0].hasPrefix("tc -n skc7n1 qdisc add dev eth0 root handle 1: prio bands 2 "))
    #expect(commands[0].hasSuffix(" priomap" + String(repeating: " 0", count: 16)))
    #expect(
      commands[2]
        == "tc -n skc7n1 filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip src node(1)/32"
        + " match ip dst node(2)/32 flowid 1:2")
  }

  /// Netem lets nothing overtake where nothing is delayed.
  @Test func lostPacketsComeWithSomeTwiceAndSomeTooEarly() throws {
    let way = TrafficShape.Way(from: "a", to: "b", rule: loss(5))
    let commands = try TrafficShape.commands([way], on: device)
    #expect(
      commands[1].joined(separator: " ")
        == "tc -n skc7n1 qdisc add dev eth0 parent 1:2 handle 20: netem delay 1000us 0us loss 5.0%"
        + " duplicate 1% reorder 1%")
  }

  @Test func eachHarmHasABandOfItsOwn() throws {
    var slow = LinkRule()
    slow.delay = .milliseconds(20)
    slow.jitter = .milliseconds(10)
    let ways = [
      TrafficShape.Way(from: "a", to: "d", rule: slow),
      TrafficShape.Way(from: "a", to: "b", rule: loss(5)),
      TrafficShape.Way(from: "a", to: "c", rule: slow),
      TrafficShape.Way(from: "a", to: "e", rule: .cut),
    ]
    let own = TrafficShape.Device(namespace: nil, name: "skc7")
    let commands = try TrafficShape.commands(ways, on: own).map { $0.joined(separator: " ") }
    #expect(commands[0].hasPrefix("tc qdisc add dev skc7 root handle 1: prio bands 3 "))
    #expect(commands[2].hasSuffix("parent 1:3 handle 30: netem delay 20000us 10000us"))
    #expect(
      commands[3...].map { $0.suffix(20) }
        == [
          "ip dst b/32 flowid 1:2", "ip dst c/32 flowid 1:3", "ip dst d/32 flowid 1:3",
        ].map { $0.suffix(20) })
    #expect(TrafficShape.removal(from: own) == ["tc", "qdisc", "del", "dev", "skc7", "root"])
    #expect(try TrafficShape.commands([ways[3]], on: own).isEmpty)
    let many = (1...16).map { TrafficShape.Way(from: "a", to: "\($0)", rule: loss(Double($0))) }
    #expect(throws: ChaosError.self) { try TrafficShape.commands(many, on: own) }
  }

  /// Of runs that were killed; those of others, and of runs that are on, stay.
  @Test func remainsAreThoseOfDeadRuns() {
    let names = [
      "skc12", "skc12n1", "skc12n29", "skc34", "skc34n1", "skc", "skcn1", "skc12nx", "skc12n1n2",
      "other12",
    ]
    #expect(
      NamespaceNetwork.remains(of: names) { $0 == 34 } == ["skc12", "skc12n1", "skc12n29"])
  }
}
