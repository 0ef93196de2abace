// Connections between nodes. Every node dials every other and sends on the connection that it
// dialled; it listens on those that it accepted. So each pair has two, one for each direction, and
// nobody has to agree on who dials.
//
// A connection begins with the peer preamble and an introduction. A killed process closes its
// connections at once: that is what `disconnected` is about, and consensus reacts to it.

import Base
import Consensus
import Node
import Transport
import Wire

/// What the links have to tell the loop.
enum PeerEvent {
  case connected(NodeID)
  case disconnected(NodeID)
  case received(PeerEnvelope, from: NodeID)
}

struct PeerLinks: ~Copyable {
  private let inPlace = InPlace()
  /// Tokens of peers have this in their top byte.
  static let tokenSpace: UInt64 = 1 << 56
  private static let listenerToken = tokenSpace

  private static let retryMin = Nanoseconds.milliseconds(20)
  private static let retryMax = Nanoseconds.milliseconds(500)
  /// Who was removed still has to hear that this is committed, and a leader that was removed has to
  /// hear it from the others (thesis §4.2.2).
  private static let farewell = Nanoseconds.seconds(5)
  /// How many nodes are dialled back that this one does not know as members.
  private static let guestsMax = 16

  /// A connection that this node dialled, to send on.
  private struct Dialled {
    var node: NodeID
    var address: String
    /// `address` as numbers; nil until the resolver has answered.
    var resolved: SocketAddress?
    var connection: Connection?
    var isReady = false
    /// Something was queued since all was sent.
    var isTouched = false
    /// Not looked up or dialled before.
    var nextAttempt: MonotonicTime
    var pause = PeerLinks.retryMin
    /// The log has it that this fails, and need not have it again until it was connected.
    var isFailureLogged = false
    /// No member any more: hung up on at this time.
    var leavesAt = MonotonicTime.never
    /// No member as far as this node knows, but it dialled: perhaps by an entry of the log that this
    /// node lacks, and then it may lead and has to be answered.
    var isGuest = false
  }

  /// A connection that another node dialled, to listen on.
  private struct Accepted {
    let token: UInt64
    let connection: Connection
    var isPreambleRead = false
    var isLastFrameLarge = false
    var node: NodeID?
    let since: MonotonicTime
  }

  private let configuration: ServerConfiguration
  private let log: NodeLog
  private let poller: Poller
  private var listener: Listener?
  private let pool = BufferPool()
  private var nextToken = PeerLinks.tokenSpace + 1
  private var dialled: [Dialled] = []
  /// A few more than `dialled` at most: looked through rather than looked up.
  private var accepted: [Accepted] = []
  /// Host names that the resolver was asked for and has not answered.
  private var lookups: Set<String> = []
  /// The one of them that is a guest's: strangers must not keep the resolver from the members.
  private var guestLookup: String?
  private var events = RingBuffer<PeerEvent>()
  /// The head of the frame at hand; its memory serves the next, unless it is much.
  private var frameHead: [UInt8] = []
  private static let keptHeadBytes = 64 << 10
  private var isClosed = false

  /// - Parameter listener: bound to the peers' address; watched from now on.
  init(configuration: ServerConfiguration, listener: Listener, poller: Poller, log: NodeLog) {
    self.configuration = configuration
    self.log = log
    self.poller = poller
    self.listener = listener
  }

  /// Begins to accept.
  func listen() throws(ErrorNumber) {
    guard let listener else { return }
    try poller.add(listener.descriptor, token: Self.listenerToken, interest: .read)
  }

  /// nil once closed.
  var address: SocketAddress? { listener?.address }

  static func owns(_ token: UInt64) -> Bool { token >> 56 == 1 }

  // MARK: Whom to talk to

  /// Dials the members that are new, hangs up on those that are gone, after a while.
  mutating func setMembers(_ membership: Membership, now: MonotonicTime) {
    for place in dialled.indices.reversed() {
      let member = membership.member(dialled[place].node)
      if member?.peerAddress == dialled[place].address {
        dialled[place].leavesAt = .never
        dialled[place].isGuest = false
      } else if member != nil {
        remove(place)
      } else if !dialled[place].isGuest {
        dialled[place].leavesAt = min(dialled[place].leavesAt, now + Self.farewell)
      }
    }
    for member in membership.members
    where member.id != configuration.node && !dialled.contains(where: { $0.node == member.id }) {
      dialled.append(
        Dialled(
          node: member.id, address: member.peerAddress,
          resolved: Self.numeric(member.peerAddress), nextAttempt: now))
    }
  }

