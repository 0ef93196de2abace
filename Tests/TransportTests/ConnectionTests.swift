// Connections over real loopback sockets, the loop turned by hand.

import Base
import Glibc
import Testing

@testable import Transport

@Suite struct ConnectionTests {
  @Test func `megabytes echo unharmed through small socket buffers`() throws {
    let pair = try LoopbackPair(ConnectionOptions(socketBufferBytes: 32 << 10))
    let sent = pattern(3 << 20)
    #expect(pair.client.append(sent))
    var blocked = 0
    var echoed: [UInt8] = []
    pair.client.setInterest([.read, .write], poller: pair.poller)
    pair.server.setInterest(.read, poller: pair.poller)
    while echoed.count < sent.count {
      for event in try pair.waitForAny() {
        let connection = event.token == 1 ? pair.client : pair.server
        if event.isReadable, case .read = connection.read(now: .zeroTime) {
          if event.token == 1 {
            echoed.append(contentsOf: connection.unread)
          } else {
            #expect(connection.append(connection.unread))
          }
          connection.consume(connection.unreadBytes)
        }
        let outcome = connection.flush(now: .zeroTime)
        blocked += outcome == .blocked ? 1 : 0
        connection.setInterest(
          outcome == .blocked ? [.read, .write] : .read, poller: pair.poller)
      }
    }
    #expect(echoed == sent)
    #expect(blocked > 0)
    #expect(pair.client.pendingBytes == 0 && pair.server.pendingBytes == 0)
  }

  @Test func `small, encoded and shared pieces leave in the order they came`() throws {
    let seed: UInt64 = 20_261
    var random = SeededRandom(seed: seed)
    let pair = try LoopbackPair(ConnectionOptions(outboundLimit: 64 << 20))
    let large = pattern(200_000)
    var expected: [UInt8] = []
    for _ in 0..<300 {
      let start = Int.random(in: 0..<100_000, using: &random)
      let size = Int.random(in: 0..<(Bool.random(using: &random) ? 200 : 30_000), using: &random)
      let range = start..<start + size
      expected.append(contentsOf: large[range])
      switch Int.random(in: 0..<4, using: &random) {
      case 0: #expect(pair.client.append(shared: large, range: range))
      case 1: #expect(pair.client.append(Array(large[range])))
      case 2: #expect(pair.client.write { $0.append(contentsOf: large[range]) })
      default: #expect(large.withUnsafeBytes { pair.client.append(.init(rebasing: $0[range])) })
      }
    }
    #expect(pair.client.pendingBytes == expected.count)
    let received = try pair.transfer(from: pair.client, to: pair.server, count: expected.count)
    #expect(received == expected, "seed \(seed): swift test --filter ConnectionTests")
  }

  @Test func `a shared array is neither copied nor kept after it was sent`() throws {
    let pair = try LoopbackPair()
    var large = pattern(50_000)
    let before = large.withUnsafeBytes { $0.baseAddress }
    #expect(pair.client.append(shared: large))
    #expect(pair.client.append(shared: large, range: 10_000..<20_000))
    let received = try pair.transfer(from: pair.client, to: pair.server, count: 60_000)
    #expect(received == large + large[10_000..<20_000])
    // Nobody else holds it: writing to it does not move it.
    large[0] ^= 1
    #expect(large.withUnsafeBytes { $0.baseAddress } == before)
  }

