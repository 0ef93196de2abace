// What is kept of what deliveries read.

import Base
import Testing

@testable import LogStore
@testable import Server

@Suite struct BlockCacheTests {
  private func block(_ entry: UInt64, _ offset: UInt32 = 0, bytes: Int = 100) -> PayloadBlock {
    PayloadBlock(
      entry: LogIndex(entry), offset: offset, bytes: [UInt8](repeating: 7, count: bytes))
  }

  private func record(_ entry: UInt64, _ offset: UInt32, _ size: UInt32 = 10) -> RecordReference {
    RecordReference(entry: LogIndex(entry), offset: offset, size: size)
  }

  private func find(_ record: RecordReference, _ cache: inout BlockCache) -> PayloadBlock? {
    cache.block(containing: record)
  }

  @Test func aRecordIsFoundInTheBlockThatHoldsAllOfIt() {
    var cache = BlockCache()
    for entry in [5, 3, 9, 4] as [UInt64] { cache.insert(block(entry)) }
    cache.insert(block(4, 300))
    #expect(find(record(3, 0), &cache)?.entry == LogIndex(3))
    #expect(find(record(4, 90), &cache)?.offset == 0)
    #expect(find(record(4, 300, 100), &cache)?.offset == 300)
    for missing in [record(4, 91), record(4, 299), record(4, 395), record(2, 0), record(10, 0)] {
      #expect(find(missing, &cache) == nil, "\(missing)")
    }
    // A longer one from the same place stands for both.
    cache.insert(block(4, bytes: 200))
    #expect(find(record(4, 150), &cache)?.bytes.count == 200)
    #expect(cache.count == 5 && cache.bytes == 600)
  }

  @Test func whatWasNotUsedForLongestIsGivenUp() {
    var cache = BlockCache()
    let large = BlockCache.bytesMax / 4
    for entry in 1...4 as ClosedRange<UInt64> { cache.insert(block(entry, bytes: large)) }
    #expect(find(record(1, 0), &cache) != nil)
    cache.insert(block(5, bytes: large))
    #expect(find(record(2, 0), &cache) == nil)
    #expect(cache.count == 4 && cache.bytes == BlockCache.bytesMax)
    // One that is larger than all that may be kept is kept alone.
    cache.insert(block(6, bytes: BlockCache.bytesMax + 1))
    #expect(cache.count == 1)
    #expect(find(record(6, 7), &cache) != nil)
    #expect(cache.release(downTo: 1000) == BlockCache.bytesMax + 1)
    #expect(cache.count == 0 && cache.bytes == 0)
  }

  @Test func smallBlocksAreBoundedByTheirNumber() {
    var cache = BlockCache()
    for entry in 1...UInt64(BlockCache.countMax) + 7 { cache.insert(block(entry, bytes: 20)) }
    #expect(cache.count == BlockCache.countMax && cache.bytes == 20 * BlockCache.countMax)
    #expect(find(record(7, 0), &cache) == nil)
    #expect(find(record(8, 0), &cache) != nil)
    #expect(cache.release(downTo: 100) == 20 * BlockCache.countMax - 100)
    // The last used are kept.
    #expect(find(record(8, 0), &cache) != nil)
  }
}

@Suite struct ReadTurnsTests {
  @Test func whoReadsGoesOnForSomeTurns() {
    var turns = ReadTurns()
    turns.limit = 3
    var waiting = ["a", "b", "c"]
    for _ in 1...2 { turns.pass(at: 0, 1, gotSomething: true, in: &waiting) }
    #expect(waiting == ["a", "b", "c"])
    // Another one begins its own turns; it stays where it is, behind one that has all it needs.
    for _ in 1...2 { turns.pass(at: 1, 2, gotSomething: true, in: &waiting) }
    #expect(waiting == ["a", "b", "c"])
    turns.pass(at: 1, 2, gotSomething: true, in: &waiting)
    #expect(waiting == ["a", "c", "b"])
    // Nothing was left to be read for it.
    turns.pass(at: 2, 2, gotSomething: false, in: &waiting)
    #expect(waiting == ["b", "a", "c"])
    for _ in 1...3 { turns.pass(at: 0, 2, gotSomething: true, in: &waiting) }
    #expect(waiting == ["a", "c", "b"])
  }
}