  /// Dials back whoever introduced itself and is no member that this node knows of. What it says
  /// is believed, so what it can bring about has to be little however often it says it.
  private mutating func answer(_ introduction: Introduction, now: MonotonicTime) {
    let address = introduction.peerAddress
    if let place = dialled.firstIndex(where: { $0.node == introduction.node }) {
      guard dialled[place].isGuest else { return }
      dialled[place].leavesAt = .never
      if !address.isEmpty, address != dialled[place].address { move(place, to: address, now: now) }
      return
    }
    if address.isEmpty { return }
    if dialled.count(where: \.isGuest) >= Self.guestsMax {
      // They are in the order in which they came.
      guard let eldest = dialled.firstIndex(where: { $0.isGuest && !$0.isReady }) else { return }
      remove(eldest)
    }
    dialled.append(
      Dialled(
        node: introduction.node, address: address, resolved: Self.numeric(address),
        nextAttempt: now, isGuest: true))
  }

  /// A guest is elsewhere now. The longest pause before it is dialled there: else it could have
  /// this node dial as often as it names another address.
  private mutating func move(_ place: Int, to address: String, now: MonotonicTime) {
    dialled[place].address = address
    hangUp(place, "it is reached at another address", now: now)
    dialled[place].nextAttempt = now + Self.retryMax
  }

  private static func numeric(_ address: String) -> SocketAddress? {
    do { return try SocketAddress(parsing: address) } catch { return nil }
  }

  private mutating func remove(_ place: Int) {
    let gone = dialled.remove(at: place)
    gone.connection?.close()
    if gone.isReady { events.append(.disconnected(gone.node)) }
  }

  /// Its time is over, unless it still speaks to this node: then it may want an answer.
  private mutating func leave(_ place: Int) {
    let node = dialled[place].node
    guard accepted.contains(where: { $0.node == node }) else { return remove(place) }
    dialled[place].leavesAt = .never
    dialled[place].isGuest = true
  }

  func isConnected(_ node: NodeID) -> Bool {
    dialled.contains { $0.node == node && $0.isReady }
  }

  /// Lists the nodes whose connection is there and takes more. Asked for in every turn: no link is
  /// copied.
  func listWithRoom(into nodes: inout [NodeID]) {
    if !nodes.isEmpty { nodes.removeAll(keepingCapacity: true) }
    for place in dialled.indices where hasRoom(at: place) { nodes.append(dialled[place].node) }
  }

  func hasRoom(_ node: NodeID) -> Bool {
    dialled.indices.contains { dialled[$0].node == node && hasRoom(at: $0) }
  }

  private func hasRoom(at place: Int) -> Bool {
    // There is where nothing waits to be sent.
    dialled[place].isReady
      && (!dialled[place].isTouched || dialled[place].connection?.hasRoom == true)
  }

  var nextDeadline: MonotonicTime {
    var deadline = MonotonicTime.never
    for place in dialled.indices {
      deadline = min(deadline, dialled[place].leavesAt)
      if dialled[place].connection == nil, dialled[place].resolved != nil || mayLookUp(place) {
        deadline = min(deadline, dialled[place].nextAttempt)
      }
    }
    for place in accepted.indices where accepted[place].node == nil {
      deadline = min(deadline, accepted[place].since + configuration.timeouts.handshake)
    }
    return deadline
  }

  var hasEvents: Bool { !events.isEmpty }

  /// Makes `taken`, which is empty, what there is to tell, in order. Its room serves for what comes
  /// next.
  mutating func takeEvents(into taken: inout RingBuffer<PeerEvent>) {
    invariant(taken.isEmpty, "\(taken.count) events of peers were not looked at")
    swap(&taken, &events)
  }

  // MARK: Sending

  /// Queues a frame. Dropped if there is no connection or its queue is full: consensus sends again.
  mutating func send(_ envelope: PeerEnvelope, to node: NodeID) { _ = offer(envelope, to: node) }

  /// Queues a frame that nobody sends again; false if there is no connection with room for it.
  mutating func offer(_ envelope: PeerEnvelope, to node: NodeID) -> Bool {
    guard let place = dialled.firstIndex(where: { $0.node == node }), dialled[place].isReady,
      let connection = dialled[place].connection
    else { return false }
    dialled[place].isTouched = true
    return put(envelope, into: connection)
  }

  @discardableResult
  private mutating func put(_ envelope: PeerEnvelope, into connection: Connection) -> Bool {
    let payloads = PeerCodec.encode(envelope, into: &frameHead)
    let isTaken = connection.append(frame: frameHead, shared: payloads)
    if frameHead.capacity > Self.keptHeadBytes { frameHead = [] }
    return isTaken
  }

