// What administrators ask for: nodes, members and queues at a glance.

import Base

/// What a node is in its term.
package enum NodeRole: UInt8, Sendable, CaseIterable {
  case follower = 0
  case candidate = 1
  case leader = 2
  /// Gets the log but has no vote.
  case learner = 3
  /// Serves nothing: see the node's problems.
  case stopped = 4
}

/// How far another member is, as the leader sees it.
package struct PeerStatus: Hashable, Sendable {
  package var id: NodeID
  package var isConnected: Bool
  /// The last entry known to be on its disk.
  package var match: LogIndex
  /// Entries that it does not have yet.
  package var lag: UInt64
  /// Since it last answered.
  package var silence: Nanoseconds

  package init(
    id: NodeID, isConnected: Bool, match: LogIndex, lag: UInt64, silence: Nanoseconds
  ) {
    self.id = id
    self.isConnected = isConnected
    self.match = match
    self.lag = lag
    self.silence = silence
  }
}

/// What a node says of AMQP.
package struct AMQPStatus: Hashable, Sendable {
  /// Where it listens; 0 where it does not.
  package var port: UInt16 = 0
  package var connections: UInt32 = 0
  /// In the cluster, the predeclared ones included.
  package var exchanges: UInt32 = 0
  package var bindings: UInt32 = 0
  /// What the node's clients hardly mean as they do it, as sentences.
  package var advice: [String] = []

  package init(
    port: UInt16 = 0, connections: UInt32 = 0, exchanges: UInt32 = 0, bindings: UInt32 = 0,
    advice: [String] = []
  ) {
    self.port = port
    self.connections = connections
    self.exchanges = exchanges
    self.bindings = bindings
    self.advice = advice
  }
}

/// One node about itself.
package struct NodeStatus: Hashable, Sendable {
  package var id: NodeID
  package var role: NodeRole
  package var term: Term
  /// 0 while it knows none.
  package var leader: NodeID
  package var commitIndex: LogIndex
  package var appliedIndex: LogIndex
  package var lastIndex: LogIndex
  /// Hash of the queues' state after the entry `stateHashIndex` (G14).
  package var stateHash: UInt64
  package var stateHashIndex: LogIndex
  /// Bytes that the log and snapshots take.
  package var diskBytes: UInt64
  /// Resident memory of the process, bytes.
  package var memoryBytes: UInt64
  package var pid: UInt32
  package var uptime: Nanoseconds
  package var sessions: UInt32
  package var connections: UInt32
  /// Calls of fdatasync for the log since the node started.
  package var synchronizations: UInt64
  /// Bytes written to the log since the node started.
  package var bytesWritten: UInt64
  package var amqp: AMQPStatus
  package var version: String
  /// The other members, on the leader; else empty.
  package var peers: [PeerStatus]
  /// What is wrong with the node, as sentences such as "repairing 3 damaged entries".
  package var problems: [String]

  package init(
    id: NodeID, role: NodeRole, term: Term, leader: NodeID, commitIndex: LogIndex,
    appliedIndex: LogIndex, lastIndex: LogIndex, stateHash: UInt64, stateHashIndex: LogIndex,
    diskBytes: UInt64, memoryBytes: UInt64, pid: UInt32, uptime: Nanoseconds, sessions: UInt32,
    connections: UInt32, synchronizations: UInt64 = 0, bytesWritten: UInt64 = 0,
    amqp: AMQPStatus = AMQPStatus(), version: String,
    peers: [PeerStatus] = [], problems: [String] = []
  ) {
    self.id = id
    self.role = role
    self.term = term
    self.leader = leader
    self.commitIndex = commitIndex
    self.appliedIndex = appliedIndex
    self.lastIndex = lastIndex
    self.stateHash = stateHash
    self.stateHashIndex = stateHashIndex
    self.diskBytes = diskBytes
    self.memoryBytes = memoryBytes
    self.pid = pid
    self.uptime = uptime
    self.sessions = sessions
    self.connections = connections
    self.synchronizations = synchronizations
    self.bytesWritten = bytesWritten
    self.amqp = amqp
    self.version = version
    self.peers = peers
    self.problems = problems
  }
}

/// A member of the cluster, by the membership in force.
package struct MemberInfo: Hashable, Sendable {
  package var id: NodeID
  package var peerAddress: String
  package var clientAddress: String
  /// A learner does not.
  package var votes: Bool
  package var isLeader: Bool

  package init(
    id: NodeID, peerAddress: String, clientAddress: String, votes: Bool, isLeader: Bool
  ) {
    self.id = id
    self.peerAddress = peerAddress
    self.clientAddress = clientAddress
    self.votes = votes
    self.isLeader = isLeader
  }
}

