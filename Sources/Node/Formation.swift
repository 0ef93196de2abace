// How a cluster begins, and how an empty data directory is told from a wiped one (G11).
//
// A node with an empty directory may be one of a new cluster, or it may have lost its disk: then it
// may have voted and acknowledged what it no longer knows, and must not vote as if it remembered.
// The others know. A node that voted or took an entry did so for a candidate with a term above 0 on
// disk. So: if every other initial member says that its term is 0, nothing was forgotten and this
// node may vote at once. If one says otherwise, it takes part without a vote until `Consensus` finds
// that it has caught up (`RestoredState.canVote`).
//
// A node begins only when every other has also heard its own term 0. Otherwise the quickest could
// campaign, raise its term, and make the slower ones take themselves for wiped.

import Base

/// The question "is this cluster new?", put by a node whose data directory is empty.
package struct Formation: Sendable {
  package enum Verdict: Equatable, Sendable {
    /// Not every other initial member has been heard.
    case waiting(for: [NodeID])
    /// Nobody has a history: this is a new cluster.
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
  private var hearing: Set<NodeID> = []
  private var differing: Set<NodeID> = []
  /// Who said that it has a history without ever having said to this node that it has none.
  private var witnesses: Set<NodeID> = []
  private let own: NodeID

  /// - Parameters:
  ///   - members: the initial members by the configuration, this node among them.
  ///   - founders: checksum of these with their addresses; the same on all nodes.
  package init(own: NodeID, members: [NodeID], founders: Checksum, begin: MonotonicTime) {
    self.own = own
    self.founders = founders
    self.begin = begin
    self.others = members.filter { $0 != own }.sorted()
  }

  /// Those whose term 0 was heard, for this node's own introductions; ascending.
  package var heard: [NodeID] { heardFrom.sorted() }

  /// Takes what another node of the cluster says of itself. Whoever has a past is a witness, also
  /// one that joined later and is in nobody's configuration here.
  package mutating func receive(_ introduction: Introduction) {
    let node = introduction.node
    guard introduction.term == .zero else {
      // One that once said 0 to this node began after hearing it: nothing was forgotten.
      if !heardFrom.contains(node) { witnesses.insert(node) }
      return
    }
    guard others.contains(node) else { return }
    guard introduction.founders == founders else {
      differing.insert(node)
      return
    }
    differing.remove(node)
    heardFrom.insert(node)
    if introduction.heard.contains(own) { hearing.insert(node) }
  }

  package func verdict(now: MonotonicTime) -> Verdict {
    if let witness = witnesses.min() { return .hasHistory(by: witness) }
    if let node = differing.min() { return .differs(node) }
    let missing = others.filter { !hearing.contains($0) }
    if missing.isEmpty, !others.isEmpty || now >= begin { return .isNew }
    return .waiting(for: missing)
  }
}
