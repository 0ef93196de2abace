// Damage to files of the log as the log writes them: what is changed, and what is left alone since
// nobody would notice.

import Base
import Consensus
import Foundation
import Testing

@testable import ChaosHarness
@testable import LogStore

@Suite struct DiskFaultTests {
  private static let fileBytes = 64 << 10

  /// The head, and so many records of 104 bytes behind it.
  private func segment(
    _ number: UInt64, use: FileUse = .log, life: UInt32 = 1, records: Int, file: UInt64 = 1,
    syncedLag: Int? = nil
  ) -> [UInt8] {
    var head = FileHeader(
      use: use, identity: StoreIdentity(cluster: "c", node: NodeID(1)), life: life, number: file,
      fileBytes: UInt64(Self.fileBytes))
    head.segment = number
    var bytes = head.block()
    for record in 0..<records {
      let place = LogPlace(segment: number, offset: UInt32(bytes.count))
      var header = RecordHeader(
        kind: .commands, term: Term(1), index: LogIndex(UInt64(record + 1)), previousTerm: Term(1),
        place: place, life: life,
        synced: syncedLag.map { synced(number, record - $0) } ?? SyncedEnd())
      header.payloadBytes = 5
      header.append(to: &bytes)
      bytes += [1, 2, 3, 4, UInt8(truncatingIfNeeded: life), 0, 0, 0]
    }
    return bytes
  }

  /// All before record `record` of the segment is synced.
  private func synced(_ segment: UInt64, _ record: Int) -> SyncedEnd {
    var end = SyncedEnd()
    end.place = LogPlace(segment: segment, offset: UInt32(4096 + max(0, record) * 104))
    return end
  }

  private func padded(_ bytes: [UInt8]) -> [UInt8] {
    bytes + [UInt8](repeating: 0, count: Self.fileBytes - bytes.count)
  }

  /// `newest` as a file that had been full of records of an earlier life.
  private func reused(_ newest: [UInt8]) -> [UInt8] {
    let former = segment(1, life: 1, records: (Self.fileBytes - 4096) / 104)
    return newest + padded(former)[newest.count...]
  }

  private func inDirectory(_ body: (_ directory: String, _ file: String) throws -> Void) throws {
    let directory = try ClusterFiles.makeTemporaryDirectory(in: NSTemporaryDirectory())
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try body(directory, directory + "/segment-0000000001")
  }

  @Test func theRecordsOfAFileAreThoseOfItsLife() throws {
    let file = try #require(SegmentFile("f", padded(segment(7, records: 3))))
    #expect(file.number == 7)
    #expect(file.records == [4096..<4197, 4200..<4301, 4304..<4405])
    #expect(file.end == 4408)
    let again = try #require(SegmentFile("f", reused(segment(9, life: 2, records: 2))))
    #expect(again.number == 9 && again.records.count == 2)
    #expect(SegmentFile("f", reused(segment(0, use: .spare, life: 2, records: 0))) == nil)
    #expect(SegmentFile("f", reused(segment(9, life: 2, records: 0))) == nil)
    #expect(SegmentFile("f", padded(segment(1, use: .spare, records: 3))) == nil)
    #expect(SegmentFile("f", []) == nil)
    // One of the head's copies is enough.
    var torn = padded(segment(7, records: 3))
    torn.replaceSubrange(0..<64, with: [UInt8](repeating: 0, count: 64))
    #expect(SegmentFile("f", torn)?.records.count == 3)
  }

  @Test(arguments: 1...40 as ClosedRange<UInt64>)
  func aFlippedBitIsInARecord(_ draw: UInt64) throws {
    try inDirectory { directory, file in
      let content = reused(segment(9, life: 2, records: 5))
      try ClusterFiles.write(content, to: file)
      try ClusterFiles.write(
        reused(segment(0, use: .spare, life: 2, records: 0)), to: directory + "/segment-0000000002")
      _ = try #require(try DiskFaults.flip(in: directory, draw: draw))
      let flipped = try ClusterFiles.read(file)
      let changed = flipped.indices.filter { flipped[$0] != content[$0] }
      #expect(changed.count == 1)
      #expect((flipped[changed[0]] ^ content[changed[0]]).nonzeroBitCount == 1)
      let records = try #require(SegmentFile(file, content)).records
      #expect(records.contains { $0.contains(changed[0]) })
    }
  }

