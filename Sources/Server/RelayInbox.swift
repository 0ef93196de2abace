// The leader's end of the other nodes' relays (`CommandRelay`): bundles wait here until the replica
// has room. They are kept only while this node leads: another leader gets them from their senders.

import Base
import Node
import QueueMachine

struct RelayInbox {
  /// Bytes of one node that may wait here. A node never has more than this on its way.
  static let bytesMax = CommandRelay.waitingBytesMax + (64 << 20)

  private struct Stream {
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
  }

  private var streams: [NodeID: Stream] = [:]
  /// By id: whose turn it is next.
  private var order: [NodeID] = []

  var isEmpty: Bool { order.allSatisfy { streams[$0]?.waiting.isEmpty ?? true } }

  /// Bundles of a node that wait.
  func waitingCount(of node: NodeID) -> Int { streams[node]?.waiting.count ?? 0 }

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
    if streams[node] == nil {
      order.append(node)
      order.sort()
    }
    var stream =
      streams.removeValue(forKey: node) ?? Stream(process: head.process, sequence: 0)
    defer { streams[node] = stream }
    if stream.process != head.process {
      stream.process = head.process
      stream.sequence = 0
      stream.first = 0
    }
    if let applied, applied.process == head.process {
      if stream.sequence > 0, applied.through > stream.sequence {
        // The stream was set back to a bundle that had stopped, while copies of it and of those behind
        // it were proposed already: their sender goes on behind these.
        stream.goOn(behind: applied.through)
      }
      if applied.isStopped, applied.through + 1 == head.sequence, stream.sequence >= head.sequence {
        // What waits here came behind it, and comes again too.
        stream.goOn(behind: applied.through)
      }
    }
    // A leader that is elected again, and has forgotten all, may take one first that had overtaken others:
    // these come again. What is done already is not among them.
    let done = applied.map { $0.process == head.process ? $0.through : 0 } ?? 0
    if head.sequence < stream.first, head.sequence > done { stream.goOn(behind: 0) }
    // Sent again, or behind one that was lost on its way and comes again before it.
    guard head.sequence > stream.sequence,
      stream.sequence == 0 || head.sequence == stream.sequence + 1,
      stream.bytes + head.range.count <= Self.bytesMax
    else { return }
    if stream.sequence == 0 { stream.first = head.sequence }
    stream.sequence = head.sequence
    stream.bytes += head.range.count
    stream.waiting.append(
      head.range.count == bytes.count ? bytes : [UInt8](bytes[head.range]))
  }

  /// Gives the replica what it has room for, each node in its turn.
  mutating func submit(to replica: inout Replica, now: MonotonicTime) {
    while replica.isLeader, replica.hasRoom {
      var hasMore = false
      for node in order where replica.hasRoom {
        guard let bundle = streams[node]?.waiting.popFirst() else { continue }
        streams[node]?.bytes -= bundle.count
        replica.submit(now: now) { $0.append(contentsOf: bundle) }
        hasMore = true
      }
      if !hasMore { return }
    }
  }

  /// Leadership began or ended: what waits here, or was proposed, comes again.
  mutating func forget() {
    streams.removeAll()
    order.removeAll()
  }
}
