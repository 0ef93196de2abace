// A socket that others connect to.

import Base
import CLinux
import Glibc

/// Why nobody can connect to an address of ours.
package enum ListenError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Another process (or another listener of this one) has the port.
  case addressInUse(SocketAddress)
  /// The address is none of this machine's.
  case cannotAssign(SocketAddress)
  /// Ports below 1024 need a privilege.
  case permissionDenied(SocketAddress)
  /// Anything else: no descriptors, an address family that the kernel lacks, ….
  case failed(SocketAddress, ErrorNumber)

  init(_ address: SocketAddress, _ error: ErrorNumber) {
    switch error.rawValue {
    case EADDRINUSE: self = .addressInUse(address)
    case EADDRNOTAVAIL: self = .cannotAssign(address)
    case EACCES: self = .permissionDenied(address)
    default: self = .failed(address, error)
    }
  }

  package var description: String {
    switch self {
    case .addressInUse(let address): "cannot listen on \(address): the address is in use"
    case .cannotAssign(let address):
      "cannot listen on \(address): no interface of this machine has that address"
    case .permissionDenied(let address): "cannot listen on \(address): permission denied"
    case .failed(let address, let error): "cannot listen on \(address): \(error)"
    }
  }
}

/// What came of accepting.
package enum AcceptOutcome: Hashable, Sendable {
  /// Nobody is waiting any more.
  case drained
  /// As many as asked for were accepted; perhaps more are waiting.
  case more
  /// The process or the machine has no descriptors (or memory) left. So many of those who waited
  /// were accepted and closed at once, so that they know; if none, they still wait and the event
  /// comes back: drop the `.read` interest for a while.
  case outOfDescriptors(refused: Int)
}

/// A listening TCP socket. Belongs to one thread; closed when it is released.
package final class Listener {
  package let descriptor: Int32
  /// Where it listens: with the real port if it was asked for port 0.
  package let address: SocketAddress

  /// Held open so that, when there are no descriptors left, giving it back allows to accept and
  /// close those who wait, instead of leaving them there and being woken for them for ever.
  private var reserve: Int32
  /// accept4(2): fills in the peer, returns a descriptor or -1 with `errno`. Tests replace it.
  var acceptCall: (Int32) -> (result: Int32, address: SocketAddress?) = { listener in
    SocketAddress.asking { skein_accept(listener, $0, $1) }
  }

  /// Binds and listens. `backlog`: connections that may wait to be accepted.
  package init(_ wanted: SocketAddress, backlog: Int = 1024) throws(ListenError) {
    let descriptor: Int32
    do {
      descriptor = try openSocket(family: wanted.family)
    } catch {
      throw ListenError(wanted, error)
    }
    // A restarted node takes its port back though old connections linger in TIME_WAIT.
    setOption(descriptor, SOL_SOCKET, SO_REUSEADDR, 1)
    var result = wanted.withSystemAddress { bind(descriptor, $0, $1) }
    if result == 0 { result = listen(descriptor, Int32(clamping: backlog)) }
    guard result == 0, let address = SocketAddress.local(of: descriptor) else {
      let error = ErrorNumber.current
      closeDescriptor(descriptor)
      throw ListenError(wanted, error)
    }
    self.descriptor = descriptor
    self.address = address
    reserve = Listener.openReserve()
  }

  deinit {
    closeDescriptor(descriptor)
    if reserve >= 0 { closeDescriptor(reserve) }
  }

  /// Accepts at most `limit` connections and appends them to `accepted`.
  package func accept(
    limit: Int, options: ConnectionOptions = ConnectionOptions(), pool: BufferPool,
    now: MonotonicTime, into accepted: inout [Connection]
  ) -> AcceptOutcome {
    var count = 0
    while count < limit {
      let (descriptor, address) = acceptCall(self.descriptor)
      if descriptor >= 0 {
        count += 1
        // Without a peer's address there is no peer: it left while it waited.
        guard let address else {
          closeDescriptor(descriptor)
          continue
        }
        accepted.append(
          Connection(
            adopting: descriptor, peer: address, options: options, pool: pool, now: now))
        continue
      }
      switch errno {
      case EAGAIN: return .drained
      case EMFILE, ENFILE, ENOBUFS, ENOMEM: return .outOfDescriptors(refused: refuse(limit - count))
      default:
        // Linux hands the network errors of a connection that broke while it waited to accept(2):
        // that one is gone, the next may be well. Counted, so that nothing can spin here.
        invariant(errno != EBADF && errno != EINVAL, "cannot accept: \(ErrorNumber.current)")
        count += 1
      }
    }
    return .more
  }

  /// Accepts and closes at most `limit` connections by means of the reserve descriptor.
  private func refuse(_ limit: Int) -> Int {
    if reserve < 0 { reserve = Listener.openReserve() }
    var refused = 0
    while reserve >= 0, refused < limit {
      closeDescriptor(reserve)
      let (descriptor, _) = acceptCall(self.descriptor)
      if descriptor >= 0 { closeDescriptor(descriptor) }
      reserve = Listener.openReserve()
      if descriptor < 0 { break }
      refused += 1
    }
    return refused
  }

  /// -1 if there is no descriptor left.
  private static func openReserve() -> Int32 {
    open("/dev/null", O_RDONLY | O_CLOEXEC)
  }
}
