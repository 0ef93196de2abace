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
    /// Taken through here.
    var sequence: UInt64
    var waiting = RingBuffer<[UInt8]>()
    var bytes = 0
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
  ///   - stopped: the one of the node's that was carried out in part, and so comes once more.
  mutating func take(
    _ bytes: [UInt8], from node: NodeID, stopped: StoppedRelay? = nil
  ) -> String? {
    let checked = bytes.withUnsafeBytes { raw in
      Result { () throws(CommandBatchError) in try CommandBatch.checkRelays(raw, from: node) }
    }
    switch checked {
    case .success(let heads):
      for head in heads { take(head, bytes, from: node, stopped) }
      return nil
    case .failure(let error):
      return "commands of node \(node) cannot be read: \(error)"
    }
  }

  private mutating func take(
    _ head: RelayHead, _ bytes: [UInt8], from node: NodeID, _ stopped: StoppedRelay?
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
    }
    if let stopped, stopped.process == head.process, stopped.sequence == head.sequence,
      stream.sequence >= head.sequence
    {
      // What waits here came behind it, and comes again too.
      stream.sequence = head.sequence - 1
      stream.waiting = RingBuffer()
      stream.bytes = 0
    }
    // Sent again, or behind one that was lost on its way and comes again before it.
    guard head.sequence > stream.sequence,
      stream.sequence == 0 || head.sequence == stream.sequence + 1,
      stream.bytes + head.range.count <= Self.bytesMax
    else { return }
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
