// A deterministic cluster in one process: time is moved by hand, messages lie in a list from which
// the test takes, drops or repeats them, disks complete when told. What is committed, who led and
// what reads saw is checked at every step.

import Base

@testable import Consensus

final class SimulatedCluster {
  var now = MonotonicTime(1_000_000_000)
  var nodes: [NodeID: SimulatedNode] = [:]
  var messages: [Envelope] = []
  /// Directions in which messages are lost silently.
  var cuts: Set<[NodeID]> = []
  let seed: UInt64
  var makeConfiguration: (NodeID, UInt64) -> ConsensusConfiguration
  /// The longest run of entries in one message.
  var entriesPerMessageMax = 64
  /// Bytes of every snapshot's stream and of one chunk.
  var snapshotBytes = 30
  var chunkBytes = 10
  /// Readable lines of all that happened; nil to keep none.
  var trace: [String]?

  // What must hold over the whole run.
  var committed: [TestEntry] = []
  var leaders: [Term: NodeID] = [:]
  var problems: [String] = []
  var nextValue: UInt64 = 1

  init(
    voters: [UInt32], seed: UInt64 = 1,
    configuration: @escaping (NodeID, UInt64) -> ConsensusConfiguration = {
      ConsensusConfiguration(id: $0, seed: $1)
    }
  ) {
    self.seed = seed
    makeConfiguration = configuration
    let membership = Membership(members: voters.map { member(NodeID($0)) })
    for id in voters { addNode(NodeID(id), membership: membership) }
    connectAll()
  }

  /// What a run has seen, to tell that it tested something.
  var statistics: String {
    let changes = committed.count { $0.kind == .membership }
    return "terms \(leaders.count) committed \(committed.count) changes \(changes)"
      + " truncations \(truncations) chunks \(chunksStored) votes restored \(votesRestored)"
  }
  var truncations = 0
  var chunksStored = 0
  var votesRestored = 0

  var ids: [NodeID] { nodes.keys.sorted() }
  var running: [NodeID] { ids.filter { nodes[$0]!.isRunning } }
  var leader: NodeID? {
    running.filter { nodes[$0]!.consensus.isLeader }.max {
      nodes[$0]!.consensus.term < nodes[$1]!.consensus.term
    }
  }
  subscript(_ id: NodeID) -> SimulatedNode { nodes[id]! }
  subscript(_ id: UInt32) -> SimulatedNode { nodes[NodeID(id)]! }

  func configuration(_ id: NodeID) -> ConsensusConfiguration {
    makeConfiguration(id, seed &* 64 &+ UInt64(id.rawValue))
  }

  func addNode(_ id: NodeID, membership: Membership = Membership(members: [])) {
    nodes[id] = SimulatedNode(
      id: id, disk: Disk(snapshotMembership: membership), configuration: configuration(id),
      now: now)
  }

  func connectAll() {
    for left in running { for right in running where left != right { connect(left, right) } }
  }

  private func connect(_ left: NodeID, _ right: NodeID) {
    input(left) { $0.peerConnected(right, now: self.now, into: &$1) }
  }

  // MARK: Inputs

  /// Gives a node one input, carries out its outputs and sends what it may.
  func input(
    _ id: NodeID, envelope: Envelope? = nil,
    _ body: (inout Consensus, inout [ConsensusOutput]) -> Void
  ) {
    let node = nodes[id]!
    guard node.isRunning else { return }
    var output: [ConsensusOutput] = []
    body(&node.consensus, &output)
    for order in output { carryOut(order, at: node, envelope) }
    pump(node)
    node.consensus.checkInvariants()
    check(node)
  }

  func tick(_ id: NodeID) { input(id) { $0.tick(self.now, into: &$1) } }

  func advance(milliseconds: UInt64) {
    now = now + .milliseconds(milliseconds)
    for id in running { tick(id) }
  }

  @discardableResult func propose(_ id: NodeID) -> LogPosition? {
    let node = nodes[id]!
    var position: LogPosition?
    input(id) { consensus, _ in
      position = consensus.propose()
      guard let position else { return }
      self.append(
        [TestEntry(position: position, kind: .commands, value: self.nextValue)], at: node)
      self.nextValue += 1
    }
    return position
  }

  func change(_ id: NodeID, _ change: MembershipChange) throws(MembershipChangeError) {
    var thrown: MembershipChangeError?
    input(id) { consensus, output in
      do throws(MembershipChangeError) {
        let (position, membership) = try consensus.proposeMembership(
          change, now: self.now, into: &output)
        self.append(
          [TestEntry(position: position, kind: .membership, value: 0, membership: membership)],
          at: self.nodes[id]!)
      } catch { thrown = error }
    }
    if let thrown { throw thrown }
  }

  func transfer(_ id: NodeID, to target: NodeID?) throws(TransferError) {
    var thrown: TransferError?
    input(id) { consensus, output in
      do throws(TransferError) {
        try consensus.transferLeadership(to: target, now: self.now, into: &output)
      } catch { thrown = error }
    }
    if let thrown { throw thrown }
  }

  @discardableResult func read(_ id: NodeID) -> ReadTicket? {
    let node = nodes[id]!
    var output: [ConsensusOutput] = []
    let ticket = node.consensus.readIndex(now: now, into: &output)
    if let ticket {
      let known = LogIndex(UInt64(committed.count))
      node.reads[ticket] = max(node.reads[ticket] ?? .zero, known)
    }
    input(id) { $1 = output }
    return ticket
  }

