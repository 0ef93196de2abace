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
  private func turns(_ limit: Int) -> ReadTurns {
    var turns = ReadTurns()
    turns.limit = limit
    return turns
  }

  @Test func whoReadsGoesOnForSomeTurns() {
    var turns = turns(3)
    var waiting = ["a", "b", "c"]
    for _ in 1...2 { turns.pass(at: 0, gotSomething: true, in: &waiting) }
    #expect(waiting == ["a", "b", "c"])
    turns.pass(at: 0, gotSomething: true, in: &waiting)
    #expect(waiting == ["b", "c", "a"])
    // What was left of the turn was enough for b, not for all of c's.
    for _ in 1...3 { turns.pass(at: 1, gotSomething: true, in: &waiting) }
    #expect(waiting == ["a", "b", "c"])
    // Nothing was left for c: it is the next.
    for _ in 1...3 { turns.pass(at: 2, gotSomething: false, in: &waiting) }
    #expect(waiting == ["c", "a", "b"])
  }

  @Test("Who waits for others to read stays in front, and keeps those behind it from nothing")
  func whoIsStuckStaysInFront() {
    var turns = turns(1)
    var waiting = ["stuck", "a", "b", "c"]
    for end in [PumpEnd.output, .reading] {
      let cut = ReadTurns.Cut(place: 2, gotSomething: false, end: end)
      turns.pass(cut, behind: 1, in: &waiting)
    }
    #expect(waiting == ["stuck", "c", "a", "b"])
  }

  @Test("Whoever reads all that it has room for, never cut short, is behind the others in the end")
  func nobodyWaitsForEver() {
    // The turn's share is enough for the first four of six; the fifth gets nothing, or a little.
    for gotSomething in [false, true] {
      var turns = turns(2)
      var waiting = ["a", "b", "c", "d", "e", "f"]
      var read: [String: Int] = [:]
      for _ in 1...120 {
        for client in waiting.prefix(4) { read[client, default: 0] += 1 }
        turns.pass(at: 4, gotSomething: gotSomething, in: &waiting)
      }
      #expect(read.count == 6 && read.values.allSatisfy { $0 >= 70 }, "\(read)")
    }
  }

  @Test("Where others took each second turn's share, it still goes round")
  func turnsWithoutAShare() {
    for limit in 1...5 {
      var turns = turns(limit)
      var waiting = ["a", "b", "c"]
      var read: [String: Int] = [:]
      for turn in 1...120 {
        if turn.isMultiple(of: 2) {
          turns.pass(at: 0, gotSomething: false, in: &waiting)
        } else {
          read[waiting[0], default: 0] += 1
          turns.pass(at: 0, gotSomething: true, in: &waiting)
        }
      }
      #expect(read.count == 3 && read.values.allSatisfy { $0 >= 18 }, "\(limit): \(read)")
    }
  }
}
