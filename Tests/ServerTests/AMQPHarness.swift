// One node's AMQP gateway and replica without a loop, a disk or peers, for what cannot be seen from
// outside: sockets are real and on loopback, time is moved by hand, and clients turn the loop while they
// wait, all in one thread.

import AMQP
import Base
import Consensus
import Foundation
import Node
import QueueMachine
import Testing
import Transport

@testable import Server

final class AMQPHarness {
  let poller: Poller
  var gateway: AMQPGateway
  var replica: Replica
  var records = RecordSource(store: nil)
  var now = MonotonicTime(1_000_000_000)
  /// While set, nothing is committed, and how far the log is cannot be asked.
  var holdsCommands = false
  /// How often that was asked.
  private(set) var questions = 0
  /// What the replica noted.
  private(set) var notes: [String] = []
  private var events: [PollEvent] = []

  /// - Parameter isAlone: it leads; else it is one of three and hears nothing of the others.
  init(
    isAlone: Bool = true, _ configure: (inout ServerConfiguration) -> Void = { _ in }
  ) throws {
    poller = try Poller()
    let node = NodeID(1)
    let endpoint = try Endpoint(parsing: "127.0.0.1:0")
    var configuration = ServerConfiguration(
      cluster: ClusterIdentity(rawValue: 0xabc), node: node, dataDirectory: "/nowhere",
      peerListen: endpoint, clientListen: endpoint, amqpListen: endpoint, members: [])
    configure(&configuration)
    gateway = try AMQPGateway(
      configuration: configuration, poller: poller, version: "test",
      log: NodeLog(node: node, isQuiet: true))
    let membership = Membership(
      members: (1...(isAlone ? 1 : 3)).map {
        .init(id: NodeID($0), peerAddress: "node\($0):1", clientAddress: "node\($0):2")
      })
    replica = Replica(
      configuration: ReplicaConfiguration(
        consensus: ConsensusConfiguration(id: node, seed: 1), cluster: "test"),
      restored: RestoredReplica(
        consensus: RestoredState(snapshotMembership: membership), damaged: [],
        wallClock: MachineTime(1_700_000_000_000_000_000)),
      machine: QueueMachine(), now: now)
    // A node that is to be alone first listens for others.
    now = now + .seconds(1)
    for _ in 0..<6 { turn() }
    try #require(isLeader == isAlone)
  }

  var isLeader: Bool { replica.isLeader }
  /// Of the log.
  var applied: LogIndex { replica.applied }

  /// One turn of the loop, as `NodeLoop` does it.
  func turn(waiting timeout: Nanoseconds = .zero) {
    poller.wait(timeout: timeout, into: &events)
    for event in events { gateway.handle(event, now: now, replica: &replica) }
    gateway.tick(now: now, replica: &replica)
    replica.tick(now: now)
    for _ in 0..<8 {
      passOn()
      let outputs = replica.finishTurn(now: now) { _ in true }
      gateway.carryOutEffects(of: &replica, records: &records, now: now)
      replica.effects.removeAll()
      for output in outputs { carryOut(output) }
      if outputs.isEmpty { break }
    }
    gateway.pumpDeliveries(records: &records, replica: &replica, now: now)
    gateway.flush(now: now)
  }

  private func passOn() {
    if holdsCommands { return }
    gateway.relay.close()
    guard replica.leader != nil else { return }
    while replica.isLeader, replica.hasRoom, let bundle = gateway.relay.next() {
      replica.submit(now: now) { $0.append(contentsOf: bundle) }
      gateway.relay.didSend(now: now)
    }
    guard gateway.reads.question(now: now) != nil else { return }
    questions += 1
    if let ticket = replica.beginRead(now: now) {
      gateway.reads.isReading(ticket)
    } else {
      gateway.reads.isAsked(now: now)
    }
  }

  private func carryOut(_ output: ReplicaOutput) {
    switch output {
    case .store(let ticket, _): replica.stored(ticket, now: now)
    case .readReady(let ticket): _ = gateway.reads.took(ticket, at: replica.applied)
    case .readFailed(let ticket): _ = gateway.reads.took(ticket, at: nil)
    case .note(let note): notes.append(note)
    default: break
    }
  }

  /// Turns until nothing more comes of it.
  func settle() {
    for _ in 0..<6 { turn() }
  }

  /// Lets time pass for all but the clients.
  func pass(_ span: Nanoseconds) {
    now = now + span
    settle()
  }

  /// A client with an open channel. Whenever it waits, the loop turns.
  func client() throws -> AMQPTestClient {
    let client = try connect()
    try client.open()
    return client
  }

  /// A client that has said nothing yet.
  func connect() throws -> AMQPTestClient {
    let client = try AMQPTestClient(port: try #require(gateway.localAddress?.port))
    client.whileWaiting = { self.turn(waiting: .milliseconds(10)) }
    return client
  }

  /// What the machine of queues knows of a queue.
  func queue(_ name: String) throws -> QueueInfo {
    let info = replica.machine.queueInfo(TopologyName(name))
    return try #require(info)
  }

  /// The node's leader takes no publishes, and why; or (nil) does again.
  func setBlocked(_ reason: String?) { gateway.setBlocked(reason, now: now) }

  /// How many descriptors this process has of the node's connections.
  func openSockets() throws -> Int {
    let port = try #require(gateway.localAddress?.port)
    let names = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")
    return names.compactMap { Int32($0) }.count { descriptor in
      var address = sockaddr_in()
      var bytes = socklen_t(MemoryLayout<sockaddr_in>.size)
      let result = withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          getsockname(descriptor, $0, &bytes)
        }
      }
      var isListener: Int32 = 0
      var size = socklen_t(4)
      getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &isListener, &size)
      return result == 0 && address.sin_family == sa_family_t(AF_INET)
        && address.sin_port == port.bigEndian && isListener == 0
    }
  }

  var sessionCount: Int { gateway.sessions.count }
  /// Whether nothing is left of any client, here and in the machine of queues.
  var isEmpty: Bool {
    gateway.connectionCount == 0 && gateway.sessions.count == 0 && gateway.begunBytes == 0
      && gateway.relay.waitingBytes == 0 && replica.machine.sessionCount == 0
      && replica.machine.consumerCount == 0
  }

  /// What the gateway knows of its only client.
  func known() throws -> AMQPClient {
    let tokens = gateway.clients.sortedKeys
    try #require(tokens.count == 1)
    return try #require(gateway.clients[tokens[0]])
  }
}
