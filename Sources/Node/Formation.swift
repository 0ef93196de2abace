// How a cluster begins, and how an empty data directory is told from a wiped one (G11).
//
// A node with an empty directory may be one of a new cluster, or it may have lost its disk: then it
// may have voted and acknowledged what it no longer knows, and must not vote as if it remembered.
// The others know. A node that voted or took an entry did so for a candidate with a term above 0 on
// disk. So: if every other initial member says that its term is 0, nothing was forgotten. The node
// notes on its disk that it is a founder, and only then tells the others whom it heard.
//
// Nobody takes part before every other initial member told it so. Hence, once one of them has a
// term, all have the note on their disks, and whoever finds an empty directory without it was wiped:
// it takes part without a vote until `Consensus` finds that it has caught up
// (`RestoredState.canVote`). One that finds the note beside an empty log forgot nothing, since a
// vote would be on the same disk; it begins like the others, whatever its process went through.

import Base
import Consensus

/// The question "is this cluster new?", put by a node whose log is empty and whose term is 0.
package struct Formation: Sendable {
  package enum Verdict: Equatable, Sendable {
    /// Not every other initial member has been heard, or said that it is a founder.
    case waiting(for: [NodeID])
    /// Nobody has a history, so nothing was forgotten: to be noted on this disk.
    case isFounder
    /// Everybody is a founder: this is a new cluster.
    case isNew
    /// `by` has one: this node is late, or its disk was wiped.
    case hasHistory(by: NodeID)
    /// This node has an empty past too, and was told of other members to begin with.
    case differs(NodeID)
  }

  private let others: [NodeID]
  private let founders: Checksum
  /// Not before: somebody who knows better must have had the time to say so. It matters to a node
  /// that is configured to be alone.
  let begin: MonotonicTime
  private var heardFrom: Set<NodeID> = []
  private var founding: Set<NodeID> = []
  private var differing: Set<NodeID> = []
  /// Who said that it has a history. Whoever began did so because this node, or one that had its
  /// disk before, said that it is a founder.
  private var witnesses: Set<NodeID> = []
  private let own: NodeID
  /// That this node is a founder is on its disk.
  private(set) var isFounder: Bool

  /// - Parameters:
  ///   - members: the initial members by the configuration, this node among them.
  ///   - founders: checksum of these with their addresses; the same on all nodes.
  ///   - isFounder: the disk says so.
  package init(
    own: NodeID, members: [NodeID], founders: Checksum, isFounder: Bool, begin: MonotonicTime
  ) {
    self.own = own
    self.founders = founders
    self.isFounder = isFounder
    self.begin = begin
    self.others = members.filter { $0 != own }.sorted()
  }

  /// The note is on the disk.
  package mutating func noteFounding() { isFounder = true }

  /// Those whose term 0 was heard, for this node's own introductions; ascending. Nobody before this
  /// node is a founder: who is in it may rely on that.
  package var heard: [NodeID] { isFounder ? heardFrom.sorted() : [] }

  /// Takes what another node of the cluster says of itself. Whoever has a past is a witness, also
  /// one that joined later and is in nobody's configuration here.
  package mutating func receive(_ introduction: Introduction) {
    let node = introduction.node
    guard introduction.term == .zero else {
      witnesses.insert(node)
      return
    }
    guard others.contains(node) else { return }
    guard introduction.founders == founders else {
      differing.insert(node)
      return
    }
    differing.remove(node)
    heardFrom.insert(node)
    if introduction.heard.contains(own) { founding.insert(node) }
  }

  /// Takes what another node says as a member: it tells the term that it is in.
  package mutating func receive(_ message: PeerMessage, from peer: NodeID) {
    guard let term = message.senderTerm, term > .zero else { return }
    witnesses.insert(peer)
  }

  package func verdict(now: MonotonicTime) -> Verdict {
    if let witness = witnesses.min() {
      return isFounder ? .isNew : .hasHistory(by: witness)
    }
    if let node = differing.min() { return .differs(node) }
    guard isFounder else {
      let missing = others.filter { !heardFrom.contains($0) }
      if missing.isEmpty, !others.isEmpty || now >= begin { return .isFounder }
      return .waiting(for: missing)
    }
    let missing = others.filter { !founding.contains($0) }
    return missing.isEmpty ? .isNew : .waiting(for: missing)
  }
}
