// The buffer of unread bytes against a naive model, and its growth and shrinking by numbers.

import Base
import Testing

@testable import Transport

@Suite struct InboundBufferTests {
  @Test(arguments: [UInt64(1), 2, 3, 4])
  func `any order of filling, consuming, expecting and trimming keeps the bytes`(
    seed: UInt64
  ) {
    var random = SeededRandom(seed: seed)
    let pool = BufferPool()
    var buffer = InboundBuffer()
    var model: [UInt8] = []
    let source = pattern(1 << 20, seed: seed)
    let unreadMax = 500_000
    for step in 0..<400 {
      switch Int.random(in: 0..<8, using: &random) {
      case 0..<4:
        let room = buffer.room(unreadMax: unreadMax, pool: pool)
        #expect(room.isEmpty == (model.count == unreadMax), "seed \(seed), step \(step)")
        let count = Bool.random(using: &random) ? room.count : room.count / 3
        let start = Int.random(in: 0...source.count - count, using: &random)
        let bytes = source[start..<start + count]
        bytes.withUnsafeBytes { room.copyMemory(from: $0) }
        buffer.filled(count, of: room.count)
        model.append(contentsOf: bytes)
      case 4, 5:
        let count = Int.random(in: 0...model.count, using: &random)
        buffer.consume(count, pool: pool)
        model.removeFirst(count)
      case 6:
        buffer.reserve(Int.random(in: 1...unreadMax, using: &random), pool: pool)
      default: buffer.trim(pool: pool)
      }
      #expect(buffer.unreadBytes == model.count)
      #expect(
        isSame(buffer.unread, model),
        "seed \(seed), step \(step): swift test --filter InboundBufferTests")
      if model.isEmpty && step % 8 == 0 {
        buffer.trim(pool: pool)
        #expect(buffer.capacity == 0)
      }
    }
  }

  @Test func `a large frame that is expected is read to its end, and nothing of it is moved`() {
    let pool = BufferPool()
    var buffer = InboundBuffer()
    let head = buffer.room(unreadMax: 4 << 20, pool: pool)
    buffer.filled(100, of: head.count)
    let frame = BufferPool.bufferBytesMax + 5_000
    buffer.reserve(frame, pool: pool)
    #expect(buffer.missingBytes == frame - 100)
    let begin = buffer.unread.baseAddress
    var read = 100
    while buffer.missingBytes > 0 {
      let room = buffer.room(unreadMax: 4 << 20, pool: pool)
      #expect(room.count == frame - read)
      let count = min(room.count, 90_000)
      buffer.filled(count, of: room.count)
      read += count
      #expect(buffer.unread.baseAddress == begin)
    }
    #expect(buffer.unreadBytes == frame)
    buffer.consume(frame, pool: pool)
    #expect(buffer.missingBytes == 0 && buffer.capacity == 0)
    // A smaller one does not keep what is behind it out.
    buffer.filled(100, of: buffer.room(unreadMax: 4 << 20, pool: pool).count)
    buffer.reserve(2_000, pool: pool)
    #expect(buffer.room(unreadMax: 4 << 20, pool: pool).count > 1_900)
  }

  @Test func `the buffer starts small and grows while reads fill it`() {
    let pool = BufferPool()
    var buffer = InboundBuffer()
    var sizes: [Int] = []
    for _ in 0..<8 {
      let room = buffer.room(unreadMax: 1 << 20, pool: pool)
      buffer.filled(room.count, of: room.count)
      sizes.append(buffer.capacity >> 10)
      buffer.consume(room.count, pool: pool)
      #expect(buffer.capacity == 0)
    }
    #expect(sizes == [4, 8, 16, 32, 64, 128, 256, 256])
    // And small again when little comes.
    for _ in 0..<8 * 6 {
      let room = buffer.room(unreadMax: 1 << 20, pool: pool)
      buffer.filled(10, of: room.count)
      buffer.consume(10, pool: pool)
    }
    _ = buffer.room(unreadMax: 1 << 20, pool: pool)
    #expect(buffer.capacity == 4096)
    // Nothing is lost to the pool: every buffer is in it or here.
    #expect(pool.keptBytes == (8 + 16 + 32 + 64 + 128 + 256) << 10)
  }

  @Test func `the buffer grows although a piece of the next frame is always left over`() {
    let pool = BufferPool()
    var buffer = InboundBuffer()
    let frameBytes = 1_080
    var sizes: [Int] = []
    for _ in 0..<9 {
      let room = buffer.room(unreadMax: 1 << 20, pool: pool)
      buffer.filled(room.count, of: room.count)
      sizes.append(buffer.capacity >> 10)
      // As a gateway does: whole frames are taken, and room is made for the one that has begun.
      buffer.consume(buffer.unreadBytes / frameBytes * frameBytes, pool: pool)
      if buffer.unreadBytes > 0 { buffer.reserve(frameBytes, pool: pool) }
    }
    #expect(sizes == [4, 8, 16, 32, 64, 128, 256, 256, 256])
  }

  @Test func `an expected frame lands where it began`() {
    let pool = BufferPool()
    var buffer = InboundBuffer()
    let frameBytes = 5_000_000
    var room = buffer.room(unreadMax: frameBytes, pool: pool)
    buffer.filled(100, of: room.count)
    buffer.reserve(frameBytes, pool: pool)
    let start = buffer.unread.baseAddress
    while buffer.unreadBytes < frameBytes {
      room = buffer.room(unreadMax: frameBytes, pool: pool)
      buffer.filled(min(room.count, 100_000), of: room.count)
    }
    #expect(buffer.unread.baseAddress == start)
    #expect(buffer.capacity < frameBytes + 4096)
    buffer.consume(frameBytes, pool: pool)
    // Too large to keep.
    #expect(buffer.capacity == 0 && pool.keptBytes == 4096)
  }

  @Test func `a silent half frame gives back what it does not need`() {
    let pool = BufferPool()
    var buffer = InboundBuffer()
    for _ in 0..<8 {
      let room = buffer.room(unreadMax: 1 << 20, pool: pool)
      buffer.filled(room.count, of: room.count)
      buffer.consume(room.count, pool: pool)
    }
    let room = buffer.room(unreadMax: 1 << 20, pool: pool)
    room[0] = 77
    buffer.filled(10, of: room.count)
    #expect(buffer.capacity == 256 << 10)
    buffer.trim(pool: pool)
    #expect(buffer.capacity == 4096 && buffer.unread[0] == 77 && buffer.unreadBytes == 10)
  }

  @Test func `the pool keeps no more than it may`() {
    let pool = BufferPool(keptBytesMax: 10_000)
    let buffers = (0..<4).map { _ in pool.takeBuffer(atLeast: 1) }
    for buffer in buffers { pool.giveBuffer(buffer) }
    #expect(pool.keptBytes == 2 * 4096)
    let again = pool.takeBuffer(atLeast: 4096)
    #expect(again.count == 4096 && pool.keptBytes == 4096)
    pool.giveBuffer(again)
    var chunk = pool.takeChunk()
    chunk.append(contentsOf: pattern(20_000))
    pool.giveChunk(chunk)
    #expect(pool.keptBytes == 2 * 4096)
  }
}
