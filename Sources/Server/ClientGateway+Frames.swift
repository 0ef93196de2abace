// What a client sent, frame by frame, parsed where it landed. A frame that is taken is consumed; one
// that the replica has no room for stays, nothing more is read, and TCP pushes the client back (G13).

import Base
import Node
import QueueMachine
import Transport
import Wire

extension ClientGateway {
  /// What became of a frame.
  enum Intake {
    case taken
    /// It stays unread until the replica has room.
    case noRoom
    /// It stays unread until the large answer before is given.
    case answerDue
  }

  mutating func takeBytes(
    of client: ClientConnection, now: MonotonicTime, replica: inout Replica
  ) {
    if client.phase == .preamble { takePreamble(of: client, now: now) }
    guard client.takesFrames else { return }
    takeFrames(of: client, now: now, replica: &replica)
    guard client.phase != .closed else { return }
    if client.isEnding {
      client.connection.consume(client.connection.unreadBytes)
      return
    }
    if client.pause == .none {
      // A large frame of which a good part is here gets its room at once.
      let unread = client.connection.unread
      let needed = FrameDecoder.bytesNeeded(for: unread)
      let there = unread.count
      if there > 0, needed > there, there >= needed / 8 { client.connection.expect(needed) }
    }
  }

  private mutating func takePreamble(of client: ClientConnection, now: MonotonicTime) {
    let preamble = Preamble(reading: client.connection.unread)
    switch preamble {
    case .incomplete:
      return
    case .client:
      client.connection.consume(Preamble.byteCount)
      client.phase = .hello
      return
    case .peer:
      end(client, line: "skein: this port is for clients, not for other nodes\r\n", now: now)
    case .unknownVersion, .foreign:
      end(client, line: preamble.refusalLine ?? "", now: now)
    }
    counters.faults += 1
    client.connection.consume(client.connection.unreadBytes)
  }

  private mutating func takeFrames(
    of client: ClientConnection, now: MonotonicTime, replica: inout Replica
  ) {
    // SAFETY: nothing reads, consumes or makes room in the connection before the end of this
    // function; if it is closed meanwhile, `takesFrames` is false and the bytes are not touched.
    let bytes = client.connection.unread
    var offset = 0
    do throws(FrameError) {
      while client.takesFrames {
        let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
        let limit = client.phase == .open ? frameBytesMax : ClientGatewayLimits.helloBytes
        guard let frame = try FrameDecoder.next(in: rest, limit: limit) else { break }
        if client.connection.pendingBytes > outputPauseBytes {
          pause(client, .outputFull)
          break
        }
        switch try take(frame, from: client, now: now, replica: &replica) {
        case .taken: offset += frame.byteCount
        case .noRoom: pause(client, .noRoom)
        case .answerDue: pause(client, .answerDue)
        }
      }
    } catch {
      counters.faults += 1
      end(client, error.refusal, "\(error)", now: now)
    }
    if client.phase != .closed { client.connection.consume(offset) }
  }

  private mutating func take(
    _ frame: FrameView, from client: ClientConnection, now: MonotonicTime, replica: inout Replica
  ) throws(FrameError) -> Intake {
    guard client.phase == .open else {
      try takeHello(frame, from: client, now: now, replica: replica)
      return .taken
    }
    switch frame.kind {
    case .publish:
      let publish = try PublishView(decoding: frame)
      return takePublish(publish, from: client, now: now, replica: &replica)
    default:
      let request = try ClientFrame(decoding: frame)
      return try takeRequest(request, frame.request, from: client, now: now, replica: &replica)
    }
  }

  private mutating func takeHello(
    _ frame: FrameView, from client: ClientConnection, now: MonotonicTime,
    replica: borrowing Replica
  ) throws(FrameError) {
    guard case .hello = try ClientFrame(decoding: frame) else {
      counters.faults += 1
      end(client, .malformedRequest, "\(frame.kind) before hello", now: now)
      return
    }
    client.phase = .open
    send(.helloReply(helloReply(replica)), request: frame.request, to: client)
  }

  func helloReply(_ replica: borrowing Replica) -> HelloReply {
    HelloReply(
      cluster: configuration.cluster.rawValue, node: configuration.node,
      leader: knownLeader ?? NodeID(0), leaderAddress: knownLeaderAddress,
      addresses: replica.consensus.membership.members.map(\.clientAddress), version: version,
      messageBytesMax: UInt32(clamping: configuration.limits.messageBytes),
      frameBytesMax: UInt32(clamping: frameBytesMax),
      publishWindow: UInt32(clamping: publishWindow),
      creditMax: FixedLimits.creditMax)
  }

