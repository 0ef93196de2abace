// The proxies' thread: every connection between nodes and from clients passes here, so that links can
// be cut, slowed and broken without root. One thread owns all of it; others post commands.

import Base
import Synchronization
import Transport

/// Asked of the proxies from outside.
enum ProxyCommand: Sendable {
  /// Answered with the address, which is new where the port was 0.
  case listen(ProxyRoute, @Sendable (Result<String, ChaosError>) -> Void)
  /// The node is down: whoever dials it is refused.
  case stopListening(node: Int, @Sendable () -> Void)
  case setRules([Link: LinkRule], @Sendable () -> Void)
  case reset(nodes: Set<Int>, @Sendable () -> Void)
  case halfOpen(nodes: Set<Int>, @Sendable () -> Void)
  case stop
}

final class ProxyLoop {
  private let poller: Poller
  private let mailbox: Mailbox<ProxyCommand>
  private let pool = BufferPool()
  private var listeners: [UInt64: (route: ProxyRoute, listener: Listener)] = [:]
  private var pipes: [UInt64: ProxyPipe] = [:]
  private var nextToken: UInt64 = 2
  private var rules: [Link: LinkRule] = [:]
  private var random: SeededRandom
  private var now = MonotonicClock.now()
  private var isStopped = false

  private static let mailboxToken: UInt64 = 0
  private static let readBytes = 64 << 10

  init(mailbox: Mailbox<ProxyCommand>, seed: UInt64) throws(ErrorNumber) {
    self.mailbox = mailbox
    random = SeededRandom(seed: seed)
    poller = try Poller()
    try poller.add(mailbox.descriptor, token: Self.mailboxToken, interest: .read)
  }

  func run() {
    var events: [PollEvent] = []
    var commands: [ProxyCommand] = []
    while !isStopped {
      poller.wait(timeout: timeout(), into: &events)
      now = MonotonicClock.now()
      mailbox.take(into: &commands)
      for command in commands { carryOut(command) }
      for event in events where event.token != Self.mailboxToken { handle(event) }
      for token in pipes.keys { pump(token) }
    }
    for pipe in pipes.values { pipe.close(abruptly: true) }
  }

  private func timeout() -> Nanoseconds? {
    var next = MonotonicTime.never
    for pipe in pipes.values where pipe.state == .open {
      next = min(next, pipe.forward.nextDue(rule(pipe.link)))
      next = min(next, pipe.backward.nextDue(rule(pipe.returnLink)))
    }
    return next == .never ? nil : next.since(MonotonicClock.now())
  }

  private func rule(_ link: Link?) -> LinkRule {
    link.flatMap { rules[$0] } ?? LinkRule()
  }

  // MARK: Commands

  private func carryOut(_ command: ProxyCommand) {
    switch command {
    case .listen(let route, let done): done(listen(route))
    case .stopListening(let node, let done):
      listeners = listeners.filter { $0.value.route.node != node }
      done()
    case .setRules(let rules, let done):
      self.rules = rules
      for pipe in pipes.values { watchAgain(pipe) }
      done()
    case .reset(let nodes, let done):
      for (token, pipe) in pipes where isAbout(pipe, nodes) { close(token, pipe, abruptly: true) }
      done()
    case .halfOpen(let nodes, let done):
      for pipe in pipes.values where isAbout(pipe, nodes) { halfOpen(pipe) }
      done()
    case .stop: isStopped = true
    }
  }

  private func isAbout(_ pipe: ProxyPipe, _ nodes: Set<Int>) -> Bool {
    if nodes.contains(pipe.route.node) { return true }
    guard case .node(let from)? = pipe.from else { return false }
    return nodes.contains(from)
  }

  private func listen(_ route: ProxyRoute) -> Result<String, ChaosError> {
    if let known = listeners.values.first(where: { $0.route == route }) {
      return .success("\(known.listener.address)")
    }
    do {
      guard let address = try SocketAddress.resolve(route.listen).first else {
        return .failure(ChaosError("\(route.listen) is no address"))
      }
      let listener = try Listener(address)
      try poller.add(listener.descriptor, token: nextToken, interest: .read)
      listeners[nextToken] = (route, listener)
      nextToken += 1
      return .success("\(listener.address)")
    } catch {
      return .failure(ChaosError("a proxy cannot listen: \(error)"))
    }
  }

