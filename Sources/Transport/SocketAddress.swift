// Where a socket listens or connects to: an IPv4 or IPv6 address and a port, as a plain value.

import Glibc

/// An address and port. Two are equal if all their numbers are.
package struct SocketAddress: Hashable, Sendable, CustomStringConvertible {
  enum Host: Hashable, Sendable {
    /// The address as in `in_addr`: its bytes in network order.
    case ipv4(UInt32)
    /// The 16 bytes of `in6_addr` as two integers in memory order, and the interface of a
    /// link-local address (0: none).
    case ipv6(UInt64, UInt64, scope: UInt32)
  }

  let host: Host
  package let port: UInt16

  /// 127.0.0.1.
  package static func loopback(port: UInt16) -> SocketAddress {
    SocketAddress(host: .ipv4(UInt32(0x7f00_0001).bigEndian), port: port)
  }

  /// `address:port`, IPv6 in brackets: what `init(parsing:)` and `resolve` understand.
  package var description: String {
    switch host {
    case .ipv4: "\(hostText):\(port)"
    case .ipv6: "[\(hostText)]:\(port)"
    }
  }

  private var hostText: String {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(INET6_ADDRSTRLEN)) { text in
      var result: UnsafePointer<CChar>?
      switch host {
      case .ipv4(var bytes):
        result = inet_ntop(AF_INET, &bytes, text.baseAddress, socklen_t(text.count))
      case .ipv6(let high, let low, _):
        var bytes = (high, low)
        result = inet_ntop(AF_INET6, &bytes, text.baseAddress, socklen_t(text.count))
      }
      return result.map { String(cString: $0) } ?? "?"
    }
  }
}

// The form that system calls want.
extension SocketAddress {
  var family: Int32 {
    switch host {
    case .ipv4: AF_INET
    case .ipv6: AF_INET6
    }
  }

  /// Calls `body` with the address as bind(2) and connect(2) take it.
  func withSystemAddress<Result>(
    _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
  ) -> Result {
    switch host {
    case .ipv4(let bytes):
      var system = sockaddr_in()
      system.sin_family = sa_family_t(AF_INET)
      system.sin_port = port.bigEndian
      system.sin_addr.s_addr = bytes
      return SocketAddress.withRebound(&system, body)
    case .ipv6(let high, let low, let scope):
      var system = sockaddr_in6()
      system.sin6_family = sa_family_t(AF_INET6)
      system.sin6_port = port.bigEndian
      system.sin6_scope_id = scope
      withUnsafeMutableBytes(of: &system.sin6_addr) {
        $0.storeBytes(of: high, toByteOffset: 0, as: UInt64.self)
        $0.storeBytes(of: low, toByteOffset: 8, as: UInt64.self)
      }
      return SocketAddress.withRebound(&system, body)
    }
  }

  private static func withRebound<System, Result>(
    _ system: inout System, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
  ) -> Result {
    withUnsafePointer(to: &system) { pointer in
      // SAFETY: every socket address begins as `sockaddr` does; the size says how far it goes.
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        body($0, socklen_t(MemoryLayout<System>.size))
      }
    }
  }

  /// The address that the system filled into `storage`; nil if it is of another family.
  init?(_ storage: sockaddr_storage) {
    var storage = storage
    let family = Int32(storage.ss_family)
    let parsed = withUnsafeBytes(of: &storage) { bytes -> SocketAddress? in
      // SAFETY: `sockaddr_storage` is large enough and aligned for both.
      switch family {
      case AF_INET:
        let system = bytes.load(as: sockaddr_in.self)
        return SocketAddress(
          host: .ipv4(system.sin_addr.s_addr), port: UInt16(bigEndian: system.sin_port))
      case AF_INET6:
        let system = bytes.load(as: sockaddr_in6.self)
        let host = withUnsafeBytes(of: system.sin6_addr) {
          Host.ipv6(
            $0.loadUnaligned(fromByteOffset: 0, as: UInt64.self),
            $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self),
            scope: system.sin6_scope_id)
        }
        return SocketAddress(host: host, port: UInt16(bigEndian: system.sin6_port))
      default: return nil
      }
    }
    guard let parsed else { return nil }
    self = parsed
  }

  /// What `ask` (getsockname, getpeername, accept) fills in, with the call's result.
  static func asking(
    _ ask: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32
  ) -> (result: Int32, address: SocketAddress?) {
    var storage = sockaddr_storage()
    var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let result = withUnsafeMutablePointer(to: &storage) { pointer in
      // SAFETY: `sockaddr_storage` begins as `sockaddr` does, and `size` is its own.
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { ask($0, &size) }
    }
    return (result, result < 0 ? nil : SocketAddress(storage))
  }

  /// The address that `descriptor` is bound to.
  static func local(of descriptor: Int32) -> SocketAddress? {
    asking { getsockname(descriptor, $0, $1) }.address
  }

  /// The address that `descriptor` is connected to.
  static func peer(of descriptor: Int32) -> SocketAddress? {
    asking { getpeername(descriptor, $0, $1) }.address
  }
}
