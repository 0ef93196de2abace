// Thousands of random steps with loss, reordering, crashes, partitions, membership changes, damage
// and wiped disks: safety at every step, liveness after healing (§3.6.3, figure 3.2).

import Base
import Foundation
import TestSupport
import Testing

@testable import Consensus

/// What a random run may do besides losing and reordering messages and crashing nodes.
struct Faults {
  var changesMembership = false
  var damagesDisks = false
  var wipesDisks = false
}

struct RandomRun {
  let cluster: SimulatedCluster
  var random: SeededRandom
  let faults: Faults
  let size: UInt32
  var nextID: UInt32

  init(size: UInt32, seed: UInt64, faults: Faults) {
    self.size = size
    self.faults = faults
    random = SeededRandom(seed: seed)
    nextID = size + 1
    let messagesMax = Int(2 + random.next() % 6)
    let bytesMax = Int(16 + random.next() % 100)
    cluster = SimulatedCluster(voters: Array(1...size), seed: seed) {
      ConsensusConfiguration(
        id: $0, seed: $1, windowBytesMax: bytesMax, windowMessagesMax: messagesMax)
    }
    cluster.entriesPerMessageMax = Int(1 + random.next() % 5)
  }

  mutating func pick<Element>(_ elements: [Element]) -> Element? {
    elements.isEmpty ? nil : elements[Int(random.next() % UInt64(elements.count))]
  }

  mutating func chance(_ perMille: UInt64) -> Bool { random.next() % 1000 < perMille }

  mutating func step() {
    switch random.next() % 1000 {
    case 0..<540: deliver()
    case 540..<720: if let id = pick(cluster.running) { cluster.completeStorage(id) }
    case 720..<780: cluster.advance(milliseconds: 1 + random.next() % 60)
    case 780..<880: proposeSome()
    case 880..<900: if let id = cluster.leader { cluster.read(id) }
    case 900..<910:
      if let id = pick(cluster.running) { cluster.snapshot(id, keep: random.next() % 8) }
    case 910..<920: crash()
    case 920..<950: restart()
    case 950..<957: cutSomething()
    case 957..<970: cluster.cuts = []
    case 970..<975: transfer()
    case 975..<985: if faults.changesMembership { changeMembership() }
    case 985..<990: loseConnection()
    default: dropSomething()
    }
  }

  private mutating func proposeSome() {
    let leaders = cluster.running.filter { cluster[$0].consensus.isLeader }
    guard let id = pick(leaders) else { return }
    for _ in 0...(random.next() % 4) { cluster.propose(id) }
  }

  private mutating func deliver() {
    guard !cluster.messages.isEmpty else {
      return cluster.advance(milliseconds: 1 + random.next() % 10)
    }
    let near = min(cluster.messages.count, chance(900) ? 3 : 40)
    let place = Int(random.next() % UInt64(near))
    if chance(20) {
      cluster.messages.remove(at: place)
    } else {
      cluster.deliver(at: place, again: chance(20))
    }
    if cluster.messages.count > 300 { cluster.messages.removeFirst(150) }
  }

  private mutating func crash() {
    guard let id = pick(cluster.running) else { return }
    let kept = Int(random.next() % UInt64(cluster[id].pending.count + 1))
    cluster.crash(id, kept: kept, tellsPeers: chance(700))
    let isWhole = cluster.ids.allSatisfy {
      cluster[$0].disk.canVote && cluster[$0].disk.hardState.floor == .zero
    }
    guard isWhole else { return }
    if faults.damagesDisks, chance(400) {
      cluster.damage(id, keep: Int(random.next() % UInt64(cluster[id].disk.entries.count + 1)))
    } else if faults.wipesDisks, chance(800) {
      cluster.wipe(id, membership: cluster[id].consensus.membership)
      // The worst moment: who has the entries that it had is out of reach.
      if chance(500), let leader = cluster.leader { cluster.isolate(leader) }
      cluster.restart(id)
    }
  }

  private mutating func restart() {
    if let id = pick(cluster.ids.filter { !cluster[$0].isRunning }) { cluster.restart(id) }
  }

  private mutating func cutSomething() {
    guard let left = pick(cluster.ids), let right = pick(cluster.ids), left != right else { return }
    switch random.next() % 3 {
    case 0: cluster.isolate(left)
    case 1: cluster.cut(left, right)
    default: cluster.cuts.insert([left, right])
    }
  }

  private mutating func transfer() {
    guard let leader = cluster.leader, let target = pick(cluster.running) else { return }
    // Refused when it cannot be: that too is part of the run.
    _ = try? cluster.transfer(leader, to: target)
  }