  @Test func `changing a shared array after it was queued does not change what is sent`() throws {
    let pair = try LoopbackPair()
    var large = pattern(50_000)
    let asQueued = large
    #expect(pair.client.append(shared: large))
    large.reverse()
    #expect(
      try pair.transfer(from: pair.client, to: pair.server, count: 50_000) == asQueued)
  }

  @Test func `from the limit on nothing more is queued until some is sent`() throws {
    let pair = try LoopbackPair(ConnectionOptions(outboundLimit: 1000))
    let client = pair.client
    #expect(client.append([UInt8](repeating: 1, count: 999)))
    #expect(client.hasRoom)
    #expect(client.append(shared: [UInt8](repeating: 2, count: 5000)))
    #expect(client.pendingBytes == 5999 && !client.hasRoom)
    var called = false
    #expect(!client.write { _ in called = true })
    #expect(!client.append([3]) && !client.append(shared: [3]) && !called)
    #expect(client.flush(now: .zeroTime) == .flushed)
    #expect(client.pendingBytes == 0 && client.hasRoom)
    #expect(client.append([3]))
    #expect(try pair.transfer(from: client, to: pair.server, count: 6000).count == 6000)
  }

  @Test func `a frame is encoded behind earlier ones and can patch its own length`() throws {
    let pair = try LoopbackPair()
    for text in ["first", "second"] {
      #expect(
        pair.client.write { bytes in
          let start = bytes.count
          bytes.put(UInt32(0))
          bytes.append(contentsOf: text.utf8)
          bytes.patch(UInt32(bytes.count - start - 4), at: start)
        })
    }
    let received = try pair.transfer(from: pair.client, to: pair.server, count: 19)
    #expect(received == [5, 0, 0, 0] + "first".utf8 + [6, 0, 0, 0] + "second".utf8)
  }

  @Test func `idle connections hold no memory, before and after traffic`() throws {
    let pair = try LoopbackPair()
    #expect(pair.server.inboundCapacity == 0)
    for _ in 0..<3 {
      #expect(pair.client.append(shared: pattern(300_000)))
      _ = try pair.transfer(from: pair.client, to: pair.server, count: 300_000)
    }
    #expect(pair.server.inboundCapacity == 0 && pair.client.pendingBytes == 0)
    #expect(pair.client.outbound.current.capacity == 0)
    // Asking when nothing is there leaves nothing behind either.
    #expect(pair.server.read(now: .zeroTime) == .wouldBlock)
    #expect(pair.server.inboundCapacity == 0)
  }

  @Test func `a frame larger than every buffer arrives in one piece`() throws {
    let pair = try LoopbackPair(ConnectionOptions(unreadMax: 2 << 20))
    let frame = pattern(2 << 20)
    #expect(pair.client.append(shared: frame))
    while pair.server.unreadBytes < frame.count {
      if case .failed(let error) = pair.client.flush(now: .zeroTime) { throw error }
      _ = try pair.wait(for: pair.server, .read)
      guard case .read = pair.server.read(now: .zeroTime) else { throw LoopbackPair.Stuck() }
    }
    #expect(pair.server.withUnread { isSame($0, frame) })
    // So much is allowed and no more.
    #expect(pair.client.append([1]))
    #expect(pair.client.flush(now: .zeroTime) == .flushed)
    _ = try pair.wait(for: pair.server, .read)
    #expect(pair.server.read(now: .zeroTime) == .full)
    pair.server.consume(frame.count)
    #expect(pair.server.read(now: .zeroTime) == .read(1))
    pair.server.consume(1)
    #expect(pair.server.inboundCapacity == 0)
  }

  @Test func `a peer that ends in the middle of a frame leaves what it sent and an end`() throws {
    let pair = try LoopbackPair()
    #expect(pair.client.append([1, 2, 3]))
    #expect(pair.client.flush(now: .zeroTime) == .flushed)
    pair.client.close()
    _ = try pair.wait(for: pair.server, .read)
    #expect(pair.server.read(now: .zeroTime) == .read(3))
    _ = try pair.wait(for: pair.server, .read)
    #expect(pair.server.read(now: .zeroTime) == .closed)
    #expect(pair.server.read(now: .zeroTime) == .closed)
    #expect(Array(pair.server.unread) == [1, 2, 3])
  }

  @Test func `a reset is an outcome of reading and of writing, not a signal`() throws {
    let pair = try LoopbackPair()
    #expect(pair.server.append([1]))
    #expect(pair.server.flush(now: .zeroTime) == .flushed)
    _ = try pair.wait(for: pair.client, .read)
    // Closing with unread bytes resets.
    pair.client.close()
    let event = try pair.wait(for: pair.server, .read)
    #expect(event.isReadable && event.isBroken)
    #expect(pair.server.read(now: .zeroTime) == .failed(ErrorNumber(ECONNRESET)))
    #expect(pair.server.append([2]))
    #expect(pair.server.flush(now: .zeroTime) == .failed(ErrorNumber(EPIPE)))
  }

  @Test func `after shutting down its output a connection still reads`() throws {
    let pair = try LoopbackPair()
    #expect(pair.client.append([1]))
    #expect(pair.client.flush(now: .zeroTime) == .flushed)
    pair.client.shutdownOutput()
    try pair.read(pair.server, until: 1)
    _ = try pair.wait(for: pair.server, .read)
    #expect(pair.server.read(now: .zeroTime) == .closed)
    #expect(pair.server.append([2]))
    #expect(pair.server.flush(now: .zeroTime) == .flushed)
    try pair.read(pair.client, until: 1)
    #expect(Array(pair.client.unread) == [2])
  }

  @Test func `closing twice is one close, and releasing closes`() throws {
    let pair = try LoopbackPair()
    #expect(pair.client.append([1]))
    pair.client.close()
    pair.client.close()
    #expect(pair.client.isClosed && pair.client.descriptor == -1)
    #expect(pair.client.localAddress == nil && pair.client.pendingBytes == 0)
    #expect(!pair.client.append([1]) && !pair.client.hasRoom)
    #expect(pair.client.flush(now: .zeroTime) == .flushed)
    #expect(pair.client.read(now: .zeroTime) == .closed)
    _ = try pair.wait(for: pair.server, .read)
    #expect(pair.server.read(now: .zeroTime) == .closed)

    let listener = try Listener(.loopback(port: 0))
    var released: Connection? = try Connection.connect(
      to: listener.address, pool: pair.pool, now: .zeroTime)
    let descriptor = try #require(released?.descriptor)
    let address = released?.localAddress
    released = nil
    // The number may be another's by now, but not that socket's.
    #expect(SocketAddress.local(of: descriptor) != address)
  }

  @Test func `the times of the last read and of the last progress are kept`() throws {
    let pair = try LoopbackPair(ConnectionOptions(outboundLimit: 64 << 20))
    let (client, server) = (pair.client, pair.server)
    #expect(server.lastReadTime == MonotonicTime(0) && client.stalledSince == nil)
    #expect(client.append([1]))
    #expect(client.flush(now: MonotonicTime(5)) == .flushed)
    #expect(client.stalledSince == nil)
    try pair.read(server, until: 1, now: MonotonicTime(7))
    #expect(server.read(now: MonotonicTime(8)) == .wouldBlock)
    #expect(server.lastReadTime == MonotonicTime(7))
    // A reader that has stopped: the socket fills and then takes nothing more.
    var size = 0
    while client.flush(now: MonotonicTime(10)) == .flushed {
      size += 1 << 20
      #expect(client.append(shared: [UInt8](repeating: 0, count: 1 << 20)))
    }
    #expect(client.stalledSince == MonotonicTime(10))
    while client.flush(now: MonotonicTime(11)) == .blocked, client.stalledSince?.rawValue == 11 {}
    let stalled = try #require(client.stalledSince)
    #expect(client.flush(now: MonotonicTime(90)) == .blocked)
    #expect(client.stalledSince == stalled)
    // It reads again.
    _ = try pair.transfer(from: client, to: server, count: size + 1 - server.unreadBytes)
    #expect(client.flush(now: MonotonicTime(95)) == .flushed)
    #expect(client.stalledSince == nil)
  }

  @Test func `the last bytes of a large message do not keep all of it in memory`() throws {
    let pair = try LoopbackPair(ConnectionOptions(outboundLimit: 64 << 20))
    let (client, server) = (pair.client, pair.server)
    let bytes = pattern(20 << 20)
    #expect(client.append(bytes))
    #expect(client.flush(now: .zeroTime) == .blocked)
    var received: [UInt8] = []
    while client.pendingBytes > 0 {
      _ = server.read(now: .zeroTime)
      received += [UInt8](server.unread)
      server.consume(server.unreadBytes)
      _ = client.flush(now: .zeroTime)
      let (held, pending) = (client.outbound.heldBytes, client.pendingBytes)
      #expect(held <= max(2 * pending, 128 << 10), "\(held) for \(pending)")
    }
    received += try pair.transfer(from: client, to: server, count: bytes.count - received.count)
    #expect(received == bytes)
  }

  @Test func `socket options reach the socket`() throws {
    let options = ConnectionOptions(
      keepAlive: .init(idleSeconds: 7, intervalSeconds: 3, probes: 2),
      userTimeout: .milliseconds(1500))
    let pair = try LoopbackPair(options)
    for connection in [pair.client, pair.server] {
      let tcp = Int32(IPPROTO_TCP)
      #expect(option(connection, tcp, TCP_NODELAY) == 1)
      #expect(option(connection, SOL_SOCKET, SO_KEEPALIVE) == 1)
      #expect(option(connection, tcp, TCP_KEEPIDLE) == 7)
      #expect(option(connection, tcp, TCP_KEEPINTVL) == 3)
      #expect(option(connection, tcp, TCP_KEEPCNT) == 2)
      #expect(option(connection, tcp, TCP_USER_TIMEOUT) == 1500)
      #expect(fcntl(connection.descriptor, F_GETFD) & FD_CLOEXEC != 0)
      #expect(fcntl(connection.descriptor, F_GETFL) & O_NONBLOCK != 0)
    }
  }

  private func option(_ connection: Connection, _ level: Int32, _ option: Int32) -> Int32 {
    var value: Int32 = -1
    var size = socklen_t(MemoryLayout<Int32>.size)
    getsockopt(connection.descriptor, level, option, &value, &size)
    return value
  }
}

