// The few things that a local cluster does with files and directories.

import Glibc

enum Files {
  static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  /// The names in a directory, without `.` and `..`, in order.
  static func names(in directory: String) throws -> [String] {
    guard let stream = opendir(directory) else { throw Failure.system(directory) }
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
  static func makeDirectory(_ path: String) throws {
    if exists(path) { return }
    let parent = path.split(separator: "/", omittingEmptySubsequences: false).dropLast()
    if parent.count > 1 { try makeDirectory(parent.joined(separator: "/")) }
    guard mkdir(path, 0o777) == 0 || errno == EEXIST else { throw Failure.system(path) }
  }

  /// Replaces the file as a whole, so that nobody reads half of it.
  static func write(_ text: String, to path: String) throws {
    let draft = path + ".new"
    let descriptor = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw Failure.system(draft) }
    let bytes = Array(text.utf8)
    let count = Glibc.write(descriptor, bytes, bytes.count)
    let failure = count == bytes.count ? nil : Failure.system(draft)
    close(descriptor)
    if let failure { throw failure }
    guard rename(draft, path) == 0 else { throw Failure.system(path) }
  }

  /// The beginning of a file, at most 64 KiB.
  static func read(_ path: String) throws -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw Failure.system(path) }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 65_536)
    let count = Glibc.read(descriptor, &bytes, bytes.count)
    guard count >= 0 else { throw Failure.system(path) }
    return Array(bytes[..<count])
  }

  static func secondsSince1970() -> UInt64 { UInt64(max(0, time(nil))) }

  /// Removes a file, or a directory with all that is in it; fine if it is not there. Does not
  /// follow symbolic links.
  static func remove(_ path: String) throws {
    var information = stat()
    guard lstat(path, &information) == 0 else {
      if errno == ENOENT { return }
      throw Failure.system(path)
    }
    let isDirectory = information.st_mode & S_IFMT == S_IFDIR
    if isDirectory {
      for name in try names(in: path) { try remove("\(path)/\(name)") }
    }
    guard (isDirectory ? rmdir(path) : unlink(path)) == 0 else { throw Failure.system(path) }
  }
}
