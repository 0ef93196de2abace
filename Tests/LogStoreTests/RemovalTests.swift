// A large file goes at once for who looks for its name, and piece by piece for the device; what has
// another name stays whole.

import Base
import class Foundation.FileManager
import struct Foundation.UUID
import Testing

@testable import LogStore

@Suite struct RemovalTests {
  private static let fileBytes: UInt64 = 11 << 20

  private func withFile(_ body: (String, LinuxFileSystem, any FileHandle) throws -> Void) throws {
    let path = FileManager.default.temporaryDirectory.path + "/skein-removal-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: path) }
    let system = LinuxFileSystem()
    let file = try system.open(path, .createNew)
    try file.allocate(Self.fileBytes)
    try body(path, system, file)
  }

  @Test func givesBackPieceByPiece() throws {
    try withFile { path, system, file in
      try system.removeLarge(path)
      #expect(!FileManager.default.fileExists(atPath: path))
      #expect(try file.size() == 3 << 20, "the last piece goes with the last handle")
    }
  }

  @Test func whatHasAnotherNameStaysWhole() throws {
    try withFile { path, system, file in
      try file.write([[1, 2, 3]], at: Self.fileBytes - 3)
      let backup = path + ".backup"
      try FileManager.default.linkItem(atPath: path, toPath: backup)
      defer { try? FileManager.default.removeItem(atPath: backup) }
      try system.removeLarge(path)
      #expect(!FileManager.default.fileExists(atPath: path))
      #expect(try file.size() == Self.fileBytes)
      #expect(try file.readExactly(3, at: Self.fileBytes - 3) == [1, 2, 3])
    }
  }

  @Test func aMissingFileIsNamed() throws {
    let path = FileManager.default.temporaryDirectory.path + "/skein-no-such-file"
    let failure = try #require(throws: StorageFailure.self) {
      try LinuxFileSystem().removeLarge(path)
    }
    #expect(failure.isNoSuchFile && failure.path == path)
  }
}
