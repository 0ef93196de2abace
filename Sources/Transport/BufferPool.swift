// Memory that the connections of one loop share: a connection holds buffers only while it has
// unread or unsent bytes, so that 10,000 idle ones cost next to nothing, and a busy loop uses the
// same few, cache-warm buffers over and over instead of asking malloc.

import Glibc

/// Spare buffers for reading and chunks for writing. Belongs to one thread.
@usableFromInline package final class BufferPool {
  /// The smallest and largest buffer that is kept; between them, powers of two.
  static let bufferBytesMin = 4 << 10
  static let bufferBytesMax = 256 << 10
  /// A chunk is full at this size; one frame may take it beyond.
  @usableFromInline static let chunkBytes = 64 << 10
  /// A chunk that grew larger than this is given back to malloc.
  static let chunkCapacityMax = 3 * chunkBytes

  /// Bytes that are kept at most, of buffers and of chunks each.
  private let keptBytesMax: Int
  private var keptBufferBytes = 0
  private var keptChunkBytes = 0
  /// Spare buffers by size: element n holds those of `bufferBytesMin << n` bytes.
  private var buffers: [[UnsafeMutableRawPointer]] = Array(repeating: [], count: 7)
  /// Spare chunks, all empty.
  private var chunks: [[UInt8]] = []

  /// `keptBytesMax`: what may lie idle here, of reading and of writing buffers each.
  package init(keptBytesMax: Int = 4 << 20) {
    self.keptBytesMax = keptBytesMax
  }

  deinit {
    for list in buffers { for buffer in list { free(buffer) } }
  }

  /// A buffer of at least `bytes` with any content; the caller gives it back or frees it.
  func takeBuffer(atLeast bytes: Int) -> UnsafeMutableRawBufferPointer {
    guard let size = BufferPool.keptSize(atLeast: bytes) else {
      // Beyond what is kept, only to whole pages: a 17 MiB frame shall not cost 32 MiB.
      return BufferPool.allocate((bytes + 4095) & ~4095)
    }
    guard let buffer = buffers[size.index].popLast() else {
      return BufferPool.allocate(size.bytes)
    }
    keptBufferBytes -= size.bytes
    return UnsafeMutableRawBufferPointer(start: buffer, count: size.bytes)
  }

  func giveBuffer(_ buffer: UnsafeMutableRawBufferPointer) {
    guard let base = buffer.baseAddress else { return }
    guard let size = BufferPool.keptSize(atLeast: buffer.count), size.bytes == buffer.count,
      keptBufferBytes + size.bytes <= keptBytesMax
    else {
      free(base)
      return
    }
    keptBufferBytes += size.bytes
    buffers[size.index].append(base)
  }

  /// An empty array to write to, with room left from its last use if there was one.
  @usableFromInline func takeChunk() -> [UInt8] {
    guard let chunk = chunks.popLast() else {
      var chunk: [UInt8] = []
      chunk.reserveCapacity(BufferPool.bufferBytesMin)
      return chunk
    }
    keptChunkBytes -= chunk.capacity
    return chunk
  }

  func giveChunk(_ used: consuming [UInt8]) {
    var chunk = used
    chunk.removeAll(keepingCapacity: true)
    let capacity = chunk.capacity
    guard capacity >= BufferPool.bufferBytesMin, capacity <= BufferPool.chunkCapacityMax,
      keptChunkBytes + capacity <= keptBytesMax
    else { return }
    keptChunkBytes += capacity
    chunks.append(chunk)
  }

  /// What lies idle here, bytes.
  package var keptBytes: Int { keptBufferBytes + keptChunkBytes }

  private static func allocate(_ bytes: Int) -> UnsafeMutableRawBufferPointer {
    guard let base = malloc(bytes) else {
      // Linux overcommits; where it does not, nothing sensible can follow.
      fatalError("no memory for a buffer of \(bytes) bytes")
    }
    return UnsafeMutableRawBufferPointer(start: base, count: bytes)
  }

  /// The kept size that has room for `bytes`, and its index; nil if larger than any.
  private static func keptSize(atLeast bytes: Int) -> (bytes: Int, index: Int)? {
    guard bytes <= bufferBytesMax else { return nil }
    var size = bufferBytesMin
    var index = 0
    while size < bytes {
      size <<= 1
      index += 1
    }
    return (size, index)
  }
}
