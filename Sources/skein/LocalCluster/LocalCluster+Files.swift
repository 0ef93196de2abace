// Writing the configurations of a local cluster. Node N takes clients at base port + N and peers
// at base port + 50 + N and AMQP clients at base port + 80 + N, all on 127.0.0.1.

import Base
import Glibc
import Server
import Transport

extension LocalCluster {
  static let nodesMax: UInt64 = 49
  /// Between a node's port for clients and its port for peers.
  private static let peerPortDistance = 50
  private static let amqpPortDistance = 80

  /// Writes the configurations of a new cluster.
  func create(nodes count: Int, basePort: UInt16) throws {
    try Files.makeDirectory(directory + "/logs")
    let identity = ClusterIdentity.random()
    let members = (1...count).map { MemberText(NodeID(UInt32($0)), basePort: basePort) }
    for member in members {
      try write(identity, member, members: members, join: false)
    }
  }

  /// Writes the configuration of one more node, which is to join those that run.
  func createJoining(_ node: NodeID) throws -> ServerConfiguration {
    guard let first = try nodes().first else { throw Failure("there is no cluster to join") }
    let known = try configuration(first)
    guard let basePort = try basePort() else {
      throw Failure("\(configurationFile(first)) was not written by skein cluster up")
    }
    let member = MemberText(node, basePort: basePort)
    let members = known.members.filter { $0.node != node }.map(MemberText.init) + [member]
    try write(known.cluster, member, members: members, join: true)
    return try configuration(node)
  }

  /// The base port of the cluster here; nil if its ports were given by hand.
  func basePort() throws -> UInt16? {
    guard let first = try nodes().first else { return nil }
    let port = Int(try configuration(first).clientListen.port) - Int(first.rawValue)
    return UInt16(exactly: port)
  }

  /// A member as it stands in the files.
  private struct MemberText {
    let node: NodeID
    let peers: String
    let clients: String

    init(_ node: NodeID, basePort: UInt16) {
      let port = Int(basePort) + Int(node.rawValue)
      self.node = node
      peers = "127.0.0.1:\(port + peerPortDistance)"
      clients = "127.0.0.1:\(port)"
    }

    init(_ member: ServerConfiguration.Member) {
      node = member.node
      peers = member.peers.description
      clients = member.clients.description
    }

    var amqp: String {
      let port = clients.split(separator: ":").last.flatMap { Int($0) } ?? 0
      return "127.0.0.1:\(port + amqpPortDistance)"
    }

    var line: String {
      "{ \"node\": \(node), \"peers\": \"\(peers)\", \"clients\": \"\(clients)\" }"
    }
  }

  private func write(
    _ identity: ClusterIdentity, _ own: MemberText, members: [MemberText], join: Bool
  ) throws {
    let text = """
      {
        "cluster": "\(identity)",
        "node": \(own.node),
        "data": "node-\(own.node)",\(join ? "\n  \"join\": true," : "")
        "listen": {
          "peers": "\(own.peers)", "clients": "\(own.clients)", "amqp": "\(own.amqp)"
        },
        "members": [
          \(members.map(\.line).joined(separator: ",\n    "))
        ]
      }

      """
    try Files.write(text, to: configurationFile(own.node))
  }

  /// Notes that `node` is no longer a member, and removes its data.
  func forget(_ node: NodeID) throws {
    guard rename(configurationFile(node), removedFile(node)) == 0 else {
      throw Failure.system(configurationFile(node))
    }
    try Files.remove(dataDirectory(node))
  }

  /// Removes everything that `skein cluster` put here; the directory too if nothing else is in it.
  func wipe() throws {
    for name in try Files.names(in: directory)
    where name.hasPrefix("node-") || name == "logs" || name == "lock" {
      try Files.remove("\(directory)/\(name)")
    }
    // Fails, and should, where something of the user's own is left.
    _ = rmdir(directory)
  }
}