  /// Takes a snapshot of all that is applied and drops the log before all but `keep` entries.
  func snapshot(_ id: NodeID, keep: UInt64 = 0) {
    let node = nodes[id]!
    // LogStore snapshots only what is on its disk.
    let index = min(node.applied, node.disk.last.index, node.consensus.persisted)
    guard index > node.disk.snapshot.index, node.pending.isEmpty else { return }
    input(id) { consensus, _ in
      consensus.snapshotTaken(through: index)
      node.disk.snapshot = consensus.snapshot
      node.disk.snapshotMembership = consensus.membership(at: index)
      guard index.rawValue > keep, index.rawValue - keep > node.disk.logBase.index.rawValue else {
        return
      }
      let base = LogIndex(index.rawValue - keep)
      consensus.logDropped(through: base)
      node.disk.logBase = consensus.logBase
    }
  }

  // MARK: Network

  func isCut(_ from: NodeID, _ to: NodeID) -> Bool { cuts.contains([from, to]) }

  func cut(_ left: NodeID, _ right: NodeID) {
    cuts.insert([left, right])
    cuts.insert([right, left])
  }

  func isolate(_ id: NodeID) { for other in ids where other != id { cut(id, other) } }

  /// Delivers the message at `place` of the list.
  func deliver(at place: Int, again: Bool = false) {
    let envelope = again ? messages[place] : messages.remove(at: place)
    guard let node = nodes[envelope.to], node.isRunning else { return }
    guard !isCut(envelope.from, envelope.to) else { return }
    var message = envelope.message
    if case .append(var request) = message {
      request.entries = envelope.entries.map(\.header)
      message = .append(request)
    }
    let decoded = envelope.entries.compactMap { entry in
      entry.membership.map { MembershipEntry(index: entry.position.index, membership: $0) }
    }
    input(envelope.to, envelope: envelope) {
      $0.receive(message, from: envelope.from, memberships: decoded, now: self.now, into: &$1)
    }
  }

  /// Delivers and completes until nothing is left to do at this moment.
  func settle(limit: Int = 100_000) {
    var steps = 0
    while true {
      steps += 1
      if steps > limit { return problems.append("does not settle") }
      if let id = running.first(where: { !nodes[$0]!.holdsStorage && !nodes[$0]!.pending.isEmpty })
      {
        completeStorage(id)
      } else if !messages.isEmpty {
        deliver(at: 0)
      } else {
        return
      }
    }
  }

  /// Moves time in small steps, settling after each, until `condition` or `milliseconds` passed.
  func run(milliseconds: UInt64, until condition: () -> Bool = { false }) {
    settle()
    for _ in 0..<(milliseconds / 5) {
      if condition() { return }
      advance(milliseconds: 5)
      settle()
    }
  }

  // MARK: Faults

  func completeStorage(_ id: NodeID) {
    let node = nodes[id]!
    guard let order = node.completeOne() else { return }
    input(id) { consensus, output in
      switch order {
      case .hardState(let state):
        consensus.hardStatePersisted(state, now: self.now, into: &output)
      case .append(let entries):
        consensus.logPersisted(through: entries.last!.position, now: self.now, into: &output)
      case .truncate: break
      case .chunk(let chunk, _):
        consensus.snapshotChunkStored(
          last: chunk.last, received: chunk.offset + UInt64(chunk.byteCount), now: self.now,
          into: &output)
      case .install(let chunk, let prefix):
        node.log = prefix
        node.applied = chunk.last.index
        consensus.snapshotInstalled(last: chunk.last, now: self.now, into: &output)
      }
    }
  }

  /// Kills a node: what it ordered to its disk is lost but for the first `kept` orders.
  func crash(_ id: NodeID, kept: Int = 0, tellsPeers: Bool = true) {
    let node = nodes[id]!
    guard node.isRunning else { return }
    for _ in 0..<kept { _ = node.completeOne() }
    node.pending.removeAll()
    node.isRunning = false
    messages.removeAll { $0.to == id }
    if tellsPeers {
      for peer in running { input(peer) { $0.peerDisconnected(id, now: self.now, into: &$1) } }
    }
  }

  func restart(_ id: NodeID) {
    guard !nodes[id]!.isRunning else { return }
    nodes[id]!.restart(configuration(id), now: now)
    for peer in running where peer != id {
      input(peer) { $0.peerDisconnected(id, now: self.now, into: &$1) }
      connect(peer, id)
      connect(id, peer)
    }
  }

  /// A stopped node loses the end of its log after `keep` entries, and knows that it did (G11).
  func damage(_ id: NodeID, keep: Int) {
    let node = nodes[id]!
    let kept = max(keep, Int(node.disk.snapshot.index.rawValue))
    guard kept < node.disk.entries.count else { return }
    node.disk.hardState.floor = max(node.disk.hardState.floor, node.disk.last)
    node.disk.entries.removeSubrange(kept...)
  }

  /// A stopped node loses its whole disk and comes back under its id.
  func wipe(_ id: NodeID, membership: Membership) {
    messages.removeAll { $0.from == id }
    nodes[id]!.disk = Disk(snapshotMembership: membership)
    nodes[id]!.disk.canVote = false
  }
}

func member(_ id: NodeID, isLearner: Bool = false) -> Membership.Member {
  Membership.Member(
    id: id, peerAddress: "peer\(id)", clientAddress: "client\(id)", isLearner: isLearner)
}
