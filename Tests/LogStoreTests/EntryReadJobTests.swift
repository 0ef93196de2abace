// Entries that another thread reads, and how much is read for them.

import Base
import Consensus
import Testing

@testable import LogStore

@Suite struct EntryReadJobTests {
  /// As a follower is fed: piece by piece.
  func fed(_ store: LogStore, from first: UInt64, maxBytes: Int) throws -> [Entry] {
    var result: [Entry] = []
    var next = LogIndex(first)
    while next <= store.last.index {
      let job = try #require(
        store.entryReading(from: next, through: store.last.index, maxBytes: maxBytes))
      #expect(job.entries == nil)
      job.execute()
      let piece = try #require(job.entries)
      #expect(piece.count == 1 || piece.reduce(0) { $0 + $1.payload.count } <= maxBytes)
      result += piece
      next = next.advanced(by: piece.count)
    }
    return result
  }

  @Test("It gives what the store gives, across segments, at least an entry at a time")
  func sameAsStore() throws {
    let (store, _) = try LogStore.open(MemoryFileSystem())
    store.upkeep()
    try store.append(1...200, bytes: 300)
    #expect(try fed(store, from: 1, maxBytes: 2_000) == store.all())
    #expect(try fed(store, from: 37, maxBytes: 10) == Array(store.all().dropFirst(36)))
    #expect(
      store.entryReading(from: LogIndex(201), through: LogIndex(300), maxBytes: 10) == nil)
  }

  @Test("Entries that will be read are written as such, from one batch to the next")
  func expected() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...3, bytes: 300)
    #expect(disk.writtenToBeRead.isEmpty)
    store.expectsReads = true
    let staged = store.stage([.append([entry(4, bytes: 300)])])
    // What was staged is written as it was then.
    store.expectsReads = false
    try store.run(staged)
    #expect(disk.writtenToBeRead.count == 1)
    try store.append(5...6, bytes: 300)
    #expect(disk.writtenToBeRead.count == 1)
    store.expectsReads = true
    try store.append(7...200, bytes: 300)
    let segments = Set(disk.writtenToBeRead)
    #expect(segments.count > 2 && segments.allSatisfy { $0.contains("segment-") })
  }

  @Test("What is not on the disk yet it leaves to the store")
  func pending() throws {
    let (store, _) = try LogStore.open(MemoryFileSystem())
    store.upkeep()
    try store.append(1...5)
    let write = store.stage([.append(entries(6...9))])
    #expect(store.entryReading(from: LogIndex(6), through: LogIndex(9), maxBytes: 10) == nil)
    let job = try #require(
      store.entryReading(from: LogIndex(4), through: LogIndex(9), maxBytes: 1 << 20))
    job.execute()
    #expect(job.entries == entries(4...5))
    try store.run(write)
  }

  @Test("What is replaced before it is read, is not taken for what was asked for")
  func replaced() throws {
    let (store, _) = try LogStore.open(MemoryFileSystem())
    store.upkeep()
    try store.append(1...20)
    let job = try #require(
      store.entryReading(from: LogIndex(11), through: LogIndex(20), maxBytes: 1 << 20))
    try store.write([.truncate(from: LogIndex(11)), .append(entries(11...20, term: 2))])
    job.execute()
    #expect(job.entries == entries(11...20))
    #expect(
      try store.entries(from: LogIndex(11), through: LogIndex(20), maxBytes: 1 << 20)
        == entries(11...20, term: 2))
  }

  @Test("A segment that became another file's space meanwhile is not taken for the log")
  func recycled() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    store.upkeep()
    try store.append(1...20)
    let job = try #require(
      store.entryReading(from: LogIndex(1), through: LogIndex(20), maxBytes: 1 << 20))
    for file in disk.names.values { file.current = file.current.map { $0 ^ 0x55 } }
    job.execute()
    #expect(job.entries == nil)
  }

  @Test("Reading piece by piece, no entry's bytes are read twice")
  func once() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    store.upkeep()
    try store.append(1...200, bytes: 900)
    disk.bytesRead = 0
    var next = LogIndex(1)
    while next <= LogIndex(200) {
      next = try next.advanced(
        by: store.entries(from: next, through: LogIndex(200), maxBytes: 2_000).count)
    }
    #expect(disk.bytesRead >= 200 * 900)
    #expect(disk.bytesRead <= 200 * (900 + 100))
  }
}