  // MARK: Pushing back

  /// Above this nothing more is taken from a client that does not read its answers.
  private var outputPauseBytes: Int { configuration.limits.clientWriteBytes / 2 }

  func hasLittleOutput(_ client: ClientConnection) -> Bool {
    client.connection.pendingBytes <= outputPauseBytes / 2
  }

  private mutating func pause(_ client: ClientConnection, _ reason: ClientConnection.Pause) {
    if client.pause == .none { paused.append(client) }
    client.pause = reason
    updateInterest(of: client)
  }

  /// Goes on reading where there is room again.
  mutating func resumePaused(now: MonotonicTime, replica: inout Replica) {
    guard !paused.isEmpty else { return }
    var waiting: [ClientConnection] = []
    swap(&waiting, &paused)
    let forThisNode = begunForThisNode(in: waiting)
    for client in waiting where client.pause != .none {
      let canGoOn =
        switch client.pause {
        case .none: true
        case .noRoom: replica.hasRoom || !replica.isLeader
        case .crowded: forThisNode <= begunBytesMax
        case .outputFull: hasLittleOutput(client)
        case .answerDue: !client.awaitsLargeAnswer
        }
      guard canGoOn else {
        paused.append(client)
        continue
      }
      client.pause = .none
      client.resumedAt = now
      nextSweep = min(nextSweep, now + configuration.timeouts.silentConnection)
      takeBytes(of: client, now: now, replica: &replica)
      countBegun(client)
      needsTurn = true
      if client.phase != .closed { updateInterest(of: client) }
    }
  }
}

// Frames that are begun and not taken.
extension ClientGateway {
  /// Notes how much of frames that are not taken the connection has sent.
  mutating func countBegun(_ client: ClientConnection) {
    let bytes =
      client.phase == .closed || client.isEnding
      ? 0 : max(0, client.connection.unreadBytes - ClientGatewayLimits.begunBytesFree)
    begunBytes += bytes - client.begunBytes
    client.begunBytes = bytes
  }

  /// To be called when something was read from the connection. What is begun has two bounds, each
  /// `begunBytesMax`. One is for what waits for the clients' next bytes: above it whoever has begun most is
  /// closed, since if it were only not read from it could never finish. The other is for what waits for this
  /// node: above it, no more is read of what others have begun.
  mutating func boundBegun(after client: ClientConnection, now: MonotonicTime) {
    countBegun(client)
    guard begunBytes > begunBytesMax else { return }
    let forThisNode = begunForThisNode(in: paused)
    while begunBytes - forThisNode > begunBytesMax, let largest = largestBegun() {
      counters.faults += 1
      let peer = largest.connection.peer
      log.warning("closed \(peer), which has begun the largest frame: all are too much together")
      end(
        largest, .overloaded,
        "the frames begun on all connections are larger than \(begunBytesMax) bytes, and this"
          + " connection has begun most", now: now)
      largest.connection.consume(largest.connection.unreadBytes)
      countBegun(largest)
    }
    if forThisNode > begunBytesMax, client.begunBytes > 0, client.pause == .none, !client.isEnding {
      pause(client, .crowded)
    }
  }

  /// What is begun on those of `paused` that wait for this node.
  private func begunForThisNode(in paused: [ClientConnection]) -> Int {
    paused.reduce(0) { $0 + ($1.pause.isForThisNode ? $1.begunBytes : 0) }
  }

  private func largestBegun() -> ClientConnection? {
    var largest: ClientConnection?
    for token in clients.sortedKeys {
      guard let client = clients[token], !client.pause.isForThisNode,
        client.begunBytes > largest?.begunBytes ?? 0
      else { continue }
      largest = client
    }
    return largest
  }
}

extension FrameError {
  /// What the sender is told.
  var refusal: Refusal {
    switch self {
    case .oversized: .messageTooLarge
    case .unknownVersion: .notSupported
    case .unknownKind, .unexpectedKind: .unknownRequest
    case .truncated, .trailingBytes, .notUTF8, .invalidValue: .malformedRequest
    }
  }
}
