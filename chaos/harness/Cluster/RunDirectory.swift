// The directory of a run: its nodes' configurations, data and logs. While the run lives it holds a lock
// there; what is not locked any more was left by a harness that was killed, and goes when the next run begins.

import Glibc

struct RunDirectory: ~Copyable {
  let path: String
  private let lock: Int32

  private static let prefix = "skein-chaos-"
  /// Locked for as long as the run lives. Its name is given once it is.
  private static let lockName = "running"

  /// A new one in `parent`.
  init(in parent: String) throws(ChaosError) {
    let path = try ClusterFiles.makeTemporaryDirectory(in: parent, prefix: Self.prefix)
    lock = try Self.makeLock("\(path)/\(Self.lockName)")
    self.path = path
  }

  private static func makeLock(_ file: String) throws(ChaosError) -> Int32 {
    let lock = open(file + ".new", O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
    guard lock >= 0 else { throw .system(file) }
    guard flock(lock, LOCK_EX | LOCK_NB) == 0, rename(file + ".new", file) == 0 else {
      close(lock)
      throw .system(file)
    }
    return lock
  }

  deinit { close(lock) }

  /// The run is over, and what is here is for people: no other run removes it.
  func keep() throws(ChaosError) { try Self.keep(path) }

  static func keep(_ path: String) throws(ChaosError) {
    try ClusterFiles.remove("\(path)/\(lockName)")
  }

  func remove() throws(ChaosError) { try ClusterFiles.remove(path) }

  /// Removes what runs of this user's left in `parent` that were killed.
  /// - Returns: what could not be removed, and why: no reason not to begin.
  static func removeRemains(in parent: String) -> [ChaosError] {
    var failures: [ChaosError] = []
    do throws(ChaosError) {
      for name in try ClusterFiles.names(in: parent) where name.hasPrefix(prefix) {
        do throws(ChaosError) {
          try removeIfLeft("\(parent)/\(name)")
        } catch {
          failures.append(error)
        }
      }
    } catch {
      failures.append(error)
    }
    return failures
  }

  private static func removeIfLeft(_ directory: String) throws(ChaosError) {
    var information = stat()
    guard lstat(directory, &information) == 0, information.st_uid == geteuid() else { return }
    let lock = open("\(directory)/\(lockName)", O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
    // None: it is kept, or begins just now.
    if lock < 0 { return }
    defer { close(lock) }
    if flock(lock, LOCK_EX | LOCK_NB) == 0 { try ClusterFiles.remove(directory) }
  }
}
