// Damage to a node's data: done to the files of a node that does not run, as a disk that lies would.
// What would change nothing that the node still needs to read is not done, and not counted.

import Base
import Glibc

enum DiskFaults {
  private static let blockBytes = 4096

  /// What was done to a file.
  struct Damage: Equatable {
    /// For people.
    let text: String
    /// Nothing says any more whose data the directory holds.
    var isOfIdentity = false
    /// The log said before that what is harmed was synced: it must not be taken for a torn tail.
    var mustBeFound = false
  }

  /// Turns one bit of a record of the log, or of what another file says.
  /// - Returns: nil if there is nothing to be harmed.
  static func flip(in directory: String, draw: UInt64) throws(ChaosError) -> Damage? {
    var random = SeededRandom(seed: draw)
    guard let victim = try victim(in: directory, &random) else { return nil }
    // Drawn by bytes: long records are as likely to be met as they are long.
    var place = Int.random(in: 0..<victim.parts.reduce(0) { $0 + $1.count }, using: &random)
    guard
      let part = victim.parts.first(where: { part in
        if place < part.count { return true }
        place -= part.count
        return false
      })
    else { return nil }
    let offset = part.lowerBound + place
    guard let byte = try ClusterFiles.read(victim.path, from: offset, count: 1).first else {
      return nil
    }
    let bit = UInt8.random(in: 0...7, using: &random)
    try overwrite(victim.path, at: offset, with: [byte ^ (1 << bit)])
    return Damage(
      text: "bit \(bit) of byte \(offset) of \(name(victim.path))",
      isOfIdentity: victim.isIdentity, mustBeFound: offset < victim.syncedEnd)
  }

  /// Cuts a file short, so that some of what it says is lost.
  /// - Returns: as `flip`.
  static func truncate(in directory: String, draw: UInt64) throws(ChaosError) -> Damage? {
    var random = SeededRandom(seed: draw)
    guard let victim = try victim(in: directory, &random) else { return nil }
    let size = try size(of: victim.path)
    let left = Int.random(in: 0..<victim.end, using: &random)
    guard Glibc.truncate(victim.path, off_t(left)) == 0 else { throw .system(victim.path) }
    return Damage(
      text: "\(name(victim.path)) cut from \(size) to \(left) bytes",
      isOfIdentity: victim.isIdentity, mustBeFound: left < victim.syncedEnd)
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
  static func putBack(_ old: OldFile) throws(ChaosError) -> Damage? {
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
    return Damage(
      text: "\(stale.count) bytes of \(name(old.path)) from \(first) on are old again")
  }

  static func wipe(_ directory: String) throws(ChaosError) -> Damage {
    try ClusterFiles.removeContents(of: directory)
    return Damage(text: "\(name(directory)) is empty")
  }

  private static let ballast = "ballast"

  /// Fills the file system of `directory` but for `left` bytes.
  static func fill(_ directory: String, leaving left: UInt64) throws(ChaosError) -> String {
    let path = "\(directory)/\(ballast)"
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
    // What was taken is given back, so that it does not matter what the file system keeps for itself.
    if left > 0, ftruncate(descriptor, off_t(max(0, total - Int(left)))) != 0 {
      throw .system(path)
    }
    return "\(ByteCountText.rounded(UInt64(total) - left)) of ballast in \(name(directory))"
      + (left > 0 ? ", \(ByteCountText.rounded(left)) left" : "")
  }

  static func empty(_ directory: String) throws(ChaosError) {
    try ClusterFiles.remove("\(directory)/\(ballast)")
  }

  /// Size and time of the last change of each file but the ballast, by name.
  static func fingerprint(of directory: String) throws(ChaosError) -> [String: String] {
    var prints: [String: String] = [:]
    for file in try ClusterFiles.names(in: directory) where file != ballast {
      var information = stat()
      guard stat("\(directory)/\(file)", &information) == 0 else { continue }
      let time = information.st_mtim
      prints[file] = "\(information.st_size) bytes at \(time.tv_sec).\(time.tv_nsec)"
    }
    return prints
  }

  /// The names of files that are not as they were, ascending.
  static func changes(_ old: [String: String], _ new: [String: String]) -> [String] {
    Set(old.keys).union(new.keys).filter { old[$0] != new[$0] }.sorted()
  }

  // MARK: Victims

  /// A file that can be harmed.
  private struct Victim {
    let path: String
    /// What of it is read when the node starts, or may be later; not empty.
    let parts: [Range<Int>]
    /// Cut here or behind it loses nothing.
    let end: Int
    var isIdentity = false
    /// Of the segment that the log has reached: before this all was synced. 0 of others, which may hold
    /// nothing any more that the node looks at when it starts.
    var syncedEnd = 0
  }

  /// A file of the log every second time, else one of another kind, if there is one.
  private static func victim(
    in directory: String, _ random: inout SeededRandom
  ) throws(ChaosError) -> Victim? {
    let segments = try written(in: directory)
    let newest = segments.map(\.number).max()
    let logs = segments.map {
      Victim(
        path: $0.path, parts: $0.records, end: $0.end,
        syncedEnd: $0.number == newest ? $0.syncedEnd : 0)
    }
    let isOther = Bool.random(using: &random)
    let kinds = try otherKinds(in: directory)
    if isOther || logs.isEmpty, let kind = kinds.randomElement(using: &random) {
      return kind.randomElement(using: &random)
    }
    return logs.randomElement(using: &random)
  }

  /// The files that are not the log's, by kind. docs/data-on-disk.md draws them.
  private static func otherKinds(in directory: String) throws(ChaosError) -> [[Victim]] {
    let names = try ClusterFiles.names(in: directory)
    var kinds: [[Victim]] = []
    for prefix in ["identity", "state", "manifest", "snapshot-", "kept-"] {
      var victims: [Victim] = []
      for name in names where name.hasPrefix(prefix) && !name.hasSuffix(".tmp") {
        let path = "\(directory)/\(name)"
        let size = try size(of: path)
        let parts = parts(of: prefix, bytes: size)
        guard let last = parts.last else { continue }
        victims.append(
          Victim(path: path, parts: parts, end: last.upperBound, isIdentity: prefix == "identity"))
      }
      if !victims.isEmpty { kinds.append(victims) }
    }
    return kinds
  }

  /// Of a file of so many bytes, those that mean something.
  private static func parts(of kind: String, bytes: Int) -> [Range<Int>] {
    let parts =
      switch kind {
      // Four slots, in blocks of which the first bytes are used.
      case "state": (0..<4).map { $0 * blockBytes..<$0 * blockBytes + 128 }
      // The head, in two copies, and what is behind its block.
      case "kept-": [0..<352, 2048..<2400, blockBytes..<max(blockBytes, bytes)]
      default: [0..<bytes]
      }
    return parts.filter { !$0.isEmpty && $0.upperBound <= bytes }
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
