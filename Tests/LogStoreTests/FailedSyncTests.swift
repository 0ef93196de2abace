// G12 across a restart of the process: after a sync that failed the page cache shows what no disk
// has, and the next sync does not write it. Whatever recovery says must be on the disk.

import Base
import Consensus
import TestSupport
import Testing

@testable import LogStore

@Suite(.ownThreads) struct FailedSyncTests {
  /// Terms, votes, entries, truncations and new segments, one batch each.
  static let batches: [[LogOperation]] = {
    var batches: [[LogOperation]] = []
    for term in 1...4 as ClosedRange<UInt64> {
      batches.append([.saveHardState(HardState(term: Term(term), vote: NodeID(UInt32(term))))])
      let first = (term - 1) * 8 + 1
      if term > 1 { batches.append([.truncate(from: LogIndex(first - 1))]) }
      let from = term > 1 ? first - 1 : first
      for index in from...(term * 8) {
        batches.append([.append([entry(index, term: term, bytes: 1500)])])
      }
    }
    return batches
  }()

  /// Writes until something fails; how many batches are durable.
  private func writeAll(_ store: LogStore) -> Int {
    for (count, batch) in Self.batches.enumerated() {
      do throws(StorageFailure) { try store.run(store.stage(batch)) } catch { return count }
    }
    return Self.batches.count
  }

  /// Opens it, whatever fails on the way, and checks that what is said is on the disk.
  private func check(_ disk: MemoryFileSystem, written: Int, _ note: Comment) throws {
    var opened: (store: LogStore, recovery: Recovery)?
    while opened == nil {
      do throws(LogStoreError) { opened = try LogStore.open(disk) } catch {
        guard case .storage = error else { throw error }
      }
    }
    guard let (store, recovery) = opened else { return }
    disk.failSyncIn = nil
    let entries = try store.all()
    #expect(recovery.hardState.term.rawValue >= durableTerm(written), note)
    let (after, second) = try LogStore.open(disk.crashed(.allLost))
    #expect(second.hardState == recovery.hardState, note)
    #expect(second.last == recovery.last, note)
    #expect(try after.all() == entries, note)
    #expect(second.damage.allSatisfy { $0.consequence == .nothingLost }, note)
    // And what is written next is found again, with nothing behind it.
    let next = LogPosition(term: Term(9), index: recovery.last.index.next)
    try store.write([.append([Entry(position: next, kind: .commands, payload: [7])])])
    let (_, third) = try LogStore.open(disk.crashed(.allLost))
    #expect(third.last == next, note)
  }

  private func durableTerm(_ written: Int) -> UInt64 {
    var term: UInt64 = 0
    for batch in Self.batches.prefix(written) {
      for case .saveHardState(let state) in batch { term = state.term.rawValue }
    }
    return term
  }

  @Test("What recovery says after a failed sync and a restart is on the disk (G12)")
  func restartAfterFailedSync() throws {
    let whole = MemoryFileSystem()
    let (store, _) = try LogStore.open(whole)
    let before = whole.syncs
    #expect(writeAll(store) == Self.batches.count)
    let syncs = whole.syncs - before
    for failing in 0..<syncs {
      let disk = MemoryFileSystem()
      var written = 0
      do {
        let (store, _) = try LogStore.open(disk)
        disk.failSyncIn = failing
        written = writeAll(store)
      }
      #expect(written < Self.batches.count)
      try check(disk, written: written, "sync \(failing) failed")
    }
  }

  @Test("A sync that fails inside recovery is no better", arguments: [3, 14, 27, 40])
  func failsAgain(first: Int) throws {
    for second in 0..<8 {
      let disk = MemoryFileSystem()
      var written = 0
      do {
        let (store, _) = try LogStore.open(disk)
        disk.failSyncIn = first
        written = writeAll(store)
      }
      disk.failSyncIn = second
      try check(disk, written: written, "syncs \(first) and then \(second) failed")
    }
  }

  @Test("Recovery keeps in memory what may not be on the disk, and nothing else")
  func forgotten() throws {
    let disk = MemoryFileSystem()
    do {
      let (store, _) = try LogStore.open(disk)
      disk.failSyncIn = 40
      #expect(writeAll(store) < Self.batches.count)
    }
    let segments = files(disk, "segment-").sorted()
    try #require(segments.count > 3)
    #expect(disk.forgotten.isEmpty)
    let (store, _) = try LogStore.open(disk)
    #expect(!disk.forgotten.isEmpty && disk.forgotten.count < segments.count)
    #expect(try store.all().count > 3)
  }

  @Test("A segment allocated in a sync that failed is as long after a power cut (seed 88963)")
  func length() throws {
    let whole = MemoryFileSystem()
    let (store, _) = try LogStore.open(whole)
    let before = whole.syncs
    #expect(writeAll(store) == Self.batches.count)
    for failing in 0..<whole.syncs - before {
      let disk = MemoryFileSystem()
      do {
        let (store, _) = try LogStore.open(disk)
        disk.failSyncIn = failing
        #expect(writeAll(store) < Self.batches.count)
      }
      do { _ = try LogStore.open(disk) }
      let after = disk.crashed(.allLost)
      for name in files(disk, "segment-") {
        #expect(after.bytes(name).count == disk.bytes(name).count, "\(name), sync \(failing)")
      }
      let (_, recovery) = try LogStore.open(after)
      #expect(!recovery.isMemoryLost, "sync \(failing) failed")
    }
  }

  @Test("A spare file that was made in a sync that failed is as long when it has become a segment")
  func lengthOfSpare() throws {
    var options = smallOptions()
    options.sparesReady = 1
    let disk = MemoryFileSystem()
    do {
      let (store, _) = try LogStore.open(disk, options)
      try store.append(1...2)
      let before = disk.operations
      disk.failSyncIn = 0
      // Made, allocated, written, not synced: the process dies before it removes the file.
      disk.stopAfter = before + 5
      store.upkeep()
      disk.stopAfter = nil
    }
    let (store, _) = try LogStore.open(disk, options)
    let spare = try #require(store.state.spares.first)
    var index = store.last.index.rawValue
    while store.state.log.stream.last?.number != spare.number {
      index += 1
      try store.append(index...index)
    }
    let (_, recovery) = try LogStore.open(disk.crashed(.allLost), options)
    #expect(recovery.last.index.rawValue == index)
    #expect(!recovery.isMemoryLost)
    #expect(recovery.damage.isEmpty)
  }

  @Test("Remains behind the end that could not be overwritten never follow what is written next")
  func remains() throws {
    for failing in 0..<8 {
      for seed in UInt64(1)...6 {
        let before = MemoryFileSystem()
        let (store, _) = try LogStore.open(before)
        try store.append(1...4, bytes: 200)
        // One write of several records, torn in the middle.
        let job = store.stage([.append(entries(5...12, bytes: 200))])
        before.failSyncIn = 0
        #expect(throws: StorageFailure.self) { try job.execute() }
        let disk = torn(before, seed: seed)
        disk.failSyncIn = failing
        try check(disk, written: 0, "seed \(seed), sync \(failing) failed")
      }
    }
  }

  /// The last batch with one record of it missing.
  private func torn(_ disk: MemoryFileSystem, seed: UInt64) -> MemoryFileSystem {
    let after = disk.killed()
    let name = files(after, "segment-")[0]
    let record = RecordHeader.recordBytes(payload: 200)
    let at = FileHeader.blockBytes + (4 + Int(seed)) * record
    after.damage(name) { for place in at..<at + record { $0[place] = 0 } }
    return after
  }
}
