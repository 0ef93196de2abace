// Finding the leader and staying with it: attempts, the first words, pings, and what happens when
// the connection or the leadership is lost.

import Base
import Glibc
import Transport
import Wire

extension ClientLoop {
  func runLeaderTimers() -> MonotonicTime {
    if !shared.connected.isKept, now >= connectDeadline {
      shared.connected.keep(.failure(.unreachable(leader.report)))
      isFinished = true
      return now
    }
    switch leader.phase {
    case .searching:
      if now >= leader.deadline { attempt() }
    case .connecting, .greeting:
      if now >= leader.deadline { drop("it did not answer in time") }
    case .waiting:
      if now >= leader.deadline { drop("it knows no leader") }
    case .ready: break
    }
    let next = min(leader.deadline, runPingTimer())
    return shared.connected.isKept ? next : min(next, connectDeadline)
  }

  /// Asks a silent node whether it is still there; one that stays silent is given up. Also says
  /// something when there was nothing to send: the node drops those that it hears nothing of.
  private func runPingTimer() -> MonotonicTime {
    guard let connection, leader.phase == .ready || leader.phase == .waiting else { return .never }
    silence.note(
      isWaiting: !(publishes.isEmpty && settles.isEmpty && requests.isEmpty), now: now)
    let lastRead = connection.lastReadTime
    var due = silence.due(lastRead: lastRead, lastSend: lastSendTime)
    if now >= due.ask {
      // A look into the kernel costs a call: only once the node has been silent for a while.
      let bytes = Self.unacknowledgedBytes(of: connection)
      silence.noteUnacknowledged(
        bytes, isHeldBack: bytes > 0 && Self.isNothingUnderWay(on: connection),
        lastRead: lastRead, now: now)
      due = silence.due(lastRead: lastRead, lastSend: lastSendTime)
    }
    if now >= due.giveUp {
      drop("it was silent for too long")
      return now
    }
    guard pingSent == nil else { return due.giveUp }
    if now < due.ask { return due.ask }
    // With no room for a ping enough is on its way; it is sent when there is some.
    if ask(.ping, .ping) { pingSent = now }
    return due.giveUp
  }

  /// Bytes that the kernel has and the node's kernel has not acknowledged.
  private static func unacknowledgedBytes(of connection: Connection) -> Int {
    var bytes: CInt = 0
    guard ioctl(connection.descriptor, UInt(TIOCOUTQ), &bytes) == 0 else { return 0 }
    return Int(bytes)
  }

  /// Whether the node's kernel has acknowledged every segment that was sent.
  private static func isNothingUnderWay(on connection: Connection) -> Bool {
    var info = tcp_info()
    var size = socklen_t(MemoryLayout<tcp_info>.size)
    guard getsockopt(connection.descriptor, CInt(IPPROTO_TCP), TCP_INFO, &info, &size) == 0
    else { return false }
    return info.tcpi_unacked == 0
  }

  private func attempt() {
    let target = leader.takeTarget()
    do throws(AddressError) {
      let addresses = try SocketAddress.resolve(target)
      // A name may stand for several addresses: each attempt takes the next.
      let address = addresses[Int(nextToken) % addresses.count]
      try connect(to: address)
    } catch {
      leader.fail("\(error)", now: now, backoffMax: options.backoffMax.nanoseconds)
    }
  }

  private func connect(to address: SocketAddress) throws(AddressError) {
    do throws(ErrorNumber) {
      let connection = try Connection.connect(
        to: address,
        options: ConnectionOptions(
          outboundLimit: 8 << 20, unreadMax: Self.frameBytesMax + Frame.headerBytes),
        pool: pool, now: now)
      try connection.register(with: poller, token: nextToken, interest: .write)
      nextToken += 1
      self.connection = connection
      leader.phase = .connecting
      leader.deadline = now + options.attemptTimeout.nanoseconds
    } catch {
      leader.fail("\(error)", now: now, backoffMax: options.backoffMax.nanoseconds)
    }
  }

