// The leader's end of the other nodes' relays (`CommandRelay`): bundles wait here until the replica
// has room. They are kept only while this node leads: another leader gets them from their senders.

import Base
import Node
import QueueMachine

struct RelayInbox {
  /// Bytes of one node that may wait here. A node never has more than this on its way.
  static let bytesMax = CommandRelay.waitingBytesMax + (64 << 20)

  private struct Stream {
    let node: NodeID
    var process: UInt64
    /// Taken through here; 0 for a stream of which nothing was taken, which may begin anywhere.
    var sequence: UInt64
    /// The first that was taken.
    var first: UInt64 = 0
    var waiting = RingBuffer<[UInt8]>()
    var bytes = 0

    /// Goes on behind `sequence`, without what waits.
    mutating func goOn(behind sequence: UInt64) {
      self.sequence = sequence
      waiting = RingBuffer()
      bytes = 0
    }

    mutating func take(_ head: RelayHead, of bytes: [UInt8], applied: RelayProgress?) {
      if process != head.process {
        process = head.process
        sequence = 0
        first = 0
      }
      if let applied, applied.process == head.process {
        if sequence > 0, applied.through > sequence {
          // The stream was set back to a bundle that had stopped, while copies of it and of those behind
          // it were proposed already: their sender goes on behind these.
          goOn(behind: applied.through)
        }
        if applied.isStopped, applied.through + 1 == head.sequence, sequence >= head.sequence {
          // What waits here came behind it, and comes again too.
          goOn(behind: applied.through)
        }
      }
      // A leader that is elected again, and has forgotten all, may take one first that had overtaken others:
      // these come again. What is done already is not among them.
      let done = applied.map { $0.process == head.process ? $0.through : 0 } ?? 0
      if head.sequence < first, head.sequence > done { goOn(behind: 0) }
      // Sent again, or behind one that was lost on its way and comes again before it.
      guard head.sequence > sequence,
        sequence == 0 || head.sequence == sequence + 1,
        self.bytes + head.range.count <= RelayInbox.bytesMax
      else { return }
      if sequence == 0 { first = head.sequence }
      sequence = head.sequence
      self.bytes += head.range.count
      waiting.append(
        head.range.count == bytes.count ? bytes : [UInt8](bytes[head.range]))
    }
  }

  /// By node: whose turn it is next.
  private var streams: [Stream] = []

  var isEmpty: Bool { streams.allSatisfy { $0.waiting.isEmpty } }

  /// Bundles of a node that wait.
  func waitingCount(of node: NodeID) -> Int {
    streams.first { $0.node == node }?.waiting.count ?? 0
  }

  /// Takes bundles that another node passed on. A reason if they are none.
  ///
  /// - Parameters:
  ///   - bytes: one or several bundles.
  ///   - applied: how far the machine has carried out the node's bundles. One that was carried out in
  ///     part comes once more.
  mutating func take(
    _ bytes: [UInt8], from node: NodeID, applied: RelayProgress? = nil
  ) -> String? {
    let checked = bytes.withUnsafeBytes { raw in
      Result { () throws(CommandBatchError) in try CommandBatch.checkRelays(raw, from: node) }
    }
    switch checked {
    case .success(let heads):
      for head in heads { take(head, bytes, from: node, applied) }
      return nil
    case .failure(let error):
      return "commands of node \(node) cannot be read: \(error)"
    }
  }

  private mutating func take(
    _ head: RelayHead, _ bytes: [UInt8], from node: NodeID, _ applied: RelayProgress?
  ) {
    let place = place(of: node, process: head.process)
    streams[place].take(head, of: bytes, applied: applied)
  }

  /// Where its stream is; a new one if there was none.
  private mutating func place(of node: NodeID, process: UInt64) -> Int {
    let place = streams.firstIndex { $0.node >= node } ?? streams.count
    if place == streams.count || streams[place].node != node {
      streams.insert(Stream(node: node, process: process, sequence: 0), at: place)
    }
    return place
  }

  /// Gives the replica what it has room for, each node in its turn.
  mutating func submit(to replica: inout Replica, now: MonotonicTime) {
    while !isEmpty, replica.isLeader, replica.hasRoom {
      for place in streams.indices where replica.hasRoom {
        guard let bundle = streams[place].waiting.popFirst() else { continue }
        streams[place].bytes -= bundle.count
        replica.submit(now: now) { $0.append(contentsOf: bundle) }
      }
    }
  }

  /// Leadership began or ended: what waits here, or was proposed, comes again.
  mutating func forget() {
    streams.removeAll()
  }
}
