// What can be set on a connection, and how it reaches the socket.

import Base
import Glibc

/// Settings of a TCP connection. Nagle's delay is always off: frames are gathered here already.
package struct ConnectionOptions: Hashable, Sendable {
  /// Asks a silent peer whether it is still there; nil: never.
  package var keepAlive: KeepAlive?
  /// How long sent bytes may stay unacknowledged by the peer's kernel before the connection breaks
  /// with ETIMEDOUT; nil: the system's, some 15 minutes.
  package var userTimeout: Nanoseconds?
  /// Unsent bytes from which on nothing more is queued; see `Connection.outboundLimit`.
  package var outboundLimit: Int
  /// Unread bytes held at most: the largest frame with its header; see `Connection.unreadMax`.
  package var unreadMax: Int
  /// The kernel's buffer in each direction, bytes; nil: it decides by itself, which is best.
  package var socketBufferBytes: Int?

  package init(
    keepAlive: KeepAlive? = KeepAlive(), userTimeout: Nanoseconds? = nil,
    outboundLimit: Int = 16 << 20, unreadMax: Int = 1 << 20, socketBufferBytes: Int? = nil
  ) {
    self.keepAlive = keepAlive
    self.userTimeout = userTimeout
    self.outboundLimit = outboundLimit
    self.unreadMax = unreadMax
    self.socketBufferBytes = socketBufferBytes
  }

  /// Whole seconds of silence before the first question and between questions, and how many may
  /// stay unanswered.
  package struct KeepAlive: Hashable, Sendable {
    package var idleSeconds: Int
    package var intervalSeconds: Int
    package var probes: Int

    package init(idleSeconds: Int = 30, intervalSeconds: Int = 10, probes: Int = 3) {
      self.idleSeconds = idleSeconds
      self.intervalSeconds = intervalSeconds
      self.probes = probes
    }
  }

  /// Sets what the socket has to know.
  func apply(to descriptor: Int32) {
    let tcp = Int32(IPPROTO_TCP)
    setOption(descriptor, tcp, TCP_NODELAY, 1)
    if let keepAlive {
      setOption(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1)
      setOption(descriptor, tcp, TCP_KEEPIDLE, keepAlive.idleSeconds)
      setOption(descriptor, tcp, TCP_KEEPINTVL, keepAlive.intervalSeconds)
      setOption(descriptor, tcp, TCP_KEEPCNT, keepAlive.probes)
    }
    if let userTimeout {
      setOption(
        descriptor, tcp, TCP_USER_TIMEOUT, Int(Poller.milliseconds(userTimeout)))
    }
    if let socketBufferBytes {
      setOption(descriptor, SOL_SOCKET, SO_SNDBUF, socketBufferBytes)
      setOption(descriptor, SOL_SOCKET, SO_RCVBUF, socketBufferBytes)
    }
  }
}

/// Sets an integer option. A value that the kernel refuses leaves its own default in force, which
/// makes the socket slower to notice things but never wrong; so there is nothing to answer.
func setOption(_ descriptor: Int32, _ level: Int32, _ option: Int32, _ value: Int) {
  var value = Int32(clamping: value)
  _ = setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
}
