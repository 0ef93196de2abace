// What a load costs the nodes: their own figures, and what the kernel counts of their processes if
// they run on this machine.

import Base
import Glibc
import Wire

/// The nodes at one moment.
package struct NodeFigures: Sendable {
  /// Of one node.
  package struct Node: Sendable {
    package var id: NodeID
    package var residentBytes: UInt64
    /// fdatasync calls since its start.
    package var synchronizations: UInt64
    /// Bytes given to the disk for the log since its start.
    package var logBytes: UInt64
    /// Processor time since its start, nanoseconds; nil where the process cannot be seen.
    package var processorTime: UInt64?
    /// Bytes of pages that became dirty; nil where the process cannot be seen.
    package var dirtiedBytes: UInt64?
  }
  package var nodes: [Node]

  /// - Parameter isLocal: the nodes' process ids are ids of this machine.
  package init(_ statuses: [NodeStatus], isLocal: Bool) {
    nodes = statuses.map { status in
      Node(
        id: status.id, residentBytes: status.memoryBytes,
        synchronizations: status.synchronizations, logBytes: status.bytesWritten,
        processorTime: isLocal ? Self.processorTime(of: status.pid) : nil,
        dirtiedBytes: isLocal ? Self.dirtiedBytes(of: status.pid) : nil)
    }
  }

  /// Seconds of processor time of all nodes since `earlier`; nil unless all are known.
  package func processorSeconds(since earlier: NodeFigures) -> Double? {
    difference(since: earlier, \.processorTime).map { Double($0) / 1e9 }
  }

  /// Bytes of pages dirtied by all nodes since `earlier`; nil unless all are known.
  package func dirtiedBytes(since earlier: NodeFigures) -> UInt64? {
    difference(since: earlier, \.dirtiedBytes)
  }

  package func synchronizations(since earlier: NodeFigures) -> UInt64 {
    difference(since: earlier) { $0.synchronizations } ?? 0
  }

  package func logBytes(since earlier: NodeFigures) -> UInt64 {
    difference(since: earlier) { $0.logBytes } ?? 0
  }

  private func difference(
    since earlier: NodeFigures, _ figure: (Node) -> UInt64?
  ) -> UInt64? {
    var sum: UInt64 = 0
    for node in nodes {
      guard let before = earlier.nodes.first(where: { $0.id == node.id }),
        let old = figure(before), let new = figure(node), new >= old
      else { return nil }
      sum += new - old
    }
    return sum
  }

  /// Over all threads of a process, nanoseconds.
  private static func processorTime(of pid: UInt32) -> UInt64? {
    guard let directory = opendir("/proc/\(pid)/task") else { return nil }
    defer { closedir(directory) }
    var sum: UInt64 = 0
    while let entry = readdir(directory) {
      // SAFETY: the name ends with a zero within the entry, which lives until the next readdir.
      let thread = withUnsafePointer(to: &entry.pointee.d_name) {
        String(cString: UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self))
      }
      guard thread.first?.isNumber == true else { continue }
      guard let text = smallFile("/proc/\(pid)/task/\(thread)/schedstat"),
        let time = text.split(separator: " ").first.flatMap({ UInt64($0) })
      else { continue }
      sum += time
    }
    return sum > 0 ? sum : nil
  }

  private static func dirtiedBytes(of pid: UInt32) -> UInt64? {
    guard let text = smallFile("/proc/\(pid)/io") else { return nil }
    let name = "write_bytes: "
    let line = text.split(separator: "\n").first { $0.hasPrefix(name) }
    return line.flatMap { UInt64($0.dropFirst(name.count)) }
  }

  private static func smallFile(_ path: String) -> String? {
    guard let file = fopen(path, "re") else { return nil }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = fread(&bytes, 1, bytes.count, file)
    return count > 0 ? String(decoding: bytes.prefix(count), as: UTF8.self) : nil
  }
}
