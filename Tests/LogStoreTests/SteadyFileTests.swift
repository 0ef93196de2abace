// Large files reach the disk as they are written, not all at once at their end.

import Base
import Consensus
import Testing

@testable import LogStore

@Suite struct SteadyFileTests {
  private func unsyncedBytes(_ disk: MemoryFileSystem, _ path: String) -> Int {
    (disk.names[path]?.unsynced ?? []).reduce(0) { sum, change in
      if case .write(_, let data) = change { sum + data.count } else { sum }
    }
  }

  @Test func littleIsLeftToOneSync() throws {
    let disk = MemoryFileSystem()
    let file = SteadyFile(try disk.open("/file", .createNew))
    for piece in 0..<11 {
      try file.write([[UInt8](repeating: UInt8(piece), count: 1 << 20)], at: UInt64(piece) << 20)
      #expect(unsyncedBytes(disk, "/file") < SteadyFile.bytesMax)
    }
    #expect(disk.syncs == 2)
    try file.synchronize()
    #expect(disk.names["/file"]?.durable.count == 11 << 20)
  }

  @Test func aSyncThatFailsIsTold() throws {
    let disk = MemoryFileSystem()
    let file = SteadyFile(try disk.open("/file", .createNew))
    disk.failSyncIn = 0
    let failure = #expect(throws: StorageFailure.self) {
      try file.write([[UInt8](repeating: 1, count: SteadyFile.bytesMax)], at: 0)
    }
    #expect(failure?.operation == .synchronize)
    // The disk would take the next one.
    #expect(throws: StorageFailure.self) { try file.synchronize() }
    #expect(throws: StorageFailure.self) { try file.write([[1]], at: 0) }
  }

  @Test func aSnapshotIsWrittenSo() throws {
    let disk = MemoryFileSystem()
    let (store, _) = try LogStore.open(disk)
    try store.append(1...3)
    let writer = store.snapshotWriter(
      position: store.last, membership: Membership(members: []), stateHash: 1,
      stateHashIndex: LogIndex(3))
    let before = disk.syncs
    for _ in 0..<9 { try writer.append([UInt8](repeating: 7, count: 1 << 20)) }
    #expect(disk.syncs == before + 2)
    #expect(unsyncedBytes(disk, writer.path) < SteadyFile.bytesMax)
    try writer.finish()
    #expect(unsyncedBytes(disk, writer.path) == 0)
  }
}
