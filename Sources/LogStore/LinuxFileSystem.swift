// The real disk: thin over the system calls, retrying only what a signal interrupted.

import Base
import CLinux

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// The texts of error numbers.
enum ErrorText {
  static func of(_ code: Int32) -> String {
    switch code {
    case ENOENT: "no such file or directory"
    case EIO: "input/output error"
    case ENOSPC: "no space left on device"
    case EDQUOT: "disk quota exceeded"
    case EACCES: "permission denied"
    case EPERM: "operation not permitted"
    case EROFS: "read-only file system"
    case EEXIST: "file exists"
    case ENOTDIR: "not a directory"
    case EISDIR: "is a directory"
    case EMFILE: "too many open files"
    case ENFILE: "too many open files in system"
    case EFBIG: "file too large"
    default: "error"
    }
  }
}

/// The file system of this machine.
package final class LinuxFileSystem: FileSystem {
  package init() {}

  package func open(
    _ path: String, _ mode: OpenMode
  ) throws(StorageFailure) -> any FileHandle {
    try openFile(path, mode)
  }

  package func openLog(
    _ path: String, _ mode: OpenMode
  ) throws(StorageFailure) -> any FileHandle {
    let file = try openFile(path, mode)
    return try LinuxLogFile(file) ?? file
  }

  package func openToReadOnce(_ path: String) throws(StorageFailure) -> any FileHandle {
    let file = try openFile(path, .read)
    return try LinuxDirectFile(file) ?? file
  }

  private func openFile(_ path: String, _ mode: OpenMode) throws(StorageFailure) -> LinuxFile {
    let descriptor: Int32 =
      switch mode {
      case .read: skein_open(path, 0, 0, 0)
      case .readWrite: skein_open(path, 1, 0, 0)
      case .createIfMissing: skein_open(path, 1, 1, 0)
      case .createNew: skein_open(path, 1, 1, 1)
      }
    guard descriptor >= 0 else { throw StorageFailure(.open, path, code: -descriptor) }
    return LinuxFile(path: path, descriptor: descriptor)
  }

  package func createDirectory(_ path: String) throws(StorageFailure) {
    var prefix = path.hasPrefix("/") ? "/" : ""
    for part in path.split(separator: "/") {
      prefix += (prefix.isEmpty || prefix == "/" ? "" : "/") + part
      if mkdir(prefix, 0o755) != 0, errno != EEXIST {
        throw StorageFailure(.createDirectory, prefix, code: errno)
      }
    }
  }

  package func list(_ directory: String) throws(StorageFailure) -> [String] {
    guard let stream = opendir(directory) else {
      throw StorageFailure(.list, directory, code: errno)
    }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      // SAFETY: readdir gives an entry whose name ends with a zero byte; it is copied at once.
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  package func rename(_ old: String, to new: String) throws(StorageFailure) {
    #if canImport(Glibc)
      let outcome = Glibc.rename(old, new)
    #else
      let outcome = Musl.rename(old, new)
    #endif
    if outcome != 0 { throw StorageFailure(.rename, old, code: errno) }
  }

  package func remove(_ path: String) throws(StorageFailure) {
    if unlink(path) != 0 { throw StorageFailure(.remove, path, code: errno) }
  }

  // Where the file system passes freed blocks on to the device (mount option `discard`), 64 MiB at once
  // hold up the syncs of all its users for 15 to 20 ms, and 4 MiB for 1 to 2 ms.
  package func removeLarge(_ path: String) throws(StorageFailure) {
    // The name goes first: no crash leaves a file that is shorter than its head says.
    let file = try? openFile(path, .readWrite)
    try remove(path)
    // Under another name it may be somebody's backup.
    guard let file, (try? file.names()) == 0, let bytes = try? file.size() else { return }
    var left = bytes
    while left > Self.removedAtOnce {
      left -= Self.removedAtOnce
      guard (try? file.truncate(to: left)) != nil else { return }
      usleep(Self.removalPauseMicroseconds)
    }
  }

  private static let removedAtOnce: UInt64 = 4 << 20
  private static let removalPauseMicroseconds: UInt32 = 4_000

  package func synchronizeDirectory(_ path: String) throws(StorageFailure) {
    let descriptor = skein_open(path, 0, 0, 0)
    guard descriptor >= 0 else {
      throw StorageFailure(.synchronizeDirectory, path, code: -descriptor)
    }
    defer { close(descriptor) }
    if fsync(descriptor) != 0 { throw StorageFailure(.synchronizeDirectory, path, code: errno) }
  }

  package func lock(_ path: String) throws(StorageFailure) -> LockOutcome {
    let descriptor = skein_open(path, 1, 1, 0)
    guard descriptor >= 0 else { throw StorageFailure(.lock, path, code: -descriptor) }
    let file = LinuxFile(path: path, descriptor: descriptor)
    let outcome = skein_lock_exclusive(descriptor)
    if outcome == -EWOULDBLOCK {
      let text = String(decoding: try file.readUpTo(16, at: 0), as: UTF8.self)
      return .heldByAnother(process: Int32(text.prefix { $0.isNumber }))
    }
    if outcome != 0 { throw StorageFailure(.lock, path, code: -outcome) }
    try file.truncate(to: 0)
    try file.write([Array("\(getpid())\n".utf8)], at: 0)
    return .taken(file)
  }

  package func freeBytes(_ directory: String) throws(StorageFailure) -> UInt64 {
    var figures = statvfs()
    if statvfs(directory, &figures) != 0 {
      throw StorageFailure(.freeSpace, directory, code: errno)
    }
    return UInt64(figures.f_bavail) * UInt64(figures.f_frsize)
  }
}

/// One open file descriptor.
final class LinuxFile: FileHandle, DirectoryLock {
  let path: String
  private let descriptor: Int32

  init(path: String, descriptor: Int32) {
    self.path = path
    self.descriptor = descriptor
  }

  deinit { close(descriptor) }

  func write(_ pieces: [[UInt8]], at offset: UInt64) throws(StorageFailure) {
    var slices: [iovec] = []
    slices.reserveCapacity(pieces.count)
    for piece in pieces where !piece.isEmpty {
      // SAFETY: the pointer is used only while `pieces` lives and nobody changes it (it is a
      // constant, kept alive below); an array's bytes do not move while it is not changed. The
      // call only reads through it.
      let base = piece.withUnsafeBytes { UnsafeMutableRawPointer(mutating: $0.baseAddress) }
      slices.append(iovec(iov_base: base, iov_len: piece.count))
    }
    try withExtendedLifetime(pieces) { () throws(StorageFailure) in
      try writeAll(&slices, at: offset)
    }
  }

  func write(_ bytes: [UInt8], at offset: UInt64) throws(StorageFailure) {
    let failure = bytes.withUnsafeBytes { bytes -> StorageFailure? in
      do throws(StorageFailure) {
        // SAFETY: `write(from:)` only reads through the pointer.
        try write(from: UnsafeMutableRawBufferPointer(mutating: bytes), at: offset)
        return nil
      } catch {
        return error
      }
    }
    if let failure { throw failure }
  }

  /// As the others; the bytes are only read.
  func write(
    from bytes: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(StorageFailure) {
    var done = 0
    while done < bytes.count {
      let rest = UnsafeMutableRawBufferPointer(rebasing: bytes[done...])
      var slice = iovec(iov_base: rest.baseAddress, iov_len: rest.count)
      let written = Int(skein_write_at(descriptor, &slice, 1, Int64(offset) + Int64(done)))
      if written == -Int(EINTR) { continue }
      guard written > 0 else { throw noneWritten(written) }
      done += written
    }
  }

  /// - Parameter outcome: of a write of one byte or more: -errno, or 0, which would go on for ever.
  private func noneWritten(_ outcome: Int) -> StorageFailure {
    StorageFailure(
      .write, path, code: Int32(-outcome), detail: outcome == 0 ? "nothing was written" : "")
  }

  private func writeAll(_ slices: inout [iovec], at start: UInt64) throws(StorageFailure) {
    var offset = start
    var next = 0
    while next < slices.count {
      let count = min(slices.count - next, 1024)
      var written = Int(
        slices[next...].withUnsafeBufferPointer {
          skein_write_at(descriptor, $0.baseAddress, Int32(count), Int64(offset))
        })
      if written == -Int(EINTR) { continue }
      guard written > 0 else { throw noneWritten(written) }
      offset += UInt64(written)
      while next < slices.count, written >= slices[next].iov_len {
        written -= slices[next].iov_len
        next += 1
      }
      if written > 0 {
        slices[next].iov_base = slices[next].iov_base.map { $0 + written }
        slices[next].iov_len -= written
      }
    }
  }

  func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(StorageFailure) -> Int {
    var filled = 0
    while filled < buffer.count, let base = buffer.baseAddress {
      // SAFETY: reads into the part of `buffer` that is not filled yet.
      let got = Int(
        skein_read_at(
          descriptor, base + filled, buffer.count - filled, Int64(offset) + Int64(filled)))
      if got == -Int(EINTR) { continue }
      guard got >= 0 else { throw StorageFailure(.read, path, code: Int32(-got)) }
      if got == 0 { break }
      filled += got
    }
    return filled
  }

  /// Whether the page cache has all of these bytes. Of a file that this process neither owns nor may
  /// write the system says so always.
  func isCached(_ count: Int, at offset: UInt64) -> Bool {
    skein_is_cached(descriptor, Int64(offset), Int64(count)) != 0
  }

  func willRead(_ bytes: UInt64, at offset: UInt64) {
    skein_will_read(descriptor, Int64(clamping: offset), Int64(clamping: bytes))
  }

  func willNotRead(_ bytes: UInt64, at offset: UInt64) {
    skein_will_not_read(descriptor, Int64(clamping: offset), Int64(clamping: bytes))
  }

  func synchronize() throws(StorageFailure) {
    if fdatasync(descriptor) != 0 { throw StorageFailure(.synchronize, path, code: errno) }
  }

  func allocate(_ bytes: UInt64) throws(StorageFailure) {
    while true {
      let outcome = skein_allocate(descriptor, Int64(bytes))
      if outcome == -EINTR { continue }
      if outcome != 0 { throw StorageFailure(.allocate, path, code: -outcome) }
      return
    }
  }

  func truncate(to bytes: UInt64) throws(StorageFailure) {
    if ftruncate(descriptor, off_t(bytes)) != 0 {
      throw StorageFailure(.truncate, path, code: errno)
    }
  }

  func size() throws(StorageFailure) -> UInt64 { UInt64(try status().st_size) }

  /// Names that it has in the file system.
  func names() throws(StorageFailure) -> Int { Int(try status().st_nlink) }

  private func status() throws(StorageFailure) -> stat {
    var status = stat()
    if fstat(descriptor, &status) != 0 { throw StorageFailure(.size, path, code: errno) }
    return status
  }
}