  func finishConnecting(_ connection: Connection) {
    switch connection.finishConnect() {
    case .inProgress: return
    case .failed(let error): drop("\(error)")
    case .connected:
      leader.phase = .greeting
      lastSendTime = now
      _ = connection.append(Preamble.clientBytes)
      _ = ask(.hello(client: options.name), .hello)
    }
  }

  func handleHello(_ reply: HelloReply) {
    handleMembers(reply.addresses)
    shared.knowledge.withLock { knowledge in
      knowledge.publishWindow = max(1, Int(reply.publishWindow))
      knowledge.creditMax = max(1, Int(reply.creditMax))
      knowledge.contentBytesMax = Int(reply.messageBytesMax)
    }
    let runBytesMax = max(1, Int(reply.frameBytesMax) - PublishView.fixedBytes)
    shared.book.configure(
      contentBytesMax: Int(reply.messageBytesMax), runBytesMax: runBytesMax,
      window: Int(reply.publishWindow))
    connectedCluster = reply.cluster
    publishes.window = max(1, Int(reply.publishWindow))
    // A new leader may take less in one frame than the one for which they were gathered.
    publishes.split(
      runBytesMax: runBytesMax, countMax: min(publishes.window, PublishChunk.countMax))
    if reply.leader == reply.node {
      becomeReady()
    } else {
      moveOn(to: reply.leaderAddress)
    }
  }

  func handleMembers(_ addresses: [String]) {
    leader.learn(addresses)
    shared.knowledge.withLock { $0.addresses = leader.knownAddresses }
  }

  func handleLeaderChanged(_ address: String) {
    if address == leader.target {
      // Elected, or elected again: then it has let its sessions go in between.
      if leader.phase == .ready { loseLeader() }
      becomeReady()
      return
    }
    leader.trust(address)
    moveOn(to: address)
  }

  /// The connected node does not lead: goes where the leader is said to be, or waits for word.
  func moveOn(to address: String) {
    if leader.isWorthFollowing(address) {
      move = .follow(address)
    } else {
      if leader.phase == .ready { loseLeader() }
      leader.phase = .waiting
      leader.deadline = now + leader.nextBackoff(max: options.backoffMax.nanoseconds)
    }
  }

  private func becomeReady() {
    if let cluster, cluster != connectedCluster { becomeStranger() }
    cluster = connectedCluster
    leader.succeed(backoffMin: options.backoffMin.nanoseconds)
    shared.knowledge.withLock { $0.leader = leader.target }
    unsentRequests = requests.keys.sorted()
    shared.connected.keep(.success(()))
  }

  /// The node leads no more, or not usefully: follows its word, or looks around.
  func leaveLeader(_ address: String, because refusal: Refusal) {
    guard leader.phase == .ready, move == nil else { return }
    if refusal == .notLeader {
      moveOn(to: address)
    } else {
      move = .drop("it refused: \(RefusalReason(refusal).text)")
    }
  }

  func carryOut(_ move: Move) {
    switch move {
    case .drop(let reason): drop(reason)
    case .follow(let address):
      loseConnection()
      leader.follow(address, now: now)
    }
  }

  /// Gives the connection up and tries the next node.
  func drop(_ reason: String) {
    loseConnection()
    leader.fail(reason, now: now, backoffMax: options.backoffMax.nanoseconds)
  }

  private func loseConnection() {
    connection?.close()
    connection = nil
    pingSent = nil
    silence = NodeSilence(pingInterval: options.pingInterval.nanoseconds)
    move = nil
    loseLeader()
  }

  /// What was sent and not answered will be sent again.
  private func loseLeader() {
    ownRequests = [:]
    unsentRequests = []
    session.detach()
    publishes.sendAgain()
    settles.sendAgain()
    for id in Array(consumers.keys) { consumers[id]?.isSubscribeSent = false }
    for id in Array(endedConsumers.keys) { endedConsumers[id] = .toAsk }
    consumerRetryTime = .zero
    finishTransfers()
    closing?.isSent = false
    sessionRefusal = nil
  }
}