  /// Sends what is queued: one system call for each peer that has something.
  mutating func flush(now: MonotonicTime) {
    for place in dialled.indices {
      guard dialled[place].isTouched, let connection = dialled[place].connection else { continue }
      switch connection.flush(now: now) {
      case .flushed:
        dialled[place].isTouched = false
        connection.setInterest(.read, poller: poller)
      case .blocked: connection.setInterest([.read, .write], poller: poller)
      case .failed(let error): hangUp(place, "\(error)", now: now)
      }
    }
  }

  // MARK: Time

  mutating func tick(now: MonotonicTime) {
    for place in dialled.indices.reversed() where dialled[place].leavesAt <= now { leave(place) }
    for place in dialled.indices {
      if let connection = dialled[place].connection {
        // A peer that takes nothing for long is as good as gone: a silent cut sends no reset.
        if let stalled = connection.stalledSince,
          now.since(stalled) > configuration.timeouts.silentConnection
        {
          hangUp(place, "it takes no bytes", now: now)
        }
      } else if dialled[place].nextAttempt <= now, !isClosed {
        dial(place, now: now)
      }
    }
    for place in accepted.indices.reversed()
    where accepted[place].node == nil
      && now.since(accepted[place].since) > configuration.timeouts.handshake
    {
      dropAccepted(place, "it did not introduce itself in time", now: now)
    }
  }

  /// Host names that are to be looked up now, by somebody who may wait and answers `resolved`.
  mutating func takeUnresolved(now: MonotonicTime) -> [String] {
    var names: [String] = []
    var guest: (name: String, since: MonotonicTime)?
    for place in dialled.indices where mayLookUp(place) && dialled[place].nextAttempt <= now {
      let link = dialled[place]
      if !link.isGuest {
        lookups.insert(link.address)
        names.append(link.address)
      } else if link.nextAttempt < guest?.since ?? .never {
        guest = (link.address, link.nextAttempt)
      }
    }
    // Of the guests the one that has waited longest, unless a member's name is the same.
    if let guest, lookups.insert(guest.name).inserted {
      guestLookup = guest.name
      names.append(guest.name)
    }
    return names
  }

  /// Whether its name is to be looked up once its time has come.
  private func mayLookUp(_ place: Int) -> Bool {
    dialled[place].connection == nil && dialled[place].resolved == nil
      && !lookups.contains(dialled[place].address)
      && !(dialled[place].isGuest && guestLookup != nil)
  }

  /// The resolver's answer. A name is looked up again after every failed attempt to connect.
  mutating func resolved(
    _ text: String, _ found: Result<SocketAddress, AddressError>, now: MonotonicTime
  ) {
    lookups.remove(text)
    if guestLookup == text { guestLookup = nil }
    for place in dialled.indices
    where dialled[place].address == text && dialled[place].resolved == nil {
      switch found {
      case .success(let address):
        dialled[place].resolved = address
      case .failure(let error):
        putOff(place, now: now)
        logFailure(place, "\(error)")
      }
    }
  }

  /// The next attempt comes after a pause, and after a longer one each time.
  private mutating func putOff(_ place: Int, now: MonotonicTime) {
    dialled[place].nextAttempt = now + dialled[place].pause
    dialled[place].pause = min(
      Nanoseconds(dialled[place].pause.rawValue * 2), Self.retryMax)
  }

  /// Once, when it has failed for a while: it goes on failing until somebody does something.
  private mutating func logFailure(_ place: Int, _ reason: String) {
    guard dialled[place].pause == Self.retryMax, !dialled[place].isFailureLogged else { return }
    dialled[place].isFailureLogged = true
    log.warning("node \(dialled[place].node) cannot be dialled: \(reason)")
  }

  private mutating func dial(_ place: Int, now: MonotonicTime) {
    guard let address = dialled[place].resolved else { return }
    putOff(place, now: now)
    do {
      let options = ConnectionOptions(
        userTimeout: configuration.timeouts.silentConnection,
        outboundLimit: configuration.limits.peerWriteBytes, unreadMax: 4096)
      let connection = try Connection.connect(to: address, options: options, pool: pool, now: now)
      try connection.register(with: poller, token: nextToken, interest: .write)
      nextToken += 1
      dialled[place].connection = connection
    } catch {
      logFailure(place, "\(error)")
    }
  }

  private mutating func hangUp(_ place: Int, _ reason: String, now: MonotonicTime) {
    let wasReady = dialled[place].isReady
    dialled[place].connection?.close()
    dialled[place].connection = nil
    dialled[place].isReady = false
    dialled[place].isTouched = false
    // A host may have moved. Numbers need no looking up.
    dialled[place].resolved = Self.numeric(dialled[place].address)
    dialled[place].nextAttempt = now + dialled[place].pause
    if wasReady {
      log.info("connection to node \(dialled[place].node) lost: \(reason)")
      events.append(.disconnected(dialled[place].node))
    }
  }

