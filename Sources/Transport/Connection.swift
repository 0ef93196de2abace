// One TCP connection, never blocking, driven by its owner's loop: the owner asks a `Poller` when
// there is something to read or room to write and then calls `read` or `flush` here. Nothing is
// called back.
//
// One turn: `read`, parse frames out of `unread`, `consume` them at once; queue answers with
// `write` and `append`; at the end of the turn `flush`, and ask for `.write` events only while
// that says `.blocked`.

import Base
import Glibc

/// What came of reading.
package enum ReadOutcome: Hashable, Sendable {
  /// So many bytes were added to `unread`, at least one.
  case read(Int)
  /// Nothing has arrived.
  case wouldBlock
  /// `unread` holds `unreadMax` bytes: consume some first, or drop the `.read` interest. A frame
  /// that is not complete at that size is too large.
  case full
  /// The peer sends nothing more. What is unread can still be parsed.
  case closed
  /// The connection is broken (ECONNRESET, ETIMEDOUT, …).
  case failed(ErrorNumber)
}

/// What came of sending.
package enum WriteOutcome: Hashable, Sendable {
  /// Nothing is left to send.
  case flushed
  /// The socket takes no more now (or is not connected yet): flush again when it is writable.
  case blocked
  /// The connection is broken (EPIPE, ECONNRESET, ETIMEDOUT, …).
  case failed(ErrorNumber)
}

/// What came of connecting.
package enum ConnectOutcome: Hashable, Sendable {
  case connected
  /// Still under way: wait for the socket to become writable.
  case inProgress
  /// Refused, unreachable, timed out, ….
  case failed(ErrorNumber)
}

