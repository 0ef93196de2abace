// What the harness does to the bytes between two parties. Every direction has its own rule.

import Base

/// An end of a link.
package enum Party: Hashable, Sendable {
  case node(Int)
  /// All clients together.
  case clients
}

/// The way from one party to another. What goes back has a link of its own.
package struct Link: Hashable, Sendable {
  package let from: Party
  package let to: Party

  package init(from: Party, to: Party) {
    self.from = from
    self.to = to
  }
}

package struct LinkRule: Equatable, Sendable {
  /// Nothing passes, and nobody is told: not even that the other end is gone.
  package var isCut = false
  /// Added to the time that bytes take.
  package var delay = Nanoseconds.zero
  /// Up to so much more, drawn anew for each piece; the order stays.
  package var jitter = Nanoseconds.zero
  package var bytesPerSecond: UInt64?
  /// Percent of packets that get lost, that come twice, that overtake those before them; only in network
  /// namespaces.
  package var lossPercent = 0.0
  package var duplicatePercent = 0.0
  package var reorderPercent = 0.0

  package init() {}

  package static var cut: LinkRule {
    var rule = LinkRule()
    rule.isCut = true
    return rule
  }

  /// Both rules at once.
  mutating func add(_ other: LinkRule) {
    isCut = isCut || other.isCut
    delay = max(delay, other.delay)
    jitter = max(jitter, other.jitter)
    bytesPerSecond = [bytesPerSecond, other.bytesPerSecond].compactMap { $0 }.min()
    lossPercent = max(lossPercent, other.lossPercent)
    duplicatePercent = max(duplicatePercent, other.duplicatePercent)
    reorderPercent = max(reorderPercent, other.reorderPercent)
  }
}

/// Where a proxy listens and whom it stands for.
package struct ProxyRoute: Hashable, Sendable {
  package enum Kind: Hashable, Sendable {
    /// Who dials says so in its first bytes.
    case peers
    case clients
  }

  package let node: Int
  package let kind: Kind
  /// Where everybody looks for the node.
  package let listen: String
  /// Where it really is.
  package let target: String

  package init(node: Int, kind: Kind, listen: String, target: String) {
    self.node = node
    self.kind = kind
    self.listen = listen
    self.target = target
  }
}

/// Reads who dials out of the first bytes of a connection between nodes: the preamble, the head of
/// the first frame, and the node's number, which is the introduction's first field. A test holds
/// this against the real codec.
enum PeerHello {
  private static let preambleBytes = 8
  private static let frameHeadBytes = 20
  static let byteCount = preambleBytes + frameHeadBytes + 4

  /// nil while too little has come.
  static func node(in bytes: UnsafeRawBufferPointer) -> Int? {
    guard bytes.count >= byteCount else { return nil }
    let number = bytes.loadUnaligned(
      fromByteOffset: preambleBytes + frameHeadBytes, as: UInt32.self)
    return Int(UInt32(littleEndian: number))
  }
}