  @Test(arguments: 1...40 as ClosedRange<UInt64>)
  func aFileThatIsCutShortLosesRecords(_ draw: UInt64) throws {
    try inDirectory { directory, file in
      try ClusterFiles.write(reused(segment(9, life: 2, records: 5)), to: file)
      let spare = directory + "/segment-0000000002"
      try ClusterFiles.write(reused(segment(0, use: .spare, life: 2, records: 0)), to: spare)
      _ = try #require(try DiskFaults.truncate(in: directory, draw: draw))
      #expect(try ClusterFiles.read(file).count < 4096 + 5 * 104)
      #expect(try ClusterFiles.read(spare).count == Self.fileBytes)
    }
  }

  /// Also in a file that is full of an earlier life's records: there the end of the log is not where
  /// the last bytes are.
  @Test(arguments: [false, true])
  func whatWasWrittenSinceIsMadeUndone(_ isReused: Bool) throws {
    try inDirectory { directory, file in
      func content(_ records: Int) -> [UInt8] {
        let bytes = segment(9, life: 2, records: records)
        return isReused ? reused(bytes) : padded(bytes)
      }
      try ClusterFiles.write(content(50), to: file)
      let old = try #require(try DiskFaults.remember(in: directory))
      let now = content(200)
      try ClusterFiles.write(now, to: file)
      _ = try #require(try DiskFaults.putBack(old))
      let stale = try ClusterFiles.read(file)
      #expect(stale.count == now.count)
      #expect(SegmentFile(file, stale)?.records.count == 50)
      let changed = try #require(stale.indices.first { stale[$0] != now[$0] })
      #expect(changed >= 4096 + 50 * 104)
    }
  }

  /// What a record behind it says to be synced, in the segment that the log has reached, is no torn tail.
  @Test(arguments: 1...40 as ClosedRange<UInt64>)
  func damageToWhatWasSyncedMustBeFound(_ draw: UInt64) throws {
    try inDirectory { directory, file in
      let newest = padded(segment(9, records: 10, syncedLag: 3))
      #expect(try #require(SegmentFile(file, newest)).syncedEnd == 4096 + 6 * 104)
      try ClusterFiles.write(newest, to: file)
      let older = directory + "/segment-0000000002"
      let old = padded(segment(8, records: 10, file: 2, syncedLag: 3))
      try ClusterFiles.write(old, to: older)
      let flip = try #require(try DiskFaults.flip(in: directory, draw: draw))
      let now = try ClusterFiles.read(file)
      let place = newest.indices.first { now[$0] != newest[$0] }
      #expect(flip.mustBeFound == place.map { $0 < 4096 + 6 * 104 } ?? false)
      try ClusterFiles.write(newest, to: file)
      try ClusterFiles.write(old, to: older)
      let cut = try #require(try DiskFaults.truncate(in: directory, draw: draw))
      let left = try ClusterFiles.read(file).count
      #expect(cut.mustBeFound == (left < 4096 + 6 * 104))
    }
  }

  /// Of several files it is the one that the log has reached, whatever was touched last.
  @Test func theNewestSegmentIsRemembered() throws {
    try inDirectory { directory, file in
      try ClusterFiles.write(padded(segment(12, records: 3, file: 1)), to: file)
      try ClusterFiles.write(
        padded(segment(11, records: 9, file: 2)), to: directory + "/segment-0000000002")
      #expect(try DiskFaults.remember(in: directory)?.path == file)
    }
  }

  /// Beside the log: two slots of the hard state twice, the manifest twice, a snapshot, a kept file, and who
  /// the data belongs to.
  private func others() -> [String: [UInt8]] {
    let identity = StoreIdentity(cluster: "c", node: NodeID(1))
    var state = [UInt8](repeating: 0, count: Int(StateSlots.fileBytes))
    for slot in 0..<2 {
      for copy in 0..<2 {
        var record = StateRecord(node: NodeID(1))
        record.save = UInt64(slot + 1)
        let offset = Int(StateSlots.offset(slot: slot, copy: copy))
        state.replaceSubrange(offset..<offset + StateRecord.bytes, with: record.encoded())
      }
    }
    let manifest = Manifest(node: NodeID(1)).encoded()
    let head = FileHeader(use: .kept, identity: identity, life: 1, number: 7, fileBytes: 8192)
    return [
      "identity": IdentityFile.encoded(identity), "state": state, "manifest": manifest,
      "manifest-copy": manifest, "snapshot-0000000004": [UInt8](repeating: 9, count: 500),
      "kept-0000000007": head.block() + [UInt8](repeating: 5, count: 4096),
      "LOCK": [0x31], "snapshot-0000000005.tmp": [1, 2, 3],
    ]
  }

