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

  private typealias KeptSize = (bytes: Int, index: Int)

  /// Bytes that are kept at most, of buffers and of chunks each.
  private let keptBytesMax: Int
  // What lies idle. Private properties that are read and set and never lent to a function: others of
  // a class cost a check at each access that nobody else has them.
  private var bufferBytes = 0
  private var chunkBytes = 0
  /// By size: element n is the first of those of `bufferBytesMin << n` bytes, which holds the address
  /// of the next one, and so on.
  private var buffers = InlineArray<7, UnsafeMutableRawPointer?>(repeating: nil)
  /// All empty.
  private var chunks: [[UInt8]] = []

  /// `keptBytesMax`: what may lie idle here, of reading and of writing buffers each.
  package init(keptBytesMax: Int = 4 << 20) {
    self.keptBytesMax = keptBytesMax
  }

  deinit {
    for index in buffers.indices { while let buffer = popBuffer(index) { free(buffer) } }
  }

  /// A buffer of at least `bytes` with any content; the caller gives it back or frees it.
  func takeBuffer(atLeast bytes: Int) -> UnsafeMutableRawBufferPointer {
    guard let size = BufferPool.keptSize(atLeast: bytes) else {
      // Beyond what is kept, only to whole pages: a 17 MiB frame shall not cost 32 MiB.
      return BufferPool.allocate((bytes + 4095) & ~4095)
    }
    guard let buffer = popBuffer(size.index) else { return BufferPool.allocate(size.bytes) }
    bufferBytes -= size.bytes
    return UnsafeMutableRawBufferPointer(start: buffer, count: size.bytes)
  }

  func giveBuffer(_ buffer: UnsafeMutableRawBufferPointer) {
    guard let base = buffer.baseAddress else { return }
    guard let size = BufferPool.keptSize(atLeast: buffer.count), size.bytes == buffer.count,
      bufferBytes + size.bytes <= keptBytesMax
    else {
      free(base)
      return
    }
    bufferBytes += size.bytes
    // SAFETY: its giver has no use for it any more, and it is larger than an address.
    base.storeBytes(of: buffers[size.index], as: UnsafeMutableRawPointer?.self)
    buffers[size.index] = base
  }

  private func popBuffer(_ index: Int) -> UnsafeMutableRawPointer? {
    guard let buffer = buffers[index] else { return nil }
    // SAFETY: `giveBuffer` left the next one's address there, and nobody has had it since.
    buffers[index] = buffer.load(as: UnsafeMutableRawPointer?.self)
    return buffer
  }

  /// An empty array to write to, with room left from its last use if there was one.
  @usableFromInline func takeChunk() -> [UInt8] {
    if let chunk = chunks.popLast() {
      chunkBytes -= chunk.capacity
      return chunk
    }
    var chunk: [UInt8] = []
    chunk.reserveCapacity(BufferPool.bufferBytesMin)
    return chunk
  }

  func giveChunk(_ used: consuming [UInt8]) {
    let capacity = used.capacity
    guard capacity >= BufferPool.bufferBytesMin, capacity <= BufferPool.chunkCapacityMax,
      chunkBytes + capacity <= keptBytesMax
    else { return }
    chunkBytes += capacity
    used.removeAll(keepingCapacity: true)
    chunks.append(used)
  }

  /// What lies idle here, bytes.
  package var keptBytes: Int { bufferBytes + chunkBytes }

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
