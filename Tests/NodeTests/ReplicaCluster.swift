// A cluster of replicas in memory: disks are arrays, the network is a queue, time is moved by hand.

import Base
import Consensus
import QueueMachine
import Testing

@testable import Node

/// One node: its replica while it is up, and what survives a crash.
final class TestNode {
  let id: NodeID
  var replica: Replica?
  // What is on its disk.
  var entries: [Entry] = []
  var hardState = HardState()
  var isMemoryLost = false
  var snapshot: (request: SnapshotRequest, bytes: [UInt8])?
  /// Entries covered by the snapshot whose records this disk lost.
  var damaged: [ClosedRange<LogIndex>] = []
  var repairs: [(references: [RecordReference], bodies: [[UInt8]])] = []

  // What happened.
  var notes: [String] = []
  var stops: [StopReason] = []
  var effects: [Effect] = []
  var deliveries: [Delivery] = []
  var readsReady: [ReadTicket] = []
  var incomingStream: [UInt8] = []

  init(id: NodeID) { self.id = id }

  /// The queues' time; zero while it is down.
  var clock: MachineTime { replica?.machine.clock ?? .zero }

  var lastIndex: LogIndex { entries.last?.index ?? snapshot?.request.last.index ?? .zero }
}

final class ReplicaCluster {
  var nodes: [TestNode] = []
  var now = MonotonicTime(1_000_000_000)
  var network: [(from: NodeID, to: NodeID, PeerEnvelope)] = []
  /// Links that lose everything, one way.
  var cut: Set<[NodeID]> = []
  /// Nodes whose logs have no records of old entries any more.
  var forgets: Set<NodeID> = []
  let membership: Membership
  var snapshotBytes = 1 << 30
  var cacheBytes = 1 << 20
  var logBytesForAbsent: UInt64 = 0
  var logBytesForFed: UInt64 = 0
  var freeBytes = UInt64.max
  var feedBytesPerSecond: UInt64 = 128 << 20
  /// Streams of snapshots that were begun.
  var snapshotsSent = 0

  init(_ count: Int) {
    let ids = (1...UInt32(count)).map { NodeID($0) }
    membership = Membership(
      members: ids.map { .init(id: $0, peerAddress: "n\($0):1", clientAddress: "n\($0):2") })
    nodes = ids.map { TestNode(id: $0) }
  }

  subscript(_ id: NodeID) -> TestNode { nodes[Int(id.rawValue) - 1] }

  /// An hour apart from node to node.
  static func wallClock(of node: NodeID) -> MachineTime {
    MachineTime(1_700_000_000_000_000_000) + .seconds(3600 * UInt64(node.rawValue))
  }

  // MARK: Life and death

  func start(_ node: TestNode) {
    let snapshot = node.snapshot?.request
    var base = LogPosition.zero
    if let covered = snapshot?.last {
      // The term before the first entry kept is not known: that entry becomes the base.
      base = node.entries.first.map { min($0.header.position, covered) } ?? covered
    }
    var runs: [TermRun] = []
    for entry in node.entries
    where entry.index > base.index && runs.last?.term != entry.header.term {
      runs.append(TermRun(first: entry.index, term: entry.header.term))
    }
    let memberships = node.entries.compactMap { entry -> MembershipEntry? in
      guard entry.header.kind == .membership, entry.index > snapshot?.last.index ?? .zero,
        let membership = Replica.decodeMembership(entry.payload)
      else { return nil }
      return MembershipEntry(index: entry.index, membership: membership)
    }
    let state = RestoredState(
      hardState: node.hardState, snapshot: snapshot?.last ?? .zero,
      snapshotMembership: snapshot?.membership ?? membership,
      logBase: base, termRuns: runs, last: node.lastIndex,
      memberships: memberships, canVote: !node.isMemoryLost)
    var configuration = ReplicaConfiguration(
      consensus: ConsensusConfiguration(id: node.id, seed: UInt64(node.id.rawValue) + now.rawValue),
      cluster: "test")
    configuration.snapshotBytes = snapshotBytes
    configuration.cacheBytesMax = cacheBytes
    configuration.logBytesForAbsent = logBytesForAbsent
    configuration.logBytesForFed = logBytesForFed
    configuration.feedBytesPerSecond = feedBytesPerSecond
    let machine: QueueMachine
    do {
      machine =
        if let bytes = node.snapshot?.bytes { try QueueMachine(snapshot: bytes) } else {
          QueueMachine()
        }
    } catch {
      Issue.record("snapshot of node \(node.id): \(error)")
      return
    }
    node.replica = Replica(
      configuration: configuration,
      restored: RestoredReplica(
        consensus: state, damaged: node.damaged, wallClock: Self.wallClock(of: node.id)),
      machine: machine, now: now)
    for other in nodes where other.id != node.id && other.replica != nil {
      connect(node, other)
      connect(other, node)
    }
  }

