// Whoever runs the cluster: adds machines to it and takes some away, one at a time, while everything
// else goes on. At least three voters stay.

import Base
import Consensus
import LogStore
import Node

struct Administration {
  private let simulation: Simulation
  private static let votersMin = 3

  /// Whom the order is given to: who leads, or who only thinks so.
  private let leader: NodeLife?

  /// - Parameter cutOff: the leader that was just cut off, if it is the one to ask.
  init(_ simulation: Simulation, cutOff: NodeLife? = nil) {
    self.simulation = simulation
    leader = cutOff ?? Self.leader(of: simulation)
  }

  private static func leader(of simulation: Simulation) -> NodeLife? {
    let newest = simulation.leader
    if simulation.plan.isHarsher, simulation.laterChance.flip() {
      let stale = simulation.nodes.compactMap(\.life).filter {
        $0 !== newest && $0.isTakingPart && $0.replica.isLeader
      }
      if let life = stale.first(where: { $0.blockedUntil <= simulation.now }) { return life }
    }
    guard let newest, newest.blockedUntil <= simulation.now else { return nil }
    return newest
  }

  // MARK: Adding

  /// A machine with an empty disk joins under an id that nobody has.
  func addMember() {
    let free = simulation.nodes.filter { node in
      node.isOut && node.life == nil && !isKnownMember(node)
    }
    guard leader != nil, let node = simulation.chance.pick(free) else { return }
    if node.wasMember { simulation.note(.memberRejoins) }
    simulation.trace { "\(node) joins with an empty disk" }
    node.isOut = false
    node.joins = true
    node.wasMember = true
    node.isJoining = true
    node.log = OrderedLog()
    node.hardState = HardState()
    node.harmedAt = nil
    node.wasHarmed = false
    node.isIdentityHarmed = false
    node.disk.wipe()
    simulation.restart(node, after: 1)
    propose(node)
  }

  /// Whether anybody still takes the node for a member.
  private func isKnownMember(_ node: SimulatedNode) -> Bool {
    let id = simulation.id(node.place)
    return simulation.newestMembership.member(id) != nil
      || simulation.nodes.contains { $0.life?.replica.consensus.membership.member(id) != nil }
  }

  private func propose(_ node: SimulatedNode) {
    let member = simulation.member(node.place)
    let change = MembershipChange.addLearner(
      id: member.id, peerAddress: member.peerAddress, clientAddress: member.clientAddress)
    carryOut(change)
  }

  // MARK: Removing

  /// Somebody leaves, at times the leader itself.
  func removeMember() {
    guard let leader else { return }
    let members = leader.replica.consensus.membership
    guard members.voters.count > Self.votersMin else { return }
    let takesLeader = simulation.chance.permille(300)
    let id =
      takesLeader ? leader.replica.id : simulation.chance.pick(members.members.map(\.id))
    guard let id else { return }
    carryOut(.remove(id))
  }

  private func carryOut(_ change: MembershipChange) {
    guard let leader else { return }
    do {
      try leader.replica.changeMembership(change, now: leader.localNow)
      simulation.trace { "\(leader.node) begins to change the members: \(change)" }
      leader.wake()
      simulation.changeBegan(leader)
    } catch {
      // Not possible now: that too is part of the run.
      simulation.trace { "\(leader.node) does not change the members: \(error)" }
    }
  }

  // MARK: Looking after it

  /// Asks again for members whose change was lost, and switches off who was removed.
  func look() {
    let members = simulation.newestMembership
    for node in simulation.nodes where !node.isOut {
      let isMember = members.member(simulation.id(node.place)) != nil
      if isMember {
        node.isJoining = false
      } else if node.isJoining {
        let isOnItsWay =
          leader?.replica.consensus.membership.member(simulation.id(node.place)) != nil
        if !isOnItsWay, simulation.chance.permille(200) { propose(node) }
      } else if simulation.chance.permille(50) {
        simulation.trace { "\(node), which was removed, is switched off" }
        node.isOut = true
        simulation.crash(node, power: false)
      }
    }
    for node in simulation.nodes where node.isOut && node.life?.isTakingPart == false {
      simulation.crash(node, power: false)
    }
  }
}
