// The first eight bytes on every connection, by which a stranger is told apart before any length
// field is believed: a browser, a TLS hello or an AMQP client on the wrong port gets one readable
// line of text and is closed.
//
//   offset size
//        0    5  "SKEIN"
//        5    1  0
//        6    1  protocol version
//        7    1  'C' from a client, 'P' from a peer

/// Who speaks on a connection, or why it is refused.
package enum Preamble: Equatable, Sendable {
  /// All bytes so far fit, but fewer than `byteCount` have come.
  case incomplete
  case client
  case peer
  /// Skein, but of a protocol version that this build does not speak.
  case unknownVersion(UInt8)
  /// Another protocol, named as well as can be told.
  case foreign(ForeignProtocol)

  package enum ForeignProtocol: String, Equatable, Sendable {
    case http = "HTTP"
    case tls = "TLS"
    case amqp = "AMQP"
    case unknown = "what you sent"
  }

  package static let byteCount = 8
  package static let version: UInt8 = 1
  package static let clientBytes: [UInt8] = magic + [version, UInt8(ascii: "C")]
  package static let peerBytes: [UInt8] = magic + [version, UInt8(ascii: "P")]

  private static let magic: [UInt8] = [0x53, 0x4b, 0x45, 0x49, 0x4e, 0]

  /// Judges what a connection sent first; bytes behind the preamble are not looked at.
  package init(reading bytes: UnsafeRawBufferPointer) {
    let known = min(bytes.count, Self.magic.count)
    guard bytes.prefix(known).elementsEqual(Self.magic.prefix(known)) else {
      self = .foreign(Self.foreignProtocol(of: bytes))
      return
    }
    guard bytes.count >= Self.byteCount else {
      self = .incomplete
      return
    }
    switch (bytes[6], bytes[7]) {
    case (Self.version, UInt8(ascii: "C")): self = .client
    case (Self.version, UInt8(ascii: "P")): self = .peer
    case (Self.version, _): self = .foreign(.unknown)
    case (let version, _): self = .unknownVersion(version)
    }
  }

  /// The line to send to one who is refused, before the connection is closed; nil for the welcome.
  package var refusalLine: String? {
    switch self {
    case .incomplete, .client, .peer:
      return nil
    case .unknownVersion(let version):
      return "skein: protocol version \(version) is not spoken here, only \(Self.version)\r\n"
    case .foreign(.http):
      // A status line is one readable line too, and a browser shows it.
      return "HTTP/1.0 400 This port speaks the Skein protocol, not HTTP\r\n\r\n"
    case .foreign(let foreign):
      return "skein: this port speaks the Skein protocol, not \(foreign.rawValue)\r\n"
    }
  }

  private static func foreignProtocol(of bytes: UnsafeRawBufferPointer) -> ForeignProtocol {
    if bytes.starts(with: [0x16, 0x03]) || (bytes.count == 1 && bytes[0] == 0x16) { return .tls }
    if bytes.starts(with: "AMQP".utf8) { return .amqp }
    let methods = ["GET ", "POST ", "HEAD ", "PUT ", "OPTIONS ", "DELETE ", "CONNECT ", "PRI "]
    let isHTTP = methods.contains { method in
      let shared = min(bytes.count, method.utf8.count)
      return shared >= 3 && bytes.prefix(shared).elementsEqual(method.utf8.prefix(shared))
    }
    return isHTTP ? .http : .unknown
  }
}