/// A TCP connection. Belongs to one thread; closed at the latest when it is released.
@usableFromInline package final class Connection {
  fileprivate enum State {
    /// With the error that connect(2) answered at once, if any.
    case connecting(ErrorNumber?)
    case open
    case closed
  }

  /// The other end.
  package let peer: SocketAddress
  // Each access to these two costs a check that there is no other, since they are lent to functions.
  // To private properties that are only read and set there can be no other, and the compiler knows.
  private var inbound = InboundBuffer()
  @usableFromInline var outbound: OutboundQueue
  @usableFromInline let pool: BufferPool
  private var state = State.open
  private var ownDescriptor: Int32
  private var ownToken: UInt64 = 0
  private var ownInterest: Interest = []
  private var readTime: MonotonicTime
  private var stallTime: MonotonicTime?
  private var unreadLimit: Int

  /// -1 once closed.
  package var descriptor: Int32 { ownDescriptor }
  /// What a `Poller` answers for this connection; see `register`.
  package var token: UInt64 { ownToken }
  /// What the owner wants to hear; see `setInterest`.
  package var interest: Interest { ownInterest }
  /// When bytes arrived last, at first when it was made.
  package var lastReadTime: MonotonicTime { readTime }
  /// Since when the socket has taken none of the bytes waiting to be sent; nil while none wait.
  package var stalledSince: MonotonicTime? { stallTime }
  /// Unread bytes held at most. Set it to the largest frame that the protocol's state allows.
  package var unreadMax: Int {
    get { unreadLimit }
    set { unreadLimit = newValue }
  }

  init(
    adopting descriptor: Int32, peer: SocketAddress, options: ConnectionOptions,
    pool: BufferPool, now: MonotonicTime
  ) {
    self.peer = peer
    self.pool = pool
    ownDescriptor = descriptor
    readTime = now
    unreadLimit = options.unreadMax
    outbound = OutboundQueue(limit: options.outboundLimit)
    options.apply(to: descriptor)
  }

  deinit { close() }

  /// Begins to connect. Register it for `.write`; when that comes (or `isBroken`), ask
  /// `finishConnect`. Refusals are told there too, never here.
  ///
  /// Throws EMFILE, ENFILE or ENOMEM when there is no socket to be had.
  package static func connect(
    to peer: SocketAddress, options: ConnectionOptions = ConnectionOptions(), pool: BufferPool,
    now: MonotonicTime
  ) throws(ErrorNumber) -> Connection {
    connect(
      try openSocket(family: peer.family), to: peer, options: options, pool: pool, now: now)
  }

  /// The same with a socket that was made, and perhaps bound, before.
  static func connect(
    _ descriptor: Int32, to peer: SocketAddress, options: ConnectionOptions, pool: BufferPool,
    now: MonotonicTime
  ) -> Connection {
    let connection = Connection(
      adopting: descriptor, peer: peer, options: options, pool: pool, now: now)
    let result = peer.withSystemAddress { Glibc.connect(descriptor, $0, $1) }
    let error = ErrorNumber.current
    // An interrupted connect goes on like one in progress.
    let goesOn = result == 0 || error.rawValue == EINPROGRESS || error.rawValue == EINTR
    connection.state = .connecting(goesOn ? nil : error)
    return connection
  }

  /// What became of connecting; `.connected` also if that was long ago.
  package func finishConnect() -> ConnectOutcome {
    guard case .connecting(let refused) = state else {
      return isClosed ? .failed(ErrorNumber(EBADF)) : .connected
    }
    if let refused { return .failed(refused) }
    let error = takeSocketError()
    if error != 0 { return .failed(ErrorNumber(error)) }
    guard let other = SocketAddress.peer(of: descriptor) else { return .inProgress }
    // Connecting to a free port of its own range, a socket may meet itself (both ends open at
    // once): there is nobody at that address.
    if other == localAddress { return .failed(ErrorNumber(ECONNREFUSED)) }
    state = .open
    return .connected
  }

  package var isConnecting: Bool {
    if case .connecting = state { true } else { false }
  }

  package var isClosed: Bool {
    if case .closed = state { true } else { false }
  }

  /// The own end; nil once closed.
  package var localAddress: SocketAddress? {
    isClosed ? nil : SocketAddress.local(of: descriptor)
  }

  /// Closes at once; what was not sent is lost. May be called again.
  package func close() {
    guard !isClosed else { return }
    closeDescriptor(ownDescriptor)
    state = .closed
    ownDescriptor = -1
    ownInterest = []
    stallTime = nil
    inbound.release(to: pool)
    outbound.release(to: pool)
    outbound.limit = 0
  }

  /// Tells the peer that nothing more comes, after what was flushed. To give a last word to a peer
  /// that may still be sending: shut down, then read and drop until `.closed`. Closing with unread
  /// bytes would reset the connection and could take the last word away from the peer.
  package func shutdownOutput() {
    guard case .open = state else { return }
    // It fails only if the peer is gone already, which reading tells.
    _ = shutdown(descriptor, Int32(SHUT_WR))
  }

  private func takeSocketError() -> Int32 {
    var error: Int32 = 0
    var size = socklen_t(MemoryLayout<Int32>.size)
    let result = getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size)
    return result < 0 ? errno : error
  }
}

// Events.
extension Connection {
  /// Has `poller` watch this connection. `token` is its alone for the life of the poller.
  ///
  /// Throws ENOSPC or ENOMEM when the kernel has no room to watch another one.
  package func register(
    with poller: Poller, token: UInt64, interest: Interest
  ) throws(ErrorNumber) {
    try poller.add(descriptor, token: token, interest: interest)
    ownToken = token
    ownInterest = interest
  }

  /// Changes what `poller` watches for; a system call only if it differs.
  package func setInterest(_ interest: Interest, poller: Poller) {
    guard interest != ownInterest, !isClosed else { return }
    poller.modify(ownDescriptor, token: ownToken, interest: interest)
    ownInterest = interest
  }
}

// Reading.
extension Connection {
  /// Reads once, at most `limit` bytes, behind what is unread. Reads of 64 to 256 KiB cost least.
  package func read(limit: Int = 256 << 10, now: MonotonicTime) -> ReadOutcome {
    guard !isClosed else { return .closed }
    let outcome = inbound.read(
      from: ownDescriptor, limit: limit, unreadMax: unreadLimit, pool: pool)
    if case .read = outcome { readTime = now }
    return outcome
  }

  /// Bytes read and not consumed.
  package var unreadBytes: Int { inbound.unreadBytes }

  /// The bytes read and not consumed, in one piece. Valid until the next `read`, `consume`,
  /// `expect`, `trim` or `close`.
  package var unread: UnsafeRawBufferPointer { inbound.unread }

