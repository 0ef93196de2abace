// What a node is told at its start. Read from a JSON file by `ServerConfiguration.read` (see
// Configuration+Read.swift), written by `skein cluster up`. Every key is explained in
// cluster/README.md; a test keeps that page and this file together.

import Base
import Transport

/// One node's configuration, complete and checked.
package struct ServerConfiguration: Hashable, Sendable {
  /// Identity of the cluster, the same on all nodes: a node refuses peers and data of another one.
  package var cluster: ClusterIdentity
  /// Which of the members this node is.
  package var node: NodeID
  /// Absolute path of the directory of this node's log, snapshots and hard state.
  package var dataDirectory: String
  /// Where the other nodes reach this one.
  package var peerListen: Endpoint
  /// Where clients reach this node.
  package var clientListen: Endpoint
  /// Where AMQP clients reach it; nil for nowhere.
  package var amqpListen: Endpoint?
  /// The members that the cluster begins with, each id once. A node whose log knows the members
  /// goes by its log; one that joins a running cluster lists the members and itself.
  package var members: [Member]
  /// The node joins a running cluster: with an empty data directory it waits to be added instead
  /// of forming a cluster of its own with `members`.
  package var join: Bool
  package var limits: Limits
  package var timeouts: Timeouts
  package var storage: Storage

  package struct Member: Hashable, Sendable {
    package var node: NodeID
    package var peers: Endpoint
    package var clients: Endpoint

    package init(node: NodeID, peers: Endpoint, clients: Endpoint) {
      self.node = node
      self.peers = peers
      self.clients = clients
    }
  }

  /// Everything that could grow has its bound here (G13).
  package struct Limits: Hashable, Sendable {
    /// Largest message: key, headers and body together, without the head of its record.
    package var messageBytes: Int = 32 << 20
    /// Client connections at a time.
    package var connections: Int = 16_384
    /// Sessions of native clients at a time, in the whole cluster.
    package var sessions: Int = 10_000
    /// Queues in the cluster.
    package var queues: Int = 10_000
    /// Consumers of one session.
    package var consumersPerSession: Int = 1024
    /// Publishes of one session that wait for their confirms.
    package var publishesInFlight: Int = 100_000
    /// Bytes of entries at the leader that no majority has yet; more is refused as `overloaded`.
    package var uncommittedBytes: Int = 64 << 20
    /// Bytes on their way to one follower without an answer.
    package var replicationBytes: Int = 16 << 20
    /// Bytes waiting to be written to one client; a client that lets more pile up is closed.
    package var clientWriteBytes: Int = 64 << 20
    /// Bytes waiting to be written to one peer.
    package var peerWriteBytes: Int = 64 << 20
    /// Recent entries kept in memory, so that deliveries need not read the disk.
    package var entryCacheBytes: Int = 64 << 20

    package init() {}
  }

  package struct Timeouts: Hashable, Sendable {
    /// The leader shows itself this often.
    package var heartbeat: Nanoseconds = .milliseconds(50)
    /// A follower that hears nothing for a time between these two stands for election.
    package var electionMin: Nanoseconds = .milliseconds(300)
    package var electionMax: Nanoseconds = .milliseconds(600)
    /// A session without a connection for so long ends, and what it holds goes back (G7), unless
    /// its client asked for another time; six times as much is the most that it gets.
    package var session: Nanoseconds = .seconds(10)
    /// A connection that sends nothing for so long, not even a heartbeat, is closed.
    package var silentConnection: Nanoseconds = .seconds(30)
    /// A new connection must have introduced itself by then.
    package var handshake: Nanoseconds = .seconds(5)
    /// After a request to stop: leadership is handed over and work finished within this time.
    package var stop: Nanoseconds = .seconds(5)

    package init() {}
  }

  package struct Storage: Hashable, Sendable {
    /// Size of one segment file of the log.
    package var segmentBytes: Int = 64 << 20
    /// A snapshot is written whenever the log has grown by this much.
    package var snapshotBytes: Int = 256 << 20
    /// The node takes no more publishes when its data directory is this large; nil is no limit.
    package var diskBytesMax: Int?

    package init() {}
  }

  package init(
    cluster: ClusterIdentity, node: NodeID, dataDirectory: String, peerListen: Endpoint,
    clientListen: Endpoint, amqpListen: Endpoint? = nil, members: [Member],
    join: Bool = false, limits: Limits = Limits(),
    timeouts: Timeouts = Timeouts(), storage: Storage = Storage()
  ) {
    self.cluster = cluster
    self.node = node
    self.dataDirectory = dataDirectory
    self.peerListen = peerListen
    self.clientListen = clientListen
    self.amqpListen = amqpListen
    self.members = members
    self.join = join
    self.limits = limits
    self.timeouts = timeouts
    self.storage = storage
  }
}

/// The identity of a cluster, drawn once at random: 16 hexadecimal digits in the file.
package struct ClusterIdentity: Hashable, Sendable, CustomStringConvertible {
  package let rawValue: UInt64

  package init(rawValue: UInt64) { self.rawValue = rawValue }

  /// A new one, from the system's generator.
  package static func random() -> ClusterIdentity {
    ClusterIdentity(rawValue: .random(in: 1 ... .max))
  }

  /// 16 hexadecimal digits, not all zero; nil for anything else.
  package init?(text: String) {
    guard text.utf8.count == 16, let value = UInt64(text, radix: 16), value != 0,
      text.allSatisfy(\.isHexDigit)
    else { return nil }
    rawValue = value
  }

  package var description: String {
    let digits = String(rawValue, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}
