// What travels between two nodes: consensus messages with the bytes that belong to them, and the
// few things that replicas say to each other beside consensus.

import Base
import Consensus

/// One frame of a peer connection.
package enum PeerEnvelope: Equatable, Sendable {
  /// The first frame of every connection, and again whenever what the receiver needs of it changes:
  /// before the cluster has formed (`Formation`), and when the sender learns its own address.
  case introduction(Introduction)
  /// A consensus message. `payloads` are the entries' of an append, in order, or the one piece of a
  /// snapshot chunk; else empty.
  case consensus(PeerMessage, payloads: [[UInt8]])
  /// The sender's state had this hash after this entry (G14).
  case stateHash(index: LogIndex, hash: UInt64)
  /// The receiver's state after `index` differs from that of a majority: it must stop (G14).
  case diverged(index: LogIndex)
  /// Asks for message records that damage took from the sender (G11).
  case fetchRecords([RecordReference])
  /// The records that the sender of this still has among those asked for.
  case records([RecordReference], bodies: [[UInt8]])
  /// Bundles of commands (`CommandWriter.beginRelay`) from the sender's AMQP gateway, for the leader.
  case relay([UInt8])
  /// Asks the leader how far a read must wait that sees everything confirmed so far.
  case askIndex(request: UInt64)
  /// The leader's answer: what is applied through here says it.
  case toldIndex(request: UInt64, index: LogIndex)
  /// The sender, which leads in that term, takes no publishes for now, and why; empty when it does
  /// again.
  case publishesRefused(term: Term, reason: String)
}

/// Who is speaking, and what is needed to tell a new cluster from a wiped disk.
package struct Introduction: Equatable, Sendable {
  package var node: NodeID
  /// The name of the cluster; peers of another are refused.
  package var cluster: String
  /// The sender's current term. 0 proves that it never voted nor took an entry.
  package var term: Term
  /// From whom the sender has heard an introduction of term 0 since it started.
  package var heard: [NodeID]
  /// Checksum of the members that the sender's configuration gave.
  package var founders: Checksum
  /// Where peers reach the sender, `host:port`, for those that have not heard of it yet; empty as long
  /// as it does not know itself that it is a member.
  package var peerAddress: String

  package init(
    node: NodeID, cluster: String, term: Term, heard: [NodeID], founders: Checksum,
    peerAddress: String = ""
  ) {
    self.node = node
    self.cluster = cluster
    self.term = term
    self.heard = heard
    self.founders = founders
    self.peerAddress = peerAddress
  }
}
