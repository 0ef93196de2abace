// Scenario files: what they say, what is wrong with them and where, and the plan that a seed draws.

import Base
import Foundation
import Testing

@testable import ChaosHarness

@Suite struct ScenarioTests {
  private static let root = String(
    #filePath.dropLast("/Tests/ChaosTests/ScenarioTests.swift".count))

  private func parse(_ text: String) throws(ScenarioError) -> Scenario {
    try ScenarioParser.parse(text, name: "test", file: "test.chaos")
  }

  private func error(_ text: String) -> String {
    do throws(ScenarioError) {
      _ = try parse(text)
      return ""
    } catch {
      return error.description
    }
  }

  @Test func aFileSaysEverything() throws {
    let scenario = try parse(
      """
      # A comment.
      about     leaders die   # and more
      attacks   G1 G7
      nodes     5
      duration  90s
      rate      max
      keys      3
      nacked    0.5%
      moved     5%
      expiring  1%
      cancelled 2%
      priorities 4
      redrive   3s
      mix       1s..2s
      fault     kill leader for 500ms..1s weight 3
      fault     latency all delay 5ms jitter 1ms
      """)
    #expect(scenario.about == "leaders die")
    #expect(scenario.attacks == ["G1", "G7"])
    #expect(scenario.nodes == 5)
    #expect(scenario.duration == .seconds(90))
    #expect(scenario.workload.rate == nil)
    #expect(scenario.workload.keys == 3)
    #expect(scenario.workload.nacked == 5)
    #expect(scenario.workload.moved == 50)
    #expect(scenario.workload.workQueues == ["work-1", "work-2", "onward"])
    #expect(scenario.workload.expiring == 10 && scenario.workload.cancelled == 20)
    #expect(scenario.workload.priorities == 4 && scenario.workload.redrive == .seconds(3))
    #expect(scenario.mix == .seconds(1) ... .seconds(2))
    #expect(scenario.faults.map(\.name) == ["kill leader", "latency all"])
    #expect(scenario.faults[0].weight == 3)
    #expect(scenario.faults[1].delay == .milliseconds(5))
  }

  @Test(arguments: [
    ("about x\nfault kil leader", "test.chaos:2: fault: unknown fault \"kil\", did you mean kill?"),
    ("about x\nfault kill", "test.chaos:2: target: is missing: one of node, leader, former, "),
    ("about x\nfault kill captain", "test.chaos:2: target: \"captain\" is none of node, leader"),
    ("about x\n\nfault kill node every", "test.chaos:3: every: has no value"),
    ("about x\nfault kill node every 3", "test.chaos:2: every: \"3\" is no time such as 500ms"),
    ("about x\nfault kill node every 3s..1s", "test.chaos:2: every: \"3s..1s\" ends before"),
    ("about x\nfault kill node delay 3s", "test.chaos:2: delay: is no setting of kill"),
    ("about x\nfault drop node for 1s", "test.chaos:2: for: drop does not last"),
    ("about x\nfault disk-wipe minority", "test.chaos:2: target: disk-wipe is for one node"),
    ("about x\nfault disk-full node", "test.chaos:2: disk: is missing: disk-full needs its size"),
    ("about x\nfault power-loss all", "test.chaos:2: disk: is missing: power-loss needs its size"),
    ("about x\ndisk 1MiB\nfault power-loss all", "test.chaos:2: disk: \"1MiB\" is no size of at"),
    ("about x\nfault kill node weight 2", "test.chaos:2: weight: of kill node needs a mix"),
    ("about x", "test.chaos:1: fault: is missing"),
    ("fault kill node", "test.chaos:1: about: is missing"),
    ("about x\nnods 3", "test.chaos:2: nods: unknown setting, did you mean nodes?"),
    ("about x\nnodes", "test.chaos:2: nodes: has no value"),
    ("about x\nnodes 3 4", "test.chaos:2: nodes: \"3 4\" is more than one value"),
    ("about x\nnodes 100", "test.chaos:2: nodes: \"100\" is no whole number from 1 to 9"),
    ("about x\nnodes 3\nnodes 3", "test.chaos:3: nodes: is given twice"),
    ("about x\nnacked 2", "test.chaos:2: nacked: \"2\" is no share such as 2%"),
    ("about x\npriorities 33", "test.chaos:2: priorities: \"33\" is no whole number from 1 to 32"),
    ("about x\nredrive 1ms\nfault kill node", "test.chaos:2: redrive: \"1ms\" is less than 100ms"),
    ("about x\nlease 9s\nfault kill node", "test.chaos:2: lease: session must be longer than"),
    ("about x\nlease 9s\nsession 8s\nfault drop node", "test.chaos:3: session: session must be"),
    // Plans without an end, and settings that nobody reads.
    ("about x\nfault drop node every 0s", "test.chaos:2: every: \"0s\" is less than 10ms"),
    ("about x\nfault kill node every 0s..1s", "test.chaos:2: every: \"0s\" is less than 10ms"),
    ("about x\nmix 0s\nfault drop node", "test.chaos:2: mix: \"0s\" is less than 10ms"),
    ("about x\nfault drop node every 1s\nmix 1s", "test.chaos:2: every: is not for a mix"),
    ("about x\nmix 1s\nfault drop node at 1s", "test.chaos:3: at: is not for a mix"),
    ("about x\nfault drop node weight 1", "test.chaos:2: weight: of drop node needs a mix"),
    ("about x\nfault drop node at 1s at 2s", "test.chaos:2: at: is given twice"),
    ("rate 5\nfault kill node rate 3", "test.chaos:2: rate: is no setting of kill"),
    ("about x\nfault transfer leader", "test.chaos:2: target: transfer has none"),
    // What would fail, or do nothing, only in the run.
    ("about x\nbody 300000", "test.chaos:2: body: \"300000\" is no whole number from 32 to 250000"),
    ("about x\nattacks G1 G99", "test.chaos:2: attacks: \"G99\" is no promise"),
    ("about x\nattacks G0", "test.chaos:2: attacks: \"G0\" is no promise"),
    ("about x\nnacked 0.04%", "test.chaos:2: nacked: \"0.04%\" is no multiple of 0.1%"),
    ("about x\nmoved 60%\nnacked 50%\nfault drop node", "test.chaos:3: nacked: with nacked, rej"),
    ("about x\nnodes 2\nfault ring", "test.chaos:3: fault: ring needs 3 nodes or more"),
    ("about x\nnodes 2\nfault disk-wipe node", "test.chaos:3: fault: disk-wipe needs 3 nodes"),
    ("about x\nnodes 1\nfault isolate-peers node", "test.chaos:3: fault: isolate-peers needs 2"),
    ("about x\nnodes 1\nfault kill follower", "test.chaos:3: target: one node alone has no"),
    ("about x\nfault latency all delay 0s jitter 0s", "test.chaos:2: delay: without delay and"),
    ("about x\nqueues 5\nfault drop node", "test.chaos:2: queues: each queue needs a consumer"),
    ("about x\nduration 0s\nfault drop node", "test.chaos:2: duration: \"0s\" is less than 1s"),
    ("about x\nlease 0s\nfault drop node", "test.chaos:2: lease: \"0s\" is less than 100ms"),
    ("about x\ncalm 60s\nfault drop node", "test.chaos:2: calm: the calm lasts for the whole"),
    ("about x\r\nfault kil node\r\n", "test.chaos:2: fault: unknown fault \"kil\""),
  ])
  func mistakesAreNamedWithTheirPlace(text: String, message: String) {
    let found = error(text)
    #expect(found.hasPrefix(message), "\(found)")
  }

  /// However its lines end.
  @Test(arguments: ["\n", "\r\n", "\r"]) func linesEndAsTheyDo(end: String) throws {
    let lines = ["# what", "about x", "nodes 5", "", "fault kill node", ""]
    let scenario = try parse(lines.joined(separator: end))
    #expect(scenario.about == "x" && scenario.nodes == 5 && scenario.faults.count == 1)
  }

  @Test func whatIsNoTextIsRefused() throws {
    let good = Array("about überall\nfault kill node\n".utf8)
    #expect(try ScenarioLibrary.text(of: good, file: "f") == String(decoding: good, as: UTF8.self))
    #expect(throws: ScenarioError(file: "f", line: 3, field: "text", message: "is not UTF-8")) {
      _ = try ScenarioLibrary.text(of: good + [0xff, 0x0a], file: "f")
    }
  }

