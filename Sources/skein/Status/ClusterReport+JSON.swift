// `skein status --json`: the fields are fixed, docs/cli.md explains them.

import SkeinClient

extension ClusterReport {
  var json: JSON {
    [
      "leader": leader.map { .integer(exactly: $0) } ?? .null,
      "term": .unsigned(term),
      "nodes": .array(nodes.map { json(of: $0) }),
      "queues": .array((queues ?? []).map(ClusterReport.json(of:))),
      "mayLose": margin.map { .integer(exactly: $0) } ?? .null,
      "problems": .array(problems.map { .text($0) }),
    ]
  }

  private func json(of node: Node) -> JSON {
    guard let status = node.status else {
      return [
        "id": node.id.map { .integer(exactly: $0) } ?? .null, "up": false,
        "role": .null, "address": .text(node.address), "pid": .null, "commitIndex": .null,
        "appliedIndex": .null, "stateHash": .null, "stateHashIndex": .null, "diskBytes": .null,
        "memoryBytes": .null, "amqpPort": .null,
      ]
    }
    return [
      "id": .integer(exactly: status.id), "up": true, "role": .text(status.role.rawValue),
      "address": .text(node.address), "pid": .integer(exactly: status.pid),
      "commitIndex": .unsigned(status.commitIndex),
      "appliedIndex": .unsigned(status.appliedIndex),
      "stateHash": .text(hexadecimal(status.stateHash)),
      "stateHashIndex": .unsigned(status.stateHashIndex),
      "diskBytes": .unsigned(status.diskBytes), "memoryBytes": .unsigned(status.memoryBytes),
      "term": .unsigned(status.term),
      "lastIndex": .unsigned(status.lastIndex),
      "lag": lag(of: node.id).map { .unsigned($0) } ?? .null,
      "votes": .bool(node.votes), "uptimeSeconds": .number(status.uptime.seconds),
      "sessions": .integer(exactly: status.sessions),
      "connections": .integer(exactly: status.connections),
      "amqpPort": status.amqpPort.map { .integer(exactly: $0) } ?? .null,
      "amqpConnections": .integer(exactly: status.amqpConnections),
      "exchanges": .integer(exactly: status.exchanges),
      "bindings": .integer(exactly: status.bindings), "version": .text(status.version),
    ]
  }

  /// A queue at a glance, as in `status`.
  private static func json(of queue: QueueOverview) -> JSON {
    [
      "name": .text(queue.name), "ready": .unsigned(queue.ready), "leased": .unsigned(queue.leased),
      "delayed": .unsigned(queue.delayed), "consumers": .integer(exactly: queue.consumers),
    ]
  }
}

/// 16 digits.
func hexadecimal(_ value: UInt64) -> String {
  let digits = String(value, radix: 16)
  return String(repeating: "0", count: 16 - digits.count) + digits
}