  /// Whatever the seed draws, one file is harmed where it means something; all kinds of files are, the log
  /// in half of the cases, and never what does not matter.
  @Test(arguments: [true, false]) func everyKindOfFileIsHarmed(_ flips: Bool) throws {
    var met: [String: Int] = [:]
    for draw in 1...300 as ClosedRange<UInt64> {
      try inDirectory { directory, file in
        var files = others()
        files["segment-0000000001"] = reused(segment(9, life: 2, records: 5))
        for (name, bytes) in files { try ClusterFiles.write(bytes, to: "\(directory)/\(name)") }
        let damage = try #require(
          try flips
            ? DiskFaults.flip(in: directory, draw: draw)
            : DiskFaults.truncate(in: directory, draw: draw))
        let changed = try files.filter { name, bytes in
          try ClusterFiles.read("\(directory)/\(name)") != bytes
        }
        let name = try #require(changed.keys.first)
        #expect(changed.count == 1 && damage.text.contains(name))
        #expect(damage.isOfIdentity == (name == "identity"))
        met[name, default: 0] += 1
        try expectNoticed(name, try ClusterFiles.read("\(directory)/\(name)"), flips: flips)
      }
    }
    #expect(met["LOCK"] == nil && met["snapshot-0000000005.tmp"] == nil)
    #expect(met.count == 7, "\(met)")
    let ofLog = met["segment-0000000001"] ?? 0
    #expect(ofLog > 100 && ofLog < 200, "\(met)")
  }

  /// What was harmed is not as it was to who reads it.
  private func expectNoticed(_ name: String, _ bytes: [UInt8], flips: Bool) throws {
    switch name {
    case "identity": #expect(IdentityFile.decode(bytes) == nil)
    case "state":
      let copies = StateSlots.copies(in: bytes).count
      #expect(flips ? copies == 3 : copies < 4)
    case "manifest", "manifest-copy": #expect(Manifest.decode(bytes) == nil)
    default: break
    }
  }

  /// What of a directory is looked at to see whether anything is written there.
  @Test func aFileThatChangedIsNamed() throws {
    try inDirectory { directory, file in
      try ClusterFiles.write("x", to: file)
      try ClusterFiles.write("x", to: directory + "/ballast")
      let old = try DiskFaults.fingerprint(of: directory)
      try ClusterFiles.write("xx", to: directory + "/ballast")
      #expect(DiskFaults.changes(old, try DiskFaults.fingerprint(of: directory)).isEmpty)
      try ClusterFiles.write("xx", to: file)
      try ClusterFiles.write("", to: directory + "/new")
      #expect(
        DiskFaults.changes(old, try DiskFaults.fingerprint(of: directory))
          == ["new", "segment-0000000001"])
    }
  }

  @Test func whatWouldChangeNothingIsNotDone() throws {
    try inDirectory { directory, file in
      #expect(try DiskFaults.flip(in: directory, draw: 5) == nil)
      #expect(try DiskFaults.truncate(in: directory, draw: 5) == nil)
      #expect(try DiskFaults.remember(in: directory) == nil)
      // Nothing written since.
      try ClusterFiles.write(padded(segment(9, records: 5)), to: file)
      let old = try #require(try DiskFaults.remember(in: directory))
      #expect(try DiskFaults.putBack(old) == nil)
      // The file is spare by now, or gone.
      try ClusterFiles.write(reused(segment(0, use: .spare, life: 2, records: 0)), to: file)
      #expect(try DiskFaults.putBack(old) == nil)
      #expect(try DiskFaults.flip(in: directory, draw: 5) == nil)
      #expect(try DiskFaults.truncate(in: directory, draw: 5) == nil)
      _ = try DiskFaults.wipe(directory)
      #expect(try ClusterFiles.names(in: directory).isEmpty)
      #expect(try DiskFaults.putBack(old) == nil)
    }
  }
}