  /// The list in the program, the folder, and the page for people say the same.
  @Test func everyFileIsAScenarioOfTheProgram() throws {
    let folder = Self.root + "/chaos/scenarios"
    let files = try FileManager.default.contentsOfDirectory(atPath: folder)
    let names = files.map { String($0.dropLast(".chaos".count)) }
    #expect(Set(names) == Set(ScenarioLibrary.names))
    #expect(names.count == ScenarioLibrary.names.count)
    let page = try String(contentsOfFile: Self.root + "/chaos/README.md", encoding: .utf8)
    for name in ScenarioLibrary.names {
      let scenario = try ScenarioLibrary.scenario(name)
      #expect(scenario.name == name)
      #expect(!scenario.attacks.isEmpty)
      let file = try String(contentsOfFile: "\(folder)/\(name).chaos", encoding: .utf8)
      #expect(ScenarioLibrary.text(name) == file)
      #expect(page.contains("`\(name)`"), "chaos/README.md does not name \(name)")
    }
  }

  /// Every kind of fault stands in some scenario, and on the page.
  @Test func everyFaultIsUsedAndExplained() throws {
    let used = Set(
      try ScenarioLibrary.names.flatMap { try ScenarioLibrary.scenario($0).faults.map(\.kind) })
    let page = try String(contentsOfFile: Self.root + "/chaos/README.md", encoding: .utf8)
    for kind in FaultKind.allCases {
      #expect(used.contains(kind), "no scenario uses \(kind.rawValue)")
      #expect(page.contains("`\(kind.rawValue)`"), "chaos/README.md lacks \(kind.rawValue)")
    }
  }

