// Some followers are stopped so that they lag. Just before they go on all the others die, those with the
// newest entries among them, and only as many come back soon as make a majority with the laggards: what
// was confirmed meanwhile must be found by it, and none of the laggards may lead it.

import Base
import Consensus
import Node

final class PauseKill {
  unowned(unsafe) private let simulation: Simulation
  /// Who stands still, and until when.
  private var laggards: [Int] = []
  private var until: UInt64 = 0
  /// What was committed when the others died.
  private var commit = LogIndex.zero

  init(_ simulation: Simulation) { self.simulation = simulation }

  private func milliseconds(_ range: ClosedRange<UInt64>) -> UInt64 {
    .milliseconds(simulation.laterChance.within(range))
  }

  // MARK: The fault

  func begin() {
    guard laggards.isEmpty, let leader = simulation.leader else { return }
    let members = leader.replica.consensus.membership
    var followers = voters(of: members).filter {
      $0 !== leader && $0.isTakingPart && $0.blockedUntil <= simulation.now
    }
    until = simulation.now + milliseconds(500...4000)
    while laggards.count < members.voters.count - members.quorum, !followers.isEmpty {
      let life = followers.remove(at: simulation.laterChance.below(followers.count))
      laggards.append(life.node.place)
      life.standStill(until: until)
      simulation.schedule(.resume(life.node.place, life.number), at: until)
    }
    guard !laggards.isEmpty else { return }
    simulation.trace {
      "nodes \(self.laggards.map { $0 + 1 }) stand still until \(Simulation.seconds(self.until))"
    }
    simulation.schedule(.killBeforeLaggards, at: until - 1)
  }

  private func voters(of members: Membership) -> [NodeLife] {
    members.voters.compactMap { simulation.nodes[simulation.place($0)].life }
  }

  /// They are about to go on.
  func kill() {
    let places = laggards
    laggards = []
    guard !simulation.isDraining, let leader = simulation.leader else { return }
    let commit = simulation.checks.commit
    let members = leader.replica.consensus.membership
    let behind = places.filter { place in
      guard let life = simulation.nodes[place].life, life.blockedUntil >= until else {
        return false
      }
      return life.replica.consensus.lastIndex < commit
    }
    var others = simulation.nodes.filter { $0.life != nil && !places.contains($0.place) }
    guard !behind.isEmpty, others.contains(where: { $0 === leader.node }) else { return }
    simulation.note(.pauseKills)
    self.commit = commit
    let power = simulation.laterChance.flip()
    simulation.trace { "nodes \(behind.map { $0 + 1 }) lag, and all others die" }
    var back = members.quorum - behind.count
    while !others.isEmpty {
      let node = others.remove(at: simulation.laterChance.below(others.count))
      simulation.note(power ? .powerLosses : .kills)
      simulation.crash(node, power: power)
      simulation.restart(node, after: milliseconds(back > 0 ? 10...300 : 2000...6000))
      back -= 1
    }
  }

  // MARK: What came of it

  /// A leader was found by a bare majority, at least half of which did not have what was committed.
  func leaderBegan(_ place: Int) {
    guard commit > .zero, let leader = simulation.nodes[place].life else { return }
    defer { commit = .zero }
    let members = leader.replica.consensus.membership
    let running = voters(of: members).filter(\.isTakingPart)
    let behind = running.count { $0.replica.consensus.lastIndex < commit }
    guard running.count == members.quorum, 2 * behind >= running.count else { return }
    simulation.note(.laggardMajorities)
  }
}