  // MARK: Events

  /// Whether it is told on this connection who this node is, once that is there.
  func isDialling(_ token: UInt64) -> Bool {
    dialled.contains { !$0.isReady && $0.connection?.token == token }
  }

  /// - Parameter introduction: wanted where `isDialling`.
  mutating func handle(_ event: PollEvent, now: MonotonicTime, introduction: Introduction?) {
    if event.token == Self.listenerToken {
      acceptPeers(now: now)
    } else if let place = accepted.firstIndex(where: { $0.token == event.token }) {
      readAccepted(place, now: now)
    } else if let place = dialled.firstIndex(where: { $0.connection?.token == event.token }) {
      handleDialled(place, event, now: now, introduction: introduction)
    }
  }

  private mutating func handleDialled(
    _ place: Int, _ event: PollEvent, now: MonotonicTime, introduction: Introduction?
  ) {
    guard let connection = dialled[place].connection else { return }
    if !dialled[place].isReady {
      switch connection.finishConnect() {
      case .inProgress:
        return
      case .failed(let error):
        hangUp(place, "\(error)", now: now)
        return
      case .connected:
        dialled[place].isReady = true
        dialled[place].pause = Self.retryMin
        dialled[place].isFailureLogged = false
        if dialled[place].isGuest {
          log.info("node \(dialled[place].node), no member as far as is known here, is answered")
        }
        dialled[place].isTouched = true
        _ = connection.append(Preamble.peerBytes)
        invariant(introduction != nil, "node \(dialled[place].node) is not told who this is")
        if let introduction { put(.introduction(introduction), into: connection) }
        connection.setInterest(.read, poller: poller)
        events.append(.connected(dialled[place].node))
      }
    }
    // Nobody speaks on this connection: readable means that it ended.
    if event.isReadable || event.isBroken {
      switch connection.read(limit: 1024, now: now) {
      case .closed: hangUp(place, "closed by the peer", now: now)
      case .failed(let error): hangUp(place, "\(error)", now: now)
      case .wouldBlock: break
      case .read, .full: connection.consume(connection.unreadBytes)
      }
    }
  }

  private mutating func acceptPeers(now: MonotonicTime) {
    var connections: [Connection] = []
    let options = ConnectionOptions(
      outboundLimit: 64 << 10, unreadMax: PeerCodec.headerBytes + PeerCodec.frameBytesMax)
    guard let listener else { return }
    switch listener.accept(limit: 64, options: options, pool: pool, now: now, into: &connections) {
    case .drained, .more: break
    case .outOfDescriptors: log.warning("no file descriptors left for a peer's connection")
    }
    for connection in connections {
      // Members, and a few that are on their way in or out: of more the eldest stranger goes.
      if accepted.count >= 4 * dialled.count + 16 {
        let members = Set(dialled.filter { !$0.isGuest }.map(\.node))
        // They are in the order in which they came.
        guard
          let eldest = accepted.firstIndex(where: { $0.node.map { !members.contains($0) } ?? true })
        else {
          connection.close()
          continue
        }
        dropAccepted(eldest, "too many connections of strangers", now: now)
      }
      do {
        try connection.register(with: poller, token: nextToken, interest: .read)
        accepted.append(Accepted(token: nextToken, connection: connection, since: now))
        nextToken += 1
      } catch {
        connection.close()
      }
    }
  }

  private mutating func readAccepted(_ start: Int, now: MonotonicTime) {
    var place = start
    let connection = accepted[place].connection
    // A few reads a turn, so that one peer cannot keep the loop from the others.
    for _ in 0..<4 {
      let outcome = connection.read(limit: readLimit(place, connection), now: now)
      if let reason = takeFrames(&place, connection, now: now) {
        dropAccepted(place, reason, now: now)
        return
      }
      switch outcome {
      case .read(let count) where count >= Self.readMax || missesBytes(place): continue
      case .read, .wouldBlock: return
      case .full:
        dropAccepted(place, "its frame is larger than allowed", now: now)
        return
      case .closed:
        dropAccepted(place, "closed by the peer", now: now)
        return
      case .failed(let error):
        dropAccepted(place, "\(error)", now: now)
        return
      }
    }
  }

  private static var readMax: Int { 1 << 20 }
  /// A frame from this size on has its room before it is read.
  private static var largeFrameBytes: Int { 256 << 10 }

