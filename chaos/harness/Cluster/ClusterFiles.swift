// Files and directories of a run. (Foundation would do it too, at the price of megabytes in the
// binary that every node runs.)

import Glibc

enum ClusterFiles {
  static func names(in directory: String) throws(ChaosError) -> [String] {
    guard let stream = opendir(directory) else { throw .system(directory) }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      // SAFETY: the name ends with a zero within the entry, which lives until the next readdir.
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        String(cString: UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self))
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  /// Makes a directory and those above it, where they are missing.
  static func makeDirectory(_ path: String) throws(ChaosError) {
    if access(path, F_OK) == 0 { return }
    let parent = path.split(separator: "/", omittingEmptySubsequences: false).dropLast()
    if parent.count > 1 { try makeDirectory(parent.joined(separator: "/")) }
    guard mkdir(path, 0o777) == 0 || errno == EEXIST else { throw .system(path) }
  }

  /// A new directory of its own in `parent`.
  static func makeTemporaryDirectory(
    in parent: String, prefix: String = "skein-"
  ) throws(ChaosError) -> String {
    var template = Array("\(parent)/\(prefix)\(String(repeating: "X", count: 6))".utf8CString)
    guard let path = mkdtemp(&template) else { throw .system(parent) }
    return String(cString: path)
  }

  static func write(_ text: String, to path: String) throws(ChaosError) {
    try write(Array(text.utf8), to: path)
  }

  static func write(_ bytes: [UInt8], to path: String) throws(ChaosError) {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw .system(path) }
    defer { close(descriptor) }
    var offset = 0
    while offset < bytes.count {
      // SAFETY: write(2) only reads the bytes from the offset on.
      let count = bytes.withUnsafeBytes {
        Glibc.write(descriptor, $0.baseAddress.map { $0 + offset }, bytes.count - offset)
      }
      guard count >= 0 || errno == EINTR else { throw .system(path) }
      offset += max(0, count)
    }
  }

  /// Up to `count` bytes from `offset` on.
  static func read(
    _ path: String, from offset: Int = 0, count: Int = .max
  ) throws(ChaosError) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .system(path) }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 64 << 10)
    while bytes.count < count {
      let got = pread(
        descriptor, &piece, min(piece.count, count - bytes.count), off_t(offset + bytes.count))
      if got == 0 { break }
      if got > 0 { bytes += piece[..<got] } else if errno != EINTR { throw .system(path) }
    }
    return bytes
  }

  static func copy(_ path: String, to target: String) throws(ChaosError) {
    try write(try read(path), to: target)
  }

  /// Removes a file, or a directory with all that is in it; fine if it is not there. Does not
  /// follow symbolic links.
  static func remove(_ path: String) throws(ChaosError) {
    var information = stat()
    guard lstat(path, &information) == 0 else {
      if errno == ENOENT { return }
      throw .system(path)
    }
    let isDirectory = information.st_mode & S_IFMT == S_IFDIR
    if isDirectory { try removeContents(of: path) }
    guard (isDirectory ? rmdir(path) : unlink(path)) == 0 else { throw .system(path) }
  }

  static func removeContents(of directory: String) throws(ChaosError) {
    for name in try names(in: directory) { try remove("\(directory)/\(name)") }
  }
}