  /// It says that it draws from all but those.
  @Test func aMixOfAllLacksOnlyWhatItSays() throws {
    let drawn = Set(try ScenarioLibrary.scenario("mixed").faults.map(\.kind))
    let left = FaultKind.allCases.filter { !drawn.contains($0) }
    #expect(left.allSatisfy { $0.needsDisk || $0.needsNamespaces || $0 == .diskLimit }, "\(left)")
    let text = try #require(ScenarioLibrary.text("mixed"))
    for kind in left { #expect(text.contains(kind.rawValue), "\(kind.rawValue)") }
  }

  /// What `skein chaos list` says that a machine must have.
  @Test func whatAScenarioNeedsIsSaid() throws {
    for name in ScenarioLibrary.names {
      let needs = try ScenarioLibrary.scenario(name).needs
      switch name {
      case "packet-loss", "packet-reorder", "packet-duplicate":
        #expect(needs == ["root", "--netns", "netem"])
      case "power-loss", "disk-full": #expect(needs == ["root"])
      default: #expect(needs.isEmpty)
      }
    }
  }

  @Test func anUnknownNameGetsTheNearest() {
    #expect(throws: ChaosError.self) { _ = try ScenarioLibrary.scenario("leader-kil") }
    do { _ = try ScenarioLibrary.scenario("leader-kil") } catch {
      #expect("\(error)".contains("did you mean leader-kill?"))
    }
  }
}

@Suite struct FaultPlanTests {
  @Test(arguments: ScenarioLibrary.names) func theSameSeedIsTheSamePlan(name: String) throws {
    let scenario = try ScenarioLibrary.scenario(name)
    let plan = FaultPlan(scenario, seed: 7, duration: .seconds(60))
    #expect(plan == FaultPlan(scenario, seed: 7, duration: .seconds(60)))
    #expect(plan != FaultPlan(scenario, seed: 8, duration: .seconds(60)))
    #expect(!FaultPlan(scenario, seed: 7, duration: .seconds(20)).faults.isEmpty)
  }

  /// What the scenario is for: the wiped node comes back while the leader is dead, and what was on
  /// its way to the third is gone by then.
  @Test func aWipedVoterComesBackWithoutALeader() throws {
    let scenario = try ScenarioLibrary.scenario("wiped-voter")
    let faults = FaultPlan(scenario, seed: 1, duration: .seconds(60)).faults
    let wipes = faults.filter { $0.line.kind == .diskWipe }
    #expect(wipes.count > 5)
    for wipe in wipes {
      func during(_ kind: FaultKind) -> PlannedFault? {
        faults.first { $0.line.kind == kind && $0.start <= wipe.end && $0.end >= wipe.start }
      }
      let kill = try #require(during(.kill))
      #expect(kill.start > wipe.start && kill.start < wipe.end)
      #expect(kill.end > wipe.end + .seconds(1))
      let slow = try #require(during(.latency))
      #expect(slow.start + slow.line.delay < wipe.start && slow.end < wipe.end)
      let drop = try #require(during(.drop))
      #expect(drop.start > kill.start && drop.start < slow.end)
    }
  }

