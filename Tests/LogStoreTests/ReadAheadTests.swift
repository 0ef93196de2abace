// The disk is asked for what a reader in order will want next, once, and for nothing else.

import Testing

@testable import LogStore

@Suite struct ReadAheadTests {
  static let mebibyte = 1 << 20
  let disk = MemoryFileSystem()
  let files: ReadFiles

  init() throws {
    for name in ["a", "b"] {
      let file = MemoryFileSystem.File()
      file.current = [UInt8](repeating: 7, count: 16 * Self.mebibyte)
      disk.names["/data/" + name] = file
    }
    files = ReadFiles(directory: "/data", fileSystem: disk, openMax: 8)
  }

  func read(_ mebibyte: Int, of name: String, limit: Int = 15) throws {
    let start = mebibyte * Self.mebibyte
    let bytes = try files.read(
      start..<start + Self.mebibyte, of: name, aheadTo: limit * Self.mebibyte)
    #expect(bytes.count == Self.mebibyte && bytes[0] == 7)
  }

  @Test func inOrderEachByteIsAskedForOnceBeforeItIsRead() throws {
    var asked = 0
    for place in 0..<15 {
      try read(place, of: "a")
      if let last = disk.advised.last { asked = last.upperBound / Self.mebibyte }
      // The first read may be one of a kind; from the second on there is always more under way.
      if place > 0 { #expect(asked >= min(15, place + 1 + 2)) }
    }
    for (one, next) in zip(disk.advised, disk.advised.dropFirst()) {
      #expect(one.upperBound == next.lowerBound)
    }
    #expect(disk.advised.first?.lowerBound == 2 * Self.mebibyte)
    #expect(disk.advised.last?.upperBound == 15 * Self.mebibyte)
  }

  @Test func whoReadsHereAndThereOrBackwardsGetsNoneOfIt() throws {
    for place in [0, 9, 1, 14, 3, 2, 8, 0] { try read(place, of: "a") }
    for place in 0..<5 {
      try read(place, of: "a")
      try read(place, of: "b")
    }
    #expect(disk.advised.isEmpty)
  }

  @Test func nothingIsAskedForBeyondTheLimitNorOfAFileThatWasReplaced() throws {
    for place in 0..<4 { try read(place, of: "a", limit: place + 1) }
    #expect(disk.advised.isEmpty)
    files.close("a")
    try read(4, of: "a")
    #expect(disk.advised.isEmpty)
    try read(5, of: "a")
    #expect(disk.advised == [6 * Self.mebibyte..<10 * Self.mebibyte])
  }
}