  private func connect(_ node: TestNode, _ other: TestNode) {
    guard let introduction = node.introduction else { return }
    network.append((node.id, other.id, .introduction(introduction)))
    node.replica?.peerConnected(other.id, now: now)
  }

  func crash(_ node: TestNode) {
    node.replica = nil
    network.removeAll { $0.from == node.id || $0.to == node.id }
    for other in nodes where other.id != node.id {
      other.replica?.peerDisconnected(node.id, now: now)
    }
  }

  func startAll() {
    for node in nodes { start(node) }
    run(until: "a leader that has applied its first entries") { $0.leader != nil }
  }

  // MARK: Time

  /// The leader that everybody who is up agrees on and that has applied all it committed.
  var leader: TestNode? {
    let leaders = nodes.filter { $0.replica?.isLeader == true }
    guard leaders.count == 1, let leader = leaders.first, leader.isReady else { return nil }
    return leader
  }

  /// Moves time until `condition` holds; a test failure if it does not within a minute.
  func run(
    until text: String, sourceLocation: SourceLocation = #_sourceLocation,
    _ condition: (ReplicaCluster) -> Bool
  ) {
    for _ in 0..<60_000 {
      step()
      if condition(self) { return }
    }
    Issue.record("not reached: \(text)", sourceLocation: sourceLocation)
  }

  func step(_ span: Nanoseconds = .milliseconds(1)) {
    now = now + span
    for node in nodes { turn(node) }
    var batch: [(from: NodeID, to: NodeID, PeerEnvelope)] = []
    swap(&batch, &network)
    for (from, to, envelope) in batch where !cut.contains([from, to]) {
      self[to].replica?.receive(envelope, from: from, now: now)
    }
    for node in nodes { turn(node) }
  }

  private func turn(_ node: TestNode) {
    guard node.replica != nil else { return }
    node.replica?.tick(now: now)
    for _ in 0..<10 {
      guard let outputs = node.replica?.finishTurn(now: now, hasRoom: { _ in true }) else { return }
      node.takeEffects()
      for output in outputs { carryOut(output, node) }
      if outputs.isEmpty { return }
    }
  }

  // MARK: Orders

