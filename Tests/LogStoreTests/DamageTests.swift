// Damage to files of a stopped node (G11): never served, never taken for a torn write, never
// forgotten.

import Base
import Consensus
import TestSupport
import Testing

@testable import LogStore

/// A stopped node's disk with a bit of everything, and what it held.
struct Fixture {
  let disk: MemoryFileSystem
  let hardState: HardState
  let last: LogPosition
  let snapshot: LogIndex
  /// By index, all that were ever in force.
  let entries: [LogIndex: Entry]
  /// Alive and only in files before the stream.
  let live: [RecordReference]

  static let membership = Membership(members: [
    Membership.Member(id: NodeID(1), peerAddress: "a:1", clientAddress: "a:2")
  ])

  init(hasSnapshot: Bool = true, isNoted: Bool = true) throws {
    let disk = MemoryFileSystem()
    var all: [LogIndex: Entry] = [:]
    func note(_ entries: [Entry]) { for entry in entries { all[entry.index] = entry } }
    let (store, _) = try LogStore.open(disk)
    let first = LogStoreTests.entries(1...60, bytes: 700)
    for entry in first { try store.write([.append([entry])]) }
    note(first)
    let second = LogStoreTests.entries(51...70, term: 2, bytes: 500)
    try store.write([.truncate(from: LogIndex(51)), .append(second)])
    note(second)
    // Little alive in the first segment, much in the second, nothing in the third.
    var live: [RecordReference] = []
    for index in [2, 3, 9] as [UInt64] {
      live.append(RecordReference(entry: LogIndex(index), offset: 16, size: 100))
    }
    for index in 18...27 as ClosedRange<UInt64> {
      live.append(RecordReference(entry: LogIndex(index), offset: 0, size: 600))
    }
    if hasSnapshot {
      try store.run(try store.takeSnapshot(at: LogIndex(60), bytes: 3000))
      let fixed = live
      let cleaning = try #require(
        store.cleaning(keepFrom: LogIndex(45), live: fixed.inSpans))
      try cleaning.execute()
      try store.run(store.stage(cleaning))
      store.upkeep()
    }
    let third = LogStoreTests.entries(71...90, term: 2, bytes: 400)
    for entry in third { try store.write([.append([entry])]) }
    note(third)
    let state = HardState(term: Term(5), vote: NodeID(3))
    try store.write([.saveHardState(state)])
    if isNoted { try store.run(store.stageMarker()) }
    self.disk = disk
    hardState = state
    last = store.last
    snapshot = store.snapshot?.position.index ?? .zero
    entries = all
    self.live = live
  }

  /// Opens the damaged disk and checks that nothing wrong is served and nothing is forgotten.
  func check(_ damaged: MemoryFileSystem, _ note: Comment, depth: Int = 0) throws {
    let (store, recovery) = try LogStore.open(damaged)
    store.checkInvariants()
    if !recovery.isMemoryLost {
      #expect(recovery.hardState.term == hardState.term, note)
      #expect(recovery.hardState.vote == hardState.vote, note)
      if recovery.last < last { #expect(recovery.hardState.floor >= last, note) }
    }
    if recovery.last != last && depth == 0 {
      #expect(recovery.damage.contains { $0.isLossOfLog }, note)
    }
    if recovery.last.index >= store.firstIndex {
      for entry in try store.all() { #expect(entry == entries[entry.index], note) }
    }
    #expect(recovery.snapshot == nil || recovery.snapshot?.position.index == snapshot, note)
    if recovery.snapshot != nil || snapshot == .zero {
      try checkRecords(live, store, recovery, note)
    }
    if let reader = store.snapshotReader() {
      while !(try reader.next().isEmpty) {}
    }
    // Once more, with something written: what was found out is not forgotten.
    if depth == 0 {
      let position = LogPosition(term: store.hardState.term, index: store.last.index.next)
      let entry = Entry(position: position, kind: .commands, payload: [1, 2, 3])
      try store.write([.append([entry])])
      let disk = damaged.killed()
      let (again, second) = try LogStore.open(disk)
      #expect(second.last == position, note)
      #expect(second.hardState == recovery.hardState, note)
      #expect(second.isMemoryLost == recovery.isMemoryLost, note)
      #expect(second.damagedEntries == recovery.damagedEntries, note)
      #expect(second.firstIndex == recovery.firstIndex, note)
      again.checkInvariants()
      if snapshot > .zero { try checkLater(disk, again, recovery, note) }
    }
  }

  /// As long as nothing is repaired a further snapshot changes nothing about what is damaged, and a
  /// cleaning nothing about what is alive.
  private func checkLater(
    _ disk: MemoryFileSystem, _ store: LogStore, _ before: Recovery, _ note: Comment
  ) throws {
    try store.run(try store.takeSnapshot(at: store.last.index))
    let disk = disk.killed()
    let (again, recovery) = try LogStore.open(disk)
    #expect(recovery.damagedEntries == before.damagedEntries, note)
    let live = live.filter { $0.entry <= before.last.index }
    guard
      let cleaning = again.cleaning(
        keepFrom: again.last.index, live: live.inSpans)
    else { return }
    try cleaning.execute()
    try again.run(again.stage(cleaning))
    again.upkeep()
    again.checkInvariants()
    let (last, found) = try LogStore.open(disk.killed())
    try checkRecords(live, last, found, note)
  }

  private func checkRecords(
    _ live: [RecordReference], _ store: LogStore, _ recovery: Recovery, _ note: Comment
  ) throws {
    for record in live where record.entry <= store.last.index {
      do throws(LogReadError) {
        let bytes = try store.record(record)
        let start = Int(record.offset)
        let whole = entries[record.entry]?.payload ?? []
        #expect(bytes == Array(whole[start..<start + Int(record.size)]), note)
      } catch {
        #expect(error == .damaged(record.entry), note)
        #expect(recovery.damagedEntries.contains { $0.contains(record.entry) }, note)
      }
    }
  }
}

extension DamageReport {
  /// Says that entries behind the snapshot are gone.
  var isLossOfLog: Bool {
    switch consequence {
    case .logCutFrom, .everythingLost, .hardStateLost: true
    case .nothingLost, .recordsLost: false
    }
  }
}

@Suite(.ownThreads) struct DamageTests {
  @Test("Without its snapshot a log that gave up entries is no log (seed 97 of the simulator)")
  func snapshotOfALogWithLosses() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...30, bytes: 700)
    try store.run(try store.takeSnapshot(at: LogIndex(20), bytes: 300))
    try store.run(store.stageMarker())
    func flip(_ index: UInt64) throws {
      let name = try #require(
        files(disk, "segment-").first { name in
          disk.bytes(name).range(of: payload(index, 1, bytes: 700)) != nil
        })
      let at = try #require(disk.bytes(name).range(of: payload(index, 1, bytes: 700)))
      disk.flip(name, at: at)
    }
    try flip(5)
    try flip(28)
    let cut = disk.killed()
    let (_, first) = try LogStore.open(cut)
    #expect(first.last.index == LogIndex(27))
    let after = cut.killed()
    after.flip(try #require(files(after, "snapshot-").first), at: 200)
    let (_, second) = try LogStore.open(after)
    #expect(second.last == .zero)
    #expect(second.firstIndex == LogIndex(1))
    #expect(second.hardState.floor.index >= LogIndex(27))
    #expect(second.damage.contains { $0.consequence == .everythingLost })
  }

  @Test("A segment cut shorter than its head is damage like any other (seed 10 of the simulator)")
  func shorterThanTheHead() throws {
    let fixture = try Fixture(hasSnapshot: false)
    for name in files(fixture.disk, "segment-") {
      for bytes in [400, 2500, 4000, 4090] {
        let disk = fixture.disk.killed()
        disk.damage(name) { $0.removeLast($0.count - bytes) }
        try fixture.check(disk, "\(name) cut to \(bytes) bytes")
      }
    }
  }

  @Test("A segment without a record behind missing ones goes with them (seed 20593)")
  func withoutARecordBehindMissingOnes() throws {
    for fixture in [try Fixture(), try Fixture(hasSnapshot: false)] {
      let names = files(fixture.disk, "segment-")
      for (name, size) in names.flatMap({ name in [3863, 4096, 4160, 4500].map { (name, $0) } }) {
        let disk = fixture.disk.killed()
        for other in names where other != name { disk.names[other] = nil }
        disk.damage(name) { $0.removeLast($0.count - size) }
        try fixture.check(disk, "\(name) cut to \(size) bytes, the others missing")
      }
    }
  }

  /// Of the last head's life the next one would be, and what lies in the file would count as the next one's.
  @Test(
    "A file whose head is older than what is in it is not used again (seeds 92 and 57182)",
    arguments: [(last: 60, inFile: 5), (last: 300, inFile: 120)] as [(last: UInt64, inFile: UInt64)]
  )
  func oldHead(last: UInt64, inFile: UInt64) throws {
    let disk = MemoryFileSystem()
    do {
      let (store, _) = try LogStore.open(disk)
      try store.append(1...last)
      try store.run(store.stageMarker())
    }
    let after = disk.killed()
    let bytes = payload(inFile, 1, bytes: 100)
    let name = try #require(
      files(after, "segment-").first { after.bytes($0).range(of: bytes) != nil })
    let head = FileHeader(
      use: .spare, identity: testIdentity, life: 0,
      number: try #require(FileNames.number(of: String(name.dropFirst(6)), "segment-")),
      fileBytes: smallOptions().segmentBytes)
    after.damage(name) { $0.replaceSubrange(0..<FileHeader.blockBytes, with: head.block()) }
    var next: UInt64 = 0
    do {
      let (store, recovery) = try LogStore.open(after)
      #expect(recovery.last.index < LogIndex(inFile))
      // It comes again from the leader, by other batches.
      next = recovery.last.index.rawValue + 1
      try store.write([.append(entries(next...next + 29))])
      try store.append(next + 30...next + 42)
    }
    let (store, recovery) = try LogStore.open(after.killed())
    #expect(recovery.damage == [])
    #expect(recovery.last.index == LogIndex(next + 42))
    #expect(try store.all() == entries(1...next + 42))
  }

  /// The record is covered by a snapshot, so that the log is not cut before it.
  @Test(
    "A log whose file ends inside a record goes on where that begins (seeds 12 and 948)",
    arguments: [10, 60] as [UInt64], [13, 495])
  func fileEndsInsideARecord(last: UInt64, kept: Int) throws {
    let disk = MemoryFileSystem()
    do {
      let (store, _) = try LogStore.open(disk)
      try store.append(1...last, bytes: 500)
      try store.run(try store.takeSnapshot(at: LogIndex(10), bytes: 300))
      try store.run(store.stageMarker())
    }
    let after = disk.killed()
    let bytes = payload(10, 1, bytes: 500)
    let name = try #require(
      files(after, "segment-").first { after.bytes($0).range(of: bytes) != nil })
    let at = try #require(after.bytes(name).range(of: bytes))
    after.damage(name) { $0.removeLast($0.count - at - kept) }
    do {
      let (store, recovery) = try LogStore.open(after)
      #expect(recovery.last.index == LogIndex(10))
      #expect(recovery.damagedEntries.contains { $0.contains(LogIndex(10)) })
      try store.append(11...15, bytes: 20)
      try store.append(16...40, bytes: 700)
      try store.run(store.stageMarker())
    }
    let (store, recovery) = try LogStore.open(after.killed())
    #expect(recovery.last.index == LogIndex(40))
    #expect(
      recovery.damage.allSatisfy { if case .logCutFrom = $0.consequence { false } else { true } })
    let expected = entries(11...15, bytes: 20) + entries(16...40, bytes: 700)
    #expect(try store.all().filter { $0.index > LogIndex(10) } == expected)
  }

  @Test("What a lost end of an old segment may have replaced is not served")
  func lostEndOfAnOldSegment() throws {
    let disk = MemoryFileSystem()
    let live = (18...24).map { RecordReference(entry: LogIndex($0), offset: 0, size: 600) }
    do {
      let (store, _) = try LogStore.open(disk)
      try store.append(1...26, bytes: 700)
      try store.write([
        .truncate(from: LogIndex(24)), .append(entries(24...24, term: 2, bytes: 700)),
      ])
      try store.append(25...60, term: 2, bytes: 700)
      try store.run(try store.takeSnapshot(at: LogIndex(55), bytes: 300))
      let cleaning = try #require(
        store.cleaning(keepFrom: LogIndex(50), live: live.inSpans))
      try cleaning.execute()
      try store.run(store.stage(cleaning))
      store.upkeep()
      try store.run(store.stageMarker())
    }
    let after = disk.killed()
    let replaced = payload(26, 1, bytes: 700)
    let name = try #require(
      files(after, "segment-").first { after.bytes($0).range(of: replaced) != nil })
    #expect(after.bytes(name).range(of: payload(24, 2, bytes: 700)) != nil)
    let end = try #require(after.bytes(name).range(of: replaced)) + replaced.count + 4
    after.damage(name) { for place in end..<$0.count { $0[place] = 0 } }
    let (store, recovery) = try LogStore.open(after)
    #expect(recovery.damagedEntries.contains { $0.contains(LogIndex(24)) })
    #expect(!recovery.damage.isEmpty)
    #expect(throws: LogReadError.damaged(LogIndex(24))) { try store.record(live[6]) }
    // Nor is it after a further snapshot.
    try store.run(try store.takeSnapshot(at: LogIndex(58), bytes: 300))
    let (again, second) = try LogStore.open(after.killed())
    #expect(second.damagedEntries == recovery.damagedEntries)
    #expect(throws: LogReadError.damaged(LogIndex(24))) { try again.record(live[6]) }
  }

  @Test(
    "Where a lost segment had replaced entries of the snapshot, they are not served (seed 71592)",
    arguments: [40, 33] as [UInt64])
  func lostSegmentWithATruncation(before last: UInt64) throws {
    let disk = MemoryFileSystem()
    var segments: [String] = []
    do {
      let (store, _) = try LogStore.open(disk)
      try store.append(1...last, bytes: 300)
      segments = files(disk, "segment-")
      // The first does not fit into the segment.
      try store.write([
        .truncate(from: LogIndex(30)),
        .append(entries(30...30, term: 2, bytes: 12_000) + entries(31...45, term: 2, bytes: 300)),
      ])
      try store.run(try store.takeSnapshot(at: LogIndex(38)))
      try store.run(store.stageMarker())
    }
    let after = disk.killed()
    let newer = files(after, "segment-").filter { !segments.contains($0) }
    let isReplaced = newer.contains {
      after.bytes($0).range(of: payload(31, 2, bytes: 300)) != nil
    }
    #expect(isReplaced)
    for name in newer { try after.remove(name) }
    let (store, recovery) = try LogStore.open(after)
    store.checkInvariants()
    #expect(recovery.isMemoryLost)
    #expect(recovery.last == LogPosition(term: Term(2), index: LogIndex(38)))
    #expect(recovery.hardState.floor.index >= LogIndex(45))
    #expect(recovery.damagedEntries == [EntryRange(first: LogIndex(1), last: LogIndex(38))])
    let record = RecordReference(entry: LogIndex(31), offset: 0, size: 300)
    #expect(throws: LogReadError.damaged(LogIndex(31))) { try store.record(record) }
    let (_, again) = try LogStore.open(after.killed())
    #expect(again.damagedEntries == recovery.damagedEntries)
    #expect(again.last == recovery.last)
  }

  /// Entries 44 and 45 of term 2 in a segment that was begun with 46 of term 1.
  private func crossing(snapshot: UInt64, keepFrom: UInt64?) throws -> MemoryFileSystem {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...50, bytes: 700)
    try store.write([
      .truncate(from: LogIndex(44)), .append(entries(44...70, term: 2, bytes: 700)),
    ])
    try store.run(try store.takeSnapshot(at: LogIndex(snapshot)))
    if let keepFrom {
      let live = (44...53).map { RecordReference(entry: LogIndex($0), offset: 0, size: 600) }
      let cleaning = try #require(
        store.cleaning(keepFrom: LogIndex(keepFrom), live: live.inSpans))
      try cleaning.execute()
      try store.run(store.stage(cleaning))
      store.upkeep()
    }
    try store.run(store.stageMarker())
    return disk.killed()
  }

  @Test(
    "What a segment lacks below where it was begun is missed",
    arguments: [(70, 60), (70, 50), (44, 45), (45, 46), (47, 46)] as [(UInt64, UInt64)],
    [1, 4, 20] as [UInt64])
  func lostBelowTheFirst(_ cleaned: (snapshot: UInt64, keepFrom: UInt64), count: UInt64) throws {
    let disk = try crossing(snapshot: cleaned.snapshot, keepFrom: cleaned.keepFrom)
    let record = payload(44, 2, bytes: 700)
    let name = try #require(
      files(disk, "segment-").first { disk.bytes($0).range(of: record) != nil })
    // With the truncation's own record before it.
    let at = try #require(disk.bytes(name).range(of: record)) - 2 * RecordHeader.bytes
    disk.damage(name) { bytes in
      let end = at + RecordHeader.bytes + Int(count) * RecordHeader.recordBytes(payload: 700)
      for place in at..<min(end, bytes.count) { bytes[place] = 0 }
    }
    let (store, recovery) = try LogStore.open(disk)
    store.checkInvariants()
    let base = LogIndex(cleaned.snapshot)
    for lost in 44..<min(44 + count, 54) {
      let index = LogIndex(lost)
      if index <= base {
        #expect(recovery.damagedEntries.contains { $0.contains(index) }, "entry \(index)")
        #expect(throws: LogReadError.damaged(index)) {
          try store.record(RecordReference(entry: index, offset: 0, size: 600))
        }
      } else {
        #expect(recovery.last.index < index)
        #expect(recovery.damage.contains { $0.isLossOfLog })
        #expect(recovery.hardState.floor.index >= LogIndex(70))
      }
    }
    if recovery.last.index > base { #expect(store.firstIndex <= base.next) }
    // What the truncation removed is never given.
    if recovery.last.index >= store.firstIndex {
      for entry in try store.all() where entry.index >= LogIndex(44) {
        #expect(entry.header.position.term == Term(2))
      }
    }
    let (_, again) = try LogStore.open(disk.killed())
    #expect(again.damagedEntries == recovery.damagedEntries)
    #expect(again.last == recovery.last)
  }

  @Test("The only voter keeps what its log has when the newest segment is lost")
  func onlyVoter() throws {
    let disk = MemoryFileSystem()
    let alone = Membership(members: [
      Membership.Member(id: testIdentity.node, peerAddress: "a:1", clientAddress: "a:2")
    ])
    do {
      let (store, _) = try LogStore.open(disk)
      try store.append(1...30, bytes: 700)
      try store.append(31...50, term: 2, bytes: 700)
      let writer = store.snapshotWriter(
        position: LogPosition(term: Term(2), index: LogIndex(48)), membership: alone,
        stateHash: 1, stateHashIndex: LogIndex(48))
      try writer.finish()
      try store.run(store.stage(writer))
      try store.run(store.stageMarker())
    }
    let after = disk.killed()
    for name in files(after, "segment-").dropFirst(2) { try after.remove(name) }
    let (store, recovery) = try LogStore.open(after)
    #expect(recovery.last.index == LogIndex(48))
    #expect(recovery.damagedEntries == [EntryRange(first: LogIndex(31), last: LogIndex(48))])
    let record = RecordReference(entry: LogIndex(20), offset: 0, size: 600)
    #expect(try store.record(record) == Array(payload(20, 1, bytes: 700).prefix(600)))
  }

  @Test("Of two manifests the older one never comes back")
  func manifestsOfTwoEditions() throws {
    let fixture = MemoryFileSystem()
    let (store, _) = try LogStore.open(fixture)
    try store.append(1...90, bytes: 640)
    try store.run(try store.takeSnapshot(at: LogIndex(40)))
    let before = fixture.operations
    try store.run(try store.takeSnapshot(at: LogIndex(80)))
    for stop in 1...fixture.operations - before {
      let disk = MemoryFileSystem()
      do {
        let (store, _) = try LogStore.open(disk)
        try store.append(1...90, bytes: 640)
        try store.run(try store.takeSnapshot(at: LogIndex(40)))
        disk.stopAfter = disk.operations + stop
        // The last one ends well.
        do { try store.run(try store.takeSnapshot(at: LogIndex(80))) } catch {
          #expect(error.detail == "stopped")
        }
      }
      let killed = disk.killed()
      let (again, first) = try LogStore.open(killed)
      again.upkeep()
      for name in FileNames.manifests {
        let after = killed.killed()
        after.flip(testDirectory + "/" + name, at: 20)
        let (_, second) = try LogStore.open(after)
        #expect(second.snapshot?.position == first.snapshot?.position, "\(name), stop \(stop)")
        #expect(second.damage.allSatisfy { $0.consequence == .nothingLost }, "stop \(stop)")
      }
    }
  }

  @Test("A head that was written to another file costs that file alone", arguments: [512, 4096])
  func misdirectedHead(bytes count: Int) throws {
    let fixture = try Fixture()
    let names = files(fixture.disk, "segment-")
    for (from, to) in names.flatMap({ from in names.map { (from, $0) } }) where from != to {
      let disk = fixture.disk.killed()
      let head = Array(disk.bytes(from).prefix(count))
      disk.damage(to) { $0.replaceSubrange(0..<count, with: head) }
      let (store, recovery) = try LogStore.open(disk)
      store.checkInvariants()
      if count == 512 {
        #expect(recovery.last == fixture.last, "\(from) over \(to)")
        #expect(!recovery.isMemoryLost, "\(from) over \(to)")
        #expect(recovery.damagedEntries == [], "\(from) over \(to)")
      } else {
        let listed =
          store.state.log.stream.map(\.number)
          + store.state.log.sparse.compactMap {
            if case .segment(let segment) = $0 { segment.number } else { nil }
          }
        // Whoever owns the head is read all the same, unless the log was cut before it.
        let number = FileNames.number(
          of: String(from.dropFirst(testDirectory.count + 1)), FileNames.segmentPrefix)
        if recovery.last == fixture.last {
          #expect(listed.contains { $0 == number }, "\(from) over \(to)")
        }
      }
    }
  }

  @Test("A file that ends in the padding of its last record has all of it")
  func fileEndsInPadding() throws {
    let disk = MemoryFileSystem()
    do {
      let (store, _) = try LogStore.open(disk)
      try store.append(1...10, bytes: 501)
      try store.run(store.stageMarker())
    }
    let after = disk.killed()
    let name = try #require(files(after, "segment-").first)
    let bytes = payload(10, 1, bytes: 501)
    let at = try #require(after.bytes(name).range(of: bytes))
    after.damage(name) { $0.removeLast($0.count - at - 501) }
    do {
      let (store, recovery) = try LogStore.open(after)
      #expect(recovery.last.index == LogIndex(10))
      #expect(try store.all() == entries(1...10, bytes: 501))
      try store.append(11...12)
    }
    let (store, _) = try LogStore.open(after.killed())
    #expect(try store.all() == entries(1...10, bytes: 501) + entries(11...12))
  }

  @Test("Damage to what a later truncation removed takes nothing (seeds 2293 and 2882)")
  func damageOfReplacedEntries() throws {
    let disk = MemoryFileSystem()
    do {
      let (store, _) = try LogStore.open(disk)
      try store.append(1...10, bytes: 300)
      try store.write([.truncate(from: LogIndex(6)), .append(entries(6...12, term: 2))])
      try store.run(store.stageMarker())
    }
    let after = disk.killed()
    let name = try #require(files(after, "segment-").first)
    after.flip(name, at: try #require(after.bytes(name).range(of: payload(8, 1, bytes: 300))))
    let (store, recovery) = try LogStore.open(after)
    #expect(recovery.damage.map(\.consequence) == [.nothingLost])
    #expect(try store.all() == entries(1...5, bytes: 300) + entries(6...12, term: 2))
  }

  @Test("Undamaged, the fixture comes back whole")
  func undamaged() throws {
    let fixture = try Fixture()
    #expect(files(fixture.disk, "kept-").count == 1)
    let (store, recovery) = try LogStore.open(fixture.disk.killed())
    #expect(recovery.damage == [])
    #expect(recovery.hardState == fixture.hardState)
    #expect(recovery.last == fixture.last)
    #expect(recovery.damagedEntries == [])
    for record in fixture.live { _ = try store.record(record) }
    try fixture.check(fixture.disk.killed(), "undamaged")
  }

  @Test("A flipped bit anywhere in segments, kept files and snapshots is found")
  func flips() throws {
    for fixture in [try Fixture(), try Fixture(hasSnapshot: false)] {
      for prefix in ["segment-", "kept-", "snapshot-"] {
        for path in files(fixture.disk, prefix) {
          let size = fixture.disk.bytes(path).count
          for at in stride(from: 5, to: size, by: prefix == "segment-" ? 797 : 101) {
            let damaged = fixture.disk.killed()
            damaged.flip(path, at: at)
            try fixture.check(damaged, "bit of \(path) at \(at)")
          }
        }
      }
    }
  }

  @Test("A flipped bit anywhere in the state file or a manifest loses nothing")
  func smallFiles() throws {
    let fixture = try Fixture()
    for name in ["state", "manifest", "manifest-copy"] {
      let path = testDirectory + "/" + name
      let size = fixture.disk.bytes(path).count
      let places =
        name == "state"
        ? (0..<4).flatMap { block in (0..<12).map { block * 4096 + $0 * 11 } }
        : Array(stride(from: 0, to: size, by: 7))
      for at in places where at < size {
        let damaged = fixture.disk.killed()
        damaged.flip(path, at: at)
        let (store, recovery) = try LogStore.open(damaged)
        let note = Comment("bit of \(name) at \(at)")
        #expect(recovery.hardState == fixture.hardState, note)
        #expect(!recovery.isMemoryLost, note)
        #expect(recovery.last == fixture.last, note)
        #expect(recovery.damage.allSatisfy { $0.consequence == .nothingLost }, note)
        store.checkInvariants()
      }
    }
  }

  @Test("A state file cut short forgets no vote without knowing it (G11)", arguments: 1...4)
  func stateCutShort(saves: UInt64) throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    for term in 1...saves {
      try store.write([.saveHardState(HardState(term: Term(term), vote: NodeID(2)))])
    }
    let path = testDirectory + "/state"
    for size in stride(from: 0, to: disk.bytes(path).count, by: 64) {
      let damaged = disk.killed()
      damaged.damage(path) { $0.removeLast($0.count - size) }
      let (_, recovery) = try LogStore.open(damaged)
      let isWhole = recovery.hardState == HardState(term: Term(saves), vote: NodeID(2))
      #expect(recovery.isMemoryLost || isWhole, "cut to \(size)")
      // Said once, and remembered.
      let (_, again) = try LogStore.open(damaged.killed())
      #expect(again.isMemoryLost == recovery.isMemoryLost, "cut to \(size)")
      #expect(again.damage.allSatisfy { $0.consequence == .nothingLost }, "cut to \(size)")
    }
  }

  @Test("A file cut short at every 64 bytes is found")
  func truncations() throws {
    let fixture = try Fixture(hasSnapshot: false)
    let path = try #require(files(fixture.disk, "segment-").last)
    for size in stride(from: 0, to: fixture.disk.bytes(path).count, by: 64) {
      let damaged = fixture.disk.killed()
      damaged.damage(path) { $0.removeLast($0.count - size) }
      try fixture.check(damaged, "\(path) cut to \(size)")
    }
  }

  @Test("What a file before the stream lacks at its end is missed until repaired (seed 5436)")
  func truncationsBeforeTheStream() throws {
    let fixture = try Fixture()
    for path in files(fixture.disk, "segment-").prefix(2) {
      for size in stride(from: 0, to: fixture.disk.bytes(path).count, by: 1021) {
        let damaged = fixture.disk.killed()
        damaged.damage(path) { $0.removeLast($0.count - size) }
        try fixture.check(damaged, "\(path) cut to \(size)")
      }
    }
  }

  @Test("Missing and swapped files are found")
  func missing() throws {
    for fixture in [try Fixture(), try Fixture(hasSnapshot: false)] {
      let paths = ["segment-", "kept-", "snapshot-", "state", "manifest"].flatMap {
        files(fixture.disk, $0)
      }
      for path in paths {
        let damaged = fixture.disk.killed()
        damaged.names[path] = nil
        try fixture.check(damaged, "\(path) missing")
      }
      let segments = files(fixture.disk, "segment-")
      for (left, right) in zip(segments, segments.dropFirst()) {
        let damaged = fixture.disk.killed()
        let file = damaged.names[left]
        damaged.names[left] = damaged.names[right]
        damaged.names[right] = file
        try fixture.check(damaged, "\(left) and \(right) swapped")
      }
      let all = fixture.disk.killed()
      for path in segments { all.names[path] = nil }
      try fixture.check(all, "all segments missing")
      let none = fixture.disk.killed()
      for path in files(fixture.disk, "manifest") { none.names[path] = nil }
      try fixture.check(none, "both manifests missing")
    }
  }

  @Test("Old blocks put back and blocks written to a wrong place are found")
  func staleAndMisdirected() throws {
    let fixture = try Fixture(hasSnapshot: false)
    let paths = files(fixture.disk, "segment-")
    var random = SeededRandom(seed: 4)
    for step in 0..<60 {
      let damaged = fixture.disk.killed()
      let from = paths[Int.random(in: 0..<paths.count, using: &random)]
      let to = paths[Int.random(in: 0..<paths.count, using: &random)]
      let source = Int.random(in: 0..<32, using: &random) * 512
      let target = Int.random(in: 8..<32, using: &random) * 512
      let block =
        step % 3 == 0
        ? [UInt8](repeating: 0, count: 512)
        : Array(fixture.disk.bytes(from)[source..<source + 512])
      damaged.damage(to) { $0.replaceSubrange(target..<target + 512, with: block) }
      try fixture.check(damaged, "block \(source) of \(from) at \(target) of \(to)")
    }
  }

  @Test("Damage that swallows a truncation does not bring back what it replaced")
  func swallowedTruncation() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...30)
    try store.write([.truncate(from: LogIndex(26)), .append(entries(26...34, term: 2))])
    try store.run(try store.takeSnapshot(at: LogIndex(34)))
    try store.append(35...36, term: 2)
    let segment = store.state.log.stream[0]
    let start = Int(segment.slot(of: LogIndex(26))?.offset ?? 0) - RecordHeader.bytes
    let end = Int(segment.slot(of: LogIndex(30))?.offset ?? 0)
    let damaged = disk.killed()
    damaged.damage(try #require(files(damaged, "segment-").first)) {
      $0.replaceSubrange(start..<end, with: [UInt8](repeating: 0xee, count: end - start))
    }
    let (again, recovery) = try LogStore.open(damaged)
    #expect(recovery.last.index == LogIndex(36))
    for index in 1...36 as ClosedRange<UInt64> {
      do throws(LogReadError) {
        let bytes = try again.payload(of: LogIndex(index))
        #expect(bytes == payload(index, index < 26 ? 1 : 2, bytes: 100))
        #expect(!(26...29).contains(index))
      } catch {
        // The damage has room for a truncation that reaches further back than the real one.
        #expect(error == .damaged(LogIndex(index)))
        #expect((15...29).contains(index))
      }
    }
    #expect(recovery.firstIndex == LogIndex(30))
  }

  @Test("A cut before damage that may hide a truncation is said (seed 57887 of the simulator)")
  func cutBeforeSwallowedTruncation() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...40)
    try store.write([.truncate(from: LogIndex(31)), .append(entries(31...40, term: 2))])
    try store.run(store.stageMarker())
    let segment = store.state.log.stream[0]
    // The truncation and two entries: their damage has room for one that reaches further back.
    let start = Int(segment.slot(of: LogIndex(31))?.offset ?? 0) - RecordHeader.bytes
    let end = Int(segment.slot(of: LogIndex(33))?.offset ?? 0)
    let damaged = disk.killed()
    damaged.damage(try #require(files(damaged, "segment-").first)) {
      $0.replaceSubrange(start..<end, with: [UInt8](repeating: 0xee, count: end - start))
    }
    let (again, recovery) = try LogStore.open(damaged)
    #expect((20...30).contains(recovery.last.index.rawValue))
    #expect(recovery.damage.map(\.consequence) == [.logCutFrom(recovery.last.index.next)])
    #expect(recovery.hardState.floor == LogPosition(term: Term(2), index: LogIndex(40)))
    #expect(try again.all() == entries(1...recovery.last.index.rawValue))
  }

  @Test("A torn tail is cut and its remains never follow what is written over it")
  func tornRemains() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...5)
    let whole = store.stage([.append(entries(6...9))])
    try whole.execute()
    // The power goes before the sync is reported: entry 6 is torn, 7 to 9 are whole.
    let torn = disk.killed()
    let place = Int(store.state.log.stream[0].slots[5].offset)
    // The marker of that batch is lost as well.
    torn.damage(testDirectory + "/state") { bytes in
      for slot in 0..<2 where slot != store.state.stateSlots.durableSlot {
        let at = Int(StateSlots.offset(slot: slot, copy: 0))
        bytes.replaceSubrange(at..<at + 128, with: [UInt8](repeating: 0, count: 128))
      }
    }
    torn.flip(try #require(files(torn, "segment-").first), at: place + 4)
    let (second, recovery) = try LogStore.open(torn)
    #expect(recovery.last.index == LogIndex(5))
    #expect(recovery.hardState.floor == .zero)
    try second.write([.append([entry(6)])])
    let (third, last) = try LogStore.open(torn.killed())
    #expect(last.last.index == LogIndex(6))
    #expect(last.damage.filter { $0.consequence != .nothingLost } == [])
    #expect(try third.all() == entries(1...6))
  }

  @Test("A node whose hard state is lost is marked until it is told otherwise, across restarts")
  func memoryLost() throws {
    let fixture = try Fixture()
    let disk = fixture.disk.killed()
    disk.damage(testDirectory + "/state") { bytes in
      for at in stride(from: 20, to: bytes.count, by: 64) { bytes[at] ^= 1 }
    }
    do {
      let (store, recovery) = try LogStore.open(disk)
      #expect(recovery.isMemoryLost)
      #expect(recovery.damage.map(\.consequence) == [.hardStateLost])
      // The highest term that the log knows, and no vote.
      #expect(recovery.hardState == HardState(term: Term(2)))
      #expect(recovery.last == fixture.last)
      try store.write([.saveHardState(HardState(term: Term(3)))])
    }
    do {
      let (store, recovery) = try LogStore.open(disk)
      #expect(recovery.isMemoryLost)
      #expect(recovery.hardState == HardState(term: Term(3)))
      store.memoryIsRestored()
      try store.write([])
    }
    let (_, recovery) = try LogStore.open(disk.crashed(.allLost))
    #expect(!recovery.isMemoryLost)
    #expect(recovery.damage == [])
  }
}

extension [UInt8] {
  /// Where `other` begins in these bytes.
  func range(of other: [UInt8]) -> Int? {
    indices.first { $0 + other.count <= count && self[$0..<$0 + other.count].elementsEqual(other) }
  }
}