  // MARK: Events

  private func handle(_ event: PollEvent) {
    if let (route, listener) = listeners[event.token] {
      accept(route, listener)
    } else if let pipe = pipes[event.token & ~1] {
      let token = event.token & ~1
      if event.token & 1 == 0 {
        if event.isBroken, pipe.state == .connecting {
          close(token, pipe, abruptly: true)
          return
        }
        if event.isBroken, !mayRead(pipe, isNear: true) { unwatch(pipe, isNear: true) }
        if event.isReadable || event.isBroken { read(token, pipe, isNear: true) }
      } else if pipe.state == .connecting {
        finishConnecting(token, pipe)
      } else {
        if event.isBroken, !mayRead(pipe, isNear: false) { unwatch(pipe, isNear: false) }
        if event.isReadable || event.isBroken { read(token, pipe, isNear: false) }
      }
    }
  }

  private func accept(_ route: ProxyRoute, _ listener: Listener) {
    var connections: [Connection] = []
    let options = ConnectionOptions(
      outboundLimit: PipeFlow.bytesMax, unreadMax: Self.readBytes)
    // Whoever finds no descriptor free is closed, and comes again.
    _ = listener.accept(limit: 64, options: options, pool: pool, now: now, into: &connections)
    for connection in connections {
      // Even numbers: the other end has the next.
      let token = (nextToken + 1) & ~1
      nextToken = token + 2
      do {
        try connection.register(with: poller, token: token, interest: .read)
        pipes[token] = ProxyPipe(route: route, near: connection)
      } catch {
        connection.close()
      }
    }
  }

  private func connect(_ token: UInt64, _ pipe: ProxyPipe) {
    do {
      guard let address = try SocketAddress.resolve(pipe.route.target).first else { return }
      let options = ConnectionOptions(
        outboundLimit: PipeFlow.bytesMax, unreadMax: Self.readBytes)
      let far = try Connection.connect(to: address, options: options, pool: pool, now: now)
      try far.register(with: poller, token: token | 1, interest: .write)
      pipe.far = far
      pipe.state = .connecting
    } catch {
      close(token, pipe, abruptly: true)
    }
  }

  private func finishConnecting(_ token: UInt64, _ pipe: ProxyPipe) {
    switch pipe.far?.finishConnect() {
    case .connected:
      pipe.state = .open
      pipe.far?.setInterest(.read, poller: poller)
    case .inProgress: break
    case .failed, nil: close(token, pipe, abruptly: true)
    }
  }

  /// Whether bytes may be taken from that end: they have somewhere to go.
  private func mayRead(_ pipe: ProxyPipe, isNear: Bool) -> Bool {
    switch pipe.state {
    case .unknown: return isNear
    case .halfOpen: return isNear
    case .held, .connecting: return false
    case .open:
      let flow = isNear ? pipe.forward : pipe.backward
      let link = isNear ? pipe.link : pipe.returnLink
      return flow.hasRoom && !flow.hasEnded && !rule(link).isCut
    }
  }

  private func read(_ token: UInt64, _ pipe: ProxyPipe, isNear: Bool) {
    guard mayRead(pipe, isNear: isNear), let source = isNear ? pipe.near : pipe.far,
      !source.isClosed
    else { return }
    let outcome = source.read(limit: Self.readBytes, now: now)
    switch pipe.state {
    case .unknown: introduce(pipe)
    case .halfOpen: source.consume(source.unreadBytes)
    default: pass(pipe, isNear: isNear)
    }
    switch outcome {
    case .read, .wouldBlock, .full: break
    case .closed, .failed:
      if pipe.state == .open {
        source.setInterest([], poller: poller)
        if isNear { pipe.forward.hasEnded = true } else { pipe.backward.hasEnded = true }
        unwatch(pipe, isNear: isNear)
      } else {
        close(token, pipe, abruptly: false)
      }
    }
  }

  private func introduce(_ pipe: ProxyPipe) {
    guard let node = pipe.near.withUnread({ PeerHello.node(in: $0) }) else { return }
    pipe.from = .node(node)
    pipe.state = .held
  }

