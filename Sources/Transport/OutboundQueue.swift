// The bytes that a connection has yet to send: small things copied or encoded one behind the other
// into chunks, large ones as references to arrays that others hold too, all sent in the order of
// their arrival, many with one system call.
//
//     pieces: | full chunk | shared array | rest of chunk | shared array |   current: | chunk … |

import Base
import Glibc

@usableFromInline struct OutboundQueue: ~Copyable {
  /// Bytes in order, all before `current`.
  private var pieces = RingBuffer<Piece>()
  /// The most pieces there were since all was sent.
  private var piecesPeak = 0
  /// Unsent bytes of `pieces`.
  @usableFromInline var sealedBytes = 0
  /// The chunk being written. Without capacity while there is nothing to send.
  @usableFromInline var current: [UInt8] = []
  /// Bytes of `current` that were sent.
  @usableFromInline var currentStart = 0
  /// See `Connection.outboundLimit`.
  @usableFromInline var limit: Int

  struct Piece {
    let bytes: [UInt8]
    /// The unsent part; never empty.
    var range: Range<Int>
    /// Whether others may have `bytes` too; else they are chunks' or copies.
    let isShared: Bool
  }

  /// A shared piece smaller than this is copied: an entry in the kernel's list of pieces costs more
  /// than a copy of this size, and a few bytes shall not keep a large array alive.
  @usableFromInline static let sharedBytesMin = 4096
  /// Of a piece larger than this, once half of it is sent, the rest is copied. Whoever reads all but the last bytes
  /// of a message would keep all of it in memory, where `pendingBytes` tells of these only.
  private static let keptBytesMax = 2 * BufferPool.chunkBytes
  /// Pieces sent with one system call.
  private static let piecesPerCall = 64

  init(limit: Int) {
    self.limit = limit
  }

  @inlinable var pendingBytes: Int { sealedBytes &+ current.count &- currentStart }

  /// Lets `body` append to the current chunk; false, and nothing called, if the queue is full.
  @inlinable mutating func write(
    pool: BufferPool, _ body: (inout [UInt8]) -> Void
  ) -> Bool {
    guard pendingBytes < limit else { return false }
    if current.capacity == 0 { current = pool.takeChunk() }
    let before = current.count
    body(&current)
    invariant(current.count >= before, "\(before) bytes to send became \(current.count)")
    if current.count >= BufferPool.chunkBytes { seal() }
    return true
  }

  /// Queues `range` of `array` without copying it, unless it is small.
  mutating func append(shared array: [UInt8], range: Range<Int>, pool: BufferPool) -> Bool {
    invariant(
      range.lowerBound >= 0 && range.upperBound <= array.count,
      "bytes \(range) of an array of \(array.count)")
    guard range.count >= OutboundQueue.sharedBytesMin else {
      return write(pool: pool) { $0.append(contentsOf: array[range]) }
    }
    guard pendingBytes < limit else { return false }
    seal()
    enqueue(Piece(bytes: array, range: range, isShared: true))
    return true
  }

  /// Queues a copy of `head`, then the `payloads` as in `append(shared:)`: all of it, or nothing if the
  /// queue is full.
  mutating func append(frame head: [UInt8], shared payloads: [[UInt8]], pool: BufferPool) -> Bool {
    guard write(pool: pool, { $0.append(contentsOf: head) }) else { return false }
    let limit = self.limit
    self.limit = .max
    defer { self.limit = limit }
    return payloads.allSatisfy { append(shared: $0, range: 0..<$0.count, pool: pool) }
  }

  /// Makes what is in the current chunk a piece, so that something else can follow.
  @usableFromInline mutating func seal() {
    let range = currentStart..<current.count
    guard !range.isEmpty else { return }
    if range.count >= current.capacity / 2 {
      var full: [UInt8] = []
      swap(&full, &current)
      enqueue(Piece(bytes: full, range: range, isShared: false))
    } else {
      // Little in a large chunk, between two shared pieces: waiting behind a slow reader it would
      // hold memory that `pendingBytes` does not tell of.
      let copy = [UInt8](current[range])
      enqueue(Piece(bytes: copy, range: 0..<copy.count, isShared: false))
      current.removeAll(keepingCapacity: true)
    }
    currentStart = 0
  }

  private mutating func enqueue(_ piece: Piece) {
    pieces.append(piece)
    piecesPeak = max(piecesPeak, pieces.count)
    sealedBytes += piece.range.count
  }

  enum Progress {
    case flushed
    case blocked
    case failed(ErrorNumber)
  }

