// Real nodes with real sockets and disks, several in one process: each loop has its own thread and
// directory. For stories that need everything, told without sleeping: the client library waits.

import Base
import Foundation
import Synchronization
import Testing
import Transport

@testable import Server

/// One node: its configuration for good, its loop while it runs.
final class InProcessNode {
  let configuration: ServerConfiguration
  private var mailbox: Mailbox<LoopMessage>?
  private var thread: WorkerThread?

  init(_ configuration: ServerConfiguration) { self.configuration = configuration }

  func start() throws {
    let configuration = configuration
    let started = Mutex<Result<Mailbox<LoopMessage>, any Error>?>(nil)
    let ready = DispatchSemaphore(value: 0)
    // The loop belongs to its thread from the start.
    let handOver = HandOver(started, ready)
    thread = try WorkerThread(name: "node-\(configuration.node)") {
      do {
        var loop = try NodeLoop.start(
          configuration, log: NodeLog(node: configuration.node, isQuiet: true), signals: nil)
        handOver.give(.success(loop.mailbox))
        _ = loop.runToEnd()
      } catch {
        handOver.give(.failure(error))
      }
    }
    mailbox = try handOver.take()
  }

  /// As kill -9 would, but for the kernel's buffers: nothing is handed over or told.
  func kill() { end(.kill) }
  func stop() { end(.stop) }

  private func end(_ message: LoopMessage) {
    mailbox?.post(message)
    thread?.join()
    mailbox = nil
    thread = nil
  }

  deinit { kill() }
}

private final class HandOver: Sendable {
  private let box: Mutex<Result<Mailbox<LoopMessage>, any Error>?>
  private let ready: DispatchSemaphore

  init(
    _ box: consuming Mutex<Result<Mailbox<LoopMessage>, any Error>?>, _ ready: DispatchSemaphore
  ) {
    self.box = box
    self.ready = ready
  }

  func give(_ result: Result<Mailbox<LoopMessage>, any Error>) {
    box.withLock { $0 = result }
    ready.signal()
  }

  func take() throws -> Mailbox<LoopMessage>? {
    ready.wait()
    return try box.withLock { try $0?.get() }
  }
}

final class InProcessCluster {
  let directory: URL
  private(set) var nodes: [InProcessNode] = []

  init(_ count: Int = 3, change: (inout ServerConfiguration) -> Void = { _ in }) throws {
    directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("skein-server-tests-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    let ports = try Self.freePorts(3 * count)
    let members = try (0..<count).map { place in
      ServerConfiguration.Member(
        node: NodeID(UInt32(place + 1)),
        peers: try Endpoint(parsing: "127.0.0.1:\(ports[2 * place])"),
        clients: try Endpoint(parsing: "127.0.0.1:\(ports[2 * place + 1])"))
    }
    let cluster = ClusterIdentity.random()
    for member in members {
      var configuration = ServerConfiguration(
        cluster: cluster, node: member.node,
        dataDirectory: directory.appendingPathComponent("node-\(member.node)").path,
        peerListen: member.peers, clientListen: member.clients,
        amqpListen: try Endpoint(
          parsing: "127.0.0.1:\(ports[2 * count + Int(member.node.rawValue) - 1])"),
        members: members)
      configuration.limits.messageBytes = 256 << 10
      configuration.storage.segmentBytes = 1 << 20
      configuration.timeouts.heartbeat = .milliseconds(20)
      configuration.timeouts.electionMin = .milliseconds(150)
      configuration.timeouts.electionMax = .milliseconds(300)
      change(&configuration)
      nodes.append(InProcessNode(configuration))
    }
  }

  /// Ports that nobody listens to now and no test of this process had. They are given back before the
  /// nodes take them, so they are none of those that the kernel gives to whoever connects or asks for
  /// any port.
  private static func freePorts(_ count: Int) throws -> [UInt16] {
    try portsGiven.withLock { given in
      var ports: [UInt16] = []
      while ports.count < count {
        let port = UInt16.random(in: 10_000..<32_000)
        guard !given.contains(port) else { continue }
        do throws(ListenError) {
          _ = try Listener(.loopback(port: port))
        } catch {
          guard case .addressInUse = error else { throw error }
          continue
        }
        given.insert(port)
        ports.append(port)
      }
      return ports
    }
  }
  private static let portsGiven = Mutex(Set<UInt16>())

  func startAll() throws { for node in nodes { try node.start() } }

  var endpoints: [String] { nodes.map(\.configuration.clientListen.description) }

  deinit {
    for node in nodes { node.kill() }
    // Only a temporary directory would stay behind.
    try? FileManager.default.removeItem(at: directory)
  }
}
