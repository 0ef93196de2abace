// Segments written past the page cache hold the same bytes as any other file: whatever the sizes
// and places of the writes, also after opening the file again.

import Base
import Foundation
import Testing

@testable import LogStore

@Suite struct LinuxLogFileTests {
  private static let fileBytes = 3 << 20

  /// Runs `body` with the path of a new file of `fileBytes`.
  private func withFile(_ body: (String, LinuxFileSystem) throws -> Void) throws {
    let path = FileManager.default.temporaryDirectory.path + "/skein-log-\(UUID().uuidString)"
    defer { unlink(path) }
    let system = LinuxFileSystem()
    let file = try system.open(path, .createNew)
    try file.allocate(UInt64(Self.fileBytes))
    try body(path, system)
  }

  private func content(_ path: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
  }

  /// Writes one behind the other, as the log does. Again: change the seed.
  @Test(arguments: 1...8 as ClosedRange<UInt64>)
  func whatIsWrittenIsThere(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    try withFile { path, system in
      var expected = [UInt8](repeating: 0, count: Self.fileBytes)
      var file = try system.openLog(path, .readWrite)
      var offset = Int.random(in: 0...3, using: &random) * 2000
      while true {
        let sizes = (0..<Int.random(in: 1...4, using: &random)).map { _ in
          Int.random(in: 0...1 << Int.random(in: 0...20, using: &random), using: &random)
        }
        let count = sizes.reduce(0, +)
        guard offset + count <= Self.fileBytes else { break }
        let pieces = sizes.map { size in
          [UInt8](repeating: UInt8.random(in: 1...255, using: &random), count: size)
        }
        if Int.random(in: 0..<3, using: &random) == 0 { file.expectReads(.random(using: &random)) }
        try file.write(pieces, at: UInt64(offset))
        for piece in pieces {
          expected.replaceSubrange(offset..<offset + piece.count, with: piece)
          offset += piece.count
        }
        if Int.random(in: 0..<4, using: &random) == 0 {
          try file.synchronize()
          file = try system.openLog(path, .readWrite)
        }
        if Int.random(in: 0..<10, using: &random) == 0 { offset += 777 }
      }
      // Some of it is in the page cache, some is not.
      let once = try system.openToReadOnce(path)
      for _ in 0..<50 {
        let start = Int.random(in: 0..<Self.fileBytes, using: &random)
        let count = Int.random(in: 0...min(1 << 20, Self.fileBytes - start), using: &random)
        let isRight = try once.withBytes(count, at: UInt64(start)) {
          $0.elementsEqual(expected[start..<start + count])
        }
        #expect(isRight, "seed \(seed): \(count) bytes at \(start)")
      }
      #expect(try content(path) == expected, "seed \(seed)")
      let read = try file.readExactly(1000, at: UInt64(Self.fileBytes / 2))
      #expect(read == Array(expected[Self.fileBytes / 2..<Self.fileBytes / 2 + 1000]))
    }
  }

  /// Also where the buffer held something else there before. Again: change the seed.
  @Test(arguments: 1...4 as ClosedRange<UInt64>)
  func whatFollowsAWriteInItsBlockIsZero(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    try withFile { path, system in
      try system.open(path, .readWrite).write([UInt8](repeating: 9, count: Self.fileBytes), at: 0)
      let file = try system.openLog(path, .readWrite)
      // Where the file system knows no O_DIRECT what was there before stays.
      let behind: UInt8 = file is LinuxLogFile ? 0 : 9
      var offset = 0
      for _ in 0..<60 {
        // To within a block, to its end, over several, and more than the buffer holds at first.
        let toEnd = 4096 - offset % 4096
        let count =
          [Int.random(in: 1...900, using: &random), toEnd, toEnd + 5000, 40_000]
          .randomElement(using: &random) ?? 1
        let bytes = [UInt8](repeating: 7, count: count)
        if Bool.random(using: &random) {
          try file.write(bytes, at: UInt64(offset))
        } else {
          try file.write([bytes], at: UInt64(offset))
        }
        offset += count
        let blockEnd = (offset + 4095) / 4096 * 4096
        let expected =
          [UInt8](repeating: 7, count: count)
          + [UInt8](repeating: behind, count: blockEnd - offset)
          + [UInt8](repeating: 9, count: 4096)
        let found = try file.readExactly(expected.count, at: UInt64(offset - count))
        #expect(found == expected, "seed \(seed): \(count) bytes to \(offset)")
      }
      #expect(try content(path)[..<offset] == ArraySlice(repeating: 7, count: offset))
    }
  }

  /// False where the page cache is all that there is, as on tmpfs, which takes O_DIRECT all the same.
  private func leavesPageCache(_ plain: LinuxFile) throws -> Bool {
    try plain.write([[7]], at: 2 << 20)
    try plain.synchronize()
    plain.willNotRead(1 << 20, at: 2 << 20)
    return !plain.isCached(1, at: 2 << 20)
  }

