// What the network of namespaces does to whom: the words for tc(8), and the addresses that a run takes. What
// needs root is run by .ci/run.

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
    line.percent = 10
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

  /// Each of the kinds does what it is named for, and nothing else.
  @Test(arguments: [
    (FaultKind.loss, "netem loss 7.0%"), (.duplicate, "netem duplicate 7.0%"),
    // Netem lets nothing overtake where nothing is delayed.
    (.reorder, "netem delay 5000us 0us reorder 7.0%"), (.latency, "netem delay 20000us 10000us"),
  ])
  func packetsAreHarmedAsTheFaultSays(_ kind: FaultKind, _ words: String) throws {
    var line = FaultLine(kind: kind, target: .node)
    line.percent = 7
    let fault = PlannedFault(line: line, start: .zero, end: .seconds(1), draw: 1)
    let rules = NetworkFaults.rules(fault, nodes: [2], members: [1, 2, 3], leader: 1).rules
    #expect(rules.count == 6)
    let rule = try #require(rules[Link(from: .node(2), to: .clients)])
    #expect(rules.values.allSatisfy { $0 == rule })
    let commands = try TrafficShape.commands([.init(from: "a", to: "b", rule: rule)], on: device)
    #expect(commands[1].joined(separator: " ").hasSuffix(" handle 20: " + words))
  }

  /// What is tried out before a run is what its faults need.
  @Test func theTrialUsesAllThatFaultsNeed() throws {
    let words = try TrafficShape.trial(on: device).joined()
    #expect(
      ["prio", "netem", "u32", "delay", "loss", "duplicate", "reorder"].allSatisfy(words.contains))
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

  /// Where the machine has a way to already, a run does not go; two runs begin with different ones.
  @Test func aRunTakesANetworkThatNobodyHas() {
    let routes = """
      Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
      eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0
      eth0 0001CA0A 00000000 0001 0 0 0 00FFFFFF 0 0 0
      skc7 0000CB0A 02FECB0A 0003 0 0 0 0000FFFF 0 0 0
      eth1 0000CC0B 00000000 0001 0 0 0 0000FFFF 0 0 0

      """
    let free = NamespaceNetwork.freeNetworks(routes: routes, from: 102)
    #expect(free.prefix(2) == [204, 205] && free.last == 201)
    #expect(Set(free) == Set(200...249).subtracting([202, 203]))
    #expect(NamespaceNetwork.freeNetworks(routes: routes, from: 105).first == 205)
  }

  /// A route takes all that its mask covers; where a VPN takes everything in two halves it is as a default route.
  @Test(arguments: [
    ("0000000A", "000000FF", Set<Int>()),
    ("0000D00A", "0000F0FF", Set(200...207).union(224...249)),
    ("0000C80A", "0000FEFF", Set(202...249)),
    ("0100F90A", "FFFFFFFF", Set(200...248)),
    ("0000000B", "000000FF", Set(200...249)),
    ("00000000", "00000080", Set(200...249)),
  ])
  func aRouteTakesWhatItsMaskCovers(_ address: String, _ mask: String, _ free: Set<Int>) {
    let routes = "Iface\neth0 \(address) 00000000 0001 0 0 0 \(mask) 0 0 0\n"
    #expect(Set(NamespaceNetwork.freeNetworks(routes: routes, from: 1)) == free)
  }
}
