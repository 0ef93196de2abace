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

  /// What lies idle. In one struct: each access to a property of a class costs a check that there is
  /// no other.
  private struct Spares {
    var bufferBytes = 0
    var chunkBytes = 0
    /// By size: element n holds those of `bufferBytesMin << n` bytes.
    var buffers: [[UnsafeMutableRawPointer]] = Array(repeating: [], count: 7)
    /// All empty.
    var chunks: [[UInt8]] = []

    mutating func takeBuffer(_ size: KeptSize) -> UnsafeMutableRawBufferPointer? {
      guard let buffer = buffers[size.index].popLast() else { return nil }
      bufferBytes -= size.bytes
      return UnsafeMutableRawBufferPointer(start: buffer, count: size.bytes)
    }

    /// False if that would be more than `bytesMax`.
    mutating func keep(
      _ buffer: UnsafeMutableRawPointer, _ size: KeptSize, bytesMax: Int
    ) -> Bool {
      guard bufferBytes + size.bytes <= bytesMax else { return false }
      bufferBytes += size.bytes
      buffers[size.index].append(buffer)
      return true
    }

    mutating func takeChunk() -> [UInt8]? {
      guard let chunk = chunks.popLast() else { return nil }
      chunkBytes -= chunk.capacity
      return chunk
    }

    /// Dropped if that would be more than `bytesMax`.
    mutating func keep(_ chunk: consuming [UInt8], bytesMax: Int) {
      let capacity = chunk.capacity
      guard chunkBytes + capacity <= bytesMax else { return }
      chunkBytes += capacity
      chunks.append(chunk)
    }
  }

  private typealias KeptSize = (bytes: Int, index: Int)

  /// Bytes that are kept at most, of buffers and of chunks each.
  private let keptBytesMax: Int
  private var spares = Spares()

  /// `keptBytesMax`: what may lie idle here, of reading and of writing buffers each.
  package init(keptBytesMax: Int = 4 << 20) {
    self.keptBytesMax = keptBytesMax
  }

  deinit {
    for list in spares.buffers { for buffer in list { free(buffer) } }
  }

  /// A buffer of at least `bytes` with any content; the caller gives it back or frees it.
  func takeBuffer(atLeast bytes: Int) -> UnsafeMutableRawBufferPointer {
    guard let size = BufferPool.keptSize(atLeast: bytes) else {
      // Beyond what is kept, only to whole pages: a 17 MiB frame shall not cost 32 MiB.
      return BufferPool.allocate((bytes + 4095) & ~4095)
    }
    return spares.takeBuffer(size) ?? BufferPool.allocate(size.bytes)
  }

  func giveBuffer(_ buffer: UnsafeMutableRawBufferPointer) {
    guard let base = buffer.baseAddress else { return }
    guard let size = BufferPool.keptSize(atLeast: buffer.count), size.bytes == buffer.count,
      spares.keep(base, size, bytesMax: keptBytesMax)
    else {
      free(base)
      return
    }
  }

  /// An empty array to write to, with room left from its last use if there was one.
  @usableFromInline func takeChunk() -> [UInt8] {
    if let chunk = spares.takeChunk() { return chunk }
    var chunk: [UInt8] = []
    chunk.reserveCapacity(BufferPool.bufferBytesMin)
    return chunk
  }

  func giveChunk(_ used: consuming [UInt8]) {
    var chunk = used
    chunk.removeAll(keepingCapacity: true)
    let capacity = chunk.capacity
    guard capacity >= BufferPool.bufferBytesMin, capacity <= BufferPool.chunkCapacityMax
    else { return }
    spares.keep(chunk, bytesMax: keptBytesMax)
  }

  /// What lies idle here, bytes.
  package var keptBytes: Int { spares.bufferBytes + spares.chunkBytes }

  private static func allocate(_ bytes: Int) -> UnsafeMutableRawBufferPointer {
    guard let base = malloc(bytes) else {
      // Linux overcommits; where it does not, nothing sensible can follow.
      fatalError("no memory for a buffer of \(bytes) bytes")
    }
    return UnsafeMutableRawBufferPointer(start: base, count: bytes)
  }

  /// The kept size that has room for `bytes`, and its index; nil if larger than any.
  private static func keptSize(atLeast bytes: Int) -> KeptSize? {
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