  /// How much is read at once. Where large frames come one behind the other, only the beginning of the
  /// next: the rest goes where it can stay.
  private func readLimit(_ place: Int, _ connection: Connection) -> Int {
    guard accepted[place].isLastFrameLarge else { return Self.readMax }
    if missesBytes(place) { return 2 * Self.readMax }
    return connection.unreadBytes == 0 ? 4 << 10 : Self.readMax
  }

  /// Whether the rest of a frame is awaited that has its room already, which only large ones have.
  private func missesBytes(_ place: Int) -> Bool {
    accepted[place].isLastFrameLarge && accepted[place].connection.missingBytes > 0
  }

  /// Takes all whole frames; a reason to close the connection if one is wrong.
  ///
  /// - Parameter place: of the connection; another one if older ones end by what it says.
  private mutating func takeFrames(
    _ place: inout Int, _ connection: Connection, now: MonotonicTime
  ) -> String? {
    let bytes = connection.unread
    var offset = 0
    let reason = takeWholeFrames(&place, bytes, &offset, now: now)
    connection.consume(offset)
    if reason != nil || offset == bytes.count { return reason }
    // Only a member is given much room, once: others could ask for it in any name.
    if let node = accepted[place].node, isMember(node),
      let size = try? PeerCodec.frameSize(of: connection.unread), size >= Self.largeFrameBytes
    {
      accepted[place].isLastFrameLarge = true
      if size > connection.unreadBytes { connection.expect(size) }
    }
    return nil
  }

  private func isMember(_ node: NodeID) -> Bool {
    dialled.contains { $0.node == node && !$0.isGuest }
  }

  private mutating func takeWholeFrames(
    _ place: inout Int, _ bytes: UnsafeRawBufferPointer, _ offset: inout Int, now: MonotonicTime
  ) -> String? {
    if !accepted[place].isPreambleRead {
      switch Preamble(reading: bytes) {
      case .incomplete: return nil
      case .peer: break
      case .client: return "a client dialled the port for nodes"
      case .unknownVersion(let version): return "it speaks version \(version)"
      case .foreign(let name): return "it speaks \(name.rawValue)"
      }
      accepted[place].isPreambleRead = true
      offset = Preamble.byteCount
    }
    do {
      while offset < bytes.count {
        let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
        guard let (envelope, byteCount) = try PeerCodec.decode(rest) else {
          return nil
        }
        offset += byteCount
        accepted[place].isLastFrameLarge = byteCount >= Self.largeFrameBytes
        if let reason = take(envelope, &place, now: now) { return reason }
      }
      return nil
    } catch {
      return "\(error)"
    }
  }

  private mutating func take(
    _ envelope: consuming PeerEnvelope, _ place: inout Int, now: MonotonicTime
  ) -> String? {
    if case .introduction(let introduction) = envelope,
      let reason = take(introduction, &place, now: now)
    {
      return reason
    }
    guard let node = accepted[place].node else { return "it did not introduce itself" }
    events.append(.received(envelope, from: node))
    return nil
  }

  private mutating func take(
    _ introduction: Introduction, _ place: inout Int, now: MonotonicTime
  ) -> String? {
    if accepted[place].node == nil {
      guard introduction.cluster == configuration.cluster.description else {
        return "it belongs to cluster \(introduction.cluster)"
      }
      guard introduction.node != configuration.node else {
        return "it says that it is node \(introduction.node), which is this one"
      }
      for other in accepted.indices.reversed() where accepted[other].node == introduction.node {
        // The newer connection counts; the older one may not have noticed yet that it is dead.
        accepted.remove(at: other).connection.close()
        if other < place { place -= 1 }
      }
      accepted[place].node = introduction.node
    }
    if accepted[place].node == introduction.node { answer(introduction, now: now) }
    return nil
  }

  private mutating func dropAccepted(_ place: Int, _ reason: String, now: MonotonicTime) {
    let link = accepted.remove(at: place)
    link.connection.close()
    guard let node = link.node else {
      log.info("connection from \(link.connection.peer) dropped: \(reason)")
      return
    }
    log.info("connection from node \(node) lost: \(reason)")
    events.append(.disconnected(node))
    if let place = dialled.firstIndex(where: { $0.node == node && $0.isGuest }) {
      dialled[place].leavesAt = now + Self.farewell
    }
    // The other direction may live on: then the peer is still there.
    if isConnected(node) { events.append(.connected(node)) }
  }

  /// Hangs up on everybody and listens no more.
  mutating func close() {
    isClosed = true
    listener = nil
    for link in dialled { link.connection?.close() }
    for link in accepted { link.connection.close() }
    dialled = []
    accepted = []
    events.removeAll()
  }
}