  /// Calls `body` with the bytes read and not consumed. It must not read, consume or close.
  package func withUnread<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    body(inbound.unread)
  }

  /// Drops the first `count` unread bytes. Parse all that is there and consume it at once.
  package func consume(_ count: Int) {
    inbound.consume(count, pool: pool)
  }

  /// Makes room for a frame of `frameBytes`, of which the first are unread already, so that a
  /// large one is not moved as it grows. At most `unreadMax`.
  package func expect(_ frameBytes: Int) {
    invariant(
      frameBytes <= unreadLimit,
      "a frame of \(frameBytes) bytes where \(unreadLimit) are allowed")
    guard !isClosed else { return }
    inbound.reserve(frameBytes, pool: pool)
  }

  /// How much of the frame is missing that `expect` was told of; 0 if it is there, or none was told.
  package var missingBytes: Int { inbound.missingBytes }

  /// Gives back memory that the unread bytes do not need. For connections that have been silent in
  /// the middle of a frame; without unread bytes none is held anyway.
  package func trim() {
    inbound.trim(pool: pool)
  }

  /// Memory held for unread bytes.
  package var inboundCapacity: Int { inbound.capacity }
}

// Writing.
extension Connection {
  /// Unsent bytes.
  @inlinable package var pendingBytes: Int { outbound.pendingBytes }

  /// Unsent bytes from which on `write` and `append` refuse. They take a whole frame while there
  /// are fewer, so the queue may exceed this by one frame (and a frame larger than it can be sent).
  /// 0 once closed.
  package var outboundLimit: Int { outbound.limit }

  /// Whether `write` and `append` would take something.
  @inlinable package var hasRoom: Bool { outbound.pendingBytes < outbound.limit }

  /// Lets `body` append frames to the bytes to be sent; it finds earlier ones there and only adds.
  /// It must not touch the connection. False, and nothing called, if the queue is full or the
  /// connection closed.
  @inlinable package func write(_ body: (inout [UInt8]) -> Void) -> Bool {
    outbound.write(pool: pool, body)
  }

  /// Queues a copy of `bytes`. False if the queue is full or the connection closed.
  @inlinable package func append(_ bytes: UnsafeRawBufferPointer) -> Bool {
    write { $0.append(contentsOf: bytes) }
  }

  /// Queues a copy of `bytes`. False if the queue is full or the connection closed.
  @inlinable package func append(_ bytes: [UInt8]) -> Bool {
    write { $0.append(contentsOf: bytes) }
  }

  /// Queues `range` of `array` (nil: all of it) and keeps the array alive until it is sent, without
  /// a copy unless it is small. The same array may go to many connections.
  /// False if the queue is full or the connection closed.
  package func append(shared array: [UInt8], range: Range<Int>? = nil) -> Bool {
    outbound.append(shared: array, range: range ?? 0..<array.count, pool: pool)
  }

  /// Queues a frame of several pieces, all of it or nothing: a copy of `head`, then the `payloads`
  /// as in `append(shared:)`. False if the queue is full or the connection closed.
  package func append(frame head: [UInt8], shared payloads: [[UInt8]]) -> Bool {
    outbound.append(frame: head, shared: payloads, pool: pool)
  }

  /// Sends what is queued, many pieces with one system call. `.flushed` if there was nothing.
  package func flush(now: MonotonicTime) -> WriteOutcome {
    guard case .open = state else { return pendingBytes > 0 ? .blocked : .flushed }
    let (progress, sent) = outbound.flush(ownDescriptor, pool: pool)
    switch progress {
    case .flushed:
      stallTime = nil
      return .flushed
    case .blocked:
      if sent > 0 || stallTime == nil { stallTime = now }
      return .blocked
    case .failed(let error):
      return .failed(error)
    }
  }
}

/// A TCP socket, non-blocking and not inherited by child processes.
func openSocket(family: Int32) throws(ErrorNumber) -> Int32 {
  let kind = SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue
  let descriptor = socket(family, Int32(kind), 0)
  guard descriptor >= 0 else { throw .current }
  return descriptor
}