  @Test("Where reads are expected the page cache keeps what is written, elsewhere not")
  func keptInThePageCache() throws {
    try withFile { path, system in
      let file = try system.openLog(path, .readWrite)
      let plain = try #require(try system.open(path, .readWrite) as? LinuxFile)
      guard file is LinuxLogFile, try leavesPageCache(plain) else { return }
      // Pages are of 4 to 64 KiB.
      let page = 64 << 10
      let some = [UInt8](repeating: 7, count: 2 * page)
      try file.write(some, at: 0)
      #expect(!plain.isCached(4096, at: 0))
      file.expectReads(true)
      try file.write(some, at: UInt64(2 * page))
      try file.write([UInt8](some.dropLast(100)), at: UInt64(4 * page))
      try file.synchronize()
      #expect(plain.isCached(4 * page, at: UInt64(2 * page)))
      #expect(plain.isCached(1, at: 250_000) && plain.isCached(5, at: UInt64(4 * page - 2)))
      #expect(!plain.isCached(2, at: UInt64(2 * page - 1)))
      file.expectReads(false)
      try file.write(some, at: UInt64(6 * page - 100))
      #expect(!plain.isCached(page, at: UInt64(7 * page)))
      #expect(try content(path)[..<(8 * page - 100)].allSatisfy { $0 == 7 })
      // More pages than are asked about at a time.
      #expect(plain.isCached(3 << 20, at: 0))
    }
  }

  @Test func onlyTheRestOfTheLastBlockMayChange() throws {
    try withFile { path, system in
      let old = [UInt8](repeating: 9, count: 64 << 10)
      try system.open(path, .readWrite).write([old], at: 0)
      try system.openLog(path, .readWrite).write([[1, 2, 3]], at: 5000)
      let bytes = try content(path)
      #expect(bytes[..<5000].allSatisfy { $0 == 9 })
      #expect(Array(bytes[5000..<5003]) == [1, 2, 3])
      #expect(bytes[8192..<64 << 10].allSatisfy { $0 == 9 })
    }
  }

  @Test func aFileThatEndsWithinABlockKeepsItsSize() throws {
    try withFile { path, system in
      let file = try system.openLog(path, .readWrite)
      try file.truncate(to: 10_000)
      try file.write([[UInt8](repeating: 1, count: 9_990)], at: 5)
      try file.write([[2, 3]], at: 9_995)
      let bytes = try content(path)
      #expect(bytes.count == 10_000)
      #expect(bytes[4] == 0 && bytes[5] == 1 && bytes[9_994] == 1 && bytes[9_996] == 3)
    }
  }
}

@Suite struct LinuxDirectFileTests {
  @Test(
    "From the page cache or past it, a file has the bytes that were written, at any place",
    arguments: [false, true])
  func reads(isCached: Bool) throws {
    let path = FileManager.default.temporaryDirectory.path + "/skein-read-\(UUID().uuidString)"
    defer { unlink(path) }
    let system = LinuxFileSystem()
    var random = SeededRandom(seed: 3)
    let content = (0..<100_000).map { _ in UInt8.random(in: 0...255, using: &random) }
    let plain = try #require(try system.open(path, .createNew) as? LinuxFile)
    try plain.write([content], at: 0)
    try plain.synchronize()
    if !isCached { plain.willNotRead(UInt64(content.count), at: 0) }
    let file = try system.openToReadOnce(path)
    // On tmpfs, which takes O_DIRECT too, nothing leaves the page cache.
    if isCached { #expect(plain.isCached(content.count, at: 0)) }
    for _ in 0..<200 {
      let start = Int.random(in: 0..<content.count, using: &random)
      let count = Int.random(in: 0...content.count - start, using: &random)
      let read = try file.readExactly(count, at: UInt64(start))
      #expect(read == Array(content[start..<start + count]), "\(count) bytes at \(start)")
    }
    #expect(throws: StorageFailure.self) { try file.readExactly(1, at: UInt64(content.count)) }
    #expect(throws: StorageFailure.self) {
      try file.readExactly(5_000, at: UInt64(content.count - 4_999))
    }
    #expect(throws: StorageFailure.self) { try system.openToReadOnce(path + "-none") }
    for (offset, count) in [(0, 1), (4095, 2), (5000, 70_000), (content.count - 9, 9)] {
      let read = try file.withBytes(count, at: UInt64(offset)) { Array($0) }
      #expect(read == Array(content[offset..<offset + count]), "\(count) at \(offset)")
    }
    let short = #expect(throws: StorageFailure.self) {
      try file.withBytes(10, at: UInt64(content.count - 9)) { _ in }
    }
    #expect(short?.operation == .shortRead)
  }
}
