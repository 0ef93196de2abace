// From text to addresses: "host:port", "1.2.3.4:port", "[::1]:port".

import Glibc

/// Why a text is not an address, or why a name has none.
package enum AddressError: Error, Hashable, Sendable, CustomStringConvertible {
  /// There is no ":port" at the end.
  case missingPort(String)
  /// What is behind the colon is no number from 0 to 65535.
  case invalidPort(String)
  /// There is nothing before the colon. All interfaces are "0.0.0.0" or "[::]".
  case missingHost(String)
  /// An IPv6 address without brackets: where it ends and the port begins cannot be told.
  case bracketsNeeded(String)
  /// A bracket that is not closed, or closed and not followed by a port.
  case unbalancedBrackets(String)
  /// A name where only a numeric address is allowed.
  case notNumeric(String)
  /// The resolver knows no such name.
  case unknownHost(String)
  /// The resolver could not be asked or did not answer; later it may.
  case resolverFailed(String, reason: String)

  package var description: String {
    switch self {
    case .missingPort(let text): "\"\(text)\" has no port (expected host:port)"
    case .invalidPort(let text): "\"\(text)\" has no port between 0 and 65535"
    case .missingHost(let text):
      "\"\(text)\" has no host (for all interfaces write 0.0.0.0 or [::])"
    case .bracketsNeeded(let text): "\"\(text)\": an IPv6 address needs brackets, [address]:port"
    case .unbalancedBrackets(let text): "\"\(text)\" is not of the form [address]:port"
    case .notNumeric(let text): "\"\(text)\" is not a numeric address"
    case .unknownHost(let host): "host \"\(host)\" is not known"
    case .resolverFailed(let host, let reason): "host \"\(host)\" was not resolved: \(reason)"
    }
  }
}

/// A host, by name or number, and a port, before anything was resolved.
package struct Endpoint: Hashable, Sendable, CustomStringConvertible {
  /// Without brackets.
  package let host: String
  package let port: UInt16

  /// Takes "host:port" apart; looks nothing up.
  package init(parsing text: String) throws(AddressError) {
    let portStart: String.Index
    if text.hasPrefix("[") {
      guard let close = text.firstIndex(of: "]") else { throw .unbalancedBrackets(text) }
      host = String(text[text.index(after: text.startIndex)..<close])
      portStart = text.index(after: close)
      guard portStart < text.endIndex else { throw .missingPort(text) }
      guard text[portStart] == ":" else { throw .unbalancedBrackets(text) }
    } else {
      guard let colon = text.lastIndex(of: ":") else { throw .missingPort(text) }
      host = String(text[..<colon])
      guard !host.contains(":") else { throw .bracketsNeeded(text) }
      portStart = colon
    }
    guard !host.isEmpty else { throw .missingHost(text) }
    let digits = text[text.index(after: portStart)...]
    guard !digits.isEmpty else { throw .missingPort(text) }
    guard digits.allSatisfy({ $0.isASCII && $0.isNumber }), let port = UInt16(digits) else {
      throw .invalidPort(text)
    }
    self.port = port
  }

  package var description: String {
    host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
  }
}

extension SocketAddress {
  /// A numeric "1.2.3.4:port" or "[::1]:port"; looks nothing up.
  package init(parsing text: String) throws(AddressError) {
    let endpoint = try Endpoint(parsing: text)
    let found = SocketAddress.lookUp(endpoint, flags: AI_NUMERICHOST)
    guard case .success(let addresses) = found, let first = addresses.first else {
      throw .notNumeric(text)
    }
    self = first
  }

  /// All addresses of "host:port", in the resolver's order, at least one. Blocks while a name is
  /// looked up: not for an event loop's thread, except for numeric addresses.
  package static func resolve(_ text: String) throws(AddressError) -> [SocketAddress] {
    try resolve(Endpoint(parsing: text))
  }

  /// All addresses of `endpoint`, as `resolve(_:)` of its text.
  package static func resolve(_ endpoint: Endpoint) throws(AddressError) -> [SocketAddress] {
    switch lookUp(endpoint, flags: 0) {
    case .success(let addresses):
      guard !addresses.isEmpty else { throw .unknownHost(endpoint.host) }
      return addresses
    case .failure(let failure):
      switch failure.code {
      case EAI_NONAME, noAddressCode: throw .unknownHost(endpoint.host)
      default:
        throw .resolverFailed(endpoint.host, reason: String(cString: gai_strerror(failure.code)))
      }
    }
  }

  /// What getaddrinfo answers instead of addresses.
  private struct LookUpFailure: Error {
    let code: Int32
  }

  /// EAI_NODATA of netdb.h, behind a GNU switch there: the name is known but has no address.
  private static var noAddressCode: Int32 { -5 }

  private static func lookUp(
    _ endpoint: Endpoint, flags: Int32
  ) -> Result<[SocketAddress], LookUpFailure> {
    var hints = addrinfo()
    hints.ai_flags = flags
    hints.ai_family = AF_UNSPEC
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    let code = getaddrinfo(endpoint.host, nil, &hints, &list)
    guard code == 0 else { return .failure(LookUpFailure(code: code)) }
    defer { freeaddrinfo(list) }
    var addresses: [SocketAddress] = []
    var next = list
    while let entry = next {
      if let address = SocketAddress(entry.pointee, port: endpoint.port),
        !addresses.contains(address)
      {
        addresses.append(address)
      }
      next = entry.pointee.ai_next
    }
    return .success(addresses)
  }

  private init?(_ entry: addrinfo, port: UInt16) {
    guard let system = entry.ai_addr else { return nil }
    var storage = sockaddr_storage()
    let size = min(Int(entry.ai_addrlen), MemoryLayout<sockaddr_storage>.size)
    // SAFETY: the resolver says how many bytes its address has; `storage` has room for `size`.
    withUnsafeMutableBytes(of: &storage) {
      $0.copyMemory(from: UnsafeRawBufferPointer(start: system, count: size))
    }
    guard let found = SocketAddress(storage) else { return nil }
    self.init(host: found.host, port: port)
  }
}