  private mutating func loseConnection() {
    guard let left = pick(cluster.running), let right = pick(cluster.running), left != right else {
      return
    }
    let now = cluster.now
    for (one, other) in [(left, right), (right, left)] {
      cluster.input(one) { $0.peerDisconnected(other, now: now, into: &$1) }
    }
    for (one, other) in [(left, right), (right, left)] {
      cluster.input(one) { $0.peerConnected(other, now: now, into: &$1) }
    }
  }

  private mutating func dropSomething() {
    guard !cluster.messages.isEmpty else { return }
    cluster.messages.remove(at: Int(random.next() % UInt64(cluster.messages.count)))
  }

  private mutating func changeMembership() {
    guard let leader = cluster.leader else { return }
    let membership = cluster[leader].consensus.membership
    let learners = membership.members.filter(\.isLearner).map(\.id)
    let change: MembershipChange
    if let learner = pick(learners), chance(700) {
      change = .promote(learner)
    } else if membership.members.count <= Int(size) {
      change = .addLearner(id: NodeID(nextID), peerAddress: "p", clientAddress: "c")
    } else {
      guard let victim = pick(membership.members)?.id else { return }
      change = .remove(victim)
    }
    guard (try? cluster.change(leader, change)) != nil else { return }
    if case .addLearner(let id, _, _) = change {
      nextID += 1
      cluster.addNode(id)
      for peer in cluster.running where peer != id {
        let now = cluster.now
        cluster.input(peer) { $0.peerConnected(id, now: now, into: &$1) }
        cluster.input(id) { $0.peerConnected(peer, now: now, into: &$1) }
      }
    }
  }

  /// After healing: a leader appears, commits, and every member gets there.
  mutating func heal() {
    cluster.cuts = []
    for id in cluster.ids { cluster.restart(id) }
    cluster.connectAll()
    var goal: LogIndex?
    let cluster = self.cluster
    let isReached = {
      guard let leader = cluster.leader else { return false }
      if goal == nil { goal = cluster.propose(leader)?.index }
      guard let goal else { return false }
      return cluster[leader].consensus.membership.members.allSatisfy {
        cluster[$0.id].applied >= goal
      }
    }
    for _ in 0..<5 where !isReached() {
      goal = nil
      cluster.run(milliseconds: 4000, until: isReached)
    }
    if !isReached() {
      cluster.fail("no progress after healing: leader \(cluster.leader.map { "\($0)" } ?? "none")")
    }
  }

  mutating func run(steps: Int) -> [String] {
    for number in 0..<steps {
      step()
      if number % 200 == 0 { cluster.checkLogMatching() }
      if !cluster.problems.isEmpty { return cluster.problems.map { "step \(number): \($0)" } }
    }
    heal()
    cluster.checkLogMatching()
    return cluster.problems
  }
}

@Suite(.ownThreads) struct RandomFaultTests {
  static let baseSeed = ProcessInfo.processInfo.environment["SKEIN_SEED"].flatMap(UInt64.init)
  static let runs = ProcessInfo.processInfo.environment["SKEIN_RUNS"].flatMap(UInt64.init) ?? 5
  static let steps = 3000

  static func check(_ size: UInt32, _ faults: Faults) {
    let first = baseSeed ?? 1
    for seed in first..<(baseSeed == nil ? first + runs : first + 1) {
      var run = RandomRun(size: size, seed: seed, faults: faults)
      let problems = run.run(steps: steps)
      #expect(
        problems.isEmpty,
        """
        seed \(seed), \(size) nodes: \(problems.prefix(3))
        SKEIN_SEED=\(seed) swift test --filter RandomFaultTests
        """)
      if !problems.isEmpty { return }
      if ProcessInfo.processInfo.environment["SKEIN_STATS"] != nil {
        print("seed", seed, "size", size, faults, run.cluster.statistics)
      }
    }
  }

  @Test("figure 3.2: safety under loss, reordering, crashes and partitions; then progress")
  func crashes() {
    Self.check(3, Faults())
    Self.check(5, Faults())
  }

  @Test("§4.1: the same while members come and go")
  func memberships() { Self.check(3, Faults(changesMembership: true)) }

  @Test("G11: the same while one node at a time loses the end of its log")
  func damage() { Self.check(3, Faults(damagesDisks: true)) }

  @Test("G11: the same while one node at a time loses its disk")
  func wipes() { Self.check(3, Faults(wipesDisks: true)) }
}
