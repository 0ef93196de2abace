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
  }

  private let others: [NodeID]
  private var heardFrom: Set<NodeID> = []
  private var hearing: Set<NodeID> = []
  /// Who said that it has a history without ever having said to this node that it has none.
  private var witnesses: Set<NodeID> = []
  private let own: NodeID

  /// - Parameter members: the initial members by the configuration, this node among them.
  package init(own: NodeID, members: [NodeID]) {
    self.own = own
    self.others = members.filter { $0 != own }.sorted()
  }

  /// Those whose term 0 was heard, for this node's own introductions; ascending.
  package var heard: [NodeID] { heardFrom.sorted() }

  /// Takes what another node says of itself.
  package mutating func receive(_ introduction: Introduction) {
    guard others.contains(introduction.node) else { return }
    if introduction.term != .zero {
      // One that once said 0 to this node began after hearing it: nothing was forgotten.
      if !heardFrom.contains(introduction.node) { witnesses.insert(introduction.node) }
      return
    }
    heardFrom.insert(introduction.node)
    if introduction.heard.contains(own) { hearing.insert(introduction.node) }
  }

  package var verdict: Verdict {
    if let witness = witnesses.min() { return .hasHistory(by: witness) }
    let missing = others.filter { !hearing.contains($0) }
    if missing.isEmpty { return .isNew }
    return .waiting(for: missing)
  }
}
