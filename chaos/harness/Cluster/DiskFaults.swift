// Damage to a node's data: done to the files of a node that does not run, as a disk that lies would.

import Base
import Glibc

enum DiskFaults {
  private static let blockBytes = 4096

  /// Turns one bit in a part of the log that was written.
  /// - Returns: what was done, for people.
  static func flip(in directory: String, draw: UInt64) throws(ChaosError) -> String {
    var random = SeededRandom(seed: draw)
    let files = try segments(in: directory)
    for _ in 0..<200 {
      guard let file = files.randomElement(using: &random) else { break }
      let size = try size(of: file)
      guard size > blockBytes else { continue }
      let offset = Int.random(in: blockBytes..<size, using: &random)
      let around = try ClusterFiles.read(file, from: offset & ~63, count: 64)
      // Where nothing was ever written, nothing can be lost.
      guard around.contains(where: { $0 != 0 }), let byte = around.dropFirst(offset & 63).first
      else { continue }
      let bit = UInt8.random(in: 0...7, using: &random)
      try overwrite(file, at: offset, with: [byte ^ (1 << bit)])
      return "bit \(bit) of byte \(offset) of \(name(file))"
    }
    throw ChaosError("\(directory) has no log to damage")
  }

  /// Cuts a file of the log short.
  static func truncate(in directory: String, draw: UInt64) throws(ChaosError) -> String {
    var random = SeededRandom(seed: draw)
    guard let file = try segments(in: directory).randomElement(using: &random) else {
      throw ChaosError("\(directory) has no log to damage")
    }
    let size = try size(of: file)
    let left = Int.random(in: 0..<max(1, size), using: &random)
    guard Glibc.truncate(file, off_t(left)) == 0 else { throw .system(file) }
    return "\(name(file)) cut from \(size) to \(left) bytes"
  }

  /// A piece of the log as it is now.
  struct OldBlocks {
    let file: String
    let offset: Int
    let bytes: [UInt8]
  }

  /// Remembers the blocks around the end of the log of a running node: what will be written there
  /// is what `putBack` makes undone, as a disk that lost writes it had promised.
  static func remember(in directory: String) throws(ChaosError) -> OldBlocks {
    var newest: (file: String, time: Int)?
    for file in try segments(in: directory) {
      var information = stat()
      guard stat(file, &information) == 0 else { continue }
      let time = information.st_mtim.tv_sec * 1_000_000_000 + information.st_mtim.tv_nsec
      if time > newest?.time ?? -1 { newest = (file, time) }
    }
    guard let file = newest?.file else { throw ChaosError("\(directory) has no log to damage") }
    let bytes = try ClusterFiles.read(file)
    let last = bytes.lastIndex { $0 != 0 } ?? blockBytes
    let offset = max(blockBytes, (last / blockBytes - 1) * blockBytes)
    return OldBlocks(file: file, offset: offset, bytes: Array(bytes[offset...].prefix(64 << 10)))
  }

  static func putBack(_ old: OldBlocks) throws(ChaosError) -> String {
    try overwrite(old.file, at: old.offset, with: old.bytes)
    return "\(old.bytes.count) bytes of \(name(old.file)) from \(old.offset) on are old again"
  }

  static func wipe(_ directory: String) throws(ChaosError) -> String {
    try ClusterFiles.removeContents(of: directory)
    return "\(name(directory)) is empty"
  }

  /// Fills the file system of `directory`.
  static func fill(_ directory: String) throws(ChaosError) -> String {
    let path = directory + "/ballast"
    let descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw .system(path) }
    defer { close(descriptor) }
    let piece = [UInt8](repeating: 0x55, count: 1 << 20)
    var total = 0
    // Smaller pieces at the end, so that really nothing is left.
    for count in [1 << 20, 4096, 64] {
      while true {
        // SAFETY: write(2) only reads, and `count` is at most the array's.
        let written = piece.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, count) }
        if written <= 0 { break }
        total += written
        // A file system that is not the small one that was made for this would be filled whole.
        if total > 8 << 30 { throw ChaosError("\(directory) is not on a small file system") }
      }
    }
    return "\(ByteCountText.rounded(UInt64(total))) of ballast in \(name(directory))"
  }

  static func empty(_ directory: String) throws(ChaosError) {
    try ClusterFiles.remove(directory + "/ballast")
  }

  // MARK: Files

  private static func segments(in directory: String) throws(ChaosError) -> [String] {
    try ClusterFiles.names(in: directory).filter { $0.hasPrefix("segment-") }
      .map { "\(directory)/\($0)" }
  }

  private static func name(_ path: String) -> String {
    String(path.split(separator: "/").suffix(2).joined(separator: "/"))
  }

  private static func size(of file: String) throws(ChaosError) -> Int {
    var information = stat()
    guard stat(file, &information) == 0 else { throw .system(file) }
    return Int(information.st_size)
  }

  private static func overwrite(
    _ file: String, at offset: Int, with bytes: [UInt8]
  ) throws(ChaosError) {
    let descriptor = open(file, O_WRONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .system(file) }
    defer { close(descriptor) }
    // SAFETY: pwrite(2) only reads the bytes.
    let count = bytes.withUnsafeBytes {
      pwrite(descriptor, $0.baseAddress, $0.count, off_t(offset))
    }
    guard count == bytes.count else { throw .system(file) }
  }
}