@Suite struct ConnectTests {
  @Test func `both ends know each other`() throws {
    let pair = try LoopbackPair()
    #expect(pair.client.peer == pair.listener.address)
    #expect(pair.server.peer == pair.client.localAddress)
    #expect(pair.client.finishConnect() == .connected)
  }

  @Test func `a refused connection is an outcome`() throws {
    // Bound and not listening: nobody can be there, and nobody else can come there.
    let holder = try openSocket(family: AF_INET)
    defer { closeDescriptor(holder) }
    let wildcard = SocketAddress.loopback(port: 0)
    #expect(wildcard.withSystemAddress { bind(holder, $0, $1) } == 0)
    let address = try #require(SocketAddress.local(of: holder))

    let poller = try Poller()
    let connection = try Connection.connect(to: address, pool: BufferPool(), now: .zeroTime)
    #expect(connection.append([1]))
    #expect(connection.flush(now: .zeroTime) == .blocked)
    try connection.register(with: poller, token: 1, interest: .write)
    var events: [PollEvent] = []
    poller.wait(timeout: .seconds(10), into: &events)
    #expect(events.count == 1)
    #expect(connection.finishConnect() == .failed(ErrorNumber(ECONNREFUSED)))
    #expect("\(ErrorNumber(ECONNREFUSED))" == "Connection refused")
  }

