// One connection through a proxy: the end that dialled, the end that we dialled for it, and what is
// on its way between them in each direction.

import Base
import Glibc
import Transport

/// One direction of a pipe. Bytes wait here until their time has come and the other end has room.
struct PipeFlow {
  private struct Piece {
    let due: MonotonicTime
    let bytes: [UInt8]
  }

  /// No more is read while so much waits: what the sender has more, it keeps.
  static let bytesMax = 1 << 20

  private var pieces: [Piece] = []
  private var first = 0
  private(set) var waitingBytes = 0
  /// The sender sends nothing more; when all has passed, both ends are closed.
  var hasEnded = false
  private var lastDue = MonotonicTime(rawValue: 0)
  /// Of a throttled link: no byte before.
  private var freeAt = MonotonicTime(rawValue: 0)

  var hasRoom: Bool { waitingBytes < Self.bytesMax }
  var isEmpty: Bool { first == pieces.count }

  mutating func take(
    _ bytes: UnsafeRawBufferPointer, _ rule: LinkRule, now: MonotonicTime,
    random: inout SeededRandom
  ) {
    var due = now + rule.delay
    if rule.jitter > .zero {
      due = due + Nanoseconds(rawValue: .random(in: 0...rule.jitter.rawValue, using: &random))
    }
    lastDue = max(lastDue, due)
    pieces.append(Piece(due: lastDue, bytes: [UInt8](bytes)))
    waitingBytes += bytes.count
  }

  /// When the next piece may go; `never` if there is none.
  func nextDue(_ rule: LinkRule) -> MonotonicTime {
    if isEmpty || rule.isCut { return .never }
    return rule.bytesPerSecond == nil ? pieces[first].due : max(pieces[first].due, freeAt)
  }

  /// Moves what may go now to `sink`.
  mutating func move(to sink: Connection, _ rule: LinkRule, now: MonotonicTime) {
    while !isEmpty, nextDue(rule) <= now, sink.hasRoom {
      let bytes = pieces[first].bytes
      guard sink.append(shared: bytes) else { break }
      waitingBytes -= bytes.count
      first += 1
      if let rate = rule.bytesPerSecond {
        let cost = UInt64(bytes.count) * 1_000_000_000 / max(1, rate)
        freeAt = max(freeAt, now) + Nanoseconds(rawValue: cost)
      }
    }
    if isEmpty {
      pieces.removeAll(keepingCapacity: true)
      first = 0
    }
  }
}

final class ProxyPipe {
  enum State {
    /// The node that dialled has not said who it is.
    case unknown
    /// Nothing passes to the other end: it is not dialled.
    case held
    case connecting
    case open
    /// The node's end was closed; who dialled is left believing that all is well.
    case halfOpen
  }

  let route: ProxyRoute
  /// Who dialled; nil while unknown.
  var from: Party?
  var state: State
  let near: Connection
  var far: Connection?
  var forward = PipeFlow()
  var backward = PipeFlow()
  /// The poller does not watch an end that broke while it may not be told to the other one.
  var isNearUnwatched = false
  var isFarUnwatched = false

  init(route: ProxyRoute, near: Connection) {
    self.route = route
    self.near = near
    from = route.kind == .clients ? .clients : nil
    state = route.kind == .clients ? .held : .unknown
  }

  /// Who dialled to the node; nil while that is unknown.
  var link: Link? { from.map { Link(from: $0, to: .node(route.node)) } }
  /// What comes back.
  var returnLink: Link? { from.map { Link(from: .node(route.node), to: $0) } }

  /// Closes both ends.
  /// - Parameter abruptly: as a reset, which loses what is on its way.
  func close(abruptly: Bool) {
    for connection in [near, far].compactMap({ $0 }) where !connection.isClosed {
      if abruptly { Self.resetsWhenClosed(connection.descriptor) }
      connection.close()
    }
  }

  static func resetsWhenClosed(_ descriptor: Int32) {
    var setting = linger(l_onoff: 1, l_linger: 0)
    // Where it fails, the connection ends in order instead, which is harmless.
    _ = setsockopt(
      descriptor, SOL_SOCKET, SO_LINGER, &setting, socklen_t(MemoryLayout<linger>.size))
  }
}