extension PeerStatus {
  func encode(into bytes: inout [UInt8]) {
    bytes.put(id)
    bytes.putFlag(isConnected)
    bytes.put(match)
    bytes.put(lag)
    bytes.put(silence)
  }

  init(_ reader: inout FieldReader) throws(FrameError) {
    id = try reader.identifier()
    isConnected = try reader.flag("connected flag")
    match = try reader.identifier()
    lag = try reader.integer()
    silence = try reader.identifier()
  }
}

extension NodeStatus {
  func encode(into bytes: inout [UInt8]) {
    bytes.put(id)
    bytes.put(role.rawValue)
    bytes.put(term)
    bytes.put(leader)
    bytes.put(commitIndex)
    bytes.put(appliedIndex)
    bytes.put(lastIndex)
    bytes.put(stateHash)
    bytes.put(stateHashIndex)
    bytes.put(diskBytes)
    bytes.put(memoryBytes)
    bytes.put(pid)
    bytes.put(uptime)
    bytes.put(sessions)
    bytes.put(connections)
    bytes.put(synchronizations)
    bytes.put(bytesWritten)
    bytes.put(amqp.port)
    bytes.put(amqp.connections)
    bytes.put(amqp.exchanges)
    bytes.put(amqp.bindings)
    bytes.putClippedText(version)
    bytes.putList(peers) { $0.encode(into: &$1) }
    bytes.putList(problems) { $1.putClippedText($0) }
    bytes.putList(amqp.advice) { $1.putClippedText($0) }
  }

  init(_ reader: inout FieldReader) throws(FrameError) {
    id = try reader.identifier()
    role = try reader.choice(NodeRole.self, "role")
    term = try reader.identifier()
    leader = try reader.identifier()
    commitIndex = try reader.identifier()
    appliedIndex = try reader.identifier()
    lastIndex = try reader.identifier()
    stateHash = try reader.integer()
    stateHashIndex = try reader.identifier()
    diskBytes = try reader.integer()
    memoryBytes = try reader.integer()
    pid = try reader.integer()
    uptime = try reader.identifier()
    sessions = try reader.integer()
    connections = try reader.integer()
    synchronizations = try reader.integer()
    bytesWritten = try reader.integer()
    amqp = AMQPStatus(
      port: try reader.integer(), connections: try reader.integer(),
      exchanges: try reader.integer(), bindings: try reader.integer())
    version = try reader.text()
    peers = try reader.list(elementBytesMin: 29) { (reader) throws(FrameError) in
      try PeerStatus(&reader)
    }
    problems = try reader.list(elementBytesMin: 2) { (reader) throws(FrameError) in
      try reader.text()
    }
    amqp.advice = try reader.list(elementBytesMin: 2) { (reader) throws(FrameError) in
      try reader.text()
    }
  }
}

extension MemberInfo {
  func encode(into bytes: inout [UInt8]) {
    bytes.put(id)
    bytes.putClippedText(peerAddress)
    bytes.putClippedText(clientAddress)
    bytes.putFlag(votes)
    bytes.putFlag(isLeader)
  }

  init(_ reader: inout FieldReader) throws(FrameError) {
    id = try reader.identifier()
    peerAddress = try reader.text()
    clientAddress = try reader.text()
    votes = try reader.flag("votes flag")
    isLeader = try reader.flag("leader flag")
  }
}

extension QueueSummary {
  func encode(into bytes: inout [UInt8]) {
    bytes.put(id)
    bytes.putShortText(name)
    settings.encode(into: &bytes)
    bytes.put(ready)
    bytes.put(leased)
    bytes.put(delayed)
    bytes.put(consumers)
    bytes.put(self.bytes)
    bytes.put(published)
    bytes.put(delivered)
    bytes.put(acknowledged)
    bytes.put(redelivered)
    bytes.put(deadLettered)
  }

  init(_ reader: inout FieldReader) throws(FrameError) {
    self.init(
      id: try reader.identifier(), name: try reader.text(), settings: try reader.settings(),
      ready: try reader.integer(), leased: try reader.integer(), delayed: try reader.integer(),
      consumers: try reader.integer(), bytes: try reader.integer(),
      published: try reader.integer(), delivered: try reader.integer(),
      acknowledged: try reader.integer(), redelivered: try reader.integer(),
      deadLettered: try reader.integer())
  }
}
