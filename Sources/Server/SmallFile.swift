// Reading a small file whole: configurations, process ids, what /proc tells. (Foundation would do it
// too, at the price of megabytes in every node.)

import Glibc
import Transport

package enum SmallFile {
  /// All bytes of the file at `path`.
  package static func read(_ path: String) throws(ErrorNumber) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw ErrorNumber(errno) }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = Glibc.read(descriptor, &piece, piece.count)
      if count == 0 { return bytes }
      if count > 0 {
        bytes += piece[..<count]
      } else if errno != EINTR {
        throw ErrorNumber(errno)
      }
    }
  }

  /// `path` from the root, if it is not already.
  package static func absolute(_ path: String) throws(ErrorNumber) -> String {
    if path.hasPrefix("/") { return path }
    // SAFETY: getcwd with a null buffer allocates the result, which is freed here.
    guard let current = getcwd(nil, 0) else { throw ErrorNumber(errno) }
    defer { free(current) }
    return String(cString: current) + "/" + path
  }
}
