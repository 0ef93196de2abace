// A file system of a node's own: ext4 in a file, mounted where the node's data is. It can be small, and its
// power can fail. Needs root and loop devices.

import Base
import Glibc

struct NodeDisk: Sendable {
  /// The file that it is in.
  let image: String
  /// Where it is mounted.
  let directory: String

  /// Of ext4, by the kernel's fs/ext4/ext4.h: `_IOR('X', 125, __u32)`. The file system ends at once:
  /// nothing more is written, its journal neither.
  private static let shutdownRequest: UInt = 0x8004_587d
  private static let withoutFlushing: UInt32 = 2
  /// The number of loop devices' driver.
  private static let loopMajor: dev_t = 7

  /// A process that was just killed may hold it for a moment.
  private static let unmountMax = Duration.seconds(10)

  /// Makes and mounts an empty one.
  func make(bytes: UInt64) throws(ChaosError) {
    guard geteuid() == 0 else {
      throw ChaosError("a file system for each node needs root")
    }
    try ClusterFiles.makeDirectory(directory)
    try ClusterFiles.write("", to: image)
    guard truncate(image, off_t(bytes)) == 0 else { throw .system(image) }
    try run(["mkfs.ext4", "-q", "-F", "-m", "0", image])
    try mount()
    // A data directory is the node's alone.
    rmdir("\(directory)/lost+found")
  }

  func mount() throws(ChaosError) { try run(["mount", "-o", "loop", image, directory]) }

  /// What was not synced is gone, as if the machine had lost its power. The node does not run, and the
  /// file system is not mounted any more.
  func losePower() throws(ChaosError) {
    let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .system(directory) }
    // Or it would be the machine's own file system that ends.
    guard isOwn(descriptor) else {
      close(descriptor)
      throw ChaosError("\(directory) is no file system of its own")
    }
    var flag = Self.withoutFlushing
    // SAFETY: the request reads the 32 bits of the flag, which outlives the call.
    let result = ioctl(descriptor, Self.shutdownRequest, &flag)
    let reason = errno
    close(descriptor)
    guard result == 0 else {
      let cause = String(cString: strerror(reason))
      throw ChaosError("the power of \(directory) cannot fail: \(cause)")
    }
    try unmount()
  }

  /// On a loop device, and not the one that the directory above is on.
  private func isOwn(_ descriptor: Int32) -> Bool {
    var own = stat()
    var above = stat()
    guard fstat(descriptor, &own) == 0, stat(directory + "/..", &above) == 0 else { return false }
    return own.st_dev != above.st_dev && (own.st_dev >> 8) & 0xfff == Self.loopMajor
  }

  /// Not lazily: what is still mounted somewhere would go on with what it has in memory.
  private func unmount() throws(ChaosError) {
    let start = ContinuousClock.now
    while umount2(directory, 0) != 0 {
      guard errno == EBUSY, ContinuousClock.now - start < Self.unmountMax else {
        throw .system(directory)
      }
      usleep(1000)
    }
  }

  /// For the end: it may not be mounted, or never have been. The file stays.
  func detach() {
    _ = umount2(directory, Int32(MNT_DETACH))
  }

  private func run(_ words: [String]) throws(ChaosError) {
    if let failure = SystemCommand.run(words) {
      throw ChaosError("\(words.joined(separator: " ")): \(failure)")
    }
  }
}
