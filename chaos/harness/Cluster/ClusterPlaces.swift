// Where everything of a run's cluster is: addresses, directories, configurations.
//
// Node N listens on 127.0.0.1 and is known to everybody as 127.0.1.N with the same ports, where its
// proxies are: so all that passes between nodes, and from clients, passes through the harness.

import Base
import Glibc
import Transport

struct ClusterPlaces: Sendable {
  /// Absolute; the run's own.
  let directory: String
  let basePort: UInt16
  let identity: String

  /// All that a run ever starts have ports within its hundred: the next hundred may be another run's.
  static let nodesMax = 29
  private static let peerPortDistance = 30
  static let amqpPortDistance = 60

  init(directory: String, basePort: UInt16) {
    self.directory = directory
    self.basePort = basePort
    let digits = String(UInt64.random(in: 1 ... .max), radix: 16)
    identity = String(repeating: "0", count: 16 - digits.count) + digits
  }

  func configurationFile(_ node: Int) -> String { "\(directory)/node-\(node).json" }
  func dataDirectory(_ node: Int) -> String { "\(directory)/node-\(node)" }
  func disk(_ node: Int) -> NodeDisk {
    NodeDisk(image: dataDirectory(node) + ".img", directory: dataDirectory(node))
  }
  func logFile(_ node: Int) -> String { "\(directory)/logs/node-\(node).log" }

  /// How much the node has said so far.
  func logBytes(_ node: Int) -> Int {
    var information = stat()
    return stat(logFile(node), &information) == 0 ? Int(information.st_size) : 0
  }

  /// The first thing that the node has warned of in these words since its log was so long.
  func warning(_ words: String, by node: Int, from offset: Int) -> String? {
    // Without a log nothing was said.
    let bytes = (try? ClusterFiles.read(logFile(node), from: offset)) ?? []
    let mark = " warning: \(words): "
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n")
      .compactMap { line in line.firstRange(of: mark).map { String(line[$0.upperBound...]) } }.first
  }

  /// Whether the node has told this since its log was so long.
  func hasSaid(_ words: String, by node: Int, from offset: Int) -> Bool {
    let bytes = (try? ClusterFiles.read(logFile(node), from: offset)) ?? []
    return String(decoding: bytes, as: UTF8.self).contains(" info: \(words)\n")
  }

  private func clientPort(_ node: Int) -> Int { Int(basePort) + node }
  private func peerPort(_ node: Int) -> Int { clientPort(node) + Self.peerPortDistance }

  /// Where clients look for the node: at its proxy.
  func clientAddress(_ node: Int) -> String { "127.0.1.\(node):\(clientPort(node))" }
  func peerAddress(_ node: Int) -> String { "127.0.1.\(node):\(peerPort(node))" }
  /// Where the node really is: for the harness's own questions.
  func directClientAddress(_ node: Int) -> String { "127.0.0.1:\(clientPort(node))" }
  func directPeerAddress(_ node: Int) -> String { "127.0.0.1:\(peerPort(node))" }

  func routes(_ node: Int) -> [ProxyRoute] {
    [
      ProxyRoute(
        node: node, kind: .peers, listen: peerAddress(node), target: directPeerAddress(node)),
      ProxyRoute(
        node: node, kind: .clients, listen: clientAddress(node),
        target: directClientAddress(node)),
      ProxyRoute(
        node: node, kind: .clients,
        listen: "127.0.1.\(node):\(clientPort(node) + Self.amqpPortDistance)",
        target: "127.0.0.1:\(clientPort(node) + Self.amqpPortDistance)"),
    ]
  }

  private static let storage = "{ \"segmentBytes\": \"1MiB\", \"snapshotBytes\": \"4MiB\" }"
  /// Snapshots come only once the limit is reached.
  private static let limitedStorage =
    "{ \"segmentBytes\": \"1MiB\", \"snapshotBytes\": \"256MiB\", \"diskBytesMax\": \"16MiB\" }"

  /// A configuration with a limit of the node's directory, or without one again.
  static func limit(_ isLimited: Bool, in configuration: String) -> String {
    let (old, new) = isLimited ? (storage, limitedStorage) : (limitedStorage, storage)
    guard let place = configuration.firstRange(of: old) else { return configuration }
    return configuration[..<place.lowerBound] + new + configuration[place.upperBound...]
  }

  /// - Parameters:
  ///   - members: that the node is told of, itself among them.
  ///   - joins: it is to be added to a cluster that runs.
  func configuration(
    _ node: Int, members: [Int], joins: Bool, network: any NetworkControl
  ) -> String {
    let lines = members.sorted().map { member in
      "{ \"node\": \(member), \"peers\": \"\(network.peerAddress(member))\","
        + " \"clients\": \"\(network.clientAddress(member))\" }"
    }
    return """
      {
        "cluster": "\(identity)",
        "node": \(node),
        "data": "node-\(node)",\(joins ? "\n  \"join\": true," : "")
        "listen": {
          "peers": "\(network.peerListenAddress(node))",
          "clients": "\(network.clientListenAddress(node))",
          "amqp": "\(network.amqpListenAddress(node))"
        },
        "members": [
          \(lines.joined(separator: ",\n    "))
        ],
        "limits": { "messageBytes": "256KiB" },
        "storage": \(Self.storage)
      }

      """
  }

  /// A base port whose hundred ports nobody listens to. It is another run's no more while the listener at
  /// the base port, where no node listens, is there.
  static func claimPorts(
    nodes: Int
  ) throws(ChaosError) -> sending (base: UInt16, claim: Listener) {
    for _ in 0..<100 {
      let base = UInt16.random(in: 200...299) * 100
      guard let claim = listener(base) else { continue }
      if (1...nodes + 4).allSatisfy({ number in
        [0, peerPortDistance, amqpPortDistance].allSatisfy { isFree(Int(base) + $0 + number) }
      }) {
        return (base, claim)
      }
    }
    throw ChaosError("no hundred free ports between 20000 and 30000; --base-port names others")
  }

  private static func isFree(_ port: Int) -> Bool { listener(UInt16(port)) != nil }

  private static func listener(_ port: UInt16) -> Listener? {
    do { return try Listener(.loopback(port: port)) } catch { return nil }
  }
}