  private func pass(_ pipe: ProxyPipe, isNear: Bool) {
    guard let source = isNear ? pipe.near : pipe.far, source.unreadBytes > 0 else { return }
    let count = source.unreadBytes
    if isNear {
      pipe.forward.take(source.unread, rule(pipe.link), now: now, random: &random)
    } else {
      pipe.backward.take(source.unread, rule(pipe.returnLink), now: now, random: &random)
    }
    source.consume(count)
  }

  // MARK: Moving

  private func pump(_ token: UInt64) {
    guard let pipe = pipes[token] else { return }
    if pipe.state == .held, !rule(pipe.link).isCut { connect(token, pipe) }
    guard pipe.state == .open, let far = pipe.far else {
      watch(pipe, isNear: true)
      return
    }
    // What came with the introduction.
    if pipe.near.unreadBytes > 0, !rule(pipe.link).isCut { pass(pipe, isNear: true) }
    pipe.forward.move(to: far, rule(pipe.link), now: now)
    pipe.backward.move(to: pipe.near, rule(pipe.returnLink), now: now)
    guard flush(far, isBroken: pipe.isFarUnwatched),
      flush(pipe.near, isBroken: pipe.isNearUnwatched)
    else {
      close(token, pipe, abruptly: true)
      return
    }
    let isForwardDone = hasPassed(pipe.forward, far, rule(pipe.link))
    let isBackwardDone = hasPassed(pipe.backward, pipe.near, rule(pipe.returnLink))
    if isForwardDone || isBackwardDone {
      close(token, pipe, abruptly: false)
      return
    }
    watch(pipe, isNear: true)
    watch(pipe, isNear: false)
  }

  /// The sender has ended and its last byte is through.
  private func hasPassed(_ flow: PipeFlow, _ sink: Connection, _ rule: LinkRule) -> Bool {
    flow.hasEnded && flow.isEmpty && !rule.isCut && sink.pendingBytes == 0
  }

  /// False if the end is gone, and may be told so.
  private func flush(_ connection: Connection, isBroken: Bool) -> Bool {
    if isBroken { return true }
    if case .failed = connection.flush(now: now) { return false }
    return true
  }

  private func watch(_ pipe: ProxyPipe, isNear: Bool) {
    guard let end = isNear ? pipe.near : pipe.far,
      !(isNear ? pipe.isNearUnwatched : pipe.isFarUnwatched)
    else { return }
    var interest: Interest = mayRead(pipe, isNear: isNear) ? .read : []
    if end.pendingBytes > 0 { interest.insert(.write) }
    end.setInterest(interest, poller: poller)
  }

  /// An end that is broken reports so without end: it is not watched while nobody may be told.
  private func unwatch(_ pipe: ProxyPipe, isNear: Bool) {
    guard let end = isNear ? pipe.near : pipe.far, !end.isClosed else { return }
    if isNear {
      if pipe.isNearUnwatched { return }
      pipe.isNearUnwatched = true
    } else {
      if pipe.isFarUnwatched { return }
      pipe.isFarUnwatched = true
    }
    poller.remove(end.descriptor)
  }

  /// The rules changed: ends that broke behind a cut are looked at again.
  private func watchAgain(_ pipe: ProxyPipe) {
    for isNear in [true, false] {
      guard let end = isNear ? pipe.near : pipe.far, !end.isClosed,
        isNear ? pipe.isNearUnwatched : pipe.isFarUnwatched,
        !(isNear ? pipe.forward.hasEnded : pipe.backward.hasEnded)
      else { continue }
      if isNear { pipe.isNearUnwatched = false } else { pipe.isFarUnwatched = false }
      let token = end.token
      do {
        try end.register(with: poller, token: token, interest: [])
      } catch {
        pipe.close(abruptly: true)
        pipes[token & ~1] = nil
      }
    }
  }

  private func halfOpen(_ pipe: ProxyPipe) {
    guard pipe.state == .open || pipe.state == .connecting else { return }
    pipe.far?.close()
    pipe.state = .halfOpen
  }

  private func close(_ token: UInt64, _ pipe: ProxyPipe, abruptly: Bool) {
    pipe.close(abruptly: abruptly)
    pipes[token] = nil
  }
}

extension ProxyPipe.State: Equatable {}