  /// Sends until everything is sent or the socket takes no more. `sent`: bytes that it took.
  mutating func flush(_ descriptor: Int32, pool: BufferPool) -> (progress: Progress, sent: Int) {
    var sent = 0
    while pendingBytes > 0 {
      let (offered, taken) = pieces.isEmpty ? sendCurrent(descriptor) : sendSome(descriptor)
      if taken < 0 {
        let error = ErrorNumber.current
        if error.rawValue == EINTR { continue }
        if error.rawValue == EAGAIN { return (.blocked, sent) }
        return (.failed(error), sent)
      }
      advance(taken, pool: pool)
      sent += taken
      // A part taken means that the socket is full: asking again would only say so.
      if taken < offered { return (.blocked, sent) }
    }
    return (.flushed, sent)
  }

  /// As `sendSome` where no piece is before the current chunk, as mostly.
  private func sendCurrent(_ descriptor: Int32) -> (offered: Int, taken: Int) {
    current.withUnsafeBytes {
      let part = UnsafeRawBufferPointer(rebasing: $0[currentStart...])
      // No SIGPIPE from a reader that went away: it is an outcome.
      return (part.count, send(descriptor, part.baseAddress, part.count, Int32(MSG_NOSIGNAL)))
    }
  }

  /// One system call. Returns the bytes offered and the bytes taken, negative with `errno`.
  private func sendSome(_ descriptor: Int32) -> (offered: Int, taken: Int) {
    withUnsafeTemporaryAllocation(of: iovec.self, capacity: OutboundQueue.piecesPerCall) {
      list in
      var count = 0
      var offered = 0
      // SAFETY: the addresses are used after `withUnsafeBytes` returned. They stay right until
      // sendmsg has: each array lives in `pieces` or `current`, neither is touched here, and an
      // array's bytes do not move while somebody holds it and nobody writes to it (whoever holds a
      // shared one too and writes to it makes a copy).
      func offer(_ bytes: [UInt8], _ range: Range<Int>) {
        bytes.withUnsafeBytes {
          let part = UnsafeRawBufferPointer(rebasing: $0[range])
          list[count] = iovec(
            iov_base: UnsafeMutableRawPointer(mutating: part.baseAddress), iov_len: part.count)
        }
        count += 1
        offered += range.count
      }
      while count < min(pieces.count, list.count) {
        let piece = pieces[count]
        offer(piece.bytes, piece.range)
      }
      if count == pieces.count, count < list.count, currentStart < current.count {
        offer(current, currentStart..<current.count)
      }
      var message = msghdr()
      message.msg_iov = list.baseAddress
      message.msg_iovlen = count
      return (offered, sendmsg(descriptor, &message, Int32(MSG_NOSIGNAL)))
    }
  }

  /// Drops the first `count` bytes, which were sent.
  private mutating func advance(_ count: Int, pool: BufferPool) {
    currentStart += pieces.isEmpty ? count : advancePieces(count, pool: pool)
    if pendingBytes == 0 { release(to: pool) }
  }

  /// Drops of `count` sent bytes those that pieces have. Returns how many are left.
  private mutating func advancePieces(_ count: Int, pool: BufferPool) -> Int {
    var left = count
    while left > 0, !pieces.isEmpty {
      let range = pieces[0].range
      guard left >= range.count else {
        pieces[0].range = range.lowerBound + left..<range.upperBound
        sealedBytes -= left
        shrinkFirst()
        return 0
      }
      left -= range.count
      sealedBytes -= range.count
      if let done = pieces.popFirst(), !done.isShared { pool.giveChunk(done.bytes) }
    }
    return left
  }

  private mutating func shrinkFirst() {
    let piece = pieces[0]
    guard !piece.isShared, piece.bytes.count > Self.keptBytesMax,
      piece.range.count <= piece.bytes.count / 2
    else { return }
    let rest = [UInt8](piece.bytes[piece.range])
    pieces[0] = Piece(bytes: rest, range: 0..<rest.count, isShared: false)
  }

  /// Memory that the unsent bytes keep, shared arrays left out: at most twice as much as these, and a little.
  var heldBytes: Int {
    (0..<pieces.count).reduce(current.count) {
      pieces[$1].isShared ? $0 : $0 + pieces[$1].bytes.count
    }
  }

  /// Drops everything and gives the memory back.
  mutating func release(to pool: BufferPool) {
    while !pieces.isEmpty, let piece = pieces.popFirst() {
      if !piece.isShared { pool.giveChunk(piece.bytes) }
    }
    // What a slow reader made the ring grow to is not kept for ever.
    if piecesPeak > OutboundQueue.piecesPerCall { pieces.removeAll() }
    piecesPeak = 0
    var chunk: [UInt8] = []
    swap(&chunk, &current)
    pool.giveChunk(chunk)
    currentStart = 0
    sealedBytes = 0
  }
}