  @Test func `an address that cannot be connected to fails the same way`() throws {
    // A broadcast address is refused by connect(2) itself.
    let address = try SocketAddress(parsing: "255.255.255.255:80")
    let poller = try Poller()
    let connection = try Connection.connect(to: address, pool: BufferPool(), now: .zeroTime)
    try connection.register(with: poller, token: 1, interest: .write)
    var events: [PollEvent] = []
    poller.wait(timeout: .seconds(10), into: &events)
    #expect(events.count == 1)
    guard case .failed = connection.finishConnect() else {
      Issue.record("connected to everybody")
      return
    }
  }

  @Test func `a socket that met itself is refused`() throws {
    let descriptor = try openSocket(family: AF_INET)
    #expect(
      SocketAddress.loopback(port: 0).withSystemAddress { bind(descriptor, $0, $1) } == 0)
    let own = try #require(SocketAddress.local(of: descriptor))
    let connection = Connection.connect(
      descriptor, to: own, options: ConnectionOptions(), pool: BufferPool(), now: .zeroTime)
    let poller = try Poller()
    try connection.register(with: poller, token: 1, interest: .write)
    var events: [PollEvent] = []
    poller.wait(timeout: .seconds(10), into: &events)
    #expect(connection.finishConnect() == .failed(ErrorNumber(ECONNREFUSED)))
  }

  @Test func `what was queued while connecting is sent when connected`() throws {
    let listener = try Listener(.loopback(port: 0))
    let poller = try Poller()
    let pool = BufferPool()
    let client = try Connection.connect(to: listener.address, pool: pool, now: .zeroTime)
    #expect(client.isConnecting)
    #expect(client.append([1, 2]))
    #expect(client.flush(now: .zeroTime) == .blocked)
    #expect(client.stalledSince == nil)
    try client.register(with: poller, token: 1, interest: .write)
    var events: [PollEvent] = []
    poller.wait(timeout: .seconds(10), into: &events)
    #expect(client.finishConnect() == .connected)
    #expect(client.flush(now: .zeroTime) == .flushed)
    var accepted: [Connection] = []
    #expect(listener.accept(limit: 5, pool: pool, now: .zeroTime, into: &accepted) == .drained)
    try #require(accepted.count == 1)
    try accepted[0].register(with: poller, token: 2, interest: .read)
    client.setInterest([], poller: poller)
    poller.wait(timeout: .seconds(10), into: &events)
    #expect(accepted[0].read(now: .zeroTime) == .read(2))
  }
}
