// Damage to a node's data: done to the files of a node that does not run, as a disk that lies would.
// What would change nothing that the node still needs to read is not done, and not counted.

import Base
import Glibc

enum DiskFaults {
  private static let blockBytes = 4096

  /// Turns one bit of a record of the log.
  /// - Returns: what was done, for people; nil if there is no record.
  static func flip(in directory: String, draw: UInt64) throws(ChaosError) -> String? {
    var random = SeededRandom(seed: draw)
    guard let segment = try written(in: directory).randomElement(using: &random) else { return nil }
    // Drawn by bytes: long records are as likely to be met as they are long.
    var place = Int.random(in: 0..<segment.records.reduce(0) { $0 + $1.count }, using: &random)
    guard
      let record = segment.records.first(where: { record in
        if place < record.count { return true }
        place -= record.count
        return false
      })
    else { return nil }
    let offset = record.lowerBound + place
    guard let byte = try ClusterFiles.read(segment.path, from: offset, count: 1).first else {
      return nil
    }
    let bit = UInt8.random(in: 0...7, using: &random)
    try overwrite(segment.path, at: offset, with: [byte ^ (1 << bit)])
    return "bit \(bit) of byte \(offset) of \(name(segment.path))"
  }

  /// Cuts a file of the log short, so that records are lost.
  /// - Returns: as `flip`.
  static func truncate(in directory: String, draw: UInt64) throws(ChaosError) -> String? {
    var random = SeededRandom(seed: draw)
    guard let segment = try written(in: directory).randomElement(using: &random) else { return nil }
    let size = try size(of: segment.path)
    let left = Int.random(in: 0..<segment.end, using: &random)
    guard Glibc.truncate(segment.path, off_t(left)) == 0 else { throw .system(segment.path) }
    return "\(name(segment.path)) cut from \(size) to \(left) bytes"
  }

  /// A file of the log as it is now.
  struct OldFile {
    let path: String
    let bytes: [UInt8]
  }

  /// As much of what was written since is made undone, at most.
  private static let staleBytesMax = 64 << 10

  /// Remembers the file that a running node writes its log to: what will be written there is what
  /// `putBack` makes undone, as a disk that lost writes it had promised.
  /// - Returns: nil if there is no log.
  static func remember(in directory: String) throws(ChaosError) -> OldFile? {
    var newest: (path: String, segment: UInt64, bytes: [UInt8])?
    for path in try segments(in: directory) {
      let bytes = try ClusterFiles.read(path)
      guard let file = SegmentFile(path, bytes), file.number >= newest?.segment ?? 0 else {
        continue
      }
      newest = (path, file.number, bytes)
    }
    return newest.map { OldFile(path: $0.path, bytes: $0.bytes) }
  }

  /// Puts blocks back that were written since, from the first one on. The head stays: with an old one
  /// the whole file would be of another life.
  /// - Returns: as `flip`; nil if nothing was written that the node needs.
  static func putBack(_ old: OldFile) throws(ChaosError) -> String? {
    guard access(old.path, F_OK) == 0 else { return nil }
    let bytes = try ClusterFiles.read(old.path)
    guard let now = SegmentFile(old.path, bytes) else { return nil }
    // Behind the end nobody reads.
    let ends = min(now.end, bytes.count, old.bytes.count)
    guard
      let first = stride(from: SegmentFile.headBytes, to: ends, by: blockBytes).first(where: {
        let block = $0..<min($0 + blockBytes, ends)
        return bytes[block] != old.bytes[block]
      })
    else { return nil }
    let stale =
      first..<min(
        first + staleBytesMax, (ends + blockBytes - 1) & ~(blockBytes - 1), old.bytes.count)
    try overwrite(old.path, at: first, with: Array(old.bytes[stale]))
    return "\(stale.count) bytes of \(name(old.path)) from \(first) on are old again"
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

  /// Those with records, ascending.
  private static func written(in directory: String) throws(ChaosError) -> [SegmentFile] {
    var files: [SegmentFile] = []
    for path in try segments(in: directory) {
      if let file = SegmentFile(path, try ClusterFiles.read(path)) { files.append(file) }
    }
    return files
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
