// Snapshots, cleaning, repair, and snapshots on their way between nodes.

import Base
import Consensus
import TestSupport
import Testing

@testable import LogStore

/// Records of 64 bytes at 0, 64, 128 … of the entries' payloads.
private func references(_ entries: ClosedRange<UInt64>, each: Int) -> [RecordReference] {
  entries.flatMap { index in
    (0..<each).map {
      RecordReference(entry: LogIndex(index), offset: UInt32($0 * 64), size: 64)
    }
  }
}

private func bytes(_ reference: RecordReference, of size: Int, term: UInt64 = 1) -> [UInt8] {
  let whole = payload(reference.entry.rawValue, term, bytes: size)
  return Array(whole[Int(reference.offset)..<Int(reference.offset + reference.size)])
}

@Suite(.ownThreads) struct SnapshotTests {
  private func clean(
    _ store: LogStore, keepFrom: UInt64, _ live: [RecordReference]
  ) throws {
    guard let job = store.cleaning(keepFrom: LogIndex(keepFrom), live: live.inSpans) else {
      return
    }
    try job.execute()
    #expect(job.damaged == [])
    try store.run(store.stage(job))
    store.checkInvariants()
    store.upkeep()
  }

  @Test("A snapshot is read back as it was written, and only the newest is kept")
  func readBack() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...20)
    try store.run(try store.takeSnapshot(at: LogIndex(5)))
    let writer = store.snapshotWriter(
      position: LogPosition(term: Term(1), index: LogIndex(10)), membership: Fixture.membership,
      stateHash: 77, stateHashIndex: LogIndex(8))
    var all: [UInt8] = []
    for size in [0, 1, 1 << 20, 700_000, 900_000] {
      let part = payload(UInt64(size), 1, bytes: size)
      try writer.append(part)
      all += part
    }
    try writer.finish()
    try store.run(store.stage(writer))
    store.upkeep()
    #expect(files(disk, "snapshot-").count == 1)
    let (again, recovery) = try LogStore.open(disk.killed())
    #expect(recovery.snapshot?.membership == Fixture.membership)
    #expect(recovery.snapshot?.stateHash == 77)
    #expect(recovery.snapshot?.byteCount == UInt64(all.count))
    let reader = try #require(again.snapshotReader())
    var read: [UInt8] = []
    while true {
      let part = try reader.next()
      if part.isEmpty { break }
      read += part
    }
    #expect(read == all)
    // An older one than that in force is not put in force.
    #expect(try again.takeSnapshot(at: LogIndex(9)) == nil)
  }

  @Test("Cleaning after cleaning: live records stay readable, dead files go")
  func cleanings() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    var random = SeededRandom(seed: 5)
    var live: [RecordReference] = []
    for round in 0..<6 as Range<UInt64> {
      let range = round * 60 + 1...round * 60 + 60
      try store.append(range, bytes: 640)
      live += references(range, each: 10)
      // Most die, old ones stay here and there.
      live = live.filter { _ in Int.random(in: 0..<5, using: &random) == 0 }
      try store.run(try store.takeSnapshot(at: LogIndex(range.upperBound)))
      try clean(store, keepFrom: range.upperBound + 1, live)
      for record in live { #expect(try store.record(record) == bytes(record, of: 640)) }
    }
    #expect(store.figures.segmentFiles <= 6)
    #expect(store.figures.keptFiles > 0)
    let (again, recovery) = try LogStore.open(disk.killed())
    #expect(recovery.damage == [])
    for record in live { #expect(try again.record(record) == bytes(record, of: 640)) }
    try again.append(361...361, bytes: 640)
    try again.run(try again.takeSnapshot(at: LogIndex(361)))
    try clean(again, keepFrom: 362, [])
    #expect(again.figures.keptFiles == 0)
    #expect(again.figures.segmentFiles == 1)
    #expect(throws: LogReadError.notInLog(live[0].entry)) { try again.record(live[0]) }
  }

  private func write(
    _ store: LogStore, at index: UInt64, bytes: Int
  ) throws(StorageFailure) -> SnapshotWriter {
    let writer = store.snapshotWriter(
      position: LogPosition(term: Term(1), index: LogIndex(index)),
      membership: Fixture.membership, stateHash: 7, stateHashIndex: LogIndex(5))
    try writer.write { piece in
      for begin in stride(from: 0, to: bytes, by: 10_000) {
        piece(payload(UInt64(begin), 1, bytes: min(10_000, bytes - begin)))
      }
    }
    return writer
  }

  @Test("A snapshot leaves the log room on the disk, and is given up where it would not (G12)")
  func snapshotWithoutRoom() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...20)
    // A segment of 16 KiB or a fourth stays.
    for (at, free, bytes, fits) in [
      (5, 6 << 20, 5 << 20, true), (6, 6 << 20, (6 << 20) - 10_000, false),
      (7, 60_000, 43_000, true), (8, 60_000, 46_000, false), (9, 40_000, 29_000, true),
      (10, 40_000, 31_000, false), (11, 2_000, 1_000, true), (12, 1_100, 1_000, false),
      (13, 0, 500, false),
    ] {
      disk.bytesFree = UInt64(free)
      let writer = try write(store, at: UInt64(at), bytes: bytes)
      #expect(writer.hasNoRoom == !fits, "\(bytes) bytes of \(free)")
      #expect(writer.wantedBytes == UInt64(bytes))
      if !fits { #expect(disk.bytesFree == UInt64(free)) }
      if fits { try store.run(store.stage(writer)) } else { store.discard(writer) }
      store.upkeep()
      #expect(files(disk, "snapshot-").count == 1)
    }
    disk.bytesFree = .max
    try store.append(21...30)
    let (_, recovery) = try LogStore.open(disk.killed())
    #expect(recovery.snapshot?.position.index == LogIndex(11))
    #expect(recovery.last.index == LogIndex(30))
  }

  @Test(
    "One that finds no room while it is written is gone at once, also while files are read (G12)")
  func snapshotGivenUpHalfWritten() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...20)
    try store.run(try store.takeSnapshot(at: LogIndex(5)))
    let source = try #require(store.snapshotSource { _ in })
    for at in 6...7 as ClosedRange<UInt64> {
      let writer = store.snapshotWriter(
        position: LogPosition(term: Term(1), index: LogIndex(at)),
        membership: Fixture.membership, stateHash: 7, stateHashIndex: LogIndex(5))
      disk.bytesFree = 5 << 20
      try writer.append(payload(1, 1, bytes: 3 << 20))
      #expect(files(disk, "snapshot-").count == 2)
      // The log took what was left.
      disk.bytesFree = at == 6 ? 1 << 20 : 0
      try writer.append(payload(1, 1, bytes: at == 6 ? 1 << 20 : 500))
      try writer.finish()
      #expect(writer.hasNoRoom)
      #expect(files(disk, "snapshot-").count == 1)
      store.discard(writer)
    }
    disk.bytesFree = .max
    store.release(source)
    store.upkeep()
    try store.append(21...30)
    let (_, recovery) = try LogStore.open(disk.killed())
    #expect(recovery.snapshot?.position.index == LogIndex(5))
    #expect(recovery.last.index == LogIndex(30))
  }

  @Test("Cleaning rewrites no more than the disk has room for; the rest is rewritten later (G12)")
  func cleaningWithoutRoom() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...200, bytes: 640)
    let live = references(1...200, each: 1)
    try store.run(try store.takeSnapshot(at: LogIndex(200)))
    let before = store.figures.segmentFiles
    disk.bytesFree = 24_000
    let planned = store.cleaning(keepFrom: LogIndex(201), live: live.inSpans)
    let job = try #require(planned)
    try job.execute()
    #expect(disk.bytesFree >= 6_000)
    #expect(disk.bytesFree < 24_000)
    disk.bytesFree = .max
    try store.run(store.stage(job))
    store.checkInvariants()
    let between = store.figures.segmentFiles
    #expect(between < before)
    for record in live { #expect(try store.record(record) == bytes(record, of: 640)) }
    try clean(store, keepFrom: 201, live)
    #expect(store.figures.segmentFiles < between)
    for record in live { #expect(try store.record(record) == bytes(record, of: 640)) }
  }

  @Test("What is kept of one entry lies in one file, also where that file grows over its size")
  func keptEntriesAreWhole() throws {
    let disk = MemoryFileSystem()
    var options = smallOptions()
    options.rewriteBelowPercent = 90
    let (store, _) = try LogStore.open(disk, options)
    try store.append(1...8, bytes: 9600)
    // No two neighbours, so that each record is a fragment of its own.
    let live = references(1...6, each: 150).filter { $0.offset % 128 == 0 }
    try store.run(try store.takeSnapshot(at: LogIndex(8)))
    try clean(store, keepFrom: 9, live)
    #expect(store.figures.keptFiles > 1)
    for record in live { #expect(try store.record(record) == bytes(record, of: 9600)) }
  }

  @Test("A file that a stream still reads is not removed")
  func pins() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...60, bytes: 640)
    try store.run(try store.takeSnapshot(at: LogIndex(60)))
    let live = references(1...10, each: 2)
    let source = try #require(store.snapshotSource { live.forEach($0) })
    let before = files(disk, "segment-").count
    let job = try #require(store.cleaning(keepFrom: LogIndex(61), live: [].inSpans))
    try job.execute()
    try store.run(store.stage(job))
    store.upkeep()
    #expect(files(disk, "segment-").count >= before)
    try source.prepare()
    #expect(try source.read(at: 0, maxBytes: 1 << 20).count == Int(source.totalBytes))
    store.release(source)
    store.upkeep()
    #expect(store.figures.segmentFiles == 1)
  }

  @Test("Records damaged on one disk are repaired from another's, and stay so")
  func repair() throws {
    let fixture = try Fixture()
    let good = try LogStore.open(fixture.disk.killed()).store
    for path in files(fixture.disk, "kept-") + files(fixture.disk, "segment-") {
      let damaged = fixture.disk.killed()
      damaged.damage(path) { bytes in
        let end = min(bytes.count, 12_000)
        for at in stride(from: 4096, to: end, by: 700) { bytes[at] ^= 1 }
      }
      let (store, recovery) = try LogStore.open(damaged)
      let ranges = recovery.damagedEntries
      let lost = fixture.live.filter { record in ranges.contains { $0.contains(record.entry) } }
      let supplied = try lost.map { ($0, try good.record($0)) }
      let job = store.repair(ranges, with: supplied)
      try job.execute()
      try store.run(store.stage(job))
      #expect(store.damagedEntries == [])
      for record in fixture.live {
        #expect(try store.record(record) == good.record(record), "\(path)")
      }
      store.checkInvariants()
      let (again, second) = try LogStore.open(damaged.killed())
      #expect(second.damagedEntries == [], "\(path)")
      for record in fixture.live { #expect(try again.record(record) == good.record(record)) }
      // A cleaning that rewrites everything takes the patches in.
      let fixed = fixture.live
      if let cleaning = again.cleaning(keepFrom: LogIndex(61), live: fixed.inSpans) {
        try cleaning.execute()
        try again.run(again.stage(cleaning))
        again.upkeep()
      }
      for record in fixture.live { #expect(try again.record(record) == good.record(record)) }
      let third = try LogStore.open(damaged.killed()).store
      for record in fixture.live { #expect(try third.record(record) == good.record(record)) }
    }
  }

  @Test("A repair before the first snapshot does not cost what came before it (seed 196)")
  func repairedWithoutSnapshot() throws {
    let disk = MemoryFileSystem()
    let (first, _) = try LogStore.open(disk)
    try first.append(1...60, bytes: 640)
    // A read finds it, in a process that has begun before.
    let place = try #require(
      first.state.log.stream.lazy.compactMap { $0.slot(of: LogIndex(40)) }.first)
    let segment = try #require(first.state.log.stream.first { $0.slot(of: LogIndex(40)) != nil })
    disk.flip(files(disk, "segment-")[Int(segment.segment) - 1], at: Int(place.offset) + 100)
    #expect(throws: LogReadError.damaged(LogIndex(40))) { try first.payload(of: LogIndex(40)) }
    first.noteDamage(LogIndex(40))
    let live = references(40...40, each: 3)
    let job = first.repair(
      first.damagedEntries, with: live.map { ($0, bytes($0, of: 640)) })
    try job.execute()
    try first.run(first.stage(job))
    for record in live { #expect(try first.record(record) == bytes(record, of: 640)) }

    let next = disk.killed()
    let (again, recovery) = try LogStore.open(next)
    #expect(recovery.last.index == LogIndex(39))
    #expect(recovery.firstIndex == LogIndex(1))
    #expect(recovery.hardState.floor == LogPosition(term: Term(1), index: LogIndex(60)))
    #expect(recovery.damage.map(\.consequence) == [.logCutFrom(LogIndex(40))])
    #expect(try again.all() == entries(1...39, bytes: 640))
    // The leader sends the rest again.
    try again.append(40...61, bytes: 640)
    again.checkInvariants()
    let (third, last) = try LogStore.open(next.killed())
    #expect(last.damage == [])
    #expect(last.damagedEntries == [])
    #expect(try third.all() == entries(1...61, bytes: 640))
    for record in live { #expect(try third.record(record) == bytes(record, of: 640)) }
  }

  @Test(
    "What becomes of a repair from before the first snapshot does not matter (seed 65493)",
    arguments: [true, false], [true, false])
  func repairOfWhatWasCut(isFileGone: Bool, isLogDamaged: Bool) throws {
    let disk = MemoryFileSystem()
    let (first, _) = try LogStore.open(disk)
    try first.append(1...60, bytes: 640)
    let slot = try #require(
      first.state.log.stream.lazy.compactMap { $0.slot(of: LogIndex(40)) }.first)
    let segment = try #require(first.state.log.stream.first { $0.slot(of: LogIndex(40)) != nil })
    disk.flip(files(disk, "segment-")[Int(segment.segment) - 1], at: Int(slot.offset) + 100)
    first.noteDamage(LogIndex(40))
    let live = references(40...40, each: 3)
    let job = first.repair(
      first.damagedEntries, with: live.map { ($0, bytes($0, of: 640)) })
    try job.execute()
    try first.run(first.stage(job))
    let next = disk.killed()
    do {
      let (again, recovery) = try LogStore.open(next)
      #expect(recovery.last.index == LogIndex(39))
      try again.append(40...61, bytes: 640)
      try again.run(again.stageMarker())
    }
    let harmed = next.killed()
    let kept = try #require(files(harmed, "kept-").first)
    if isFileGone {
      try harmed.remove(kept)
    } else {
      harmed.flip(kept, at: try #require(harmed.bytes(kept).range(of: bytes(live[0], of: 640))))
    }
    var last: UInt64 = 61
    if isLogDamaged {
      let name = try #require(
        files(harmed, "segment-").first {
          harmed.bytes($0).range(of: payload(50, 1, bytes: 640)) != nil
        })
      harmed.flip(name, at: try #require(harmed.bytes(name).range(of: payload(50, 1, bytes: 640))))
      last = 49
    }
    for round in 0..<2 {
      let (store, recovery) = try LogStore.open(harmed)
      #expect(recovery.firstIndex == LogIndex(1))
      #expect(recovery.last.index == LogIndex(last))
      #expect(recovery.damagedEntries == [])
      #expect(try store.all() == entries(1...last, bytes: 640))
      store.checkInvariants()
      if round == 0 {
        let losses = recovery.damage.map(\.consequence).filter { $0 != .nothingLost }
        #expect(losses == (isLogDamaged ? [.logCutFrom(LogIndex(50))] : []))
        try store.append(last + 1...last + 5, bytes: 640)
        last += 5
      }
    }
  }

  @Test(
    "What damage took as a whole stays repaired, or known, when the log is cleaned (seed 2726)",
    arguments: [true, false], [3000, 4096, 7000])
  func cleanedAroundALoss(isRepaired: Bool, size: Int) throws {
    let disk = MemoryFileSystem()
    let (first, _) = try LogStore.open(disk)
    try first.append(1...90, bytes: 640)
    try first.run(try first.takeSnapshot(at: LogIndex(80)))
    let live = references(1...79, each: 3)
    let damaged = disk.killed()
    damaged.damage(files(disk, "segment-")[1]) { $0.removeLast($0.count - size) }
    let (store, recovery) = try LogStore.open(damaged)
    let lost = live.filter { record in
      recovery.damagedEntries.contains { $0.contains(record.entry) }
    }
    #expect(lost.count > 20)
    if isRepaired {
      let job = store.repair(
        recovery.damagedEntries, with: lost.map { ($0, bytes($0, of: 640)) })
      try job.execute()
      try store.run(store.stage(job))
    }
    let readable = isRepaired ? live : live.filter { !lost.contains($0) }
    for few in [
      readable.filter { $0.offset == 0 },
      readable.filter { $0.offset == 0 && $0.entry.rawValue % 7 == 0 },
    ] {
      try clean(store, keepFrom: 81, isRepaired ? few : few + lost)
      for record in few { #expect(try store.record(record) == bytes(record, of: 640)) }
      let (again, second) = try LogStore.open(damaged.killed())
      for record in few { #expect(try again.record(record) == bytes(record, of: 640)) }
      if !isRepaired { #expect(second.damagedEntries == recovery.damagedEntries) }
    }
  }

  /// With entries 1 to 90 of 640 bytes, 16 in a segment, a snapshot at 80, and damage of `places`.
  private func harmed(
    _ harm: (MemoryFileSystem) throws -> Void
  ) throws -> (disk: MemoryFileSystem, store: LogStore, recovery: Recovery) {
    let first = MemoryFileSystem()
    do {
      let (store, _) = try LogStore.open(first)
      try store.append(1...90, bytes: 640)
      try store.run(try store.takeSnapshot(at: LogIndex(80)))
    }
    let disk = first.killed()
    try harm(disk)
    let (store, recovery) = try LogStore.open(disk)
    return (disk, store, recovery)
  }

  private func repair(
    _ store: LogStore, _ ranges: [EntryRange], _ live: [RecordReference]
  ) throws {
    let needed = live.filter { record in ranges.contains { $0.contains(record.entry) } }
    let job = store.repair(ranges, with: needed.map { ($0, bytes($0, of: 640)) })
    try job.execute()
    try store.run(store.stage(job))
    store.upkeep()
    store.checkInvariants()
  }

  /// The first byte of an entry's record in the file that holds it.
  private func head(
    _ disk: MemoryFileSystem, of index: UInt64, _ prefix: String = "segment-"
  ) throws -> (name: String, at: Int) {
    let part = Array(payload(index, 1, bytes: 640).prefix(64))
    for name in files(disk, prefix) {
      if let at = disk.bytes(name).range(of: part) { return (name, at - RecordHeader.bytes) }
    }
    throw StorageFailure(.read, "entry \(index)", code: 2)
  }

  private func expect(
    _ live: [RecordReference], readableIn store: LogStore, _ note: Comment
  ) throws {
    for record in live { #expect(try store.record(record) == bytes(record, of: 640), note) }
  }

  @Test("A repair of what a segment of the stream lacks at its ends survives cleanings")
  func repairAtTheEndOfASegment() throws {
    for lost in [33, 48] as [UInt64] {
      let (disk, store, recovery) = try harmed { disk in
        let (name, at) = try head(disk, of: lost)
        disk.flip(name, at: at + 8)
      }
      #expect(recovery.damagedEntries == [EntryRange(first: LogIndex(lost), last: LogIndex(lost))])
      let live = references(lost...lost, each: 3)
      try repair(store, recovery.damagedEntries, live)
      try clean(store, keepFrom: 40, live)
      try expect(live, readableIn: store, "\(lost)")
      let more = (live + references(34...40, each: 9)).sorted { $0.entry < $1.entry }
      try clean(store, keepFrom: 60, more)
      try expect(more, readableIn: store, "\(lost), cleaned twice")
      let (again, second) = try LogStore.open(disk.killed())
      // Those before it may be said to be damaged: they are dead.
      #expect(!second.damagedEntries.contains { $0.last >= LogIndex(lost) })
      try expect(more, readableIn: again, "\(lost), after a restart")
    }
  }

  @Test("A lost patch and a log that ends below the snapshot are known after a restart")
  func lostPatchBelowTheSnapshot() throws {
    let (disk, store, recovery) = try harmed { disk in
      let (name, at) = try head(disk, of: 20)
      disk.flip(name, at: at + RecordHeader.bytes + 100)
    }
    try repair(store, recovery.damagedEntries, references(20...20, each: 2))
    let after = disk.killed()
    try after.remove(try #require(files(after, "kept-").first))
    for name in files(after, "segment-").dropFirst(4) { try after.remove(name) }
    let (_, first) = try LogStore.open(after)
    #expect(first.damagedEntries.contains { $0.contains(LogIndex(20)) })
    let (_, second) = try LogStore.open(after.killed())
    #expect(second.damagedEntries == first.damagedEntries)
  }

  @Test("A damaged patch counts no more once its entries are repaired again")
  func patchOfAPatch() throws {
    let (disk, store, recovery) = try harmed { disk in
      let (name, at) = try head(disk, of: 20)
      disk.flip(name, at: at + RecordHeader.bytes + 100)
    }
    let live = references(20...20, each: 2)
    try repair(store, recovery.damagedEntries, live)
    let harmed = disk.killed()
    harmed.flip(try #require(files(harmed, "kept-").first), at: FileHeader.blockBytes + 60)
    let (again, second) = try LogStore.open(harmed)
    #expect(second.damagedEntries == recovery.damagedEntries)
    try repair(again, second.damagedEntries, live)
    let (last, third) = try LogStore.open(harmed.killed())
    #expect(third.damagedEntries == [])
    #expect(files(harmed, "kept-").count == 1)
    try expect(live, readableIn: last, "repaired twice")
  }

  @Test("A lost patch takes only what it stood for")
  func patchOfTwo() throws {
    let lost = [5, 50].map { EntryRange(first: LogIndex($0), last: LogIndex($0)) }
    let (disk, store, recovery) = try harmed { disk in
      for index in [5, 50] as [UInt64] {
        let (name, at) = try head(disk, of: index)
        disk.flip(name, at: at + RecordHeader.bytes + 100)
      }
    }
    #expect(recovery.damagedEntries == lost)
    let live = references(1...60, each: 9)
    try repair(store, lost, live)
    try clean(store, keepFrom: 60, live)
    let after = disk.killed()
    for name in files(after, "kept-") { try after.remove(name) }
    let (again, second) = try LogStore.open(after)
    #expect(second.damagedEntries == lost)
    try again.run(try again.takeSnapshot(at: LogIndex(85)))
    let (last, third) = try LogStore.open(after.killed())
    #expect(third.damagedEntries == lost)
    try expect(live.filter { ![5, 50].contains($0.entry.rawValue) }, readableIn: last, "others")
  }

  @Test("Losses of which nothing is alive any more are given up, with their patches")
  func deadLosses() throws {
    let (disk, store, recovery) = try harmed { disk in
      try disk.remove(files(disk, "segment-")[1])
    }
    let live = references(17...32, each: 2)
    try repair(store, recovery.damagedEntries, live)
    try clean(store, keepFrom: 80, live)
    try expect(live, readableIn: store, "alive")
    #expect(!files(disk, "kept-").isEmpty)
    try store.append(91...100, bytes: 640)
    try store.run(try store.takeSnapshot(at: LogIndex(95)))
    try store.append(101...130, bytes: 640)
    try store.run(try store.takeSnapshot(at: LogIndex(125)))
    try clean(store, keepFrom: 120, [])
    #expect(files(disk, "kept-").isEmpty)
    let (again, second) = try LogStore.open(disk.killed())
    #expect(
      second.damagedEntries == [] && again.state.log.lost.isEmpty && again.state.log.mended.isEmpty)
  }

  @Test(
    "What a cleaning finds damaged is to be repaired, a patch too, but not what was repaired since")
  func damageFoundByACleaning() throws {
    let (disk, store, recovery) = try harmed { disk in
      let (name, at) = try head(disk, of: 5)
      disk.flip(name, at: at + RecordHeader.bytes + 100)
    }
    let live = references(5...6, each: 1)
    try repair(store, recovery.damagedEntries, live)
    // Rots while the store is open: the patch, and another record.
    disk.flip(try #require(files(disk, "kept-").first), at: FileHeader.blockBytes + 60)
    let (name, at) = try head(disk, of: 6)
    disk.flip(name, at: at + RecordHeader.bytes + 100)
    func cleaning() throws -> CleaningJob {
      let job = try #require(
        store.cleaning(keepFrom: LogIndex(60), live: live.inSpans))
      try job.execute()
      return job
    }
    let first = try cleaning()
    let found = store.noteDamage(foundBy: first)
    #expect(found.count == 1 && live.map(\.entry).contains(found[0]))
    try store.run(store.stage(first))
    #expect(store.damagedEntries.contains { $0.contains(found[0]) })
    // Repaired between its execution and its end.
    let second = try cleaning()
    try repair(store, live.map { EntryRange(first: $0.entry, last: $0.entry) }, live)
    #expect(store.noteDamage(foundBy: second).allSatisfy { $0 == LogIndex(5) })
    try store.run(store.stage(second))
    try expect(live, readableIn: store, "repaired")
  }

  @Test("Each record of a kept file with a damaged head is readable or known as damaged")
  func damagedHeadInAKeptFile() throws {
    let live = [2, 5, 9, 12, 15].map { RecordReference(entry: LogIndex($0), offset: 0, size: 64) }
    for harmedAt in live.indices {
      let (disk, store, _) = try harmed { _ in }
      try clean(store, keepFrom: 60, live)
      let after = disk.killed()
      let name = try #require(files(after, "kept-").first)
      let recordBytes = FragmentHeader.recordBytes(64)
      after.flip(name, at: FileHeader.blockBytes + harmedAt * recordBytes + 9)
      let (again, recovery) = try LogStore.open(after)
      for record in live {
        do throws(LogReadError) {
          #expect(try again.record(record) == bytes(record, of: 640))
        } catch {
          #expect(error == .damaged(record.entry))
          #expect(recovery.damagedEntries.contains { $0.contains(record.entry) })
        }
      }
    }
  }

  /// A leader's store with a snapshot, and what is alive in it.
  private func leader() throws -> (store: LogStore, live: [RecordReference]) {
    let (store, _) = try LogStore.open(MemoryFileSystem())
    try store.append(1...80, term: 2, bytes: 640)
    try store.run(try store.takeSnapshot(at: LogIndex(70), bytes: 5000))
    return (store, references(3...69, each: 3).filter { $0.entry.rawValue % 3 == 0 })
  }

  @Test("A snapshot stream installs the snapshot and every live record, whatever the chunks")
  func stream() throws {
    let (store, live) = try leader()
    let source = try #require(store.snapshotSource { live.reversed().forEach($0) })
    try source.prepare()
    for chunk in [17, 1000, 4096, 1 << 20] {
      let disk = MemoryFileSystem()
      let (follower, _) = try LogStore.open(disk)
      try follower.append(1...9, bytes: 300)
      let receiver = follower.snapshotReceiver(position: source.info.position)
      while receiver.received < source.totalBytes {
        let part = try source.read(at: receiver.received, maxBytes: chunk)
        #expect(part.count <= chunk)
        try receiver.take(part, at: receiver.received)
      }
      #expect(throws: SnapshotStreamError.outOfOrder(expected: source.totalBytes)) {
        try receiver.take([1], at: 3)
      }
      let info = try receiver.finish()
      #expect(info.position == source.info.position)
      try follower.run(follower.stage(receiver))
      #expect(follower.last == info.position)
      follower.upkeep()
      follower.checkInvariants()
      try follower.append(71...75, term: 2)
      let (again, recovery) = try LogStore.open(disk.killed())
      #expect(recovery.damage == [])
      #expect(recovery.snapshot == info)
      #expect(recovery.last.index == LogIndex(75))
      #expect(recovery.firstIndex == LogIndex(71))
      for record in live { #expect(try again.record(record) == bytes(record, of: 640, term: 2)) }
    }
  }

  @Test("A damaged stream is refused at any byte")
  func damagedStream() throws {
    let (store, live) = try leader()
    let source = try #require(store.snapshotSource { live.forEach($0) })
    try source.prepare()
    let whole = try source.read(at: 0, maxBytes: 1 << 20)
    let (follower, _) = try LogStore.open(MemoryFileSystem())
    for at in stride(from: 0, to: whole.count, by: 211) {
      var damaged = whole
      damaged[at] ^= 4
      let receiver = follower.snapshotReceiver(position: source.info.position)
      #expect(throws: SnapshotStreamError.self, "byte \(at)") {
        try receiver.take(damaged, at: 0)
        _ = try receiver.finish()
      }
      follower.discard(receiver)
      follower.upkeep()
    }
    let receiver = follower.snapshotReceiver(position: source.info.position)
    try receiver.take(Array(whole[..<500]), at: 0)
    #expect(throws: SnapshotStreamError.self) { try receiver.finish() }
  }

  @Test("A crash at every step of an install leaves the old log or the new snapshot")
  func interruptedInstall() throws {
    let (store, live) = try leader()
    let source = try #require(store.snapshotSource { live.forEach($0) })
    try source.prepare()
    func install(_ follower: LogStore) throws {
      let receiver = follower.snapshotReceiver(position: source.info.position)
      while receiver.received < source.totalBytes {
        try receiver.take(
          try source.read(at: receiver.received, maxBytes: 4000), at: receiver.received)
      }
      _ = try receiver.finish()
      try follower.run(follower.stage(receiver))
      follower.upkeep()
      try follower.write([.append([entry(71, term: 2)])])
    }
    let old = entries(1...30, bytes: 900)
    let before = MemoryFileSystem()
    do {
      let (follower, _) = try LogStore.open(before)
      try follower.write([.append(old)])
      try follower.write([.saveHardState(HardState(term: Term(2)))])
    }
    let whole = before.killed()
    try install(try LogStore.open(whole).store)
    for step in 0..<whole.operations {
      for kind in CrashKind.allCases {
        let disk = before.killed()
        let (follower, _) = try LogStore.open(disk)
        disk.stopAfter = step
        do { try install(follower) } catch { _ = error }
        let (again, recovery) = try LogStore.open(disk.crashed(kind, seed: UInt64(step)))
        let note = Comment("step \(step), \(kind)")
        #expect(recovery.damage.filter { $0.consequence != .nothingLost } == [], note)
        again.checkInvariants()
        if recovery.snapshot == nil {
          #expect(try again.all() == old, note)
        } else {
          #expect(recovery.last.index >= LogIndex(70), note)
          for record in live {
            #expect(try again.record(record) == bytes(record, of: 640, term: 2), note)
          }
        }
      }
    }
  }
}