  private func carryOut(_ output: ReplicaOutput, _ node: TestNode) {
    switch output {
    case .store(let ticket, let operations):
      for operation in operations { node.carryOut(operation) }
      node.replica?.stored(ticket, now: now)
    case .send(let peer, let envelope):
      // Through the bytes, as over a real connection.
      let (head, payloads) = PeerCodec.encode(envelope)
      let bytes = payloads.reduce(head) { $0 + $1 }
      let decoded = try? bytes.withUnsafeBytes { try PeerCodec.decode($0) }
      #expect(decoded?.envelope == envelope)
      network.append((node.id, peer, envelope))
    case .read(let read):
      var bytes = 0
      let entries = node.entries.filter { $0.index >= read.first && $0.index <= read.last }
        .prefix { entry in
          bytes += entry.payload.count
          return bytes <= read.bytesMax || entry.index == read.first
        }
      node.replica?.entriesRead(read, Array(entries))
    case .takeSnapshot(let request):
      node.snapshot = (request, request.queues.encoded())
      if let keepFrom = node.replica?.snapshotSaved(
        last: request.last, freeBytes: freeBytes)
      {
        node.entries.removeAll { $0.index < keepFrom }
      }
    case .readSnapshot(let plan):
      guard let snapshot = node.snapshot, snapshot.request.last == plan.last else {
        node.replica?.snapshotUnreadable(plan, "another is in force")
        return
      }
      if plan.offset == 0 { snapshotsSent += 1 }
      let rest = snapshot.bytes.dropFirst(Int(plan.offset))
      node.replica?.snapshotRead(
        plan, Array(rest.prefix(1000)), isLast: rest.count <= 1000, now: now)
    case .storeSnapshotChunk(let chunk, let bytes):
      take(chunk, bytes, node)
    case .lookUpRecords(let peer, let references):
      answer(references, from: node, to: peer)
    case .repair(_, let references, let bodies):
      node.repairs.append((references, bodies))
      node.damaged = []
    case .memoryLost: node.isMemoryLost = true
    case .memoryRestored: node.isMemoryLost = false
    case .note(let text): node.notes.append(text)
    case .stop(let reason): node.stops.append(reason)
    case .readReady(let ticket): node.readsReady.append(ticket)
    case .leaderChanged, .roleChanged, .membershipChanged, .readFailed, .logMended: break
    }
  }

  private func take(_ chunk: SnapshotChunk, _ bytes: [UInt8], _ node: TestNode) {
    if chunk.offset == 0 { node.incomingStream = [] }
    #expect(UInt64(node.incomingStream.count) == chunk.offset)
    node.incomingStream += bytes
    guard chunk.isLast else {
      node.replica?.snapshotChunkStored(chunk, now: now)
      return
    }
    do {
      let machine = try QueueMachine(snapshot: node.incomingStream)
      node.snapshot = (
        SnapshotRequest(
          last: chunk.last, membership: chunk.membership, stateHash: machine.stateHash,
          queues: machine.freeze()), node.incomingStream
      )
      node.entries = []
      node.replica?.snapshotInstalled(chunk, machine: machine, now: now)
    } catch {
      Issue.record("snapshot for node \(node.id): \(error)")
    }
  }

  private func answer(_ references: [RecordReference], from node: TestNode, to peer: NodeID) {
    var found: [RecordReference] = []
    var bodies: [[UInt8]] = []
    for reference in references where !forgets.contains(node.id) {
      guard let entry = node.entries.first(where: { $0.index == reference.entry }) else { continue }
      let start = Int(reference.offset)
      found.append(reference)
      bodies.append(Array(entry.payload[start..<start + Int(reference.size)]))
    }
    network.append((node.id, peer, .records(found, bodies: bodies)))
  }
}

extension TestNode {
  var introduction: Introduction? { replica?.introduction }

  var isReady: Bool {
    guard let applied = replica?.applied, let last = replica?.consensus.lastIndex,
      let commit = replica?.consensus.commit
    else { return false }
    return applied == last && commit == last
  }

  func takeEffects() {
    guard let list = replica?.effects, !list.isEmpty else { return }
    effects += list.effects
    for effect in list.effects {
      if case .deliver(_, _, let range) = effect { deliveries += list.deliveries[range] }
    }
    replica?.effects.removeAll()
  }

  fileprivate func carryOut(_ operation: LogOperation) {
    switch operation {
    case .saveHardState(let state): hardState = state
    case .truncate(let from): entries.removeAll { $0.index >= from }
    case .append(let more):
      #expect(more.first?.index == lastIndex.next || entries.isEmpty)
      entries += more
    }
  }
}
