// What single keys cannot show: settings that are each possible but not together.

import Base
import Transport

extension ServerConfiguration {
  /// One sentence for each contradiction, beginning with the path of a key.
  var contradictions: [String] { memberFaults + timeoutFaults + sizeFaults }

  private var memberFaults: [String] {
    var faults: [String] = []
    if members.isEmpty { faults.append("members: must name at least one member") }
    var seenNodes: [NodeID: Int] = [:]
    var seenAddresses: [Endpoint: String] = [:]
    for (position, member) in members.enumerated() {
      let path = "members[\(position)]"
      if let earlier = seenNodes.updateValue(position, forKey: member.node) {
        faults.append("\(path).node: \(member.node) is already the id of members[\(earlier)]")
      }
      for (key, address) in [("peers", member.peers), ("clients", member.clients)] {
        if let earlier = seenAddresses.updateValue("\(path).\(key)", forKey: address) {
          faults.append("\(path).\(key): \(address) is already the address of \(earlier)")
        }
      }
    }
    if !members.isEmpty, seenNodes[node] == nil {
      let ids = members.map { "\($0.node)" }.joined(separator: ", ")
      faults.append("members: this node's id \(node) is not among them (\(ids))")
    }
    if peerListen == clientListen {
      faults.append("listen.clients: \(clientListen) is already the address for peers")
    }
    if let amqpListen, amqpListen == peerListen || amqpListen == clientListen {
      faults.append("listen.amqp: \(amqpListen) is already another address of this node")
    }
    if let own = members.first(where: { $0.node == node }) {
      faults += ownAddressFaults(own)
    }
    return faults
  }

  /// The others know this node by its entry among the members: a port that it does not listen to
  /// would make it unreachable. (The host may differ: a name, or all interfaces.)
  private func ownAddressFaults(_ own: Member) -> [String] {
    var faults: [String] = []
    for (key, listen, known) in [
      ("peers", peerListen, own.peers), ("clients", clientListen, own.clients),
    ] where listen.port != known.port {
      faults.append(
        "listen.\(key): port \(listen.port) is not the one by which the members know this node"
          + " (\(known))")
    }
    return faults
  }

  private var timeoutFaults: [String] {
    var faults: [String] = []
    let heartbeat = DurationText.format(timeouts.heartbeat)
    if timeouts.electionMin.rawValue < timeouts.heartbeat.rawValue * 3 {
      faults.append(
        "timeouts.electionMin: \(DurationText.format(timeouts.electionMin)) must be at least three"
          + " heartbeats (timeouts.heartbeat is \(heartbeat))")
    }
    if timeouts.electionMax.rawValue < timeouts.electionMin.rawValue / 2 * 3 {
      faults.append(
        "timeouts.electionMax: \(DurationText.format(timeouts.electionMax)) must be at least one"
          + " and a half times timeouts.electionMin, or elections tie")
    }
    if timeouts.session <= timeouts.electionMax {
      faults.append(
        "timeouts.session: \(DurationText.format(timeouts.session)) must be longer than an"
          + " election (timeouts.electionMax), or every change of leader ends sessions")
    }
    return faults
  }

  private var sizeFaults: [String] {
    var faults: [String] = []
    let message = ByteCountText.format(UInt64(limits.messageBytes))
    for (key, bytes) in [
      ("limits.uncommittedBytes", limits.uncommittedBytes),
      ("limits.clientWriteBytes", limits.clientWriteBytes),
      ("limits.peerWriteBytes", limits.peerWriteBytes),
      ("storage.segmentBytes", storage.segmentBytes),
    ] where bytes < limits.messageBytes * 2 {
      faults.append("\(key): must be at least twice limits.messageBytes (\(message))")
    }
    if let most = storage.diskBytesMax, most < storage.segmentBytes * 4 {
      faults.append("storage.diskBytesMax: must be at least four segments (storage.segmentBytes)")
    }
    return faults
  }
}
