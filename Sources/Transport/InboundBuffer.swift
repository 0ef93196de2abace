// The bytes that a connection has read and its owner has not yet consumed, in one piece so that
// frames are parsed where they landed.
//
//     0        head             tail            capacity
//     | consumed | unread ........ | free ......... |
//
// The kernel writes at `tail`, the parser reads at `head`; a byte is moved only when the free part
// ran out in the middle of a frame. No storage is held while nothing is unread.

import Base
import Glibc

struct InboundBuffer: ~Copyable {
  private var storage: UnsafeMutableRawBufferPointer
  /// 0 <= head <= tail <= storage.count.
  private var head = 0
  private var tail = 0
  /// The size of the next storage: doubled when a read fills all that was free, halved when a few
  /// reads in a row filled little. A power of two from `BufferPool.bufferBytesMin` to `Max`.
  private var readBytes = BufferPool.bufferBytesMin
  /// The size of the frame that begins at `head`, if it was told: there is room for it. Else 0.
  private var expectedBytes = 0
  /// Reads in a row that filled less than a quarter of `readBytes`.
  private var smallReads = 0

  init() {
    // SAFETY: no storage: nothing is read or freed through it.
    storage = UnsafeMutableRawBufferPointer(start: nil, count: 0)
  }

  deinit { free(storage.baseAddress) }

  var unreadBytes: Int { tail - head }
  var capacity: Int { storage.count }
  /// Of the frame that was told; 0 if it is here, or none was told.
  var missingBytes: Int { max(0, expectedBytes - unreadBytes) }

  // SAFETY: points into `storage`: valid until the next mutation.
  var unread: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(storage)[head..<tail])
  }

  /// Reads once, at most `limit` bytes, behind what is unread.
  mutating func read(
    from descriptor: Int32, limit: Int, unreadMax: Int, pool: BufferPool
  ) -> ReadOutcome {
    let free = room(unreadMax: unreadMax, pool: pool)
    guard free.count > 0 else { return .full }
    let offered = min(free.count, max(limit, 1))
    var count: Int
    // SAFETY: `free` lies within the buffer, which nothing touches meanwhile.
    repeat {
      count = recv(descriptor, free.baseAddress, offered, 0)
    } while count < 0
      && errno == EINTR
    if count > 0 {
      filled(count, of: free.count)
      return .read(count)
    }
    let error = ErrorNumber.current
    if unreadBytes == 0 { release(to: pool) }
    if count == 0 { return .closed }
    return error.rawValue == EAGAIN ? .wouldBlock : .failed(error)
  }

  /// Where the next bytes go, at most so many that `unreadMax` bytes are unread; empty if so many
  /// are already. Moves what is unread if there is no room behind it.
  mutating func room(unreadMax: Int, pool: BufferPool) -> UnsafeMutableRawBufferPointer {
    let allowed = unreadMax - unreadBytes
    guard allowed > 0 else { return UnsafeMutableRawBufferPointer(start: nil, count: 0) }
    if unreadBytes == 0 {
      if storage.count < readBytes { replaceStorage(bytes: readBytes, pool: pool) }
      head = 0
      tail = 0
    } else if unreadBytes >= expectedBytes,
      storage.count - tail < min(allowed, storage.count / 4)
    {
      makeRoomBehindUnread(pool: pool)
    } else if unreadBytes < expectedBytes, storage.count < readBytes {
      // There is room for the frame, but what comes fills more: with a piece of a frame left over
      // each time, reads would stay as small as the first one.
      replaceStorage(bytes: readBytes, pool: pool)
    }
    var free = min(storage.count - tail, allowed)
    // What came behind a large frame would have to be moved, or copied into the next one's room.
    if expectedBytes > BufferPool.bufferBytesMax, missingBytes > 0 {
      free = min(free, missingBytes)
    }
    return UnsafeMutableRawBufferPointer(rebasing: storage[tail..<tail + free])
  }

  /// Notes that `count` bytes arrived in what `room` gave, which was `offered` bytes.
  mutating func filled(_ count: Int, of offered: Int) {
    invariant(count <= storage.count - tail, "\(count) bytes read, \(storage.count - tail) free")
    tail += count
    if count == offered {
      readBytes = min(readBytes * 2, BufferPool.bufferBytesMax)
      smallReads = 0
    } else if count < readBytes / 4 {
      smallReads += 1
      if smallReads >= 8 {
        readBytes = max(readBytes / 2, BufferPool.bufferBytesMin)
        smallReads = 0
      }
    } else {
      smallReads = 0
    }
  }

  mutating func consume(_ count: Int, pool: BufferPool) {
    invariant(
      count >= 0 && count <= unreadBytes, "consuming \(count) of \(unreadBytes) unread bytes")
    head += count
    if count > 0 { expectedBytes = 0 }
    if head == tail { release(to: pool) }
  }

  /// Makes room for `bytes` unread bytes at once, for a frame whose size is known.
  mutating func reserve(_ bytes: Int, pool: BufferPool) {
    if storage.count - head < bytes {
      if storage.count < bytes {
        replaceStorage(bytes: bytes, pool: pool)
      } else {
        compact()
      }
    }
    expectedBytes = bytes
  }

  /// Gives the storage back if nothing is unread, else the part of it that is not needed.
  mutating func trim(pool: BufferPool) {
    if unreadBytes == 0 {
      release(to: pool)
    } else if unreadBytes <= storage.count / 4 {
      expectedBytes = 0
      replaceStorage(bytes: unreadBytes, pool: pool)
    }
  }

  /// Drops everything.
  mutating func release(to pool: BufferPool) {
    pool.giveBuffer(storage)
    storage = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    head = 0
    tail = 0
    expectedBytes = 0
  }

  /// Moving less than half of a buffer to its front costs each byte less than one copy on average;
  /// with more than that in it the frame needs a larger one.
  private mutating func makeRoomBehindUnread(pool: BufferPool) {
    if unreadBytes > storage.count / 2 {
      replaceStorage(bytes: max(storage.count * 2, readBytes), pool: pool)
    } else if storage.count < readBytes {
      replaceStorage(bytes: readBytes, pool: pool)
    } else {
      compact()
    }
  }

  private mutating func compact() {
    let unread = self.unread
    storage.copyMemory(from: unread)  // May overlap: it is a memmove.
    tail = unread.count
    head = 0
  }

  private mutating func replaceStorage(bytes: Int, pool: BufferPool) {
    let larger = pool.takeBuffer(atLeast: bytes)
    let unread = self.unread
    larger.copyMemory(from: unread)
    pool.giveBuffer(storage)
    storage = larger
    tail = unread.count
    head = 0
  }
}
