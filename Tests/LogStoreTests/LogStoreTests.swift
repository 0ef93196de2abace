// The log itself: what is written comes back, across segments, truncations, crashes.

import Base
import Consensus
import Testing

@testable import LogStore

@Suite struct LogTests {
  @Test("A fresh directory is empty, and what is written is read back after a restart")
  func roundTrip() throws {
    let disk = MemoryFileSystem()
    let hard = HardState(term: Term(3), vote: NodeID(2))
    do {
      let (store, recovery) = try LogStore.open(disk)
      #expect(recovery.isFresh)
      #expect(recovery.last == .zero)
      try store.write([.saveHardState(hard), .append(entries(1...5, term: 3))])
      #expect(try store.all() == entries(1...5, term: 3))
      store.checkInvariants()
    }
    let (store, recovery) = try LogStore.open(disk.killed())
    #expect(!recovery.isFresh)
    #expect(recovery.damage == [])
    #expect(recovery.hardState == hard)
    #expect(recovery.last == LogPosition(term: Term(3), index: LogIndex(5)))
    #expect(recovery.termRuns == [TermRun(first: LogIndex(1), term: Term(3))])
    #expect(try store.all() == entries(1...5, term: 3))
    store.checkInvariants()
  }

  @Test("The log goes on over many segments, with prepared and without prepared files")
  func manySegments() throws {
    for prepares in [true, false] {
      let disk = MemoryFileSystem()
      do {
        let (store, _) = try LogStore.open(disk)
        for index in 1...300 as ClosedRange<UInt64> {
          try store.append(index...index, bytes: Int(index % 7) * 90)
          if prepares { store.upkeep() }
        }
        #expect(store.figures.segmentFiles > 5)
        store.checkInvariants()
      }
      let (store, recovery) = try LogStore.open(disk.killed())
      #expect(recovery.damage == [])
      let found = try store.all()
      #expect(found.count == 300)
      #expect(
        found.allSatisfy { $0 == entry($0.index.rawValue, bytes: Int($0.index.rawValue % 7) * 90) })
      store.checkInvariants()
    }
  }

  @Test("An entry larger than a segment gets a file of its own")
  func largeEntry() throws {
    let disk = MemoryFileSystem()
    do {
      let (store, _) = try LogStore.open(disk)
      store.upkeep()
      try store.append(1...3)
      try store.append(4...4, bytes: 100_000)
      try store.append(5...200)
    }
    let (store, recovery) = try LogStore.open(disk.killed())
    #expect(recovery.damage == [])
    #expect(try store.payload(of: LogIndex(4)) == payload(4, 1, bytes: 100_000))
    #expect(try store.all().count == 200)
    #expect(try store.entries(from: LogIndex(4), through: LogIndex(9), maxBytes: 10).count == 1)
  }

  @Test("A truncation and its replacement are found again, also across segments")
  func truncation() throws {
    let disk = MemoryFileSystem()
    let expected = entries(1...120, bytes: 300) + entries(121...130, term: 2)
    do {
      let (store, _) = try LogStore.open(disk)
      try store.append(1...300, bytes: 300)
      try store.write([.truncate(from: LogIndex(121)), .append(entries(121...130, term: 2))])
      #expect(try store.all() == expected)
      store.checkInvariants()
    }
    let (store, recovery) = try LogStore.open(disk.killed())
    #expect(recovery.damage == [])
    #expect(try store.all() == expected)
    #expect(
      recovery.termRuns == [
        TermRun(first: LogIndex(1), term: Term(1)), TermRun(first: LogIndex(121), term: Term(2)),
      ])
    try store.write([.truncate(from: LogIndex(1))])
    #expect(store.last == .zero)
    #expect(store.firstIndex == LogIndex(1))
    store.checkInvariants()
  }

  @Test("Staged entries are readable before they are on disk, and jobs finish in order")
  func pendingReads() throws {
    let (store, _) = try LogStore.open(MemoryFileSystem())
    try store.append(1...3)
    let first = store.stage([.append(entries(4...6))])
    let second = store.stage(
      store.withTerm([.truncate(from: LogIndex(6)), .append(entries(6...8, term: 2))]))
    #expect(try store.all() == entries(1...5) + entries(6...8, term: 2))
    #expect(try store.payload(of: LogIndex(7)) == payload(7, 2, bytes: 100))
    #expect(store.syncedLast.index == LogIndex(3))
    try first.execute()
    try second.execute()
    try store.finished(first)
    try store.finished(second)
    #expect(try store.all() == entries(1...5) + entries(6...8, term: 2))
    #expect(store.syncedLast == LogPosition(term: Term(2), index: LogIndex(8)))
  }

  @Test("One batch costs one sync; several batches staged together cost one")
  func groupCommit() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...1)
    let before = disk.syncs
    try store.append(2...2)
    #expect(disk.syncs == before + 1)
    try store.write([.append(entries(3...4)), .append(entries(5...9))])
    #expect(disk.syncs == before + 2)
  }

  @Test("A failed sync stops the store: nothing is written again (G12)")
  func failedSync() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...3)
    let failing = store.stage([.append(entries(4...4))])
    let next = store.stage([.append(entries(5...5))])
    disk.failSyncIn = 0
    #expect(throws: StorageFailure.self) { try failing.execute() }
    let operations = disk.operations
    #expect(throws: StorageFailure.self) { try next.execute() }
    #expect(disk.operations == operations)
    #expect(throws: StorageFailure.self) { try store.finished(failing) }
    #expect(throws: StorageFailure.self) { try store.finished(next) }
    #expect(store.failure?.operation == .synchronize)
    #expect(store.failure?.path.contains("segment-") == true)
    #expect(store.nextUpkeep() == nil)
  }

  @Test("A full disk stops the store and names the file (G12)")
  func fullDisk() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    disk.bytesFree = 40_000
    var index: UInt64 = 1
    while store.failure == nil {
      let job = store.stage(store.withTerm([.append([entry(index, bytes: 1000)])]))
      do throws(StorageFailure) {
        try job.execute()
        try store.finished(job)
        index += 1
      } catch {
        #expect(error.isNoSpace)
        #expect(throws: StorageFailure.self) { try store.finished(job) }
      }
    }
    disk.bytesFree = .max
    let (_, recovery) = try LogStore.open(disk.killed())
    #expect(recovery.last.index >= LogIndex(index - 1))
    #expect(recovery.damage == [])
  }

  @Test("Where the disk is short no more files are kept for reuse than are needed at once")
  func sparesGo() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk, smallOptions())
    try store.append(1...400, bytes: 200)
    let writer = store.snapshotWriter(
      position: store.last, membership: Membership(members: []), stateHash: 1,
      stateHashIndex: LogIndex(400))
    try writer.finish()
    try store.run(store.stage(writer))
    let cleaning = try #require(store.cleaning(keepFrom: LogIndex(401), live: [].inSpans))
    try cleaning.execute()
    try store.run(store.stage(cleaning))
    store.upkeep()
    let kept = store.figures
    #expect(kept.spareFiles == smallOptions().sparesMax)
    store.keepsSpares = false
    store.upkeep()
    #expect(store.figures.spareFiles == smallOptions().sparesReady)
    let freed = kept.spareFiles - store.figures.spareFiles
    #expect(
      store.figures.diskBytes == kept.diskBytes - UInt64(freed) * smallOptions().segmentBytes)
    // What is left is the log's and the spare.
    let segments = disk.names.keys.filter { $0.contains(FileNames.segmentPrefix) }
    #expect(segments.count == store.figures.segmentFiles + store.figures.spareFiles)
    try store.append(401...500, bytes: 200)
    #expect(try store.all().last?.index == LogIndex(500))
  }

  /// Found by the simulator, seed 3: one was made and deleted again for ever.
  @Test("What is to be ready is kept, though nothing else is to be")
  func readySparesStay() throws {
    var options = smallOptions()
    options.sparesMax = 0
    options.sparesReady = 1
    let (store, _) = try LogStore.open(MemoryFileSystem(), options)
    let job = try #require(store.nextUpkeep())
    job.execute()
    store.finished(job)
    #expect(store.figures.spareFiles == 1)
    #expect(store.nextUpkeep() == nil)
  }

  @Test("Old records of a recycled file never count")
  func recycledFiles() throws {
    let disk = MemoryFileSystem()
    var options = smallOptions()
    options.sparesReady = 2
    options.sparesMax = 4
    var number: UInt64 = 0
    do {
      let (store, _) = try LogStore.open(disk, options)
      try store.append(1...200, bytes: 200)
      let writer = store.snapshotWriter(
        position: store.last, membership: Membership(members: []), stateHash: 1,
        stateHashIndex: LogIndex(200))
      try writer.finish()
      try store.run(store.stage(writer))
      let cleaning = try #require(store.cleaning(keepFrom: LogIndex(201), live: [].inSpans))
      try cleaning.execute()
      try store.run(store.stage(cleaning))
      store.upkeep()
      #expect(store.figures.spareFiles == 4)
      number = store.state.log.stream.last?.segment ?? 0
      // The spares hold records of entries 1 to 200 behind their heads.
      try store.append(201...240, bytes: 200)
      #expect((store.state.log.stream.last?.segment ?? 0) > number)
      #expect(store.state.log.stream.last.map { $0.life > 1 } == true)
    }
    for kind in CrashKind.allCases {
      let (store, recovery) = try LogStore.open(disk.crashed(kind), options)
      #expect(recovery.damage == [])
      #expect(store.last.index == LogIndex(240))
      #expect(try store.all().last == entry(240, bytes: 200))
    }
  }

  @Test("The marker makes damage to the last batch known as damage")
  func marker() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...10)
    try store.run(store.stageMarker())
    #expect(store.stageMarker() == nil)
    let after = disk.crashed(.allLost)
    let segment = try #require(files(after, "segment-").first)
    let place = Int(store.state.log.stream[0].slots[9].offset)
    after.flip(segment, at: place + RecordHeader.bytes + 3)
    let (_, recovery) = try LogStore.open(after)
    #expect(recovery.last.index == LogIndex(9))
    #expect(recovery.hardState.floor == LogPosition(term: Term(1), index: LogIndex(10)))
    #expect(recovery.damage.map(\.consequence) == [.logCutFrom(LogIndex(10))])
  }
}