  /// Faults begin after the calm, end before the run does, follow each other as the file says.
  @Test(arguments: 1...50) func aPlanKeepsItsTimes(seed: UInt64) throws {
    for name in ScenarioLibrary.names {
      let scenario = try ScenarioLibrary.scenario(name)
      let plan = FaultPlan(scenario, seed: seed, duration: .seconds(30))
      for (place, fault) in plan.faults.enumerated() {
        #expect(fault.number == place + 1)
        #expect(fault.start >= scenario.calm && fault.end < .seconds(30))
        #expect(fault.line.length.contains(Nanoseconds(fault.end.rawValue - fault.start.rawValue)))
      }
      for line in scenario.faults where scenario.mix == nil {
        let own = plan.faults.filter { $0.line == line }
        for (one, next) in zip(own, own.dropFirst()) {
          let pause = Nanoseconds(next.start.rawValue - one.end.rawValue)
          #expect(line.every?.contains(pause) == true)
        }
      }
    }
  }

  @Test func aMixDrawsByWeight() throws {
    var scenario = try ScenarioLibrary.scenario("mixed")
    scenario.faults = [FaultLine(kind: .drop, target: .node), FaultLine(kind: .transfer)]
    scenario.faults[0].weight = 9
    let plan = FaultPlan(scenario, seed: 1, duration: .seconds(3600))
    let drops = plan.faults.count { $0.line.kind == .drop }
    #expect(drops > plan.faults.count * 8 / 10 && drops < plan.faults.count)
  }
}

@Suite struct NetworkFaultTests {
  private func rules(
    _ kind: FaultKind, _ nodes: [Int], members: [Int] = [1, 2, 3], draw: UInt64 = 1
  ) -> [Link: LinkRule] {
    let fault = PlannedFault(
      line: FaultLine(kind: kind), start: .zero, end: .seconds(1), draw: draw)
    return NetworkFaults.rules(fault, nodes: nodes, members: members, leader: 1).rules
  }

  private func link(_ from: Int, _ to: Int) -> Link { Link(from: .node(from), to: .node(to)) }

  @Test func anIsolatedNodeSeesNobody() {
    let cut = rules(.isolate, [2])
    let expected: Set = [
      link(1, 2), link(2, 1), link(3, 2), link(2, 3), Link(from: .clients, to: .node(2)),
      Link(from: .node(2), to: .clients),
    ]
    #expect(Set(cut.keys) == expected)
    #expect(cut.values.allSatisfy { $0.isCut })
    #expect(
      Set(rules(.isolatePeers, [2]).keys)
        == expected.filter { $0.from != .clients && $0.to != .clients })
  }

  @Test func oneWayIsOneWay() {
    #expect(Set(rules(.oneWayIn, [2]).keys) == [link(1, 2), link(3, 2)])
    #expect(Set(rules(.oneWayOut, [2]).keys) == [link(2, 1), link(2, 3)])
  }

  /// In a ring everybody sees a majority, and no two the same.
  @Test(arguments: [3, 5, 7], [1, 2, 3] as [UInt64])
  func aRingLeavesEverybodyAMajority(count: Int, draw: UInt64) {
    let members = Array(1...count)
    let cut = rules(.ring, [], members: members, draw: draw)
    var seen: Set<Set<Int>> = []
    for node in members {
      let peers = members.filter { $0 == node || cut[link(node, $0)] == nil }
      #expect(peers.count >= count / 2 + 1)
      for peer in members {
        #expect((cut[link(node, peer)] == nil) == (cut[link(peer, node)] == nil))
      }
      seen.insert(Set(peers))
    }
    #expect(seen.count == count)
  }

  /// The leader is node 1.
  @Test func inAStarTheOthersSeeOnlyTheLeader() {
    let cut = rules(.star, [], members: [1, 2, 3, 4])
    #expect(
      Set(cut.keys)
        == Set(
          [2, 3, 4].flatMap { from in
            [2, 3, 4].filter { $0 != from }.map { link(from, $0) }
          }))
    #expect(cut.values.allSatisfy { $0.isCut })
  }

  @Test func halvesSeeNothingOfEachOther() {
    let cut = rules(.halves, [], members: [1, 2, 3, 4, 5])
    // Two and three: six pairs, both ways.
    #expect(cut.count == 12)
    for link in cut.keys { #expect(cut[Link(from: link.to, to: link.from)] == .cut) }
  }

  @Test func rulesAddUp() {
    var rule = LinkRule()
    rule.delay = .milliseconds(5)
    var other = LinkRule()
    other.delay = .milliseconds(3)
    other.bytesPerSecond = 100
    rule.add(other)
    #expect(rule.delay == .milliseconds(5) && rule.bytesPerSecond == 100 && !rule.isCut)
    rule.add(.cut)
    #expect(rule.isCut)
  }
}
